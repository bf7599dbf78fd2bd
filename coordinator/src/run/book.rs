//! What all states of a run share: the plan, the members, what was delivered, what went wrong, what to do next.

mod records;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use vst_common::clock::{MonoNs, SECOND_NS, WallNs};
use vst_common::count;
use vst_common::entry::{Control, Totals};
use vst_common::exit::Exit;
use vst_common::ids::{Generation, PhaseIndex, WorkerId};

use super::weighing::{self, Next, Weight};
use super::{Action, Note, Tell, Ticket, Verdict};
use crate::plan::{PlannedPhase, PlannedStep, RunPlan};
use crate::roster::{Arrival, Refusal, Roster};

/// So many refusals are written down.
const REFUSALS_NOTED: u32 = 64;

/// How long the run waits for what, nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Workers that must be there before the first phase.
    pub workers_wanted: usize,
    /// For the workers to come.
    pub gather_ns: u64,
    /// For the workers to get ready for a phase.
    pub arm_ns: u64,
    /// From naming the start instant to the start: for it to become durable and to reach the workers.
    pub start_lead_ns: u64,
    /// The least of it that must be left when it is durable; otherwise a later instant is named.
    pub start_notice_ns: u64,
    /// After the end of a phase's schedule and drain before a worker that did not end it counts as lost.
    pub grace_ns: u64,
    /// For what workers stated at the end of a phase to be delivered.
    pub delivery_ns: u64,
    /// For the workers to leave.
    pub leave_ns: u64,
    /// Between two samples of a node.
    pub sample_interval_ns: u64,
    /// Whether more phases may come when those of the plan have ended.
    pub on_demand: bool,
    /// The wall clock minus the monotonic clock when the run began. Labels do not follow later steps of the wall clock.
    pub wall_minus_mono_ns: i64,
}

impl Settings {
    /// What a run uses where nothing else is asked for.
    #[must_use]
    pub fn new(workers_wanted: usize, sample_interval_ns: u64, wall_minus_mono_ns: i64) -> Self {
        Self {
            workers_wanted,
            gather_ns: 60 * SECOND_NS,
            arm_ns: 120 * SECOND_NS,
            start_lead_ns: SECOND_NS,
            start_notice_ns: SECOND_NS / 5,
            grace_ns: 30 * SECOND_NS,
            delivery_ns: 60 * SECOND_NS,
            leave_ns: 60 * SECOND_NS,
            sample_interval_ns,
            on_demand: false,
            wall_minus_mono_ns,
        }
    }
}

/// What spoils a run without ending it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Workers lost after the first phase began.
    pub workers_lost: Vec<String>,
    /// Phases and workers of which not everything stated was delivered.
    pub undelivered: Vec<String>,
    /// Phases of which nobody sent a part, and how much.
    pub unowned: Vec<String>,
}

/// The load of a phase, when it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// As the workers state it.
    pub(crate) totals: Totals,
    /// Requests of the schedule until it ended or was cut short; `None` where the work itself is the load.
    pub(crate) scheduled: Option<u64>,
    /// Of those, how many fell due while no worker owned them.
    pub(crate) unowned: u64,
}

/// A lost worker that may still be sending.
#[derive(Debug)]
struct Fencing {
    /// When its connections are closed: not before its lease is over by its own clock, for it would open new ones.
    cut_at: MonoNs,
    /// Whether they are being closed now.
    cutting: bool,
    /// Since when it has been tried, and what the target said the last time.
    tried: Option<(MonoNs, String)>,
}

/// What a person is shown of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Position of the phase.
    pub phase: u32,
    /// Its name; empty before the first.
    pub phase_name: String,
    /// Its step's word; empty before the first.
    pub step: String,
    /// Number of phases.
    pub phases: u32,
    /// Workers that are here.
    pub workers: u32,
    /// Workers that were wanted.
    pub workers_wanted: u32,
    /// Since the phase began, nanoseconds.
    pub phase_elapsed_ns: u64,
    /// Planned length, nanoseconds; 0 where it is not known.
    pub phase_length_ns: u64,
    /// Rows done.
    pub units_done: u64,
    /// Rows to do; 0 where the phase does not count rows.
    pub units_total: u64,
    /// What is being done or waited for.
    pub message: String,
    /// The end, once there.
    pub ended: Option<Verdict>,
}

#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) plan: Arc<RunPlan>,
    pub(crate) settings: Settings,
    pub(crate) roster: Roster,
    pub(crate) findings: Findings,
    /// Set when the run is to end after the phase that runs.
    pub(crate) stopping: Option<Verdict>,
    /// Whether the index exists.
    pub(crate) indexed: bool,
    /// Whether nodes are being sampled for the phase that runs.
    pub(crate) observing: bool,
    /// Position of the phase that runs; `None` before the first.
    at: Option<usize>,
    /// The phase that another coordinator had begun, until its end is logged.
    begun_before: Option<PhaseIndex>,
    began: MonoNs,
    /// Whether the log says that the phase began and not that it ended.
    open: bool,
    /// The same of those beside it, and when they began.
    beside: BTreeMap<PhaseIndex, MonoNs>,
    /// Rows that the phase has written or deleted so far.
    pub(crate) rows_done: u64,
    /// What the target used at rest, each time that it was weighed.
    weights: Vec<Weight>,
    nodes: Vec<usize>,
    delivered: BTreeMap<Generation, u64>,
    fencing: BTreeMap<Generation, Fencing>,
    tickets: u64,
    /// Workers that were not let in.
    refusals: u32,
    actions: Vec<Action>,
    /// Set with the closing record.
    pub(crate) sealed: bool,
    ended: Option<Verdict>,
}

impl Book {
    pub(crate) fn new(
        plan: Arc<RunPlan>,
        settings: Settings,
        roster: Roster,
        nodes: usize,
        now: MonoNs,
    ) -> Self {
        Self {
            plan,
            settings,
            roster,
            findings: Findings::default(),
            stopping: None,
            indexed: false,
            observing: false,
            at: None,
            begun_before: None,
            began: now,
            open: false,
            beside: BTreeMap::new(),
            rows_done: 0,
            weights: Vec::new(),
            nodes: (0..nodes).collect(),
            delivered: BTreeMap::new(),
            fencing: BTreeMap::new(),
            tickets: 0,
            refusals: 0,
            actions: Vec::new(),
            sealed: false,
            ended: None,
        }
    }

    pub(crate) fn act(&mut self, action: Action) {
        // The closing record is the last one: what still happens after it is nobody's measurement.
        if self.sealed && matches!(action, Action::Log(..) | Action::Note(_)) {
            return;
        }
        self.actions.push(action);
    }

    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub(crate) fn tell(&mut self, generation: Generation, tell: Tell) {
        self.act(Action::Tell(generation, tell));
    }

    pub(crate) fn log(&mut self, control: Control) -> Ticket {
        self.tickets = self.tickets.saturating_add(1);
        let ticket = Ticket(self.tickets);
        self.act(Action::Log(ticket, Box::new(control)));
        ticket
    }

    /// An instant on the wall clock, as a label.
    pub(crate) fn wall(&self, at: MonoNs) -> WallNs {
        count::to_i64(at).saturating_add(self.settings.wall_minus_mono_ns)
    }

    /// An instant of the wall clock on the monotonic one.
    pub(crate) fn mono(&self, wall: WallNs) -> MonoNs {
        count::to_u64(wall.saturating_sub(self.settings.wall_minus_mono_ns).max(0))
    }

    /// Whether another coordinator began the phase that runs.
    pub(crate) fn is_begun_again(&self) -> bool {
        self.begun_before == Some(self.phase_index())
    }

    /// Stands where another coordinator's log ends: after the phase `ended`, with `open` begun.
    pub(crate) fn stand(&mut self, ended: Option<PhaseIndex>, open: Option<PhaseIndex>) {
        let position = |index: PhaseIndex| self.plan.phases.iter().position(|phase| phase.index == index);
        self.at = ended.and_then(position);
        self.begun_before = open;
    }

    /// Whether all phases lie behind and none can come.
    pub(crate) fn is_through(&self) -> bool {
        !self.settings.on_demand && self.next().is_none()
    }

    /// Position of the next phase of the sequence.
    fn next(&self) -> Option<usize> {
        let behind = self.at.map_or(0, |at| at.saturating_add(1));
        let next = self.plan.phases.iter().skip(behind).position(|phase| phase.beside.is_none())?;
        Some(behind.saturating_add(next))
    }

    /// Whether the index is there after the phases that lie behind.
    pub(crate) fn is_indexed(&self) -> bool {
        let behind = self.next().unwrap_or(self.plan.phases.len());
        let last = self.plan.phases.iter().take(behind).rev().find_map(|phase| match phase.step {
            PlannedStep::CreateIndex | PlannedStep::RebuildIndex(_) => Some(true),
            PlannedStep::DropIndex => Some(false),
            _ => None,
        });
        last.unwrap_or(false)
    }

    /// Takes up the phase that another coordinator began at an instant, without saying so again.
    pub(crate) fn take_up(&mut self, began: MonoNs, rows_done: u64) {
        let _ = self.next_phase(began);
        self.open = true;
        self.rows_done = rows_done;
        self.observing = true;
    }

    pub(crate) fn note(&mut self, kind: &'static str, worker: Option<Generation>, detail: String) {
        let phase = self.phase_index();
        self.act(Action::Note(Note { kind, worker, phase, detail }));
    }

    /// Moves to the next phase; `None` after the last.
    pub(crate) fn next_phase(&mut self, now: MonoNs) -> Option<PhaseIndex> {
        let next = self.next()?;
        let index = self.plan.phases.get(next)?.index;
        self.at = Some(next);
        self.began = now;
        self.rows_done = 0;
        Some(index)
    }

    /// Takes in what the target uses at rest; gives what is to be done for it to use no more than the bound.
    pub(crate) fn weigh(&mut self, weight: Weight, bound_bytes: u64) -> Next {
        if self.weights.last().is_some_and(|last| last.rows <= weight.rows) {
            // Another shrink, or the same weighing again.
            self.weights.clear();
        }
        self.weights.push(weight);
        weighing::next(&self.weights, bound_bytes)
    }

    /// Puts a phase behind those of the plan, or notes that none will come.
    pub(crate) fn demand(&mut self, phase: Option<Box<PlannedPhase>>) {
        match phase {
            Some(phase) => Arc::make_mut(&mut self.plan).phases.push(*phase),
            None => self.settings.on_demand = false,
        }
    }

    /// A phase by its index.
    pub(crate) fn planned(&self, index: PhaseIndex) -> Option<&PlannedPhase> {
        self.plan.phases.iter().find(|phase| phase.index == index)
    }

    /// The name of a phase.
    pub(crate) fn name_of(&self, index: PhaseIndex) -> String {
        self.planned(index).map_or_else(String::new, |phase| phase.name.clone())
    }

    /// The phase that runs; `None` before the first.
    pub(crate) fn phase(&self) -> Option<&PlannedPhase> {
        self.plan.phases.get(self.at?)
    }

    /// Index of the phase that runs; the first one's before it began.
    pub(crate) fn phase_index(&self) -> PhaseIndex {
        self.phase().map_or(PhaseIndex(0), |p| p.index)
    }

    pub(crate) fn phase_name(&self) -> String {
        self.phase().map_or_else(String::new, |p| p.name.clone())
    }

    /// Deals the nodes to the members and tells each which are its own for the phase that runs. Nothing is sampled
    /// before the first phase and after the end, and nothing is labelled with a phase before its start is durable.
    pub(crate) fn observe(&mut self) {
        if !self.observing {
            return;
        }
        let phase = self.phase_index();
        let indexed = self.indexed;
        for (generation, own) in self.roster.deal(&self.nodes) {
            let nodes = own.into_iter().copied().collect();
            let name = self.phase_name();
            self.actions.push(Action::Tell(generation, Tell::Observe { phase, name, nodes, indexed }));
        }
    }

    pub(crate) fn worker_name(&self, generation: Generation) -> String {
        self.roster.get(generation).map_or_else(|| generation.to_string(), |m| m.arrival.worker.to_string())
    }

    /// Welcomes a new member and writes it down.
    pub(crate) fn joined(&mut self, generation: Generation, now: MonoNs) {
        self.tell(generation, Tell::Welcome);
        let at_wall_ns = self.wall(now);
        let Some(arrival) = self.roster.get(generation).map(|m| m.arrival.clone()) else { return };
        self.note(
            "worker_joined",
            Some(generation),
            format!("worker {} joined from {}", arrival.worker, arrival.host),
        );
        let Arrival { worker, host, lanes, instance, .. } = arrival;
        self.log(Control::WorkerJoined { worker, generation, host, lanes, at_wall_ns, instance });
        self.observe();
    }

    /// Writes down that somebody was not let in; not for ever, because whoever is not let in may try again.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.refusals = self.refusals.saturating_add(1);
        match self.refusals.cmp(&REFUSALS_NOTED) {
            Ordering::Less => self.note("worker_refused", None, refusal.to_string()),
            Ordering::Equal => {
                self.note("worker_refused", None, format!("{refusal}; further ones are not written down"));
            }
            Ordering::Greater => {}
        }
    }

    /// Writes down that a member went.
    pub(crate) fn left(&mut self, generation: Generation, how: &str, lost: bool, now: MonoNs) {
        let at_wall_ns = self.wall(now);
        let name = self.worker_name(generation);
        if lost {
            self.note("worker_lost", Some(generation), format!("worker {name} is lost: {how}"));
            self.observe();
        }
        let (worker, reason) = (WorkerId::new(name), how.to_owned());
        self.log(Control::WorkerLeft { worker, generation, lost, reason, at_wall_ns });
    }

    /// A loss that spoils the run. What the worker did is not given to others before it can do no more.
    pub(crate) fn lost(&mut self, generation: Generation, now: MonoNs) {
        let name = self.worker_name(generation);
        self.findings.workers_lost.push(name);
        self.fence(generation, now);
    }

    /// Has the connections of a lost worker closed as soon as it can open no new ones.
    pub(crate) fn fence(&mut self, generation: Generation, now: MonoNs) {
        let cut_at = self.roster.fenced_at(generation).max(now);
        self.fencing.insert(generation, Fencing { cut_at, cutting: false, tried: None });
    }

    /// Has the connections closed of those lost workers whose lease is over.
    pub(crate) fn cut_off(&mut self, now: MonoNs) {
        let due = |f: &Fencing| !f.cutting && now >= f.cut_at;
        let due: Vec<Generation> = self.fencing.iter().filter(|(_, f)| due(f)).map(|(g, _)| *g).collect();
        for generation in due {
            if let Some(fencing) = self.fencing.get_mut(&generation) {
                fencing.cutting = true;
            }
            let name = WorkerId::new(self.worker_name(generation));
            self.act(Action::CutOff(generation, name));
        }
    }

    /// Takes in whether a lost worker's connections are closed; gives whether it is now known to send nothing more.
    pub(crate) fn was_cut_off(
        &mut self,
        generation: Generation,
        outcome: Result<(), String>,
        now: MonoNs,
    ) -> bool {
        let name = self.worker_name(generation);
        let Some(fencing) = self.fencing.get_mut(&generation) else { return false };
        match outcome {
            Ok(()) => {
                self.fencing.remove(&generation);
                let detail =
                    format!("worker {name} is cut off: its lease is over, its connections are closed");
                self.note("worker_cut_off", Some(generation), detail);
                true
            }
            Err(reason) => {
                let first = fencing.tried.is_none();
                let since = fencing.tried.as_ref().map_or(now, |(since, _)| *since);
                fencing.tried = Some((since, reason.clone()));
                fencing.cutting = false;
                fencing.cut_at = now.saturating_add(SECOND_NS);
                if first {
                    let detail =
                        format!("the connections of worker {name} are not known to be closed: {reason}");
                    self.note("cut_off_failed", Some(generation), detail);
                }
                false
            }
        }
    }

    /// Lost workers that may still be sending.
    pub(crate) fn uncut(&self) -> Vec<Generation> {
        self.fencing.keys().copied().collect()
    }

    /// Why a lost worker could not be cut off for longer than the run waits for anything of the kind.
    pub(crate) fn uncuttable(&self, now: MonoNs) -> Option<String> {
        self.fencing.iter().find_map(|(generation, fencing)| {
            let (since, reason) = fencing.tried.as_ref()?;
            let late = now.saturating_sub(*since) >= self.settings.arm_ns;
            let name = self.worker_name(*generation);
            late.then(|| format!("the connections of lost worker {name} cannot be closed: {reason}"))
        })
    }

    pub(crate) fn delivered(&mut self, generation: Generation, sequence: u64) {
        let known = self.delivered.entry(generation).or_default();
        *known = (*known).max(sequence);
    }

    pub(crate) fn delivered_up_to(&self, generation: Generation) -> u64 {
        self.delivered.get(&generation).copied().unwrap_or(0)
    }

    /// The run ends once the phase that runs has; the first reason stays.
    pub(crate) fn stop_after_phase(&mut self, verdict: Verdict) {
        self.stopping.get_or_insert(verdict);
    }

    pub(crate) fn close_all(&mut self, reason: &str) {
        let here: Vec<Generation> = self.roster.here().map(|(g, _)| g).collect();
        for generation in here {
            self.tell(generation, Tell::Close(reason.to_owned()));
        }
    }

    /// How a run ends that went through all its phases.
    pub(crate) fn verdict(&self) -> Verdict {
        if let Some(verdict) = &self.stopping {
            return verdict.clone();
        }
        if !self.findings.workers_lost.is_empty() {
            let reason = format!("workers were lost: {}", self.findings.workers_lost.join(", "));
            return Verdict::finished(Exit::Fleet, reason);
        }
        if !self.findings.unowned.is_empty() {
            let reason = format!("part of the load had no worker: {}", self.findings.unowned.join(", "));
            return Verdict::finished(Exit::Fleet, reason);
        }
        if !self.findings.undelivered.is_empty() {
            let reason = format!("measurements were not delivered: {}", self.findings.undelivered.join(", "));
            return Verdict::finished(Exit::NotValid, reason);
        }
        Verdict::finished(Exit::Valid, "")
    }

    pub(crate) fn finish(&mut self, verdict: Verdict) {
        self.ended = Some(verdict.clone());
        self.act(Action::Finish(verdict));
    }

    pub(crate) fn view(&self, doing: &str, units_done: u64, units_total: u64, now: MonoNs) -> View {
        let phase = self.phase();
        let phases = u32::try_from(self.plan.phases.len()).unwrap_or(u32::MAX);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        View {
            phase: phase.map_or(0, |p| p.index.0),
            phase_name: self.phase_name(),
            step: phase.map_or_else(String::new, |p| p.word().to_owned()),
            phases,
            workers: count(self.roster.count_here()),
            workers_wanted: count(self.settings.workers_wanted),
            phase_elapsed_ns: now.saturating_sub(self.began),
            phase_length_ns: phase.map_or(0, PlannedPhase::length_ns),
            units_done,
            units_total,
            message: match &self.ended {
                Some(verdict) => verdict.reason.clone(),
                None => doing.to_owned(),
            },
            ended: self.ended.clone(),
        }
    }
}
