//! The session in a world that does anything at any time: lanes that end in any order or fail, reads that fail,
//! a coordinator that comes and goes, time that passes in jumps.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use vst_common::ids::PhaseIndex;
use vst_common::live_set::LiveSet;
use vst_common::phase::{SearchModule, SearchPlan, VectorWork, Work};
use vst_common::scenario::{Arrival, DatasetSpec, Load, Metric};

use super::*;
use crate::topology::Topology;
use crate::work::{ArmedPhase, RowBlock, Totals};

const LANES: u32 = 2;
const LEASE_NS: u64 = 3 * SECOND_NS;

fn order(index: u32, work: &str) -> PhaseOrder {
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
        prefix: "t:".into(),
        field: "v".into(),
        attributes: vst_common::attributes::Attributes::default(),
        live,
        search: SearchPlan::ServerSide { module: SearchModule::RediSearch, index: "i".into() },
    };
    let (work, load) = match work {
        "ingest" => (Work::Ingest(vectors), Load::Closed { clients: 4, pipeline: 4 }),
        _ => (
            Work::Query { vectors, ask: vst_common::scenario::Ask::nearest(10, None) },
            Load::Open { arrival: Arrival::Constant { rate: 100.0 }, connections: 4 },
        ),
    };
    PhaseOrder {
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
    }
}

fn arm(index: u32, work: &str) -> FromCoordinator {
    let order_json = serde_json::to_string(&order(index, work)).unwrap();
    FromCoordinator::Arm(fleet::Arm { order_json, phase: index, first_lane: 4, lanes: LANES })
}

fn armed(order: PhaseOrder) -> Arc<ArmedPhase> {
    Arc::new(ArmedPhase { order, topology: Arc::new(Topology::standalone("h", 1)), queries: None })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FakeState {
    Idle,
    Arming,
    Armed,
    Running,
    Over,
}

/// A lane that does one thing whenever it is asked to.
#[derive(Debug)]
struct FakeLane {
    state: FakeState,
    phase: PhaseIndex,
    lease: LoadLease,
    fenced: bool,
    blocks: VecDeque<RowBlock>,
    ending: bool,
    no_more: bool,
}

impl FakeLane {
    fn new() -> Self {
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
struct Lease {
    ok: u64,
    handed_back: u32,
}

/// What came of a run of the world.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    started: u32,
    done: u32,
    goodbyes: u32,
    resumed: u32,
    left: Vec<Departure>,
}

struct World {
    now: MonoNs,
    core: SessionCore,
    lanes: Vec<FakeLane>,
    /// Events that tasks owe, in the order in which they were asked for.
    owed: VecDeque<Event>,
    /// Messages of the worker that the coordinator has not read.
    outbox: VecDeque<ToCoordinator>,
    connected: bool,
    generation: u64,
    /// Ends by the model's own arithmetic.
    lease_until: MonoNs,
    hello_at: MonoNs,
    running: Option<u32>,
    ranges: BTreeMap<u64, Lease>,
    next_row: u64,
    ranges_left: u32,
    sequence: u64,
    tally: Tally,
    /// Whether the coordinator lets a worker go on that comes back.
    resumes: bool,
}

impl World {
    fn new(ranges: u32) -> Self {
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
            tally: Tally::default(),
            resumes: true,
        }
    }

    fn happen(&mut self, event: Event) {
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

    fn tell(&mut self, message: FromCoordinator) {
        if self.connected {
            self.happen(Event::Received(message));
        }
    }

    fn check_and_do(&mut self, action: Action) {
        match action {
            Action::Send(message) => {
                self.check_sent(&message);
                if self.connected {
                    self.outbox.push_back(message);
                }
            }
            Action::Register { .. } => {
                self.restart_lanes();
                self.ranges.clear();
                self.lease_until = self.hello_at + LEASE_NS;
            }
            Action::RestartLanes => {
                assert!(self.running.is_none(), "lanes are replaced while a phase runs");
                self.restart_lanes();
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
            Action::Flush { ticket, .. } => {
                self.sequence += 3;
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

    fn restart_lanes(&mut self) {
        self.running = None;
        self.lanes = (0..LANES).map(|_| FakeLane::new()).collect();
    }

    fn command(&mut self, lane: u32, command: LaneCommand) {
        let leased = self.now < self.lease_until;
        let Some(lane) = self.lanes.get_mut(lane as usize) else { return };
        match command {
            LaneCommand::Arm { phase, lease, .. } => {
                assert!(self.running.is_none(), "armed while phase {:?} runs", self.running);
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
                assert!(self.running.is_none_or(|p| p == lane.phase.0), "two phases run");
                lane.state = FakeState::Running;
                if self.running.is_none() {
                    self.tally.started += 1;
                }
                self.running = Some(lane.phase.0);
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

    fn check_sent(&mut self, message: &ToCoordinator) {
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
                assert!(self.running.is_none(), "goodbye while a phase runs");
                self.tally.goodbyes += 1;
            }
            ToCoordinator::PhaseDone(done) => {
                assert_eq!((done.last_sequence, done.dropped), (self.sequence, 2));
                assert!(self.lanes.iter().all(|lane| lane.state != FakeState::Running), "a lane still runs");
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
    fn lane_step(&mut self, at: usize, fail: bool) {
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

    fn task_step(&mut self, pick: usize, fail: bool) {
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
    fn may_resume(&self, before: &fleet::Registration) -> bool {
        if before.run != "r" || before.generation != self.generation {
            return false;
        }
        let open: Vec<u64> =
            self.ranges.iter().filter(|(_, l)| l.handed_back == 0).map(|(start, _)| *start).collect();
        let mut held: Vec<u64> = before.held.iter().map(|range| range.start).collect();
        held.sort_unstable();
        assert_eq!(held, open, "it says that it holds other ranges than it does");
        if before.stage() == fleet::Stage::Running {
            assert!(self.running.is_none_or(|phase| phase == before.phase), "another phase runs");
        }
        true
    }

    /// The coordinator reads one message and answers it.
    fn coordinator_step(&mut self) {
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

    fn connect(&mut self, up: bool) {
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
    fn begin(&mut self, work: &str) {
        self.settle();
        self.tell(arm(1, work));
        self.settle();
        let at_coordinator_mono_ns = self.now;
        self.tell(FromCoordinator::Start(fleet::Start { phase: 1, at_coordinator_mono_ns, at_wall_ns: 5 }));
    }

    /// Drains what runs, or the newest phase.
    fn drain(&mut self, newest: u32) {
        self.tell(FromCoordinator::Drain(fleet::Drain { phase: self.running.unwrap_or(newest) }));
    }

    fn pass(&mut self, ns: u64) {
        self.now += ns;
        self.happen(Event::Tick { unacknowledged: 0 });
    }

    /// Everybody does what is owed, for a while.
    fn settle(&mut self) {
        for _ in 0..150 {
            self.connect(true);
            self.coordinator_step();
            self.task_step(0, false);
            for lane in 0..LANES as usize {
                self.lane_step(lane, false);
            }
            self.pass(SECOND_NS / 50);
        }
    }
}

#[test]
fn a_quiet_run_registers_loads_queries_and_leaves() {
    let mut world = World::new(9);
    world.begin("ingest");
    world.settle();
    assert_eq!((world.tally.started, world.tally.done, world.ranges_left), (1, 1, 0));
    assert_eq!(world.next_row, 2_700);
    world.tell(arm(2, "query"));
    world.settle();
    world.tell(FromCoordinator::Start(fleet::Start {
        phase: 2,
        at_coordinator_mono_ns: world.now,
        at_wall_ns: 6,
    }));
    world.settle();
    assert_eq!((world.tally.started, world.tally.done), (2, 1));
    world.tell(FromCoordinator::Drain(fleet::Drain { phase: 2 }));
    world.settle();
    assert_eq!(world.tally.done, 2);
    world.tell(FromCoordinator::Close(fleet::Close { reason: String::new() }));
    world.settle();
    assert_eq!(world.tally.left, vec![Departure::Closed]);
}

#[test]
fn without_a_coordinator_load_ends_with_the_lease_and_the_worker_a_minute_later() {
    let mut world = World::new(0);
    world.begin("query");
    let renewed = world.lease_until;
    world.connect(false);
    world.now = renewed - 1;
    world.happen(Event::Tick { unacknowledged: 0 });
    assert!(world.lanes.iter().all(|lane| !lane.fenced));
    assert_eq!(world.core.wake_at(), renewed);
    world.pass(1);
    assert!(world.lanes.iter().all(|lane| lane.fenced));
    world.pass(60 * SECOND_NS);
    assert_eq!(world.tally.left, vec![Departure::CoordinatorGone]);
}

#[test]
fn a_worker_that_is_asked_to_end_hands_back_what_it_holds_and_says_goodbye() {
    let mut world = World::new(100);
    world.begin("ingest");
    world.coordinator_step();
    world.coordinator_step();
    assert!(!world.ranges.is_empty(), "it holds ranges");
    world.outbox.clear();
    world.happen(Event::Stop);
    world.settle();
    // That each range was handed back before the statement is checked with the statement.
    assert_eq!((world.tally.started, world.tally.done, world.tally.goodbyes), (1, 1, 1));
    assert!(!world.outbox.iter().any(|m| matches!(m, ToCoordinator::Fault(_))), "that is no fault");
    assert_eq!(world.tally.left, vec![Departure::Stopped]);
}

#[test]
fn a_target_that_is_away_is_told_apart_from_a_worker_that_fails() {
    let mut world = World::new(0);
    world.settle();
    world.tell(arm(1, "query"));
    world.outbox.clear();
    world.task_step(0, true);
    let faults: Vec<bool> = world
        .outbox
        .iter()
        .filter_map(|m| if let ToCoordinator::Fault(fault) = m { Some(fault.target) } else { None })
        .collect();
    assert_eq!(faults, [true]);
}

#[test]
fn a_worker_that_comes_back_goes_on_and_says_what_it_could_not_say() {
    let mut world = World::new(9);
    world.begin("ingest");
    (0..3).for_each(|_| world.coordinator_step());
    assert_eq!((world.running, world.ranges.is_empty()), (Some(1), false));
    world.connect(false);
    for _ in 0..60 {
        world.task_step(0, false);
        (0..LANES as usize).for_each(|lane| world.lane_step(lane, false));
        world.pass(SECOND_NS / 50);
    }
    assert!(world.ranges.values().all(|lease| lease.handed_back == 0), "nobody is there to be told");
    world.settle();
    assert_eq!((world.tally.resumed, world.tally.started, world.tally.done), (1, 1, 1));
    assert_eq!(world.next_row, 2_700, "every range was leased, once");
}

#[test]
fn a_coordinator_that_says_nothing_is_left_for_another_before_the_lease_ends() {
    let mut world = World::new(0);
    world.core.config.others = true;
    world.begin("query");
    let heard = world.now;
    while world.connected {
        world.pass(SECOND_NS / 10);
        world.outbox.clear();
    }
    assert!(world.now - heard < 6 * SECOND_NS, "{}", world.now - heard);
    assert!(world.core.wants_stream());
    world.settle();
    assert_eq!((world.tally.resumed, world.running), (1, Some(1)), "the load went on");
}

#[test]
fn a_second_phase_is_refused_while_one_runs() {
    let mut world = World::new(0);
    world.begin("query");
    world.outbox.clear();
    world.tell(arm(2, "query"));
    let faults: Vec<_> = world.outbox.iter().filter(|m| matches!(m, ToCoordinator::Fault(_))).collect();
    assert_eq!(faults.len(), 1);
    assert_eq!(world.running, Some(1));
}

proptest! {
    /// The assertions are in the world: one phase at a time, no load without a lease, each leased range handed back
    /// once with the rows that ended well, `PhaseDone` after everything it speaks for.
    #[test]
    fn the_laws_hold_whatever_happens(
        ranges in 0u32..30, begun: bool, resumes: bool, others: bool, deeds in prop::collection::vec((0u8..40, any::<u16>()), 0..300),
    ) {
        let mut world = World::new(ranges);
        world.resumes = resumes;
        world.core.config.others = others;
        let mut phase = 0;
        if begun {
            phase = 1;
            world.begin("ingest");
        }
        for (deed, number) in deeds {
            let pick = usize::from(number);
            match deed {
                0..=8 => world.lane_step(pick % LANES as usize, false),
                9 => world.lane_step(pick % LANES as usize, number % 7 == 0),
                10..=16 => world.task_step(pick, false),
                17 => world.task_step(pick, true),
                18..=26 => world.coordinator_step(),
                27 => {
                    phase += 1;
                    world.tell(arm(phase, if number % 3 == 0 { "query" } else { "ingest" }));
                }
                28 | 29 => {
                    let at_coordinator_mono_ns = world.now + u64::from(number);
                    world.tell(FromCoordinator::Start(fleet::Start { phase, at_coordinator_mono_ns, at_wall_ns: 0 }));
                }
                30 if number % 4 == 0 => world.drain(phase),
                31 if number % 8 == 0 => world.connect(false),
                32 | 33 => world.connect(true),
                34 if number % 50 == 0 => world.tell(FromCoordinator::Close(fleet::Close { reason: String::new() })),
                35 if number % 50 == 0 => world.happen(Event::Stop),
                36 => world.pass(u64::from(number) * 100_000),
                _ => world.pass(u64::from(number) * 1_000),
            }
        }
        // Whatever happened: a phase that runs can be brought to its end, and the run can be closed.
        world.settle();
        world.drain(phase);
        world.settle();
        prop_assert!(world.running.is_none(), "phase {:?} never ends", world.running);
        world.tell(FromCoordinator::Close(fleet::Close { reason: String::new() }));
        world.settle();
        prop_assert_eq!(world.tally.left.len(), 1);
    }
}
