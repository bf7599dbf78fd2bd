//! Leaders that die or are paused in mid-run, and the standby that goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fleet_tests::cluster::Servers;
use fleet_tests::command::{LIMIT, Output, run};
use fleet_tests::course::{
    self, SLOW_INGEST, check_rows, controls, departures, ended, every_row_was_written_once,
};
use fleet_tests::etcd::Etcd;
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use fleet_tests::web::{free_port, get};
use rustix::process::Signal;
use vst_common::entry::Control;
use vst_common::exit::Exit;
use vst_common::run_dir::RunDir;

const RUN: &str = "shared";
/// What the issue allows a standby.
const LEADS_WITHIN: Duration = Duration::from_secs(10);

/// Two coordinators of one run and two workers.
struct Pair {
    servers: Servers,
    results: Results,
    /// The leader, and all workers.
    first: Fleet,
    second: Fleet,
    http: String,
    _etcd: Option<Etcd>,
}

impl Pair {
    async fn start(with_etcd: bool) -> Self {
        let (servers, results) = (Servers::cluster().await, Results::new());
        let etcd = if with_etcd { Some(Etcd::start().await) } else { None };
        let url = etcd.as_ref().map(Etcd::url);
        let http = format!("127.0.0.1:{}", free_port());
        let listen = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let start = |listen: &str, http: Option<&str>| {
            Fleet::start_dressed(&results, &servers.url(), &SLOW_INGEST, |command| {
                command.args(["--run", RUN, "--listen", listen]);
                command.args(url.iter().flat_map(|url| ["--etcd", url]));
                command.args(http.iter().flat_map(|http| ["--http", http]));
            })
        };
        let mut first = start(&listen[0], None);
        first.address().await;
        let second = start(&listen[1], Some(&http));
        for name in ["w0", "w1"] {
            first.start_worker(name, "vst::ack=debug", |command| {
                match &url {
                    Some(url) => command.args(["--etcd", url]),
                    None => command.args(["--coordinator", &listen[0], "--coordinator", &listen[1]]),
                };
            });
        }
        let pair = Self { servers, results, first, second, http, _etcd: etcd };
        pair.until_role("standby").await;
        pair
    }

    async fn until_role(&self, role: &str) {
        let shown = async {
            loop {
                let status: serde_json::Value =
                    serde_json::from_str(&get(&self.http, "/status").await.body).expect("JSON");
                if status["role"] == role {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(LIMIT, shown).await;
        assert!(in_time.is_ok(), "it becomes {role}: {}", self.second.said("coordinator"));
    }

    /// Waits until a phase of load has been going on for a moment.
    async fn in_phase(&self, name: &str) {
        let begun = async {
            while !controls(&self.results)
                .await
                .iter()
                .any(|c| matches!(c, Control::PhaseStarted(started) if started.name == name))
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, begun).await.expect("the phase begins");
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }

    async fn standby_leads(&self, since: Instant) {
        self.until_role("leading").await;
        let took = since.elapsed();
        assert!(took <= LEADS_WITHIN, "the standby leads after {took:?}");
    }

    /// The end of the run under the second coordinator.
    async fn end(&mut self) -> (Output, BTreeMap<String, i32>) {
        let (output, _) = self.second.end().await;
        let mut codes = BTreeMap::new();
        for (name, worker) in &mut self.first.workers {
            let status = tokio::time::timeout(LIMIT, worker.wait()).await.expect("workers end in time");
            codes.insert(name.clone(), status.expect("waited for").code().unwrap_or(-1));
        }
        (output, codes)
    }

    /// Nothing is missing, nothing is there twice, and the server counted what was sent.
    async fn check(&self, output: &Output) {
        let log = controls(&self.results).await;
        every_row_was_written_once(&log);
        assert_eq!(departures(&log).iter().filter(|(_, lost)| *lost).count(), 0, "{log:?}");
        let live = log.iter().rev().find_map(|c| match c {
            Control::PopulationChanged { live, .. } => Some(*live),
            _ => None,
        });
        check_rows(&self.servers, live.expect("a population")).await;
        for name in ["query_full", "query_half"] {
            assert_eq!((ended(&log, name).scheduled, ended(&log, name).unowned), (Some(400), 0), "{name}");
        }
        let report = run(&["analyze", "summary", &self.results.newest(), "--json"]).await;
        let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("a report");
        let accounting = report["accounting"].as_array().expect("checks");
        for check in accounting {
            assert_eq!(check["result"], "holds", "{check:#}");
        }
        assert!(!accounting.is_empty());
        // A machine too busy for the schedule is nobody's loss.
        let fine = [Exit::Valid, Exit::NotValid].map(|exit| i32::from(exit.code()));
        assert!(fine.contains(&output.code), "{}: {}", output.code, output.stderr);
        self.check_acknowledged().await;
    }

    /// Every batch that a worker was told is safe is in the log, once.
    async fn check_acknowledged(&self) {
        let dir = RunDir::open(&self.results.newest()).expect("the run directory opens");
        let mut held: BTreeMap<(String, u64, u64), u64> = BTreeMap::new();
        for number in dir.list_entries().await.expect("listed") {
            for batch in dir.read_entry(number).await.expect("whole").batches {
                let key = (batch.worker.to_string(), batch.generation.0, batch.sequence.0);
                *held.entry(key).or_default() += 1;
            }
        }
        assert!(held.values().all(|times| *times == 1), "a batch is twice in the log");
        let told: BTreeSet<_> =
            ["w0", "w1"].iter().flat_map(|name| course::acknowledged(&self.first.said(name))).collect();
        let missing: Vec<_> = told.iter().filter(|batch| !held.contains_key(*batch)).collect();
        assert!(missing.is_empty() && told.len() > 10, "{} told, missing: {missing:?}", told.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_in_mid_ingest_is_followed_by_the_standby_and_no_row_is_missing() {
    let mut pair = Pair::start(false).await;
    course::in_mid_ingest(&pair.servers).await;
    let killed = Instant::now();
    pair.first.coordinator.kill().await.expect("killed");
    pair.standby_leads(killed).await;
    let (output, workers) = pair.end().await;
    pair.check(&output).await;
    assert!(workers.values().all(|code| *code == 0), "{workers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_in_mid_query_costs_the_open_loop_not_one_request() {
    let mut pair = Pair::start(true).await;
    pair.in_phase("query_full").await;
    let killed = Instant::now();
    pair.first.coordinator.kill().await.expect("killed");
    pair.standby_leads(killed).await;
    let (output, workers) = pair.end().await;
    pair.check(&output).await;
    assert!(workers.values().all(|code| *code == 0), "{workers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_paused_for_20_s_and_wakes_acknowledges_nothing_and_steps_down() {
    let mut pair = Pair::start(false).await;
    course::in_mid_ingest(&pair.servers).await;
    let paused = Instant::now();
    pair.first.signal_coordinator(Signal::STOP);
    pair.standby_leads(paused).await;
    tokio::time::sleep(Duration::from_secs(20).saturating_sub(paused.elapsed())).await;
    pair.first.signal_coordinator(Signal::CONT);
    let status = tokio::time::timeout(LIMIT, pair.first.coordinator.wait()).await.expect("it steps down");
    assert_eq!(status.expect("waited for").code(), Some(i32::from(Exit::Fleet.code())));
    let said = pair.first.said("coordinator");
    assert!(said.contains("leads this run now"), "{said}");
    let (output, workers) = pair.end().await;
    pair.check(&output).await;
    assert!(workers.values().all(|code| *code == 0), "{workers:?}");
}
