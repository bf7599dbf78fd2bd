//! The wire contract between coordinator, workers and the command line; no logic.

/// Generated from `fleet/v1/fleet.proto`.
#[expect(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; the .proto file documents it"
)]
#[allow(clippy::disallowed_methods, unreachable_pub, reason = "generated code")]
pub mod fleet {
    tonic::include_proto!("vst.fleet.v1");
}
