//! A phase of load: armed, counted in, started, driven, counted out.
//!
//! Ranges are leased until all are done, or dealt shares run by the clock; either way the workers end the phase and
//! say so. Law: nobody starts before all are armed and the start is durable; the phase is over when every worker that
//! was armed has made its statement or is lost; `exhausted` is said only when every range is done, so that what a lost
//! worker leaves finds somebody.

mod ownership;
mod work;

use vst_common::clock::{MonoNs, SECOND_NS};
use vst_common::entry::{Control, LaneOwner, PhaseOutcome, RunState};
use vst_common::exit::Exit;
use vst_common::ids::{Generation, WorkerId};

use super::book::{Book, Loaded};
use super::closing::Closing;
use super::ending::Ending;
use super::recovery::OpenPhase;
use super::state::{State, TransitionTo};
use super::{Action, Edge, Happened, Said, Tell, Ticket, Verdict};
use crate::plan::LoadPlan;
pub(crate) use work::Load;
use work::Taken;

/// After its schedule a phase drains for at most this long, or its timeout where that is longer, nanoseconds.
const DRAIN_NS: u64 = 10 * SECOND_NS;
/// Between the decision that shares move and the instant at which they do, nanoseconds: the log must have it and the heirs
/// must have heard of it.
const MOVE_NOTICE_NS: u64 = SECOND_NS;

macro_rules! or_close {
    ($taken:expr, $now:expr, $book:expr) => {
        match $taken {
            Taken::Nothing => {}
            Taken::Fatal(verdict) => return Closing::enter(verdict, $now, $book),
        }
    };
}

/// The workers get ready.
#[derive(Debug)]
pub(crate) struct Arming {
    load: Load,
    until: MonoNs,
}

impl Arming {
    /// Tells everybody to get ready; `None` when nobody is there.
    pub(crate) fn new(plan: LoadPlan, now: MonoNs, book: &mut Book) -> Option<Self> {
        let load = Load::arm(plan, book)?;
        Some(Self { load, until: now.saturating_add(book.settings.arm_ns) })
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    pub(crate) fn advance(mut self, happened: Happened, now: MonoNs, book: &mut Book) -> State {
        let tick = matches!(happened, Happened::Tick);
        or_close!(self.load.take(happened, now, book), now, book);
        let late = self.load.not_armed();
        // What a lost worker still had on its way to the target would undo what this phase does.
        if late.is_empty() && book.uncut().is_empty() {
            let (phase, edge) = (self.load.phase(), Edge::Start);
            book.act(Action::CountCommands { phase, edge });
            let next = CountingIn { load: self.load.clone() };
            return self.to(next);
        }
        if tick && now >= self.until {
            let reason = format!(
                "phase {} was not ready within {} s: {}; see the log of these workers",
                book.phase_name(),
                book.settings.arm_ns / SECOND_NS,
                self.waits_for(book)
            );
            return Closing::enter(Verdict::failed(Exit::Fleet, reason), now, book);
        }
        State::Arming(self)
    }

    /// What is being waited for, for people.
    pub(crate) fn waits_for(&self, book: &Book) -> String {
        let names = |all: Vec<Generation>| -> String {
            all.iter().map(|g| book.worker_name(*g)).collect::<Vec<_>>().join(", ")
        };
        let (late, uncut) = (self.load.not_armed(), book.uncut());
        match (late.is_empty(), uncut.is_empty()) {
            (false, _) => format!("waiting for {} to connect and to read the data", names(late)),
            (true, false) => format!("waiting until lost {} can send nothing more", names(uncut)),
            (true, true) => String::from("ready"),
        }
    }
}

/// The server's counters are read before the first request.
#[derive(Debug)]
pub(crate) struct CountingIn {
    load: Load,
}

impl CountingIn {
    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    pub(crate) fn advance(mut self, happened: Happened, now: MonoNs, book: &mut Book) -> State {
        let counted = matches!(happened, Happened::CommandsCounted(Edge::Start));
        or_close!(self.load.take(happened, now, book), now, book);
        if !counted {
            return State::CountingIn(self);
        }
        let next = Starting::new(self.load.clone(), now, book);
        self.to(next)
    }
}

/// The start instant is on its way into the log.
#[derive(Debug)]
pub(crate) struct Starting {
    load: Load,
    at: MonoNs,
    ticket: Ticket,
}

impl Starting {
    fn new(load: Load, now: MonoNs, book: &mut Book) -> Self {
        let at = now.saturating_add(book.settings.start_lead_ns);
        let started = book.log_phase_started(at, Some(load.order().clone()));
        // Also where ranges are leased: whoever goes on with this phase has to know who takes part.
        let ticket = log_owners(&load, 0, book).max(started);
        Self { load, at, ticket }
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    pub(crate) fn advance(mut self, happened: Happened, now: MonoNs, book: &mut Book) -> State {
        let durable = matches!(happened, Happened::Logged(ticket) if ticket == self.ticket);
        or_close!(self.load.take(happened, now, book), now, book);
        if !durable {
            return State::Starting(self);
        }
        if now.saturating_add(book.settings.start_notice_ns) > self.at {
            // The log took too long: an instant that lies behind would make every first request late.
            return State::Starting(Self::new(self.load, now, book));
        }
        let (phase, at, at_wall) = (self.load.phase(), self.at, book.wall(self.at));
        for generation in self.load.awaited() {
            book.tell(generation, Tell::Start { phase, at, at_wall });
        }
        book.observing = true;
        book.observe();
        let ends = ends(&self.load, at, book);
        let next = Loading { load: self.load.clone(), start: at, ends, moving: None, drained: None };
        self.to(next)
    }
}

/// When a phase that started at an instant must have ended; `None` where the work itself ends it.
fn ends(load: &Load, start: MonoNs, book: &Book) -> Option<MonoNs> {
    let order = load.order();
    let length = order.warm_up_ns.saturating_add(order.duration_ns);
    (!load.is_leased() && length > 0).then(|| {
        start
            .saturating_add(length)
            .saturating_add(DRAIN_NS.max(order.timeout_ns))
            .saturating_add(book.settings.grace_ns)
    })
}

fn log_owners(load: &Load, from_ns: u64, book: &mut Book) -> Ticket {
    let lanes = owners(&load.owners(), book);
    book.log(Control::SharesOwned { phase: load.phase(), from_ns, lanes, total: load.order().lanes_total })
}

fn owners(lanes: &[(Generation, u32, u32)], book: &Book) -> Vec<LaneOwner> {
    let owner = |(generation, first_lane, lanes): &(Generation, u32, u32)| LaneOwner {
        worker: WorkerId::new(book.worker_name(*generation)),
        generation: *generation,
        first_lane: *first_lane,
        lanes: *lanes,
    };
    lanes.iter().map(owner).collect()
}

/// The workers send load.
#[derive(Debug)]
pub(crate) struct Loading {
    load: Load,
    /// When the schedule began.
    start: MonoNs,
    /// When the last one must have ended; `None` where the work itself ends the phase.
    ends: Option<MonoNs>,
    /// Shares that move from an instant on, until the log says so.
    moving: Option<(Ticket, u64)>,
    /// Since when the phase drains, and until when those that were told to must have ended.
    drained: Option<(MonoNs, MonoNs)>,
}

impl Loading {
    /// The load that another coordinator started goes on; its workers come back by and by.
    pub(crate) fn restore(plan: LoadPlan, past: &OpenPhase, now: MonoNs, book: &mut Book) -> State {
        let start = book.mono(past.started.start_wall_ns);
        let load = Load::restore(plan, past, start, book);
        book.take_up(start, load.units().0);
        let ends = ends(&load, start, book);
        Self { load, start, ends, moving: None, drained: None }.go_on(now, book)
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    pub(crate) fn advance(mut self, happened: Happened, now: MonoNs, book: &mut Book) -> State {
        let left = matches!(happened, Happened::Left(_)).then(|| self.load.owners().len());
        if let (Happened::Logged(ticket), Some((awaited, from_ns))) = (&happened, self.moving)
            && *ticket == awaited
        {
            self.moving = None;
            self.load.tell_heirs(from_ns, book);
        }
        let back = match &happened {
            Happened::Resumed(generation, _) => Some(*generation),
            _ => None,
        };
        if let Happened::Resumed(generation, _) = &happened
            && self.load.is_armed_only(&happened)
        {
            // The coordinator before this one died between the log and the word.
            let (phase, at, at_wall) = (self.load.phase(), self.start, book.wall(self.start));
            book.tell(*generation, Tell::Start { phase, at, at_wall });
        }
        if let Taken::Fatal(verdict) = self.load.take(happened, now, book) {
            return self.fail(verdict, now, book);
        }
        if left.is_some_and(|owners| owners != self.load.owners().len()) {
            log_owners(&self.load, now.saturating_sub(self.start), book);
        }
        if let Some(generation) = back {
            // It may not have heard of what it took over.
            let pending = self.moving.map(|(_, from_ns)| from_ns);
            self.load.tell_heir(generation, |from_ns| Some(from_ns) != pending, book);
        }
        self.go_on(now, book)
    }

    /// The schedule of those who are gone goes on in other hands.
    fn move_shares(&mut self, now: MonoNs, book: &mut Book) {
        let order = self.load.order();
        let length_ns = order.warm_up_ns.saturating_add(order.duration_ns);
        let from_ns = now.saturating_sub(self.start).saturating_add(MOVE_NOTICE_NS);
        if self.drained.is_some() || self.moving.is_some() || (length_ns > 0 && from_ns >= length_ns) {
            return;
        }
        let Some(heirs) = self.load.pass_on(from_ns) else { return };
        let lanes = owners(&heirs, book);
        let ticket = book.log(Control::SharesMoved { phase: self.load.phase(), from_ns, lanes });
        self.moving = Some((ticket, from_ns));
    }

    fn go_on(mut self, now: MonoNs, book: &mut Book) -> State {
        let awaited = self.load.awaited();
        if awaited.is_empty() {
            return self.over(now, book);
        }
        if let Some((_, until)) = self.drained {
            if now >= until {
                let names: Vec<String> = awaited.iter().map(|g| book.worker_name(*g)).collect();
                let reason = format!("phase {} was not ended by {}", book.phase_name(), names.join(", "));
                book.note("phase_not_ended", None, reason.clone());
                book.stop_after_phase(Verdict::failed(Exit::Fleet, reason));
                return self.over(now, book);
            }
        } else if self.ends.is_some_and(|ends| now >= ends) {
            return self.drain(now, book);
        }
        self.move_shares(now, book);
        State::Loading(self)
    }

    /// The phase cannot do what it was to do: what is in flight ends, and what was measured is delivered.
    pub(crate) fn fail(self, verdict: Verdict, now: MonoNs, book: &mut Book) -> State {
        book.stop_after_phase(verdict);
        match self.drain(now, book) {
            State::Loading(draining) => draining.go_on(now, book),
            other => other,
        }
    }

    /// Tells those that have not ended to send nothing new.
    pub(crate) fn drain(mut self, now: MonoNs, book: &mut Book) -> State {
        if self.drained.is_none() {
            let patience = DRAIN_NS.max(self.load.order().timeout_ns).saturating_add(book.settings.grace_ns);
            self.drained = Some((now, now.saturating_add(patience)));
            self.load.stop_leasing();
            for generation in self.load.awaited() {
                book.tell(generation, Tell::Drain(self.load.phase()));
            }
        }
        State::Loading(self)
    }

    fn over(self, now: MonoNs, book: &mut Book) -> State {
        if book.stopping.is_none() && !self.load.is_done() {
            let (done, total) = self.load.units();
            let reason = format!(
                "the workers ended phase {} with {done} of {total} rows done: see their faults in table events",
                book.phase_name()
            );
            book.stop_after_phase(Verdict::failed(Exit::Fleet, reason));
        }
        let outcome = match book.stopping.as_ref().map(|verdict| &verdict.state) {
            Some(RunState::Failed { reason }) => PhaseOutcome::Failed { reason: reason.clone() },
            Some(_) => PhaseOutcome::Interrupted,
            None => PhaseOutcome::Completed,
        };
        book.act(Action::CountCommands { phase: self.load.phase(), edge: Edge::End });
        // Only a drain cuts the schedule short: what falls due after everybody went is to be sent all the same.
        let until = self.drained.map_or(MonoNs::MAX, |(since, _)| since);
        let loaded = self.load.loaded(self.start, until);
        let next = CountingOut { load: self.load.clone(), loaded, ended: now, outcome };
        self.to(next)
    }
}

/// The server's counters are read after the last reply.
#[derive(Debug)]
pub(crate) struct CountingOut {
    load: Load,
    loaded: Loaded,
    ended: MonoNs,
    outcome: PhaseOutcome,
}

impl CountingOut {
    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        match happened {
            Happened::CommandsCounted(Edge::End) => {
                let next = Ending::new(
                    self.ended,
                    self.outcome.clone(),
                    self.load.statements(),
                    self.loaded,
                    now,
                    book,
                );
                self.to(next)
            }
            Happened::Said(generation, Said::Fault { reason, .. }) => {
                book.note("fault", Some(*generation), reason.clone());
                State::CountingOut(self)
            }
            _ => State::CountingOut(self),
        }
    }
}
