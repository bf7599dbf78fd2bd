//! The columns that tables are read with: those of today, whatever the run was recorded with.
//!
//! A run directory outlives the program that wrote it, and columns come. Law: a column that a run was recorded without
//! reads as null in each of its rows; one that it has and nobody knows any more is left out; one of another type is an
//! error that names it.

use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{Schema, SchemaRef};
use vst_common::batch::{self, Table};

/// Columns of the stamp, which every batch of every version has.
const STAMP: usize = 4;

/// A table's columns as they are read: each may be missing in a run that is older than it.
pub(super) fn schema(table: Table) -> SchemaRef {
    let own = table.schema();
    let fields = own.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A batch of whatever version under today's columns.
pub(super) fn brought(table: Table, batch: &RecordBatch) -> Result<RecordBatch, batch::Error> {
    let schema = schema(table);
    let refuse = |difference| batch::Error::Schema { table, difference };
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (i, field) in schema.fields().iter().enumerate() {
        let (name, wanted) = (field.name(), field.data_type());
        columns.push(match batch.column_by_name(name) {
            Some(column) if column.data_type() == wanted => Arc::clone(column),
            Some(column) => {
                return Err(refuse(format!("column `{name}` is {}, expected {wanted}", column.data_type())));
            }
            None if i < STAMP => return Err(refuse(format!("column `{name}` is missing"))),
            None => new_null_array(wanted, batch.num_rows()),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array, ArrayRef, Int64Array};
    use arrow_schema::{DataType, Field};
    use proptest::prelude::*;

    use super::*;
    use crate::tests::any_memory as recorded;

    fn without(batch: &RecordBatch, gone: &[usize]) -> RecordBatch {
        let kept: Vec<usize> = (0..batch.num_columns()).filter(|i| !gone.contains(i)).collect();
        batch.project(&kept).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn columns_that_a_run_lacks_are_null_and_all_others_what_they_were(
            gone in prop::collection::vec(STAMP..Table::Memory.schema().fields().len(), 0..20),
        ) {
            let whole = recorded();
            let read = brought(Table::Memory, &without(&whole, &gone)).unwrap();
            prop_assert_eq!(read.num_columns(), whole.num_columns());
            for (i, column) in read.columns().iter().enumerate() {
                if gone.contains(&i) {
                    prop_assert_eq!(column.null_count(), whole.num_rows());
                } else {
                    prop_assert_eq!(column, whole.column(i));
                }
            }
        }
    }

    #[test]
    fn what_nobody_knows_any_more_is_left_out_and_another_type_is_named() {
        let whole = recorded();
        let with = |name: &str, at: usize| {
            let mut fields: Vec<Field> = whole.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
            let mut columns: Vec<ArrayRef> = whole.columns().to_vec();
            fields.insert(at, Field::new(name, DataType::Int64, true));
            columns.insert(at, Arc::new(Int64Array::from(vec![1, 2, 3])));
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
        };
        let read = brought(Table::Memory, &with("phlogiston", 7)).unwrap();
        assert_eq!(read, brought(Table::Memory, &whole).unwrap());

        let node = whole.schema().index_of("node").unwrap();
        let said = brought(Table::Memory, &without(&with("node", 0), &[node + 1])).unwrap_err().to_string();
        assert!(said.contains("`node` is Int64, expected Utf8"), "{said}");
        let said = brought(Table::Memory, &without(&whole, &[0])).unwrap_err().to_string();
        assert!(said.contains("`run` is missing"), "{said}");
    }
}
