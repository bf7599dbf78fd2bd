//! Asking while rows change: recall is exact in the phase and after it, and every command is accounted for.

use std::collections::BTreeSet;

use fleet_tests::cluster::Servers;
use fleet_tests::command::project;
use fleet_tests::run::{Results, assert_sound, phase};
use vst_analysis::Check;
use vst_common::keys::KeySpace;
use vst_common::live_set::LiveSet;
use vst_common::mix::{Mix, MixWeights};

#[tokio::test(flavor = "multi_thread")]
async fn while_rows_come_and_go_answers_are_exact_and_the_population_is_the_planned_one() {
    let servers = Servers::cluster().await;
    let results = Results::new();
    let file = project().join("tests/scenarios/mixed.yaml");
    let url = servers.url();
    let (output, report) = results.run(&["scenario", file.to_str().expect("text"), "--target", &url]).await;
    assert_sound(&output, &report);
    for row in &report.accounting {
        assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
    }
    let sent = |name: &str| -> Vec<(String, u64)> {
        let operations = phase(&report, name).operations.iter();
        operations.filter(|o| o.operation != "knn_part").map(|o| (o.operation.clone(), o.ok)).collect()
    };
    let operations = |knn, hset, del, update: Option<u64>| -> BTreeSet<(String, u64)> {
        let rows = [("knn", Some(knn)), ("hset", Some(hset)), ("del", Some(del)), ("update", update)];
        rows.into_iter().filter_map(|(name, ok)| Some((name.to_owned(), ok?))).collect()
    };
    let serve: BTreeSet<_> = sent("serve").into_iter().collect();
    assert_eq!(serve, operations(5_600, 1_600, 800, None));
    let by_the_clock: BTreeSet<_> = sent("serve_by_the_clock").into_iter().collect();
    assert_eq!(by_the_clock, operations(750, 150, 450, Some(150)));
    for name in ["serve", "ask", "serve_by_the_clock", "ask_again"] {
        let recall = phase(&report, name).recall.as_ref().expect("queries have recall");
        assert_eq!(recall.recall, Some(1.0), "{name}: {recall:?}");
        assert_eq!((recall.ghosts, recall.contamination, recall.duplicates), (0, 0, 0), "{name}: {recall:?}");
    }
    let knn =
        |name: &str| phase(&report, name).operations.iter().find(|o| o.operation == "knn").expect("queries");
    assert!(knn("serve").response.is_none(), "a closed loop has no response times");
    assert!(knn("serve_by_the_clock").response.is_some(), "by the clock they count from the schedule");

    // What is in the servers is the fold of both phases, by key.
    let before = LiveSet::empty(1, 10_000, 1).full().with_cut(6_000);
    let weights = MixWeights { query: 70, ingest: 20, delete: 10, update: 0 };
    let after = Mix::new(weights, 8_000, before).after();
    let weights = MixWeights { query: 5, ingest: 1, delete: 3, update: 1 };
    let after = Mix::new(weights, 1_500, after).after();
    assert_eq!(after.count(), 6_000 + 1_600 - 800 + 150 - 450);
    let mut expected: Vec<String> = (0..after.count())
        .map(|position| {
            let (copy, row) = after.cell_at(position).expect("a cell");
            let mut key = Vec::new();
            KeySpace::new("vst:").write(copy, row, &mut key);
            String::from_utf8(key).expect("text")
        })
        .collect();
    expected.sort();
    assert_eq!(servers.keys_under("vst:").await, expected);
}
