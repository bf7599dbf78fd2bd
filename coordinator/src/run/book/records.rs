//! What the book writes into the log about the beginning and the end of phases.
//!
//! Law: of each phase that the log says began it says once that it ended, those beside it before the phase itself.

use vst_common::clock::MonoNs;
use vst_common::entry::{Control, PhaseEnded, PhaseOutcome, PhaseStarted, RunState};
use vst_common::ids::PhaseIndex;
use vst_common::phase::PhaseOrder;

use super::super::{Ticket, Verdict};
use super::{Book, Loaded};
use crate::plan::BASELINE;

impl Book {
    /// Logs that the phase begins at an instant; said again with a later one, it replaces what was said before.
    pub(crate) fn log_phase_started(&mut self, at: MonoNs, order: Option<PhaseOrder>) -> Ticket {
        let start_wall_ns = self.wall(at);
        self.open = true;
        self.began = at;
        let (index, name) = (self.phase_index(), self.phase_name());
        let step =
            self.phase().map_or("", |p| if p.name == BASELINE { BASELINE } else { p.word() }).to_owned();
        let beside = None;
        let started = PhaseStarted { index, name, step, start_wall_ns, start_mono_ns: at, order, beside };
        self.log(Control::PhaseStarted(started))
    }

    /// The same of a phase that runs beside the one of the sequence.
    pub(crate) fn log_beside_started(
        &mut self,
        index: PhaseIndex,
        at: MonoNs,
        order: Option<PhaseOrder>,
    ) -> Ticket {
        let start_wall_ns = self.wall(at);
        self.beside.insert(index, at);
        let (name, step) =
            self.planned(index).map_or((String::new(), ""), |phase| (phase.name.clone(), phase.word()));
        let (step, beside) = (step.to_owned(), Some(self.phase_index()));
        let started = PhaseStarted { index, name, step, start_wall_ns, start_mono_ns: at, order, beside };
        self.log(Control::PhaseStarted(started))
    }

    /// Logs that a phase beside that of the sequence ended at an instant, but not before it began.
    pub(crate) fn log_beside_ended(
        &mut self,
        index: PhaseIndex,
        at: MonoNs,
        outcome: PhaseOutcome,
        load: Loaded,
    ) {
        let exit_code = self.stopping.as_ref().map_or(0, |verdict| verdict.exit.code());
        self.log_beside_over(index, at, outcome, load, exit_code);
    }

    fn log_beside_over(
        &mut self,
        index: PhaseIndex,
        at: MonoNs,
        outcome: PhaseOutcome,
        load: Loaded,
        exit_code: u8,
    ) {
        let Some(began) = self.beside.remove(&index) else { return };
        let Loaded { totals, scheduled, unowned } = load;
        // As far as the phase itself has come.
        let live = self.live(false);
        let end_wall_ns = self.wall(at.max(began));
        let ended = PhaseEnded { index, end_wall_ns, outcome, totals, scheduled, unowned, live, exit_code };
        self.log(Control::PhaseEnded(ended));
    }

    /// Takes up a phase that another coordinator began beside that of the sequence.
    pub(crate) fn take_up_beside(&mut self, index: PhaseIndex, began: MonoNs) {
        self.beside.insert(index, began);
    }

    /// Rows that live when the phase has ended, or as far as it has come.
    fn live(&self, completed: bool) -> u64 {
        match self.phase().map(|phase| (phase.before, phase.after)) {
            Some((_, after)) if completed => after.count(),
            Some((before, after)) if after.count() >= before.count() => {
                before.count().saturating_add(self.rows_done).min(after.count())
            }
            Some((before, _)) => before.count().saturating_sub(self.rows_done),
            None => 0,
        }
    }

    /// Logs that the phase ended at an instant, and what is alive now where that changed. Gives the last ticket.
    pub(crate) fn log_phase_ended(&mut self, at: MonoNs, outcome: PhaseOutcome, load: Loaded) -> Ticket {
        let exit_code = self.stopping.as_ref().map_or(0, |verdict| verdict.exit.code());
        self.log_phase_over(at, outcome, load, exit_code)
    }

    fn log_phase_over(&mut self, at: MonoNs, outcome: PhaseOutcome, load: Loaded, exit_code: u8) -> Ticket {
        let Loaded { totals, scheduled, unowned } = load;
        self.open = false;
        self.begun_before = None;
        let end_wall_ns = self.wall(at);
        let index = self.phase_index();
        let completed = outcome == PhaseOutcome::Completed;
        let (before, after) = self.phase().map_or((None, None), |p| (Some(p.before), Some(p.after)));
        let live = self.live(completed);
        let ticket = self.log(Control::PhaseEnded(PhaseEnded {
            index,
            end_wall_ns,
            outcome,
            totals,
            scheduled,
            unowned,
            live,
            exit_code,
        }));
        match after {
            Some(live) if completed && before != after => {
                self.log(Control::PopulationChanged { phase: index, live })
            }
            _ => ticket,
        }
    }

    /// Closes the log's account of a phase that will not end by itself.
    pub(crate) fn break_off(&mut self, verdict: &Verdict, now: MonoNs) {
        if !self.open
            && let Some(begun) = self.begun_before
        {
            // The leader that wrote its start is gone, and nobody began it again.
            if self.phase().map(|phase| phase.index) != Some(begun) {
                let _ = self.next_phase(now);
            }
            self.open = true;
        }
        let outcome = match &verdict.state {
            RunState::Failed { reason } => PhaseOutcome::Failed { reason: reason.clone() },
            RunState::Finished | RunState::Interrupted => PhaseOutcome::Interrupted,
        };
        let beside: Vec<PhaseIndex> = self.beside.keys().copied().collect();
        for index in beside {
            self.log_beside_over(index, now, outcome.clone(), Loaded::default(), verdict.exit.code());
        }
        if self.open {
            self.log_phase_over(now, outcome, Loaded::default(), verdict.exit.code());
        }
    }
}
