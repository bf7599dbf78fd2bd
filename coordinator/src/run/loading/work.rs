//! The books of one phase of load: who takes part, who is armed, who holds what, who has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vst_common::entry::Control;
use vst_common::exit::Exit;
use vst_common::ids::{Generation, PhaseIndex, WorkerId};
use vst_common::phase::PhaseOrder;
use vst_common::ranges::RowRange;

use super::super::book::Book;
use super::super::{Happened, Said, Statement, Tell, Verdict};
use crate::leases::{Handed, Leases, TRIES};
use crate::plan::LoadPlan;

/// What an event did.
pub(crate) enum Taken {
    /// Nothing beyond the books.
    Nothing,
    /// The run cannot go on.
    Fatal(Verdict),
}

/// A phase of load, whatever state it is in.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    order: Arc<PhaseOrder>,
    /// (worker, first lane, lanes) as dealt when the phase was armed.
    deal: Vec<(Generation, u32, u32)>,
    /// Takes part and is not lost.
    taking_part: BTreeSet<Generation>,
    armed: BTreeSet<Generation>,
    statements: BTreeMap<Generation, Statement>,
    leases: Option<Leases>,
    rows_total: u64,
    /// Asked for ranges while none was free, and not all are done: answered when either changes.
    parked: BTreeMap<Generation, u32>,
    leasing: bool,
}

impl Load {
    /// Tells every member to get ready; `None` when nobody is there.
    pub(crate) fn arm(plan: LoadPlan, book: &mut Book) -> Option<Self> {
        let deal = book.roster.deal_lanes();
        let (_, first, lanes) = deal.last()?;
        let order = Arc::new(PhaseOrder { lanes_total: first.saturating_add(*lanes), ..plan.order });
        for (generation, first_lane, lanes) in &deal {
            let (order, first_lane, lanes) = (Arc::clone(&order), *first_lane, *lanes);
            book.tell(*generation, Tell::Arm { order, first_lane, lanes });
        }
        let rows = |cut: vst_common::ranges::Cut| {
            let last = cut.count().checked_sub(1).and_then(|i| cut.get(i));
            let first = cut.get(0);
            first.zip(last).map_or(0, |(first, last)| last.end.saturating_sub(first.start))
        };
        Some(Self {
            order,
            taking_part: deal.iter().map(|(g, _, _)| *g).collect(),
            deal,
            armed: BTreeSet::new(),
            statements: BTreeMap::new(),
            leases: plan.cut.map(Leases::new),
            rows_total: plan.cut.map_or(0, rows),
            parked: BTreeMap::new(),
            leasing: true,
        })
    }

    pub(crate) fn order(&self) -> &PhaseOrder {
        &self.order
    }

    pub(crate) fn phase(&self) -> PhaseIndex {
        self.order.index
    }

    pub(crate) fn deal(&self) -> &[(Generation, u32, u32)] {
        &self.deal
    }

    pub(crate) fn is_leased(&self) -> bool {
        self.leases.is_some()
    }

    /// Whether all of its ranges are done, or it has none.
    pub(crate) fn is_done(&self) -> bool {
        self.leases.as_ref().is_none_or(Leases::all_done)
    }

    pub(crate) fn statements(&self) -> &BTreeMap<Generation, Statement> {
        &self.statements
    }

    /// Rows done and in total; zeros where rows are not what ends the phase.
    pub(crate) fn units(&self) -> (u64, u64) {
        (self.leases.as_ref().map_or(0, Leases::rows_done), self.rows_total)
    }

    /// Those who take part, are not lost, and are not armed.
    pub(crate) fn not_armed(&self) -> Vec<Generation> {
        self.taking_part.difference(&self.armed).copied().collect()
    }

    /// Those who take part, are not lost, and have not ended.
    pub(crate) fn awaited(&self) -> Vec<Generation> {
        self.taking_part.iter().filter(|g| !self.statements.contains_key(g)).copied().collect()
    }

    pub(crate) fn stop_leasing(&mut self) {
        self.leasing = false;
    }

    /// Takes in what happened.
    pub(crate) fn take(&mut self, happened: Happened, book: &mut Book) -> Taken {
        match happened {
            Happened::Said(generation, said) if self.taking_part.contains(&generation) => {
                self.said(generation, said, book)
            }
            Happened::Left(generation) if self.taking_part.remove(&generation) => {
                self.parked.remove(&generation);
                if let Some(leases) = &mut self.leases {
                    let ranges = leases.lose(generation);
                    let worker = book.worker_name(generation);
                    book.note(
                        "ranges_returned",
                        Some(generation),
                        format!("{ranges} ranges of {worker} are free"),
                    );
                }
                if self.taking_part.is_empty() {
                    let reason = format!("all workers of phase {} are lost", book.phase_name());
                    return Taken::Fatal(Verdict::failed(Exit::Fleet, reason));
                }
                self.serve_parked(book);
                Taken::Nothing
            }
            _ => Taken::Nothing,
        }
    }

    fn said(&mut self, generation: Generation, said: Said, book: &mut Book) -> Taken {
        let own = self.phase();
        match said {
            Said::Armed(phase) if phase == own => {
                self.armed.insert(generation);
            }
            Said::LeaseRequest { phase, ranges } if phase == own => {
                self.parked.insert(generation, ranges);
                self.serve_parked(book);
            }
            Said::RangeDone { phase, range, ok, failed, first_error } if phase == own => {
                return self.handed_back(generation, range, ok, failed, &first_error, book);
            }
            Said::PhaseDone(statement) if statement.phase == own => {
                // It keeps nothing once it has ended; what it did not hand back is free.
                self.parked.remove(&generation);
                if let Some(leases) = &mut self.leases {
                    leases.lose(generation);
                }
                self.statements.insert(generation, statement);
                self.serve_parked(book);
            }
            Said::Fault { reason, .. } => {
                let name = book.worker_name(generation);
                book.note("fault", Some(generation), reason.clone());
                let verdict = Verdict::failed(Exit::Fleet, format!("worker {name} cannot go on: {reason}"));
                return Taken::Fatal(verdict);
            }
            _ => {}
        }
        Taken::Nothing
    }

    fn handed_back(
        &mut self,
        generation: Generation,
        range: RowRange,
        ok: u64,
        failed: u64,
        first_error: &str,
        book: &mut Book,
    ) -> Taken {
        let Some(leases) = &mut self.leases else { return Taken::Nothing };
        let (phase, worker) = (self.order.index, book.worker_name(generation));
        let rows = format!("rows {}..{}", range.start, range.end);
        match leases.hand_back(generation, range, ok, failed) {
            Handed::Done => {
                book.rows_done = leases.rows_done();
                let worker = WorkerId::new(worker);
                book.log(Control::RangeDone { phase, range, worker, generation, ok, failed });
            }
            Handed::Again => {
                let detail = format!("{failed} of {rows} failed at {worker}: {first_error}");
                book.note("range_failed", Some(generation), detail);
            }
            Handed::Failed => {
                let name = book.phase_name();
                let reason = format!(
                    "phase {name}: {rows} failed {TRIES} times, the last time with {failed} errors at {worker}: {first_error}"
                );
                book.note("range_failed", Some(generation), reason.clone());
                return Taken::Fatal(Verdict::failed(Exit::Target, reason));
            }
            Handed::NotHeld => {
                book.note(
                    "range_not_held",
                    Some(generation),
                    format!("{worker} handed back {rows} it does not hold"),
                );
            }
            Handed::Unfinished => {}
        }
        self.serve_parked(book);
        Taken::Nothing
    }

    /// Answers those who wait for ranges, as far as there is an answer.
    fn serve_parked(&mut self, book: &mut Book) {
        let Some(leases) = &mut self.leases else { return };
        let phase = self.order.index;
        let exhausted = leases.all_done() || !self.leasing;
        self.parked.retain(|generation, wanted| {
            let ranges = if exhausted { Vec::new() } else { leases.lease(*generation, u64::from(*wanted)) };
            if ranges.is_empty() && !exhausted {
                return true;
            }
            book.tell(*generation, Tell::Lease { phase, ranges, exhausted });
            false
        });
    }
}
