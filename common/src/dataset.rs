//! Vectors in storage: what a data set is, and any range of its rows.
//!
//! Opened by the coordinator, which plans and refuses with the manifest, and by workers, which fetch the rows they
//! lease. Nothing is read but headers and the asked ranges, so a billion rows cost as little to open as ten. Law: any
//! range read equals the same rows of the whole, whatever the format, store, number of objects or range.
//!
//! A reference becomes a URL ([`resolve`]), a URL one or many objects, an object a layout; the layouts read through one
//! reader of byte ranges, which repeats what failed and says so ([`ReadFaults`]).

mod blob;
mod element;
mod fault;
mod format;
mod generate;
mod hdf5;
mod layout;
mod local;
mod location;
mod npy;
mod parquet;
mod rows;
mod shards;
mod spool;
mod strided;
mod survey;
mod truth;
mod valkey_bench;
mod vkv;
mod write;

pub use blob::ReadPolicy;
pub use element::Element;
pub use fault::{ReadFault, ReadFaults};
pub use format::Format;
pub use generate::{Distribution, Generator};
pub use location::{open_store, open_store_that_repeats, resolve};
pub use rows::Rows;
pub use spool::Progress;
pub use survey::Survey;
pub use truth::open_truth;
pub use write::DatasetWriter;

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use url::Url;

use self::blob::Blob;
use self::layout::Part;
use crate::ranges::RowRange;

/// Why vectors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reference is neither a path nor a URL.
    #[error("`{reference}` is neither a path nor a URL that names a file: {reason}")]
    Reference {
        /// As written.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No store for this kind of URL.
    #[error("`{url}` has the scheme `{scheme}`: known are a plain path and {}", location::SCHEMES)]
    UnsupportedScheme {
        /// As written.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// The name does not tell the format.
    #[error("`{url}` does not tell its format: the name must end in {}", format::extensions())]
    UnknownFormat {
        /// What was to be read.
        url: String,
    },
    /// The store refused.
    #[error("cannot read the vectors {url}")]
    Store {
        /// What was read.
        url: String,
        /// The store's reason.
        source: object_store::Error,
    },
    /// There is no such object.
    #[error("{url} does not exist")]
    NotFound {
        /// What was to be read.
        url: String,
        /// The store's reason.
        source: object_store::Error,
    },
    /// The store wants credentials, or others.
    #[error("no access to {url}: {fix}")]
    Credentials {
        /// What was to be read.
        url: String,
        /// What to set.
        fix: &'static str,
        /// The store's reason.
        source: object_store::Error,
    },
    /// The store did not answer.
    #[error(
        "{url} gave nothing within {limit:?}, {attempts} times: check the store, or raise VST_READ_LIMIT"
    )]
    Stalled {
        /// What was to be read.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// How long each attempt was given.
        limit: Duration,
    },
    /// A file of this machine cannot be written or read.
    #[error("cannot keep a local copy at {path}")]
    Local {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The store took no more bytes.
    #[error("cannot write {url}")]
    Write {
        /// What was written.
        url: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The object does not unpack.
    #[error("{url} does not unpack: {reason}")]
    Unpack {
        /// What was read.
        url: String,
        /// What the library says.
        reason: String,
    },
    /// The content is not what its format asks for.
    #[error("{url} cannot be read as {format}: {reason}")]
    Layout {
        /// What was read.
        url: String,
        /// How it was to be read.
        format: Format,
        /// What is wrong with it.
        reason: String,
    },
    /// Something in the object points past its end.
    #[error("{url} has {found} bytes, its content goes on to byte {end}: the file is truncated")]
    Truncated {
        /// What was read.
        url: String,
        /// One past the last byte asked for.
        end: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// Objects that do not make one data set.
    #[error("{url} has {found}, {first} has {expected}: these objects are not of one data set")]
    Shards {
        /// The object that differs.
        url: String,
        /// What it has.
        found: String,
        /// The first object.
        first: String,
        /// What that has.
        expected: String,
    },
    /// The file is too short for its header.
    #[error("{url} has {found} bytes, its header alone has {expected}: the file is truncated")]
    NoHeader {
        /// What was read.
        url: String,
        /// Bytes of a header.
        expected: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// The size of the file is not what its header says.
    #[error(
        "{url} has {found} bytes, its header ({rows} rows x {dims} dimensions of {element}) asks for {expected}: {}",
        size_advice(*found, *expected)
    )]
    Size {
        /// What was read.
        url: String,
        /// Rows by the header.
        rows: u64,
        /// Dimensions by the header.
        dims: u32,
        /// Element type by the name.
        element: Element,
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// The header says that there is nothing in the file.
    #[error("{url} is empty by its header: {rows} rows x {dims} dimensions")]
    Empty {
        /// What was read.
        url: String,
        /// Rows by the header.
        rows: u64,
        /// Dimensions by the header.
        dims: u32,
    },
    /// A range that is not in the data.
    #[error("rows {start}..{end} of {url} do not exist: it has {rows} rows")]
    OutOfRange {
        /// What was read.
        url: String,
        /// First row asked for.
        start: u64,
        /// One past the last row asked for.
        end: u64,
        /// Rows that there are.
        rows: u64,
    },
    /// The object was replaced while it was in use.
    #[error("{url} changed since it was opened ({opened}, now {now}): keep the data unchanged during a run")]
    Changed {
        /// What was read.
        url: String,
        /// Size and entity tag when opened.
        opened: String,
        /// Size and entity tag now.
        now: String,
    },
}

fn size_advice(found: u64, expected: u64) -> &'static str {
    if found < expected {
        "the file is truncated"
    } else {
        "the file is too long, or its name tells the wrong format"
    }
}

/// What a data set is; travels in plans and into the run directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetManifest {
    /// Where it is; holds no credentials.
    pub url: String,
    /// How it is laid out.
    pub format: Format,
    /// Number of vectors.
    pub rows: u64,
    /// Dimensions of a vector.
    pub dims: u32,
    /// What a coordinate is stored as.
    pub element: Element,
    /// Size of all objects, bytes.
    pub size_bytes: u64,
    /// The store's entity tag when opened, where there is one object: the identity of the content.
    pub etag: Option<String>,
    /// What the file says its distance is, in its own words.
    #[serde(default)]
    pub metric: Option<String>,
    /// The objects, in the order of their rows; none for generated vectors.
    #[serde(default)]
    pub objects: Vec<DatasetObject>,
}

/// One object of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetObject {
    /// Where it is; holds no credentials.
    pub url: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// The store's entity tag when opened.
    pub etag: Option<String>,
}

impl DatasetManifest {
    /// Bytes of one row as it is given.
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.dims).saturating_mul(self.element.bytes())
    }
}

/// How data sets are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Requests to stores over a network.
    pub policy: ReadPolicy,
    /// Whole copies of remote objects are kept here and used while size and tag agree.
    pub cache: Option<PathBuf>,
}

impl ReadOptions {
    /// From the environment: `VST_DATA_CACHE` (a folder), `VST_READ_ATTEMPTS`, `VST_READ_LIMIT` (seconds that one
    /// attempt may take), `VST_READ_PART` (bytes that one request asks for at most).
    #[must_use]
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut policy = ReadPolicy::default();
        if let Some(attempts) = variable("VST_READ_ATTEMPTS").and_then(|v| v.parse().ok()) {
            policy.attempts = attempts;
        }
        if let Some(bytes) = variable("VST_READ_PART").and_then(|v| v.parse().ok()).filter(|bytes| *bytes > 0)
        {
            policy.part_bytes = bytes;
        }
        let limit = variable("VST_READ_LIMIT").and_then(|v| v.parse().ok());
        if let Some(limit) = limit.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok()) {
            policy.attempt_limit = limit;
        }
        Self { policy, cache: variable("VST_DATA_CACHE").map(PathBuf::from) }
    }

    /// Where compressed objects are unpacked: the cache, or the user's folder for such things.
    fn unpack_folder(&self) -> PathBuf {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        self.cache.clone().unwrap_or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
            cache.or_else(home).unwrap_or_else(std::env::temp_dir).join("vst/data")
        })
    }
}

/// An open data set; clones share it.
#[derive(Clone, Debug)]
pub struct DatasetView {
    manifest: Arc<DatasetManifest>,
    parts: Arc<[Part]>,
    faults: ReadFaults,
}

/// Objects that are opened at once.
const OPENED_AT_ONCE: usize = 16;

impl DatasetView {
    /// Opens what a URL names, with the options that the environment sets.
    ///
    /// # Errors
    /// As [`DatasetView::open_with`].
    pub async fn open_url(url: &Url) -> Result<Self, Error> {
        Self::open_with(url, &ReadOptions::from_env()).await
    }

    /// Opens what a URL names: generated vectors, one object, or many.
    ///
    /// # Errors
    /// When the name does not tell a known format, a store refuses, header and size disagree, or the objects are not
    /// of one data set.
    pub async fn open_with(url: &Url, options: &ReadOptions) -> Result<Self, Error> {
        if url.scheme() == generate::SCHEME {
            return Ok(Self::generated(Generator::from_url(url)?, url));
        }
        let (store, path) = open_store(url)?;
        let paths = shards::expand(&store, &path, &location::shown(url)).await?;
        if let [only] = paths.as_slice()
            && *only == path
        {
            return Self::open_object(store, path, url, options).await;
        }
        let faults = ReadFaults::default();
        let urls = paths.into_iter().map(|path| (url_of_shard(url, &path), path));
        let opened = futures::stream::iter(urls.map(|(url, path)| {
            let (store, faults) = (Arc::clone(&store), faults.clone());
            async move { Part::open(store, path, &url, options, faults).await }
        }))
        .buffered(OPENED_AT_ONCE);
        Self::of_parts(url, opened.try_collect().await?, faults)
    }

    /// Opens one object of a store that is open.
    ///
    /// # Errors
    /// When the name does not tell a known format, the store refuses, or header and size disagree.
    pub async fn open(store: Arc<dyn ObjectStore>, path: Path, url: Url) -> Result<Self, Error> {
        Self::open_object(store, path, &url, &ReadOptions::default()).await
    }

    /// Opens one object of a store that is open.
    ///
    /// # Errors
    /// As [`DatasetView::open`].
    pub async fn open_object(
        store: Arc<dyn ObjectStore>,
        path: Path,
        url: &Url,
        options: &ReadOptions,
    ) -> Result<Self, Error> {
        let faults = ReadFaults::default();
        let part = Part::open(store, path, url, options, faults.clone()).await?;
        Self::of_parts(url, vec![part], faults)
    }

    fn generated(generator: Generator, url: &Url) -> Self {
        let part = Part::generated(generator, url);
        let manifest = DatasetManifest {
            url: url.to_string(),
            format: Format::Generated,
            rows: generator.count(),
            dims: generator.dims,
            element: generator.element,
            size_bytes: 0,
            etag: None,
            metric: None,
            objects: Vec::new(),
        };
        Self { manifest: Arc::new(manifest), parts: Arc::from([part]), faults: ReadFaults::default() }
    }

    fn of_parts(url: &Url, mut parts: Vec<Part>, faults: ReadFaults) -> Result<Self, Error> {
        let Some(first) = parts.first() else {
            return Err(Error::Reference {
                reference: url.to_string(),
                reason: String::from("it names no object"),
            });
        };
        let (format, dims, element) = (first.format, first.dims, first.element);
        let (metric, first_url) = (first.metric.clone(), first.object.url.clone());
        let mut rows = 0_u64;
        for part in &mut parts {
            if (part.dims, part.element) != (dims, element) {
                let (found, expected) =
                    (format!("{} dimensions of {}", part.dims, part.element), format!("{dims} of {element}"));
                return Err(Error::Shards {
                    url: part.object.url.clone(),
                    found,
                    first: first_url,
                    expected,
                });
            }
            part.first_row = rows;
            rows = rows.saturating_add(part.object.rows);
        }
        let objects: Vec<DatasetObject> = parts.iter().map(|part| part.object.clone()).collect();
        let size_bytes = objects.iter().map(|object| object.size_bytes).sum();
        let etag = match objects.as_slice() {
            [only] => only.etag.clone(),
            _ => None,
        };
        let url = location::shown(url);
        let manifest =
            DatasetManifest { url, format, rows, dims, element, size_bytes, etag, metric, objects };
        Ok(Self { manifest: Arc::new(manifest), parts: parts.into(), faults })
    }

    /// What was opened.
    #[must_use]
    pub fn manifest(&self) -> &DatasetManifest {
        &self.manifest
    }

    /// What went wrong on the way to the store and was overcome.
    #[must_use]
    pub fn faults(&self) -> &ReadFaults {
        &self.faults
    }

    /// Reads some rows: one ranged request for most formats and ranges, none for an empty range.
    ///
    /// # Errors
    /// When the range is not in the data, the store refuses, the content is damaged, or an object is no longer the one
    /// that was opened.
    pub async fn read(&self, range: RowRange) -> Result<Rows, Error> {
        let DatasetManifest { rows, dims, element, .. } = *self.manifest;
        let RowRange { start, end } = range;
        if start > end || end > rows {
            return Err(Error::OutOfRange { url: self.manifest.url.clone(), start, end, rows });
        }
        let first = self.parts.partition_point(|part| part.end_row() <= start);
        let mut bytes = Bytes::new();
        let mut joined = BytesMut::new();
        for part in self.parts.iter().skip(first).take_while(|part| part.first_row < end) {
            let inner = RowRange { start: start.max(part.first_row), end: end.min(part.end_row()) };
            let read = part.read(inner).await?;
            if inner == range {
                bytes = read;
            } else {
                joined.extend_from_slice(&read);
            }
        }
        if !joined.is_empty() {
            bytes = joined.freeze();
        }
        Ok(Rows { dims, element, bytes })
    }
}

fn url_of_shard(url: &Url, path: &Path) -> Url {
    let mut url = url.clone();
    // A container's or bucket's name is the host in all schemes that stores give lists for.
    url.set_path(&format!("/{path}"));
    url
}

/// Copies an object to a file of this machine, `connections` ranges at once; goes on where an earlier call ended if
/// the object is still the same. `progress` is told the bytes that are there and the bytes in all.
///
/// # Errors
/// When the store refuses or the file cannot be written.
pub async fn download(
    url: &Url,
    file: &FilePath,
    connections: usize,
    options: &ReadOptions,
    progress: &Progress,
) -> Result<ReadFaults, Error> {
    let (store, path) = open_store(url)?;
    let faults = ReadFaults::default();
    let blob = Blob::open(store, path, url, options.policy, faults.clone()).await?;
    spool::download(&blob, file, connections, progress).await?;
    Ok(faults)
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
