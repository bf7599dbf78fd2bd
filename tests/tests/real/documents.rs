//! Rows that are JSON documents: found, counted and removed as hashes are.

use fleet_tests::cluster::Servers;
use fleet_tests::command::project;
use fleet_tests::run::{Results, assert_sound, phase};
use vst_analysis::Check;

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_found_exactly_and_accounted_for() {
    let servers = Servers::with_documents().await;
    let results = Results::new();
    let file = project().join("tests/scenarios/documents.yaml");
    let url = servers.url();
    let args = ["scenario", file.to_str().expect("text"), "--target", &url, "--cleanup"];
    let (output, report) = results.run(&args).await;
    assert_sound(&output, &report);
    for row in &report.accounting {
        assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
    }
    let written: Vec<(&str, u64)> = ["load", "exchange"]
        .iter()
        .flat_map(|name| phase(&report, name).operations.iter().map(|o| (o.operation.as_str(), o.ok)))
        .collect();
    assert_eq!(written, [("json_set", 10_000), ("del", 1_000), ("json_set", 1_000)]);
    let calls: u64 = servers.commandstats("json.set").await.values().map(|calls| calls.calls).sum();
    assert_eq!(calls, 11_000);
    for name in ["all", "tag_tenth", "number_half"] {
        let recall = phase(&report, name).recall.as_ref().expect("a query phase has recall");
        assert_eq!(
            (recall.recall, recall.ghosts, recall.contamination),
            (Some(1.0), 0, 0),
            "{name}: {recall:?}"
        );
    }
    assert_eq!(servers.keys_under("vst:").await, [""; 0]);
}
