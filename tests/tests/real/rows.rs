//! Rows that come, are overwritten, go and are exchanged: what the servers hold in the end is what the plan says.

use std::collections::BTreeSet;

use fleet_tests::cluster::Servers;
use fleet_tests::command::project;
use fleet_tests::run::{Results, assert_sound, phase};
use vst_analysis::Check;
use vst_common::keys::KeySpace;
use vst_common::live_set::LiveSet;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_rows_the_population_is_the_planned_one_and_every_command_is_accounted_for() {
    let servers = Servers::cluster().await;
    let results = Results::new();
    let file = project().join("tests/scenarios/rows.yaml");
    let url = servers.url();
    let (output, report) = results.run(&["scenario", file.to_str().expect("text"), "--target", &url]).await;
    assert_sound(&output, &report);
    for row in &report.accounting {
        assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
    }
    let sent: Vec<(&str, &str, u64)> = report
        .phases
        .iter()
        .flat_map(|phase| phase.operations.iter().map(|o| (phase.name.as_str(), o.operation.as_str(), o.ok)))
        .filter(|(_, operation, _)| matches!(*operation, "hset" | "del"))
        .collect();
    let live = LiveSet::empty(1, 10_000, 1);
    assert_eq!(
        sent,
        [
            ("load", "hset", 10_000),
            ("rewrite", "hset", 5_000),
            ("shrink_by_the_clock", "del", 4_000),
            ("rewrite_all", "hset", 6_000),
            ("turn_1", "del", 1_500),
            ("turn_1", "hset", 1_500),
            ("turn_2", "del", 1_500),
            ("turn_2", "hset", 1_500),
            ("turn_3", "del", 1_500),
            ("turn_3", "hset", 1_500),
            ("turn_by_the_clock", "del", 500),
            ("turn_by_the_clock", "hset", 500),
        ]
    );
    // Each churn turns the order on by what it exchanged.
    let planned = live.keep(0.6).moved_on(1_500, 1_500).moved_on(1_500, 1_500).moved_on(1_500, 1_500);
    let planned = planned.moved_on(500, 500);
    let mut expected = BTreeSet::new();
    for position in 0..planned.count() {
        let (copy, row) = planned.cell_at(position).expect("a cell");
        let mut key = Vec::new();
        KeySpace::new("vst:").write(copy, row, &mut key);
        expected.insert(String::from_utf8(key).expect("text"));
    }
    let held: BTreeSet<String> = servers.keys_under("vst:").await.into_iter().collect();
    assert_eq!(held, expected);
    let recall = phase(&report, "ask").recall.as_ref().expect("a query phase has recall");
    assert_eq!((recall.recall, recall.ghosts, recall.contamination), (Some(1.0), 0, 0), "{recall:?}");
    // By the clock, response times count from the instants of the schedule.
    let load = &phase(&report, "load").operations[0];
    assert!(load.response.is_some(), "an open loop has response times");
}
