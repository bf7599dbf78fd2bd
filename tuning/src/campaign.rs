//! A goal at growing populations, and which step comes next: prepare data, load, measure, tune, change index parameters,
//! add shards.
//!
//! Plans the cheapest way to the goal as far as is known, asks for its first step, takes in what that step measured, and
//! plans anew. Whoever can run steps feeds it and reads the outcome; its state is the list of events. Laws: the plan is the
//! cheapest there is; what is known or predicted to fail is in no plan; facts come from events alone; the same events ask
//! for the same step.

mod account;
mod facts;
mod moves;
mod plan;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::constraint::Constraint;
use crate::measured::Measured;
use crate::tune::Setting;

pub use account::{Conclusion, Done, Fate, Outcome, Planned, Told, Why};
pub use facts::{Bound, Refusal};

/// What is wanted at one population.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Rows that live.
    pub rows: u64,
    /// Queries per second that are offered; the target has to achieve [`crate::throughput::ACHIEVED_SHARE`] of them.
    pub rate: f64,
    /// What must hold beside that.
    pub constraints: Vec<Constraint>,
    /// Memory that the fullest primary may use, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_memory: Option<f64>,
}

/// What steps cost as far as nothing is measured, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Preparing the data of one row.
    pub prepare_row_ms: f64,
    /// Loading one row; what loads took is used from the first on.
    pub load_row_ms: f64,
    /// Starting servers and fleet, and waiting until memory rests.
    pub load_ms: u64,
    /// One pass of queries.
    pub pass_ms: u64,
    /// A search for EF_RUNTIME.
    pub tune_ms: u64,
    /// What other index parameters count as, beside the load that they make necessary.
    pub change_ms: u64,
    /// What each more shard counts as, beside the load that it makes necessary; fewer count nothing.
    pub shard_ms: u64,
}

/// What is to be reached and what may be done for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CampaignSpec {
    /// The goal, at growing populations.
    pub stages: Vec<Stage>,
    /// Index parameters by path, what is begun with first.
    pub settings: Vec<Setting>,
    /// Primaries that may be had, growing; the first are begun with.
    pub shards: Vec<u16>,
    /// EF_RUNTIME as the scenario has it; absent where it has none.
    pub ef: Option<i64>,
    /// Between which values EF_RUNTIME may be tuned, both included.
    pub tune: Option<(i64, i64)>,
    /// Stages whose data are there.
    #[serde(default)]
    pub prepared: Vec<usize>,
    /// Passes of queries before anything is concluded.
    pub repeats: usize,
    /// Passes at most, where fewer do not tell.
    pub repeats_most: usize,
    /// Confidence of what is concluded of each population.
    pub confidence: f64,
    /// What steps cost.
    pub costs: Costs,
}

/// A specification that cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CampaignError {
    /// Nothing to reach.
    #[error("the goal has no stage: name at least one number of rows")]
    NoStage,
    /// Not growing.
    #[error("stage {0} of the goal does not have more rows than the one before: put them in growing order")]
    NotGrowing(usize),
    /// No way to begin.
    #[error("no index parameters and shards to begin with")]
    NoShape,
    /// Shards not growing.
    #[error("`shards` must grow, from what is begun with")]
    Shards,
    /// Too few to tell noise.
    #[error("`repeats` is {0} and must be at least 3, or noise cannot be told")]
    Repeats(usize),
    /// A confidence that none can have.
    #[error("`confidence` must be from 0.5 to below 1")]
    Confidence,
}

impl CampaignSpec {
    /// Whether it can be planned.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self) -> Result<(), CampaignError> {
        if self.stages.is_empty() {
            return Err(CampaignError::NoStage);
        }
        let grows = |pair: &[Stage]| matches!(pair, [a, b] if a.rows < b.rows);
        if let Some(i) = self.stages.windows(2).position(|pair| !grows(pair)) {
            return Err(CampaignError::NotGrowing(i + 2));
        }
        if self.settings.is_empty() || self.shards.is_empty() {
            return Err(CampaignError::NoShape);
        }
        if self.shards.contains(&0) || !self.shards.windows(2).all(|pair| matches!(pair, [a, b] if a < b)) {
            return Err(CampaignError::Shards);
        }
        if self.repeats < 3 {
            return Err(CampaignError::Repeats(self.repeats));
        }
        if !(self.confidence >= 0.5 && self.confidence < 1.0) {
            return Err(CampaignError::Confidence);
        }
        Ok(())
    }
}

/// A population in one shape: numbers of [`CampaignSpec`]'s lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Which stage.
    pub stage: usize,
    /// Which index parameters.
    pub setting: usize,
    /// Which number of shards.
    pub shards: usize,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Make what the stage's data lack: the exact neighbours of its rows.
    Prepare,
    /// Take these index parameters; what is loaded goes.
    Change,
    /// Take this number of shards; what is loaded goes.
    Shards,
    /// Load the stage's rows.
    Load,
    /// Find the least EF_RUNTIME that keeps the constraints.
    Tune,
    /// Offer the stage's load and judge the constraints.
    Measure,
}

impl Step {
    /// What must be so before.
    #[must_use]
    pub fn needs(self) -> &'static str {
        match self {
            Self::Prepare => "the smaller populations have reached their goal",
            Self::Change | Self::Shards => "other values are allowed",
            Self::Load => "data prepared; nothing measured or predicted speaks against it",
            Self::Tune => "loaded; not tuned yet",
            Self::Measure => "loaded; not known to miss the goal at this EF_RUNTIME",
        }
    }

    /// What is hoped to be so after.
    #[must_use]
    pub fn gives(self) -> &'static str {
        match self {
            Self::Prepare => "data prepared",
            Self::Change => "other index parameters, nothing loaded",
            Self::Shards => "another number of shards, nothing loaded",
            Self::Load => "loaded; memory measured, and predicted for more rows",
            Self::Tune => "an EF_RUNTIME that keeps the constraints",
            Self::Measure => "the goal of this population reached",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Change => "change",
            Self::Shards => "shards",
            Self::Load => "load",
            Self::Tune => "tune",
            Self::Measure => "measure",
        })
    }
}

/// A step to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Which.
    pub step: Step,
    /// Where; of a change, where it leads.
    pub place: Place,
    /// EF_RUNTIME of a measurement.
    pub ef: Option<i64>,
    /// Passes of a measurement.
    pub passes: usize,
}

/// Memory of a population that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Rows that live.
    pub rows: u64,
    /// Of all primaries, bytes.
    pub used: f64,
    /// Of all primaries before anything was loaded, bytes.
    pub baseline: f64,
    /// Of the fullest primary, bytes.
    pub fullest: f64,
}

/// What a population would need, from a prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Which population.
    pub stage: usize,
    /// With which index parameters.
    pub setting: usize,
    /// Net memory of all primaries, bytes.
    pub net: f64,
    /// What it will take at least, bytes.
    pub low: f64,
    /// What that is known from.
    pub how: String,
}

/// What a report found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Memory grows at the same rows.
    Leak,
    /// The rate of queries fell over a pass.
    Decay,
    /// The rate of loading fell: more rows take longer than in proportion.
    LoadDecay,
    /// A server's CPU or memory was at its limit.
    Bottleneck,
}

/// A finding with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub trouble: Trouble,
    /// The sentence of the report.
    pub text: String,
}

/// What became of the step that was asked for, or what is told besides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Besides: what populations would need. Later forecasts of the same population go over earlier ones.
    Forecasts(Vec<Forecast>),
    /// Besides: nothing is loaded any more.
    Lost,
    /// Data are prepared, or a shape is taken.
    Done {
        /// How long it took.
        took_ms: u64,
    },
    /// The population is loaded.
    Loaded {
        /// What it takes.
        memory: Memory,
        /// What the report found.
        findings: Vec<Finding>,
        /// How long it took.
        took_ms: u64,
    },
    /// A search for EF_RUNTIME ended.
    Tuned {
        /// What keeps the constraints; absent where nothing does.
        ef: Option<i64>,
        /// Constraints that cannot be kept, where there is none.
        binding: Vec<Constraint>,
        /// What it said.
        text: String,
        /// How long it took.
        took_ms: u64,
    },
    /// Passes of queries.
    Measured {
        /// Each.
        passes: Vec<Measured>,
        /// What the report found.
        findings: Vec<Finding>,
        /// How long it took.
        took_ms: u64,
    },
    /// The target did not do it: it will not be tried again at this place.
    Failed(String),
    /// The fleet's own fault: nothing is known of the target.
    Invalid(String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Do this step and tell what became of it.
    Run(Ask),
    /// Nothing: this follows.
    Done(Box<Outcome>),
}

/// A campaign under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    spec: CampaignSpec,
    log: Vec<Event>,
}

impl Campaign {
    /// Begins.
    ///
    /// # Errors
    /// When the specification cannot be planned.
    pub fn new(spec: CampaignSpec) -> Result<Self, CampaignError> {
        spec.check()?;
        Ok(Self { spec, log: Vec::new() })
    }

    /// What to do now.
    #[must_use]
    pub fn actions(&self) -> Vec<Action> {
        let told = account::follow(&self.spec, &self.log);
        match told.next {
            Some(ask) => vec![Action::Run(ask)],
            None => vec![Action::Done(Box::new(told.outcome))],
        }
    }

    /// Takes what became of the last step, or what is told besides; says what to do now.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        self.log.push(event);
        self.actions()
    }

    /// The whole way to the goal as it is seen now; empty where none is seen.
    #[must_use]
    pub fn plan(&self) -> Vec<Planned> {
        account::follow(&self.spec, &self.log).plan
    }

    /// What would follow if it ended here: for whoever asks before the end.
    #[must_use]
    pub fn so_far(&self) -> Outcome {
        account::follow(&self.spec, &self.log).outcome
    }

    /// What is to be reached.
    #[must_use]
    pub fn spec(&self) -> &CampaignSpec {
        &self.spec
    }

    /// What has happened so far.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.log
    }
}

#[cfg(test)]
#[path = "campaign/tests.rs"]
mod tests;
