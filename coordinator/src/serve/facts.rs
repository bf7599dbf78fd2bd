//! What `run.json` says of a run, so that its figures can be judged years later. No secrets in it.

use std::hash::{BuildHasher, RandomState};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vst_common::clock;
use vst_common::ids::RunId;
use vst_common::scenario::Scenario;

use super::Prepared;
use crate::roster::{Presence, Roster};

/// `<utc time>-<scenario>-<random>`.
pub(super) fn run_id(scenario: &str) -> RunId {
    let time: String =
        clock::rfc3339(clock::wall_ns()).chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let name: String = scenario.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    RunId::new(format!("{}-{name}-{:06x}", time.to_lowercase(), random() & 0xff_ffff))
}

/// A name for this process that no other has.
pub(super) fn leader() -> String {
    let host = host();
    format!("{host}-{}-{:08x}", std::process::id(), random() & 0xffff_ffff)
}

/// Tells one scenario from another.
pub(super) fn scenario_hash(scenario: &Scenario) -> String {
    // The checked form, so that two files that mean the same have the same hash, overrides included.
    let bytes = serde_json::to_vec(scenario).unwrap_or_default();
    Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything that is known before the fleet comes.
pub(super) fn run_json(run: &RunId, prepared: &Prepared, workers_wanted: u32) -> Value {
    let scenario = &prepared.plan.scenario;
    let (data, phases) = (&prepared.data, &prepared.plan.phases);
    let hash = scenario_hash(scenario);
    json!({
        "run": run,
        "vst": env!("CARGO_PKG_VERSION"),
        "opened_at": clock::rfc3339(clock::wall_ns()),
        "scenario": scenario,
        "scenario_sha256": hash,
        "seed": scenario.seed,
        "data": data.as_ref().map(|data| json!({
            "base": data.base,
            "queries": data.queries,
            "ground_truth": {
                "url": data.urls.ground_truth,
                "queries": data.truth.queries,
                "k": data.truth.k,
            },
            "rows": prepared.plan.rows,
            "copies": data.separation,
        })),
        "phases": phases.iter().map(|p| json!({ "name": p.name, "step": p.word() })).collect::<Vec<_>>(),
        "target": prepared.target_facts,
        "search": prepared.plan.search,
        "prefill": prepared.prefill.as_ref().map(|found| json!({ "found": found, "said": found.words() })),
        "coordinator": machine(),
        "fleet": { "workers_wanted": workers_wanted, "lanes": scenario.fleet.lanes, "workers": [] },
    })
}

/// Adds who came.
pub(super) fn with_fleet(mut facts: Value, roster: &Roster) -> Value {
    let workers = roster.all().map(|(generation, member)| {
        let arrival = &member.arrival;
        json!({
            "worker": arrival.worker,
            "generation": generation,
            "host": arrival.host,
            "cores": arrival.cores,
            "memory_bytes": arrival.memory_bytes,
            "lanes": arrival.lanes,
            "lost": member.presence == Presence::Lost,
        })
    });
    let workers: Vec<Value> = workers.collect();
    if let Some(fleet) = facts.pointer_mut("/fleet/workers") {
        *fleet = Value::Array(workers);
    }
    facts
}

/// This machine: what a local target shares with us.
fn machine() -> Value {
    let line = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let cpu = line("/proc/cpuinfo").and_then(|text| {
        let model = text.lines().find(|line| line.starts_with("model name"))?;
        model.split_once(':').map(|(_, name)| name.trim().to_owned())
    });
    let memory_kib = line("/proc/meminfo").and_then(|text| {
        let total = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        total.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    json!({
        "host": host(),
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "cpu": cpu,
        "memory_bytes": memory_kib.map(|kib| kib.saturating_mul(1024)),
        "transparent_hugepages": line("/sys/kernel/mm/transparent_hugepage/enabled"),
    })
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Random bits from the seed that the standard library takes from the system for its hash maps.
fn random() -> u64 {
    RandomState::new().hash_one(clock::mono_ns())
}
