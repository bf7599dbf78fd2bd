//! The queries of a phase and what decides about the answers to each.
//!
//! Built when a phase is armed, before any load: reads queries, published neighbours and the few rows of the base
//! whose own distance decides a tie. Lanes send the blobs and judge with the judges. Law: query i of the file is
//! blob i and judge i, and no distance of a file decides whether an answer counts.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use vst_common::count;
use vst_common::dataset::{DatasetView, open_truth};
use vst_common::ground_truth::{GroundTruth, measure};
use vst_common::phase::VectorWork;
use vst_common::ranges::RowRange;
use vst_common::recall::QueryJudge;

use crate::fetch;
use crate::work::QuerySet;

/// Wanted rows that are no further apart than this are read with one request, bytes.
const GAP_BYTES: u64 = 64 << 10;
/// Reads in flight at once.
const READS: usize = 4;

/// Why queries cannot be asked or judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Queries or base cannot be read.
    #[error(transparent)]
    Vectors(#[from] fetch::Error),
    /// The neighbours cannot be read, or belong to another base.
    #[error(transparent)]
    Truth(#[from] vst_common::ground_truth::Error),
    /// There are more queries than lists of neighbours.
    #[error(
        "{queries} queries but neighbours of {truths} only: use the ground truth that belongs to the queries"
    )]
    Queries {
        /// Queries in the file.
        queries: u64,
        /// Lists in the truth.
        truths: u32,
    },
    /// The process is ending.
    #[error("the worker is ending")]
    Ending,
}

impl From<vst_common::dataset::Error> for Error {
    fn from(error: vst_common::dataset::Error) -> Self {
        Self::Vectors(error.into())
    }
}

/// Reads and builds the queries of a phase that asks for `k` neighbours.
///
/// # Errors
/// When a file cannot be read or the files do not belong together.
pub async fn build(work: &VectorWork, k: u32) -> Result<QuerySet, Error> {
    let queries = fetch::open_vectors(&work.dataset.queries, work).await?;
    let base = fetch::open_vectors(&work.dataset.base, work).await?;
    let url = fetch::parse(&work.dataset.ground_truth)?;
    let truth = open_truth(&url).await?;
    truth.check_against(base.manifest().rows)?;
    let n = queries.manifest().rows;
    if n > u64::from(truth.queries) {
        return Err(Error::Queries { queries: n, truths: truth.queries });
    }
    let asked = queries.read(RowRange { start: 0, end: n }).await?;
    let live = work.live;
    let (truth, wanted) = blocking(move || {
        let mut rows: Vec<u64> =
            lists(&truth, n).flat_map(|list| QueryJudge::wanted(list, 0, k, &live)).collect();
        rows.sort_unstable();
        rows.dedup();
        (truth, rows)
    })
    .await?;
    let known = read_rows(&base, &wanted).await?;
    let metric = work.metric;
    blocking(move || {
        let judges = lists(&truth, n)
            .zip(asked.iter())
            .map(|(list, query)| {
                let own = |row| known.get(&row).map(|vector| measure(metric, &query, vector));
                QueryJudge::build(list, 0, k, &live, own)
            })
            .collect();
        let mut bytes = Vec::new();
        asked.to_f32_le(&mut bytes);
        let blob_bytes = bytes.len().checked_div(asked.len()).unwrap_or(0).max(1);
        let blobs = bytes.chunks_exact(blob_bytes).map(<[u8]>::to_vec).collect();
        QuerySet { blobs, judges }
    })
    .await
}

fn lists(truth: &GroundTruth, n: u64) -> impl Iterator<Item = vst_common::ground_truth::TruthList<'_>> {
    (0..truth.queries).take(count::index(n)).map(|query| truth.list(query))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Ending)
}

/// The named rows (ascending), with as few requests as their distance allows.
async fn read_rows(base: &DatasetView, wanted: &[u64]) -> Result<BTreeMap<u64, Vec<f32>>, Error> {
    let gap = GAP_BYTES / base.manifest().row_bytes().max(1);
    let reads: Vec<_> =
        join_close(wanted, gap).into_iter().map(|rows| read_part(base.clone(), rows.to_vec())).collect();
    let parts: Vec<Vec<(u64, Vec<f32>)>> =
        futures::stream::iter(reads).buffer_unordered(READS).try_collect().await?;
    Ok(parts.into_iter().flatten().collect())
}

/// Ascending rows with one request.
async fn read_part(base: DatasetView, rows: Vec<u64>) -> Result<Vec<(u64, Vec<f32>)>, Error> {
    let (Some(first), Some(last)) = (rows.first().copied(), rows.last().copied()) else {
        return Ok(Vec::new());
    };
    let read = base.read(RowRange { start: first, end: last.saturating_add(1) }).await?;
    let vectors = rows.into_iter().map(|row| {
        let mut vector = Vec::new();
        read.row_f32(count::index(row.saturating_sub(first)), &mut vector);
        (row, vector)
    });
    Ok(vectors.collect())
}

/// Cuts ascending rows where two neighbours are more than `gap` rows apart.
fn join_close(rows: &[u64], gap: u64) -> Vec<&[u64]> {
    rows.chunk_by(|a, b| b.saturating_sub(*a) <= gap.saturating_add(1)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;
    use vst_common::ground_truth::nearest;
    use vst_common::keys::KeySpace;
    use vst_common::live_set::LiveSet;
    use vst_common::phase::{SearchModule, SearchPlan};
    use vst_common::scenario::{DatasetSpec, Metric};

    use super::*;

    const DIMS: u32 = 3;
    const DEPTH: usize = 12;

    /// Writes base, queries and their exact neighbours as files.
    fn data(base: &[[u8; 3]], queries: &[[u8; 3]]) -> (tempfile::TempDir, DatasetSpec) {
        let folder = tempfile::tempdir().unwrap();
        let url = |name: &str| Url::from_file_path(folder.path().join(name)).unwrap().to_string();
        let vectors = |rows: &[[u8; 3]]| {
            let n = u32::try_from(rows.len()).unwrap();
            [&n.to_le_bytes()[..], &DIMS.to_le_bytes()[..], rows.as_flattened()].concat()
        };
        std::fs::write(folder.path().join("base.u8bin"), vectors(base)).unwrap();
        std::fs::write(folder.path().join("query.u8bin"), vectors(queries)).unwrap();
        let depth = DEPTH.min(base.len());
        let lists: Vec<Vec<(u64, f64)>> =
            queries.iter().map(|q| nearest(Metric::L2, rows_of(base), &floats(q), depth)).collect();
        let mut truth = u32::try_from(queries.len()).unwrap().to_le_bytes().to_vec();
        truth.extend(u32::try_from(depth).unwrap().to_le_bytes());
        for (id, _) in lists.iter().flatten() {
            truth.extend(u32::try_from(*id).unwrap().to_le_bytes());
        }
        for (_, distance) in lists.iter().flatten() {
            #[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
            truth.extend((*distance as f32).to_le_bytes());
        }
        std::fs::write(folder.path().join("truth.bin"), truth).unwrap();
        let spec = DatasetSpec {
            base: url("base.u8bin"),
            queries: url("query.u8bin"),
            ground_truth: url("truth.bin"),
            rows: None,
        };
        (folder, spec)
    }

    fn floats(row: &[u8; 3]) -> Vec<f32> {
        row.iter().map(|x| f32::from(*x)).collect()
    }

    fn rows_of(base: &[[u8; 3]]) -> Vec<(u64, Vec<f32>)> {
        base.iter().enumerate().map(|(i, row)| (count::len(i), floats(row))).collect()
    }

    fn work(dataset: DatasetSpec, live: LiveSet) -> VectorWork {
        VectorWork {
            dataset,
            rows: live.rows,
            dims: DIMS,
            metric: Metric::L2,
            prefix: "t:".into(),
            field: "v".into(),
            live,
            search: SearchPlan::ServerSide { module: SearchModule::RediSearch, index: "i".into() },
        }
    }

    fn build_now(work: &VectorWork, k: u32) -> Result<QuerySet, Error> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(build(work, k))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_exact_answer_over_what_is_alive_has_full_recall_however_ties_are_broken(
            base in prop::collection::vec([0u8..4, 0u8..4, 0u8..4], 12..60),
            queries in prop::collection::vec([0u8..4, 0u8..4, 0u8..4], 1..6),
            keep in 0.3f64..=1.0, seed: u64, k in 1u32..4,
        ) {
            let (_folder, spec) = data(&base, &queries);
            let live = LiveSet::empty(seed, count::len(base.len()), 1).keep(keep);
            let set = build_now(&work(spec, live), k).unwrap();
            prop_assert_eq!(set.blobs.len(), queries.len());
            let keys = KeySpace::new("t:");
            for ((query, blob), judge) in queries.iter().zip(&set.blobs).zip(&set.judges) {
                let sent: Vec<f32> = blob.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                prop_assert_eq!(sent, floats(query));
                let alive = rows_of(&base).into_iter().filter(|(row, _)| live.is_live(0, *row));
                // Of equal distances the highest rows first: the opposite of the file's order. Only rows of the
                // file's list can be known as ties, so the answer is taken from it.
                let listed: Vec<u64> =
                    nearest(Metric::L2, rows_of(&base), &floats(query), DEPTH).into_iter().map(|(r, _)| r).collect();
                let mut answer = nearest(Metric::L2, alive, &floats(query), base.len());
                answer.retain(|(row, _)| listed.contains(row));
                answer.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
                answer.truncate(usize::try_from(k).unwrap());
                let names: Vec<Vec<u8>> = answer
                    .iter()
                    .map(|(row, _)| {
                        let mut name = Vec::new();
                        keys.write(0, *row, &mut name);
                        name
                    })
                    .collect();
                let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
                let verdict = judge.score(&names, &keys);
                prop_assert_eq!(verdict.hits, verdict.possible);
                prop_assert_eq!(verdict.masked, answer.len() < usize::try_from(k).unwrap());
                prop_assert_eq!((verdict.ghosts, verdict.contamination, verdict.duplicates), (0, 0, 0));
            }
        }

        #[test]
        fn joined_reads_cover_the_wanted_rows_and_no_gap_is_too_wide(
            rows in prop::collection::btree_set(0u64..500, 0..60), gap in 0u64..40,
        ) {
            let rows: Vec<u64> = rows.into_iter().collect();
            let parts = join_close(&rows, gap);
            prop_assert_eq!(&parts.concat(), &rows);
            prop_assert!(parts.iter().all(|p| p.windows(2).all(|w| w[1] - w[0] <= gap + 1)));
            prop_assert!(parts.windows(2).all(|w| w[1][0] - w[0].last().unwrap() > gap + 1));
        }
    }

    #[test]
    fn a_truth_of_another_base_is_refused() {
        let base: Vec<[u8; 3]> = (0..20).map(|i| [i, 0, 0]).collect();
        let (folder, spec) = data(&base, &[[1, 0, 0]]);
        let short = [&5u32.to_le_bytes()[..], &DIMS.to_le_bytes()[..], base[..5].as_flattened()].concat();
        std::fs::write(folder.path().join("base.u8bin"), short).unwrap();
        let error = build_now(&work(spec, LiveSet::empty(1, 5, 1).full()), 2).unwrap_err();
        assert!(matches!(error, Error::Truth(_)), "{error}");
    }
}
