//! One non-blocking connection of a lane: connect, log in, write, read whole replies.
//!
//! Owned by `lane`, which tells it when its socket is ready. Replies of the login are handled here; every other whole
//! reply goes to the caller. Reads are edge-triggered: a read that does not fill its space has emptied the socket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;
use vst_common::resp::{ScanError, Scanner, push_args};

use crate::topology::Credentials;

/// Space for replies before it grows to hold a longer one, bytes.
const READ_SPACE: usize = 16 << 10;

/// A peer that acknowledges nothing for this long is gone.
const DEAD_AFTER: std::time::Duration = std::time::Duration::from_secs(15);
const DEAD_AFTER_MS: u32 = 15_000;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operating system says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer closed it.
    #[error("the server closed the connection")]
    Closed,
    /// The peer does not speak RESP.
    #[error("not a RESP server: {0}")]
    Protocol(#[from] ScanError),
    /// A reply too many.
    #[error(transparent)]
    Unasked(#[from] crate::pipeline::Unasked),
    /// Its node owns no slot any more, and owes an answer for longer than requests wait.
    #[error("the node owns no slots any more and does not answer")]
    Useless,
    /// The login was refused.
    #[error("login refused: {0}; check the user and VST_PASSWORD")]
    Login(String),
}

/// What became of a readiness event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Still connecting or logging in, or nothing special.
    Same,
    /// Ready for requests since this event.
    Ready,
}

enum State {
    Connecting,
    /// Replies of the login that are still to come; the first is AUTH's if there is a password.
    Greeting {
        left: usize,
        authenticates: bool,
    },
    Ready,
}

/// A socket with its read buffer.
pub(crate) struct Connection {
    stream: TcpStream,
    state: State,
    greeting: Vec<u8>,
    greeting_replies: usize,
    authenticates: bool,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    scanner: Scanner,
}

impl Connection {
    /// Begins to connect. `name` is what CLIENT LIST shows.
    pub(crate) fn open(
        address: SocketAddr,
        name: &str,
        credentials: &Credentials,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, Error> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut greeting = Vec::new();
        let mut greeting_replies = 1;
        let password = credentials.password.as_deref().map(str::as_bytes);
        // A user without a password (nopass) has to say its name all the same.
        let login: Option<Vec<&[u8]>> = match (&credentials.username, password) {
            (Some(user), password) => Some(vec![b"AUTH", user.as_bytes(), password.unwrap_or_default()]),
            (None, Some(password)) => Some(vec![b"AUTH", password]),
            (None, None) => None,
        };
        if let Some(login) = &login {
            push_args(&mut greeting, login);
            greeting_replies += 1;
        }
        push_args(&mut greeting, &[b"CLIENT", b"SETNAME", name.as_bytes()]);
        Ok(Self {
            stream,
            state: State::Connecting,
            greeting,
            greeting_replies,
            authenticates: login.is_some(),
            buffer: vec![0; READ_SPACE],
            start: 0,
            end: 0,
            scanner: Scanner::new(),
        })
    }

    /// Whether requests may be written.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// The socket may be writable: finishes connecting and sends the login.
    pub(crate) fn writable(&mut self) -> Result<(), Error> {
        if matches!(self.state, State::Connecting) {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            match self.stream.peer_addr() {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(e) => return Err(e.into()),
            }
            self.stream.set_nodelay(true)?;
            // A host that vanished answers nothing and closes nothing: without these its commands are owed for ever.
            // A server that only hangs still acknowledges at the kernel, and is not cut off by them.
            sockopt::set_socket_keepalive(&self.stream, true).map_err(io::Error::from)?;
            sockopt::set_tcp_keepidle(&self.stream, DEAD_AFTER).map_err(io::Error::from)?;
            sockopt::set_tcp_user_timeout(&self.stream, DEAD_AFTER_MS).map_err(io::Error::from)?;
            self.state = State::Greeting { left: self.greeting_replies, authenticates: self.authenticates };
        }
        if matches!(self.state, State::Greeting { .. }) && !self.greeting.is_empty() {
            let mut greeting = std::mem::take(&mut self.greeting);
            self.write(&mut greeting)?;
            self.greeting = greeting;
        }
        Ok(())
    }

    /// Writes as much as the socket takes and removes it from `out`.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut written = 0;
        while let Some(rest) = out.get(written..)
            && !rest.is_empty()
        {
            match self.stream.write(rest) {
                Ok(0) => return Err(Error::Closed),
                Ok(n) => written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        if written == out.len() {
            out.clear();
        } else {
            out.drain(..written);
        }
        Ok(())
    }

    /// Reads what has arrived and hands each whole reply to `deliver`.
    /// With `to_the_end` it reads until the socket has nothing more: the peer has closed its side, and the end
    /// itself is not told again.
    pub(crate) fn readable(
        &mut self,
        to_the_end: bool,
        mut deliver: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Progress, Error> {
        let mut progress = Progress::Same;
        loop {
            if self.end == self.buffer.len() {
                self.make_space();
            }
            let Some(space) = self.buffer.get_mut(self.end..) else { return Ok(progress) };
            let offered = space.len();
            let read = match self.stream.read(space) {
                Ok(0) => return Err(Error::Closed),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(progress),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            self.end += read;
            while self.start < self.end {
                let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
                let Some(length) = self.scanner.scan(unread)? else { break };
                let reply = unread.get(..length).unwrap_or_default();
                match &mut self.state {
                    State::Ready => deliver(reply)?,
                    State::Greeting { left, authenticates } => {
                        if *authenticates && reply.first() == Some(&b'-') {
                            let text =
                                String::from_utf8_lossy(reply).trim_matches(['-', '\r', '\n']).to_owned();
                            return Err(Error::Login(text));
                        }
                        *authenticates = false;
                        *left -= 1;
                        if *left == 0 {
                            self.state = State::Ready;
                            progress = Progress::Ready;
                        }
                    }
                    State::Connecting => return Err(crate::pipeline::Unasked.into()),
                }
                self.start += length;
            }
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            }
            if read < offered && !to_the_end {
                return Ok(progress);
            }
        }
    }

    fn make_space(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        } else {
            let longer = self.buffer.len() * 2;
            self.buffer.resize(longer, 0);
        }
    }

    /// Takes the socket out of the poll set.
    pub(crate) fn close(mut self, registry: &Registry) {
        // The kernel forgets a closed socket by itself; an error here changes nothing.
        let _ = registry.deregister(&mut self.stream);
    }
}
