//! A billion rows on one machine: planned by arithmetic, read anywhere, streamed in little memory.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{project, run};
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use fleet_tests::sink::Sink;
use fleet_tests::sparse;
use vst_common::clock::{SECOND_NS, mono_ns};
use vst_common::dataset::{DatasetView, resolve};
use vst_common::ranges::RowRange;

const ROWS: u32 = 1_000_000_000;
const DIMS: u32 = 128;
/// What the machine that loads has to spare.
const MOST_RESIDENT: u64 = 400 << 20;
/// So many rows pass before the memory is looked at: far more than a worker may hold.
const STREAMED: u64 = 4_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_billion_rows_are_planned_in_a_second_and_read_anywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let places = [0, 1, 16_777_216, 33_554_431, 536_870_912, 987_654_321, u64::from(ROWS) - 1];
    let vector =
        |row: u64| (0..DIMS).map(|i| row.wrapping_add(u64::from(i)).to_le_bytes()[0]).collect::<Vec<u8>>();
    let known: Vec<(u64, Vec<u8>)> = places.iter().map(|row| (*row, vector(*row))).collect();
    let path = sparse::u8bin(folder.path(), ROWS, DIMS, &known);
    let reference = path.to_str().expect("text");

    let view =
        DatasetView::open_url(&resolve(reference, folder.path()).expect("a path")).await.expect("opens");
    assert_eq!((view.manifest().rows, view.manifest().dims), (u64::from(ROWS), DIMS));
    for row in places {
        let (start, end) = (row.saturating_sub(2), row.saturating_add(3).min(u64::from(ROWS)));
        let read = view.read(RowRange { start, end }).await.expect("read");
        for (own, found) in (start..end).zip(read.iter()) {
            let stored = if places.contains(&own) { vector(own) } else { vec![0; DIMS as usize] };
            assert_eq!(found, stored.iter().map(|x| f32::from(*x)).collect::<Vec<_>>(), "row {own}");
        }
    }

    let base = format!("dataset.base={reference}");
    let began = mono_ns();
    let output = run(&["validate", "scenario", "scenarios/quick.yaml", "--set", &base]).await;
    let took = mono_ns() - began;
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.contains("1000000000 vectors of 128 dimensions"), "{}", output.stdout);
    assert!(took < SECOND_NS, "planned in {took} ns");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_streams_a_billion_rows_in_little_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = sparse::u8bin(folder.path(), ROWS, DIMS, &[]);
    let servers = Servers::standalone().await;
    let sink = Sink::start(servers.url().rsplit('/').next().expect("host:port"));
    let results = Results::new();
    let base = format!("dataset.base={}", path.display());
    let queries = format!("dataset.queries={}", project().join("data/bigann10k/query.u8bin").display());
    let sets = [&base, &queries, "fleet.workers=1", "fleet.lanes=2"];
    let mut fleet = Fleet::start(&results, &sink.url(), &sets);
    fleet.start_workers(1, "warn").await;
    let pid = fleet.workers["w0"].id().expect("runs");
    let passed = async {
        while sink.rows() < STREAMED {
            let left = fleet.coordinator.try_wait().expect("asked");
            assert!(left.is_none(), "the run goes on: {}", fleet.said("coordinator"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(fleet_tests::command::LIMIT, passed).await.expect("rows pass");
    let resident = sparse::most_resident(pid).expect("still runs");
    assert!(resident < MOST_RESIDENT, "{} MiB were resident", resident >> 20);
}
