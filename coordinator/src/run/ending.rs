//! The end of a phase: waits until what the workers stated is in the log, then logs the end and goes on.
//!
//! Law: an end is logged after the batches it speaks of. What does not come within the limit, or whose worker is lost,
//! is a finding; the run goes on.

use std::collections::BTreeMap;

use vst_common::clock::MonoNs;
use vst_common::entry::{Control, PhaseOutcome};
use vst_common::ids::{Generation, PhaseIndex, Sequence, WorkerId};

use super::beginning::begin_next;
use super::book::{Book, Loaded};
use super::closing::Closing;
use super::state::State;
use super::{Happened, Statement, Ticket};

/// What is known of a load that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Stated {
    pub(crate) phase: PhaseIndex,
    /// When everybody had ended it.
    pub(crate) ended: MonoNs,
    pub(crate) outcome: PhaseOutcome,
    /// The workers' last words about it.
    pub(crate) statements: BTreeMap<Generation, Statement>,
    pub(crate) load: Loaded,
}

impl Default for Stated {
    fn default() -> Self {
        Self {
            phase: PhaseIndex(0),
            ended: 0,
            outcome: PhaseOutcome::Completed,
            statements: BTreeMap::new(),
            load: Loaded::default(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ending {
    /// When everything had ended.
    ended: MonoNs,
    outcome: PhaseOutcome,
    load: Loaded,
    /// The loads beside it.
    beside: Vec<(PhaseIndex, MonoNs, PhaseOutcome, Loaded)>,
    /// What is not in the log yet: the last sequence stated.
    awaited: BTreeMap<Generation, u64>,
    until: MonoNs,
    /// The last record of the phase; its durability ends it.
    ticket: Option<Ticket>,
}

impl Ending {
    /// A phase without load has done its step.
    pub(crate) fn quiet(now: MonoNs, book: &mut Book) -> Self {
        let main = Stated { phase: book.phase_index(), ended: now, ..Stated::default() };
        Self::new(main, Vec::new(), now, book)
    }

    /// A phase of load has ended, and with it what ran beside it.
    pub(crate) fn new(main: Stated, beside: Vec<Stated>, now: MonoNs, book: &mut Book) -> Self {
        let until = now.saturating_add(book.settings.delivery_ns);
        let (ended, outcome) = (main.ended, main.outcome.clone());
        let mut awaited = BTreeMap::new();
        let beside = beside
            .into_iter()
            .map(|stated| {
                let (phase, ended, outcome) = (stated.phase, stated.ended, stated.outcome.clone());
                (phase, ended, outcome, take_in(stated, &mut awaited, book))
            })
            .collect();
        let load = take_in(main, &mut awaited, book);
        let mut ending = Self { ended, outcome, load, beside, awaited, until, ticket: None };
        ending.log_when_delivered(now, book);
        ending
    }

    pub(crate) fn advance(mut self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        match happened {
            Happened::Logged(ticket) if Some(*ticket) == self.ticket => {
                if book.stopping.is_some() {
                    return Closing::enter(book.verdict(), now, book);
                }
                begin_next(self, now, book)
            }
            Happened::Tick | Happened::Delivered | Happened::Left(_) => {
                self.log_when_delivered(now, book);
                State::Ending(self)
            }
            _ => State::Ending(self),
        }
    }

    fn log_when_delivered(&mut self, now: MonoNs, book: &mut Book) {
        if self.ticket.is_some() {
            return;
        }
        self.awaited.retain(|generation, sequence| book.delivered_up_to(*generation) < *sequence);
        if self.awaited.keys().any(|g| book.roster.is_staying(*g)) && now < self.until {
            return;
        }
        for (generation, sequence) in std::mem::take(&mut self.awaited) {
            let had = book.delivered_up_to(generation);
            let (name, phase) = (book.worker_name(generation), book.phase_name());
            let detail = format!("worker {name} stated {sequence} batches by the end of {phase}, {had} came");
            book.note("undelivered", Some(generation), detail.clone());
            book.findings.undelivered.push(detail);
        }
        for (phase, ended, outcome, load) in std::mem::take(&mut self.beside) {
            book.log_beside_ended(phase, ended, outcome, load);
        }
        self.ticket = Some(book.log_phase_ended(self.ended, self.outcome.clone(), self.load));
    }
}

/// Logs what was stated about a load; gives what it comes to, and adds what has to be delivered.
fn take_in(stated: Stated, awaited: &mut BTreeMap<Generation, u64>, book: &mut Book) -> Loaded {
    let Stated { phase, statements, mut load, .. } = stated;
    if load.unowned > 0 {
        let (name, unowned) = (book.name_of(phase), load.unowned);
        let of = load.scheduled.unwrap_or(0);
        let detail =
            format!("{unowned} of {of} requests of phase {name} fell due while no worker owned them");
        book.note("unowned", None, detail.clone());
        book.findings.unowned.push(detail);
    }
    for (generation, statement) in &statements {
        load.totals.add(&statement.totals);
        let worker = WorkerId::new(book.worker_name(*generation));
        let generation = *generation;
        if statement.dropped > 0 {
            let dropped = statement.dropped;
            book.findings.undelivered.push(format!("worker {worker} gave up {dropped} batches"));
        }
        let last = awaited.entry(generation).or_default();
        *last = (*last).max(statement.last_sequence);
        let last_sequence = Sequence(statement.last_sequence);
        book.log(Control::StreamEnded { worker, generation, phase, last_sequence, totals: statement.totals });
    }
    load
}
