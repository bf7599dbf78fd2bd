//! The campaign of the project: 20,000, 50,000 and 100,000 vectors within a budget that the third breaks.
//!
//! `make test-campaign` prints the results.

use std::path::PathBuf;
use std::time::Duration;

use fleet_tests::command::{Watched, finish_within, project, vst};
use fleet_tests::run::Results;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(3 * 3600);
const FILE: &str = "campaigns/grow_within_budget.yaml";

fn steps(outcome: &Value, wanted: &str) -> Vec<(u64, u64, u64)> {
    let all = outcome["steps"].as_array().expect("steps").iter();
    all.filter(|s| s["planned"]["ask"]["step"] == wanted)
        .map(|s| place(&s["planned"]["ask"]["place"]))
        .collect()
}

fn place(place: &Value) -> (u64, u64, u64) {
    let number = |key: &str| place[key].as_u64().expect("a number");
    (number("stage"), number("setting"), number("shards"))
}

fn refusal(outcome: &Value, of: (u64, u64, u64)) -> &Value {
    let mut places = outcome["places"].as_array().expect("places").iter();
    let found = places.find(|p| place(&p[0]) == of).expect("every place has a fate");
    &found[1]["refused"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_the_third_population_breaks_is_kept_in_another_shape_and_a_stop_loses_nothing() {
    let results = Results::new();
    let mut stopped = Watched::start(results.command(&["campaign", FILE]));
    stopped.says("loaded in").await;
    let pid = i32::try_from(stopped.pid()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::INT).expect("it is there");
    let output = stopped.end().await;
    assert_eq!(output.code, 130, "{}", output.stderr);
    let folder = results.newest();
    assert!(output.stderr.contains(&format!("--resume {folder}")), "{}", output.stderr);

    let resume = vst(&["run", "campaign", "--resume", &folder, "--json"]);
    let output = finish_within(resume, LIMIT).await;
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    eprintln!("{}", output.stderr);
    let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let outcome = &found["outcome"];
    assert_eq!(outcome["conclusion"], "reached", "{outcome}");
    let reached: Vec<(u64, u64, u64)> =
        outcome["reached"].as_array().expect("reached").iter().map(|r| place(&r[0])).collect();
    assert_eq!(reached.len(), 3, "{outcome}");
    assert_eq!(
        (reached[0].1, reached[0].2, reached[1].1, reached[1].2),
        (0, 0, 0, 0),
        "the budget does for two"
    );
    assert!(reached[2].1 + reached[2].2 > 0, "the third has another shape: {reached:?}");
    let broken = refusal(outcome, (2, 0, 0));
    eprintln!("reached {reached:?}; as it was begun: {broken}");
    assert!(broken["predicted_memory"].is_object(), "{broken}");
    assert!(!steps(outcome, "load").contains(&(2, 0, 0)), "what is predicted to fail is not loaded");
    assert_eq!(steps(outcome, "prepare").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_keeps_the_budget_each_shape_has_its_reason() {
    let results = Results::new();
    let text = std::fs::read_to_string(project().join(FILE)).expect("the campaign");
    let (rows, fewer) =
        (["rows: 20000", "rows: 50000", "rows: 100000"], ["rows: 2000", "rows: 4000", "rows: 8000"]);
    let text = rows.iter().zip(fewer).fold(text, |text, (rows, fewer)| text.replace(rows, fewer));
    let scenario = project().join("campaigns/population.yaml");
    let text = text
        .replace("scenario: population.yaml", &format!("scenario: {}", scenario.display()))
        .replace("shard_memory: 150MiB", "shard_memory: 12MiB")
        .replace("counts: [1, 2]", "counts: [1]");
    let path = PathBuf::from(results.path()).join("campaign.yaml");
    std::fs::write(&path, text).expect("it can be written");
    let output =
        finish_within(results.command(&["campaign", path.to_str().expect("text"), "--json"]), LIMIT).await;
    assert_eq!(output.code, 6, "{}\n{}", output.stdout, output.stderr);
    eprintln!("{}", output.stderr);
    let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let outcome = &found["outcome"];
    let last = outcome["conclusion"]["impossible"]["stage"].as_u64().expect("impossible");
    for setting in 0..2 {
        let why = refusal(outcome, (last, setting, 0));
        eprintln!("setting {setting}: {why}");
        assert!(why.is_object(), "{outcome}");
    }
}
