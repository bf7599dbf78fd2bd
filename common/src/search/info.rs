//! What `FT.INFO` says of one node's part of an index, in one vocabulary for both modules.

use super::SearchError;
use crate::count;
use crate::phase::SearchModule;
use crate::resp::Frame;

const MEBIBYTE: f64 = 1_048_576.0;

/// The sizes that RediSearch reports apart, in mebibytes. Its own total leaves the vector index out in some versions
/// and includes it in others, so the parts are added up here.
const REDISEARCH_SIZES_MB: [&str; 9] = [
    "vector_index_sz_mb",
    "inverted_sz_mb",
    "offset_vectors_sz_mb",
    "doc_table_size_mb",
    "sortable_values_size_mb",
    "key_table_size_mb",
    "tag_overhead_sz_mb",
    "text_overhead_sz_mb",
    "geoshapes_sz_mb",
];

/// One node's part of an index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexInfo {
    /// Name of the index.
    pub name: String,
    /// Prefixes whose keys are indexed.
    pub prefixes: Vec<String>,
    /// Vectors in the index, where the module says so per attribute (valkey-search); else its documents. Only the
    /// former leaves out keys whose vector is missing or of a wrong size.
    pub docs: u64,
    /// Whether keys that existed before the index are still being taken in.
    pub indexing: bool,
    /// How far that is, 0..=1.
    pub percent_indexed: f64,
    /// Writes that are accepted but not yet in the index; always 0 for RediSearch, which indexes within the command.
    pub mutation_queue: u64,
    /// Keys that could not be indexed.
    pub failures: u64,
    /// The module's word for its state, where it has one: `ready`, `backfill_in_progress`, `backfill_paused_by_oom`.
    pub state: Option<String>,
    /// Memory of this index, bytes; valkey-search does not say.
    pub index_bytes: Option<u64>,
    /// The vector attribute's dimensions.
    pub dims: Option<u64>,
    /// The vector attribute's metric, in the module's word: `L2`, `COSINE`, `IP`.
    pub metric: Option<String>,
    /// HNSW M.
    pub m: Option<u64>,
    /// HNSW EF_CONSTRUCTION.
    pub ef_construction: Option<u64>,
}

impl IndexInfo {
    /// Whether every accepted write is in the index and nothing is being taken in.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.indexing && self.mutation_queue == 0
    }

    /// Whether indexing stands still for want of memory; such a backfill never ends by itself.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.state.as_deref().is_some_and(|state| state.contains("paused"))
    }
}

/// Reads the reply to `FT.INFO index`.
///
/// # Errors
/// [`SearchError::Refused`] for an error reply, [`SearchError::Shape`] when a field that the module always sends is
/// absent.
pub fn parse_info(reply: &Frame<'_>, module: SearchModule) -> Result<IndexInfo, SearchError> {
    if let Frame::Error(text) = reply {
        return Err(SearchError::Refused { module, text: String::from_utf8_lossy(text).into_owned() });
    }
    let number = |key: &str| {
        reply
            .get(key)
            .and_then(Frame::as_f64)
            .ok_or_else(|| SearchError::shape(module, format!("no number `{key}` in FT.INFO")))
    };
    let name = text(reply.get("index_name"))
        .ok_or_else(|| SearchError::shape(module, "no `index_name` in FT.INFO".to_owned()))?;
    let prefixes = reply
        .get("index_definition")
        .and_then(|definition| definition.get("prefixes"))
        .and_then(Frame::as_array)
        .map(|prefixes| prefixes.iter().filter_map(|prefix| text(Some(prefix))).collect())
        .unwrap_or_default();
    let vector = reply
        .get("attributes")
        .and_then(Frame::as_array)
        .and_then(|all| all.iter().find(|a| a.get("type").and_then(Frame::as_str) == Some("VECTOR")));
    let documents = count::from_f64(number("num_docs")?);
    let failures = count::from_f64(number("hash_indexing_failures")?);
    let whole = |frame: Option<&Frame<'_>>| frame.and_then(Frame::as_i64).map(count::to_u64);

    Ok(match module {
        SearchModule::ValkeySearch => {
            let index = vector.and_then(|vector| vector.get("index"));
            let algorithm = index.and_then(|index| index.get("algorithm"));
            let state = text(reply.get("state"));
            IndexInfo {
                name,
                prefixes,
                docs: whole(index.and_then(|index| index.get("size"))).unwrap_or(documents),
                indexing: number("backfill_in_progress")? != 0.0
                    || state.as_deref().is_some_and(|s| s != "ready"),
                percent_indexed: number("backfill_complete_percent")?,
                mutation_queue: count::from_f64(number("mutation_queue_size")?),
                failures,
                state,
                index_bytes: None,
                dims: whole(index.and_then(|index| index.get("dimensions"))),
                metric: text(index.and_then(|index| index.get("distance_metric"))),
                m: whole(algorithm.and_then(|algorithm| algorithm.get("m"))),
                ef_construction: whole(algorithm.and_then(|algorithm| algorithm.get("ef_construction"))),
            }
        }
        SearchModule::RediSearch => {
            let mebibytes: f64 = REDISEARCH_SIZES_MB
                .iter()
                .filter_map(|key| reply.get(key).and_then(Frame::as_f64))
                .filter(|size| size.is_finite())
                .sum();
            let has_size = reply.get("vector_index_sz_mb").is_some();
            IndexInfo {
                name,
                prefixes,
                docs: documents,
                indexing: number("indexing")? != 0.0,
                percent_indexed: number("percent_indexed")?,
                mutation_queue: 0,
                failures,
                state: None,
                index_bytes: has_size.then(|| count::from_f64(mebibytes * MEBIBYTE)),
                dims: whole(vector.and_then(|vector| vector.get("dim"))),
                metric: text(vector.and_then(|vector| vector.get("distance_metric"))),
                m: whole(vector.and_then(|vector| vector.get("M"))),
                ef_construction: whole(vector.and_then(|vector| vector.get("ef_construction"))),
            }
        }
    })
}

fn text(frame: Option<&Frame<'_>>) -> Option<String> {
    frame.and_then(Frame::as_str).map(str::to_owned)
}
