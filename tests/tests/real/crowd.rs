//! Fifty workers at once, each with a connection of its own: nothing is lost, nothing counts twice.

use fleet_tests::crowd::Crowd;
use fleet_tests::run::Results;

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_of_fifty_workers_is_in_the_run_once() {
    let results = Results::new();
    let crowd = Crowd::run(&results, 50, 5).await;
    assert!(matches!(crowd.code, 0 | 7), "exit {}: {}", crowd.code, crowd.said);
    assert!(crowd.members.iter().all(|member| member.sent == 5), "{:?}", crowd.members);
    crowd.lost_nothing_and_doubled_nothing().await;
    crowd.is_reported().await;
}
