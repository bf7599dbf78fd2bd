//! A borrowed view of one whole reply.

use std::str;

/// Deepest nesting that is read.
pub(crate) const MAX_DEPTH: usize = 32;

/// One reply, borrowing from its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame<'a> {
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR ...` or RESP3 `!`, without the sign.
    Error(&'a [u8]),
    /// `:1`
    Integer(i64),
    /// `$3 abc`, or RESP3 verbatim text without its type.
    Bulk(&'a [u8]),
    /// RESP2 `$-1`, `*-1`, or RESP3 `_`.
    Null,
    /// `*`, RESP3 set `~`, or push `>`.
    Array(Vec<Frame<'a>>),
    /// RESP3 `%`.
    Map(Vec<(Frame<'a>, Frame<'a>)>),
    /// RESP3 `,`.
    Double(f64),
    /// RESP3 `#`.
    Boolean(bool),
    /// RESP3 `(`, as text.
    BigNumber(&'a [u8]),
}

/// Why bytes are not one reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The bytes end inside the reply.
    #[error("reply ends early, after {0} bytes")]
    Truncated(usize),
    /// A byte that no RESP type begins with, or a malformed number.
    #[error("malformed reply at byte {0}")]
    Malformed(usize),
    /// Nested deeper than any sane reply.
    #[error("reply nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Bytes after the reply.
    #[error("{0} bytes left after the reply")]
    Trailing(usize),
}

impl<'a> Frame<'a> {
    /// Reads exactly one reply.
    ///
    /// # Errors
    /// [`ParseError`] when the bytes are not exactly one well-formed reply.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader { bytes, at: 0 };
        let frame = reader.frame(0)?;
        match bytes.len() - reader.at {
            0 => Ok(frame),
            left => Err(ParseError::Trailing(left)),
        }
    }

    /// Text of a simple or bulk string.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Simple(b) | Self::Bulk(b) => Some(b),
            _ => None,
        }
    }

    /// Text of a simple or bulk string that is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        self.as_bytes().and_then(|b| str::from_utf8(b).ok())
    }

    /// A number, whether the server sent it as integer, double or text.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "figures for people; 53 bits are plenty")]
            Self::Integer(n) => Some(*n as f64),
            Self::Double(x) => Some(*x),
            _ => self.as_str()?.trim().parse().ok(),
        }
    }

    /// An integer, whether the server sent it as integer or text.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(n) => Some(*n),
            _ => self.as_str()?.trim().parse().ok(),
        }
    }

    /// Elements of an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Frame<'a>]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The value of a key in a map, or in a flat array of alternating keys and values (RESP2's form of a map).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Frame<'a>> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v),
            Self::Array(items) => items
                .chunks_exact(2)
                .find(|pair| pair.first().and_then(Frame::as_str) == Some(key))
                .and_then(|pair| pair.get(1)),
            _ => None,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn frame(&mut self, depth: usize) -> Result<Frame<'a>, ParseError> {
        if depth > MAX_DEPTH {
            return Err(ParseError::TooDeep);
        }
        let start = self.at;
        let kind = *self.bytes.get(self.at).ok_or(ParseError::Truncated(self.bytes.len()))?;
        self.at += 1;
        let line = self.line()?;
        let malformed = ParseError::Malformed(start);
        Ok(match kind {
            b'+' => Frame::Simple(line),
            b'-' => Frame::Error(line),
            b':' => Frame::Integer(number(line).ok_or(malformed)?),
            b'(' => Frame::BigNumber(line),
            b'_' => Frame::Null,
            b'#' => Frame::Boolean(line == b"t"),
            b',' => Frame::Double(double(line).ok_or(malformed)?),
            b'$' | b'!' | b'=' => match number(line).ok_or(malformed.clone())? {
                -1 => Frame::Null,
                n => {
                    let text = self.take(usize::try_from(n).map_err(|_| malformed)?)?;
                    match kind {
                        b'!' => Frame::Error(text),
                        b'=' => Frame::Bulk(text.get(4..).unwrap_or(text)),
                        _ => Frame::Bulk(text),
                    }
                }
            },
            b'*' | b'~' | b'>' => match number(line).ok_or(malformed.clone())? {
                -1 => Frame::Null,
                n => Frame::Array(self.items(usize::try_from(n).map_err(|_| malformed)?, depth)?),
            },
            b'%' => {
                let pairs = usize::try_from(number(line).ok_or(malformed.clone())?).map_err(|_| malformed)?;
                let mut map = Vec::with_capacity(pairs.min(64));
                for _ in 0..pairs {
                    map.push((self.frame(depth + 1)?, self.frame(depth + 1)?));
                }
                Frame::Map(map)
            }
            _ => return Err(malformed),
        })
    }

    fn items(&mut self, n: usize, depth: usize) -> Result<Vec<Frame<'a>>, ParseError> {
        let mut items = Vec::with_capacity(n.min(256));
        for _ in 0..n {
            items.push(self.frame(depth + 1)?);
        }
        Ok(items)
    }

    fn line(&mut self) -> Result<&'a [u8], ParseError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = memchr::memchr(b'\r', rest).ok_or(ParseError::Truncated(self.bytes.len()))?;
        match rest.get(end + 1) {
            Some(b'\n') => {}
            Some(_) => return Err(ParseError::Malformed(self.at + end + 1)),
            None => return Err(ParseError::Truncated(self.bytes.len())),
        }
        self.at += end + 2;
        Ok(rest.get(..end).unwrap_or_default())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], ParseError> {
        let end = self.at.checked_add(n).ok_or(ParseError::Malformed(self.at))?;
        let text = self.bytes.get(self.at..end).ok_or(ParseError::Truncated(self.bytes.len()))?;
        match self.bytes.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(ParseError::Malformed(end)),
            None => return Err(ParseError::Truncated(self.bytes.len())),
        }
        self.at = end + 2;
        Ok(text)
    }
}

fn number(line: &[u8]) -> Option<i64> {
    str::from_utf8(line).ok()?.parse().ok()
}

fn double(line: &[u8]) -> Option<f64> {
    str::from_utf8(line).ok()?.parse().ok()
}
