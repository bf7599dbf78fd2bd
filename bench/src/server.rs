//! A server for one benchmark; it ends with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Error;

/// How often a server that starts is asked.
const ATTEMPTS: u32 = 200;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    pub(crate) programs: PathBuf,
    pub(crate) libraries: PathBuf,
}

impl Server {
    /// Starts one that keeps nothing on disk.
    pub(crate) fn start(programs: &Path, libraries: &Path) -> Result<Self, Error> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| Error::Io { what, source }
        };
        let free = TcpListener::bind(("127.0.0.1", 0)).map_err(io("no free port"))?;
        let port = free.local_addr().map_err(io("no free port"))?.port();
        drop(free);
        let program = programs.join("valkey-server");
        let child = Command::new(&program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .env("LD_LIBRARY_PATH", libraries)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io(&format!("cannot start {}", program.display())))?;
        let server = Self { child, port, programs: programs.to_owned(), libraries: libraries.to_owned() };
        for _ in 0..ATTEMPTS {
            if server.ask(b"PING\r\n").is_ok_and(|reply| reply.starts_with(b"+PONG")) {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Err(Error::Silent(format!("127.0.0.1:{port}")))
    }

    /// Sends an inline command and gives the beginning of the reply.
    pub(crate) fn ask(&self, command: &[u8]) -> Result<Vec<u8>, std::io::Error> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(command)?;
        let mut reply = vec![0; 256];
        let n = stream.read(&mut reply)?;
        reply.truncate(n);
        Ok(reply)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
