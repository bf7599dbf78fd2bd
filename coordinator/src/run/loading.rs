//! A phase of load: armed, counted in, started, driven, counted out.
//!
//! Ranges are leased until all are done, or dealt shares run by the clock; either way the workers end the phase and
//! say so. Law: nobody starts before all are armed and the start is durable; the phase is over when every worker that
//! was armed has made its statement or is lost; `exhausted` is said only when every range is done, so that what a lost
//! worker leaves finds somebody; what runs beside a phase ends with it.

mod deeds;
mod group;
mod ownership;
mod work;

use vst_common::clock::{MonoNs, SECOND_NS};
use vst_common::entry::{PhaseOutcome, RunState};
use vst_common::exit::Exit;
use vst_common::ids::Generation;

use super::book::Book;
use super::closing::Closing;
use super::ending::{Ending, Stated};
use super::recovery::{OpenPhase, Past};
use super::state::{State, TransitionTo};
use super::{Action, Edge, Happened, Said, Ticket, Verdict};
use crate::plan::LoadPlan;
use deeds::Deeds;
pub(crate) use group::Group;
use work::Taken;

/// After its schedule a phase drains for at most this long, or its timeout where that is longer, nanoseconds.
const DRAIN_NS: u64 = 10 * SECOND_NS;
/// A start is named so far ahead at most, however slow the log is, nanoseconds.
const LEAD_MOST_NS: u64 = 30 * SECOND_NS;

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
    load: Group,
    until: MonoNs,
}

impl Arming {
    /// Tells everybody to get ready; `None` when nobody is there.
    pub(crate) fn new(plan: LoadPlan, now: MonoNs, book: &mut Book) -> Option<Self> {
        let load = Group::arm(plan, book)?;
        Some(Self { load, until: now.saturating_add(book.settings.arm_ns) })
    }

    pub(crate) fn load(&self) -> &Group {
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
    load: Group,
}

impl CountingIn {
    pub(crate) fn load(&self) -> &Group {
        &self.load
    }

    pub(crate) fn advance(mut self, happened: Happened, now: MonoNs, book: &mut Book) -> State {
        let counted = matches!(happened, Happened::CommandsCounted(Edge::Start));
        or_close!(self.load.take(happened, now, book), now, book);
        if !counted {
            return State::CountingIn(self);
        }
        let next = Starting::new(self.load.clone(), book.settings.start_lead_ns, now, book);
        self.to(next)
    }
}

/// The start instant is on its way into the log.
#[derive(Debug)]
pub(crate) struct Starting {
    load: Group,
    at: MonoNs,
    /// How far ahead it was named, nanoseconds.
    lead_ns: u64,
    ticket: Ticket,
}

impl Starting {
    fn new(mut load: Group, lead_ns: u64, now: MonoNs, book: &mut Book) -> Self {
        let at = now.saturating_add(lead_ns);
        let ticket = load.log_start(at, book);
        Self { load, at, lead_ns, ticket }
    }

    pub(crate) fn load(&self) -> &Group {
        &self.load
    }

    pub(crate) fn advance(mut self, happened: Happened, now: MonoNs, book: &mut Book) -> State {
        let durable = matches!(happened, Happened::Logged(ticket) if ticket == self.ticket);
        or_close!(self.load.take(happened, now, book), now, book);
        if !durable {
            return State::Starting(self);
        }
        if now.saturating_add(book.settings.start_notice_ns) > self.at {
            // The log took too long: an instant that lies behind would make every first request late. A log that is slow
            // once will be again.
            let lead_ns = self.lead_ns.saturating_mul(2).min(LEAD_MOST_NS);
            return State::Starting(Self::new(self.load, lead_ns, now, book));
        }
        self.load.tell_start(book);
        book.observing = true;
        book.observe();
        let (ends, deeds) =
            (self.load.ends(book), Deeds::planned(self.load.phase(), self.at, |_| false, book));
        let next = Loading { load: self.load.clone(), ends, deeds, drained: None, ending: None };
        self.to(next)
    }
}

/// The workers send load.
#[derive(Debug)]
pub(crate) struct Loading {
    load: Group,
    /// When the last one must have ended; `None` where the work itself ends the phase.
    ends: Option<MonoNs>,
    /// What is done to index and cluster meanwhile.
    deeds: Deeds,
    /// Since when the phase drains, and until when those that were told to must have ended.
    drained: Option<Drain>,
    /// The same of what runs beside it, when its own load has ended.
    ending: Option<Drain>,
}

/// Load that ends: since when, and until when it must have.
#[derive(Clone, Copy, Debug)]
struct Drain {
    since: MonoNs,
    until: MonoNs,
}

impl Loading {
    /// The load that another coordinator started goes on; its workers come back by and by.
    pub(crate) fn restore(
        plan: LoadPlan,
        open: &OpenPhase,
        past: &Past,
        now: MonoNs,
        book: &mut Book,
    ) -> State {
        let load = Group::restore(plan, open, past, book);
        book.take_up(load.start(), load.units().0);
        let ends = load.ends(book);
        let deeds = Deeds::planned(load.phase(), load.start(), |phase| past.has_ended(phase), book);
        Self { load, ends, deeds, drained: None, ending: None }.go_on(now, book)
    }

    pub(crate) fn load(&self) -> &Group {
        &self.load
    }

    pub(crate) fn advance(mut self, happened: Happened, now: MonoNs, book: &mut Book) -> State {
        let back = match &happened {
            Happened::Resumed(generation, _) => Some(*generation),
            _ => None,
        };
        self.deeds.hear(&happened, now, book);
        if let Taken::Fatal(verdict) = self.load.hear(happened, now, book) {
            return self.fail(verdict, now, book);
        }
        if back.is_some() && (self.drained.is_some() || self.ending.is_some()) {
            // It was not there to hear it.
            self.load.tell_drain(self.drained.is_some(), |generation| Some(generation) == back, book);
        }
        self.go_on(now, book)
    }

    fn go_on(mut self, now: MonoNs, book: &mut Book) -> State {
        let awaited = self.load.awaited();
        if self.load.main().awaited().is_empty() {
            if self.ending.is_none() {
                self.end_beside(now, book);
            }
            if self.load.awaited().is_empty() && self.deeds.are_done() {
                return self.over(now, book);
            }
        }
        // Deeds have limits of their own; they are not waited for where the run is to end.
        let ending = self.ending.filter(|_| !awaited.is_empty());
        if let Some(Drain { until, .. }) = self.drained.or(ending) {
            if now >= until {
                let names: Vec<String> = awaited.iter().map(|g| book.worker_name(*g)).collect();
                let reason = match self.deeds.under_way() {
                    Some(phase) if names.is_empty() => {
                        format!("{} did not come to its end with {}", book.name_of(phase), book.phase_name())
                    }
                    _ => format!("phase {} was not ended by {}", book.phase_name(), names.join(", ")),
                };
                book.note("phase_not_ended", None, reason.clone());
                book.stop_after_phase(Verdict::failed(Exit::Fleet, reason));
                return self.over(now, book);
            }
        } else if self.ends.is_some_and(|ends| now >= ends) {
            return self.drain(now, book);
        }
        if self.drained.is_none() && self.ending.is_none() {
            self.load.move_shares(now, book);
        }
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

    /// The same where it is what the coordinator does meanwhile that cannot be done.
    pub(crate) fn deed_failed(mut self, verdict: Verdict, now: MonoNs, book: &mut Book) -> State {
        // Said before, so that whoever finds the end of the deed in the log knows that the run ends with it.
        book.stop_after_phase(verdict.clone());
        self.deeds.fail(&verdict.reason, now, book);
        self.fail(verdict, now, book)
    }

    /// Tells those that have not ended to send nothing new.
    pub(crate) fn drain(mut self, now: MonoNs, book: &mut Book) -> State {
        if self.drained.is_none() {
            self.drained = Some(self.patience(now, book));
            if book.stopping.is_some() {
                self.deeds.stop(now, book);
            }
            self.load.stop_leasing();
            self.load.tell_drain(true, |_| true, book);
        }
        State::Loading(self)
    }

    /// The phase's own load is over, and what runs beside it ends with it.
    fn end_beside(&mut self, now: MonoNs, book: &mut Book) {
        self.ending = Some(self.patience(now, book));
        if self.drained.is_none() {
            self.load.tell_drain(false, |_| true, book);
        }
        let unbegun = self.load.unbegun(now).into_iter().chain(self.deeds.call_off(now));
        let unbegun: Vec<String> = unbegun.map(|phase| book.name_of(phase)).collect();
        if !unbegun.is_empty() && book.stopping.is_none() {
            let reason = format!(
                "phase {} ended before {} began beside it: let that begin earlier, or make the phase longer",
                book.phase_name(),
                unbegun.join(" and ")
            );
            book.note("beside_not_begun", None, reason.clone());
            book.stop_after_phase(Verdict::failed(Exit::Scenario, reason));
        }
    }

    fn patience(&self, now: MonoNs, book: &Book) -> Drain {
        let patience = DRAIN_NS.max(self.load.timeout_ns()).saturating_add(book.settings.grace_ns);
        Drain { since: now, until: now.saturating_add(patience) }
    }

    fn over(mut self, now: MonoNs, book: &mut Book) -> State {
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
        self.deeds.break_off(&outcome, now, book);
        book.act(Action::CountCommands { phase: self.load.phase(), edge: Edge::End });
        // Only a drain cuts the schedule short: what falls due after everybody went is to be sent all the same.
        let until = self.drained.map_or(MonoNs::MAX, |drain| drain.since);
        // What runs beside a phase without a length of its own has that of the phase.
        let until_beside = [self.drained, self.ending].into_iter().flatten().map(|drain| drain.since).min();
        let (main, beside) = self.load.stated(&outcome, (until, until_beside.unwrap_or(now)), now);
        let next = CountingOut { load: self.load.clone(), main, beside };
        self.to(next)
    }
}

/// The server's counters are read after the last reply.
#[derive(Debug)]
pub(crate) struct CountingOut {
    load: Group,
    main: Stated,
    beside: Vec<Stated>,
}

impl CountingOut {
    pub(crate) fn load(&self) -> &Group {
        &self.load
    }

    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        match happened {
            Happened::CommandsCounted(Edge::End) => {
                let (main, beside) = (self.main.clone(), self.beside.clone());
                let next = Ending::new(main, beside, now, book);
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
