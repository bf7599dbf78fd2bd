//! Some rows of the plan as a target would hold them, to compare with what is there.
//!
//! Read when the scenario would reuse what an earlier run left. Law: a sampled row has the bytes that a worker would
//! write.

use vst_common::dataset::DatasetView;
use vst_common::keys::KeySpace;
use vst_common::ranges::RowRange;
use vst_common::scenario::check::{Checked, Faults};
use vst_common::seed::Draw;

use super::data::unusable;
use super::{DataFacts, FIELD, RunPlan};

/// How many rows: enough that a hundredth of other rows is hardly ever missed.
const SAMPLES: u64 = 500;
/// Keeps the choice apart from other draws.
const CHOICE: u32 = 0x5A3B_1E00;

/// A row of the plan as a target would hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its key.
    pub key: Vec<u8>,
    /// Its fields and what they hold.
    pub fields: Vec<(String, Vec<u8>)>,
}

/// Rows of any copy, chosen by the seed.
pub(crate) async fn samples(
    checked: &Checked,
    data: &DataFacts,
    plan: &RunPlan,
) -> Result<Vec<Sample>, Faults> {
    const KEY: &str = "dataset.base";
    let url = url::Url::parse(&data.urls.base).map_err(|e| unusable(checked, KEY, &e))?;
    let view = DatasetView::open_url(&url).await.map_err(|e| unusable(checked, KEY, &e))?;
    let population = plan.population();
    let (keys, attributes) = (KeySpace::new(&plan.scenario.population.prefix), plan.attributes());
    let copier = data.expansion.copier(data.base.dims);
    let mut samples = Vec::new();
    for n in 0..SAMPLES.min(population.cells()) {
        let number = Draw::new(plan.scenario.seed, CHOICE, n).below(population.cells());
        let Some((copy, row)) = population.cell(number) else { continue };
        let read = view.read(RowRange { start: row, end: row.saturating_add(1) }).await;
        let read = read.map_err(|e| unusable(checked, KEY, &e))?;
        let (mut key, mut made) = (Vec::new(), Vec::new());
        keys.write(copy, row, &mut key);
        copier.row(copy, &read.iter().next().unwrap_or_default(), &mut made);
        let vector = made.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (mut tag, mut of_order) = (Vec::new(), Vec::new());
        attributes.write(row, &mut tag, &mut of_order);
        let beside = [(attributes.has_tags(), tag), (attributes.number, of_order)];
        let beside = beside.into_iter().filter(|(has, _)| *has).map(|(_, value)| value);
        let names = attributes.fields().into_iter().map(str::to_owned);
        let fields = [(FIELD.to_owned(), vector)].into_iter().chain(names.zip(beside)).collect();
        samples.push(Sample { key, fields });
    }
    data.faults.absorb(view.faults());
    Ok(samples)
}
