//! Pieces of the hot path on their own, for a tool that counts instructions.
//!
//! `scripts/bench-instructions.sh` runs each twice, with different counts, and divides the difference: start and end
//! of the process fall out.

use std::hint::black_box;

use clap::ValueEnum;
use vst_common::keys::KeySpace;
use vst_common::resp::{Command, Scanner};

use crate::VALUE_BYTES;

/// A piece of the hot path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Piece {
    /// Key and command of one `HSET` of a 128-dimension vector.
    EncodeHset,
    /// The end of one integer reply, as `HSET` gets it, among others that arrived with it.
    ScanInteger,
    /// The end of one reply with a string of 512 bytes, as `GET` gets it.
    ScanBulk,
}

/// Does a piece of work so many times.
pub(crate) fn repeat(piece: Piece, times: u64) {
    match piece {
        Piece::EncodeHset => encode(times),
        Piece::ScanInteger => scan(times, b":1\r\n"),
        Piece::ScanBulk => {
            let payload =
                [format!("${VALUE_BYTES}\r\n").as_bytes(), &vec![b'x'; VALUE_BYTES], b"\r\n"].concat();
            scan(times, &payload);
        }
    }
}

fn encode(times: u64) {
    let keys = KeySpace::new("p:");
    let command = Command::new(&[Some(b"HSET"), None, Some(b"v"), None]);
    let vector = vec![b'x'; VALUE_BYTES];
    let (mut key, mut out) = (Vec::new(), Vec::new());
    for row in 0..times {
        key.clear();
        out.clear();
        keys.write(0, black_box(row), &mut key);
        command.encode(&mut out, &[&key, &vector]);
        black_box(&out);
    }
}

fn scan(times: u64, reply: &[u8]) {
    // Sixteen replies in one read, as with a pipeline of 16.
    let stream = reply.repeat(16);
    let mut scanner = Scanner::new();
    let mut start = 0;
    for _ in 0..times {
        let rest = black_box(stream.get(start..).unwrap_or_default());
        match scanner.scan(rest) {
            Ok(Some(length)) => start += length,
            Ok(None) | Err(_) => return,
        }
        if start == stream.len() {
            start = 0;
        }
    }
}
