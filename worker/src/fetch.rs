//! The rows of leased ranges, as lanes want them.
//!
//! Fed by `session` with ranges, read by lanes as [`RowBlock`]s. How much is in memory is bounded by how many ranges
//! the session leases ahead; how many reads are in flight at once is bounded here. Law: a range gives each of its
//! cells that the work is about exactly once, in blocks of at most [`BLOCK_ROWS`].

pub(crate) mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use url::Url;
use vst_common::count;
use vst_common::dataset::{DatasetView, ReadFault, Rows};
use vst_common::expand::Copier;
use vst_common::live_set::LiveSet;
use vst_common::mix::{Deed, Mix};
use vst_common::phase::{PhaseOrder, VectorWork, Work};
use vst_common::ranges::RowRange;
use vst_common::scenario::{CopyOrder, Load};

use crate::presence::{self, Presence};
use crate::work::RowBlock;

/// Rows of a block: few enough that the last blocks of a phase end at nearly the same time on all lanes.
pub const BLOCK_ROWS: usize = 256;
/// Blocks that a lane gets in a second where rows fall due by the clock: what it holds at the end, it sends late.
const BLOCKS_PER_S: f64 = 8.0;
/// Reads in flight at once.
const READS: usize = 4;
/// Wanted rows that are no further apart than this are read with one request, bytes.
const GAP_BYTES: u64 = 64 << 10;

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
    /// What the target holds is not known.
    #[error(transparent)]
    Presence(#[from] presence::Error),
    /// The process is ending.
    #[error("the worker is ending")]
    Ending,
}

/// Where the rows of a phase come from.
#[derive(Debug)]
pub struct Source {
    kind: Kind,
    /// Where only rows are wanted that the target does not hold.
    presence: Option<Presence>,
    reads: Semaphore,
    block_rows: usize,
}

/// How the vectors of a range become blocks.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Of one vector, as the index takes it.
    vector_bytes: usize,
    /// Rows that are not alive are left out.
    only_live: bool,
    /// Of those only the ones at this position of the order or behind it: what is before was there already.
    from: u64,
    block_rows: usize,
}

/// What the units of a phase do.
#[derive(Debug)]
enum Units {
    /// At even places cells leave, at odd ones cells come.
    Exchange,
    Mixed(Box<Mix>),
}

impl Units {
    /// The position that a unit changes, and whether it is written; `None` where it changes none.
    fn change(&self, live: LiveSet, unit: u64) -> Option<(u64, bool)> {
        match self {
            Self::Exchange if unit.is_multiple_of(2) => Some((unit / 2, false)),
            Self::Exchange => Some((live.count() + unit / 2, true)),
            Self::Mixed(mix) => match mix.deed(unit) {
                Deed::Query => None,
                Deed::Delete(position) => Some((position, false)),
                Deed::Ingest(position) | Deed::Update(position) => Some((position, true)),
            },
        }
    }
}

#[derive(Debug)]
enum Kind {
    /// Vectors of the base and of its copies, by the number of the cell.
    Vectors { view: DatasetView, live: LiveSet, order: CopyOrder, copier: Arc<Copier>, shape: Shape },
    /// Cells by their position in the live set's order; no vectors.
    Cells(LiveSet),
    /// Cells of the copies behind the first so many; no vectors.
    Copies(LiveSet, u32),
    /// Units that change a row or none, with the vectors of those that are written.
    Units { view: DatasetView, live: LiveSet, copier: Copier, units: Units },
}

impl Kind {
    async fn units(vectors: &VectorWork, units: Units) -> Result<Self, Error> {
        Ok(Self::Units {
            view: open_vectors(&vectors.dataset.base, vectors).await?,
            live: vectors.live,
            copier: vectors.expansion.copier(vectors.dims),
            units,
        })
    }
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
            Work::DropCopies { vectors, keep } => Kind::Copies(vectors.live, *keep),
            Work::Ingest(vectors) | Work::Fill(vectors) | Work::Grow(vectors, _) | Work::Update(vectors) => {
                let view = open_vectors(&vectors.dataset.base, vectors).await?;
                let copier = Arc::new(vectors.expansion.copier(vectors.dims));
                let only_live = matches!(work, Work::Update(_) | Work::Grow(..));
                let from = if let Work::Grow(_, from) = work { *from } else { 0 };
                // What is overwritten is there already: the order in which it came says nothing any more.
                let order =
                    if matches!(work, Work::Update(_)) { CopyOrder::Interleaved } else { vectors.order };
                let dims = vectors.expansion.index_dims(vectors.dims);
                let vector_bytes = count::index(u64::from(dims).saturating_mul(4));
                let shape = Shape { vector_bytes, only_live, from, block_rows: BLOCK_ROWS };
                Kind::Vectors { view, live: vectors.live, order, copier, shape }
            }
            Work::Churn(vectors) => Kind::units(vectors, Units::Exchange).await?,
            Work::Mixed { vectors, weights, units, .. } => {
                let mix = Mix::new(*weights, *units, vectors.live);
                Kind::units(vectors, Units::Mixed(Box::new(mix))).await?
            }
        };
        Ok(Some(Self { kind, presence: None, reads: Semaphore::new(READS), block_rows: BLOCK_ROWS }))
    }

    /// The same, in blocks that suit the load.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub async fn of_order(order: &PhaseOrder) -> Result<Option<Self>, Error> {
        let block_rows = match &order.load {
            Load::Closed { .. } => BLOCK_ROWS,
            Load::Open { arrival, .. } => {
                let lane_rate = arrival.peak_rate() / f64::from(order.lanes_total.max(1));
                // Even, because what a churn exchanges are pairs.
                count::index(count::from_f64(lane_rate / BLOCKS_PER_S)).clamp(2, BLOCK_ROWS) & !1
            }
        };
        Ok(Self::open(&order.work).await?.map(|source| Self { block_rows, ..source }))
    }

    /// The same, without the rows that the target holds.
    #[must_use]
    pub fn without(self, presence: Presence) -> Self {
        Self { presence: Some(presence), ..self }
    }

    /// Failed requests to the store that were repeated, since the last call.
    #[must_use]
    pub fn faults(&self) -> Vec<ReadFault> {
        match &self.kind {
            Kind::Vectors { view, .. } | Kind::Units { view, .. } => view.faults().take(),
            Kind::Cells(_) | Kind::Copies(..) => Vec::new(),
        }
    }

    /// The cells of a range, in blocks whose ids are still to be given.
    ///
    /// # Errors
    /// When the range is not in the data or cannot be read.
    pub async fn blocks(&self, range: RowRange) -> Result<Vec<RowBlock>, Error> {
        let blocks = self.every_block(range).await?;
        let Some(presence) = &self.presence else { return Ok(blocks) };
        let mut missing = Vec::new();
        for block in blocks {
            missing.push(presence.missing(block).boxed().await?);
        }
        missing.retain(|block| !block.rows.is_empty());
        Ok(missing)
    }

    /// The same with the rows that the target was found to hold.
    pub(crate) async fn every_block(&self, range: RowRange) -> Result<Vec<RowBlock>, Error> {
        let (view, live, order, copier, shape) = match &self.kind {
            Kind::Cells(live) => {
                return cells(*live, range, self.block_rows, |position| live.cell_at(position));
            }
            Kind::Copies(live, keep) => {
                let behind = live.behind(*keep);
                let own = |number| behind.cell(number).map(|(copy, row)| (copy.saturating_add(*keep), row));
                return cells(*live, range, self.block_rows, own);
            }
            Kind::Units { view, live, copier, units } => {
                return changes(view, *live, copier, units, range, self.block_rows).await;
            }
            Kind::Vectors { view, live, order, copier, shape } => {
                (view, *live, *order, copier, Shape { block_rows: self.block_rows, ..*shape })
            }
        };
        let mut blocks = Vec::new();
        for part in parts(live, order, range)? {
            let permit = self.reads.acquire().await.map_err(|_| Error::Ending)?;
            let rows = view.read(part.rows).await?;
            drop(permit);
            let copier = Arc::clone(copier);
            // Widening a large range takes milliseconds, which heartbeats must not wait for.
            let made = tokio::task::spawn_blocking(move || part.blocks(live, &rows, &copier, shape));
            blocks.extend(made.await.map_err(|_| Error::Ending)?);
        }
        Ok(blocks)
    }
}

/// Opens vectors that an order names and checks their dimensions against it.
pub(crate) async fn open_vectors(reference: &str, work: &VectorWork) -> Result<DatasetView, Error> {
    let url = parse(reference)?;
    let view = DatasetView::open_url(&url).await?;
    let manifest = view.manifest();
    if manifest.dims != work.dims {
        return Err(Error::Dims { url: manifest.url.clone(), found: manifest.dims, expected: work.dims });
    }
    Ok(view)
}

pub(crate) fn parse(reference: &str) -> Result<Url, Error> {
    Url::parse(reference).map_err(|reason| Error::Reference { reference: reference.to_owned(), reason })
}

fn cells(
    live: LiveSet,
    range: RowRange,
    block_rows: usize,
    cell: impl Fn(u64) -> Option<(u32, u64)>,
) -> Result<Vec<RowBlock>, Error> {
    let RowRange { start, end } = range;
    let cells: Option<Vec<(u32, u64)>> = (start..end).map(cell).collect();
    let cells = cells.ok_or(Error::Position { start, end, cells: live.cells() })?;
    Ok(cells
        .chunks(block_rows)
        .map(|rows| RowBlock { id: 0, rows: rows.to_vec(), ..RowBlock::default() })
        .collect())
}

/// Units by their numbers, in blocks; only what is written has a vector.
async fn changes(
    view: &DatasetView,
    live: LiveSet,
    copier: &Copier,
    units: &Units,
    range: RowRange,
    block_rows: usize,
) -> Result<Vec<RowBlock>, Error> {
    let RowRange { start, end } = range;
    // (copy, row) and whether it is written.
    let mut cells: Vec<((u32, u64), bool)> = Vec::new();
    for unit in start..end {
        cells.push(match units.change(live, unit) {
            None => ((0, 0), false),
            Some((position, written)) => {
                let cell =
                    live.cell_at(position).ok_or(Error::Position { start, end, cells: live.cells() })?;
                (cell, written)
            }
        });
    }
    let mut wanted: Vec<u64> =
        cells.iter().filter(|(_, written)| *written).map(|((_, row), _)| *row).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let known = read_rows(view, &wanted).await?;
    let mut made = Vec::new();
    let mut blocks = Vec::new();
    let step = block_rows.max(1);
    for (first, cells) in (start..).step_by(step).zip(cells.chunks(step)) {
        let mut vectors = Vec::new();
        for ((copy, row), _) in cells.iter().filter(|(_, written)| *written) {
            copier.row(*copy, known.get(row).map_or(&[][..], Vec::as_slice), &mut made);
            vectors.extend(made.iter().flat_map(|x| x.to_le_bytes()));
        }
        let rows = cells.iter().map(|(cell, _)| *cell).collect();
        blocks.push(RowBlock { id: 0, first, rows, vectors });
    }
    Ok(blocks)
}

/// The named rows (ascending), with as few requests as their distance allows.
pub(crate) async fn read_rows(base: &DatasetView, wanted: &[u64]) -> Result<BTreeMap<u64, Vec<f32>>, Error> {
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
pub(crate) fn join_close(rows: &[u64], gap: u64) -> Vec<&[u64]> {
    rows.chunk_by(|a, b| b.saturating_sub(*a) <= gap.saturating_add(1)).collect()
}

/// Cells of a range whose rows are read with one request.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    /// Rows of the base that they need.
    rows: RowRange,
    cells: CellRange,
}

#[derive(Clone, Debug, PartialEq)]
enum CellRange {
    /// Numbers of the live set, the copy innermost.
    Numbers(RowRange),
    /// The rows of the part, of one copy.
    Copy(u32),
}

/// What a range of an ingest consists of: of cell numbers where copies interleave, else of places in a list that has
/// one copy after another.
fn parts(live: LiveSet, order: CopyOrder, range: RowRange) -> Result<Vec<Part>, Error> {
    let RowRange { start, end } = range;
    if start > end || end > live.cells() {
        return Err(Error::Position { start, end, cells: live.cells() });
    }
    if range.is_empty() {
        return Ok(Vec::new());
    }
    if order == CopyOrder::Interleaved {
        let row = |number: u64| live.cell(number).map(|(_, row)| row);
        let (Some(first), Some(last)) = (row(start), row(end - 1)) else { return Ok(Vec::new()) };
        let rows = RowRange { start: first, end: last.saturating_add(1) };
        return Ok(vec![Part { rows, cells: CellRange::Numbers(range) }]);
    }
    let (mut parts, mut before) = (Vec::new(), 0_u64);
    for copy in 0..live.copies {
        let after = before.saturating_add(live.rows_of(copy));
        let (from, to) = (start.max(before), end.min(after));
        if from < to {
            let rows = RowRange { start: from - before, end: to - before };
            parts.push(Part { rows, cells: CellRange::Copy(copy) });
        }
        before = after;
    }
    Ok(parts)
}

impl Part {
    fn blocks(self, live: LiveSet, read: &Rows, copier: &Copier, shape: Shape) -> Vec<RowBlock> {
        let Shape { vector_bytes, only_live, from, block_rows } = shape;
        let RowRange { start, end } = self.rows;
        let mut cells: Vec<(u32, u64)> = match self.cells {
            CellRange::Numbers(numbers) => {
                (numbers.start..numbers.end).filter_map(|number| live.cell(number)).collect()
            }
            CellRange::Copy(copy) => (start..end).map(|row| (copy, row)).collect(),
        };
        let wanted = |(copy, row): &(u32, u64)| {
            live.position(*copy, *row).is_some_and(|position| (from..live.cut).contains(&position))
        };
        cells.retain(|cell| !only_live || wanted(cell));
        let (mut at, mut row_of_base, mut made) = (None, Vec::new(), Vec::new());
        let place = |row: u64| count::index(row.saturating_sub(start));
        let block = |rows: &[(u32, u64)]| {
            // In one piece and already there: a vector that grows number by number takes longer than all the rest.
            let mut vectors = vec![0; rows.len().saturating_mul(vector_bytes)];
            // Without copies and without gaps the rows of a part follow each other, and stay as they are.
            let whole = copier.is_identity() && live.copies <= 1 && !only_live;
            if let (true, Some((_, first))) = (whole, rows.first()) {
                let first = place(*first);
                read.write_f32_le(first..first.saturating_add(rows.len()), &mut vectors);
                return RowBlock { id: 0, rows: rows.to_vec(), vectors, ..RowBlock::default() };
            }
            for ((copy, row), vector) in rows.iter().zip(vectors.chunks_exact_mut(vector_bytes.max(1))) {
                // Copies of a row follow each other: it is widened once.
                if at != Some(*row) {
                    read.row_f32(place(*row), &mut row_of_base);
                    at = Some(*row);
                }
                copier.row(*copy, &row_of_base, &mut made);
                for (bytes, number) in vector.as_chunks_mut::<4>().0.iter_mut().zip(&made) {
                    *bytes = number.to_le_bytes();
                }
            }
            RowBlock { id: 0, rows: rows.to_vec(), vectors, ..RowBlock::default() }
        };
        cells.chunks(block_rows).map(block).collect()
    }
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
            expansion: vst_common::expand::Expansion::None,
            order: vst_common::scenario::CopyOrder::Interleaved,
            truth: vst_common::phase::TruthSource::Listed,
            metric: Metric::L2,
            on: vst_common::scenario::RowKind::Hash,
            prefix: "t:".into(),
            field: "v".into(),
            attributes: vst_common::attributes::Attributes::default(),
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
        fn the_ranges_of_an_ingest_together_write_every_cell_once_with_its_own_vector(
            rows in 1u32..300, copies in 1u32..6, lack in 0.0f64..=1.0, length in 1u64..400, clustered: bool,
        ) {
            let (_folder, url) = base(rows, 3);
            let missing = count::from_f64(lack * f64::from(rows));
            let live = LiveSet::empty(1, u64::from(rows), copies).lacking(missing);
            let mut order = work(&url, 3, live);
            order.order = if clustered { CopyOrder::Clustered } else { CopyOrder::Interleaved };
            let permutation = vst_common::expand::Permutation { seed: 5, copies };
            order.expansion = vst_common::expand::Expansion::Permutation(permutation);
            let copier = order.expansion.copier(3);
            let cut = vst_common::ranges::Cut::new(RowRange { start: 0, end: live.cells() }, length);
            let mut written = Vec::new();
            let source = block_on(Source::open(&Work::Ingest(order))).unwrap().unwrap();
            for range in (0..cut.count()).filter_map(|i| cut.get(i)) {
                for block in block_on(source.blocks(range)).unwrap() {
                    prop_assert_eq!(block.vectors.len(), block.rows.len() * 12);
                    written.extend(block.rows.into_iter().zip(block.vectors.chunks(12).map(<[u8]>::to_vec)));
                }
            }
            let in_order: Vec<(u32, u64)> = written.iter().map(|(cell, _)| *cell).collect();
            let key = |(copy, row): &(u32, u64)| if clustered { (u64::from(*copy), *row) } else { (*row, u64::from(*copy)) };
            prop_assert!(in_order.is_sorted_by_key(key));
            written.sort_unstable();
            written.dedup();
            prop_assert_eq!(count::len(written.len()), live.cells());
            for ((copy, row), vector) in written {
                let number = |i: u64| f32::from(u8::try_from((row * 3 + i) % 251).unwrap());
                let mut own = Vec::new();
                copier.row(copy, &[number(0), number(1), number(2)], &mut own);
                prop_assert_eq!(vector, own.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
            }
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn an_update_writes_what_lives_once_and_a_churn_makes_the_population_that_was_planned(
            rows in 4u32..300, copies in 1u32..4, alive in 0.2f64..0.9, by in 0.01f64..0.9, length in 1u64..90, seed: u64,
        ) {
            let (_folder, url) = base(rows, 2);
            let live = LiveSet::empty(seed, u64::from(rows), copies).keep(alive);
            let cells = |live: LiveSet| -> std::collections::BTreeSet<(u32, u64)> {
                (0..live.count()).map(|p| live.cell_at(p).unwrap()).collect()
            };
            let mut order = work(&url, 2, live);
            let permutation = vst_common::expand::Permutation { seed: 5, copies };
            order.expansion = vst_common::expand::Expansion::Permutation(permutation);
            let copier = order.expansion.copier(2);
            let own = |copy: u32, row: u64| {
                let number = |i: u64| f32::from(u8::try_from((row * 2 + i) % 251).unwrap());
                let mut own = Vec::new();
                copier.row(copy, &[number(0), number(1)], &mut own);
                own.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()
            };
            let all = |work: Work, total: u64| {
                let length = length.next_multiple_of(2);
                let cut = vst_common::ranges::Cut::new(RowRange { start: 0, end: total }, length);
                block_on(async {
                    let source = Source::open(&work).await.unwrap().unwrap();
                    let mut blocks = Vec::new();
                    for range in (0..cut.count()).filter_map(|i| cut.get(i)) {
                        blocks.extend(source.blocks(range).await.unwrap());
                    }
                    blocks
                })
            };
            let mut written = Vec::new();
            for block in all(Work::Update(order.clone()), live.cells()) {
                written.extend(block.rows.into_iter().zip(block.vectors.chunks(8).map(<[u8]>::to_vec)));
            }
            prop_assert!(written.iter().all(|((copy, row), vector)| *vector == own(*copy, *row)));
            prop_assert_eq!(count::len(written.len()), live.count());
            prop_assert_eq!(written.into_iter().map(|(cell, _)| cell).collect::<std::collections::BTreeSet<_>>(), cells(live));

            // What grew is what was not there before.
            let from = count::from_f64(by * count::to_f64(live.count()));
            let grown: std::collections::BTreeSet<_> = all(Work::Grow(order.clone(), from), live.cells())
                .into_iter()
                .flat_map(|block| block.rows)
                .collect();
            prop_assert_eq!(&cells(live) - &cells(live.with_cut(from)), grown);

            let room = live.count().min(live.cells() - live.count());
            let pairs = count::from_f64(by * count::to_f64(room));
            let mixed = order.clone();
            let (mut now, mut changed): (_, Vec<(u32, u64)>) = (cells(live), Vec::new());
            for block in all(Work::Churn(order), 2 * pairs) {
                prop_assert_eq!(block.vectors.len(), block.rows.len() / 2 * 8);
                for (i, pair) in block.rows.chunks(2).enumerate() {
                    prop_assert!(now.remove(&pair[0]), "only what lives is deleted");
                    prop_assert!(now.insert(pair[1]), "only what does not live is inserted");
                    prop_assert_eq!(&block.vectors[i * 8..i * 8 + 8], own(pair[1].0, pair[1].1));
                    changed.extend(pair);
                }
            }
            prop_assert_eq!(changed.len(), changed.iter().collect::<std::collections::BTreeSet<_>>().len(), "no cell twice");
            prop_assert_eq!(now, cells(live.moved_on(pairs, pairs)));

            let weights = vst_common::mix::MixWeights { query: 3, ingest: 2, delete: 1, update: 1 };
            let mut units = 2 * pairs + 3;
            while !Mix::new(weights, units, live).fits() {
                units -= 1;
            }
            let ask = vst_common::scenario::Ask::nearest(1, None);
            let work = Work::Mixed { vectors: mixed, ask, weights, units };
            let mix = work.mix().unwrap();
            let (mut now, mut next) = (cells(live), 0);
            for block in all(work, units) {
                prop_assert_eq!(block.first, next);
                let mut vectors = block.vectors.chunks(8);
                for ((copy, row), unit) in block.rows.iter().copied().zip(block.first..) {
                    let right = match mix.deed(unit) {
                        Deed::Query => true,
                        Deed::Delete(_) => now.remove(&(copy, row)),
                        Deed::Ingest(_) => now.insert((copy, row)) && vectors.next() == Some(&own(copy, row)[..]),
                        Deed::Update(_) => now.contains(&(copy, row)) && vectors.next() == Some(&own(copy, row)[..]),
                    };
                    prop_assert!(right, "unit {} of {:?}", unit, mix);
                    next = unit + 1;
                }
                prop_assert_eq!(vectors.next(), None);
            }
            prop_assert_eq!((next, now), (units, cells(mix.after())));
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
