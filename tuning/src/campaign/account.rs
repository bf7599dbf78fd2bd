//! The course of a campaign: each step that was done and why, and of each place whether it was gone to.
//!
//! Goes through the events from the beginning, planning before each step as the campaign did. Read by whoever shows a plan
//! or a result. Law: every place of the goal has a fate, and whatever is refused has its reason.

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Judged, Refusal};
use super::moves::{Move, way};
use super::{Ask, CampaignSpec, Event, Place, Step};
use crate::constraint::Constraint;

/// Why a step is taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The goal needs it, and nothing cheaper does.
    Cheapest,
    /// The shape that was there is not gone on with.
    Instead {
        /// Where it stood.
        of: Place,
        /// What speaks against it.
        refusal: Refusal,
    },
    /// A constraint was broken, which another EF_RUNTIME may keep.
    Missed {
        /// Which.
        constraint: Constraint,
        /// What was measured, the mean.
        value: f64,
        /// At which EF_RUNTIME.
        ef: Option<i64>,
    },
    /// What was measured does not tell yet.
    Open {
        /// What, if one constraint is open.
        constraint: Option<Constraint>,
        /// Passes so far.
        passes: usize,
    },
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Which.
    pub ask: Ask,
    /// About how long it takes, or counts as, milliseconds.
    pub cost_ms: u64,
    /// Memory of all primaries and of the fullest that is expected after it, bytes.
    pub memory: Option<(f64, f64)>,
    /// Why it is taken.
    pub why: Why,
}

/// A step that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// As it was planned.
    pub planned: Planned,
    /// What became of it.
    pub event: Event,
    /// Steps that the plan had, this one included.
    pub steps_seen: usize,
    /// What they were to cost, milliseconds.
    pub cost_seen_ms: u64,
}

/// What became of a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The goal was reached there.
    Reached {
        /// At which EF_RUNTIME.
        ef: Option<i64>,
    },
    /// It was not gone to, or not gone on with.
    Refused(Refusal),
    /// The goal was reached elsewhere at less cost.
    Unneeded,
    /// Not come to.
    Open,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// The whole goal is reached.
    Reached,
    /// No way leads to the goal of this stage.
    Impossible {
        /// Which.
        stage: usize,
    },
    /// It goes on.
    Open,
    /// It could not go on.
    Abandoned {
        /// Why.
        reason: String,
    },
}

/// What a campaign found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What follows.
    pub conclusion: Conclusion,
    /// Where each stage reached its goal, with its EF_RUNTIME.
    pub reached: Vec<(Place, Option<i64>)>,
    /// Each step in order.
    pub steps: Vec<Done>,
    /// What became of each place.
    pub places: Vec<(Place, Fate)>,
}

/// Where events lead.
#[derive(Clone, Debug)]
pub struct Told {
    /// The next step; none at the end.
    pub next: Option<Ask>,
    /// The whole way that it begins.
    pub plan: Vec<Planned>,
    /// What is known so far.
    pub outcome: Outcome,
}

/// Goes through the events.
pub(super) fn follow(spec: &CampaignSpec, log: &[Event]) -> Told {
    let mut facts = Facts::new(spec);
    let mut steps = Vec::new();
    for event in log {
        if facts.hear(event) {
            continue;
        }
        let plan = plan(&facts);
        let cost_seen_ms = plan.iter().map(|p| p.cost_ms).fold(0, u64::saturating_add);
        let steps_seen = plan.len();
        // Events beyond the end tell nothing that was asked for.
        let Some(planned) = plan.into_iter().next() else { break };
        facts.learn(&planned.ask, event);
        steps.push(Done { planned, event: event.clone(), steps_seen, cost_seen_ms });
    }
    let plan = plan(&facts);
    let conclusion = match &facts.given_up {
        Some(reason) => Conclusion::Abandoned { reason: reason.clone() },
        None if facts.reached.len() >= spec.stages.len() => Conclusion::Reached,
        None if plan.is_empty() => Conclusion::Impossible { stage: facts.reached.len() },
        None => Conclusion::Open,
    };
    let places = places(&facts);
    let outcome = Outcome { conclusion, reached: facts.reached, steps, places };
    Told { next: plan.first().map(|p| p.ask), plan, outcome }
}

/// The cheapest way as steps with their reasons; empty at the end.
fn plan(facts: &Facts<'_>) -> Vec<Planned> {
    if facts.given_up.is_some() {
        return Vec::new();
    }
    let moves = way(facts).map(|way| way.moves).unwrap_or_default();
    let planned = |(made, cost_ms): (Move, u64)| {
        let expected = facts.expected(made.ask.place).map(|e| (e.total.0, e.fullest.0));
        let memory = expected.filter(|_| made.ask.step == Step::Load);
        Planned { ask: made.ask, cost_ms, memory, why: why(facts, &made) }
    };
    moves.into_iter().map(planned).collect()
}

fn why(facts: &Facts<'_>, made: &Move) -> Why {
    let Ask { step, place, ef, .. } = made.ask;
    match step {
        Step::Change | Step::Shards => match facts.refusal(made.from.place()) {
            Some(refusal) => Why::Instead { of: made.from.place(), refusal },
            None => Why::Cheapest,
        },
        Step::Tune => {
            let ef = facts.ef_for(place);
            match facts.judged(place, ef) {
                Judged::Breaks(constraint, value) => Why::Missed { constraint, value, ef },
                Judged::Open(constraint) => Why::Open { constraint, passes: facts.passes(place, ef) },
                Judged::Holds => Why::Cheapest,
            }
        }
        Step::Measure => match (facts.judged(place, ef), facts.passes(place, ef)) {
            (Judged::Open(constraint), passes @ 1..) => Why::Open { constraint, passes },
            _ => Why::Cheapest,
        },
        Step::Prepare | Step::Load => Why::Cheapest,
    }
}

fn places(facts: &Facts<'_>) -> Vec<(Place, Fate)> {
    let spec = facts.spec;
    let stages = 0..spec.stages.len();
    let shapes = move |stage| {
        (0..spec.settings.len()).flat_map(move |setting| {
            (0..spec.shards.len()).map(move |shards| Place { stage, setting, shards })
        })
    };
    let fate = |place: Place| {
        let reached = facts.reached.get(place.stage);
        match (reached, facts.refusal(place)) {
            (Some((at, ef)), _) if *at == place => Fate::Reached { ef: *ef },
            (_, Some(refusal)) => Fate::Refused(refusal),
            (Some(_), None) => Fate::Unneeded,
            (None, None) => Fate::Open,
        }
    };
    stages.flat_map(shapes).map(|place| (place, fate(place))).collect()
}
