//! Memory of a million vectors, measured, beside what two hundred thousand predict of it. `make record-predict`.
//!
//! What was measured is kept under `tests/records`, where `make test` predicts from it again.

use fleet_tests::command::project;
use fleet_tests::record;
use fleet_tests::run::Results;
use fleet_tests::synthetic::run_over;

const SCENARIO: &str = "tests/scenarios/predict.yaml";
/// Two runs that were done with the scenario already, small and large, separated by a comma.
const DONE: &str = "VST_PREDICT_RUNS";

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_thousand_rows_predict_the_memory_of_a_million() {
    let results = Results::new();
    let (small, large) = match std::env::var(DONE) {
        Ok(done) => {
            let (small, large) = done.split_once(',').expect("two runs");
            (small.to_owned(), large.to_owned())
        }
        Err(_) => {
            let small = run_over(SCENARIO, 200_000, &results).await.0;
            (small, run_over(SCENARIO, 1_000_000, &results).await.0)
        }
    };
    let kept = project().join("tests/records");
    for (run, name) in [(&small, "predict_200k"), (&large, "predict_1m")] {
        record::keep(run, &kept.join(name)).await;
    }
    let of = |name: &str| kept.join(name).to_str().expect("text").to_owned();
    let predicted = vst_analysis::predict(&[of("predict_200k")], &[1_000_000], 64.0).await.expect("a line");
    let measured = vst_analysis::summary(&of("predict_1m")).await.expect("a report");
    let checkpoint = measured.checkpoints.last().expect("a checkpoint");
    let each = checkpoint.figures.as_ref().and_then(|f| f.net_bytes_per_vector).expect("net bytes");
    assert_eq!(checkpoint.live, Some(1_000_000));
    let share = predicted.needs[0].net_bytes / (each * 1e6);
    eprintln!(
        "{}measured: {each:.1} bytes per vector; predicted over measured: {share:.4}",
        predicted.to_text()
    );
    assert!((share - 1.0).abs() < 0.02, "{share}");
}
