//! Vectors in storage: what a data set is, and any range of its rows.
//!
//! Opened by the coordinator, which plans and refuses with the manifest, and by workers, which fetch the rows they
//! lease. Nothing is read but the header and the asked ranges, so a billion rows cost as little to open as ten. Law:
//! any range read equals the same rows of the whole, whatever the format, store or range.

mod format;
mod location;
mod rows;

pub use format::{Element, Format};
pub use location::{open_store, resolve};
pub use rows::Rows;

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use url::Url;

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
    #[error("`{url}` has the scheme `{scheme}`: supported are a plain path and {}", location::SCHEMES)]
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
    /// Size of the object, bytes.
    pub size_bytes: u64,
    /// The store's entity tag when opened: the identity of the content.
    pub etag: Option<String>,
}

impl DatasetManifest {
    /// Bytes of one stored row.
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.dims).saturating_mul(self.element.bytes())
    }
}

/// An open data set.
#[derive(Clone, Debug)]
pub struct DatasetView {
    store: Arc<dyn ObjectStore>,
    path: Path,
    manifest: DatasetManifest,
}

impl DatasetView {
    /// Reads the header and checks it against the size of the object.
    ///
    /// # Errors
    /// When the name does not tell a known format, the store refuses, or header and size disagree.
    pub async fn open(store: Arc<dyn ObjectStore>, path: Path, url: Url) -> Result<Self, Error> {
        let format =
            Format::of_name(url.path()).ok_or_else(|| Error::UnknownFormat { url: url.to_string() })?;
        let failed = |source| Error::Store { url: url.to_string(), source };
        // Asked first, because a ranged read of an empty object is an error of its own kind in every store.
        let found = store.head(&path).await.map_err(failed)?.size;
        let expected = Format::HEADER_BYTES;
        let no_header = || Error::NoHeader { url: url.to_string(), expected, found };
        if found < expected {
            return Err(no_header());
        }
        let (header, meta) = get(store.as_ref(), &path, 0..expected).await.map_err(failed)?;
        let (words, _) = header.as_chunks::<4>();
        let [rows, dims, ..] = words else {
            return Err(no_header());
        };
        let (rows, dims) = (u64::from(u32::from_le_bytes(*rows)), u32::from_le_bytes(*dims));
        if rows == 0 || dims == 0 {
            return Err(Error::Empty { url: url.into(), rows, dims });
        }
        let element = format.element();
        let (size_bytes, etag) = (meta.size, meta.e_tag);
        let manifest =
            DatasetManifest { url: url.to_string(), format, rows, dims, element, size_bytes, etag };
        let expected = manifest.row_bytes().saturating_mul(rows).saturating_add(Format::HEADER_BYTES);
        if size_bytes != expected {
            return Err(Error::Size { url: url.into(), rows, dims, element, expected, found: size_bytes });
        }
        Ok(Self { store, path, manifest })
    }

    /// What was opened.
    #[must_use]
    pub fn manifest(&self) -> &DatasetManifest {
        &self.manifest
    }

    /// Reads some rows with one ranged request (none for an empty range).
    ///
    /// # Errors
    /// When the range is not in the data, the store refuses, or the object is no longer the one that was opened.
    pub async fn read(&self, range: RowRange) -> Result<Rows, Error> {
        let DatasetManifest { rows, dims, element, .. } = self.manifest;
        let RowRange { start, end } = range;
        if start > end || end > rows {
            return Err(Error::OutOfRange { url: self.manifest.url.clone(), start, end, rows });
        }
        if range.is_empty() {
            return Ok(Rows { dims, element, bytes: Bytes::new() });
        }
        // Within the size of the object, which was checked against the header: no overflow.
        let offset = |row: u64| Format::HEADER_BYTES + row * self.manifest.row_bytes();
        let (bytes, meta) = get(self.store.as_ref(), &self.path, offset(start)..offset(end))
            .await
            .map_err(|source| Error::Store { url: self.manifest.url.clone(), source })?;
        // Compared here and not asked of the store, since not every store honours conditions on a read.
        if (meta.size, &meta.e_tag) != (self.manifest.size_bytes, &self.manifest.etag) {
            let say = |size: u64, etag: &Option<String>| {
                format!("{size} bytes, tag {}", etag.as_deref().unwrap_or("-"))
            };
            return Err(Error::Changed {
                url: self.manifest.url.clone(),
                opened: say(self.manifest.size_bytes, &self.manifest.etag),
                now: say(meta.size, &meta.e_tag),
            });
        }
        Ok(Rows { dims, element, bytes })
    }
}

async fn get(
    store: &dyn ObjectStore,
    path: &Path,
    bytes: std::ops::Range<u64>,
) -> object_store::Result<(Bytes, ObjectMeta)> {
    let options = GetOptions { range: Some(GetRange::Bounded(bytes)), ..GetOptions::default() };
    let found = store.get_opts(path, options).await?;
    let meta = found.meta.clone();
    Ok((found.bytes().await?, meta))
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
