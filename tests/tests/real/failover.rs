//! What a real cluster does in the middle of a phase: a primary dies, a replica is promoted, a slot moves, connections are
//! cut. The run ends, says what happened, and every row that should live is there, byte for byte.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{Output, Watched, project, run};
use fleet_tests::run::{Results, phase, report};
use vst_analysis::{Check, Rule, Summary};
use vst_common::dataset::{self, DatasetView};
use vst_common::keys::slot;
use vst_common::ranges::RowRange;
use vst_coordinator::local_cluster::LocalNode;

const ROWS: u64 = 10_000;

/// A run that is watched while something happens to its target.
struct Run {
    results: Results,
    watched: Watched,
}

impl Run {
    /// Starts the scenario on a node of which nothing is going to happen, and waits for a phase to be under way.
    async fn until(url: &str, scenario: &str, name: &str, set: &[&str]) -> Self {
        let results = Results::new();
        let file = project().join("tests/scenarios").join(scenario);
        let mut command =
            results.command(&["scenario", file.to_str().expect("text"), "--target", url, "--json"]);
        for set in set {
            command.args(["--set", set]);
        }
        let mut watched = Watched::start(command);
        watched.says(&format!(" {name} ")).await;
        // It is being armed now; somewhere in it, the laws do not depend on where.
        tokio::time::sleep(Duration::from_secs(3)).await;
        Self { results, watched }
    }

    async fn end(self) -> Ended {
        let output = self.watched.end().await;
        let report = report(&output);
        let sql = "select kind, phase, detail, sum(\"count\") as n from events group by kind, phase, detail";
        let run_dir = self.results.newest();
        let events = run(&["analyze", "query", sql, "--run", &run_dir, "--json"]).await;
        assert_eq!(events.code, 0, "{}", events.stderr);
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        let mut details = String::new();
        for line in events.stdout.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            *kinds.entry(row["kind"].as_str().expect("kind").to_owned()).or_default() +=
                row["n"].as_u64().expect("a count");
            details.push_str(line);
            details.push('\n');
        }
        let sql =
            "select node, hdr_quantile(hdr_merge(response_hdr), 0.99) as p99 from latency group by node";
        let nodes = run(&["analyze", "query", sql, "--run", &run_dir, "--json"]).await;
        let p99_by_node = nodes
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
            .filter_map(|row| Some((row["node"].as_str()?.to_owned(), row["p99"].as_u64()?)))
            .collect();
        Ended { output, report, kinds, details, p99_by_node }
    }
}

/// What a run left.
struct Ended {
    output: Output,
    report: Summary,
    kinds: BTreeMap<String, u64>,
    details: String,
    p99_by_node: BTreeMap<String, u64>,
}

impl Ended {
    fn told(&self, kinds: &[&str]) {
        for kind in kinds {
            assert!(self.kinds.contains_key(*kind), "no event `{kind}`:\n{}", self.details);
        }
    }

    /// Every phase came to its end, and no server counted anything else than we did where that can be checked.
    fn sound(&self) {
        assert!(matches!(self.output.code, 0 | 7), "exit {}\n{}", self.output.code, self.output.stderr);
        for phase in &self.report.phases {
            assert_eq!(phase.outcome, "completed", "{}: {:?}", phase.name, phase.failure);
        }
        assert!(!self.report.accounting.is_empty());
        for row in &self.report.accounting {
            assert!(!matches!(row.check, Check::Violated { .. }), "{row:?}");
        }
    }

    /// Nodes on which the law was checked in a phase, and those on which it could not be.
    fn checked(&self, phase: &str) -> (usize, usize) {
        let rows: Vec<_> = self.report.accounting.iter().filter(|row| row.phase == phase).collect();
        let holds = rows.iter().filter(|row| matches!(row.check, Check::Holds { .. })).count();
        (holds, rows.len() - holds)
    }

    fn found(&self, rule: Rule) {
        assert!(
            self.report.verdict.findings.iter().any(|note| note.rule == rule),
            "no finding {rule:?}: {:?}",
            self.report.verdict.findings
        );
    }

    /// Every row was due once and ended once, and none of them with an error.
    fn all_rows_ended_well(&self) {
        let hset = &phase(&self.report, "load").operations[0];
        // Those that a failover lost were written twice.
        assert!(hset.due >= ROWS && hset.unsent == 0, "{hset:?}");
        assert_eq!(hset.due, hset.ok + hset.timeout, "{hset:?}");
        assert!(hset.errors.is_empty(), "{hset:?}");
    }
}

async fn expected() -> BTreeMap<String, Vec<u8>> {
    let base = dataset::resolve("data/bigann10k/base.u8bin", Path::new(project())).expect("location");
    let (store, path) = dataset::open_store(&base).expect("store");
    let view = DatasetView::open(store, path, base).await.expect("base");
    let rows = view.read(RowRange { start: 0, end: ROWS }).await.expect("rows");
    let mut vector = Vec::new();
    (0..ROWS)
        .map(|row| {
            vector.clear();
            rows.row_f32(usize::try_from(row).expect("small"), &mut vector);
            (format!("vst:{row:012}"), vector.iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect()
}

async fn rows_are_there(servers: &Servers, ask: &LocalNode) {
    let expected = expected().await;
    let found = servers.hashes(&ask.address, "vst:").await;
    let missing: Vec<&String> = expected.keys().filter(|key| !found.contains_key(*key)).collect();
    assert_eq!(missing, [""; 0], "rows that are not there");
    for (key, vector) in &expected {
        let fields: Vec<&Vec<u8>> = found[key].values().collect();
        assert_eq!(fields, [vector], "{key}");
    }
    assert_eq!(found.len(), expected.len(), "and no others");
}

fn url_of(node: &LocalNode) -> String {
    format!("valkey://{}", node.address)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_a_primary_that_is_killed_while_they_are_written() {
    let servers = Servers::with_replicas().await;
    let (seed, victim) = (servers.cluster.nodes()[0].clone(), servers.cluster.nodes()[1].clone());
    // The node that the URL names is the one that dies: everybody has to find another.
    let run = Run::until(&url_of(&victim), "failover.yaml", "load", &[]).await;
    servers.cluster.kill(&victim.id).expect("killed");
    let ended = run.end().await;
    ended.sound();
    ended.all_rows_ended_well();
    ended.told(&["connection_lost", "node_unreachable", "topology_changed", "role_changed"]);
    ended.found(Rule::Topology);
    assert_eq!(
        ended.checked("load").0,
        2,
        "the law holds on the two that stayed: {:?}",
        ended.report.accounting
    );
    rows_are_there(&servers, &seed).await;
    let knn = &phase(&ended.report, "query_full").operations[0];
    assert_eq!((knn.due, knn.ok), (200, 200), "the promoted replica answers for its part: {knn:?}");
    let recall = phase(&ended.report, "query_full").recall.as_ref().and_then(|r| r.recall).expect("recall");
    assert!(recall >= 0.99, "{recall}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_go_on_at_the_promoted_replica_and_their_wait_is_their_latency() {
    let servers = Servers::with_replicas().await;
    let (seed, victim) = (servers.cluster.nodes()[0].clone(), servers.cluster.nodes()[2].clone());
    let set = [
        "phases.load.ingest.load={closed: {clients: 8, pipeline: 8}}",
        "phases.query_full.query.duration=12s",
    ];
    let run = Run::until(&url_of(&seed), "failover.yaml", "query_full", &set).await;
    servers.cluster.kill(&victim.id).expect("killed");
    let ended = run.end().await;
    ended.sound();
    ended.told(&["connection_lost", "node_unreachable", "topology_changed"]);
    ended.found(Rule::Topology);
    let knn = &phase(&ended.report, "query_full").operations[0];
    assert_eq!(knn.due, 1_200);
    assert_eq!(knn.due, knn.ok + knn.timeout + knn.lost, "none was skipped, none ended in an error: {knn:?}");
    assert!(knn.errors.is_empty() && knn.ok > 1_000, "{knn:?}");
    let worst = knn.response.as_ref().expect("open loop").max.ns;
    assert!(worst >= 1_000_000_000, "the cluster was away for longer than a second: {worst} ns");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_failover_costs_no_row() {
    let servers = Servers::with_replicas().await;
    let (seed, demoted) = (servers.cluster.nodes()[0].clone(), servers.cluster.nodes()[1].clone());
    let run = Run::until(&url_of(&seed), "failover.yaml", "load", &[]).await;
    let mut replica = servers.connection(&servers.replica_of(&demoted.id).address).await;
    redis::cmd("CLUSTER").arg("FAILOVER").exec_async(&mut replica).await.expect("CLUSTER FAILOVER");
    let ended = run.end().await;
    ended.sound();
    ended.all_rows_ended_well();
    ended.told(&["topology_changed", "role_changed", "moved"]);
    ended.found(Rule::Topology);
    let (holds, not_checkable) = ended.checked("load");
    assert!(holds >= 2 && not_checkable >= 1, "{:?}", ended.report.accounting);
    rows_are_there(&servers, &seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_while_rows_are_written_takes_them_along() {
    let servers = Servers::cluster().await;
    let nodes = servers.cluster.nodes();
    let (from, to) = (nodes[1].clone(), nodes[2].clone());
    let run = Run::until(&url_of(&nodes[0]), "failover.yaml", "load", &[]).await;
    // Slots of keys that are written, none of them that of an index's own tag.
    let owned = |key: &String| (5461..10922).contains(&slot(key.as_bytes()));
    let mut slots: Vec<u16> =
        expected().await.keys().filter(|key| owned(key)).map(|key| slot(key.as_bytes())).collect();
    slots.sort_unstable();
    slots.dedup();
    let tags: Vec<u16> = servers.indexes().await.iter().map(|name| slot(name.as_bytes())).collect();
    slots.retain(|slot| !tags.contains(slot));
    slots.truncate(60);
    let (mut source, mut target) =
        (servers.connection(&from.address).await, servers.connection(&to.address).await);
    let mut all = servers.connections().await;
    for slot in slots {
        let set = |words: [&str; 2]| {
            let mut command = redis::cmd("CLUSTER");
            command.arg("SETSLOT").arg(slot).arg(words[0]).arg(words[1]);
            command
        };
        set(["IMPORTING", from.id.as_str()]).exec_async(&mut target).await.expect("IMPORTING");
        set(["MIGRATING", to.id.as_str()]).exec_async(&mut source).await.expect("MIGRATING");
        tokio::time::sleep(Duration::from_millis(30)).await;
        loop {
            let keys: Vec<String> = redis::cmd("CLUSTER")
                .arg("GETKEYSINSLOT")
                .arg(slot)
                .arg(100)
                .query_async(&mut source)
                .await
                .expect("keys");
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(to.port).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
            migrate.exec_async(&mut source).await.expect("MIGRATE");
        }
        // The new owner first, or the others may send it back.
        for node in [&to, &from, &nodes[0]] {
            let connection = all.get_mut(&node.id).expect("connected");
            set(["NODE", to.id.as_str()]).exec_async(connection).await.expect("NODE");
        }
    }
    let ended = run.end().await;
    ended.sound();
    ended.all_rows_ended_well();
    ended.told(&["moved", "topology_changed"]);
    let (holds, not_checkable) = ended.checked("load");
    assert_eq!((holds, not_checkable), (1, 2), "{:?}", ended.report.accounting);
    rows_are_there(&servers, &nodes[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_in_mid_reply_lose_no_row_and_no_count() {
    let servers = Servers::cluster().await;
    let nodes = servers.cluster.nodes();
    let run = Run::until(&url_of(&nodes[0]), "failover.yaml", "load", &[]).await;
    let mut all = servers.connections().await;
    for _ in 0..20 {
        for connection in all.values_mut() {
            let list: String =
                redis::cmd("CLIENT").arg("LIST").query_async(connection).await.expect("CLIENT LIST");
            // Lanes call their connections run/worker/generation.
            let field = |line: &str, name: &str| {
                line.split(' ').find_map(|pair| pair.strip_prefix(name).map(str::to_owned))
            };
            for line in
                list.lines().filter(|line| field(line, "name=").is_some_and(|name| name.contains('/')))
            {
                let id = field(line, "id=").expect("an id");
                let _: u64 = redis::cmd("CLIENT")
                    .arg("KILL")
                    .arg("ID")
                    .arg(id)
                    .query_async(connection)
                    .await
                    .expect("KILL");
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let ended = run.end().await;
    ended.sound();
    ended.all_rows_ended_well();
    ended.told(&["connection_lost", "connection_regained"]);
    ended.found(Rule::Connections);
    assert_eq!(
        ended.checked("load"),
        (3, 0),
        "the law holds with what is unknown: {:?}",
        ended.report.accounting
    );
    rows_are_there(&servers, &nodes[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_node_of_a_cluster_shows_in_its_own_histogram_only() {
    let servers = Servers::cluster().await;
    let nodes = servers.cluster.nodes();
    let stalled = nodes[1].clone();
    let run = Run::until(&url_of(&nodes[0]), "stall_kv.yaml", "steady", &[]).await;
    servers.cluster.pause(&stalled.id).expect("stopped");
    tokio::time::sleep(Duration::from_secs(1)).await;
    servers.cluster.resume(&stalled.id).expect("goes on");
    let ended = run.end().await;
    ended.sound();
    let steady = phase(&ended.report, "steady");
    for operation in &steady.operations {
        assert_eq!((operation.due, operation.sent), (operation.ok, operation.ok), "{operation:?}");
    }
    assert_eq!(steady.operations.iter().map(|o| o.due).sum::<u64>(), 12_000);
    for (node, p99) in &ended.p99_by_node {
        if node == stalled.id.as_str() {
            // An eighth of its requests fell due in the stall and waited for what was left of it.
            assert!((750_000_000..1_100_000_000).contains(p99), "p99 {p99} ns of the node that stalled");
        } else {
            assert!(*p99 < 300_000_000, "p99 {p99} ns of {node}, which did not stall");
        }
    }
    assert_eq!(ended.p99_by_node.len(), 3);
}
