//! Reads `criteria`: what must hold of a phase, or of all phases.
//!
//! Called by the readers of sections and of phases. Law: what is accepted can be judged by some phase of the scenario.

use vst_tuning::constraint::Constraint;
use vst_tuning::figure::{FIGURES, Figure};

use super::super::{PhaseSpec, criteria, every};
use super::fault::Complaint;
use super::reader::{Reader, Section};
use super::tree::{Node, Value};
use super::values;

const KEY: &str = "criteria";
const EXAMPLE: &str = "[recall >= 0.95, p99 <= 10ms]";

/// The criteria of a phase or of the scenario; `None` when faults were noted.
pub(super) fn read(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Vec<Constraint>> {
    let Some(entry) = section.get(KEY) else { return Some(Vec::new()) };
    let Value::List(items) = &entry.node.value else {
        let complaint = values::wrong_type(KEY, &entry.node, "a list", EXAMPLE);
        reader.complain(entry.node.place_under(entry.key_place), complaint);
        return None;
    };
    let mut read = Some(Vec::new());
    for item in items {
        match one(item) {
            Ok(criterion) => read.iter_mut().for_each(|read| read.push(criterion)),
            Err(None) => read = None,
            Err(Some(complaint)) => {
                reader.complain(item.place(), complaint);
                read = None;
            }
        }
    }
    read
}

/// A criterion; `None` stands for a fault that is noted already.
fn one(item: &Node) -> Result<Constraint, Option<Complaint>> {
    if matches!(item.value, Value::Refused) {
        return Err(None);
    }
    let text = values::text(KEY, item, EXAMPLE)?;
    let hint = format!("for example `{KEY}: {EXAMPLE}`");
    let fault = |message: String, label: &str| Some(Complaint::new(message, label, hint.clone()));
    let criterion: Constraint = text
        .parse()
        .map_err(|e: <Constraint as std::str::FromStr>::Err| fault(e.to_string(), "no criterion"))?;
    match criterion.figure() {
        figure @ (Figure::P999 | Figure::CpuPerQuery) => {
            let known = FIGURES.iter().filter(|(f, _)| !matches!(f, Figure::P999 | Figure::CpuPerQuery));
            let known: Vec<&str> = known.map(|(_, name)| *name).collect();
            Err(fault(format!("a report has no `{figure}`; it has {}", known.join(", ")), "cannot be judged"))
        }
        _ => Ok(criterion),
    }
}

/// Notes criteria of a phase that it cannot answer.
pub(super) fn judge_phase(reader: &mut Reader<'_>, section: &Section<'_>, phase: &PhaseSpec) {
    for (n, criterion) in phase.criteria.iter().enumerate() {
        if !phase.step.answers(criterion.figure()) {
            let figure = criterion.figure();
            let message = format!("phase `{}` has no `{figure}`", phase.name);
            note(reader, section, n, message, home_of(figure));
        }
    }
}

/// Notes criteria of the scenario that no phase answers.
pub(super) fn judge(reader: &mut Reader<'_>, top: &Section<'_>, all: &[Constraint], phases: &[PhaseSpec]) {
    for (n, criterion) in all.iter().enumerate() {
        if !every(phases).any(|phase| criteria::is_about(criterion, phase)) {
            let figure = criterion.figure();
            note(reader, top, n, format!("no phase tells `{figure}`"), home_of(figure));
        }
    }
}

fn home_of(figure: Figure) -> &'static str {
    match figure {
        Figure::Recall => "a `query` phase tells recall",
        Figure::Memory | Figure::BytesPerVector => "a `checkpoint` tells memory",
        Figure::AchievedShare => "a phase with an open load tells what share of its load was achieved",
        _ => "a phase that sends requests tells rates, errors and times",
    }
}

fn note(reader: &mut Reader<'_>, section: &Section<'_>, n: usize, message: String, hint: &str) {
    let place = match section.get(KEY).map(|entry| (&entry.node.value, entry.key_place)) {
        Some((Value::List(items), key)) => items.get(n).map_or(key, Node::place),
        _ => section.place(),
    };
    reader.complain(place, Complaint::new(message, "cannot be judged", hint));
}
