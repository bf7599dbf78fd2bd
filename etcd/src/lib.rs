//! Who is there and who leads, kept in etcd: registrations under a lease, and watching them.
//!
//! Workers register themselves and read the leader's address; a coordinator that leads writes it. Nothing that a run
//! cannot lose is kept here. Law: what is registered is there while its [`Registration`] lives and etcd can be reached,
//! and is gone at most one time-to-live after either ends; a registration that etcd forgot comes back by itself.

mod client;
mod fleet;
mod registration;
mod watch;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code, which changes with the generator; the .proto file documents it"
)]
pub(crate) mod rpc {
    tonic::include_proto!("etcdserverpb");
}

pub use client::{Client, Endpoints, Error, Tls};
pub use fleet::{Fleet, Leader, Leaders, Member, newest};
pub use registration::Registration;
pub use watch::{Members, Watching};
