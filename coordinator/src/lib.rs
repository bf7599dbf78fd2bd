//! The coordinator: plans a run, gathers a fleet, commands its phases, takes in what it measured and keeps the log.
//!
//! Read it in this order: [`plan`] turns a scenario and the facts of data and target into phases; [`run`] is the state
//! machine that goes through them, pure, fed with events and answering with actions; [`serve`] is the thin shell
//! around it that does what the actions say, with [`session`] towards workers and the command line.

pub mod archive;
mod histogram;
pub mod intake;
pub mod leases;
pub mod local_cluster;
pub mod plan;
pub mod roster;
pub mod run;
pub mod run_log;
mod secret;
pub mod serve;
pub mod session;
mod site;
pub mod status;
pub mod target;
