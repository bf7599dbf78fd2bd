//! How to say one thing to two search modules: create an index, ask for neighbours, ask how the index is.
//!
//! valkey-search and RediSearch share command names and differ in order, shape and wording (the recorded replies in
//! `tests/fixtures/replies` show where). The coordinator creates and watches indexes with this, lanes encode queries
//! and read answers. Pure: arguments out, [`Frame`]s in. Law: the same index gives the same [`Hit`]s and the same
//! [`IndexInfo`] whichever module and protocol carried them.

mod detect;
mod info;
mod knn;
#[cfg(test)]
mod tests;

pub use detect::{Detected, detect_module};
pub use info::{IndexInfo, parse_info};
pub use knn::{Hit, Knn, SCORE_ALIAS, knn_args, knn_command, merge_knn, parse_keys, parse_knn};

use std::fmt;

use crate::attributes::{Attributes, NUMBER_FIELD, TAG_FIELD};
use crate::phase::SearchModule;
use crate::scenario::{Algorithm, Metric, RowKind};

/// Why a reply of a search module cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The module refused the command.
    #[error("{module} answered: {text}")]
    Refused {
        /// Who answered.
        module: SearchModule,
        /// Its words.
        text: String,
    },
    /// The reply is not of a shape that this module is known to give.
    #[error("cannot read the reply of {module}: {what}")]
    Shape {
        /// Who answered.
        module: SearchModule,
        /// What is wrong with it.
        what: String,
    },
}

impl SearchError {
    fn shape(module: SearchModule, what: impl Into<String>) -> Self {
        Self::Shape { module, what: what.into() }
    }
}

impl fmt::Display for SearchModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ValkeySearch => "valkey-search",
            Self::RediSearch => "RediSearch",
        })
    }
}

/// An index over FLOAT32 vectors in one field of hashes or JSON documents.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexShape<'a> {
    /// What is indexed.
    pub on: RowKind,
    /// Keys that begin with it are indexed.
    pub prefix: &'a str,
    /// Hash field of the vector, also the attribute's name in queries.
    pub field: &'a str,
    /// How it finds neighbours.
    pub algorithm: Algorithm,
    /// Dimensions of a vector.
    pub dims: u32,
    /// Distance metric.
    pub metric: Metric,
    /// Links per node and layer (HNSW M).
    pub m: u32,
    /// Candidates looked at while a vector is inserted.
    pub ef_construction: u32,
    /// What rows carry beside the vector, so that queries can ask among a part of them.
    pub attributes: Attributes,
}

/// `FT.CREATE` for an index; both modules take the same words.
#[must_use]
pub fn create_args(index: &str, shape: &IndexShape<'_>) -> Vec<Vec<u8>> {
    let mut attributes = vec![
        ("TYPE", "FLOAT32".to_owned()),
        ("DIM", shape.dims.to_string()),
        ("DISTANCE_METRIC", metric_word(shape.metric).to_owned()),
    ];
    let algorithm = match shape.algorithm {
        Algorithm::Flat => "FLAT",
        Algorithm::Hnsw => {
            attributes.push(("M", shape.m.to_string()));
            attributes.push(("EF_CONSTRUCTION", shape.ef_construction.to_string()));
            "HNSW"
        }
    };
    let kind = match shape.on {
        RowKind::Hash => "HASH",
        RowKind::Json => "JSON",
    };
    let mut args: Vec<Vec<u8>> =
        ["FT.CREATE", index, "ON", kind, "PREFIX", "1", shape.prefix, "SCHEMA"].map(Vec::from).into();
    push_field(&mut args, shape.on, shape.field, "");
    args.extend(["VECTOR", algorithm].map(Vec::from));
    args.push((attributes.len() * 2).to_string().into_bytes());
    for (name, value) in attributes {
        args.push(name.as_bytes().to_vec());
        args.push(value.into_bytes());
    }
    let kinds =
        [(shape.attributes.has_tags(), TAG_FIELD, "TAG"), (shape.attributes.number, NUMBER_FIELD, "NUMERIC")];
    for (_, field, kind) in kinds.into_iter().filter(|(has, ..)| *has) {
        // A document has its tags as an array.
        push_field(&mut args, shape.on, field, if kind == "TAG" { "[*]" } else { "" });
        args.push(kind.as_bytes().to_vec());
    }
    args
}

/// A field of the schema: of a document it has a path and a name.
fn push_field(args: &mut Vec<Vec<u8>>, on: RowKind, field: &str, elements: &str) {
    if on == RowKind::Json {
        args.extend([format!("$.{field}{elements}").into_bytes(), Vec::from("AS")]);
    }
    args.push(field.as_bytes().to_vec());
}

fn metric_word(metric: Metric) -> &'static str {
    match metric {
        Metric::L2 => "L2",
        Metric::Cosine => "COSINE",
        Metric::InnerProduct => "IP",
    }
}

/// Whether an error text says that the index does not exist (`FT.SEARCH`, `FT.INFO`, `FT.DROPINDEX`).
#[must_use]
pub fn is_missing_index_error(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("no such index")
        || text.contains("unknown index name")
        || (text.contains("index with name") && text.contains("not found"))
}

/// Whether an error text says that `FT.CREATE` found an index of that name.
#[must_use]
pub fn is_existing_index_error(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("index") && text.contains("already exists")
}
