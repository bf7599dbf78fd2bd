//! Table `commandstats`: the server's own counters around each phase, for the accounting against it.
//!
//! Per node and command, over a window in which nothing else moved the counters:
//! `executed <= delta calls <= executed + unknown` and `rejected <= delta rejected_calls <= rejected + unknown`, with
//! equality when no attempt is unknown. A window in which something else may have moved them says why it is not
//! checkable. Written by the coordinator, read by `analysis::validity` beside the attempts of table `latency`.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::columns::{Columns, Reader, nobody};
use super::table::{Error, Stamp, Table};
use crate::ids::{NodeId, PhaseIndex};

/// One row of `commandstats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandstatsRow {
    /// Name of the phase.
    pub phase: String,
    /// Its position in the run.
    pub phase_index: PhaseIndex,
    /// The server.
    pub node: NodeId,
    /// The command, as `INFO commandstats` spells it.
    pub command: String,
    /// `calls` before the phase; absent if the node did not answer (0 if it answered without the command).
    pub calls_before: Option<u64>,
    /// `calls` after the phase.
    pub calls_after: Option<u64>,
    /// `rejected_calls` before the phase.
    pub rejected_before: Option<u64>,
    /// `rejected_calls` after the phase.
    pub rejected_after: Option<u64>,
    /// Why the window cannot be checked; absent if it can. Column `checkable` is 1 exactly where this is null.
    pub why_not: Option<String>,
}

/// The columns of `commandstats`.
pub(super) fn schema() -> SchemaRef {
    columns(&nobody(), &[]).schema()
}

fn columns<'a>(stamp: &'a Stamp, rows: &'a [CommandstatsRow]) -> Columns<'a, CommandstatsRow> {
    Columns::new(stamp, rows)
        .text("phase", |r: &CommandstatsRow| &r.phase)
        .int("phase_index", |r| r.phase_index.0.into())
        .text("node", |r| r.node.as_str())
        .text("command", |r| &r.command)
        .int_or_null("calls_before", |r| r.calls_before)
        .int_or_null("calls_after", |r| r.calls_after)
        .int_or_null("rejected_before", |r| r.rejected_before)
        .int_or_null("rejected_after", |r| r.rejected_after)
        .int("checkable", |r| r.why_not.is_none().into())
        .text_or_null("why_not", |r| r.why_not.as_deref())
}

/// A batch of table `commandstats`.
///
/// # Errors
/// [`Error`] when the batch cannot be written.
pub fn to_batch(stamp: &Stamp, rows: &[CommandstatsRow]) -> Result<RecordBatch, Error> {
    columns(stamp, rows).finish()
}

/// The rows of a batch of table `commandstats`.
///
/// # Errors
/// [`Error`] when the batch is of another schema or holds a value that no row can have.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<(Stamp, CommandstatsRow)>, Error> {
    let reader = Reader::new(Table::Commandstats, batch)?;
    let phase = reader.text("phase")?;
    let phase_index = reader.int("phase_index")?;
    let node = reader.text("node")?;
    let command = reader.text("command")?;
    let calls_before = reader.int("calls_before")?;
    let calls_after = reader.int("calls_after")?;
    let rejected_before = reader.int("rejected_before")?;
    let rejected_after = reader.int("rejected_after")?;
    let why_not = reader.text("why_not")?;
    let stamps = reader.stamps()?.into_iter().enumerate();
    stamps
        .map(|(i, stamp)| {
            let row = CommandstatsRow {
                phase: phase.at(i).to_owned(),
                phase_index: phase_index.phase(i)?,
                node: node.node(i),
                command: command.at(i).to_owned(),
                calls_before: calls_before.get(i),
                calls_after: calls_after.get(i),
                rejected_before: rejected_before.get(i),
                rejected_after: rejected_after.get(i),
                why_not: why_not.get(i).map(str::to_owned),
            };
            Ok((stamp, row))
        })
        .collect()
}
