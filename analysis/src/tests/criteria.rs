//! A criterion is met by the figure that the report shows, up to its bound and no further.

use vst_common::scenario::check::parse;
use vst_tuning::constraint::{Constraint, Side};
use vst_tuning::figure::Figure;

use super::*;
use crate::criteria::{judge, missed};

/// The made-up run's phases, with these criteria of the query and of the checkpoint.
fn rows(found: &Summary, query: &str, checkpoint: &str) -> Vec<CriterionRow> {
    let text = format!(
        "name: made\npurpose: p\ndataset: {{base: b, queries: q, ground_truth: t}}\nindex: {{algorithm: hnsw, metric: l2}}\n\
         phases:\n  - name: create\n    create_index: {{}}\n  - name: load\n    ingest: {{load: {{closed: {{clients: 2, pipeline: 2}}}}}}\n  \
         - name: ask\n    query: {{k: 10, load: {{open: {{rate: 300/s, connections: 16}}}}, duration: 10s}}\n    criteria: [{query}]\n  \
         - name: full\n    checkpoint: {{}}\n    criteria: [{checkpoint}]\n"
    );
    judge(&parse(&text, "made.yaml", &[]).unwrap().scenario, &found.phases, &found.checkpoints)
}

#[tokio::test]
async fn a_bound_is_met_at_the_figure_and_missed_beyond_it() {
    let found = made(|_| {}).await;
    let all = rows(
        &found,
        "qps >= 1/s, recall >= 0, p50 <= 1h, p95 <= 1h, p99 <= 1h, error_rate <= 100%, achieved_share >= 0"
            .replace("1h", "3600s")
            .as_str(),
        "memory >= 1B, bytes_per_vector >= 1B",
    );
    assert_eq!(all.len(), 9);
    for row in &all {
        let value = row.value.unwrap_or_else(|| panic!("{row:?} has a figure"));
        assert!(row.met && !row.is_lower_bound, "{row:?}");
        let figure = row.criterion.figure();
        let outside = match row.criterion.side() {
            Side::AtMost => value * 0.99,
            Side::AtLeast => value * 1.01,
        };
        for (bound, met) in [(value, true), (outside, false)] {
            let Ok(criterion) = Constraint::new(figure, row.criterion.side(), bound) else { continue };
            // Written and read back, so that the text of a scenario means the same.
            let again = match row.phase.as_str() {
                "ask" => rows(&found, &format!("\"{criterion}\""), ""),
                _ => rows(&found, "", &format!("\"{criterion}\"")),
            };
            // A share of nothing has no outside.
            if figure != Figure::ErrorRate || value > 0.0 || met {
                assert_eq!(again[0].met, met, "{criterion}: {:?}", again[0]);
                assert_eq!(missed(&again).is_empty(), met);
            }
        }
    }
}

#[tokio::test]
async fn what_is_only_bounded_from_below_or_not_there_meets_nothing() {
    let found = made(|m| {
        let phase = m.find("ask");
        let now = phase.started.start_wall_ns + 3_000_000_000;
        for row in
            phase.latency.iter_mut().flatten().filter(|r| r.operation == "knn" && r.interval_start == now)
        {
            for _ in 0..300 {
                row.cell.record(&open_outcome(900_000_000, 0, Kind::Timeout), u64::MAX);
            }
        }
    })
    .await;
    let rows_of = rows(&found, "p99 <= 3600s", "");
    assert!(rows_of[0].is_lower_bound && !rows_of[0].met, "{:?}", rows_of[0]);
    let found = made(|m| m.find("full").memory.clear()).await;
    let rows_of = rows(&found, "", "memory <= 1TiB");
    assert_eq!((rows_of[0].value, rows_of[0].met), (None, false));
    assert!(missed(&rows_of)[0].text.contains("does not tell"), "{:?}", missed(&rows_of));
}

#[tokio::test]
async fn a_criterion_that_is_missed_is_an_exit_code_unless_the_run_is_not_valid() {
    let mut found = made(|_| {}).await;
    found.verdict.missed = missed(&rows(&found, "qps >= 100000/s", ""));
    assert_eq!(found.exit(), Exit::Criterion);
    assert!(render_terminal(&found, false).starts_with("VALID, CRITERIA MISSED\n"));
    found.verdict.not_valid = vec![Note { rule: Rule::Slip, phase: None, text: String::from("late") }];
    assert_eq!(found.exit(), Exit::NotValid);
}
