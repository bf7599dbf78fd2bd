//! The simulated workers: what each knows, and what it does with its time.

use std::collections::BTreeMap;

use vst_common::clock::MonoNs;
use vst_common::entry::Totals;
use vst_common::ids::{Generation, PhaseIndex};
use vst_common::ranges::RowRange;

use super::super::*;
use super::stage::BESIDE;
use super::world::{World, arrival};
use crate::roster::{Arrival, Before, Stage};

/// A load beside the phase of the sequence.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub(super) armed: bool,
    pub(super) started: bool,
    pub(super) draining: bool,
    /// When it begins.
    pub(super) at: MonoNs,
    /// How long it lasts; 0 where it is told when to end.
    pub(super) lasts_ns: u64,
    pub(super) statement: Option<Statement>,
}

#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) beside: BTreeMap<PhaseIndex, Beside>,
    /// Nothing of it is heard any more; it may still be sending.
    pub(super) gone: bool,
    /// It said goodbye.
    pub(super) leaving: bool,
    /// Until when it may send, by the answers that it got.
    pub(super) lease_until: MonoNs,
    pub(super) silent: bool,
    pub(super) welcomed: bool,
    pub(super) closed: bool,
    pub(super) phase: Option<(PhaseIndex, bool)>,
    pub(super) armed: bool,
    pub(super) started: bool,
    pub(super) draining: bool,
    pub(super) ends_at: MonoNs,
    pub(super) held: Vec<RowRange>,
    pub(super) asked_back: Vec<RowRange>,
    pub(super) last_done: Option<RowRange>,
    pub(super) exhausted: bool,
    pub(super) asked: bool,
    pub(super) sequence: u64,
    pub(super) delivered: u64,
    /// Its stream is broken, whoever knows: it hears nothing and can say nothing.
    pub(super) deaf: bool,
    /// Nobody still listens to the broken stream; it may come back.
    pub(super) away: bool,
    pub(super) statement: Option<Statement>,
    /// Nobody will ever start what it was armed for: the leader that armed it died before the start was durable.
    pub(super) unbegun: bool,
    /// It came back since it was armed.
    pub(super) came_back: bool,
    /// It had to register anew: what it held is done with.
    pub(super) replaced: bool,
}

impl Worker {
    /// What it says of itself when it comes back.
    pub(super) fn before(&self, generation: Generation) -> Before {
        let stage = match (self.armed, self.started) {
            (_, true) => Stage::Running,
            (true, false) => Stage::Armed,
            (false, false) => Stage::Preparing,
        };
        let own = self.phase.map(|(phase, _)| (phase, stage));
        let beside = self.beside.iter().filter(|(_, b)| b.statement.is_none()).map(|(phase, b)| {
            let stage = match (b.armed, b.started) {
                (_, true) => Stage::Running,
                (true, false) => Stage::Armed,
                (false, false) => Stage::Preparing,
            };
            (*phase, stage)
        });
        Before {
            generation,
            phases: own.into_iter().chain(beside).collect(),
            held: self.held.clone(),
            ended: self
                .statement
                .into_iter()
                .chain(self.beside.values().filter_map(|b| b.statement))
                .collect(),
        }
    }

    /// Whether it is ready for a phase, or was.
    pub(super) fn is_armed(&self, phase: PhaseIndex) -> bool {
        match self.beside.get(&phase) {
            Some(beside) => beside.armed,
            None if phase.0 >= BESIDE => false,
            None => self.armed,
        }
    }
}

impl World {
    pub(super) fn says(&mut self, generation: Generation, said: Said) {
        self.event(Event::Said(generation, said));
    }

    /// A worker does one of the things that it could do now, or nothing.
    pub(super) fn work(&mut self, generation: Generation, calm: bool) {
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
        if self.workers[&generation].deaf {
            return self.comes_back(generation, calm);
        }
        if !calm && self.workers[&generation].welcomed && self.chance(self.weather.break_stream) {
            self.workers.get_mut(&generation).unwrap().deaf = true;
            return;
        }
        if !self.workers[&generation].welcomed {
            if self.chance(200) || calm {
                self.says(generation, Said::Hello(Box::new(arrival(generation))));
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
        if self.works_beside(generation, calm) {
            return;
        }
        if let Some((phase, leased)) = self.workers[&generation].phase {
            if !calm && self.chance(fault) {
                self.any_fault = true;
                let target = self.draw.below(2) == 0;
                let reason = format!("simulated fault of the {}", if target { "target" } else { "worker" });
                return self.says(generation, Said::Fault { phase, reason, target });
            }
            if self.gives_back(generation, phase) {
                return;
            }
            self.work_on(generation, phase, leased, calm);
        }
    }

    /// It does something for a load beside the phase of the sequence, if there is anything.
    fn works_beside(&mut self, generation: Generation, calm: bool) -> bool {
        let now = self.now;
        let phases: Vec<PhaseIndex> = self.workers[&generation].beside.keys().copied().collect();
        for phase in phases {
            let worker = self.workers.get_mut(&generation).unwrap();
            let beside = worker.beside.get_mut(&phase).unwrap();
            if beside.statement.is_some() {
                continue;
            }
            if !calm && self.draw.below(1_000) < self.weather.fault {
                self.any_fault = true;
                let reason = String::from("simulated fault of the worker");
                self.says(generation, Said::Fault { phase, reason, target: false });
                return true;
            }
            if !beside.armed && !beside.draining {
                if self.draw.below(10) == 0 {
                    beside.armed = true;
                    self.says(generation, Said::Armed(phase));
                    return true;
                }
                continue;
            }
            let over = beside.lasts_ns > 0 && now >= beside.at + beside.lasts_ns;
            if beside.draining || (beside.started && over) {
                self.ends_beside(generation, phase);
                return true;
            }
        }
        false
    }

    fn ends_beside(&mut self, generation: Generation, phase: PhaseIndex) {
        let worker = self.workers.get_mut(&generation).unwrap();
        worker.sequence += 1;
        let last_sequence = worker.sequence;
        let statement = Statement { phase, last_sequence, totals: Totals::default(), dropped: 0 };
        worker.beside.get_mut(&phase).unwrap().statement = Some(statement);
        self.stated.insert((phase, generation));
        self.says(generation, Said::PhaseDone(statement));
    }

    /// Of what it was asked for it hands back what it has not begun, which is as good as anything.
    fn gives_back(&mut self, generation: Generation, phase: PhaseIndex) -> bool {
        let worker = self.workers.get_mut(&generation).unwrap();
        let Some(range) = worker.asked_back.pop() else { return false };
        if !worker.held.contains(&range) || !self.chance(500) {
            return false;
        }
        self.workers.get_mut(&generation).unwrap().held.retain(|held| *held != range);
        self.says(generation, Said::RangeDone { phase, range, ok: 0, failed: 0, first_error: String::new() });
        true
    }

    /// A worker whose stream broke calls again, sooner or later.
    pub(super) fn comes_back(&mut self, generation: Generation, calm: bool) {
        if !self.workers[&generation].away {
            self.workers.get_mut(&generation).unwrap().away = true;
            return self.event(Event::StreamEnded(generation));
        }
        if self.workers[&generation].silent || !(calm || self.chance(100)) {
            return;
        }
        // Each stream opens as a registration of its own; those of one process are alike in their last digits.
        self.streams += 1_000;
        let stream = Generation(self.streams + generation.0 % 1_000);
        let before = Some(self.workers[&generation].before(generation));
        let name = Generation(generation.0 % 1_000);
        self.says(stream, Said::Hello(Box::new(Arrival { before, ..arrival(name) })));
    }

    /// Ends what it does, hands back what it holds, and says so.
    pub(super) fn say_goodbye(&mut self, generation: Generation) {
        let worker = self.workers.get_mut(&generation).unwrap();
        let (phase, held) = (worker.phase.take(), std::mem::take(&mut worker.held));
        let beside: Vec<PhaseIndex> =
            worker.beside.iter().filter(|(_, b)| b.statement.is_none()).map(|(phase, _)| *phase).collect();
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
        for phase in beside {
            self.ends_beside(generation, phase);
        }
        self.says(generation, Said::Goodbye("asked to".into()));
    }

    pub(super) fn deliver(&mut self, generation: Generation) {
        let losing = self.weather.lose_deliveries;
        let worker = self.workers.get_mut(&generation).unwrap();
        worker.delivered = if losing { worker.sequence.saturating_sub(1) } else { worker.sequence };
        let delivered = worker.delivered;
        self.event(Event::Delivered(generation, delivered));
    }

    pub(super) fn work_on(&mut self, generation: Generation, phase: PhaseIndex, leased: bool, calm: bool) {
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
        if !worker.draining && (!worker.started || (leased && now < worker.ends_at)) {
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
            self.workers.get_mut(&generation).unwrap().statement = Some(statement);
            self.says(generation, Said::PhaseDone(statement));
        }
    }
}
