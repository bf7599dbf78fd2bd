//! The neighbours of each query from any format that lists row numbers.
//!
//! big-ann files have distances too; lists from ivecs, ibin, NumPy, HDF5, Parquet or valkey-bench come without, which
//! costs nothing: a file's distance is never trusted, only shown.

use url::Url;

use super::blob::Blob;
use super::{DatasetView, Error, Format, ReadFaults, ReadOptions, location};
use crate::count;
use crate::ground_truth::{self, GroundTruth};
use crate::ranges::RowRange;

/// Lists read at once.
const LISTS: u64 = 10_000;

/// Reads the neighbours that a URL names; requests that had to be repeated go to `faults`.
///
/// # Errors
/// When it cannot be read, is no list of row numbers, or names rows past 4,294,967,295.
pub async fn open_truth(url: &Url, faults: &ReadFaults) -> Result<GroundTruth, ground_truth::Error> {
    let view = match DatasetView::open_url(url).await {
        Ok(view) if view.manifest().format != Format::GroundTruth => view,
        // A file without a known extension, or with a size of its own, is judged by those who know big-ann files.
        Ok(_) | Err(Error::UnknownFormat { .. }) => return big_ann(url, faults).await,
        Err(Error::Layout { format: Format::ValkeyBench, .. }) if url.path().ends_with(".bin") => {
            return big_ann(url, faults).await;
        }
        Err(error) => return Err(ground_truth::Error::Lists(error)),
    };
    let truth = lists(&view).await.map_err(ground_truth::Error::Lists);
    faults.absorb(view.faults());
    truth
}

async fn big_ann(url: &Url, faults: &ReadFaults) -> Result<GroundTruth, ground_truth::Error> {
    let read = async {
        let (store, path) = super::open_store(url)?;
        let blob = Blob::open(store, path, url, ReadOptions::from_env().policy, faults.clone()).await?;
        blob.read(0..blob.size()).await
    };
    GroundTruth::parse(&read.await.map_err(ground_truth::Error::Lists)?, &location::shown(url))
}

async fn lists(view: &DatasetView) -> Result<GroundTruth, Error> {
    let manifest = view.manifest();
    let wrong = |reason: String| Error::Layout { url: manifest.url.clone(), format: manifest.format, reason };
    if !manifest.element.is_integer() {
        return Err(wrong(format!("it holds {}, neighbours are row numbers", manifest.element)));
    }
    let queries =
        u32::try_from(manifest.rows).map_err(|_| wrong(format!("{} lists are too many", manifest.rows)))?;
    let mut ids = Vec::with_capacity(count::index(manifest.rows.saturating_mul(u64::from(manifest.dims))));
    for start in (0..manifest.rows).step_by(count::index(LISTS)) {
        let end = start.saturating_add(LISTS).min(manifest.rows);
        let rows = view.read(RowRange { start, end }).await?;
        for (query, i) in (start..).zip(0..rows.len()) {
            for id in rows.row_numbers(i) {
                let id = id.and_then(|id| u32::try_from(id).ok());
                ids.push(id.ok_or_else(|| wrong(format!("a neighbour of query {query} is no row number")))?);
            }
        }
    }
    let distances = vec![f32::NAN; ids.len()];
    Ok(GroundTruth { queries, k: manifest.dims, ids, distances })
}
