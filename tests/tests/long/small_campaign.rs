//! A small campaign on a real cluster: what is predicted to break the budget is not loaded, and every step has its reason.
//!
//! Minutes, so not with every change; `make test-campaign` runs it before the large one.

use std::time::Duration;

use fleet_tests::campaign::{file, text};
use fleet_tests::command::{finish_within, vst};
use fleet_tests::run::Results;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_more_rows_would_break_is_kept_by_another_shard_and_the_plan_says_so() {
    let results = Results::new();
    let path = file(&results, &text("8MiB", "  shards: {counts: [1, 2], cost: 1m}\n"));
    let path = path.to_str().expect("text");

    let plan = finish_within(vst(&["run", "campaign", path, "--dry-run"]), LIMIT).await;
    assert_eq!(plan.code, 0, "{}\n{}", plan.stdout, plan.stderr);
    for step in ["prepare", "load", "measure"] {
        assert!(plan.stdout.matches(&format!("  {step} ")).count() > 1, "{}", plan.stdout);
    }
    assert_eq!(results.run_dirs().len(), 0, "nothing is started");

    let mut output = finish_within(results.command(&["campaign", path, "--json"]), LIMIT).await;
    // A machine that stopped for a moment judges nothing: once more, from the start.
    if output.code == 7 && output.stdout.contains("sent late by their own fault") {
        output = finish_within(results.command(&["campaign", path, "--json"]), LIMIT).await;
    }
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let outcome = &found["outcome"];
    assert_eq!(outcome["conclusion"], "reached", "{outcome}");
    let reached: Vec<&Value> = outcome["reached"].as_array().expect("places").iter().map(|r| &r[0]).collect();
    assert_eq!(
        (&reached[0]["shards"], &reached[1]["shards"]),
        (&Value::from(0), &Value::from(1)),
        "{outcome}"
    );
    let steps: Vec<&str> = outcome["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .filter_map(|s| s["planned"]["ask"]["step"].as_str())
        .collect();
    assert_eq!(
        steps.iter().filter(|step| **step == "load").count(),
        2,
        "what must fail is not loaded: {steps:?}"
    );
    let refused = outcome["places"].as_array().expect("places").iter();
    let refused: Vec<&Value> = refused.filter_map(|p| p[1]["refused"].get("predicted_memory")).collect();
    assert_eq!(refused.len(), 1, "{outcome}");
    assert!(refused[0]["how"].as_str().is_some_and(|how| how.contains("measured at 1000")), "{outcome}");
}
