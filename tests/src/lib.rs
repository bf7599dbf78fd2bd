//! Harness of the suites: real servers, the real binary, a run directory to look into.
//!
//! Every server and process that a test starts ends with the test, however it ends.

#![allow(clippy::expect_used, clippy::panic, reason = "a harness that cannot go on fails its test")]

pub mod campaign;
pub mod certificates;
pub mod cluster;
pub mod command;
pub mod course;
pub mod crowd;
pub mod etcd;
pub mod fleet;
pub mod hour;
pub mod layers;
pub mod liar;
pub mod library;
pub mod pair;
pub mod prometheus;
pub mod record;
pub mod run;
pub mod sink;
pub mod sparse;
pub mod stores;
pub mod synthetic;
pub mod web;
pub mod wire;
pub mod witness;
