//! The laws of the pipeline, on the production code, against a simulated server.

mod failover;
mod judging;
mod redirects;
mod replicas;
mod rows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use vst_common::ids::{NodeId, PhaseIndex};
use vst_common::latency::{Cell, Window};
use vst_common::live_set::LiveSet;
use vst_common::phase::{PhaseOrder, SearchModule, SearchPlan, VectorWork, Work};
use vst_common::resp::{Frame, Scanner};
use vst_common::scenario::{Arrival, DatasetSpec, Load, Metric};
use vst_common::schedule::Schedule;
use vst_common::shares::ShareSet;

use super::Pipeline;
use super::node::Item;
use crate::topology::{Layout, Node, Topology};
use crate::work::{ArmedPhase, LaneEvent, QuerySet, RowBlock};

const MS: u64 = 1_000_000;

fn topology(nodes: u16) -> Topology {
    let list = (0..nodes)
        .map(|i| Node {
            id: NodeId::new(format!("n{i}")),
            host: String::from("h"),
            port: 7000 + i,
            primary: true,
            of: None,
        })
        .collect();
    let slots = (0..16384u32).map(|s| u16::try_from(s * u32::from(nodes) / 16384).unwrap()).collect();
    Topology { nodes: list, slots }
}

fn vectors(nodes: u16, fan_out: bool) -> VectorWork {
    let module = SearchModule::RediSearch;
    let search = if fan_out {
        let slots = topology(nodes).slots;
        let name = |i: u16| {
            let owned = slots.iter().enumerate().filter(|(_, owner)| **owner == i);
            let owned: Vec<_> = owned.map(|(s, _)| u16::try_from(s).unwrap()).map(|s| s..=s).collect();
            format!("i{{{}}}", vst_common::keys::tag_for_slot(&owned).unwrap())
        };
        let indexes = (0..nodes).map(|i| (NodeId::new(format!("n{i}")), name(i))).collect();
        SearchPlan::ClientSide { module, indexes }
    } else {
        SearchPlan::ServerSide { module, index: String::from("i") }
    };
    VectorWork {
        dataset: DatasetSpec {
            base: String::new(),
            queries: String::new(),
            ground_truth: String::new(),
            rows: None,
        },
        rows: 1000,
        dims: 1,
        expansion: vst_common::expand::Expansion::None,
        order: vst_common::scenario::CopyOrder::Interleaved,
        truth: vst_common::phase::TruthSource::Listed,
        metric: Metric::L2,
        on: vst_common::scenario::RowKind::Hash,
        prefix: String::from("p:"),
        field: String::from("v"),
        attributes: vst_common::attributes::Attributes::default(),
        live: LiveSet::empty(1, 1000, 1).full(),
        search,
    }
}

fn phase(nodes: u16, work: Work, load: Load, timeout_ns: u64) -> Arc<ArmedPhase> {
    Arc::new(ArmedPhase {
        order: PhaseOrder {
            beside: None,
            index: PhaseIndex(3),
            name: String::from("p"),
            seed: 7,
            work,
            load,
            warm_up_ns: 0,
            operations: None,
            duration_ns: 1000 * MS,
            timeout_ns,
            interval_ns: 100 * MS,
            lanes_total: 1,
            connection: vst_common::scenario::ConnectionSpec::default(),
        },
        topology: Arc::new(topology(nodes)),
        queries: Some(Arc::new(QuerySet { blobs: vec![vec![0; 4]], judges: Vec::new(), pairs: Vec::new() })),
    })
}

fn open_queries(nodes: u16, fan_out: bool, rate: f64, connections: u32, timeout_ns: u64) -> Arc<ArmedPhase> {
    let work = Work::Query {
        vectors: vectors(nodes, fan_out),
        ask: vst_common::scenario::Ask::nearest(1, None),
        during: None,
    };
    phase(nodes, work, Load::Open { arrival: Arrival::Constant { rate }, connections }, timeout_ns)
}

fn ingest(nodes: u16, clients: u32, pipeline: u32, timeout_ns: u64) -> Arc<ArmedPhase> {
    let work = Work::Ingest(vectors(nodes, false));
    phase(nodes, work, Load::Closed { clients, pipeline }, timeout_ns)
}

/// What the simulated server does with a command.
#[derive(Clone, Debug)]
enum Answer {
    Well,
    Error(&'static str),
    /// To another node that the client knows (or the same).
    Moved,
    /// To a node that the client has not heard of.
    MovedAway,
    /// The slot is on its way to another node.
    Ask,
    Drop,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        12 => Just(Answer::Well),
        2 => Just(Answer::Error("-OOM command not allowed\r\n")),
        1 => Just(Answer::Error("-ERR something else\r\n")),
        1 => Just(Answer::Error("-TRYAGAIN later\r\n")),
        1 => Just(Answer::Error("-CLUSTERDOWN The cluster is down\r\n")),
        1 => Just(Answer::Error("-LOADING the dataset in memory\r\n")),
        1 => Just(Answer::Error("-READONLY You can't write against a read only replica.\r\n")),
        1 => Just(Answer::Moved),
        1 => Just(Answer::MovedAway),
        1 => Just(Answer::Ask),
        1 => Just(Answer::Drop),
    ]
}

/// Counters of the server, as INFO commandstats has them.
#[derive(Debug, Default)]
struct Server {
    calls: u64,
    rejected: u64,
    /// Commands whose connection was cut before the reply: executed or not, the client cannot know.
    cut: u64,
    /// Redirects with ASK that were answered, and commands that came with ASKING.
    asks: u64,
    asked: u64,
}

struct Simulation {
    pipeline: Pipeline,
    known_links: usize,
    now: u64,
    server: Server,
    in_flight: BTreeMap<usize, VecDeque<Vec<u8>>>,
    scanners: BTreeMap<usize, Vec<u8>>,
    down: Vec<usize>,
    /// Connections that said ASKING: their next command is let in.
    asking: BTreeSet<usize>,
    most_in_flight: usize,
    rows_seen: BTreeMap<Vec<u8>, u64>,
    vectors_seen: BTreeMap<Vec<u8>, Vec<u8>>,
    events: Vec<LaneEvent>,
}

impl Simulation {
    fn new(phase: Arc<ArmedPhase>) -> Self {
        let mut pipeline = Pipeline::new(phase, 0).unwrap();
        for link in 0..pipeline.links() {
            pipeline.link_up(link, 0);
        }
        pipeline.start(0);
        Self {
            known_links: pipeline.links(),
            pipeline,
            now: 0,
            server: Server::default(),
            in_flight: BTreeMap::new(),
            scanners: BTreeMap::new(),
            down: Vec::new(),
            asking: BTreeSet::new(),
            most_in_flight: 0,
            rows_seen: BTreeMap::new(),
            vectors_seen: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    fn happened(&self, wanted: &str) -> bool {
        self.events.iter().any(|e| matches!(e, LaneEvent::Happened { kind, .. } if *kind == wanted))
    }

    fn collect(&mut self) {
        let mut dirty = Vec::new();
        self.pipeline.take_dirty(&mut dirty);
        for link in dirty {
            let bytes = std::mem::take(self.pipeline.out(link).unwrap());
            let buffer = self.scanners.entry(link).or_default();
            buffer.extend(bytes);
            while let Some(length) = Scanner::new().scan(buffer).unwrap() {
                let command: Vec<u8> = buffer.drain(..length).collect();
                self.in_flight.entry(link).or_default().push_back(command);
                if buffer.is_empty() {
                    break;
                }
            }
        }
        self.events.extend(self.pipeline.take_events());
        // ASKING goes before a command and needs no slot of its own.
        let commands = self.in_flight.values().flatten().filter(|c| !c.ends_with(b"ASKING\r\n"));
        let flying = commands.count();
        self.most_in_flight = self.most_in_flight.max(flying);
    }

    fn step(&mut self, advance: u64) {
        // A node that joined gets its connections.
        self.down.extend(self.known_links..self.pipeline.links());
        self.known_links = self.pipeline.links();
        for link in std::mem::take(&mut self.down) {
            self.pipeline.link_up(link, self.now);
        }
        self.now += advance;
        self.pipeline.pump(self.now);
        self.collect();
    }

    /// Answers the oldest command of one busy connection.
    fn answer(&mut self, pick: usize, answer: &Answer) {
        let busy: Vec<usize> =
            self.in_flight.iter().filter(|(_, q)| !q.is_empty()).map(|(l, _)| *l).collect();
        if busy.is_empty() {
            return;
        }
        let link = busy[pick % busy.len()];
        let command = self.in_flight.get_mut(&link).unwrap().pop_front().unwrap();
        if command.ends_with(b"ASKING\r\n") && !matches!(answer, Answer::Drop) {
            assert!(self.asking.insert(link), "ASKING is for one command");
            assert!(!self.in_flight[&link].is_empty(), "ASKING and its command go out together");
            self.pipeline.reply(link, b"+OK\r\n", self.now).unwrap();
            self.collect();
            return;
        }
        self.server.asked += u64::from(self.asking.remove(&link) && !matches!(answer, Answer::Drop));
        let reply: Vec<u8> = match answer {
            Answer::Drop => {
                let is_load = |c: &&Vec<u8>| !c.ends_with(b"ASKING\r\n");
                let cut = [&command].into_iter().chain(&self.in_flight[&link]).filter(is_load).count();
                self.server.cut += u64::try_from(cut).unwrap();
                self.in_flight.remove(&link);
                self.scanners.remove(&link);
                self.pipeline.link_down(link, self.now);
                self.down.push(link);
                self.collect();
                return;
            }
            Answer::Moved | Answer::MovedAway | Answer::Ask => {
                self.server.rejected += 1;
                match answer {
                    Answer::Moved => b"-MOVED 5 h:7000\r\n".to_vec(),
                    Answer::MovedAway => b"-MOVED 5 stranger:7777\r\n".to_vec(),
                    _ => {
                        self.server.asks += 1;
                        b"-ASK 5 h:7000\r\n".to_vec()
                    }
                }
            }
            Answer::Error(text) => {
                let rejected = !text.starts_with("-ERR");
                if rejected {
                    self.server.rejected += 1
                } else {
                    self.server.calls += 1
                }
                text.as_bytes().to_vec()
            }
            Answer::Well => {
                self.server.calls += 1;
                if let Frame::Array(args) = Frame::parse(&command).unwrap()
                    && args[0] == Frame::Bulk(b"HSET")
                {
                    let key = args[1].as_bytes().unwrap().to_vec();
                    self.vectors_seen.insert(key.clone(), args[3].as_bytes().unwrap().to_vec());
                    *self.rows_seen.entry(key).or_default() += 1;
                    b":1\r\n".to_vec()
                } else {
                    b"*1\r\n:0\r\n".to_vec()
                }
            }
        };
        self.pipeline.reply(link, &reply, self.now).unwrap();
        self.collect();
    }

    /// The cluster was asked, and says so.
    fn lay_out(&mut self, owners: [Option<u16>; 3]) {
        let known = &self.pipeline.phase.topology;
        let count = known.primaries();
        let mut nodes = known.nodes.clone();
        let (host, id) = (String::from("stranger"), NodeId::new("stranger:7777"));
        nodes.push(Node { id, host, port: 7777, primary: true, of: None });
        let owner = |slot: usize| owners[slot * 3 / 16384].map(|o| o.min(u16::try_from(count).unwrap()));
        let layout = Layout { nodes, slots: (0..16384).map(owner).collect() };
        self.pipeline.adopt(&layout, self.now);
        self.collect();
        for node in 0..u16::try_from(self.pipeline.nodes.len()).unwrap() {
            for waiting in self.pipeline.nodes[usize::from(node)].backlog.clone() {
                let right = match waiting.item {
                    Item::Row { .. } => self.pipeline.route(waiting.item) == node,
                    Item::Numbered { .. } => self.pipeline.routes.owns(node),
                };
                assert!(right, "what waits, waits for the owner of its slot: {waiting:?} at {node}");
            }
        }
    }

    fn run_out(&mut self) {
        for _ in 0..200_000 {
            if self.pipeline.is_done(self.now) {
                return;
            }
            self.answer(0, &Answer::Well);
            let wake = self.pipeline.next_wake(self.now).unwrap_or(self.now);
            let advance = wake.saturating_sub(self.now).min(50 * MS);
            self.step(advance);
        }
        panic!("the phase never ended: {:?}", self.pipeline.load());
    }

    /// Sums of all cells by window and operation.
    fn windows(&mut self) -> Windows {
        let mut sums = Windows::new();
        for (key, cell) in self.pipeline.recorder().take(u64::MAX / 2, true).cells {
            sums.entry((key.window, key.operation.to_string())).or_default().merge(&cell);
        }
        sums
    }

    /// Sums of all cells by operation.
    fn cells(&mut self) -> BTreeMap<String, Cell> {
        by_operation(self.windows())
    }
}

type Windows = BTreeMap<(Window, String), Cell>;

fn by_operation(windows: Windows) -> BTreeMap<String, Cell> {
    let mut sums: BTreeMap<String, Cell> = BTreeMap::new();
    for ((_, operation), cell) in windows {
        sums.entry(operation).or_default().merge(&cell);
    }
    sums
}

#[derive(Clone, Debug)]
enum Move {
    Step(u64),
    Answer(usize, Answer),
    Fence(bool),
    /// The cluster says which of its nodes owns each third of the slots; the one behind the last is a stranger.
    Layout([Option<u16>; 3]),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0u64..40).prop_map(|ms| Move::Step(ms * MS)),
        8 => (any::<usize>(), answer()).prop_map(|(i, a)| Move::Answer(i, a)),
        1 => any::<bool>().prop_map(Move::Fence),
        1 => prop::array::uniform3(prop::option::weighted(0.8, 0u16..4)).prop_map(Move::Layout),
    ];
    proptest::collection::vec(one, 0..150)
}

fn make(simulation: &mut Simulation, one: &Move) {
    match one {
        Move::Step(advance) => simulation.step(*advance),
        Move::Answer(pick, answer) => simulation.answer(*pick, answer),
        Move::Fence(fenced) => simulation.pipeline.fence(*fenced),
        Move::Layout(owners) => simulation.lay_out(*owners),
    }
}

fn play(simulation: &mut Simulation, moves: &[Move]) {
    for one in moves {
        make(simulation, one);
    }
    simulation.pipeline.fence(false);
    simulation.run_out();
}

fn check_accounting(simulation: &Simulation, cell: &Cell) -> Result<(), TestCaseError> {
    let server = &simulation.server;
    prop_assert_eq!(cell.attempts_executed, server.calls, "executed attempts are the server's calls");
    prop_assert_eq!(cell.attempts_rejected, server.rejected, "rejected attempts are its rejected calls");
    // ASKING goes before an attempt and is none of its own.
    let attempts = simulation.in_flight.values().flatten().filter(|c| !c.ends_with(b"ASKING\r\n"));
    let unanswered = server.cut + u64::try_from(attempts.count()).unwrap();
    prop_assert_eq!(
        cell.attempts_unknown,
        unanswered,
        "attempts without a reply, and no others, are unknown"
    );
    prop_assert!(server.asked <= server.asks, "ASKING is said only after ASK");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_due_query_ends_exactly_once_and_attempts_are_the_servers_counters(
        nodes in 1u16..4,
        fan_out in any::<bool>(),
        rate in 10f64..400.0,
        connections in 1u32..5,
        timeout_ms in 5u64..2000,
        warm_up_ms in prop_oneof![Just(0u64), 1u64..1500],
        moves in moves(),
    ) {
        let mut phase = open_queries(nodes, fan_out, rate, connections, timeout_ms * MS);
        Arc::get_mut(&mut phase).unwrap().order.warm_up_ns = warm_up_ms * MS;
        let schedule = Schedule::of_order(&phase.order).unwrap();
        let mut simulation = Simulation::new(phase);
        play(&mut simulation, &moves);
        let totals = simulation.pipeline.totals();
        let windows = simulation.windows();
        let due = |window| windows.get(&(window, String::from("knn"))).map_or(0, |cell| cell.due);
        let in_warm_up = schedule.due_in(&ShareSet::for_lane(0, 1), 0, warm_up_ms * MS);
        prop_assert_eq!(due(Window::WarmUp), in_warm_up, "what is due in the warm-up is counted there");
        for cell in windows.iter().filter(|((_, operation), _)| operation == "knn").map(|(_, cell)| cell) {
            prop_assert_eq!(cell.ended(), cell.due, "a request ends in the window in which it was due");
        }
        let cells = by_operation(windows);
        let knn = cells.get("knn").cloned().unwrap_or_default();
        prop_assert_eq!(Some(knn.due), schedule.count());
        prop_assert_eq!(knn.ended(), knn.due);
        prop_assert_eq!((totals.due, totals.sent + knn.unsent), (knn.due, knn.due));
        prop_assert_eq!(totals.ok, knn.ok);
        let latencies = knn.response.as_ref().map_or(0, |h| h.len());
        prop_assert_eq!(latencies + knn.answered_errors(), knn.due);
        prop_assert_eq!(knn.censored.as_ref().map_or(0, |h| h.len()), knn.timeout + knn.lost + knn.unsent);
        let attempts = if fan_out { cells.get("knn_part").cloned().unwrap_or_default() } else { knn };
        check_accounting(&simulation, &attempts)?;
        // One node may join.
        let slots = usize::from(nodes + 1) * usize::try_from(connections).unwrap();
        prop_assert!(simulation.most_in_flight <= slots, "in flight is bounded by connections x depth");
    }

    #[test]
    fn every_row_is_written_or_named_as_failed(
        nodes in 1u16..4,
        clients in 1u32..4,
        pipeline in 1u32..5,
        timeout_ms in 5u64..2000,
        rows in 1u64..60,
        moves in moves(),
    ) {
        let mut simulation = Simulation::new(ingest(nodes, clients, pipeline, timeout_ms * MS));
        for block in 0..rows.div_ceil(7) {
            let part: Vec<(u32, u64)> = (block * 7..rows.min(block * 7 + 7)).map(|r| (0, r)).collect();
            let vectors = vec![0; part.len() * 4];
            simulation.pipeline.give(RowBlock { id: block, rows: part, vectors, ..RowBlock::default() });
        }
        simulation.pipeline.no_more_rows();
        play(&mut simulation, &moves);
        let cell = simulation.cells().remove("hset").unwrap_or_default();
        prop_assert_eq!(cell.due, rows);
        prop_assert_eq!(cell.ended(), rows);
        let (mut ok, mut failed, mut blocks) = (0, 0, 0);
        for event in &simulation.events {
            if let LaneEvent::BlockDone { ok: o, failed: f, .. } = event {
                ok += o;
                failed += f;
                blocks += 1;
            }
        }
        prop_assert_eq!((ok + failed, blocks), (rows, rows.div_ceil(7)));
        let written = u64::try_from(simulation.rows_seen.len()).unwrap();
        prop_assert!(written >= ok, "a row that counts as written was executed by the server");
        let limit = usize::try_from(clients * pipeline).unwrap();
        prop_assert!(simulation.most_in_flight <= limit, "timed out or not, in flight stays within the scenario's");
        check_accounting(&simulation, &cell)?;
    }

    #[test]
    fn a_closed_loop_keeps_its_number_in_flight_and_never_more(
        clients in 1u32..6,
        pipeline in 1u32..6,
        rows in 1u64..200,
    ) {
        let mut simulation = Simulation::new(ingest(1, clients, pipeline, 1000 * MS));
        let part: Vec<(u32, u64)> = (0..rows).map(|r| (0, r)).collect();
        let vectors = vec![0; part.len() * 4];
        simulation.pipeline.give(RowBlock { id: 1, rows: part, vectors, ..RowBlock::default() });
        simulation.pipeline.no_more_rows();
        simulation.step(MS);
        let limit = u64::from(clients * pipeline);
        prop_assert_eq!(u64::try_from(simulation.most_in_flight).unwrap(), limit.min(rows));
        simulation.run_out();
        prop_assert_eq!(u64::try_from(simulation.most_in_flight).unwrap(), limit.min(rows));
    }
}

#[test]
fn a_stall_is_seen_by_every_request_that_fell_due_in_it() {
    // 100/s for 1 s, the server answers nothing for the first 500 ms: whoever fell due at t waited 500 ms - t.
    let mut simulation = Simulation::new(open_queries(1, false, 100.0, 4, 60_000 * MS));
    for _ in 0..500 {
        simulation.step(MS);
    }
    for _ in 0..2000 {
        simulation.answer(0, &Answer::Well);
        simulation.step(MS / 4);
    }
    simulation.run_out();
    let knn = simulation.cells().remove("knn").unwrap();
    assert_eq!((knn.due, knn.ok, knn.ended()), (100, 100, 100));
    let response = knn.response.unwrap();
    let worst = response.max().unwrap();
    assert!((500 * MS..520 * MS).contains(&worst), "{worst}");
    let median_of_stalled = response.quantile(0.75).unwrap();
    assert!((240 * MS..280 * MS).contains(&median_of_stalled), "{median_of_stalled}");
    let service = knn.service.unwrap();
    assert!(
        service.quantile(0.9).unwrap() < 20 * MS,
        "service time hides the wait, which is why both are shown"
    );
}

#[test]
fn with_a_short_timeout_the_stall_is_censored_not_small() {
    let mut simulation = Simulation::new(open_queries(1, false, 100.0, 4, 100 * MS));
    for _ in 0..500 {
        simulation.step(MS);
    }
    simulation.run_out();
    let knn = simulation.cells().remove("knn").unwrap();
    assert!(knn.timeout >= 4, "the requests in flight timed out: {}", knn.timeout);
    let (response, censored) = (knn.response.unwrap(), knn.censored.unwrap());
    let p99 = vst_common::latency::censored_quantile(&response, &censored, 0.99).unwrap();
    assert!(p99.ns >= 100 * MS);
    assert!(knn.late >= 4, "their late replies are counted: {}", knn.late);
}

#[test]
fn what_is_never_answered_ends_with_the_drain() {
    let mut simulation = Simulation::new(open_queries(2, true, 50.0, 2, 500 * MS));
    while !simulation.pipeline.is_done(simulation.now) {
        assert!(simulation.now < 60_000 * MS, "the drain has an end");
        simulation.step(20 * MS);
    }
    let knn = simulation.cells().remove("knn").unwrap();
    assert_eq!((knn.due, knn.timeout, knn.unsent), (50, 2, 48));
}
