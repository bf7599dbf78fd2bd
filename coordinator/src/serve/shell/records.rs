//! The coordinator's own rows: what happened, in words, and the batches that carry it and the server's counters.
//!
//! Written into the log like those of workers. Law: a batch has the next sequence of this leader's stream.

use std::collections::BTreeSet;

use arrow_array::RecordBatch;
use bytes::Bytes;
use vst_common::batch::commandstats::CommandstatsRow;
use vst_common::batch::events::{self, EventRow};
use vst_common::batch::{Stamp, Table, table};
use vst_common::clock;
use vst_common::entry::StoredBatch;
use vst_common::ids::{Generation, PhaseIndex, Sequence, WorkerId};

use super::super::counting::{self, Counters};
use super::Shell;
use crate::plan::PlannedStep;
use crate::roster::COORDINATOR;
use crate::run::Note;
use crate::run_log::{Record, Stopped};

impl Shell {
    /// Notes something of the phase that runs.
    pub(super) fn note_of_phase(&mut self, kind: &'static str, detail: String) {
        let phase = PhaseIndex(self.core.view(clock::mono_ns()).phase);
        self.note(Note { kind, worker: None, phase, detail });
    }

    pub(super) fn note(&mut self, note: Note) {
        tracing::info!("{}: {}", note.kind, note.detail);
        let phases = &self.prepared.plan.phases;
        let phase = phases.iter().find(|planned| planned.index == note.phase);
        self.notes.push(EventRow {
            at: clock::wall_ns(),
            phase: phase.map(|planned| planned.name.clone()).unwrap_or_default(),
            phase_index: note.phase,
            kind: note.kind.to_owned(),
            node: None,
            detail: note.detail,
            count: 1,
        });
    }

    pub(super) async fn write_notes(&mut self) -> Result<(), Stopped> {
        if self.notes.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.notes);
        let stamp = self.stamp();
        let batch = events::to_batch(&stamp, &rows);
        self.write_batch(Table::Events, &stamp, batch).await
    }

    pub(super) fn stamp(&mut self) -> Stamp {
        self.sequence = self.sequence.saturating_add(1);
        Stamp {
            run: self.run.clone(),
            worker: WorkerId::new(COORDINATOR),
            generation: Generation(self.log.epoch()),
            sequence: Sequence(self.sequence),
        }
    }

    /// Keeps what workers are ordered to do to the target in a phase.
    pub(super) fn order_of(&self, index: PhaseIndex) {
        let plan = &self.prepared.plan;
        let planned = plan.phases.iter().find(|planned| planned.index == index);
        if let Some(PlannedStep::Load(load)) = planned.map(|planned| &planned.step) {
            self.prepared.target.audit().ordered(&load.commands, &plan.scenario.population.prefix);
        }
    }

    /// The server's counters around a phase, for everything that was sent in it.
    pub(super) fn counted(&self, phase: PhaseIndex, after: &Counters) -> Vec<CommandstatsRow> {
        let planned = self.prepared.plan.phases.iter().find(|planned| planned.index == phase);
        let Some(planned) = planned else { return Vec::new() };
        let plan = &self.prepared.plan;
        let all = std::iter::once(planned).chain(plan.beside(phase)).filter_map(|p| match &p.step {
            PlannedStep::Load(load) => Some(load.commands.iter().cloned()),
            _ => None,
        });
        // The server knows no case; the phase's own spelling comes first.
        let mut known = BTreeSet::new();
        let commands: Vec<String> =
            all.flatten().filter(|command: &String| known.insert(command.to_ascii_lowercase())).collect();
        counting::rows(phase, &planned.name, &commands, &self.before, after)
    }

    pub(super) async fn write_batch(
        &mut self,
        kind: Table,
        stamp: &Stamp,
        batch: Result<RecordBatch, vst_common::batch::Error>,
    ) -> Result<(), Stopped> {
        let ipc =
            batch.and_then(|batch| table::write_ipc(&batch)).map_err(|e| Stopped::Record(e.to_string()))?;
        let stored = StoredBatch {
            worker: stamp.worker.clone(),
            generation: stamp.generation,
            sequence: stamp.sequence,
            table: kind,
            ipc: Bytes::from(ipc),
        };
        self.last_batch = Some(self.log.enqueue(Record::Batch(stored)).await?);
        Ok(())
    }
}
