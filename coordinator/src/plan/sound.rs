//! Whether vectors and truth are what they claim to be, found out before anything is started.
//!
//! Fed by `data` with files whose headers agree; reads what is small whole and of what is large a sample spread over it,
//! so that a billion rows cost no more than a million. Law: what is refused is wrong, with the row or query that shows
//! it; data that passes may still be wrong where no sample fell, which `vst dataset validate` finds.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use url::Url;
use vst_common::count;
use vst_common::dataset::{DatasetManifest, DatasetView, Rows, Survey};
use vst_common::ground_truth::{Measured, measure};
use vst_common::ranges::RowRange;
use vst_common::scenario::Metric;
use vst_common::scenario::check::{Checked, Faults};

use super::DataFacts;
use super::data::{join, unusable};
use super::phases::rows;

/// Stored bytes up to which vectors are read whole.
const WHOLE_BYTES: u64 = 64 << 20;
/// Rows that are read at once where all are.
const CHUNK_ROWS: u64 = 16_384;
/// A sample: so many places, so many rows at each.
const SPOTS: u64 = 32;
const SPOT_ROWS: u64 = 8;
/// Reads in flight at once.
const READS: usize = 8;
/// Queries whose neighbours are measured.
const QUERIES: u32 = 8;
/// Error of a distance that was computed from norms and products in 32 bits, relative to the largest possible distance.
const PRODUCT_ERROR: f64 = 1e-6;

/// What is wrong with the data of a scenario.
///
/// # Errors
/// Every fault that was met, each at the key that names the file.
pub(super) async fn check(checked: &Checked, data: &DataFacts) -> Result<(), Faults> {
    if data.queries.dims != data.base.dims || u64::from(data.truth.queries) != data.queries.rows {
        // Told by the plan's own check, from the headers alone.
        return Ok(());
    }
    let Some(index) = &checked.scenario.index else { return Ok(()) };
    let reader = Reader { checked, data, metric: index.metric };
    let used = rows(&checked.scenario, Some(data));
    let base = reader.open("dataset.base", &data.urls.base).await?;
    let queries = reader.open("dataset.queries", &data.urls.queries).await?;
    let mut faults = Vec::new();
    faults.extend(reader.vectors("dataset.base", &base, used).await.err());
    faults.extend(reader.vectors("dataset.queries", &queries, data.queries.rows).await.err());
    if faults.is_empty() {
        faults.extend(reader.truth(&base, &queries, used).await.err());
    }
    for view in [&base, &queries] {
        data.faults.absorb(view.faults());
    }
    join(faults).map_or(Ok(()), Err)
}

struct Reader<'a> {
    checked: &'a Checked,
    data: &'a DataFacts,
    metric: Metric,
}

impl Reader<'_> {
    /// Refuses numbers that are none and, under cosine, vectors without a direction.
    async fn vectors(&self, key: &str, view: &DatasetView, used: u64) -> Result<(), Faults> {
        let manifest = view.manifest();
        // Integers are numbers; whether one row of them is zero matters under cosine only.
        if manifest.element.bounds().is_some() && self.metric != Metric::Cosine {
            return Ok(());
        }
        let mut survey = Survey::default();
        let mut reads = futures::stream::iter(places(manifest, used))
            .map(|range| async move { view.read(range).await.map(|rows| (range.start, rows)) })
            .buffered(READS);
        while let Some((first, rows)) = reads.try_next().await.map_err(|e| unusable(self.checked, key, &e))? {
            survey.add(first, &rows);
        }
        let url = &manifest.url;
        if let Some(row) = survey.not_finite_rows.first() {
            let message = format!("row {row} of {url} holds a number that is none or infinite");
            return Err(self.fault(key, message, "cannot be indexed"));
        }
        match survey.zero_rows.first() {
            Some(row) if self.metric == Metric::Cosine => {
                let message =
                    format!("row {row} of {url} has length zero, which has no cosine with anything");
                Err(self.fault(key, message, "has no direction"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses neighbours that are not in the order of their distance, and those that other rows are nearer than.
    async fn truth(&self, base: &DatasetView, queries: &DatasetView, used: u64) -> Result<(), Faults> {
        let truth = &self.data.truth;
        let sample: Vec<(u64, Vec<f32>)> = futures::stream::iter(spots(used))
            .map(|range| async move {
                self.read("dataset.base", base, range).await.map(|rows| (range.start, rows))
            })
            .buffered(READS)
            .map_ok(|(first, rows)| (first..).zip(rows.iter().collect::<Vec<_>>()).collect::<Vec<_>>())
            .try_concat()
            .await?;
        let step = usize::try_from(truth.queries.div_ceil(QUERIES).max(1)).unwrap_or(1);
        for number in (0..truth.queries).step_by(step) {
            let start = u64::from(number);
            let asked = self.read("dataset.queries", queries, RowRange { start, end: start + 1 }).await?;
            let Some(query) = asked.iter().next() else { continue };
            let ids = truth.ids(number);
            let last = ids.len().saturating_sub(1);
            let listed: BTreeSet<usize> = [0, last / 4, last / 2, last / 4 * 3, last].into();
            let mut before: Option<(u32, Measured)> = None;
            for id in listed.into_iter().filter_map(|place| ids.get(place)) {
                let start = u64::from(*id);
                let row = self.read("dataset.base", base, RowRange { start, end: start + 1 }).await?;
                let Some(row) = row.iter().next() else { continue };
                let found = self.measured(&query, &row);
                if let Some((nearer, distance)) = &before
                    && !distance.ties_with(found)
                {
                    return Err(self.foreign(format!(
                        "the truth lists row {nearer} before row {id} for query {number}, but they are {} and {} away \
                         by {}",
                        distance.distance,
                        found.distance,
                        word(self.metric)
                    )));
                }
                before = Some((*id, found));
            }
            let Some((id, farthest)) = before else { continue };
            for (row, vector) in &sample {
                let found = self.measured(&query, vector);
                let is_listed = ids.iter().any(|id| u64::from(*id) == *row);
                if !is_listed && !farthest.ties_with(found) {
                    return Err(self.foreign(format!(
                        "row {row} is {} away from query {number} by {} and not among its neighbours, of which the last, \
                         row {id}, is {} away",
                        found.distance,
                        word(self.metric),
                        farthest.distance
                    )));
                }
            }
        }
        Ok(())
    }

    /// A distance with the error that those who computed the truth may have made.
    fn measured(&self, query: &[f32], row: &[f32]) -> Measured {
        let found = measure(self.metric, query, row);
        let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        let most = match self.metric {
            Metric::L2 => (norm(query) + norm(row)).powi(2),
            Metric::InnerProduct => norm(query) * norm(row),
            Metric::Cosine => 1.0,
        };
        Measured { f32_error: found.f32_error + PRODUCT_ERROR * most, ..found }
    }

    async fn open(&self, key: &str, reference: &str) -> Result<DatasetView, Faults> {
        let url = Url::parse(reference).map_err(|e| unusable(self.checked, key, &e))?;
        DatasetView::open_url(&url).await.map_err(|e| unusable(self.checked, key, &e))
    }

    async fn read(&self, key: &str, view: &DatasetView, range: RowRange) -> Result<Rows, Faults> {
        view.read(range).await.map_err(|e| unusable(self.checked, key, &e))
    }

    fn fault(&self, key: &str, message: String, label: &str) -> Faults {
        self.checked.source.fault(
            key,
            message,
            label,
            "`vst dataset validate` lists such rows; mend or leave them out",
        )
    }

    fn foreign(&self, message: String) -> Faults {
        self.checked.source.fault(
            "dataset.ground_truth",
            message,
            "belongs to other data or to another metric",
            "give the truth of this base, these queries and this metric, or compute it: `vst dataset ground-truth`",
        )
    }
}

/// What a scenario calls a metric.
fn word(metric: Metric) -> &'static str {
    match metric {
        Metric::L2 => "l2",
        Metric::InnerProduct => "inner_product",
        Metric::Cosine => "cosine",
    }
}

/// What is read of vectors of which the first `used` take part.
fn places(manifest: &DatasetManifest, used: u64) -> Vec<RowRange> {
    if used.saturating_mul(manifest.row_bytes()) > WHOLE_BYTES {
        return spots(used);
    }
    let starts = (0..used).step_by(count::index(CHUNK_ROWS));
    starts.map(|start| RowRange { start, end: start.saturating_add(CHUNK_ROWS).min(used) }).collect()
}

/// A few rows at places spread evenly over all, the first and the last among them.
fn spots(rows: u64) -> Vec<RowRange> {
    let last = rows.saturating_sub(SPOT_ROWS);
    let starts: BTreeSet<u64> = (0..SPOTS).map(|spot| last / (SPOTS - 1) * spot).chain([last]).collect();
    starts
        .into_iter()
        .map(|start| RowRange { start, end: start.saturating_add(SPOT_ROWS).min(rows) })
        .collect()
}
