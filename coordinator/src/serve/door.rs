//! Who gets in through the fleet's port: connections that have said enough to be judged, and no more than there are
//! files for.
//!
//! In front of the gRPC server, which tells at once whoever begins wrongly and waits for ever for whoever does not go
//! on. Law: a connection that has not sent the whole beginning of HTTP/2 or TLS in time, or something else, is closed
//! before anything of it is read; whatever comes, files are left for the run log and the target.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use vst_common::count;

/// What every HTTP/2 client sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kind and length of the record that a TLS client sends first.
const RECORD: usize = 5;
const HANDSHAKE: u8 = 22;
/// A record is no longer.
const LONGEST_RECORD: usize = 16 << 10;
/// For it to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks at a connection that has sent a part of it.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Files that connections never take: log, parts, the target's connections, the HTTP port.
const KEPT_BACK: u64 = 256;
/// Connections at once where the limit of open files is larger or unknown.
const MOST: u64 = 1 << 16;
/// Connections that wait for the server to take them.
const WAITING: usize = 64;
/// When the system has no file for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// With HTTP/2 itself.
    Plain,
    /// With a handshake.
    Tls,
}

impl Opening {
    /// Whether the server can tell from these bytes how to go on.
    fn is_told(self, first: &[u8]) -> bool {
        match (self, first) {
            (_, []) => false,
            (Self::Plain, first) => first.len() >= PREFACE.len() || !PREFACE.starts_with(first),
            (Self::Tls, [HANDSHAKE, _, _, high, low, rest @ ..]) => {
                rest.len() >= usize::from(u16::from_be_bytes([*high, *low])).min(LONGEST_RECORD)
            }
            (Self::Tls, [HANDSHAKE, ..]) => false,
            (Self::Tls, _) => true,
        }
    }
}

/// A connection that came in; it makes room when it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    stream: TcpStream,
    _room: OwnedSemaphorePermit,
}

/// The connections of a listener that may come in, in the order in which they show that they may.
pub(super) fn open(listener: TcpListener, opening: Opening) -> ReceiverStream<io::Result<Guest>> {
    let (guests, coming) = mpsc::channel(WAITING);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = files.saturating_sub(KEPT_BACK).max(files / 2).min(MOST);
    tokio::spawn(attend(listener, opening, count::index(most), guests));
    ReceiverStream::new(coming)
}

async fn attend(
    listener: TcpListener,
    opening: Opening,
    most: usize,
    guests: mpsc::Sender<io::Result<Guest>>,
) {
    let rooms = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            () = guests.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::debug!("a connection was not taken: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(room) = Arc::clone(&rooms).try_acquire_owned() else {
            tracing::warn!(
                "{most} connections are open: another one is closed; raise the limit of open files"
            );
            continue;
        };
        let guests = guests.clone();
        tokio::spawn(async move {
            if matches!(tokio::time::timeout(PATIENCE, says_enough(&stream, opening)).await, Ok(true)) {
                // An order to a worker is small and must not wait for more to say.
                let _ = stream.set_nodelay(true);
                // A server that has ended takes nobody.
                let _ = guests.send(Ok(Guest { stream, _room: room })).await;
            }
        });
    }
}

/// Looks at the first bytes without taking them, until they are enough; `false` when no more will come.
async fn says_enough(stream: &TcpStream, opening: Opening) -> bool {
    let mut first = vec![0; RECORD + LONGEST_RECORD];
    loop {
        match stream.peek(&mut first).await {
            Ok(0) | Err(_) => return false,
            Ok(n) if opening.is_told(first.get(..n).unwrap_or_default()) => return true,
            Ok(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

impl Connected for Guest {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn whoever_begins_wrongly_is_told_and_whoever_begins_rightly_has_to_go_on() {
        for n in 0..PREFACE.len() {
            assert!(!Opening::Plain.is_told(&PREFACE[..n]), "{n} bytes");
        }
        assert!(Opening::Plain.is_told(PREFACE));
        assert!(Opening::Plain.is_told(b"G") && Opening::Plain.is_told(&[HANDSHAKE]));
        let hello = [&[HANDSHAKE, 3, 1, 1, 2][..], &[7; 258]].concat();
        for n in 0..hello.len() {
            assert!(!Opening::Tls.is_told(&hello[..n]), "{n} bytes");
        }
        assert!(Opening::Tls.is_told(&hello) && Opening::Tls.is_told(b"P"));
    }

    #[tokio::test]
    async fn who_says_nothing_keeps_nobody_out_and_what_was_said_is_still_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut guests = open(listener, Opening::Plain);
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        for byte in PREFACE {
            slow.write_all(&[*byte]).await.unwrap();
        }
        let mut guest = guests.next().await.unwrap().unwrap();
        let mut first = [0; 24];
        guest.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, PREFACE);
    }
}
