//! What a run log says: the course of the run, and the batches that no part holds yet.
//!
//! Read once from front to back. Controls are folded into phases, workers and streams; analysis asks for those by
//! name and never goes back to entries.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use futures::TryStreamExt;
use serde_json::Value;
use vst_common::batch::Table;
use vst_common::batch::table::{check_schema, read_ipc};
use vst_common::clock::WallNs;
use vst_common::entry::{Control, Entry, PhaseEnded, PhaseStarted, RunState, Totals};
use vst_common::ids::{Generation, PhaseIndex, Sequence, WorkerId};
use vst_common::run_dir::{Cover, RunDir};

use super::Error;

/// A phase as far as it got.
#[derive(Clone, Debug)]
pub(crate) struct PhaseRecord {
    /// How it began.
    pub(crate) started: PhaseStarted,
    /// How it ended; absent while it runs, or when the coordinator was killed in it.
    pub(crate) ended: Option<PhaseEnded>,
}

/// A registration of a worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerRecord {
    pub(crate) worker: WorkerId,
    pub(crate) generation: Generation,
    pub(crate) host: String,
    pub(crate) lanes: u32,
    pub(crate) joined: WallNs,
    pub(crate) left: Option<WallNs>,
    /// Whether it went before its work was over, and why.
    pub(crate) lost: Option<String>,
}

/// A worker's statement at the end of a phase.
#[derive(Clone, Debug)]
pub(crate) struct StreamRecord {
    pub(crate) worker: WorkerId,
    pub(crate) generation: Generation,
    pub(crate) phase: PhaseIndex,
    pub(crate) last_sequence: Sequence,
    pub(crate) totals: Totals,
}

/// A batch that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryRecord {
    pub(crate) worker: WorkerId,
    pub(crate) generation: Generation,
    pub(crate) sequence: Sequence,
    pub(crate) table: Table,
    pub(crate) entry: u64,
    pub(crate) bytes: u64,
}

/// The end of a run.
#[derive(Clone, Debug)]
pub(crate) struct ClosedRecord {
    pub(crate) at: WallNs,
    pub(crate) state: RunState,
    /// What the coordinator meant to exit with.
    pub(crate) exit_code: u8,
}

/// A run as its log tells it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) directory: String,
    pub(crate) run: String,
    /// Contents of `run.json`, or the facts that the log opened with.
    pub(crate) facts: Value,
    pub(crate) opened: Option<WallNs>,
    pub(crate) closed: Option<ClosedRecord>,
    /// When the last entry was written.
    pub(crate) last_written: Option<WallNs>,
    pub(crate) phases: BTreeMap<PhaseIndex, PhaseRecord>,
    pub(crate) workers: Vec<WorkerRecord>,
    pub(crate) streams: Vec<StreamRecord>,
    pub(crate) deliveries: Vec<DeliveryRecord>,
    batches: BTreeMap<Table, Vec<RecordBatch>>,
    /// Batches of `latency` in entries that no part of `latency_rollup` covers.
    pub(crate) unmerged: Vec<RecordBatch>,
}

impl Log {
    pub(super) async fn read(
        dir: &RunDir,
        directory: &str,
        facts: Option<Value>,
        entries: Vec<u64>,
        covers: &BTreeMap<Table, Cover>,
    ) -> Result<Self, Error> {
        let mut log = Self { directory: directory.to_owned(), ..Self::default() };
        let mut read = std::pin::pin!(dir.read_entries(entries));
        let wrong = |source| Error::RunDir { directory: directory.to_owned(), source };
        while let Some(entry) = read.try_next().await.map_err(wrong)? {
            log.take(entry, covers)?;
        }
        if let Some(facts) = facts {
            log.facts = facts;
        }
        if log.run.is_empty() {
            // Nobody has led yet: the directory is named after the run.
            let name = directory.trim_end_matches('/').rsplit('/').next();
            log.run = log.facts.get("run").and_then(Value::as_str).or(name).unwrap_or(directory).to_owned();
        }
        Ok(log)
    }

    /// Batches of a table that no part holds.
    pub(super) fn batches(&self, table: Table) -> &[RecordBatch] {
        self.batches.get(&table).map_or(&[], Vec::as_slice)
    }

    fn take(&mut self, entry: Entry, covers: &BTreeMap<Table, Cover>) -> Result<(), Error> {
        self.last_written = Some(entry.written_at);
        for control in entry.controls {
            self.fold(control);
        }
        let uncovered =
            |table| covers.get(&table).is_some_and(|c| c.uncovered.binary_search(&entry.number).is_ok());
        for stored in entry.batches {
            let (table, number) = (stored.table, entry.number);
            self.deliveries.push(DeliveryRecord {
                worker: stored.worker,
                generation: stored.generation,
                sequence: stored.sequence,
                table,
                entry: number,
                bytes: vst_common::count::len(stored.ipc.len()),
            });
            let merge = table == Table::Latency && uncovered(Table::LatencyRollup);
            if !uncovered(table) && !merge {
                continue;
            }
            let directory = &self.directory;
            let failed = |source| Error::Batch { directory: directory.clone(), entry: number, table, source };
            for batch in read_ipc(&stored.ipc).map_err(failed)? {
                check_schema(table, &batch).map_err(failed)?;
                if merge {
                    self.unmerged.push(batch.clone());
                }
                if uncovered(table) {
                    self.batches.entry(table).or_default().push(batch);
                }
            }
        }
        Ok(())
    }

    fn fold(&mut self, control: Control) {
        match control {
            Control::Led { run, .. } => run.as_str().clone_into(&mut self.run),
            Control::RunOpened { at_wall_ns, facts } => {
                self.opened = Some(at_wall_ns);
                self.facts = facts;
            }
            Control::WorkerJoined { worker, generation, host, lanes, at_wall_ns, .. } => {
                self.workers.push(WorkerRecord {
                    worker,
                    generation,
                    host,
                    lanes,
                    joined: at_wall_ns,
                    left: None,
                    lost: None,
                });
            }
            Control::WorkerLeft { worker, generation, lost, reason, at_wall_ns } => {
                let same = |w: &&mut WorkerRecord| w.worker == worker && w.generation == generation;
                if let Some(record) = self.workers.iter_mut().find(same) {
                    record.left = Some(at_wall_ns);
                    record.lost = lost.then_some(reason);
                }
            }
            Control::PhaseStarted(started) => {
                self.phases.insert(started.index, PhaseRecord { started, ended: None });
            }
            Control::PhaseEnded(ended) => {
                if let Some(phase) = self.phases.get_mut(&ended.index) {
                    phase.ended = Some(ended);
                }
            }
            Control::StreamEnded { worker, generation, phase, last_sequence, totals } => {
                // Said again by a coordinator that took the lead before the phase's end was logged.
                self.streams.retain(|s| (&s.worker, s.generation, s.phase) != (&worker, generation, phase));
                self.streams.push(StreamRecord { worker, generation, phase, last_sequence, totals });
            }
            Control::RunClosed { state, exit_code, at_wall_ns } => {
                self.closed = Some(ClosedRecord { at: at_wall_ns, state, exit_code });
            }
            Control::SharesOwned { .. }
            | Control::SharesMoved { .. }
            | Control::RangeDone { .. }
            | Control::CommandsCounted { .. }
            | Control::PopulationChanged { .. } => {}
        }
    }
}
