//! What 10, 100 and 1,000 workers cost their coordinator. `make test-crowd`.
//!
//! CPU time and memory are the coordinator process's own, whatever else the machine does; times to acknowledgement are
//! by the clock, and the crowd, the server and the coordinator share this machine.

use fleet_tests::crowd::Crowd;
use fleet_tests::run::Results;

const SECONDS: u32 = 60;
/// Bounds at a thousand workers.
const MOST_CORES: f64 = 0.5;
const MOST_BYTES: u64 = 512 << 20;
const MOST_NS: u64 = 1_000_000_000;

fn milliseconds(ns: Option<u64>) -> f64 {
    ns.map_or(f64::NAN, |ns| ns as f64 / 1e6)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_workers_cost_half_a_core_and_no_more_than_ten_times_a_hundred() {
    let asked = std::env::var("VST_CROWD").unwrap_or_else(|_| String::from("10,100,1000"));
    let sizes = asked.split(',').map(|n| n.trim().parse::<u32>().expect("a number of workers"));
    eprintln!(
        "workers  cores  mcore/worker  resident MiB  ack p50 ms  ack p99 ms  ack max ms  batches  CPU s in all"
    );
    let mut before: Option<(u32, f64)> = None;
    for workers in sizes {
        let results = Results::new();
        let crowd = Crowd::run(&results, workers, SECONDS).await;
        let batches: u64 = crowd.members.iter().map(|member| member.sent).sum();
        eprintln!(
            "{workers:7}  {:5.3}  {:12.3}  {:12}  {:10.1}  {:10.1}  {:10.1}  {batches:7}  {:12.1}",
            crowd.cores,
            1e3 * crowd.cores / f64::from(workers),
            crowd.resident_bytes >> 20,
            milliseconds(crowd.acknowledged.quantile(0.5)),
            milliseconds(crowd.acknowledged.quantile(0.99)),
            milliseconds(crowd.acknowledged.max()),
            crowd.cpu_seconds,
        );
        assert!(matches!(crowd.code, 0 | 7), "exit {}: {}", crowd.code, crowd.said);
        assert_eq!(batches, u64::from(workers) * u64::from(SECONDS));
        crowd.lost_nothing_and_doubled_nothing().await;
        crowd.is_reported().await;
        assert!(crowd.cores <= MOST_CORES, "{workers} workers: {} cores", crowd.cores);
        assert!(crowd.resident_bytes <= MOST_BYTES, "{workers} workers: {} bytes", crowd.resident_bytes);
        assert!(crowd.acknowledged.quantile(0.99) < Some(MOST_NS), "{workers} workers wait too long");
        if let Some((fewer, cores)) = before.replace((workers, crowd.cores)) {
            let times = f64::from(workers) / f64::from(fewer);
            assert!(crowd.cores <= times * cores, "{workers} workers cost more than {times} times {fewer}");
        }
    }
}
