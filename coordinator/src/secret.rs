//! Whether somebody knows a secret.
//!
//! Asked wherever the fleet's token is shown: by the roster, by the session service and by intake. Law: how long the
//! answer takes says nothing about where two secrets of the same length differ.

/// Compares without giving away by its duration where two secrets differ.
pub(crate) fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |difference, (x, y)| difference | (x ^ y)) == 0
}
