//! The tables of a run: their Arrow schemas and the rows that fill them.
//!
//! Workers and the coordinator write rows, the run log keeps batches of them, the archive turns them into Parquet and
//! analysis reads both. A column that any reader could want for a plot is plain; histograms are HDR V2 bytes. Each
//! row carries the identity of its delivery (`worker`, `generation`, `sequence`), so that "every acknowledged batch
//! once" can be checked by anyone with a Parquet reader.

pub mod allocator;
mod columns;
pub mod commandstats;
pub mod events;
pub mod health;
pub mod latency;
pub mod memory;
pub mod recall;
pub mod sample;
pub mod table;

/// A delivered batch has at most this many bytes as Arrow IPC: workers cut by it, intake refuses what is larger.
pub const DELIVERY_BYTES: usize = 4 << 20;
/// Metadata of the status that ends a delivery stream because of one batch: `generation/sequence` of that batch, which
/// will never be taken.
pub const REFUSED_BATCH: &str = "vst-refused-batch";

pub use sample::Sample;
pub use table::{Error, Stamp, Table};

#[cfg(test)]
mod tests;
