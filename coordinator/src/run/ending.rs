//! The end of a phase: waits until what the workers stated is in the log, then logs the end and goes on.
//!
//! Law: an end is logged after the batches it speaks of. What does not come within the limit, or whose worker is lost,
//! is a finding; the run goes on.

use std::collections::BTreeMap;

use vst_common::clock::MonoNs;
use vst_common::entry::{Control, PhaseOutcome};
use vst_common::ids::{Generation, Sequence, WorkerId};

use super::beginning::begin_next;
use super::book::{Book, Loaded};
use super::closing::Closing;
use super::state::State;
use super::{Happened, Statement, Ticket};

#[derive(Debug)]
pub(crate) struct Ending {
    /// When everything had ended.
    ended: MonoNs,
    outcome: PhaseOutcome,
    load: Loaded,
    /// What is not in the log yet: the last sequence stated.
    awaited: BTreeMap<Generation, u64>,
    until: MonoNs,
    /// The last record of the phase; its durability ends it.
    ticket: Option<Ticket>,
}

impl Ending {
    /// A phase without load has done its step.
    pub(crate) fn quiet(now: MonoNs, book: &mut Book) -> Self {
        Self::new(now, PhaseOutcome::Completed, &BTreeMap::new(), Loaded::default(), now, book)
    }

    /// A phase of load ended at `ended`; `statements` are the workers' last words about it.
    pub(crate) fn new(
        ended: MonoNs,
        outcome: PhaseOutcome,
        statements: &BTreeMap<Generation, Statement>,
        mut load: Loaded,
        now: MonoNs,
        book: &mut Book,
    ) -> Self {
        if load.unowned > 0 {
            let (phase, unowned) = (book.phase_name(), load.unowned);
            let of = load.scheduled.unwrap_or(0);
            let detail =
                format!("{unowned} of {of} requests of phase {phase} fell due while no worker owned them");
            book.note("unowned", None, detail.clone());
            book.findings.unowned.push(detail);
        }
        for (generation, statement) in statements {
            load.totals.add(&statement.totals);
            let worker = WorkerId::new(book.worker_name(*generation));
            let (generation, phase) = (*generation, book.phase_index());
            if statement.dropped > 0 {
                let dropped = statement.dropped;
                book.findings.undelivered.push(format!("worker {worker} gave up {dropped} batches"));
            }
            let last_sequence = Sequence(statement.last_sequence);
            book.log(Control::StreamEnded {
                worker,
                generation,
                phase,
                last_sequence,
                totals: statement.totals,
            });
        }
        let awaited = statements.iter().map(|(g, s)| (*g, s.last_sequence)).collect();
        let until = now.saturating_add(book.settings.delivery_ns);
        let mut ending = Self { ended, outcome, load, awaited, until, ticket: None };
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
        self.ticket = Some(book.log_phase_ended(self.ended, self.outcome.clone(), self.load));
    }
}
