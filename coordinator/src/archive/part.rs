//! The bytes of one Parquet part.
//!
//! Called by the archive with the batches of one table in the order of the log; what it gives is put under the part's
//! name. Pure, and slow enough to belong off the async threads. Law: the rows of the part are the rows of the batches;
//! those of `latency_rollup` are the same counts, merged over workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampNanosecondType};
use arrow_array::{Array, BinaryArray, RecordBatch, new_null_array};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use vst_common::batch::latency::{self, LatencyRow, RollupRow};
use vst_common::batch::table::{check_schema, read_ipc};
use vst_common::batch::{self, Stamp, Table};
use vst_common::entry::StoredBatch;
use vst_common::ids::RunId;

use crate::histogram::Sum;

/// Merged rows that are held as histograms at once: each takes about half a mebibyte.
const ROLLUP_ROWS: usize = 16;

const RESPONSE: &str = "response_hdr";
const CENSORED: &str = "censored_hdr";
const SERVICE: &str = "service_hdr";

/// Why a part could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A batch is not what it was taken in as.
    #[error("batch {sequence} of worker `{worker}`, generation {generation}, cannot be read")]
    Batch {
        /// Who delivered it.
        worker: String,
        /// In which registration.
        generation: u64,
        /// Its sequence.
        sequence: u64,
        /// What is wrong.
        source: batch::Error,
    },
    /// Rows could not be merged.
    #[error("rows of table latency cannot be merged over workers")]
    Rollup(#[source] batch::Error),
    /// A histogram is none.
    #[error("rows of table latency cannot be merged over workers: column {column}: {reason}")]
    Histogram {
        /// The column.
        column: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The column that a merge goes by is missing.
    #[error("rows of table latency cannot be merged over workers: no column `{0}` of the expected type")]
    Column(&'static str),
    /// Parquet refused.
    #[error("parquet cannot be written")]
    Parquet(#[from] ParquetError),
}

/// The part of a table that holds these batches; without any, a part with no rows.
///
/// # Errors
/// [`Error`] when a batch is not one of the table or Parquet cannot be written.
pub(super) fn encode(table: Table, batches: &[StoredBatch]) -> Result<Bytes, Error> {
    let mut writer = open(table)?;
    for stored in batches {
        for batch in read(table, stored)? {
            writer.write(&batch)?;
        }
    }
    Ok(Bytes::from(writer.into_inner()?))
}

/// The part of `latency_rollup` that holds these batches of `latency`.
///
/// # Errors
/// As [`encode`].
pub(super) fn encode_rollup(run: &RunId, batches: &[StoredBatch]) -> Result<Bytes, Error> {
    let mut decoded = Vec::with_capacity(batches.len());
    for stored in batches {
        decoded.extend(read(Table::Latency, stored)?);
    }
    let mut writer = open(Table::LatencyRollup)?;
    let encoded: Vec<Histograms<'_>> = decoded.iter().map(Histograms::of).collect::<Result<_, _>>()?;
    let rows: Vec<Vec<(Stamp, LatencyRow)>> =
        decoded.iter().map(without_histograms).collect::<Result<_, _>>()?;
    let mut sums = Sums::default();
    // One key at a time: histograms stay encoded until their key's turn, a dense one is large.
    let mut merged = Vec::with_capacity(ROLLUP_ROWS);
    for places in places_by_key(&decoded)?.into_values() {
        merged.extend(merge(&rows, &encoded, &places, &mut sums)?);
        if merged.len() >= ROLLUP_ROWS {
            writer.write(&latency::to_rollup_batch(run, &merged).map_err(Error::Rollup)?)?;
            merged.clear();
        }
    }
    if !merged.is_empty() {
        writer.write(&latency::to_rollup_batch(run, &merged).map_err(Error::Rollup)?)?;
    }
    Ok(Bytes::from(writer.into_inner()?))
}

fn open(table: Table) -> Result<ArrowWriter<Vec<u8>>, Error> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(table.group_rows()))
        .build();
    Ok(ArrowWriter::try_new(Vec::new(), table.schema(), Some(properties))?)
}

fn read(table: Table, stored: &StoredBatch) -> Result<Vec<RecordBatch>, Error> {
    let failed = |source| Error::Batch {
        worker: stored.worker.to_string(),
        generation: stored.generation.0,
        sequence: stored.sequence.0,
        source,
    };
    let batches = read_ipc(&stored.ipc).map_err(failed)?;
    for batch in &batches {
        check_schema(table, batch).map_err(failed)?;
    }
    Ok(batches)
}

/// Everything that tells a merged row from another: interval first, so that a part is in the order of time.
type Key<'a> = (i64, i64, i64, &'a str, &'a str, &'a str, &'a str, &'a str);

/// Position of a row: batch, row.
type Place = (usize, usize);

fn places_by_key(batches: &[RecordBatch]) -> Result<BTreeMap<Key<'_>, Vec<Place>>, Error> {
    let mut places: BTreeMap<Key<'_>, Vec<Place>> = BTreeMap::new();
    for (b, batch) in batches.iter().enumerate() {
        let text = |name| {
            batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).ok_or(Error::Column(name))
        };
        let int = |name| {
            batch
                .column_by_name(name)
                .and_then(|c| c.as_primitive_opt::<Int64Type>())
                .ok_or(Error::Column(name))
        };
        let start = batch
            .column_by_name("interval_start")
            .and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>())
            .ok_or(Error::Column("interval_start"))?;
        let (length, index) = (int("interval_ns")?, int("phase_index")?);
        let (phase, window) = (text("phase")?, text("window")?);
        let (operation, command, node) = (text("operation")?, text("command")?, text("node")?);
        for row in 0..batch.num_rows() {
            let key = (
                start.value(row),
                length.value(row),
                index.value(row),
                phase.value(row),
                window.value(row),
                operation.value(row),
                command.value(row),
                node.value(row),
            );
            places.entry(key).or_default().push((b, row));
        }
    }
    Ok(places)
}

/// The columns of a batch that hold encoded histograms.
struct Histograms<'a> {
    response: &'a BinaryArray,
    censored: &'a BinaryArray,
    service: &'a BinaryArray,
}

impl<'a> Histograms<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, Error> {
        let column = |name| {
            batch.column_by_name(name).and_then(|c| c.as_binary_opt::<i32>()).ok_or(Error::Column(name))
        };
        let (response, censored, service) = (column(RESPONSE)?, column(CENSORED)?, column(SERVICE)?);
        Ok(Self { response, censored, service })
    }
}

/// The sums of one key.
#[derive(Debug, Default)]
struct Sums {
    response: Sum,
    censored: Sum,
    service: Sum,
}

/// The rows of a batch but for their histograms: to decode each would take most of the time.
fn without_histograms(batch: &RecordBatch) -> Result<Vec<(Stamp, LatencyRow)>, Error> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        if [RESPONSE, CENSORED, SERVICE].contains(&field.name().as_str()) {
            return new_null_array(field.data_type(), batch.num_rows());
        }
        Arc::clone(column)
    });
    let bare = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).map_err(batch::Error::from);
    bare.and_then(|bare| latency::from_batch(&bare)).map_err(Error::Rollup)
}

/// The rows at these places as one; `None` for no places.
fn merge(
    rows: &[Vec<(Stamp, LatencyRow)>],
    encoded: &[Histograms<'_>],
    places: &[Place],
    sums: &mut Sums,
) -> Result<Option<RollupRow>, Error> {
    let mut workers = BTreeSet::new();
    let mut merged: Option<LatencyRow> = None;
    for (b, row) in places {
        let (Some(histograms), Some((stamp, measured))) =
            (encoded.get(*b), rows.get(*b).and_then(|rows| rows.get(*row)))
        else {
            continue;
        };
        workers.insert(&stamp.worker);
        match &mut merged {
            Some(merged) => merged.cell.merge(&measured.cell),
            None => merged = Some(measured.clone()),
        }
        for (sum, column, of) in [
            (&mut sums.response, RESPONSE, histograms.response),
            (&mut sums.censored, CENSORED, histograms.censored),
            (&mut sums.service, SERVICE, histograms.service),
        ] {
            if of.is_valid(*row) {
                let added = sum.add(of.value(*row));
                added.map_err(|e| Error::Histogram { column, reason: e.to_string() })?;
            }
        }
    }
    let Some(mut row) = merged else { return Ok(None) };
    row.cell.response = sums.response.take();
    row.cell.censored = sums.censored.take();
    row.cell.service = sums.service.take();
    Ok(Some(RollupRow { workers: vst_common::count::len(workers.len()), row }))
}
