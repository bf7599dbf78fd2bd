//! Copies in a graph: loaded interleaved, they are as easy to search as one.
//!
//! Prints what it measured, because a graph is not exact and the figure says more than that a bound holds.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::finish_within;
use fleet_tests::run::{Results, phase, report};
use vst_analysis::RecallSummary;

const SCENARIO: &str = "tests/scenarios/copies_hnsw.yaml";
/// A graph of 320,000 rows takes minutes.
const LIMIT: Duration = Duration::from_secs(3600);
/// How far a recall may be from that of one copy.
const APART: f64 = 0.005;

/// Recall with so many copies of the base; its phases are the scenario's.
async fn recall(copies: u32) -> RecallSummary {
    let servers = Servers::standalone().await;
    let results = Results::new();
    let (url, set) = (servers.url(), format!("population.copies={copies}"));
    let command = results.command(&["scenario", SCENARIO, "--target", &url, "--set", &set, "--json"]);
    let output = finish_within(command, LIMIT).await;
    let report = report(&output);
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    let recall = phase(&report, "query").recall.clone().expect("a query phase has recall");
    let of_each: Vec<String> =
        recall.by_copy.iter().map(|c| format!("{:.4}", c.recall.unwrap_or(f64::NAN))).collect();
    eprintln!("{copies} copies: recall@10 of each {}, {} answers", of_each.join(" "), recall.answers);
    assert!(recall.by_copy.iter().all(|copy| copy.contamination == 0), "{recall:?}");
    recall
}

/// Every copy, each time that it is done: the graph's levels are drawn anew in every run.
#[tokio::test(flavor = "multi_thread")]
async fn each_of_five_interleaved_copies_has_the_recall_of_one() {
    let one = recall(1).await.recall.expect("recall");
    for _ in 0..3 {
        let five = recall(5).await;
        assert_eq!(five.by_copy.len(), 5);
        for copy in &five.by_copy {
            let recall = copy.recall.expect("recall");
            assert!((recall - one).abs() <= APART, "copy {}: {recall}, one copy: {one}", copy.copy);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_interleaved_copies_have_the_recall_of_one_on_average() {
    let one = recall(1).await.recall.expect("recall");
    let many = recall(32).await;
    assert_eq!(many.by_copy.len(), 32);
    let mean = many.by_copy.iter().map(|c| c.recall.expect("recall")).sum::<f64>() / 32.0;
    eprintln!("mean of 32 copies {mean:.4}, of one {one:.4}");
    assert!((mean - one).abs() <= APART, "32 copies: {mean}, one copy: {one}");
}
