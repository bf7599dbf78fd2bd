//! What is said of a campaign that is wrong, before anything is started.

use std::time::Duration;

use fleet_tests::campaign::{file, text};
use fleet_tests::command::{finish_within, vst};
use fleet_tests::run::Results;

const LIMIT: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_wrong_campaign_is_told_with_all_its_faults_and_their_lines() {
    let results = Results::new();
    let path = file(&results, &text("much", "  shards: {counts: [2, 1]}\n  tuning: {}\n"));
    let output = finish_within(vst(&["run", "campaign", path.to_str().expect("text")]), LIMIT).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    for fault in ["`shard_memory` takes a size", "growing order", "unknown key `tuning`", "campaign.yaml:"] {
        assert!(output.stderr.contains(fault), "{fault}: {}", output.stderr);
    }
}
