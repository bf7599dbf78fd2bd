//! Is what is offered what was asked for? At a rate that the server follows, at twice its capacity, from one lane and from
//! several workers together.
//!
//! `make test-rates` prints it. The bound of the slip is for a machine that does nothing else.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{Output, finish_within, project};
use fleet_tests::fleet::Fleet;
use fleet_tests::run::{Results, phase, report};
use fleet_tests::sparse;
use fleet_tests::witness::Witness;
use vst_analysis::{Check, OperationSummary, Summary};
use vst_common::count;

const SECONDS: u64 = 30;
const LIMIT: Duration = Duration::from_secs(300);
/// A worker's memory with its histograms and a full queue, bytes.
const MOST_RSS: u64 = 512 << 20;

async fn run(results: &Results, url: &str, sets: &[&str]) -> (Output, Summary) {
    let file = project().join("tests/scenarios/rates.yaml");
    let mut command = results.command(&["scenario", file.to_str().expect("text"), "--target", url, "--json"]);
    for set in sets {
        command.args(["--set", set]);
    }
    let output = finish_within(command, LIMIT).await;
    let report = report(&output);
    (output, report)
}

fn gets(report: &Summary) -> &OperationSummary {
    let operations = &phase(report, "steady").operations;
    operations.iter().find(|operation| operation.operation == "get").expect("reads")
}

fn slip_p99_ns(report: &Summary) -> u64 {
    let generator = phase(report, "steady").generator.as_ref().expect("the fleet's own figures");
    generator.slip_p99_ns.expect("an open loop has slip")
}

fn all_sent(report: &Summary, rate: u64) {
    let get = gets(report);
    assert_eq!(get.due, rate * SECONDS, "the schedule is kept to the request");
    assert!(get.sent.abs_diff(rate * SECONDS) * 1_000 <= rate * SECONDS, "offered within 0.1 %: {get:?}");
    assert_eq!((get.ok, get.unsent), (get.due, 0), "{get:?}");
    for row in &report.accounting {
        assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lane_offers_twenty_thousand_requests_a_second_on_time() {
    let servers = Servers::without_search().await;
    let (_, report) = run(&Results::new(), &servers.url(), &[]).await;
    all_sent(&report, 20_000);
    let slip = slip_p99_ns(&report);
    let get = gets(&report);
    eprintln!("one lane, 20000/s: slip p99 {} us, response {:?}", slip / 1_000, get.response);
    assert!(slip < 1_000_000, "slip p99 {} us", slip / 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_of_two_lanes_share_one_schedule_and_send_between_each_other() {
    const RATE: u64 = 2_000;
    let servers = Servers::without_search().await;
    let upstream = servers.cluster.nodes()[0].address.clone();
    let witness = Witness::start(&upstream, b"*2\r\n$3\r\nGET");
    let rate = format!("phases.steady.kv.load.open.rate={RATE}/s");
    let sets = ["fleet.workers=2", "fleet.lanes=2", &rate, "phases.steady.kv.load.open.connections=8"];
    let (_, report) = run(&Results::new(), &witness.url(), &sets).await;
    all_sent(&report, RATE);
    let seen = witness.seen();
    assert_eq!(count::len(seen.len()), RATE * SECONDS);
    let even = 1_000_000_000 / RATE;
    let mut gaps: Vec<u64> = seen.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let at = |percent: usize| gaps[gaps.len() * percent / 100] / 1_000;
    eprintln!(
        "2 workers of 2 lanes, {RATE}/s together: gaps between sends p10 {} us, p50 {} us, p90 {} us; even is {} us",
        at(10),
        at(50),
        at(90),
        even / 1_000
    );
    // Lanes that sent at the same instants would give three gaps of nothing and one of four times the even one.
    let close = gaps.iter().filter(|gap| **gap < even / 4).count();
    assert!(close * 4 < gaps.len(), "{close} of {} sends follow another at once", gaps.len());
    let middle = gaps[gaps.len() / 2];
    assert!(
        (even * 3 / 4..=even * 5 / 4).contains(&middle),
        "half of the gaps are {} us and more",
        middle / 1_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_twice_the_capacity_memory_is_bounded_and_every_request_is_accounted_for() {
    let servers = Servers::without_search().await;
    let results = Results::new();
    let closed = "phases.steady.kv.load={closed: {clients: 16, pipeline: 1}}";
    let (_, report) = run(&results, &servers.url(), &[closed, "phases.steady.kv.duration=5s"]).await;
    let capacity = gets(&report).ok / 5;
    let rate = 2 * capacity;
    // The same through a fleet whose worker can be looked at.
    let file = project().join("tests/scenarios/rates.yaml");
    let set = format!("phases.steady.kv.load.open.rate={rate}/s");
    let file = file.to_str().expect("text");
    let mut fleet = Fleet::start_scenario(&results, &servers.url(), file, &[&set], |command| {
        command.arg("--cleanup");
    });
    fleet.start_workers(1, "warn").await;
    let pid = fleet.workers["w0"].id().expect("runs");
    let mut most = 0;
    let watch = async {
        while let Some(rss) = sparse::most_resident(pid) {
            most = rss.max(most);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (_, _) = tokio::join!(watch, fleet.end());
    let report = vst_analysis::summary(&results.newest()).await.expect("a report");
    let get = gets(&report);
    eprintln!(
        "capacity {capacity}/s, offered {rate}/s for {SECONDS} s: due {}, sent {}, ok {}, unsent {}, timeout {}; the \
         worker had {} MiB at most",
        get.due,
        get.sent,
        get.ok,
        get.unsent,
        get.timeout,
        most >> 20
    );
    assert_eq!(get.due, rate * SECONDS, "{get:?}");
    assert_eq!(get.due, get.sent + get.unsent, "{get:?}");
    let errors: u64 = get.errors.values().sum();
    assert_eq!(get.due, get.ok + errors + get.timeout + get.lost + get.unsent, "{get:?}");
    assert!(get.unsent > 0, "what could not be sent is said: {get:?}");
    assert!(!report.verdict.saturated.is_empty(), "{:?}", report.verdict);
    assert!(most < MOST_RSS, "{} MiB", most >> 20);
}
