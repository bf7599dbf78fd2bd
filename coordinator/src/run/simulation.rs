//! The run against a simulated fleet, log and target: what must hold whatever the workers do and when they do it.

mod stage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use vst_common::clock::{MonoNs, SECOND_NS};
use vst_common::entry::{Control, PhaseOutcome, Totals};
use vst_common::exit::Exit;
use vst_common::ids::{Generation, PhaseIndex, WorkerId};
use vst_common::ranges::RowRange;
use vst_common::seed::Draw;

use super::*;
use crate::roster::{Arrival, Terms};
use stage::{EXCHANGED, ROWS, Weather, plan, weather};

const STEP_NS: u64 = SECOND_NS / 10;
/// Without an answer for this long a worker sends nothing, by its own clock.
const LEASE_NS: u64 = 3 * SECOND_NS;
/// Simulated time within which every run must have ended: 20 minutes.
const STEPS: u64 = 12_000;

#[derive(Debug, Default)]
struct Worker {
    /// Nothing of it is heard any more; it may still be sending.
    gone: bool,
    /// It said goodbye.
    leaving: bool,
    /// Until when it may send, by the answers that it got.
    lease_until: MonoNs,
    silent: bool,
    welcomed: bool,
    closed: bool,
    phase: Option<(PhaseIndex, bool)>,
    armed: bool,
    started: bool,
    draining: bool,
    ends_at: MonoNs,
    held: Vec<RowRange>,
    last_done: Option<RowRange>,
    exhausted: bool,
    asked: bool,
    sequence: u64,
    delivered: u64,
}

struct World {
    weather: Weather,
    draw: Draw,
    now: MonoNs,
    core: RunCore,
    workers: BTreeMap<Generation, Worker>,
    /// (durable at, ticket)
    log: VecDeque<(MonoNs, Ticket)>,
    effects: Vec<(MonoNs, Event)>,
    trace: Vec<Control>,
    durable: usize,
    finished: Vec<Verdict>,
    lost: BTreeSet<Generation>,
    /// Their connections are closed.
    cut: BTreeSet<Generation>,
    /// Said goodbye while they were members.
    goodbyes: BTreeSet<Generation>,
    any_fault: bool,
    any_range_failed: bool,
    told: BTreeSet<(PhaseIndex, Generation)>,
    stated: BTreeSet<(PhaseIndex, Generation)>,
    logged_at: MonoNs,
    stopped: bool,
    /// Phases that somebody was told to drain.
    drained: BTreeSet<PhaseIndex>,
    /// Phases that the run does not know of before it asks, the last first.
    held_back: Vec<PlannedPhase>,
}

fn arrival(generation: Generation) -> Arrival {
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
    }
}

impl World {
    fn new(weather: Weather) -> Self {
        let terms = Terms { version: "1".into(), token: None, lease_ns: LEASE_NS, margin_ns: SECOND_NS };
        let wanted = weather.workers.try_into().unwrap();
        let mut settings = Settings::new(wanted, SECOND_NS / 2, 1_000);
        let mut plan = plan(weather.range_length);
        // Every other run hears of some of its phases only when it asks; the laws are the same.
        settings.on_demand = weather.seed % 2 == 1;
        let known = if settings.on_demand {
            usize::try_from(weather.seed / 2 % 8).unwrap()
        } else {
            plan.phases.len()
        };
        let mut held_back = plan.phases.split_off(known.max(1));
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
        }
    }

    fn chance(&mut self, of_thousand: u64) -> bool {
        self.draw.below(1_000) < of_thousand
    }

    fn event(&mut self, event: Event) {
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

    fn later(&mut self, event: Event) {
        let wait = self.draw.below(20) * STEP_NS;
        self.effects.push((self.now + wait, event));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Tell(generation, tell) => self.told(generation, tell),
            Action::Refuse(generation, refusal) => panic!("{generation} refused: {refusal}"),
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
                            assert_eq!(ended.scheduled, (ended.index.0 == 4).then_some(3));
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
            Action::CreateIndex => self.later(Event::IndexCreated),
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
            Action::Note(_) => {}
            Action::Dismiss(generation) => {
                self.lost.insert(generation);
            }
            Action::Archive => self.later(Event::Archived),
            Action::Finish(verdict) => self.finished.push(verdict),
        }
    }

    /// The laws of a phase's end, checked at the moment at which it is logged.
    fn check_phase_may_end(&self, phase: PhaseIndex) {
        for (told, generation) in &self.told {
            let worker = &self.workers[generation];
            let gone = self.is_lost(generation) || worker.leaving || worker.gone;
            let done = self.stated.contains(&(phase, *generation)) || gone;
            assert!(*told != phase || done, "phase {phase} ended before {generation} did");
        }
        if !self.weather.lose_deliveries {
            for (generation, worker) in &self.workers {
                let here =
                    !self.is_lost(generation) && !worker.gone && self.stated.contains(&(phase, *generation));
                assert!(
                    !here || worker.delivered >= worker.sequence,
                    "{generation} has not delivered {phase}"
                );
            }
        }
    }

    /// Whether somebody who is there was told to start the phase.
    fn is_loaded(&self, phase: PhaseIndex) -> bool {
        let told = |g: &Generation| self.told.contains(&(phase, *g));
        self.workers.iter().any(|(g, w)| w.started && !w.gone && told(g))
    }

    fn rows_left(&self, phase: PhaseIndex) -> u64 {
        let total = match phase.0 {
            2 => ROWS,
            5 => ROWS - ROWS / 2,
            6 => 2 * EXCHANGED,
            _ => 0,
        };
        total - self.ranges_done(phase).iter().map(|r| r.len()).sum::<u64>()
    }

    fn is_lost(&self, generation: &Generation) -> bool {
        let member = self.core.roster().get(*generation);
        self.lost.contains(generation) || member.is_some_and(|m| m.presence == Presence::Lost)
    }

    fn ranges_done(&self, wanted: PhaseIndex) -> Vec<RowRange> {
        let done = self.trace.iter().filter_map(|c| match c {
            Control::RangeDone { phase, range, .. } if *phase == wanted => Some(*range),
            _ => None,
        });
        let mut done: Vec<RowRange> = done.collect();
        done.sort();
        assert!(done.windows(2).all(|w| w[0].end <= w[1].start), "a range was done twice: {done:?}");
        done
    }

    fn told(&mut self, generation: Generation, tell: Tell) {
        if let Tell::Lease { phase, ranges, exhausted } = &tell {
            let left = self.rows_left(*phase);
            let ends_early = self.stopped || self.drained.contains(phase);
            assert!(!exhausted || ends_early || left == 0, "{generation} was let go with {left} rows left");
            for range in ranges {
                for (other, worker) in &self.workers {
                    let free = self.cut.contains(other) || !worker.held.contains(range);
                    assert!(free, "{range:?} leased to {generation}, held by {other}");
                }
            }
        }
        let durable = self.trace[..self.durable].iter().rev().find_map(|c| {
            if let Control::PhaseStarted(p) = c { Some((p.index, p.start_mono_ns)) } else { None }
        });
        let all_armed = {
            let armed = |g: &Generation| self.is_lost(g) || self.workers[g].leaving || self.workers[g].armed;
            self.told.iter().filter(|(p, _)| durable.is_some_and(|d| d.0 == *p)).all(|(_, g)| armed(g))
        };
        let now = self.now;
        if let Tell::Start { phase, .. } = &tell {
            for (other, worker) in &self.workers {
                let unfinished = worker.phase.is_some_and(|(own, _)| own.0 < phase.0);
                assert!(!unfinished || self.cut.contains(other), "{phase} starts while {other} may send");
            }
        }
        let worker = self.workers.get_mut(&generation).unwrap();
        match tell {
            Tell::Welcome => {
                worker.welcomed = true;
                worker.lease_until = now + LEASE_NS;
            }
            Tell::Heard { worker_mono, .. } => {
                assert!(!worker.gone, "whoever is gone is not answered");
                worker.lease_until = worker_mono + LEASE_NS;
            }
            Tell::Arm { order, .. } => {
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
                    ..Worker::default()
                };
            }
            Tell::Start { phase, at, .. } => {
                assert_eq!(durable, Some((phase, at)), "started before the start was durable");
                assert!(at > now, "started in the past");
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
            Tell::Drain(phase) => {
                worker.draining = true;
                self.drained.insert(phase);
            }
            Tell::Observe { nodes, .. } => assert!(nodes.iter().all(|n| *n < 3)),
            Tell::Close(_) => worker.closed = true,
        }
    }

    fn step(&mut self, step: u64) {
        self.now += STEP_NS;
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

    fn says(&mut self, generation: Generation, said: Said) {
        self.event(Event::Said(generation, said));
    }

    /// A worker does one of the things that it could do now, or nothing.
    fn work(&mut self, generation: Generation, calm: bool) {
        let (die, silent, fault) = (self.weather.die, self.weather.fall_silent, self.weather.fault);
        if self.workers[&generation].gone {
            return;
        }
        if self.workers[&generation].leaving {
            self.deliver(generation);
            if self.chance(300) {
                self.workers.get_mut(&generation).unwrap().gone = true;
                self.event(Event::StreamEnded(generation));
            }
            return;
        }
        if !self.workers[&generation].welcomed {
            if self.chance(200) || calm {
                self.says(generation, Said::Hello(arrival(generation)));
            }
            return;
        }
        if !calm && self.chance(die) {
            self.workers.get_mut(&generation).unwrap().gone = true;
            self.lost.insert(generation);
            return self.event(Event::StreamEnded(generation));
        }
        if !calm && self.chance(self.weather.leave) {
            return self.say_goodbye(generation);
        }
        if !calm && self.chance(silent) {
            self.workers.get_mut(&generation).unwrap().silent = true;
        }
        if self.workers[&generation].silent {
            return;
        }
        let now = self.now;
        self.says(generation, Said::Heartbeat { worker_mono: now, at: now });
        if self.workers[&generation].closed {
            if self.chance(300) {
                self.workers.get_mut(&generation).unwrap().gone = true;
                self.event(Event::StreamEnded(generation));
            }
            return;
        }
        if self.chance(500) {
            self.deliver(generation);
        }
        if let Some((phase, leased)) = self.workers[&generation].phase {
            if !calm && self.chance(fault) {
                self.any_fault = true;
                let target = self.draw.below(2) == 0;
                let reason = format!("simulated fault of the {}", if target { "target" } else { "worker" });
                return self.says(generation, Said::Fault { phase, reason, target });
            }
            self.work_on(generation, phase, leased, calm);
        }
    }

    /// Ends what it does, hands back what it holds, and says so.
    fn say_goodbye(&mut self, generation: Generation) {
        let worker = self.workers.get_mut(&generation).unwrap();
        let (phase, held) = (worker.phase.take(), std::mem::take(&mut worker.held));
        worker.leaving = true;
        if !self.is_lost(&generation) {
            self.goodbyes.insert(generation);
        }
        if let Some((phase, _)) = phase {
            let worker = self.workers.get_mut(&generation).unwrap();
            worker.sequence += 1;
            let last_sequence = worker.sequence;
            for range in held {
                let first_error = String::new();
                self.says(generation, Said::RangeDone { phase, range, ok: 0, failed: 0, first_error });
            }
            self.stated.insert((phase, generation));
            let statement = Statement { phase, last_sequence, totals: Totals::default(), dropped: 0 };
            self.says(generation, Said::PhaseDone(statement));
        }
        self.says(generation, Said::Goodbye("asked to".into()));
    }

    fn deliver(&mut self, generation: Generation) {
        let losing = self.weather.lose_deliveries;
        let worker = self.workers.get_mut(&generation).unwrap();
        worker.delivered = if losing { worker.sequence.saturating_sub(1) } else { worker.sequence };
        let delivered = worker.delivered;
        self.event(Event::Delivered(generation, delivered));
    }

    fn work_on(&mut self, generation: Generation, phase: PhaseIndex, leased: bool, calm: bool) {
        let now = self.now;
        let worker = self.workers.get_mut(&generation).unwrap();
        if !worker.armed {
            if self.draw.below(10) == 0 {
                self.workers.get_mut(&generation).unwrap().armed = true;
                self.says(generation, Said::Armed(phase));
            }
            return;
        }
        if leased && !worker.asked && !worker.exhausted && !worker.draining && worker.held.len() < 3 {
            worker.asked = true;
            return self.says(generation, Said::LeaseRequest { phase, ranges: 3 });
        }
        if !worker.started && !worker.draining {
            return;
        }
        if let Some(range) = worker.held.pop() {
            worker.last_done = Some(range);
            worker.sequence += 1;
            let failed = !calm && self.draw.below(1_000) < self.weather.fail_range * 20;
            let cut_short = self.draw.below(20) == 0;
            let (ok, failed) = match (failed, cut_short) {
                (true, _) => (range.len() - 1, 1),
                (false, true) => (range.len() - 1, 0),
                (false, false) => (range.len(), 0),
            };
            self.any_range_failed |= failed > 0;
            return self
                .says(generation, Said::RangeDone { phase, range, ok, failed, first_error: "e".into() });
        }
        if let Some(range) = worker.last_done
            && self.draw.below(1_000) < self.weather.repeat
        {
            // A worker that errs must not be able to book a range twice.
            let ok = range.len();
            self.says(
                generation,
                Said::RangeDone { phase, range, ok, failed: 0, first_error: String::new() },
            );
            return;
        }
        let worker = self.workers.get_mut(&generation).unwrap();
        let over = if leased { worker.exhausted } else { now >= worker.ends_at };
        if over || worker.draining {
            worker.phase = None;
            worker.sequence += 1;
            let last_sequence = worker.sequence;
            self.stated.insert((phase, generation));
            let statement = Statement { phase, last_sequence, totals: Totals::default(), dropped: 0 };
            self.says(generation, Said::PhaseDone(statement));
        }
    }

    fn check_log(&self) {
        let mut next = 0;
        let mut open = None;
        for control in &self.trace {
            match control {
                Control::PhaseStarted(started) => {
                    assert!(
                        open.is_none_or(|o| o == started.index),
                        "{} began within {open:?}",
                        started.index
                    );
                    assert_eq!(started.index.0, next, "phases in the order of the plan");
                    open = Some(started.index);
                }
                Control::PhaseEnded(ended) => {
                    assert_eq!(open, Some(ended.index));
                    open = None;
                    next += 1;
                }
                Control::PopulationChanged { phase, live } => {
                    assert_eq!((open, phase.0 + 1), (None, next));
                    assert_eq!(live.count(), if phase.0 == 2 { ROWS } else { ROWS / 2 });
                    assert_eq!(live.turn, if phase.0 == 6 { EXCHANGED } else { 0 });
                }
                Control::RangeDone { phase, .. } => assert!(open.is_none_or(|o| o == *phase)),
                Control::WorkerLeft { generation, lost: true, .. } => {
                    assert!(!self.goodbyes.contains(generation), "{generation} said goodbye, it is not lost");
                }
                _ => {}
            }
        }
        assert!(matches!(self.trace.last(), Some(Control::RunClosed { .. })));
        assert_eq!(open, None, "the log closed with a phase open");
    }
}

fn run(weather: Weather) -> World {
    run_on(World::new(weather))
}

fn run_on(mut world: World) -> World {
    for step in 0..STEPS {
        world.step(step);
        if world.core.is_over() {
            break;
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_run_comes_to_its_end_in_order_whatever_the_workers_do(weather in weather()) {
        let world = run(weather.clone());
        prop_assert!(world.core.is_over(), "still running: {:?}", world.core.view(world.now));
        prop_assert_eq!(world.finished.len(), 1);
        world.check_log();
        let verdict = &world.finished[0];
        let through = world.trace.iter().any(|c| matches!(c, Control::PhaseEnded(e) if e.index.0 == 7));
        let stopped = weather.stop_at.is_some() || weather.stop_again_at.is_some();
        // What the log says of losses is what the run must be judged by.
        let lost = world.trace.iter().any(|c| matches!(c, Control::WorkerLeft { lost: true, .. }));
        let unowned = world.trace.iter().any(|c| matches!(c, Control::PhaseEnded(e) if e.unowned > 0));
        let stayed = world.workers.iter().any(|(g, w)| {
            g.0 <= weather.workers && !w.silent && !w.leaving && !world.lost.contains(g)
        });
        let failed = world.any_fault || world.any_range_failed;
        if verdict.exit == Exit::Valid {
            prop_assert!(through && !weather.lose_deliveries);
            prop_assert_eq!(&verdict.state, &vst_common::entry::RunState::Finished);
        }
        if !failed && !stopped && stayed {
            prop_assert!(through, "one worker that stays brings the run to its end: {}", verdict.reason);
            let expected = match (lost || unowned, weather.lose_deliveries) {
                (true, _) => Exit::Fleet,
                (false, true) => Exit::NotValid,
                (false, false) => Exit::Valid,
            };
            prop_assert_eq!(verdict.exit, expected, "{}", verdict.reason);
        }
        if verdict.exit == Exit::Target {
            prop_assert!(failed, "{}", verdict.reason);
        }
        for (who, exit) in [("target", Exit::Target), ("worker", Exit::Fleet)] {
            let blamed = verdict.reason.contains(&format!("simulated fault of the {who}"));
            prop_assert!(!blamed || verdict.exit == exit, "{}: {:?}", verdict.reason, verdict.exit);
        }
        if verdict.exit == Exit::Interrupted {
            prop_assert!(stopped);
        }
    }
}

#[test]
fn a_calm_run_goes_through_all_phases() {
    let world = run(Weather::fair(2));
    assert_eq!(world.finished, vec![Verdict::finished(Exit::Valid, "")]);
    let ended: Vec<(u32, u64)> = world
        .trace
        .iter()
        .filter_map(|c| if let Control::PhaseEnded(e) = c { Some((e.index.0, e.live)) } else { None })
        .collect();
    assert_eq!(ended, [(0, 0), (1, 0), (2, 300), (3, 300), (4, 300), (5, 150), (6, 150), (7, 150)]);
}

#[test]
fn too_few_workers_end_the_run_with_the_fleet_code_and_a_fix() {
    let mut world = World::new(Weather::fair(1));
    world.workers.clear();
    (0..STEPS)
        .take_while(|step| {
            world.step(*step);
            !world.core.is_over()
        })
        .count();
    assert_eq!(world.finished[0].exit, Exit::Fleet);
    assert!(world.finished[0].reason.contains("0 of 1 workers"));
    assert!(!world.trace.iter().any(|c| matches!(c, Control::PhaseStarted(_))), "nothing begins");
}

#[test]
fn a_worker_that_goes_spoils_the_run_only_after_the_fleet_was_complete() {
    let goes = |world: &mut World, generation: Generation| {
        world.workers.get_mut(&generation).unwrap().gone = true;
        world.event(Event::StreamEnded(generation));
    };
    let lost = |world: &World| -> Vec<(u64, bool)> {
        let left = world.trace.iter().filter_map(|c| match c {
            Control::WorkerLeft { generation, lost, .. } => Some((generation.0, *lost)),
            _ => None,
        });
        left.collect()
    };
    let mut world = World::new(Weather::fair(2));
    world.workers.insert(Generation(80), Worker::default());
    world.says(Generation(80), Said::Hello(arrival(Generation(80))));
    goes(&mut world, Generation(80));
    assert_eq!(lost(&world), [(80, false)]);
    let world = run_on(world);
    assert_eq!(world.finished, vec![Verdict::finished(Exit::Valid, "")]);
    assert!(lost(&world).iter().all(|(_, lost)| !lost), "a valid run has lost nobody: {:?}", lost(&world));

    let mut world = World::new(Weather::fair(2));
    (0..STEPS)
        .take_while(|step| {
            world.step(*step);
            !world.trace.iter().any(|c| matches!(c, Control::PhaseStarted(_)))
        })
        .count();
    goes(&mut world, Generation(1));
    assert_eq!(lost(&world), [(1, true)]);
    assert_eq!(run_on(world).finished[0].exit, Exit::Fleet);
}
