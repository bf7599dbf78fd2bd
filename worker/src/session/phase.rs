//! One phase on this worker, from the order to `PhaseDone`.
//!
//! Fed by the session core; steps through preparing, arming, armed, running, flushing. A phase that cannot go on is
//! broken: it has said so with a fault and waits to be replaced or drained.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use vst_common::clock::{ClockOffset, MonoNs, SECOND_NS};
use vst_common::count;
use vst_common::ids::PhaseIndex;
use vst_common::phase::PhaseOrder;
use vst_common::ranges::RowRange;
use vst_common::scenario::Load;
use vst_common::shares::ShareSet;
use vst_proto::fleet;
use vst_proto::fleet::worker_message::Message as ToCoordinator;

use super::progress::Progress;
use super::ranges::RangeBook;
use super::{Action, NotReady, PhaseView, fault, target_fault};
use crate::fetch::verify::{self, Verified};
use crate::work::{ArmedPhase, LaneCommand, LaneEvent, LoadLease, RowBlock};

/// Time between two progress messages, nanoseconds.
const PROGRESS_NS: u64 = SECOND_NS / 2;
/// A phase drains for this long, or its timeout where that is longer, and a little for the lanes to say so.
const DRAIN_NS: u64 = 10 * SECOND_NS;
const LAST_WORD_NS: u64 = 2 * SECOND_NS;
/// Rows that a lane has in hand at least, so that it does not wait for the async side.
const ROWS_IN_HAND: u64 = 1024;
/// The same for a lane that sends by the clock.
const OPEN_ROWS_IN_HAND: u64 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Preparing,
    Arming,
    Armed,
    Running,
    Flushing,
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    Waiting,
    Armed,
    Over,
}

#[derive(Clone, Copy, Debug)]
struct LaneBook {
    state: LaneState,
    rows: u64,
}

/// The state of a phase.
#[derive(Debug)]
pub(super) struct Phase {
    ticket: u64,
    order: PhaseOrder,
    first_lane: u32,
    /// Number of the first of its lanes among all of this worker.
    offset: u32,
    lanes: Vec<LaneBook>,
    step: Step,
    start: Option<fleet::Start>,
    ranges: Option<RangeBook>,
    no_more_rows: bool,
    draining: bool,
    rows_in_hand: u64,
    progress: Progress,
    next_progress: MonoNs,
    lease: LoadLease,
    /// What this worker took over, by the instant from which on it is its own.
    taken: BTreeMap<u64, Vec<(u32, ShareSet)>>,
}

impl Phase {
    /// A phase that is being prepared, on the worker's lanes from `offset` on.
    pub(super) fn new(
        ticket: u64,
        order: PhaseOrder,
        arm: &fleet::Arm,
        offset: u32,
        lease: LoadLease,
        now: MonoNs,
    ) -> Self {
        let (first_lane, lanes) = (arm.first_lane, arm.lanes);
        let ranges = order.work.is_leased().then(|| RangeBook::new(order.index.0, lanes));
        let lanes = vec![LaneBook { state: LaneState::Waiting, rows: 0 }; count::index(u64::from(lanes))];
        Self {
            ticket,
            first_lane,
            offset,
            progress: Progress::new(lanes.len()),
            lanes,
            step: Step::Preparing,
            start: None,
            ranges,
            no_more_rows: false,
            draining: false,
            rows_in_hand: rows_in_hand(&order),
            next_progress: now,
            lease,
            taken: BTreeMap::new(),
            order,
        }
    }

    pub(super) fn index(&self) -> PhaseIndex {
        self.order.index
    }

    /// The phase of the sequence that it is, or runs beside.
    pub(super) fn group(&self) -> PhaseIndex {
        self.order.beside.unwrap_or(self.order.index)
    }

    pub(super) fn title(&self) -> (PhaseIndex, String) {
        (self.order.index, self.order.name.clone())
    }

    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Whether lanes may have sent load for it.
    pub(super) fn began(&self) -> bool {
        matches!(self.step, Step::Running | Step::Flushing)
    }

    /// How far it is, for a coordinator that knows nothing of it; nothing to say of a phase that cannot go on.
    pub(super) fn stage(&self) -> fleet::Stage {
        match self.step {
            Step::Preparing | Step::Arming => fleet::Stage::Preparing,
            Step::Armed => fleet::Stage::Armed,
            Step::Running | Step::Flushing => fleet::Stage::Running,
            Step::Broken => fleet::Stage::None,
        }
    }

    /// The leased ranges in hand.
    pub(super) fn held(&self) -> Vec<fleet::RowRange> {
        self.ranges.iter().flat_map(RangeBook::held).collect()
    }

    /// Another coordinator goes on with it: what the one before was asked or has said and was not done is void.
    pub(super) fn resumed(&mut self) {
        if let Some(ranges) = &mut self.ranges {
            ranges.forget_question();
        }
        if self.step == Step::Armed {
            self.start = None;
        }
    }

    /// How far it is, for those who look on.
    pub(super) fn view(&self) -> PhaseView {
        let (in_flight, backlog) = self.progress.open();
        PhaseView {
            index: self.order.index,
            name: self.order.name.clone(),
            totals: self.progress.totals(),
            in_flight,
            backlog,
            took: self.progress.took(),
        }
    }

    /// How long ending it in order takes at most, nanoseconds.
    pub(super) fn drain_ns(&self) -> u64 {
        DRAIN_NS.max(self.order.timeout_ns).saturating_add(LAST_WORD_NS)
    }

    pub(super) fn wake_at(&self) -> MonoNs {
        if self.step != Step::Running {
            return MonoNs::MAX;
        }
        let progress = if self.order.beside.is_none() { self.next_progress } else { MonoNs::MAX };
        progress.min(self.ranges.as_ref().map_or(MonoNs::MAX, RangeBook::wake_at))
    }

    pub(super) fn prepared(&mut self, outcome: Result<Arc<ArmedPhase>, NotReady>, out: &mut Vec<Action>) {
        if self.step != Step::Preparing {
            return;
        }
        match outcome {
            Ok(armed) => {
                self.step = Step::Arming;
                for (lane, dealt) in
                    (0u32..).zip(&self.lanes).map(|(i, _)| (i, self.first_lane.saturating_add(i)))
                {
                    let command = LaneCommand::Arm {
                        phase: Arc::clone(&armed),
                        lane: dealt,
                        lease: self.lease.clone(),
                    };
                    out.push(self.lane(lane, command));
                }
            }
            Err(NotReady { reason, target }) => self.break_off(&reason, target, out),
        }
    }

    pub(super) fn start_ordered(&mut self, start: fleet::Start, out: &mut Vec<Action>) {
        match self.step {
            // The instant is kept until the lease and the clock allow it to be used.
            Step::Armed => self.start = Some(start),
            Step::Preparing | Step::Arming => fault(start.phase, "start before all lanes are armed", out),
            Step::Running | Step::Flushing | Step::Broken => {}
        }
    }

    pub(super) fn leased(&mut self, now: MonoNs, lease: &fleet::Lease, out: &mut Vec<Action>) {
        let Some(ranges) = &mut self.ranges else {
            return fault(lease.phase, "a lease of ranges for a phase that has none", out);
        };
        let (read, back) = ranges.leased(now, lease);
        out.extend(read.into_iter().map(|range| Action::Fetch { ticket: self.ticket, range }));
        hand_back(back, out);
    }

    /// Somebody else has nothing to do.
    pub(super) fn give_back(&mut self, range: RowRange, out: &mut Vec<Action>) {
        if let Some(ranges) = &mut self.ranges {
            hand_back(ranges.give_back(range), out);
        }
    }

    pub(super) fn fetched(
        &mut self,
        range: RowRange,
        outcome: Result<Vec<RowBlock>, String>,
        next_block: &mut u64,
        out: &mut Vec<Action>,
    ) {
        if let Some(ranges) = &mut self.ranges {
            hand_back(ranges.fetched(range, outcome, next_block), out);
        }
    }

    pub(super) fn verified(
        &mut self,
        outcome: Result<Verified, String>,
        next_block: &mut u64,
        out: &mut Vec<Action>,
    ) {
        let Some(ranges) = &mut self.ranges else { return };
        let (kind, detail, lost) = match outcome {
            Ok(found) => ("rows_verified", verify::told(&found), found.lost),
            Err(reason) => {
                let detail = format!("rows that a failover may have lost were not looked for: {reason}");
                ("rows_not_verified", detail, Vec::new())
            }
        };
        let kind = if lost.is_empty() { kind } else { "rows_rewritten" };
        ranges.verified(lost, next_block);
        let phase = Some((self.order.index, self.order.name.clone()));
        out.push(Action::RecordEvent { phase, kind, node: None, detail, count: 1 });
    }

    pub(super) fn lane_event(&mut self, now: MonoNs, lane: u32, event: LaneEvent, out: &mut Vec<Action>) {
        let at = count::index(u64::from(lane));
        match event {
            LaneEvent::Armed { phase } if phase == self.index() && self.step == Step::Arming => {
                self.set(at, LaneState::Armed);
                if self.lanes.iter().all(|lane| lane.state == LaneState::Armed) {
                    self.step = Step::Armed;
                    self.next_progress = now;
                    out.push(Action::Send(ToCoordinator::Armed(fleet::Armed { phase: phase.0 })));
                }
            }
            LaneEvent::Measured { phase, cells, recall, health, totals, in_flight, backlog }
                if phase == self.index() && self.step == Step::Running =>
            {
                self.progress.measured(at, &cells, &recall, &health);
                self.progress.stands(at, totals, in_flight, backlog);
                out.push(Action::Record { lane, phase, cells, recall, health });
            }
            LaneEvent::GaveUp { reason } => {
                target_fault(self.index().0, &format!("lane {lane}: {reason}"), out);
                if let Some(ranges) = &mut self.ranges {
                    ranges.stop();
                }
            }
            LaneEvent::TakenOver { slots } => {
                if let Some(ranges) = &mut self.ranges {
                    ranges.doubt(slots);
                }
            }
            LaneEvent::BlockDone { id, ok, failed, first_error } => {
                let Some(ranges) = &mut self.ranges else { return };
                let Some(ended) = ranges.block_done(id, ok, failed, first_error.as_deref()) else { return };
                if let Some(book) = self.lanes.get_mut(ended.lane) {
                    book.rows = book.rows.saturating_sub(ended.rows);
                }
                hand_back(ended.done, out);
            }
            LaneEvent::Done { phase, totals, per_query }
                if phase == self.index() && self.step == Step::Running =>
            {
                self.progress.stands(at, totals, 0, 0);
                if !per_query.is_empty() {
                    out.push(Action::RecordQueries { lane, phase, per_query });
                }
                self.set(at, LaneState::Over);
                self.end_if_over(out);
            }
            _ => {}
        }
    }

    pub(super) fn lane_failed(&mut self, lane: u32, reason: &str, target: bool, out: &mut Vec<Action>) {
        let at = count::index(u64::from(lane));
        if self.lanes.get(at).is_none_or(|book| book.state == LaneState::Over) {
            return;
        }
        if self.step != Step::Running {
            return self.break_off(&format!("lane {lane}: {reason}"), target, out);
        }
        fault(self.index().0, &format!("lane {lane}: {reason}"), out);
        if let Some(ranges) = &mut self.ranges {
            ranges.stop();
            hand_back(ranges.lane_lost(at, reason), out);
        }
        self.set(at, LaneState::Over);
        self.every_running_lane(out, || LaneCommand::Abort);
        self.end_if_over(out);
    }

    pub(super) fn drain(&mut self, out: &mut Vec<Action>) {
        match self.step {
            Step::Preparing | Step::Arming | Step::Armed | Step::Broken => self.flush(out),
            Step::Running if !self.draining => {
                self.draining = true;
                if let Some(ranges) = &mut self.ranges {
                    ranges.stop();
                }
                self.every_running_lane(out, || LaneCommand::Drain);
            }
            Step::Running | Step::Flushing => {}
        }
    }

    /// Takes in the last sequence; gives whether the phase is over.
    pub(super) fn flushed(&mut self, last_sequence: u64, dropped: u64, out: &mut Vec<Action>) -> bool {
        if self.step != Step::Flushing {
            return false;
        }
        let totals = self.progress.totals();
        if self.order.beside.is_none() {
            out.push(Action::Send(ToCoordinator::Progress(self.progress.message(self.order.index))));
        }
        out.push(Action::Send(ToCoordinator::PhaseDone(fleet::PhaseDone {
            phase: self.index().0,
            last_sequence,
            due: totals.due,
            sent: totals.sent,
            ok: totals.ok,
            errors: totals.errors,
            timeout: totals.timeout,
            lost: totals.lost,
            unsent: totals.unsent,
            dropped,
        })));
        true
    }

    pub(super) fn advance(
        &mut self,
        now: MonoNs,
        may_load: bool,
        connected: bool,
        offset: Option<ClockOffset>,
        out: &mut Vec<Action>,
    ) {
        if self.step == Step::Armed
            && may_load
            && let (Some(start), Some(offset)) = (self.start, offset)
        {
            self.begin(start, offset, out);
        }
        if self.step != Step::Running {
            return;
        }
        if may_load {
            self.deal(out);
        }
        if let Some(ranges) = &mut self.ranges {
            if connected && let Some(wanted) = ranges.ask(now) {
                let request = fleet::LeaseRequest { phase: self.order.index.0, ranges: wanted };
                out.push(Action::Send(ToCoordinator::LeaseRequest(request)));
            }
            if !self.no_more_rows
                && let Some(doubted) = ranges.verify()
            {
                out.push(Action::Verify { ticket: self.ticket, doubted });
            }
            if !self.no_more_rows && ranges.all_dealt() {
                self.no_more_rows = true;
                self.every_running_lane(out, || LaneCommand::NoMoreRows);
            }
        }
        if connected && now >= self.next_progress && self.order.beside.is_none() {
            self.next_progress = now.saturating_add(PROGRESS_NS);
            out.push(Action::Send(ToCoordinator::Progress(self.progress.message(self.order.index))));
        }
    }

    fn begin(&mut self, start: fleet::Start, offset: ClockOffset, out: &mut Vec<Action>) {
        self.step = Step::Running;
        let at = offset.to_own(start.at_coordinator_mono_ns);
        out.push(Action::Label {
            phase: self.order.index,
            name: self.order.name.clone(),
            at_wall: start.at_wall_ns,
            at,
            interval_ns: self.order.interval_ns,
            first_lane: self.first_lane,
            k: self.order.work.ask().map_or(0, |ask| ask.k),
            lanes: u32::try_from(self.lanes.len()).unwrap_or(u32::MAX),
        });
        self.every_running_lane(out, || LaneCommand::Start { at, at_wall: start.at_wall_ns });
        for (from_ns, lanes) in &self.taken {
            self.hand_over(*from_ns, lanes, out);
        }
    }

    /// Somebody is gone, and part of its schedule is this worker's. Told again it is what it was.
    pub(super) fn take_over(&mut self, taken: fleet::TakeOver, out: &mut Vec<Action>) {
        let shares = |lane: fleet::LaneShares| Some((lane.lane, ShareSet::try_from(lane.shares).ok()?));
        let Some(lanes) = taken.lanes.into_iter().map(shares).collect::<Option<Vec<_>>>() else {
            return fault(taken.phase, "shares to take over that are no shares", out);
        };
        if let Entry::Vacant(place) = self.taken.entry(taken.from_ns) {
            place.insert(lanes.clone());
            if self.step == Step::Running {
                self.hand_over(taken.from_ns, &lanes, out);
            }
        }
    }

    fn hand_over(&self, from_ns: u64, lanes: &[(u32, ShareSet)], out: &mut Vec<Action>) {
        for (lane, shares) in lanes {
            let book = self.lanes.get(count::index(u64::from(*lane)));
            if book.is_some_and(|book| book.state == LaneState::Armed) {
                let command = LaneCommand::TakeOver { from_ns, shares: Box::new(shares.clone()) };
                out.push(self.lane(*lane, command));
            }
        }
    }

    fn deal(&mut self, out: &mut Vec<Action>) {
        let Some(ranges) = &mut self.ranges else { return };
        while ranges.has_ready() {
            let running =
                self.lanes.iter_mut().enumerate().filter(|(_, book)| book.state == LaneState::Armed);
            let Some((at, book)) = running.min_by_key(|(_, book)| book.rows) else { return };
            if book.rows >= self.rows_in_hand {
                return;
            }
            let Some(block) = ranges.deal(at) else { return };
            book.rows = book.rows.saturating_add(count::len(block.rows.len()));
            let Ok(lane) = u32::try_from(at) else { return };
            let lane = self.offset.saturating_add(lane);
            out.push(Action::Lane { lane, command: LaneCommand::Rows(block) });
        }
    }

    fn end_if_over(&mut self, out: &mut Vec<Action>) {
        if self.lanes.iter().all(|lane| lane.state == LaneState::Over) {
            if let Some(ranges) = &mut self.ranges {
                hand_back(ranges.hand_back(), out);
            }
            self.flush(out);
        }
    }

    fn flush(&mut self, out: &mut Vec<Action>) {
        self.step = Step::Flushing;
        out.push(Action::Flush { ticket: self.ticket, phase: self.index() });
    }

    fn break_off(&mut self, reason: &str, target: bool, out: &mut Vec<Action>) {
        if self.step != Step::Broken {
            self.step = Step::Broken;
            let say = if target { target_fault } else { fault };
            say(self.index().0, reason, out);
        }
    }

    fn set(&mut self, at: usize, state: LaneState) {
        if let Some(book) = self.lanes.get_mut(at) {
            book.state = state;
        }
    }

    fn every_running_lane(&self, out: &mut Vec<Action>, command: impl Fn() -> LaneCommand) {
        for (lane, book) in (0u32..).zip(&self.lanes) {
            if book.state == LaneState::Armed {
                out.push(self.lane(lane, command()));
            }
        }
    }

    /// A command to one of its lanes, counted from 0.
    fn lane(&self, lane: u32, command: LaneCommand) -> Action {
        Action::Lane { lane: self.offset.saturating_add(lane), command }
    }
}

fn hand_back(done: impl IntoIterator<Item = fleet::RangeDone>, out: &mut Vec<Action>) {
    out.extend(done.into_iter().map(|done| Action::Send(ToCoordinator::RangeDone(done))));
}

/// Rows that one lane has in hand: twice what it can have in flight, or what falls due in half a second.
fn rows_in_hand(order: &PhaseOrder) -> u64 {
    let lanes = u64::from(order.lanes_total.max(1));
    let rows = match &order.load {
        Load::Closed { clients, pipeline } => {
            2 * (u64::from(*clients) * u64::from(*pipeline)).div_ceil(lanes)
        }
        // Few more, because a lane that holds rows back at the end is late with them.
        Load::Open { arrival, .. } => {
            return count::from_f64(arrival.peak_rate() / 2.0).div_ceil(lanes).max(OPEN_ROWS_IN_HAND);
        }
    };
    rows.max(ROWS_IN_HAND)
}
