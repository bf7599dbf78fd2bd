//! The rows of leased ranges, as lanes want them.
//!
//! Fed by `session` with ranges, read by lanes as [`RowBlock`]s. How much is in memory is bounded by how many ranges
//! the session leases ahead; how many reads are in flight at once is bounded here. Law: a range gives each of its
//! cells exactly once, in blocks of at most [`BLOCK_ROWS`].

use tokio::sync::Semaphore;
use url::Url;
use vst_common::count;
use vst_common::dataset::{DatasetView, Rows, open_store};
use vst_common::live_set::LiveSet;
use vst_common::phase::{VectorWork, Work};
use vst_common::ranges::RowRange;

use crate::work::RowBlock;

/// Rows of a block: few enough that the last blocks of a phase end at nearly the same time on all lanes.
pub const BLOCK_ROWS: usize = 256;
/// Reads in flight at once.
const READS: usize = 4;

/// Why rows cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The vectors cannot be read.
    #[error(transparent)]
    Dataset(#[from] vst_common::dataset::Error),
    /// The reference of the order is not a URL.
    #[error("the order's reference `{reference}` is not a URL: {reason}")]
    Reference {
        /// As ordered.
        reference: String,
        /// What is wrong with it.
        reason: url::ParseError,
    },
    /// The data is not what the order was planned on.
    #[error(
        "{url} has {found} dimensions, the phase was planned with {expected}: the data changed after planning"
    )]
    Dims {
        /// What was opened.
        url: String,
        /// Dimensions of the data.
        found: u32,
        /// Dimensions of the order.
        expected: u32,
    },
    /// Copies need an expanded data set.
    #[error("{copies} copies of the base were ordered, this worker writes one")]
    Copies {
        /// As ordered.
        copies: u32,
    },
    /// A position that is not in the order of the live set.
    #[error("positions {start}..{end} are not in a population of {cells} cells")]
    Position {
        /// First position.
        start: u64,
        /// One past the last position.
        end: u64,
        /// Cells that there are.
        cells: u64,
    },
    /// The process is ending.
    #[error("the worker is ending")]
    Ending,
}

/// Where the rows of a phase come from.
#[derive(Debug)]
pub struct Source {
    kind: Kind,
    reads: Semaphore,
}

#[derive(Debug)]
enum Kind {
    /// Vectors of the base.
    Vectors(DatasetView),
    /// Cells by their position in the live set's order; no vectors.
    Cells(LiveSet),
}

impl Source {
    /// Opens what the work needs; `None` for work without ranges.
    ///
    /// # Errors
    /// When the vectors cannot be opened or are not what the phase was planned on.
    pub async fn open(work: &Work) -> Result<Option<Self>, Error> {
        let kind = match work {
            Work::Query { .. } | Work::Commands(_) => return Ok(None),
            Work::Delete(vectors) => Kind::Cells(vectors.live),
            Work::Ingest(vectors) => {
                if vectors.live.copies > 1 {
                    return Err(Error::Copies { copies: vectors.live.copies });
                }
                Kind::Vectors(open_vectors(&vectors.dataset.base, vectors).await?)
            }
        };
        Ok(Some(Self { kind, reads: Semaphore::new(READS) }))
    }

    /// The cells of a range, in blocks whose ids are still to be given.
    ///
    /// # Errors
    /// When the range is not in the data or cannot be read.
    pub async fn blocks(&self, range: RowRange) -> Result<Vec<RowBlock>, Error> {
        let view = match &self.kind {
            Kind::Cells(live) => return cells(*live, range),
            Kind::Vectors(view) => view,
        };
        let permit = self.reads.acquire().await.map_err(|_| Error::Ending)?;
        let rows = view.read(range).await?;
        drop(permit);
        // Widening a large range takes milliseconds, which heartbeats must not wait for.
        tokio::task::spawn_blocking(move || blocks_of(range.start, &rows)).await.map_err(|_| Error::Ending)
    }
}

/// Opens vectors that an order names and checks their dimensions against it.
pub(crate) async fn open_vectors(reference: &str, work: &VectorWork) -> Result<DatasetView, Error> {
    let url = parse(reference)?;
    let (store, path) = open_store(&url)?;
    let view = DatasetView::open(store, path, url).await?;
    let manifest = view.manifest();
    if manifest.dims != work.dims {
        return Err(Error::Dims { url: manifest.url.clone(), found: manifest.dims, expected: work.dims });
    }
    Ok(view)
}

pub(crate) fn parse(reference: &str) -> Result<Url, Error> {
    Url::parse(reference).map_err(|reason| Error::Reference { reference: reference.to_owned(), reason })
}

fn cells(live: LiveSet, range: RowRange) -> Result<Vec<RowBlock>, Error> {
    let RowRange { start, end } = range;
    let cells: Option<Vec<(u32, u64)>> = (start..end).map(|position| live.cell_at(position)).collect();
    let cells = cells.ok_or(Error::Position { start, end, cells: live.cells() })?;
    Ok(cells
        .chunks(BLOCK_ROWS)
        .map(|rows| RowBlock { id: 0, rows: rows.to_vec(), vectors: Vec::new() })
        .collect())
}

fn blocks_of(first: u64, rows: &Rows) -> Vec<RowBlock> {
    let n = rows.len();
    let row_bytes = rows.bytes.len().checked_div(n).unwrap_or(0);
    (0..n)
        .step_by(BLOCK_ROWS)
        .map(|start| {
            let end = start.saturating_add(BLOCK_ROWS).min(n);
            let part = Rows { bytes: rows.bytes.slice(start * row_bytes..end * row_bytes), ..*rows };
            let mut vectors = Vec::new();
            part.to_f32_le(&mut vectors);
            let numbers = (start..end).map(|i| (0, first.saturating_add(count::len(i)))).collect();
            RowBlock { id: 0, rows: numbers, vectors }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vst_common::scenario::{DatasetSpec, Metric};

    use super::*;

    fn base(rows: u32, dims: u32) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = [rows.to_le_bytes(), dims.to_le_bytes()].concat();
        bytes.extend((0..rows * dims).map(|i| u8::try_from(i % 251).unwrap()));
        let path = folder.path().join("base.u8bin");
        std::fs::write(&path, bytes).unwrap();
        let url = Url::from_file_path(path).unwrap().to_string();
        (folder, url)
    }

    fn work(base: &str, dims: u32, live: LiveSet) -> VectorWork {
        let none = String::new();
        VectorWork {
            dataset: DatasetSpec { base: base.into(), queries: none.clone(), ground_truth: none, rows: None },
            rows: live.rows,
            dims,
            metric: Metric::L2,
            prefix: "t:".into(),
            field: "v".into(),
            live,
            search: vst_common::phase::SearchPlan::ServerSide {
                module: vst_common::phase::SearchModule::RediSearch,
                index: "i".into(),
            },
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_range_gives_each_of_its_rows_once_with_its_own_vector(
            rows in 1u32..900, dims in 1u32..5, at in 0.0f64..1.0, length in 0u64..900,
        ) {
            let (_folder, url) = base(rows, dims);
            let start = count::from_f64(at * f64::from(rows));
            let end = (start + length).min(u64::from(rows));
            let live = LiveSet::empty(1, u64::from(rows), 1);
            let blocks = block_on(async {
                let source = Source::open(&Work::Ingest(work(&url, dims, live))).await.unwrap().unwrap();
                source.blocks(RowRange { start, end }).await.unwrap()
            });
            prop_assert!(blocks.iter().all(|b| b.rows.len() <= BLOCK_ROWS && !b.rows.is_empty()));
            let cells: Vec<(u32, u64)> = blocks.iter().flat_map(|b| b.rows.clone()).collect();
            prop_assert_eq!(&cells, &(start..end).map(|row| (0, row)).collect::<Vec<_>>());
            let numbers: Vec<f32> = blocks
                .iter()
                .flat_map(|b| b.vectors.chunks_exact(4))
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            let stored = (start * u64::from(dims)..end * u64::from(dims)).map(|i| f32::from(u8::try_from(i % 251).unwrap()));
            prop_assert_eq!(numbers, stored.collect::<Vec<_>>());
        }

        #[test]
        fn all_ranges_of_a_shrink_together_delete_exactly_what_leaves_the_live_set(
            rows in 1u64..2_000, from in 0.0f64..1.0, to in 0.0f64..1.0, length in 1u64..700, seed: u64,
        ) {
            let before = LiveSet::empty(seed, rows, 1).keep(from.max(to));
            let after = before.keep(from.min(to));
            let source = block_on(Source::open(&Work::Delete(work("", 1, before)))).unwrap().unwrap();
            let cut = vst_common::ranges::Cut::new(RowRange { start: after.cut, end: before.cut }, length);
            let mut deleted = Vec::new();
            for range in (0..cut.count()).filter_map(|i| cut.get(i)) {
                for block in block_on(source.blocks(range)).unwrap() {
                    prop_assert!(block.vectors.is_empty());
                    deleted.extend(block.rows);
                }
            }
            deleted.sort_unstable();
            let leave = |row: &u64| before.is_live(0, *row) && !after.is_live(0, *row);
            prop_assert_eq!(deleted, (0..rows).filter(leave).map(|row| (0, row)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn data_that_differs_from_the_plan_is_refused() {
        let (_folder, url) = base(3, 4);
        let live = LiveSet::empty(1, 3, 1);
        let error = block_on(Source::open(&Work::Ingest(work(&url, 5, live)))).unwrap_err();
        assert!(matches!(error, Error::Dims { found: 4, expected: 5, .. }), "{error}");
        let source = block_on(Source::open(&Work::Delete(work("", 4, live)))).unwrap().unwrap();
        let error = block_on(source.blocks(RowRange { start: 2, end: 4 })).unwrap_err();
        assert!(matches!(error, Error::Position { cells: 3, .. }), "{error}");
    }
}
