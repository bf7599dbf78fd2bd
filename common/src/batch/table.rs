//! Which tables a run has, what each looks like in Arrow, and how a batch of one travels.
//!
//! Producers stamp their batches, the uplink and the run log carry them as Arrow IPC streams, the archive writes a
//! folder per table. Law: rows -> batch -> IPC -> batch -> rows gives the same rows, and a batch of another schema
//! is refused before anything reads it.

use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, FieldRef, SchemaRef};

use super::{allocator, commandstats, events, health, latency, memory, recall};
use crate::ids::{Generation, RunId, Sequence, WorkerId};

/// A table of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Latency and counters per worker, phase, operation, command, node and interval.
    Latency,
    /// The same merged over workers; written by the archive.
    LatencyRollup,
    /// Memory of each node at common ticks.
    Memory,
    /// Size classes of each node's allocator, at slower ticks.
    Allocator,
    /// Recall per worker, phase and interval.
    Recall,
    /// Recall per query over the measured window of a phase.
    RecallQueries,
    /// What happened that is not a number: redirects, lost connections, faults.
    Events,
    /// What the load generator says about itself.
    Health,
    /// The server's own counters around each phase.
    Commandstats,
}

impl Table {
    /// Rows in a row group of its Parquet parts, what a reader's threads share out. Rows of the rollup hold histograms of
    /// kilobytes.
    #[must_use]
    pub const fn group_rows(self) -> usize {
        match self {
            Self::LatencyRollup => 8_192,
            _ => 100_000,
        }
    }

    /// All tables.
    pub const ALL: [Self; 9] = [
        Self::Latency,
        Self::LatencyRollup,
        Self::Memory,
        Self::Allocator,
        Self::Recall,
        Self::RecallQueries,
        Self::Events,
        Self::Health,
        Self::Commandstats,
    ];

    /// The name in SQL, in deliveries, and of the folder in the run directory.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::LatencyRollup => "latency_rollup",
            Self::Memory => "memory",
            Self::Allocator => "allocator",
            Self::Recall => "recall",
            Self::RecallQueries => "recall_queries",
            Self::Events => "events",
            Self::Health => "health",
            Self::Commandstats => "commandstats",
        }
    }

    /// The columns: run, worker (Utf8), generation, sequence (Int64), then the table's own. Integers are Int64,
    /// instants `Timestamp(ns, UTC)`, ratios Float64, histograms nullable Binary (HDR V2).
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Latency => latency::schema(),
            Self::LatencyRollup => latency::rollup_schema(),
            Self::Memory => memory::schema(),
            Self::Allocator => allocator::schema(),
            Self::Recall => recall::schema(),
            Self::RecallQueries => recall::queries_schema(),
            Self::Events => events::schema(),
            Self::Health => health::schema(),
            Self::Commandstats => commandstats::schema(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Table {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|t| t.as_str() == s).ok_or_else(|| Error::UnknownTable(s.to_owned()))
    }
}

/// The identity of a delivery: its four columns lead every table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The run.
    pub run: RunId,
    /// Who measured; `*` in what was merged over workers.
    pub worker: WorkerId,
    /// The worker's registration when the batch was made.
    pub generation: Generation,
    /// Position in that registration's deliveries.
    pub sequence: Sequence,
}

/// Why a batch could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No table has this name.
    #[error(
        "no table is called `{0}`; there are latency, latency_rollup, memory, allocator, recall, recall_queries, events, health and commandstats"
    )]
    UnknownTable(String),
    /// The batch is not one of the table.
    #[error("not a batch of table {table}: {difference}")]
    Schema {
        /// The table it was taken for.
        table: Table,
        /// The first difference.
        difference: String,
    },
    /// A value that the column cannot hold.
    #[error("column {column}, row {row}: {reason}")]
    Value {
        /// The column.
        column: String,
        /// Row in the batch, from 0.
        row: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A histogram could not be written or read.
    #[error("column {column}: {source}")]
    Histogram {
        /// The column.
        column: String,
        /// What the codec says.
        source: crate::latency::Error,
    },
    /// The stream ends before its end mark.
    #[error("torn Arrow stream: {length} bytes without the mark of its end")]
    Torn {
        /// Length of what there is.
        length: usize,
    },
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
}

/// The batch as an Arrow IPC stream (schema, one batch, end of stream).
///
/// # Errors
/// [`Error::Arrow`] when Arrow cannot write it.
pub fn write_ipc(batch: &RecordBatch) -> Result<Vec<u8>, Error> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

/// How a whole stream ends. Arrow's reader takes the end of the bytes for the end of the stream as well.
const END_OF_STREAM: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];

/// The batches of a whole Arrow IPC stream. The bytes must be as they were written: whoever carries them keeps a
/// checksum, for Arrow's reader does not survive every damage.
///
/// # Errors
/// [`Error::Torn`] when the end is missing, [`Error::Arrow`] when it is not an Arrow stream.
pub fn read_ipc(bytes: &[u8]) -> Result<Vec<RecordBatch>, Error> {
    if !bytes.ends_with(&END_OF_STREAM) {
        return Err(Error::Torn { length: bytes.len() });
    }
    let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    Ok(reader.collect::<Result<Vec<_>, _>>()?)
}

/// Whether a batch has exactly the table's columns: names, order, types and nullability.
///
/// # Errors
/// [`Error::Schema`] with the first difference.
pub fn check_schema(table: Table, batch: &RecordBatch) -> Result<(), Error> {
    let (wanted, found) = (table.schema(), batch.schema());
    let refuse = |difference| Err(Error::Schema { table, difference });
    for (i, want) in wanted.fields().iter().enumerate() {
        match found.fields().get(i) {
            None => return refuse(format!("column {i} is missing, expected {}", describe(want))),
            Some(have) if have.name() != want.name() || have.data_type() != want.data_type() => {
                return refuse(format!("column {i} is {}, expected {}", describe(have), describe(want)));
            }
            Some(have) if have.is_nullable() != want.is_nullable() => {
                return refuse(format!("column {i} is {}, expected {}", describe(have), describe(want)));
            }
            Some(_) => {}
        }
    }
    match found.fields().get(wanted.fields().len()) {
        Some(extra) => refuse(format!("unknown column {}", describe(extra))),
        None => Ok(()),
    }
}

fn describe(field: &FieldRef) -> String {
    let null = if field.is_nullable() { " or null" } else { "" };
    format!("`{}` {}{null}", field.name(), field.data_type())
}
