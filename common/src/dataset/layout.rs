//! From an object to its rows: which layout it has, whether header and size agree, and where its rows are.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use super::blob::Blob;
use super::fault::ReadFaults;
use super::format::Packing;
use super::hdf5::Hdf5Rows;
use super::parquet::ParquetRows;
use super::strided::{self, Header, Strided};
use super::vkv::VkvRows;
use super::{DatasetObject, Element, Error, Format, Generator, ReadOptions};
use super::{location, npy, spool, valkey_bench};
use crate::ranges::RowRange;

/// More dimensions than that are a misread header.
const MOST_DIMS: u32 = 1 << 20;

/// The rows of one object within a data set.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) first_row: u64,
    pub(super) format: Format,
    pub(super) dims: u32,
    pub(super) element: Element,
    pub(super) metric: Option<String>,
    pub(super) object: DatasetObject,
    layout: Layout,
}

#[derive(Clone, Debug)]
enum Layout {
    Strided(Blob, Strided),
    Parquet(Box<ParquetRows>),
    Hdf5(Hdf5Rows),
    Vkv(VkvRows),
    Generated(Generator),
}

impl Part {
    pub(super) async fn open(
        store: Arc<dyn ObjectStore>,
        path: Path,
        url: &Url,
        options: &ReadOptions,
        faults: ReadFaults,
    ) -> Result<Self, Error> {
        let shown = location::shown(url);
        let name = path.as_ref().to_owned();
        let format = Format::of_name(&name).ok_or_else(|| Error::UnknownFormat { url: shown.clone() })?;
        let policy = options.policy;
        let source = Blob::open(Arc::clone(&store), path.clone(), url, policy, faults.clone()).await?;
        let mut object = DatasetObject {
            url: shown,
            rows: 0,
            size_bytes: source.size(),
            etag: source.etag().map(str::to_owned),
        };
        let packing = Packing::strip(&name).1;
        let local = match (packing, &options.cache) {
            (Some(packing), _) => Some(spool::unpacked(&source, packing, &options.unpack_folder()).await?),
            (None, Some(folder)) if source.is_remote() => Some(spool::copied(&source, folder).await?),
            (None, _) => None,
        };
        let blob = match local {
            None => source,
            Some(copy) => {
                let (store, path) = super::open_store(&copy)?;
                Blob::open(store, path, &copy, policy, faults.clone()).await?
            }
        };
        let section = url.fragment().filter(|section| !section.is_empty());
        let (format, layout, shape) = match format {
            Format::Parquet => {
                let rows = ParquetRows::open(blob, section).await?;
                let shape = (rows.rows(), rows.dims(), rows.element());
                (format, Layout::Parquet(Box::new(rows)), shape)
            }
            Format::Hdf5 => {
                let rows = Hdf5Rows::open(blob, section).await?;
                let shape = (rows.rows(), rows.dims(), rows.element());
                (format, Layout::Hdf5(rows), shape)
            }
            Format::Vkv => {
                let rows = VkvRows::open(blob).await?;
                let shape = (rows.rows(), rows.dims(), rows.element());
                (format, Layout::Vkv(rows), shape)
            }
            Format::ValkeyBenchSchema => {
                let data = beside(store, &path, url, options, faults).await?;
                let yaml = blob.head(blob.size()).await?;
                let described = valkey_bench::describe(&String::from_utf8_lossy(&yaml), section);
                let header =
                    described.map_err(|reason| Error::Layout { url: object.url.clone(), format, reason })?;
                object.size_bytes = object.size_bytes.saturating_add(data.size());
                let shape = (header.rows, header.dims, header.element);
                within(&data, format, &header)?;
                (format, Layout::Strided(data, header.strided), shape)
            }
            _ => {
                let (format, header) = header(&blob, format, section).await?;
                let shape = (header.rows, header.dims, header.element);
                (format, Layout::Strided(blob, header.strided), shape)
            }
        };
        let (rows, dims, element) = shape;
        if rows == 0 || dims == 0 {
            return Err(Error::Empty { url: object.url, rows, dims });
        }
        if dims > MOST_DIMS {
            let reason = format!("{dims} dimensions are not plausible");
            return Err(Error::Layout { url: object.url, format, reason });
        }
        object.rows = rows;
        let metric = match &layout {
            Layout::Hdf5(file) => file.metric().map(str::to_owned),
            _ => None,
        };
        Ok(Self { first_row: 0, format, dims, element, metric, object, layout })
    }

    pub(super) fn generated(generator: Generator, url: &Url) -> Self {
        let rows = generator.count();
        Self {
            first_row: 0,
            format: Format::Generated,
            dims: generator.dims,
            element: generator.element,
            metric: None,
            object: DatasetObject { url: url.to_string(), rows, size_bytes: 0, etag: None },
            layout: Layout::Generated(generator),
        }
    }

    /// One past the last row, in the data set's numbers.
    pub(super) fn end_row(&self) -> u64 {
        self.first_row.saturating_add(self.object.rows)
    }

    /// Reads rows, in the data set's numbers, that are in this object.
    pub(super) async fn read(&self, range: RowRange) -> Result<Bytes, Error> {
        let rows = RowRange { start: range.start - self.first_row, end: range.end - self.first_row };
        match &self.layout {
            Layout::Strided(blob, strided) => strided.read(blob, self.format, rows).await,
            Layout::Parquet(file) => file.read(rows).await,
            Layout::Hdf5(file) => file.read(rows).await,
            Layout::Vkv(file) => file.read(rows).await,
            Layout::Generated(generator) => Ok(generator.generate(rows)),
        }
    }
}

/// The data of a YAML description: the file of the same name that ends in `.bin`.
async fn beside(
    store: Arc<dyn ObjectStore>,
    path: &Path,
    url: &Url,
    options: &ReadOptions,
    faults: ReadFaults,
) -> Result<Blob, Error> {
    let stem = |text: &str| text.rsplit_once('.').map_or(text, |(stem, _)| stem).to_owned();
    let mut data_url = url.clone();
    data_url.set_path(&format!("{}.bin", stem(url.path())));
    data_url.set_fragment(None);
    let data_path = format!("{}.bin", stem(path.as_ref()));
    let data_path = Path::parse(&data_path).unwrap_or_else(|_| Path::from(data_path));
    Blob::open(store, data_path, &data_url, options.policy, faults).await
}

/// Reads the header of a format whose rows lie at equal distances.
async fn header(blob: &Blob, format: Format, section: Option<&str>) -> Result<(Format, Header), Error> {
    // The billion-scale sets publish their truths under this extension.
    if format == Format::Ibin
        && let Some(header) = strided::truth(blob).await?
    {
        return Ok((Format::GroundTruth, header));
    }
    let header = match (format, format.element()) {
        (Format::Fvecs | Format::Bvecs | Format::Ivecs, Some(element)) => {
            strided::vecs(blob, format, element).await?
        }
        (Format::Fbin | Format::U8bin | Format::I8bin | Format::Ibin, Some(element)) => {
            let header = strided::big_ann(blob, element).await?;
            whole(blob, &header)?;
            header
        }
        (Format::Npy, _) => {
            let header = npy::open(blob).await?;
            whole(blob, &header)?;
            header
        }
        _ => match valkey_bench::open(blob, section).await? {
            Some(header) => return Ok((Format::ValkeyBench, header)),
            None => match strided::truth(blob).await? {
                Some(header) => return Ok((Format::GroundTruth, header)),
                None => {
                    let reason = String::from(
                        "it begins with neither 0xDECDB001 nor the header of a big-ann ground truth of its size",
                    );
                    return Err(Error::Layout { url: blob.url().to_owned(), format, reason });
                }
            },
        },
    };
    Ok((format, header))
}

/// The file must end where its last row does.
fn whole(blob: &Blob, header: &Header) -> Result<(), Error> {
    let Header { rows, dims, element, strided } = *header;
    let (url, found) = (blob.url().to_owned(), blob.size());
    if rows == 0 || dims == 0 {
        return Err(Error::Empty { url, rows, dims });
    }
    let expected = strided.end(rows);
    if found == expected { Ok(()) } else { Err(Error::Size { url, rows, dims, element, expected, found }) }
}

/// The file must not end before the last row does.
fn within(blob: &Blob, format: Format, header: &Header) -> Result<(), Error> {
    let end = header.strided.end(header.rows);
    if end <= blob.size() {
        return Ok(());
    }
    let reason = format!("its section ends at byte {end}, the file has {}: it is truncated", blob.size());
    Err(Error::Layout { url: blob.url().to_owned(), format, reason })
}
