//! Copies of the base: how many, where they lie, and whether the truth holds for them.
//!
//! Fed with the headers and lists that planning has read; reads vectors only where the element type does not bound
//! them. Law: a plan with several copies has a proof that they are separate (for permutations an estimate), or is
//! refused with its numbers before anything is started.

use vst_common::count;
use vst_common::dataset::DatasetView;
use vst_common::expand::{self, Expansion, Extent, Lift, Permutation, Refusal, Translation};
use vst_common::ground_truth::{ExactSearch, distance};
use vst_common::live_set::LiveSet;
use vst_common::phase::TruthSource;
use vst_common::ranges::RowRange;
use vst_common::recall::Findable;
use vst_common::scenario::check::{Checked, Faults};
use vst_common::scenario::{Ask, ExpansionMethod, Keep, Metric, PhaseSpec, Scenario, ShrinkSpec, Step};

use super::DataFacts;
use super::data::unusable;
use super::phases::{during, findable, findable_during, live_sets, rows};

/// Rows that are read at a time.
const CHUNK_ROWS: u64 = 16_384;
/// Rows of the sample from which contamination is estimated.
const SAMPLE_ROWS: u64 = 10_000;

/// The empty population of a scenario: its copies, the last one perhaps in part.
pub(super) fn population(scenario: &Scenario, rows: u64) -> LiveSet {
    let factor = scenario.population.copies.max(1.0);
    let copies = u32::try_from(count::from_f64(factor.ceil())).unwrap_or(u32::MAX);
    let part = factor.fract();
    let missing = if part > 0.0 {
        rows.saturating_sub(count::from_f64((part * count::to_f64(rows)).round()))
    } else {
        0
    };
    LiveSet::empty(scenario.seed, rows, copies).lacking(missing)
}

/// Pairs of query and copy of which fewer than k listed neighbours live, and all pairs that a phase asks.
pub(crate) fn masked(data: &DataFacts, findable: Findable, k: u32) -> (u64, u64) {
    let queries = u64::from(data.truth.queries);
    let pairs = expand::pairs(queries, findable.stable.copies);
    let is_masked = |number: &u64| {
        let (query, copy) = expand::pair(*number, queries, findable.stable.copies);
        let ids = data.truth.ids(u32::try_from(query).unwrap_or(u32::MAX));
        count::len(ids.iter().filter(|id| findable.has(copy, u64::from(**id))).count()) < u64::from(k)
    };
    (count::len((0..pairs).filter(is_masked).count()), pairs)
}

/// Where a query phase knows its neighbours from. A filter is the scenario's own wish and not what became of the
/// population: nothing of what it asks may go unjudged.
pub(super) fn truth_source(data: &DataFacts, findable: Findable, k: u32) -> TruthSource {
    let (masked, pairs) = masked(data, findable, k);
    let too_many = if findable.selection.is_some() { masked > 0 } else { masked.saturating_mul(2) > pairs };
    if data.expansion.rounds() || too_many { TruthSource::Computed } else { TruthSource::Listed }
}

/// The facts with the expansion that the scenario asks for.
///
/// # Errors
/// Data that cannot be read, and every [`Refusal`].
pub(super) async fn expanded(checked: &Checked, data: DataFacts) -> Result<DataFacts, Faults> {
    let rows = rows(&checked.scenario, Some(&data));
    let live = population(&checked.scenario, rows);
    if live.copies <= 1 || data.queries.dims != data.base.dims || data.truth.queries == 0 {
        return Ok(data);
    }
    // Without an index nothing is loaded and nothing is asked.
    let Some(index) = &checked.scenario.index else { return Ok(data) };
    let reader = Reader { checked, data: &data, rows };
    let (expansion, numbers) = reader.expansion(live, index.metric).await?;
    let factor = checked.scenario.population.copies;
    let separation = Some(format!("{factor} copies by {}: {numbers}", expansion.word()));
    Ok(DataFacts { expansion, separation, ..data })
}

struct Reader<'a> {
    checked: &'a Checked,
    data: &'a DataFacts,
    rows: u64,
}

impl Reader<'_> {
    async fn expansion(&self, live: LiveSet, metric: Metric) -> Result<(Expansion, String), Faults> {
        if self.checked.scenario.population.expansion == ExpansionMethod::Permutation {
            return self.permutation(live, metric).await;
        }
        let queries = self.vectors("dataset.queries", &self.data.urls.queries).await?;
        let asked = Extent::of(self.data.base.dims, &queries);
        // Neighbours that are computed anew may be any rows.
        let any = self.computes(live);
        let refused = |refusal: Refusal| self.refused(&refusal);
        match metric {
            Metric::L2 => {
                let base = self.base_extent().await?;
                let farthest = asked.farthest(&base);
                let of_type = Extent::is_by_type(self.data.base.element, self.data.base.dims, self.rows);
                // The bounds of a type alone make the step as long as that.
                let reach = if any || of_type {
                    farthest
                } else {
                    self.listed(metric, &queries).await?.min(farthest)
                };
                let (plan, proof) =
                    Translation::plan(&base, &asked, reach, live.copies, None).map_err(refused)?;
                let numbers = format!(
                    "Delta = {} along {} coordinates, NormMax = {:.6}, neighbours within {:.6}, width {}, margin {:.6}{}",
                    proof.delta,
                    plan.places.len(),
                    proof.norm_max,
                    proof.reach,
                    proof.width,
                    proof.margin,
                    if plan.rounds { ", chosen coordinates rounded" } else { "" }
                );
                if plan.rounds {
                    self.same_neighbours(&plan, &queries).await?;
                }
                Ok((Expansion::Translation(plan), numbers))
            }
            Metric::Cosine | Metric::InnerProduct => {
                let size = if metric == Metric::Cosine {
                    1.0
                } else {
                    self.base_extent().await?.norm_max * asked.norm_max
                };
                let spread =
                    if any { 2.0 * size } else { self.listed(metric, &queries).await?.min(2.0 * size) };
                let dims = self.data.base.dims;
                let (lift, proof) =
                    Lift::plan(metric, dims, spread, size, live.copies, None).map_err(refused)?;
                let numbers = format!(
                    "16 dimensions more ({} in all), separation {:.6}, similarities spread over {:.6}, margin {:.6}",
                    dims.saturating_add(expand::lift::DIMS),
                    proof.separation,
                    proof.spread,
                    proof.margin
                );
                Ok((Expansion::Lift(lift), numbers))
            }
        }
    }

    async fn permutation(&self, live: LiveSet, metric: Metric) -> Result<(Expansion, String), Faults> {
        let plan = Permutation { seed: self.checked.scenario.seed, copies: live.copies };
        let queries = self.vectors("dataset.queries", &self.data.urls.queries).await?;
        let view = self.open("dataset.base", &self.data.urls.base).await?;
        // Spread over the base, a few rows at a time.
        let (mut sample, mut at) = (Vec::new(), 0);
        let step = self.rows.div_ceil(SAMPLE_ROWS.div_ceil(100)).max(100);
        while at < self.rows {
            let range = RowRange { start: at, end: at.saturating_add(100).min(self.rows) };
            sample.extend(self.read("dataset.base", &view, range).await?);
            at = at.saturating_add(step);
        }
        let estimate = plan.estimate(metric, &sample, &queries).map_err(|refusal| self.refused(&refusal))?;
        let numbers = format!(
            "not proved; over {} rows and {} queries another copy has {:.4} rows for each of the own at the same \
             distance, so about {:.4} foreign keys per own one are to be expected",
            estimate.rows, estimate.queries, estimate.ratio, estimate.contamination
        );
        Ok((Expansion::Permutation(plan), numbers))
    }

    /// Whether some phase will need neighbours beyond the listed ones.
    fn computes(&self, _live: LiveSet) -> bool {
        let scenario = &self.checked.scenario;
        let lives = live_sets(scenario, self.rows);
        // How few rows will be left, nobody knows yet.
        let weighs =
            |phase: &PhaseSpec| matches!(&phase.step, Step::Shrink(ShrinkSpec { keep: Keep::Memory(_), .. }));
        if scenario.phases.iter().any(weighs) {
            return true;
        }
        let is_computed =
            |findable, ask: &Ask| truth_source(self.data, findable, ask.k) == TruthSource::Computed;
        scenario.phases.iter().zip(lives).any(|(phase, (before, after))| {
            let own = findable(scenario, &phase.step, before).zip(phase.step.ask());
            let during = during(&phase.step, before, after);
            let beside = phase.beside.iter().filter_map(|beside| beside.phase.step.ask());
            own.is_some_and(|(findable, ask)| is_computed(findable, ask))
                || during.stable.count() > 0
                    && beside.into_iter().any(|ask| is_computed(findable_during(scenario, ask, during), ask))
        })
    }

    /// The largest distance (L2) or spread of similarity (others) among the listed neighbours of any query.
    async fn listed(&self, metric: Metric, queries: &[Vec<f32>]) -> Result<f64, Faults> {
        let view = self.open("dataset.base", &self.data.urls.base).await?;
        let mut most = 0_f64;
        for (number, query) in (0..self.data.truth.queries).zip(queries) {
            let ids = self.data.truth.ids(number);
            let (Some(first), Some(last)) = (ids.first(), ids.last()) else { continue };
            let mut distances = Vec::new();
            for id in [first, last] {
                let range = RowRange { start: u64::from(*id), end: u64::from(*id).saturating_add(1) };
                let row = self.read("dataset.base", &view, range).await?;
                distances.extend(row.first().map(|row| distance(metric, query, row)));
            }
            if let [nearest, farthest] = distances[..] {
                most = most.max(if metric == Metric::L2 { farthest.sqrt() } else { farthest - nearest });
            }
        }
        Ok(most)
    }

    /// Refuses a rounding that changes which rows are the neighbours of a query.
    async fn same_neighbours(&self, plan: &Translation, queries: &[Vec<f32>]) -> Result<(), Faults> {
        let depth = count::index(u64::from(self.data.truth.k));
        let dims = count::index(u64::from(self.data.base.dims));
        let copier = Expansion::Translation(plan.clone()).copier(self.data.base.dims);
        let mut made = Vec::new();
        let mut rounded: Vec<f32> = Vec::new();
        for query in queries {
            copier.query(0, query, &mut made);
            rounded.extend_from_slice(&made);
        }
        let mut before = ExactSearch::new(Metric::L2, dims, queries.concat(), depth);
        let mut after = ExactSearch::new(Metric::L2, dims, rounded, depth);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let view = self.open("dataset.base", &self.data.urls.base).await?;
        let mut start = 0;
        while start < self.rows {
            let range = RowRange { start, end: start.saturating_add(CHUNK_ROWS).min(self.rows) };
            let rows = self.read("dataset.base", &view, range).await?;
            before.add(start, &rows.concat(), |_| true, threads);
            let mut rounded: Vec<f32> = Vec::new();
            for row in &rows {
                copier.row(0, row, &mut made);
                rounded.extend_from_slice(&made);
            }
            after.add(start, &rounded, |_| true, threads);
            start = range.end;
        }
        let ids = |list: Vec<(u64, f64)>| {
            let mut ids: Vec<u64> = list.into_iter().map(|(row, _)| row).collect();
            ids.sort_unstable();
            ids
        };
        let pairs = before.finish().into_iter().zip(after.finish());
        let changed = count::len(pairs.filter(|(b, a)| ids(b.clone()) != ids(a.clone())).count());
        if changed == 0 {
            return Ok(());
        }
        Err(self.fault(format!(
            "rounding the chosen coordinates to multiples of 2^{} changes the {depth} nearest rows of {changed} of {} \
             queries",
            plan.grid_exponent,
            queries.len()
        )))
    }

    async fn base_extent(&self) -> Result<Extent, Faults> {
        let view = self.open("dataset.base", &self.data.urls.base).await?;
        let extent = Extent::of_rows(&view, self.rows).await;
        self.data.faults.absorb(view.faults());
        extent.map_err(|e| unusable(self.checked, "dataset.base", &e))
    }

    async fn vectors(&self, key: &str, reference: &str) -> Result<Vec<Vec<f32>>, Faults> {
        let view = self.open(key, reference).await?;
        self.read(key, &view, RowRange { start: 0, end: view.manifest().rows }).await
    }

    async fn open(&self, key: &str, reference: &str) -> Result<DatasetView, Faults> {
        let url = url::Url::parse(reference).map_err(|e| unusable(self.checked, key, &e))?;
        DatasetView::open_url(&url).await.map_err(|e| unusable(self.checked, key, &e))
    }

    async fn read(&self, key: &str, view: &DatasetView, range: RowRange) -> Result<Vec<Vec<f32>>, Faults> {
        let rows = view.read(range).await.map_err(|e| unusable(self.checked, key, &e));
        self.data.faults.absorb(view.faults());
        let rows = rows?;
        Ok(rows.iter().collect())
    }

    fn refused(&self, refusal: &Refusal) -> Faults {
        self.fault(refusal.to_string())
    }

    fn fault(&self, message: String) -> Faults {
        self.checked.source.fault(
            "population.copies",
            message,
            "the truth would not hold for these copies",
            "load fewer copies, or see `vst dataset expand` for what separates this data",
        )
    }
}
