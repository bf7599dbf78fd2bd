//! Leaders that die or are paused in mid-run, and the standby that goes on.

use std::time::Duration;

use tokio::time::Instant;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{LIMIT, Output, finish, vst};
use fleet_tests::course::{self, SLOW_INGEST, check_rows, controls, departures, every_row_was_written_once};
use fleet_tests::fleet::Fleet;
use fleet_tests::pair::{Pair, killed_at_any_instant};
use fleet_tests::run::Results;
use fleet_tests::stores::Faults;
use fleet_tests::web::free_port;
use rustix::process::Signal;
use vst_common::entry::Control;
use vst_common::exit::Exit;

/// kill -9 of the leader, whatever goes on: every row and every acknowledged batch is there, and no worker failed.
async fn leader_dies_and_the_standby_ends_the_run(pair: &mut Pair) {
    let killed = Instant::now();
    pair.first.coordinator.kill().await.expect("killed");
    pair.standby_leads(killed).await;
    ends_in_order(pair).await;
}

async fn ends_in_order(pair: &mut Pair) {
    let (output, workers) = pair.end().await;
    pair.check(&output).await;
    assert!(workers.values().all(|code| *code == 0), "{workers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_in_mid_ingest_is_followed_by_the_standby_and_no_row_is_missing() {
    let mut pair = Pair::start(false).await;
    course::in_mid_ingest(&pair.servers).await;
    leader_dies_and_the_standby_ends_the_run(&mut pair).await;
}

/// The same where every candidate writes to an object store, which now and then fails and cuts answers off.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_directory_on_s3_outlives_its_leader_as_a_folder_does() {
    let faults = Faults { errors_every: 31, cuts_every: 47, stalls_every: 0 };
    let mut pair = Pair::start_in(Results::on_s3(faults).await, false).await;
    course::in_mid_ingest(&pair.servers).await;
    leader_dies_and_the_standby_ends_the_run(&mut pair).await;
    let store = pair.results.store().expect("a store");
    assert!(store.faults() > 0, "the store failed");
    let place = format!("{}/shared", pair.results.place());
    let mut reading = vst(&["analyze", "summary", &place, "--json"]);
    store.sign(&mut reading);
    let from_store = finish(reading).await;
    let from_files = finish(vst(&["analyze", "summary", &pair.results.newest(), "--json"])).await;
    let report = |output: &Output| {
        let mut report: serde_json::Value = serde_json::from_str(&output.stdout).expect("a report");
        report.as_object_mut().expect("an object").remove("directory");
        report
    };
    assert_eq!(report(&from_store), report(&from_files), "{}", from_store.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_in_mid_query_costs_the_open_loop_not_one_request() {
    let mut pair = Pair::start(true).await;
    pair.in_phase("query_full").await;
    leader_dies_and_the_standby_ends_the_run(&mut pair).await;
}

/// etcd comes back with an empty store, and then the leader goes: everybody finds everybody all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_killed_in_mid_ingest_and_then_the_leader_cost_nothing() {
    let mut pair = Pair::start(true).await;
    course::in_mid_ingest(&pair.servers).await;
    let etcd = pair.etcd.as_mut().expect("asked for");
    etcd.kill().await;
    etcd.restart(false).await;
    leader_dies_and_the_standby_ends_the_run(&mut pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_paused_for_20_s_and_wakes_acknowledges_nothing_and_steps_down() {
    let mut pair = Pair::start(false).await;
    course::in_mid_ingest(&pair.servers).await;
    let paused = Instant::now();
    pair.first.signal_coordinator(Signal::STOP);
    pair.standby_leads(paused).await;
    tokio::time::sleep(Duration::from_secs(20).saturating_sub(paused.elapsed())).await;
    pair.first.signal_coordinator(Signal::CONT);
    let status = tokio::time::timeout(LIMIT, pair.first.coordinator.wait()).await.expect("it steps down");
    assert_eq!(status.expect("waited for").code(), Some(i32::from(Exit::Fleet.code())));
    let said = pair.first.said("coordinator");
    assert!(said.contains("leads this run now"), "{said}");
    ends_in_order(&mut pair).await;
}

/// The instants of the long suite, but few.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_at_any_instant_leaves_a_run_that_the_standby_ends() {
    killed_at_any_instant(2, 1, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_left_at_sigterm_and_is_started_again_goes_on_with_its_own_run() {
    let (servers, results) = (Servers::cluster().await, Results::new());
    let listen = format!("127.0.0.1:{}", free_port());
    let start = || {
        Fleet::start_dressed(&results, &servers.url(), &SLOW_INGEST, |command| {
            command.args(["--run", "again", "--hand-over", "--listen", &listen]);
        })
    };
    let mut first = start();
    first.start_workers(2, "warn").await;
    course::in_mid_ingest(&servers).await;
    first.signal_coordinator(Signal::TERM);
    let status = tokio::time::timeout(LIMIT, first.coordinator.wait()).await.expect("it leaves");
    assert_eq!(status.expect("waited for").code(), Some(i32::from(Exit::Fleet.code())));
    let mut second = start();
    let (output, _) = second.end().await;
    let log = controls(&results).await;
    every_row_was_written_once(&log);
    assert_eq!(departures(&log).iter().filter(|(_, lost)| *lost).count(), 0, "{log:?}");
    let live = log.iter().rev().find_map(|c| match c {
        Control::PopulationChanged { live, .. } => Some(*live),
        _ => None,
    });
    check_rows(&servers, live.expect("a population")).await;
    assert!([0, 7].contains(&output.code), "{}: {}", output.code, output.stderr);
    for (name, worker) in &mut first.workers {
        let status = tokio::time::timeout(LIMIT, worker.wait()).await.expect("workers end in time");
        assert_eq!(status.expect("waited for").code(), Some(0), "{name}");
    }
    // The run is over for whoever comes later, too.
    let output = start().end().await.0;
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    assert!([0, 7].contains(&output.code), "{}: {}", output.code, output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_without_a_log_is_refused_and_told_what_it_needs() {
    let (servers, results) = (Servers::cluster().await, Results::new());
    let url = servers.url();
    let output = finish(vst(&[
        "coordinator",
        "start",
        "--scenario",
        "quick",
        "--target",
        &url,
        "--results",
        results.path(),
        "--run",
        "nobodys",
        "--standby",
        "--wait",
        "1",
    ]))
    .await;
    assert_eq!(output.code, i32::from(Exit::Usage.code()), "{}", output.stderr);
    for word in ["nobodys", "no coordinator has begun it", "--results", results.path()] {
        assert!(output.stderr.contains(word), "`{word}` is missing: {}", output.stderr);
    }
    assert_eq!(results.run_dirs(), Vec::<String>::new(), "nothing is left behind");
}
