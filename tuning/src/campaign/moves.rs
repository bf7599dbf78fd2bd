//! What may be done next, what it is hoped to give, and what it costs: the space in which a campaign is planned.
//!
//! Hopeful where nothing is known: a step is taken to do what it is for, until an event says otherwise. Populations are
//! gone through in growing order, because what is measured at few rows predicts what many would need; of ways that cost the
//! same the one that changes the shape later is taken, because more is known then. Laws: no move goes to a place that is
//! refused; a move's cost does not depend on how its state was reached.

use super::facts::{Facts, rows};
use super::plan::{Cost, Space, Way, cheapest};
use super::{Ask, Place, Step};

/// What a plan keeps track of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    /// Stages that have reached their goal.
    reached: usize,
    setting: usize,
    shards: usize,
    loaded: Option<usize>,
    is_prepared: bool,
    /// EF_RUNTIME is found in the plan itself, so that nothing is known of it yet.
    is_tuned: bool,
}

/// A step with the state in which it is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) ask: Ask,
    pub(super) from: State,
}

impl State {
    /// What is there now.
    pub(super) fn now(facts: &Facts<'_>) -> Self {
        let reached = facts.reached.len();
        let is_prepared = facts.prepared.contains(&reached);
        let (setting, shards, loaded) = (facts.setting, facts.shards, facts.loaded);
        Self { reached, setting, shards, loaded, is_prepared, is_tuned: false }
    }

    /// The next stage in the present shape.
    pub(super) fn place(&self) -> Place {
        Place { stage: self.reached, setting: self.setting, shards: self.shards }
    }
}

/// The cheapest way to the goal, or where none is seen to the goals of as many stages as there is a way to; `None` where
/// not even the next can be reached.
pub(super) fn way(facts: &Facts<'_>) -> Option<Way<Move>> {
    let now = State::now(facts);
    let stages = facts.spec.stages.len();
    (now.reached + 1..=stages).rev().find_map(|stages| cheapest(&Ahead { facts, stages }, &now))
}

/// The moves towards the goals of so many stages.
struct Ahead<'f> {
    facts: &'f Facts<'f>,
    stages: usize,
}

impl Space for Ahead<'_> {
    type State = State;
    type Move = Move;

    fn is_end(&self, state: &State) -> bool {
        state.reached >= self.stages
    }

    fn moves(&self, state: &State) -> Vec<(Move, Cost, State)> {
        let facts = self.facts;
        let (left, mut moves) = (u64::try_from(self.stages - state.reached).unwrap_or(0), Vec::new());
        for (made, price, to) in facts.moves(state) {
            let weight = if matches!(made.ask.step, Step::Change | Step::Shards) { 1 + left } else { 1 };
            moves.push((made, Cost { price, weight }, to));
        }
        moves
    }
}

impl Facts<'_> {
    fn moves(&self, state: &State) -> Vec<(Move, u64, State)> {
        let place = state.place();
        let mut moves = Vec::new();
        let mut add = |step: Step, place: Place, cost: u64, to: State| {
            let ef = (step == Step::Measure && !state.is_tuned).then(|| self.ef_for(place)).flatten();
            let passes = if step == Step::Measure { self.passes_wanted(place, state.is_tuned) } else { 0 };
            moves.push((Move { ask: Ask { step, place, ef, passes }, from: *state }, cost, to));
        };
        let costs = &self.spec.costs;
        let is_open = self.refusal(place).is_none();
        let is_here = state.loaded == Some(state.reached);
        let live = self.spec.stages.get(state.reached).map_or(0.0, |stage| rows(stage.rows));
        if is_here && is_open {
            let spent = !state.is_tuned && self.is_spent(place, self.ef_for(place));
            if !spent {
                let passes = self.passes_wanted(place, state.is_tuned);
                let cost = costs.pass_ms.saturating_mul(u64::try_from(passes).unwrap_or(u64::MAX));
                let reached = state.reached + 1;
                let is_prepared = self.prepared.contains(&reached);
                add(Step::Measure, place, cost, State { reached, is_prepared, is_tuned: false, ..*state });
            }
            if self.spec.tune.is_some() && !state.is_tuned && !self.tuned.contains_key(&place) {
                add(Step::Tune, place, costs.tune_ms, State { is_tuned: true, ..*state });
            }
        }
        if !state.is_prepared {
            let cost = whole(live * costs.prepare_row_ms);
            add(Step::Prepare, place, cost, State { is_prepared: true, ..*state });
        }
        if state.is_prepared && !is_here && is_open {
            let row_ms = self.load_row_ms.unwrap_or(costs.load_row_ms);
            // What is likely to be done in vain counts twice.
            let times = if self.is_risky(place) { 2 } else { 1 };
            let cost = costs.load_ms.saturating_add(whole(live * row_ms)).saturating_mul(times);
            add(Step::Load, place, cost, State { loaded: Some(state.reached), is_tuned: false, ..*state });
        }
        // A change after a load, or after another change of the same kind, is never cheaper than before it.
        for setting in (0..self.spec.settings.len()).filter(|s| *s != state.setting) {
            let to = State { setting, loaded: None, is_tuned: false, ..*state };
            add(Step::Change, to.place(), costs.change_ms, to);
        }
        // Fewer are free: nothing has to be had for them.
        for shards in (0..self.spec.shards.len()).filter(|s| *s != state.shards) {
            let of = |i: usize| self.spec.shards.get(i).copied().unwrap_or(0);
            let more = u64::from(of(shards).saturating_sub(of(state.shards)));
            let to = State { shards, loaded: None, is_tuned: false, ..*state };
            add(Step::Shards, to.place(), costs.shard_ms.saturating_mul(more), to);
        }
        moves
    }

    /// Passes of the next measurement: enough to conclude, then as many again as far as is allowed.
    fn passes_wanted(&self, place: Place, is_new: bool) -> usize {
        let made = if is_new { 0 } else { self.passes(place, self.ef_for(place)) };
        let left = self.spec.repeats_most.saturating_sub(made);
        self.spec.repeats.min(left).max(1)
    }
}

/// The nearest whole number of milliseconds; saturates.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturating by definition of `as`"
)]
fn whole(ms: f64) -> u64 {
    ms.round() as u64
}
