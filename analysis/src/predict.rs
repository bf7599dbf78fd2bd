//! What more rows of the same would need, from the checkpoints of runs that grew.
//!
//! Fits net memory over live rows by a straight line, over the checkpoints at which nothing had been removed since the
//! baseline, and sets beside it what the parts of a vector must cost by arithmetic. Law: of checkpoints on a line the
//! line is found, and its interval grows with the distance from what was measured.

use serde::{Deserialize, Serialize};
use vst_common::count;

use crate::engine::{Engine, Error, on_own_threads};
use crate::memory::Checkpoint;
use crate::number;
use crate::statistics::Line;
use crate::summary::{self, Setting, Summary};

/// Confidence of the intervals.
const CONFIDENCE: f64 = 0.95;
/// Share of a node's memory that data may take; the rest is for fragmentation, buffers and a fork.
const USABLE_SHARE: f64 = 0.8;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Memory at some number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Rows.
    pub rows: u64,
    /// Net memory of the primaries, bytes.
    pub net_bytes: f64,
}

/// What some number of rows would need.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Need {
    /// Rows.
    pub rows: u64,
    /// Net memory of the primaries, bytes.
    pub net_bytes: f64,
    /// The interval in which a measurement would lie, bytes; absent where two points leave no residual.
    pub interval: Option<(f64, f64)>,
    /// How many times the largest measured population that is.
    pub extrapolation: f64,
    /// Primaries of the given size that it takes.
    pub nodes: u64,
}

/// What a vector must cost by arithmetic, bytes; an estimate, beside which the measured rest stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The vector in its hash.
    pub payload: f64,
    /// The vector in the index; a module that shares the hash's copy needs none.
    pub index_copy: f64,
    /// Links of all layers of an HNSW graph and a label.
    pub links: f64,
    /// Name of the key.
    pub key_name: f64,
    /// Measured, less all of these: the hash and its key's bookkeeping, the index's maps, allocator slack.
    pub rest: f64,
}

/// A prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// What ran.
    pub setting: Setting,
    /// The checkpoints that the line goes through.
    pub points: Vec<Point>,
    /// Bytes that do not depend on the rows.
    pub fixed_bytes: f64,
    /// Bytes of one more vector.
    pub bytes_per_vector: f64,
    /// Half the width of its interval; absent with fewer than three points.
    pub margin: Option<f64>,
    /// What a vector must cost.
    pub model: Option<Model>,
    /// Memory of one node, GiB.
    pub node_gib: f64,
    /// Rows asked for.
    pub needs: Vec<Need>,
    /// What to know before believing it.
    pub doubts: Vec<String>,
}

/// Predicts from one or more runs.
///
/// # Errors
/// [`Error`] when a directory cannot be read; [`Error::NoGrowth`] when no checkpoint shows a population.
pub async fn predict(run_dirs: &[String], rows: &[u64], node_gib: f64) -> Result<Prediction, Error> {
    let (run_dirs, rows) = (run_dirs.to_vec(), rows.to_vec());
    on_own_threads(async move || {
        let mut summaries = Vec::new();
        for directory in &run_dirs {
            let engine = Engine::open(std::slice::from_ref(directory)).await?;
            summaries.push(summary::of(&engine, directory).await?);
        }
        of_summaries(&summaries, &rows, node_gib)
    })
    .await
}

fn of_summaries(summaries: &[Summary], rows: &[u64], node_gib: f64) -> Result<Prediction, Error> {
    let mut points: Vec<Point> = summaries.iter().flat_map(|s| grown(&s.checkpoints)).collect();
    points.sort_by_key(|p| p.rows);
    let Some(setting) = summaries.first().map(|s| s.setting.clone()).filter(|_| !points.is_empty()) else {
        return Err(Error::NoGrowth);
    };
    let mut doubts = Vec::new();
    let same = |s: &Setting| (s.dims, s.metric.clone(), s.m, s.ef_construction);
    if summaries.iter().any(|s| same(&s.setting) != same(&setting)) {
        doubts.push(String::from(
            "the runs differ in dimensions, metric or index parameters: one line cannot fit them",
        ));
    }
    for summary in summaries.iter().filter(|s| !s.verdict.not_valid.is_empty()) {
        doubts.push(format!("run {} is not valid", summary.run));
    }
    let pairs: Vec<(f64, f64)> = points.iter().map(|p| (count::to_f64(p.rows), p.net_bytes)).collect();
    let line = Line::through(&pairs, false);
    let (fixed_bytes, bytes_per_vector) = match (&line, pairs.as_slice()) {
        (Some(line), _) => (line.intercept, line.slope),
        (None, [a, .., b]) if b.0 > a.0 => {
            let slope = (b.1 - a.1) / (b.0 - a.0);
            (a.1 - slope * a.0, slope)
        }
        (None, [.., last]) => (0.0, last.1 / last.0.max(1.0)),
        (None, []) => return Err(Error::NoGrowth),
    };
    if line.is_none() {
        doubts.push(format!(
            "{} checkpoints of different size give no interval: run to at least three populations",
            pairs.len()
        ));
    }
    let largest = points.last().map_or(1.0, |p| count::to_f64(p.rows)).max(1.0);
    let needs: Vec<Need> = rows
        .iter()
        .map(|rows| {
            let x = count::to_f64(*rows);
            let (net_bytes, interval) = match &line {
                Some(line) => {
                    let (value, margin) = line.predict(x, CONFIDENCE);
                    (value, Some((value - margin, value + margin)))
                }
                None => (fixed_bytes + bytes_per_vector * x, None),
            };
            let high = interval.map_or(net_bytes, |(_, high)| high).max(0.0);
            let nodes = count::from_f64((high / (node_gib.max(0.001) * GIB * USABLE_SHARE)).ceil()).max(1);
            Need { rows: *rows, net_bytes, interval, extrapolation: x / largest, nodes }
        })
        .collect();
    let names =
        summaries.iter().flat_map(|s| &s.checkpoints).find_map(|c| c.key_name_bytes?.checked_div(c.live?));
    let model = model(&setting, bytes_per_vector, names.unwrap_or(0));
    let margin = line.map(|line| line.slope_margin(CONFIDENCE));
    Ok(Prediction { setting, points, fixed_bytes, bytes_per_vector, margin, model, node_gib, needs, doubts })
}

/// The checkpoints up to the first at which rows had been removed: later ones hold what did not come back.
fn grown(checkpoints: &[Checkpoint]) -> Vec<Point> {
    let mut most = 0;
    checkpoints
        .iter()
        .filter(|c| c.step != "baseline")
        .filter_map(|c| Some((c.live?, c.figures.as_ref()?.net_bytes_per_vector?)))
        .take_while(|(live, _)| {
            let grows = *live >= most;
            most = most.max(*live);
            grows
        })
        .map(|(live, each)| Point { rows: live, net_bytes: each * count::to_f64(live) })
        .collect()
}

/// Bytes of the links of a vector in an HNSW graph with 32-bit links: 2 M and their count in the lowest layer, and in each
/// of the 1 / (M - 1) layers above M and their count; a 64-bit label. An estimate by arithmetic.
#[must_use]
pub fn link_bytes(m: u32) -> f64 {
    let m = f64::from(m);
    (2.0 * m + 1.0) * 4.0 + (m + 1.0) * 4.0 / (m - 1.0).max(1.0) + 8.0
}

/// FLOAT32 vectors in hashes, and their graph.
fn model(setting: &Setting, measured: f64, key_name: u64) -> Option<Model> {
    let payload = f64::from(setting.dims?) * 4.0;
    let links = link_bytes(setting.m?);
    let key_name = count::to_f64(key_name);
    let rest = measured - 2.0 * payload - links - key_name;
    Some(Model { payload, index_copy: payload, links, key_name, rest })
}

impl Prediction {
    /// For a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let margin = self.margin.map_or_else(String::new, |m| format!(" ± {}", number::significant(m)));
        let mut out = format!(
            "{}{margin} bytes per vector, {} fixed, over {} checkpoints of {} to {} rows ({} interval)\n",
            number::significant(self.bytes_per_vector),
            number::bytes(self.fixed_bytes),
            self.points.len(),
            number::grouped(self.points.first().map_or(0, |p| p.rows)),
            number::grouped(self.points.last().map_or(0, |p| p.rows)),
            number::percent(CONFIDENCE)
        );
        if let Some(model) = &self.model {
            let parts = [
                ("vector in its hash", model.payload),
                ("vector in the index", model.index_copy),
                ("HNSW links and label", model.links),
                ("key name", model.key_name),
                ("rest: bookkeeping of key, hash and index, allocator", model.rest),
            ];
            out.push_str("by arithmetic, bytes per vector\n");
            for (name, bytes) in parts {
                out.push_str(&format!("  {:>6}  {name}\n", number::significant(bytes)));
            }
        }
        out.push_str(&format!(
            "needed, on primaries of {} GiB of which {} may be used, replicas apart\n",
            number::significant(self.node_gib),
            number::percent(USABLE_SHARE)
        ));
        for need in &self.needs {
            let interval = need.interval.map_or_else(String::new, |(low, high)| {
                format!(" [{}, {}]", number::bytes(low.max(0.0)), number::bytes(high))
            });
            let far = if need.extrapolation > 1.0 {
                format!(", {} times what was measured", number::significant(need.extrapolation))
            } else {
                String::new()
            };
            out.push_str(&format!(
                "  {:>13} rows  {}{interval}, nodes: {}{far}\n",
                number::grouped(need.rows),
                number::bytes(need.net_bytes),
                number::grouped(need.nodes)
            ));
        }
        for doubt in &self.doubts {
            out.push_str(&format!("in doubt: {doubt}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checkpoint(live: u64, net_bytes: f64) -> Checkpoint {
        let figures = crate::memory::Figures {
            net_bytes_per_vector: Some(net_bytes / count::to_f64(live)),
            ..crate::memory::Figures::default()
        };
        Checkpoint {
            allocator: None,
            phase_index: 1,
            phase: String::from("c"),
            step: String::from("checkpoint"),
            ticks: 1,
            complete_ticks: 1,
            live: Some(live),
            key_name_bytes: Some(live * 16),
            indexed: true,
            figures: Some(figures),
        }
    }

    fn summary(checkpoints: Vec<Checkpoint>) -> Summary {
        let mut summary = crate::tests::any_summary();
        summary.checkpoints = checkpoints;
        summary
    }

    proptest! {
        #[test]
        fn checkpoints_on_a_line_predict_what_lies_on_it(fixed in 0.0_f64..1e8, each in 100.0_f64..10_000.0) {
            let at = |n: u64| checkpoint(n, fixed + each * count::to_f64(n));
            let found = of_summaries(&[summary(vec![at(50_000), at(100_000), at(200_000)])], &[1_000_000], 1.0).unwrap();
            let true_bytes = fixed + each * 1e6;
            prop_assert!((found.needs[0].net_bytes / true_bytes - 1.0).abs() < 1e-6);
            prop_assert!((found.needs[0].extrapolation - 5.0).abs() < 1e-9);
            let nodes = (found.needs[0].net_bytes / (0.8 * GIB)).ceil();
            prop_assert!((count::to_f64(found.needs[0].nodes) - nodes).abs() <= 1.0);
        }
    }

    #[test]
    fn the_interval_grows_with_the_distance() {
        let runs = [
            summary(vec![checkpoint(50_000, 105e6), checkpoint(100_000, 207e6)]),
            summary(vec![checkpoint(50_000, 104e6), checkpoint(200_000, 413e6)]),
        ];
        let found = of_summaries(&runs, &[100_000, 1_000_000, 10_000_000], 64.0).unwrap();
        let widths: Vec<f64> =
            found.needs.iter().map(|n| n.interval.map(|(low, high)| high - low).unwrap()).collect();
        assert!(widths[0] < widths[1] && widths[1] < widths[2], "{widths:?}");
        assert_eq!(found.points.len(), 4);
        insta::assert_snapshot!(found.to_text());
    }

    #[test]
    fn what_did_not_come_back_is_not_fitted() {
        let found = grown(&[
            checkpoint(10, 100.0),
            checkpoint(20, 200.0),
            checkpoint(5, 180.0),
            checkpoint(20, 300.0),
        ]);
        assert_eq!(found.iter().map(|p| p.rows).collect::<Vec<_>>(), [10, 20]);
    }

    #[test]
    fn runs_that_cannot_be_compared_say_so() {
        let (mut a, b) = (summary(vec![checkpoint(10, 100.0)]), summary(vec![checkpoint(20, 200.0)]));
        a.setting.m = Some(99);
        let found = of_summaries(&[a, b], &[100], 64.0).unwrap();
        assert!(found.doubts.iter().any(|d| d.contains("differ")), "{:?}", found.doubts);
        assert!(found.doubts.iter().any(|d| d.contains("three populations")));
        assert!(matches!(of_summaries(&[summary(vec![])], &[1], 1.0), Err(Error::NoGrowth)));
    }
}
