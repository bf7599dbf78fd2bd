//! Query results as rows that plain code can read.
//!
//! Every number of the summary comes out of SQL through here: a column is asked for by name and type, and what is
//! not there (NULL, no such column, another type) is `None` and never a zero.

use arrow_array::{Array, RecordBatch};
use datafusion::common::cast::{as_binary_array, as_float64_array, as_int64_array, as_string_array};
use vst_common::count;
use vst_common::latency::Hdr;

/// One row of a result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    batch: &'a RecordBatch,
    at: usize,
}

/// All rows of a result, in order.
pub(crate) fn rows(batches: &[RecordBatch]) -> impl Iterator<Item = Row<'_>> {
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |at| Row { batch, at }))
}

impl<'a> Row<'a> {
    fn column(self, name: &str) -> Option<&'a dyn Array> {
        let column = self.batch.column_by_name(name)?;
        column.is_valid(self.at).then_some(column.as_ref())
    }

    /// A BIGINT.
    pub(crate) fn int(self, name: &str) -> Option<i64> {
        Some(as_int64_array(self.column(name)?).ok()?.value(self.at))
    }

    /// A BIGINT that is a count; negative is zero.
    pub(crate) fn count(self, name: &str) -> Option<u64> {
        self.int(name).map(count::to_u64)
    }

    /// A sum of counts, which is NULL over no rows: zero then.
    pub(crate) fn total(self, name: &str) -> u64 {
        self.count(name).unwrap_or(0)
    }

    /// A DOUBLE.
    pub(crate) fn float(self, name: &str) -> Option<f64> {
        Some(as_float64_array(self.column(name)?).ok()?.value(self.at))
    }

    /// Text.
    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        Some(as_string_array(self.column(name)?).ok()?.value(self.at))
    }

    /// Text, empty where there is none.
    pub(crate) fn word(self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    /// A histogram; an empty one where there is none.
    ///
    /// # Errors
    /// When the bytes are not one.
    pub(crate) fn hdr(self, name: &str) -> Result<Hdr, vst_common::latency::Error> {
        match self.column(name).and_then(|c| as_binary_array(c).ok()) {
            Some(column) => Hdr::decode(column.value(self.at)),
            None => Ok(Hdr::new()),
        }
    }
}
