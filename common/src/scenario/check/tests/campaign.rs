//! Campaigns: what a stage takes over, what may be done, and what a person sees of a wrong one.

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::*;

const SOUND: &str = "\
name: grow
purpose: how far it goes
scenario: quick
set: {fleet.workers: 1}
goal:
  - {rows: 20000, under: [qps >= 200/s, recall >= 0.95, memory <= 1GiB], shard_memory: 160MiB}
  - rows: 50000
  - {rows: 100000, copies: 10, under: [qps >= 100/s], ground_truth: truth.bin}
actions:
  load: {rate: 1k/s, start: 20s}
  measure: {length: 4s, warm_up: 1s, repeats: 4, at_most: 12}
  tune: {ef_runtime: [16, 256], cost: 1m}
  change: {set: {index.m: [16, 8], index.ef_construction: [200, 100]}, cost: 10s}
  shards: {counts: [1, 2], targets: [valkey://a:6379, valkey://b:6379], cost: 5m}
";

fn shown(faults: &Faults) -> String {
    let mut text = String::new();
    let theme = GraphicalTheme::unicode_nocolor();
    GraphicalReportHandler::new_themed(theme).render_report(&mut text, faults).unwrap();
    text
}

#[test]
fn a_stage_has_what_it_says_and_the_rest_of_the_stage_before() {
    let campaign = parse(SOUND, "grow.yaml").unwrap();
    let [a, b, c] = campaign.stages.as_slice() else { panic!() };
    assert_eq!((a.rows, a.rate, a.constraints.len()), (20_000, 200.0, 2));
    assert_eq!((b.rate, &b.constraints, b.shard_memory), (a.rate, &a.constraints, a.shard_memory));
    assert_eq!((c.rate, c.constraints.len(), c.copies), (100.0, 0, 10));
    assert_eq!((a.ground_truth.as_deref(), c.ground_truth.as_deref()), (None, Some("truth.bin")));
    assert_eq!((a.shard_memory, c.shard_memory), (Some(160.0 * 1024.0 * 1024.0), a.shard_memory));
}

#[test]
fn what_may_be_done_is_what_is_named_with_what_it_costs() {
    let campaign = parse(SOUND, "grow.yaml").unwrap();
    assert_eq!((campaign.tune, campaign.shards.as_slice()), (Some((16, 256)), &[1, 2][..]));
    let settings: Vec<String> = campaign.settings.iter().map(ToString::to_string).collect();
    assert_eq!(settings.len(), 4);
    assert_eq!(
        settings[0], "--set index.ef_construction=200 --set index.m=16",
        "first those that stand first"
    );
    let costs = campaign.costs;
    assert_eq!((costs.load_row_ms, costs.load_ms, costs.pass_ms), (1.0, 20_000, 5_000));
    assert_eq!((costs.tune_ms, costs.change_ms, costs.shard_ms), (60_000, 10_000, 300_000));

    let least = "name: a\npurpose: b\nscenario: quick\ngoal: [{rows: 10, under: [qps >= 1/s]}]\n";
    let campaign = parse(least, "least.yaml").unwrap();
    assert_eq!((campaign.tune, campaign.settings.len(), campaign.shards.len()), (None, 1, 0));
}

/// Each broken file with what is said of it, fault by fault.
#[test]
fn what_a_person_is_told_of_broken_campaigns() {
    let head = "name: a\npurpose: b\nscenario: quick\n";
    let with = |text: &str| format!("{head}goal: [{{rows: 10, under: [qps >= 1/s]}}]\n{text}");
    let goal = |text: &str| format!("{head}goal: {text}\n");
    let broken: [(String, &[&str]); 12] = [
        (String::new(), &["has no `name`", "has no `purpose`", "has no `scenario`", "has no `goal`"]),
        (
            format!("nam: a\n{head}gaol: []\nactions: {{shard: {{}}}}\n"),
            &["unknown key `nam`", "unknown key `gaol`", "unknown key `shard` in `actions`"],
        ),
        (
            goal("[{rows: 10, under: [qps >= 1/s]}, {rows: 10}, {rows: 0}]"),
            &["`rows` must be from 11 to 999999999999, but is 10", "but is 0"],
        ),
        (
            goal("[{rows: 10}, {rows: 20, under: [recall >= 0.9]}]"),
            &["stage 1 of the goal has no `under`", "`under` says no rate"],
        ),
        (
            goal(
                "[{rows: 10, under: [qps >= 1/s, speed <= 3, qps <= 5/s, cpu_per_query <= 1ms, memory >= 1GiB]}]",
            ),
            &[
                "`speed` is no figure",
                "`qps` is the load that must be carried",
                "does not judge `cpu_per_query`",
                "asks for more memory",
            ],
        ),
        (
            goal("[{rows: 10, copies: 3, under: [qps >= 1/s], shard_memory: 5}]"),
            &["10 rows are not 3 copies", "`shard_memory` takes text"],
        ),
        (
            with("actions: {tune: {ef_runtime: [512, 10], cost: 5}}\n"),
            &["`ef_runtime` takes the lowest and the highest value", "`cost` has no unit"],
        ),
        (
            with("actions: {change: {set: {index.m: 16, index.dims: []}}}\n"),
            &["`index.m` takes a list of values", "`index.dims` takes a list of values"],
        ),
        (
            with("actions: {shards: {counts: [2, 1], targets: [host]}}\n"),
            &["`counts` takes numbers of primaries in growing order", "`targets` is no URL"],
        ),
        (
            with("actions: {shards: {counts: [1, 2], targets: [\"valkey://a:1\"]}}\n"),
            &["1 targets stand beside 2 counts"],
        ),
        (
            with("actions: {measure: {repeats: 1}, load: {rate: 5}}\nconfidence: 100%\n"),
            &["`repeats` must be from 3", "`rate` has no unit", "`confidence` must be from 50%"],
        ),
        (String::from("name: \"a\ngoal: {\n"), &["not valid YAML"]),
    ];
    for (text, expected) in broken {
        let faults = parse(&text, "grow.yaml").expect_err(&text);
        let said: Vec<&str> = faults.iter().map(|fault| fault.message()).collect();
        for wanted in expected {
            assert!(said.iter().any(|said| said.contains(wanted)), "{wanted}: {said:?}");
        }
        assert_eq!(said.len(), expected.len(), "{said:?}");
        assert!(shown(&faults).contains("grow.yaml:"), "each has its place: {}", shown(&faults));
    }
}

#[test]
fn the_campaigns_of_the_project_are_sound() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../campaigns");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if text.contains("\ngoal:") {
            parse(&text, &path.to_string_lossy()).unwrap_or_else(|faults| panic!("{}", shown(&faults)));
            seen += 1;
        } else {
            crate::scenario::check::parse(&text, &path.to_string_lossy(), &[])
                .unwrap_or_else(|faults| panic!("{}", shown(&faults)));
        }
    }
    assert!(seen > 0);
}
