//! Where the memory of servers with jemalloc is, against what a plain client reads; growth that is there and growth that
//! is not.

use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::run;
use fleet_tests::run::{Results, assert_sound};
use serde_json::Value;
use vst_analysis::{Note, Rule, Summary};

const SCENARIO: &str = "tests/scenarios/memory.yaml";

/// The rows of a query over the newest run.
async fn rows(results: &Results, sql: &str) -> Vec<Value> {
    let output = run(&["analyze", "query", sql, "--run", &results.newest(), "--json"]).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    output.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn leaks(report: &Summary) -> Vec<&Note> {
    report.verdict.findings.iter().filter(|note| note.rule == Rule::Leak).collect()
}

/// Somebody else's keys, 1 KiB each: less than 200 KB a second, which the population does not explain. Slow
/// enough for the memory to count as settled.
async fn write_beside(servers: &Servers) {
    let mut connections = servers.connections().await;
    let value = "x".repeat(1024);
    for n in 0_u64.. {
        for connection in connections.values_mut() {
            let key = format!("stranger:{n}");
            // Only one node owns the key; the others say so.
            let _: Result<(), _> = redis::cmd("SET").arg(&key).arg(&value).query_async(connection).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn size_classes_add_up_to_what_the_server_says_and_a_flat_run_is_no_leak() {
    let (servers, results) = (Servers::cluster_with_jemalloc().await, Results::new());
    let (output, report) = results.run(&["scenario", SCENARIO, "--target", &servers.url()]).await;
    assert_sound(&output, &report);

    // Each answer of each node: its classes are its total, and its pages those that hold them.
    let sql = "select node, tick, sum(allocated_bytes) as classes, max(total_allocated_bytes) as total,
                      sum(held_bytes) as held, max(total_active_bytes) as active, max(took_ns) as took_ns
               from allocator where kind is not null group by node, tick";
    let answers = rows(&results, sql).await;
    assert!(answers.len() >= 3 * 5, "{answers:?}");
    for answer in &answers {
        let number = |name: &str| answer[name].as_f64().expect("a number");
        assert_eq!(answer["classes"], answer["total"], "{answer}");
        assert!(number("held") <= number("active") && number("held") > 0.9 * number("active"), "{answer}");
        assert!(number("took_ns") > 0.0, "{answer}");
    }
    // INFO says it too, up to a tenth of a second earlier: nothing runs at a checkpoint.
    let sql = "select a.node, max(a.total_allocated_bytes) as classes, max(m.allocator_allocated) as info
               from allocator a join memory m on a.node = m.node and a.tick = m.tick
               where a.phase in ('full', 'full_again', 'half') and m.allocator_allocated is not null
               group by a.phase, a.node";
    let compared = rows(&results, sql).await;
    assert!(compared.len() >= 6, "{compared:?}");
    for row in &compared {
        let (classes, info) = (row["classes"].as_f64().expect("bytes"), row["info"].as_f64().expect("bytes"));
        assert!((classes - info).abs() < 0.02 * info, "{row}");
    }

    let named: Vec<&str> =
        report.checkpoints.iter().filter(|c| c.allocator.is_some()).map(|c| c.phase.as_str()).collect();
    assert_eq!(named, ["baseline", "full", "full_again", "half"]);
    let at = |name: &str| {
        let found = report.checkpoints.iter().find(|c| c.phase == name).and_then(|c| c.allocator.as_ref());
        found.expect("size classes").clone()
    };
    let (full, half) = (at("full_again"), at("half"));
    assert_eq!((full.primaries, half.primaries), (3, 3));
    let class =
        |size: u64| half.classes.iter().find(|c| c.size_bytes == size).expect("the class of a vector");
    // A vector of 128 floats and its header: half of the regions are free in slabs that are not.
    let vectors = class(640);
    assert!(vectors.free_bytes() > vectors.held_bytes / 5, "{vectors:?}");
    assert!(half.allocated_bytes < full.allocated_bytes);

    assert_eq!(leaks(&report), Vec::<&Note>::new());
    let check = &report.leaks[0];
    assert_eq!((check.live, check.checkpoints, check.is_leak), (10_000, 2, false));
    assert!(check.smallest > check.bytes_per_hour, "{check:?}");
    let shown = run(&["analyze", "summary", &results.newest()]).await.stdout;
    // Lines are as long as a terminal is wide.
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("the smallest leak that 2 checkpoints would have shown is"), "{shown}");
    assert!(shown.contains("Size classes of the primaries' allocators"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_client_that_adds_keys_outside_the_population_is_found_as_a_leak() {
    let (servers, results) = (Servers::cluster_with_jemalloc().await, Results::new());
    let (output, report) = {
        let mut command = results.command(&["scenario", SCENARIO, "--target", &servers.url()]);
        command.arg("--json");
        let writing = async {
            // Begins when the rows are there.
            fleet_tests::course::rows_are_there(&servers, 10_000).await;
            write_beside(&servers).await;
        };
        tokio::select! {
            output = fleet_tests::command::finish(command) => {
                let report = fleet_tests::run::report(&output);
                (output, report)
            }
            () = writing => unreachable!("writes until the run ends"),
        }
    };
    let notes = leaks(&report);
    assert_eq!(notes.len(), 1, "exit {}: {:?}\n{}", output.code, report.verdict, output.stderr);
    let text = &notes[0].text;
    assert!(
        text.contains("10,000 live rows") && text.contains("keys more") && text.contains("who else"),
        "{text}"
    );
    assert!(text.contains("the smallest leak that 2 checkpoints would have shown is"), "{text}");
}
