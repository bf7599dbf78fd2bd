//! The phases of a run, by arithmetic over the scenario and the size of its data.

use std::collections::BTreeSet;

use vst_common::attributes::Attributes;
use vst_common::clock::SECOND_NS;
use vst_common::expand::Expansion;
use vst_common::ids::PhaseIndex;
use vst_common::live_set::LiveSet;
use vst_common::mix::Mix;
use vst_common::phase::{During, PhaseOrder, SearchPlan, TruthSource, VectorWork, Work};
use vst_common::ranges::{Cut, RowRange};
use vst_common::recall::Findable;
use vst_common::scenario::{
    Ask, BesideSpec, IndexSpec, Keep, Load, PhaseSpec, QuerySpec, RowKind, Scenario, ShrinkSpec, Step, every,
};

use super::copies::{population, truth_source};
use super::{BASELINE, DataFacts, FIELD, LoadPlan, PlannedPhase, PlannedStep, RunPlan, kv};

/// Length of a recorded interval.
const INTERVAL_NS: u64 = SECOND_NS;
/// What the name of a weighing ends in that a run has put behind a slice of deletes.
const WEIGHED: &str = "_weighed";
/// Shortest range worth a lease, rows.
const RANGE_ROWS_LEAST: u64 = 500;
/// Longest range: what a lost worker leaves to be done again, rows.
const RANGE_ROWS_MOST: u64 = 10_000;
/// FLOAT32 bytes of a range at most, unless that is less than [`RANGE_ROWS_LEAST`]: a worker holds some ranges per lane.
const RANGE_BYTES_MOST: u64 = 8 << 20;
/// Ranges that each lane gets at least, where there are rows enough, so that lanes end at about the same time.
const RANGES_PER_LANE: u64 = 8;
const MS: u64 = 1_000_000;

/// Rows of the base that take part; none without data.
pub(super) fn rows(scenario: &Scenario, data: Option<&DataFacts>) -> u64 {
    let asked = scenario.dataset.as_ref().and_then(|dataset| dataset.rows);
    data.map_or(0, |data| asked.map_or(data.base.rows, |rows| rows.min(data.base.rows)))
}

/// What is alive before and after each of the scenario's phases.
pub(super) fn live_sets(scenario: &Scenario, rows: u64) -> Vec<(LiveSet, LiveSet)> {
    let mut live = population(scenario, rows);
    let step = |phase: &vst_common::scenario::PhaseSpec| {
        let before = live;
        live = match &phase.step {
            Step::Ingest { .. } => population(scenario, rows).full(),
            Step::Grow(grow) => before.keep(grow.to),
            Step::Shrink(shrink) => kept(before, shrink.keep),
            Step::Mixed(mixed) => Mix::new(mixed.weights, mixed.operations, before).after(),
            Step::Churn(churn) => {
                let pairs = exchanged(before, churn.by);
                before.moved_on(pairs, pairs)
            }
            Step::CreateIndex
            | Step::DropIndex
            | Step::RebuildIndex(_)
            | Step::Settle(_)
            | Step::Query(_)
            | Step::Kv(_)
            | Step::Update(_)
            | Step::Operate(_)
            | Step::Checkpoint => before,
        };
        (before, live)
    };
    scenario.phases.iter().map(step).collect()
}

/// What a shrink leaves. Whole copies can only go where everything is alive: of what is left everything is, too, so that
/// what lives is still told by one cut.
pub(super) fn kept(before: LiveSet, keep: Keep) -> LiveSet {
    match keep {
        Keep::Share(share) => before.keep(share),
        Keep::Rows(rows) => before.with_cut(rows),
        Keep::Copies(copies) if goes_whole(before, copies) => before.first(copies),
        // How many go turns out as the target is weighed.
        Keep::Copies(_) | Keep::Memory(_) => before,
    }
}

/// Whether the copies behind the first so many can go whole.
pub(super) fn goes_whole(before: LiveSet, copies: u32) -> bool {
    copies < before.copies && before.count() == before.cells()
}

/// What rows carry, so that every phase can ask what it does.
pub(super) fn attributes(scenario: &Scenario, rows: u64) -> Attributes {
    let filters = scenario.all_phases().filter_map(|phase| phase.step.ask()?.filter);
    Attributes::for_filters(scenario.seed, rows, filters)
}

/// What the queries of a step have to find and may find; `None` where it asks nothing.
pub(super) fn findable(scenario: &Scenario, step: &Step, before: LiveSet) -> Option<Findable> {
    let ask = step.ask()?;
    let during = match step {
        Step::Mixed(mixed) => {
            let mix = Mix::new(mixed.weights, mixed.operations, before);
            During { stable: mix.stable(), ever: mix.ever() }
        }
        _ => During { stable: before, ever: before },
    };
    Some(findable_during(scenario, ask, during))
}

/// The same of queries beside a step that changes rows.
pub(super) fn findable_during(scenario: &Scenario, ask: &Ask, during: During) -> Findable {
    let During { stable, ever } = during;
    let selection = ask.filter.map(|filter| attributes(scenario, stable.rows).selection(filter));
    Findable { stable, ever, selection }
}

/// What is alive all the time that a step lasts, and what at some instant of it.
pub(super) fn during(step: &Step, before: LiveSet, after: LiveSet) -> During {
    match step {
        Step::Mixed(mixed) => {
            let mix = Mix::new(mixed.weights, mixed.operations, before);
            During { stable: mix.stable(), ever: mix.ever() }
        }
        Step::Churn(churn) => {
            let pairs = exchanged(before, churn.by);
            let ever = before.with_cut(before.count().saturating_add(pairs));
            During { stable: before.moved_on(pairs, 0), ever }
        }
        _ if after.count() < before.count() => During { stable: after, ever: before },
        _ => During { stable: before, ever: after },
    }
}

/// Cells that a churn exchanges: a share of the planned ones, as far as there are that many alive and that many not.
pub(super) fn exchanged(before: LiveSet, by: f64) -> u64 {
    let asked = before.keep(by).count();
    asked.min(before.count()).min(before.cells() - before.count())
}

/// The whole run; the scenario has been checked against the data.
pub(super) fn plan(scenario: &Scenario, data: Option<&DataFacts>, search: Option<SearchPlan>) -> RunPlan {
    let rows = rows(scenario, data);
    let empty = population(scenario, rows);
    let mut phases = Phases(vec![PlannedPhase {
        index: PhaseIndex(0),
        name: BASELINE.to_owned(),
        step: PlannedStep::Checkpoint,
        before: empty,
        after: empty,
        beside: None,
    }]);
    let maker = Maker { scenario, data, search: search.as_ref(), rows };
    let mut filled = BTreeSet::new();
    for (phase, (before, after)) in scenario.phases.iter().zip(live_sets(scenario, rows)) {
        for phase in every(std::slice::from_ref(phase)) {
            let Step::Kv(spec) = &phase.step else { continue };
            let Some((work, load, operations)) = kv::fill(scenario, spec, &mut filled) else { continue };
            let name = format!("{}{}", phase.name, kv::FILL);
            let commands = kv::counted(&work);
            let order = PhaseOrder {
                operations: Some(operations),
                ..maker.order(phases.next(), &name, Work::Commands(work), &load, [0, 0, spec.timeout_ms])
            };
            let plan = LoadPlan { word: "fill", order, cut: None, commands };
            phases.push(name, PlannedStep::Load(Box::new(plan)), before, before);
        }
        let index = phases.next();
        let Some(step) = maker.step(index, &phase.name, &phase.step, before, after) else { continue };
        phases.push(phase.name.clone(), step, before, after);
        let during = during(&phase.step, before, after);
        for BesideSpec { after_ms, phase } in &phase.beside {
            let planned = maker.beside(index, phases.next(), phase, during);
            let begins = Some((index, after_ms.saturating_mul(MS)));
            phases.0.extend(planned.map(|planned| PlannedPhase { after, beside: begins, ..planned }));
        }
    }
    RunPlan {
        scenario: scenario.clone(),
        search,
        rows,
        copies: empty.copies,
        expansion: data.map_or(Expansion::None, |data| data.expansion.clone()),
        dims: data.map_or(0, |data| data.base.dims),
        index_is_there: false,
        phases: phases.0,
    }
}

/// The plan with rows to delete behind a phase that weighed the target, and another weighing behind that.
pub(super) fn decided(
    plan: &RunPlan,
    data: Option<&DataFacts>,
    weighed: PhaseIndex,
    keep_rows: u64,
) -> Result<RunPlan, String> {
    let position = plan.phases.iter().position(|phase| phase.index == weighed);
    let behind = position.map_or(0, |position| position.saturating_add(1));
    let name =
        position.and_then(|position| plan.phases.get(position)).map_or("", |phase| phase.name.as_str());
    let mut scenario = plan.scenario.clone();
    let place = scenario.phases.iter().position(|phase| phase.name == name);
    let Some((place, Step::Shrink(spec))) =
        place.and_then(|place| Some((place, scenario.phases.get(place)?.step.clone())))
    else {
        return Err(format!("phase {weighed} of the plan weighs no memory"));
    };
    let own = name.strip_suffix(WEIGHED).and_then(|name| name.rsplit_once('_'));
    let (root, before) = own.and_then(|(root, n)| Some((root, n.parse::<u64>().ok()?))).unwrap_or((name, 0));
    let is_free = |name: &str| scenario.phases.iter().all(|phase| phase.name != name);
    let number = (before.saturating_add(1)..)
        .find(|n| is_free(&format!("{root}_{n}")) && is_free(&format!("{root}_{n}{WEIGHED}")));
    let number = number.unwrap_or(u64::MAX);
    let phase = |name: String, keep: Keep| PhaseSpec {
        name,
        step: Step::Shrink(ShrinkSpec { keep, ..spec.clone() }),
        criteria: Vec::new(),
        beside: Vec::new(),
    };
    let more = [
        phase(format!("{root}_{number}"), Keep::Rows(keep_rows)),
        phase(format!("{root}_{number}{WEIGHED}"), spec.keep),
    ];
    let at = place.saturating_add(1);
    scenario.phases.splice(at..at, more);
    let anew = self::plan(&scenario, data, plan.search.clone());
    let past = plan.phases.iter().take(behind).cloned();
    let phases = past.chain(anew.phases.into_iter().skip(behind)).collect();
    Ok(RunPlan { scenario, phases, ..plan.clone() })
}

/// One more phase behind those of a plan.
pub(super) fn further(
    plan: &RunPlan,
    data: Option<&DataFacts>,
    spec: &PhaseSpec,
) -> Result<PlannedPhase, String> {
    let name = &spec.name;
    if plan.phases.iter().any(|phase| phase.name == *name) {
        return Err(format!("there is a phase `{name}` already"));
    }
    if !spec.beside.is_empty() {
        return Err(String::from("nothing can run beside a phase that is asked for later"));
    }
    let Some(last) = plan.phases.last() else { return Err(String::from("the plan has no phase")) };
    match &spec.step {
        Step::Query(query) => query_can_be(plan, data, query)?,
        Step::Settle(_) | Step::Checkpoint => {}
        other => return Err(format!("a phase of `{}` cannot be asked for later", other.word())),
    }
    let maker = Maker { scenario: &plan.scenario, data, search: plan.search.as_ref(), rows: plan.rows };
    let index = PhaseIndex(u32::try_from(plan.phases.len()).unwrap_or(u32::MAX));
    let step = maker.step(index, name, &spec.step, last.after, last.after);
    let step = step.ok_or_else(|| format!("phase `{name}` needs vectors, and the scenario has none"))?;
    Ok(PlannedPhase { index, name: name.clone(), step, before: last.after, after: last.after, beside: None })
}

fn query_can_be(plan: &RunPlan, data: Option<&DataFacts>, query: &QuerySpec) -> Result<(), String> {
    let depth = data.map_or(0, |data| data.truth.k);
    let Ask { k, filter, .. } = &query.ask;
    if *k > depth {
        return Err(format!("k is {k}, the truth knows {depth} neighbours of each query"));
    }
    // Rows carry what the filters of the scenario ask for, and were written with it.
    let known =
        plan.scenario.all_phases().filter_map(|phase| phase.step.ask()).any(|ask| ask.filter == *filter);
    if filter.is_some() && !known {
        return Err(String::from(
            "its filter is that of no phase of the scenario: the rows were written without it",
        ));
    }
    let fleet = &plan.scenario.fleet;
    let lanes = fleet.workers.saturating_mul(fleet.lanes);
    let number = match &query.load {
        Load::Closed { clients, .. } => *clients,
        Load::Open { connections, .. } => *connections,
    };
    if number < lanes {
        return Err(format!("{number} connections cannot be dealt to {lanes} lanes: give at least as many"));
    }
    Ok(())
}

/// The phases so far; a position is the number of those before.
struct Phases(Vec<PlannedPhase>);

impl Phases {
    fn next(&self) -> PhaseIndex {
        PhaseIndex(u32::try_from(self.0.len()).unwrap_or(u32::MAX))
    }

    fn push(&mut self, name: String, step: PlannedStep, before: LiveSet, after: LiveSet) {
        let index = self.next();
        self.0.push(PlannedPhase { index, name, step, before, after, beside: None });
    }
}

struct Maker<'a> {
    scenario: &'a Scenario,
    data: Option<&'a DataFacts>,
    search: Option<&'a SearchPlan>,
    rows: u64,
}

impl Maker<'_> {
    /// An order; the times are warm-up, duration and timeout in milliseconds.
    fn order(
        &self,
        index: PhaseIndex,
        name: &str,
        work: Work,
        load: &Load,
        [warm_up_ms, duration_ms, timeout_ms]: [u64; 3],
    ) -> PhaseOrder {
        PhaseOrder {
            index,
            name: name.to_owned(),
            seed: self.scenario.seed,
            work,
            load: load.clone(),
            warm_up_ns: warm_up_ms.saturating_mul(MS),
            duration_ns: duration_ms.saturating_mul(MS),
            operations: None,
            timeout_ns: timeout_ms.saturating_mul(MS),
            interval_ns: INTERVAL_NS,
            lanes_total: 0,
            connection: self.scenario.connection,
            beside: None,
        }
    }

    /// What runs beside a phase that does this to the rows; nothing lives after it that did not before.
    fn beside(
        &self,
        main: PhaseIndex,
        index: PhaseIndex,
        phase: &PhaseSpec,
        during: During,
    ) -> Option<PlannedPhase> {
        let mut step = self.step(index, &phase.name, &phase.step, during.stable, during.stable)?;
        if let PlannedStep::Load(load) = &mut step {
            load.order.beside = Some(main);
            if let (Work::Query { vectors, ask, during: own }, Some(data)) = (&mut load.order.work, self.data)
            {
                *own = (during.stable != during.ever).then_some(during);
                // Where nothing stays, nothing is judged.
                vectors.truth = match during.stable.count() {
                    0 => TruthSource::Listed,
                    _ => truth_source(data, findable_during(self.scenario, ask, during), ask.k),
                };
            }
        }
        let (before, after) = (during.stable, during.stable);
        Some(PlannedPhase { index, name: phase.name.clone(), step, before, after, beside: None })
    }

    /// What a phase does; `None` where it needs vectors and there are none, which the scenario's check refuses.
    fn step(
        &self,
        index: PhaseIndex,
        name: &str,
        step: &Step,
        before: LiveSet,
        after: LiveSet,
    ) -> Option<PlannedStep> {
        let word = step.word();
        let (order, cut, commands) = match step {
            Step::CreateIndex => return Some(PlannedStep::CreateIndex),
            Step::DropIndex => return Some(PlannedStep::DropIndex),
            Step::RebuildIndex(rebuild) => {
                let index = self.scenario.index.clone()?;
                return Some(PlannedStep::RebuildIndex(IndexSpec {
                    m: rebuild.m.unwrap_or(index.m),
                    ef_construction: rebuild.ef_construction.unwrap_or(index.ef_construction),
                    ..index
                }));
            }
            Step::Settle(spec) => return Some(PlannedStep::Settle(*spec)),
            Step::Shrink(ShrinkSpec { keep: Keep::Memory(target), .. }) => {
                return Some(PlannedStep::Weigh(*target));
            }
            Step::Checkpoint => return Some(PlannedStep::Checkpoint),
            Step::Operate(operation) => return Some(PlannedStep::Operate(operation.clone())),
            Step::Ingest { load, timeout_ms, .. } => {
                let cut = self.cut(RowRange { start: 0, end: before.cells() });
                let work = Work::Ingest(self.vectors(before)?);
                (self.order(index, name, work, load, [0, 0, *timeout_ms]), Some(cut), vec![self.written()])
            }
            Step::Grow(grow) => {
                let cut = self.cut(RowRange { start: 0, end: before.cells() });
                let work = Work::Grow(self.vectors(after)?, before.count());
                let times = [0, 0, grow.timeout_ms];
                (self.order(index, name, work, &grow.load, times), Some(cut), vec![self.written()])
            }
            Step::Shrink(shrink) => {
                let vectors = self.vectors(before)?;
                let (cut, work) = match shrink.keep {
                    Keep::Copies(keep) => {
                        let cells = RowRange { start: 0, end: before.behind(keep).cells() };
                        (self.cut(cells), Work::DropCopies { vectors, keep })
                    }
                    Keep::Share(_) | Keep::Rows(_) | Keep::Memory(_) => {
                        let positions = RowRange { start: after.count(), end: before.count() };
                        (self.cut(positions), Work::Delete(vectors))
                    }
                };
                let times = [0, 0, shrink.timeout_ms];
                (self.order(index, name, work, &shrink.load, times), Some(cut), vec!["del".to_owned()])
            }
            Step::Update(update) => {
                let cut = self.cut(RowRange { start: 0, end: before.keep(update.share).count() });
                let work = Work::Update(self.vectors(before)?);
                let times = [0, 0, update.timeout_ms];
                (self.order(index, name, work, &update.load, times), Some(cut), vec![self.written()])
            }
            Step::Churn(churn) => {
                let units = exchanged(before, churn.by).saturating_mul(2);
                let cut = self.cut(RowRange { start: 0, end: units });
                let work = Work::Churn(self.vectors(before)?);
                let times = [0, 0, churn.timeout_ms];
                let commands = vec!["del".to_owned(), self.written()];
                (self.order(index, name, work, &churn.load, times), Some(cut), commands)
            }
            Step::Query(query) => {
                let vectors = self.asked(step, before)?;
                let work = Work::Query { vectors, ask: query.ask.clone(), during: None };
                let times = [query.warm_up_ms, query.duration_ms, query.timeout_ms];
                (self.order(index, name, work, &query.load, times), None, vec!["FT.SEARCH".to_owned()])
            }
            Step::Mixed(mixed) => {
                let cut = self.cut(RowRange { start: 0, end: mixed.operations });
                let work = Work::Mixed {
                    vectors: self.asked(step, before)?,
                    ask: mixed.ask.clone(),
                    weights: mixed.weights,
                    units: mixed.operations,
                };
                let commands = vec!["del".to_owned(), self.written(), "FT.SEARCH".to_owned()];
                (self.order(index, name, work, &mixed.load, [0, 0, mixed.timeout_ms]), Some(cut), commands)
            }
            Step::Kv(kv) => {
                let work = kv::work(self.scenario, kv);
                let commands = kv::counted(&work);
                let times = [kv.warm_up_ms, kv.duration_ms, kv.timeout_ms];
                let order = self.order(index, name, Work::Commands(work), &kv.load, times);
                (PhaseOrder { operations: kv.operations, ..order }, None, commands)
            }
        };
        Some(PlannedStep::Load(Box::new(LoadPlan { word, order, cut, commands })))
    }

    /// The data of a step that asks, with the source of its neighbours.
    fn asked(&self, step: &Step, before: LiveSet) -> Option<VectorWork> {
        let (data, findable) = (self.data?, findable(self.scenario, step, before)?);
        let truth = truth_source(data, findable, step.ask()?.k);
        Some(VectorWork { truth, ..self.vectors(before)? })
    }

    fn vectors(&self, live: LiveSet) -> Option<VectorWork> {
        let data = self.data?;
        Some(VectorWork {
            dataset: data.urls.clone(),
            rows: self.rows,
            dims: data.base.dims,
            expansion: data.expansion.clone(),
            order: self.scenario.population.order,
            truth: TruthSource::Listed,
            metric: self.scenario.index.as_ref()?.metric,
            on: self.scenario.index.as_ref()?.on,
            prefix: self.scenario.population.prefix.clone(),
            field: FIELD.to_owned(),
            attributes: attributes(self.scenario, self.rows),
            live,
            search: self.search?.clone(),
        })
    }

    /// How the server counts what writes a row.
    fn written(&self) -> String {
        let json = self.scenario.index.as_ref().is_some_and(|index| index.on == RowKind::Json);
        String::from(if json { "JSON.SET" } else { "hset" })
    }

    fn cut(&self, rows: RowRange) -> Cut {
        let lanes =
            u64::from(self.scenario.fleet.workers).saturating_mul(u64::from(self.scenario.fleet.lanes));
        let shares = lanes.saturating_mul(RANGES_PER_LANE).max(1);
        let row_bytes = u64::from(self.data.map_or(0, |data| data.base.dims)).saturating_mul(4).max(1);
        let most = (RANGE_BYTES_MOST / row_bytes).clamp(RANGE_ROWS_LEAST, RANGE_ROWS_MOST);
        // Even, because what a churn exchanges are pairs.
        Cut::new(rows, rows.len().div_ceil(shares).clamp(RANGE_ROWS_LEAST, most).next_multiple_of(2))
    }
}

/// The index that a node has, by the way in which it is asked.
pub(crate) fn index_on(search: Option<&SearchPlan>, node: &vst_common::ids::NodeId) -> String {
    match search {
        None => String::new(),
        Some(SearchPlan::ServerSide { index, .. }) => index.clone(),
        Some(SearchPlan::ClientSide { indexes, .. }) => {
            indexes.iter().find(|(id, _)| id == node).map_or_else(String::new, |(_, index)| index.clone())
        }
    }
}
