//! From what a node answered to rows of tables `memory` and `allocator`.

use redis::Value;
use vst_common::batch::Sample;
use vst_common::batch::allocator::AllocatorRow;
use vst_common::batch::memory::{MemoryRow, Process, parse_info};
use vst_common::phase::SearchModule;
use vst_common::resp::Frame;
use vst_common::search::{self, IndexInfo};

use super::jemalloc::Statistics;

/// Where search modules put the memory they use into `INFO search`: valkey-search, RediSearch.
const MODULE_MEMORY: [&str; 2] = ["search_used_memory_bytes", "search_used_memory_indexes"];
/// Where valkey-search puts the memory that it could give back.
const MODULE_RECLAIMABLE: &str = "search_index_reclaimable_memory";

/// What a node answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// `INFO server memory keyspace search clients stats cpu`.
    pub(super) info: String,
    /// `FT.INFO` of its index, where there is one.
    pub(super) index: Option<IndexInfo>,
    /// Its process, where that is on this machine.
    pub(super) process: Option<Process>,
}

/// A row without figures.
pub(super) fn nothing(sample: Sample, address: String) -> MemoryRow {
    MemoryRow {
        sample,
        address,
        keys: None,
        info: std::collections::BTreeMap::new(),
        module_used_memory_bytes: None,
        module_reclaimable_bytes: None,
        index_size_bytes: None,
        index_docs: None,
        index_failures: None,
        indexing: None,
        mutation_queue: None,
        process: None,
    }
}

/// The sample of a node that gave no figures, and why.
fn without(sample: Sample, reason: String) -> Sample {
    Sample { missing: Some(reason), ..sample }
}

/// Puts an answer, or the reason for its absence, into a row without figures.
pub(super) fn fill(row: MemoryRow, answer: Result<Answer, String>) -> MemoryRow {
    let Answer { info, index, process } = match answer {
        Ok(answer) => answer,
        Err(reason) => return MemoryRow { sample: without(row.sample, reason), ..row },
    };
    let info = parse_info(&info);
    if !info.contains_key("used_memory") {
        let reason = String::from("INFO memory has no used_memory");
        return MemoryRow { sample: without(row.sample, reason), ..row };
    }
    let number = |name: &str| info.get(name).and_then(|text| text.parse::<u64>().ok());
    MemoryRow {
        // A node without keys has no line for the database.
        keys: Some(info.get("db0").map_or(0, |line| keys(line).unwrap_or(0))),
        module_used_memory_bytes: MODULE_MEMORY.iter().find_map(|name| number(name)),
        module_reclaimable_bytes: number(MODULE_RECLAIMABLE),
        index_size_bytes: index.as_ref().and_then(|i| i.index_bytes),
        index_docs: index.as_ref().map(|i| i.docs),
        index_failures: index.as_ref().map(|i| i.failures),
        indexing: index.as_ref().map(|i| i.indexing),
        mutation_queue: index.as_ref().map(|i| i.mutation_queue),
        process,
        info,
        ..row
    }
}

/// A row for each size class, or one with the reason for their absence.
pub(super) fn by_class(sample: Sample, answer: Result<Statistics, String>) -> Vec<AllocatorRow> {
    match answer {
        Ok(Statistics { totals, classes }) => classes
            .into_iter()
            .map(|class| AllocatorRow { sample: sample.clone(), totals: Some(totals), class: Some(class) })
            .collect(),
        Err(reason) => vec![AllocatorRow { sample: without(sample, reason), totals: None, class: None }],
    }
}

/// Reads a reply to `FT.INFO`; `None` where it is not one.
pub(super) fn index_info(reply: &Value) -> Option<IndexInfo> {
    let frame = frame_of(reply);
    let queued = frame.get("mutation_queue_size").is_some();
    let module = if queued { SearchModule::ValkeySearch } else { SearchModule::RediSearch };
    search::parse_info(&frame, module).ok()
}

/// `keys=6,expires=0,...`
fn keys(line: &str) -> Option<u64> {
    line.split(',').find_map(|field| field.strip_prefix("keys="))?.parse().ok()
}

fn frame_of(value: &Value) -> Frame<'_> {
    match value {
        Value::Int(n) => Frame::Integer(*n),
        Value::BulkString(text) => Frame::Bulk(text),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Frame::Simple(text.as_bytes()),
        Value::Okay => Frame::Simple(b"OK"),
        Value::Array(items) | Value::Set(items) => Frame::Array(items.iter().map(frame_of).collect()),
        Value::Map(pairs) => Frame::Map(pairs.iter().map(|(k, v)| (frame_of(k), frame_of(v))).collect()),
        Value::Double(x) => Frame::Double(*x),
        Value::Boolean(b) => Frame::Boolean(*b),
        // Nil, and kinds that no reply to FT.INFO has.
        _ => Frame::Null,
    }
}
