//! From one Flight message to a batch, without trusting a byte of it.
//!
//! Called by the Flight service for each message of a stream; what it gives goes to `admission`. Arrow's own reader is
//! made for files that somebody wrote on purpose: it ends the thread on a schema that it does not know or a buffer
//! that lies outside the message, and takes as much memory as a compressed buffer asks for. So a stream opens with the
//! very bytes of one of our schemas, and a batch is looked through before it is read. Law: whatever the bytes,
//! [`Reader::take`] gives a batch of one of our tables or says what is wrong, and takes no more memory than the message.

use std::collections::HashMap;
use std::sync::LazyLock;

use arrow_array::RecordBatch;
use arrow_flight::{FlightData, SchemaAsIpc};
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::writer::IpcWriteOptions;
use arrow_ipc::{MessageHeader, root_as_message};
use arrow_schema::{DataType, SchemaRef};
use bytes::Bytes;
use vst_common::batch::Table;
use vst_common::count;

/// How each table's stream opens.
static OPENINGS: LazyLock<Vec<(Bytes, SchemaRef)>> = LazyLock::new(|| {
    let opening = |table: Table| {
        let message: FlightData = SchemaAsIpc::new(&table.schema(), &IpcWriteOptions::default()).into();
        (message.data_header, table.schema())
    };
    Table::ALL.into_iter().map(opening).collect()
});

/// Every column takes some of a row, and none less than an eighth of a byte.
const ROWS_PER_BYTE: i64 = 8;
/// Buffers in a message begin at multiples of this, bytes.
const ALIGNMENT: usize = 64;

/// Why a message is no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Flight stream of a table: {0}")]
pub(super) struct Unreadable(String);

fn refuse<T>(reason: impl Into<String>) -> Result<T, Unreadable> {
    Err(Unreadable(reason.into()))
}

/// Reads one stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    schema: Option<SchemaRef>,
}

impl Reader {
    /// Takes the next message in; `None` for one that opens the stream.
    ///
    /// # Errors
    /// [`Unreadable`]; the stream cannot go on then.
    pub(super) fn take(&mut self, message: &FlightData) -> Result<Option<RecordBatch>, Unreadable> {
        if let Some((_, schema)) = OPENINGS.iter().find(|(opening, _)| *opening == message.data_header) {
            self.schema = Some(SchemaRef::clone(schema));
            return Ok(None);
        }
        let header = root_as_message(&message.data_header).map_err(|e| Unreadable(e.to_string()))?;
        match header.header_type() {
            MessageHeader::Schema => refuse("the schema is that of no table of this version"),
            MessageHeader::RecordBatch => {
                let Some(schema) = &self.schema else { return refuse("a batch came before the schema") };
                let Some(batch) = header.header_as_record_batch() else {
                    return refuse("the message says that it is a batch and is none");
                };
                look_through(&batch, schema, message.data_body.len())?;
                // Without a copy where the message lies well in memory.
                let bytes: &[u8] = &message.data_body;
                let is_aligned = message.data_body.as_ptr().align_offset(ALIGNMENT) == 0;
                let body = match is_aligned {
                    true => message.data_body.clone().into(),
                    false => bytes.into(),
                };
                let none = HashMap::new();
                let version = header.version();
                let read =
                    RecordBatchDecoder::try_new(&body, batch, SchemaRef::clone(schema), &none, &version);
                let read = read.and_then(RecordBatchDecoder::read_record_batch);
                read.map(Some).map_err(|e| Unreadable(e.to_string()))
            }
            other => refuse(format!("a message of kind {other:?}")),
        }
    }
}

/// Whether the batch's own directory fits the schema and the bytes that came with it. What the columns hold is checked
/// by the reader.
fn look_through(
    batch: &arrow_ipc::RecordBatch<'_>,
    schema: &SchemaRef,
    body: usize,
) -> Result<(), Unreadable> {
    let body = count::to_i64(count::len(body));
    if batch.compression().is_some() {
        return refuse("it is compressed");
    }
    if batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return refuse("it has buffers that no column asks for");
    }
    let rows = batch.length();
    if rows < 0 || rows > body.saturating_mul(ROWS_PER_BYTE) {
        return refuse(format!("{rows} rows in {body} bytes"));
    }
    let Some(nodes) = batch.nodes() else { return refuse("it has no columns") };
    if nodes.len() != schema.fields().len() {
        return refuse(format!("{} columns where the schema has {}", nodes.len(), schema.fields().len()));
    }
    if let Some(node) =
        nodes.iter().find(|node| node.length() != rows || !(0..=rows).contains(&node.null_count()))
    {
        return refuse(format!("a column of {} rows, {} of them null", node.length(), node.null_count()));
    }
    let mut buffers = batch.buffers().into_iter().flatten();
    for (field, node) in schema.fields().iter().zip(nodes) {
        let width = field.data_type().primitive_width().unwrap_or(1);
        // Validity, then values; or validity, offsets of 4 bytes, text.
        let widths: &[usize] = match field.data_type() {
            DataType::Utf8 | DataType::Binary => &[1, 4, 1],
            _ => &[1, width],
        };
        for (place, width) in widths.iter().enumerate() {
            let Some(buffer) = buffers.next() else { return refuse("it has fewer buffers than its columns") };
            let (offset, length) = (buffer.offset(), buffer.length());
            let end = offset.checked_add(length);
            if offset < 0 || length < 0 || end.is_none_or(|end| end > body) {
                return refuse(format!("a buffer of {length} bytes at {offset} in a message of {body}"));
            }
            if !count::to_u64(length).is_multiple_of(count::len(*width)) {
                return refuse(format!("a buffer of {length} bytes for values of {width}"));
            }
            // Read only where the column says that it has nulls, and then a bit for every row.
            if place == 0 && node.null_count() > 0 && length.saturating_mul(8) < rows {
                return refuse(format!("{length} bytes say which of {rows} rows are null"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext};
    use proptest::prelude::*;
    use vst_common::batch::Stamp;
    use vst_common::batch::events::{EventRow, to_batch};
    use vst_common::ids::{Generation, NodeId, PhaseIndex, RunId, Sequence, WorkerId};

    use super::*;

    fn batch() -> RecordBatch {
        let stamp = Stamp {
            run: RunId::new("r"),
            worker: WorkerId::new("w"),
            generation: Generation(1),
            sequence: Sequence(2),
        };
        let row = |n: u32| EventRow {
            at: i64::from(n),
            phase: String::from("p"),
            phase_index: PhaseIndex(n),
            kind: "k".repeat(n as usize),
            node: n.is_multiple_of(2).then(|| NodeId::new("n")),
            detail: String::from("detail"),
            count: u64::from(n),
        };
        to_batch(&stamp, &(0..9).map(row).collect::<Vec<_>>()).unwrap()
    }

    fn opening(table: Table) -> FlightData {
        SchemaAsIpc::new(&table.schema(), &IpcWriteOptions::default()).into()
    }

    fn message() -> FlightData {
        let (_, encoded) = IpcDataGenerator::default()
            .encode(
                &batch(),
                &mut DictionaryTracker::new(false),
                &IpcWriteOptions::default(),
                &mut IpcWriteContext::default(),
            )
            .unwrap();
        encoded.into()
    }

    fn read(message: &FlightData) -> Result<Option<RecordBatch>, Unreadable> {
        let mut reader = Reader::default();
        assert_eq!(reader.take(&opening(Table::Events)), Ok(None));
        reader.take(message)
    }

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        assert_eq!(read(&message()), Ok(Some(batch())));
    }

    /// Arrow's reader ends the thread on bits that are not there.
    #[test]
    fn a_column_with_nulls_brings_a_bit_for_every_row() {
        let mut message = message();
        let mut header = message.data_header.to_vec();
        // The directory holds (offset, length) of each buffer; lengths of a column's bits are the only twos: 9 rows.
        let bits = 2_i64.to_le_bytes();
        let places: Vec<usize> = (0..header.len() - 8).filter(|at| header[*at..*at + 8] == bits).collect();
        assert!(!places.is_empty(), "9 rows take 2 bytes of bits");
        for at in places {
            header[at..at + 8].copy_from_slice(&1_i64.to_le_bytes());
        }
        message.data_header = header.into();
        assert!(read(&message).unwrap_err().to_string().contains("are null"));
    }

    #[test]
    fn another_schema_another_table_and_no_schema_are_refused() {
        let mut reader = Reader::default();
        assert!(reader.take(&message()).unwrap_err().to_string().contains("before the schema"));
        let field = arrow_schema::Field::new("x", arrow_schema::DataType::Int64, false);
        let other = arrow_schema::Schema::new(vec![field]);
        let other: FlightData = SchemaAsIpc::new(&other, &IpcWriteOptions::default()).into();
        assert!(reader.take(&other).unwrap_err().to_string().contains("no table"));
        assert_eq!(reader.take(&opening(Table::Memory)), Ok(None));
        assert!(reader.take(&message()).unwrap_err().to_string().contains("columns"));
        assert!(reader.take(&FlightData::default()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// A panic would fail this.
        #[test]
        fn whatever_is_damaged_it_is_a_batch_of_the_table_or_refused(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            in_body in any::<bool>(), cut in prop::option::of(any::<prop::sample::Index>())
        ) {
            let mut message = message();
            let mut bytes = if in_body { message.data_body.to_vec() } else { message.data_header.to_vec() };
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if in_body { message.data_body = bytes.into() } else { message.data_header = bytes.into() }
            if let Ok(Some(batch)) = read(&message) {
                prop_assert_eq!(batch.schema(), Table::Events.schema());
            }
        }
    }
}
