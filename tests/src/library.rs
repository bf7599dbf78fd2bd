//! The scenarios that come with vst, each as small as a test can afford.

use vst_common::scenario::check::parse;
use vst_common::scenario::library::LIBRARY;

/// What each parameter is set to; parameters that are not here keep their defaults.
const SMALL: &[(&str, &str)] = &[
    ("rows", "2000"),
    ("copies", "1"),
    ("keys", "500"),
    ("duration", "1s"),
    ("part", "1s"),
    ("window", "300ms"),
    ("most", "20"),
    ("night", "20/s"),
    ("morning", "50/s"),
    ("noon", "100/s"),
    ("evening", "50/s"),
    // A machine that runs the servers and the tests of several suites keeps no tight bound.
    ("least_qps", "50"),
    ("p99", "2s"),
    // What an index costs at least is shared by few rows.
    ("bytes_per_vector", "50000"),
];

/// Rates by family; each is far below what one core answers.
fn rate(family: &str) -> &'static str {
    match family {
        "memory" | "scale" => "100/s",
        _ => "500/s",
    }
}

/// The names of all scenarios.
#[must_use]
pub fn names() -> Vec<&'static str> {
    LIBRARY.iter().map(|(name, _)| *name).collect()
}

/// `--set` arguments that scale a scenario down.
#[must_use]
pub fn scaled_down(name: &str) -> Vec<String> {
    let (_, text) = LIBRARY.iter().find(|(known, _)| *known == name).expect("a scenario of the library");
    let scenario = parse(text, name, &[]).expect("it is sound").scenario;
    let mut sets = Vec::new();
    if scenario.dataset.is_some() && !scenario.parameters.contains_key("rows") {
        sets.extend(["--set", "rows=2000"].map(String::from));
    }
    for parameter in scenario.parameters.keys() {
        let small = SMALL.iter().find(|(known, _)| known == parameter).map(|(_, value)| *value);
        let small = small.or((parameter == "rate").then(|| rate(&scenario.family)));
        if let Some(value) = small {
            sets.extend([String::from("--set"), format!("{parameter}={value}")]);
        }
    }
    sets
}
