//! What is said of a campaign that is wrong, before anything is started.

use std::path::PathBuf;
use std::time::Duration;

use fleet_tests::command::{finish_within, vst};
use fleet_tests::run::Results;

const LIMIT: Duration = Duration::from_secs(600);

/// 1,000 and 4,000 vectors; one shard may use so much.
fn campaign(shard_memory: &str, actions: &str) -> String {
    format!(
        "name: small\npurpose: a budget that the second population breaks\nscenario: {}\n\
         set: {{sampling.interval: 250ms}}\n\
         goal:\n  - {{rows: 1000, under: [qps >= 50/s, recall >= 0.9, p99 <= 5s], shard_memory: {shard_memory}}}\n  - rows: 4000\n\
         actions:\n  measure: {{warm_up: 200ms, length: 1s}}\n{actions}",
        fleet_tests::command::project().join("tests/scenarios/limit.yaml").display()
    )
}

fn file(results: &Results, text: &str) -> PathBuf {
    let path = PathBuf::from(results.path()).join("campaign.yaml");
    std::fs::write(&path, text).expect("it can be written");
    path
}

#[tokio::test]
async fn a_wrong_campaign_is_told_with_all_its_faults_and_their_lines() {
    let results = Results::new();
    let path = file(&results, &campaign("much", "  shards: {counts: [2, 1]}\n  tuning: {}\n"));
    let output = finish_within(vst(&["run", "campaign", path.to_str().expect("text")]), LIMIT).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    for fault in ["`shard_memory` takes a size", "growing order", "unknown key `tuning`", "campaign.yaml:"] {
        assert!(output.stderr.contains(fault), "{fault}: {}", output.stderr);
    }
}
