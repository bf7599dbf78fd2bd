//! The tables that stand for what the log says, next to those of the batches.
//!
//! `runs` and `phases` label results, `workers`, `streams` and `deliveries` show whether all of them arrived. Column
//! names are those of the batch tables where they mean the same, so that joins read naturally.

use std::iter::once;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use datafusion::datasource::MemTable;
use datafusion::execution::context::SessionContext;
use vst_common::clock::WallNs;
use vst_common::count;
use vst_common::entry::{PhaseOutcome, RunState};
use vst_common::scenario::Load;

use super::Error;
use super::log::{Log, PhaseRecord, StreamRecord};

/// Makes the tables known to a session.
pub(super) fn register(context: &SessionContext, logs: &[Log]) -> Result<(), Error> {
    let mut tables: [(&str, Vec<RecordBatch>); 5] = [
        ("runs", vec![]),
        ("phases", vec![]),
        ("workers", vec![]),
        ("streams", vec![]),
        ("deliveries", vec![]),
    ];
    for log in logs {
        let made = [runs(log), phases(log), workers(log), streams(log), deliveries(log)];
        for ((_, batches), batch) in tables.iter_mut().zip(made) {
            batches.push(batch.map_err(datafusion::error::DataFusionError::from)?);
        }
    }
    for (name, batches) in tables {
        if let Some(schema) = batches.first().map(RecordBatch::schema) {
            context.register_table(name, Arc::new(MemTable::try_new(schema, vec![batches])?))?;
        }
    }
    Ok(())
}

type Made = Result<RecordBatch, arrow_schema::ArrowError>;

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Made {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
}

fn int(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.map(|v| v.map(count::to_i64)).collect::<Int64Array>())
}

fn text(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn wall(values: impl Iterator<Item = Option<WallNs>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampNanosecondArray>().with_timezone("UTC"))
}

fn flag(values: impl Iterator<Item = Option<bool>>) -> ArrayRef {
    Arc::new(values.collect::<BooleanArray>())
}

fn runs(log: &Log) -> Made {
    let state = log.closed.as_ref().map_or("open", |closed| match closed.state {
        RunState::Finished => "finished",
        RunState::Interrupted => "interrupted",
        RunState::Failed { .. } => "failed",
    });
    batch([
        ("run", text(once(Some(log.run.clone())))),
        ("directory", text(once(Some(log.directory.clone())))),
        ("state", text(once(Some(state.to_owned())))),
        ("opened", wall(once(log.opened))),
        ("closed", wall(once(log.closed.as_ref().map(|c| c.at)))),
        ("last_written", wall(once(log.last_written))),
        ("facts", text(once(Some(log.facts.to_string())))),
    ])
}

fn phases(log: &Log) -> Made {
    let all = || log.phases.values();
    let ended = |p: &PhaseRecord| p.ended.clone();
    let order = |p: &PhaseRecord| p.started.order.clone();
    let query = |p: &PhaseRecord| match p.started.order.as_ref().map(|o| &o.work) {
        Some(work) => work.ask().map(|ask| (ask.k, ask.ef_runtime)),
        None => None,
    };
    let total = |pick: fn(&vst_common::entry::Totals) -> u64| {
        int(all().map(|p| p.ended.as_ref().map(|e| pick(&e.totals))).collect::<Vec<_>>().into_iter())
    };
    batch([
        ("run", text(all().map(|_| Some(log.run.clone())))),
        ("phase_index", int(all().map(|p| Some(u64::from(p.started.index.0))))),
        ("phase", text(all().map(|p| Some(p.started.name.clone())))),
        ("step", text(all().map(|p| Some(p.started.step.clone())))),
        ("beside", int(all().map(|p| p.started.beside.map(|main| u64::from(main.0))))),
        ("start", wall(all().map(|p| Some(p.started.start_wall_ns)))),
        ("end", wall(all().map(|p| ended(p).map(|e| e.end_wall_ns)))),
        ("warm_up_ns", int(all().map(|p| Some(p.started.warm_up_ns())))),
        ("duration_ns", int(all().map(|p| Some(p.started.duration_ns())))),
        ("timeout_ns", int(all().map(|p| order(p).map(|o| o.timeout_ns)))),
        ("load", text(all().map(|p| p.started.load().map(|load| loop_word(load).to_owned())))),
        ("k", int(all().map(|p| query(p).map(|(k, _)| u64::from(k))))),
        ("ef_runtime", int(all().map(|p| query(p).and_then(|(_, ef)| ef.map(u64::from))))),
        ("outcome", text(all().map(|p| ended(p).map(|e| outcome_word(&e.outcome).to_owned())))),
        ("reason", text(all().map(|p| ended(p).and_then(|e| outcome_reason(&e.outcome))))),
        ("live_after", int(all().map(|p| ended(p).map(|e| e.live)))),
        ("due", total(|t| t.due)),
        ("sent", total(|t| t.sent)),
        ("ok", total(|t| t.ok)),
        ("errors", total(|t| t.errors)),
        ("timeout", total(|t| t.timeout)),
        ("lost", total(|t| t.lost)),
        ("unsent", total(|t| t.unsent)),
    ])
}

/// `open` or `closed`.
pub(crate) fn loop_word(load: &Load) -> &'static str {
    match load {
        Load::Open { .. } => "open",
        Load::Closed { .. } => "closed",
    }
}

fn outcome_word(outcome: &PhaseOutcome) -> &'static str {
    match outcome {
        PhaseOutcome::Completed => "completed",
        PhaseOutcome::Interrupted => "interrupted",
        PhaseOutcome::Failed { .. } => "failed",
    }
}

fn outcome_reason(outcome: &PhaseOutcome) -> Option<String> {
    match outcome {
        PhaseOutcome::Failed { reason } => Some(reason.clone()),
        PhaseOutcome::Completed | PhaseOutcome::Interrupted => None,
    }
}

fn workers(log: &Log) -> Made {
    let all = || log.workers.iter();
    batch([
        ("run", text(all().map(|_| Some(log.run.clone())))),
        ("worker", text(all().map(|w| Some(w.worker.to_string())))),
        ("generation", int(all().map(|w| Some(w.generation.0)))),
        ("host", text(all().map(|w| Some(w.host.clone())))),
        ("lanes", int(all().map(|w| Some(u64::from(w.lanes))))),
        ("joined", wall(all().map(|w| Some(w.joined)))),
        ("left_at", wall(all().map(|w| w.left))),
        ("is_lost", flag(all().map(|w| Some(w.lost.is_some())))),
        ("reason", text(all().map(|w| w.lost.clone()))),
    ])
}

fn streams(log: &Log) -> Made {
    let all = || log.streams.iter();
    let total = |pick: fn(&StreamRecord) -> u64| int(log.streams.iter().map(|s| Some(pick(s))));
    batch([
        ("run", text(all().map(|_| Some(log.run.clone())))),
        ("worker", text(all().map(|s| Some(s.worker.to_string())))),
        ("generation", total(|s| s.generation.0)),
        ("phase_index", total(|s| u64::from(s.phase.0))),
        ("last_sequence", total(|s| s.last_sequence.0)),
        ("due", total(|s| s.totals.due)),
        ("sent", total(|s| s.totals.sent)),
        ("ok", total(|s| s.totals.ok)),
        ("errors", total(|s| s.totals.errors)),
        ("timeout", total(|s| s.totals.timeout)),
        ("lost", total(|s| s.totals.lost)),
        ("unsent", total(|s| s.totals.unsent)),
    ])
}

fn deliveries(log: &Log) -> Made {
    let all = || log.deliveries.iter();
    batch([
        ("run", text(all().map(|_| Some(log.run.clone())))),
        ("worker", text(all().map(|d| Some(d.worker.to_string())))),
        ("generation", int(all().map(|d| Some(d.generation.0)))),
        ("sequence", int(all().map(|d| Some(d.sequence.0)))),
        ("table_name", text(all().map(|d| Some(d.table.to_string())))),
        ("entry", int(all().map(|d| Some(d.entry)))),
        ("bytes", int(all().map(|d| Some(d.bytes)))),
    ])
}
