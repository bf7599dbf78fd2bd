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
        blocks.push(RowBlock { first, rows, vectors, ..RowBlock::default() });
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
            // Without copies and without gaps the rows of a part follow each other, and stay as they are.
            let whole = copier.is_identity() && live.copies <= 1 && !only_live;
            if let (true, Some((_, first))) = (whole, rows.first()) {
                let first = place(*first);
                let stored = Some(read.slice(first..first.saturating_add(rows.len())));
                return RowBlock { id: 0, rows: rows.to_vec(), stored, ..RowBlock::default() };
            }
            // In one piece and already there: a vector that grows number by number takes longer than all the rest.
            let mut vectors = vec![0; rows.len().saturating_mul(vector_bytes)];
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
mod tests;
