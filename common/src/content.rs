//! What request number n of a phase of commands is, byte for byte.
//!
//! Compiled from a phase's order by each load lane; a pure function of seed, phase and n. Law: the multiset of
//! commands of a phase is the same for any fleet size and any hand-over, because nothing but the number decides.

pub mod catalog;
mod commands;
mod keys;
pub mod miss;
pub mod own;
mod pattern;
pub mod template;
mod value;
mod zipf;

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small numbers, for comparison")]
mod tests;

pub use commands::{Commands, Error, Scratch, commands_of};
pub use keys::{KeyChooser, KeyNames};
pub use pattern::Pattern;
pub use value::{ValueMaker, least_compressibility};
pub use zipf::Zipf;
