//! How many of the true neighbours were found, per query phase.
//!
//! Reads `recall_queries` (sums per distinct query, from the very requests whose latency is reported) and, where a
//! run was cut off before those came, the series `recall`. Law: the unit of the interval is the distinct query; an
//! answer that could not be judged is counted and never guessed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vst_common::count;
use vst_common::latency::Window;
use vst_common::recall::recall_interval;

use crate::engine::rows::{Row, rows};
use crate::engine::{Engine, Error};

/// Recall of one phase over its measured window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallSummary {
    /// Neighbours asked for.
    pub k: u64,
    /// Answers judged or masked.
    pub answers: u64,
    /// Distinct queries among them; absent where only the series is known.
    pub queries: Option<u64>,
    /// Hits over possible hits, 0..=1; absent when every answer was masked.
    pub recall: Option<f64>,
    /// The 95 % interval, over distinct queries.
    pub interval: Option<(f64, f64)>,
    /// Returned rows that were dead.
    pub ghosts: u64,
    /// Returned rows that were not of the query's own copy.
    pub contamination: u64,
    /// Returned rows that had been returned before in the same answer.
    pub duplicates: u64,
    /// Answers of fewer than k rows though k were alive.
    pub partial: u64,
    /// Answers whose truth is not known, because fewer than k of the listed neighbours live.
    pub masked: u64,
    /// The same for each copy of the base, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_copy: Vec<CopyRecall>,
}

/// Recall within one copy of the base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyRecall {
    /// Number of the copy, 0 for the base itself.
    pub copy: u64,
    /// Answers judged or masked.
    pub answers: u64,
    /// Hits over possible hits, 0..=1; absent when every answer was masked.
    pub recall: Option<f64>,
    /// Returned rows that were dead.
    pub ghosts: u64,
    /// Returned rows that were not of this copy.
    pub contamination: u64,
    /// Returned rows that had been returned before in the same answer.
    pub duplicates: u64,
    /// Answers of fewer than k rows though k were alive.
    pub partial: u64,
    /// Answers whose truth is not known.
    pub masked: u64,
}

/// Recall of all query phases, by position in the run.
pub(crate) async fn by_phase(engine: &Engine) -> Result<BTreeMap<u64, RecallSummary>, Error> {
    let mut phases: BTreeMap<u64, RecallSummary> = BTreeMap::new();
    let measure = Window::Measure.as_str();
    let series = totals("recall", &format!("where \"window\" = '{measure}'"));
    for (sql, by_query) in [(series, false), (totals("recall_queries", ""), true)] {
        for row in rows(&engine.sql(&sql).await?) {
            // Sums per query replace the series, which holds the same answers.
            phases.insert(row.total("phase_index"), summary(row, by_query));
        }
    }
    let per_query = "select phase_index, query, sum(hits) as hits, sum(possible) as possible from recall_queries \
                     group by phase_index, query order by phase_index, query";
    let mut pairs: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for row in rows(&engine.sql(per_query).await?) {
        pairs.entry(row.total("phase_index")).or_default().push((row.total("hits"), row.total("possible")));
    }
    for (index, pairs) in pairs {
        if let (Some(phase), Some((mean, low, high))) = (phases.get_mut(&index), recall_interval(&pairs)) {
            phase.recall = Some(mean);
            phase.interval = Some((low, high));
        }
    }
    for row in rows(&engine.sql(BY_COPY).await?) {
        let possible = row.total("possible");
        let copy = CopyRecall {
            copy: row.total("copy"),
            answers: row.total("answers"),
            recall: ratio(row.total("hits"), possible),
            ghosts: row.total("ghosts"),
            contamination: row.total("contamination"),
            duplicates: row.total("duplicates"),
            partial: row.total("partial"),
            masked: row.total("masked"),
        };
        if let Some(phase) = phases.get_mut(&row.total("phase_index")) {
            phase.by_copy.push(copy);
        }
    }
    // Of one copy the whole says it all.
    phases.values_mut().filter(|phase| phase.by_copy.len() < 2).for_each(|phase| phase.by_copy.clear());
    Ok(phases)
}

const BY_COPY: &str = "select phase_index, copy, sum(queries) as answers, sum(hits) as hits, \
    sum(possible) as possible, sum(ghosts) as ghosts, sum(contamination) as contamination, \
    sum(duplicates) as duplicates, sum(partial) as partial, sum(masked) as masked from recall_queries \
    group by phase_index, copy order by phase_index, copy";

fn ratio(hits: u64, possible: u64) -> Option<f64> {
    (possible > 0).then(|| count::to_f64(hits) / count::to_f64(possible))
}

fn totals(table: &str, filter: &str) -> String {
    let distinct = if table == "recall_queries" { "count(distinct query)" } else { "cast(null as bigint)" };
    format!(
        "select phase_index, max(k) as k, {distinct} as distinct_queries, sum(queries) as answers, \
         sum(hits) as hits, sum(possible) as possible, sum(ghosts) as ghosts, \
         sum(contamination) as contamination, sum(duplicates) as duplicates, sum(partial) as partial, \
         sum(masked) as masked from {table} {filter} group by phase_index"
    )
}

fn summary(row: Row<'_>, by_query: bool) -> RecallSummary {
    let possible = row.total("possible");
    RecallSummary {
        k: row.total("k"),
        answers: row.total("answers"),
        queries: if by_query { row.count("distinct_queries") } else { None },
        recall: ratio(row.total("hits"), possible),
        interval: None,
        ghosts: row.total("ghosts"),
        contamination: row.total("contamination"),
        duplicates: row.total("duplicates"),
        partial: row.total("partial"),
        masked: row.total("masked"),
        by_copy: Vec::new(),
    }
}
