//! A population is brought under a bound of memory, and every row that lives then is known.

use fleet_tests::cluster::Servers;
use fleet_tests::command::finish;
use fleet_tests::run::{Results, assert_sound, phase};
use redis::aio::MultiplexedConnection;
use vst_common::live_set::LiveSet;

const SCENARIO: &str = "tests/scenarios/fit.yaml";
const ROWS: u64 = 10_000;
/// What 10,000 rows of 128 dimensions take by far: their vectors alone are in the hash and in the index.
const ALL_ROWS_BYTES: u64 = 2 * ROWS * 512;

async fn used_memory(connections: impl IntoIterator<Item = &mut MultiplexedConnection>) -> u64 {
    let mut sum = 0;
    for connection in connections {
        let text: String = redis::cmd("INFO").arg("memory").query_async(connection).await.expect("INFO");
        let line = text.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("used_memory");
        sum += line.trim().parse::<u64>().expect("a number");
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_stop_under_the_bound_and_what_lives_is_known_to_the_row() {
    let servers = Servers::cluster().await;
    let (results, url) = (Results::new(), servers.url());
    let mut connections = servers.connections().await;
    let empty = used_memory(connections.values_mut()).await;
    let bound = empty + ALL_ROWS_BYTES / 2;
    let set = format!("phases.fit.shrink.keep_memory={bound}B");
    let (output, report) = results.run(&["scenario", SCENARIO, "--target", &url, "--set", &set]).await;
    assert_sound(&output, &report);

    // Slice after slice until it was reached; what each left is in the names and counts of the phases.
    let deleted = |n: u32| {
        let name = format!("fit_{n}");
        let found = report.phases.iter().find(|phase| phase.name == name)?;
        Some(found.operations.iter().filter(|o| o.operation == "del").map(|o| o.ok).sum::<u64>())
    };
    let slices: Vec<u64> = (1..).map_while(deleted).collect();
    assert!(!slices.is_empty() && slices.iter().all(|rows| *rows > 0), "{slices:?}");
    let left = ROWS - slices.iter().sum::<u64>();
    assert!(left > ROWS / 20 && left < ROWS, "{left} rows are left by {slices:?}");

    // By key, and by a plain look at the servers.
    let live = LiveSet::empty(5, ROWS, 1).with_cut(left);
    let own: Vec<String> =
        (0..ROWS).filter(|row| live.is_live(0, *row)).map(|row| format!("vst:{row:012}")).collect();
    assert_eq!(servers.keys_under("vst:").await, own);
    let used = used_memory(connections.values_mut()).await;
    assert!(
        used <= bound + bound / 50,
        "{used} bytes are used, {bound} was the bound, {empty} before the run"
    );

    // The truth goes on, computed anew where the list does not reach.
    let recall = phase(&report, "ask").recall.as_ref().expect("a query phase has recall");
    let faults = (recall.ghosts, recall.contamination, recall.duplicates, recall.partial);
    assert_eq!((recall.recall, faults), (Some(1.0), (0, 0, 0, 0)), "{recall:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_below_what_the_empty_target_uses_is_said_to_be_out_of_reach() {
    let servers = Servers::standalone().await;
    let (results, url) = (Results::new(), servers.url());
    let set = ["phases.fit.shrink.keep_memory=1KiB", "dataset.rows=500"];
    let args = ["scenario", SCENARIO, "--target", &url, "--set", set[0], "--set", set[1]];
    let output = finish(results.command(&args)).await;
    assert_eq!(output.code, 4, "{}", output.stderr);
    assert!(output.stderr.contains("with no row left"), "{}", output.stderr);
}
