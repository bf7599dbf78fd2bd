//! The first moments of a phase. A phase without load is logged as started at once and then does its step; one with
//! load is armed first, because its start instant is part of what is logged.

use vst_common::clock::MonoNs;
use vst_common::exit::Exit;
use vst_common::scenario::SettleSpec;
use vst_common::scenario::operations::Operation;

use super::awaiting::Awaiting;
use super::book::Book;
use super::checkpointing::Checkpointing;
use super::closing::Closing;
use super::ending::Ending;
use super::loading::Arming;
use super::settling::Settling;
use super::state::{State, TransitionTo};
use super::{Action, Happened, Ticket, Verdict};
use crate::plan::PlannedStep;

/// Begins the next phase, or closes the run after the last.
pub(crate) fn begin_next<S>(from: S, now: MonoNs, book: &mut Book) -> State
where
    S: TransitionTo<Beginning> + TransitionTo<Arming> + TransitionTo<Awaiting>,
{
    if book.next_phase(now).is_none() {
        if book.settings.on_demand && book.stopping.is_none() {
            return from.to(Awaiting::new(book));
        }
        return Closing::enter(book.verdict(), now, book);
    }
    let step = match book.phase().map(|p| p.step.clone()) {
        Some(PlannedStep::Load(load)) => {
            return match Arming::new(*load, now, book) {
                Some(arming) => from.to(arming),
                None => {
                    let verdict = Verdict::failed(Exit::Fleet, "no worker is left to send load");
                    Closing::enter(verdict, now, book)
                }
            };
        }
        Some(PlannedStep::CreateIndex) => Quiet::Index(Action::CreateIndex { again: false }),
        Some(PlannedStep::DropIndex) => Quiet::Index(Action::DropIndex),
        Some(PlannedStep::RebuildIndex(shape)) => Quiet::Index(Action::RebuildIndex(shape)),
        Some(PlannedStep::Settle(spec)) => Quiet::Settle(spec, None),
        Some(PlannedStep::Weigh(target)) => Quiet::Settle(target.settle, Some(target.bytes)),
        Some(PlannedStep::Operate(operation)) => Quiet::Operate(operation),
        Some(PlannedStep::Checkpoint) | None => Quiet::Checkpoint,
    };
    let ticket = book.log_phase_started(now, None);
    from.to(Beginning { ticket, step })
}

/// A step without load.
#[derive(Debug)]
enum Quiet {
    Index(Action),
    /// Until the target is at rest, and the memory that it may use then.
    Settle(SettleSpec, Option<u64>),
    Operate(Operation),
    Checkpoint,
}

/// The start of a phase without load is on its way into the log.
#[derive(Debug)]
pub(crate) struct Beginning {
    ticket: Ticket,
    step: Quiet,
}

impl Beginning {
    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        match happened {
            Happened::Logged(ticket) if *ticket == self.ticket => {}
            _ => return State::Beginning(self),
        }
        book.observing = true;
        book.observe();
        match &self.step {
            Quiet::Index(action) => {
                // Nobody is asked about an index that comes or goes.
                book.indexed = false;
                book.observe();
                book.act(match action {
                    Action::CreateIndex { .. } => Action::CreateIndex { again: book.is_begun_again() },
                    // What is dropped twice is gone all the same.
                    other => other.clone(),
                });
                self.to(Creating)
            }
            Quiet::Operate(operation) => {
                book.act(Action::Operate(operation.clone()));
                self.to(Creating)
            }
            Quiet::Checkpoint => self.to(Checkpointing::new(now, book)),
            Quiet::Settle(spec, bound_bytes) => {
                let settling = Settling::new(*spec, *bound_bytes, now);
                self.to(settling)
            }
        }
    }
}

/// The target is being changed: its index is made, dropped, or both, or the cluster itself changes; or a program runs.
#[derive(Debug)]
pub(crate) struct Creating;

impl Creating {
    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        match happened {
            Happened::IndexCreated => {
                book.indexed = true;
                book.observe();
                self.to(Ending::quiet(now, book))
            }
            Happened::IndexDropped | Happened::Operated => self.to(Ending::quiet(now, book)),
            _ => State::Creating(self),
        }
    }
}
