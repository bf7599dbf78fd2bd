//! Reads the phases: names, steps and what each step takes.
//!
//! Called by the reader of sections with the list of the file; the load of a phase is read by [`super::load`], the
//! order of phases is judged by [`super::sequence`]. Law: a phase does exactly one thing, under a name of its own.

use super::super::{
    Arrival, ChurnSpec, GrowSpec, Keep, Load, MemoryTarget, PhaseSpec, QuerySpec, RebuildSpec, SettleSpec,
    ShrinkSpec, Step, UpdateSpec,
};
use super::beside;
use super::criteria;
use super::fault::{Complaint, Place};
use super::load::{self, Kinds};
use super::operations;
use super::reader::{Reader, Section};
use super::sections::count;
use super::sequence::{self, Told};
use super::tree::{Entry, Node, Value};
use super::values::{self, LONGEST_MS, LONGEST_TIMEOUT_MS};

/// Every step with its keys.
pub(super) const STEPS: &[(&str, &[&str])] = &[
    ("create_index", &[]),
    ("ingest", &["load", "prefill", "timeout"]),
    ("drop_index", &[]),
    ("rebuild_index", &["m", "ef_construction"]),
    ("grow", &["to", "load", "timeout"]),
    ("settle", SETTLE),
    ("query", &["k", "ef_runtime", "filter", "returns", "load", "warm_up", "duration", "timeout"]),
    ("shrink", &["keep", "by", "keep_rows", "keep_copies", "keep_memory", "settle", "load", "timeout"]),
    ("update", &["share", "load", "timeout"]),
    ("churn", &["by", "load", "timeout"]),
    ("mixed", super::mixed::KEYS),
    ("kv", super::kv::KEYS),
    ("checkpoint", &[]),
    ("failover", operations::FAILOVER),
    ("migrate_slots", operations::MIGRATE_SLOTS),
    ("add_node", operations::ADD_NODE),
    ("remove_node", operations::REMOVE_NODE),
    ("command", operations::COMMAND),
];

/// When a target is at rest.
const SETTLE: &[&str] = &["threshold", "window", "max_wait"];

/// Steps that need vectors and an index.
const VECTOR_STEPS: &[&str] = &[
    "create_index",
    "drop_index",
    "rebuild_index",
    "ingest",
    "grow",
    "query",
    "shrink",
    "update",
    "churn",
    "mixed",
];

/// Whether the phases work on vectors; they do unless all that they do is to send plain commands.
pub(super) fn need_vectors(top: &Section<'_>) -> bool {
    let Some(Entry { node: Node { value: Value::List(items), .. }, .. }) = top.get("phases") else {
        return true;
    };
    let all = || items.iter().flat_map(|item| std::iter::once(item).chain(beside::items(item)));
    let any = |words: &[&str]| all().any(|item| words.iter().any(|word| item.get(word).is_some()));
    any(VECTOR_STEPS) || !any(&["kv"])
}

const NAME: &str = "name";
const CRITERIA: &str = "criteria";

/// How a phase is addressed in paths and messages: by its name, or by its place in the list when it has none.
pub(super) fn address(phase: &Node, n: usize) -> String {
    match phase.get(NAME).map(|node| &node.value) {
        Some(Value::Text(name)) => name.clone(),
        _ => (n + 1).to_string(),
    }
}

/// All phases, or `None` when faults were noted.
pub(super) fn phases(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Vec<PhaseSpec>> {
    let example = "[{name: create, create_index: {}}]";
    reader.required(top, "phases", example, |key, node, example| match &node.value {
        Value::List(items) if items.is_empty() => Err(Complaint::new(
            "the scenario has no phases",
            "empty",
            format!("list at least one phase, for example `{key}: {example}`"),
        )),
        Value::List(_) => Ok(()),
        _ => Err(values::wrong_type(key, node, "a list", example)),
    })?;
    let Some(Entry { node: Node { value: Value::List(items), .. }, .. }) = top.get("phases") else {
        return None;
    };

    let mut told = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut phases = Some(Vec::new());
    for (n, item) in items.iter().enumerate() {
        for item in std::iter::once(item).chain(beside::items(item)) {
            if let Some(Node { value: Value::Text(name), .. }) = item.get(NAME) {
                if names.contains(&name.as_str()) {
                    let place = item.get(NAME).map_or(item.place(), Node::place);
                    reader.complain(place, duplicate(name));
                }
                names.push(name);
            }
        }
        let phase = phase(reader, item, n, &mut told);
        if let (Some(phases), Some(phase)) = (&mut phases, &phase) {
            phases.push(phase.clone());
        }
        if phase.is_none() {
            phases = None;
        }
    }
    sequence::judge(reader, &told);
    phases
}

fn duplicate(name: &str) -> Complaint {
    Complaint::new(
        format!("two phases are named `{name}`"),
        "this name is taken",
        "every table is keyed by the phase's name: give each phase a name of its own",
    )
}

fn phase(reader: &mut Reader<'_>, item: &Node, n: usize, told: &mut Vec<Told>) -> Option<PhaseSpec> {
    let words: Vec<&str> = STEPS.iter().map(|(word, _)| *word).collect();
    let (section, phase) = one(reader, item, n, (&words, beside::BESIDE), told)?;
    let beside = beside::read(reader, &section, phase.as_ref(), told);
    Some(PhaseSpec { beside: beside?, ..phase? })
}

/// A phase but for what runs beside it: one of the steps of these words, and one key more.
pub(super) fn one<'t>(
    reader: &mut Reader<'_>,
    item: &'t Node,
    n: usize,
    (words, more): (&[&str], &str),
    told: &mut Vec<Told>,
) -> Option<(Section<'t>, Option<PhaseSpec>)> {
    let address = address(item, n);
    let title = format!("phase `{address}`");
    let allowed: Vec<&str> = [NAME, CRITERIA, more].into_iter().chain(words.iter().copied()).collect();
    let place = item.get(NAME).map_or(item.place(), Node::place);
    let section = reader.section(&title, place, item, &allowed)?;
    let name = reader.required(&section, NAME, "load", phase_name);
    let example = if words.contains(&"checkpoint") { "checkpoint: {}" } else { "rebuild_index: {}" };
    let chosen = reader.one_of(&section, words, example)?;
    let (word, keys) = STEPS.iter().find(|(word, _)| *word == chosen.key)?;
    let mut this = Told {
        address,
        word,
        place: chosen.key_place,
        beside: more == beside::AFTER,
        keep: None,
        by: None,
        to: None,
        moves: false,
    };
    let step = reader
        .section(&format!("`{word}` of {title}"), chosen.key_place, &chosen.node, keys)
        .and_then(|section| step(reader, word, &section, &mut this));
    told.push(this);
    let criteria = criteria::read(reader, &section);
    let phase = name.zip(step).zip(criteria);
    let phase = phase.map(|((name, step), criteria)| PhaseSpec { name, step, criteria, beside: Vec::new() });
    if let Some(phase) = &phase {
        criteria::judge_phase(reader, &section, phase);
    }
    Some((section, phase))
}

fn phase_name(key: &str, node: &Node, example: &str) -> Result<String, Complaint> {
    let name = values::text(key, node, example)?;
    if name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Ok(name);
    }
    Err(Complaint::new(
        format!("`{name}` cannot name a phase"),
        "not a name",
        format!("use small letters, digits and `_`, for example `{key}: {example}`"),
    ))
}

fn step(reader: &mut Reader<'_>, word: &str, section: &Section<'_>, told: &mut Told) -> Option<Step> {
    match word {
        "create_index" => Some(Step::CreateIndex),
        "drop_index" => Some(Step::DropIndex),
        "rebuild_index" => {
            let m = reader.optional(section, "m", "32", |k, n, e| count(k, n, 65_536, e));
            let ef_construction =
                reader.optional(section, "ef_construction", "100", |k, n, e| count(k, n, 1_000_000, e));
            Some(Step::RebuildIndex(RebuildSpec { m: m?, ef_construction: ef_construction? }))
        }
        "grow" => {
            let to = reader.required(section, "to", "50%", above_nought);
            told.to = to.map(|to| (values::share(to), at(section, "to")));
            let load = rows_load(reader, section, told);
            let timeout_ms = timeout(reader, section);
            Some(Step::Grow(GrowSpec { to: values::share(to?), load: load?, timeout_ms: timeout_ms? }))
        }
        "ingest" => {
            let load = rows_load(reader, section, told);
            let reuse = reader.defaulted(section, "prefill", false, "reuse", |k, n, _| {
                values::word(k, n, &[("none", false), ("reuse", true)])
            });
            let timeout_ms = timeout(reader, section);
            Some(Step::Ingest { load: load?, timeout_ms: timeout_ms?, reuse: reuse? })
        }
        "update" => {
            let share = reader.defaulted(section, "share", 100.0, "25%", above_nought);
            let load = rows_load(reader, section, told);
            let timeout_ms = timeout(reader, section);
            let share = values::share(share?);
            Some(Step::Update(UpdateSpec { share, load: load?, timeout_ms: timeout_ms? }))
        }
        "churn" => {
            let by = reader.required(section, "by", "10%", above_nought);
            told.by = by.map(|by| (values::share(by), at(section, "by")));
            let load = rows_load(reader, section, told);
            let timeout_ms = timeout(reader, section);
            Some(Step::Churn(ChurnSpec { by: values::share(by?), load: load?, timeout_ms: timeout_ms? }))
        }
        "settle" => settle(reader, section).map(Step::Settle),
        "query" => query(reader, section, told).map(Step::Query),
        "shrink" => shrink(reader, section, told).map(Step::Shrink),
        "mixed" => super::mixed::mixed(reader, section, told).map(Step::Mixed),
        "kv" => super::kv::kv(reader, section, told).map(Step::Kv),
        "checkpoint" => Some(Step::Checkpoint),
        word => operations::operation(reader, word, section).map(Step::Operate),
    }
}

fn settle(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<SettleSpec> {
    let threshold = reader.defaulted(section, "threshold", 1.0, "1%", values::percent);
    let window_ms = reader.defaulted(section, "window", 5000, "5s", span);
    let max_wait_ms = reader.defaulted(section, "max_wait", 600_000, "10m", span);
    let (threshold, window_ms, max_wait_ms) = (threshold?, window_ms?, max_wait_ms?);
    if threshold == 0.0 {
        reader.complain(
            at(section, "threshold"),
            Complaint::new(
                "`threshold` is 0%",
                "a living server never holds still",
                "allow some change of memory within the window, for example `threshold: 1%`",
            ),
        );
        return None;
    }
    if window_ms > max_wait_ms {
        reader.complain(
            at(section, "window"),
            Complaint::new(
                "`window` is longer than `max_wait`",
                "can never be watched in full",
                "make `max_wait` several windows long, for example `window: 2s` and `max_wait: 60s`",
            ),
        );
        return None;
    }
    Some(SettleSpec { threshold: values::share(threshold), window_ms, max_wait_ms })
}

fn query(reader: &mut Reader<'_>, section: &Section<'_>, told: &Told) -> Option<QuerySpec> {
    let ask = super::ask::ask(reader, section);
    let load = load::load(reader, section, &told.address, Kinds::Any);
    let warm_up_ms =
        reader.defaulted(section, "warm_up", 0, "2s", |k, n, e| values::duration_ms(k, n, 0..=LONGEST_MS, e));
    let duration_ms = match told.beside {
        true => beside::length(reader, section, &told.address, load.as_ref()),
        false => reader.required(section, "duration", "10s", span),
    };
    let timeout_ms = timeout(reader, section);
    Some(QuerySpec {
        ask: ask?,
        load: load?,
        warm_up_ms: warm_up_ms?,
        duration_ms: duration_ms?,
        timeout_ms: timeout_ms?,
    })
}

fn shrink(reader: &mut Reader<'_>, section: &Section<'_>, told: &mut Told) -> Option<ShrinkSpec> {
    let keep = keep(reader, section, told);
    let load = rows_load(reader, section, told);
    let timeout_ms = timeout(reader, section);
    Some(ShrinkSpec { keep: keep?, load: load?, timeout_ms: timeout_ms? })
}

/// The load of a phase that its rows end: closed, or open with an arrival that does not have to know its own length.
pub(super) fn rows_load(reader: &mut Reader<'_>, section: &Section<'_>, told: &Told) -> Option<Load> {
    let load = load::load(reader, section, &told.address, Kinds::Rows)?;
    if !matches!(load, Load::Open { arrival: Arrival::Ramp { .. }, .. }) {
        return Some(load);
    }
    reader.complain(
        at(section, "load"),
        Complaint::new(
            format!("phase `{}` ramps, but its rows end it and not the clock", told.address),
            "a ramp needs to know how long it is",
            "use `steps`, for example `arrival: {steps: [{rate: 1k/s, length: 10s}, {rate: 2k/s, length: 10s}]}`",
        ),
    );
    None
}

/// A share that is not nought.
fn above_nought(key: &str, node: &Node, example: &str) -> Result<f64, Complaint> {
    let percent = values::percent(key, node, example)?;
    if percent > 0.0 {
        return Ok(percent);
    }
    Err(Complaint::new(
        format!("`{key}` is 0%"),
        "would change nothing",
        format!("write a share of the planned rows, for example `{key}: {example}`"),
    ))
}

/// What is left: a share, given as such or as what goes, or a number of rows or of copies.
fn keep(reader: &mut Reader<'_>, section: &Section<'_>, told: &mut Told) -> Option<Keep> {
    let entry =
        reader.one_of(section, &["keep", "by", "keep_rows", "keep_copies", "keep_memory"], "keep: 50%")?;
    if entry.key != "keep_memory"
        && let Some(settle) = section.get("settle")
    {
        reader.complain(
            settle.key_place,
            Complaint::new(
                format!("`settle` says when memory is weighed, and `{}` weighs none", entry.key),
                "would change nothing",
                "put a phase of `settle` behind this one instead",
            ),
        );
        return None;
    }
    match entry.key.as_str() {
        "keep_rows" => {
            told.moves = true;
            let rows = reader.required(section, "keep_rows", "5000", |k, n, e| {
                values::whole(k, n, 0..=super::sections::MOST_ROWS, e)
            });
            rows.map(Keep::Rows)
        }
        "keep_memory" => {
            told.moves = true;
            let bytes = reader.required(section, "keep_memory", "10GiB", values::memory);
            let rest = reader.subsection(section, "settle", SETTLE)?;
            let settle = settle(reader, &rest);
            Some(Keep::Memory(MemoryTarget { bytes: bytes?, settle: settle? }))
        }
        "keep_copies" => {
            told.moves = true;
            let copies = reader.required(section, "keep_copies", "1", |k, n, e| count(k, n, 1_000_000, e));
            copies.map(Keep::Copies)
        }
        _ => {
            let percent = reader.required(section, &entry.key, "50%", values::percent)?;
            let left = values::share(if entry.key == "keep" { percent } else { 100.0 - percent });
            told.keep = Some((left, entry.node.place_under(entry.key_place)));
            Some(Keep::Share(left))
        }
    }
}

pub(super) fn timeout(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<u64> {
    reader.defaulted(section, "timeout", 10_000, "10s", |k, n, e| {
        values::duration_ms(k, n, 1..=LONGEST_TIMEOUT_MS, e)
    })
}

/// A duration that is not nought.
pub(super) fn span(key: &str, node: &Node, example: &str) -> Result<u64, Complaint> {
    values::duration_ms(key, node, 1..=LONGEST_MS, example)
}

pub(super) fn at(section: &Section<'_>, key: &str) -> Place {
    section.get(key).map_or(section.place(), |entry| entry.node.place_under(entry.key_place))
}
