//! How fast a worker reads and encodes, without a target that holds it up; what that means for a billion rows.
//!
//! `make bench-load` prints it. The worker is the real process, fed from the page cache; its CPU time counts, not the
//! wall clock, because the sink runs on the same machine.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use fleet_tests::sink::Sink;
use fleet_tests::sparse;
use vst_common::clock::{SECOND_NS, mono_ns};

const ROWS: u32 = 12_000_000;
const DIMS: u32 = 128;
/// Payload that an index takes, 10^9 bytes per second of one core.
const LEAST_GB_PER_S: f64 = 1.0;
const BILLION: f64 = 1e9;
/// Far longer than it takes.
const LIMIT_NS: u64 = 180 * SECOND_NS;

/// A file of vectors that do not repeat, all of it in the page cache.
fn data(folder: &std::path::Path) -> std::path::PathBuf {
    let path = folder.join("base.u8bin");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).expect("a file"));
    file.write_all(&[ROWS.to_le_bytes(), DIMS.to_le_bytes()].concat()).expect("written");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..u64::from(ROWS) * u64::from(DIMS) / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).expect("written");
    }
    file.flush().expect("written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_reads_and_encodes_a_gigabyte_of_vectors_per_second() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = data(folder.path());
    let servers = Servers::standalone().await;
    let sink = Sink::start(servers.url().rsplit('/').next().expect("host:port"));
    let results = Results::new();
    let base = format!("dataset.base={}", path.display());
    let sets = [
        &base,
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
        (sink.rows() as f64, sparse::cpu_seconds(pid).expect("runs"), mono_ns())
    };
    let (first, last) = (at(10).await, at(90).await);
    let (rows, cpu, wall) = (last.0 - first.0, last.1 - first.1, (last.2 - first.2) as f64 / 1e9);
    let (per_core, cores) = (rows / cpu, std::thread::available_parallelism().expect("known").get());
    let gb_per_s = per_core * f64::from(DIMS) * 4.0 / 1e9;
    eprintln!("{DIMS} dimensions, u8 to f32, {rows:.0} rows in {cpu:.2} s of CPU, {wall:.2} s by the clock:");
    eprintln!("  {per_core:.0} vectors/s per core, {gb_per_s:.2} GB/s of f32 payload per core");
    eprintln!(
        "  a billion: {:.1} min on one core, {:.1} min on the {cores} of this machine, {:.1} min as it ran here; no \
         target holds it up",
        BILLION / per_core / 60.0,
        BILLION / per_core / 60.0 / cores as f64,
        BILLION / (rows / wall) / 60.0,
    );
    eprintln!("  resident at most: {} MiB", sparse::most_resident(pid).expect("runs") >> 20);
    assert!(gb_per_s >= LEAST_GB_PER_S, "{gb_per_s:.2} GB/s");
}
