//! What a scenario says of commands: which, how often, on which keys, with which values.
//!
//! Part of the checked form; travels to workers inside a phase's order. Compiled by `content`, which turns a request's
//! number into bytes.

use serde::{Deserialize, Serialize};

/// The keys of a scenario that loads plain commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceSpec {
    /// Keys of each type.
    pub keys: u64,
    /// Fields of a hash, members of a set, elements of a list that each key is filled with.
    pub elements: u32,
    /// Keys that follow each other share a slot in groups of this many, so that commands with several keys work in a
    /// cluster.
    pub group: u32,
}

impl Default for KeyspaceSpec {
    fn default() -> Self {
        Self { keys: 10_000, elements: 16, group: 16 }
    }
}

/// A phase of commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KvSpec {
    /// What is sent, each with its share.
    pub commands: Vec<CommandSpec>,
    /// Which key a request is about, where its command does not say.
    pub keys: KeyDistribution,
    /// What is written, where a command does not say.
    pub values: ValueSpec,
    /// Whether the keys that the commands read are written before.
    pub fill: bool,
    /// How hard.
    pub load: super::Load,
    /// Unmeasured beginning, milliseconds.
    pub warm_up_ms: u64,
    /// Measured part, milliseconds; 0 where the number of operations ends the phase.
    pub duration_ms: u64,
    /// Requests over the whole fleet; the first of this and the duration ends the phase.
    pub operations: Option<u64>,
    /// Give up on a reply after this long, milliseconds.
    pub timeout_ms: u64,
}

/// One command and its share of the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Its name in the latency tables.
    pub name: String,
    /// The template, see `content::template`.
    pub template: String,
    /// Its share: this many of the sum of all weights.
    pub weight: u32,
    /// The type of its keys, where it is not that of its command.
    pub space: Option<String>,
}

/// Which of the keys a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyDistribution {
    /// One after the other, from the first again after the last.
    Sequential,
    /// Each with the same probability.
    Uniform,
    /// The key of rank r with probability in proportion to `r^-s`; rank 1 is key 0.
    Zipf {
        /// The exponent.
        s: f64,
    },
    /// A share of the requests on a share of the keys, evenly within; the rest evenly on the others.
    HotSet {
        /// Share of the requests that go to the hot keys, 0..=1.
        requests: f64,
        /// Share of the keys that are hot, 0..=1.
        keys: f64,
    },
    /// As Zipf, where rank 1 is the newest key: the one that the last sequential request before this one wrote.
    Latest {
        /// The exponent.
        s: f64,
    },
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueSpec {
    /// How long.
    pub size: SizeSpec,
    /// Of what.
    pub content: ContentKind,
    /// The part of its bytes that zstd at its usual level takes away, 0..1; as the kind gives where absent.
    pub compressibility: Option<f64>,
}

impl Default for ValueSpec {
    fn default() -> Self {
        Self { size: SizeSpec::Fixed(512), content: ContentKind::Random, compressibility: None }
    }
}

/// Length of a value, bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeSpec {
    /// Always this.
    Fixed(u32),
    /// Each length within these bounds with the same probability.
    Uniform {
        /// Shortest.
        min: u32,
        /// Longest.
        max: u32,
    },
    /// The logarithm is normal.
    LogNormal {
        /// Half of the values are shorter.
        median: u32,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// Longest; longer ones are cut.
        max: u32,
    },
    /// (length, weight).
    Weighted(Vec<(u32, u32)>),
}

/// What a value consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentKind {
    /// Random bytes.
    Random,
    /// Words of natural frequency.
    Text,
    /// A JSON array of records.
    Json,
    /// Name and value pairs of a web session.
    Session,
    /// Decimal digits: one integer where the value has at most 18 bytes.
    Numeric,
}
