//! One kind of thing that was done to a target, as `audit.jsonl` of a run directory lists it.
//!
//! Written by the coordinator, one JSON object per line; read by the report. Law: it names commands, nodes, indexes and
//! the beginning of keys, never a value.

use serde::{Deserialize, Serialize};

use crate::clock::{self, WallNs};

/// Name of the file in a run directory.
pub const AUDIT: &str = "audit.jsonl";

/// Commands of one kind, sent to one node for one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// The first of them, RFC 3339.
    pub first: String,
    /// The last of them, RFC 3339.
    pub last: String,
    /// `host:port`; `*` for all that own the keys.
    pub node: String,
    /// The command.
    pub command: String,
    /// What it is about: an index, a key of vst's own, the beginning of keys, a state.
    pub subject: String,
    /// How many commands; 0 where others count them (the table `latency` has what workers sent).
    pub commands: u64,
    /// Keys that they name, where they delete.
    pub keys: u64,
    /// How many of them the server refused.
    pub refused: u64,
    /// What for: the phase, or what is done before and after all phases.
    pub why: String,
    /// `coordinator` or `workers`.
    pub by: String,
}

impl Deed {
    /// One that happens now, by the coordinator.
    #[must_use]
    pub fn new(node: impl Into<String>, command: impl Into<String>, subject: impl Into<String>) -> Self {
        let now: WallNs = clock::wall_ns();
        Self {
            first: clock::rfc3339(now),
            last: clock::rfc3339(now),
            node: node.into(),
            command: command.into(),
            subject: subject.into(),
            commands: 0,
            keys: 0,
            refused: 0,
            why: String::new(),
            by: String::from("coordinator"),
        }
    }

    /// Whether both are of the same kind and purpose.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let kind = |deed: &Self| {
            (deed.node.clone(), deed.command.clone(), deed.subject.clone(), deed.why.clone(), deed.by.clone())
        };
        kind(self) == kind(other)
    }
}

/// The lines of a file; a line that is none is left out, as of a file that is being written.
#[must_use]
pub fn read(text: &str) -> Vec<Deed> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The file's text.
#[must_use]
pub fn write(deeds: &[Deed]) -> String {
    let mut text = String::new();
    for line in deeds.iter().filter_map(|deed| serde_json::to_string(deed).ok()) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}
