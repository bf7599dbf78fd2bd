//! One non-blocking connection of a lane: connect, log in, write, read whole replies.
//!
//! Owned by `lane`, which tells it when its socket is ready. Replies of the login are handled here; every other whole
//! reply goes to the caller. Reads are edge-triggered: a read that does not fill its space has emptied the socket.

mod wire;

use std::io::{self, ErrorKind};

use mio::{Registry, Token};
use vst_common::resp::{ScanError, Scanner, push_args, without_attributes};
use vst_common::scenario::{ConnectionSpec, Protocol, ReadFrom};

pub(crate) use self::wire::Place;
use self::wire::Wire;
use crate::topology::Credentials;

/// Space for replies before it grows to hold a longer one, bytes.
const READ_SPACE: usize = 16 << 10;

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
    /// The peer is not who it should be, or does not want us.
    #[error("{0}")]
    Untrusted(String),
    /// The server does not speak this version.
    #[error("RESP3 refused: {0}; write `connection: {{protocol: resp2}}`")]
    Version(String),
}

/// What became of a readiness event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Still connecting or logging in, or nothing special.
    Same,
    /// Ready for requests since this event.
    Ready,
}

impl Error {
    /// Whether trying again leads to the same.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Login(_) | Self::Untrusted(_) | Self::Version(_))
    }
}

/// What is said first on every connection of a lane, and how its server is trusted.
#[derive(Debug)]
pub(crate) struct Greeting {
    bytes: Vec<u8>,
    steps: Vec<Step>,
    credentials: Credentials,
}

/// A command of the greeting, by what its refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Login,
    Version,
    /// Nothing: what it asks for is not needed.
    Other,
}

impl Greeting {
    /// `name` is what CLIENT LIST shows.
    pub(crate) fn new(name: &str, credentials: &Credentials, spec: ConnectionSpec) -> Self {
        let (mut bytes, mut steps) = (Vec::new(), Vec::new());
        let mut say = |step: Step, command: &[&[u8]]| {
            push_args(&mut bytes, command);
            steps.push(step);
        };
        let password = credentials.password.as_deref().map(str::as_bytes);
        match (&credentials.username, password) {
            // A user without a password (nopass) has to say its name all the same.
            (Some(user), password) => {
                say(Step::Login, &[b"AUTH", user.as_bytes(), password.unwrap_or_default()]);
            }
            (None, Some(password)) => say(Step::Login, &[b"AUTH", password]),
            (None, None) => {}
        }
        if spec.protocol == Protocol::Resp3 {
            say(Step::Version, &[b"HELLO", b"3"]);
        }
        say(Step::Other, &[b"CLIENT", b"SETNAME", name.as_bytes()]);
        if spec.read_from != ReadFrom::Primary {
            // Said to primaries too, which it does not concern: a failover may make replicas of them.
            say(Step::Other, &[b"READONLY"]);
        }
        Self { bytes, steps, credentials: credentials.clone() }
    }
}

enum State {
    Connecting,
    /// How many commands of the greeting are answered.
    Greeting(usize),
    Ready,
}

/// A socket with its read buffer.
pub(crate) struct Connection {
    wire: Wire,
    state: State,
    greeting: std::sync::Arc<Greeting>,
    /// What of the greeting is not sent.
    unsaid: Vec<u8>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    scanner: Scanner,
}

impl Connection {
    /// Begins to connect.
    pub(crate) fn open(
        place: &Place,
        greeting: &std::sync::Arc<Greeting>,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, Error> {
        Ok(Self {
            wire: Wire::open(place, &greeting.credentials, registry, token)?,
            state: State::Connecting,
            greeting: std::sync::Arc::clone(greeting),
            unsaid: greeting.bytes.clone(),
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
            if !self.wire.connected()? {
                return Ok(());
            }
            self.state = State::Greeting(0);
        }
        if matches!(self.state, State::Greeting(_)) && !self.unsaid.is_empty() {
            let mut unsaid = std::mem::take(&mut self.unsaid);
            self.write(&mut unsaid)?;
            self.unsaid = unsaid;
        }
        self.wire.flush()
    }

    /// Writes as much as the socket takes and removes it from `out`.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let written = self.wire.write(out)?;
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
            let read = match self.wire.read(space) {
                Ok(0) => return Err(Error::Closed),
                Ok(n) => n,
                Err(Error::Io(e)) if e.kind() == ErrorKind::WouldBlock => return Ok(progress),
                Err(Error::Io(e)) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.end += read;
            while self.start < self.end {
                let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
                let Some(length) = self.scanner.scan(unread)? else { break };
                let reply = unread.get(..length).unwrap_or_default();
                let reply = without_attributes(reply);
                match &mut self.state {
                    // Said by the server unasked (RESP3): no reply to anything.
                    _ if reply.first() == Some(&b'>') => {}
                    State::Ready => deliver(reply)?,
                    State::Greeting(answered) => {
                        let step = self.greeting.steps.get(*answered).copied().unwrap_or(Step::Other);
                        if reply.first() == Some(&b'-') && step != Step::Other {
                            let text =
                                String::from_utf8_lossy(reply).trim_matches(['-', '\r', '\n']).to_owned();
                            return Err(match step {
                                Step::Login => Error::Login(text),
                                _ => Error::Version(text),
                            });
                        }
                        *answered += 1;
                        if *answered == self.greeting.steps.len() {
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
            if read < offered && self.wire.tells_all() && !to_the_end {
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
    pub(crate) fn close(self, registry: &Registry) {
        self.wire.close(registry);
    }
}
