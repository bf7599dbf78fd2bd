//! What a real Prometheus and a real pushgateway make of a fleet's figures.

use std::collections::BTreeSet;

use fleet_tests::cluster::Servers;
use fleet_tests::command::project;
use fleet_tests::fleet::Fleet;
use fleet_tests::prometheus::{Prometheus, Pushgateway};
use fleet_tests::run::Results;
use fleet_tests::web::free_port;
use serde_json::Value;

const RUN: &str = "watched";
/// Two thousand rows, and a phase of queries that is long enough to be scraped some times.
const SETS: [&str; 8] = [
    "dataset.rows=2000",
    "sampling.interval=250ms",
    "phases.settle_full.settle.window=500ms",
    "phases.settle_half.settle.window=500ms",
    "phases.query_full.query.warm_up=0s",
    "phases.query_full.query.duration=8s",
    "phases.query_half.query.warm_up=0s",
    "phases.query_half.query.duration=1s",
];
/// Queries per second of the scenario.
const RATE: f64 = 200.0;

/// What the dashboard of the chart asks for.
fn dashboard_names() -> BTreeSet<String> {
    fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::String(text) => found.push(text),
            Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
            Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
            _ => {}
        }
    }
    let text = std::fs::read_to_string(project().join("helm/vst/files/dashboard.json")).expect("a dashboard");
    let board: Value = serde_json::from_str(&text).expect("JSON");
    let mut found = Vec::new();
    texts(&board, &mut found);
    let words = found.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| word.starts_with("vst_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// Instants (seconds) and values of one series over the last minutes.
fn samples(series: &Value) -> Vec<(f64, f64)> {
    let pairs = series["values"].as_array().expect("samples").iter();
    pairs
        .map(|pair| {
            let value = pair[1].as_str().and_then(|text| text.parse().ok()).expect("a number");
            (pair[0].as_f64().expect("an instant"), value)
        })
        .collect()
}

/// Growth per second between the first and the last sample at which the count was another.
fn growth(samples: &[(f64, f64)]) -> f64 {
    let steps: Vec<(f64, f64)> = samples.windows(2).filter(|p| p[0].1 != p[1].1).map(|p| p[1]).collect();
    let [first, .., last] = steps.as_slice() else { panic!("it grew less than twice: {samples:?}") };
    (last.1 - first.1) / (last.0 - first.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_both_sides_and_a_pushgateway_holds_what_was_said_last() {
    let (servers, results) = (Servers::standalone().await, Results::new());
    let gateway = Pushgateway::start().await;
    let [of_leader, of_first, of_second] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
    let prometheus = Prometheus::start(&[&of_leader, &of_first, &of_second], gateway.address()).await;
    let pushed_to = format!("http://{}", gateway.address());
    let mut fleet = Fleet::start_dressed(&results, &servers.url(), &SETS, |command| {
        command.args(["--http", &of_leader, "--pushgateway", &pushed_to, "--run", RUN]);
    });
    let leader = fleet.address().await;
    for (name, http) in [("w0", &of_first), ("w1", &of_second)] {
        fleet.start_worker(name, "info", |command| {
            command.args(["--coordinator", &leader, "--http", http]).env("VST_PUSHGATEWAY", &pushed_to);
        });
    }
    let (output, codes) = fleet.end().await;
    assert!([0, 7].contains(&output.code), "{}", output.stderr);
    assert!(codes.values().all(|code| *code == 0), "{codes:?} {}", fleet.said("w0"));

    // Whatever the dashboard draws was there to be scraped, from one side or the other.
    let names: BTreeSet<String> = prometheus.names().await.into_iter().collect();
    let missing: Vec<String> = dashboard_names().into_iter().filter(|name| !names.contains(name)).collect();
    assert_eq!(missing, Vec::<String>::new(), "of {names:?}");

    // The run asked at a fixed rate; both sides counted so.
    let due = r#"vst_requests_due_total{job="fleet",phase="query_full"}[10m]"#;
    let series = prometheus.query(due).await;
    assert_eq!(series.len(), 3, "{series:?}");
    for one in &series {
        let instance = one["metric"]["instance"].as_str().expect("an instance");
        let expected = if instance == of_leader { RATE } else { RATE / 2.0 };
        let found = growth(&samples(one));
        assert!((found / expected - 1.0).abs() < 0.2, "{instance}: {found}/s, {expected}/s fell due: {one}");
    }
    let offered = r#"vst_offered_requests_per_second{job="fleet"}[10m]"#;
    let shown = samples(&prometheus.query(offered).await[0]);
    let near = shown.iter().filter(|(_, value)| (value / RATE - 1.0).abs() < 0.2).count();
    assert!(near >= 4, "the rate that is shown: {shown:?}");

    // A median from buckets is near that of the run's own histograms.
    let median = r#"histogram_quantile(0.5, sum by (le) (max_over_time(
        vst_request_duration_seconds_bucket{job="fleet",phase="query_full"}[10m])))"#;
    let median =
        prometheus.query(median).await[0]["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
    let median_ns = median.expect("a number") * 1e9;
    let report = vst_analysis::summary(&results.newest()).await.expect("a report");
    let knn = &fleet_tests::run::phase(&report, "query_full").operations[0];
    let own_ns = vst_common::count::to_f64(knn.response.as_ref().expect("response").p50.ns);
    assert!((0.3..3.0).contains(&(median_ns / own_ns)), "{median_ns} ns, the run says {own_ns} ns");

    // The gateway has the last word of each part of the fleet, under the run's name, and no push failed.
    let held = gateway.metrics().await;
    for part in ["coordinator", "w0", "w1"] {
        let group = |line: &&str| {
            [r#"job="vst""#, &format!("run=\"{RUN}\""), &format!("part=\"{part}\"")]
                .iter()
                .all(|l| line.contains(*l))
        };
        let lines: Vec<&str> = held.lines().filter(group).collect();
        let value = |name: &str| {
            let line = lines.iter().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        assert!(value("push_time_seconds").is_some_and(|at| at > 0.0), "{part}: {lines:?}");
        assert_eq!(value("push_failure_time_seconds"), Some(0.0), "{part}: {lines:?}");
        assert!(value("process_cpu_seconds_total").is_some_and(|cpu| cpu > 0.0), "{part}: {lines:?}");
        let info = if part == "coordinator" { "vst_run_info" } else { "vst_session_info" };
        assert_eq!(value(info), Some(1.0), "{part}: {lines:?}");
    }
    assert!(held.contains(r#"role="over""#), "the last word came after the run's end");
    let through = prometheus.query(r#"vst_run_info{job="vst"}"#).await;
    assert_eq!(through[0]["metric"]["part"], "coordinator", "{through:?}");
}
