//! Answers to a person's SQL, as a text table or as JSON lines.
//!
//! Used by `vst analyze query`. Histograms are bytes; on a screen they are shown as what they hold, in JSON as hex.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::cast::as_binary_array;

use crate::engine::{Engine, Error, hdr_len, on_own_threads};
use crate::number;

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The columns, also where there are no rows.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// Answers a query over one or more run directories; column `run` tells their rows apart.
///
/// # Errors
/// [`Error`] when a directory cannot be read or the query is wrong.
pub async fn query(run_dirs: &[String], sql: &str) -> Result<Answer, Error> {
    let (run_dirs, sql) = (run_dirs.to_vec(), sql.to_owned());
    on_own_threads(async move || {
        let engine = Engine::open(&run_dirs).await?;
        let (schema, batches) = engine.sql_with_schema(&sql).await?;
        Ok(Answer { schema, batches })
    })
    .await
}

impl Answer {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// A table for people; a histogram is shown by its number of values.
    ///
    /// # Errors
    /// [`Error::Write`] when a value cannot be shown.
    pub fn to_table(&self) -> Result<String, Error> {
        let written = |e: arrow_schema::ArrowError| Error::Write(e.to_string());
        let empty = [RecordBatch::new_empty(Arc::clone(&self.schema))];
        let batches = if self.batches.is_empty() { &empty[..] } else { &self.batches };
        let shown = batches.iter().map(shorten).collect::<Result<Vec<_>, _>>().map_err(written)?;
        Ok(pretty_format_batches(&shown).map_err(written)?.to_string())
    }

    /// One JSON object per row; instants in RFC 3339, bytes in hex, NULL left out.
    ///
    /// # Errors
    /// [`Error::Write`] when a value cannot be written.
    pub fn to_json_lines(&self) -> Result<String, Error> {
        let written = |e: arrow_schema::ArrowError| Error::Write(e.to_string());
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write_batches(&self.batches.iter().collect::<Vec<_>>()).map_err(written)?;
        writer.finish().map_err(written)?;
        String::from_utf8(writer.into_inner()).map_err(|e| Error::Write(e.to_string()))
    }
}

fn shorten(batch: &RecordBatch) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        match as_binary_array(column).ok().filter(|_| field.data_type() == &DataType::Binary) {
            Some(bytes) => {
                let text: StringArray = bytes.iter().map(|b| b.map(describe)).collect();
                fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
                columns.push(Arc::new(text));
            }
            None => {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(column));
            }
        }
    }
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn describe(bytes: &[u8]) -> String {
    match hdr_len(bytes) {
        Ok(n) => format!("histogram of {} values", number::grouped(n)),
        Err(_) => format!("{} bytes", bytes.len()),
    }
}
