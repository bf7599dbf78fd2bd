//! The schemas: as checked in, with every key of the readers, and for every scenario that is accepted.

use serde_json::Value;

use super::super::{beside, config, operations, parameters, phases, schema, sections};
use crate::scenario::library::LIBRARY;

fn checked_in(name: &str) -> Value {
    let path = format!("{}/../docs/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

#[test]
fn the_schemas_that_are_checked_in_are_those_that_are_printed() {
    for (name, schema) in [("scenario", schema::scenario()), ("config", schema::environment())] {
        assert!(checked_in(name) == schema, "vst schema {name} > docs/schemas/{name}.json");
    }
}

fn keys(schema: &Value, pointer: &str) -> Vec<String> {
    let properties = schema.pointer(&format!("{pointer}/properties")).and_then(Value::as_object);
    properties.map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

fn sorted(keys: &[&str]) -> Vec<String> {
    let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    keys.sort();
    keys
}

#[test]
fn every_key_that_the_readers_know_is_described() {
    let scenario = schema::scenario();
    let same = |schema: &Value, pointer: &str, known: &[&str]| {
        let mut found = keys(schema, pointer);
        found.sort();
        assert_eq!(found, sorted(known), "{pointer}");
    };
    same(&scenario, "", sections::TOP);
    for (section, known) in sections::SECTIONS {
        same(&scenario, &format!("/properties/{section}"), known);
    }
    same(&scenario, "/properties/parameters/additionalProperties", parameters::KEYS);
    let words: Vec<&str> =
        phases::STEPS.iter().map(|(word, _)| *word).chain(["name", "criteria", "beside"]).collect();
    same(&scenario, "/$defs/phase", &words);
    let words: Vec<&str> = beside::STEPS.iter().copied().chain(["name", "criteria", beside::AFTER]).collect();
    same(&scenario, "/$defs/beside", &words);
    for (word, known) in phases::STEPS {
        same(&scenario, &format!("/$defs/phase/properties/{word}"), known);
    }
    let environment = schema::environment();
    same(&environment, "", config::TOP);
    for (section, known) in [("etcd", config::ETCD), ("fleet", config::FLEET), ("guard", config::GUARD)] {
        same(&environment, &format!("/properties/{section}"), known);
    }
    for schema in [&scenario, &environment] {
        same(schema, "/properties/hooks", operations::HOOKS);
        same(schema, "/properties/hooks/properties/on_phase_start/items", operations::START_HOOK);
        same(schema, "/properties/hooks/properties/on_phase_end/items", operations::END_HOOK);
    }
    for text in [scenario.to_string(), environment.to_string()] {
        assert!(!text.contains("null,") && !text.contains(":null"), "a key without a schema");
    }
}

/// What is wrong with a text by a schema; empty where it fits.
struct Validator(Value);

impl Validator {
    fn wrong(&self, text: &str) -> String {
        self.judge(&self.0, &value(text), "").err().unwrap_or_default()
    }

    /// The words of JSON Schema that our schemas use; one that they do not use is not known here, and says so.
    fn judge(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let fail = |why: String| Err(format!("{at}: {why}: {value}"));
        let map = value.as_object();
        let list = value.as_array();
        for (word, says) in schema.as_object().unwrap() {
            let fits = match word.as_str() {
                "$schema" | "$defs" | "title" | "description" | "examples" | "properties" => true,
                "$ref" => {
                    let target = self.0.pointer(says.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
                    self.judge(target, value, at)?;
                    true
                }
                "type" => {
                    let is = |name: &Value| match name.as_str().unwrap() {
                        "object" => value.is_object(),
                        "array" => value.is_array(),
                        "string" => value.is_string(),
                        "number" => value.is_number(),
                        "integer" => value.is_u64() || value.is_i64(),
                        "null" => value.is_null(),
                        other => panic!("type {other}"),
                    };
                    says.as_array().map_or_else(|| is(says), |names| names.iter().any(is))
                }
                "required" => map.is_none_or(|map| {
                    says.as_array().unwrap().iter().all(|key| map.contains_key(key.as_str().unwrap()))
                }),
                "additionalProperties" => {
                    let known = schema.get("properties").and_then(Value::as_object);
                    for (key, inner) in map.into_iter().flatten() {
                        let below = format!("{at}/{key}");
                        match known.and_then(|known| known.get(key)) {
                            Some(own) => self.judge(own, inner, &below)?,
                            None if says == &Value::Bool(false) => return Err(format!("{below}: not known")),
                            None => self.judge(says, inner, &below)?,
                        }
                    }
                    true
                }
                "items" => {
                    for (n, item) in list.into_iter().flatten().enumerate() {
                        self.judge(says, item, &format!("{at}/{n}"))?;
                    }
                    true
                }
                "anyOf" | "oneOf" => {
                    let all = says.as_array().unwrap();
                    let fitting = all.iter().filter(|one| self.judge(one, value, at).is_ok()).count();
                    // The reasons of the first are the likeliest.
                    if fitting == 0 {
                        self.judge(&all[0], value, at)?;
                    }
                    fitting == 1 || (word == "anyOf" && fitting > 0)
                }
                "enum" => says.as_array().unwrap().contains(value),
                "const" => says == value,
                "minimum" => value.as_f64().is_none_or(|n| n >= says.as_f64().unwrap()),
                "exclusiveMinimum" => value.as_f64().is_none_or(|n| n > says.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|n| n <= says.as_f64().unwrap()),
                "minLength" => value.as_str().is_none_or(|text| !text.is_empty()),
                "minItems" => list.is_none_or(|list| !list.is_empty()),
                "minProperties" => map.is_none_or(|map| !map.is_empty()),
                "maxProperties" => map.is_none_or(|map| map.len() <= 1),
                "pattern" => value.as_str().is_none_or(|text| fits_pattern(says.as_str().unwrap(), text)),
                other => panic!("{other} is not known here"),
            };
            if !fits {
                return fail(format!("{word} {says}"));
            }
        }
        Ok(())
    }
}

/// The patterns of our schemas, by what they mean.
fn fits_pattern(pattern: &str, text: &str) -> bool {
    let number =
        |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && text.trim_end().parse::<f64>().is_ok();
    let refers = text.contains("${");
    let name =
        |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    match pattern {
        "\\$\\{[^}]*\\}" => text.split_once("${").is_some_and(|(_, rest)| rest.contains('}')),
        "^[0-9]" => text.starts_with(|c: char| c.is_ascii_digit()),
        "^[0-9]+(\\.[0-9]*)? *[kM]? */ *(s|min|m|h) *$" => text.split_once('/').is_some_and(|(n, per)| {
            number(n.trim_end().trim_end_matches(['k', 'M'])) && ["s", "min", "m", "h"].contains(&per.trim())
        }),
        "^[0-9]+(\\.[0-9]*)? *%$" => text.strip_suffix('%').is_some_and(number),
        "^[a-z0-9_-]{1,64}$" => name(text) && (1..=64).contains(&text.len()),
        "^[a-z0-9_-]+$|\\$\\{" => refers || (name(text) && !text.is_empty()),
        "^(valkey|redis|valkeys|rediss)://[^/]+/?$|^unix:///.+$|\\$\\{" => {
            let host = |text: &str| text.len() > 1 && !text.strip_suffix('/').unwrap_or(text).contains('/');
            let rest = ["valkey", "redis", "valkeys", "rediss"]
                .iter()
                .find_map(|scheme| text.strip_prefix(scheme)?.strip_prefix("://"));
            let socket = text.strip_prefix("unix:///").is_some_and(|path| !path.is_empty());
            refers || socket || rest.is_some_and(host)
        }
        other => panic!("pattern {other}"),
    }
}

fn value(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn every_scenario_that_is_accepted_fits_the_schema_and_damage_does_not() {
    let validator = Validator(schema::scenario());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/scenarios");
    let tests = std::fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.display().to_string(), std::fs::read_to_string(&path).unwrap())
    });
    let library = LIBRARY.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    for (name, text) in library.chain(tests) {
        assert_eq!(validator.wrong(&text), "", "{name}");
    }
    let (_, quick) = LIBRARY.iter().find(|(name, _)| *name == "quick").unwrap();
    for (right, wrong) in [
        ("purpose:", "porpoise:"),
        ("algorithm: hnsw", "algorithm: tree"),
        ("metric: l2", "metric: 2"),
        ("create_index: {}", "create_index: {m: 5}"),
        ("k: 10", "k: ten"),
        ("keep: 50%", "keep: 0.5"),
        ("pipeline: 8", "pipline: 8"),
        ("create_index: {}", "crate_index: {}"),
    ] {
        assert!(quick.contains(right), "{right}");
        assert_ne!(validator.wrong(&quick.replacen(right, wrong, 1)), "", "{wrong}");
    }
}

#[test]
fn environments_that_are_accepted_fit_the_schema() {
    let validator = Validator(schema::environment());
    let sound = "extends: base.yaml\nprofile: low_latency\ntarget: valkey://loader@staging-1:6379\n\
                 token_file: /run/secrets/vst-token\nresults: /srv/vst/runs\netcd: {endpoints: [h:2379], fleet: load}\n\
                 fleet: {workers: \"${WORKERS:-4}\"}\nset: {rows: 5000}\nhooks: {on_phase_end: [{run: [sync]}]}\n\
                 guard: {allowed_targets: [\"staging-*:6379\"], most_rows: 1000000, most_memory: 10GiB}\n";
    assert_eq!(validator.wrong(sound), "");
    for (right, wrong) in
        [("valkey://", "http://"), ("low_latency", "low"), ("most_rows", "max_rows"), ("5000}", "[5000]}")]
    {
        assert_ne!(validator.wrong(&sound.replacen(right, wrong, 1)), "", "{wrong}");
    }
}
