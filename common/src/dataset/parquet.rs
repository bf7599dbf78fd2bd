//! Parquet files with a list column of numbers, as Hugging Face, OpenAI and VectorDBBench publish them.
//!
//! Only the row groups that a range touches are asked for, of these only the wanted column, and only its pages where
//! the file has a page index. Without one a range costs its whole column chunk.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, FixedSizeListArray, GenericListArray, OffsetSizeTrait, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use futures::future::{BoxFuture, FutureExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::blob::Blob;
use super::{Element, Error, Format};
use crate::count;
use crate::ranges::RowRange;

/// Column names that are taken before others.
const PREFERRED: &[&str] =
    &["emb", "embedding", "embeddings", "vector", "openai", "neighbors_id", "neighbors"];
/// Rows decoded at once.
const BATCH_ROWS: usize = 1024;

/// An open file and the column that is read.
#[derive(Clone, Debug)]
pub(super) struct ParquetRows {
    blob: Blob,
    meta: ArrowReaderMetadata,
    column: usize,
    name: String,
    dims: u32,
    element: Element,
    /// First row of each row group, and one past the last row.
    starts: Arc<[u64]>,
}

impl ParquetRows {
    /// Reads the footer and finds the column: the one named, or the one that is likely meant.
    pub(super) async fn open(blob: Blob, column: Option<&str>) -> Result<Self, Error> {
        let size = blob.size();
        let mut reader = BlobReader { blob: blob.clone(), meta: None };
        let meta = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Optional)
            .load_and_finish(&mut reader, size)
            .await
            .map_err(|e| failed(&blob, e))?;
        let meta = ArrowReaderMetadata::try_new(Arc::new(meta), ArrowReaderOptions::new())
            .map_err(|e| failed(&blob, e))?;
        let (column, field) = choose(meta.schema(), column).map_err(|reason| refused(&blob, reason))?;
        let name = field.name().clone();
        let (element, fixed) =
            shape(field).ok_or_else(|| refused(&blob, format!("column `{name}` is no list of numbers")))?;
        let mut starts = vec![0];
        let mut last = 0_u64;
        for group in meta.metadata().row_groups() {
            last = last.saturating_add(count::to_u64(group.num_rows()));
            starts.push(last);
        }
        let mut rows = Self { blob, meta, column, name, dims: 0, element, starts: starts.into() };
        rows.dims = match fixed {
            Some(dims) => dims,
            None if rows.rows() == 0 => 0,
            None => rows.first_length().await?,
        };
        Ok(rows)
    }

    pub(super) fn rows(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    pub(super) fn dims(&self) -> u32 {
        self.dims
    }

    pub(super) fn element(&self) -> Element {
        self.element
    }

    /// Reads rows that exist, packed.
    pub(super) async fn read(&self, rows: RowRange) -> Result<Bytes, Error> {
        let row_bytes = count::index(u64::from(self.dims).saturating_mul(self.element.bytes()));
        let wanted = row_bytes.saturating_mul(count::index(rows.len()));
        let mut packed = BytesMut::with_capacity(wanted);
        if rows.is_empty() {
            return Ok(packed.freeze());
        }
        let mut batches = self.batches(rows)?;
        while let Some(batch) = batches.try_next().await.map_err(|e| failed(&self.blob, e))? {
            let first = rows.start + count::len(packed.len().checked_div(row_bytes).unwrap_or(0));
            self.append(&batch, first, &mut packed)?;
        }
        if packed.len() != wanted {
            let reason = format!("rows {}..{} are not all there: the file is damaged", rows.start, rows.end);
            return Err(refused(&self.blob, reason));
        }
        Ok(packed.freeze())
    }

    fn batches(&self, rows: RowRange) -> Result<ParquetRecordBatchStream<BlobReader>, Error> {
        // From the group of the first row to that of the last.
        let first = self.starts.partition_point(|start| *start <= rows.start).saturating_sub(1);
        let last = self.starts.partition_point(|start| *start < rows.end);
        let skipped = rows.start.saturating_sub(self.starts.get(first).copied().unwrap_or(0));
        let reader = BlobReader { blob: self.blob.clone(), meta: Some(Arc::clone(self.meta.metadata())) };
        let schema = self.meta.metadata().file_metadata().schema_descr();
        let mask = ProjectionMask::roots(schema, [self.column]);
        ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.meta.clone())
            .with_row_groups((first..last).collect())
            .with_projection(mask)
            .with_offset(count::index(skipped))
            .with_limit(count::index(rows.len()))
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|e| failed(&self.blob, e))
    }

    async fn first_length(&self) -> Result<u32, Error> {
        let mut batches = self.batches(RowRange { start: 0, end: 1 })?;
        let batch = batches.try_next().await.map_err(|e| failed(&self.blob, e))?;
        let length = batch.as_ref().and_then(Lists::of).and_then(|lists| lists.length(0));
        let length =
            length.ok_or_else(|| refused(&self.blob, format!("row 0 of `{}` is null", self.name)))?;
        u32::try_from(length).map_err(|_| refused(&self.blob, format!("row 0 has {length} dimensions")))
    }

    /// Appends the numbers of a batch whose first row has the number `first`.
    fn append(&self, batch: &RecordBatch, first: u64, packed: &mut BytesMut) -> Result<(), Error> {
        let wrong = |reason: String| refused(&self.blob, reason);
        let lists = Lists::of(batch).ok_or_else(|| wrong(format!("column `{}` is no list", self.name)))?;
        let dims = count::index(u64::from(self.dims));
        for (row, i) in (first..).zip(0..batch.num_rows()) {
            match lists.length(i) {
                Some(length) if length == dims => {}
                Some(length) => {
                    return Err(wrong(format!("row {row} has {length} dimensions, row 0 has {dims}")));
                }
                None => return Err(wrong(format!("row {row} of `{}` is null", self.name))),
            }
        }
        let values = lists.values();
        if values.null_count() > 0 {
            return Err(wrong(format!("a coordinate after row {first} of `{}` is null", self.name)));
        }
        let data = values.to_data();
        let size = count::index(self.element.bytes());
        let (start, end) = (data.offset() * size, (data.offset() + data.len()) * size);
        let bytes = data.buffers().first().and_then(|buffer| buffer.as_slice().get(start..end));
        packed.extend_from_slice(bytes.ok_or_else(|| wrong(String::from("a column has no values")))?);
        Ok(())
    }
}

/// The lists of a batch's only column.
enum Lists<'a> {
    Fixed(&'a FixedSizeListArray),
    Short(&'a GenericListArray<i32>),
    Long(&'a GenericListArray<i64>),
}

impl<'a> Lists<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let column = batch.columns().first()?.as_any();
        if let Some(lists) = column.downcast_ref() {
            Some(Self::Fixed(lists))
        } else if let Some(lists) = column.downcast_ref() {
            Some(Self::Short(lists))
        } else {
            Some(Self::Long(column.downcast_ref()?))
        }
    }

    fn length(&self, i: usize) -> Option<usize> {
        let (null, length) = match self {
            Self::Fixed(lists) => (lists.is_null(i), i64::from(lists.value_length())),
            Self::Short(lists) => (lists.is_null(i), i64::from(lists.value_length(i))),
            Self::Long(lists) => (lists.is_null(i), lists.value_length(i)),
        };
        if null { None } else { usize::try_from(length).ok() }
    }

    /// The values of all lists, one after another.
    fn values(&self) -> ArrayRef {
        fn between<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> ArrayRef {
            let at = |offset: Option<&O>| offset.map_or(0, |offset| offset.as_usize());
            let (start, end) = (at(lists.value_offsets().first()), at(lists.value_offsets().last()));
            lists.values().slice(start, end - start)
        }
        match self {
            // Its values are cut to its rows already.
            Self::Fixed(lists) => Arc::clone(lists.values()),
            Self::Short(lists) => between(lists),
            Self::Long(lists) => between(lists),
        }
    }
}

/// The wanted column, or the first list of numbers, floats before integers and known names before others.
fn choose<'a>(schema: &'a Schema, wanted: Option<&str>) -> Result<(usize, &'a Field), String> {
    let lists: Vec<(usize, &Field, Element)> = schema
        .fields()
        .iter()
        .enumerate()
        .filter_map(|(i, field)| Some((i, field.as_ref(), shape(field)?.0)))
        .collect();
    if let Some(wanted) = wanted {
        let found = lists.iter().find(|(_, field, _)| field.name() == wanted);
        return found.map(|(i, field, _)| (*i, *field)).ok_or_else(|| {
            let names: Vec<&str> = lists.iter().map(|(_, field, _)| field.name().as_str()).collect();
            format!("it has no list of numbers named `{wanted}`; it has: {}", names.join(", "))
        });
    }
    let rank = |field: &Field, element: Element| {
        let name = PREFERRED.iter().position(|name| field.name() == name).unwrap_or(PREFERRED.len());
        (element.is_integer(), name)
    };
    let found = lists.iter().min_by_key(|(_, field, element)| rank(field, *element));
    found
        .map(|(i, field, _)| (*i, *field))
        .ok_or_else(|| String::from("none of its columns is a list of numbers"))
}

/// Type of the numbers and, where the type fixes it, their count.
fn shape(field: &Field) -> Option<(Element, Option<u32>)> {
    let (inner, dims) = match field.data_type() {
        DataType::List(inner) | DataType::LargeList(inner) => (inner, None),
        DataType::FixedSizeList(inner, dims) => (inner, Some(u32::try_from(*dims).ok()?)),
        _ => return None,
    };
    let element = match inner.data_type() {
        DataType::Float32 => Element::F32,
        DataType::Float16 => Element::F16,
        DataType::Float64 => Element::F64,
        DataType::UInt8 => Element::U8,
        DataType::Int8 => Element::I8,
        DataType::Int32 => Element::I32,
        DataType::UInt32 => Element::U32,
        DataType::Int64 => Element::I64,
        DataType::UInt64 => Element::U64,
        _ => return None,
    };
    Some((element, dims))
}

fn refused(blob: &Blob, reason: String) -> Error {
    Error::Layout { url: blob.url().to_owned(), format: Format::Parquet, reason }
}

/// The reader's own error where that is behind it.
fn failed(blob: &Blob, error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => refused(blob, other.to_string()),
        },
        other => refused(blob, other.to_string()),
    }
}

/// The object as the Parquet library reads it.
#[derive(Clone, Debug)]
struct BlobReader {
    blob: Blob,
    meta: Option<Arc<ParquetMetaData>>,
}

impl AsyncFileReader for BlobReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { self.blob.read(range).await.map_err(|e| ParquetError::External(Box::new(e))) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            if let Some(meta) = &self.meta {
                return Ok(Arc::clone(meta));
            }
            let size = self.blob.size();
            let meta = ParquetMetaDataReader::new().load_and_finish(&mut *self, size).await?;
            Ok(Arc::new(meta))
        }
        .boxed()
    }
}
