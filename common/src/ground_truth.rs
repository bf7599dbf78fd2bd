//! The published neighbours of each query, and exact distances to check them with.
//!
//! Read once per phase by the worker that judges answers, and by the coordinator that refuses a plan whose truth does
//! not fit. The file says *which* rows are near; how near is always computed again ([`measure`]), because files differ
//! in what they call a distance. Law: a truth that opens has exactly `queries x k` entries.

mod distance;
pub mod exact;

pub use distance::{Measured, distance, measure, nearest};
pub use exact::ExactSearch;

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use crate::count;

/// Bytes of the header: two 32-bit numbers.
const HEADER_BYTES: u64 = 8;
/// Bytes of one neighbour: its id and its distance.
const ENTRY_BYTES: u64 = 8;

/// Why a ground truth cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Lists of another format cannot be read.
    #[error(transparent)]
    Lists(crate::dataset::Error),
    /// The store refused.
    #[error("cannot read the ground truth {url}")]
    Store {
        /// What was read.
        url: String,
        /// The store's reason.
        source: object_store::Error,
    },
    /// The file is too short for its header.
    #[error("ground truth {url} has {found} bytes, a header alone has {HEADER_BYTES}: the file is truncated")]
    NoHeader {
        /// What was read.
        url: String,
        /// Its size.
        found: u64,
    },
    /// The size of the file is not what its header says.
    #[error(
        "ground truth {url} has {found} bytes, its header ({queries} queries x {k} neighbours) asks for {expected}: {}",
        size_advice(*found, *expected)
    )]
    Size {
        /// What was read.
        url: String,
        /// Queries by the header.
        queries: u32,
        /// Neighbours per query by the header.
        k: u32,
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// The header says that there is nothing in the file.
    #[error("ground truth {url} is empty by its header: {queries} queries x {k} neighbours")]
    Empty {
        /// What was read.
        url: String,
        /// Queries by the header.
        queries: u32,
        /// Neighbours per query by the header.
        k: u32,
    },
    /// A neighbour is not a row of the base.
    #[error(
        "neighbour {place} of query {query} is row {id}, the base has {rows} rows: this truth belongs to another base"
    )]
    IdOutOfRange {
        /// Query, from 0.
        query: u32,
        /// Place in the list, from 1.
        place: u32,
        /// The row it names.
        id: u32,
        /// Rows of the base.
        rows: u64,
    },
    /// A list names a row twice.
    #[error("query {query} has row {id} twice in its list of neighbours: compute the truth anew")]
    RepeatedId {
        /// Query, from 0.
        query: u32,
        /// The row it names.
        id: u32,
    },
}

fn size_advice(found: u64, expected: u64) -> &'static str {
    if found < expected {
        "the file is truncated"
    } else {
        "the file is too long or not a big-ann ground truth"
    }
}

/// The neighbours of one query, nearest first.
#[derive(Clone, Copy, Debug)]
pub struct TruthList<'a> {
    /// Rows of the base.
    pub ids: &'a [u32],
    /// Distances as the file has them, of the same length: a hint, never a proof.
    pub distances: &'a [f32],
}

/// The exact k nearest neighbours of each query within a base.
#[derive(Clone, Debug, PartialEq)]
pub struct GroundTruth {
    /// Number of queries.
    pub queries: u32,
    /// Neighbours per query: the depth of the truth.
    pub k: u32,
    /// `queries x k` rows of the base, query by query, nearest first.
    pub ids: Vec<u32>,
    /// `queries x k` distances as the file has them.
    pub distances: Vec<f32>,
}

/// Lists of (row, distance), nearest first, in the big-ann layout, each cut to `depth` entries. Rows past 32 bits do not
/// fit into it and become its largest number.
#[must_use]
pub fn write_bytes(lists: &[Vec<(u64, f64)>], depth: usize) -> Vec<u8> {
    let header = [lists.len(), depth].map(|n| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    let entries = || lists.iter().flat_map(|list| list.iter().take(depth));
    let mut bytes = header.concat();
    bytes.extend(entries().flat_map(|(row, _)| u32::try_from(*row).unwrap_or(u32::MAX).to_le_bytes()));
    bytes.extend(entries().flat_map(|(_, distance)| narrow(*distance).to_le_bytes()));
    bytes
}

#[expect(clippy::cast_possible_truncation, reason = "the layout has 32-bit distances, and they are hints")]
fn narrow(distance: f64) -> f32 {
    distance as f32
}

impl GroundTruth {
    /// Reads a truth in the big-ann layout: u32 queries, u32 k, all ids (u32), all distances (f32), little endian.
    ///
    /// # Errors
    /// When the store refuses, or the size of the file is not what its header says.
    pub async fn open(store: Arc<dyn ObjectStore>, path: Path, url: Url) -> Result<Self, Error> {
        let bytes = match store.get(&path).await {
            Ok(found) => found.bytes().await,
            Err(reason) => Err(reason),
        };
        Self::parse(&bytes.map_err(|source| Error::Store { url: url.to_string(), source })?, url.as_str())
    }

    pub(crate) fn parse(bytes: &[u8], url: &str) -> Result<Self, Error> {
        let found = count::len(bytes.len());
        let (words, _) = bytes.as_chunks::<4>();
        let [queries, k, entries @ ..] = words else {
            return Err(Error::NoHeader { url: url.to_string(), found });
        };
        let (queries, k) = (u32::from_le_bytes(*queries), u32::from_le_bytes(*k));
        if queries == 0 || k == 0 {
            return Err(Error::Empty { url: url.to_string(), queries, k });
        }
        let expected = u64::from(queries)
            .saturating_mul(u64::from(k))
            .saturating_mul(ENTRY_BYTES)
            .saturating_add(HEADER_BYTES);
        if found != expected {
            return Err(Error::Size { url: url.to_string(), queries, k, expected, found });
        }
        let (ids, distances) = entries.split_at(entries.len() / 2);
        Ok(Self {
            queries,
            k,
            ids: ids.iter().map(|word| u32::from_le_bytes(*word)).collect(),
            distances: distances.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        })
    }

    /// Neighbours of a query, nearest first; empty for a query that is not in the file.
    #[must_use]
    pub fn ids(&self, query: u32) -> &[u32] {
        self.part(query, &self.ids)
    }

    /// The file's distances of a query's neighbours; empty for a query that is not in the file.
    #[must_use]
    pub fn distances(&self, query: u32) -> &[f32] {
        self.part(query, &self.distances)
    }

    /// Neighbours of a query with the file's distances.
    #[must_use]
    pub fn list(&self, query: u32) -> TruthList<'_> {
        TruthList { ids: self.ids(query), distances: self.distances(query) }
    }

    fn part<'a, T>(&self, query: u32, all: &'a [T]) -> &'a [T] {
        let k = count::index(u64::from(self.k));
        all.chunks_exact(k.max(1)).nth(count::index(u64::from(query))).unwrap_or_default()
    }

    /// Checks that every list names distinct rows of a base with `rows` rows: the whole base that the truth was
    /// computed on, also where a run uses only the first rows of it (the others then count as not alive).
    ///
    /// # Errors
    /// Names the first entry that does not fit.
    pub fn check_against(&self, rows: u64) -> Result<(), Error> {
        let mut sorted = Vec::new();
        for query in 0..self.queries {
            for (place, id) in (1..).zip(self.ids(query)) {
                if u64::from(*id) >= rows {
                    return Err(Error::IdOutOfRange { query, place, id: *id, rows });
                }
            }
            sorted.clear();
            sorted.extend_from_slice(self.ids(query));
            sorted.sort_unstable();
            if let Some(id) =
                sorted.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first())?)
            {
                return Err(Error::RepeatedId { query, id: *id });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
