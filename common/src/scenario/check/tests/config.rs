//! Environments: what extends what, variables, and what a person sees of a wrong one.

use std::collections::BTreeMap;

use super::super::config::{self, Config, Profile, Surroundings};
use super::*;

/// Files and variables by name.
struct Made(BTreeMap<&'static str, &'static str>);

impl Surroundings for Made {
    fn file(&self, _: &str, reference: &str) -> Result<(String, String), String> {
        let text = self.0.get(reference).ok_or("no such file")?;
        Ok((reference.to_owned(), (*text).to_owned()))
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }
}

const BASE: &str = "\
profile: low_latency
results: runs
guard: {allowed_targets: [\"staging-*:6379\"], most_rows: 1000000, most_memory: 10GiB}
set: {rows: 5000, rate: 100/s}
";

fn read(text: &str, around: &[(&'static str, &'static str)]) -> Result<Config, Faults> {
    config::parse(text, "production.yaml", &Made(around.iter().copied().collect()))
}

#[test]
fn a_file_goes_over_what_it_extends_key_by_key_and_variables_take_their_places() {
    let text = "extends: base.yaml\ntarget: valkey://${HOST}:6379\nfleet: {workers: \"${WORKERS:-3}\"}\nset: {rows: 2000}\n";
    let config = read(text, &[("base.yaml", BASE), ("HOST", "staging-1")]).unwrap();
    assert_eq!(config.target.as_deref(), Some("valkey://staging-1:6379"));
    assert_eq!((config.profile, config.workers), (Some(Profile::LowLatency), Some(3)));
    assert_eq!(config.guard.most_memory_bytes, Some(10 << 30));
    let set = config.overrides();
    let last = |path: &str| set.iter().rev().find(|(p, _)| p == path).map(|(_, value)| value.as_str());
    assert_eq!((last("rows"), last("rate"), last("fleet.workers")), (Some("2000"), Some("100/s"), Some("3")));
    assert_eq!(last("fleet.lanes"), Some("2"), "the profile says what nothing else does");
    assert_eq!(
        read(text, &[("base.yaml", BASE), ("HOST", "staging-1"), ("WORKERS", "7")]).unwrap().workers,
        Some(7)
    );
}

#[test]
fn a_password_in_a_file_is_not_shown_again() {
    let guarded = "target: valkey://loader:pässword@h:6379\nguard: {allowed_targets: 5}\n";
    for text in [guarded, "extends: base.yaml\nresults: 5\n"] {
        let base = "target: \"valkeys://loader:pässword@h:6379\"\n";
        let said = shown(&read(text, &[("base.yaml", base)]).unwrap_err());
        assert!(said.contains("loader:**") && !said.contains("pässword"), "{said}");
    }
}

/// Each broken file with the snapshot of all that is said of it.
#[test]
fn what_a_person_sees_of_broken_environments() {
    let broken = [
        ("unknown_keys", "targt: valkey://h:1\nprofil: low_latency\nguards: {}\n"),
        ("wrong_types", "target: [a]\nresults: 5\nfleet: 3\nset: [rows]\nguard: {allowed_targets: h}\n"),
        ("no_url", "target: staging-1:6379\nprofile: fast\ntoken_file: \"\"\n"),
        ("password", "target: valkey://user:secret@h:6379\n"),
        ("not_allowed", "target: valkey://production:6379\nguard: {allowed_targets: [\"staging-*\"]}\n"),
        ("numbers", "fleet: {workers: 0, lanes: 5000}\nguard: {most_rows: 0, most_memory: 10}\n"),
        ("sizes", "guard: {most_memory: 10 elephants, most_rows: -1}\n"),
        (
            "variables",
            "target: valkey://${HOST}:6379\nresults: ${RESULTS}\nfleet: {workers: \"${N:-many}\"}\n",
        ),
        ("missing_base", "extends: nowhere.yaml\nprofil: x\n"),
        ("circle", "extends: circle.yaml\n"),
        ("fault_in_base", "extends: bad.yaml\nresults: runs\nlanes: 3\n"),
        ("no_yaml", "target: \"valkey://h:1\nfleet: {\n"),
    ];
    let around =
        [("circle.yaml", "extends: circle.yaml\n"), ("bad.yaml", "profile: slow\nfleet: {worker: 2}\n")];
    let said: Vec<String> = broken
        .iter()
        .map(|(name, text)| {
            let faults = read(text, &around).expect_err(name);
            format!("== {name}\n{}", shown(&faults))
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}
