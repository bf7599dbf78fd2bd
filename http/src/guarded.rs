//! A listener that nobody can fill: so many connections at once, and each has to say something now and then.
//!
//! The state is shown by the process that does the work; whoever looks on must not be able to take its files. Law: at
//! most [`MOST`] connections are open, and one that was silent for [`SILENCE`] or open for [`LIFE`] is closed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at once; others wait to be taken.
const MOST: usize = 128;
/// A client that polls does so more often; one that begins a request has this long for the next piece of it.
const SILENCE: Duration = Duration::from_secs(20);
/// Whoever wants to stay connects anew.
const LIFE: Duration = Duration::from_secs(300);

/// The listener.
pub(crate) struct Guarded {
    listener: TcpListener,
    rooms: Arc<Semaphore>,
}

impl Guarded {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, rooms: Arc::new(Semaphore::new(MOST)) }
    }
}

impl Listener for Guarded {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        // Nobody closes the rooms.
        let room = Arc::clone(&self.rooms).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let until = Instant::now() + LIFE;
        (Visit { stream, silence: Box::pin(sleep(SILENCE)), until, _room: room }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection; it makes room when it is dropped.
pub(crate) struct Visit {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    until: Instant,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if read.is_ready() {
            let next = (Instant::now() + SILENCE).min(self.until);
            self.silence.as_mut().reset(next);
            return read;
        }
        self.silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Visit {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
