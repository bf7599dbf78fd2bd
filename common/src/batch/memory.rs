//! Table `memory`: what every node said about its memory at a common tick.
//!
//! Written by `worker::sampler` (one worker per node) and read by analysis, which sums nodes at equal ticks. Every
//! numeric field of `INFO MEMORY` is a column of the same name, beside what tells how busy the node was and what its
//! process took of the machine. Law: a node that did not answer is a row whose `missing` says why and whose figures are
//! null, never zero.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::columns::{Columns, Reader, nobody};
use super::sample::{self, Sample, Samples};
use super::table::{Error, Stamp, Table};
use crate::count;

/// The whole-number fields of `INFO MEMORY`: bytes, or counts where the name says so. Differences can be negative.
pub const INFO_INTEGERS: [&str; 40] = [
    "used_memory",
    "used_memory_rss",
    "used_memory_peak",
    "used_memory_overhead",
    "used_memory_startup",
    "used_memory_dataset",
    "allocator_allocated",
    "allocator_active",
    "allocator_resident",
    "allocator_muzzy",
    "total_system_memory",
    "used_memory_lua",
    "used_memory_vm_eval",
    "used_memory_vm_functions",
    "used_memory_vm_total",
    "used_memory_scripts_eval",
    "used_memory_scripts",
    "used_memory_functions",
    "number_of_cached_scripts",
    "number_of_functions",
    "number_of_libraries",
    "maxmemory",
    "allocator_frag_bytes",
    "allocator_rss_bytes",
    "rss_overhead_bytes",
    "mem_fragmentation_bytes",
    "mem_not_counted_for_evict",
    "mem_replication_backlog",
    "mem_total_replication_buffers",
    "mem_replicas_repl_buffer",
    "mem_clients_slaves",
    "mem_clients_normal",
    "mem_cluster_links",
    "mem_cluster_slot_import",
    "mem_cluster_slot_export",
    "mem_aof_buffer",
    "mem_overhead_db_hashtable_rehashing",
    "active_defrag_running",
    "lazyfree_pending_objects",
    "lazyfreed_objects",
];

/// The fractions of `INFO MEMORY`; those called `_perc` are percentages.
pub const INFO_RATIOS: [&str; 6] = [
    "used_memory_peak_perc",
    "used_memory_dataset_perc",
    "allocator_frag_ratio",
    "allocator_rss_ratio",
    "rss_overhead_ratio",
    "mem_fragmentation_ratio",
];

/// Whole-number fields of `INFO CLIENTS` and `INFO STATS`: who else is there, and what the node had to do.
pub const LOAD_INTEGERS: [&str; 9] = [
    "connected_clients",
    "blocked_clients",
    "maxclients",
    "total_connections_received",
    "total_commands_processed",
    "total_net_input_bytes",
    "total_net_output_bytes",
    "evicted_keys",
    "expired_keys",
];

/// Fields of `INFO CPU`, seconds since the server's start.
pub const CPU_SECONDS: [&str; 4] =
    ["used_cpu_sys", "used_cpu_user", "used_cpu_sys_main_thread", "used_cpu_user_main_thread"];

const ALLOCATOR: &str = "mem_allocator";

/// One row of `memory`.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryRow {
    /// The node.
    pub sample: Sample,
    /// Its `host:port`.
    pub address: String,
    /// Keys that it holds (`DBSIZE`).
    pub keys: Option<u64>,
    /// `INFO MEMORY`, `CLIENTS`, `STATS` and `CPU` as the server wrote them; fields that are no column are dropped, values that do not parse are
    /// null.
    pub info: BTreeMap<String, String>,
    /// Memory that the search module says it uses, bytes.
    pub module_used_memory_bytes: Option<u64>,
    /// Memory that it could give back, bytes.
    pub module_reclaimable_bytes: Option<u64>,
    /// Size of the index, bytes.
    pub index_size_bytes: Option<u64>,
    /// Vectors in the index.
    pub index_docs: Option<u64>,
    /// Rows that it failed to index.
    pub index_failures: Option<u64>,
    /// Whether a backfill is running.
    pub indexing: Option<bool>,
    /// Writes that wait to be indexed.
    pub mutation_queue: Option<u64>,
    /// The server's process; absent where the server runs on another machine than its sampler.
    pub process: Option<Process>,
}

/// What the operating system says of a server's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its memory that is in RAM, bytes.
    pub rss_bytes: u64,
    /// Its memory that was swapped out, bytes.
    pub swap_bytes: u64,
    /// Pages since its start that were mapped without a read from disk.
    pub minor_faults: u64,
    /// Pages since its start that had to be read from disk or swap.
    pub major_faults: u64,
}

impl AsRef<Sample> for MemoryRow {
    fn as_ref(&self) -> &Sample {
        &self.sample
    }
}

/// The fields of one or more `INFO` sections: lines `name:value`; headings and blank lines are skipped.
#[must_use]
pub fn parse_info(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.trim_end().split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A whole number of `INFO`; one past Int64 saturates.
fn integer(row: &MemoryRow, name: &str) -> Option<i64> {
    let text = row.info.get(name)?;
    text.parse::<i64>().ok().or_else(|| text.parse::<u64>().ok().map(count::to_i64))
}

/// A fraction of `INFO`, with or without a percent sign; what is not finite is no value.
fn ratio(row: &MemoryRow, name: &str) -> Option<f64> {
    let text = row.info.get(name)?;
    text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok().filter(|x| x.is_finite())
}

fn integers() -> impl Iterator<Item = &'static str> {
    INFO_INTEGERS.into_iter().chain(LOAD_INTEGERS)
}

fn ratios() -> impl Iterator<Item = &'static str> {
    INFO_RATIOS.into_iter().chain(CPU_SECONDS)
}

/// The columns of `memory`.
pub(super) fn schema() -> SchemaRef {
    columns(&nobody(), &[]).schema()
}

fn columns<'a>(stamp: &'a Stamp, rows: &'a [MemoryRow]) -> Columns<'a, MemoryRow> {
    let mut columns = sample::lead(Columns::new(stamp, rows))
        .text("address", |r: &MemoryRow| &r.address)
        .int_or_null("keys", |r| r.keys);
    for name in integers() {
        columns = columns.signed_or_null(name, |r| integer(r, name));
    }
    for name in ratios() {
        columns = columns.ratio_or_null(name, |r| ratio(r, name));
    }
    columns
        .text_or_null(ALLOCATOR, |r| r.info.get(ALLOCATOR).map(String::as_str))
        .int_or_null("module_used_memory_bytes", |r| r.module_used_memory_bytes)
        .int_or_null("module_reclaimable_bytes", |r| r.module_reclaimable_bytes)
        .int_or_null("index_size_bytes", |r| r.index_size_bytes)
        .int_or_null("index_docs", |r| r.index_docs)
        .int_or_null("index_failures", |r| r.index_failures)
        .int_or_null("indexing", |r| r.indexing.map(u64::from))
        .int_or_null("mutation_queue", |r| r.mutation_queue)
        .int_or_null("process_rss_bytes", |r| r.process.map(|p| p.rss_bytes))
        .int_or_null("process_swap_bytes", |r| r.process.map(|p| p.swap_bytes))
        .int_or_null("process_minor_faults", |r| r.process.map(|p| p.minor_faults))
        .int_or_null("process_major_faults", |r| r.process.map(|p| p.major_faults))
}

/// A batch of table `memory`.
///
/// # Errors
/// [`Error`] when the batch cannot be written.
pub fn to_batch(stamp: &Stamp, rows: &[MemoryRow]) -> Result<RecordBatch, Error> {
    columns(stamp, rows).finish()
}

/// The rows of a batch of table `memory`; `info` holds the fields that are columns, numbers written plainly.
///
/// # Errors
/// [`Error`] when the batch is of another schema or holds a value that no row can have.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<(Stamp, MemoryRow)>, Error> {
    let reader = Reader::new(Table::Memory, batch)?;
    let mut infos = vec![BTreeMap::new(); reader.rows()];
    for name in integers() {
        let column = reader.int(name)?;
        for (i, info) in infos.iter_mut().enumerate() {
            column.signed(i).map(|v| info.insert(name.to_owned(), v.to_string()));
        }
    }
    for name in ratios() {
        let column = reader.ratio(name)?;
        for (i, info) in infos.iter_mut().enumerate() {
            column.get(i).map(|v| info.insert(name.to_owned(), v.to_string()));
        }
    }
    let allocator = reader.text(ALLOCATOR)?;
    for (i, info) in infos.iter_mut().enumerate() {
        allocator.get(i).map(|v| info.insert(ALLOCATOR.to_owned(), v.to_owned()));
    }
    let samples = Samples::of(&reader)?;
    let address = reader.text("address")?;
    let keys = reader.int("keys")?;
    let module_used_memory_bytes = reader.int("module_used_memory_bytes")?;
    let module_reclaimable_bytes = reader.int("module_reclaimable_bytes")?;
    let index_size_bytes = reader.int("index_size_bytes")?;
    let index_docs = reader.int("index_docs")?;
    let index_failures = reader.int("index_failures")?;
    let indexing = reader.int("indexing")?;
    let mutation_queue = reader.int("mutation_queue")?;
    let process_rss_bytes = reader.int("process_rss_bytes")?;
    let process_swap_bytes = reader.int("process_swap_bytes")?;
    let process_minor_faults = reader.int("process_minor_faults")?;
    let process_major_faults = reader.int("process_major_faults")?;
    let stamps = reader.stamps()?.into_iter().zip(infos).enumerate();
    stamps
        .map(|(i, (stamp, info))| {
            let row = MemoryRow {
                sample: samples.at(i)?,
                address: address.at(i).to_owned(),
                keys: keys.get(i),
                info,
                module_used_memory_bytes: module_used_memory_bytes.get(i),
                module_reclaimable_bytes: module_reclaimable_bytes.get(i),
                index_size_bytes: index_size_bytes.get(i),
                index_docs: index_docs.get(i),
                index_failures: index_failures.get(i),
                indexing: indexing.get(i).map(|n| n != 0),
                mutation_queue: mutation_queue.get(i),
                process: process_rss_bytes.get(i).map(|rss_bytes| Process {
                    rss_bytes,
                    swap_bytes: process_swap_bytes.at(i),
                    minor_faults: process_minor_faults.at(i),
                    major_faults: process_major_faults.at(i),
                }),
            };
            Ok((stamp, row))
        })
        .collect()
}
