//! What another coordinator's log says of a run, and where to go on.
//!
//! A fold over the controls of a replayed log, made by a coordinator that takes the lead; the run goes on from it. Law:
//! what a log says is done is never done again, and what it does not say is asked of the workers or done again: phases
//! without load begin anew, ranges without a record are free once everybody who may hold one has said what it holds.

use std::collections::{BTreeMap, BTreeSet};

use vst_common::clock::{MonoNs, WallNs};
use vst_common::entry::{Control, LaneOwner, PhaseOutcome, PhaseStarted, RunState};
use vst_common::exit::Exit;
use vst_common::ids::{Generation, PhaseIndex, WorkerId};
use vst_common::ranges::RowRange;

use super::book::Book;
use super::closing::Closing;
use super::gathering::Gathering;
use super::loading::Loading;
use super::state::State;
use super::{Statement, Verdict};
use crate::plan::PlannedStep;
use crate::roster::{Arrival, Presence};

/// A registration that the log knows.
#[derive(Clone, Debug)]
struct Registered {
    worker: WorkerId,
    host: String,
    lanes: u32,
    instance: u64,
    presence: Presence,
    left: WallNs,
}

/// A phase that began and has not ended.
#[derive(Clone, Debug)]
pub(crate) struct OpenPhase {
    pub(crate) started: PhaseStarted,
    /// Everybody who took part, as first dealt.
    pub(crate) dealt: Vec<LaneOwner>,
    /// Who went, and how long after the start instant, nanoseconds.
    pub(crate) departed: BTreeMap<Generation, u64>,
    /// Moves of shares, in the order of the log.
    pub(crate) moved: Vec<Moved>,
    pub(crate) done: Vec<RowRange>,
    pub(crate) statements: BTreeMap<Generation, Statement>,
}

/// Shares that went into other hands.
#[derive(Clone, Debug)]
pub(crate) struct Moved {
    /// From this long after the start instant on, nanoseconds.
    pub(crate) from_ns: u64,
    /// (worker, lanes)
    pub(crate) heirs: Vec<(Generation, u32)>,
    /// Who was gone by then.
    pub(crate) gone: BTreeSet<Generation>,
}

/// What the controls of a log say.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// What the run was opened with; `None` where the log holds no run yet.
    facts: Option<serde_json::Value>,
    members: BTreeMap<Generation, Registered>,
    ended: Option<PhaseIndex>,
    open: Option<OpenPhase>,
    /// Phases that began beside it and have not ended.
    beside: Vec<OpenPhase>,
    /// Those beside it that have.
    beside_ended: BTreeSet<PhaseIndex>,
    /// The server's counters before the phase that is open.
    counters: Option<(PhaseIndex, serde_json::Value)>,
    /// Rows that the phases which weighed the target left to those behind them, in the order of the log.
    decided: Vec<(PhaseIndex, u64)>,
    /// The same of a phase that has not ended.
    deciding: Option<(PhaseIndex, u64)>,
    stopping: Option<Verdict>,
    unowned: Vec<String>,
    closed: Option<(RunState, u8)>,
    touched: bool,
}

impl Past {
    /// Folds the controls, in the order of the log.
    #[must_use]
    pub fn of<'a>(controls: impl IntoIterator<Item = &'a Control>) -> Self {
        let mut past = Self::default();
        controls.into_iter().for_each(|control| past.take(control));
        past
    }

    /// What the run was opened with; `None` where the log holds no run yet.
    #[must_use]
    pub fn facts(&self) -> Option<&serde_json::Value> {
        self.facts.as_ref()
    }

    /// How the run was closed, and its exit code.
    #[must_use]
    pub fn closed(&self) -> Option<&(RunState, u8)> {
        self.closed.as_ref()
    }

    /// The server's counters before the load that is open.
    #[must_use]
    pub fn counters(&self) -> Option<&serde_json::Value> {
        let open = self.open.as_ref()?.started.index;
        self.counters.as_ref().filter(|(phase, _)| *phase == open).map(|(_, counters)| counters)
    }

    /// What was decided as the target was weighed: the phase that did, and the rows that the one behind it leaves.
    #[must_use]
    pub fn decided(&self) -> &[(PhaseIndex, u64)] {
        &self.decided
    }

    /// Whether anything but the mark of ownership may be on the target.
    #[must_use]
    pub fn touched(&self) -> bool {
        self.touched
    }

    fn take(&mut self, control: &Control) {
        match control {
            Control::Led { .. } | Control::PopulationChanged { .. } => {}
            Control::RunOpened { facts, .. } => self.facts = Some(facts.clone()),
            Control::WorkerJoined { worker, generation, host, lanes, instance, .. } => {
                let (worker, host) = (worker.clone(), host.clone());
                let (lanes, instance, presence) = (*lanes, *instance, Presence::Here);
                let member = Registered { worker, host, lanes, instance, presence, left: 0 };
                self.members.insert(*generation, member);
            }
            Control::WorkerLeft { generation, lost, at_wall_ns, .. } => {
                if let Some(member) = self.members.get_mut(generation) {
                    member.presence = if *lost { Presence::Lost } else { Presence::Left };
                    member.left = *at_wall_ns;
                }
            }
            Control::PhaseStarted(started) => {
                self.touched |= started.index.0 > 0;
                let open = OpenPhase {
                    started: started.clone(),
                    dealt: Vec::new(),
                    departed: BTreeMap::new(),
                    moved: Vec::new(),
                    done: Vec::new(),
                    statements: BTreeMap::new(),
                };
                // What runs beside a phase is named before the phase is, or while that runs.
                let group = started.beside.unwrap_or(started.index);
                self.beside.retain(|other| {
                    other.started.beside == Some(group) && other.started.index != started.index
                });
                match started.beside {
                    Some(main) => {
                        // A load that is named again is so with its phase, whose instant came too early.
                        if started.order.is_some()
                            && let Some(open) = self.open.as_mut().filter(|open| open.started.index == main)
                        {
                            open.dealt.clear();
                        }
                        self.beside.push(open);
                    }
                    None => (self.open, self.beside_ended) = (Some(open), BTreeSet::new()),
                }
            }
            Control::CommandsCounted { phase, counters } => {
                self.counters = Some((*phase, counters.clone()));
            }
            Control::SharesOwned { phase, from_ns, lanes, .. } => {
                let Some(open) = self.open_phase(*phase) else { return };
                if open.dealt.is_empty() {
                    open.dealt.clone_from(lanes);
                }
                for owner in &open.dealt {
                    if !lanes.iter().any(|o| o.generation == owner.generation) {
                        open.departed.entry(owner.generation).or_insert(*from_ns);
                    }
                }
            }
            Control::SharesMoved { phase, from_ns, lanes } => {
                if let Some(open) = self.open_phase(*phase) {
                    let heirs = lanes.iter().map(|owner| (owner.generation, owner.lanes)).collect();
                    let gone = open.departed.keys().copied().collect();
                    open.moved.push(Moved { from_ns: *from_ns, heirs, gone });
                }
            }
            Control::RangeDone { phase, range, .. } => {
                if let Some(open) = self.open_phase(*phase) {
                    open.done.push(*range);
                }
            }
            Control::StreamEnded { generation, phase, last_sequence, totals, .. } => {
                let (generation, last_sequence, totals) = (*generation, last_sequence.0, *totals);
                if let Some(open) = self.open_phase(*phase) {
                    let statement = Statement { phase: *phase, last_sequence, totals, dropped: 0 };
                    open.statements.insert(generation, statement);
                }
            }
            Control::PopulationDecided { phase, keep_rows, .. } => {
                self.deciding = keep_rows.map(|rows| (*phase, rows));
            }
            Control::PhaseEnded(ended) if self.beside.iter().any(|b| b.started.index == ended.index) => {
                if ended.unowned > 0 {
                    let of = self.beside.iter().find(|other| other.started.index == ended.index);
                    let name = of.map_or("", |other| other.started.name.as_str());
                    self.unowned.push(format!("{} requests of phase {name}", ended.unowned));
                }
                self.beside.retain(|other| other.started.index != ended.index);
                self.beside_ended.insert(ended.index);
                if let PhaseOutcome::Failed { reason } = &ended.outcome {
                    // The phase itself may not have come to say it.
                    let exit = Exit::of_code(i32::from(ended.exit_code));
                    self.stopping.get_or_insert(Verdict::failed(exit, reason.clone()));
                }
            }
            Control::PhaseEnded(ended) => {
                // A phase that has not ended weighs again.
                self.decided.extend(self.deciding.take().filter(|(phase, _)| *phase == ended.index));
                let name = self.open.take().map_or_else(String::new, |open| open.started.name);
                self.ended = Some(ended.index);
                if ended.unowned > 0 {
                    self.unowned.push(format!("{} requests of phase {name}", ended.unowned));
                }
                let exit = Exit::of_code(i32::from(ended.exit_code));
                let verdict = match &ended.outcome {
                    PhaseOutcome::Completed => None,
                    PhaseOutcome::Interrupted => {
                        Some(Verdict::interrupted("by word to the coordinator before"))
                    }
                    PhaseOutcome::Failed { reason } => Some(Verdict::failed(exit, reason.clone())),
                };
                self.stopping = self.stopping.take().or(verdict);
            }
            Control::RunClosed { state, exit_code, .. } => self.closed = Some((state.clone(), *exit_code)),
        }
    }

    fn open_phase(&mut self, phase: PhaseIndex) -> Option<&mut OpenPhase> {
        self.open.iter_mut().chain(&mut self.beside).find(|open| open.started.index == phase)
    }

    /// What runs beside the phase that is open.
    pub(crate) fn beside(&self) -> &[OpenPhase] {
        &self.beside
    }

    /// Whether a phase beside the one that is open has ended.
    pub(crate) fn has_ended(&self, beside: PhaseIndex) -> bool {
        self.beside_ended.contains(&beside)
    }
}

/// The state in which the run goes on.
pub(crate) fn go_on(past: &Past, now: MonoNs, book: &mut Book) -> State {
    for (generation, member) in &past.members {
        let arrival = Arrival {
            worker: member.worker.clone(),
            version: String::from(env!("CARGO_PKG_VERSION")),
            token: String::new(),
            host: member.host.clone(),
            cores: 0,
            memory_bytes: 0,
            lanes: member.lanes,
            address: String::new(),
            http: String::new(),
            instance: member.instance,
            before: None,
        };
        book.roster.restore(*generation, arrival, member.presence, now);
        if member.presence == Presence::Lost {
            book.findings.workers_lost.push(member.worker.to_string());
            // Whether its connections were closed is not logged; closing them again does no harm.
            book.fence(*generation, now);
        }
    }
    book.findings.unowned.clone_from(&past.unowned);
    let open = past.open.as_ref();
    book.stand(past.ended, open.map(|open| open.started.index));
    for other in &past.beside {
        book.take_up_beside(other.started.index, book.mono(other.started.start_wall_ns));
    }
    book.note("leader_changed", None, String::from("another coordinator leads the run from here on"));
    if let Some(verdict) = &past.stopping {
        return Closing::enter(verdict.clone(), now, book);
    }
    if open.is_none() && book.is_through() {
        // Whoever was told that it is over has left; nobody is to be waited for.
        return Closing::enter(book.verdict(), now, book);
    }
    book.indexed = book.is_indexed();
    let gathering = match past.ended.is_none() && open.is_none() {
        true => Gathering::new(&book.settings, now),
        false => Gathering::again(&book.settings, now),
    };
    let Some(open) = open.filter(|open| !open.dealt.is_empty()) else {
        return gathering.into();
    };
    let planned = book.plan.phases.iter().find(|phase| phase.index == open.started.index);
    match planned.map(|phase| phase.step.clone()) {
        Some(PlannedStep::Load(load)) => Loading::restore(*load, open, past, now, book),
        // The log is another plan's: nothing that follows would be what the scenario says.
        _ => {
            let reason =
                format!("the log says that phase {} is one of load, the plan does not", open.started.name);
            Closing::enter(Verdict::failed(Exit::Scenario, reason), now, book)
        }
    }
}

#[cfg(test)]
mod tests {
    use vst_common::entry::{PhaseEnded, Totals};

    use super::*;

    fn decided(phase: u32, keep_rows: Option<u64>) -> Control {
        Control::PopulationDecided { phase: PhaseIndex(phase), used_bytes: 1, keep_rows }
    }

    fn ended(phase: u32) -> Control {
        Control::PhaseEnded(PhaseEnded {
            index: PhaseIndex(phase),
            end_wall_ns: 0,
            outcome: PhaseOutcome::Completed,
            totals: Totals::default(),
            scheduled: None,
            unowned: 0,
            live: 0,
            exit_code: 0,
        })
    }

    #[test]
    fn what_weighing_decided_counts_when_the_phase_that_weighed_has_ended() {
        let log = [decided(3, Some(70)), ended(3), ended(4), decided(5, Some(60)), ended(5), ended(6)];
        let both = [(PhaseIndex(3), 70), (PhaseIndex(5), 60)];
        assert_eq!(Past::of(&log).decided(), both);
        assert_eq!(Past::of(&log[..4]).decided(), &both[..1], "it weighs again");
        // Weighed again by the next leader, and under the bound in the end.
        let again = [decided(3, Some(70)), decided(3, Some(65)), ended(3), decided(5, None), ended(5)];
        assert_eq!(Past::of(&again).decided(), [(PhaseIndex(3), 65)]);
        assert_eq!(Past::of(&[decided(3, Some(70)), decided(3, None), ended(3)]).decided(), []);
    }
}
