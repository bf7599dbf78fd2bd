//! The world that the session is tested in: lanes, tasks and a coordinator that do what they are asked, or fail.
//!
//! Stepped by the tests, which decide what happens when. It checks at every action what must never happen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use vst_common::ids::PhaseIndex;
use vst_common::live_set::LiveSet;
use vst_common::phase::{SearchModule, SearchPlan, VectorWork, Work};
use vst_common::scenario::{Arrival, DatasetSpec, Load, Metric};

use super::super::*;
use crate::topology::Topology;
use crate::work::{ArmedPhase, RowBlock, Totals};

pub(super) const LANES: u32 = 2;
pub(super) const LEASE_NS: u64 = 3 * SECOND_NS;

pub(super) fn order(index: u32, work: &str) -> PhaseOrder {
    let none = String::new();
    let live = LiveSet::empty(1, 100_000, 1);
    let vectors = VectorWork {
        dataset: DatasetSpec { base: none.clone(), queries: none.clone(), ground_truth: none, rows: None },
        rows: live.rows,
        dims: 1,
        expansion: vst_common::expand::Expansion::None,
        order: vst_common::scenario::CopyOrder::Interleaved,
        truth: vst_common::phase::TruthSource::Listed,
        metric: Metric::L2,
        on: vst_common::scenario::RowKind::Hash,
        prefix: "t:".into(),
        field: "v".into(),
        attributes: vst_common::attributes::Attributes::default(),
        live,
        search: SearchPlan::ServerSide { module: SearchModule::RediSearch, index: "i".into() },
    };
    let (work, load) = match work {
        "ingest" => (Work::Ingest(vectors), Load::Closed { clients: 4, pipeline: 4 }),
        _ => (
            Work::Query { vectors, ask: vst_common::scenario::Ask::nearest(10, None), during: None },
            Load::Open { arrival: Arrival::Constant { rate: 100.0 }, connections: 4 },
        ),
    };
    PhaseOrder {
        beside: None,
        index: PhaseIndex(index),
        name: format!("phase {index}"),
        seed: 1,
        work,
        load,
        warm_up_ns: 0,
        operations: None,
        duration_ns: 0,
        timeout_ns: SECOND_NS,
        interval_ns: SECOND_NS,
        lanes_total: LANES,
        connection: vst_common::scenario::ConnectionSpec::default(),
    }
}

pub(super) fn arm(index: u32, work: &str) -> FromCoordinator {
    let order_json = serde_json::to_string(&order(index, work)).unwrap();
    FromCoordinator::Arm(fleet::Arm { order_json, phase: index, first_lane: 4, lanes: LANES })
}

/// Phases that run beside others are numbered from here: this much and the phase of the sequence, and again.
pub(super) const BESIDE: u32 = 1_000;

/// The phase of the sequence that a phase is, or runs beside.
fn group(phase: u32) -> u32 {
    phase % BESIDE
}

/// The same for queries that run beside the phase of that number.
pub(super) fn arm_beside(main: u32, times: u32) -> FromCoordinator {
    let index = times * BESIDE + main;
    let order = PhaseOrder { beside: Some(PhaseIndex(main)), ..order(index, "query") };
    let order_json = serde_json::to_string(&order).unwrap();
    FromCoordinator::Arm(fleet::Arm { order_json, phase: index, first_lane: 4, lanes: LANES })
}

pub(super) fn armed(order: PhaseOrder) -> Arc<ArmedPhase> {
    Arc::new(ArmedPhase { order, topology: Arc::new(Topology::standalone("h", 1)), queries: None })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FakeState {
    Idle,
    Arming,
    Armed,
    Running,
    Over,
}

/// A lane that does one thing whenever it is asked to.
#[derive(Debug)]
pub(super) struct FakeLane {
    pub(super) state: FakeState,
    pub(super) phase: PhaseIndex,
    pub(super) lease: LoadLease,
    pub(super) fenced: bool,
    pub(super) blocks: VecDeque<RowBlock>,
    pub(super) ending: bool,
    pub(super) no_more: bool,
}

impl FakeLane {
    pub(super) fn new() -> Self {
        Self {
            state: FakeState::Idle,
            phase: PhaseIndex(0),
            lease: LoadLease::default(),
            fenced: false,
            blocks: VecDeque::new(),
            ending: false,
            no_more: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Lease {
    pub(super) ok: u64,
    pub(super) handed_back: u32,
}

/// What came of a run of the world.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) started: u32,
    pub(super) done: u32,
    pub(super) goodbyes: u32,
    pub(super) resumed: u32,
    pub(super) left: Vec<Departure>,
}

pub(super) struct World {
    pub(super) now: MonoNs,
    pub(super) core: SessionCore,
    pub(super) lanes: Vec<FakeLane>,
    /// Events that tasks owe, in the order in which they were asked for.
    pub(super) owed: VecDeque<Event>,
    /// Messages of the worker that the coordinator has not read.
    pub(super) outbox: VecDeque<ToCoordinator>,
    pub(super) connected: bool,
    pub(super) generation: u64,
    /// Ends by the model's own arithmetic.
    pub(super) lease_until: MonoNs,
    pub(super) hello_at: MonoNs,
    pub(super) running: Option<u32>,
    pub(super) ranges: BTreeMap<u64, Lease>,
    pub(super) next_row: u64,
    pub(super) ranges_left: u32,
    pub(super) sequence: u64,
    /// The last sequence that was given out when a phase had ended.
    pub(super) flushed: BTreeMap<u32, u64>,
    pub(super) tally: Tally,
    /// Whether the coordinator lets a worker go on that comes back.
    pub(super) resumes: bool,
}

impl World {
    pub(super) fn new(ranges: u32) -> Self {
        let hello = fleet::Hello { lanes: LANES, ..fleet::Hello::default() };
        let config = Config { hello, lanes: LANES, give_up_ns: 60 * SECOND_NS, waits: false, others: false };
        Self {
            now: 10 * SECOND_NS,
            core: SessionCore::new(config, 10 * SECOND_NS),
            lanes: Vec::new(),
            owed: VecDeque::new(),
            outbox: VecDeque::new(),
            connected: false,
            generation: 0,
            lease_until: 0,
            hello_at: 0,
            running: None,
            ranges: BTreeMap::new(),
            next_row: 0,
            ranges_left: ranges,
            sequence: 0,
            flushed: BTreeMap::new(),
            tally: Tally::default(),
            resumes: true,
        }
    }

    pub(super) fn happen(&mut self, event: Event) {
        for action in self.core.step(self.now, event) {
            self.check_and_do(action);
        }
        if self.now >= self.lease_until {
            for lane in self.lanes.iter().filter(|lane| lane.state == FakeState::Running) {
                assert!(lane.fenced, "a lane may send although the lease ended");
            }
        }
        for lane in self.lanes.iter().filter(|lane| lane.state == FakeState::Running) {
            // The lane asks its own clock, also when the session gets no turn to fence it.
            assert_eq!(lane.lease.until(), self.lease_until, "the lane's right is not that of the session");
        }
    }

    pub(super) fn tell(&mut self, message: FromCoordinator) {
        if self.connected {
            self.happen(Event::Received(message));
        }
    }

    pub(super) fn check_and_do(&mut self, action: Action) {
        match action {
            Action::Send(message) => {
                self.check_sent(&message);
                if self.connected {
                    self.outbox.push_back(message);
                }
            }
            Action::Register { .. } => {
                self.lanes.clear();
                self.running = None;
                self.ranges.clear();
                self.lease_until = self.hello_at + LEASE_NS;
            }
            Action::RestartLanes { first, count } => {
                for lane in self.lanes.iter_mut().skip(first as usize).take(count as usize) {
                    assert_ne!(lane.state, FakeState::Running, "lanes are replaced while a phase runs");
                    *lane = FakeLane::new();
                }
            }
            Action::Lane { lane, command } => self.command(lane, command),
            Action::Prepare { ticket, order } => {
                self.owed.push_back(Event::Prepared { ticket, outcome: Ok(armed(*order)) });
            }
            Action::Fetch { ticket, range } => {
                let rows: Vec<(u32, u64)> = (range.start..range.end).map(|row| (0, row)).collect();
                let blocks =
                    rows.chunks(256).map(|r| RowBlock { id: 0, rows: r.to_vec(), ..RowBlock::default() });
                self.owed.push_back(Event::Fetched { ticket, range, outcome: Ok(blocks.collect()) });
            }
            Action::Flush { ticket, phase } => {
                self.sequence += 3;
                self.flushed.insert(phase.0, self.sequence);
                self.owed.push_back(Event::Flushed { ticket, last_sequence: self.sequence, dropped: 2 });
            }
            Action::Deliver => {
                self.lanes.clear();
                self.running = None;
                self.owed.push_back(Event::Delivered);
            }
            Action::Leave(departure) => {
                self.tally.left.push(departure);
                self.lanes.clear();
                self.running = None;
            }
            Action::HangUp => {
                self.connected = false;
                self.outbox.clear();
            }
            _ => {}
        }
    }

    /// Whether lanes run for another phase of the sequence than this one is, or runs beside.
    fn runs_another(&self, phase: u32) -> bool {
        let other = |lane: &FakeLane| group(lane.phase.0) != group(phase);
        self.lanes.iter().any(|lane| lane.state == FakeState::Running && other(lane))
    }

    pub(super) fn command(&mut self, lane: u32, command: LaneCommand) {
        let leased = self.now < self.lease_until;
        if let LaneCommand::Arm { phase, .. } = &command {
            let index = phase.order.index.0;
            assert!(!self.runs_another(index), "armed while phase {:?} runs", self.running);
            while self.lanes.len() <= lane as usize {
                self.lanes.push(FakeLane::new());
            }
        }
        let starts = matches!(command, LaneCommand::Start { .. }).then(|| {
            let phase = self.lanes[lane as usize].phase.0;
            assert!(!self.runs_another(phase), "two phases of the sequence run");
            phase
        });
        if let Some(phase) = starts.filter(|phase| *phase < BESIDE) {
            if self.running.is_none() {
                self.tally.started += 1;
            }
            self.running = Some(phase);
        }
        let Some(lane) = self.lanes.get_mut(lane as usize) else { return };
        match command {
            LaneCommand::Arm { phase, lease, .. } => {
                assert_ne!(lane.state, FakeState::Running);
                lane.state = FakeState::Arming;
                lane.phase = phase.order.index;
                lane.lease = lease;
                lane.blocks.clear();
                (lane.ending, lane.no_more) = (false, false);
            }
            LaneCommand::TakeOver { .. } => assert_ne!(lane.state, FakeState::Arming),
            LaneCommand::Start { .. } => {
                assert!(leased, "started without a lease");
                assert_eq!(lane.state, FakeState::Armed);
                lane.state = FakeState::Running;
            }
            LaneCommand::Rows(block) => {
                assert!(leased && !lane.fenced, "rows without a lease");
                assert_eq!(lane.state, FakeState::Running);
                assert!(!lane.no_more, "rows after the last");
                lane.blocks.push_back(block);
            }
            LaneCommand::NoMoreRows => lane.no_more = true,
            LaneCommand::Fence => lane.fenced = true,
            LaneCommand::Resume => {
                assert!(leased, "resumed without a lease");
                lane.fenced = false;
            }
            LaneCommand::Drain | LaneCommand::Abort => lane.ending = true,
            LaneCommand::Leave | LaneCommand::Layout(_) => {}
        }
    }

    pub(super) fn check_sent(&mut self, message: &ToCoordinator) {
        match message {
            ToCoordinator::Hello(_) => self.hello_at = self.now,
            ToCoordinator::RangeDone(done) => {
                let range = done.range.unwrap();
                let lease = self.ranges.get_mut(&range.start).expect("a range that was never leased");
                lease.handed_back += 1;
                assert_eq!(lease.handed_back, 1, "handed back twice");
                assert_eq!(done.ok, lease.ok, "other rows than ended well");
                assert!(done.ok + done.failed <= range.end - range.start);
            }
            ToCoordinator::Goodbye(_) => {
                let runs = |lane: &FakeLane| lane.state == FakeState::Running;
                assert!(!self.lanes.iter().any(runs), "goodbye while a phase runs");
                self.tally.goodbyes += 1;
            }
            ToCoordinator::PhaseDone(done) => {
                assert_eq!((done.last_sequence, done.dropped), (self.flushed[&done.phase], 2));
                let mut own = self.lanes.iter().filter(|lane| lane.phase.0 == done.phase);
                assert!(own.all(|lane| lane.state != FakeState::Running), "a lane still runs");
                if done.phase >= BESIDE {
                    return;
                }
                assert!(self.lanes.iter().all(|l| l.blocks.is_empty() || l.ending), "blocks are open");
                assert!(
                    self.ranges.values().all(|lease| lease.handed_back == 1),
                    "a range is not handed back"
                );
                self.ranges.clear();
                self.running = None;
                self.tally.done += 1;
            }
            _ => {}
        }
    }

    /// A lane does its next thing.
    pub(super) fn lane_step(&mut self, at: usize, fail: bool) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let phase = lane.phase;
        let event = match lane.state {
            FakeState::Idle | FakeState::Over | FakeState::Armed => return,
            _ if fail => {
                lane.state = FakeState::Over;
                lane.ending = true;
                LaneEvent::Failed { reason: "broken".into(), target: false }
            }
            FakeState::Arming => {
                lane.state = FakeState::Armed;
                LaneEvent::Armed { phase }
            }
            FakeState::Running => match lane.blocks.pop_front() {
                Some(block) if !lane.ending && !lane.fenced => {
                    let n = vst_common::count::len(block.rows.len());
                    let first = block.rows[0].1;
                    let lease = self.ranges.range_mut(..=first).next_back().unwrap().1;
                    lease.ok += n - 1;
                    LaneEvent::BlockDone {
                        id: block.id,
                        ok: n - 1,
                        failed: 1,
                        first_error: Some("OOM".into()),
                    }
                }
                Some(block) if !lane.ending => {
                    lane.blocks.push_front(block);
                    return;
                }
                None if !lane.ending && !lane.no_more => return,
                _ => {
                    lane.state = FakeState::Over;
                    LaneEvent::Done { phase, totals: Totals::default(), per_query: Vec::new() }
                }
            },
        };
        self.happen(Event::Lane { lane: u32::try_from(at).unwrap(), event });
    }

    pub(super) fn task_step(&mut self, pick: usize, fail: bool) {
        if self.owed.is_empty() {
            return;
        }
        let event = match self.owed.remove(pick % self.owed.len()).unwrap() {
            Event::Prepared { ticket, .. } if fail => Event::Prepared {
                ticket,
                outcome: Err(NotReady { reason: "no target".into(), target: true }),
            },
            Event::Fetched { ticket, range, .. } if fail => {
                Event::Fetched { ticket, range, outcome: Err("no data".into()) }
            }
            event => event,
        };
        self.happen(event);
    }

    /// Whether this is the registration that the worker was given last; then it must say of itself what is so.
    pub(super) fn may_resume(&self, before: &fleet::Registration) -> bool {
        if before.run != "r" || before.generation != self.generation {
            return false;
        }
        let open: Vec<u64> =
            self.ranges.iter().filter(|(_, l)| l.handed_back == 0).map(|(start, _)| *start).collect();
        let mut held: Vec<u64> = before.held.iter().map(|range| range.start).collect();
        held.sort_unstable();
        assert_eq!(held, open, "it says that it holds other ranges than it does");
        for state in before.phases.iter().filter(|state| state.stage() == fleet::Stage::Running) {
            assert!(self.running.is_none_or(|phase| phase == group(state.phase)), "another phase runs");
        }
        true
    }

    /// The coordinator reads one message and answers it.
    pub(super) fn coordinator_step(&mut self) {
        match self.outbox.pop_front() {
            Some(ToCoordinator::Hello(hello)) => {
                let known = hello.before.is_some_and(|before| self.may_resume(&before));
                let resumed = self.resumes && known;
                if resumed {
                    self.lease_until = self.lease_until.max(self.hello_at + LEASE_NS);
                    self.tally.resumed += 1;
                } else {
                    self.generation += 1;
                }
                self.tell(FromCoordinator::Welcome(fleet::Welcome {
                    run: "r".into(),
                    generation: self.generation,
                    lease_ns: LEASE_NS,
                    target: "valkey://h:1".into(),
                    heartbeat_ns: SECOND_NS,
                    resumed,
                }));
            }
            Some(ToCoordinator::Heartbeat(beat)) => {
                self.lease_until = self.lease_until.max(beat.mono_ns + LEASE_NS);
                self.tell(FromCoordinator::HeartbeatReply(fleet::HeartbeatReply {
                    worker_mono_ns: beat.mono_ns,
                    coordinator_mono_ns: self.now + 77,
                }));
            }
            Some(ToCoordinator::LeaseRequest(request)) => {
                let n = request.ranges.min(self.ranges_left);
                self.ranges_left -= n;
                let mut ranges = Vec::new();
                for _ in 0..n {
                    let (start, end) = (self.next_row, self.next_row + 300);
                    self.next_row = end;
                    self.ranges.insert(start, Lease::default());
                    ranges.push(fleet::RowRange { start, end });
                }
                let exhausted = self.ranges_left == 0;
                self.tell(FromCoordinator::Lease(fleet::Lease { phase: request.phase, ranges, exhausted }));
            }
            _ => {}
        }
    }

    pub(super) fn connect(&mut self, up: bool) {
        if up && self.core.wants_stream() {
            self.connected = true;
            self.happen(Event::Connected);
        } else if !up && self.connected {
            self.connected = false;
            self.outbox.clear();
            self.happen(Event::Disconnected);
        }
    }

    /// Brings a first phase to its start.
    pub(super) fn begin(&mut self, work: &str) {
        self.settle();
        self.tell(arm(1, work));
        self.settle();
        let at_coordinator_mono_ns = self.now;
        self.tell(FromCoordinator::Start(fleet::Start { phase: 1, at_coordinator_mono_ns, at_wall_ns: 5 }));
    }

    /// Drains what runs, or the newest phase, and what is beside it.
    pub(super) fn drain(&mut self, newest: u32) {
        for main in self.running.into_iter().chain([newest]) {
            for phase in [main, BESIDE + main, 2 * BESIDE + main] {
                self.tell(FromCoordinator::Drain(fleet::Drain { phase }));
            }
        }
    }

    pub(super) fn pass(&mut self, ns: u64) {
        self.now += ns;
        self.happen(Event::Tick { unacknowledged: 0 });
    }

    /// Everybody does what is owed, for a while.
    pub(super) fn settle(&mut self) {
        for _ in 0..150 {
            self.connect(true);
            self.coordinator_step();
            self.task_step(0, false);
            for lane in 0..self.lanes.len() {
                self.lane_step(lane, false);
            }
            self.pass(SECOND_NS / 50);
        }
    }
}
