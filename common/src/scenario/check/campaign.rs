//! A campaign: a goal at growing populations, and what may be done for it.
//!
//! Read by the command line from a file; what comes out is planned by `vst_tuning::campaign`, which also says what each
//! action needs and gives. Laws: what is refused lists all faults at once, each with its place; an action that the file
//! does not name is not allowed; a key that a stage leaves out is that of the stage before.

use std::collections::BTreeMap;

use vst_tuning::campaign::Costs;
use vst_tuning::constraint::{Constraint, Side};
use vst_tuning::figure::Figure;
use vst_tuning::tune::{Setting, Value as Put};

use super::fault::{Complaint, Faults, Place, Sources};
use super::reader::{Reader, Section};
use super::sections::{MOST_ROWS, count};
use super::tree::{self, Node, Value};
use super::values;

const TOP: &[&str] = &["name", "purpose", "scenario", "set", "goal", "actions", "confidence"];
const STAGE: &[&str] = &["rows", "copies", "ground_truth", "under", "shard_memory"];
const ACTIONS: &[&str] = &["prepare", "load", "measure", "tune", "change", "shards"];
const PREPARE: &[&str] = &["rate"];
const LOAD: &[&str] = &["rate", "start"];
const MEASURE: &[&str] = &["warm_up", "length", "connections", "repeats", "at_most"];
const TUNE: &[&str] = &["ef_runtime", "cost"];
const CHANGE: &[&str] = &["set", "cost"];
const SHARDS: &[&str] = &["counts", "targets", "cost"];
/// Combinations of index parameters that a plan can look at.
const MOST_SETTINGS: usize = 64;
const MOST_STAGES: usize = 16;
const UNDER: &str = "[qps >= 500/s, recall >= 0.95, p99 <= 10ms]";

/// What is wanted at one population.
#[derive(Clone, Debug, PartialEq)]
pub struct GoalStage {
    /// Rows that live, over all copies.
    pub rows: u64,
    /// Copies of the base that they are.
    pub copies: u64,
    /// The exact neighbours in the rows of the base; made where absent.
    pub ground_truth: Option<String>,
    /// Queries per second.
    pub rate: f64,
    /// What must hold beside that.
    pub constraints: Vec<Constraint>,
    /// Memory of the fullest primary at most, bytes.
    pub shard_memory: Option<f64>,
}

/// How a population is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Unmeasured part of a pass.
    pub warm_up_ms: u64,
    /// Measured part.
    pub length_ms: u64,
    /// Connections to every primary.
    pub connections: u32,
    /// Passes before anything is concluded.
    pub repeats: usize,
    /// Passes at most.
    pub at_most: usize,
}

/// A campaign without fault.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignFile {
    /// Its name.
    pub name: String,
    /// The question that it answers.
    pub purpose: String,
    /// Name of a built-in scenario, or a path from this file's folder: its population, and its first query.
    pub scenario: String,
    /// Values of the scenario by path.
    pub set: Vec<(String, String)>,
    /// The goal, at growing populations.
    pub stages: Vec<GoalStage>,
    /// How it is measured.
    pub passes: Passes,
    /// Between which values EF_RUNTIME may be tuned.
    pub tune: Option<(i64, i64)>,
    /// Index parameters that may be taken, what is begun with first.
    pub settings: Vec<Setting>,
    /// Primaries that may be had, what is begun with first; none where the target is as it is.
    pub shards: Vec<u16>,
    /// The targets of so many primaries; none where they are on this machine.
    pub targets: Vec<String>,
    /// Of what is concluded.
    pub confidence: f64,
    /// What steps cost as far as nothing is measured.
    pub costs: Costs,
}

/// Reads a campaign.
///
/// # Errors
/// All faults of the file; only the first of a file that is no YAML.
pub fn parse(text: &str, file_name: &str) -> Result<CampaignFile, Faults> {
    let sources = Sources::of_file(file_name, text);
    let tree = tree::read(text, 0, 0)
        .map_err(|(place, complaint)| Faults::new(file_name, vec![sources.fault(place, complaint)]))?;
    let mut reader = Reader::new(&sources);
    let campaign = campaign(&mut reader, &tree);
    let faults = reader.into_faults();
    match campaign {
        Some(campaign) if faults.is_empty() => Ok(campaign),
        _ => Err(Faults::new(file_name, faults)),
    }
}

fn campaign(reader: &mut Reader<'_>, tree: &Node) -> Option<CampaignFile> {
    let start = match &tree.value {
        Value::Mapping(_) => tree.place(),
        _ => Place { source: 0, start: 0, end: 0 },
    };
    let top = reader.section("the campaign", start, tree, TOP)?;
    let name = reader.required(&top, "name", "grow", values::text);
    let purpose = reader.required(&top, "purpose", "how far one shard goes", values::text);
    let scenario = reader.required(&top, "scenario", "quick", values::text);
    let set = set(reader, &top);
    let confidence = reader.defaulted(&top, "confidence", 95.0, "95%", |key, node, example| {
        match values::percent(key, node, example)? {
            percent if (50.0..100.0).contains(&percent) => Ok(percent),
            _ => Err(Complaint::new(
                format!("`{key}` must be from 50% to below 100%"),
                "out of range",
                format!("for example `{key}: {example}`"),
            )),
        }
    });
    let stages = goal(reader, &top);
    let actions = reader.subsection(&top, "actions", ACTIONS);
    let actions = actions.and_then(|actions| self::actions(reader, &actions));
    let (passes, tune, settings, (shards, targets), costs) = actions?;
    Some(CampaignFile {
        name: name?,
        purpose: purpose?,
        scenario: scenario?,
        set: set?,
        stages: stages?,
        passes,
        tune,
        settings,
        shards,
        targets,
        confidence: values::share(confidence?),
        costs,
    })
}

fn set(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Vec<(String, String)>> {
    let Some(entry) = top.get("set") else { return Some(Vec::new()) };
    let Value::Mapping(entries) = &entry.node.value else {
        let complaint = values::wrong_type("set", &entry.node, "a mapping", "{fleet.workers: 2}");
        reader.complain(entry.node.place_under(entry.key_place), complaint);
        return None;
    };
    let mut all = Some(Vec::new());
    for entry in entries {
        match put(&entry.key, &entry.node) {
            Ok(value) => all.iter_mut().for_each(|all| all.push((entry.key.clone(), value.to_string()))),
            Err(complaint) => {
                reader.complain(entry.node.place_under(entry.key_place), complaint);
                all = None;
            }
        }
    }
    all
}

/// A value that stands for a key of the scenario.
fn put(key: &str, node: &Node) -> Result<Put, Complaint> {
    match &node.value {
        Value::Whole(n) if i64::try_from(*n).is_ok() => Ok(Put::Int(i64::try_from(*n).unwrap_or(i64::MAX))),
        Value::Number(x) => Ok(Put::Float(*x)),
        Value::Text(text) => Ok(Put::Text(text.clone())),
        _ => Err(values::wrong_type(key, node, "a number or a text", "16")),
    }
}

/// What a stage may leave to the one before.
#[derive(Clone, Default)]
struct Before {
    rows: u64,
    under: Option<(f64, Vec<Constraint>)>,
    /// A stage before said something wrong, which is a fault already.
    is_under_wrong: bool,
    shard_memory: Option<f64>,
}

fn goal(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Vec<GoalStage>> {
    let example = format!("[{{rows: 20000, under: {UNDER}}}, {{rows: 50000}}]");
    let items = reader.required(top, "goal", &example, |key, node, example| match &node.value {
        Value::List(items) if (1..=MOST_STAGES).contains(&items.len()) => Ok(items.clone()),
        _ => Err(values::wrong_type(key, node, &format!("a list of 1 to {MOST_STAGES} stages"), example)),
    })?;
    let (mut stages, mut before, mut is_whole) = (Vec::new(), Before::default(), true);
    for (n, item) in items.iter().enumerate() {
        match stage(reader, item, n + 1, &mut before) {
            Some(stage) => stages.push(stage),
            None => is_whole = false,
        }
    }
    is_whole.then_some(stages)
}

fn stage(reader: &mut Reader<'_>, item: &Node, n: usize, before: &mut Before) -> Option<GoalStage> {
    let section = reader.section(&format!("stage {n} of the goal"), item.place(), item, STAGE)?;
    let least = before.rows.saturating_add(1);
    let rows =
        reader.required(&section, "rows", "20000", |k, node, e| values::whole(k, node, least..=MOST_ROWS, e));
    before.rows = rows.unwrap_or(before.rows);
    let copies =
        reader.defaulted(&section, "copies", 1, "10", |k, node, e| values::whole(k, node, 1..=1_000_000, e));
    if let (Some(rows), Some(copies)) = (rows, copies)
        && rows % copies != 0
    {
        reader.complain(
            section.get("copies").map_or(section.place(), |entry| entry.node.place()),
            Complaint::new(
                format!("{rows} rows are not {copies} copies of a whole number of rows"),
                "does not divide `rows`",
                "`rows` counts all copies: give a multiple of `copies`",
            ),
        );
    }
    let truth = reader.optional(&section, "ground_truth", "truth.bin", values::text);
    let memory = reader.optional(&section, "shard_memory", "2GiB", size);
    before.shard_memory = memory.flatten().or(before.shard_memory);
    match under(reader, &section) {
        Some(Some(found)) => before.under = Some(found),
        None => before.is_under_wrong = true,
        Some(None) if before.under.is_none() && !before.is_under_wrong && !section.misspelt("under") => {
            before.is_under_wrong = true;
            reader.complain(
                section.place(),
                Complaint::new(
                    format!("stage {n} of the goal has no `under`"),
                    "`under` is missing here",
                    format!("add `under: {UNDER}`; a stage that leaves it out has that of the stage before"),
                ),
            );
        }
        _ => {}
    }
    memory?;
    let (rate, constraints) = before.under.clone()?;
    let shard_memory = before.shard_memory;
    Some(GoalStage { rows: rows?, copies: copies?, ground_truth: truth?, rate, constraints, shard_memory })
}

/// The rate and what must hold at it; `Some(None)` where nothing is said.
#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn under(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Option<(f64, Vec<Constraint>)>> {
    let Some(entry) = section.get("under") else { return Some(None) };
    let place = entry.node.place_under(entry.key_place);
    let Value::List(items) = &entry.node.value else {
        reader.complain(place, values::wrong_type("under", &entry.node, "a list of constraints", UNDER));
        return None;
    };
    let (mut rate, mut all, mut is_whole) = (None, Vec::new(), true);
    for item in items {
        match constraint(item) {
            Ok(c) if c.figure() == Figure::Qps => rate = Some(c.bound()),
            Ok(c) => all.push(c),
            Err(complaint) => {
                reader.complain(item.place(), complaint);
                is_whole = false;
            }
        }
    }
    if rate.is_none() && is_whole {
        let complaint = Complaint::new(
            "`under` says no rate",
            "no `qps >= ...` among these",
            "add the load at which the others must hold, for example `qps >= 500/s`",
        );
        reader.complain(place, complaint);
        is_whole = false;
    }
    is_whole.then_some(rate.map(|rate| (rate, all)))
}

fn constraint(item: &Node) -> Result<Constraint, Complaint> {
    let text = values::text("under", item, UNDER)?;
    let hint = format!("for example `under: {UNDER}`");
    let fault = |message: String, label: &str| Complaint::new(message, label, hint.clone());
    let constraint: Constraint = text
        .parse()
        .map_err(|e: <Constraint as std::str::FromStr>::Err| fault(e.to_string(), "no constraint"))?;
    match (constraint.figure(), constraint.side()) {
        (Figure::P999 | Figure::CpuPerQuery | Figure::AchievedShare, _) => Err(fault(
            format!("a campaign does not judge `{}`", constraint.figure()),
            "use one of qps, recall, p50, p95, p99, error_rate, memory, bytes_per_vector",
        )),
        (Figure::Qps, Side::AtMost) => {
            Err(fault(String::from("`qps` is the load that must be carried: write `qps >= ...`"), "no load"))
        }
        (Figure::Memory | Figure::BytesPerVector, Side::AtLeast) => {
            Err(fault(format!("`{constraint}` asks for more memory, not less"), "write `<=`"))
        }
        _ => Ok(constraint),
    }
}

fn size(key: &str, node: &Node, example: &str) -> Result<f64, Complaint> {
    let text = values::text(key, node, example)?;
    let bound = format!("memory <= {text}").parse::<Constraint>().map(|c| c.bound());
    bound.map_err(|_| {
        Complaint::new(
            format!("`{key}` takes a size, not `{text}`"),
            "no size",
            format!("for example `{key}: {example}`"),
        )
    })
}

type Actions = (Passes, Option<(i64, i64)>, Vec<Setting>, (Vec<u16>, Vec<String>), Costs);

fn actions(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Actions> {
    let prepare = reader.subsection(top, "prepare", PREPARE)?;
    let load = reader.subsection(top, "load", LOAD)?;
    let measure = reader.subsection(top, "measure", MEASURE)?;
    let tune = reader.subsection(top, "tune", TUNE)?;
    let change = reader.subsection(top, "change", CHANGE)?;
    let shards = reader.subsection(top, "shards", SHARDS)?;
    let rate = |k: &str, n: &Node, e: &str| values::rate(k, n, values::Zero::Refused, e);
    let prepare_rate = reader.defaulted(&prepare, "rate", 20_000.0, "20k/s", rate);
    let load_rate = reader.defaulted(&load, "rate", 2_000.0, "2k/s", rate);
    let mut cost = |section: &Section<'_>, key: &str, default: u64, example: &str| {
        reader.defaulted(section, key, default, example, |k, n, e| {
            values::duration_ms(k, n, 0..=values::LONGEST_MS, e)
        })
    };
    let start = cost(&load, "start", 15_000, "15s");
    let warm_up = cost(&measure, "warm_up", 1_000, "1s");
    let length = cost(&measure, "length", 5_000, "5s");
    let tune_ms = cost(&tune, "cost", 120_000, "2m");
    let change_ms = cost(&change, "cost", 0, "30s");
    let shard_ms = cost(&shards, "cost", 300_000, "5m");
    let connections = reader.defaulted(&measure, "connections", 16, "16", |k, n, e| count(k, n, 100_000, e));
    let mut number = |key: &str, default: u64| {
        let read = |k: &str, n: &Node, e: &str| values::whole(k, n, 3..=1_000, e);
        let found = reader.defaulted(&measure, key, default, "3", read);
        found.map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    let (repeats, at_most) = (number("repeats", 3), number("at_most", 9));
    let ef = ef_range(reader, &tune);
    let settings = settings(reader, &change);
    let shards = shards_of(reader, &shards);
    let (length, warm_up, repeats) = (length?, warm_up?, repeats?);
    let passes = Passes {
        warm_up_ms: warm_up,
        length_ms: length.max(500),
        connections: connections?,
        repeats,
        at_most: at_most?.max(repeats),
    };
    let costs = Costs {
        prepare_row_ms: 1e3 / prepare_rate?,
        load_row_ms: 1e3 / load_rate?,
        load_ms: start?,
        pass_ms: length.saturating_add(warm_up),
        tune_ms: tune_ms?,
        change_ms: change_ms?,
        shard_ms: shard_ms?,
    };
    let is_asked = top.get("tune").is_some();
    Some((passes, ef?.or(is_asked.then_some((10, 512))), settings?, shards?, costs))
}

#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn ef_range(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Option<(i64, i64)>> {
    reader.optional(section, "ef_runtime", "[10, 512]", |key, node, example| {
        let wrong = || values::wrong_type(key, node, "the lowest and the highest value", example);
        let Value::List(items) = &node.value else { return Err(wrong()) };
        let ends: Vec<i64> = items
            .iter()
            .filter_map(|item| match &item.value {
                Value::Whole(n) => i64::try_from(*n).ok(),
                _ => None,
            })
            .collect();
        match ends.as_slice() {
            [low, high] if items.len() == 2 && *low > 0 && low <= high => Ok((*low, *high)),
            _ => Err(wrong()),
        }
    })
}

/// Every combination of the values, those that stand first first.
fn settings(reader: &mut Reader<'_>, change: &Section<'_>) -> Option<Vec<Setting>> {
    let Some(entry) = change.get("set") else { return Some(vec![Setting::default()]) };
    let place = entry.node.place_under(entry.key_place);
    let Value::Mapping(entries) = &entry.node.value else {
        let complaint = values::wrong_type("set", &entry.node, "a mapping", "{index.m: [16, 8]}");
        reader.complain(place, complaint);
        return None;
    };
    let (mut all, mut is_whole) = (vec![BTreeMap::new()], true);
    for entry in entries {
        let place = entry.node.place_under(entry.key_place);
        let values = match &entry.node.value {
            Value::List(items) if !items.is_empty() => {
                items.iter().map(|item| put(&entry.key, item)).collect::<Result<Vec<Put>, _>>()
            }
            _ => Err(values::wrong_type(&entry.key, &entry.node, "a list of values", "[16, 8]")),
        };
        match values {
            Ok(values) => {
                let with = |setting: &BTreeMap<String, Put>, value: &Put| {
                    let mut setting = setting.clone();
                    setting.insert(entry.key.clone(), value.clone());
                    setting
                };
                all = all.iter().flat_map(|s| values.iter().map(move |v| with(s, v))).collect();
            }
            Err(complaint) => {
                reader.complain(place, complaint);
                is_whole = false;
            }
        }
    }
    if all.len() > MOST_SETTINGS {
        let complaint = Complaint::new(
            format!("these are {} combinations and {MOST_SETTINGS} are the most", all.len()),
            "too many combinations",
            "leave out values that are not worth a load",
        );
        reader.complain(place, complaint);
        is_whole = false;
    }
    is_whole.then(|| all.into_iter().map(Setting).collect())
}

fn shards_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<(Vec<u16>, Vec<String>)> {
    let counts = reader.defaulted(section, "counts", Vec::new(), "[1, 2, 4]", |key, node, example| {
        let wrong = || values::wrong_type(key, node, "numbers of primaries in growing order", example);
        let Value::List(items) = &node.value else { return Err(wrong()) };
        let read = |item: &Node| match &item.value {
            Value::Whole(n) => u16::try_from(*n).ok().filter(|n| (1..=1_000).contains(n)),
            _ => None,
        };
        let counts: Vec<u16> = items.iter().filter_map(read).collect();
        let grows = counts.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        if counts.len() == items.len() && grows && !counts.is_empty() { Ok(counts) } else { Err(wrong()) }
    });
    let targets =
        reader.defaulted(section, "targets", Vec::new(), "[valkey://a:6379]", |key, node, example| {
            let wrong = || values::wrong_type(key, node, "a list of URLs", example);
            let Value::List(items) = &node.value else { return Err(wrong()) };
            items.iter().map(|item| super::config::target(key, item, "valkey://a:6379")).collect()
        });
    let (counts, targets) = (counts?, targets?);
    if !targets.is_empty() && targets.len() != counts.len() {
        let place = section.get("targets").map_or(section.place(), |entry| entry.key_place);
        let complaint = Complaint::new(
            format!("{} targets stand beside {} counts", targets.len(), counts.len()),
            "one target for each count",
            "`targets` names the cluster of each number of primaries, in the order of `counts`",
        );
        reader.complain(place, complaint);
        return None;
    }
    Some((counts, targets))
}

#[cfg(test)]
#[path = "tests/campaign.rs"]
mod tests;
