//! Workers, coordinators and servers that stop, leave or die in the middle of a run.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::course::{
    self, SLOW_INGEST, controls, count_rows, departures, ended, every_row_was_written_once,
};
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use rustix::process::Signal;
use vst_common::clock::wall_ns;
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
