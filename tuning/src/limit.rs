//! The highest offered rate at which all constraints hold: climb, bisect, then repeat about the limit.
//!
//! Asks for one open-loop measurement after another and draws its conclusion from them; whoever runs phases against the
//! target feeds it. Laws: of targets whose figures change one way with the rate, the true limit is in the stated
//! interval with the stated confidence; the answers alone decide what is asked; it ends within its budget.

mod crossing;
mod walk;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::constraint::Constraint;
use crate::figure::Figure;
use crate::measured::Event;
use crate::replay::{Pause, Replay, Source};
use crate::search::{self, Search, Spec};
use crate::statistics::Interval;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// What must hold at a rate.
    pub constraints: Vec<Constraint>,
    /// The first rate, per second.
    pub start: f64,
    /// No rate below this is tried, per second.
    pub floor: f64,
    /// No rate above this is tried, per second.
    pub ceiling: f64,
    /// By what the rate is multiplied while it climbs.
    #[serde(default = "default_climb")]
    pub climb: f64,
    /// How narrow the interval shall become, as a share of the rate.
    #[serde(default = "default_width")]
    pub width: f64,
    /// Confidence that the limit is in the interval.
    #[serde(default = "default_confidence")]
    pub confidence: f64,
    /// Measurements about the limit at most: what they do not tell is noise.
    #[serde(default = "default_repeats")]
    pub repeats: usize,
    /// Measurements at most.
    #[serde(default = "default_budget")]
    pub budget: usize,
    /// Whether one rate above the first that failed is tried, to see whether the target passes again there.
    #[serde(default = "default_beyond")]
    pub look_beyond: bool,
}

fn default_climb() -> f64 {
    2.0
}
fn default_width() -> f64 {
    0.02
}
fn default_confidence() -> f64 {
    0.95
}
fn default_repeats() -> usize {
    24
}
fn default_budget() -> usize {
    80
}
fn default_beyond() -> bool {
    true
}

/// A specification that cannot be searched.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LimitError {
    /// Without a constraint there is no limit.
    #[error("a search for the limit needs at least one constraint, for example `p99 <= 10ms`")]
    NoConstraint,
    /// Rates out of order.
    #[error("rates must be 0 < floor <= start <= ceiling, not {floor} <= {start} <= {ceiling}")]
    Rates {
        /// Per second.
        floor: f64,
        /// Per second.
        start: f64,
        /// Per second.
        ceiling: f64,
    },
    /// A number that makes no search.
    #[error("`{key}` is {value} and must be {wanted}")]
    Value {
        /// Which.
        key: &'static str,
        /// What it is.
        value: f64,
        /// What would do.
        wanted: &'static str,
    },
}

impl LimitSpec {
    /// A search of the given constraints between two rates, everything else as usual.
    #[must_use]
    pub fn new(constraints: Vec<Constraint>, floor: f64, ceiling: f64) -> Self {
        Self {
            constraints,
            start: floor,
            floor,
            ceiling,
            climb: default_climb(),
            width: default_width(),
            confidence: default_confidence(),
            repeats: default_repeats(),
            budget: default_budget(),
            look_beyond: default_beyond(),
        }
    }

    fn check(&self) -> Result<(), LimitError> {
        let Self { floor, start, ceiling, .. } = *self;
        if self.constraints.is_empty() {
            return Err(LimitError::NoConstraint);
        }
        if !(floor > 0.0 && floor <= start && start <= ceiling && ceiling.is_finite()) {
            return Err(LimitError::Rates { floor, start, ceiling });
        }
        let fault = |key, value, wanted| Err(LimitError::Value { key, value, wanted });
        if !(self.climb > 1.0 && self.climb <= 10.0) {
            return fault("climb", self.climb, "above 1 and at most 10");
        }
        if !(self.width >= 0.001 && self.width < 1.0) {
            return fault("width", self.width, "from 0.001 to 1");
        }
        if !(self.confidence >= 0.5 && self.confidence < 1.0) {
            return fault("confidence", self.confidence, "from 0.5 to below 1");
        }
        if self.repeats < crossing::LEAST {
            return fault(
                "repeats",
                crate::number::float(self.repeats),
                "at least 6, or noise cannot be told",
            );
        }
        Ok(())
    }
}

/// What to do next, in this order.
pub type Action = search::Action<Ask, Outcome>;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Offered rate, per second.
    pub rate: f64,
    /// Which measurement at this rate, from 1.
    pub repeat: usize,
    /// Figures that it has to tell.
    pub figures: Vec<Figure>,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The interval is as narrow as was wanted.
    Narrow,
    /// As many repeats as are allowed do not make it narrower.
    Noise,
    /// The budget is spent.
    Budget,
}

/// What else was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// A rate fails and a higher one passes: there is no one limit.
    NonMonotone {
        /// Per second.
        fails_at: f64,
        /// Per second.
        passes_at: f64,
    },
    /// The same rate gave another result later than before; what came before was discarded.
    Drift {
        /// Per second.
        rate: f64,
        /// Of what.
        figure: Figure,
        /// In the figure's base unit.
        before: f64,
        /// In the figure's base unit.
        after: f64,
    },
}

/// One rate that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatePoint {
    /// Offered, per second.
    pub rate: f64,
    /// Measurements.
    pub repeats: usize,
    /// Means of the figures, in their base units.
    pub figures: BTreeMap<Figure, f64>,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What follows.
    pub conclusion: Conclusion,
    /// What else was seen.
    pub findings: Vec<Finding>,
    /// Every rate since the last drift, in order.
    pub points: Vec<RatePoint>,
    /// Measurements that were used.
    pub measurements: usize,
    /// Requests that they took.
    pub requests: u64,
}

/// What follows about the limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// It is in this interval.
    Limit {
        /// Per second.
        rate: Interval,
        /// That the interval holds it.
        confidence: f64,
        /// What breaks first.
        binding: Constraint,
        /// Why the interval is not narrower.
        ended: Ended,
        /// What does not depend on the rate and cannot be told from its bound.
        unsure: Vec<Constraint>,
    },
    /// Everything holds at the highest rate that was allowed.
    AboveCeiling {
        /// Per second.
        ceiling: f64,
    },
    /// No rate that was tried keeps all constraints.
    Infeasible {
        /// What is broken at the lowest rate.
        binding: Constraint,
        /// That rate, per second.
        rate: f64,
        /// The figure there, in its base unit.
        value: f64,
    },
    /// The budget was spent before a rate that holds and one that does not were known.
    Unknown {
        /// The highest rate that holds, per second.
        holds_at: Option<f64>,
        /// The lowest rate that fails, per second.
        fails_at: Option<f64>,
    },
    /// The search could not go on.
    Abandoned {
        /// Why.
        reason: String,
    },
}

/// A search for the limit.
pub type Limit = Search<LimitSpec>;

impl Spec for LimitSpec {
    type Ask = Ask;
    type Outcome = Outcome;
    type Error = LimitError;

    fn check(&self) -> Result<(), LimitError> {
        Self::check(self)
    }

    fn follow(&self, answers: &[Event]) -> Result<Outcome, Ask> {
        walk::run(self, &mut Replay::new(answers))
    }
}

/// Searches with whoever answers; `Err` is the next question.
pub(crate) fn run(spec: &LimitSpec, source: &mut impl Source<Ask>) -> Result<Outcome, Ask> {
    walk::run(spec, source)
}

/// What every walk may stop at.
pub(crate) type Stop = Pause<Ask>;

#[cfg(test)]
#[path = "limit/tests.rs"]
mod tests;
