//! Rows into columns and back, so that each table states its columns once.
//!
//! A table writes its schema by naming its columns over rows ([`Columns`]); the same list over no rows is the schema.
//! [`Reader`] gives the columns of a checked batch by name. Used by the tables of this module only.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampNanosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampNanosecondArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::table::{self, Error, Stamp, Table};
use crate::clock::WallNs;
use crate::count;
use crate::ids::{Generation, NodeId, PhaseIndex, RunId, Sequence, WorkerId};
use crate::latency::{Hdr, Window};

const UTC: &str = "UTC";

/// The columns of a batch under construction: four of the stamp, then what the table adds.
pub(super) struct Columns<'a, R> {
    rows: &'a [R],
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
    /// The first histogram that could not be written; reported by [`Columns::finish`].
    failure: Option<Error>,
}

impl<'a, R> Columns<'a, R> {
    pub(super) fn new(stamp: &'a Stamp, rows: &'a [R]) -> Self {
        Self { rows, fields: Vec::new(), arrays: Vec::new(), failure: None }
            .text("run", |_| stamp.run.as_str())
            .text("worker", |_| stamp.worker.as_str())
            .int("generation", |_| stamp.generation.0)
            .int("sequence", |_| stamp.sequence.0)
    }

    fn push(mut self, name: &str, data_type: DataType, nullable: bool, array: ArrayRef) -> Self {
        self.fields.push(Field::new(name, data_type, nullable));
        self.arrays.push(array);
        self
    }

    pub(super) fn text(self, name: &str, value: impl Fn(&'a R) -> &'a str) -> Self {
        let array = StringArray::from_iter_values(self.rows.iter().map(value));
        self.push(name, DataType::Utf8, false, Arc::new(array))
    }

    pub(super) fn text_or_null(self, name: &str, value: impl Fn(&'a R) -> Option<&'a str>) -> Self {
        let array: StringArray = self.rows.iter().map(value).collect();
        self.push(name, DataType::Utf8, true, Arc::new(array))
    }

    pub(super) fn int(self, name: &str, value: impl Fn(&R) -> u64) -> Self {
        self.signed(name, |row| count::to_i64(value(row)))
    }

    pub(super) fn int_or_null(self, name: &str, value: impl Fn(&R) -> Option<u64>) -> Self {
        self.signed_or_null(name, |row| value(row).map(count::to_i64))
    }

    pub(super) fn signed(self, name: &str, value: impl Fn(&R) -> i64) -> Self {
        let array = Int64Array::from_iter_values(self.rows.iter().map(value));
        self.push(name, DataType::Int64, false, Arc::new(array))
    }

    pub(super) fn signed_or_null(self, name: &str, value: impl Fn(&R) -> Option<i64>) -> Self {
        let array: Int64Array = self.rows.iter().map(value).collect();
        self.push(name, DataType::Int64, true, Arc::new(array))
    }

    pub(super) fn ratio_or_null(self, name: &str, value: impl Fn(&R) -> Option<f64>) -> Self {
        let array: Float64Array = self.rows.iter().map(value).collect();
        self.push(name, DataType::Float64, true, Arc::new(array))
    }

    pub(super) fn instant(self, name: &str, value: impl Fn(&R) -> WallNs) -> Self {
        let array =
            TimestampNanosecondArray::from_iter_values(self.rows.iter().map(value)).with_timezone(UTC);
        self.push(name, DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())), false, Arc::new(array))
    }

    pub(super) fn histogram(mut self, name: &str, value: impl Fn(&R) -> Option<&Hdr>) -> Self {
        let mut encoded = Vec::with_capacity(self.rows.len());
        for row in self.rows {
            match value(row).map(Hdr::encode).transpose() {
                Ok(bytes) => encoded.push(bytes),
                Err(source) => {
                    self.failure.get_or_insert(Error::Histogram { column: name.to_owned(), source });
                    encoded.push(None);
                }
            }
        }
        let array: BinaryArray = encoded.iter().map(Option::as_deref).collect();
        self.push(name, DataType::Binary, true, Arc::new(array))
    }

    /// The columns named so far, as a schema.
    pub(super) fn schema(self) -> SchemaRef {
        Arc::new(Schema::new(self.fields))
    }

    pub(super) fn finish(self) -> Result<RecordBatch, Error> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        let schema = Arc::new(Schema::new(self.fields));
        Ok(RecordBatch::try_new_with_options(schema, self.arrays, &options)?)
    }
}

/// A stamp for asking a table's columns when there is no delivery.
pub(super) fn nobody() -> Stamp {
    Stamp { run: RunId::new(""), worker: WorkerId::new(""), generation: Generation(0), sequence: Sequence(0) }
}

/// The columns of a batch that has the schema of its table.
pub(super) struct Reader<'a> {
    table: Table,
    batch: &'a RecordBatch,
}

/// A column that knows its name, so that a bad value can be reported.
pub(super) struct Column<'a, A> {
    name: String,
    array: &'a A,
}

impl<'a> Reader<'a> {
    pub(super) fn new(table: Table, batch: &'a RecordBatch) -> Result<Self, Error> {
        table::check_schema(table, batch)?;
        Ok(Self { table, batch })
    }

    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    fn column<A>(
        &self,
        name: &str,
        cast: impl Fn(&'a ArrayRef) -> Option<&'a A>,
    ) -> Result<Column<'a, A>, Error> {
        let array = self.batch.column_by_name(name).and_then(cast).ok_or_else(|| Error::Schema {
            table: self.table,
            difference: format!("column `{name}` is missing or of another type"),
        })?;
        Ok(Column { name: name.to_owned(), array })
    }

    pub(super) fn text(&self, name: &str) -> Result<Column<'a, StringArray>, Error> {
        self.column(name, |a| a.as_string_opt::<i32>())
    }

    pub(super) fn int(&self, name: &str) -> Result<Column<'a, Int64Array>, Error> {
        self.column(name, |a| a.as_primitive_opt::<Int64Type>())
    }

    pub(super) fn ratio(&self, name: &str) -> Result<Column<'a, Float64Array>, Error> {
        self.column(name, |a| a.as_primitive_opt::<Float64Type>())
    }

    pub(super) fn instant(&self, name: &str) -> Result<Column<'a, TimestampNanosecondArray>, Error> {
        self.column(name, |a| a.as_primitive_opt::<TimestampNanosecondType>())
    }

    pub(super) fn histogram(&self, name: &str) -> Result<Column<'a, BinaryArray>, Error> {
        self.column(name, |a| a.as_binary_opt::<i32>())
    }

    pub(super) fn stamps(&self) -> Result<Vec<Stamp>, Error> {
        let (run, worker) = (self.text("run")?, self.text("worker")?);
        let (generation, sequence) = (self.int("generation")?, self.int("sequence")?);
        Ok((0..self.rows())
            .map(|i| Stamp {
                run: RunId::new(run.at(i)),
                worker: WorkerId::new(worker.at(i)),
                generation: Generation(generation.at(i)),
                sequence: Sequence(sequence.at(i)),
            })
            .collect())
    }
}

impl<'a> Column<'a, StringArray> {
    pub(super) fn at(&self, row: usize) -> &'a str {
        self.array.value(row)
    }

    pub(super) fn get(&self, row: usize) -> Option<&'a str> {
        self.array.is_valid(row).then(|| self.array.value(row))
    }

    pub(super) fn node(&self, row: usize) -> NodeId {
        NodeId::new(self.at(row))
    }

    pub(super) fn window(&self, row: usize) -> Result<Window, Error> {
        let name = self.at(row);
        [Window::WarmUp, Window::Measure]
            .into_iter()
            .find(|w| w.as_str() == name)
            .ok_or_else(|| self.bad(row, format!("`{name}` is not a window; expected warm_up or measure")))
    }
}

impl Column<'_, Int64Array> {
    pub(super) fn at(&self, row: usize) -> u64 {
        count::to_u64(self.array.value(row))
    }

    pub(super) fn get(&self, row: usize) -> Option<u64> {
        self.signed(row).map(count::to_u64)
    }

    pub(super) fn signed(&self, row: usize) -> Option<i64> {
        self.array.is_valid(row).then(|| self.array.value(row))
    }

    pub(super) fn small(&self, row: usize) -> Result<u32, Error> {
        let value = self.array.value(row);
        u32::try_from(value).map_err(|_| self.bad(row, format!("{value} does not fit 32 bits")))
    }

    pub(super) fn phase(&self, row: usize) -> Result<PhaseIndex, Error> {
        self.small(row).map(PhaseIndex)
    }
}

impl Column<'_, Float64Array> {
    pub(super) fn get(&self, row: usize) -> Option<f64> {
        self.array.is_valid(row).then(|| self.array.value(row))
    }
}

impl Column<'_, TimestampNanosecondArray> {
    pub(super) fn at(&self, row: usize) -> WallNs {
        self.array.value(row)
    }
}

impl Column<'_, BinaryArray> {
    pub(super) fn get(&self, row: usize) -> Result<Option<Hdr>, Error> {
        if self.array.is_null(row) {
            return Ok(None);
        }
        Hdr::decode(self.array.value(row))
            .map(Some)
            .map_err(|source| Error::Histogram { column: self.name.clone(), source })
    }
}

impl<A> Column<'_, A> {
    fn bad(&self, row: usize, reason: String) -> Error {
        Error::Value { column: self.name.clone(), row, reason }
    }
}
