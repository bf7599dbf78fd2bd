//! Signals: whatever was started is stopped, at every stage, and what was measured is kept.

use std::path::Path;
use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{Output, Watched, run};
use fleet_tests::run::Results;
use rustix::process::{Pid, Signal, kill_process};

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, signal).expect("it is there");
}

/// (process, command line) of every process that is there and has not ended.
fn processes() -> Vec<(u32, String)> {
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok().filter(|line| !line.is_empty())?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    })
    .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Processes that a process has started.
fn children(of: u32) -> Vec<(u32, String)> {
    processes().into_iter().filter(|(pid, _)| parent(*pid) == Some(of)).collect()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

fn entries(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir(folder).expect("folder").flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_the_local_cluster_starts_leaves_no_server_and_no_folder() {
    for (signal, after_ms) in [(Signal::INT, 0), (Signal::TERM, 100), (Signal::HUP, 300)] {
        let results = Results::new();
        let temporary = tempfile::tempdir().expect("a folder");
        let mut command = results.command(&["quick"]);
        command.env("TMPDIR", temporary.path());
        let mut run = Watched::start(command);
        run.says("starting a local cluster").await;
        until("its folder is made", || !entries(temporary.path()).is_empty()).await;
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        send(run.pid(), signal);
        let output = run.end().await;
        assert_eq!(output.code, 130, "{signal:?}: {}", output.stderr);
        assert_eq!(entries(temporary.path()), Vec::<String>::new(), "{signal:?} after {after_ms} ms");
        let path = temporary.path().to_str().expect("text");
        let left: Vec<_> = processes().into_iter().filter(|(_, line)| line.contains(path)).collect();
        assert!(left.is_empty(), "{signal:?} after {after_ms} ms: {left:?}");
    }
}

/// A run that has come to its first queries, which take a minute.
async fn querying(results: &Results, target: &str) -> Watched {
    let args = ["quick", "--target", target, "--cleanup", "--set", "phases.query_full.query.duration=60s"];
    let mut run = Watched::start(results.command(&args));
    run.says("query_full").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_drains_and_reports_also_from_a_closed_terminal() {
    let servers = Servers::standalone().await;
    let results = Results::new();
    let run = querying(&results, &servers.url()).await;
    send(run.pid(), Signal::HUP);
    let Output { code, stdout, stderr } = run.end().await;
    assert_eq!(code, 130, "{stdout}\n{stderr}");
    assert!(stdout.contains("PARTIAL") && stdout.contains("query_full"), "{stdout}");
    assert!(stderr.contains("asked to stop by SIGHUP"), "{stderr}");
    assert_eq!(servers.keys().await, Vec::<String>::new(), "--cleanup holds for a run that was stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_stuck_run_and_a_third_at_once() {
    let servers = Servers::standalone().await;
    for third in [false, true] {
        let results = Results::new();
        let run = querying(&results, &servers.url()).await;
        let fleet = children(run.pid());
        assert_eq!(fleet.len(), 3, "{fleet:?}");
        let (coordinator, _) =
            fleet.iter().find(|(_, line)| line.contains(" coordinator start ")).expect("a coordinator");
        send(*coordinator, Signal::STOP);
        let began = vst_common::clock::mono_ns();
        for _ in 0..if third { 3 } else { 2 } {
            send(run.pid(), Signal::INT);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let output = run.end().await;
        assert_eq!(output.code, 130, "{}\n{}", output.stdout, output.stderr);
        let took = Duration::from_nanos(vst_common::clock::mono_ns() - began);
        assert!(took < Duration::from_secs(if third { 8 } else { 30 }), "{took:?}\n{}", output.stderr);
        let left: Vec<_> = processes().into_iter().filter(|process| fleet.contains(process)).collect();
        assert!(left.is_empty(), "{left:?}");
        // The next run succeeds it as soon as its sign of life has run out.
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_parent_was_killed_names_that_and_blames_no_worker() {
    let servers = Servers::standalone().await;
    let results = Results::new();
    let parent = querying(&results, &servers.url()).await;
    let fleet = children(parent.pid());
    assert_eq!(fleet.len(), 3, "{fleet:?}");
    send(parent.pid(), Signal::KILL);
    until("the fleet ends with it", || !processes().iter().any(|process| fleet.contains(process))).await;
    let newest = results.newest();
    let output = run(&["analyze", "summary", &newest]).await;
    assert_eq!(output.code, 130, "{}\n{}", output.stdout, output.stderr);
    let recorded =
        run(&["analyze", "query", "select kind, detail from events", "--run", &newest, "--json"]).await;
    assert!(recorded.stdout.contains("`vst run`, which started it, is gone"), "{}", recorded.stdout);
    for said in [&output.stdout, &recorded.stdout] {
        // (The table of requests has a column of that name.)
        let blames = ["told to end", "worker_lost", "is lost"].into_iter().find(|blame| said.contains(blame));
        assert_eq!(blames, None, "{said}");
    }
    assert_eq!(servers.keys().await, Vec::<String>::new(), "and what it made is cleaned up");
}
