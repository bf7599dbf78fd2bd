//! Every scenario that comes with vst, scaled down, against a real cluster: sound, and its criteria hold.

use fleet_tests::cluster::Servers;
use fleet_tests::command::run;
use fleet_tests::library::{names, scaled_down};
use fleet_tests::run::{Results, assert_sound};

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
        let results = Results::new();
        let sets = scaled_down(name);
        let mut args = vec!["scenario", name, "--target", &url, "--cleanup"];
        args.extend(sets.iter().map(String::as_str));
        let began = tokio::time::Instant::now();
        let outcome = tokio::spawn({
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            async move {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let (output, report) = results.run(&args).await;
                assert_sound(&output, &report);
                assert_eq!(report.verdict.missed, []);
                (output.code, report.criteria.len())
            }
        })
        .await;
        match outcome {
            Ok((code, criteria)) => {
                eprintln!(
                    "{name:<34} exit {code}, {criteria} criteria, {:.1} s",
                    began.elapsed().as_secs_f64()
                );
            }
            Err(e) => {
                eprintln!("{name:<34} FAILED: {e}");
                failed.push(name);
            }
        }
    }
    assert_eq!(failed, [""; 0]);
}
