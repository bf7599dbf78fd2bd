//! The course of a quick run, as its log and its servers tell it.

use std::collections::BTreeSet;
use std::time::Duration;

use vst_common::entry::{Control, PhaseEnded, PhaseOutcome};
use vst_common::ranges::RowRange;
use vst_common::run_dir::RunDir;

use crate::cluster::Servers;
use crate::command::LIMIT;
use crate::run::Results;

/// Rows of the quick scenario.
pub const ROWS: u64 = 10_000;

/// Ingest one row at a time, so that it can be met in its middle, and short waits after it.
pub const SLOW_INGEST: [&str; 9] = [
    "phases.load.ingest.load.closed.clients=2",
    "phases.load.ingest.load.closed.pipeline=1",
    "sampling.interval=100ms",
    "phases.settle_full.settle.window=500ms",
    "phases.settle_half.settle.window=500ms",
    "phases.query_full.query.warm_up=0s",
    "phases.query_full.query.duration=2s",
    "phases.query_half.query.warm_up=0s",
    "phases.query_half.query.duration=2s",
];

/// Rows on the servers. Not by DBSIZE: the sign of life of a coordinator that is paused runs out.
pub async fn count_rows(servers: &Servers) -> u64 {
    vst_common::count::len(servers.keys_under("vst:").await.len())
}

/// Everything that the log of the newest run says.
pub async fn controls(results: &Results) -> Vec<Control> {
    let dir = RunDir::open(&results.newest()).expect("the run directory opens");
    let mut controls = Vec::new();
    for number in dir.list_entries().await.expect("its log can be listed") {
        controls.extend(dir.read_entry(number).await.expect("every entry is whole").controls);
    }
    controls
}

/// The end of a phase.
#[must_use]
pub fn ended<'a>(log: &'a [Control], name: &str) -> &'a PhaseEnded {
    let index = log.iter().find_map(|c| match c {
        Control::PhaseStarted(started) if started.name == name => Some(started.index),
        _ => None,
    });
    let ended = log.iter().find_map(|c| match c {
        Control::PhaseEnded(ended) if Some(ended.index) == index => Some(ended),
        _ => None,
    });
    ended.unwrap_or_else(|| panic!("phase {name} did not end: {log:?}"))
}

/// The ranges of the load phase cover every row once, and the phase says that it wrote all.
pub fn every_row_was_written_once(log: &[Control]) {
    let load = ended(log, "load");
    assert_eq!((&load.outcome, load.live), (&PhaseOutcome::Completed, ROWS));
    let mut ranges: Vec<RowRange> = log
        .iter()
        .filter_map(|c| match c {
            Control::RangeDone { phase, range, .. } if *phase == load.index => Some(*range),
            _ => None,
        })
        .collect();
    ranges.sort();
    assert_eq!(ranges.iter().map(|r| r.len()).sum::<u64>(), ROWS);
    assert!(ranges.windows(2).all(|w| w[0].end == w[1].start), "{ranges:?}");
}

/// (worker, lost) of those that left before the run was closed.
#[must_use]
pub fn departures(log: &[Control]) -> BTreeSet<(String, bool)> {
    log.iter()
        .filter_map(|c| match c {
            Control::WorkerLeft { worker, lost, .. } => Some((worker.to_string(), *lost)),
            _ => None,
        })
        .collect()
}

/// Waits until the ingest is in its middle.
pub async fn in_mid_ingest(servers: &Servers) {
    let middle = async {
        while count_rows(servers).await < ROWS / 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, middle).await.expect("rows arrive");
}

/// Waits until the servers hold this many rows.
pub async fn rows_are_there(servers: &Servers, rows: u64) {
    let all = async {
        while count_rows(servers).await < rows {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, all).await.expect("rows arrive");
}
