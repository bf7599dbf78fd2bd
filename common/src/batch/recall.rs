//! Tables `recall` and `recall_queries`: how many of the true neighbours were found.
//!
//! Written by `worker::recall_probe` from the very requests whose latency is in table `latency`. `recall` is the
//! series per interval, `recall_queries` the sum per query over the measured window, from which analysis takes the
//! interval of confidence (queries, not requests, are the independent samples).

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::columns::{Columns, Reader, nobody};
use super::table::{Error, Stamp, Table};
use crate::clock::WallNs;
use crate::ids::PhaseIndex;
use crate::latency::Window;
use crate::recall::RecallCell;

/// One row of `recall`.
#[derive(Clone, Debug, PartialEq)]
pub struct RecallRow {
    /// Name of the phase.
    pub phase: String,
    /// Its position in the run.
    pub phase_index: PhaseIndex,
    /// Warm-up or measured part.
    pub window: Window,
    /// Start of the interval in which the queries ended.
    pub interval_start: WallNs,
    /// Length of the interval, nanoseconds.
    pub interval_ns: u64,
    /// Neighbours asked for.
    pub k: u32,
    /// The verdicts, summed.
    pub cell: RecallCell,
}

/// One row of `recall_queries`.
#[derive(Clone, Debug, PartialEq)]
pub struct RecallQueryRow {
    /// Name of the phase.
    pub phase: String,
    /// Its position in the run.
    pub phase_index: PhaseIndex,
    /// Neighbours asked for.
    pub k: u32,
    /// Row of the query in the data set.
    pub query: u64,
    /// Copy of the base that it was asked of.
    pub copy: u32,
    /// The verdicts on all its answers in the measured window, summed.
    pub cell: RecallCell,
}

/// The columns of `recall`.
pub(super) fn schema() -> SchemaRef {
    columns(&nobody(), &[]).schema()
}

/// The columns of `recall_queries`.
pub(super) fn queries_schema() -> SchemaRef {
    queries_columns(&nobody(), &[]).schema()
}

fn columns<'a>(stamp: &'a Stamp, rows: &'a [RecallRow]) -> Columns<'a, RecallRow> {
    let columns = Columns::new(stamp, rows)
        .text("phase", |r: &RecallRow| &r.phase)
        .int("phase_index", |r| r.phase_index.0.into())
        .text("window", |r| r.window.as_str())
        .instant("interval_start", |r| r.interval_start)
        .int("interval_ns", |r| r.interval_ns)
        .int("k", |r| r.k.into());
    verdicts(columns, |r| &r.cell)
}

fn queries_columns<'a>(stamp: &'a Stamp, rows: &'a [RecallQueryRow]) -> Columns<'a, RecallQueryRow> {
    let columns = Columns::new(stamp, rows)
        .text("phase", |r: &RecallQueryRow| &r.phase)
        .int("phase_index", |r| r.phase_index.0.into())
        .int("k", |r| r.k.into())
        .int("query", |r| r.query)
        .int("copy", |r| r.copy.into());
    verdicts(columns, |r| &r.cell)
}

fn verdicts<'a, R>(columns: Columns<'a, R>, cell: impl Fn(&R) -> &RecallCell) -> Columns<'a, R> {
    columns
        .int("queries", |r| cell(r).queries)
        .int("hits", |r| cell(r).hits)
        .int("possible", |r| cell(r).possible)
        .int("ghosts", |r| cell(r).ghosts)
        .int("contamination", |r| cell(r).contamination)
        .int("duplicates", |r| cell(r).duplicates)
        .int("partial", |r| cell(r).partial)
        .int("masked", |r| cell(r).masked)
}

/// A batch of table `recall`.
///
/// # Errors
/// [`Error`] when the batch cannot be written.
pub fn to_batch(stamp: &Stamp, rows: &[RecallRow]) -> Result<RecordBatch, Error> {
    columns(stamp, rows).finish()
}

/// A batch of table `recall_queries`.
///
/// # Errors
/// [`Error`] when the batch cannot be written.
pub fn to_queries_batch(stamp: &Stamp, rows: &[RecallQueryRow]) -> Result<RecordBatch, Error> {
    queries_columns(stamp, rows).finish()
}

/// The rows of a batch of table `recall`.
///
/// # Errors
/// [`Error`] when the batch is of another schema or holds a value that no row can have.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<(Stamp, RecallRow)>, Error> {
    let reader = Reader::new(Table::Recall, batch)?;
    let phase = reader.text("phase")?;
    let phase_index = reader.int("phase_index")?;
    let window = reader.text("window")?;
    let interval_start = reader.instant("interval_start")?;
    let interval_ns = reader.int("interval_ns")?;
    let k = reader.int("k")?;
    let stamps = reader.stamps()?.into_iter().zip(cells(&reader)?).enumerate();
    stamps
        .map(|(i, (stamp, cell))| {
            let row = RecallRow {
                phase: phase.at(i).to_owned(),
                phase_index: phase_index.phase(i)?,
                window: window.window(i)?,
                interval_start: interval_start.at(i),
                interval_ns: interval_ns.at(i),
                k: k.small(i)?,
                cell,
            };
            Ok((stamp, row))
        })
        .collect()
}

/// The rows of a batch of table `recall_queries`.
///
/// # Errors
/// [`Error`] when the batch is of another schema or holds a value that no row can have.
pub fn from_queries_batch(batch: &RecordBatch) -> Result<Vec<(Stamp, RecallQueryRow)>, Error> {
    let reader = Reader::new(Table::RecallQueries, batch)?;
    let phase = reader.text("phase")?;
    let phase_index = reader.int("phase_index")?;
    let k = reader.int("k")?;
    let query = reader.int("query")?;
    let copy = reader.int("copy")?;
    let stamps = reader.stamps()?.into_iter().zip(cells(&reader)?).enumerate();
    stamps
        .map(|(i, (stamp, cell))| {
            let row = RecallQueryRow {
                phase: phase.at(i).to_owned(),
                phase_index: phase_index.phase(i)?,
                k: k.small(i)?,
                query: query.at(i),
                copy: copy.small(i)?,
                cell,
            };
            Ok((stamp, row))
        })
        .collect()
}

fn cells(reader: &Reader<'_>) -> Result<Vec<RecallCell>, Error> {
    let queries = reader.int("queries")?;
    let hits = reader.int("hits")?;
    let possible = reader.int("possible")?;
    let ghosts = reader.int("ghosts")?;
    let contamination = reader.int("contamination")?;
    let duplicates = reader.int("duplicates")?;
    let partial = reader.int("partial")?;
    let masked = reader.int("masked")?;
    Ok((0..reader.rows())
        .map(|i| RecallCell {
            queries: queries.at(i),
            hits: hits.at(i),
            possible: possible.at(i),
            ghosts: ghosts.at(i),
            contamination: contamination.at(i),
            duplicates: duplicates.at(i),
            partial: partial.at(i),
            masked: masked.at(i),
        })
        .collect())
}
