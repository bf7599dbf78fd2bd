//! The bytes of one connection: TCP or a Unix socket, plain or encrypted.
//!
//! Read and written by `connection` as if it were a socket that never blocks. Law: what is read is what the peer wrote, in
//! order, whatever the encryption; bytes that are taken are sent without being offered again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;
use rustls::ClientConnection;

use crate::topology::Credentials;

/// A peer that acknowledges nothing for this long is gone.
const DEAD_AFTER: std::time::Duration = std::time::Duration::from_secs(15);
const DEAD_AFTER_MS: u32 = 15_000;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An address, and the name under which the server has to have its certificate.
    Tcp { address: SocketAddr, name: String },
    /// A socket on this machine.
    Unix(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { address, .. } => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket with its encryption, where there is one.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
}

impl Wire {
    /// Begins to connect.
    pub(super) fn open(
        place: &Place,
        credentials: &Credentials,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, super::Error> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(match place {
            Place::Tcp { address, name } => {
                let tls = credentials.tls.as_ref().map(|tls| tls.connection(name)).transpose();
                let tls = tls.map_err(|e| super::Error::Untrusted(vst_access::explain(&e)))?;
                let mut stream = TcpStream::connect(*address)?;
                registry.register(&mut stream, token, interest)?;
                Self { socket: Socket::Tcp(stream), tls: tls.map(Box::new) }
            }
            Place::Unix(path) => {
                let mut stream = UnixStream::connect(path)?;
                registry.register(&mut stream, token, interest)?;
                Self { socket: Socket::Unix(stream), tls: None }
            }
        })
    }

    /// Whether the connection stands. Asked when the socket may be written to for the first time.
    pub(super) fn connected(&self) -> io::Result<bool> {
        let stream = match &self.socket {
            Socket::Tcp(stream) => stream,
            Socket::Unix(stream) => return stream.take_error()?.map_or(Ok(true), Err),
        };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(e) => return Err(e),
        }
        stream.set_nodelay(true)?;
        // A host that vanished answers nothing and closes nothing: without these its commands are owed for ever.
        // A server that only hangs still acknowledges at the kernel, and is not cut off by them.
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, DEAD_AFTER)?;
        sockopt::set_tcp_user_timeout(stream, DEAD_AFTER_MS)?;
        Ok(true)
    }

    /// Whether a read that does not fill its space has emptied the socket.
    pub(super) fn tells_all(&self) -> bool {
        self.tls.is_none()
    }

    /// Sends what encryption still holds.
    pub(super) fn flush(&mut self) -> Result<(), super::Error> {
        match &mut self.tls {
            Some(tls) => send(tls, &mut self.socket).map(drop),
            None => Ok(()),
        }
    }

    /// Takes as much as it can; gives how much.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, super::Error> {
        let Some(tls) = &mut self.tls else {
            return write_plain(&mut self.socket, bytes);
        };
        let mut taken = 0;
        while send(tls, &mut self.socket)?
            && let Some(rest) = bytes.get(taken..)
            && !rest.is_empty()
        {
            match tls.writer().write(rest)? {
                // As much as it holds before the handshake.
                0 => break,
                n => taken += n,
            }
        }
        Ok(taken)
    }

    /// Reads as a socket does: 0 at the end, `WouldBlock` when nothing is there.
    pub(super) fn read(&mut self, space: &mut [u8]) -> Result<usize, super::Error> {
        let Some(tls) = &mut self.tls else {
            return Ok(self.socket.read(space)?);
        };
        loop {
            match tls.reader().read(space) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // Closed without a farewell: whether a reply was cut off is seen from its bytes.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return Ok(read?),
            }
            if tls.read_tls(&mut self.socket)? == 0 && tls.is_handshaking() {
                return Err(super::Error::Closed);
            }
            if let Err(error) = tls.process_new_packets() {
                // The peer is told why; that it hears it is not needed.
                let _ = send(tls, &mut self.socket);
                return Err(super::Error::Untrusted(vst_access::explain(&error)));
            }
            send(tls, &mut self.socket)?;
        }
    }

    /// Takes the socket out of the poll set.
    pub(super) fn close(mut self, registry: &Registry) {
        // The kernel forgets a closed socket by itself; an error here changes nothing.
        let _ = match &mut self.socket {
            Socket::Tcp(stream) => registry.deregister(stream),
            Socket::Unix(stream) => registry.deregister(stream),
        };
    }
}

fn write_plain(socket: &mut Socket, bytes: &[u8]) -> Result<usize, super::Error> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..)
        && !rest.is_empty()
    {
        match socket.write(rest) {
            Ok(0) => return Err(super::Error::Closed),
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(written)
}

/// Sends encrypted bytes; gives whether the socket took all of them.
fn send(tls: &mut ClientConnection, socket: &mut Socket) -> Result<bool, super::Error> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(0) => return Err(super::Error::Closed),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

impl Read for Socket {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(space),
            Self::Unix(stream) => stream.read(space),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(bytes),
            Self::Unix(stream) => stream.write_vectored(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
