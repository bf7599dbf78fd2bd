//! Every scenario that comes with vst, scaled down, against a real cluster: sound, and its criteria hold.

use fleet_tests::cluster::Servers;
use fleet_tests::command::run;
use fleet_tests::library::{names, scaled_down};
use fleet_tests::run::{Results, assert_sound};

/// How often a scenario may try to end with 0.
const TRIES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_of_the_library_passes_the_strict_check() {
    for name in names() {
        let output = run(&["validate", "scenario", name, "--strict"]).await;
        assert_eq!(output.code, 0, "{name}: {}", output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_of_the_library_runs_scaled_down() {
    // Some of them have a replica take over.
    let servers = Servers::with_replicas().await;
    let url = servers.url();
    // `VST_TEST_SCENARIOS=soak,op_` runs those whose name holds one of the words.
    let only = std::env::var("VST_TEST_SCENARIOS").unwrap_or_default();
    let chosen = |name: &&str| only.split(',').any(|word| name.contains(word));
    let mut failed = Vec::new();
    for name in names().into_iter().filter(chosen) {
        let began = tokio::time::Instant::now();
        // A machine that stops for a moment makes a run not valid: that alone is a reason to try again.
        let mut outcome = once(name, &url).await;
        for _ in 1..TRIES {
            if matches!(outcome, Ok((7, _))) {
                outcome = once(name, &url).await;
            }
        }
        let took = began.elapsed().as_secs_f64();
        match outcome {
            Ok((0, criteria)) => eprintln!("{name:<34} exit 0, {criteria} criteria met, {took:.1} s"),
            Ok((code, _)) => {
                eprintln!("{name:<34} exit {code} {TRIES} times: the generator was late, {took:.1} s");
                failed.push(name);
            }
            Err(reason) => {
                eprintln!("{name:<34} FAILED: {reason}");
                failed.push(name);
            }
        }
    }
    assert_eq!(failed, [""; 0]);
}

/// Runs a scenario: its exit code, and how many criteria were judged and met.
async fn once(name: &'static str, url: &str) -> Result<(i32, usize), tokio::task::JoinError> {
    let url = url.to_owned();
    tokio::spawn(async move {
        let results = Results::new();
        let sets = scaled_down(name);
        let mut args = vec!["scenario", name, "--target", &url, "--cleanup"];
        args.extend(sets.iter().map(String::as_str));
        let (output, report) = results.run(&args).await;
        assert_sound(&output, &report);
        assert_eq!(report.verdict.missed, []);
        (output.code, report.criteria.len())
    })
    .await
}
