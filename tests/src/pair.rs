//! Two coordinators of one run, a leader and one that stands by, with two workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use vst_common::entry::Control;
use vst_common::exit::Exit;
use vst_common::run_dir::RunDir;
use vst_common::seed::Draw;

use crate::cluster::Servers;
use crate::command::{LIMIT, Output, run};
use crate::course::{self, SLOW_INGEST, check_rows, controls, departures, ended, every_row_was_written_once};
use crate::etcd::Etcd;
use crate::fleet::Fleet;
use crate::run::Results;
use crate::web::{free_port, get};

const RUN: &str = "shared";
/// About what a run takes from the instant at which the standby is there; kills are drawn over all of it.
const RUN_MS: u64 = 12_000;
/// What is allowed to a standby.
const LEADS_WITHIN: Duration = Duration::from_secs(10);

/// Two coordinators of one run and two workers.
#[derive(Debug)]
pub struct Pair {
    /// The cluster.
    pub servers: Servers,
    /// Where the run directory is.
    pub results: Results,
    /// The leader, and all workers.
    pub first: Fleet,
    /// The other coordinator.
    pub second: Fleet,
    http: String,
    /// Where they find each other, where that was asked for.
    pub etcd: Option<Etcd>,
}

impl Pair {
    /// Starts all, and waits until the second coordinator stands by.
    ///
    /// # Panics
    /// Fails the test where that does not happen.
    pub async fn start(with_etcd: bool) -> Self {
        Self::start_in(Results::new(), with_etcd).await
    }

    /// The same with the run directory in a place of the test's choice.
    ///
    /// # Panics
    /// As [`Pair::start`].
    pub async fn start_in(results: Results, with_etcd: bool) -> Self {
        let servers = Servers::cluster().await;
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
        let pair = Self { servers, results, first, second, http, etcd };
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
    pub async fn in_phase(&self, name: &str) {
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

    /// Waits until the second coordinator leads, which the issue wants within 10 s.
    pub async fn standby_leads(&self, since: Instant) {
        self.until_role("leading").await;
        let took = since.elapsed();
        assert!(took <= LEADS_WITHIN, "the standby leads after {took:?}");
    }

    /// The end of the run under the second coordinator.
    pub async fn end(&mut self) -> (Output, BTreeMap<String, i32>) {
        let (output, _) = self.second.end().await;
        let mut codes = BTreeMap::new();
        for (name, worker) in &mut self.first.workers {
            let status = tokio::time::timeout(LIMIT, worker.wait()).await.expect("workers end in time");
            codes.insert(name.clone(), status.expect("waited for").code().unwrap_or(-1));
        }
        (output, codes)
    }

    /// Nothing is missing, nothing is there twice, and the server counted what was sent.
    pub async fn check(&self, output: &Output) {
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
    ///
    /// # Panics
    /// Fails the test where that is not so.
    pub async fn check_acknowledged(&self) {
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

/// Kills the leader at instants drawn over the whole run, each time with a standby that ends the run; so many of these
/// runs go on at once. Each that has ended is told, in words.
///
/// # Panics
/// Fails the test where an acknowledged batch is missing or there twice, or a row is.
pub async fn killed_at_any_instant(kills: u64, at_once: usize, told: impl Fn(&str)) {
    let seed = u64::from(std::process::id());
    let all = futures::stream::iter((0..kills).map(|kill| killed_once(seed, kill)));
    let mut all = all.buffer_unordered(at_once);
    while let Some(what) = all.next().await {
        told(&what);
    }
}

async fn killed_once(seed: u64, kill: u64) -> String {
    let after = Duration::from_millis(Draw::new(seed, 1, kill).below(RUN_MS));
    let mut pair = Pair::start(false).await;
    tokio::time::sleep(after).await;
    let killed = Instant::now();
    // It may have come to its end before.
    let was_leading = pair.first.coordinator.try_wait().expect("asked").is_none();
    if was_leading {
        pair.first.coordinator.kill().await.expect("killed");
    }
    let (output, workers) = pair.end().await;
    let what = format!(
        "seed {seed}, kill {kill} after {after:?}, led {was_leading}, ended {:?} later",
        killed.elapsed()
    );
    assert!(!output.stderr.contains("panicked"), "{what}: {}", output.stderr);
    pair.check(&output).await;
    assert!(workers.values().all(|code| *code == 0), "{what}: {workers:?}");
    what
}
