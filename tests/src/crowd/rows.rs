//! The rows that a member of a crowd delivers, and how they travel.
//!
//! Histograms come from a small pool, because a thousand workers share one test's CPU; which worker, which delivery
//! and which second are each batch's own.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow_flight::{FlightData, FlightDescriptor, SchemaAsIpc};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use prost::Message;
use vst_common::batch::latency::{LatencyRow, to_batch};
use vst_common::batch::{Stamp, Table};
use vst_common::clock::WallNs;
use vst_common::count;
use vst_common::ids::{NodeId, PhaseIndex};
use vst_common::latency::{Cell, Hdr, Window};
use vst_proto::fleet::Delivery;

/// Rows of a batch: one per operation.
pub const ROWS: u32 = 8;
/// Requests that each row speaks of.
pub const REQUESTS: u64 = 1_000;
/// Distinct batches.
const POOL: u64 = 8;
const OPERATIONS: [&str; 8] = ["get", "mget", "hgetall", "sismember", "zrank", "xread", "type", "ttl"];

/// 0.1 to about 6.5 ms, with a tail.
pub(super) fn histogram(seed: u64) -> Hdr {
    let mut hdr = Hdr::new();
    let mut state = seed | 1;
    for _ in 0..REQUESTS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        hdr.record(100_000 + (state >> 42) + if state >> 57 == 0 { 50_000_000 } else { 0 });
    }
    hdr
}

/// What the batches of a phase are made of.
#[derive(Debug)]
pub(super) struct Pool {
    batches: Vec<RecordBatch>,
}

impl Pool {
    /// Batches of one phase, whoever delivers them.
    pub(super) fn new(stamp: &Stamp, phase: &str, index: PhaseIndex, interval_ns: u64) -> Self {
        let row = |seed: u64, operation: &str| LatencyRow {
            phase: phase.to_owned(),
            phase_index: index,
            window: Window::Measure,
            operation: operation.to_owned(),
            command: operation.to_owned(),
            node: NodeId::new("node"),
            interval_start: 0,
            interval_ns,
            cell: Cell {
                due: REQUESTS,
                sent: REQUESTS,
                ok: REQUESTS,
                ok_in_window: REQUESTS,
                response: Some(histogram(seed * 7 + 1)),
                service: Some(histogram(seed * 13 + 5)),
                ..Cell::default()
            },
        };
        let batches = (0..POOL).map(|n| {
            let rows = OPERATIONS.iter().zip(0..).map(|(operation, i)| row(n * 8 + i, operation));
            to_batch(stamp, &rows.collect::<Vec<_>>()).expect("a batch")
        });
        Self { batches: batches.collect() }
    }

    /// The batch of one delivery.
    pub(super) fn batch(&self, stamp: &Stamp, interval_start: WallNs) -> RecordBatch {
        let shift = stamp.generation.0.wrapping_add(stamp.sequence.0) % POOL;
        let model = &self.batches[count::index(shift)];
        let schema = model.schema();
        let rows = model.num_rows();
        let numbers = |n: u64| -> ArrayRef { Arc::new(Int64Array::from_value(count::to_i64(n), rows)) };
        let columns = schema.fields().iter().zip(model.columns()).map(|(field, column)| -> ArrayRef {
            match field.name().as_str() {
                "worker" => {
                    let name = std::iter::repeat_n(stamp.worker.as_str(), rows);
                    Arc::new(StringArray::from_iter_values(name))
                }
                "generation" => numbers(stamp.generation.0),
                "sequence" => numbers(stamp.sequence.0),
                "interval_start" => {
                    let at = TimestampNanosecondArray::from_value(interval_start, rows);
                    Arc::new(at.with_timezone("UTC"))
                }
                _ => Arc::clone(column),
            }
        });
        RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("the same columns")
    }
}

/// The message that opens the stream of a table.
#[must_use]
pub fn opening(table: Table) -> FlightData {
    let schema: FlightData = SchemaAsIpc::new(&table.schema(), &IpcWriteOptions::default()).into();
    schema.with_descriptor(FlightDescriptor::new_path(vec![table.as_str().to_owned()]))
}

/// The message of a batch.
#[must_use]
pub fn delivery(stamp: &Stamp, table: Table, batch: &RecordBatch) -> FlightData {
    let (_, encoded) = IpcDataGenerator::default()
        .encode(
            batch,
            &mut DictionaryTracker::new(false),
            &IpcWriteOptions::default(),
            &mut IpcWriteContext::default(),
        )
        .expect("it can be encoded");
    let identity = Delivery {
        run: stamp.run.to_string(),
        worker: stamp.worker.to_string(),
        generation: stamp.generation.0,
        sequence: stamp.sequence.0,
        table: table.as_str().to_owned(),
    };
    FlightData::from(encoded).with_app_metadata(identity.encode_to_vec())
}
