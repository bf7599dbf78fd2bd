//! What every part of vst must agree on.
//!
//! Pure: no sockets and no runtime. Bytes of data sets come through an `object_store::ObjectStore` that the caller
//! opened. Whoever runs a fleet, drives load or reads results builds on these types, so a change here is a change of
//! contract.

pub mod attributes;
pub mod batch;
pub mod clock;
pub mod content;
pub mod count;
pub mod dataset;
pub mod deed;
pub mod entry;
pub mod exit;
pub mod expand;
pub mod ground_truth;
pub mod ids;
pub mod keys;
pub mod latency;
pub mod live_set;
pub mod mix;
pub mod outcome;
pub mod phase;
pub mod ranges;
pub mod recall;
pub mod resp;
pub mod run_dir;
pub mod scenario;
pub mod schedule;
pub mod search;
pub mod seed;
pub mod shares;
