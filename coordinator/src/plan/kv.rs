//! Phases of plain commands, and the phases before them that write the keys which they read.
//!
//! Law: each key of a type is written once in the run before the first phase that needs it, and every key that a phase
//! can touch is one that clean-up finds by arithmetic.

use std::collections::BTreeSet;

use vst_common::content::catalog;
use vst_common::content::commands_of;
use vst_common::content::template::Template;
use vst_common::phase::CommandWork;
use vst_common::scenario::{CommandSpec, KeyDistribution, KvSpec, Load, Scenario, Step};

/// What is put behind a phase's name for the phase that writes its keys.
pub(super) const FILL: &str = "_fill";
/// Requests in flight per client while keys are written.
const FILL_PIPELINE: u32 = 16;

/// What a phase of commands sends.
pub(super) fn work(scenario: &Scenario, kv: &KvSpec) -> CommandWork {
    CommandWork {
        prefix: scenario.population.prefix.clone(),
        keyspace: scenario.keyspace.clone(),
        commands: kv.commands.clone(),
        keys: kv.keys,
        values: kv.values.clone(),
    }
}

/// Commands that the server counts, each once.
pub(super) fn counted(work: &CommandWork) -> Vec<String> {
    // The scenario's check has read every template.
    let commands = commands_of(work).unwrap_or_default();
    let distinct: BTreeSet<String> = commands.into_iter().map(|(_, command)| command).collect();
    distinct.into_iter().collect()
}

/// The types of key that a phase's commands work on.
pub(super) fn spaces_of(kv: &KvSpec) -> BTreeSet<&'static str> {
    kv.commands
        .iter()
        .filter_map(|spec| Template::parse(&spec.template).ok())
        .filter(Template::has_key)
        .map(|template| catalog::space_of(&template.name()))
        .collect()
}

/// Every type of key that a run makes.
pub(crate) fn spaces(scenario: &Scenario) -> BTreeSet<&'static str> {
    let phases = scenario.all_phases();
    let kv = phases.filter_map(|phase| if let Step::Kv(kv) = &phase.step { Some(kv) } else { None });
    kv.flat_map(spaces_of).collect()
}

/// What writes the keys that a phase needs and no phase before has written: the work, how hard, how many requests.
pub(super) fn fill(
    scenario: &Scenario,
    kv: &KvSpec,
    filled: &mut BTreeSet<&'static str>,
) -> Option<(CommandWork, Load, u64)> {
    if !kv.fill {
        return None;
    }
    let commands: Vec<CommandSpec> = spaces_of(kv)
        .into_iter()
        .filter(|space| filled.insert(*space))
        .filter_map(|space| {
            let template = catalog::filling(space)?;
            Some(CommandSpec {
                name: format!("fill_{space}"),
                template: template.to_owned(),
                weight: 1,
                space: Some(space.to_owned()),
            })
        })
        .collect();
    if commands.is_empty() {
        return None;
    }
    let spaces = vst_common::count::len(commands.len());
    let operations = scenario.keyspace.keys.saturating_mul(spaces);
    let clients = match &kv.load {
        Load::Closed { clients, .. } => *clients,
        Load::Open { connections, .. } => *connections,
    };
    let work = CommandWork { commands, keys: KeyDistribution::Sequential, ..work(scenario, kv) };
    Some((work, Load::Closed { clients, pipeline: FILL_PIPELINE }, operations))
}
