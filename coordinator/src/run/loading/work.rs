//! The books of one phase of load: who takes part, who is armed, who holds what, who has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vst_common::clock::MonoNs;
use vst_common::entry::Control;
use vst_common::exit::Exit;
use vst_common::ids::{Generation, PhaseIndex, WorkerId};
use vst_common::phase::PhaseOrder;
use vst_common::ranges::{Cut, RowRange};
use vst_common::schedule::Schedule;
use vst_common::shares::ShareSet;

use super::super::book::{Book, Loaded};
use super::super::recovery::OpenPhase;
use super::super::{Happened, Said, Statement, Tell, Verdict};
use super::ownership::Ownership;
use crate::leases::{Handed, Leases, TRIES};
use crate::plan::LoadPlan;
use crate::roster::{Before, Presence, Stage};

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
    /// Those who took part and went before the end, and when.
    departed: BTreeMap<Generation, MonoNs>,
    /// Of an open phase that is not leased.
    ownership: Option<Ownership>,
    /// Took part under another coordinator; which ranges each holds is known when it is back, or does not matter any
    /// more when it is cut off.
    unheard: BTreeSet<Generation>,
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
        Some(Self {
            ownership: owned(&order, &deal, plan.cut.is_some()),
            order,
            taking_part: deal.iter().map(|(g, _, _)| *g).collect(),
            deal,
            armed: BTreeSet::new(),
            statements: BTreeMap::new(),
            leases: plan.cut.map(Leases::new),
            rows_total: plan.cut.map_or(0, rows_of),
            parked: BTreeMap::new(),
            leasing: true,
            departed: BTreeMap::new(),
            unheard: BTreeSet::new(),
        })
    }

    /// As another coordinator's log has it.
    pub(crate) fn restore(plan: LoadPlan, past: &OpenPhase, start: MonoNs, book: &Book) -> Self {
        let order = Arc::new(past.started.order.clone().unwrap_or(plan.order));
        let staying = |g: &Generation| book.roster.is_staying(*g);
        let deal: Vec<_> = past.dealt.iter().map(|o| (o.generation, o.first_lane, o.lanes)).collect();
        let taking_part: BTreeSet<Generation> = deal
            .iter()
            .map(|(g, _, _)| *g)
            .filter(|g| staying(g) && !past.departed.contains_key(g))
            .collect();
        let departed = deal
            .iter()
            .filter(|(g, _, _)| !taking_part.contains(g))
            .map(|(g, _, _)| (*g, start.saturating_add(past.departed.get(g).copied().unwrap_or(0))));
        // Of those that are lost it is not known either, and they may not be cut off yet.
        let lost = book.uncut().into_iter().filter(|lost| deal.iter().any(|(g, _, _)| g == lost));
        let unheard = taking_part.iter().copied().chain(lost).filter(|g| !past.statements.contains_key(g));
        let mut ownership = owned(&order, &deal, plan.cut.is_some());
        if let Some(ownership) = &mut ownership {
            for moved in &past.moved {
                ownership.pass_on(moved.from_ns, &moved.gone, &moved.heirs);
            }
        }
        Self {
            ownership,
            armed: taking_part.clone(),
            unheard: unheard.collect(),
            departed: departed.collect(),
            taking_part,
            deal,
            statements: past.statements.clone(),
            leases: plan.cut.map(|cut| Leases::resume(cut, &past.done)),
            rows_total: plan.cut.map_or(0, rows_of),
            parked: BTreeMap::new(),
            leasing: true,
            order,
        }
    }

    /// Whether a worker of this phase came back that was never told to start.
    pub(crate) fn is_armed_only(&self, happened: &Happened) -> bool {
        let Happened::Resumed(generation, before) = happened else { return false };
        self.taking_part.contains(generation) && before.phases.contains(&(self.phase(), Stage::Armed))
    }

    pub(crate) fn order(&self) -> &PhaseOrder {
        &self.order
    }

    pub(crate) fn phase(&self) -> PhaseIndex {
        self.order.index
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
    pub(crate) fn take(&mut self, happened: Happened, now: MonoNs, book: &mut Book) -> Taken {
        match happened {
            Happened::Said(generation, said) if self.taking_part.contains(&generation) => {
                self.said(generation, said, book)
            }
            Happened::Left(generation) if self.taking_part.remove(&generation) => {
                self.left(generation, now, book)
            }
            Happened::Resumed(generation, before) if self.taking_part.contains(&generation) => {
                self.resumed(generation, &before, book);
                Taken::Nothing
            }
            Happened::CutOff(generation) => {
                self.unheard.remove(&generation);
                if let Some(leases) = &mut self.leases {
                    let ranges = leases.release(generation);
                    let worker = book.worker_name(generation);
                    let detail = format!("{ranges} ranges of {worker} are free");
                    book.note("ranges_returned", Some(generation), detail);
                }
                self.serve_parked(book);
                Taken::Nothing
            }
            Happened::Tick => match book.uncuttable(now) {
                Some(reason) => Taken::Fatal(Verdict::failed(Exit::Target, reason)),
                None => Taken::Nothing,
            },
            _ => Taken::Nothing,
        }
    }

    fn left(&mut self, generation: Generation, now: MonoNs, book: &mut Book) -> Taken {
        self.parked.remove(&generation);
        self.departed.insert(generation, now);
        let lost = book.roster.get(generation).is_some_and(|m| m.presence == Presence::Lost);
        if !lost {
            self.unheard.remove(&generation);
        }
        if let Some(leases) = &mut self.leases {
            if lost {
                let ranges = leases.lose(generation);
                let worker = book.worker_name(generation);
                let detail = format!("{ranges} ranges of {worker} wait until it can send nothing more");
                book.note("ranges_kept_back", Some(generation), detail);
            } else {
                leases.release(generation);
            }
        }
        // Whoever has made a statement has ended; the phase is not over for want of others.
        let ended = !self.statements.is_empty() && self.is_done();
        if self.taking_part.is_empty() && !ended {
            let reason = format!("all workers of phase {} are lost or have left", self.order.name);
            return Taken::Fatal(Verdict::failed(Exit::Fleet, reason));
        }
        self.serve_parked(book);
        Taken::Nothing
    }

    /// What the phase comes to, when it began at `start` and its schedule was followed until `until` at most.
    pub(crate) fn loaded(&self, start: MonoNs, until: MonoNs) -> Loaded {
        let none = Loaded::default();
        if self.is_leased() {
            return none;
        }
        let Some(schedule) = Schedule::of_order(&self.order) else { return none };
        let until_ns = until.saturating_sub(start).min(schedule.length_ns());
        let mut unowned: u64 = 0;
        for (generation, at) in &self.departed {
            let Some(ownership) = &self.ownership else { continue };
            let due = |from_ns| ownership.due(&schedule, *generation, from_ns, until_ns);
            let left = match self.statements.get(generation) {
                // What it took up is stated, so the rest is exact.
                Some(statement) => due(0).saturating_sub(statement.totals.due),
                None => due(at.saturating_sub(start)),
            };
            unowned = unowned.saturating_add(left);
        }
        Loaded { scheduled: Some(schedule.due_in(&ShareSet::all(), 0, until_ns)), unowned, ..none }
    }

    /// What those who are gone would have sent goes to those who are here, from an instant on; gives these, where
    /// anything has to move.
    pub(crate) fn pass_on(&mut self, from_ns: u64) -> Option<Vec<(Generation, u32, u32)>> {
        let gone: BTreeSet<Generation> = self.departed.keys().copied().collect();
        let mut heirs = self.owners();
        heirs.retain(|(g, _, _)| !self.statements.contains_key(g));
        let ownership = self.ownership.as_mut().filter(|o| !heirs.is_empty() && o.is_held_by(&gone))?;
        let lanes: Vec<(Generation, u32)> = heirs.iter().map(|(g, _, lanes)| (*g, *lanes)).collect();
        ownership.pass_on(from_ns, &gone, &lanes);
        Some(heirs)
    }

    /// Tells those who took over at an instant.
    pub(crate) fn tell_heirs(&self, from_ns: u64, book: &mut Book) {
        let Some(ownership) = &self.ownership else { return };
        for heir in ownership.heirs_at(from_ns) {
            self.tell_heir(heir, |at| at == from_ns, book);
        }
    }

    /// Tells a worker what it took over.
    pub(crate) fn tell_heir(&self, heir: Generation, told: impl Fn(u64) -> bool, book: &mut Book) {
        let Some(ownership) = &self.ownership else { return };
        for (from_ns, lanes) in ownership.taken_over(heir).into_iter().filter(|(at, _)| told(*at)) {
            book.tell(heir, Tell::TakeOver { phase: self.phase(), from_ns, lanes });
        }
    }

    /// Those who own lanes now.
    pub(crate) fn owners(&self) -> Vec<(Generation, u32, u32)> {
        self.deal.iter().filter(|(g, _, _)| !self.departed.contains_key(g)).copied().collect()
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
                    leases.release(generation);
                }
                self.statements.insert(generation, statement);
                self.serve_parked(book);
            }
            Said::Fault { reason, target, .. } => {
                let name = book.worker_name(generation);
                book.note("fault", Some(generation), reason.clone());
                let (exit, who) = match target {
                    true => (Exit::Target, format!("the target fails worker {name}")),
                    false => (Exit::Fleet, format!("worker {name} cannot go on")),
                };
                return Taken::Fatal(Verdict::failed(exit, format!("{who}: {reason}")));
            }
            _ => {}
        }
        Taken::Nothing
    }

    /// A worker of this phase is back and says how far it is.
    fn resumed(&mut self, generation: Generation, before: &Before, book: &mut Book) {
        self.unheard.remove(&generation);
        // It asks again for what it can take.
        self.parked.remove(&generation);
        let own = self.phase();
        if let Some(leases) = &mut self.leases {
            leases.adopt(generation, &before.held);
        }
        let ended = before.ended.iter().find(|statement| statement.phase == own);
        let stage = before.phases.iter().find(|(phase, _)| *phase == own).map(|(_, stage)| *stage);
        match (ended, stage) {
            (Some(statement), _) => {
                self.statements.insert(generation, *statement);
            }
            (None, Some(stage)) => {
                if stage == Stage::Preparing {
                    self.armed.remove(&generation);
                } else {
                    self.armed.insert(generation);
                }
            }
            (None, _) => {
                // The order was lost on its way.
                self.armed.remove(&generation);
                let dealt = self.deal.iter().find(|(g, _, _)| *g == generation);
                if let Some((_, first_lane, lanes)) = dealt {
                    let (order, first_lane, lanes) = (Arc::clone(&self.order), *first_lane, *lanes);
                    book.tell(generation, Tell::Arm { order, first_lane, lanes });
                }
            }
        }
        self.serve_parked(book);
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
        if !self.unheard.is_empty() && self.leasing {
            // What looks free may be in the hands of somebody who is not back yet.
            return;
        }
        let phase = self.order.index;
        let exhausted = leases.all_done() || !self.leasing;
        let fleet = self.deal.iter().map(|(g, _, _)| *g).filter(|g| book.roster.is_staying(*g)).collect();
        self.parked.retain(|generation, wanted| {
            let ranges =
                if exhausted { Vec::new() } else { leases.lease(*generation, u64::from(*wanted), &fleet) };
            if ranges.is_empty() && !exhausted {
                return true;
            }
            book.tell(*generation, Tell::Lease { phase, ranges, exhausted });
            false
        });
        // Who still waits may take from a straggler what that one has not begun.
        while let Some((holder, range)) = leases.ask_back(self.parked.len()) {
            book.tell(holder, Tell::GiveBack { phase, range });
        }
    }
}

fn owned(order: &PhaseOrder, deal: &[(Generation, u32, u32)], leased: bool) -> Option<Ownership> {
    Schedule::of_order(order).filter(|_| !leased).map(|_| Ownership::dealt(deal, order.lanes_total))
}

fn rows_of(cut: Cut) -> u64 {
    let last = cut.count().checked_sub(1).and_then(|i| cut.get(i));
    cut.get(0).zip(last).map_or(0, |(first, last)| last.end.saturating_sub(first.start))
}
