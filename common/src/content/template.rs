//! Templates of commands: `HSET {key zipf 1.1} v {vector 128} price {int 1 1000}`.
//!
//! Words are separated by blanks; a word in double quotes may hold blanks. A placeholder in braces stands for
//! something that each request draws anew; `{{` and `}}` are braces. Read by the scenario's check, which reports a
//! fault with its place, and by each lane. Law: what is accepted can be compiled; a fault names the bytes at fault.
//!
//! | placeholder | gives |
//! |---|---|
//! | `{key}`, `{key zipf 1.1}` | the request's key; every `{key}` of a command is the same one |
//! | `{keys 10}` | ten keys of one slot, as ten arguments |
//! | `{pairs 10}` | the same, a value after each |
//! | `{value}`, `{value 100}`, `{value 16 512}` | a value as the phase says, or of this length or these bounds |
//! | `{values}`, `{values 5}` | as many values as the key space has elements, or so many |
//! | `{field}`, `{fields 3}`, `{entries}` | a field; several; all fields with values |
//! | `{member}`, `{members}`, `{scored}` | a member of a set; all; all, each after its score |
//! | `{int 1 1000}`, `{float 0 1}` | a number within bounds, both included |
//! | `{one_of a b c}` | one of the words |
//! | `{vector 128}` | so many FLOAT32, each normal |
//! | `{n}` | the request's number |
//! | `{own WORD}` | what [`super::own`] makes under this word, as so many arguments |
//!
//! `{key}` takes a distribution: `sequential`, `uniform`, `zipf S`, `hot REQUESTS% KEYS%`, `latest S`.

mod read;

use std::ops::Range;

use super::own::Known;
use crate::scenario::KeyDistribution;

/// A command with placeholders.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Its words: the command's name and arguments.
    pub words: Vec<Word>,
}

/// One word of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// One argument, of these pieces put together.
    One(Vec<Piece>),
    /// Several arguments.
    Many(Many),
}

/// A piece of an argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// As it stands.
    Literal(Vec<u8>),
    /// The request's key.
    Key(Option<KeyDistribution>),
    /// A value; of the phase's size, or between these bounds.
    Value(Option<(u32, u32)>),
    /// A field of a hash.
    Field,
    /// A member of a set.
    Member,
    /// A whole number within bounds.
    Int(i64, i64),
    /// A number within bounds.
    Float(f64, f64),
    /// One of several words.
    OneOf(Vec<String>),
    /// FLOAT32 numbers, little endian.
    Vector(u32),
    /// The request's number.
    Number,
}

/// A placeholder that stands for several arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum Many {
    /// Keys of one slot.
    Keys(u32, Option<KeyDistribution>),
    /// Keys of one slot, a value after each.
    Pairs(u32, Option<KeyDistribution>),
    /// Values.
    Values(Option<u32>),
    /// Distinct fields.
    Fields(Option<u32>),
    /// Distinct fields, a value after each.
    Entries(Option<u32>),
    /// Distinct members.
    Members(Option<u32>),
    /// Distinct members, a score before each.
    Scored(Option<u32>),
    /// What code makes.
    Own(Known),
}

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// A few words for the caret.
    pub label: String,
    /// What to write instead.
    pub hint: String,
    /// The bytes at fault.
    pub span: Range<usize>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// The first [`Fault`].
    pub fn parse(text: &str) -> Result<Self, Fault> {
        read::template(text)
    }

    /// The command's name in capitals; empty where the first word is not fixed.
    #[must_use]
    pub fn name(&self) -> String {
        self.literal(0).to_ascii_uppercase()
    }

    /// The command as `INFO commandstats` spells it: small letters, `xinfo|stream` for a command of a family.
    #[must_use]
    pub fn command(&self) -> String {
        const FAMILIES: &[&str] = &[
            "acl", "client", "cluster", "command", "config", "function", "latency", "memory", "module",
            "object", "pubsub", "script", "slowlog", "xgroup", "xinfo",
        ];
        let name = self.literal(0).to_ascii_lowercase();
        let second = self.literal(1).to_ascii_lowercase();
        if FAMILIES.contains(&name.as_str()) && !second.is_empty() {
            format!("{name}|{second}")
        } else {
            name
        }
    }

    fn literal(&self, word: usize) -> String {
        match self.words.get(word) {
            Some(Word::One(pieces)) => match pieces.as_slice() {
                [Piece::Literal(bytes)] => String::from_utf8_lossy(bytes).into_owned(),
                _ => String::new(),
            },
            _ => String::new(),
        }
    }

    /// The distribution that the template itself gives its key.
    #[must_use]
    pub fn distribution(&self) -> Option<KeyDistribution> {
        self.words.iter().find_map(|word| match word {
            Word::One(pieces) => pieces.iter().find_map(|piece| match piece {
                Piece::Key(distribution) => *distribution,
                _ => None,
            }),
            Word::Many(Many::Keys(_, distribution) | Many::Pairs(_, distribution)) => *distribution,
            Word::Many(_) => None,
        })
    }

    /// Whether it names a key.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.words.iter().any(|word| match word {
            Word::One(pieces) => pieces.iter().any(|piece| matches!(piece, Piece::Key(_))),
            Word::Many(many) => matches!(many, Many::Keys(..) | Many::Pairs(..)),
        })
    }

    /// The most keys that one request takes.
    #[must_use]
    pub fn most_keys(&self) -> u32 {
        let keys = |word: &Word| match word {
            Word::Many(Many::Keys(n, _) | Many::Pairs(n, _)) => *n,
            _ => 1,
        };
        self.words.iter().map(keys).max().unwrap_or(1)
    }
}
