//! kill -9 of the leader at random instants of a run, with a standby waiting.

/// How many instants; the variable makes it other ones for a look.
const KILLS: u64 = 100;
const OTHERS: &str = "VST_KILLS";
/// Most of the time such a run waits for a lease to end.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_at_any_of_100_instants_leaves_a_run_that_the_standby_ends() {
    let kills = std::env::var(OTHERS).map_or(KILLS, |text| text.parse().expect("a number"));
    fleet_tests::pair::killed_at_any_instant(kills, AT_ONCE, |what| eprintln!("{what}")).await;
}
