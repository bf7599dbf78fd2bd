//! Harness of the suites: real servers, the real binary, a run directory to look into.
//!
//! Every server and process that a test starts ends with the test, however it ends.

pub mod cluster;
pub mod command;
pub mod layers;
pub mod run;
