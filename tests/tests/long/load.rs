//! How fast a worker reads and encodes, without a target that holds it up; what that means for a billion rows.
//!
//! `make bench-load` prints it. The worker is the real process, fed from the page cache; its CPU time counts, not the
//! wall clock, because the sink runs on the same machine. Law: reading (the kernel's part included), widening, encoding,
//! taking in replies and recording give a core at least 1 GB/s of payload. The kernel's part of the sockets is told
//! apart: on a loopback it is the receiver's work as well, and over a network it is another.

use std::io::Read;
use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::project;
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use fleet_tests::sink::Sink;
use fleet_tests::sparse::{self, WorkerCpu};
use vst_common::clock::{SECOND_NS, mono_ns};

const ROWS: u32 = 12_000_000;
const DIMS: u32 = 128;
/// Payload that an index takes, 10^9 bytes per second of one core.
const LEAST_GB_PER_S: f64 = 1.0;
const BILLION: f64 = 1e9;
/// Far longer than it takes.
const LIMIT_NS: u64 = 180 * SECOND_NS;

/// Reads a file once, so that all of it is in the page cache.
fn warm(path: &std::path::Path) {
    let (mut file, mut space) = (std::fs::File::open(path).expect("a file"), vec![0; 1 << 20]);
    while file.read(&mut space).expect("read") > 0 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_reads_and_encodes_a_gigabyte_of_vectors_per_second() {
    let folder = tempfile::tempdir().expect("a folder");
    // All rows are equally far from any query, so that every list of neighbours is true.
    let path = sparse::u8bin(folder.path(), ROWS, DIMS, &[]);
    warm(&path);
    let servers = Servers::standalone().await;
    let sink = Sink::start(servers.url().rsplit('/').next().expect("host:port"));
    let results = Results::new();
    let base = format!("dataset.base={}", path.display());
    let queries = format!("dataset.queries={}", project().join("data/bigann10k/query.u8bin").display());
    let sets = [
        &base,
        &queries,
        "fleet.workers=1",
        "fleet.lanes=1",
        "phases.load.ingest.load.closed.clients=4",
        "phases.load.ingest.load.closed.pipeline=256",
    ];
    let mut fleet = Fleet::start(&results, &sink.url(), &sets);
    fleet.start_workers(1, "warn").await;
    let pid = fleet.workers["w0"].id().expect("runs");
    let at = async |percent: u64| {
        let rows = u64::from(ROWS) / 100 * percent;
        let began = mono_ns();
        while sink.rows() < rows {
            assert!(mono_ns() - began < LIMIT_NS, "rows pass: {}", fleet.said("coordinator"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (sink.rows() as f64, sparse::worker_cpu(pid).expect("runs"), mono_ns())
    };
    let (first, last) = (at(10).await, at(90).await);
    let (rows, cpu, wall) = (last.0 - first.0, last.1 - first.1, (last.2 - first.2) as f64 / 1e9);
    let WorkerCpu { user, sockets, reading } = cpu;
    let gb_per_s = |seconds: f64| rows / seconds * f64::from(DIMS) * 4.0 / 1e9;
    let cores = std::thread::available_parallelism().expect("known").get();
    eprintln!("{DIMS} dimensions, u8 to f32, {rows:.0} rows in {wall:.2} s by the clock; CPU time:");
    eprintln!(
        "  {user:.2} s in the worker, {reading:.2} s in the kernel for reading, {sockets:.2} s for sockets"
    );
    for (what, seconds) in
        [("reading and encoding", user + reading), ("with sockets", user + reading + sockets)]
    {
        let per_core = rows / seconds;
        eprintln!(
            "  {what}: {per_core:.0} vectors/s per core, {:.2} GB/s of f32 payload per core; a billion in {:.1} min on \
             one core, {:.1} min on the {cores} of this machine",
            gb_per_s(seconds),
            BILLION / per_core / 60.0,
            BILLION / per_core / 60.0 / cores as f64,
        );
    }
    eprintln!(
        "  a billion as it ran here, the sink beside it: {:.1} min; no target holds it up",
        BILLION / (rows / wall) / 60.0
    );
    eprintln!("  resident at most: {} MiB", sparse::most_resident(pid).expect("runs") >> 20);
    let found = gb_per_s(user + reading);
    assert!(found >= LEAST_GB_PER_S, "{found:.2} GB/s");
}
