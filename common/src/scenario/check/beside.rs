//! Reads what runs beside a phase: other loads, and changes of index and cluster.
//!
//! Called by the reader of phases. Law: what is accepted begins while the phase lasts, as far as its length is known, and
//! ends with it at the latest.

use super::super::{Arrival, BesideSpec, Keep, Load, PhaseSpec, ShrinkSpec, Step};
use super::fault::Complaint;
use super::phases::{at, one, span};
use super::reader::{Reader, Section};
use super::sequence::Told;
use super::tree::{Entry, Node, Value};
use super::values::{self, LONGEST_MS};

/// The key of the list, in the phase that has it.
pub(super) const BESIDE: &str = "beside";
/// The key of the delay, in the phases of the list.
pub(super) const AFTER: &str = "after";
/// What can run beside a phase: what changes no rows, so that it is known what lives.
pub(super) const STEPS: &[&str] =
    &["query", "kv", "rebuild_index", "failover", "migrate_slots", "add_node", "remove_node", "command"];

const EXAMPLE: &str = "[{name: rebuild, after: 5s, rebuild_index: {m: 32}}]";

/// The items of a phase's list.
pub(super) fn items(phase: &Node) -> &[Node] {
    match phase.get(BESIDE).map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

/// The same, to be changed.
pub(super) fn items_mut(phase: &mut Node) -> Option<&mut Vec<Node>> {
    let Value::Mapping(entries) = &mut phase.value else { return None };
    match &mut entries.iter_mut().find(|entry| entry.key == BESIDE)?.node.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

/// What runs beside a phase (`None` where that has faults); `None` when faults were noted.
pub(super) fn read(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    phase: Option<&PhaseSpec>,
    told: &mut Vec<Told>,
) -> Option<Vec<BesideSpec>> {
    let Some(Entry { node, key_place, .. }) = section.get(BESIDE) else { return Some(Vec::new()) };
    let Value::List(items) = &node.value else {
        reader.complain(node.place_under(*key_place), values::wrong_type(BESIDE, node, "a list", EXAMPLE));
        return None;
    };
    let weighs = |step: &Step| matches!(step, Step::Shrink(ShrinkSpec { keep: Keep::Memory(_), .. }));
    if let Some(phase) = phase
        && (phase.step.load().is_none() || weighs(&phase.step))
    {
        reader.complain(
            *key_place,
            Complaint::new(
                format!(
                    "nothing can run beside phase `{}`: it is not one load from its start to its end",
                    phase.name
                ),
                "only beside a load",
                "give `beside` to a phase with a load; a shrink to `keep_memory` is several phases",
            ),
        );
        return None;
    }
    let length_ms = phase.and_then(|phase| length_of(&phase.step));
    let read: Vec<Option<BesideSpec>> =
        items.iter().enumerate().map(|(n, item)| member(reader, item, n, length_ms, told)).collect();
    read.into_iter().collect()
}

fn member(
    reader: &mut Reader<'_>,
    item: &Node,
    n: usize,
    length_ms: Option<u64>,
    told: &mut Vec<Told>,
) -> Option<BesideSpec> {
    let (section, phase) = one(reader, item, n, (STEPS, AFTER), told)?;
    let after_ms =
        reader.defaulted(&section, AFTER, 0, "5s", |k, n, e| values::duration_ms(k, n, 0..=LONGEST_MS, e))?;
    if let Some(length_ms) = length_ms.filter(|length_ms| after_ms >= *length_ms) {
        reader.complain(
            at(&section, AFTER),
            Complaint::new(
                "`after` is not within the phase that it runs beside",
                format!("that one lasts {}s", length_ms / 1_000),
                "let it begin earlier, or make that phase longer",
            ),
        );
        return None;
    }
    Some(BesideSpec { after_ms, phase: phase? })
}

/// How long a step lasts, where the clock ends it.
fn length_of(step: &Step) -> Option<u64> {
    match step {
        Step::Query(query) => Some(query.warm_up_ms.saturating_add(query.duration_ms)),
        Step::Kv(kv) if kv.operations.is_none() => Some(kv.warm_up_ms.saturating_add(kv.duration_ms)),
        _ => None,
    }
}

/// The length of a load that runs beside a phase; 0 where that phase ends it.
pub(super) fn length(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    phase: &str,
    load: Option<&Load>,
) -> Option<u64> {
    let duration_ms = reader.optional(section, "duration", "10s", span)?;
    let varies =
        matches!(load, Some(Load::Open { arrival, .. }) if !matches!(arrival, Arrival::Constant { .. }));
    if duration_ms.is_none() && varies {
        reader.complain(
            section.place(),
            Complaint::new(
                format!("phase `{phase}` has no `duration`"),
                "a changing or random rate needs one",
                "add `duration: 10s`; it ends with the phase that it runs beside at the latest",
            ),
        );
        return None;
    }
    if duration_ms.is_none()
        && let Some(warm_up) = section.get("warm_up")
    {
        reader.complain(
            warm_up.node.place_under(warm_up.key_place),
            Complaint::new(
                format!("phase `{phase}` has a `warm_up` and no `duration`"),
                "of what?",
                "add `duration: 10s`, or leave the warm-up out: without a duration it lasts as long as the phase beside it",
            ),
        );
        return None;
    }
    Some(duration_ms.unwrap_or(0))
}
