//! Whether a delivered message is a batch of this run, before anything is done with it.
//!
//! Called by the Flight service with what one message carried; gives what the log stores. Pure. Law: what is admitted
//! is of this run, of a known table, with exactly that table's columns, every row of it says whose delivery it is, its
//! histograms can be read, and it is no larger than an entry can take.

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use bytes::Bytes;
use prost::Message;
use vst_common::batch::table::{check_schema, write_ipc};
use vst_common::batch::{Stamp, Table};
use vst_common::count;
use vst_common::entry::StoredBatch;
use vst_common::ids::{Generation, RunId, Sequence, WorkerId};
use vst_proto::fleet::Delivery;

use super::core::Refusal;
use crate::histogram;

/// Largest batch that is taken, as Arrow IPC, bytes.
pub const BATCH_BYTES: usize = vst_common::batch::DELIVERY_BYTES;

/// The batch as the log stores it, from a message's `app_metadata` and its record batch.
///
/// # Errors
/// [`Refusal`] naming what is wrong with it.
pub fn admit(run: &RunId, app_metadata: &[u8], batch: &RecordBatch) -> Result<StoredBatch, Refusal> {
    let delivery = Delivery::decode(app_metadata)
        .map_err(|e| Refusal::Delivery(format!("app_metadata is not a Delivery: {e}")))?;
    if delivery.worker.is_empty() {
        return Err(Refusal::Delivery(String::from("app_metadata names no worker")));
    }
    if delivery.run != run.as_str() {
        return Err(Refusal::OtherRun { wanted: run.to_string(), found: delivery.run });
    }
    let worker = WorkerId::new(delivery.worker);
    let refuse = |reason| Refusal::Batch {
        worker: worker.clone(),
        generation: delivery.generation,
        sequence: delivery.sequence,
        reason,
    };
    let table: Table = delivery.table.parse().map_err(|e: vst_common::batch::Error| refuse(e.to_string()))?;
    if table == Table::LatencyRollup {
        return Err(refuse(String::from("latency_rollup is made here, deliver latency")));
    }
    check_schema(table, batch).map_err(|e| refuse(e.to_string()))?;
    let stamp = Stamp {
        run: run.clone(),
        worker: worker.clone(),
        generation: Generation(delivery.generation),
        sequence: Sequence(delivery.sequence),
    };
    check_stamp(&stamp, batch).map_err(refuse)?;
    check_histograms(batch).map_err(refuse)?;
    let ipc = write_ipc(batch).map_err(|e| refuse(e.to_string()))?;
    if ipc.len() > BATCH_BYTES {
        return Err(refuse(format!(
            "it has {} bytes, at most {BATCH_BYTES} are taken; send fewer rows",
            ipc.len()
        )));
    }
    Ok(StoredBatch {
        worker,
        generation: Generation(delivery.generation),
        sequence: Sequence(delivery.sequence),
        table,
        ipc: Bytes::from(ipc),
    })
}

/// Whether every row says that it is of this delivery. The columns of the stamp lead every table.
fn check_stamp(stamp: &Stamp, batch: &RecordBatch) -> Result<(), String> {
    let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let int = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
    let (Some(run), Some(worker)) = (text("run"), text("worker")) else {
        return Err(String::from("it does not say of which worker its rows are"));
    };
    let (Some(generation), Some(sequence)) = (int("generation"), int("sequence")) else {
        return Err(String::from("it does not say of which delivery its rows are"));
    };
    let numbers = (count::to_i64(stamp.generation.0), count::to_i64(stamp.sequence.0));
    let own = |row: usize| {
        (run.value(row), worker.value(row)) == (stamp.run.as_str(), stamp.worker.as_str())
            && (generation.value(row), sequence.value(row)) == numbers
    };
    match (0..batch.num_rows()).find(|row| !own(*row)) {
        Some(row) => Err(format!("row {row} says that it is of another delivery")),
        None => Ok(()),
    }
}

/// Whether the histograms can be read by those who merge them: all that is binary in a table is one.
fn check_histograms(batch: &RecordBatch) -> Result<(), String> {
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let Some(column) = column.as_binary_opt::<i32>() else { continue };
        for (row, bytes) in column.iter().enumerate() {
            if let Some(Err(e)) = bytes.map(histogram::check) {
                return Err(format!("column {}, row {row}: {e}", field.name()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vst_common::batch::events::{EventRow, to_batch};
    use vst_common::ids::PhaseIndex;

    use super::*;

    fn metadata(run: &str, worker: &str, table: &str) -> Vec<u8> {
        let delivery = Delivery {
            run: run.into(),
            worker: worker.into(),
            generation: 3,
            sequence: 9,
            table: table.into(),
        };
        delivery.encode_to_vec()
    }

    #[test]
    fn a_batch_of_the_run_is_admitted_as_it_is() {
        let batch = RecordBatch::new_empty(Table::Events.schema());
        let stored = admit(&RunId::new("r"), &metadata("r", "w", "events"), &batch).unwrap();
        assert_eq!(
            (stored.worker.as_str(), stored.generation, stored.sequence),
            ("w", Generation(3), Sequence(9))
        );
        let read = vst_common::batch::table::read_ipc(&stored.ipc).unwrap();
        assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
        assert_eq!(stored.table, Table::Events);
    }

    #[test]
    fn rows_that_say_to_be_of_another_delivery_are_refused() {
        let stamp = |worker: &str, sequence| Stamp {
            run: RunId::new("r"),
            worker: WorkerId::new(worker),
            generation: Generation(3),
            sequence: Sequence(sequence),
        };
        let row = EventRow {
            at: 0,
            phase: String::from("p"),
            phase_index: PhaseIndex(1),
            kind: String::from("k"),
            node: None,
            detail: String::new(),
            count: 1,
        };
        let admitted = |stamp: &Stamp| {
            let batch = to_batch(stamp, &[row.clone(), row.clone()]).unwrap();
            admit(&RunId::new("r"), &metadata("r", "w", "events"), &batch).is_ok()
        };
        assert!(admitted(&stamp("w", 9)));
        assert!(!admitted(&stamp("v", 9)));
        assert!(!admitted(&stamp("w", 8)));
        assert!(!admitted(&Stamp { run: RunId::new("q"), ..stamp("w", 9) }));
        assert!(!admitted(&Stamp { generation: Generation(4), ..stamp("w", 9) }));
    }

    #[test]
    fn what_is_foreign_is_refused() {
        let run = RunId::new("r");
        let batch = RecordBatch::new_empty(Table::Events.schema());
        let other = admit(&run, &metadata("q", "w", "events"), &batch);
        assert!(matches!(other, Err(Refusal::OtherRun { .. })));
        assert!(matches!(admit(&run, &metadata("r", "w", "nothing"), &batch), Err(Refusal::Batch { .. })));
        assert!(matches!(admit(&run, &metadata("r", "w", "memory"), &batch), Err(Refusal::Batch { .. })));
        let rollup = RecordBatch::new_empty(Table::LatencyRollup.schema());
        assert!(matches!(
            admit(&run, &metadata("r", "w", "latency_rollup"), &rollup),
            Err(Refusal::Batch { .. })
        ));
        assert!(matches!(admit(&run, &metadata("r", "", "events"), &batch), Err(Refusal::Delivery(_))));
        assert!(matches!(admit(&run, &[0xff], &batch), Err(Refusal::Delivery(_))));
    }

    #[test]
    fn a_batch_that_no_entry_could_take_is_refused() {
        let stamp = Stamp {
            run: RunId::new("r"),
            worker: WorkerId::new("w"),
            generation: Generation(3),
            sequence: Sequence(9),
        };
        let row = |detail_bytes| EventRow {
            at: 0,
            phase: String::from("p"),
            phase_index: PhaseIndex(1),
            kind: String::from("k"),
            node: None,
            detail: "x".repeat(detail_bytes),
            count: 1,
        };
        let batch = |detail_bytes| to_batch(&stamp, &[row(detail_bytes)]).unwrap();
        assert!(admit(&stamp.run, &metadata("r", "w", "events"), &batch(BATCH_BYTES / 2)).is_ok());
        let refused = admit(&stamp.run, &metadata("r", "w", "events"), &batch(BATCH_BYTES));
        assert!(matches!(refused, Err(Refusal::Batch { .. })));
    }
}
