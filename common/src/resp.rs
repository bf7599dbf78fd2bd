//! RESP2 and RESP3: encoding of commands, a resumable scanner, and a borrowed view of one reply.
//!
//! The scanner finds where a reply ends without looking at any byte twice, however the stream was split; [`Frame`]
//! reads one whole reply. Both bound depth and size, because the peer may be hostile or broken.

mod encode;
mod frame;
mod scan;

pub use encode::{Command, push_args};
pub use frame::{Frame, ParseError};
pub use scan::{ScanError, Scanner, without_attributes};
