//! A target that costs nothing: it says that every row was written and keeps none.
//!
//! Everything but `HSET` and `DEL` goes on to a real server, so that a run finds a target, makes its index and samples
//! its memory as always. Threads of its own, so that its work is not in the figures of whoever drives it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vst_common::resp::Scanner;

/// Bytes taken from a socket at once.
const SPACE: usize = 256 << 10;

/// A running sink; it ends with the process of the test.
#[derive(Debug)]
pub struct Sink {
    port: u16,
    rows: Arc<AtomicU64>,
}

impl Sink {
    /// Listens on a free port and hands on to `upstream` (host:port).
    #[must_use]
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let rows = Arc::new(AtomicU64::new(0));
        let (upstream, counter) = (upstream.to_owned(), Arc::clone(&rows));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, counter) = (upstream.clone(), Arc::clone(&counter));
                // Either side may leave at any time; there is nobody to tell.
                std::thread::spawn(move || serve(client, &upstream, &counter).ok());
            }
        });
        Self { port, rows }
    }

    /// Where a client begins.
    #[must_use]
    pub fn url(&self) -> String {
        format!("valkey://127.0.0.1:{}", self.port)
    }

    /// Rows that were said to be written.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

fn serve(mut client: TcpStream, upstream: &str, rows: &AtomicU64) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut server = None;
    let (mut buffer, mut held) = (vec![0; SPACE], 0);
    let (mut scanner, mut replies) = (Scanner::new(), Vec::new());
    loop {
        if held == buffer.len() {
            buffer.resize(2 * held, 0);
        }
        let read = client.read(&mut buffer[held..])?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        let (mut at, mut written) = (0, 0);
        while let Some(length) = scanner.scan(&buffer[at..held]).map_err(io::Error::other)? {
            let command = &buffer[at..at + length];
            at += length;
            match kind(command) {
                Kind::Write => {
                    written += 1;
                    replies.extend_from_slice(b":1\r\n");
                }
                Kind::Other => {
                    let server = match &mut server {
                        Some(server) => server,
                        none => none.insert(Upstream::open(upstream)?),
                    };
                    replies.extend_from_slice(&server.ask(command)?);
                }
            }
        }
        buffer.copy_within(at..held, 0);
        held -= at;
        rows.fetch_add(written, Ordering::Relaxed);
        client.write_all(&replies)?;
        replies.clear();
    }
}

enum Kind {
    Write,
    Other,
}

/// A client of ours writes names in capitals.
fn kind(command: &[u8]) -> Kind {
    if command.starts_with(b"*4\r\n$4\r\nHSET\r\n") || command.starts_with(b"*2\r\n$3\r\nDEL\r\n") {
        Kind::Write
    } else {
        Kind::Other
    }
}

struct Upstream {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Upstream {
    fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, held: Vec::new() })
    }

    fn ask(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.write_all(command)?;
        let mut scanner = Scanner::new();
        let mut space = [0; 16 << 10];
        loop {
            if let Some(end) = scanner.scan(&self.held).map_err(io::Error::other)? {
                return Ok(self.held.drain(..end).collect());
            }
            let read = self.stream.read(&mut space)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.held.extend_from_slice(&space[..read]);
        }
    }
}
