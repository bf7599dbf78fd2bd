//! ann-benchmarks files: HDF5 with the data sets `train`, `test`, `neighbors` and `distances`.
//!
//! Read by ranges of bytes through a bounded cache of blocks; the library asks for the chunks that a range touches. It
//! blocks, so it runs aside of the runtime and asks the store through it.

use std::sync::Arc;

use bytes::Bytes;
use hdf5_reader::error::Error as Hdf5Error;
use hdf5_reader::storage::{BlockCacheStorage, RangeRequestStorage};
use hdf5_reader::{Dataset, Datatype, H5Type, Hdf5File, OpenOptions, SliceInfo, SliceInfoElem};

use super::blob::Blob;
use super::{Element, Error, Format};
use crate::count;
use crate::ranges::RowRange;

const BLOCK_BYTES: usize = 256 << 10;
const BLOCKS: usize = 64;
const CHUNK_CACHE_BYTES: usize = 32 << 20;

/// An open file and the data set in it that is read.
#[derive(Clone)]
pub(super) struct Hdf5Rows {
    blob: Blob,
    dataset: Arc<Dataset>,
    rows: u64,
    dims: u32,
    element: Element,
    metric: Option<String>,
}

impl std::fmt::Debug for Hdf5Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hdf5Rows").field("blob", &self.blob).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Hdf5Rows {
    /// Opens a data set, `train` where none is named.
    pub(super) async fn open(blob: Blob, section: Option<&str>) -> Result<Self, Error> {
        let name = section.unwrap_or("train").to_owned();
        let storage = storage(blob.clone());
        let opened = aside(&blob, move || {
            let options = OpenOptions { chunk_cache_bytes: CHUNK_CACHE_BYTES, ..OpenOptions::default() };
            let file = Hdf5File::from_storage_with_options(storage, options)?;
            let metric = file.root_group()?.attribute("distance").and_then(|a| a.read_string()).ok();
            let dataset = file.dataset(&name)?;
            Ok((dataset, metric))
        });
        let (dataset, metric) = opened.await?;
        let refused = |reason: String| refused(&blob, reason);
        let (rows, dims) = match dataset.shape() {
            [rows, dims] => (*rows, u32::try_from(*dims).unwrap_or(u32::MAX)),
            shape => {
                return Err(refused(format!(
                    "`{}` has {} dimensions of storage, two are wanted",
                    dataset.name(),
                    shape.len()
                )));
            }
        };
        let element = element(dataset.dtype())
            .ok_or_else(|| refused(format!("the type of `{}` cannot be read", dataset.name())))?;
        Ok(Self { blob, dataset: Arc::new(dataset), rows, dims, element, metric })
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn dims(&self) -> u32 {
        self.dims
    }

    pub(super) fn element(&self) -> Element {
        self.element
    }

    /// What the file calls its distance.
    pub(super) fn metric(&self) -> Option<&str> {
        self.metric.as_deref()
    }

    /// Reads rows that exist, packed.
    pub(super) async fn read(&self, rows: RowRange) -> Result<Bytes, Error> {
        if rows.is_empty() {
            return Ok(Bytes::new());
        }
        let (dataset, element, dims) = (Arc::clone(&self.dataset), self.element, self.dims);
        let bytes = aside(&self.blob, move || match element {
            Element::F32 => slice::<f32, 4>(&dataset, rows, dims, f32::to_le_bytes),
            Element::F64 => slice::<f64, 8>(&dataset, rows, dims, f64::to_le_bytes),
            Element::U8 => slice::<u8, 1>(&dataset, rows, dims, u8::to_le_bytes),
            Element::I8 => slice::<i8, 1>(&dataset, rows, dims, i8::to_le_bytes),
            Element::I32 => slice::<i32, 4>(&dataset, rows, dims, i32::to_le_bytes),
            Element::U32 => slice::<u32, 4>(&dataset, rows, dims, u32::to_le_bytes),
            Element::I64 => slice::<i64, 8>(&dataset, rows, dims, i64::to_le_bytes),
            Element::U64 => slice::<u64, 8>(&dataset, rows, dims, u64::to_le_bytes),
            Element::F16 => Err(Hdf5Error::InvalidData(String::from("16-bit floats cannot be read"))),
        });
        let bytes = bytes.await?;
        let wanted = rows.len().saturating_mul(u64::from(self.dims)).saturating_mul(self.element.bytes());
        if count::len(bytes.len()) != wanted {
            return Err(refused(&self.blob, format!("rows {}..{} are not all there", rows.start, rows.end)));
        }
        Ok(Bytes::from(bytes))
    }
}

fn slice<T: H5Type, const N: usize>(
    dataset: &Dataset,
    rows: RowRange,
    dims: u32,
    bytes: impl Fn(T) -> [u8; N],
) -> Result<Vec<u8>, Hdf5Error> {
    let part = |start, end| SliceInfoElem::Slice { start, end, step: 1 };
    let selection = SliceInfo { selections: vec![part(rows.start, rows.end), part(0, u64::from(dims))] };
    let numbers = dataset.read_slice::<T>(&selection)?;
    let mut packed = Vec::with_capacity(numbers.len() * N);
    for number in numbers {
        packed.extend_from_slice(&bytes(number));
    }
    Ok(packed)
}

fn element(datatype: &Datatype) -> Option<Element> {
    Some(match datatype {
        Datatype::FloatingPoint { size: 4, .. } => Element::F32,
        Datatype::FloatingPoint { size: 8, .. } => Element::F64,
        Datatype::FixedPoint { size: 1, signed: false, .. } => Element::U8,
        Datatype::FixedPoint { size: 1, signed: true, .. } => Element::I8,
        Datatype::FixedPoint { size: 4, signed: true, .. } => Element::I32,
        Datatype::FixedPoint { size: 4, signed: false, .. } => Element::U32,
        Datatype::FixedPoint { size: 8, signed: true, .. } => Element::I64,
        Datatype::FixedPoint { size: 8, signed: false, .. } => Element::U64,
        _ => return None,
    })
}

fn storage(blob: Blob) -> Arc<BlockCacheStorage> {
    let runtime = tokio::runtime::Handle::current();
    let size = blob.size();
    let ranges = RangeRequestStorage::new(size, move |offset, length| {
        let end = offset.saturating_add(count::len(length));
        let read = runtime.block_on(blob.read(offset..end));
        // The library's error carries text only; ours is whole words already.
        read.map(Vec::from).map_err(|e| Hdf5Error::Io(std::io::Error::other(e)))
    });
    Arc::new(BlockCacheStorage::new(Arc::new(ranges), BLOCK_BYTES, BLOCKS))
}

async fn aside<T: Send + 'static>(
    blob: &Blob,
    work: impl FnOnce() -> Result<T, Hdf5Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Hdf5Error::Io(error))) if error.get_ref().is_some_and(|e| e.is::<Error>()) => {
            match error.into_inner().map(|inner| inner.downcast::<Error>()) {
                Some(Ok(own)) => Err(*own),
                _ => Err(refused(blob, String::from("the store failed"))),
            }
        }
        Ok(Err(error)) => Err(refused(blob, error.to_string())),
        Err(_) => Err(refused(blob, String::from("reading it was broken off"))),
    }
}

fn refused(blob: &Blob, reason: String) -> Error {
    Error::Layout { url: blob.url().to_owned(), format: Format::Hdf5, reason }
}
