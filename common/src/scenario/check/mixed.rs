//! Reads a phase that asks and changes rows at the same time.
//!
//! Called by the reader of phases. Law: what is accepted says how many requests there are, so that the population after
//! the phase is known before it.

use super::super::{Load, MixedSpec};
use super::ask;
use super::fault::Complaint;
use super::phases::{rows_load, span, timeout};
use super::reader::{Reader, Section};
use super::sequence::Told;
use super::values;
use crate::content::Pattern;
use crate::count as number;
use crate::ids::PhaseIndex;
use crate::mix::MixWeights;
use crate::schedule::Schedule;

/// Keys of the step.
pub(super) const KEYS: &[&str] =
    &["weights", "operations", "duration", "k", "ef_runtime", "filter", "returns", "load", "timeout"];
const WEIGHTS: &[&str] = &["query", "ingest", "delete", "update"];
const MOST_WEIGHT: u64 = 1000;
const MS_NS: u64 = 1_000_000;
const WEIGHTS_EXAMPLE: &str = "{query: 70, ingest: 20, delete: 10}";

pub(super) fn mixed(reader: &mut Reader<'_>, section: &Section<'_>, told: &mut Told) -> Option<MixedSpec> {
    told.moves = true;
    let weights = weights(reader, section);
    let ask = ask::ask(reader, section);
    let load = rows_load(reader, section, told);
    let operations =
        reader.optional(section, "operations", "100000", |k, n, e| values::whole(k, n, 1..=u64::MAX / 4, e));
    let duration_ms = reader.optional(section, "duration", "30s", span);
    let timeout_ms = timeout(reader, section);
    let (load, operations, duration_ms) = (load?, operations?, duration_ms?);
    let operations = requests(reader, section, told, &load, operations, duration_ms)?;
    Some(MixedSpec { weights: weights?, operations, ask: ask?, load, timeout_ms: timeout_ms? })
}

/// How many requests there are: as many as said, or as the schedule has in so much time.
fn requests(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    told: &Told,
    load: &Load,
    operations: Option<u64>,
    duration_ms: Option<u64>,
) -> Option<u64> {
    let scheduled = match (load, duration_ms) {
        (Load::Open { arrival, .. }, Some(ms)) => {
            let length_ns = ms.saturating_mul(MS_NS);
            let schedule = Schedule::new(arrival, length_ns, 0, PhaseIndex(0));
            // Of Poisson arrivals the mean: the rows that come and go must be known beforehand.
            Some(
                schedule.count().unwrap_or_else(|| number::from_f64(schedule.expected_by(length_ns).round())),
            )
        }
        _ => None,
    };
    let (message, label, hint) = match (load, operations, duration_ms, scheduled) {
        (Load::Closed { .. }, _, Some(_), _) => (
            format!("phase `{}` is a closed loop with a `duration`", told.address),
            "would leave an unknown population",
            "how many rows come and go must be known beforehand: say `operations: 100000` instead",
        ),
        (_, None, None, _) => (
            format!("phase `{}` has neither `operations` nor `duration`", told.address),
            "would never end",
            "add `operations: 100000`, or in an open loop `duration: 30s`",
        ),
        (_, None, Some(_), Some(0)) => (
            format!("phase `{}` sends nothing in its `duration`", told.address),
            "no request is due",
            "make it longer, or raise the rate",
        ),
        (_, Some(operations), _, scheduled) => {
            return Some(scheduled.map_or(operations, |scheduled| scheduled.min(operations)));
        }
        (_, None, _, scheduled) => return scheduled,
    };
    reader.complain(section.place(), Complaint::new(message, label, hint));
    None
}

fn weights(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<MixWeights> {
    reader.required(section, "weights", WEIGHTS_EXAMPLE, |_, _, _| Ok(()))?;
    let entry = section.get("weights")?;
    let section = reader.section("`weights`", entry.key_place, &entry.node, WEIGHTS)?;
    let [query, ingest, delete, update] = ["query", "ingest", "delete", "update"].map(|key| {
        let weight =
            reader.defaulted(&section, key, 0, "20", |k, n, e| values::whole(k, n, 0..=MOST_WEIGHT, e));
        weight.and_then(|weight| u32::try_from(weight).ok())
    });
    let weights = MixWeights { query: query?, ingest: ingest?, delete: delete?, update: update? };
    if weights.query == 0 || Pattern::length_of(&weights.all()) < 2 {
        reader.complain(
            entry.key_place,
            Complaint::new(
                "the weights mix nothing",
                if weights.query == 0 { "nothing is asked" } else { "no row is changed" },
                format!("give `query` and another a part, for example `weights: {WEIGHTS_EXAMPLE}`"),
            ),
        );
        return None;
    }
    Some(weights)
}
