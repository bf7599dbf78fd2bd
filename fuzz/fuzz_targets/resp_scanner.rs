//! Whatever a server sends: any split of it gives the same replies, and reading them ends without a panic.
//!
//! The first byte of the input decides how the stream is split, the rest is the stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vst_common::resp::{Frame, ScanError, Scanner};

/// Replies of a stream that arrives in pieces, and the fault that ended it.
fn scan(stream: &[u8], sizes: impl Iterator<Item = usize>) -> (Vec<&[u8]>, Option<ScanError>) {
    let (mut scanner, mut found) = (Scanner::new(), Vec::new());
    let (mut start, mut arrived) = (0, 0);
    for size in sizes {
        if arrived == stream.len() {
            break;
        }
        arrived = (arrived + size).min(stream.len());
        while start < arrived {
            match scanner.scan(&stream[start..arrived]) {
                Ok(Some(length)) => {
                    assert!(length > 0 && start + length <= arrived, "a reply lies within what arrived");
                    found.push(&stream[start..start + length]);
                    start += length;
                }
                Ok(None) => break,
                Err(fault) => return (found, Some(fault)),
            }
        }
    }
    (found, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((split, stream)) = input.split_first() else { return };
    let (whole, fault) = scan(stream, std::iter::once(stream.len()));
    let size = usize::from(*split % 16) + 1;
    let (pieces, other) = scan(stream, std::iter::repeat(size));
    assert_eq!(whole, pieces, "the split does not matter");
    assert_eq!(fault, other, "nor for the fault");
    for reply in whole {
        let _ = Frame::parse(reply);
    }
});
