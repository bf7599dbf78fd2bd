//! The phases of a run, by arithmetic over the scenario and the size of its data.

use vst_common::clock::SECOND_NS;
use vst_common::ids::PhaseIndex;
use vst_common::live_set::LiveSet;
use vst_common::phase::{PhaseOrder, SearchPlan, TruthSource, VectorWork, Work};
use vst_common::ranges::{Cut, RowRange};
use vst_common::scenario::{Load, Scenario, Step};

use super::copies::{population, truth_source};
use super::{BASELINE, DataFacts, FIELD, LoadPlan, PlannedPhase, PlannedStep, RunPlan};

/// Length of a recorded interval.
const INTERVAL_NS: u64 = SECOND_NS;
/// Shortest range worth a lease, rows.
const RANGE_ROWS_LEAST: u64 = 500;
/// Longest range: what a lost worker leaves to be done again, rows.
const RANGE_ROWS_MOST: u64 = 10_000;
/// FLOAT32 bytes of a range at most, unless that is less than [`RANGE_ROWS_LEAST`]: a worker holds some ranges per lane.
const RANGE_BYTES_MOST: u64 = 8 << 20;
/// Ranges that each lane gets at least, where there are rows enough, so that lanes end at about the same time.
const RANGES_PER_LANE: u64 = 8;
const MS: u64 = 1_000_000;

/// Rows of the base that take part.
pub(super) fn rows(scenario: &Scenario, data: &DataFacts) -> u64 {
    scenario.dataset.rows.map_or(data.base.rows, |rows| rows.min(data.base.rows))
}

/// What is alive before and after each of the scenario's phases.
pub(super) fn live_sets(scenario: &Scenario, rows: u64) -> Vec<(LiveSet, LiveSet)> {
    let mut live = population(scenario, rows);
    let step = |phase: &vst_common::scenario::PhaseSpec| {
        let before = live;
        live = match &phase.step {
            Step::Ingest { .. } => before.full(),
            Step::Shrink(shrink) => before.keep(shrink.keep),
            Step::CreateIndex | Step::Settle(_) | Step::Query(_) | Step::Checkpoint => before,
        };
        (before, live)
    };
    scenario.phases.iter().map(step).collect()
}

/// The whole run; the scenario has been checked against the data.
pub(super) fn plan(scenario: &Scenario, data: &DataFacts, search: SearchPlan) -> RunPlan {
    let rows = rows(scenario, data);
    let empty = population(scenario, rows);
    let baseline = PlannedPhase {
        index: PhaseIndex(0),
        name: BASELINE.to_owned(),
        step: PlannedStep::Checkpoint,
        before: empty,
        after: empty,
    };
    let maker = Maker { scenario, data, search: &search, rows };
    let scenario_phases = (1u32..).zip(&scenario.phases).zip(live_sets(scenario, rows));
    let phases = scenario_phases.map(|((index, phase), (before, after))| {
        let index = PhaseIndex(index);
        let step = maker.step(index, &phase.name, &phase.step, before, after);
        PlannedPhase { index, name: phase.name.clone(), step, before, after }
    });
    let phases = std::iter::once(baseline).chain(phases).collect();
    RunPlan {
        scenario: scenario.clone(),
        search,
        rows,
        copies: empty.copies,
        expansion: data.expansion.clone(),
        dims: data.base.dims,
        phases,
    }
}

struct Maker<'a> {
    scenario: &'a Scenario,
    data: &'a DataFacts,
    search: &'a SearchPlan,
    rows: u64,
}

impl Maker<'_> {
    fn step(
        &self,
        index: PhaseIndex,
        name: &str,
        step: &Step,
        before: LiveSet,
        after: LiveSet,
    ) -> PlannedStep {
        let load =
            |word, work, load: &Load, warm_up_ms: u64, duration_ms: u64, timeout_ms: u64, cut, commands| {
                let order = PhaseOrder {
                    index,
                    name: name.to_owned(),
                    seed: self.scenario.seed,
                    work,
                    load: load.clone(),
                    warm_up_ns: warm_up_ms.saturating_mul(MS),
                    duration_ns: duration_ms.saturating_mul(MS),
                    timeout_ns: timeout_ms.saturating_mul(MS),
                    interval_ns: INTERVAL_NS,
                    lanes_total: 0,
                };
                PlannedStep::Load(Box::new(LoadPlan { word, order, cut, commands }))
            };
        let vectors = self.vectors(before);
        match step {
            Step::CreateIndex => PlannedStep::CreateIndex,
            Step::Settle(spec) => PlannedStep::Settle(spec.clone()),
            Step::Checkpoint => PlannedStep::Checkpoint,
            Step::Ingest { load: how, timeout_ms } => {
                let cut = self.cut(RowRange { start: 0, end: before.cells() });
                load(step.word(), Work::Ingest(vectors), how, 0, 0, *timeout_ms, Some(cut), vec!["hset"])
            }
            Step::Shrink(shrink) => {
                let cut = self.cut(RowRange { start: after.count(), end: before.count() });
                let work = Work::Delete(vectors);
                load(step.word(), work, &shrink.load, 0, 0, shrink.timeout_ms, Some(cut), vec!["del"])
            }
            Step::Query(query) => {
                let truth = truth_source(self.data, before, query.k);
                let vectors = VectorWork { truth, ..vectors };
                let work = Work::Query { vectors, k: query.k, ef_runtime: query.ef_runtime };
                let (warm_up, duration, timeout) = (query.warm_up_ms, query.duration_ms, query.timeout_ms);
                load(step.word(), work, &query.load, warm_up, duration, timeout, None, vec!["FT.SEARCH"])
            }
        }
    }

    fn vectors(&self, live: LiveSet) -> VectorWork {
        VectorWork {
            dataset: self.data.urls.clone(),
            rows: self.rows,
            dims: self.data.base.dims,
            expansion: self.data.expansion.clone(),
            order: self.scenario.population.order,
            truth: TruthSource::Listed,
            metric: self.scenario.index.metric,
            prefix: self.scenario.population.prefix.clone(),
            field: FIELD.to_owned(),
            live,
            search: self.search.clone(),
        }
    }

    fn cut(&self, rows: RowRange) -> Cut {
        let lanes =
            u64::from(self.scenario.fleet.workers).saturating_mul(u64::from(self.scenario.fleet.lanes));
        let shares = lanes.saturating_mul(RANGES_PER_LANE).max(1);
        let row_bytes = u64::from(self.data.base.dims).saturating_mul(4).max(1);
        let most = (RANGE_BYTES_MOST / row_bytes).clamp(RANGE_ROWS_LEAST, RANGE_ROWS_MOST);
        Cut::new(rows, rows.len().div_ceil(shares).clamp(RANGE_ROWS_LEAST, most))
    }
}

/// The index that a node has, by the way in which it is asked.
pub(crate) fn index_on(search: &SearchPlan, node: &vst_common::ids::NodeId) -> String {
    match search {
        SearchPlan::ServerSide { index, .. } => index.clone(),
        SearchPlan::ClientSide { indexes, .. } => {
            indexes.iter().find(|(id, _)| id == node).map_or_else(String::new, |(_, index)| index.clone())
        }
    }
}
