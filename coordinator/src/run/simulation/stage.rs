//! The stage of the simulated runs: the plan that they go through and the weather that they meet.

use proptest::prelude::*;

use vst_common::clock::SECOND_NS;
use vst_common::ids::PhaseIndex;
use vst_common::live_set::LiveSet;
use vst_common::phase::{PhaseOrder, SearchModule, SearchPlan, VectorWork, Work};
use vst_common::ranges::{Cut, RowRange};
use vst_common::scenario::operations::{MigrateSpec, Operation};
use vst_common::scenario::{
    Arrival as Arrivals, DatasetSpec, FleetSpec, IndexSpec, KeyspaceSpec, Load as LoadSpec, Metric,
    PopulationSpec, SamplingSpec, Scenario, SettleSpec,
};

use crate::plan::{LoadPlan, PlannedPhase, PlannedStep, RunPlan};

pub(super) const ROWS: u64 = 300;
/// Pairs that the churn exchanges.
pub(super) const EXCHANGED: u64 = 40;

fn order(index: u32, live: LiveSet, query: bool) -> PhaseOrder {
    let data =
        DatasetSpec { base: String::new(), queries: String::new(), ground_truth: String::new(), rows: None };
    let vectors = VectorWork {
        dataset: data,
        rows: ROWS,
        dims: 2,
        expansion: vst_common::expand::Expansion::None,
        order: vst_common::scenario::CopyOrder::Interleaved,
        truth: vst_common::phase::TruthSource::Listed,
        metric: Metric::L2,
        on: vst_common::scenario::RowKind::Hash,
        prefix: "p:".into(),
        field: "v".into(),
        attributes: vst_common::attributes::Attributes::default(),
        live,
        search: SearchPlan::ServerSide { module: SearchModule::ValkeySearch, index: "i".into() },
    };
    let work = if query {
        Work::Query { vectors, ask: vst_common::scenario::Ask::nearest(1, None), during: None }
    } else {
        Work::Ingest(vectors)
    };
    PhaseOrder {
        index: PhaseIndex(index),
        name: format!("phase {index}"),
        seed: 1,
        work,
        load: LoadSpec::Open { arrival: Arrivals::Constant { rate: 1.0 }, connections: 1 },
        warm_up_ns: 0,
        operations: None,
        duration_ns: if query { 3 * SECOND_NS } else { 0 },
        timeout_ns: SECOND_NS,
        interval_ns: SECOND_NS,
        lanes_total: 0,
        connection: vst_common::scenario::ConnectionSpec::default(),
        beside: None,
    }
}

/// Phases that run beside others have numbers of their own, so that the sequence is counted without them.
pub(super) const BESIDE: u32 = 20;
/// Queries as long as the ingest takes.
pub(super) const BESIDE_INGEST: PhaseIndex = PhaseIndex(BESIDE);
/// Queries of a second beside the queries.
pub(super) const BESIDE_QUERY: PhaseIndex = PhaseIndex(BESIDE + 1);

/// The phase of the sequence that a phase is, or runs beside.
pub(super) fn group(phase: PhaseIndex) -> u32 {
    match phase {
        BESIDE_INGEST => 2,
        PhaseIndex(BESIDE..) => 4,
        PhaseIndex(main) => main,
    }
}

/// What runs beside the phases of the sequence.
fn beside(full: LiveSet) -> Vec<PlannedPhase> {
    let query = |index: PhaseIndex, main, duration_ns| {
        let mut order = PhaseOrder { duration_ns, ..order(index.0, full, true) };
        order.beside = Some(PhaseIndex(main));
        PlannedStep::Load(Box::new(LoadPlan { word: "query", order, cut: None, commands: vec![] }))
    };
    let shape = IndexSpec {
        on: vst_common::scenario::RowKind::Hash,
        algorithm: Default::default(),
        metric: Metric::L2,
        dims: None,
        m: 32,
        ef_construction: 100,
    };
    let even = Operation::MigrateSlots(MigrateSpec { shares: Vec::new(), timeout_ms: 1_000 });
    let steps = [
        (BESIDE_INGEST, query(BESIDE_INGEST, 2, 0), 0),
        (BESIDE_QUERY, query(BESIDE_QUERY, 4, SECOND_NS), SECOND_NS / 2),
        (PhaseIndex(BESIDE + 2), PlannedStep::RebuildIndex(shape), SECOND_NS),
        (PhaseIndex(BESIDE + 3), PlannedStep::Operate(even), 0),
    ];
    let phase = |(index, step, after_ns): (PhaseIndex, PlannedStep, u64)| PlannedPhase {
        index,
        name: format!("phase {index}"),
        step,
        before: full,
        after: full,
        beside: Some((PhaseIndex(group(index)), after_ns)),
    };
    steps.into_iter().map(phase).collect()
}

/// A run of every kind of phase over [`ROWS`] rows.
pub(super) fn plan(range_length: u64) -> RunPlan {
    let empty = LiveSet::empty(1, ROWS, 1);
    let (full, half) = (empty.full(), empty.full().with_cut(ROWS / 2));
    let turned = half.moved_on(EXCHANGED, EXCHANGED);
    let leased = |index, word, live, rows| {
        let cut = Some(Cut::new(rows, range_length));
        let load = LoadPlan { word, order: order(index, live, false), cut, commands: vec!["hset".into()] };
        PlannedStep::Load(Box::new(load))
    };
    let query = LoadPlan { word: "query", order: order(4, full, true), cut: None, commands: vec![] };
    let settle = SettleSpec { threshold: 0.1, window_ms: 1_000, max_wait_ms: 60_000 };
    let even = Operation::MigrateSlots(MigrateSpec { shares: Vec::new(), timeout_ms: 1_000 });
    let steps = [
        (PlannedStep::Checkpoint, empty, empty),
        (PlannedStep::CreateIndex, empty, empty),
        (leased(2, "ingest", empty, RowRange { start: 0, end: ROWS }), empty, full),
        (PlannedStep::Settle(settle), full, full),
        (PlannedStep::Load(Box::new(query)), full, full),
        (leased(5, "shrink", full, RowRange { start: ROWS / 2, end: ROWS }), full, half),
        (leased(6, "churn", half, RowRange { start: 0, end: 2 * EXCHANGED }), half, turned),
        (PlannedStep::Operate(even), turned, turned),
        (PlannedStep::Checkpoint, turned, turned),
    ];
    let beside = beside(full);
    let phases = (0u32..)
        .zip(steps)
        .map(|(i, (step, before, after))| PlannedPhase {
            index: PhaseIndex(i),
            name: format!("phase {i}"),
            step,
            before,
            after,
            beside: None,
        })
        .flat_map(|main| {
            let own = beside.iter().filter(|p| p.beside.is_some_and(|(of, _)| of == main.index)).cloned();
            let own: Vec<PlannedPhase> = own.collect();
            std::iter::once(main).chain(own)
        })
        .collect();
    let scenario = Scenario {
        name: "s".into(),
        purpose: "p".into(),
        family: String::new(),
        parameters: Default::default(),
        criteria: Vec::new(),
        hooks: Default::default(),
        seed: 1,
        dataset: Some(DatasetSpec {
            base: String::new(),
            queries: String::new(),
            ground_truth: String::new(),
            rows: None,
        }),
        index: Some(IndexSpec {
            on: vst_common::scenario::RowKind::Hash,
            algorithm: Default::default(),
            metric: Metric::L2,
            dims: None,
            m: 16,
            ef_construction: 100,
        }),
        keyspace: KeyspaceSpec::default(),
        population: PopulationSpec {
            prefix: "p:".into(),
            copies: 1.0,
            expansion: Default::default(),
            order: Default::default(),
        },
        fleet: FleetSpec { workers: 2, lanes: 2, lease_ms: 3_000 },
        connection: vst_common::scenario::ConnectionSpec::default(),
        sampling: SamplingSpec { interval_ms: 500, size_classes_ms: 5_000 },
        phases: Vec::new(),
    };
    let search = SearchPlan::ServerSide { module: SearchModule::ValkeySearch, index: "i".into() };
    RunPlan {
        scenario,
        search: Some(search),
        rows: ROWS,
        copies: 1,
        expansion: vst_common::expand::Expansion::None,
        dims: 2,
        index_is_there: false,
        phases,
    }
}

/// What may go wrong.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub(super) seed: u64,
    pub(super) workers: u64,
    pub(super) range_length: u64,
    /// Chances of 1,000 per worker and step.
    pub(super) die: u64,
    pub(super) fall_silent: u64,
    pub(super) leave: u64,
    pub(super) repeat: u64,
    pub(super) fail_range: u64,
    pub(super) fault: u64,
    pub(super) stop_at: Option<u64>,
    pub(super) stop_again_at: Option<u64>,
    pub(super) late_worker_at: Option<u64>,
    /// The coordinator does not run for a while.
    pub(super) pause_at: Option<u64>,
    pub(super) lose_deliveries: bool,
    pub(super) slow_log: u64,
    /// Streams break while the worker at the other end lives.
    pub(super) break_stream: u64,
    /// Another coordinator takes the lead.
    pub(super) change_at: Vec<u64>,
}

impl Weather {
    /// Nothing goes wrong.
    pub(super) fn fair(workers: u64) -> Self {
        Self {
            seed: 1,
            workers,
            range_length: 7,
            die: 0,
            fall_silent: 0,
            leave: 0,
            repeat: 0,
            fail_range: 0,
            fault: 0,
            stop_at: None,
            stop_again_at: None,
            late_worker_at: None,
            pause_at: None,
            lose_deliveries: false,
            slow_log: 3,
            break_stream: 0,
            change_at: Vec::new(),
        }
    }
}

/// Any weather, most of it fair.
pub(super) fn weather() -> impl Strategy<Value = Weather> {
    let rare = || prop_oneof![3 => Just(0u64), 1 => 1u64..8];
    let sometimes = || prop_oneof![2 => Just(None), 1 => (0u64..400).prop_map(Some)];
    (
        (any::<u64>(), 1u64..4, prop_oneof![1u64..20, 20u64..400]),
        ((rare(), rare()), rare(), 0u64..300, rare(), prop_oneof![6 => Just(0u64), 1 => 1u64..4]),
        ((sometimes(), sometimes()), sometimes(), sometimes(), prop::bool::weighted(0.2), 0u64..30),
        (rare(), prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(0u64..400, 1..4)]),
    )
        .prop_map(|((seed, workers, range_length), chances, rest, (break_stream, change_at))| {
            let ((die, leave), fall_silent, repeat, fail_range, fault) = chances;
            let ((stop_at, pause_at), stop_again_at, late_worker_at, lose_deliveries, slow_log) = rest;
            Weather {
                seed,
                workers,
                range_length,
                die,
                fall_silent,
                leave,
                repeat,
                fail_range,
                fault,
                stop_at,
                stop_again_at,
                late_worker_at,
                pause_at,
                lose_deliveries,
                slow_log,
                break_stream,
                change_at,
            }
        })
}
