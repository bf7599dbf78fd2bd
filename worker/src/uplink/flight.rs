//! Batches as Arrow Flight messages: the schema once per stream, then one message per batch.
//!
//! Each batch message carries who it is from in `app_metadata`, so that the coordinator can log and acknowledge it
//! without reading its rows.

use arrow_flight::{FlightData, FlightDescriptor, SchemaAsIpc};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::ArrowError;
use prost::Message;
use vst_common::batch::Table;
use vst_proto::fleet::Delivery;

use super::core::Batch;

/// The message that opens a table's stream.
pub(super) fn schema_message(table: Table) -> FlightData {
    let schema: FlightData = SchemaAsIpc::new(&table.schema(), &IpcWriteOptions::default()).into();
    schema.with_descriptor(FlightDescriptor::new_path(vec![table.as_str().to_owned()]))
}

/// The message of a batch.
///
/// # Errors
/// When Arrow cannot encode it.
pub(super) fn batch_message(batch: &Batch) -> Result<FlightData, ArrowError> {
    // No table has a dictionary, so each batch is one message and needs no state of those before.
    let (_, encoded) = IpcDataGenerator::default().encode(
        &batch.content,
        &mut DictionaryTracker::new(false),
        &IpcWriteOptions::default(),
        &mut IpcWriteContext::default(),
    )?;
    let delivery = Delivery {
        run: batch.stamp.run.to_string(),
        worker: batch.stamp.worker.to_string(),
        generation: batch.stamp.generation.0,
        sequence: batch.stamp.sequence.0,
        table: batch.table.as_str().to_owned(),
    };
    let message: FlightData = encoded.into();
    Ok(message.with_app_metadata(delivery.encode_to_vec()))
}
