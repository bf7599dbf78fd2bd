//! Servers come up as asked, obey, and end with whoever started them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{PidfdFlags, pidfd_open, test_kill_process};

use super::*;

/// Set in the process that a test starts only to kill it.
const VICTIM: &str = "VST_TEST_STARTS_A_SERVER_AND_WAITS";

fn files() -> ServerFiles {
    ServerFiles::find().unwrap()
}

fn raw_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// One letter, as the kernel shows it.
fn state(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').next().unwrap().to_owned()
}

/// Whether it ends within a time that only a failure takes.
fn ends(server: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(server, PollFlags::IN)];
    let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
    poll(&mut fds, Some(&patience)).unwrap() == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_and_its_replica_start_obey_and_end() {
    let options = LocalClusterOptions { primaries: 1, replicas: 1, ..LocalClusterOptions::new(files()) };
    let cluster = LocalCluster::start(options).await.unwrap();
    let [primary, replica] = cluster.nodes() else { panic!("{:?}", cluster.nodes()) };
    assert_eq!((&primary.replica_of, replica.replica_of.as_ref()), (&None, Some(&primary.id)));
    assert_eq!(cluster.url(), format!("valkey://127.0.0.1:{}", primary.port));
    assert_eq!(cluster.urls().len(), 2);

    cluster.pause(&replica.id).unwrap();
    while state(replica.pid) != "T" {
        std::thread::yield_now();
    }
    cluster.resume(&replica.id).unwrap();
    while state(replica.pid) == "T" {
        std::thread::yield_now();
    }
    let stranger = NodeId::new("nobody");
    assert!(matches!(cluster.pause(&stranger), Err(LocalClusterError::NoSuchNode(node)) if node == stranger));

    // A paused server ends as well as a running one.
    cluster.pause(&primary.id).unwrap();
    let pids: Vec<u32> = cluster.pids().into_values().collect();
    let folder = cluster.folder().to_owned();
    cluster.stop();
    for pid in pids {
        assert!(test_kill_process(raw_pid(pid)).is_err(), "server {pid} is still there");
    }
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_is_reported_with_its_log() {
    let mut options = LocalClusterOptions::standalone(files());
    options.extra_args = ["--loadmodule", "/nowhere/at-all.so"].map(str::to_owned).to_vec();
    let error = LocalCluster::start(options).await.unwrap_err();
    assert!(matches!(&error, LocalClusterError::Ended { log, .. } if log.contains("at-all.so")), "{error}");
}

#[tokio::test]
async fn shapes_that_cannot_be_are_refused_before_anything_starts() {
    let cases = [(0, 0, true), (2, 0, false), (1, 1, false), (1000, 1, true)];
    for (primaries, replicas, cluster) in cases {
        let options =
            LocalClusterOptions { primaries, replicas, cluster, ..LocalClusterOptions::new(files()) };
        let error = LocalCluster::start(options).await.unwrap_err();
        assert!(matches!(error, LocalClusterError::Shape { .. }), "{error}");
    }
}

/// The test runs itself a second time in a process of its own, and kills that.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_ends_when_the_process_that_started_it_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        let mut options = LocalClusterOptions::standalone(files());
        options.data_dir = std::env::var_os(VICTIM).map(PathBuf::from);
        let cluster = LocalCluster::start(options).await.unwrap();
        println!("\nserver={}", cluster.nodes()[0].pid);
        return std::future::pending().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("local_cluster::tests::a_server_ends_when_the_process_that_started_it_is_killed")
        .env(VICTIM, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid: u32 = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("server=")?.parse().ok())
        .unwrap();
    let server = pidfd_open(raw_pid(pid), PidfdFlags::empty()).unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    let ended = ends(&server);
    if !ended {
        kill_process(raw_pid(pid), Signal::KILL).unwrap();
    }
    assert!(ended, "server {pid} outlived its parent");
}
