//! Applies `--set path=value` to the tree of a scenario, before it is checked; a name that the scenario declares as a
//! parameter never comes here.
//!
//! A path is dotted, `dataset.rows`; a phase is addressed by its name and its step's word may be left out,
//! `phases.query_full.duration`; a key that only one section has may stand alone, `rows`. The value is YAML. Whatever
//! is put in place keeps its place in the override's own text, so that a fault in it shows the override. Law: an
//! override changes the value at its path and nothing else.

use super::beside;
use super::fault::{Complaint, Place};
use super::phases::{STEPS, address};
use super::repeat;
use super::sections::{SECTIONS, TOP};
use super::tree::{Entry, Node, Value};
use super::values::did_you_mean;

/// One key of a path, and where it stands in the override's text.
struct Segment {
    key: String,
    place: Place,
}

/// Puts `value` where `path` says. The path is the beginning of the text of source `source`.
pub(super) fn apply(
    tree: &mut Node,
    source: usize,
    path: &str,
    value: Node,
    parameters: &[&str],
) -> Result<(), (Place, Complaint)> {
    let whole = Place { source, start: 0, end: path.len() };
    let mut segments = split(path, source);
    if let Some(empty) = segments.iter().find(|segment| segment.key.is_empty()) {
        return Err((
            Place { source, start: empty.place.start, end: empty.place.start + 1 },
            Complaint::new(
                format!("`--set {path}` has an empty key"),
                "a key is missing here",
                "write keys with one dot between them, for example `--set dataset.rows=2000`",
            ),
        ));
    }
    let first = segments.first().map(|segment| segment.key.clone()).unwrap_or_default();
    if !TOP.contains(&first.as_str()) {
        let Some((section, _)) = SECTIONS.iter().find(|(_, keys)| keys.contains(&first.as_str())) else {
            return Err((whole, unknown(path, &first, parameters)));
        };
        segments.insert(0, Segment { key: (*section).to_owned(), place: whole });
    }
    if first == "phases" && segments.len() > 1 {
        let phase = phase_of(tree, &segments, path)?;
        let rest: Vec<Segment> = segments.into_iter().skip(2).collect();
        return put(phase, &with_step(phase, rest, path, whole)?, path, value);
    }
    put(tree, &segments, path, value)
}

fn split(path: &str, source: usize) -> Vec<Segment> {
    let mut start = 0;
    path.split('.')
        .map(|key| {
            let place = Place { source, start, end: start + key.len() };
            start = place.end + 1;
            Segment { key: key.to_owned(), place }
        })
        .collect()
}

fn unknown(path: &str, first: &str, parameters: &[&str]) -> Complaint {
    let keys = TOP.iter().chain(SECTIONS.iter().flat_map(|(_, keys)| keys.iter())).chain(parameters);
    let keys: Vec<&str> = keys.copied().collect();
    let paths = format!("{}a path begins with one of: {}", did_you_mean(first, &keys), TOP.join(", "));
    Complaint::new(
        format!("`--set {path}` names no key of a scenario"),
        "not known",
        match parameters {
            [] => paths,
            _ => format!("{paths}; the parameters are: {}", parameters.join(", ")),
        },
    )
}

/// Whether a phase has this name.
fn is(phase: &Node, name: &str) -> bool {
    matches!(phase.get("name"), Some(Node { value: Value::Text(own), .. }) if own == name)
}

/// The phase that the second segment names.
fn phase_of<'t>(
    tree: &'t mut Node,
    segments: &[Segment],
    path: &str,
) -> Result<&'t mut Node, (Place, Complaint)> {
    let (name, place) = match segments.get(1) {
        Some(segment) => (segment.key.as_str(), segment.place),
        None => ("", Place { source: 0, start: 0, end: 0 }),
    };
    let items = match &mut tree.value {
        Value::Mapping(entries) => entries.iter_mut().find(|entry| entry.key == "phases"),
        _ => None,
    };
    let items = match items {
        Some(Entry { node: Node { value: Value::List(items), .. }, .. }) => items.as_mut_slice(),
        _ => &mut [],
    };
    // A phase of a group is addressed by its own name, once for all rounds.
    let mut phases: Vec<&mut Node> = Vec::new();
    for item in items {
        if repeat::is_group(item) {
            phases.extend(repeat::inside(item).into_iter().flatten());
        } else {
            phases.push(item);
        }
    }
    let mut names: Vec<String> = phases.iter().enumerate().map(|(n, phase)| address(phase, n)).collect();
    let members = phases.iter().map(|phase| beside::items(phase).iter().position(|item| is(item, name)));
    let beside = members.enumerate().find_map(|(n, member)| Some((n, member?)));
    let found =
        match (names.iter().position(|candidate| candidate == name), beside) {
            (Some(n), _) => phases.into_iter().nth(n),
            (None, Some((n, member))) => {
                phases.into_iter().nth(n).and_then(beside::items_mut).and_then(|items| items.get_mut(member))
            }
            (None, None) => {
                names.extend(phases.iter().flat_map(|phase| {
                    beside::items(phase).iter().enumerate().map(|(n, item)| address(item, n))
                }));
                None
            }
        };
    match found {
        Some(phase) => Ok(phase),
        None => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Err((
                place,
                Complaint::new(
                    format!("`--set {path}` names a phase that is not there"),
                    "no such phase",
                    format!("{}the phases are: {}", did_you_mean(name, &names), names.join(", ")),
                ),
            ))
        }
    }
}

/// The rest of a phase's path, with the step's word put in where it was left out.
fn with_step(
    phase: &Node,
    mut rest: Vec<Segment>,
    path: &str,
    whole: Place,
) -> Result<Vec<Segment>, (Place, Complaint)> {
    let Some(first) = rest.first() else {
        return Err((
            whole,
            Complaint::new(
                format!("`--set {path}` names a whole phase"),
                "a key of the phase is missing",
                format!("say which key, for example `--set {path}.timeout=5s`"),
            ),
        ));
    };
    let is_step = |key: &str| STEPS.iter().any(|(word, _)| *word == key);
    if first.key != "name"
        && first.key != "criteria"
        && !is_step(&first.key)
        && let Value::Mapping(entries) = &phase.value
        && let Some(step) = entries.iter().find(|entry| is_step(&entry.key))
    {
        rest.insert(0, Segment { key: step.key.clone(), place: whole });
    }
    Ok(rest)
}

/// Walks down to the last segment, making mappings where there is nothing yet, and sets the value.
fn put(tree: &mut Node, segments: &[Segment], path: &str, value: Node) -> Result<(), (Place, Complaint)> {
    let mut at = tree;
    for segment in segments {
        if matches!(at.value, Value::Nothing) {
            at.value = Value::Mapping(Vec::new());
        }
        let kind = at.kind();
        let next = match &mut at.value {
            Value::Mapping(entries) => {
                let n = entries.iter().position(|entry| entry.key == segment.key).unwrap_or(entries.len());
                if n == entries.len() {
                    entries.push(Entry {
                        key: segment.key.clone(),
                        key_place: segment.place,
                        node: Node::new(Value::Nothing, segment.place),
                    });
                }
                entries.get_mut(n).map(|entry| &mut entry.node)
            }
            // Items are counted from 1, as in messages.
            Value::List(items) => {
                segment.key.parse::<usize>().ok().and_then(|n| items.get_mut(n.checked_sub(1)?))
            }
            _ => None,
        };
        at = next.ok_or_else(|| {
            let complaint = Complaint::new(
                format!("`--set {path}` leads nowhere: there is {kind} before `{}`", segment.key),
                "not there",
                "name a key that the scenario can have, or an item of a list by its number from 1",
            );
            (segment.place, complaint)
        })?;
    }
    *at = value;
    Ok(())
}
