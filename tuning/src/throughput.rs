//! The setting that carries the most requests per second while all constraints hold: a search over settings whose
//! objective is a search over rates.
//!
//! What a setting costs at rest of the queue (recall, latency at the floor) is told at the lowest rate. Only where the
//! throughput of a setting matters is its limit looked for, from a closed-loop probe of its capacity. Fed by whoever
//! runs phases; read by `vst run tune` and `vst run sweep`. Laws: those of [`crate::tune`] and [`crate::limit`]; each
//! question is one measurement.

mod course;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::constraint::{Constraint, ConstraintError, Side};
use crate::figure::Figure;
use crate::limit;
use crate::measured::Event;
use crate::replay::Replay;
use crate::search::{self, Search, Spec};
use crate::tune::{self, Objective, Parameter, Setting, TuneError, TuneSpec};

pub(crate) use course::Course;
pub use course::{Carried, Curve, CurveRate};

/// Least share of the offered rate that must be achieved at a limit.
pub const ACHIEVED_SHARE: f64 = 0.95;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThroughputSpec {
    /// What must hold. Unless it is bounded here, [`ACHIEVED_SHARE`] of what is offered must be achieved besides: a
    /// rate that the target does not follow is not its throughput.
    pub constraints: Vec<Constraint>,
    /// What may be changed; nothing where only the limit of one setting is looked for.
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// How much is spent on it.
    #[serde(default)]
    pub effort: Effort,
}

/// How much is spent on a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Effort {
    /// The lowest and the highest rate, per second; from probes where absent.
    pub rates: Option<(f64, f64)>,
    /// How narrow the interval of a limit shall become, as a share of the rate.
    pub width: f64,
    /// Measurements about a limit at most.
    pub repeats: usize,
    /// Measurements of one setting at most.
    pub setting_repeats: usize,
    /// Settings that are measured at most, each repeat counted.
    pub budget: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { rates: None, width: 0.05, repeats: 16, setting_repeats: 4, budget: 60 }
    }
}

/// A specification that cannot be searched.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ThroughputError {
    /// The search over settings.
    #[error(transparent)]
    Tune(#[from] TuneError),
    /// The search over rates.
    #[error(transparent)]
    Limit(#[from] limit::LimitError),
    /// A bound.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// A bound on what is to be large.
    #[error("the rate is what is looked for: leave out the constraint `{0}`")]
    Rate(Constraint),
}

/// How a measurement drives the target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offered {
    /// Closed loop: as much as the target takes.
    FlatOut,
    /// Open loop at this rate, per second.
    Rate(f64),
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// What to set.
    pub setting: Setting,
    /// How to drive the target.
    pub offered: Offered,
    /// Figures that it has to tell.
    pub figures: Vec<Figure>,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What follows about the settings; absent where nothing may be changed.
    pub settings: Option<tune::Outcome>,
    /// Every search for the limit of a setting, in order; a setting's throughput may have been asked for repeatedly.
    pub limits: Vec<Carried>,
    /// Everything that was measured, by setting and rate.
    pub curves: Vec<Curve>,
    /// Measurements.
    pub measurements: usize,
    /// Requests that they took.
    pub requests: u64,
}

/// What to do next, in this order.
pub type Action = search::Action<Ask, Outcome>;

/// A search for the best throughput.
pub type Throughput = Search<ThroughputSpec>;

impl ThroughputSpec {
    /// All that must hold at a rate.
    pub(crate) fn with_achieved(constraints: &[Constraint]) -> Result<Vec<Constraint>, ThroughputError> {
        let mut all = constraints.to_vec();
        if let Some(rate) = all.iter().find(|c| c.figure() == Figure::Qps) {
            return Err(ThroughputError::Rate(*rate));
        }
        if all.iter().all(|c| c.figure() != Figure::AchievedShare) {
            all.push(Constraint::new(Figure::AchievedShare, Side::AtLeast, ACHIEVED_SHARE)?);
        }
        Ok(all)
    }

    fn tune(&self) -> TuneSpec {
        let objective = Objective::Maximise(Figure::Qps);
        let mut spec = TuneSpec::new(objective, self.constraints.clone(), self.parameters.clone());
        spec.repeats = self.effort.setting_repeats;
        spec.budget = self.effort.budget;
        spec
    }

    /// Both ends of all parameters: where the slowest setting is looked for.
    fn ends(&self) -> Vec<Setting> {
        let end = |last: bool| {
            let named = self.parameters.iter().map(|p| (p.path.clone(), p.end(last)));
            Setting(named.collect::<BTreeMap<_, _>>())
        };
        let (first, last) = (end(false), end(true));
        if first == last { vec![first] } else { vec![first, last] }
    }
}

impl Spec for ThroughputSpec {
    type Ask = Ask;
    type Outcome = Outcome;
    type Error = ThroughputError;

    fn check(&self) -> Result<(), ThroughputError> {
        Self::with_achieved(&self.constraints)?;
        self.effort.check()?;
        if !self.parameters.is_empty() {
            Spec::check(&self.tune())?;
        }
        Ok(())
    }

    fn follow(&self, answers: &[Event]) -> Result<Outcome, Ask> {
        let constraints = Self::with_achieved(&self.constraints).unwrap_or_default();
        let mut replay = Replay::new(answers);
        let mut course = Course::new(&mut replay, constraints, &self.effort);
        let settings = if self.parameters.is_empty() {
            course.only(&Setting::default()).map(|()| None)
        } else {
            course.floor_of(&self.ends()).and_then(|()| {
                let outcome = tune::run(&self.tune(), &mut course);
                outcome.map(Some).map_err(|_| course.taken_need())
            })
        };
        course.outcome(settings)
    }
}

impl Effort {
    pub(crate) fn check(&self) -> Result<(), limit::LimitError> {
        let (floor, ceiling) = self.rates.unwrap_or((1.0, 2.0));
        let any = Constraint::new(Figure::AchievedShare, Side::AtLeast, ACHIEVED_SHARE);
        let mut spec = limit::LimitSpec::new(any.into_iter().collect(), floor, ceiling);
        spec.width = self.width;
        spec.repeats = self.repeats;
        Spec::check(&spec)
    }
}

#[cfg(test)]
#[path = "throughput/tests.rs"]
mod tests;
