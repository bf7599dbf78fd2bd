//! Which stage may import which: data flows one way.
//!
//! Reads `use crate::...` of every file of a crate. Stages stand in the order in which data passes them; a stage may
//! import those to its left and what stands outside the flow, never one to its right.

use std::collections::BTreeSet;
use std::path::Path;

/// Stages of each crate, from left (earlier) to right (later). Modules that are not named serve all of them.
pub const FLOW: [(&str, &[&str]); 3] = [
    (
        "worker",
        &[
            "topology",
            "work",
            "presence",
            "fetch",
            "recall_probe",
            "recorder",
            "requests",
            "pacer",
            "pipeline",
            "connection",
            "lane",
            "sampler",
            "uplink",
            "session",
            "serve",
        ],
    ),
    (
        "coordinator",
        &[
            "plan", "leases", "roster", "target", "intake", "run_log", "archive", "run", "status", "session",
            "serve",
        ],
    ),
    (
        "analysis",
        &[
            "engine",
            "query",
            "latency",
            "allocator",
            "memory",
            "recall",
            "accounting",
            "phase",
            "validity",
            "criteria",
            "summary",
            "report",
        ],
    ),
];

/// Every import that goes against the flow, as `crate: stage imports stage (file)`.
#[must_use]
pub fn against_the_flow(project: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (name, stages) in FLOW {
        let source = project.join(name).join("src");
        for (i, stage) in stages.iter().enumerate() {
            let later: Vec<&str> = stages.iter().skip(i + 1).copied().collect();
            for (file, text) in files_of(&source, stage) {
                for import in imports(&text) {
                    if later.contains(&import.as_str()) {
                        found.insert(format!("{name}: `{stage}` imports `{import}` ({file})"));
                    }
                }
            }
        }
    }
    found.into_iter().collect()
}

/// Stages that have no file: the list above has to follow the code.
#[must_use]
pub fn stages_without_file(project: &Path) -> Vec<String> {
    let missing = |name: &str, stage: &&str| {
        files_of(&project.join(name).join("src"), stage).is_empty().then(|| format!("{name}: {stage}"))
    };
    FLOW.iter()
        .flat_map(|(name, stages)| stages.iter().filter_map(|s| missing(name, s)).collect::<Vec<_>>())
        .collect()
}

/// A stage's file and everything in its folder, but for tests.
fn files_of(source: &Path, stage: &str) -> Vec<(String, String)> {
    let mut paths = vec![source.join(format!("{stage}.rs"))];
    let mut folders = vec![source.join(stage)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { paths.push(entry.path()) }
        }
    }
    let is_code =
        |p: &Path| p.extension().is_some_and(|e| e == "rs") && p.file_stem().is_some_and(|s| s != "tests");
    let read = |p: &Path| Some((p.to_string_lossy().into_owned(), std::fs::read_to_string(p).ok()?));
    paths.iter().filter(|p| is_code(p)).filter_map(|p| read(p)).collect()
}

/// First path segments after `crate::`, in code that is not a test.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = BTreeSet::new();
    for line in lines {
        for rest in line.split("crate::").skip(1) {
            let segments = rest.strip_prefix('{').map_or(rest, |group| group);
            for part in segments.split(',') {
                let word: String =
                    part.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if !word.is_empty() {
                    found.insert(word);
                }
                if !rest.starts_with('{') {
                    break;
                }
            }
        }
    }
    found
}
