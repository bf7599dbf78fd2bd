//! Live runs against one another: equal ones are no regression, a server that gets a tenth less of its processor is one.
//! `make test-regress`, on a machine that does nothing else.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::finish;
use fleet_tests::run::{Results, report};
use rustix::process::{Pid, Signal, kill_process};
use vst_analysis::{Call, Comparison, Metric, Thresholds, regress};

/// How often each comparison is done; the variable makes it fewer for a look.
const REPEATS: u32 = 20;
const FEWER: &str = "VST_REPEATS";
/// Runs on each side of a comparison: from three on, the noise is that between runs.
const RUNS: usize = 3;
/// The server stands still for a tenth of each of these.
const BEAT: Duration = Duration::from_millis(20);

/// Takes a tenth of its time from a server, as a limit of its processor share would.
async fn slow_down(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process");
    loop {
        kill_process(pid, Signal::STOP).expect("it runs");
        tokio::time::sleep(BEAT / 10).await;
        kill_process(pid, Signal::CONT).expect("it runs");
        tokio::time::sleep(BEAT - BEAT / 10).await;
    }
}

/// One run on a fresh server; gives its directory.
async fn one(is_slow: bool, results: &Results) -> String {
    let servers = Servers::standalone().await;
    let url = servers.url();
    let run = async {
        let mut command = results.command(&["scenario", "tests/scenarios/regress.yaml", "--target", &url]);
        command.arg("--json");
        finish(command).await
    };
    let output = if is_slow {
        let pid = servers.cluster.nodes()[0].pid;
        tokio::select! {
            output = run => output,
            () = slow_down(pid) => unreachable!("until the run ends"),
        }
    } else {
        run.await
    };
    // A lane that is busy is doubt about the rate, which is the server's here.
    assert!([0, 7].contains(&output.code), "{}", output.stderr);
    let _ = report(&output);
    results.newest()
}

fn said(found: &Comparison) -> String {
    let ask = found.judgements.iter().filter(|j| j.phase == "ask");
    let words = ask.map(|j| {
        let margin = j.margin.map_or_else(String::new, |m| format!(" ± {:.1} %", 100.0 * m));
        format!("{} {:+.1} %{margin}: {:?}", j.metric.as_str(), 100.0 * j.change, j.call)
    });
    words.collect::<Vec<_>>().join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slower_server_is_called_a_regression_and_an_equal_one_is_not() {
    let repeats = std::env::var(FEWER).map_or(REPEATS, |text| text.parse().expect("a number"));
    // A tenth less of the processor is at most a tenth less throughput.
    let thresholds = Thresholds { throughput_drop: 0.04, ..Thresholds::default() };
    let (mut false_alarms, mut missed) = (0, 0);
    for turn in 1..=repeats {
        let results = Results::new();
        let mut sides: [Vec<String>; 3] = Default::default();
        // In turns, so that what the machine does meanwhile falls on all sides.
        for _ in 0..RUNS {
            for (side, is_slow) in sides.iter_mut().zip([false, false, true]) {
                side.push(one(is_slow, &results).await);
            }
        }
        let [baseline, equal, slow] = &sides;
        let of_equal = regress(baseline, equal, &thresholds).await.expect("a comparison");
        let of_slow = regress(baseline, slow, &thresholds).await.expect("a comparison");
        eprintln!("{turn}: equal: {}\n{turn}: slower: {}", said(&of_equal), said(&of_slow));
        false_alarms += u32::from(of_equal.regressions().next().is_some());
        let is_told = of_slow
            .judgements
            .iter()
            .any(|j| j.phase == "ask" && j.metric == Metric::Throughput && j.call == Call::Regression);
        missed += u32::from(!is_told);
    }
    eprintln!("of {repeats}: {false_alarms} false alarms, {missed} missed");
    assert_eq!((false_alarms, missed), (0, 0));
}
