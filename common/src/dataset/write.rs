//! Vectors on their way into a file or an object: one pass, bounded memory, visible under its name when it is whole.
//!
//! Fed with ranges in order; the store keeps what is not finished apart. Law: what was written reads back as the same
//! numbers, or the writer refused.

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tokio::io::AsyncWriteExt;
use url::Url;

use super::{Element, Error, Format, Rows, location, npy};
use crate::count;

/// Bytes that are kept before they are sent to the store.
const BUFFER_BYTES: usize = 8 << 20;
/// Rows of a Parquet row group: a range of rows costs at most one.
const GROUP_ROWS: usize = 10_000;

/// A data set that is being written.
pub struct DatasetWriter {
    url: String,
    format: Format,
    element: Element,
    dims: u32,
    expected: u64,
    written: u64,
    out: Out,
}

enum Out {
    Plain(Box<BufWriter>),
    Parquet(Box<AsyncArrowWriter<BufWriter>>, Arc<Schema>),
}

impl std::fmt::Debug for DatasetWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatasetWriter")
            .field("url", &self.url)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl DatasetWriter {
    /// Begins a data set of so many rows. Formats that do not fix the type keep `element` where they can hold it.
    ///
    /// # Errors
    /// When the name tells no format that can be written, or the store refuses.
    pub async fn create(url: &Url, rows: u64, dims: u32, element: Element) -> Result<Self, Error> {
        let shown = location::shown(url);
        let format =
            Format::of_name(url.path()).ok_or_else(|| Error::UnknownFormat { url: shown.clone() })?;
        let cannot = |reason: &str| Error::Layout { url: shown.clone(), format, reason: reason.to_owned() };
        if url.path().ends_with(".gz") || url.path().ends_with(".zst") {
            return Err(cannot("compressed files are read, not written: leave out the last extension"));
        }
        let element = match format {
            Format::Fbin
            | Format::U8bin
            | Format::I8bin
            | Format::Ibin
            | Format::Fvecs
            | Format::Bvecs
            | Format::Ivecs => format.element().unwrap_or(element),
            Format::Npy => element,
            Format::Parquet => Element::F32,
            _ => {
                return Err(cannot(
                    "it is read, not written: write .fbin, .u8bin, .i8bin, .ibin, .fvecs, .bvecs, .ivecs, .npy or .parquet",
                ));
            }
        };
        let (store, path) = super::open_store(url)?;
        let out = BufWriter::with_capacity(store, path, BUFFER_BYTES);
        let mut writer = Self {
            url: shown.clone(),
            format,
            element,
            dims,
            expected: rows,
            written: 0,
            out: Out::Plain(Box::new(out)),
        };
        let head = match format {
            Format::Fbin | Format::U8bin | Format::I8bin | Format::Ibin => {
                let rows =
                    u32::try_from(rows).map_err(|_| cannot("its header counts to 4,294,967,295 rows"))?;
                [rows.to_le_bytes(), dims.to_le_bytes()].concat()
            }
            Format::Npy => npy::header(rows, dims, element),
            _ => Vec::new(),
        };
        if format == Format::Parquet {
            return writer.into_parquet();
        }
        writer.put(&head).await?;
        Ok(writer)
    }

    fn into_parquet(mut self) -> Result<Self, Error> {
        let length = i32::try_from(self.dims).unwrap_or(i32::MAX);
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("emb", DataType::FixedSizeList(item, length), false),
        ]));
        if let Out::Plain(out) = self.out {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .set_max_row_group_row_count(Some(GROUP_ROWS))
                .set_dictionary_enabled(false)
                .build();
            let writer = AsyncArrowWriter::try_new(*out, Arc::clone(&schema), Some(properties));
            let failed = |e: parquet::errors::ParquetError| Error::Layout {
                url: self.url.clone(),
                format: Format::Parquet,
                reason: e.to_string(),
            };
            self.out = Out::Parquet(Box::new(writer.map_err(failed)?), schema);
        }
        Ok(self)
    }

    /// What coordinates are written as.
    #[must_use]
    pub fn element(&self) -> Element {
        self.element
    }

    /// Appends rows.
    ///
    /// # Errors
    /// When a number does not fit the type, or the store refuses.
    pub async fn write(&mut self, rows: &Rows) -> Result<(), Error> {
        let first = self.written;
        self.written = self.written.saturating_add(count::len(rows.len()));
        if let Out::Parquet(..) = self.out {
            return self.write_parquet(first, rows).await;
        }
        let mut packed = Vec::new();
        if rows.element == self.element {
            packed.extend_from_slice(&rows.bytes);
        } else {
            let mut row = Vec::new();
            for i in 0..rows.len() {
                rows.row_f32(i, &mut row);
                for number in &row {
                    let number = *number;
                    if !push(self.element, number, &mut packed) {
                        let at = first + count::len(i);
                        let reason =
                            format!("row {at} holds {number}, which is no {}: write .fbin", self.element);
                        return Err(Error::Layout { url: self.url.clone(), format: self.format, reason });
                    }
                }
            }
        }
        if !matches!(self.format, Format::Fvecs | Format::Bvecs | Format::Ivecs) {
            return self.put(&packed).await;
        }
        let row_bytes = count::index(u64::from(self.dims).saturating_mul(self.element.bytes())).max(1);
        let mut led = Vec::with_capacity(packed.len() + rows.len() * 4);
        for row in packed.chunks(row_bytes) {
            led.extend_from_slice(&self.dims.to_le_bytes());
            led.extend_from_slice(row);
        }
        self.put(&led).await
    }

    async fn write_parquet(&mut self, first: u64, rows: &Rows) -> Result<(), Error> {
        let Out::Parquet(writer, schema) = &mut self.out else { return Ok(()) };
        let failed =
            |reason: String| Error::Layout { url: self.url.clone(), format: Format::Parquet, reason };
        let numbers: Float32Array = rows.iter().flatten().collect::<Vec<f32>>().into();
        let length = i32::try_from(self.dims).unwrap_or(i32::MAX);
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let lists = FixedSizeListArray::try_new(item, length, Arc::new(numbers), None);
        let lists: ArrayRef = Arc::new(lists.map_err(|e| failed(e.to_string()))?);
        let ids = (first..first.saturating_add(count::len(rows.len()))).map(count::to_i64);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
        let batch =
            RecordBatch::try_new(Arc::clone(schema), vec![ids, lists]).map_err(|e| failed(e.to_string()))?;
        writer.write(&batch).await.map_err(|e| failed(e.to_string()))
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Out::Plain(out) = &mut self.out else { return Ok(()) };
        out.write_all(bytes).await.map_err(|source| Error::Write { url: self.url.clone(), source })
    }

    /// Makes it visible under its name.
    ///
    /// # Errors
    /// When rows are missing or the store refuses.
    pub async fn finish(self) -> Result<(), Error> {
        if self.written != self.expected {
            let reason = format!("{} rows were written, {} were announced", self.written, self.expected);
            return Err(Error::Layout { url: self.url, format: self.format, reason });
        }
        match self.out {
            Out::Plain(mut out) => {
                out.shutdown().await.map_err(|source| Error::Write { url: self.url.clone(), source })
            }
            Out::Parquet(writer, _) => writer.close().await.map(|_| ()).map_err(|e| Error::Layout {
                url: self.url.clone(),
                format: Format::Parquet,
                reason: e.to_string(),
            }),
        }
    }
}

/// Appends a number as an element; `false` where it is not one of its values.
fn push(element: Element, number: f32, out: &mut Vec<u8>) -> bool {
    let whole = || (number.fract() == 0.0).then_some(f64::from(number));
    match element {
        Element::F32 => out.extend_from_slice(&number.to_le_bytes()),
        Element::F64 => out.extend_from_slice(&f64::from(number).to_le_bytes()),
        Element::F16 => out.extend_from_slice(&half::f16::from_f32(number).to_le_bytes()),
        Element::U8 => {
            let Some(byte) = whole().filter(|x| (0.0..=255.0).contains(x)) else { return false };
            out.push(u8::try_from(count::from_f64(byte)).unwrap_or(u8::MAX));
        }
        Element::I8 => {
            let Some(byte) = whole().filter(|x| (-128.0..=127.0).contains(x)) else { return false };
            // Shifted by 128 and with its highest bit flipped back, which is the same byte.
            out.push(u8::try_from(count::from_f64(byte + 128.0)).unwrap_or(u8::MAX) ^ 0x80);
        }
        Element::I32 | Element::U32 => {
            let Some(x) = whole().filter(|x| (0.0..=16_777_216.0).contains(x)) else { return false };
            out.extend_from_slice(&u32::try_from(count::from_f64(x)).unwrap_or(u32::MAX).to_le_bytes());
        }
        Element::I64 | Element::U64 => {
            let Some(x) = whole().filter(|x| (0.0..=16_777_216.0).contains(x)) else { return false };
            out.extend_from_slice(&count::from_f64(x).to_le_bytes());
        }
    }
    true
}
