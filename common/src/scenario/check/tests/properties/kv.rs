//! Phases of plain commands as they are drawn and as a person writes them.

use super::*;
use crate::scenario::{CommandSpec, ContentKind, KeyDistribution, KvSpec, SizeSpec, ValueSpec};

const TEMPLATES: &[&str] =
    &["GET {key}", "SET {key zipf 1.5} \"a b\"", "MGET {keys 3}", "HSET {key} v {vector 4} n {int -5 5}"];

fn keys() -> impl Strategy<Value = KeyDistribution> {
    prop_oneof![
        Just(KeyDistribution::Uniform),
        Just(KeyDistribution::Sequential),
        (1..80u32).prop_map(|eighths| KeyDistribution::Zipf { s: f64::from(eighths) / 8.0 }),
        (1..80u32).prop_map(|eighths| KeyDistribution::Latest { s: f64::from(eighths) / 8.0 }),
        // Quarters of a percent are not exact, halves of a whole are.
        Just(KeyDistribution::HotSet { requests: 0.75, keys: 0.25 }),
    ]
}

fn values_of() -> impl Strategy<Value = ValueSpec> {
    let size = prop_oneof![
        (1..10_000u32).prop_map(SizeSpec::Fixed),
        (1..100u32, 100..200u32).prop_map(|(min, max)| SizeSpec::Uniform { min, max }),
        (1..1000u32, 1..80u32, 1000..9000u32).prop_map(|(median, eighths, max)| SizeSpec::LogNormal {
            median,
            sigma: f64::from(eighths) / 8.0,
            max
        }),
        vec((1..1000u32, 1..100u32), 1..4).prop_map(SizeSpec::Weighted),
    ];
    let content = select(vec![ContentKind::Random, ContentKind::Json, ContentKind::Text]);
    let part = option::of(Just(0.75));
    (size, content, part).prop_map(|(size, content, compressibility)| ValueSpec {
        size,
        content,
        compressibility,
    })
}

pub(super) fn kv() -> impl Strategy<Value = Step> {
    let commands = vec((select(TEMPLATES.to_vec()), 1..10u32), 1..4).prop_map(|drawn| {
        let spec = |(n, (template, weight)): (usize, (&str, u32))| CommandSpec {
            name: format!("c{n}"),
            template: template.to_owned(),
            weight,
            space: None,
        };
        drawn.into_iter().enumerate().map(spec).collect()
    });
    (commands, keys(), values_of(), any::<bool>(), load(), ms(), ms(), option::of(1..1_000_000u64)).prop_map(
        |(commands, keys, values, fill, load, warm_up_ms, duration_ms, operations)| {
            let timeout_ms = 1000;
            Step::Kv(KvSpec {
                commands,
                keys,
                values,
                fill,
                load,
                warm_up_ms,
                duration_ms,
                operations,
                timeout_ms,
            })
        },
    )
}

pub(super) fn yaml_kv(kv: &KvSpec) -> String {
    let commands: Vec<String> = kv
        .commands
        .iter()
        .map(|c| format!("{{template: {}, weight: {}, name: {}}}", quoted(&c.template), c.weight, c.name))
        .collect();
    let keys = match kv.keys {
        KeyDistribution::Uniform => "uniform".to_owned(),
        KeyDistribution::Sequential => "sequential".to_owned(),
        KeyDistribution::Zipf { s } => format!("{{zipf: {s}}}"),
        KeyDistribution::Latest { s } => format!("{{latest: {s}}}"),
        KeyDistribution::HotSet { requests, keys } => {
            format!("{{hot: {{requests: {}%, keys: {}%}}}}", requests * 100.0, keys * 100.0)
        }
    };
    let size = match &kv.values.size {
        SizeSpec::Fixed(bytes) => bytes.to_string(),
        SizeSpec::Uniform { min, max } => format!("{{uniform: {{min: {min}, max: {max}}}}}"),
        SizeSpec::LogNormal { median, sigma, max } => {
            format!("{{log_normal: {{median: {median}, sigma: {sigma}, max: {max}}}}}")
        }
        SizeSpec::Weighted(list) => {
            let list: Vec<String> =
                list.iter().map(|(size, weight)| format!("{{size: {size}, weight: {weight}}}")).collect();
            format!("{{weighted: [{}]}}", list.join(", "))
        }
    };
    let content = match kv.values.content {
        ContentKind::Random => "random",
        ContentKind::Text => "text",
        ContentKind::Json => "json",
        ContentKind::Session => "session",
        ContentKind::Numeric => "numeric",
    };
    let part = kv
        .values
        .compressibility
        .map_or_else(String::new, |part| format!(", compressibility: {}%", part * 100.0));
    format!(
        "{{commands: [{}], keys: {keys}, values: {{size: {size}, content: {content}{part}}}, fill: {}, load: {}, \
         warm_up: {}ms, duration: {}ms{}, timeout: {}ms}}",
        commands.join(", "),
        if kv.fill { "auto" } else { "none" },
        yaml_load(&kv.load),
        kv.warm_up_ms,
        kv.duration_ms,
        kv.operations.map_or_else(String::new, |n| format!(", operations: {n}")),
        kv.timeout_ms
    )
}
