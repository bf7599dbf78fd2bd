//! The setting at which a figure is best while all constraints hold.
//!
//! Asks for one measurement of one setting after another; whoever runs phases against the target feeds it. Where a
//! parameter moves every figure one way, the edge of what is allowed is found by halving; elsewhere candidates race, the
//! better half measured twice as often; several parameters are searched one after another until none moves. Laws: the
//! answers alone decide what is asked; a winner keeps every constraint beyond the noise and beats every other measured
//! setting beyond the noise, or it is called a tie; infeasible is said only where every measured setting breaks a
//! constraint; it ends within its budget.

mod parameter;
mod walk;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::constraint::Constraint;
use crate::figure::Figure;
use crate::measured::Event;
use crate::replay::{Pause, Replay, Source};
use crate::search::{self, Search, Spec};
use crate::statistics::Interval;

pub use parameter::{Parameter, ParameterError, Range, Setting, Shape, Value};

/// What is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The largest.
    Maximise(Figure),
    /// The smallest.
    Minimise(Figure),
}

impl Objective {
    /// Of which figure.
    #[must_use]
    pub fn figure(self) -> Figure {
        match self {
            Self::Maximise(figure) | Self::Minimise(figure) => figure,
        }
    }

    /// 1 where more is better, -1 where less is.
    pub(crate) fn sign(self) -> f64 {
        match self {
            Self::Maximise(_) => 1.0,
            Self::Minimise(_) => -1.0,
        }
    }
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneSpec {
    /// What is best.
    pub objective: Objective,
    /// What must hold.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// What may be changed, the one that matters most first.
    pub parameters: Vec<Parameter>,
    /// Confidence of all that is concluded.
    #[serde(default = "default_confidence")]
    pub confidence: f64,
    /// Measurements of one setting at most.
    #[serde(default = "default_repeats")]
    pub repeats: usize,
    /// Measurements at most.
    #[serde(default = "default_budget")]
    pub budget: usize,
    /// How often all parameters are gone through at most.
    #[serde(default = "default_cycles")]
    pub cycles: usize,
}

fn default_confidence() -> f64 {
    0.95
}
fn default_repeats() -> usize {
    8
}
fn default_budget() -> usize {
    120
}
fn default_cycles() -> usize {
    3
}

/// A specification that cannot be searched.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TuneError {
    /// Nothing to change.
    #[error("a search for the best setting needs at least one parameter with a range")]
    NoParameter,
    /// A parameter that cannot be searched.
    #[error("parameter `{path}`: {source}")]
    Parameter {
        /// Which.
        path: String,
        /// Why.
        source: ParameterError,
    },
    /// Two of one name.
    #[error("parameter `{0}` stands there twice")]
    Twice(String),
    /// Too few to tell noise.
    #[error("`repeats` is {0} and must be at least 3, or noise cannot be told")]
    Repeats(usize),
    /// A confidence that none can have.
    #[error("`confidence` is {0} and must be from 0.5 to below 1")]
    Confidence(f64),
}

impl TuneSpec {
    /// A search with everything else as usual.
    #[must_use]
    pub fn new(objective: Objective, constraints: Vec<Constraint>, parameters: Vec<Parameter>) -> Self {
        Self {
            objective,
            constraints,
            parameters,
            confidence: default_confidence(),
            repeats: default_repeats(),
            budget: default_budget(),
            cycles: default_cycles(),
        }
    }

    fn check(&self) -> Result<(), TuneError> {
        if self.parameters.is_empty() {
            return Err(TuneError::NoParameter);
        }
        for (i, parameter) in self.parameters.iter().enumerate() {
            let named = |source| TuneError::Parameter { path: parameter.path.clone(), source };
            parameter.check().map_err(named)?;
            if self.parameters.iter().take(i).any(|other| other.path == parameter.path) {
                return Err(TuneError::Twice(parameter.path.clone()));
            }
        }
        if self.repeats < 3 {
            return Err(TuneError::Repeats(self.repeats));
        }
        if !(self.confidence >= 0.5 && self.confidence < 1.0) {
            return Err(TuneError::Confidence(self.confidence));
        }
        Ok(())
    }
}

/// What to do next, in this order.
pub type Action = search::Action<Ask, Outcome>;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// What to set.
    pub setting: Setting,
    /// Which measurement of it, from 1.
    pub repeat: usize,
    /// Figures that it has to tell. Where the objective is not among them a cheap measurement will do.
    pub figures: Vec<Figure>,
}

/// One setting with what was measured of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// What was set.
    pub setting: Setting,
    /// Measurements.
    pub repeats: usize,
    /// Whether all constraints hold; absent where the noise does not tell.
    pub holds: Option<bool>,
    /// Means in base units (geometric for rates, times, sizes).
    pub figures: BTreeMap<Figure, f64>,
    /// Intervals by the error that the measurements declare: of recall, what the sample of queries leaves open.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<Figure, Interval>,
}

/// What else was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The figure goes up and down along the parameter: it was not halved but raced.
    NonMonotone {
        /// Of the parameter.
        path: String,
        /// Which.
        figure: Figure,
    },
    /// The best keep a constraint on the queries that were asked; these are so few that others might break it.
    FewQueries {
        /// Which.
        constraint: Constraint,
        /// At which settings.
        settings: Vec<Setting>,
    },
    /// Settings that may keep the constraints, which the noise does not tell.
    Unsure {
        /// Which.
        settings: Vec<Setting>,
    },
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What follows.
    pub conclusion: Conclusion,
    /// What else was seen.
    pub findings: Vec<Finding>,
    /// Every setting that was measured.
    pub candidates: Vec<Candidate>,
    /// Whether the budget was spent before the search had ended.
    pub is_cut_short: bool,
    /// Measurements that were used.
    pub measurements: usize,
    /// Requests that they took.
    pub requests: u64,
}

/// What follows about the best setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// This one, beyond the noise, of those that were measured.
    Winner {
        /// What to set.
        setting: Setting,
        /// The objective there, in base units.
        value: Interval,
        /// Its confidence.
        confidence: f64,
    },
    /// These are best, and the noise does not tell which: the first has the best mean.
    Tie {
        /// What to set.
        settings: Vec<Setting>,
        /// The objective of the first, in base units.
        value: Interval,
        /// Its confidence.
        confidence: f64,
    },
    /// No setting that was measured keeps all constraints.
    Infeasible {
        /// What cannot hold, or cannot hold together.
        binding: Vec<Constraint>,
        /// The setting that comes closest.
        closest: Candidate,
    },
    /// Of no setting that was measured is it told that it keeps all constraints, and of some not that it breaks any.
    Unsure {
        /// What the noise, or a budget that was spent, left open at the setting that comes closest; none where all hold
        /// there and only the objective was not measured.
        undecided: Vec<Constraint>,
        /// The setting that comes closest.
        closest: Candidate,
    },
    /// The search could not go on.
    Abandoned {
        /// Why.
        reason: String,
    },
}

/// A search for the best setting.
pub type Tune = Search<TuneSpec>;

impl Spec for TuneSpec {
    type Ask = Ask;
    type Outcome = Outcome;
    type Error = TuneError;

    fn check(&self) -> Result<(), TuneError> {
        Self::check(self)
    }

    fn follow(&self, answers: &[Event]) -> Result<Outcome, Ask> {
        walk::run(self, &mut Replay::new(answers))
    }
}

/// Searches with whoever answers; `Err` is the next question.
pub(crate) fn run(spec: &TuneSpec, source: &mut impl Source<Ask>) -> Result<Outcome, Ask> {
    walk::run(spec, source)
}

/// What every walk may stop at.
pub(crate) type Stop = Pause<Ask>;

#[cfg(test)]
#[path = "tune/tests.rs"]
mod tests;
