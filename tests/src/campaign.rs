//! A campaign that tests can afford: two small populations, and a budget.

use std::path::PathBuf;

use crate::command::project;
use crate::run::Results;

/// 1,000 and 4,000 vectors; one shard may use `shard_memory`. More actions than the measuring are lines of YAML.
#[must_use]
pub fn text(shard_memory: &str, actions: &str) -> String {
    format!(
        "name: small\npurpose: a budget that the second population breaks\nscenario: {}\n\
         set: {{sampling.interval: 250ms}}\n\
         goal:\n  - {{rows: 1000, under: [qps >= 50/s, recall >= 0.9, p99 <= 5s], shard_memory: {shard_memory}}}\n  - rows: 4000\n\
         actions:\n  measure: {{warm_up: 200ms, length: 1s}}\n{actions}",
        project().join("tests/scenarios/limit.yaml").display()
    )
}

/// The text as a file beside the results.
#[must_use]
pub fn file(results: &Results, text: &str) -> PathBuf {
    let path = PathBuf::from(results.path()).join("campaign.yaml");
    std::fs::write(&path, text).expect("it can be written");
    path
}
