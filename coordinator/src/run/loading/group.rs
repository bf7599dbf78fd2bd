//! The loads of a phase: its own, and those that run beside it.
//!
//! Each has its own books, schedule and owners; they share the workers, the moment at which the phase is armed and its end.
//! Law: what the log says of the phase's start comes after what it says of those beside it, so whoever finds the one finds
//! the others.

use vst_common::clock::{MonoNs, SECOND_NS};
use vst_common::entry::{Control, LaneOwner, PhaseOutcome};
use vst_common::ids::{Generation, PhaseIndex, WorkerId};
use vst_common::phase::PhaseOrder;

use super::super::book::Book;
use super::super::ending::Stated;
use super::super::recovery::{OpenPhase, Past};
use super::super::{Happened, Said, Tell, Ticket};
use super::DRAIN_NS;
use super::work::{Load, Taken};
use crate::plan::{LoadPlan, PlannedStep};

/// Between the decision that shares move and the instant at which they do, nanoseconds: the log must have it and the heirs
/// must have heard of it.
const MOVE_NOTICE_NS: u64 = SECOND_NS;

/// One of them.
#[derive(Clone, Debug)]
struct Part {
    load: Load,
    /// From the phase's start to its own, nanoseconds.
    after_ns: u64,
    /// When its schedule begins; the instant counts once the log has it.
    start: MonoNs,
    /// Shares that move from an instant on, until the log says so.
    moving: Option<(Ticket, u64)>,
    /// When everybody had ended it.
    over: Option<MonoNs>,
}

impl Part {
    fn new(load: Load, after_ns: u64) -> Self {
        Self { load, after_ns, start: 0, moving: None, over: None }
    }

    fn hear(&mut self, happened: &Happened, now: MonoNs, book: &mut Book) -> Taken {
        let left = matches!(happened, Happened::Left(_)).then(|| self.load.owners().len());
        if let (Happened::Logged(ticket), Some((awaited, from_ns))) = (happened, self.moving)
            && *ticket == awaited
        {
            self.moving = None;
            self.load.tell_heirs(from_ns, book);
        }
        if let Happened::Resumed(generation, _) = happened
            && self.load.is_armed_only(happened)
        {
            // The coordinator before this one died between the log and the word.
            self.tell_start(*generation, book);
        }
        if let Taken::Fatal(verdict) = self.load.take(happened.clone(), now, book) {
            return Taken::Fatal(verdict);
        }
        if left.is_some_and(|owners| owners != self.load.owners().len()) {
            log_owners(&self.load, now.saturating_sub(self.start), book);
        }
        if let Happened::Resumed(generation, _) = happened {
            // It may not have heard of what it took over.
            let pending = self.moving.map(|(_, from_ns)| from_ns);
            self.load.tell_heir(*generation, |from_ns| Some(from_ns) != pending, book);
        }
        if self.over.is_none() && self.load.awaited().is_empty() {
            self.over = Some(now);
        }
        Taken::Nothing
    }

    fn tell_start(&self, generation: Generation, book: &mut Book) {
        let (phase, at, at_wall) = (self.load.phase(), self.start, book.wall(self.start));
        book.tell(generation, Tell::Start { phase, at, at_wall });
    }

    /// The schedule of those who are gone goes on in other hands.
    fn move_shares(&mut self, now: MonoNs, book: &mut Book) {
        let order = self.load.order();
        let length_ns = order.warm_up_ns.saturating_add(order.duration_ns);
        // Of a load that has not begun all moves; an instant of nought is that of the first deal.
        let from_ns = now.saturating_add(MOVE_NOTICE_NS).saturating_sub(self.start).max(1);
        if self.moving.is_some() || (length_ns > 0 && from_ns >= length_ns) {
            return;
        }
        let Some(heirs) = self.load.pass_on(from_ns) else { return };
        let lanes = owners(&heirs, book);
        let ticket = book.log(Control::SharesMoved { phase: self.load.phase(), from_ns, lanes });
        self.moving = Some((ticket, from_ns));
    }

    fn stated(&self, outcome: &PhaseOutcome, until: MonoNs, now: MonoNs) -> Stated {
        Stated {
            phase: self.load.phase(),
            ended: self.over.unwrap_or(now),
            outcome: outcome.clone(),
            statements: self.load.statements().clone(),
            load: self.load.loaded(self.start, until),
        }
    }
}

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    main: Part,
    beside: Vec<Part>,
}

impl Group {
    /// Tells every member to get ready for all; `None` when nobody is there.
    pub(crate) fn arm(plan: LoadPlan, book: &mut Book) -> Option<Self> {
        let beside = loads_beside(plan.order.index, book);
        let main = Part::new(Load::arm(plan, book)?, 0);
        let beside = beside
            .into_iter()
            .filter_map(|(plan, after_ns)| Some(Part::new(Load::arm(plan, book)?, after_ns)))
            .collect();
        Some(Self { main, beside })
    }

    /// As another coordinator's log has it.
    pub(crate) fn restore(plan: LoadPlan, open: &OpenPhase, past: &Past, book: &Book) -> Self {
        let part = |plan: LoadPlan, after_ns, past: &OpenPhase| {
            let start = book.mono(past.started.start_wall_ns);
            Part { start, ..Part::new(Load::restore(plan, past, start, book), after_ns) }
        };
        // Those that have ended are over: everything about them is logged.
        let beside = loads_beside(plan.order.index, book)
            .into_iter()
            .filter_map(|(plan, after_ns)| {
                let past = past.beside().iter().find(|other| other.started.index == plan.order.index)?;
                Some(part(plan, after_ns, past))
            })
            .collect();
        Self { main: part(plan, 0, open), beside }
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.main).chain(&self.beside)
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        std::iter::once(&mut self.main).chain(&mut self.beside)
    }

    /// The phase's own.
    pub(crate) fn main(&self) -> &Load {
        &self.main.load
    }

    pub(crate) fn phase(&self) -> PhaseIndex {
        self.main.load.phase()
    }

    /// When the phase began.
    pub(crate) fn start(&self) -> MonoNs {
        self.main.start
    }

    /// Rows done and in total; zeros where rows are not what ends the phase.
    pub(crate) fn units(&self) -> (u64, u64) {
        self.main.load.units()
    }

    /// Whether all ranges are done, or there are none.
    pub(crate) fn is_done(&self) -> bool {
        self.main.load.is_done()
    }

    /// The longest that a request of any may take, nanoseconds.
    pub(crate) fn timeout_ns(&self) -> u64 {
        self.parts().map(|part| part.load.order().timeout_ns).max().unwrap_or(0)
    }

    /// Those who take part, are not lost, and are not armed for all.
    pub(crate) fn not_armed(&self) -> Vec<Generation> {
        self.of_all(Load::not_armed)
    }

    /// Those who take part, are not lost, and have not ended all.
    pub(crate) fn awaited(&self) -> Vec<Generation> {
        self.of_all(Load::awaited)
    }

    fn of_all(&self, which: impl Fn(&Load) -> Vec<Generation>) -> Vec<Generation> {
        let mut all: Vec<Generation> = self.parts().flat_map(|part| which(&part.load)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Loads beside the phase whose time has not come at an instant.
    pub(crate) fn unbegun(&self, now: MonoNs) -> Vec<PhaseIndex> {
        self.beside.iter().filter(|part| part.start > now).map(|part| part.load.phase()).collect()
    }

    pub(crate) fn stop_leasing(&mut self) {
        self.parts_mut().for_each(|part| part.load.stop_leasing());
    }

    /// Names the instant of the start in the log; gives what has to be durable before anybody may be told.
    pub(crate) fn log_start(&mut self, at: MonoNs, book: &mut Book) -> Ticket {
        for part in &mut self.beside {
            part.start = at.saturating_add(part.after_ns);
            let order: PhaseOrder = part.load.order().clone();
            book.log_beside_started(part.load.phase(), part.start, Some(order));
            log_owners(&part.load, 0, book);
        }
        self.main.start = at;
        let started = book.log_phase_started(at, Some(self.main.load.order().clone()));
        // Also where ranges are leased: whoever goes on with this phase has to know who takes part.
        log_owners(&self.main.load, 0, book).max(started)
    }

    /// Tells everybody when it begins.
    pub(crate) fn tell_start(&self, book: &mut Book) {
        for part in self.parts() {
            for generation in part.load.awaited() {
                part.tell_start(generation, book);
            }
        }
    }

    /// Tells those of these that have not ended to send nothing new: also for the phase itself, or only beside it.
    pub(crate) fn tell_drain(&self, main: bool, these: impl Fn(Generation) -> bool, book: &mut Book) {
        for part in self.parts().skip(usize::from(!main)) {
            for generation in part.load.awaited().into_iter().filter(|generation| these(*generation)) {
                book.tell(generation, Tell::Drain(part.load.phase()));
            }
        }
    }

    /// When the phase must have ended; `None` where its work ends it.
    pub(crate) fn ends(&self, book: &Book) -> Option<MonoNs> {
        let order = self.main.load.order();
        let length = order.warm_up_ns.saturating_add(order.duration_ns);
        (!self.main.load.is_leased() && length > 0).then(|| {
            self.main
                .start
                .saturating_add(length)
                .saturating_add(DRAIN_NS.max(order.timeout_ns))
                .saturating_add(book.settings.grace_ns)
        })
    }

    /// Takes in what happened before the load began.
    pub(crate) fn take(&mut self, happened: Happened, now: MonoNs, book: &mut Book) -> Taken {
        self.each(&happened, |part| part.load.take(happened.clone(), now, book))
    }

    /// Takes in what happened while the load runs.
    pub(crate) fn hear(&mut self, happened: Happened, now: MonoNs, book: &mut Book) -> Taken {
        self.each(&happened, |part| part.hear(&happened, now, book))
    }

    fn each(&mut self, happened: &Happened, mut take: impl FnMut(&mut Part) -> Taken) -> Taken {
        // What goes wrong is said once, of the load that it happens to.
        let of = match happened {
            Happened::Said(_, Said::Fault { phase, .. }) => Some(*phase),
            _ => None,
        };
        let at = of.map(|phase| self.parts().position(|part| part.load.phase() == phase).unwrap_or(0));
        // All hear of it, also where it is the end for one.
        let mut taken = Taken::Nothing;
        for (n, part) in self.parts_mut().enumerate() {
            if at.is_none_or(|at| at == n)
                && let Taken::Fatal(verdict) = take(part)
                && matches!(taken, Taken::Nothing)
            {
                taken = Taken::Fatal(verdict);
            }
        }
        taken
    }

    /// The schedules of those who are gone go on in other hands.
    pub(crate) fn move_shares(&mut self, now: MonoNs, book: &mut Book) {
        self.parts_mut().for_each(|part| part.move_shares(now, book));
    }

    /// What is known of each when all have ended; schedules were followed until these instants at most.
    pub(crate) fn stated(
        &self,
        outcome: &PhaseOutcome,
        (until, until_beside): (MonoNs, MonoNs),
        now: MonoNs,
    ) -> (Stated, Vec<Stated>) {
        let beside = self.beside.iter().map(|part| part.stated(outcome, until_beside, now)).collect();
        (self.main.stated(outcome, until, now), beside)
    }
}

/// The loads that run beside a phase, and how long after it each begins.
fn loads_beside(phase: PhaseIndex, book: &Book) -> Vec<(LoadPlan, u64)> {
    let load = |planned: &crate::plan::PlannedPhase| match (&planned.step, planned.beside) {
        (PlannedStep::Load(load), Some((_, after_ns))) => Some(((**load).clone(), after_ns)),
        _ => None,
    };
    book.plan.beside(phase).filter_map(load).collect()
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
