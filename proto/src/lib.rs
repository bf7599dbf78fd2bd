//! The wire contract between coordinator, workers and the command line, and the certificates under it; no logic.

pub mod security;

/// Generated from `fleet/v1/fleet.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code, which changes with the generator; the .proto file documents it"
)]
pub mod fleet {
    tonic::include_proto!("vst.fleet.v1");
}
