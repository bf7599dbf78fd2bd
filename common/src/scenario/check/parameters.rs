//! The parameters of a scenario: values that it is sized by, said once and used as `${name}`.
//!
//! Works on the tree of a file, before `repeat` and the readers of sections. `--set name=value` sets a declared
//! parameter. A value that is nothing but `${name}` takes the parameter's type and place, so that a fault in it is
//! shown where the value is written; `${name}` within a text is put in as text; `$${` stands for `${`. Law: after
//! [`Parameters::apply`] no scalar of the tree refers to a parameter, or a fault says which one.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Complaint, Place};
use super::reader::{Reader, Section};
use super::sections::TOP;
use super::tree::{Entry, Node, Value};
use super::values::{self, LONGEST_MS, Zero};
use crate::count;

const PARAMETERS: &str = "parameters";
pub(super) const KEYS: &[&str] = &["default", "meaning", "min", "max", "one_of"];
const EXAMPLE: &str = "{default: 10000, meaning: vectors}";

/// What `--set` gives, and what the file uses.
#[derive(Debug)]
pub(super) struct Parameters {
    declared: BTreeSet<String>,
    used: BTreeSet<String>,
    given: BTreeMap<String, Node>,
}

/// What a value is, where only values of the same kind can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Duration,
    Rate,
    Percentage,
    Text,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Duration => "a duration",
            Self::Rate => "a rate",
            Self::Percentage => "a percentage",
            Self::Text => "text",
        }
    }
}

impl Parameters {
    /// What a file declares and uses, before anything is put in its place.
    pub(super) fn of(tree: &Node) -> Self {
        let declared = entries(tree).iter().map(|entry| entry.key.clone()).collect();
        let mut used = BTreeSet::new();
        if let Value::Mapping(entries) = &tree.value {
            entries
                .iter()
                .filter(|entry| entry.key != PARAMETERS)
                .for_each(|entry| collect(&entry.node, &mut used));
        }
        Self { declared, used, given: BTreeMap::new() }
    }

    /// Whether `--set path=...` means a parameter.
    pub(super) fn has(&self, path: &str) -> bool {
        self.declared.contains(path)
    }

    /// The names, for hints.
    pub(super) fn names(&self) -> Vec<&str> {
        self.declared.iter().map(String::as_str).collect()
    }

    /// Takes a value from the command line.
    pub(super) fn give(&mut self, name: &str, value: Node) {
        self.given.insert(name.to_owned(), value);
    }

    /// Puts the values in their places, and says which value each parameter has.
    pub(super) fn apply(&self, reader: &mut Reader<'_>, tree: &mut Node) -> BTreeMap<String, String> {
        let mut known = BTreeMap::new();
        if let Some(node) = tree.get(PARAMETERS) {
            match &node.value {
                Value::Mapping(entries) => {
                    for entry in entries {
                        known.insert(entry.key.clone(), self.read(reader, entry));
                    }
                }
                _ => reader.complain(
                    node.place(),
                    values::wrong_type(PARAMETERS, node, "a mapping", &format!("{{rows: {EXAMPLE}}}")),
                ),
            }
        }
        if let Value::Mapping(entries) = &mut tree.value {
            for entry in entries.iter_mut().filter(|entry| entry.key != PARAMETERS) {
                fill(reader, &mut entry.node, &known);
            }
        }
        known.into_iter().filter_map(|(name, node)| Some((name, written(&node?.value)?))).collect()
    }

    /// The value of a parameter; `None` when faults were noted.
    fn read(&self, reader: &mut Reader<'_>, entry: &Entry) -> Option<Node> {
        let name = &entry.key;
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.chars().all(fine) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            reader.complain(
                entry.key_place,
                Complaint::new(
                    format!("`{name}` cannot name a parameter"),
                    "not a name",
                    format!("use small letters, digits and `_`, for example `rows: {EXAMPLE}`"),
                ),
            );
        } else if TOP.contains(&name.as_str()) {
            reader.complain(
                entry.key_place,
                Complaint::new(
                    format!("`{name}` is a key of the scenario and cannot name a parameter"),
                    "`--set` could not tell the two apart",
                    "choose another name",
                ),
            );
        } else if !self.used.contains(name) {
            reader.complain(
                entry.key_place,
                Complaint::new(
                    format!("parameter `{name}` is used nowhere"),
                    "changes nothing",
                    format!("write `${{{name}}}` where its value belongs, or leave the parameter out"),
                ),
            );
        }
        let title = format!("parameter `{name}`");
        let section = reader.section(&title, entry.key_place, &entry.node, KEYS)?;
        // Whatever else is wrong, a meaning that is missing is said too.
        let meaning = reader.required(&section, "meaning", "vectors", values::text);
        let default = reader.required(&section, "default", "10000", scalar)?;
        let (kind, _) = measure(&default);
        let bounds = bounds(reader, &section, kind);
        let choices = choices(reader, &section);
        meaning?;
        let (least, most) = bounds?;
        let choices = choices?;
        let mut fine = self.within(reader, name, &default, &default, (&least, &most), &choices);
        let value = match self.given.get(name) {
            Some(given) => {
                fine &= self.within(reader, name, given, &default, (&least, &most), &choices);
                given.clone()
            }
            None => default,
        };
        fine.then_some(value)
    }

    /// Whether a value is of the default's kind and within the bounds.
    fn within(
        &self,
        reader: &mut Reader<'_>,
        name: &str,
        value: &Node,
        default: &Node,
        (least, most): (&Option<Node>, &Option<Node>),
        choices: &[String],
    ) -> bool {
        let shown = |node: &Node| written(&node.value).unwrap_or_default();
        let (kind, _) = measure(default);
        let (given, size) = measure(value);
        let example = format!("--set {name}={}", shown(default));
        // A number may be meant as text.
        if given != kind && !(kind == Kind::Text && given == Kind::Number) {
            let message = format!("parameter `{name}` takes {}, not {}", kind.word(), given.word());
            reader.complain(
                value.place(),
                Complaint::new(message, given.word(), format!("for example `{example}`")),
            );
            return false;
        }
        let text = shown(value);
        if !choices.is_empty() && !choices.contains(&text) {
            let words: Vec<&str> = choices.iter().map(String::as_str).collect();
            reader.complain(
                value.place(),
                Complaint::new(
                    format!("parameter `{name}` cannot be `{text}`"),
                    "not known",
                    format!("{}it is one of: {}", values::did_you_mean(&text, &words), words.join(", ")),
                ),
            );
            return false;
        }
        let below = least.as_ref().filter(|least| size < measure(least).1);
        let above = most.as_ref().filter(|most| size > measure(most).1);
        if below.is_none() && above.is_none() {
            return true;
        }
        let range = match (least, most) {
            (Some(least), Some(most)) => format!("from {} to {}", shown(least), shown(most)),
            (Some(least), None) => format!("at least {}", shown(least)),
            (None, Some(most)) => format!("at most {}", shown(most)),
            (None, None) => String::new(),
        };
        reader.complain(
            value.place(),
            Complaint::new(
                format!("parameter `{name}` must be {range}, but is {text}"),
                "out of bounds",
                format!("for example `{example}`"),
            ),
        );
        false
    }
}

/// Bounds, of the default's kind.
fn bounds(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    kind: Kind,
) -> Option<(Option<Node>, Option<Node>)> {
    let mut bound = |key: &str| {
        reader.optional(section, key, "1000", |key, node, example| {
            let bound = scalar(key, node, example)?;
            let (found, _) = measure(&bound);
            if found == kind && kind != Kind::Text {
                return Ok(bound);
            }
            Err(match kind {
                Kind::Text => Complaint::new(
                    format!("`{key}` bounds a text"),
                    "a text has no order",
                    "write `one_of: [a, b]` to name what is allowed",
                ),
                _ => Complaint::new(
                    format!("`{key}` is {}, the default is {}", found.word(), kind.word()),
                    found.word(),
                    "write bounds in the unit of the default",
                ),
            })
        })
    };
    let (least, most) = (bound("min"), bound("max"));
    Some((least?, most?))
}

fn choices(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Vec<String>> {
    reader.defaulted(section, "one_of", Vec::new(), "[1, 2, 4]", |key, node, example| match &node.value {
        Value::List(items) if !items.is_empty() && items.iter().all(|i| written(&i.value).is_some()) => {
            Ok(items.iter().filter_map(|item| written(&item.value)).collect())
        }
        _ => Err(values::wrong_type(key, node, "a list of values", example)),
    })
}

fn entries(tree: &Node) -> &[Entry] {
    match tree.get(PARAMETERS).map(|node| &node.value) {
        Some(Value::Mapping(entries)) => entries,
        _ => &[],
    }
}

/// A number or a text.
fn scalar(key: &str, node: &Node, example: &str) -> Result<Node, Complaint> {
    match &node.value {
        Value::Whole(_) | Value::Number(_) => Ok(node.clone()),
        Value::Text(text) if !text.is_empty() => Ok(node.clone()),
        _ => Err(values::wrong_type(key, node, "a number or a text", example)),
    }
}

/// A scalar as it is put into a text.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::Whole(n) => Some(n.to_string()),
        Value::Number(n) => Some(n.to_string()),
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn measure(node: &Node) -> (Kind, f64) {
    match &node.value {
        Value::Whole(n) => return (Kind::Number, count::to_f64(*n)),
        Value::Number(n) => return (Kind::Number, *n),
        _ => {}
    }
    if let Ok(percent) = values::percent("", node, "") {
        return (Kind::Percentage, percent);
    }
    if let Ok(rate) = values::rate("", node, Zero::Allowed, "") {
        return (Kind::Rate, rate);
    }
    match values::duration_ms("", node, 0..=LONGEST_MS, "") {
        Ok(ms) => (Kind::Duration, count::to_f64(ms)),
        Err(_) => (Kind::Text, 0.0),
    }
}

/// A part of a text.
enum Part<'t> {
    Plain(&'t str),
    /// The name within `${...}`, and where that begins.
    Reference(&'t str, usize),
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest, mut at) = (Vec::new(), text, 0);
    while let Some(found) = rest.find("${") {
        let (before, after) = rest.split_at(found);
        if let Some(plain) = before.strip_suffix('$') {
            parts.push(Part::Plain(plain));
            parts.push(Part::Plain("${"));
            (rest, at) = (after.get(2..).unwrap_or_default(), at + found + 2);
            continue;
        }
        let Some(end) = after.find('}') else { break };
        parts.push(Part::Plain(before));
        parts.push(Part::Reference(after.get(2..end).unwrap_or_default(), at + found));
        (rest, at) = (after.get(end + 1..).unwrap_or_default(), at + found + end + 1);
    }
    parts.push(Part::Plain(rest));
    parts
}

fn collect(node: &Node, used: &mut BTreeSet<String>) {
    match &node.value {
        Value::Text(text) => used.extend(parts(text).into_iter().filter_map(|part| match part {
            Part::Reference(name, _) => Some(name.to_owned()),
            Part::Plain(_) => None,
        })),
        Value::List(items) => items.iter().for_each(|item| collect(item, used)),
        Value::Mapping(entries) => entries.iter().for_each(|entry| collect(&entry.node, used)),
        _ => {}
    }
}

/// Puts values in place; `None` among them stands for one whose fault is noted.
fn fill(reader: &mut Reader<'_>, node: &mut Node, known: &BTreeMap<String, Option<Node>>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| fill(reader, item, known)),
        Value::Mapping(entries) => entries.iter_mut().for_each(|entry| fill(reader, &mut entry.node, known)),
        Value::Text(text) if text.contains("${") => {
            let text = text.clone();
            *node = filled(reader, node, &text, known);
        }
        _ => {}
    }
}

/// The scalar with its references replaced; refused when faults were noted.
fn filled(reader: &mut Reader<'_>, node: &Node, text: &str, known: &BTreeMap<String, Option<Node>>) -> Node {
    let parts = parts(text);
    let place = node.place();
    let mut whole = true;
    let mut put = String::new();
    for part in &parts {
        match part {
            Part::Plain(plain) => put.push_str(plain),
            Part::Reference(name, at) => match known.get(*name) {
                Some(Some(value)) => put.push_str(&written(&value.value).unwrap_or_default()),
                Some(None) => whole = false,
                None => {
                    whole = false;
                    reader.complain(
                        reference_place(reader, place, text, *at, name.len()),
                        unknown(name, known),
                    );
                }
            },
        }
    }
    if !whole {
        return Node::new(Value::Refused, place);
    }
    match parts.iter().filter(|part| !matches!(part, Part::Plain(""))).collect::<Vec<_>>().as_slice() {
        [Part::Reference(name, _)] => {
            known.get(*name).cloned().flatten().unwrap_or_else(|| Node::new(Value::Refused, place))
        }
        _ => Node::new(Value::Text(put), place),
    }
}

/// The bytes of `${name}`, where the scalar is written as it reads.
fn reference_place(reader: &Reader<'_>, place: Place, text: &str, at: usize, name: usize) -> Place {
    match reader.written(place).find(text) {
        Some(shift) => {
            Place { start: place.start + shift + at, end: place.start + shift + at + name + 3, ..place }
        }
        None => place,
    }
}

fn unknown(name: &str, known: &BTreeMap<String, Option<Node>>) -> Complaint {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    let hint = match names.as_slice() {
        [] => format!("declare it: `parameters: {{{name}: {EXAMPLE}}}`"),
        _ => format!("{}the parameters are: {}", values::did_you_mean(name, &names), names.join(", ")),
    };
    Complaint::new(format!("no parameter is named `{name}`"), "not declared", hint)
}
