//! Where does a reply end? Answered without looking at any byte twice.
//!
//! Fed by `worker::connection` with whatever has arrived; it remembers how far it got. Law: any split of a byte
//! stream gives the same replies. Depth and size are bounded.

use super::frame::MAX_DEPTH;

/// Largest reply that is accepted, bytes: the server's own limit of one string, 512 MiB.
const MAX_REPLY: usize = 512 << 20;
/// Longest line of a header, an error or a simple string, bytes.
const MAX_LINE: usize = 1 << 20;

/// Why a stream cannot be followed any further; the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// A byte that no RESP type begins with.
    #[error("unexpected byte {byte:#04x} at {at} where a reply begins")]
    UnknownType {
        /// The byte.
        byte: u8,
        /// Offset within the reply.
        at: usize,
    },
    /// A length that is not a number, or a missing line end.
    #[error("malformed reply at byte {0}")]
    Malformed(usize),
    /// Nested too deep.
    #[error("reply nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Longer than any reply can be.
    #[error("reply longer than {MAX_REPLY} bytes")]
    TooLong,
}

/// Follows one reply through a stream.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// Bytes of the reply that are understood.
    at: usize,
    /// Bytes after `at` that hold no line end.
    searched: usize,
    /// Bytes of a string's payload and line end that are still to come after `at`.
    payload: usize,
    /// Elements still to come, by level.
    open: [usize; MAX_DEPTH],
    depth: usize,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

enum Line {
    Element,
    Payload(usize),
    Nested(usize),
    /// RESP3 attributes: followed by the reply they belong to.
    Attribute(usize),
}

impl Scanner {
    /// At the beginning of a reply.
    #[must_use]
    pub fn new() -> Self {
        Self { at: 0, searched: 0, payload: 0, open: [0; MAX_DEPTH], depth: 0 }
    }

    /// Goes on with a reply. `bytes` begins where the reply begins and holds all that has arrived.
    ///
    /// Gives the length of the reply once it is whole, and is then ready for the next one.
    ///
    /// # Errors
    /// [`ScanError`] when this is no RESP stream.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        loop {
            if self.payload > 0 {
                let end = self.at + self.payload;
                if end > MAX_REPLY {
                    return Err(ScanError::TooLong);
                }
                let Some(tail) = bytes.get(end - 2..end) else { return Ok(None) };
                if tail != b"\r\n" {
                    return Err(ScanError::Malformed(end - 2));
                }
                self.at = end;
                self.payload = 0;
                if let Some(length) = self.element_ended() {
                    return Ok(Some(length));
                }
            }
            let rest = bytes.get(self.at + self.searched..).unwrap_or_default();
            let Some(found) = memchr::memchr(b'\n', rest) else {
                self.searched = bytes.len().saturating_sub(self.at);
                if self.searched > MAX_LINE {
                    return Err(ScanError::TooLong);
                }
                return Ok(None);
            };
            let start = self.at;
            let end = start + self.searched + found + 1;
            self.searched = 0;
            let line = read_line(bytes.get(start..end).unwrap_or_default(), start)?;
            self.at = end;
            let ended = match line {
                Line::Element | Line::Nested(0) => self.element_ended(),
                Line::Payload(n) => {
                    self.payload = n + 2;
                    None
                }
                Line::Nested(n) => {
                    self.nest(n)?;
                    None
                }
                Line::Attribute(n) => {
                    // The reply that follows takes the place of the attribute, which is no element itself.
                    if n > 0 {
                        self.nest(n)?;
                        self.open_parent();
                    }
                    None
                }
            };
            if let Some(length) = ended {
                return Ok(Some(length));
            }
        }
    }

    fn nest(&mut self, elements: usize) -> Result<(), ScanError> {
        let slot = self.open.get_mut(self.depth).ok_or(ScanError::TooDeep)?;
        *slot = elements;
        self.depth += 1;
        Ok(())
    }

    fn open_parent(&mut self) {
        if let Some(slot) = self.depth.checked_sub(2).and_then(|parent| self.open.get_mut(parent)) {
            *slot += 1;
        } else if let Some(slot) = self.open.first_mut() {
            // At the top level the reply itself is the element that follows the attribute's own.
            *slot += 1;
        }
    }

    /// An element ended at `at`; gives the reply's length if that was its last.
    fn element_ended(&mut self) -> Option<usize> {
        while let Some(level) = self.depth.checked_sub(1) {
            let Some(left) = self.open.get_mut(level) else { break };
            *left -= 1;
            if *left > 0 {
                return None;
            }
            self.depth = level;
        }
        // Ready for the next reply; levels above `depth` are never read, so they need no clearing.
        let length = self.at;
        (self.at, self.searched, self.payload) = (0, 0, 0);
        Some(length)
    }
}

/// A whole reply without the attributes (RESP3) that stand before it.
#[must_use]
pub fn without_attributes(reply: &[u8]) -> &[u8] {
    let mut rest = reply;
    while rest.first() == Some(&b'|') {
        let Some(end) = memchr::memchr(b'\n', rest) else { return rest };
        let (line, after) = rest.split_at(end + 1);
        let Ok(Line::Attribute(elements)) = read_line(line, 0) else { return rest };
        rest = after;
        for _ in 0..elements {
            match Scanner::new().scan(rest) {
                Ok(Some(length)) => rest = rest.get(length..).unwrap_or_default(),
                _ => return rest,
            }
        }
    }
    rest
}

fn read_line(line: &[u8], offset: usize) -> Result<Line, ScanError> {
    let (kind, text) = match line {
        [kind, text @ .., b'\r', b'\n'] => (*kind, text),
        _ => return Err(ScanError::Malformed(offset)),
    };
    let length = || -> Result<Option<usize>, ScanError> {
        let n = parse(text).ok_or(ScanError::Malformed(offset))?;
        match n {
            -1 => Ok(None),
            n => match usize::try_from(n) {
                Ok(n) if n <= MAX_REPLY => Ok(Some(n)),
                Ok(_) => Err(ScanError::TooLong),
                Err(_) => Err(ScanError::Malformed(offset)),
            },
        }
    };
    Ok(match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Line::Element,
        b'$' | b'!' | b'=' => length()?.map_or(Line::Element, Line::Payload),
        b'*' | b'~' | b'>' => length()?.map_or(Line::Element, Line::Nested),
        b'%' => Line::Nested(length()?.unwrap_or(0).saturating_mul(2)),
        b'|' => Line::Attribute(length()?.unwrap_or(0).saturating_mul(2)),
        byte => return Err(ScanError::UnknownType { byte, at: offset }),
    })
}

fn parse(text: &[u8]) -> Option<i64> {
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resp::Frame;

    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let text = proptest::collection::vec(any::<u8>(), 0..40);
        let line = "[ -~]{0,20}";
        let leaf = prop_oneof![
            line.prop_map(|s| format!("+{s}\r\n").into_bytes()),
            line.prop_map(|s| format!("-{s}\r\n").into_bytes()),
            any::<i64>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
            Just(b"$-1\r\n".to_vec()),
            Just(b"*-1\r\n".to_vec()),
            Just(b"_\r\n".to_vec()),
            Just(b"#t\r\n".to_vec()),
            any::<f32>().prop_map(|x| format!(",{x}\r\n").into_bytes()),
            text.prop_map(|t| [format!("${}\r\n", t.len()).as_bytes(), &t, b"\r\n"].concat()),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            let items = proptest::collection::vec(inner.clone(), 0..6);
            prop_oneof![
                items.clone().prop_map(|i| [format!("*{}\r\n", i.len()).into_bytes(), i.concat()].concat()),
                items.clone().prop_map(|i| [format!("~{}\r\n", i.len()).into_bytes(), i.concat()].concat()),
                proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(|i| {
                    let pairs: Vec<u8> =
                        i.iter().flat_map(|(k, v)| [k.clone(), v.clone()].concat()).collect();
                    [format!("%{}\r\n", i.len()).into_bytes(), pairs].concat()
                }),
            ]
        })
    }

    /// Replies found when the stream arrives in pieces of the given sizes.
    fn scan_in_pieces(stream: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
        let mut scanner = Scanner::new();
        let (mut start, mut arrived) = (0, 0);
        let mut found = Vec::new();
        let mut sizes = pieces.iter().copied().cycle();
        while arrived < stream.len() {
            arrived = (arrived + sizes.next().unwrap().max(1)).min(stream.len());
            while let Some(length) = scanner.scan(&stream[start..arrived]).unwrap() {
                found.push(stream[start..start + length].to_vec());
                start += length;
                if start == arrived {
                    break;
                }
            }
        }
        assert_eq!(start, stream.len(), "the stream ends with a whole reply");
        found
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_replies(
            replies in proptest::collection::vec(reply(), 1..12),
            pieces in proptest::collection::vec(1usize..64, 1..20),
        ) {
            prop_assert_eq!(scan_in_pieces(&replies.concat(), &pieces), replies);
        }

        #[test]
        fn scanner_and_frame_agree_on_where_a_reply_ends(reply in reply()) {
            prop_assert_eq!(Scanner::new().scan(&reply), Ok(Some(reply.len())));
            prop_assert!(Frame::parse(&reply).is_ok());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Scanner::new().scan(&bytes);
            let _ = Frame::parse(&bytes);
        }
    }

    #[test]
    fn a_reply_nested_without_end_is_refused() {
        assert_eq!(Scanner::new().scan(&b"*1\r\n".repeat(40)), Err(ScanError::TooDeep));
    }

    #[test]
    fn an_absurd_length_is_refused_before_any_memory_is_taken() {
        assert_eq!(Scanner::new().scan(b"$99999999999\r\n"), Err(ScanError::TooLong));
    }

    #[test]
    fn attributes_belong_to_the_reply_that_follows() {
        let stream = b"|1\r\n+ttl\r\n:3600\r\n*1\r\n:1\r\n";
        assert_eq!(Scanner::new().scan(stream), Ok(Some(stream.len())));
        let nested = b"*2\r\n|1\r\n+a\r\n:1\r\n:5\r\n:6\r\n";
        assert_eq!(Scanner::new().scan(nested), Ok(Some(nested.len())));
        assert_eq!(without_attributes(stream), b"*1\r\n:1\r\n");
        assert_eq!(without_attributes(b"|1\r\n+a\r\n*1\r\n:1\r\n|0\r\n+OK\r\n"), b"+OK\r\n");
        assert_eq!(without_attributes(b":1\r\n"), b":1\r\n");
    }
}
