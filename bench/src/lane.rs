//! The requests of a case through one production lane, measured as `getrusage` would.
//!
//! The lane gets a phase as a worker's session would arm it, and hands over everything that it records. All its work
//! lies ready before the clock starts, as it does in a worker, where other threads read the data.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use vst_common::clock::{mono_ns, process_cpu_ns, wall_ns};
use vst_common::count;
use vst_common::expand::Expansion;
use vst_common::ids::{Generation, PhaseIndex, RunId, WorkerId};
use vst_common::latency::Cell;
use vst_common::live_set::LiveSet;
use vst_common::phase::{CommandWork, PhaseOrder, SearchModule, SearchPlan, TruthSource, VectorWork, Work};
use vst_common::scenario::{
    CommandSpec, CopyOrder, DatasetSpec, KeyDistribution, KeyspaceSpec, Load, Metric, ValueSpec,
};
use vst_worker::lane::{Config, Credentials, spawn};
use vst_worker::topology::Topology;
use vst_worker::work::{ArmedPhase, LaneCommand, LaneEvent, LoadLease, RowBlock};

use crate::server::Server;
use crate::{CONNECTIONS, Case, Command, Error, KEYS, VALUE_BYTES};

/// Rows of one block, as `fetch` cuts them.
const BLOCK_ROWS: u64 = 4096;

/// What a lane's requests cost and how long they took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneRun {
    /// CPU time of the process per request, nanoseconds.
    pub(crate) cpu_ns: f64,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Service time, median, nanoseconds.
    pub(crate) p50_ns: u64,
    /// Service time, 99 % quantile, nanoseconds.
    pub(crate) p99_ns: u64,
}

impl LaneRun {
    pub(crate) fn measure(server: &Server, case: Case, requests: u64) -> Result<Self, Error> {
        if case.command == Command::Get {
            // What is read is there: every key is written once.
            Self::once(server, order(Case { command: Command::Set, pipeline: 16 }, KEYS, true), KEYS)?;
        }
        Self::once(server, order(case, requests, false), requests)
    }

    fn once(server: &Server, order: PhaseOrder, requests: u64) -> Result<Self, Error> {
        let (sender, mut events) = unbounded_channel();
        let config = Config {
            number: 0,
            worker: WorkerId::new("bench"),
            run: RunId::new("bench"),
            generation: Generation(1),
            credentials: Credentials::default(),
        };
        let handle = spawn(config, sender).map_err(|e| Error::Lane(e.to_string()))?;
        let leased = order.work.is_leased();
        let phase = Arc::new(ArmedPhase {
            order,
            topology: Arc::new(Topology::standalone("127.0.0.1", server.port)),
            queries: None,
        });
        handle.send(LaneCommand::Arm { phase, lane: 0, lease: LoadLease::new(u64::MAX) });
        wait_for(&mut events, |event| matches!(event, LaneEvent::Armed { .. }))?;
        if leased {
            for (id, first) in (0u64..).zip((0..requests).step_by(count::index(BLOCK_ROWS))) {
                handle.send(LaneCommand::Rows(block(id, first, requests)));
            }
            handle.send(LaneCommand::NoMoreRows);
        }
        // The lane takes the blocks in before the clock starts.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let (cpu, began) = (process_cpu_ns(), mono_ns());
        handle.send(LaneCommand::Start { at: began, at_wall: wall_ns() });
        let mut sum = Cell::default();
        let mut ended = 0;
        wait_for(&mut events, |event| match event {
            LaneEvent::Measured { cells, .. } => {
                cells.iter().for_each(|(_, cell)| sum.merge(cell));
                false
            }
            LaneEvent::Done { totals, .. } => {
                ended = totals.ok;
                true
            }
            _ => false,
        })?;
        let (took, cpu) = (mono_ns() - began, process_cpu_ns() - cpu);
        if ended != requests || sum.ok != requests || sum.miss != 0 {
            return Err(Error::Lane(format!("{ended} of {requests} requests ended well")));
        }
        let service = sum.service.unwrap_or_default();
        let requests = count::to_f64(requests);
        Ok(Self {
            cpu_ns: count::to_f64(cpu) / requests,
            rate: requests / (count::to_f64(took) / 1e9),
            p50_ns: service.quantile(0.5).unwrap_or(0),
            p99_ns: service.quantile(0.99).unwrap_or(0),
        })
    }
}

fn wait_for(
    events: &mut UnboundedReceiver<(u32, LaneEvent)>,
    mut last: impl FnMut(&LaneEvent) -> bool,
) -> Result<(), Error> {
    while let Some((_, event)) = events.blocking_recv() {
        if let LaneEvent::Failed { reason, .. } = event {
            return Err(Error::Lane(reason));
        }
        if last(&event) {
            return Ok(());
        }
    }
    Err(Error::Lane(String::from("it left")))
}

/// A phase of `operations` requests; `in_turn` goes through the keys one after the other.
fn order(case: Case, operations: u64, in_turn: bool) -> PhaseOrder {
    let commands = |template: &str| {
        let name = case.name();
        Work::Commands(CommandWork {
            prefix: String::from("s:"),
            keyspace: KeyspaceSpec { keys: KEYS, ..KeyspaceSpec::default() },
            commands: vec![CommandSpec { name, template: template.to_owned(), weight: 1, space: None }],
            keys: if in_turn { KeyDistribution::Sequential } else { KeyDistribution::Uniform },
            values: ValueSpec::default(),
        })
    };
    let dataset =
        DatasetSpec { base: String::new(), queries: String::new(), ground_truth: String::new(), rows: None };
    let vectors = VectorWork {
        dataset,
        rows: u64::MAX >> 1,
        dims: u32::try_from(VALUE_BYTES / size_of::<f32>()).unwrap_or(0),
        expansion: Expansion::None,
        order: CopyOrder::Interleaved,
        truth: TruthSource::Listed,
        metric: Metric::L2,
        on: vst_common::scenario::RowKind::Hash,
        prefix: String::from("p:"),
        field: String::from("v"),
        attributes: vst_common::attributes::Attributes::default(),
        live: LiveSet::empty(1, 1, 1),
        search: SearchPlan::ServerSide { module: SearchModule::RediSearch, index: String::from("i") },
    };
    PhaseOrder {
        index: PhaseIndex(1),
        name: String::from("bench"),
        seed: 1,
        work: match case.command {
            Command::Set => commands("SET {key} {value}"),
            Command::Get => commands("GET {key}"),
            Command::Hset => Work::Ingest(vectors),
        },
        load: Load::Closed { clients: CONNECTIONS, pipeline: case.pipeline },
        warm_up_ns: 0,
        operations: (case.command != Command::Hset).then_some(operations),
        duration_ns: 0,
        timeout_ns: 10_000_000_000,
        interval_ns: 1_000_000_000,
        lanes_total: 1,
        connection: vst_common::scenario::ConnectionSpec::default(),
        beside: None,
    }
}

fn block(id: u64, first: u64, end: u64) -> RowBlock {
    let rows: Vec<(u32, u64)> = (first..end.min(first + BLOCK_ROWS)).map(|row| (0, row)).collect();
    let vectors = vec![b'x'; rows.len() * VALUE_BYTES];
    RowBlock { id, rows, vectors, ..RowBlock::default() }
}
