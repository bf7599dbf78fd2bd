//! kill -9 of the coordinator at any instant: what was acknowledged is in the run directory, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::run;
use fleet_tests::course::acknowledged;
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use vst_common::batch::Table;
use vst_common::entry::Control;
use vst_common::exit::Exit;
use vst_common::run_dir::RunDir;
use vst_common::seed::Draw;

fn kills() -> u64 {
    // More where there is time: `make test-election`.
    std::env::var("VST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}
/// About what the shortened run takes; instants are drawn over all of it.
const RUN_MS: u64 = 11_000;

/// The quick run with every wait shortened; all its stages stay.
const SHORT: [&str; 7] = [
    "sampling.interval=100ms",
    "phases.settle_full.settle.window=500ms",
    "phases.settle_half.settle.window=500ms",
    "phases.query_full.query.warm_up=0s",
    "phases.query_full.query.duration=2s",
    "phases.query_half.query.warm_up=0s",
    "phases.query_half.query.duration=2s",
];

/// (worker, generation, sequence) of a batch.
type Batch = (String, u64, u64);

/// Kills the coordinator, then the workers, and gives every batch that a worker was told is safe.
async fn kill_all(mut fleet: Fleet) -> BTreeSet<Batch> {
    fleet.coordinator.kill().await.expect("killed");
    // An acknowledgement that was on its way may still arrive.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for worker in fleet.workers.values_mut() {
        worker.kill().await.expect("killed");
    }
    let journals: Vec<String> = fleet.workers.keys().map(|name| fleet.said(name)).collect();
    journals.iter().flat_map(|journal| acknowledged(journal)).collect()
}

/// What a run log holds.
#[derive(Default)]
struct Logged {
    /// How often each batch is there.
    batches: BTreeMap<Batch, u64>,
    /// Rows of each table.
    rows: BTreeMap<Table, u64>,
    /// Whether its closing record is there.
    closed: bool,
}

async fn logged(run_dir: &str) -> Logged {
    let dir = RunDir::open(run_dir).expect("the run directory opens");
    let mut logged = Logged::default();
    for number in dir.list_entries().await.expect("its log can be listed") {
        let entry = dir.read_entry(number).await.expect("every entry is whole");
        logged.closed |= entry.controls.iter().any(|c| matches!(c, Control::RunClosed { .. }));
        for batch in entry.batches {
            let key = (batch.worker.to_string(), batch.generation.0, batch.sequence.0);
            *logged.batches.entry(key).or_default() += 1;
            let read = vst_common::batch::table::read_ipc(&batch.ipc).expect("a batch");
            *logged.rows.entry(batch.table).or_default() +=
                read.iter().map(|b| u64::try_from(b.num_rows()).expect("few")).sum::<u64>();
        }
    }
    logged
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_batch_is_there_once_whenever_the_coordinator_is_killed() {
    let servers = Servers::cluster().await;
    let seed = u64::from(std::process::id());
    let (mut opened, mut acknowledged_ever) = (0, 0);
    for kill in 0..kills() {
        let after_ms = Draw::new(seed, 0, kill).below(RUN_MS);
        let what = format!("seed {seed}, kill {kill} after {after_ms} ms");
        let results = Results::new();
        let mut fleet = Fleet::start(&results, &servers.url(), &SHORT);
        // Killed before or while workers start, too: whichever comes first.
        let workers = tokio::time::timeout(Duration::from_millis(after_ms), async {
            fleet.start_workers(2, "vst::ack=debug").await;
            std::future::pending::<()>().await;
        });
        workers.await.expect_err("the instant comes");
        let acknowledged = kill_all(fleet).await;

        // Known to be dead: the next run need not wait for its sign of life to run out.
        servers.forget_run("vst:").await;

        let Some(run_dir) = results.run_dirs().pop() else {
            assert!(acknowledged.is_empty(), "{what}: nothing is acknowledged without a run directory");
            continue;
        };
        let Logged { batches, rows, closed } = logged(&run_dir).await;
        assert!(batches.values().all(|times| *times == 1), "{what}: a batch is twice in the log");
        let missing: Vec<&Batch> = acknowledged.iter().filter(|b| !batches.contains_key(*b)).collect();
        assert!(missing.is_empty(), "{what}: acknowledged, but not in the log: {missing:?}");
        acknowledged_ever += acknowledged.len();

        // What analysis reads (parts, then entries that no part covers) is the same rows, once.
        if std::path::Path::new(&run_dir).join("run.json").exists() {
            let tables =
                [(Table::Latency, "latency_all"), (Table::Memory, "memory"), (Table::Health, "health")];
            for (table, name) in tables {
                let sql = format!("select count(*) as n from {name}");
                let output = run(&["analyze", "query", &sql, "--run", &run_dir, "--json"]).await;
                assert_eq!(output.code, 0, "{what}: {}", output.stderr);
                let row: serde_json::Value = serde_json::from_str(output.stdout.trim()).expect("a row");
                let expected = rows.get(&table).copied().unwrap_or(0);
                assert_eq!(row["n"].as_u64(), Some(expected), "{what}: rows of {table}");
            }
            let output = run(&["analyze", "summary", &run_dir]).await;
            // Without its closing record a run is a partial report, whatever else is wrong with it. With it, nothing
            // happened to this run before its end but, at most, a machine too busy for its schedule.
            let right = if closed { [Exit::Valid, Exit::NotValid].as_slice() } else { &[Exit::Interrupted] };
            let codes: Vec<i32> = right.iter().map(|exit| i32::from(exit.code())).collect();
            assert!(codes.contains(&output.code), "{what}, closed: {closed}: {}", output.stdout);
            opened += 1;
        }
    }
    assert!(opened > kills() / 3, "many instants lie within the run: {opened}");
    assert!(acknowledged_ever > 100, "the test has seen acknowledgements: {acknowledged_ever}");
}
