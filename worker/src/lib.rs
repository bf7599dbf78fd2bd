//! A load worker: what one process of the fleet does.
//!
//! It registers with a coordinator, prepares a phase, drives the target on lanes (one thread each), samples the
//! target's memory beside the load and delivers measurements until the coordinator holds them. The async side
//! (`serve`, `session`, `fetch`, `uplink`, `sampler`) and the lanes exchange only the types of `work`.

mod connection;
pub mod fetch;
pub mod health;
pub mod lane;
mod pacer;
mod pipeline;
pub mod presence;
pub mod recall_probe;
mod recorder;
mod requests;
pub mod sampler;
pub mod serve;
pub mod session;
mod site;
pub mod topology;
pub mod uplink;
pub mod work;
