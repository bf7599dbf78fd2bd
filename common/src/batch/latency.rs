//! Table `latency`: what one worker measured of one operation on one node in one interval.
//!
//! Written by `worker::recorder`; the archive merges it over workers into `latency_rollup`; analysis reads both. The
//! quantile columns are there for plots: they cannot be merged, the histograms can. Response quantiles are lower
//! bounds where requests were cut off (`censored_hdr`).

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::columns::{Columns, Reader, nobody};
use super::table::{Error, Stamp, Table};
use crate::clock::WallNs;
use crate::ids::{Generation, NodeId, PhaseIndex, RunId, Sequence, WorkerId};
use crate::latency::{Cell, Hdr, Window};
use crate::outcome::ErrorKind;

/// The name under which rows that were merged over workers carry their worker.
pub const ALL_WORKERS: &str = "*";

/// One row of `latency`.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyRow {
    /// Name of the phase.
    pub phase: String,
    /// Its position in the run.
    pub phase_index: PhaseIndex,
    /// Warm-up or measured part.
    pub window: Window,
    /// What was asked: `hset`, `del`, `knn`, `knn_part`, or the name of a command of the scenario.
    pub operation: String,
    /// The server's command, as `INFO commandstats` spells it: `hset`, `del`, `FT.SEARCH`.
    pub command: String,
    /// Node, or `*` for a request that goes to several.
    pub node: NodeId,
    /// Start of the interval in which the requests ended.
    pub interval_start: WallNs,
    /// Length of the interval, nanoseconds.
    pub interval_ns: u64,
    /// Counters and histograms.
    pub cell: Cell,
}

/// One row of `latency_rollup`: the rows of the same key of several workers, merged.
#[derive(Clone, Debug, PartialEq)]
pub struct RollupRow {
    /// How many workers contributed.
    pub workers: u64,
    /// The merged row.
    pub row: LatencyRow,
}

impl AsRef<LatencyRow> for LatencyRow {
    fn as_ref(&self) -> &LatencyRow {
        self
    }
}

impl AsRef<LatencyRow> for RollupRow {
    fn as_ref(&self) -> &LatencyRow {
        &self.row
    }
}

/// The columns of `latency`.
pub(super) fn schema() -> SchemaRef {
    columns::<LatencyRow>(&nobody(), &[]).schema()
}

/// The columns of `latency_rollup`: those of `latency`, then `workers`.
pub(super) fn rollup_schema() -> SchemaRef {
    rollup_columns(&nobody(), &[]).schema()
}

/// A batch of table `latency`.
///
/// # Errors
/// [`Error`] when a histogram or the batch cannot be written.
pub fn to_batch(stamp: &Stamp, rows: &[LatencyRow]) -> Result<RecordBatch, Error> {
    columns(stamp, rows).finish()
}

/// A batch of table `latency_rollup`: worker `*`, generation and sequence 0.
///
/// # Errors
/// [`Error`] when a histogram or the batch cannot be written.
pub fn to_rollup_batch(run: &RunId, rows: &[RollupRow]) -> Result<RecordBatch, Error> {
    let stamp = Stamp {
        run: run.clone(),
        worker: WorkerId::new(ALL_WORKERS),
        generation: Generation(0),
        sequence: Sequence(0),
    };
    rollup_columns(&stamp, rows).finish()
}

fn rollup_columns<'a>(stamp: &'a Stamp, rows: &'a [RollupRow]) -> Columns<'a, RollupRow> {
    columns(stamp, rows).int("workers", |r| r.workers)
}

fn columns<'a, R: AsRef<LatencyRow>>(stamp: &'a Stamp, rows: &'a [R]) -> Columns<'a, R> {
    fn cell<R: AsRef<LatencyRow>>(row: &R) -> &Cell {
        &row.as_ref().cell
    }
    let mut columns = Columns::new(stamp, rows)
        .text("phase", |r: &R| &r.as_ref().phase)
        .int("phase_index", |r| r.as_ref().phase_index.0.into())
        .text("window", |r| r.as_ref().window.as_str())
        .text("operation", |r| &r.as_ref().operation)
        .text("command", |r| &r.as_ref().command)
        .text("node", |r| r.as_ref().node.as_str())
        .instant("interval_start", |r| r.as_ref().interval_start)
        .int("interval_ns", |r| r.as_ref().interval_ns)
        .int("due", |r| cell(r).due)
        .int("sent", |r| cell(r).sent)
        .int("ok", |r| cell(r).ok)
        .int("ok_in_window", |r| cell(r).ok_in_window);
    for kind in ErrorKind::ALL {
        columns = columns.int(kind.column(), |r| cell(r).errors.get(kind.index()).copied().unwrap_or(0));
    }
    columns = columns
        .int("timeout", |r| cell(r).timeout)
        .int("lost", |r| cell(r).lost)
        .int("unsent", |r| cell(r).unsent)
        .int("partial", |r| cell(r).partial)
        .int("miss", |r| cell(r).miss)
        .int("attempts", |r| {
            let c = cell(r);
            c.attempts_executed.saturating_add(c.attempts_rejected).saturating_add(c.attempts_unknown)
        })
        .int("attempts_executed", |r| cell(r).attempts_executed)
        .int("attempts_rejected", |r| cell(r).attempts_rejected)
        .int("attempts_unknown", |r| cell(r).attempts_unknown)
        .int("late", |r| cell(r).late)
        .int("repair", |r| cell(r).repair)
        .int("bytes_in", |r| cell(r).bytes_in)
        .int("bytes_out", |r| cell(r).bytes_out)
        .int("out_of_range", |r| cell(r).out_of_range)
        .histogram("response_hdr", |r| cell(r).response.as_ref())
        .histogram("service_hdr", |r| cell(r).service.as_ref())
        .histogram("censored_hdr", |r| cell(r).censored.as_ref());
    columns = quantiles(columns, "response", |r| cell(r).response.as_ref());
    quantiles(columns, "service", |r| cell(r).service.as_ref())
}

/// `{of}_p50_ns` to `{of}_max_ns`.
fn quantiles<'a, R>(
    columns: Columns<'a, R>,
    of: &str,
    histogram: impl Fn(&R) -> Option<&Hdr>,
) -> Columns<'a, R> {
    let at = |r: &R, q| histogram(r).and_then(|h| h.quantile(q));
    columns
        .int_or_null(&format!("{of}_p50_ns"), |r| at(r, 0.5))
        .int_or_null(&format!("{of}_p95_ns"), |r| at(r, 0.95))
        .int_or_null(&format!("{of}_p99_ns"), |r| at(r, 0.99))
        .int_or_null(&format!("{of}_p999_ns"), |r| at(r, 0.999))
        .int_or_null(&format!("{of}_p9999_ns"), |r| at(r, 0.9999))
        .int_or_null(&format!("{of}_max_ns"), |r| histogram(r).and_then(Hdr::max))
}

/// The rows of a batch of table `latency`.
///
/// # Errors
/// [`Error`] when the batch is of another schema or holds a value that no row can have.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<(Stamp, LatencyRow)>, Error> {
    let reader = Reader::new(Table::Latency, batch)?;
    Ok(reader.stamps()?.into_iter().zip(read(&reader)?).collect())
}

/// The rows of a batch of table `latency_rollup`, with their run.
///
/// # Errors
/// [`Error`] when the batch is of another schema or holds a value that no row can have.
pub fn from_rollup_batch(batch: &RecordBatch) -> Result<Vec<(RunId, RollupRow)>, Error> {
    let reader = Reader::new(Table::LatencyRollup, batch)?;
    let workers = reader.int("workers")?;
    let rows = reader.stamps()?.into_iter().zip(read(&reader)?).enumerate();
    Ok(rows.map(|(i, (stamp, row))| (stamp.run, RollupRow { workers: workers.at(i), row })).collect())
}

fn read(reader: &Reader<'_>) -> Result<Vec<LatencyRow>, Error> {
    let phase = reader.text("phase")?;
    let phase_index = reader.int("phase_index")?;
    let window = reader.text("window")?;
    let operation = reader.text("operation")?;
    let command = reader.text("command")?;
    let node = reader.text("node")?;
    let interval_start = reader.instant("interval_start")?;
    let interval_ns = reader.int("interval_ns")?;
    let due = reader.int("due")?;
    let sent = reader.int("sent")?;
    let ok = reader.int("ok")?;
    let ok_in_window = reader.int("ok_in_window")?;
    let errors = ErrorKind::ALL.into_iter().map(|k| reader.int(k.column())).collect::<Result<Vec<_>, _>>()?;
    let timeout = reader.int("timeout")?;
    let lost = reader.int("lost")?;
    let unsent = reader.int("unsent")?;
    let partial = reader.int("partial")?;
    let miss = reader.int("miss")?;
    let executed = reader.int("attempts_executed")?;
    let rejected = reader.int("attempts_rejected")?;
    let unknown = reader.int("attempts_unknown")?;
    let late = reader.int("late")?;
    let repair = reader.int("repair")?;
    let bytes_in = reader.int("bytes_in")?;
    let bytes_out = reader.int("bytes_out")?;
    let out_of_range = reader.int("out_of_range")?;
    let response = reader.histogram("response_hdr")?;
    let service = reader.histogram("service_hdr")?;
    let censored = reader.histogram("censored_hdr")?;
    (0..reader.rows())
        .map(|i| {
            let mut cell = Cell {
                due: due.at(i),
                sent: sent.at(i),
                ok: ok.at(i),
                ok_in_window: ok_in_window.at(i),
                timeout: timeout.at(i),
                lost: lost.at(i),
                unsent: unsent.at(i),
                partial: partial.at(i),
                miss: miss.at(i),
                attempts_executed: executed.at(i),
                attempts_rejected: rejected.at(i),
                attempts_unknown: unknown.at(i),
                late: late.at(i),
                repair: repair.at(i),
                bytes_in: bytes_in.at(i),
                bytes_out: bytes_out.at(i),
                out_of_range: out_of_range.at(i),
                response: response.get(i)?,
                censored: censored.get(i)?,
                service: service.get(i)?,
                ..Cell::default()
            };
            for (own, column) in cell.errors.iter_mut().zip(&errors) {
                *own = column.at(i);
            }
            Ok(LatencyRow {
                phase: phase.at(i).to_owned(),
                phase_index: phase_index.phase(i)?,
                window: window.window(i)?,
                operation: operation.at(i).to_owned(),
                command: command.at(i).to_owned(),
                node: node.node(i),
                interval_start: interval_start.at(i),
                interval_ns: interval_ns.at(i),
                cell,
            })
        })
        .collect()
}
