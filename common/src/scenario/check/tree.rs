//! YAML text as a tree in which every key and value knows its place.
//!
//! Read by serde-saphyr, walked by the readers beside this file. Nothing is interpreted here beyond YAML's own types,
//! and repeated keys are kept, so that all faults of a text are found in one pass. Law: any text gives a tree or one
//! fault with a place.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, Location, MergeKeyPolicy, MessageFormatter, NonFiniteFloatPolicy, Spanned,
    UserMessageFormatter,
};

use super::fault::{Complaint, Place};
use crate::count;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    /// The text of a scalar; where a list or mapping begins.
    start: Place,
}

/// A value as YAML types it.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Nothing,
    Truth,
    Whole(u64),
    /// Negative, fractional or beyond 64 bits.
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
    /// Refers to a parameter that is not there or has a fault, which is noted already.
    Refused,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn new(value: Value, start: Place) -> Self {
        Self { value, start }
    }

    /// Where to point for this value: a scalar's text, a mapping's first key, a list's first item.
    pub(super) fn place(&self) -> Place {
        match &self.value {
            Value::Mapping(entries) => entries.first().map_or(self.start, |entry| entry.key_place),
            Value::List(items) => items.first().map_or(self.start, Self::place),
            _ => self.start,
        }
    }

    /// Where to point for the value of a key: the value when it is a scalar, the key otherwise.
    pub(super) fn place_under(&self, key_place: Place) -> Place {
        match self.value {
            Value::Mapping(_) | Value::List(_) | Value::Nothing => key_place,
            _ => self.start,
        }
    }

    /// The value of a key, when this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Nothing => "nothing",
            Value::Truth => "true or false",
            Value::Whole(_) => "a whole number",
            Value::Number(n) if n.fract() != 0.0 => "a fraction",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Refused => "a parameter",
        }
    }
}

/// The tree of `text`, which stands at byte `shift` of the source with that index.
pub(super) fn read(text: &str, source: usize, shift: usize) -> Result<Node, (Place, Complaint)> {
    let options = serde_saphyr::options! {
        // A tree this deep is a mistake, and the readers recurse.
        budget: serde_saphyr::budget! { max_depth: 64, max_nodes: 100_000, max_events: 1_000_000 },
        // Repeated keys are passed on here and become faults of their own.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        with_snippet: false,
    };
    let place = |location: Location| {
        let span = location.span();
        let start =
            span.byte_offset().map_or_else(|| offset(text, location), count::index).saturating_add(shift);
        Place { source, start, end: start.saturating_add(count::index(span.byte_len().unwrap_or(0))) }
    };
    serde_saphyr::from_str_with_options::<Raw>(text, options).map(|raw| raw.placed(&place)).map_err(|error| {
        let error = error.without_snippet();
        let end = shift.saturating_add(text.trim_end().len());
        let at = error.location().map_or(Place { source, start: end, end }, place);
        // The parser quotes the text, which may hold anything.
        let message: String = UserMessageFormatter
            .format_message(error)
            .chars()
            .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
            .collect();
        let complaint = Complaint::new(
            format!("not valid YAML: {message}"),
            "the text cannot be read here",
            "look at this place and the line above it for an indentation, a bracket, a quote or a colon too many or \
             too few",
        );
        (at, complaint)
    })
}

/// The byte of a location that the parser gives by line and column only; both count from 1, columns in characters.
fn offset(text: &str, location: Location) -> usize {
    let above = count::index(location.line().saturating_sub(1));
    let before = count::index(location.column().saturating_sub(1));
    let mut lines = text.split_inclusive('\n');
    let start: usize = lines.by_ref().take(above).map(str::len).sum();
    start + lines.next().unwrap_or_default().chars().take(before).map(char::len_utf8).sum::<usize>()
}

/// A value as serde-saphyr gives it.
struct Raw(Spanned<RawValue>);

enum RawValue {
    Scalar(Value),
    List(Vec<Raw>),
    Mapping(Vec<(Spanned<String>, Raw)>),
}

impl Raw {
    fn placed(self, place: &impl Fn(Location) -> Place) -> Node {
        // The definition, not the alias that refers to it: there the text stands that has to change.
        let start = place(self.0.defined);
        let value = match self.0.value {
            RawValue::Scalar(value) => value,
            RawValue::List(items) => Value::List(items.into_iter().map(|item| item.placed(place)).collect()),
            RawValue::Mapping(entries) => Value::Mapping(
                entries
                    .into_iter()
                    .map(|(key, raw)| Entry {
                        key_place: place(key.defined),
                        key: key.value,
                        node: raw.placed(place),
                    })
                    .collect(),
            ),
        };
        Node { value, start }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

/// Visitor methods for scalars, each a closed expression of the value.
macro_rules! scalars {
    ($($method:ident($type:ty) => |$v:ident| $value:expr;)*) => {
        $(fn $method<E: de::Error>(self, $v: $type) -> Result<RawValue, E> {
            Ok(RawValue::Scalar($value))
        })*
    };
}

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    scalars! {
                visit_u64(u64) => |v| Value::Whole(v);
        visit_i64(i64) => |v| u64::try_from(v).map_or_else(|_| Value::Number(float(i128::from(v))), Value::Whole);
        visit_i128(i128) => |v| u64::try_from(v).map_or_else(|_| Value::Number(float(v)), Value::Whole);
        visit_u128(u128) => |v| u64::try_from(v).map_or(Value::Number(f64::INFINITY), Value::Whole);
        visit_f64(f64) => |v| Value::Number(v);
        visit_str(&str) => |v| Value::Text(v.to_owned());
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Truth))
    }

    fn visit_unit<E: de::Error>(self) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Nothing))
    }

    fn visit_none<E: de::Error>(self) -> Result<RawValue, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawValue, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(RawValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = mapping.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Mapping(entries))
    }
}

/// For messages about numbers that no key takes: only size and sign matter.
#[expect(clippy::cast_precision_loss, reason = "the number is out of range for every key")]
fn float(n: i128) -> f64 {
    n as f64
}
