//! The queries of a phase and what decides about the answers to each.
//!
//! Built when a phase is armed, before any load: reads queries, published neighbours and the few rows of the base
//! whose own distance decides a tie; computes the neighbours where too few of the published ones live. Lanes send the
//! blobs and judge with the judges. Law: pair i is blob i and judge i, each copy has its turn, and no distance of a
//! file decides whether an answer counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use vst_common::count;
use vst_common::dataset::{DatasetView, ReadFaults, Rows, open_truth};
use vst_common::expand::{self, Copier};
use vst_common::ground_truth::{ExactSearch, GroundTruth, TruthList, measure};
use vst_common::phase::{TruthSource, VectorWork, Work};
use vst_common::ranges::RowRange;
use vst_common::recall::{Findable, QueryJudge};
use vst_common::scenario::Metric;

use crate::fetch::{self, read_rows};
use crate::work::{Pair, QuerySet};

/// Rows that are searched at a time where neighbours are computed.
const CHUNK_ROWS: u64 = 16_384;

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

/// Reads and builds the queries of a phase, if it asks; requests to stores that had to be repeated go to `faults`.
///
/// # Errors
/// When a file cannot be read or the files do not belong together.
pub async fn build(work: &Work, faults: &ReadFaults) -> Result<Option<QuerySet>, Error> {
    let (Some(ask), Some(vectors)) = (work.ask(), work.vectors()) else { return Ok(None) };
    let always = Findable::from(&vectors.live);
    let findable = work.during().map_or(always, |during| Findable {
        stable: during.stable,
        ever: during.ever,
        ..always
    });
    let selection = ask.filter.map(|filter| vectors.attributes.selection(filter));
    asked(vectors, ask.k, Findable { selection, ..findable }, faults).await.map(Some)
}

/// The queries of work that asks for `k` of these neighbours.
async fn asked(
    work: &VectorWork,
    k: u32,
    findable: Findable,
    faults: &ReadFaults,
) -> Result<QuerySet, Error> {
    let queries = fetch::open_vectors(&work.dataset.queries, work).await?;
    let base = fetch::open_vectors(&work.dataset.base, work).await?;
    let n = queries.manifest().rows;
    let asked = queries.read(RowRange { start: 0, end: n }).await?;
    let pairs: Vec<Pair> = (0..expand::pairs(n, work.live.copies))
        .map(|number| expand::pair(number, n, work.live.copies))
        .filter_map(|(query, copy)| Some((u32::try_from(query).ok()?, copy)))
        .collect();
    let probe = Arc::new(Probe {
        findable,
        metric: work.metric,
        copier: work.expansion.copier(work.dims),
        queries: asked.iter().collect(),
        pairs,
        k,
    });
    let lists = match work.truth {
        TruthSource::Listed => Lists::Listed(listed(work, n, base.manifest().rows, faults).await?),
        TruthSource::Computed => Lists::Computed(computed(&probe, &base, work.rows).await?),
    };
    let lists = Arc::new(lists);
    let rows = {
        let (probe, lists) = (Arc::clone(&probe), Arc::clone(&lists));
        blocking(move || probe.wanted(&lists)).await?
    };
    let known = read_rows(&base, &rows).await?;
    for view in [&queries, &base] {
        faults.absorb(view.faults());
    }
    blocking(move || probe.judged(&lists, &known)).await
}

/// The data set's neighbours.
async fn listed(
    work: &VectorWork,
    queries: u64,
    rows: u64,
    faults: &ReadFaults,
) -> Result<GroundTruth, Error> {
    let url = fetch::parse(&work.dataset.ground_truth)?;
    let truth = open_truth(&url, faults).await?;
    truth.check_against(rows)?;
    if queries > u64::from(truth.queries) {
        return Err(Error::Queries { queries, truths: truth.queries });
    }
    Ok(truth)
}

/// Neighbours among what is alive, over the vectors as they were loaded: for each copy those that its queries have.
async fn computed(probe: &Arc<Probe>, base: &DatasetView, rows: u64) -> Result<Vec<List>, Error> {
    let mut searches = probe.searches();
    let mut start = 0;
    while start < rows {
        let range = RowRange { start, end: start.saturating_add(CHUNK_ROWS).min(rows) };
        let read = base.read(range).await?;
        let probe = Arc::clone(probe);
        searches = blocking(move || {
            probe.search(&mut searches, start, &read);
            searches
        })
        .await?;
        start = range.end;
    }
    Ok(probe.lists(searches))
}

/// What all pairs of a phase have in common.
struct Probe {
    findable: Findable,
    metric: Metric,
    copier: Copier,
    queries: Vec<Vec<f32>>,
    pairs: Vec<Pair>,
    k: u32,
}

/// The neighbours of one pair, nearest first.
#[derive(Default)]
struct List {
    ids: Vec<u32>,
    distances: Vec<f32>,
}

enum Lists {
    /// By query.
    Listed(GroundTruth),
    /// By pair.
    Computed(Vec<List>),
}

impl Lists {
    fn of(&self, number: usize, pair: Pair) -> TruthList<'_> {
        match self {
            Self::Listed(truth) => truth.list(pair.0),
            Self::Computed(lists) => match lists.get(number) {
                Some(list) => TruthList { ids: &list.ids, distances: &list.distances },
                None => TruthList { ids: &[], distances: &[] },
            },
        }
    }
}

impl Probe {
    /// A pair's query as it is asked.
    fn asked(&self, (query, copy): Pair) -> Vec<f32> {
        let (mut asked, query) = (Vec::new(), self.queries.get(count::index(u64::from(query))));
        self.copier.query(copy, query.map_or(&[][..], Vec::as_slice), &mut asked);
        asked
    }

    /// Pairs of one copy, with their numbers.
    fn of_copy(&self, copy: u32) -> impl Iterator<Item = (usize, Pair)> + '_ {
        self.pairs.iter().copied().enumerate().filter(move |(_, pair)| pair.1 == copy)
    }

    /// One search for each copy. Within a copy all distances are those of copy 0.
    fn searches(&self) -> Vec<ExactSearch> {
        // Rows tied with the k-th are hits too, so the list goes on beyond it.
        let depth = count::index(u64::from(self.k)).saturating_mul(2).saturating_add(16);
        (0..self.findable.stable.copies)
            .map(|copy| {
                let queries: Vec<Vec<f32>> =
                    self.of_copy(copy).map(|(_, (query, _))| self.asked((query, 0))).collect();
                let dims = queries.first().map_or(1, Vec::len);
                ExactSearch::new(self.metric, dims, queries.concat(), depth)
            })
            .collect()
    }

    fn search(&self, searches: &mut [ExactSearch], first: u64, read: &Rows) {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (mut rows, mut made) = (Vec::new(), Vec::new());
        for row in read.iter() {
            self.copier.row(0, &row, &mut made);
            rows.extend_from_slice(&made);
        }
        for (copy, search) in (0..).zip(searches) {
            search.add(first, &rows, |row| self.findable.has(copy, row), threads);
        }
    }

    fn lists(&self, searches: Vec<ExactSearch>) -> Vec<List> {
        let mut lists: Vec<List> = self.pairs.iter().map(|_| List::default()).collect();
        for (copy, search) in (0..).zip(searches) {
            for ((number, _), found) in self.of_copy(copy).zip(search.finish()) {
                let Some(list) = lists.get_mut(number) else { continue };
                for (row, distance) in found {
                    list.ids.push(u32::try_from(row).unwrap_or(u32::MAX));
                    list.distances.push(narrow(distance));
                }
            }
        }
        lists
    }

    /// Rows whose own distance decides a tie, ascending.
    fn wanted(&self, lists: &Lists) -> Vec<u64> {
        let pairs = self.pairs.iter().enumerate();
        let mut rows: Vec<u64> = pairs
            .flat_map(|(number, pair)| {
                QueryJudge::wanted(lists.of(number, *pair), pair.1, self.k, self.findable)
            })
            .collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    fn judged(&self, lists: &Lists, known: &BTreeMap<u64, Vec<f32>>) -> QuerySet {
        let (mut blobs, mut judges, mut made) = (Vec::new(), Vec::new(), Vec::new());
        for (number, pair) in self.pairs.iter().enumerate() {
            let asked = self.asked(*pair);
            // Measured on what the server holds, so that its rounding is the one that is allowed for.
            let own = |row| {
                self.copier.row(pair.1, known.get(&row)?, &mut made);
                Some(measure(self.metric, &asked, &made))
            };
            judges.push(QueryJudge::build(lists.of(number, *pair), pair.1, self.k, self.findable, own));
            blobs.push(asked.iter().flat_map(|x| x.to_le_bytes()).collect());
        }
        QuerySet { blobs, judges, pairs: self.pairs.clone() }
    }
}

/// A hint of how near, as files hold it.
#[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest 32-bit float")]
fn narrow(distance: f64) -> f32 {
    distance as f32
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Ending)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;
    use vst_common::ground_truth::nearest;
    use vst_common::keys::KeySpace;
    use vst_common::live_set::LiveSet;
    use vst_common::phase::{SearchModule, SearchPlan};
    use vst_common::scenario::{Ask, DatasetSpec, Metric};

    use super::*;
    use crate::fetch::join_close;

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
            expansion: vst_common::expand::Expansion::None,
            order: vst_common::scenario::CopyOrder::Interleaved,
            truth: vst_common::phase::TruthSource::Listed,
            metric: Metric::L2,
            on: vst_common::scenario::RowKind::Hash,
            prefix: "t:".into(),
            field: "v".into(),
            attributes: vst_common::attributes::Attributes::default(),
            live,
            search: SearchPlan::ServerSide { module: SearchModule::RediSearch, index: "i".into() },
        }
    }

    fn build_now(work: &VectorWork, k: u32) -> Result<QuerySet, Error> {
        let work = Work::Query { vectors: work.clone(), ask: Ask::nearest(k, None), during: None };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(build(&work, &ReadFaults::default())).map(Option::unwrap)
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
