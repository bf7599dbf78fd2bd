//! Whether the run did what its scenario asks for: each criterion of each phase beside the figure.
//!
//! Fed with the scenario of `run.json`, the phases and the checkpoints; read by `summary`, which takes what is missed
//! into the verdict. Law: a criterion is met only by a figure that is known; one that is a lower bound, or that is not
//! there, never meets a bound that it might break.

use serde::{Deserialize, Serialize};
use vst_common::count;
use vst_common::scenario::{PhaseSpec, Scenario, criteria};
use vst_tuning::constraint::{Constraint, Side};
use vst_tuning::figure::{Figure, Unit};

use crate::latency::OperationSummary;
use crate::memory::Checkpoint;
use crate::number;
use crate::phase::PhaseSummary;
use crate::validity::{Note, Rule};

/// The operation in which a fanned-out query is seen from each node.
const PART: &str = "knn_part";

/// One criterion of one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CriterionRow {
    /// Name of the phase.
    pub phase: String,
    /// What must hold, for example `recall >= 0.95`.
    pub criterion: Constraint,
    /// The figure in its base unit (per second, share, nanoseconds, bytes); absent where it is not known.
    pub value: Option<f64>,
    /// Whether the figure is a lower bound, because requests never ended.
    pub is_lower_bound: bool,
    /// Whether it holds.
    pub met: bool,
}

/// A figure, perhaps only bounded from below.
#[derive(Clone, Copy, Debug)]
struct Known {
    value: f64,
    is_lower_bound: bool,
}

/// All criteria of all phases of the scenario, in their order.
pub(crate) fn judge(
    scenario: &Scenario,
    phases: &[PhaseSummary],
    checkpoints: &[Checkpoint],
) -> Vec<CriterionRow> {
    let rows = |spec: &PhaseSpec| {
        let name = spec.name.clone();
        let phase = phases.iter().find(|phase| phase.name == name);
        let checkpoint = checkpoints.iter().find(|checkpoint| checkpoint.phase == name);
        let row = move |criterion: Constraint| {
            let known = figure(criterion.figure(), phase, checkpoint);
            CriterionRow {
                phase: name.clone(),
                criterion,
                value: known.map(|known| known.value),
                is_lower_bound: known.is_some_and(|known| known.is_lower_bound),
                met: known.is_some_and(|known| holds(&criterion, known)),
            }
        };
        criteria::of_phase(scenario, spec).into_iter().map(row).collect::<Vec<_>>()
    };
    scenario.all_phases().flat_map(rows).collect()
}

/// What is missed, in words.
pub(crate) fn missed(rows: &[CriterionRow]) -> Vec<Note> {
    let note = |row: &CriterionRow| Note {
        rule: Rule::Criterion,
        phase: Some(row.phase.clone()),
        text: match row.value {
            Some(_) => format!("{} is asked for, it was {}", row.criterion, row.shown()),
            None => format!("{} is asked for, and the run does not tell it", row.criterion),
        },
    };
    rows.iter().filter(|row| !row.met).map(note).collect()
}

impl CriterionRow {
    /// The figure as a person reads it.
    pub(crate) fn shown(&self) -> String {
        let Some(value) = self.value else { return String::from("-") };
        let text = match self.criterion.figure().unit() {
            Unit::Rate => number::rate(value),
            Unit::Share => number::fraction(value),
            Unit::Time => number::duration(count::from_f64(value)),
            Unit::Size => number::bytes(value),
        };
        if self.is_lower_bound { format!("> {text}") } else { text }
    }
}

fn holds(criterion: &Constraint, known: Known) -> bool {
    match criterion.side() {
        Side::AtMost => !known.is_lower_bound && known.value <= criterion.bound(),
        Side::AtLeast => known.value >= criterion.bound(),
    }
}

fn figure(figure: Figure, phase: Option<&PhaseSummary>, checkpoint: Option<&Checkpoint>) -> Option<Known> {
    let exact = |value: f64| Known { value, is_lower_bound: false };
    let operations =
        || phase.into_iter().flat_map(|phase| phase.operations.iter()).filter(|o| o.operation != PART);
    let memory = checkpoint.and_then(|checkpoint| checkpoint.figures.as_ref());
    let sum = |of: fn(&OperationSummary) -> u64| count::to_f64(operations().map(of).sum());
    match figure {
        Figure::Qps => achieved(operations()).map(exact),
        Figure::AchievedShare => {
            let offered: Option<f64> = operations().map(|o| o.offered_per_second).sum();
            let offered = offered.filter(|offered| *offered > 0.0)?;
            achieved(operations()).map(|achieved| exact(achieved / offered))
        }
        Figure::ErrorRate => {
            let ended = sum(OperationSummary::ended);
            (ended > 0.0).then(|| exact((ended - sum(|o| o.ok)) / ended))
        }
        Figure::P50 | Figure::P95 | Figure::P99 => worst(figure, operations()),
        Figure::Recall => phase?.recall.as_ref()?.recall.map(exact),
        Figure::Memory => Some(exact(count::to_f64(memory?.used_bytes))),
        Figure::BytesPerVector => memory?.net_bytes_per_vector.map(exact),
        Figure::P999 | Figure::CpuPerQuery => None,
    }
}

/// The rate of all operations together; `None` where one of them has none.
fn achieved<'a>(operations: impl Iterator<Item = &'a OperationSummary>) -> Option<f64> {
    let rates: Option<Vec<f64>> = operations.map(|o| o.achieved_per_second).collect();
    rates.filter(|rates| !rates.is_empty()).map(|rates| rates.iter().sum())
}

/// The largest quantile of any operation: of response time in an open loop, of service time in a closed one.
fn worst<'a>(figure: Figure, operations: impl Iterator<Item = &'a OperationSummary>) -> Option<Known> {
    let quantiles: Option<Vec<Known>> = operations
        .map(|operation| {
            let times = operation.response.as_ref().or(operation.service.as_ref())?;
            let quantile = match figure {
                Figure::P50 => times.p50,
                Figure::P95 => times.p95,
                _ => times.p99,
            };
            Some(Known { value: count::to_f64(quantile.ns), is_lower_bound: quantile.censored })
        })
        .collect();
    // A lower bound is as bad as can be: nobody knows how large it is.
    quantiles?.into_iter().max_by(|a, b| {
        (a.is_lower_bound, a.value)
            .partial_cmp(&(b.is_lower_bound, b.value))
            .unwrap_or(std::cmp::Ordering::Equal)
    })
}
