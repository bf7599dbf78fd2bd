//! The quick run, as `make quickstart` does it, and what it leaves.

use std::collections::BTreeMap;
use std::path::Path;

use fleet_tests::command::{finish, project, run, vst};
use fleet_tests::run::{Results, assert_sound, phase};
use vst_analysis::{Check, Summary};
use vst_common::dataset::{self, DatasetView};
use vst_common::live_set::LiveSet;
use vst_common::ranges::RowRange;

use fleet_tests::cluster::Servers;

fn recall(report: &Summary, name: &str) -> (f64, u64) {
    let recall = phase(report, name).recall.as_ref().expect("a query phase has recall");
    (recall.recall.expect("recall"), recall.ghosts)
}

/// Without a target: starts its own cluster, leaves nothing running, and the figures are right.
#[tokio::test(flavor = "multi_thread")]
async fn the_quick_run_ends_valid_and_its_figures_agree_everywhere() {
    let results = Results::new();
    let (output, report) = results.run(&["quick"]).await;
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);

    let (full, ghosts_full) = recall(&report, "query_full");
    let (half, ghosts_half) = recall(&report, "query_half");
    assert!(full >= 0.99 && half >= 0.99, "recall@10 {full} and {half}");
    assert_eq!((ghosts_full, ghosts_half), (0, 0));

    let keys: BTreeMap<&str, Option<u64>> = report
        .checkpoints
        .iter()
        .map(|c| (c.phase.as_str(), c.figures.as_ref().and_then(|f| f.keys)))
        .collect();
    // The marker of ownership and the run's sign of life are the only keys beside the rows.
    assert_eq!(keys["full"].map(|k| k - 2), Some(10_000));
    assert_eq!(keys["half"].map(|k| k - 2), Some(5_000));
    let docs: Vec<Option<u64>> =
        report.checkpoints.iter().skip(1).map(|c| c.figures.as_ref().and_then(|f| f.index_docs)).collect();
    assert_eq!(docs, [Some(10_000), Some(5_000)]);

    // Every scheduled request was sent, at the scenario's rate.
    for name in ["query_full", "query_half"] {
        let knn = &phase(&report, name).operations[0];
        assert_eq!((knn.due, knn.sent, knn.ok), (2_000, 2_000, 2_000), "{name}");
        assert!(knn.errors.is_empty() && knn.timeout + knn.lost + knn.unsent == 0, "{name}");
    }

    // The accounting: equality, for every node and every command that the load used.
    assert!(!report.accounting.is_empty());
    for row in &report.accounting {
        assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
        assert_eq!(row.unknown, 0, "{row:?}");
        assert_eq!(row.calls, i64::try_from(row.executed).ok(), "{row:?}");
        assert_eq!(row.rejected_calls, i64::try_from(row.rejected).ok(), "{row:?}");
    }
    let phases_and_commands: std::collections::BTreeSet<(&str, &str)> =
        report.accounting.iter().map(|r| (r.phase.as_str(), r.command.as_str())).collect();
    assert_eq!(
        phases_and_commands.into_iter().collect::<Vec<_>>(),
        [("delete_half", "del"), ("load", "hset"), ("query_full", "FT.SEARCH"), ("query_half", "FT.SEARCH")]
    );

    sql_agrees_with_the_report(&results.newest(), &report).await;
    pyarrow_reads_what_the_report_says(&results.newest(), &report).await;
    the_terminal_report_opens_with_the_verdict(&results.newest()).await;
}

async fn sql_agrees_with_the_report(run_dir: &str, report: &Summary) {
    let sql = "select phase, hdr_quantile(hdr_merge(response_hdr), 0.99) as p99 from latency group by phase";
    let output = run(&["analyze", "query", sql, "--run", run_dir, "--json"]).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let rows: Vec<serde_json::Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    let phases: Vec<&str> = rows.iter().filter_map(|row| row["phase"].as_str()).collect();
    assert!(phases.contains(&"query_full") && phases.contains(&"query_half"), "{phases:?}");
    for row in &rows {
        let name = row["phase"].as_str().expect("phase");
        let response = phase(report, name).operations[0].response.as_ref().map(|r| r.p99.ns);
        assert_eq!(row["p99"].as_u64(), response, "{name}");
    }
}

async fn pyarrow_reads_what_the_report_says(run_dir: &str, report: &Summary) {
    let script = r"
import glob, json, sys
import pyarrow as pa, pyarrow.parquet as pq
run = sys.argv[1]
rows = {}
for table in ['latency', 'latency_rollup', 'memory', 'recall', 'recall_queries', 'health', 'commandstats']:
    parts = [pq.read_table(part) for part in sorted(glob.glob(f'{run}/{table}/*.parquet'))]
    assert parts, table
    rows[table] = pa.concat_tables(parts)
ok = {}
for row in rows['latency'].select(['phase', 'operation', 'window', 'ok']).to_pylist():
    if row['operation'] == 'knn' and row['window'] == 'measure':
        ok[row['phase']] = ok.get(row['phase'], 0) + row['ok']
print(json.dumps(ok))
";
    let mut command = tokio::process::Command::new("python3");
    command.args(["-c", script, run_dir]).env("PYTHONPATH", project().join(".local/python"));
    let output = finish(command).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let ok: BTreeMap<String, u64> = serde_json::from_str(&output.stdout).expect("JSON");
    for name in ["query_full", "query_half"] {
        assert_eq!(ok.get(name), Some(&phase(report, name).operations[0].ok), "{name}");
    }
}

async fn the_terminal_report_opens_with_the_verdict(run_dir: &str) {
    let output = finish(vst(&["analyze", "summary", run_dir])).await;
    assert_eq!(output.code, 0);
    assert!(output.stdout.trim_start().starts_with("VALID"), "{}", output.stdout);
    for word in ["query_full", "recall@10", "net B/vector", "rss/used", "p99", run_dir] {
        assert!(output.stdout.contains(word), "`{word}` is missing:\n{}", output.stdout);
    }
}

/// On somebody's cluster: the rows are exactly the live set's, byte for byte; clean-up removes exactly them.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_users_cluster_rows_are_the_live_sets_and_cleanup_removes_exactly_them() {
    let servers = Servers::cluster().await;
    // Keys that look alike but are not vst's, and another index.
    for (n, connection) in servers.connections().await.values_mut().enumerate() {
        for i in 0..2_000 {
            let key = format!("vs:{n}:{i}");
            // A node refuses a key of another's slot: each node keeps those that are its own.
            let _: Result<(), _> = redis::cmd("SET").arg(key).arg(i).query_async(connection).await;
        }
    }
    let before = servers.keys().await;
    assert!(!before.is_empty());

    let results = Results::new();
    let url = servers.url();
    let short = [
        "--set",
        "phases.query_full.query.duration=2s",
        "--set",
        "phases.query_half.query.duration=2s",
        "--target",
        &url,
    ];
    let (output, report) = results.run(&[&["quick"], &short[..]].concat()).await;
    assert_sound(&output, &report);
    rows_are_the_live_sets(&servers, &report).await;

    // The same again is refused: the target holds a population, and says how to go on.
    let output = finish(results.command(&[&["quick"], &short[..]].concat())).await;
    assert_eq!(output.code, 4, "{}", output.stderr);
    assert!(output.stderr.contains("--cleanup"), "{}", output.stderr);

    let (output, _) = results.run(&[&["quick", "--cleanup"], &short[..]].concat()).await;
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    assert_eq!(servers.keys().await, before, "what vst made is gone, and nothing else");
    assert_eq!(servers.indexes().await, Vec::<String>::new());
}

async fn rows_are_the_live_sets(servers: &Servers, report: &Summary) {
    let live = LiveSet::empty(report.setting.seed.expect("seed"), 10_000, 1).keep(0.5);
    let base = dataset::resolve("data/bigann10k/base.u8bin", Path::new(project())).expect("location");
    let (store, path) = dataset::open_store(&base).expect("store");
    let view = DatasetView::open(store, path, base).await.expect("base");
    let rows = view.read(RowRange { start: 0, end: 10_000 }).await.expect("rows");
    let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut vector = Vec::new();
    for row in (0..10_000).filter(|row| live.is_live(0, *row)) {
        vector.clear();
        rows.row_f32(usize::try_from(row).expect("small"), &mut vector);
        expected.insert(format!("vst:{row:012}"), vector.iter().flat_map(|x| x.to_le_bytes()).collect());
    }
    assert_eq!(expected.len(), 5_000);

    let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for connection in servers.connections().await.values_mut() {
        let keys: Vec<String> = redis::cmd("KEYS").arg("vst:*").query_async(connection).await.expect("KEYS");
        for key in keys {
            let fields: BTreeMap<String, Vec<u8>> =
                redis::cmd("HGETALL").arg(&key).query_async(connection).await.expect("HGETALL");
            assert_eq!(fields.len(), 1, "{key} holds the vector and nothing else");
            found.insert(key, fields.into_values().next().expect("one"));
        }
    }
    assert!(found == expected, "the rows in the cluster are exactly what the live set says, byte for byte");
}
