//! The limit of 100,000 vectors, found again and again; A against A, and against a little more.
//!
//! `make test-limit` prints what was found. Data are generated, so that their seed says all of them; they are loaded once
//! and taken over by every further search.

use std::path::Path;
use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{finish, finish_within, project, run};
use fleet_tests::run::{Results, assert_sound, phase, report};
use serde_json::Value;
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// 100,000 x 128 with 1,000 queries and their neighbours.
async fn data(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    let (base, queries, truth) = (path("base.fbin"), path("query.fbin"), path("truth.bin"));
    let shape = ["--rows", "100000", "--dims", "128"];
    for args in [
        [&["dataset", "generate", &base][..], &shape].concat(),
        [&["dataset", "generate", &queries][..], &shape, &["--queries", "1000"]].concat(),
        vec!["dataset", "ground-truth", "--base", &base, "--queries", &queries, "--out", &truth],
    ] {
        let output = run(&args).await;
        assert_eq!(output.code, 0, "{args:?}: {}", output.stderr);
    }
    let sets = [("base", base), ("queries", queries), ("ground_truth", truth)];
    sets.iter().flat_map(|(key, path)| [String::from("--set"), format!("dataset.{key}={path}")]).collect()
}

/// One cluster that stays, and the options by which a search takes over what the one before has loaded.
async fn servers(data: &[String]) -> (Servers, Vec<String>) {
    let servers = Servers::cluster().await;
    let more = ["--target", &servers.url(), "--set", "phases.load.ingest.prefill=reuse"].map(String::from);
    (servers, [data, &more].concat())
}

async fn found(kind: &str, data: &[String], more: &[&str]) -> Value {
    let results = Results::new();
    let mut command = results.command(&[kind, "--scenario", "tests/scenarios/limit.yaml", "--json"]);
    command.args(data).args(more);
    let output = finish_within(command, LIMIT).await;
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    serde_json::from_str(&output.stdout).expect("JSON")
}

/// The command that a search printed, as it stands but for the program's place and where results go.
async fn alone(outcome: &Value) {
    let command = outcome["command"].as_str().expect("a command").strip_prefix("vst ").expect("of vst");
    let again = Results::new();
    let program = fleet_tests::command::binary();
    let line = format!("exec {} {command} --json --results {}", program.display(), again.path());
    let mut shell = Command::new("bash");
    shell.args(["-c", &line]).current_dir(project()).kill_on_drop(true);
    let output = finish(shell).await;
    let report = report(&output);
    assert_sound(&output, &report);
    let query = phase(&report, "query");
    let recall = query.recall.as_ref().and_then(|r| r.recall).expect("recall");
    let p99 = query.operations[0].response.as_ref().expect("open loop").p99;
    eprintln!("alone again: recall {recall:.4}, p99 {:?}", Duration::from_nanos(p99.ns));
    assert!(recall >= 0.95 && !p99.censored && p99.ns <= 10_000_000, "{query:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_searches_for_the_limit_agree_within_their_intervals_and_the_winner_keeps_its_constraints() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_servers, data) = servers(&data(folder.path()).await).await;
    let mut intervals = Vec::new();
    for turn in 1..=3 {
        let outcome = found("tune", &data, &["--under", "recall >= 0.95", "--under", "p99 <= 10ms"]).await;
        let conclusion = &outcome["settings"]["conclusion"];
        let best = conclusion.get("winner").or_else(|| conclusion.get("tie")).expect("an answer");
        let end = |key: &str| best["value"][key].as_f64().expect("a rate");
        eprintln!(
            "{turn}: {:.0}/s [{:.0}, {:.0}] at {}",
            end("value"),
            end("low"),
            end("high"),
            outcome["best"]
        );
        intervals.push((end("low"), end("high")));
        alone(&outcome).await;
    }
    let low = intervals.iter().map(|i| i.0).fold(0.0, f64::max);
    let high = intervals.iter().map(|i| i.1).fold(f64::INFINITY, f64::min);
    assert!(low <= high, "they do not agree: {intervals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_against_itself_is_equal_twenty_times_of_twenty_and_a_little_more_ef_is_told_or_too_small() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_servers, data) = servers(&data(folder.path()).await).await;
    let margins = ["--margin", "qps=10%", "--margin", "recall=1%", "--blocks", "25", "--length", "2s"];
    for turn in 1..=20 {
        let outcome = found("compare", &data, &margins).await;
        let calls: Vec<&Value> =
            outcome["compared"].as_array().expect("figures").iter().map(|c| &c["call"]).collect();
        eprintln!("{turn}: {calls:?} in {} blocks", outcome["blocks"]);
        assert_eq!(calls, ["equal", "equal"], "{outcome}");
    }
    let sides = ["--a", "ef_runtime=100", "--b", "ef_runtime=110"];
    let outcome = found("compare", &data, &[&margins[..], &sides].concat()).await;
    for compared in outcome["compared"].as_array().expect("figures") {
        eprintln!("ef 100 against 110: {compared}");
        assert!(compared["smallest_effect"].as_f64().is_some_and(f64::is_finite), "{compared}");
    }
}
