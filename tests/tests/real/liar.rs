//! A server that ignores deletes, repeats a key or names another copy's rows does not score.

use fleet_tests::cluster::Servers;
use fleet_tests::liar::{Liar, Lie};
use fleet_tests::run::{Results, phase};
use vst_analysis::Summary;

async fn asked(lie: Lie) -> (i32, Summary) {
    let servers = Servers::standalone().await;
    let upstream = servers.url().rsplit('/').next().expect("host:port").to_owned();
    let liar = Liar::start(&upstream, lie).await;
    let (output, report) =
        Results::new().run(&["scenario", "tests/scenarios/liar.yaml", "--target", &liar.url()]).await;
    (output.code, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lies_does_not_score() {
    let (code, honest) = asked(Lie::None).await;
    assert_eq!(code, 0);
    for name in ["query_full", "query_half"] {
        let recall = phase(&honest, name).recall.clone().expect("recall");
        assert_eq!(recall.recall, Some(1.0), "{name}: {recall:?}");
        assert_eq!((recall.ghosts, recall.duplicates, recall.contamination), (0, 0, 0), "{name}");
    }

    let (code, report) = asked(Lie::IgnoresDeletes).await;
    let recall = phase(&report, "query_half").recall.clone().expect("recall");
    let share = recall.recall.expect("recall");
    // About half of the true neighbours are among the ten that it returns.
    assert!(recall.ghosts > recall.answers && (0.2..0.8).contains(&share), "{recall:?}");
    assert_eq!(code, 7, "the server's counters show it too: the run is not valid");

    let (_, report) = asked(Lie::RepeatsOneKey).await;
    let recall = phase(&report, "query_full").recall.clone().expect("recall");
    assert!((recall.recall.expect("recall") - 0.1).abs() < 1e-9, "one of ten: {recall:?}");
    assert_eq!(recall.duplicates, recall.answers * 9);

    let (_, report) = asked(Lie::AnotherCopy).await;
    let recall = phase(&report, "query_full").recall.clone().expect("recall");
    assert_eq!((recall.recall, recall.contamination), (Some(0.0), recall.answers * 10));
}
