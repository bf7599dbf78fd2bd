//! A handful of the scenarios that come with vst, scaled down; `make test-scenarios` runs all of them.

use fleet_tests::cluster::Servers;
use fleet_tests::command::run;
use fleet_tests::library::scaled_down;
use fleet_tests::run::{Results, assert_sound, phase};
use vst_analysis::Summary;
use vst_common::scenario::library::LIBRARY;

async fn go(servers: &Servers, name: &str) -> Summary {
    let results = Results::new();
    let (url, sets) = (servers.url(), scaled_down(name));
    let mut args = vec!["scenario", name, "--target", &url, "--cleanup"];
    args.extend(sets.iter().map(String::as_str));
    let (output, report) = results.run(&args).await;
    assert_sound(&output, &report);
    assert_eq!(report.verdict.missed, [], "{name}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_names_every_scenario_with_its_purpose_and_size() {
    let table = run(&["run", "list-scenarios"]).await;
    let json = run(&["run", "list-scenarios", "--json"]).await;
    let listed: Vec<serde_json::Value> = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((table.code, json.code, listed.len()), (0, 0, LIBRARY.len()));
    for ((name, _), row) in LIBRARY.iter().zip(&listed) {
        assert!(table.stdout.contains(name), "{name} is in the table");
        assert_eq!(row["name"], *name);
        assert!(row["parameters"].as_object().is_some_and(|p| !p.is_empty()), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_population_grows_in_steps_and_each_is_what_the_plan_says() {
    let servers = Servers::cluster().await;
    let report = go(&servers, "continuous_growth").await;
    let live: Vec<Option<u64>> = report.checkpoints.iter().skip(1).map(|c| c.live).collect();
    assert_eq!(live, [200, 500, 1000, 1500, 2000].map(Some));
    for checkpoint in &report.checkpoints[1..] {
        let figures = checkpoint.figures.as_ref().expect("figures");
        assert_eq!(figures.index_docs, checkpoint.live, "{}", checkpoint.phase);
        let recall =
            phase(&report, &checkpoint.phase.replace("at_", "query_")).recall.clone().expect("asked");
        assert_eq!((recall.ghosts, recall.contamination), (0, 0), "{}", checkpoint.phase);
        // Of the published list only what lies in the first rows is left: some queries cannot be judged, most can.
        assert!(recall.masked * 2 < recall.answers, "{}: {} masked", checkpoint.phase, recall.masked);
        assert!(
            recall.recall.is_some_and(|recall| recall >= 0.95),
            "{}: {:?}",
            checkpoint.phase,
            recall.recall
        );
    }
    assert_eq!(servers.keys_under("vst:").await, [""; 0], "clean-up knows what grew");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_dropped_and_made_anew_over_the_same_rows() {
    let servers = Servers::cluster().await;
    let report = go(&servers, "index_rebuild_memory_pattern").await;
    let of = |name: &str| report.checkpoints.iter().find(|c| c.phase == name).expect("a checkpoint");
    let docs = |name: &str| of(name).figures.as_ref().and_then(|f| f.index_docs);
    assert!(!of("without").indexed, "there is none after the drop");
    for name in ["first", "same_again", "thin", "dense"] {
        assert_eq!(docs(name), Some(2000), "{name}");
    }
    let each = |name: &str| of(name).figures.as_ref().and_then(|f| f.net_bytes_per_vector).expect("figures");
    assert!(each("without") < each("first") && each("thin") < each("dense"), "{:?}", report.checkpoints);
}

#[tokio::test(flavor = "multi_thread")]
async fn criteria_are_judged_and_one_that_is_missed_has_an_exit_code() {
    let servers = Servers::cluster().await;
    let report = go(&servers, "scale_1m").await;
    let asked: Vec<(&str, bool)> = report.criteria.iter().map(|row| (row.phase.as_str(), row.met)).collect();
    assert_eq!(asked, [("query", true), ("query", true), ("query", true), ("memory", true)]);

    let results = Results::new();
    let (url, mut sets) = (servers.url(), scaled_down("scale_1m"));
    sets.extend(["--set", "least_qps=100000", "--set", "bytes_per_vector=10"].map(String::from));
    let mut args = vec!["scenario", "scale_1m", "--target", &url, "--cleanup"];
    args.extend(sets.iter().map(String::as_str));
    let (output, report) = results.run(&args).await;
    let met: Vec<bool> = report.criteria.iter().map(|row| row.met).collect();
    assert_eq!(met, [false, true, true, false]);
    // A machine that is too busy for a valid run says that first.
    let code = if report.verdict.not_valid.is_empty() { 6 } else { 7 };
    assert_eq!((output.code, u8::try_from(output.code)), (code, Ok(report.exit_code)), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn scenarios_of_plain_commands_end_sound() {
    let servers = Servers::cluster().await;
    for name in ["bytes_per_key", "time_series"] {
        go(&servers, name).await;
    }
}
