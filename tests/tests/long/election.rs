//! kill -9 of the leader at random instants of a run, with a standby waiting.

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_at_any_of_30_instants_leaves_a_run_that_the_standby_ends() {
    fleet_tests::pair::killed_at_any_instant(30).await;
}
