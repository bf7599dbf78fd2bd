//! Plain commands against real servers: executed, counted as the server counts them, the same for any fleet.

use std::collections::BTreeMap;

use fleet_tests::cluster::Servers;
use fleet_tests::command::project;
use fleet_tests::run::{Results, phase};
use vst_analysis::{Check, Summary};
use vst_common::content::catalog;

async fn run(servers: &Servers, scenario: &str, extra: &[&str]) -> Summary {
    let results = Results::new();
    let file = project().join("tests/scenarios").join(scenario);
    let url = servers.url();
    let args = [&["scenario", file.to_str().expect("text"), "--target", &url], extra].concat();
    let (output, report) = results.run(&args).await;
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    report
}

fn exact(report: &Summary) {
    assert!(!report.accounting.is_empty());
    for row in &report.accounting {
        assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_built_in_command_is_executed_and_counted_exactly_and_nothing_is_left_behind() {
    let servers = Servers::cluster().await;
    let report = run(&servers, "kv_all.yaml", &["--cleanup"]).await;
    exact(&report);
    let mut seen = BTreeMap::new();
    for name in ["reads", "writes"] {
        for operation in &phase(&report, name).operations {
            assert_eq!((operation.due, operation.sent), (operation.ok, operation.ok), "{operation:?}");
            assert!(operation.ok > 0 && operation.errors.is_empty(), "{operation:?}");
            seen.insert(operation.operation.clone(), operation.miss);
        }
    }
    for operation in &phase(&report, "reads").operations {
        assert_eq!(operation.miss, 0, "reads hit after the fill: {operation:?}");
    }
    let missing: Vec<&str> = catalog::COMMANDS
        .iter()
        .map(|command| command.name)
        .filter(|name| !seen.contains_key(&name.to_ascii_lowercase()))
        .collect();
    assert_eq!(missing, [""; 0], "every built-in command was sent");
    assert_eq!(servers.keys_under("vst:").await, [""; 0], "clean-up found every key by arithmetic");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_there_is_nothing_is_counted_as_a_miss_and_no_search_module_is_needed() {
    let servers = Servers::without_search().await;
    let report = run(&servers, "kv_misses.yaml", &[]).await;
    exact(&report);
    let operations = &phase(&report, "empty").operations;
    assert_eq!(operations.len(), 9);
    for operation in operations {
        assert_eq!((operation.ok, operation.miss), (100, 100), "{operation:?}");
    }
}

/// Everything under the prefix, by key: type and contents.
async fn contents(servers: &Servers) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for connection in servers.connections().await.values_mut() {
        let keys: Vec<String> = redis::cmd("KEYS").arg("vst:*").query_async(connection).await.expect("KEYS");
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query_async(connection).await.expect("TYPE");
            let mut read = match kind.as_str() {
                "string" => redis::cmd("GET"),
                "hash" => redis::cmd("HGETALL"),
                _ => redis::cmd("SMEMBERS"),
            };
            let value: redis::Value = read.arg(&key).query_async(connection).await.expect("a value");
            let mut value = match value {
                redis::Value::Array(items) => items,
                other => vec![other],
            };
            value.sort_by_key(|item| format!("{item:?}"));
            all.insert(key, format!("{kind} {value:?}"));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fleet_writes_does_not_depend_on_its_size() {
    let mut outcomes = Vec::new();
    for workers in ["1", "3"] {
        let servers = Servers::cluster().await;
        let report = run(&servers, "kv_content.yaml", &["--workers", workers]).await;
        exact(&report);
        let counted: u64 = phase(&report, "count").operations.iter().map(|o| o.ok).sum();
        assert_eq!(counted, 1400, "exactly the ordered number of requests");
        outcomes.push(contents(&servers).await);
    }
    assert!(outcomes[0].len() > 100, "{}", outcomes[0].len());
    assert_eq!(outcomes[0], outcomes[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_documentation_runs_as_it_stands() {
    let text = std::fs::read_to_string(project().join("docs/workloads.md")).expect("the document");
    let example =
        text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sessions.yaml");
    std::fs::write(&file, example).expect("written");
    let servers = Servers::cluster().await;
    let url = servers.url();
    let results = Results::new();
    let (output, report) = results.run(&["scenario", file.to_str().expect("text"), "--target", &url]).await;
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    exact(&report);
    // Weights hold exactly: 6,000 requests are 600 rounds of ten.
    let counts: BTreeMap<&str, u64> =
        phase(&report, "sessions").operations.iter().map(|o| (o.operation.as_str(), o.ok)).collect();
    assert_eq!(counts, BTreeMap::from([("get", 4200), ("offer", 600), ("set", 1200)]));
}
