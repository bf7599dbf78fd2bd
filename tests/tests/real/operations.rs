//! What a scenario does besides loading, on a real cluster: slots move, a replica takes over, nodes come and go, programs
//! accompany phases. Rows and answers stay; what was done to the target is told.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{Output, finish, run};
use fleet_tests::run::{Results, assert_sound, phase};
use vst_analysis::Summary;
use vst_common::keys::slot;
use vst_coordinator::local_cluster::{LocalCluster, LocalClusterOptions, ServerFiles};

const VECTORS: &str = "
dataset: {base: BASE/base.u8bin, queries: BASE/query.u8bin, ground_truth: BASE/groundtruth.bin, rows: 2000}
index: {algorithm: hnsw, metric: l2}
fleet: {workers: 1, lanes: 1}
";
const ASK: &str =
    "query: {k: 10, ef_runtime: 200, load: {open: {rate: 50/s, connections: 4}}, duration: 1s, timeout: 5s}";
const KV: &str =
    "kv: {commands: [SET], fill: none, load: {closed: {clients: 2, pipeline: 1}}, operations: 500}";

/// A scenario in a folder of its own.
struct Bench {
    folder: tempfile::TempDir,
    results: Results,
}

impl Bench {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = fleet_tests::command::project().join("data/bigann10k");
        let text = text
            .replace("BASE", data.to_str().expect("text"))
            .replace("HERE", folder.path().to_str().expect("text"));
        std::fs::write(folder.path().join("own.yaml"), text).expect("written");
        Self { folder, results: Results::new() }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("text").to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    async fn run(&self, url: &str, more: &[&str]) -> (Output, Summary) {
        let own = self.file("own.yaml");
        let mut args = vec!["scenario", &own, "--target", url];
        args.extend(more);
        self.results.run(&args).await
    }

    /// Kind, phase and detail of the events of some kind.
    async fn events(&self, kind: &str) -> Vec<String> {
        let sql = format!("select phase, detail from events where kind = '{kind}' order by at");
        let output = run(&["analyze", "query", &sql, "--run", &self.results.newest(), "--json"]).await;
        assert_eq!(output.code, 0, "{}", output.stderr);
        let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
        let text = |row: serde_json::Value| {
            format!("{}: {}", row["phase"].as_str().unwrap_or(""), row["detail"].as_str().unwrap_or(""))
        };
        output.stdout.lines().map(|line| text(row(line))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_and_a_replica_takes_over_and_every_row_is_found() {
    let servers = Servers::with_replicas().await;
    let bench = Bench::new(&format!(
        "name: own\npurpose: what moves stays\n{VECTORS}phases:
  - {{name: create, create_index: {{}}}}
  - {{name: load, ingest: {{load: {{closed: {{clients: 4, pipeline: 8}}}}}}}}
  - {{name: skew, migrate_slots: {{shares: [40%, 33%, 27%]}}}}
  - {{name: ask_skewed, {ASK}}}
  - {{name: over, failover: {{primary: 2}}}}
  - {{name: ask_promoted, {ASK}}}
"
    ));
    let (output, report) = bench.run(&servers.url(), &[]).await;
    assert_sound(&output, &report);
    for name in ["ask_skewed", "ask_promoted"] {
        let asked = phase(&report, name);
        assert_eq!((asked.operations[0].due, asked.operations[0].ok), (50, 50), "{name}");
        let recall = asked.recall.as_ref().and_then(|recall| recall.recall).expect("recall");
        assert!(recall >= 0.99, "{name}: {recall}");
    }
    let events = bench.events("operation").await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events[0].starts_with("skew: ") && events[1].starts_with("over: "), "{events:?}");

    // As the servers see it: the shares, the promoted replica, every key where its slot is served.
    let seed = servers.cluster.nodes()[0].address.clone();
    let mut asked = servers.connection(&seed).await;
    let nodes: String =
        redis::cmd("CLUSTER").arg("NODES").query_async(&mut asked).await.expect("CLUSTER NODES");
    let mut shares: Vec<usize> = nodes
        .lines()
        .filter(|line| line.contains("master"))
        .map(|line| {
            let ranges = line.split_whitespace().skip(8).filter(|range| !range.starts_with('['));
            let length = |range: &str| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                last.parse::<usize>().expect("a slot") + 1 - first.parse::<usize>().expect("a slot")
            };
            ranges.map(length).sum()
        })
        .collect();
    shares.sort_unstable();
    assert_eq!(shares, [4423, 5407, 6554], "{nodes}");
    let old = &servers.cluster.nodes()[1];
    let demoted = nodes.lines().find(|line| line.starts_with(old.id.as_str())).expect("known");
    assert!(demoted.contains("slave") || !events[1].contains(&old.address), "{events:?}\n{nodes}");
    let rows = servers.hashes(&seed, "vst:").await;
    assert_eq!(rows.len(), 2000);
    let tags: Vec<u16> = servers.indexes().await.iter().map(|name| slot(name.as_bytes())).collect();
    assert!(!tags.is_empty());

    // What was done is in the run directory, with what for.
    let did = |command: &str, why: &str| {
        report.deeds.iter().any(|deed| deed.command == command && deed.why == why && deed.refused == 0)
    };
    for (command, why) in [
        ("HSET", "before the run"),
        ("FT.CREATE", "phase create"),
        ("HSET", "phase load"),
        ("CLUSTER SETSLOT", "phase skew"),
        ("MIGRATE", "phase skew"),
        ("CLUSTER FAILOVER", "phase over"),
    ] {
        assert!(did(command, why), "no {command} for {why}: {:#?}", report.deeds);
    }
    // Every recipe of the document is one for such a run.
    let recipes = std::fs::read_to_string(fleet_tests::command::project().join("docs/sql.md")).expect("read");
    let recipes: Vec<&str> =
        recipes.split("```sql\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    assert!(recipes.len() >= 10, "{recipes:?}");
    for sql in recipes {
        let output = run(&["analyze", "query", sql, "--run", &bench.results.newest()]).await;
        assert_eq!(output.code, 0, "{sql}\n{}", output.stderr);
    }
    let audit = std::fs::read_to_string(format!("{}/audit.jsonl", bench.results.newest())).expect("written");
    assert_eq!(vst_common::deed::read(&audit), report.deeds);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_accompany_phases_only_where_somebody_allowed_them() {
    let servers = Servers::without_search().await;
    let bench = Bench::new(&format!(
        "name: own
purpose: what runs beside
fleet: {{workers: 1, lanes: 1}}
hooks:
  on_phase_start:
    - {{run: [sh, -c, 'env | grep -E \"^VST_\" | sort > HERE/env'], phases: [send]}}
    - {{run: [sh, -c, 'trap \"echo stopped >> HERE/lasting; exit 0\" INT; echo began >> HERE/lasting; while :; do sleep 0.05; done'], \
       phases: [send], lasts: phase}}
  on_phase_end:
    - {{run: [sh, -c, 'echo $VST_PHASE $VST_STAGE $VST_OUTCOME >> HERE/ends']}}
    - {{run: [sh, -c, 'echo too slow; sleep 60'], phases: [send], timeout: 300ms}}
phases:
  - {{name: send, {KV}}}
  - {{name: own_step, command: {{run: [sh, -c, 'echo $VST_PHASE $VST_STAGE > HERE/step; echo done']}}}}
  - {{name: memory, checkpoint: {{}}}}
"
    ));
    let (url, own) = (servers.url(), bench.file("own.yaml"));
    let refused = finish(bench.results.command(&["scenario", &own, "--target", &url])).await;
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("--allow-hooks") && refused.stderr.contains("own.yaml:6:"),
        "{}",
        refused.stderr
    );
    assert!(bench.results.run_dirs().is_empty() && bench.read("ends").is_empty(), "nothing ran");
    let described = finish(bench.results.command(&["scenario", &own, "--target", &url, "--dry-run"])).await;
    assert!(described.stdout.contains("program   phases.own_step.command: sh -c"), "{}", described.stdout);

    let mut command =
        bench.results.command(&["scenario", &own, "--target", &url, "--allow-hooks", "--stages", "--json"]);
    command.env("VST_TOKEN", "hidden-token");
    let output = finish(command).await;
    let report = fleet_tests::run::report(&output);
    assert_sound(&output, &report);
    let env = bench.read("env");
    for line in ["VST_PHASE=send\n", "VST_STAGE=start\n", "VST_STEP=kv\n", "VST_SCENARIO=own\n"] {
        assert!(env.contains(line), "{line} is not in\n{env}");
    }
    assert!(env.contains(&format!("VST_TARGET={url}")) && env.contains("VST_RUN_DIRECTORY=/"), "{env}");
    assert!(!env.contains("hidden-token"), "{env}");
    assert_eq!(bench.read("lasting"), "began\nstopped\n", "it lasts as long as the phase");
    let ends = bench.read("ends");
    let ends: Vec<&str> = ends.lines().collect();
    assert_eq!(
        ends,
        ["baseline end completed", "send end completed", "own_step end completed", "memory end completed"]
    );
    assert_eq!(bench.read("step"), "own_step run\n");
    let events = bench.events("hook").await;
    assert_eq!(events.len(), 8, "{events:#?}");
    let slow = events.iter().find(|event| event.contains("too slow")).expect("what it said is kept");
    assert!(slow.contains("its time of 300 ms was over"), "{slow}");
    let stages: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("[STAGE:")).collect();
    assert_eq!(stages.len(), 8, "{stages:?}");
    assert_eq!(stages[2], "[STAGE:START] send:kv");
    assert!(stages[3].starts_with("[STAGE:END] send:kv duration=") && stages[3].ends_with('s'), "{stages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_must_not_fail_ends_the_run_with_its_report() {
    let servers = Servers::without_search().await;
    let bench = Bench::new(&format!(
        "name: own\npurpose: what ends a run\nfleet: {{workers: 1, lanes: 1}}
phases:
  - {{name: send, {KV}}}
  - {{name: fails, command: {{run: [sh, -c, 'echo no disk; exit 3']}}}}
  - {{name: memory, checkpoint: {{}}}}
"
    ));
    let (output, report) = bench.run(&servers.url(), &["--allow-hooks"]).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(
        output.stderr.contains("no disk") && output.stderr.contains("exit status: 3"),
        "{}",
        output.stderr
    );
    let names: Vec<&str> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["baseline", "send", "fails"]);
    assert_eq!(phase(&report, "send").operations[0].ok, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_joins_as_a_replica_and_leaves_again() {
    let servers = Servers::cluster().await;
    let alone = LocalClusterOptions {
        primaries: 1,
        cluster: true,
        ..LocalClusterOptions::new(ServerFiles::find().expect("servers"))
    };
    let alone = LocalCluster::start(alone).await.expect("starts");
    let address = alone.nodes()[0].address.clone();
    let mut joining = servers.connection(&address).await;
    redis::cmd("CLUSTER").arg("RESET").arg("HARD").exec_async(&mut joining).await.expect("RESET");
    let bench = Bench::new(&format!(
        "name: own\npurpose: who comes and goes\nfleet: {{workers: 1, lanes: 1}}
phases:
  - {{name: send, {KV}}}
  - {{name: join, add_node: {{address: \"{address}\", replica_of: 1, timeout: 30s}}}}
  - {{name: leave, remove_node: {{address: \"{address}\"}}}}
  - {{name: again, {KV}}}
"
    ));
    let (output, report) = bench.run(&servers.url(), &[]).await;
    assert_sound(&output, &report);
    let events = bench.events("operation").await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events[0].contains(&format!("{address} joined as a replica of")), "{events:?}");
    assert!(events[1].contains(&format!("{address} left")), "{events:?}");
    let mut asked = servers.connection(&servers.cluster.nodes()[0].address).await;
    let nodes: String =
        redis::cmd("CLUSTER").arg("NODES").query_async(&mut asked).await.expect("CLUSTER NODES");
    assert_eq!(nodes.lines().count(), 3, "{nodes}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let own: String =
        redis::cmd("CLUSTER").arg("NODES").query_async(&mut joining).await.expect("CLUSTER NODES");
    assert_eq!(own.lines().count(), 1, "it knows nobody any more: {own}");
}
