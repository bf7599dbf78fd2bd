//! Reads how hard a phase drives the target: closed or open, and the arrival function of an open load.
//!
//! Called by the reader of phases. Law: a load that is accepted states everything that the schedule needs, and its
//! arrival function yields requests.

use super::super::{Arrival, Load};
use super::fault::Complaint;
use super::reader::{Reader, Section};
use super::sections::count;
use super::tree::{Node, Value};
use super::values::{self, LONGEST_MS, Zero};

const CLOSED_EXAMPLE: &str = "{clients: 8, pipeline: 8}";
const OPEN_EXAMPLE: &str = "{rate: 200/s, connections: 16}";

/// Which loads a step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinds {
    /// Requests that are numbered.
    Any,
    /// Rows, as many as there are.
    Rows,
}

/// The load of a step, which every step that sends requests must have.
pub(super) fn load(reader: &mut Reader<'_>, step: &Section<'_>, phase: &str, kinds: Kinds) -> Option<Load> {
    let example = match kinds {
        Kinds::Rows => format!("closed: {CLOSED_EXAMPLE}"),
        Kinds::Any => format!("open: {OPEN_EXAMPLE}"),
    };
    if step.get("load").is_none() && !step.misspelt("load") {
        reader.complain(
            step.place(),
            Complaint::new(
                format!("phase `{phase}` has no load"),
                "does not say how hard to drive the target",
                format!("add `load: {{{example}}}`"),
            ),
        );
        return None;
    }
    let entry = step.get("load")?;
    let title = format!("`load` of phase `{phase}`");
    let section = reader.section(&title, entry.key_place, &entry.node, &["closed", "open"])?;
    let kind = reader.one_of(&section, &["closed", "open"], &example)?;
    if kind.key == "closed" { closed(reader, &section) } else { open(reader, &section) }
}

fn closed(reader: &mut Reader<'_>, load: &Section<'_>) -> Option<Load> {
    let section = reader.subsection(load, "closed", &["clients", "pipeline"])?;
    let clients = reader.required(&section, "clients", "8", |k, n, e| count(k, n, 1_000_000, e));
    let pipeline = reader.required(&section, "pipeline", "8", |k, n, e| count(k, n, 10_000, e));
    Some(Load::Closed { clients: clients?, pipeline: pipeline? })
}

fn open(reader: &mut Reader<'_>, load: &Section<'_>) -> Option<Load> {
    let section = reader.subsection(load, "open", &["rate", "arrival", "connections"])?;
    let arrival = match reader.one_of(&section, &["rate", "arrival"], "rate: 200/s") {
        Some(entry) if entry.key == "arrival" => arrival(reader, &section),
        Some(_) => constant(reader, &section),
        None => None,
    };
    let connections = reader.required(&section, "connections", "16", |k, n, e| count(k, n, 1_000_000, e));
    Some(Load::Open { arrival: arrival?, connections: connections? })
}

const ARRIVALS: &[&str] = &["constant", "ramp", "steps", "burst", "poisson"];

fn arrival(reader: &mut Reader<'_>, open: &Section<'_>) -> Option<Arrival> {
    let arrival = reader.subsection(open, "arrival", ARRIVALS)?;
    let kind = reader.one_of(&arrival, ARRIVALS, "constant: {rate: 200/s}")?;
    match kind.key.as_str() {
        "constant" => {
            let section = reader.subsection(&arrival, "constant", &["rate"])?;
            constant(reader, &section)
        }
        "poisson" => {
            let section = reader.subsection(&arrival, "poisson", &["rate"])?;
            let rate = reader.required(&section, "rate", "200/s", positive)?;
            Some(Arrival::Poisson { rate })
        }
        "ramp" => ramp(reader, &arrival),
        "steps" => steps(reader, &arrival),
        "burst" => burst(reader, &arrival),
        _ => None,
    }
}

fn constant(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Arrival> {
    let rate = reader.required(section, "rate", "200/s", positive)?;
    Some(Arrival::Constant { rate })
}

fn ramp(reader: &mut Reader<'_>, arrival: &Section<'_>) -> Option<Arrival> {
    let section = reader.subsection(arrival, "ramp", &["from", "to"])?;
    let from = reader.required(&section, "from", "100/s", nought_or_more);
    let to = reader.required(&section, "to", "500/s", nought_or_more);
    let (from, to) = (from?, to?);
    if from == 0.0 && to == 0.0 {
        reader.complain(section.place(), idle("ramp", "ramp: {from: 100/s, to: 500/s}"));
        return None;
    }
    Some(Arrival::Ramp { from, to })
}

fn burst(reader: &mut Reader<'_>, arrival: &Section<'_>) -> Option<Arrival> {
    let section = reader.subsection(arrival, "burst", &["base", "peak", "length", "period"])?;
    let base = reader.required(&section, "base", "100/s", nought_or_more);
    let peak = reader.required(&section, "peak", "1k/s", positive);
    let length_ms = reader.required(&section, "length", "500ms", span);
    let period_ms = reader.required(&section, "period", "5s", span);
    let (base, peak, length_ms, period_ms) = (base?, peak?, length_ms?, period_ms?);
    if length_ms > period_ms {
        let place =
            section.get("length").map_or(section.place(), |entry| entry.node.place_under(entry.key_place));
        reader.complain(
            place,
            Complaint::new(
                "a burst is longer than the time from one to the next",
                "longer than `period`",
                "make `length` at most `period`, for example `length: 500ms, period: 5s`",
            ),
        );
        return None;
    }
    Some(Arrival::Burst { base, peak, length_ms, period_ms })
}

fn steps(reader: &mut Reader<'_>, arrival: &Section<'_>) -> Option<Arrival> {
    let example = "[{rate: 100/s, length: 10s}, {rate: 200/s, length: 10s}]";
    let entry = arrival.get("steps")?;
    let Value::List(items) = &entry.node.value else {
        reader.complain(
            entry.node.place_under(entry.key_place),
            values::wrong_type("steps", &entry.node, "a list", example),
        );
        return None;
    };
    let read: Vec<Option<(f64, u64)>> = items
        .iter()
        .enumerate()
        .map(|(n, item)| {
            let title = format!("step {} of `steps`", n + 1);
            let section = reader.section(&title, item.place(), item, &["rate", "length"])?;
            let rate = reader.required(&section, "rate", "100/s", nought_or_more);
            let length_ms = reader.required(&section, "length", "10s", span);
            Some((rate?, length_ms?))
        })
        .collect();
    let steps = read.into_iter().collect::<Option<Vec<_>>>()?;
    if steps.iter().all(|(rate, _)| *rate == 0.0) {
        reader.complain(entry.key_place, idle("steps", &format!("steps: {example}")));
        return None;
    }
    Some(Arrival::Steps { steps })
}

fn idle(key: &str, example: &str) -> Complaint {
    Complaint::new(
        format!("`{key}` never sends a request"),
        "all its rates are 0/s",
        format!("for example `{example}`"),
    )
}

fn positive(key: &str, node: &Node, example: &str) -> Result<f64, Complaint> {
    values::rate(key, node, Zero::Refused, example)
}

fn nought_or_more(key: &str, node: &Node, example: &str) -> Result<f64, Complaint> {
    values::rate(key, node, Zero::Allowed, example)
}

fn span(key: &str, node: &Node, example: &str) -> Result<u64, Complaint> {
    values::duration_ms(key, node, 1..=LONGEST_MS, example)
}
