//! Stands between a fleet and a server and notes when each command of a kind came by.
//!
//! A thread for each direction of each connection, which only copies bytes: what it sees is what several processes sent
//! together, by one clock.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use vst_common::clock::{MonoNs, mono_ns};

/// A running witness; it ends with the process of the test.
#[derive(Debug)]
pub struct Witness {
    port: u16,
    seen: Arc<Mutex<Vec<MonoNs>>>,
}

impl Witness {
    /// Listens on a free port, hands on to `upstream` (host:port) and notes what begins with `wanted`.
    #[must_use]
    pub fn start(upstream: &str, wanted: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (upstream, notes) = (upstream.to_owned(), Arc::clone(&seen));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&upstream) else { return };
                // Either side may leave at any time; there is nobody to tell.
                let _ = connect(client, server, wanted, &notes);
            }
        });
        Self { port, seen }
    }

    /// Where a client begins.
    #[must_use]
    pub fn url(&self) -> String {
        format!("valkey://127.0.0.1:{}", self.port)
    }

    /// When the commands came by, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<MonoNs> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.sort_unstable();
        seen
    }
}

fn connect(
    client: TcpStream,
    server: TcpStream,
    wanted: &'static [u8],
    notes: &Arc<Mutex<Vec<MonoNs>>>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_server, to_client) = (server.try_clone()?, client.try_clone()?);
    let notes = Arc::clone(notes);
    std::thread::spawn(move || {
        pass(client, server, |bytes| {
            if bytes.starts_with(wanted) {
                notes.lock().unwrap_or_else(PoisonError::into_inner).push(mono_ns());
            }
        })
    });
    std::thread::spawn(move || pass(from_server, to_client, |_| {}));
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut space = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut space) {
        let bytes = space.get(..read).unwrap_or_default();
        see(bytes);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    // The other side is told that this one has ended.
    let _ = to.shutdown(Shutdown::Write);
}
