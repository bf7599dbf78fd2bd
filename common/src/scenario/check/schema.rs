//! JSON Schemas of scenarios and environments, for editors and for whoever writes such files by program.
//!
//! Made from the very tables of keys that the readers know, so that a key cannot be in one and not in the other; printed
//! by `vst schema`, checked in under `docs/schemas`. Law: what the readers accept the schema accepts. It says less than they
//! do: what depends on other keys, on the data or on the target only they know.

use serde_json::{Map, Value, json};

use super::beside;
use super::operations;
use super::phases::STEPS;
use super::sections::{MOST_ROWS, SECTIONS, TOP};
use super::{config, repeat};
use crate::content::catalog;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a scenario file.
#[must_use]
pub fn scenario() -> Value {
    let mut steps: Vec<Value> = Vec::new();
    let mut phase = Map::new();
    phase.insert(String::from("name"), said(own(), "unique name, the key of every table"));
    phase.insert(String::from("criteria"), said(criteria(), "what must hold of this phase"));
    let mut member = phase.clone();
    member.insert(
        String::from(beside::AFTER),
        said(duration(), "it begins this long after the phase that it runs beside"),
    );
    let mut members: Vec<Value> = Vec::new();
    for (word, keys) in STEPS {
        let section = section(keys, &|key| step_key(word, key), required_of(word));
        let step = said(or_nothing(section, required_of(word).is_empty()), step_says(word));
        steps.push(json!({ "required": [word] }));
        if beside::STEPS.contains(word) {
            // Another phase ends it where it says nothing of its length.
            let required: Vec<&str> =
                required_of(word).iter().copied().filter(|k| *k != "duration").collect();
            let section = self::section(keys, &|key| step_key(word, key), &required);
            let step = said(or_nothing(section, required.is_empty()), step_says(word));
            member.insert((*word).to_owned(), step);
            members.push(json!({ "required": [word] }));
        }
        phase.insert((*word).to_owned(), step);
    }
    let member = json!({
        "type": "object",
        "properties": member,
        "required": ["name"],
        "additionalProperties": false,
        "oneOf": members,
    });
    phase.insert(
        String::from(beside::BESIDE),
        said(
            json!({ "type": "array", "items": { "$ref": "#/$defs/beside" } }),
            "what happens while it lasts",
        ),
    );
    let phase = json!({
        "type": "object",
        "properties": phase,
        "required": ["name"],
        "additionalProperties": false,
        "oneOf": steps,
    });
    let group = json!({
        "type": "object",
        "properties": {
            repeat::REPEAT: said(whole(1, repeat::MOST_TIMES), "how often; the i-th time round a phase is called by its name and `_i`"),
            repeat::PHASES: { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/phase" } },
        },
        "required": [repeat::REPEAT, repeat::PHASES],
        "additionalProperties": false,
    });
    let mut top = Map::new();
    for key in TOP {
        top.insert((*key).to_owned(), top_key(key));
    }
    json!({
        "$schema": DIALECT,
        "title": "vst scenario",
        "description": "What is loaded, how it is indexed, what phases there are and what must hold.",
        "type": "object",
        "properties": top,
        "required": ["name", "purpose", "phases"],
        "additionalProperties": false,
        "$defs": definitions(json!({ "phase": phase, "beside": member, "group": group })),
    })
}

/// The schema of an environment.
#[must_use]
pub fn environment() -> Value {
    let mut top = Map::new();
    for key in config::TOP {
        let value = match *key {
            "extends" => {
                said(text(), "another file, from this one's folder; a key here goes over the same key there")
            }
            "profile" => said(words(&config::profile_words()), "what the fleet is tuned for"),
            "target" => said(
                param(
                    json!({ "type": "string", "pattern": "^(valkey|redis|valkeys|rediss)://[^/]+/?$|^unix:///.+$|\\$\\{" }),
                ),
                "the server or any node of the cluster; the password comes from VST_PASSWORD",
            ),
            "token_file" => said(text(), "the fleet's shared secret, where VST_TOKEN is not set"),
            "results" => said(text(), "where run directories are made"),
            "set" => said(
                json!({ "type": "object", "additionalProperties": { "type": ["string", "number"] } }),
                "parameters and paths of scenarios, as --set",
            ),
            "hooks" => hooks(),
            "etcd" => section(
                config::ETCD,
                &|key| match key {
                    "endpoints" => Some(said(texts(), "addresses of etcd, host:port")),
                    "fleet" => Some(said(text(), "name of the fleet there")),
                    _ => None,
                },
                &[],
            ),
            "fleet" => section(config::FLEET, &|key| section_key("fleet", key), &[]),
            "guard" => section(
                config::GUARD,
                &|key| match key {
                    "allowed_targets" => {
                        Some(said(texts(), "host:port of targets that may be loaded; * stands for anything"))
                    }
                    "most_rows" => {
                        Some(said(whole(1, u64::MAX / 4), "rows and keys that a run may make at most"))
                    }
                    "most_memory" => {
                        Some(said(text(), "memory of the target at which load ends, for example 10GiB"))
                    }
                    "save" => Some(said(
                        words(&["allowed", "refused"]),
                        "whether --bgsave may have the target write its data to its disks",
                    )),
                    _ => None,
                },
                &[],
            ),
            _ => Value::Null,
        };
        top.insert((*key).to_owned(), value);
    }
    json!({
        "$schema": DIALECT,
        "title": "vst environment",
        "description": "Which target, which fleet, where results go, and what must not happen there.",
        "type": "object",
        "properties": top,
        "additionalProperties": false,
        "$defs": definitions(json!({})),
    })
}

fn definitions(more: Value) -> Value {
    let mut all = json!({
        "reference": { "description": "a parameter, or a variable of the environment", "type": "string", "pattern": "\\$\\{[^}]*\\}" },
        "duration": { "type": "string", "pattern": "^[0-9]", "examples": ["250ms", "10s", "1m30s", "2h"] },
        "rate": { "type": "string", "pattern": "^[0-9]+(\\.[0-9]*)? *[kM]? */ *(s|min|m|h) *$", "examples": ["500/s", "30k/s", "60/min"] },
        "share": { "type": "string", "pattern": "^[0-9]+(\\.[0-9]*)? *%$", "examples": ["50%"] },
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

fn top_key(key: &str) -> Value {
    match key {
        "name" => {
            said(json!({ "type": "string", "pattern": "^[a-z0-9_-]{1,64}$" }), "part of the run's identifier")
        }
        "purpose" => said(text(), "one sentence: the question that the run answers"),
        "family" => said(own(), "what kind of question that is, for lists"),
        "seed" => said(whole(0, u64::MAX), "of all content and of the order of deletes"),
        "criteria" => said(criteria(), "what must hold of every phase and checkpoint that has the figure"),
        "parameters" => said(
            json!({ "type": "object", "additionalProperties": section(super::parameters::KEYS, &parameter_key, &["default", "meaning"]) }),
            "values that it is sized by, used as ${name} and set by --set name=value",
        ),
        "hooks" => hooks(),
        "phases" => said(
            json!({ "type": "array", "minItems": 1, "items": { "anyOf": [{ "$ref": "#/$defs/phase" }, { "$ref": "#/$defs/group" }] } }),
            "what happens, in order",
        ),
        _ => {
            let keys = SECTIONS.iter().find(|(name, _)| *name == key).map_or(&[][..], |(_, keys)| *keys);
            let required: &[&str] = match key {
                "dataset" => &["base", "queries", "ground_truth"],
                "index" => &["algorithm", "metric"],
                _ => &[],
            };
            or_nothing(section(keys, &|inner| section_key(key, inner), required), true)
        }
    }
}

fn parameter_key(key: &str) -> Option<Value> {
    let scalar = json!({ "type": ["number", "string"] });
    Some(match key {
        "default" => said(scalar, "its value where nobody sets one; says what kind of value it is"),
        "meaning" => said(text(), "what it is, for lists"),
        "min" | "max" => said(scalar, "a bound, in the unit of the default"),
        "one_of" => said(json!({ "type": "array", "minItems": 1, "items": scalar }), "what a text may be"),
        _ => return None,
    })
}

fn section_key(section: &str, key: &str) -> Option<Value> {
    Some(match (section, key) {
        ("dataset", "base") => said(text(), "the base vectors: a path from the scenario's folder, or a URL"),
        ("dataset", "queries") => said(text(), "the query vectors"),
        ("dataset", "ground_truth") => said(text(), "the exact neighbours of each query"),
        ("dataset", "rows") => said(whole(1, MOST_ROWS), "use only the first rows of the base"),
        ("index", "on") => said(words(&["hash", "json"]), "what a row is: a hash or a JSON document"),
        ("index", "algorithm") => said(words(&["hnsw", "flat"]), "how neighbours are found"),
        ("index", "metric") => said(words(&["l2", "cosine", "inner_product"]), "how distance is measured"),
        ("index", "dims") => said(whole(1, 65_536), "when given, those of the data"),
        ("index", "m") => said(whole(1, 65_536), "links per node and layer"),
        ("index", "ef_construction") => {
            said(whole(1, 1_000_000), "candidates looked at while a vector is inserted")
        }
        ("population", "prefix") => {
            said(json!({ "type": "string", "minLength": 1 }), "beginning of all keys")
        }
        ("population", "copies") => said(
            param(json!({ "type": "number", "minimum": 1, "maximum": 1_000_000 })),
            "times that the base is loaded",
        ),
        ("population", "expansion") => said(words(&["auto", "permutation"]), "how copies are made"),
        ("population", "order") => {
            said(words(&["interleaved", "clustered"]), "in which order copies are loaded")
        }
        ("keyspace", "keys") => said(whole(1, MOST_ROWS), "keys of each type"),
        ("keyspace", "elements") => said(whole(1, 100_000), "fields, members or elements of a key"),
        ("keyspace", "group") => said(whole(1, 100_000), "keys that share a slot"),
        ("fleet", "workers") => said(whole(1, 10_000), "worker processes"),
        ("fleet", "lanes") => said(whole(1, 1024), "load lanes (threads) of each"),
        ("fleet", "lease") => {
            said(duration(), "without word from its coordinator for this long a worker sends no load")
        }
        ("connection", "protocol") => said(words(&["resp2", "resp3"]), "what load lanes speak"),
        ("connection", "read_from") => said(
            words(&["primary", "prefer_replica", "round_robin"]),
            "which nodes are asked what changes nothing",
        ),
        ("sampling", "interval") => said(duration(), "time between two samples of a node"),
        ("sampling", "size_classes") => {
            said(duration(), "time between two questions for the size classes of a node's allocator")
        }
        _ => return None,
    })
}

fn step_says(word: &str) -> &'static str {
    match word {
        "create_index" => "makes the index, as `index` says",
        "drop_index" => "drops the index; the rows stay",
        "rebuild_index" => "drops the index and makes it anew over the rows that are there",
        "ingest" => "writes every planned row",
        "grow" => "inserts rows until a share of the plan is alive",
        "shrink" => "deletes rows until a share is left, or a share is gone",
        "update" => "writes live rows again",
        "churn" => "deletes rows and inserts others, one for one",
        "settle" => "waits until nothing is being indexed and memory holds still",
        "query" => "asks for nearest neighbours and judges the answers",
        "mixed" => "asks, inserts, deletes and overwrites in one phase",
        "kv" => "sends plain commands",
        "checkpoint" => "takes the memory that the report compares",
        "failover" => "a replica takes its primary's place",
        "migrate_slots" => "moves slots with their keys until every primary serves its share",
        "add_node" => "takes a server that runs into the cluster",
        "remove_node" => "takes a node without slots out of the cluster",
        "command" => "runs a program on the coordinator's machine; needs --allow-hooks",
        _ => "",
    }
}

fn required_of(word: &str) -> &'static [&'static str] {
    match word {
        "ingest" | "update" | "shrink" => &["load"],
        "grow" => &["to", "load"],
        "churn" => &["by", "load"],
        "query" => &["k", "load", "duration"],
        "mixed" => &["weights", "k", "load"],
        "kv" => &["commands", "load"],
        "migrate_slots" => &["shares"],
        "add_node" | "remove_node" => &["address"],
        "command" => &["run"],
        _ => &[],
    }
}

fn step_key(word: &str, key: &str) -> Option<Value> {
    Some(match (word, key) {
        (_, "load") => load(),
        (_, "timeout") => said(duration(), "give up after this long"),
        (_, "warm_up") => said(duration(), "unmeasured beginning"),
        (_, "duration") => said(duration(), "measured part"),
        (_, "operations") => said(whole(1, u64::MAX / 4), "requests over the whole fleet"),
        (_, "k") => said(whole(1, 1_000_000), "neighbours asked for"),
        (_, "ef_runtime") => said(whole(1, 1_000_000), "candidates looked at"),
        (_, "filter") => said(
            json!({
                "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
                "properties": { "tag": share(), "numeric": share() },
            }),
            "the share of the rows that a query is about",
        ),
        (_, "returns") => said(words(&["nothing", "distance", "row"]), "what comes back with each neighbour"),
        ("ingest", "prefill") => said(words(&["none", "reuse"]), "whether rows of an earlier run are kept"),
        ("rebuild_index", "m") => said(whole(1, 65_536), "links per node and layer"),
        ("rebuild_index", "ef_construction") => {
            said(whole(1, 1_000_000), "candidates looked at while a vector is inserted")
        }
        ("grow", "to") => said(share(), "of the planned rows, alive afterwards"),
        ("churn" | "shrink", "by") => said(share(), "of the planned rows"),
        ("shrink", "keep") => said(share(), "of the planned rows, alive afterwards"),
        ("shrink", "keep_rows") => said(whole(0, MOST_ROWS), "rows that are left"),
        ("shrink", "keep_memory") => {
            said(text(), "memory that the target at rest uses at most, for example 10GiB")
        }
        ("shrink", "settle") => section(
            STEPS.iter().find(|(word, _)| *word == "settle").map_or(&[][..], |(_, keys)| *keys),
            &|key| step_key("settle", key),
            &[],
        ),
        ("shrink", "keep_copies") => said(whole(1, 1_000_000), "copies that are left, whole"),
        ("update", "share") => said(share(), "of the planned rows, from the front"),
        ("settle", "threshold") => said(share(), "largest change of memory within the window"),
        ("settle", "window") => said(duration(), "memory holds still for so long"),
        ("settle", "max_wait") => said(duration(), "the phase fails after this long"),
        ("mixed", "weights") => {
            let weight = json!({ "query": whole(0, 1000), "ingest": whole(0, 1000), "delete": whole(0, 1000), "update": whole(0, 1000) });
            said(
                json!({ "type": "object", "properties": weight, "additionalProperties": false }),
                "which part of the requests does what",
            )
        }
        ("kv", "commands") => {
            said(commands(), "what is sent: a built-in command, a template, or either with a weight")
        }
        ("kv", "keys") => said(keys(), "which key a request is about"),
        ("kv", "values") => said(values(), "what is written"),
        ("kv", "fill") => said(words(&["auto", "none"]), "whether keys that are read are written before"),
        ("failover", "primary") => {
            said(whole(1, 1000), "which primary hands over, from 1, in the order of addresses")
        }
        ("failover", "how") => {
            said(words(&["orderly", "force", "takeover"]), "whether the primary, or anybody, is asked")
        }
        ("migrate_slots", "shares") => said(
            json!({ "anyOf": [{ "const": "even" }, { "type": "array", "minItems": 1, "items": share() }] }),
            "the share of all slots that each primary serves afterwards, in the order of addresses",
        ),
        ("add_node" | "remove_node", "address") => said(text(), "host:port"),
        ("add_node", "replica_of") => {
            said(whole(1, 1000), "the primary that it copies, from 1, in the order of addresses")
        }
        ("command", key) => return program_key(key),
        _ => return None,
    })
}

fn program_key(key: &str) -> Option<Value> {
    Some(match key {
        "run" => said(
            json!({ "type": "array", "minItems": 1, "items": { "type": ["string", "number"] } }),
            "the program and its arguments; no shell reads them",
        ),
        "timeout" => said(duration(), "it is ended after this long"),
        "on_failure" => {
            said(words(&["continue", "stop"]), "what happens to the run when it does not end with 0")
        }
        "phases" => said(texts(), "the phases that it accompanies; all where none are named"),
        "lasts" => {
            said(words(&["itself", "phase"]), "whether it is told to end (SIGINT) when the phase ends")
        }
        _ => return None,
    })
}

fn hooks() -> Value {
    let list = |keys: &[&str]| {
        let one = section(keys, &program_key, &["run"]);
        Some(json!({ "type": "array", "items": one }))
    };
    let both = section(
        operations::HOOKS,
        &|key| list(if key == "on_phase_start" { operations::START_HOOK } else { operations::END_HOOK }),
        &[],
    );
    said(both, "programs that accompany phases, on the coordinator's machine; need --allow-hooks")
}

fn load() -> Value {
    let arrival = json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
        "properties": {
            "constant": object(json!({ "rate": rate() }), &["rate"]),
            "poisson": object(json!({ "rate": rate() }), &["rate"]),
            "ramp": object(json!({ "from": rate(), "to": rate() }), &["from", "to"]),
            "steps": { "type": "array", "items": object(json!({ "rate": rate(), "length": duration() }), &["rate", "length"]) },
            "burst": object(
                json!({ "base": rate(), "peak": rate(), "length": duration(), "period": duration() }),
                &["base", "peak", "length", "period"],
            ),
        },
    });
    said(
        json!({
            "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
            "properties": {
                "closed": said(
                    object(json!({ "clients": whole(1, 1_000_000), "pipeline": whole(1, 10_000) }), &["clients", "pipeline"]),
                    "a fixed number of requests is in flight; the next waits for a reply",
                ),
                "open": said(
                    object(
                        json!({ "rate": rate(), "arrival": arrival, "connections": whole(1, 1_000_000) }),
                        &["connections"],
                    ),
                    "requests fall due by the clock, whatever the target does",
                ),
            },
        }),
        "how hard the target is driven",
    )
}

fn commands() -> Value {
    let known: Vec<&str> = catalog::COMMANDS.iter().map(|command| command.name).collect();
    let full = object(
        json!({
            "command": said(text(), &format!("built in are: {}", known.join(", "))),
            "template": said(text(), "for example `SET {key} {value}`"),
            "weight": whole(1, 1000),
            "name": said(own(), "its name in the latency tables"),
        }),
        &[],
    );
    json!({ "type": "array", "minItems": 1, "items": { "anyOf": [text(), full] } })
}

fn keys() -> Value {
    let exponent = param(json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 10 }));
    json!({ "anyOf": [
        words(&["uniform", "sequential"]),
        {
            "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
            "properties": {
                "zipf": exponent,
                "latest": exponent,
                "hot": object(json!({ "requests": share(), "keys": share() }), &["requests", "keys"]),
            },
        },
    ] })
}

fn values() -> Value {
    let bytes = whole(1, 512 * 1024 * 1024);
    let shape = json!({
        "uniform": object(json!({ "min": bytes, "max": bytes }), &["min", "max"]),
        "log_normal": object(
            json!({ "median": bytes, "sigma": param(json!({ "type": "number" })), "max": bytes }),
            &["median", "sigma", "max"],
        ),
        "weighted": { "type": "array", "minItems": 1, "items": object(json!({ "size": bytes, "weight": whole(1, 1000) }), &["size", "weight"]) },
    });
    let sizes = json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": shape,
    });
    object(
        json!({
            "size": { "anyOf": [bytes, sizes] },
            "content": words(&["random", "text", "json", "session", "numeric"]),
            "compressibility": share(),
        }),
        &[],
    )
}

/// A mapping with the keys of a reader's table; a key without a description is left out, which a test finds.
fn section(keys: &[&str], describe: &dyn Fn(&str) -> Option<Value>, required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().filter_map(|key| Some(((*key).to_owned(), describe(key)?))).collect();
    object(Value::Object(properties), required)
}

fn object(properties: Value, required: &[&str]) -> Value {
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if let (Value::Object(object), false) = (&mut object, required.is_empty()) {
        object.insert(String::from("required"), json!(required));
    }
    object
}

/// A key without a value counts as a mapping without keys.
fn or_nothing(mut schema: Value, allowed: bool) -> Value {
    if let (Value::Object(schema), true) = (&mut schema, allowed) {
        schema.insert(String::from("type"), json!(["object", "null"]));
    }
    schema
}

fn said(mut schema: Value, description: &str) -> Value {
    if let Value::Object(schema) = &mut schema {
        schema.insert(String::from("description"), json!(description));
    }
    schema
}

/// A value, or what stands for it.
fn param(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "$ref": "#/$defs/reference" }] })
}

fn whole(least: u64, most: u64) -> Value {
    param(json!({ "type": "integer", "minimum": least, "maximum": most }))
}

fn words(words: &[&str]) -> Value {
    param(json!({ "enum": words }))
}

fn duration() -> Value {
    param(json!({ "$ref": "#/$defs/duration" }))
}

fn rate() -> Value {
    param(json!({ "$ref": "#/$defs/rate" }))
}

fn share() -> Value {
    param(json!({ "$ref": "#/$defs/share" }))
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn texts() -> Value {
    json!({ "type": "array", "items": text() })
}

fn criteria() -> Value {
    json!({ "type": "array", "items": { "type": "string", "examples": ["recall >= 0.95", "p99 <= 10ms"] } })
}

/// Names that vst itself uses.
fn own() -> Value {
    json!({ "type": "string", "pattern": "^[a-z0-9_-]+$|\\$\\{" })
}
