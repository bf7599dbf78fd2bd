//! The course of a quick run, as its log and its servers tell it.

use std::collections::BTreeSet;
use std::time::Duration;

use vst_common::count;
use vst_common::entry::{Control, PhaseEnded, PhaseOutcome};
use vst_common::keys::KeySpace;
use vst_common::live_set::LiveSet;
use vst_common::ranges::RowRange;
use vst_common::run_dir::RunDir;

use crate::cluster::Servers;
use crate::command::{LIMIT, project};
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

/// Every row that should live is there with the bytes of the base, and no other.
pub async fn check_rows(servers: &Servers, live: LiveSet) {
    let base = std::fs::read(project().join("data/bigann10k/base.u8bin")).expect("the base");
    let dims = 128;
    let keys = KeySpace::new("vst:");
    let mut seen = 0_u64;
    for connection in servers.connections().await.values_mut() {
        let names: Vec<Vec<u8>> =
            redis::cmd("KEYS").arg("vst:*").query_async(connection).await.expect("KEYS");
        // Keys of plain commands are no rows.
        for name in names.into_iter().filter(|name| !name.starts_with(b"vst:string:")) {
            let (copy, row) = keys.parse(&name).expect("a key of the run");
            assert!(live.is_live(copy, row), "row {row} should not be there");
            let field = vst_coordinator::plan::FIELD;
            let found: Vec<u8> =
                redis::cmd("HGET").arg(&name).arg(field).query_async(connection).await.expect("HGET");
            let at = 8 + count::index(row) * dims;
            let wanted: Vec<u8> =
                base[at..at + dims].iter().flat_map(|byte| f32::from(*byte).to_le_bytes()).collect();
            assert_eq!(found, wanted, "the bytes of row {row}");
            seen += 1;
        }
    }
    assert_eq!(seen, live.count(), "rows are missing");
}

/// (worker, generation, sequence) of every batch that a worker says it was told is safe.
#[must_use]
pub fn acknowledged(journal: &str) -> Vec<(String, u64, u64)> {
    let batch = |line: &str| {
        let said = line.split("acknowledged ").nth(1)?;
        let value = |name: &str| said.split(' ').find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
        Some((
            value("worker")?.to_owned(),
            value("generation")?.parse().ok()?,
            value("sequence")?.parse().ok()?,
        ))
    };
    journal.lines().filter_map(batch).collect()
}
