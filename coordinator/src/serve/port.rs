//! The port at which workers and the command line call: the fleet's service and the intake of batches, side by side.
//!
//! Taken by [`super::run`] at its start, opened once this coordinator leads, closed when the run is over. Laws: nobody else
//! gets an address that is held; an open call has a moment to end, and no longer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use vst_proto::fleet::fleet_server::FleetServer;
use vst_proto::security::Security;

use super::door::{self, Opening};
use super::{Error, FAREWELL, chain};
use crate::intake::{Intake, flight_service};
use crate::session::{FleetService, Hub};

/// Calls that wait to be taken.
const BACKLOG: u32 = 1024;

/// An address that is this process's, and closed.
pub(super) struct Held {
    address: String,
    socket: TcpSocket,
}

/// Takes an address, `host:port`, without opening it.
pub(super) async fn hold(address: &str) -> Result<Held, Error> {
    let bound = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for at in tokio::net::lookup_host(address).await? {
            let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Connections of a process before this one may still be fading away.
            socket.set_reuseaddr(true)?;
            match socket.bind(at) {
                Ok(()) => {
                    // Whoever reuses addresses could take one that does so too and does not listen.
                    socket.set_reuseaddr(false)?;
                    return Ok(socket);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    };
    let socket = bound.await.map_err(|source| Error::Listen { address: address.to_owned(), source })?;
    Ok(Held { address: address.to_owned(), socket })
}

impl Held {
    /// Opens it.
    pub(super) fn open(self) -> Result<TcpListener, Error> {
        let Self { address, socket } = self;
        let listening = socket.set_reuseaddr(true).and_then(|()| socket.listen(BACKLOG));
        listening.map_err(|source| Error::Listen { address, source })
    }
}

/// The largest message of a session, bytes: its histogram takes most of it.
const LARGEST_WORD_BYTES: usize = 1 << 20;

/// The port, served until [`Serving::end`].
pub(super) struct Serving {
    stop: tokio_util::sync::CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// Serves the fleet and takes in its batches. Connections are as `security` says, which was found usable before.
pub(super) fn serve(
    listener: TcpListener,
    hub: Arc<Hub>,
    intake: Intake,
    token: Option<String>,
    security: Security,
) -> Serving {
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let opening = if security.own.is_some() { Opening::Tls } else { Opening::Plain };
        let server = match security.server() {
            Ok(server) => server,
            Err(e) => {
                tracing::error!("the port is not served: {}", chain(&e));
                return;
            }
        };
        let served = server
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .http2_keepalive_timeout(Some(Duration::from_secs(30)))
            .add_service(
                FleetServer::new(FleetService::new(hub)).max_decoding_message_size(LARGEST_WORD_BYTES),
            )
            .add_service(flight_service(intake, token))
            .serve_with_incoming_shutdown(door::open(listener, opening), stopped.cancelled_owned())
            .await;
        if let Err(e) = served {
            tracing::error!("the port is no longer served: {}", chain(&e));
        }
    });
    Serving { stop, task }
}

impl Serving {
    /// Lets open calls end for a moment, then closes.
    pub(super) async fn end(self) {
        self.stop.cancel();
        let abort = self.task.abort_handle();
        if tokio::time::timeout(FAREWELL, self.task).await.is_err() {
            abort.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_held_is_closed_and_nobody_elses() {
        let held = hold("127.0.0.1:0").await.unwrap();
        let address = held.socket.local_addr().unwrap();
        let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let taken = TcpListener::bind(address).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(hold(&address.to_string()).await.is_err());
        let listener = held.open().unwrap();
        let (called, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        drop((called.unwrap(), accepted.unwrap()));
        drop(listener);
        // What is left of the connection keeps nobody away who comes after.
        hold(&address.to_string()).await.unwrap().open().unwrap();
    }
}
