//! Leader and workers that find each other through etcd.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{LIMIT, finish, vst};
use fleet_tests::course::{SLOW_INGEST, controls, departures, every_row_was_written_once, in_mid_ingest};
use fleet_tests::etcd::Etcd;
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use vst_common::entry::Control;
use vst_common::ids::{PhaseIndex, RunId};
use vst_etcd::{Client, Leader};

async fn info(etcd: &str) -> String {
    let output = finish(vst(&["info", "fleet", "--etcd", etcd])).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    output.stdout
}

async fn until_shown(etcd: &str, words: &[&str]) {
    let shown = async {
        loop {
            let text = info(etcd).await;
            if words.iter().all(|word| text.contains(word)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT, shown).await.unwrap_or_else(|_| panic!("{words:?} are never shown"));
}

/// Names of the owners of a query phase's shares.
fn owners(log: &[Control], name: &str) -> Vec<String> {
    let started = log.iter().find_map(|c| match c {
        Control::PhaseStarted(started) if started.name == name => Some(started.index),
        _ => None,
    });
    let started: PhaseIndex = started.expect("the phase began");
    let owned = log.iter().find_map(|c| match c {
        Control::SharesOwned { phase, lanes, .. } if *phase == started => Some(lanes),
        _ => None,
    });
    owned.expect("somebody owns it").iter().map(|owner| owner.worker.to_string()).collect()
}

/// The worker is there before anybody leads; another comes in mid-run; etcd goes away in mid-run.
#[tokio::test(flavor = "multi_thread")]
async fn workers_find_the_leader_a_late_one_is_used_in_the_next_phase_and_losing_etcd_loses_nothing() {
    let (servers, results, mut etcd) = (Servers::cluster().await, Results::new(), Etcd::start().await);
    let url = etcd.url();
    let sets = [&SLOW_INGEST[..], &["fleet.workers=1"]].concat();
    let early = tempfile::tempdir().expect("a folder");
    let mut first = vst(&["worker", "start", "--name", "w0", "--etcd", &url]);
    first.stderr(std::fs::File::create(early.path().join("w0")).expect("a file"));
    let mut first = first.spawn().expect("worker starts");
    until_shown(&url, &["nobody leads", "w0", "waiting"]).await;

    let mut fleet = Fleet::start_dressed(&results, &servers.url(), &sets, |command| {
        command.args(["--etcd", &url]);
    });
    in_mid_ingest(&servers).await;
    until_shown(&url, &["load", "w0", "here", "1 of 1 workers"]).await;
    fleet.start_worker("w1", "warn", |command| {
        command.args(["--etcd", &url]);
    });
    until_shown(&url, &["w1", "2 of 1 workers"]).await;
    etcd.kill().await;

    let (output, workers) = fleet.end().await;
    assert_eq!((output.code, workers["w1"]), (0, 0), "{}", output.stderr);
    let first = tokio::time::timeout(LIMIT, first.wait()).await.expect("it leaves").expect("waited for");
    assert_eq!(first.code(), Some(0), "{:?}", std::fs::read_to_string(early.path().join("w0")));
    let log = controls(&results).await;
    every_row_was_written_once(&log);
    assert!(!departures(&log).iter().any(|(_, lost)| *lost), "{log:?}");
    assert_eq!(owners(&log, "query_full"), ["w0", "w1"]);
}

/// A fleet may be started before its etcd.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_comes_late_is_waited_for_and_one_that_never_comes_is_named() {
    let mut etcd = Etcd::start().await;
    let url = etcd.url();
    etcd.kill().await;
    let output = finish(vst(&["worker", "start", "--etcd", &url, "--wait", "1"])).await;
    assert_eq!(output.code, 5, "{}", output.stderr);
    for word in ["waiting up to 1 s", "--wait", &url] {
        assert!(output.stderr.contains(word), "`{word}` is missing: {}", output.stderr);
    }
    let mut worker = vst(&["worker", "start", "--name", "early", "--etcd", &url]).spawn().expect("it starts");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(worker.try_wait().expect("asked").is_none(), "it waits");
    etcd.restart(false).await;
    until_shown(&url, &["early", "waiting"]).await;
    worker.kill().await.expect("killed");
}

/// Another version may mean another protocol, or other content for the same seed.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_refuses_a_leader_of_another_version_and_names_both() {
    let etcd = Etcd::start().await;
    let client = Client::new(&etcd.url().parse().expect("an address"), None, None).await.expect("a client");
    let leader = Leader {
        run: RunId::new("r"),
        epoch: 1,
        address: String::from("127.0.0.1:9"),
        leader: String::from("other"),
        version: String::from("0.0.1-other"),
        since: 1,
        run_directory: String::new(),
    };
    let fleet = vst_etcd::Fleet::new(client, "vst");
    let announced = fleet.announce(&leader).await.expect("announced");
    let output = finish(vst(&["worker", "start", "--etcd", &etcd.url()])).await;
    assert_eq!(output.code, 5, "{}", output.stderr);
    for word in ["0.0.1-other", env!("CARGO_PKG_VERSION"), "127.0.0.1:9"] {
        assert!(output.stderr.contains(word), "`{word}` is missing: {}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    drop(announced);
}

/// An environment names the etcd: whoever of that fleet is there joins those that `vst run` starts.
#[tokio::test(flavor = "multi_thread")]
async fn workers_of_the_fleet_that_an_environment_names_join_a_run() {
    let (servers, results, etcd) = (Servers::without_search().await, Results::new(), Etcd::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("env.yaml");
    let text = format!(
        "target: {}\netcd: {{endpoints: [\"{}\"], fleet: load}}\nfleet: {{workers: 1}}\n\
         set: {{keys: 200, duration: 2s, rate: 200/s}}\n",
        servers.url(),
        etcd.url()
    );
    std::fs::write(&file, text).expect("written");
    let file = file.to_str().expect("text");
    let mut open = results.command(&["scenario", "read_heavy", "--config", file]);
    open.env_remove("VST_TOKEN");
    let open = finish(open).await;
    assert_eq!(open.code, 2, "{}", open.stderr);
    assert!(open.stderr.contains("VST_TOKEN"), "{}", open.stderr);

    let mut guest = vst(&["worker", "start", "--name", "guest", "--etcd", &etcd.url(), "--fleet", "load"]);
    let mut guest = guest.env("VST_TOKEN", "of-the-fleet").spawn().expect("worker starts");
    let mut command = results.command(&["scenario", "read_heavy", "--config", file, "--json"]);
    command.env("VST_TOKEN", "of-the-fleet");
    let output = finish(command).await;
    assert!(matches!(output.code, 0 | 7), "{}", output.stderr);
    let left = tokio::time::timeout(LIMIT, guest.wait()).await.expect("it leaves").expect("waited for");
    assert_eq!(left.code(), Some(0));
    let log = controls(&results).await;
    let joined = |name: &str| {
        log.iter().any(|c| matches!(c, Control::WorkerJoined { worker, .. } if worker.to_string() == name))
    };
    assert!(joined("guest") && joined("w1"), "{log:?}");
}
