//! About what a run will take, for a person who has not started it yet: time, memory of the servers, storage.
//!
//! Fed with the scenario and the headers of its data; read by the dry run. Law: what depends on the target's speed is
//! left out and named, not guessed; the figures are orders of magnitude and are shown as such.

use std::collections::{BTreeMap, BTreeSet};

use vst_common::content::catalog;
use vst_common::count;
use vst_common::scenario::check::Checked;
use vst_common::scenario::{RowKind, Scenario, SizeSpec, Step};

use super::copies::population;
use super::phases::{exchanged, live_sets, rows};
use super::{DataFacts, kv};

/// A component of a vector is stored as a 32-bit float.
const COMPONENT_BYTES: u64 = 4;
/// The same as a number of a JSON document, beside what the index has of it.
const DOCUMENT_BYTES: u64 = 24;
/// A neighbour in the graph; the lowest level has two times M of them.
const LINK_BYTES: u64 = 8;
/// Key, hash and table entries around a row.
const ROW_BYTES: u64 = 200;
/// Around a key of plain commands: its name and the tables' entries.
const KEY_BYTES: u64 = 100;
/// Around an element of a key.
const ENTRY_BYTES: u64 = 16;
/// What a lane's histograms take in the run directory for each second of load.
const LANE_BYTES_PER_S: u64 = 4 * 1024;
/// What a node's samples take in the run directory for each second.
const NODE_BYTES_PER_S: u64 = 1024;
/// `run.json`, the plan and the tables' own headers.
const FOLDER_BYTES: u64 = 256 * 1024;

/// About what a run will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Phases of a stated length, milliseconds.
    pub timed_ms: u64,
    /// Longest that the target may take to settle, milliseconds.
    pub settle_ms: u64,
    /// Rows written or deleted, at the target's own speed.
    pub rows_moved: u64,
    /// Plain commands outside phases of a stated length, at the target's own speed.
    pub commands: u64,
    /// Rows and keys that the run makes at most.
    pub population: u64,
    /// Memory that the servers need on top of what they use, bytes over all primaries.
    pub server_bytes: u64,
    /// Size of the run directory, bytes.
    pub storage_bytes: u64,
}

impl Estimate {
    /// How long, in words.
    #[must_use]
    pub fn time(&self) -> String {
        let Self { timed_ms, settle_ms, rows_moved, commands, .. } = self;
        let mut parts = vec![format!("{} of timed load", span(*timed_ms))];
        if *settle_ms > 0 {
            parts.push(format!("at most {} to settle", span(*settle_ms)));
        }
        let moved = [(*rows_moved, "rows"), (*commands, "commands")];
        let moved: Vec<String> =
            moved.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if !moved.is_empty() {
            parts.push(format!("{} as fast as the target takes them", moved.join(" and ")));
        }
        parts.join(", ")
    }

    /// How much memory of the servers, in words.
    #[must_use]
    pub fn memory(&self) -> String {
        format!("about {} on the servers, over all primaries", size(self.server_bytes))
    }

    /// How much storage, in words.
    #[must_use]
    pub fn storage(&self) -> String {
        format!("about {}", size(self.storage_bytes))
    }
}

fn span(ms: u64) -> String {
    let s = ms.div_ceil(1_000);
    match s {
        0..600 => format!("{s} s"),
        600..36_000 => format!("{} min", s.div_ceil(60)),
        _ => format!("{} h", s.div_ceil(3_600)),
    }
}

fn size(bytes: u64) -> String {
    let mib = count::to_f64(bytes) / 1_048_576.0;
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.1} MiB") }
}

/// Adds up what the phases ask for.
#[must_use]
pub fn estimate(checked: &Checked, data: Option<&DataFacts>, nodes: u64) -> Estimate {
    let scenario = &checked.scenario;
    let base = rows(scenario, data);
    let cells = population(scenario, base).cells();
    let (mut timed_ms, mut settle_ms, mut rows_moved, mut commands) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut filled = BTreeSet::new();
    for (phase, (before, after)) in scenario.phases.iter().zip(live_sets(scenario, base)) {
        for beside in &phase.beside {
            if let Step::Kv(kv) = &beside.phase.step {
                commands += kv::fill(scenario, kv, &mut filled).map_or(0, |(_, _, operations)| operations);
            }
        }
        match &phase.step {
            Step::Query(query) => timed_ms += query.warm_up_ms.saturating_add(query.duration_ms),
            Step::Settle(settle) => settle_ms += settle.max_wait_ms,
            Step::Ingest { .. } => rows_moved += cells,
            Step::Grow(_) => rows_moved += after.count().saturating_sub(before.count()),
            Step::Shrink(_) => rows_moved += before.count().saturating_sub(after.count()),
            Step::Update(update) => rows_moved += before.keep(update.share).count(),
            Step::Churn(churn) => rows_moved += exchanged(before, churn.by).saturating_mul(2),
            Step::Mixed(mixed) => rows_moved += mixed.operations,
            Step::Kv(kv) => {
                timed_ms += kv.warm_up_ms.saturating_add(kv.duration_ms);
                if kv.duration_ms == 0 {
                    commands += kv.operations.unwrap_or(0);
                }
                commands += kv::fill(scenario, kv, &mut filled).map_or(0, |(_, _, operations)| operations);
            }
            Step::CreateIndex
            | Step::DropIndex
            | Step::RebuildIndex(_)
            | Step::Operate(_)
            | Step::Checkpoint => {}
        }
    }
    // The row's own copy and the index's, and the graph around it.
    let dims = data.map_or(0, |data| data.expansion.index_dims(data.base.dims));
    let documents = scenario.index.as_ref().is_some_and(|index| index.on == RowKind::Json);
    let beside = if documents { u64::from(dims).saturating_mul(DOCUMENT_BYTES - COMPONENT_BYTES) } else { 0 };
    let each = row_bytes(dims, scenario.index.as_ref().map_or(0, |index| index.m)).saturating_add(beside);
    let server_bytes = cells.saturating_mul(each).saturating_add(key_bytes(scenario));
    let lanes = u64::from(scenario.fleet.workers).saturating_mul(u64::from(scenario.fleet.lanes));
    let per_s = lanes * LANE_BYTES_PER_S + nodes * NODE_BYTES_PER_S;
    let storage_bytes = FOLDER_BYTES.saturating_add(per_s.saturating_mul(timed_ms.div_ceil(1_000)));
    let spaces = count::len(kv::spaces(scenario).len());
    let population = cells.saturating_add(scenario.keyspace.keys.saturating_mul(spaces));
    Estimate { timed_ms, settle_ms, rows_moved, commands, population, server_bytes, storage_bytes }
}

/// About what a row takes on the servers, bytes.
#[must_use]
pub fn row_bytes(dims: u32, m: u32) -> u64 {
    2 * vector_bytes(dims) + u64::from(m) * 2 * LINK_BYTES + ROW_BYTES
}

/// What the vector of a row takes at least, bytes.
#[must_use]
pub fn vector_bytes(dims: u32) -> u64 {
    u64::from(dims) * COMPONENT_BYTES
}

/// What all keys of plain commands take once each is there.
fn key_bytes(scenario: &Scenario) -> u64 {
    let mut of_type: BTreeMap<&'static str, u64> = BTreeMap::new();
    for phase in scenario.all_phases() {
        let Step::Kv(kv) = &phase.step else { continue };
        let value = mean(&kv.values.size);
        let elements = u64::from(scenario.keyspace.elements);
        for space in kv::spaces_of(kv) {
            let bytes = match space {
                "string" | "stream" | catalog::OTHER_SPACE => value,
                "list" => elements.saturating_mul(value + ENTRY_BYTES),
                "hash" => elements.saturating_mul(value + 2 * ENTRY_BYTES),
                "set" | "zset" => elements.saturating_mul(4 * ENTRY_BYTES),
                _ => 0,
            };
            let most = of_type.entry(space).or_default();
            *most = bytes.max(*most);
        }
    }
    let each = |bytes: u64| scenario.keyspace.keys.saturating_mul(bytes + KEY_BYTES);
    of_type.into_values().map(each).fold(0, u64::saturating_add)
}

/// The usual length of a value, bytes.
fn mean(size: &SizeSpec) -> u64 {
    match size {
        SizeSpec::Fixed(bytes) => u64::from(*bytes),
        SizeSpec::Uniform { min, max } => u64::midpoint(u64::from(*min), u64::from(*max)),
        SizeSpec::LogNormal { median, sigma, max } => {
            let mean = f64::from(*median) * libm::exp(sigma * sigma / 2.0);
            count::from_f64(mean.min(f64::from(*max)))
        }
        SizeSpec::Weighted(sizes) => {
            let weights: u64 = sizes.iter().map(|(_, weight)| u64::from(*weight)).sum();
            let bytes: u64 = sizes.iter().map(|(bytes, weight)| u64::from(*bytes) * u64::from(*weight)).sum();
            bytes.checked_div(weights).unwrap_or(0)
        }
    }
}
