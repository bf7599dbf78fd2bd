//! Whether a reply says that there was nothing.
//!
//! A read of a key that is gone costs the server almost nothing; a load that misses without saying so reports the
//! wrong thing. Decided from the reply's first bytes, so that a hit costs nothing.

use serde::{Deserialize, Serialize};

use crate::resp::Frame;

/// How a command says that there was nothing. Nil says so for every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Miss {
    /// Nil only.
    Nil,
    /// An empty array, set or map.
    Empty,
    /// The integer 0.
    Zero,
    /// The integer -2 (`TTL`).
    NoKey,
    /// The status `none` (`TYPE`).
    NoType,
    /// Any element is nil.
    AnyNil,
}

impl Miss {
    /// Whether a reply that is no error says so.
    #[must_use]
    pub fn is(self, reply: &[u8]) -> bool {
        if reply.starts_with(b"$-1\r") || reply.starts_with(b"*-1\r") || reply.starts_with(b"_\r") {
            return true;
        }
        match self {
            Self::Nil => false,
            Self::Empty => matches!(reply, [b'*' | b'%' | b'~', b'0', b'\r', ..]),
            Self::Zero => reply.starts_with(b":0\r"),
            Self::NoKey => reply.starts_with(b":-2\r"),
            Self::NoType => reply.starts_with(b"+none\r"),
            Self::AnyNil => match Frame::parse(reply) {
                Ok(frame) => frame.as_array().is_some_and(|all| all.iter().any(|one| *one == Frame::Null)),
                Err(_) => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_saying_nothing_is_seen_and_no_hit_is_taken_for_one() {
        for nil in [&b"$-1\r\n"[..], b"*-1\r\n", b"_\r\n"] {
            assert!(Miss::Nil.is(nil) && Miss::Zero.is(nil));
        }
        assert!(Miss::Empty.is(b"*0\r\n") && Miss::Empty.is(b"%0\r\n") && Miss::Empty.is(b"~0\r\n"));
        assert!(!Miss::Empty.is(b"*1\r\n$1\r\na\r\n") && !Miss::Nil.is(b"*0\r\n"));
        assert!(Miss::Zero.is(b":0\r\n") && !Miss::Zero.is(b":10\r\n") && !Miss::Nil.is(b":0\r\n"));
        assert!(Miss::NoKey.is(b":-2\r\n") && !Miss::NoKey.is(b":-1\r\n"));
        assert!(Miss::NoType.is(b"+none\r\n") && !Miss::NoType.is(b"+string\r\n"));
        assert!(Miss::AnyNil.is(b"*2\r\n$1\r\na\r\n$-1\r\n"));
        // The bytes of a nil inside a value are no nil.
        assert!(!Miss::AnyNil.is(b"*1\r\n$5\r\n$-1\r\n\r\n"));
    }
}
