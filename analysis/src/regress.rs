//! Whether one build is worse than another, by two runs or by several of each.
//!
//! Compares throughput, p99, recall and bytes per vector phase by phase, by their series within a run or, from three
//! repeats on, between runs. A change counts only if it exceeds both the threshold and the noise; what could not have
//! been seen is said. Law: of runs that differ by chance alone at most one comparison in a hundred calls a regression.

pub(crate) mod report;
mod thresholds;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vst_common::exit::Exit;

use crate::course::{Course, LoadPoint};
use crate::engine::{Engine, Error, on_own_threads};
use crate::statistics::{Difference, Estimate, student};
use crate::summary::{self, Summary};

pub use thresholds::{Thresholds, ThresholdsError};

/// Confidence of a whole comparison, shared between its verdicts: more than the 99 % that is promised, because the
/// autocorrelation of a short series is itself only an estimate.
const CONFIDENCE: f64 = 0.995;
/// Intervals of a series below which its noise cannot be told.
const LEAST_INTERVALS: usize = 12;
/// Samples of memory below which its noise cannot be told.
const LEAST_TICKS: usize = 2;
/// Repeats from which the noise is that between runs.
const LEAST_REPEATS: usize = 3;
/// Share of the comparisons in which the smallest effect that is named would be seen.
const POWER: f64 = 0.8;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Requests that ended well, per second.
    Throughput,
    /// 99th percentile of an interval, geometric mean over intervals: response in an open loop, else service.
    P99,
    /// Recall@k.
    Recall,
    /// Net bytes per vector at a checkpoint.
    Memory,
}

impl Metric {
    /// Whether more is better.
    fn is_better_high(self) -> bool {
        matches!(self, Self::Throughput | Self::Recall)
    }

    /// Whether its change is a difference and not a share.
    fn is_absolute(self) -> bool {
        self == Self::Recall
    }

    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::P99 => "p99",
            Self::Recall => "recall",
            Self::Memory => "bytes per vector",
        }
    }
}

/// What follows from one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Worse by more than the threshold and the noise.
    Regression,
    /// Better by more than the threshold and the noise.
    Improvement,
    /// Not worse by more than the threshold.
    Unchanged,
    /// The noise is larger than the threshold, or than a change beyond it: nothing follows.
    WithinNoise,
    /// Too few intervals, samples or repeats to know the noise.
    TooShort,
}

/// One metric of one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Name of the phase.
    pub phase: String,
    /// The operation; the checkpoint's metric has none.
    pub operation: Option<String>,
    /// What is compared.
    pub metric: Metric,
    /// Mean of the baseline: requests per second, nanoseconds, a fraction, bytes.
    pub baseline: f64,
    /// Mean of the candidate.
    pub candidate: f64,
    /// Change from the baseline: a share of it, for recall a difference.
    pub change: f64,
    /// Half the width of the change's interval; absent where the noise is not known.
    pub margin: Option<f64>,
    /// The change that is tolerated.
    pub threshold: f64,
    /// The smallest change for the worse that would have been called in four of five comparisons.
    pub smallest_effect: Option<f64>,
    /// Intervals, samples, queries or repeats of the baseline and of the candidate.
    pub n: (u64, u64),
    /// What follows.
    pub call: Call,
}

/// A comparison of runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Run directories compared with.
    pub baseline: Vec<String>,
    /// Run directories compared.
    pub candidate: Vec<String>,
    /// Confidence of all verdicts together.
    pub confidence: f64,
    /// One per phase and metric that both sides have.
    pub judgements: Vec<Judgement>,
    /// Why the comparison is not to be trusted: runs that are not valid, phases that a side lacks.
    pub doubts: Vec<String>,
}

impl Comparison {
    /// The regressions.
    pub fn regressions(&self) -> impl Iterator<Item = &Judgement> {
        self.judgements.iter().filter(|j| j.call == Call::Regression)
    }

    /// The exit code of a command that shows it: 6 for a regression, 7 where it is in doubt.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.regressions().next().is_some() {
            Exit::Criterion
        } else if !self.doubts.is_empty() || self.judgements.is_empty() {
            Exit::NotValid
        } else {
            Exit::Valid
        }
    }

    /// For a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        report::text(self)
    }

    /// For a pull request.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        report::markdown(self)
    }

    /// For CI: one test case per verdict.
    #[must_use]
    pub fn to_junit(&self) -> String {
        report::junit(self)
    }
}

/// Compares runs; directories as for [`crate::summary`].
///
/// # Errors
/// [`Error`] when a directory cannot be read.
pub async fn regress(
    baseline: &[String],
    candidate: &[String],
    thresholds: &Thresholds,
) -> Result<Comparison, Error> {
    let (baseline, candidate, thresholds) = (baseline.to_vec(), candidate.to_vec(), thresholds.clone());
    on_own_threads(async move || {
        let (mut doubts, mut sides) = (Vec::new(), [const { Vec::new() }; 2]);
        for (side, directories) in sides.iter_mut().zip([&baseline, &candidate]) {
            for directory in directories {
                let engine = Engine::open(std::slice::from_ref(directory)).await?;
                let summary = summary::of(&engine, directory).await?;
                let course = Course::read(&engine, 100_000).await?;
                if summary.exit() != Exit::Valid {
                    doubts.push(format!(
                        "run {} is not valid: see `vst analyze summary {directory}`",
                        summary.run
                    ));
                }
                side.push(measured(&summary, &course));
            }
        }
        let [a, b] = sides;
        let (judgements, missing) = compare(&a, &b, &thresholds);
        doubts.extend(missing);
        Ok(Comparison { baseline, candidate, confidence: CONFIDENCE, judgements, doubts })
    })
    .await
}

/// Of what a figure is.
type Key = (u64, String, Option<String>, Metric);

/// One figure of one run.
#[derive(Clone, Debug, PartialEq)]
enum Figure {
    /// A series in order of time.
    Series(Vec<f64>),
    /// A mean whose error is known.
    Known(Estimate),
}

/// The figures of a run. Those in which the shape of the scale is a ratio are logarithms.
fn measured(summary: &Summary, course: &Course) -> BTreeMap<Key, Figure> {
    let mut figures = BTreeMap::new();
    for phase in &summary.phases {
        for operation in &phase.operations {
            let points = course.measured(phase.index, &operation.operation, phase.step != "query");
            let key = |metric| (phase.index, phase.name.clone(), Some(operation.operation.clone()), metric);
            let rate = |p: &&LoadPoint| float(p.ok) * 1e9 / float(p.length_ns.max(1));
            figures.insert(key(Metric::Throughput), Figure::Series(points.iter().map(rate).collect()));
            let is_open = phase.load.as_deref() == Some("open");
            let p99 = |p: &&LoadPoint| if is_open { p.response_p99_ns } else { p.service_p99_ns };
            let logs = points.iter().filter_map(p99).map(|ns| float(ns.max(1)).ln()).collect();
            figures.insert(key(Metric::P99), Figure::Series(logs));
        }
        if let Some(recall) = &phase.recall
            && let (Some(mean), Some((low, high)), Some(queries)) =
                (recall.recall, recall.interval, recall.queries)
        {
            let estimate = Estimate {
                mean,
                error: (high - low) / (2.0 * student(0.975, 1e6)),
                freedom: float(queries.saturating_sub(1).max(1)),
                n: queries,
            };
            let key = (phase.index, phase.name.clone(), Some(String::from("knn")), Metric::Recall);
            figures.insert(key, Figure::Known(estimate));
        }
    }
    let mean = |index: u64| {
        let used: Vec<f64> = course.ticks_of(index).map(crate::course::TickPoint::used).collect();
        (!used.is_empty()).then(|| used.iter().sum::<f64>() / float(vst_common::count::len(used.len())))
    };
    let baseline =
        summary.checkpoints.iter().find(|c| c.step == "baseline").and_then(|c| mean(c.phase_index));
    for checkpoint in summary.checkpoints.iter().filter(|c| c.step != "baseline") {
        let (Some(live), Some(baseline)) = (checkpoint.live.filter(|n| *n > 0), baseline) else { continue };
        let net =
            course.ticks_of(checkpoint.phase_index).map(|t| (t.used() - baseline) / float(live)).collect();
        let key = (checkpoint.phase_index, checkpoint.phase.clone(), None, Metric::Memory);
        figures.insert(key, Figure::Series(net));
    }
    figures
}

/// The verdicts, and what one side lacks.
fn compare(
    baseline: &[BTreeMap<Key, Figure>],
    candidate: &[BTreeMap<Key, Figure>],
    thresholds: &Thresholds,
) -> (Vec<Judgement>, Vec<String>) {
    // By name, because a phase may have moved.
    let name = |key: &Key| (key.1.clone(), key.2.clone(), key.3);
    let find = |side: &[BTreeMap<Key, Figure>], wanted: &Key| -> Vec<Figure> {
        let of = |run: &BTreeMap<Key, Figure>| {
            run.iter().find(|(key, _)| name(key) == name(wanted)).map(|(_, figure)| figure.clone())
        };
        side.iter().filter_map(of).collect()
    };
    let mut keys: Vec<Key> = baseline.iter().chain(candidate).flat_map(BTreeMap::keys).cloned().collect();
    keys.sort();
    let mut seen = std::collections::BTreeSet::new();
    keys.retain(|key| seen.insert(name(key)));
    let (mut pairs, mut missing) = (Vec::new(), Vec::new());
    for key in keys {
        let (a, b) = (find(baseline, &key), find(candidate, &key));
        if a.len() < baseline.len() || b.len() < candidate.len() {
            let what = key.3.as_str();
            missing.push(format!("phase {}: not every run has {what}, so it is not compared", key.1));
        } else {
            pairs.push((key, a, b));
        }
    }
    // A comparison of many phases must not call one by chance: the confidence is shared.
    let shared = 1.0 - (1.0 - CONFIDENCE) / float(vst_common::count::len(pairs.len().max(1)));
    let judged = pairs
        .into_iter()
        .filter_map(|((_, phase, operation, metric), a, b)| {
            judge(metric, &a, &b, thresholds.of(metric), shared).map(|j| Judgement { phase, operation, ..j })
        })
        .collect();
    (judged, missing)
}

/// Judges one metric; `None` where a side measured nothing.
fn judge(metric: Metric, a: &[Figure], b: &[Figure], threshold: f64, confidence: f64) -> Option<Judgement> {
    let back = |x: f64| if metric == Metric::P99 { x.exp() } else { x };
    let (mean_a, mean_b) = (mean(a)?, mean(b)?);
    // Logarithms differ by a ratio; others are related to the baseline, recall stands for itself.
    let scale = if metric == Metric::P99 || metric.is_absolute() { 1.0 } else { mean_a.abs() };
    if scale <= 0.0 {
        return None;
    }
    let share =
        |difference: f64| if metric == Metric::P99 { difference.exp() - 1.0 } else { difference / scale };
    let change = share(mean_b - mean_a);
    let worse = if metric.is_better_high() { -change } else { change };
    let difference =
        estimate(metric, a).zip(estimate(metric, b)).map(|(a, b)| (Difference::of(&a, &b), (a.n, b.n)));
    let (margin, smallest, n, call) = match difference {
        None => (None, None, (length(a), length(b)), Call::TooShort),
        Some((difference, n)) => {
            let margin = share(difference.margin(confidence));
            let unseen = student(POWER, difference.freedom) * difference.error;
            let smallest = threshold.max(margin) + share(unseen);
            let call = match (worse > threshold, worse > margin) {
                (true, true) => Call::Regression,
                (true, false) => Call::WithinNoise,
                _ if -worse > threshold && -worse > margin => Call::Improvement,
                _ if margin > threshold => Call::WithinNoise,
                _ => Call::Unchanged,
            };
            (Some(margin), Some(smallest), n, call)
        }
    };
    Some(Judgement {
        phase: String::new(),
        operation: None,
        metric,
        baseline: back(mean_a),
        candidate: back(mean_b),
        change,
        margin,
        threshold,
        smallest_effect: smallest,
        n,
        call,
    })
}

fn values(figure: &Figure) -> Option<f64> {
    match figure {
        Figure::Known(estimate) => Some(estimate.mean),
        Figure::Series(series) if series.is_empty() => None,
        Figure::Series(series) => {
            Some(series.iter().sum::<f64>() / float(vst_common::count::len(series.len())))
        }
    }
}

/// Mean over runs.
fn mean(side: &[Figure]) -> Option<f64> {
    let means = side.iter().map(values).collect::<Option<Vec<f64>>>()?;
    (!means.is_empty()).then(|| means.iter().sum::<f64>() / float(vst_common::count::len(means.len())))
}

fn length(side: &[Figure]) -> u64 {
    side.iter()
        .map(|figure| match figure {
            Figure::Known(estimate) => estimate.n,
            Figure::Series(series) => vst_common::count::len(series.len()),
        })
        .sum()
}

/// Mean over runs with its error: between runs where there are enough, else within them.
fn estimate(metric: Metric, side: &[Figure]) -> Option<Estimate> {
    if side.len() >= LEAST_REPEATS {
        return Estimate::of_repeats(&side.iter().map(values).collect::<Option<Vec<f64>>>()?);
    }
    let least = if metric == Metric::Memory { LEAST_TICKS } else { LEAST_INTERVALS };
    let each = |figure: &Figure| match figure {
        Figure::Known(estimate) => Some(*estimate),
        Figure::Series(series) if series.len() < least => None,
        Figure::Series(series) => Estimate::of(series),
    };
    let within = side.iter().map(each).collect::<Option<Vec<Estimate>>>()?;
    let runs = float(vst_common::count::len(within.len().max(1)));
    Some(Estimate {
        mean: mean(side)?,
        error: within.iter().map(|e| e.error.powi(2)).sum::<f64>().sqrt() / runs,
        freedom: within.iter().map(|e| e.freedom).sum(),
        n: within.iter().map(|e| e.n).sum(),
    })
}

fn float(n: u64) -> f64 {
    vst_common::count::to_f64(n)
}

#[cfg(test)]
mod tests;
