//! A server that stops for a second in an open-loop phase: the report has to say so.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::Watched;
use fleet_tests::run::{Results, phase, report};
use vst_analysis::Summary;

const SECOND: f64 = 1e9;

/// Runs a 10 s query phase at a fixed rate and stops one node for 1 s in the middle of it.
async fn stalled_run(servers: &Servers, timeout: &str) -> Summary {
    let results = Results::new();
    let url = servers.url();
    let timeout = format!("phases.query_full.query.timeout={timeout}");
    let scenario = fleet_tests::command::project().join("tests/scenarios/stall.yaml");
    let scenario = scenario.to_str().expect("text");
    let mut command = results.command(&["scenario", scenario, "--target", &url, "--set", &timeout]);
    command.arg("--json");
    let mut run = Watched::start(command);
    run.says("query_full").await;
    // Somewhere in the phase; the law does not depend on where.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let node = servers.cluster.nodes()[0].id.clone();
    servers.cluster.pause(&node).expect("stopped");
    tokio::time::sleep(Duration::from_secs(1)).await;
    servers.cluster.resume(&node).expect("goes on");
    report(&run.end().await)
}

fn check_stall(report: &Summary) {
    let knn = &phase(report, "query_full").operations[0];
    assert_eq!((knn.due, knn.sent, knn.ok), (2_000, 2_000, 2_000), "every scheduled request was sent");
    let response = knn.response.as_ref().expect("an open loop has response times");
    let service = knn.service.as_ref().expect("service times");
    let seconds = |q: vst_common::latency::Quantile| vst_common::count::to_f64(q.ns) / SECOND;
    // 10 % of the requests fell due in the stall and waited between 0 and 1 s: p99 is about 0.9 s, p95 about 0.5 s.
    let (p95, p99) = (seconds(response.p95), seconds(response.p99));
    assert!((0.85..=1.05).contains(&p99), "response p99 {p99} s");
    assert!((0.4..=0.7).contains(&p95), "response p95 {p95} s");
    assert!(!response.p99.censored);
    assert!(service.n == 2_000 && service.p50.ns > 0, "service time is reported beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_of_one_node_of_a_cluster_is_in_the_response_quantiles() {
    let servers = Servers::cluster().await;
    check_stall(&stalled_run(&servers, "10s").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_of_a_standalone_server_is_in_the_response_quantiles() {
    let servers = Servers::standalone().await;
    check_stall(&stalled_run(&servers, "10s").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_timeout_shorter_than_the_stall_quantiles_are_censored() {
    let servers = Servers::cluster().await;
    let report = stalled_run(&servers, "300ms").await;
    let knn = &phase(&report, "query_full").operations[0];
    assert!(knn.timeout > 0, "requests in flight timed out");
    assert_eq!(knn.due, knn.ok + knn.timeout + knn.lost + knn.unsent, "and every request is accounted for");
    let p99 = knn.response.as_ref().expect("response").p99;
    assert!(p99.censored && p99.ns >= 300_000_000, "printed as `> x`, not as a small number: {p99:?}");
    let text = vst_analysis::render_terminal(&report, false);
    assert!(text.contains("> "), "{text}");
}

/// A phase of plain commands with some arrival, in which the server stops for a second.
async fn stalled_arrival(arrival: &str) -> Summary {
    let servers = Servers::without_search().await;
    let results = Results::new();
    let url = servers.url();
    let scenario = fleet_tests::command::project().join("tests/scenarios/stall_kv.yaml");
    let load = format!("phases.steady.kv.load={{open: {{arrival: {arrival}, connections: 8}}}}");
    let scenario = scenario.to_str().expect("text");
    let mut command = results.command(&["scenario", scenario, "--target", &url, "--set", &load, "--json"]);
    command.args(["--set", "phases.steady.kv.duration=6s"]);
    let mut run = Watched::start(command);
    run.says(" steady ").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let node = servers.cluster.nodes()[0].id.clone();
    servers.cluster.pause(&node).expect("stopped");
    tokio::time::sleep(Duration::from_secs(1)).await;
    servers.cluster.resume(&node).expect("goes on");
    report(&run.end().await)
}

/// At least 500 requests a second fall due at any instant of the stall and at most 4,800 in all, so that the first 96 ms of
/// the stall hold one percent: p99 lies between 0.9 s and its end, whatever the arrival.
async fn check_arrival(arrival: &str) -> u64 {
    let report = stalled_arrival(arrival).await;
    let operations = &phase(&report, "steady").operations;
    let due: u64 = operations.iter().map(|operation| operation.due).sum();
    for operation in operations {
        assert_eq!((operation.due, operation.sent), (operation.ok, operation.ok), "{operation:?}");
        let response = operation.response.as_ref().expect("an open loop has response times");
        let p99 = vst_common::count::to_f64(response.p99.ns) / SECOND;
        assert!((0.8..=1.1).contains(&p99), "response p99 {p99} s at {arrival}");
    }
    due
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_seen_while_the_rate_ramps_up() {
    assert_eq!(check_arrival("{ramp: {from: 500/s, to: 1000/s}}").await, 4_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_seen_by_bursts() {
    let burst = "{burst: {base: 500/s, peak: 1500/s, length: 300ms, period: 1500ms}}";
    assert_eq!(check_arrival(burst).await, 4_200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_seen_by_a_poisson_process() {
    // Within six standard deviations of the mean.
    let due = check_arrival("{poisson: {rate: 750/s}}").await;
    assert!((4_100..=4_900).contains(&due), "{due}");
}
