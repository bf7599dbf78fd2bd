//! The simulated world around the run: its clock, its log, its target, and what the run's actions do there.
//!
//! Laws that hold at every action are asserted here; those of a whole run are in `laws`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use vst_common::clock::{MonoNs, SECOND_NS};
use vst_common::entry::{Control, PhaseOutcome};
use vst_common::ids::{Generation, PhaseIndex, WorkerId};
use vst_common::seed::Draw;

use super::super::*;
use super::fleet::{Beside, Worker};
use super::stage::{BESIDE, BESIDE_INGEST, BESIDE_QUERY, Weather, group, plan};
use crate::roster::{Arrival, Roster, Terms};

pub(super) const STEP_NS: u64 = SECOND_NS / 10;
/// Without an answer for this long a worker sends nothing, by its own clock.
pub(super) const LEASE_NS: u64 = 3 * SECOND_NS;
/// Simulated time within which every run must have ended: 20 minutes.
pub(super) const STEPS: u64 = 12_000;

pub(super) struct World {
    pub(super) weather: Weather,
    pub(super) draw: Draw,
    pub(super) now: MonoNs,
    pub(super) core: RunCore,
    pub(super) workers: BTreeMap<Generation, Worker>,
    /// (durable at, ticket)
    pub(super) log: VecDeque<(MonoNs, Ticket)>,
    pub(super) effects: Vec<(MonoNs, Event)>,
    pub(super) trace: Vec<Control>,
    pub(super) durable: usize,
    pub(super) finished: Vec<Verdict>,
    pub(super) lost: BTreeSet<Generation>,
    /// Their connections are closed.
    pub(super) cut: BTreeSet<Generation>,
    /// Said goodbye while they were members.
    pub(super) goodbyes: BTreeSet<Generation>,
    pub(super) any_fault: bool,
    pub(super) any_range_failed: bool,
    pub(super) told: BTreeSet<(PhaseIndex, Generation)>,
    pub(super) stated: BTreeSet<(PhaseIndex, Generation)>,
    pub(super) logged_at: MonoNs,
    pub(super) stopped: bool,
    /// Phases that somebody was told to drain.
    pub(super) drained: BTreeSet<PhaseIndex>,
    /// Phases that the run does not know of before it asks, the last first.
    pub(super) held_back: Vec<PlannedPhase>,
    /// How many leaders there were before this one.
    pub(super) changes: u64,
    pub(super) streams: u64,
}

pub(super) fn arrival(generation: Generation) -> Arrival {
    Arrival {
        worker: WorkerId::new(format!("w{generation}")),
        version: "1".into(),
        token: String::new(),
        host: String::new(),
        cores: 1,
        memory_bytes: 1,
        lanes: 2,
        address: String::new(),
        http: String::new(),
        instance: generation.0,
        before: None,
    }
}

impl World {
    pub(super) fn new(weather: Weather) -> Self {
        let terms = Terms { version: "1".into(), token: None, lease_ns: LEASE_NS, margin_ns: SECOND_NS };
        let wanted = weather.workers.try_into().unwrap();
        let mut settings = Settings::new(wanted, SECOND_NS / 2, 1_000);
        let mut plan = plan(weather.range_length);
        // Every other run under one leader hears of some of its phases only when it asks; the laws are the same.
        settings.on_demand = weather.seed % 2 == 1 && weather.change_at.is_empty();
        let known = match settings.on_demand {
            true => usize::try_from(weather.seed / 2 % 8).unwrap(),
            false => plan.phases.len(),
        };
        let mut held_back = plan.phases.split_off(known.max(1));
        // What is asked for later has nothing beside it.
        held_back.retain(|phase| phase.beside.is_none());
        held_back.reverse();
        let plan = Arc::new(plan);
        let core = RunCore::new(plan, settings, Roster::new(terms), 3, 1);
        let draw = Draw::new(weather.seed, 0, 0);
        let workers = (1..=weather.workers).map(|g| (Generation(g), Worker::default())).collect();
        Self {
            weather,
            draw,
            now: 1,
            core,
            workers,
            log: VecDeque::new(),
            effects: Vec::new(),
            trace: Vec::new(),
            durable: 0,
            finished: Vec::new(),
            lost: BTreeSet::new(),
            cut: BTreeSet::new(),
            goodbyes: BTreeSet::new(),
            any_fault: false,
            any_range_failed: false,
            told: BTreeSet::new(),
            stated: BTreeSet::new(),
            logged_at: 0,
            stopped: false,
            drained: BTreeSet::new(),
            held_back,
            changes: 0,
            streams: 1_000,
        }
    }

    /// The leader is gone; another goes on with what is durable.
    pub(super) fn change_leader(&mut self) {
        self.changes += 1;
        self.trace.truncate(self.durable);
        self.log.clear();
        self.effects.clear();
        self.drained.clear();
        // Goodbyes that the log does not have were said to nobody.
        let left = |generation: &Generation| {
            self.trace
                .iter()
                .any(|c| matches!(c, Control::WorkerLeft { generation: g, .. } if g == generation))
        };
        self.goodbyes = self.goodbyes.iter().copied().filter(left).collect();
        let known: BTreeSet<Generation> = self.workers.keys().copied().collect();
        for generation in &known {
            let worker = self.workers.get_mut(generation).unwrap();
            // Whatever was not heard of when the leader died was never heard of.
            (worker.deaf, worker.away, worker.asked) = (worker.welcomed, worker.welcomed, false);
            // A start counts with its owners behind it; one that came too late for its instant is logged again.
            let begun = |phase: PhaseIndex| {
                let last = self.trace.iter().rev().find_map(|c| match c {
                    Control::PhaseStarted(started) if started.index == phase => Some(false),
                    // So is one with what runs beside it.
                    Control::PhaseStarted(p) if p.beside == Some(phase) && p.order.is_some() => Some(false),
                    Control::SharesOwned { phase: p, lanes, .. } if *p == phase => {
                        Some(lanes.iter().any(|owner| owner.generation == *generation))
                    }
                    _ => None,
                });
                last == Some(true)
            };
            worker.unbegun |= worker.phase.is_some_and(|(phase, _)| !begun(phase));
        }
        self.now += 6 * SECOND_NS;
        self.logged_at = self.now;
        let terms = Terms { version: "1".into(), token: None, lease_ns: LEASE_NS, margin_ns: SECOND_NS };
        let settings = Settings::new(self.weather.workers.try_into().unwrap(), SECOND_NS / 2, 1_000);
        let plan = Arc::new(plan(self.weather.range_length));
        let past = Past::of(&self.trace);
        if past.closed().is_some() {
            return;
        }
        let (core, first) = RunCore::resume(plan, settings, Roster::new(terms), 3, &past, self.now);
        self.core = core;
        for action in first {
            self.act(action);
        }
        // What the log holds of each stream is known from the log.
        for generation in known {
            let delivered = self.workers[&generation].delivered;
            self.event(Event::Delivered(generation, delivered));
        }
    }

    pub(super) fn chance(&mut self, of_thousand: u64) -> bool {
        self.draw.below(1_000) < of_thousand
    }

    pub(super) fn event(&mut self, event: Event) {
        let over = self.core.is_over();
        let actions = self.core.step(event, self.now);
        for action in actions {
            assert!(
                !over || !matches!(action, Action::Log(..) | Action::Finish(_)),
                "acts after the end: {action:?}"
            );
            self.act(action);
        }
    }

    pub(super) fn later(&mut self, event: Event) {
        let wait = self.draw.below(20) * STEP_NS;
        self.effects.push((self.now + wait, event));
    }

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Tell(generation, tell) => self.told(generation, tell),
            Action::Adopt { stream, registration } => {
                assert!(stream.0 > 1_000, "{stream} is a stream of its own");
                let worker = self.workers.get_mut(&registration).unwrap();
                (worker.deaf, worker.away, worker.asked, worker.came_back) = (false, false, false, true);
            }
            Action::Refuse(stream, refusal) => {
                assert!(stream.0 > 1_000, "{stream} refused: {refusal}");
            }
            Action::Log(ticket, control) => {
                assert!(
                    !matches!(self.trace.last(), Some(Control::RunClosed { .. })),
                    "logged after the closing record"
                );
                if let Control::PhaseEnded(ended) = &*control {
                    match ended.outcome {
                        PhaseOutcome::Completed => {
                            self.check_phase_may_end(ended.index);
                            assert_eq!(
                                self.rows_left(ended.index),
                                0,
                                "{} ended with rows left",
                                ended.index
                            );
                            // What was to be sent is the schedule's to say, whoever is lost on the way.
                            match ended.index {
                                BESIDE_INGEST => assert!(ended.scheduled.is_some()),
                                BESIDE_QUERY => assert_eq!(ended.scheduled, Some(1)),
                                index => assert_eq!(ended.scheduled, (index.0 == 4).then_some(3)),
                            }
                        }
                        // Also of a phase that fails everything measured is delivered before its end is logged.
                        PhaseOutcome::Failed { .. } if self.is_loaded(ended.index) => {
                            self.check_phase_may_end(ended.index);
                        }
                        _ => {}
                    }
                }
                self.trace.push(*control);
                let wait = self.draw.below(self.weather.slow_log + 1) * STEP_NS;
                self.logged_at = self.logged_at.max(self.now + wait);
                self.log.push_back((self.logged_at, ticket));
            }
            Action::CreateIndex { .. } | Action::RebuildIndex(_) => self.later(Event::IndexCreated),
            Action::DropIndex => self.later(Event::IndexDropped),
            Action::Operate(_) => self.later(Event::Operated),
            Action::CountCommands { edge, .. } => self.later(Event::CommandsCounted(edge)),
            Action::CutOff(generation, _) => {
                let worker = &self.workers[&generation];
                assert!(self.now >= worker.lease_until, "{generation} is cut off while it may connect again");
                let outcome = if self.chance(300) { Err(String::from("no answer")) } else { Ok(()) };
                self.later(Event::CutOff(generation, outcome));
            }
            Action::ReadRest => {
                let busy = self.chance(300).then(|| "backfill".to_owned());
                self.later(Event::RestRead(Rest { used_memory_bytes: 1_000, busy }));
            }
            Action::AwaitNext => {
                let ended = |c: &Control| matches!(c, Control::PhaseEnded(_));
                let started = |c: &Control| matches!(c, Control::PhaseStarted(_));
                let last = self.trace.iter().rfind(|c| ended(c) || started(c));
                assert!(last.is_none_or(ended), "waits for the next phase within one");
                let next = self.held_back.pop().map(Box::new);
                self.later(Event::Next(next));
            }
            Action::Decide { .. } => panic!("no phase of this plan weighs"),
            Action::Note(_) => {}
            Action::Dismiss(generation) => {
                self.lost.insert(generation);
            }
            Action::Archive => self.later(Event::Archived),
            Action::Finish(verdict) => self.finished.push(verdict),
        }
    }

    pub(super) fn told(&mut self, generation: Generation, tell: Tell) {
        if !self.workers.contains_key(&generation) {
            return self.registered_anew(generation, &tell);
        }
        if self.workers[&generation].deaf {
            // The message goes into a stream that nobody reads.
            return;
        }
        if let Tell::Lease { phase, ranges, exhausted } = &tell {
            let left = self.rows_left(*phase);
            let ends_early = self.stopped || self.drained.contains(phase);
            assert!(!exhausted || ends_early || left == 0, "{generation} was let go with {left} rows left");
            for range in ranges {
                for (other, worker) in &self.workers {
                    let free = self.cut.contains(other) || worker.unbegun || !worker.held.contains(range);
                    assert!(free, "{range:?} leased to {generation}, held by {other}");
                }
            }
        }
        let wanted = if let Tell::Start { phase, .. } = &tell { Some(*phase) } else { None };
        let durable = self.trace[..self.durable].iter().rev().find_map(|c| match c {
            Control::PhaseStarted(p) if Some(p.index) == wanted => Some((p.index, p.start_mono_ns)),
            _ => None,
        });
        let all_armed = {
            let armed = |(phase, g): &(PhaseIndex, Generation)| {
                let worker = &self.workers[g];
                self.is_lost(g) || worker.leaving || worker.replaced || worker.is_armed(*phase)
            };
            self.told.iter().filter(|(p, _)| wanted.is_some_and(|w| group(w) == group(*p))).all(armed)
        };
        let now = self.now;
        if let Tell::Start { phase, .. } = &tell {
            for (other, worker) in &self.workers {
                // Whoever was told that the run is over sends nothing, whoever told it.
                let unfinished = !worker.closed && worker.phase.is_some_and(|(own, _)| own.0 < group(*phase));
                assert!(!unfinished || self.cut.contains(other), "{phase} starts while {other} may send");
            }
        }
        let worker = self.workers.get_mut(&generation).unwrap();
        match tell {
            Tell::Arm { order, .. } if order.beside.is_some() => {
                assert!(worker.beside.get(&order.index).is_none_or(|b| !b.started), "armed while it runs");
                self.told.insert((order.index, generation));
                let beside = Beside { lasts_ns: order.duration_ns, ..Beside::default() };
                worker.beside.insert(order.index, beside);
            }
            Tell::Start { phase, at, .. } if worker.beside.contains_key(&phase) => {
                assert_eq!(durable, Some((phase, at)), "started before the start was durable");
                assert!(all_armed, "started before all were armed");
                let beside = worker.beside.get_mut(&phase).unwrap();
                assert!(!beside.started, "started twice");
                (beside.started, beside.at) = (true, at);
            }
            Tell::Drain(phase) if phase.0 >= BESIDE => {
                // It may have been armed by a leader before this one only.
                worker.beside.entry(phase).or_default().draining = true;
            }
            Tell::Welcome => {
                worker.welcomed = true;
                worker.lease_until = now + LEASE_NS;
            }
            Tell::Resumed => worker.lease_until = worker.lease_until.max(now + LEASE_NS),
            Tell::Heard { worker_mono, .. } => {
                assert!(!worker.gone, "whoever is gone is not answered");
                worker.lease_until = worker_mono + LEASE_NS;
            }
            Tell::Arm { order, .. } => {
                assert!(worker.phase.is_none() || !worker.started, "armed while a phase runs");
                self.told.insert((order.index, generation));
                let leased = order.work.is_leased();
                let ends_at = order.duration_ns;
                *worker = Worker {
                    phase: Some((order.index, leased)),
                    ends_at,
                    silent: worker.silent,
                    gone: worker.gone,
                    welcomed: true,
                    lease_until: worker.lease_until,
                    sequence: worker.sequence,
                    delivered: worker.delivered,
                    statement: worker.statement,
                    ..Worker::default()
                };
            }
            Tell::Start { phase, at, .. } => {
                assert_eq!(durable, Some((phase, at)), "started before the start was durable");
                assert!(at > now || worker.came_back, "started in the past");
                assert!(!worker.started, "started twice");
                assert!(all_armed, "started before all were armed");
                worker.started = true;
                worker.ends_at += at;
            }
            Tell::Lease { ranges, exhausted, .. } => {
                worker.asked = false;
                worker.exhausted |= exhausted;
                // Whoever leaves works on nothing more; its statement gives back what it is leased meanwhile.
                if !worker.leaving {
                    worker.held.extend(ranges);
                }
            }
            Tell::TakeOver { phase, from_ns, .. } => {
                let moved = |c: &Control| matches!(c, Control::SharesMoved { phase: p, from_ns: f, .. } if *p == phase && *f == from_ns);
                assert!(self.trace[..self.durable].iter().any(moved), "shares moved before the log had it");
            }
            Tell::GiveBack { range, .. } => worker.asked_back.push(range),
            Tell::Drain(phase) => {
                worker.draining = true;
                self.drained.insert(phase);
            }
            Tell::Observe { nodes, .. } => assert!(nodes.iter().all(|n| *n < 3)),
            Tell::Close(_) => worker.closed = true,
        }
    }

    /// A worker whose registration was over or never durable has another one; it has nothing of the one before.
    pub(super) fn registered_anew(&mut self, generation: Generation, tell: &Tell) {
        if !matches!(tell, Tell::Welcome) {
            return;
        }
        let name = self.core.roster().get(generation).unwrap().arrival.instance;
        for worker in self.workers.iter_mut().filter(|(g, _)| g.0 % 1_000 == name % 1_000).map(|(_, w)| w) {
            worker.gone = true;
            worker.replaced = true;
            worker.held.clear();
            worker.phase = None;
            worker.beside.clear();
        }
        let worker = Worker { welcomed: true, lease_until: self.now + LEASE_NS, ..Worker::default() };
        self.workers.insert(generation, worker);
    }

    pub(super) fn step(&mut self, step: u64) {
        self.now += STEP_NS;
        if self.weather.change_at.contains(&step) && !self.core.is_over() {
            self.change_leader();
        }
        // Whatever goes wrong goes wrong early, so that the rest shows whether the run comes to an end.
        let calm = step > 600;
        if self.weather.stop_at == Some(step) || self.weather.stop_again_at == Some(step) {
            self.stopped = true;
            self.event(Event::Stop("test".into()));
        }
        if self.weather.pause_at == Some(step) {
            // Longer than lease and margin: what the workers said meanwhile has not been read yet.
            self.now += 15 * SECOND_NS;
            self.event(Event::Tick);
        }
        if self.weather.late_worker_at == Some(step) {
            self.workers.insert(Generation(90), Worker::default());
        }
        while self.log.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, ticket) = self.log.pop_front().unwrap();
            self.durable += 1;
            self.event(Event::Logged(ticket));
        }
        let (due, waiting) =
            std::mem::take(&mut self.effects).into_iter().partition(|(at, _)| *at <= self.now);
        self.effects = waiting;
        let due: Vec<(MonoNs, Event)> = due;
        for (_, event) in due {
            if let Event::CutOff(generation, Ok(())) = &event {
                self.cut.insert(*generation);
            }
            self.event(event);
        }
        let all: Vec<Generation> = self.workers.keys().copied().collect();
        for generation in all {
            self.work(generation, calm);
        }
        for generation in
            self.core.roster().all().filter(|(_, m)| m.presence == Presence::Lost).map(|(g, _)| g)
        {
            self.lost.insert(generation);
        }
        self.event(Event::Tick);
    }
}
