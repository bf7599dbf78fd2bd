//! The bytes of one Parquet part.
//!
//! Called by the archive with the batches of one table in the order of the log; what it gives is put under the part's
//! name. Pure, and slow enough to belong off the async threads. Law: the rows of the part are the rows of the batches;
//! those of `latency_rollup` are the same counts, merged over workers.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampNanosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use vst_common::batch::latency::{self, RollupRow};
use vst_common::batch::table::{check_schema, read_ipc};
use vst_common::batch::{self, Table};
use vst_common::entry::StoredBatch;
use vst_common::ids::RunId;

/// Merged rows that are held as histograms at once: each takes about half a mebibyte.
const ROLLUP_ROWS: usize = 16;

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
    // One key at a time: histograms stay encoded until their key's turn, a dense one is large.
    let mut merged = Vec::with_capacity(ROLLUP_ROWS);
    for places in places_by_key(&decoded)?.into_values() {
        merged.extend(merge(&decoded, &places)?);
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
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
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

/// The rows at these places as one; `None` for no places.
fn merge(batches: &[RecordBatch], places: &[Place]) -> Result<Option<RollupRow>, Error> {
    let mut workers = BTreeSet::new();
    let mut merged: Option<RollupRow> = None;
    for (b, row) in places {
        let Some(batch) = batches.get(*b) else { continue };
        for (stamp, row) in latency::from_batch(&batch.slice(*row, 1)).map_err(Error::Rollup)? {
            workers.insert(stamp.worker);
            match &mut merged {
                Some(merged) => merged.row.cell.merge(&row.cell),
                None => merged = Some(RollupRow { workers: 0, row }),
            }
        }
    }
    Ok(merged.map(|merged| RollupRow { workers: vst_common::count::len(workers.len()), ..merged }))
}
