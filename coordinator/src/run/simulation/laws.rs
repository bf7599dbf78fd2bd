//! What must hold of phases and of the log, whatever happened.

use std::collections::BTreeSet;

use vst_common::entry::Control;
use vst_common::ids::{Generation, PhaseIndex};
use vst_common::ranges::RowRange;

use super::super::*;
use super::fleet::Worker;
use super::stage::{BESIDE, EXCHANGED, ROWS, group};
use super::world::World;

impl World {
    /// The laws of a phase's end, checked at the moment at which it is logged.
    pub(super) fn check_phase_may_end(&self, phase: PhaseIndex) {
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
    pub(super) fn is_loaded(&self, phase: PhaseIndex) -> bool {
        let told = |g: &Generation| self.told.contains(&(phase, *g));
        let started = |w: &Worker| w.beside.get(&phase).map_or(w.started && phase.0 < BESIDE, |b| b.started);
        self.workers.iter().any(|(g, w)| started(w) && !w.gone && told(g))
    }

    pub(super) fn rows_left(&self, phase: PhaseIndex) -> u64 {
        let total = match phase.0 {
            2 => ROWS,
            5 => ROWS - ROWS / 2,
            6 => 2 * EXCHANGED,
            _ => 0,
        };
        total - self.ranges_done(phase).iter().map(|r| r.len()).sum::<u64>()
    }

    pub(super) fn is_lost(&self, generation: &Generation) -> bool {
        let member = self.core.roster().get(*generation);
        self.lost.contains(generation) || member.is_some_and(|m| m.presence == Presence::Lost)
    }

    pub(super) fn ranges_done(&self, wanted: PhaseIndex) -> Vec<RowRange> {
        let done = self.trace.iter().filter_map(|c| match c {
            Control::RangeDone { phase, range, .. } if *phase == wanted => Some(*range),
            _ => None,
        });
        let mut done: Vec<RowRange> = done.collect();
        done.sort();
        assert!(done.windows(2).all(|w| w[0].end <= w[1].start), "a range was done twice: {done:?}");
        done
    }

    pub(super) fn check_log(&self) {
        let mut next = 0;
        let mut open = None;
        let mut beside = BTreeSet::new();
        for control in &self.trace {
            match control {
                Control::PhaseStarted(started) if started.beside.is_some() => {
                    let of = group(started.index);
                    assert_eq!(started.beside, Some(PhaseIndex(of)));
                    // A load is named before the phase that it runs beside, a deed while that runs.
                    let is_load = started.order.is_some();
                    assert_eq!(of, next, "{} began beside another phase", started.index);
                    assert!(is_load || open == Some(PhaseIndex(of)), "{} began too early", started.index);
                    beside.insert(started.index);
                }
                Control::PhaseEnded(ended) if ended.index.0 >= BESIDE => {
                    assert!(beside.remove(&ended.index), "{} ended twice", ended.index);
                }
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
                    assert!(beside.is_empty(), "{} ended before {beside:?} beside it", ended.index);
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
        assert_eq!((open, beside.len()), (None, 0), "the log closed with a phase open");
    }
}
