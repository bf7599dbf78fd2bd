//! A run directory made up by arithmetic, written with the real entry and batch code.
//!
//! Two workers, three primaries; baseline, ingest (closed loop), a query phase, a checkpoint, a delete of half the
//! rows, another query phase, another checkpoint. A test changes what it needs before [`Made::write`].

mod written;

use arrow_array::RecordBatch;
use vst_common::batch::table::{read_ipc, write_ipc};
use vst_common::batch::{
    Sample, Stamp, Table, allocator, commandstats, events, health, latency, memory, recall,
};
use vst_common::entry::{
    Control, Entry, PhaseEnded, PhaseOutcome, PhaseStarted, RunState, StoredBatch, Totals,
};
use vst_common::expand::Expansion;
use vst_common::ids::{Generation, NodeId, PhaseIndex, RunId, Sequence, WorkerId};
use vst_common::latency::{Cell, Window};
use vst_common::live_set::LiveSet;
use vst_common::outcome::{Attempt, Kind, Outcome};
use vst_common::phase::{PhaseOrder, SearchModule, SearchPlan, TruthSource, VectorWork, Work};
use vst_common::recall::RecallCell;

use vst_common::scenario::{Arrival, CopyOrder, DatasetSpec, Load, Metric};

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_800_000_000 * SECOND;
pub(super) const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];
pub(super) const WORKERS: [&str; 2] = ["w1", "w2"];
const ROWS: u64 = 9_000;
const RATE: u64 = 300;

/// A run under construction: one element per phase, one log entry each.
pub(super) struct Made {
    pub(super) phases: Vec<MadePhase>,
    pub(super) lost: Option<&'static str>,
    pub(super) closed: Option<RunState>,
    pub(super) run_json: bool,
    /// Columns that the program which recorded it did not know yet.
    pub(super) lacks: Vec<(Table, &'static str)>,
}

/// A phase and all its rows.
pub(super) struct MadePhase {
    pub(super) started: PhaseStarted,
    pub(super) ended: Option<PhaseEnded>,
    /// Latency rows by worker.
    pub(super) latency: [Vec<latency::LatencyRow>; 2],
    pub(super) health: [Vec<health::HealthRow>; 2],
    pub(super) events: [Vec<events::EventRow>; 2],
    pub(super) memory: Vec<memory::MemoryRow>,
    pub(super) allocator: Vec<allocator::AllocatorRow>,
    pub(super) recall: Vec<recall::RecallQueryRow>,
    pub(super) commandstats: Vec<commandstats::CommandstatsRow>,
    /// Whether the workers state what they delivered.
    pub(super) stated: bool,
}

pub(super) fn work() -> VectorWork {
    VectorWork {
        dataset: DatasetSpec {
            base: String::from("file:///data/base.u8bin"),
            queries: String::from("file:///data/queries.u8bin"),
            ground_truth: String::from("file:///data/truth.ibin"),
            rows: None,
        },
        rows: ROWS,
        dims: 128,
        expansion: Expansion::None,
        order: CopyOrder::Interleaved,
        truth: TruthSource::Listed,
        metric: Metric::L2,
        on: vst_common::scenario::RowKind::Hash,
        prefix: String::from("vst:"),
        field: String::from("v"),
        attributes: vst_common::attributes::Attributes::default(),
        live: LiveSet::empty(7, ROWS, 1),
        search: SearchPlan::ServerSide {
            module: SearchModule::ValkeySearch,
            index: String::from("vst_index"),
        },
    }
}

impl Made {
    /// A valid run.
    pub(super) fn valid() -> Self {
        let mut made = Self {
            phases: Vec::new(),
            lost: None,
            closed: Some(RunState::Finished),
            run_json: true,
            lacks: Vec::new(),
        };
        let closed = Load::Closed { clients: 4, pipeline: 8 };
        made.quiet("baseline", "baseline", 0, 30_000_000);
        made.mutation("load", "ingest", "hset", closed.clone(), ROWS, ROWS);
        made.queries("ask", ROWS);
        made.quiet("full", "checkpoint", ROWS, 30_000_000 + ROWS * 2_000);
        made.mutation("halve", "shrink", "del", closed, ROWS / 2, ROWS / 2);
        made.queries("ask_again", ROWS / 2);
        made.quiet("half", "checkpoint", ROWS / 2, 30_000_000 + ROWS * 1_000 + 900_000);
        made
    }

    fn phase(
        &mut self,
        name: &str,
        step: &str,
        seconds: i64,
        order: Option<(Work, Load)>,
        live: u64,
    ) -> &mut MadePhase {
        let index = PhaseIndex(u32::try_from(self.phases.len()).unwrap());
        let start = START + i64::from(index.0) * 20 * SECOND;
        let is_query = matches!(order, Some((Work::Query { .. }, _)));
        let order = order.map(|(work, load)| PhaseOrder {
            beside: None,
            index,
            name: name.to_owned(),
            seed: 7,
            work,
            load,
            warm_up_ns: if is_query { 1_000_000_000 } else { 0 },
            operations: None,
            duration_ns: if is_query { 10_000_000_000 } else { 0 },
            timeout_ns: 1_000_000_000,
            interval_ns: 1_000_000_000,
            lanes_total: 2,
            connection: vst_common::scenario::ConnectionSpec::default(),
        });
        self.phases.push(MadePhase {
            started: PhaseStarted {
                beside: None,
                index,
                name: name.to_owned(),
                step: step.to_owned(),
                start_wall_ns: start,
                start_mono_ns: 0,
                order,
            },
            ended: Some(PhaseEnded {
                index,
                end_wall_ns: start + seconds * SECOND,
                outcome: PhaseOutcome::Completed,
                totals: Totals::default(),
                scheduled: None,
                unowned: 0,
                live,
                exit_code: 0,
            }),
            latency: [Vec::new(), Vec::new()],
            health: [Vec::new(), Vec::new()],
            events: [Vec::new(), Vec::new()],
            memory: Vec::new(),
            allocator: Vec::new(),
            recall: Vec::new(),
            commandstats: Vec::new(),
            stated: true,
        });
        self.phases.last_mut().unwrap()
    }

    /// A phase without load: three ticks of all nodes.
    pub(super) fn quiet(&mut self, name: &str, step: &str, live: u64, used: u64) {
        let phase = self.phase(name, step, 5, None, live);
        let (index, start) = (phase.started.index, phase.started.start_wall_ns);
        for tick in 0..3 {
            for node in NODES {
                let each = used / 3;
                let info = memory::parse_info(&format!(
                    "used_memory:{each}\nused_memory_rss:{}\nmem_allocator:libc\n",
                    each + each / 10
                ));
                phase.memory.push(memory::MemoryRow {
                    sample: Sample {
                        tick: u64::from(index.0) * 100 + tick,
                        sampled_at: start + i64::try_from(tick).unwrap() * SECOND,
                        took_ns: 1_000_000,
                        phase: name.to_owned(),
                        phase_index: index,
                        node: NodeId::new(node),
                        role: String::from("primary"),
                        missing: None,
                    },
                    address: String::from("127.0.0.1:1"),
                    keys: Some(live / 3),
                    info,
                    module_used_memory_bytes: None,
                    module_reclaimable_bytes: None,
                    index_size_bytes: None,
                    index_docs: Some(live / 3),
                    index_failures: Some(0),
                    indexing: Some(false),
                    mutation_queue: Some(0),
                    process: Some(memory::Process {
                        rss_bytes: each + each / 10,
                        swap_bytes: 0,
                        minor_faults: 1_000 * tick,
                        major_faults: 0,
                    }),
                });
            }
        }
    }

    /// Size classes of every node at the ticks of a quiet phase: (bytes of a region, bytes in use, bytes of pages).
    pub(super) fn classes(&mut self, name: &str, classes: &[(u64, u64, u64)]) {
        let phase = self.find(name);
        let totals = allocator::AllocatorTotals {
            allocated: classes.iter().map(|c| c.1).sum(),
            active: classes.iter().map(|c| c.2).sum(),
            resident: classes.iter().map(|c| c.2).sum(),
        };
        for row in &phase.memory {
            phase.allocator.extend(classes.iter().map(|(size, allocated, held)| allocator::AllocatorRow {
                sample: row.sample.clone(),
                totals: Some(totals),
                class: Some(allocator::SizeClass {
                    kind: allocator::ClassKind::Bin,
                    size_bytes: *size,
                    allocated_bytes: *allocated,
                    held_bytes: Some(*held),
                    regions: Some(allocated / size),
                    slabs: Some(held / 4096),
                    nonfull_slabs: None,
                    regions_per_slab: Some(4096 / size),
                    pages_per_slab: Some(1),
                    slabs_made: None,
                    nmalloc: None,
                    ndalloc: None,
                }),
            }));
        }
    }

    pub(super) fn mutation(
        &mut self,
        name: &str,
        step: &str,
        command: &str,
        load: Load,
        rows: u64,
        live: u64,
    ) {
        let order = if command == "hset" { Work::Ingest(work()) } else { Work::Delete(work()) };
        let phase = self.phase(name, step, 3, Some((order, load)), live);
        for (w, node) in (0..2).flat_map(|w| NODES.map(|node| (w, node))) {
            for interval in 0..3 {
                let mut cell = Cell::default();
                for i in 0..rows / 18 {
                    cell.due += 1;
                    cell.sent += 1;
                    cell.record(&closed_outcome(200_000 + i * 1_000), u64::MAX);
                    cell.record_attempt(Attempt::Executed);
                }
                phase.add_latency(w, interval, command, command, node, Window::Measure, cell);
            }
        }
        phase.finish(0.4);
    }

    fn queries(&mut self, name: &str, live: u64) {
        let load = Load::Open { arrival: Arrival::Constant { rate: 300.0 }, connections: 16 };
        let order = Work::Query {
            vectors: work(),
            ask: vst_common::scenario::Ask::nearest(10, Some(64)),
            during: None,
        };
        let phase = self.phase(name, "query", 12, Some((order, load)), live);
        for (w, interval) in (0..2).flat_map(|w| (0..11).map(move |i| (w, i))) {
            let window = if interval == 0 { Window::WarmUp } else { Window::Measure };
            let mut whole = Cell::default();
            let mut parts: [Cell; 3] = Default::default();
            for i in 0..RATE / 2 {
                whole.due += 1;
                whole.sent += 1;
                whole.record(&open_outcome(500_000 + i * 10_000, 50_000, Kind::Ok), u64::MAX);
                for part in &mut parts {
                    part.record(&open_outcome(300_000 + i * 5_000, 50_000, Kind::Ok), u64::MAX);
                    part.record_attempt(Attempt::Executed);
                }
            }
            phase.add_latency(w, interval, "knn", "FT.SEARCH", "*", window, whole);
            for (node, cell) in NODES.into_iter().zip(parts) {
                phase.add_latency(w, interval, "knn_part", "FT.SEARCH", node, window, cell);
            }
        }
        for query in 0..100 {
            let cell = RecallCell {
                queries: 30,
                // One query in twenty misses one neighbour, every time.
                hits: if query % 20 == 0 { 270 } else { 300 },
                possible: 300,
                ..RecallCell::default()
            };
            phase.recall.push(recall::RecallQueryRow {
                phase: name.to_owned(),
                phase_index: phase.started.index,
                k: 10,
                query,
                copy: 0,
                cell,
            });
        }
        phase.finish(0.1);
    }

    /// One more tick of a phase without load, `after_end_ns` after its logged end (before it, if negative), at which
    /// every node uses `more` bytes than at the tick before.
    pub(super) fn tick_at_end(&mut self, name: &str, after_end_ns: i64, more: u64) {
        let phase = self.find(name);
        let sampled_at = phase.ended.as_ref().unwrap().end_wall_ns + after_end_ns;
        let last = phase.memory.len() - NODES.len();
        let late: Vec<_> = phase.memory[last..].to_vec();
        for mut row in late {
            let used: u64 = row.info["used_memory"].parse().unwrap();
            row.info = memory::parse_info(&format!("used_memory:{}\nmem_allocator:libc\n", used + more));
            row.sample.tick += 1;
            row.sample.sampled_at = sampled_at;
            phase.memory.push(row);
        }
    }

    pub(super) fn find(&mut self, name: &str) -> &mut MadePhase {
        self.phases.iter_mut().find(|p| p.started.name == name).unwrap()
    }

    /// Cuts the run off as a kill of the coordinator would, within the named phase.
    pub(super) fn killed_in(&mut self, name: &str) {
        let at = self.phases.iter().position(|p| p.started.name == name).unwrap();
        self.phases.truncate(at + 1);
        let phase = self.find(name);
        phase.ended = None;
        phase.stated = false;
        phase.recall.clear();
        phase.commandstats.clear();
        for rows in &mut phase.latency {
            rows.retain(|row| row.interval_start < phase.started.start_wall_ns + 5 * SECOND);
        }
        self.closed = None;
    }

    /// The entries of the log, in order.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut sequences = [0_u64; 2];
        let mut opening = vec![
            Control::Led { run: RunId::new("20270115-made"), epoch: 1, leader: String::from("c") },
            Control::RunOpened { at_wall_ns: START - SECOND, facts: facts() },
        ];
        opening.extend(WORKERS.map(|worker| Control::WorkerJoined {
            worker: WorkerId::new(worker),
            generation: Generation(1),
            host: String::from("host"),
            lanes: 1,
            at_wall_ns: START - SECOND,
            instance: 0,
        }));
        let mut entries = vec![entry(1, opening, Vec::new())];
        for phase in &self.phases {
            let number = u64::try_from(entries.len()).unwrap() + 1;
            let batches = phase.batches(&mut sequences);
            let mut controls = vec![Control::PhaseStarted(phase.started.clone())];
            if phase.stated && phase.started.order.is_some() {
                controls.extend((0..2).map(|w| Control::StreamEnded {
                    worker: WorkerId::new(WORKERS[w]),
                    generation: Generation(1),
                    phase: phase.started.index,
                    last_sequence: Sequence(sequences[w]),
                    totals: phase.totals(w),
                }));
            }
            controls.extend(phase.ended.clone().map(Control::PhaseEnded));
            entries.push(entry(number, controls, batches));
        }
        let mut closing = Vec::new();
        if let Some(worker) = self.lost {
            closing.push(Control::WorkerLeft {
                worker: WorkerId::new(worker),
                generation: Generation(1),
                lost: true,
                reason: String::from("no heartbeat for 10 s"),
                at_wall_ns: START + 20 * SECOND,
            });
        }
        if let Some(state) = &self.closed {
            let at_wall_ns = START + 140 * SECOND;
            closing.push(Control::RunClosed { state: state.clone(), exit_code: 0, at_wall_ns });
        }
        if !closing.is_empty() {
            entries.push(entry(u64::try_from(entries.len()).unwrap() + 1, closing, Vec::new()));
        }
        for stored in entries.iter_mut().flat_map(|entry| &mut entry.batches) {
            let [batch] = read_ipc(&stored.ipc).unwrap().try_into().unwrap();
            stored.ipc = write_ipc(&self.recorded(stored.table, &batch)).unwrap().into();
        }
        entries
    }

    /// A batch without the columns that the run lacks.
    fn recorded(&self, table: Table, batch: &RecordBatch) -> RecordBatch {
        let schema = batch.schema();
        let has = |i: &usize| !self.lacks.contains(&(table, schema.field(*i).name()));
        let kept: Vec<usize> = (0..batch.num_columns()).filter(has).collect();
        batch.project(&kept).unwrap()
    }
}

impl MadePhase {
    #[expect(clippy::too_many_arguments, reason = "they are the key of a row")]
    fn add_latency(
        &mut self,
        w: usize,
        interval: i64,
        operation: &str,
        command: &str,
        node: &str,
        window: Window,
        cell: Cell,
    ) {
        let interval_start = self.started.start_wall_ns + interval * SECOND;
        self.latency[w].push(latency::LatencyRow {
            phase: self.started.name.clone(),
            phase_index: self.started.index,
            window,
            operation: operation.to_owned(),
            command: command.to_owned(),
            node: NodeId::new(node),
            interval_start,
            interval_ns: 1_000_000_000,
            cell,
        });
    }

    /// Health of one lane per worker, and what the server would have counted.
    fn finish(&mut self, busy: f64) {
        for w in 0..2 {
            for interval in 0..3_u32 {
                let mut slip = vst_common::latency::Hdr::new();
                (0..100).for_each(|i| {
                    slip.record(20_000 + i * 100);
                });
                self.health[w].push(health::HealthRow {
                    phase: self.started.name.clone(),
                    phase_index: self.started.index,
                    lane: u32::try_from(w).unwrap(),
                    interval_start: self.started.start_wall_ns + i64::from(interval) * SECOND,
                    interval_ns: 1_000_000_000,
                    slip,
                    busy_ns: vst_common::count::from_f64(busy * 1e9),
                    cpu_ns: 1,
                    in_flight_max: 8,
                    backlog_max: 0,
                    clock_offset_ns: 0,
                    clock_error_ns: 10_000,
                    unacknowledged: 0,
                });
            }
        }
        self.count_on_servers();
    }

    /// Makes the server's counters agree with the latency rows.
    pub(super) fn count_on_servers(&mut self) {
        self.commandstats = NODES
            .into_iter()
            .map(|node| {
                let rows = self.latency.iter().flatten().filter(|r| r.node.as_str() == node);
                let executed: u64 = rows.clone().map(|r| r.cell.attempts_executed).sum();
                let command = rows.map(|r| r.command.clone()).next().unwrap();
                commandstats::CommandstatsRow {
                    phase: self.started.name.clone(),
                    phase_index: self.started.index,
                    node: NodeId::new(node),
                    command,
                    calls_before: Some(1_000),
                    calls_after: Some(1_000 + executed),
                    rejected_before: Some(0),
                    rejected_after: Some(0),
                    why_not: None,
                }
            })
            .collect();
    }

    /// The first row of the whole operation in the measured window, to be changed.
    pub(super) fn cell(&mut self, operation: &str) -> &mut Cell {
        let is_wanted =
            |r: &&mut latency::LatencyRow| r.operation == operation && r.window == Window::Measure;
        &mut self.latency[0].iter_mut().find(is_wanted).unwrap().cell
    }

    fn totals(&self, w: usize) -> Totals {
        let mut totals = Totals::default();
        for row in self.latency[w].iter().filter(|r| r.operation != "knn_part") {
            let c = &row.cell;
            totals.add(&Totals {
                due: c.due,
                sent: c.sent,
                ok: c.ok,
                errors: c.answered_errors(),
                timeout: c.timeout,
                lost: c.lost,
                unsent: c.unsent,
            });
        }
        totals
    }

    fn batches(&self, sequences: &mut [u64; 2]) -> Vec<StoredBatch> {
        let mut out = Vec::new();
        let mut put = |worker: &str, table: Table, make: &dyn Fn(&Stamp) -> RecordBatch| {
            let w = WORKERS.iter().position(|name| *name == worker);
            let sequence = w.map_or(1, |w| {
                sequences[w] += 1;
                sequences[w]
            });
            let stamp = Stamp {
                run: RunId::new("20270115-made"),
                worker: WorkerId::new(worker),
                generation: Generation(1),
                sequence: Sequence(sequence),
            };
            let batch = make(&stamp);
            if batch.num_rows() > 0 {
                out.push(StoredBatch {
                    worker: stamp.worker,
                    generation: stamp.generation,
                    sequence: stamp.sequence,
                    table,
                    ipc: write_ipc(&batch).unwrap().into(),
                });
            } else if let Some(w) = w {
                sequences[w] -= 1;
            }
        };
        for (w, name) in WORKERS.into_iter().enumerate() {
            put(name, Table::Latency, &|s| latency::to_batch(s, &self.latency[w]).unwrap());
            put(name, Table::Health, &|s| health::to_batch(s, &self.health[w]).unwrap());
            put(name, Table::Events, &|s| events::to_batch(s, &self.events[w]).unwrap());
            let sampled: Vec<_> = self.memory.iter().skip(w).step_by(2).cloned().collect();
            put(name, Table::Memory, &|s| memory::to_batch(s, &sampled).unwrap());
            put(name, Table::Allocator, &|s| {
                let rows: Vec<_> = self.allocator.iter().skip(w).step_by(2).cloned().collect();
                allocator::to_batch(s, &rows).unwrap()
            });
            let judged: Vec<_> = self.recall.iter().skip(w).step_by(2).cloned().collect();
            put(name, Table::RecallQueries, &|s| recall::to_queries_batch(s, &judged).unwrap());
        }
        put("coordinator", Table::Commandstats, &|s| commandstats::to_batch(s, &self.commandstats).unwrap());
        out
    }
}

fn entry(number: u64, controls: Vec<Control>, batches: Vec<StoredBatch>) -> Entry {
    Entry { number, epoch: 1, leader: String::from("c"), written_at: START, controls, batches }
}

fn facts() -> serde_json::Value {
    serde_json::json!({
        "target": { "url": "valkey://127.0.0.1:7000" },
        "scenario": {
            "name": "made",
            "purpose": "Does the report say what the directory says?",
            "seed": 7,
            "dataset": { "base": "base.u8bin", "queries": "q.u8bin", "ground_truth": "t.ibin", "rows": null },
            "index": { "metric": "l2", "dims": null, "m": 16, "ef_construction": 200 },
            "population": { "prefix": "vst:" },
            "fleet": { "workers": 2, "lanes": 1 },
            "sampling": { "interval_ms": 1000 },
            "phases": []
        }
    })
}

pub(super) fn closed_outcome(service: u64) -> Outcome {
    Outcome { due: None, slot_free: 0, sent: Some(0), ended: service, kind: Kind::Ok, attempts: 1 }
}

pub(super) fn open_outcome(response: u64, waited: u64, kind: Kind) -> Outcome {
    Outcome { due: Some(0), slot_free: 0, sent: Some(waited), ended: response, kind, attempts: 1 }
}
