//! The keys of a scenario, and the readers of every section but the phases.
//!
//! [`super::check`] hands over the tree of a file with its overrides applied; what comes out is the model. The key
//! tables are also what the override paths are resolved against. Law: a default is taken only where a key is absent.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::keys;

use super::super::{
    Algorithm, ConnectionSpec, CopyOrder, DatasetSpec, ExpansionMethod, FleetSpec, IndexSpec, KeyspaceSpec,
    Metric, PhaseSpec, PopulationSpec, Protocol, ReadFrom, RowKind, SamplingSpec, Scenario, Step, every,
    model::LEASE_MS,
};
use super::criteria;
use super::fault::{Complaint, Place};
use super::operations;
use super::phases;
use super::reader::{Reader, Section};
use super::tree::{Node, Value};
use super::values;
use crate::content::template::Template;

/// Keys of the file.
pub(super) const TOP: &[&str] = &[
    "name",
    "purpose",
    "family",
    "parameters",
    "seed",
    "dataset",
    "index",
    "population",
    "keyspace",
    "fleet",
    "connection",
    "sampling",
    "criteria",
    "hooks",
    "phases",
];
/// Keys of each section. No key is in two of them, so that a key alone says its section.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    ("dataset", DATASET),
    ("index", INDEX),
    ("population", POPULATION),
    ("keyspace", KEYSPACE),
    ("fleet", FLEET),
    ("connection", CONNECTION),
    ("sampling", SAMPLING),
];
const DATASET: &[&str] = &["base", "queries", "ground_truth", "rows"];
const INDEX: &[&str] = &["on", "algorithm", "metric", "dims", "m", "ef_construction"];
const POPULATION: &[&str] = &["prefix", "copies", "expansion", "order"];
const KEYSPACE: &[&str] = &["keys", "elements", "group"];
const FLEET: &[&str] = &["workers", "lanes", "lease"];
/// Shorter than a few heartbeats every hiccup would stop the load.
const LEASES_MS: RangeInclusive<u64> = 3_000..=600_000;
const CONNECTION: &[&str] = &["protocol", "read_from"];
const SAMPLING: &[&str] = &["interval", "size_classes"];

const METRICS: &[(&str, Metric)] =
    &[("l2", Metric::L2), ("cosine", Metric::Cosine), ("inner_product", Metric::InnerProduct)];

const ROW_KINDS: &[(&str, RowKind)] = &[("hash", RowKind::Hash), ("json", RowKind::Json)];
const ALGORITHMS: &[(&str, Algorithm)] = &[("hnsw", Algorithm::Hnsw), ("flat", Algorithm::Flat)];
const EXPANSIONS: &[(&str, ExpansionMethod)] =
    &[("auto", ExpansionMethod::Auto), ("permutation", ExpansionMethod::Permutation)];
const ORDERS: &[(&str, CopyOrder)] =
    &[("interleaved", CopyOrder::Interleaved), ("clustered", CopyOrder::Clustered)];

const PROTOCOLS: &[(&str, Protocol)] = &[("resp2", Protocol::Resp2), ("resp3", Protocol::Resp3)];
const READ_FROM: &[(&str, ReadFrom)] = &[
    ("primary", ReadFrom::Primary),
    ("prefer_replica", ReadFrom::PreferReplica),
    ("round_robin", ReadFrom::RoundRobin),
];

/// More copies than any method can tell apart are refused when the data is known; this bounds arithmetic.
const MOST_COPIES: f64 = 1_000_000.0;

/// Row numbers are written with 12 digits in keys.
pub(super) const MOST_ROWS: u64 = 999_999_999_999;

/// The scenario, or `None` when faults were noted.
pub(super) fn scenario(reader: &mut Reader<'_>, tree: &Node) -> Option<Scenario> {
    let start = match &tree.value {
        Value::Mapping(_) => tree.place(),
        _ => Place { source: 0, start: 0, end: 0 },
    };
    let top = reader.section("the scenario", start, tree, TOP)?;
    let name = reader.required(&top, "name", "quick", run_name);
    let purpose = reader.required(&top, "purpose", "how much memory a vector takes", values::text);
    let family = reader.defaulted(&top, "family", String::from("own"), "memory", run_name);
    let seed = reader.defaulted(&top, "seed", 1, "1", |k, n, e| values::whole(k, n, 0..=u64::MAX, e));
    let vectors = phases::need_vectors(&top);
    let asked = |key| vectors || top.get(key).is_some();
    let dataset = if asked("dataset") { dataset(reader, &top).map(Some) } else { Some(None) };
    let index = if asked("index") { index(reader, &top).map(Some) } else { Some(None) };
    let population = population(reader, &top);
    let keyspace = keyspace(reader, &top);
    let fleet = fleet(reader, &top);
    let connection = connection(reader, &top);
    let sampling = sampling(reader, &top);
    let criteria = criteria::read(reader, &top);
    let hooks = operations::hooks(reader, &top);
    let phases = phases::phases(reader, &top);
    if let (Some(hooks), Some(phases)) = (&hooks, &phases) {
        let names: Vec<&str> = phases.iter().map(|phase| phase.name.as_str()).collect();
        operations::judge(reader, &top, hooks, &names);
    }
    if let (Some(criteria), Some(phases)) = (&criteria, &phases) {
        criteria::judge(reader, &top, criteria, phases);
    }
    if let (Some(keyspace), Some(phases)) = (&keyspace, &phases) {
        group(reader, &top, keyspace, phases);
    }
    if let (Some(Some(index)), Some(phases)) = (&index, &phases) {
        reused(reader, &top, index, phases);
    }
    Some(Scenario {
        name: name?,
        purpose: purpose?,
        family: family?,
        parameters: BTreeMap::new(),
        seed: seed?,
        dataset: dataset?,
        index: index?,
        population: population?,
        keyspace: keyspace?,
        fleet: fleet?,
        connection: connection?,
        sampling: sampling?,
        criteria: criteria?,
        hooks: hooks?,
        phases: phases?,
    })
}

fn dataset(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<DatasetSpec> {
    needed(
        reader,
        top,
        "dataset",
        "{base: base.u8bin, queries: query.u8bin, ground_truth: groundtruth.bin}",
    )?;
    let section = reader.subsection(top, "dataset", DATASET)?;
    let base = reader.required(&section, "base", "base.u8bin", values::text);
    let queries = reader.required(&section, "queries", "query.u8bin", values::text);
    let ground_truth = reader.required(&section, "ground_truth", "groundtruth.bin", values::text);
    let rows = reader.optional(&section, "rows", "10000", |k, n, e| values::whole(k, n, 1..=MOST_ROWS, e));
    Some(DatasetSpec { base: base?, queries: queries?, ground_truth: ground_truth?, rows: rows? })
}

fn index(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<IndexSpec> {
    needed(reader, top, "index", "{algorithm: hnsw, metric: l2}")?;
    let section = reader.subsection(top, "index", INDEX)?;
    let on = reader.defaulted(&section, "on", RowKind::Hash, "json", |k, n, _| values::word(k, n, ROW_KINDS));
    let algorithm = reader.required(&section, "algorithm", "hnsw", |k, n, _| values::word(k, n, ALGORITHMS));
    let metric = reader.required(&section, "metric", "l2", |k, n, _| values::word(k, n, METRICS));
    let dims = reader.optional(&section, "dims", "128", |k, n, e| count(k, n, 65_536, e));
    let m = reader.defaulted(&section, "m", 16, "16", |k, n, e| count(k, n, 65_536, e));
    let ef_construction =
        reader.defaulted(&section, "ef_construction", 200, "200", |k, n, e| count(k, n, 1_000_000, e));
    Some(IndexSpec {
        on: on?,
        algorithm: algorithm?,
        metric: metric?,
        dims: dims?,
        m: m?,
        ef_construction: ef_construction?,
    })
}

fn population(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<PopulationSpec> {
    let section = reader.subsection(top, "population", POPULATION)?;
    let prefix = reader.defaulted(&section, "prefix", "vst:".to_owned(), "\"vst:\"", prefix);
    let copies = reader.defaulted(&section, "copies", 1.0, "5", copies);
    let expansion = reader.defaulted(&section, "expansion", ExpansionMethod::Auto, "auto", |k, n, _| {
        values::word(k, n, EXPANSIONS)
    });
    let order = reader.defaulted(&section, "order", CopyOrder::Interleaved, "interleaved", |k, n, _| {
        values::word(k, n, ORDERS)
    });
    Some(PopulationSpec { prefix: prefix?, copies: copies?, expansion: expansion?, order: order? })
}

fn keyspace(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<KeyspaceSpec> {
    let section = reader.subsection(top, "keyspace", KEYSPACE)?;
    let usual = KeyspaceSpec::default();
    let keys = reader
        .defaulted(&section, "keys", usual.keys, "10000", |k, n, e| values::whole(k, n, 1..=MOST_ROWS, e));
    let elements =
        reader.defaulted(&section, "elements", usual.elements, "16", |k, n, e| count(k, n, 100_000, e));
    let group = reader.defaulted(&section, "group", usual.group, "16", |k, n, e| count(k, n, 100_000, e));
    Some(KeyspaceSpec { keys: keys?, elements: elements?, group: group? })
}

/// What an earlier run left is compared field by field, which documents do not have.
fn reused(reader: &mut Reader<'_>, top: &Section<'_>, index: &IndexSpec, phases: &[PhaseSpec]) {
    let reuses = phases.iter().any(|phase| matches!(phase.step, Step::Ingest { reuse: true, .. }));
    if index.on == RowKind::Json && reuses {
        let place = top.get("index").map_or(top.place(), |entry| entry.key_place);
        reader.complain(
            place,
            Complaint::new(
                "documents of an earlier run cannot be taken over",
                "`on: json` with `prefill: reuse`",
                "write `prefill: none`, or index hashes",
            ),
        );
    }
}

/// Commands with several keys take them from one group, which has to have as many.
fn group(reader: &mut Reader<'_>, top: &Section<'_>, keyspace: &KeyspaceSpec, phases: &[PhaseSpec]) {
    let commands = every(phases).filter_map(|phase| match &phase.step {
        Step::Kv(kv) => Some(&kv.commands),
        _ => None,
    });
    let most =
        commands.flatten().filter_map(|spec| Template::parse(&spec.template).ok()).map(|t| t.most_keys());
    let most = most.max().unwrap_or(1);
    let room = u64::from(keyspace.group).min(keyspace.keys);
    if u64::from(most) > room {
        let place = top.get("keyspace").map_or(top.place(), |entry| entry.key_place);
        reader.complain(
            place,
            Complaint::new(
                format!("a command takes {most} keys of one slot, and {room} share one"),
                "groups are too small",
                format!("write `keyspace: {{group: {most}}}` or more, and as many keys"),
            ),
        );
    }
}

fn fleet(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<FleetSpec> {
    let section = reader.subsection(top, "fleet", FLEET)?;
    let workers = reader.defaulted(&section, "workers", 2, "2", |k, n, e| count(k, n, 10_000, e));
    let lanes = reader.defaulted(&section, "lanes", 1, "1", |k, n, e| count(k, n, 1024, e));
    let lease_ms = reader
        .defaulted(&section, "lease", LEASE_MS, "10s", |k, n, e| values::duration_ms(k, n, LEASES_MS, e));
    Some(FleetSpec { workers: workers?, lanes: lanes?, lease_ms: lease_ms? })
}

fn connection(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<ConnectionSpec> {
    let section = reader.subsection(top, "connection", CONNECTION)?;
    let protocol = reader
        .defaulted(&section, "protocol", Protocol::Resp2, "resp3", |k, n, _| values::word(k, n, PROTOCOLS));
    let read_from =
        reader.defaulted(&section, "read_from", ReadFrom::Primary, "prefer_replica", |k, n, _| {
            values::word(k, n, READ_FROM)
        });
    Some(ConnectionSpec { protocol: protocol?, read_from: read_from? })
}

fn sampling(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<SamplingSpec> {
    let section = reader.subsection(top, "sampling", SAMPLING)?;
    let interval_ms = reader
        .defaulted(&section, "interval", 1000, "1s", |k, n, e| values::duration_ms(k, n, 10..=3_600_000, e));
    let size_classes_ms = reader.defaulted(&section, "size_classes", 5_000, "5s", |k, n, e| {
        values::duration_ms(k, n, 100..=3_600_000, e)
    });
    Some(SamplingSpec { interval_ms: interval_ms?, size_classes_ms: size_classes_ms? })
}

/// Notes one fault, instead of one per key, when a section that must be there is absent.
fn needed(reader: &mut Reader<'_>, top: &Section<'_>, key: &str, example: &str) -> Option<()> {
    reader.required(top, key, example, |_, _, _| Ok(()))
}

/// A whole number from 1 to `most`.
pub(super) fn count(key: &str, node: &Node, most: u32, example: &str) -> Result<u32, Complaint> {
    let n = values::whole(key, node, 1..=u64::from(most), example)?;
    Ok(u32::try_from(n).unwrap_or(most))
}

/// The name is part of folder names and of the run's identifier.
fn run_name(key: &str, node: &Node, example: &str) -> Result<String, Complaint> {
    let name = values::text(key, node, example)?;
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.chars().all(fine) && name.len() <= 64 {
        return Ok(name);
    }
    Err(Complaint::new(
        format!("`{name}` cannot name a scenario"),
        "part of folder names",
        "use up to 64 small letters, digits, `-` and `_`",
    ))
}

/// How many times the base is loaded: 1 and more, in whole copies and parts of one.
fn copies(key: &str, node: &Node, example: &str) -> Result<f64, Complaint> {
    let copies = match &node.value {
        Value::Whole(n) => f64::from(u32::try_from(*n).unwrap_or(u32::MAX)),
        Value::Number(n) => *n,
        _ => return Err(values::wrong_type(key, node, "a number", example)),
    };
    if (1.0..=MOST_COPIES).contains(&copies) {
        return Ok(copies);
    }
    Err(Complaint::new(
        format!("`{key}` is {copies}"),
        "from 1 to 1000000",
        format!("say how many times the base is loaded, for example `{key}: {example}` or `{key}: 1.5`"),
    ))
}

fn prefix(key: &str, node: &Node, example: &str) -> Result<String, Complaint> {
    let prefix = match &node.value {
        // A prefix of blanks is odd, but only an empty one would own every key of the target.
        Value::Text(text) if !text.is_empty() => text.clone(),
        _ => values::text(key, node, example)?,
    };
    if prefix.chars().any(char::is_control) {
        return Err(Complaint::new(
            "`prefix` contains a line break or another control character",
            "keys that nobody can type",
            "use a prefix that can be read and typed, for example `vst:`",
        ));
    }
    if prefix.contains(['{', '}']) {
        return Err(Complaint::new(
            "`prefix` contains a brace",
            "would put all keys into one slot",
            "cluster keys with `{...}` share a slot; use a prefix without braces, for example `vst:`",
        ));
    }
    if !keys::marker_is_outside(&prefix) || prefix.starts_with("_vst") {
        return Err(Complaint::new(
            "`prefix` covers the mark of ownership",
            "overlaps `_vst`",
            "vst marks what it owns by a key that begins with `_vst`; use another prefix, for example `vst:`",
        ));
    }
    Ok(prefix)
}
