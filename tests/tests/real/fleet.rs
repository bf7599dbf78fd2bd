//! Workers, coordinators and servers that stop, leave or die in the middle of a run.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{LIMIT, finish, project, vst};
use fleet_tests::course::{
    self, SLOW_INGEST, check_rows, controls, count_rows, departures, ended, every_row_was_written_once,
};
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use fleet_tests::wire::Wire;
use rustix::process::Signal;
use vst_common::clock::wall_ns;
use vst_common::entry::Control;
use vst_common::exit::Exit;

/// A fleet of two in the middle of its ingest.
async fn in_mid_ingest(results: &Results, servers: &Servers) -> Fleet {
    let mut fleet = Fleet::start(results, &servers.url(), &SLOW_INGEST);
    fleet.start_workers(2, "warn").await;
    course::in_mid_ingest(servers).await;
    fleet
}

fn code(exit: Exit) -> i32 {
    i32::from(exit.code())
}

/// Asked to end, a worker ends in order: the run does without it and is valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_asked_to_end_hands_over_and_the_run_stays_valid() {
    let (servers, results) = (Servers::cluster().await, Results::new());
    let mut fleet = in_mid_ingest(&results, &servers).await;
    fleet.signal_worker("w0", Signal::TERM);
    let (output, workers) = fleet.end().await;
    let log = controls(&results).await;
    every_row_was_written_once(&log);
    assert_eq!(output.code, code(Exit::Valid), "{}", output.stderr);
    assert!(departures(&log).contains(&(String::from("w0"), false)), "{log:?}");
    assert!(!departures(&log).iter().any(|(_, lost)| *lost), "{log:?}");
    assert_eq!((workers["w0"], workers["w1"]), (code(Exit::Interrupted), code(Exit::Valid)));
    for name in ["query_full", "query_half"] {
        let query = ended(&log, name);
        assert_eq!(
            (query.scheduled, query.unowned),
            (Some(400), 0),
            "the one that stayed owns all of {name}"
        );
    }
}

/// Killed, a worker spoils the run, but no row is missing: others write what it held, once it can write no more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_held_is_written_by_others_after_the_fence() {
    let (servers, results) = (Servers::cluster().await, Results::new());
    let mut fleet = in_mid_ingest(&results, &servers).await;
    let killed_at = wall_ns();
    fleet.signal_worker("w0", Signal::KILL);
    let (output, workers) = fleet.end().await;
    let log = controls(&results).await;
    every_row_was_written_once(&log);
    assert_eq!(output.code, code(Exit::Fleet), "{}", output.stderr);
    assert!(output.stderr.contains("w0"), "the lost worker is named: {}", output.stderr);
    assert!(departures(&log).contains(&(String::from("w0"), true)), "{log:?}");
    assert_eq!(workers["w1"], code(Exit::Valid));
    let after_ns = ended(&log, "load").end_wall_ns - killed_at;
    assert!(after_ns >= 10_000_000_000, "its ranges wait until its lease is over: {after_ns} ns");
}

/// A coordinator that does not run for longer than a lease finds its fleet as it left it.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_paused_goes_on_and_blames_nobody() {
    let (servers, results) = (Servers::cluster().await, Results::new());
    let mut fleet = in_mid_ingest(&results, &servers).await;
    fleet.signal_coordinator(Signal::STOP);
    // Within the lease of 10 s the workers write what they hold; after it they write nothing.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let rows = count_rows(&servers).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(count_rows(&servers).await, rows, "without a lease nothing is written");
    fleet.signal_coordinator(Signal::CONT);
    let (output, _) = fleet.end().await;
    let log = controls(&results).await;
    every_row_was_written_once(&log);
    assert_eq!(output.code, code(Exit::Valid), "{}", output.stderr);
    assert!(!departures(&log).iter().any(|(_, lost)| *lost), "{log:?}");
}

/// A server that is gone when the workers get ready: the target's code, and its name, soon.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_before_a_phase_is_armed_is_the_targets_fault_and_is_named() {
    let (servers, results) = (Servers::cluster().await, Results::new());
    let mut fleet = Fleet::start(&results, &servers.url(), &SLOW_INGEST);
    // The coordinator has looked at the target before it lets workers come.
    let gone = servers.cluster.nodes()[1].clone();
    fleet.address().await;
    servers.cluster.kill(&gone.id).expect("killed");
    fleet.start_workers(2, "warn").await;
    let ended = tokio::time::timeout(Duration::from_secs(40), fleet.end()).await;
    let (output, _) = ended.expect("nobody waits long for a server that is gone");
    assert_eq!(output.code, code(Exit::Target), "{}", output.stderr);
    assert!(output.stderr.contains(&gone.address), "{} is not named: {}", gone.address, output.stderr);
}

/// An open rate of 10,000/s over four workers: one is killed, and the others have its share within 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn the_share_of_a_killed_worker_is_taken_over_and_the_rate_is_never_exceeded() {
    const RATE: i64 = 10_000;
    let (servers, results) = (Servers::cluster().await, Results::new());
    let scenario = project().join("tests/scenarios/rate.yaml");
    let scenario = scenario.to_str().expect("text");
    let mut fleet = Fleet::start_scenario(&results, &servers.url(), scenario, &[], |_| {});
    fleet.start_workers(4, "warn").await;
    let begun = async {
        let steady = |c: &Control| matches!(c, Control::PhaseStarted(p) if p.name == "steady");
        while results.run_dirs().is_empty() || !controls(&results).await.iter().any(steady) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, begun).await.expect("the phase begins");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let killed_at = wall_ns();
    fleet.signal_worker("w0", Signal::KILL);
    let (output, _) = fleet.end().await;
    assert_eq!(output.code, code(Exit::Fleet), "a lost worker is told: {}", output.stderr);

    let log = controls(&results).await;
    let steady = ended(&log, "steady");
    let sql = "select cast(interval_start as bigint) as start, cast(sum(due) as bigint) as due from latency \
               where phase = 'steady' group by interval_start order by interval_start";
    let rows = finish(vst(&["analyze", "query", sql, "--run", &results.newest(), "--json"])).await;
    let due: Vec<(i64, i64)> = rows
        .stdout
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            (row["start"].as_i64().expect("an instant"), row["due"].as_i64().expect("a count"))
        })
        .take(14)
        .collect();
    assert!(due.len() == 14 && due.iter().all(|(_, due)| *due <= RATE), "never above the rate: {due:?}");
    let soon = due.iter().filter(|(start, _)| *start >= killed_at + 5_000_000_000);
    let soon: Vec<i64> = soon.map(|(_, due)| *due).collect();
    assert!(soon.len() > 1 && soon.iter().all(|due| *due == RATE), "back within 5 s of {killed_at}: {due:?}");
    assert!(due.iter().any(|(_, due)| *due < RATE), "the dip is shown: {due:?}");
    // The report knows to the request what nobody owned.
    let scheduled = steady.scheduled.expect("an open phase");
    assert_eq!(scheduled, 140_000);
    let owned = u64::try_from(due.iter().map(|(_, due)| due).sum::<i64>()).expect("positive");
    // What it did in its last moments the killed worker could not deliver, and until its lease and the margin were over
    // its share was its own: 2,500/s for that long and the second before. All else is accounted for.
    let missing = scheduled - owned - steady.unowned;
    assert!(
        steady.unowned > 0 && missing <= 2_500 * 6,
        "{due:?}, unowned {}, missing {missing}",
        steady.unowned
    );
}

/// Cut off from its coordinator, not from the target: the harder half of a partition.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cut_off_for_15_s_sends_nothing_after_its_lease_and_is_let_in_again() {
    let (servers, results) = (Servers::cluster().await, Results::new());
    let mut fleet = Fleet::start_dressed(&results, &servers.url(), &SLOW_INGEST, |_| {});
    let address = fleet.address().await;
    let wire = Wire::to(&address).await;
    for (name, address) in [("w0", &wire.address), ("w1", &address)] {
        fleet.start_worker(name, "info", |command| {
            command.args(["--coordinator", address]);
        });
    }
    course::in_mid_ingest(&servers).await;
    wire.cut();
    tokio::time::sleep(Duration::from_secs(15)).await;
    wire.mend();
    let (output, _) = fleet.end().await;
    let log = controls(&results).await;
    every_row_was_written_once(&log);
    assert_eq!(output.code, code(Exit::Fleet), "{}", output.stderr);
    assert!(departures(&log).contains(&(String::from("w0"), true)), "{log:?}");
    let live = log.iter().rev().find_map(|c| match c {
        Control::PopulationChanged { live, .. } => Some(*live),
        _ => None,
    });
    check_rows(&servers, live.expect("a population")).await;
    let registered =
        log.iter().filter(|c| matches!(c, Control::WorkerJoined { worker, .. } if worker.as_str() == "w0"));
    assert_eq!(registered.count(), 2, "it is let in again: {}", fleet.said("w0"));
}
