//! Bad input: an exit code, the file, the line, a caret, and nothing started or written.

use std::path::Path;

use fleet_tests::command::{finish, project};
use fleet_tests::run::Results;
use tempfile::TempDir;

/// A folder with a scenario and data that can be spoilt.
struct Bench {
    folder: TempDir,
    results: Results,
}

const SCENARIO: &str = "name: bad
purpose: to be refused
dataset:
  base: base.u8bin
  queries: query.u8bin
  ground_truth: groundtruth.bin
index: {algorithm: hnsw, metric: l2}
phases:
  - name: create
    create_index: {}
  - name: load
    ingest:
      load: {closed: {clients: 4, pipeline: 4}}
  - name: ask
    query:
      k: 10
      load: {open: {rate: 100/s, connections: 4}}
      duration: 1s
";

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["base.u8bin", "query.u8bin", "groundtruth.bin"] {
            let from = project().join("data/bigann10k").join(name);
            std::fs::copy(from, folder.path().join(name)).expect("copied");
        }
        Self { folder, results: Results::new() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the scenario and gives what was said; it has to be refused, at the line that holds `at`.
    async fn refused(&self, text: &str, at: &str) -> String {
        let file = self.path("bad.yaml");
        std::fs::write(&file, text).expect("written");
        let name = file.to_str().expect("text");
        let output = finish(self.results.command(&["scenario", name])).await;
        assert_eq!(output.code, 3, "{}\n{}", output.stdout, output.stderr);
        assert!(self.results.run_dirs().is_empty(), "nothing is written");
        assert!(!output.stderr.contains("starting a local cluster"), "nothing is started: {}", output.stderr);
        let line = text.lines().position(|l| l.contains(at)).expect("the line is in the scenario") + 1;
        let place = format!("{name}:{line}:");
        assert!(output.stderr.contains(&place), "`{place}` is not named:\n{}", output.stderr);
        let caret = output.stderr.lines().any(|l| l.contains('─') || l.contains('▲') || l.contains('^'));
        assert!(caret, "no caret:\n{}", output.stderr);
        output.stderr
    }
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("read");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_text_are_refused_at_their_line() {
    let bench = Bench::new();
    let said = bench.refused(&SCENARIO.replace("purpose:", "porpoise:"), "porpoise").await;
    assert!(said.contains("purpose"), "the known key is suggested: {said}");
    bench.refused(&SCENARIO.replace("k: 10", "k: ten"), "k: ten").await;
    let said = bench.refused(&SCENARIO.replace("duration: 1s", "duration: 1 parsec"), "parsec").await;
    assert!(said.contains("10s") || said.contains("250ms"), "the expected form is named: {said}");
    let no_load =
        SCENARIO.replace("      load: {closed: {clients: 4, pipeline: 4}}\n", "      timeout: 1s\n");
    let said = bench.refused(&no_load, "ingest:").await;
    assert!(said.contains("load"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_data_are_refused_at_the_key_that_names_it() {
    let bench = Bench::new();
    let said = bench.refused(&SCENARIO.replace("k: 10", "k: 101"), "k: 101").await;
    assert!(said.contains("100"), "the depth of the truth is named: {said}");

    let said = bench.refused(&SCENARIO.replace("metric: l2", "metric: l2, dims: 64"), "dims: 64").await;
    assert!(said.contains("128"), "{said}");

    rewrite(&bench.path("query.u8bin"), |bytes| {
        // 100 queries of 64 dimensions.
        bytes[4..8].copy_from_slice(&64u32.to_le_bytes());
        bytes.truncate(8 + 100 * 64);
    });
    let said = bench.refused(SCENARIO, "queries:").await;
    assert!(said.contains("64") && said.contains("128"), "{said}");

    let bench = Bench::new();
    rewrite(&bench.path("base.u8bin"), |bytes| bytes.truncate(1_000_000));
    let said = bench.refused(SCENARIO, "base:").await;
    assert!(said.contains("1000000") || said.contains("1,000,000"), "the real size is named: {said}");

    let bench = Bench::new();
    rewrite(&bench.path("groundtruth.bin"), |bytes| bytes.truncate(5_000));
    bench.refused(SCENARIO, "ground_truth:").await;

    let bench = Bench::new();
    std::fs::remove_file(bench.path("base.u8bin")).expect("removed");
    bench.refused(SCENARIO, "base:").await;
}

/// fbin: rows, dimensions, coordinates.
fn fbin(rows: &[Vec<f32>]) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).expect("few").to_le_bytes();
    let coordinates = rows.iter().flatten().flat_map(|x| x.to_le_bytes());
    [number(rows.len()), number(rows[0].len())].concat().into_iter().chain(coordinates).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_not_what_it_claims_is_refused_before_any_load() {
    // Neighbours of other data: the last row of each list swapped with the first.
    let bench = Bench::new();
    rewrite(&bench.path("groundtruth.bin"), |bytes| {
        for list in bytes[8..8 + 100 * 100 * 4].chunks_exact_mut(400) {
            let (first, rest) = list.split_at_mut(4);
            first.swap_with_slice(&mut rest[392..]);
        }
    });
    let said = bench.refused(SCENARIO, "ground_truth:").await;
    assert!(said.contains("before row") && said.contains("query 0"), "{said}");
    // The same lists over a base whose rows are in another order.
    let bench = Bench::new();
    rewrite(&bench.path("base.u8bin"), |bytes| bytes[8..].rotate_left(128 * 777));
    let said = bench.refused(SCENARIO, "ground_truth:").await;
    assert!(said.contains("other data"), "{said}");

    let floats = |change: &dyn Fn(&mut Vec<Vec<f32>>)| {
        let bench = Bench::new();
        let stored = std::fs::read(bench.path("base.u8bin")).expect("read");
        let mut rows: Vec<Vec<f32>> =
            stored[8..].chunks_exact(128).map(|row| row.iter().map(|x| f32::from(*x)).collect()).collect();
        change(&mut rows);
        std::fs::write(bench.path("base.fbin"), fbin(&rows)).expect("written");
        bench
    };
    let as_floats = SCENARIO.replace("base.u8bin", "base.fbin");
    for wrong in [f32::NAN, f32::INFINITY] {
        let bench = floats(&|rows| rows[4_711][5] = wrong);
        let said = bench.refused(&as_floats, "base:").await;
        assert!(said.contains("row 4711"), "{said}");
    }
    let bench = floats(&|rows| rows[4_711].fill(0.0));
    let said = bench.refused(&as_floats.replace("metric: l2", "metric: cosine"), "base:").await;
    assert!(said.contains("row 4711") && said.contains("length zero"), "{said}");
    let bench = Bench::new();
    rewrite(&bench.path("base.u8bin"), |bytes| bytes[4..8].fill(0));
    let said = bench.refused(SCENARIO, "base:").await;
    assert!(said.contains("dimension"), "{said}");
    let bench = Bench::new();
    std::fs::write(bench.path("base.npy"), b"not numpy at all").expect("written");
    bench.refused(&SCENARIO.replace("base.u8bin", "base.npy"), "base:").await;
    let bench = Bench::new();
    let said =
        bench.refused(&SCENARIO.replace("base: base.u8bin", "base: ftp://host/base.u8bin"), "ftp").await;
    assert!(said.contains("s3://") && said.contains("file://"), "the known schemes are named: {said}");
}

/// Refused before a server is started; gives what was said.
async fn refused_at_once(mut command: tokio::process::Command, code: i32) -> String {
    command.stdin(std::process::Stdio::null());
    let output = finish(command).await;
    assert_eq!(output.code, code, "{}\n{}", output.stdout, output.stderr);
    assert!(!output.stderr.contains("starting a local cluster"), "nothing is started: {}", output.stderr);
    output.stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_results_folder_that_cannot_take_a_run_is_refused_before_servers_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("written");
    for results in [file.to_str().expect("text"), "/proc/results"] {
        let said =
            refused_at_once(fleet_tests::command::vst(&["run", "quick", "--results", results]), 2).await;
        assert!(said.contains(results) && said.contains("--results"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_travel_is_refused_by_every_command_of_a_fleet() {
    let commands: [&[&str]; 3] = [
        &["run", "quick"],
        &["coordinator", "start", "--scenario", "quick", "--target", "valkey://127.0.0.1:1"],
        &["worker", "start", "--coordinator", "127.0.0.1:1"],
    ];
    for args in commands {
        let mut command = fleet_tests::command::vst(args);
        command.env("VST_TOKEN", "schl\u{fc}ssel");
        let said = refused_at_once(command, 2).await;
        assert!(said.contains("VST_TOKEN") && !said.contains("schl\u{fc}ssel"), "{args:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_clients_and_a_prefix_with_a_line_break_are_refused_at_their_line() {
    let bench = Bench::new();
    let said = bench.refused(&SCENARIO.replace("clients: 4", "clients: 1000000"), "clients: 1000000").await;
    assert!(said.contains("1000000 clients") && said.contains("use at most"), "{said}");
    let text = SCENARIO.replace("phases:\n", "population: {prefix: \"a\\nb\"}\nphases:\n");
    let said = bench.refused(&text, "population:").await;
    assert!(said.contains("line break"), "{said}");
}

/// A server that has nothing: every request ends with 404.
async fn empty_server() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                // Whoever leaves early wants no answer.
                if client.read(&mut asked).await.is_ok_and(|n| n > 0) {
                    let none = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _ = client.write_all(none).await;
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_a_store_does_not_have_or_does_not_show_is_refused_at_its_key() {
    let bench = Bench::new();
    let server = empty_server().await;
    let refused = async |base: &str| {
        let file = bench.path("bad.yaml");
        std::fs::write(&file, SCENARIO.replace("base.u8bin", base)).expect("written");
        let mut command = bench.results.command(&["scenario", file.to_str().expect("text")]);
        for secret in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"] {
            command.env_remove(secret);
        }
        command.env("AWS_METADATA_ENDPOINT", &server);
        let output = finish(command).await;
        assert_eq!(output.code, 3, "{}\n{}", output.stdout, output.stderr);
        assert!(bench.results.run_dirs().is_empty(), "nothing is written");
        assert!(output.stderr.contains("bad.yaml:4:"), "the key's line is named: {}", output.stderr);
        output.stderr.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
    };
    let said = refused(&format!("{server}/nothing.u8bin")).await;
    assert!(said.contains("/nothing.u8bin does not exist"), "{said}");
    assert_eq!(said.matches("404 Not Found").count(), 1, "a cause is told once: {said}");
    let said = refused("s3://bucket/base.u8bin").await;
    assert!(said.contains("no access to s3://bucket/base.u8bin: set AWS_ACCESS_KEY_ID"), "{said}");
}
