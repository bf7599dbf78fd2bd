//! What is done to index and cluster while a load runs.
//!
//! One deed after the other, each at its time or when the one before is done. Law: a deed begins when the log says so, and
//! what the log says is done is not done again.

use std::collections::VecDeque;

use vst_common::clock::MonoNs;
use vst_common::entry::PhaseOutcome;
use vst_common::ids::PhaseIndex;

use super::super::book::{Book, Loaded};
use super::super::{Action, Happened, Ticket};
use crate::plan::PlannedStep;

#[derive(Clone, Debug)]
struct Deed {
    phase: PhaseIndex,
    /// Its time.
    at: MonoNs,
    action: Action,
}

/// Where the deed is that has begun.
#[derive(Debug)]
enum Stage {
    /// Its start is on its way into the log.
    Logging(Ticket),
    /// It is being done.
    Doing,
}

/// The deeds of a phase.
#[derive(Debug)]
pub(crate) struct Deeds {
    waiting: VecDeque<Deed>,
    under_way: Option<(Deed, Stage)>,
}

impl Deeds {
    /// Those of a phase that began at `start`, without those that have ended.
    pub(crate) fn planned(
        phase: PhaseIndex,
        start: MonoNs,
        has_ended: impl Fn(PhaseIndex) -> bool,
        book: &Book,
    ) -> Self {
        let mut waiting: Vec<Deed> = book
            .plan
            .beside(phase)
            .filter(|planned| !has_ended(planned.index))
            .filter_map(|planned| {
                let action = match &planned.step {
                    PlannedStep::RebuildIndex(shape) => Action::RebuildIndex(shape.clone()),
                    PlannedStep::Operate(operation) => Action::Operate(operation.clone()),
                    _ => return None,
                };
                let (_, after_ns) = planned.beside?;
                Some(Deed { phase: planned.index, at: start.saturating_add(after_ns), action })
            })
            .collect();
        waiting.sort_by_key(|deed| deed.at);
        Self { waiting: waiting.into(), under_way: None }
    }

    /// Whether none is to be done any more.
    pub(crate) fn are_done(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// The one that is being done.
    pub(crate) fn under_way(&self) -> Option<PhaseIndex> {
        self.under_way.as_ref().map(|(deed, _)| deed.phase)
    }

    /// Takes in what happened, and begins what has its time.
    pub(crate) fn hear(&mut self, happened: &Happened, now: MonoNs, book: &mut Book) {
        match (&mut self.under_way, happened) {
            (Some((deed, stage @ Stage::Logging(_))), Happened::Logged(ticket)) => {
                if matches!(stage, Stage::Logging(own) if own == ticket) {
                    *stage = Stage::Doing;
                    if matches!(deed.action, Action::RebuildIndex(_)) {
                        // Nobody is asked about an index that comes or goes.
                        book.indexed = false;
                        book.observe();
                    }
                    book.act(deed.action.clone());
                }
            }
            (Some((deed, Stage::Doing)), Happened::IndexCreated | Happened::Operated) => {
                let phase = deed.phase;
                if matches!(happened, Happened::IndexCreated) {
                    book.indexed = true;
                    book.observe();
                }
                self.under_way = None;
                book.log_beside_ended(phase, now, PhaseOutcome::Completed, Loaded::default());
            }
            _ => {}
        }
        if self.under_way.is_none()
            && let Some(deed) = self.waiting.pop_front_if(|deed| deed.at <= now)
        {
            let ticket = book.log_beside_started(deed.phase, now, None);
            self.under_way = Some((deed, Stage::Logging(ticket)));
        }
    }

    /// Does not begin what has not had its time; gives what that is.
    pub(crate) fn call_off(&mut self, now: MonoNs) -> Vec<PhaseIndex> {
        let late = |deed: &Deed| deed.at > now;
        let phases = self.waiting.iter().filter(|deed| late(deed)).map(|deed| deed.phase).collect();
        self.waiting.retain(|deed| !late(deed));
        phases
    }

    /// Begins nothing more: the run is to end.
    pub(crate) fn stop(&mut self, now: MonoNs, book: &mut Book) {
        self.waiting.clear();
        if matches!(self.under_way, Some((_, Stage::Logging(_)))) {
            self.break_off(&PhaseOutcome::Interrupted, now, book);
        }
    }

    /// What is being done has failed.
    pub(crate) fn fail(&mut self, reason: &str, now: MonoNs, book: &mut Book) {
        self.break_off(&PhaseOutcome::Failed { reason: reason.to_owned() }, now, book);
    }

    /// What is being done is not waited for any more.
    pub(crate) fn break_off(&mut self, outcome: &PhaseOutcome, now: MonoNs, book: &mut Book) {
        if let Some((deed, _)) = self.under_way.take() {
            book.log_beside_ended(deed.phase, now, outcome.clone(), Loaded::default());
        }
    }
}
