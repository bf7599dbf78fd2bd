//! Asks an HTTP port, as a probe or a browser would.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A port may take this long to open and to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub code: u16,
    /// The lines before the body, in lower case.
    pub head: String,
    /// What it says.
    pub body: String,
}

/// A port that nobody listens on now.
#[must_use]
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// Asks with a method; waits until somebody listens.
pub async fn ask(method: &str, address: &str, path: &str) -> Answer {
    let asked = async {
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        // Of version 1.0, so that a body comes in one piece.
        let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it is read");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("it answers with text");
        text
    };
    let text = tokio::time::timeout(LIMIT, asked).await.expect("an answer in time");
    let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { code, head: head.to_lowercase(), body: body.to_owned() }
}

/// Asks with GET.
pub async fn get(address: &str, path: &str) -> Answer {
    ask("GET", address, path).await
}
