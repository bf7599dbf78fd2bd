//! Ten thousand connections from one worker: what they cost it, and what they do.
//!
//! `make test-connections` prints it. Server and worker need more than 10,000 open files each (`ulimit -Hn`).

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{finish, project};
use fleet_tests::fleet::Fleet;
use fleet_tests::run::{Results, phase};
use fleet_tests::sparse;
use vst_analysis::Check;

const CONNECTIONS: u64 = 10_000;
const MOST_RSS: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_of_one_worker_take_less_than_a_gibibyte() {
    let servers = Servers::for_many_clients(11_000).await;
    let results = Results::new();
    let file = project().join("tests/scenarios/rates.yaml");
    let file = file.to_str().expect("text");
    let load = format!("phases.steady.kv.load={{closed: {{clients: {CONNECTIONS}, pipeline: 1}}}}");
    let sets = [&load, "fleet.lanes=2", "phases.steady.kv.duration=20s"];
    let mut fleet = Fleet::start_scenario(&results, &servers.url(), file, &sets, |command| {
        command.arg("--cleanup");
    });
    let address = fleet.address().await;
    fleet.start_worker("w0", "warn", |command| {
        command.args(["--coordinator", &address, "--lanes", "2"]);
    });
    let pid = fleet.workers["w0"].id().expect("runs");
    let mut connection = servers.connection(&servers.cluster.nodes()[0].address).await;
    let (mut rss, mut connected) = (0, 0);
    let watch = async {
        while let Some(most) = sparse::most_resident(pid) {
            rss = most.max(rss);
            let info: String =
                redis::cmd("INFO").arg("clients").query_async(&mut connection).await.expect("INFO");
            let clients = info.lines().find_map(|line| line.strip_prefix("connected_clients:"));
            connected = clients.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0).max(connected);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let ((), (output, _)) = tokio::join!(watch, fleet.end());
    let report = vst_analysis::summary(&results.newest()).await.expect("a report");
    let get = &phase(&report, "steady").operations[0];
    eprintln!(
        "{connected} clients at the server, {} requests in 20 s; the worker had {} MiB resident at most, {:.1} KiB a \
         connection",
        get.ok,
        rss >> 20,
        rss as f64 / 1024.0 / CONNECTIONS as f64
    );
    assert!(connected >= CONNECTIONS, "{connected}\n{}", output.stderr);
    assert_eq!((get.ok, get.lost), (get.due, 0), "{get:?}");
    for row in &report.accounting {
        assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
    }
    assert!(rss <= MOST_RSS, "{} MiB", rss >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lets_fewer_in_is_named_before_anything_is_sent() {
    let servers = Servers::for_many_clients(9_000).await;
    let results = Results::new();
    let file = project().join("tests/scenarios/rates.yaml");
    let load = format!("phases.steady.kv.load={{closed: {{clients: {CONNECTIONS}, pipeline: 1}}}}");
    let mut command =
        results.command(&["scenario", file.to_str().expect("text"), "--target", &servers.url()]);
    command.args(["--set", &load]);
    let output = finish(command).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("lets 9000 clients in"), "{}", output.stderr);
}
