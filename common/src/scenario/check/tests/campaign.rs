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

/// Each broken file with the snapshot of all that is said of it.
#[test]
fn what_a_person_sees_of_broken_campaigns() {
    let goal = "goal: [{rows: 10, under: [qps >= 1/s]}]\n";
    let head = "name: a\npurpose: b\nscenario: quick\n";
    let with = |text: &str| format!("{head}{goal}{text}");
    let broken = [
        ("nothing", String::new()),
        ("unknown_keys", format!("nam: a\n{head}gaol: []\nactions: {{shard: {{}}}}\n")),
        (
            "no_growth",
            format!("{head}goal: [{{rows: 10, under: [qps >= 1/s]}}, {{rows: 10}}, {{rows: 0}}]\n"),
        ),
        ("no_under", format!("{head}goal: [{{rows: 10}}, {{rows: 20, under: [recall >= 0.9]}}]\n")),
        (
            "constraints",
            format!(
                "{head}goal: [{{rows: 10, under: [qps >= 1/s, speed <= 3, qps <= 5/s, cpu_per_query <= 1ms, memory >= 1GiB]}}]\n"
            ),
        ),
        ("copies", format!("{head}goal: [{{rows: 10, copies: 3, under: [qps >= 1/s], shard_memory: 5}}]\n")),
        ("tune", with("actions: {tune: {ef_runtime: [512, 10], cost: 5}}\n")),
        ("change", with("actions: {change: {set: {index.m: 16, index.dims: []}}}\n")),
        ("shards", with("actions: {shards: {counts: [2, 1], targets: [host]}}\n")),
        ("targets", with("actions: {shards: {counts: [1, 2], targets: [valkey://a:1]}}\n")),
        ("repeats", with("actions: {measure: {repeats: 1}, load: {rate: 5}}\nconfidence: 100%\n")),
        ("no_yaml", String::from("name: \"a\ngoal: {\n")),
    ];
    let said: Vec<String> = broken
        .iter()
        .map(|(name, text)| {
            let faults = parse(text, "grow.yaml").expect_err(name);
            format!("== {name}\n{}", shown(&faults))
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
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
