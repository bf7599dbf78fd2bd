//! Workers without lanes, as many as are wanted: each has a connection of its own, speaks the fleet's protocol and
//! delivers rows of latency that nobody measured.
//!
//! For the suites that ask what a fleet costs its coordinator. What a worker says, how often and in which order is
//! what the real one does; only load is not sent, and the rows say so (no attempt was executed). Law: what a member
//! says that it sent and was told is safe is what it sent and was told.

mod member;
mod rows;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;
use vst_common::clock::{SECOND_NS, WallNs, wall_ns};
use vst_common::entry::Control;
use vst_common::latency::Hdr;

pub use member::{Credentials, Member, connect, put, session};
pub use rows::{REQUESTS, ROWS, delivery, opening};

use crate::cluster::Servers;
use crate::command::{finish_within, project, vst};
use crate::course::{controls, ended};
use crate::fleet::Fleet;
use crate::run::Results;
use crate::sparse;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(300);
/// Time between two looks at what the coordinator has taken of the machine.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A crowd's run and what it cost.
#[derive(Debug)]
pub struct Crowd {
    /// Who took part.
    pub members: Vec<Member>,
    /// Exit code of the coordinator, and what it said.
    pub code: i32,
    /// What the coordinator said.
    pub said: String,
    /// CPU time that the coordinator took while the members measured, in cores.
    pub cores: f64,
    /// CPU time of the coordinator from its start to its end, seconds.
    pub cpu_seconds: f64,
    /// The most memory that the coordinator had resident, bytes.
    pub resident_bytes: u64,
    /// From putting a batch on the stream to its acknowledgement.
    pub acknowledged: Hdr,
    /// The run directory.
    pub run_dir: String,
}

/// Every connection is an open file.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("files may be opened");
}

impl Crowd {
    /// A run of so many workers that measure for so many seconds.
    pub async fn run(results: &Results, workers: u32, seconds: u32) -> Self {
        raise_open_files();
        let servers = Servers::without_search().await;
        let scenario = project().join("tests/scenarios/crowd.yaml");
        let rate = u64::from(workers) * u64::from(ROWS) * REQUESTS;
        let load =
            format!("phases.measure.kv.load={{open: {{rate: {rate}/s, connections: {}}}}}", workers.max(8));
        let sets = [load, format!("phases.measure.kv.duration={seconds}s")];
        let scenario = scenario.to_str().expect("text");
        let sets = sets.each_ref().map(String::as_str);
        let mut fleet = Fleet::start_scenario(results, &servers.url(), scenario, &sets, |command| {
            command.args(["--workers", &workers.to_string()]);
        });
        let address = tokio::time::timeout(LIMIT, fleet.address()).await;
        let address = address.unwrap_or_else(|_| panic!("it listens: {}", fleet.said("coordinator")));
        let looks = tokio::spawn(looks(fleet.coordinator.id().expect("runs")));
        let mut living = JoinSet::new();
        let pool = Arc::new(OnceLock::new());
        for n in 0..workers {
            let credentials = Credentials::own(&format!("w{n:04}"));
            // Each cuts its batches at its own moment of the second, as processes do that start one after another.
            let after = Duration::from_secs(1) * n / workers;
            living.spawn(member::live(address.clone(), credentials, after, Arc::clone(&pool)));
        }
        let all = tokio::time::timeout(LIMIT, living.join_all()).await;
        let members = all.unwrap_or_else(|_| panic!("the crowd ends: {}", fleet.said("coordinator")));
        let (output, _) = fleet.end().await;
        let looks = looks.await.expect("they were taken");
        let log = controls(results).await;
        let began = log.iter().find_map(|control| match control {
            Control::PhaseStarted(started) if started.name == "measure" => Some(started.start_wall_ns),
            _ => None,
        });
        let began = began.unwrap_or_else(|| panic!("the phase began: {}", output.stderr));
        // From the first batch to the last: what comes before and after is counted in the whole.
        let until = ended(&log, "measure").end_wall_ns.min(began + i64::from(seconds) * SECOND);
        let mut acknowledged = Hdr::new();
        members.iter().for_each(|member| acknowledged.merge(&member.acknowledged));
        let last = looks.last().expect("it ran");
        Self {
            members,
            code: output.code,
            said: output.stderr,
            cores: cores(&looks, began + SECOND, until),
            cpu_seconds: last.cpu_seconds,
            resident_bytes: last.resident_bytes,
            acknowledged,
            run_dir: results.newest(),
        }
    }

    /// Fails unless every batch that was sent was acknowledged and is in the run directory exactly once.
    pub async fn lost_nothing_and_doubled_nothing(&self) {
        for member in &self.members {
            assert!(member.sent > 0, "{} measured nothing", member.name);
            assert_eq!(member.sent, member.acknowledged.len(), "{} waits for acknowledgements", member.name);
        }
        let of_worker = "select worker, generation, count(*) as r, count(distinct sequence) as b, \
                         min(sequence) as first, max(sequence) as last from latency_all group by worker, generation";
        let answer =
            finish_within(vst(&["analyze", "query", of_worker, "--run", &self.run_dir, "--json"]), LIMIT)
                .await;
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        let mut held: BTreeMap<(String, u64), [u64; 4]> = BTreeMap::new();
        for line in answer.stdout.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("a row");
            let number = |name: &str| row[name].as_u64().unwrap_or_else(|| panic!("{name} of {row}"));
            let worker = row["worker"].as_str().expect("a name").to_owned();
            let counts = [number("r"), number("b"), number("first"), number("last")];
            held.insert((worker, number("generation")), counts);
        }
        let sent = |member: &Member| {
            let counts = [member.sent * u64::from(ROWS), member.sent, 1, member.sent];
            ((member.name.clone(), member.generation), counts)
        };
        let wanted: BTreeMap<_, _> = self.members.iter().map(sent).collect();
        assert!(held == wanted, "the run directory holds what was sent, once: {held:?}, sent {wanted:?}");
    }

    /// Fails unless the report can be made and counts what the members say they did.
    pub async fn is_reported(&self) {
        let output = finish_within(vst(&["analyze", "summary", &self.run_dir, "--json"]), LIMIT).await;
        assert!(matches!(output.code, 0 | 7), "exit {}: {}", output.code, output.stderr);
        let report = crate::run::report(&output);
        let ok: u64 = crate::run::phase(&report, "measure").operations.iter().map(|o| o.ok).sum();
        let batches: u64 = self.members.iter().map(|member| member.sent).sum();
        assert_eq!(ok, batches * u64::from(ROWS) * REQUESTS);
    }
}

const SECOND: i64 = 1_000_000_000;

/// What the coordinator has taken so far.
#[derive(Clone, Copy, Debug)]
struct LookAt {
    at: WallNs,
    cpu_seconds: f64,
    resident_bytes: u64,
}

/// Looks at a process until it has ended.
async fn looks(pid: u32) -> Vec<LookAt> {
    let mut looks = Vec::new();
    while let (Some(cpu_seconds), Some(resident_bytes)) =
        (sparse::cpu_seconds(pid), sparse::most_resident(pid))
    {
        looks.push(LookAt { at: wall_ns(), cpu_seconds, resident_bytes });
        tokio::time::sleep(LOOK_EVERY).await;
    }
    looks
}

/// CPU time per time between two instants.
fn cores(looks: &[LookAt], from: WallNs, until: WallNs) -> f64 {
    let within: Vec<&LookAt> = looks.iter().filter(|look| (from..=until).contains(&look.at)).collect();
    let (first, last) = (within.first().expect("looked at"), within.last().expect("looked at"));
    (last.cpu_seconds - first.cpu_seconds) * SECOND_NS as f64 / (last.at - first.at) as f64
}
