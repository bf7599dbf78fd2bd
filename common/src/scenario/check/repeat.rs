//! Puts the phases of a `repeat` in the list as often as it says, before anything else looks at them.
//!
//! Fed with the tree after its overrides. Law: what comes out has no `repeat`; the i-th time round, a phase is called
//! by its own name and `_i`, and keeps its place in the text, so that a fault in it is shown where it is written.

use super::beside;
use super::fault::Complaint;
use super::reader::Reader;
use super::tree::{Entry, Node, Value};
use super::values;

pub(super) const REPEAT: &str = "repeat";
pub(super) const PHASES: &str = "phases";
pub(super) const MOST_TIMES: u64 = 1000;

/// Whether an item of the phases is a group that repeats.
pub(super) fn is_group(item: &Node) -> bool {
    item.get(REPEAT).is_some()
}

/// The phases of a group, to be changed.
pub(super) fn inside(item: &mut Node) -> Option<&mut Vec<Node>> {
    let Value::Mapping(entries) = &mut item.value else { return None };
    match &mut entries.iter_mut().find(|entry| entry.key == PHASES)?.node.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

/// The tree with every group written out.
pub(super) fn expand(reader: &mut Reader<'_>, tree: &mut Node) {
    let Value::Mapping(entries) = &mut tree.value else { return };
    let Some(entry) = entries.iter_mut().find(|entry| entry.key == PHASES) else { return };
    let Value::List(items) = &mut entry.node.value else { return };
    let mut all = Vec::new();
    for mut item in std::mem::take(items) {
        if !is_group(&item) {
            all.push(item);
            continue;
        }
        let times = read(reader, &item);
        let phases = inside(&mut item).map(std::mem::take).unwrap_or_default();
        for i in 1..=times.unwrap_or(1) {
            all.extend(
                phases.iter().map(|phase| if times.is_some() { named(phase, i) } else { phase.clone() }),
            );
        }
    }
    *items = all;
}

/// How often; `None` when faults were noted.
fn read(reader: &mut Reader<'_>, item: &Node) -> Option<u64> {
    const EXAMPLE: &str = "[{name: turn, churn: {by: 5%, load: {closed: {clients: 8, pipeline: 8}}}}]";
    let section = reader.section("a group of phases", item.place(), item, &[REPEAT, PHASES])?;
    let times = reader.required(&section, REPEAT, "3", |k, n, e| values::whole(k, n, 1..=MOST_TIMES, e));
    let phases = reader.required(&section, PHASES, EXAMPLE, |key, node, example| match &node.value {
        Value::List(items) if items.iter().any(is_group) => Err(Complaint::new(
            "a group of phases within a group",
            "one level only",
            "write the phases of the inner group out, or repeat the outer one more often",
        )),
        Value::List(items) if !items.is_empty() => Ok(()),
        _ => Err(values::wrong_type(key, node, "a list of phases", example)),
    });
    phases.and(times)
}

/// A phase with the number of the round behind its name, and what runs beside it.
fn named(phase: &Node, round: u64) -> Node {
    let mut phase = phase.clone();
    for member in beside::items_mut(&mut phase).into_iter().flatten() {
        *member = named(member, round);
    }
    if let Value::Mapping(entries) = &mut phase.value
        && let Some(Entry { node: Node { value: Value::Text(name), .. }, .. }) =
            entries.iter_mut().find(|entry| entry.key == "name")
    {
        *name = format!("{name}_{round}");
    }
    phase
}
