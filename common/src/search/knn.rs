//! Asking for the k nearest neighbours, and reading and merging the answers.

use super::SearchError;
use crate::phase::SearchModule;
use crate::resp::{Command, Frame};
use crate::scenario::Returns;

/// The name under which a distance comes back; no field of a hash is called so.
pub const SCORE_ALIAS: &str = "__d";

/// One neighbour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit<K> {
    /// Its key: borrowed from the reply, or owned once it outlives it.
    pub key: K,
    /// Distance as the server computed it, in the metric's own unit (L2 is squared). NaN when the server gave none.
    pub distance: f64,
}

/// What is asked of one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knn<'a> {
    /// The vector's field.
    pub field: &'a str,
    /// Neighbours asked for.
    pub k: u32,
    /// Candidates looked at (HNSW EF_RUNTIME).
    pub ef_runtime: Option<u32>,
    /// The rows among which is asked, as an expression; all where absent.
    pub filter: Option<&'a str>,
    /// What comes back with each key.
    pub returns: Returns,
    /// Fields that a row has beside its vector.
    pub beside: &'a [&'static str],
}

impl<'a> Knn<'a> {
    /// The `k` nearest of all, with their distances.
    #[must_use]
    pub fn nearest(field: &'a str, k: u32, ef_runtime: Option<u32>) -> Self {
        Self { field, k, ef_runtime, filter: None, returns: Returns::Distance, beside: &[] }
    }
}

/// `FT.SEARCH` for the nearest keys, as the arguments before and after the query vector.
///
/// `timeout_ms` is the server's own limit, sent always: without it a module's default would cut answers short.
#[must_use]
pub fn knn_args(
    module: SearchModule,
    index: &str,
    knn: &Knn<'_>,
    timeout_ms: u64,
) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let Knn { field, k, ef_runtime, filter, returns, beside } = knn;
    let ef = ef_runtime.map(|ef| format!(" EF_RUNTIME {ef}")).unwrap_or_default();
    let among = filter.unwrap_or("*");
    let query = format!("{among}=>[KNN {k} @{field} $q{ef} AS {SCORE_ALIAS}]");
    let k = k.to_string();
    let timeout = timeout_ms.to_string();
    let before = ["FT.SEARCH", index, &query, "PARAMS", "2", "q"];
    let fields = (beside.len() + 2).to_string();
    // Both give ten hits unless LIMIT says otherwise, whatever k is. RediSearch orders by document, not by distance,
    // so its LIMIT needs SORTBY; valkey-search orders by distance and knows no field of the alias's name.
    let mut after = match returns {
        Returns::Nothing => vec!["NOCONTENT"],
        Returns::Distance => vec!["RETURN", "1", SCORE_ALIAS],
        Returns::Row => {
            ["RETURN", &fields, SCORE_ALIAS, field].into_iter().chain(beside.iter().copied()).collect()
        }
    };
    if module == SearchModule::RediSearch {
        after.extend(["SORTBY", SCORE_ALIAS]);
    }
    after.extend(["LIMIT", "0", &k, "TIMEOUT", &timeout, "DIALECT", "2"]);
    let owned = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
    (owned(&before), owned(&after))
}

/// [`knn_args`] encoded once; the query vector is its one hole.
#[must_use]
pub fn knn_command(module: SearchModule, index: &str, knn: &Knn<'_>, timeout_ms: u64) -> Command {
    let (before, after) = knn_args(module, index, knn, timeout_ms);
    let args: Vec<Option<&[u8]>> = before
        .iter()
        .map(|arg| Some(arg.as_slice()))
        .chain([None])
        .chain(after.iter().map(|arg| Some(arg.as_slice())))
        .collect();
    Command::new(&args)
}

/// The keys in the reply to a query that returns nothing else, in the server's order: their places stand for distances.
///
/// # Errors
/// As [`parse_knn`].
pub fn parse_keys<'a>(reply: &Frame<'a>, module: SearchModule) -> Result<Vec<Hit<&'a [u8]>>, SearchError> {
    let shape = |what: &str| SearchError::shape(module, what);
    let keys: Vec<&Frame<'a>> = match reply {
        Frame::Error(text) => {
            let text = String::from_utf8_lossy(text).into_owned();
            return Err(SearchError::Refused { module, text });
        }
        Frame::Map(_) => {
            let results = reply.get("results").and_then(Frame::as_array);
            let results = results.ok_or_else(|| shape("a search result without `results`"))?;
            results
                .iter()
                .map(|result| result.get("id"))
                .collect::<Option<_>>()
                .ok_or_else(|| shape("a result without `id`"))?
        }
        Frame::Array(items) => match items.split_first() {
            Some((Frame::Integer(_), keys)) => keys.iter().collect(),
            _ => return Err(shape("an array that does not begin with the number of results")),
        },
        _ => return Err(shape("neither an array nor a map")),
    };
    let places = (0_u32..).map(f64::from);
    keys.into_iter()
        .zip(places)
        .map(|(key, distance)| {
            let key = key.as_bytes().ok_or_else(|| shape("a key that is no string"))?;
            Ok(Hit { key, distance })
        })
        .collect()
}

/// The neighbours in the reply to [`knn_args`], nearest first; equal distances in the order of their keys.
///
/// Reads RESP2's flat array and RESP3's map. A document that vanished while the module answered has no fields: it
/// stays in the list, last, with the distance NaN, so that whoever judges the answer sees it.
///
/// # Errors
/// [`SearchError::Refused`] for an error reply, [`SearchError::Shape`] for anything that is no search result.
pub fn parse_knn<'a>(reply: &Frame<'a>, module: SearchModule) -> Result<Vec<Hit<&'a [u8]>>, SearchError> {
    parse_hits(reply, module, SCORE_ALIAS)
}

/// [`parse_knn`] with the name under which the distance comes.
pub(super) fn parse_hits<'a>(
    reply: &Frame<'a>,
    module: SearchModule,
    alias: &str,
) -> Result<Vec<Hit<&'a [u8]>>, SearchError> {
    let shape = |what: &str| SearchError::shape(module, what);
    let mut hits = match reply {
        Frame::Error(text) => {
            let text = String::from_utf8_lossy(text).into_owned();
            return Err(SearchError::Refused { module, text });
        }
        Frame::Map(_) => {
            let results = reply
                .get("results")
                .and_then(Frame::as_array)
                .ok_or_else(|| shape("a search result without `results`"))?;
            results
                .iter()
                .map(|result| {
                    let id = result.get("id").ok_or_else(|| shape("a result without `id`"))?;
                    hit(id, result.get("extra_attributes"), module, alias)
                })
                .collect::<Result<Vec<_>, _>>()?
        }
        Frame::Array(items) => {
            let (Frame::Integer(_), rows) = items.split_first().ok_or_else(|| shape("an empty array"))?
            else {
                return Err(shape("an array that does not begin with the number of results"));
            };
            let pairs = rows.chunks_exact(2);
            if !pairs.remainder().is_empty() {
                return Err(shape("keys and fields that do not alternate"));
            }
            pairs
                .map(|pair| match pair {
                    [key, fields] => hit(key, Some(fields), module, alias),
                    _ => Err(shape("keys and fields that do not alternate")),
                })
                .collect::<Result<Vec<_>, _>>()?
        }
        _ => return Err(shape("neither an array nor a map")),
    };
    sort(&mut hits);
    Ok(hits)
}

fn hit<'a>(
    key: &Frame<'a>,
    fields: Option<&Frame<'a>>,
    module: SearchModule,
    alias: &str,
) -> Result<Hit<&'a [u8]>, SearchError> {
    let key = key.as_bytes().ok_or_else(|| SearchError::shape(module, "a key that is no string"))?;
    let distance = match fields {
        None | Some(Frame::Null) => f64::NAN,
        Some(fields) => fields.get(alias).and_then(Frame::as_f64).ok_or_else(|| {
            let key = String::from_utf8_lossy(key);
            SearchError::shape(module, format!("no distance `{alias}` for key `{key}`"))
        })?,
    };
    // "-nan" would sort first.
    Ok(Hit { key, distance: if distance.is_nan() { f64::NAN } else { distance } })
}

fn sort<K: Ord>(hits: &mut [Hit<K>]) {
    hits.sort_by(|a, b| a.distance.total_cmp(&b.distance).then_with(|| a.key.cmp(&b.key)));
}

/// The `k` nearest of several nodes' answers, nearest first. The order in which the parts came does not matter.
#[must_use]
pub fn merge_knn<K: Ord>(parts: impl IntoIterator<Item = Vec<Hit<K>>>, k: usize) -> Vec<Hit<K>> {
    let mut hits: Vec<Hit<K>> = parts.into_iter().flatten().collect();
    sort(&mut hits);
    hits.truncate(k);
    hits
}
