//! Reads what a scenario does besides loading: operations on the cluster, programs, hooks.
//!
//! Called by the reader of phases with the section of a step, and by the readers of scenarios and environments with their
//! `hooks`. Law: a program is a list of words that is started as it stands; no shell is between.

use super::super::operations::{
    AddNodeSpec, CommandRun, FailoverHow, FailoverSpec, Hook, Hooks, MigrateSpec, OnFailure, Operation,
    RemoveNodeSpec,
};
use super::fault::Complaint;
use super::phases::span;
use super::reader::{Reader, Section};
use super::sections::count;
use super::tree::{Node, Value};
use super::values;

/// Every operation with its keys.
pub(super) const FAILOVER: &[&str] = &["primary", "how", "timeout"];
pub(super) const MIGRATE_SLOTS: &[&str] = &["shares", "timeout"];
pub(super) const ADD_NODE: &[&str] = &["address", "replica_of", "timeout"];
pub(super) const REMOVE_NODE: &[&str] = &["address", "timeout"];
pub(super) const COMMAND: &[&str] = &["run", "timeout", "on_failure"];

/// Keys of `hooks`.
pub(super) const HOOKS: &[&str] = &["on_phase_start", "on_phase_end"];
pub(super) const START_HOOK: &[&str] = &["run", "timeout", "on_failure", "phases", "lasts"];
pub(super) const END_HOOK: &[&str] = &["run", "timeout", "on_failure", "phases"];

const HOWS: &[(&str, FailoverHow)] =
    &[("orderly", FailoverHow::Orderly), ("force", FailoverHow::Force), ("takeover", FailoverHow::Takeover)];
const ON_FAILURE: &[(&str, OnFailure)] = &[("continue", OnFailure::Continue), ("stop", OnFailure::Stop)];

/// A program or an operation without a time of its own is given up after this long.
const USUAL_MS: u64 = 60_000;
/// Slots of a large cluster take their time.
const MIGRATION_MS: u64 = 30 * 60_000;
/// No cluster has more primaries.
const MOST_PRIMARIES: u32 = 1_000;
/// Shares add up to the whole within this.
const SLACK: f64 = 1e-6;
const EXAMPLE_RUN: &str = "[perf, record, -g, -a]";

/// The operation of a step; `None` when faults were noted, or the word is none.
pub(super) fn operation(reader: &mut Reader<'_>, word: &str, section: &Section<'_>) -> Option<Operation> {
    match word {
        "failover" => {
            let primary = primary(reader, section, "primary");
            let how = reader.defaulted(section, "how", FailoverHow::Orderly, "orderly", |k, n, _| {
                values::word(k, n, HOWS)
            });
            let timeout_ms = timeout(reader, section, USUAL_MS);
            let primary = primary?.unwrap_or(1);
            Some(Operation::Failover(FailoverSpec { primary, how: how?, timeout_ms: timeout_ms? }))
        }
        "migrate_slots" => {
            let shares = reader.required(section, "shares", "[60%, 30%, 10%]", shares);
            let timeout_ms = timeout(reader, section, MIGRATION_MS);
            Some(Operation::MigrateSlots(MigrateSpec { shares: shares?, timeout_ms: timeout_ms? }))
        }
        "add_node" => {
            let address = reader.required(section, "address", "10.0.0.7:6379", address);
            let replica_of = primary(reader, section, "replica_of");
            let timeout_ms = timeout(reader, section, USUAL_MS);
            let (address, replica_of) = (address?, replica_of?);
            Some(Operation::AddNode(AddNodeSpec { address, replica_of, timeout_ms: timeout_ms? }))
        }
        "remove_node" => {
            let address = reader.required(section, "address", "10.0.0.7:6379", address);
            let timeout_ms = timeout(reader, section, USUAL_MS);
            Some(Operation::RemoveNode(RemoveNodeSpec { address: address?, timeout_ms: timeout_ms? }))
        }
        "command" => command(reader, section, OnFailure::Stop).map(Operation::Command),
        _ => None,
    }
}

/// The hooks of a file; none where it has none.
pub(super) fn hooks(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Hooks> {
    let section = reader.subsection(top, "hooks", HOOKS)?;
    let on_phase_start = list(reader, &section, "on_phase_start", START_HOOK);
    let on_phase_end = list(reader, &section, "on_phase_end", END_HOOK);
    Some(Hooks { on_phase_start: on_phase_start?, on_phase_end: on_phase_end? })
}

/// Hooks name phases that are there.
pub(super) fn judge(reader: &mut Reader<'_>, top: &Section<'_>, hooks: &Hooks, phases: &[&str]) {
    let Some(entry) = top.get("hooks") else { return };
    let unknown = |name: &&String| !phases.contains(&name.as_str());
    let all = hooks.on_phase_start.iter().chain(&hooks.on_phase_end).flat_map(|hook| &hook.phases);
    for name in all.filter(unknown) {
        let place = entry.node.place_under(entry.key_place);
        reader.complain(
            place,
            Complaint::new(
                format!("a hook names phase `{name}`, which is not there"),
                "accompanies nothing",
                format!("{}the phases are: {}", values::did_you_mean(name, phases), phases.join(", ")),
            ),
        );
    }
}

fn list(reader: &mut Reader<'_>, hooks: &Section<'_>, key: &str, keys: &[&str]) -> Option<Vec<Hook>> {
    let Some(entry) = hooks.get(key) else { return Some(Vec::new()) };
    let Value::List(items) = &entry.node.value else {
        let complaint = values::wrong_type(key, &entry.node, "a list", &format!("[{{run: {EXAMPLE_RUN}}}]"));
        reader.complain(entry.node.place_under(entry.key_place), complaint);
        return None;
    };
    let read: Vec<Option<Hook>> = items
        .iter()
        .enumerate()
        .map(|(n, item)| {
            let section = reader.section(&format!("hook {} of `{key}`", n + 1), item.place(), item, keys)?;
            hook(reader, &section)
        })
        .collect();
    read.into_iter().collect()
}

fn hook(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Hook> {
    let command = command(reader, section, OnFailure::Continue);
    let until_end = reader.defaulted(section, "lasts", false, "yes", |k, n, _| {
        values::word(k, n, &[("itself", false), ("phase", true)])
    });
    let phases = reader.defaulted(section, "phases", Vec::new(), "[load]", words);
    Some(Hook { command: command?, until_end: until_end?, phases: phases? })
}

fn command(reader: &mut Reader<'_>, section: &Section<'_>, usual: OnFailure) -> Option<CommandRun> {
    let run = reader.required(section, "run", EXAMPLE_RUN, words);
    let timeout_ms = timeout(reader, section, USUAL_MS);
    let on_failure =
        reader.defaulted(section, "on_failure", usual, "stop", |k, n, _| values::word(k, n, ON_FAILURE));
    Some(CommandRun { run: run?, timeout_ms: timeout_ms?, on_failure: on_failure? })
}

fn timeout(reader: &mut Reader<'_>, section: &Section<'_>, usual_ms: u64) -> Option<u64> {
    reader.defaulted(section, "timeout", usual_ms, "60s", span)
}

fn primary(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<Option<u32>> {
    reader.optional(section, key, "1", |k, n, e| count(k, n, MOST_PRIMARIES, e))
}

/// Words of a program; numbers are words as they are written.
fn words(key: &str, node: &Node, example: &str) -> Result<Vec<String>, Complaint> {
    let wrong = || values::wrong_type(key, node, "a list of words", example);
    let Value::List(items) = &node.value else { return Err(wrong()) };
    if items.is_empty() {
        return Err(Complaint::new(
            format!("`{key}` is empty"),
            "empty",
            format!("for example `{key}: {example}`"),
        ));
    }
    let words = items.iter().map(|item| match &item.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Whole(n) => Ok(n.to_string()),
        Value::Number(n) => Ok(n.to_string()),
        _ => Err(wrong()),
    });
    let words: Vec<String> = words.collect::<Result<_, _>>()?;
    match words.first().is_some_and(|word| word.trim().is_empty()) || words.iter().any(|w| w.contains('\0')) {
        true => Err(wrong()),
        false => Ok(words),
    }
}

/// `even`, or what each primary serves.
fn shares(key: &str, node: &Node, example: &str) -> Result<Vec<f64>, Complaint> {
    if matches!(&node.value, Value::Text(text) if text == "even") {
        return Ok(Vec::new());
    }
    let Value::List(items) = &node.value else {
        return Err(values::wrong_type(key, node, "`even` or a list of percentages", example));
    };
    let shares = items.iter().map(|item| values::percent(key, item, "60%").map(values::share));
    let shares: Vec<f64> = shares.collect::<Result<_, _>>()?;
    let sum: f64 = shares.iter().sum();
    if (sum - 1.0).abs() > SLACK || shares.iter().any(|share| *share <= 0.0) {
        return Err(Complaint::new(
            format!("`{key}` add up to {:.4} %", sum * 100.0),
            "every primary has a share, and all slots are served",
            format!(
                "write one share above 0% for each primary, 100% together, for example `{key}: {example}`"
            ),
        ));
    }
    Ok(shares)
}

fn address(key: &str, node: &Node, example: &str) -> Result<String, Complaint> {
    let text = values::text(key, node, example)?;
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/'));
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(text),
        _ => Err(Complaint::new(
            format!("`{key}` is no host and port: `{text}`"),
            "no address",
            format!("for example `{key}: {example}`"),
        )),
    }
}
