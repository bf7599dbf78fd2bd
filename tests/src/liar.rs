//! A server that lies: hands everything on to a real one, except for what it was told to falsify.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vst_common::resp::{Frame, Scanner};

/// What a server falsifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing: shows that the way through it changes no figure.
    None,
    /// Says that keys were deleted and keeps them.
    IgnoresDeletes,
    /// Gives its best result in every place.
    RepeatsOneKey,
    /// Names the rows of another copy.
    AnotherCopy,
    /// Searches among all rows whatever the query's filter says.
    IgnoresFilters,
}

/// A lying server; it ends with the runtime of its test.
#[derive(Debug)]
pub struct Liar {
    port: u16,
}

impl Liar {
    /// Listens on a free port and hands on to `upstream` (host:port).
    pub async fn start(upstream: &str, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let upstream = upstream.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = upstream.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&upstream).await else { return };
                    // Either side may leave at any time; there is nobody to tell.
                    let _ = serve(client, server, lie).await;
                });
            }
        });
        Self { port }
    }

    /// Where a client begins.
    #[must_use]
    pub fn url(&self) -> String {
        format!("valkey://127.0.0.1:{}", self.port)
    }
}

/// Command by command, in order.
async fn serve(mut client: TcpStream, mut server: TcpStream, lie: Lie) -> io::Result<()> {
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    loop {
        let command = next(&mut client, &mut asked).await?;
        let name = name(&command);
        if lie == Lie::IgnoresDeletes && name == "DEL" {
            client.write_all(b":1\r\n").await?;
            continue;
        }
        let command = if lie == Lie::IgnoresFilters { unfiltered(command) } else { command };
        server.write_all(&command).await?;
        let reply = next(&mut server, &mut answered).await?;
        let reply = if name == "FT.SEARCH" { falsified(&reply, lie) } else { reply };
        client.write_all(&reply).await?;
    }
}

/// One whole command or reply.
async fn next(from: &mut TcpStream, held: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    loop {
        if let Ok(Some(end)) = Scanner::new().scan(held) {
            return Ok(held.drain(..end).collect());
        }
        if from.read_buf(held).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn name(command: &[u8]) -> String {
    let frame = Frame::parse(command).ok();
    let first = frame.as_ref().and_then(|f| f.as_array()?.first()?.as_str());
    first.unwrap_or_default().to_ascii_uppercase()
}

/// The same command without what comes before `=>[KNN` in its query.
fn unfiltered(command: Vec<u8>) -> Vec<u8> {
    let Ok(Frame::Array(args)) = Frame::parse(&command) else { return command };
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in &args {
        let knn = arg.as_str().and_then(|text| text.split_once("=>[KNN"));
        match (knn, arg.as_bytes()) {
            (Some((_, knn)), _) => write_bulk(format!("*=>[KNN{knn}").as_bytes(), &mut out),
            (None, bytes) => write_bulk(bytes.unwrap_or_default(), &mut out),
        }
    }
    out
}

/// The reply to a search: `[number, key, fields, key, fields, ...]`.
fn falsified(reply: &[u8], lie: Lie) -> Vec<u8> {
    let Ok(Frame::Array(items)) = Frame::parse(reply) else { return reply.to_vec() };
    let best = items.get(1).and_then(Frame::as_bytes).unwrap_or_default();
    let mut out = format!("*{}\r\n", items.len()).into_bytes();
    for (i, item) in items.iter().enumerate() {
        match item.as_bytes().filter(|_| i % 2 == 1) {
            Some(_) if lie == Lie::RepeatsOneKey => write_bulk(best, &mut out),
            Some(key) if lie == Lie::AnotherCopy => write_bulk(&of_another_copy(key), &mut out),
            Some(key) => write_bulk(key, &mut out),
            None => write(item, &mut out),
        }
    }
    out
}

/// The same row, of the next copy.
fn of_another_copy(key: &[u8]) -> Vec<u8> {
    let keys = vst_common::keys::KeySpace::new("vst:");
    let mut out = Vec::new();
    if let Some((copy, row)) = keys.parse(key) {
        keys.write((copy + 1) % 3, row, &mut out);
    }
    out
}

fn write(frame: &Frame<'_>, out: &mut Vec<u8>) {
    match (frame.as_array(), frame.as_i64(), frame.as_bytes()) {
        (Some(items), _, _) => {
            out.extend_from_slice(format!("*{}\r\n", items.len()).as_bytes());
            items.iter().for_each(|item| write(item, out));
        }
        (_, _, Some(bytes)) => write_bulk(bytes, out),
        (_, Some(number), _) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
        _ => out.extend_from_slice(b"$-1\r\n"),
    }
}

fn write_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}
