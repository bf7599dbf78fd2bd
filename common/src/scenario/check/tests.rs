//! What a person sees for every kind of fault, and the laws of the checker.

mod broken;
mod config;
mod operations;
mod parameters;
mod properties;
mod schema;

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::super::{Arrival, Keep, Load, MemoryTarget, Returns, SettleSpec, Step};
use super::{Faults, parse};
use crate::attributes::Filter;

/// A scenario without fault, short enough to be read at a glance.
const SOUND: &str = "\
name: sound
purpose: the base of the tests
dataset: {base: base.u8bin, queries: query.u8bin, ground_truth: truth.bin}
index: {algorithm: hnsw, metric: l2}
phases:
  - name: create
    create_index: {}
  - name: load
    ingest: {load: {closed: {clients: 8, pipeline: 8}}}
  - name: ask
    query: {k: 10, load: {open: {rate: 200/s, connections: 16}}, duration: 10s}
  - name: halve
    shrink: {keep: 50%, load: {closed: {clients: 8, pipeline: 8}}}
";

fn shown(faults: &Faults) -> String {
    let mut text = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(110)
        .render_report(&mut text, faults)
        .unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The sound scenario with one part replaced.
fn with(old: &str, new: &str) -> String {
    assert!(SOUND.contains(old), "{old} is not in the sound scenario");
    SOUND.replacen(old, new, 1)
}

fn faults_of(text: &str) -> Faults {
    parse(text, "case.yaml", &[]).expect_err("the text is wrong")
}

fn faults_with(overrides: &[(&str, &str)]) -> Faults {
    parse(SOUND, "case.yaml", &pairs(overrides)).expect_err("an override is wrong")
}

fn pairs(overrides: &[(&str, &str)]) -> Vec<(String, String)> {
    overrides.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
}

/// All messages, for cases where the picture adds nothing.
fn messages(text: &str) -> Vec<String> {
    faults_of(text).iter().map(|fault| fault.message().to_owned()).collect()
}

#[test]
fn unknown_key() {
    insta::assert_snapshot!(shown(&faults_of(&with("metric: l2}", "metric: l2, ef_constuction: 300}"))));
}

#[test]
fn wrong_type() {
    insta::assert_snapshot!(shown(&faults_of(&with("k: 10", "k: [10, 100]"))));
}

#[test]
fn wrong_unit() {
    let text = with("duration: 10s", "duration: 10")
        .replace("rate: 200/s", "rate: 200ms")
        .replace("keep: 50%", "keep: 0.5");
    insta::assert_snapshot!(shown(&faults_of(&text)));
}

#[test]
fn no_load() {
    let text = with("ingest: {load: {closed: {clients: 8, pipeline: 8}}}", "ingest: {timeout: 10s}")
        .replace("load: {open: {rate: 200/s, connections: 16}}, ", "");
    insta::assert_snapshot!(shown(&faults_of(&text)));
}

#[test]
fn ramp_for_ingest() {
    let ramp = "ingest: {load: {open: {arrival: {ramp: {from: 1/s, to: 5/s}}, connections: 8}}}";
    let text = with("ingest: {load: {closed: {clients: 8, pipeline: 8}}}", ramp);
    insta::assert_snapshot!(shown(&faults_of(&text)));
}

#[test]
fn phases_are_repeated_under_numbered_names_and_an_override_reaches_every_round() {
    let text = format!(
        "{SOUND}  - repeat: 3
    phases:
      - name: turn
        churn: {{by: 10%, load: {{closed: {{clients: 8, pipeline: 8}}}}}}
      - name: rest
        checkpoint: {{}}
"
    );
    let scenario = parse(&text, "case.yaml", &pairs(&[("phases.turn.timeout", "3s")])).unwrap().scenario;
    let names: Vec<&str> = scenario.phases.iter().skip(4).map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["turn_1", "rest_1", "turn_2", "rest_2", "turn_3", "rest_3"]);
    let timeouts = scenario.phases.iter().filter_map(|phase| match &phase.step {
        Step::Churn(churn) => Some(churn.timeout_ms),
        _ => None,
    });
    assert_eq!(timeouts.collect::<Vec<_>>(), [3000; 3]);
    // A fault in a round is told once, where it is written.
    insta::assert_snapshot!(shown(&faults_of(&text.replace("by: 10%", "bye: 10%"))));
    let nested = text.replace("- name: turn", "- repeat: 2\n        phases: [{name: x, checkpoint: {}}]");
    assert!(messages(&nested).contains(&String::from("a group of phases within a group")));
    assert_eq!(
        messages(&text.replace("repeat: 3", "repeat: 0")),
        ["`repeat` must be from 1 to 1000, but is 0"]
    );
}

#[test]
fn rows_are_exchanged_only_where_there_are_others() {
    let churn = |by: &str| {
        let load = "load: {open: {rate: 500/s, connections: 8}}";
        format!("{SOUND}  - name: turn\n    churn: {{by: {by}, {load}}}\n")
    };
    let Step::Churn(spec) = &parse(&churn("50%"), "case.yaml", &[]).unwrap().scenario.phases[4].step.clone()
    else {
        panic!("a churn")
    };
    assert!((spec.by - 0.5).abs() < 1e-12);
    insta::assert_snapshot!(shown(&faults_of(&churn("60%"))));
    assert_eq!(messages(&churn("0%")), ["`by` is 0%"]);
    let early = SOUND.replace("ingest: {load", "update: {share: 10%, load");
    assert!(messages(&early).contains(&String::from("phase `load` overwrites before there are rows")));
}

#[test]
fn missing_keys() {
    let text =
        with("dataset: {base: base.u8bin, ", "dataset: {").replace("purpose: the base of the tests\n", "");
    insta::assert_snapshot!(shown(&faults_of(&text)));
}

#[test]
fn several_at_once() {
    let text = "\
name: Über alles
purpose: 12
seed: -1
dataset: {base: base.u8bin, queries: query.u8bin, ground_truth: truth.bin, rows: 0}
index: {algorithm: tree, metric: euclid, m: 16.5}
population: {prefix: \"{ü}:\"}
fleet: two
phases:
  - name: ask
    query: {k: 0, load: {closed: {clients: 1}, open: {rate: 1/s, connections: 1}}, duration: 10 parsecs}
  - name: nothing
  - name: two things
    checkpoint: {}
    settle: {window: 2s, max_wait: 1s}
";
    insta::assert_snapshot!(shown(&faults_of(text)));
}

#[test]
fn syntax_error() {
    insta::assert_snapshot!(shown(&faults_of(&with("metric: l2}", "metric: \"ℓ²}"))));
}

#[test]
fn bad_indentation() {
    insta::assert_snapshot!(shown(&faults_of(&with(
        "  - name: load\n    ingest",
        "  - name: load\n   ingest"
    ))));
}

#[test]
fn a_syntax_error_is_found_behind_text_of_many_bytes() {
    let faults = faults_of("name: sound\npurpose: 日本語 ℓ²\nindex: [é, 日本, @]\n");
    let fault = faults.iter().next().unwrap();
    assert_eq!(fault.text()[..fault.span().start].lines().last(), Some("index: [é, 日本, "));
}

#[test]
fn repeated_key() {
    insta::assert_snapshot!(shown(&faults_of(&with(
        "phases:",
        "index: {algorithm: hnsw, metric: cosine}\nphases:"
    ))));
}

#[test]
fn duplicate_phase_name() {
    insta::assert_snapshot!(shown(&faults_of(&with("name: ask", "name: load"))));
}

#[test]
fn wrong_order() {
    let text = "\
name: order
purpose: every phase comes too early
dataset: {base: base.u8bin, queries: query.u8bin, ground_truth: truth.bin}
index: {algorithm: hnsw, metric: l2}
phases:
  - {name: ask, query: {k: 10, load: {closed: {clients: 1, pipeline: 1}}, duration: 1s}}
  - {name: halve, shrink: {keep: 50%, load: {closed: {clients: 1, pipeline: 1}}}}
  - {name: create, create_index: {}}
  - {name: again, create_index: {}}
  - {name: ask_nothing, query: {k: 10, load: {closed: {clients: 1, pipeline: 1}}, duration: 1s}}
  - {name: load, ingest: {load: {closed: {clients: 1, pipeline: 1}}}}
  - {name: by_half, shrink: {by: 50%, load: {closed: {clients: 1, pipeline: 1}}}}
  - {name: same, shrink: {keep: 50%, load: {closed: {clients: 1, pipeline: 1}}}}
";
    insta::assert_snapshot!(shown(&faults_of(text)));
}

#[test]
fn bad_overrides() {
    let faults = faults_with(&[
        ("rowz", "2000"),
        ("phases.aks.duration", "2s"),
        ("phases.ask.duration", "2"),
        ("phases.load.duration", "2s"),
        ("phases.ask", "1"),
        ("dataset.base.name", "x"),
        ("fleet..workers", "2"),
        ("seed", "[1"),
    ]);
    insta::assert_snapshot!(shown(&faults));
}

#[test]
fn empty_texts() {
    for text in ["", "# nothing\n", "---\n", "[]", "7"] {
        let faults = faults_of(text);
        assert!(shown(&faults).contains("case.yaml"), "{text:?}");
        assert!(faults.len() >= 1, "{text:?}");
    }
}

#[test]
fn a_prefix_owns_something_but_not_everything() {
    for (prefix, fine) in [
        ("vst:", true),
        ("a", true),
        ("", false),
        ("{a}", false),
        ("_", false),
        ("_vst", false),
        ("_vst:x", false),
        ("a\\nb", false),
        ("a\\u0000", false),
        ("\\u009b", false),
    ] {
        let overrides = pairs(&[("prefix", &format!("\"{prefix}\""))]);
        assert_eq!(parse(SOUND, "case.yaml", &overrides).is_ok(), fine, "{prefix:?}");
    }
}

#[test]
fn durations_rates_and_shares_in_all_spellings() {
    let asked = |overrides: &[(&str, &str)]| {
        let checked = parse(SOUND, "case.yaml", &pairs(overrides)).unwrap();
        match checked.scenario.phases[2].step.clone() {
            Step::Query(query) => query,
            other => panic!("{other:?}"),
        }
    };
    for (text, ms) in [("250ms", 250), ("10s", 10_000), ("1m30s", 90_000), ("2h", 7_200_000), ("1.5s", 1500)]
    {
        assert_eq!(asked(&[("phases.ask.duration", text)]).duration_ms, ms, "{text}");
    }
    for (text, rate) in
        [("500/s", 500.0), ("30k/s", 30_000.0), ("60/min", 1.0), ("0.5/s", 0.5), ("1800/h", 0.5)]
    {
        let load = Load::Open { arrival: Arrival::Constant { rate }, connections: 16 };
        assert_eq!(asked(&[("phases.ask.load.open.rate", text)]).load, load, "{text}");
    }
    for (text, keep) in [("keep: 30%", 0.3), ("by: 30%", 0.7), ("keep: 0%", 0.0), ("keep: 12.5%", 0.125)] {
        let scenario = parse(&with("keep: 50%", text), "case.yaml", &[]).unwrap().scenario;
        let Step::Shrink(shrink) = &scenario.phases[3].step else { panic!("a shrink") };
        assert_eq!(shrink.keep, Keep::Share(keep), "{text}");
    }
}

#[test]
fn values_with_a_wrong_unit_are_refused() {
    for duration in
        ["10", "10/s", "50%", "s", "-1s", "0s", "1us", "1000h", "\"10\"", "~", "true", "{}", ".inf"]
    {
        assert_eq!(messages(&with("duration: 10s", &format!("duration: {duration}"))).len(), 1, "{duration}");
    }
    for rate in ["10", "10s", "0/s", "-1/s", "1e3/s", "inf/s", "1/day", "/s", "2G/s", "5M/", "[1/s]"] {
        assert_eq!(messages(&with("rate: 200/s", &format!("rate: {rate}"))).len(), 1, "{rate}");
    }
    for share in ["0.5", "1", "101%", "-5%", "%", "half", "50 percent"] {
        assert_eq!(messages(&with("keep: 50%", &format!("keep: {share}"))).len(), 1, "{share}");
    }
}

#[test]
fn overrides_reach_phases_by_name_and_lone_keys_by_their_section() {
    let overrides = pairs(&[
        ("rows", "2000"),
        ("fleet.workers", "3"),
        ("phases.ask.query.k", "5"),
        ("phases.ask.load", "{closed: {clients: 2, pipeline: 1}}"),
        ("phases.load.timeout", "3s"),
        ("phases.create.name", "index"),
    ]);
    let plain = parse(SOUND, "case.yaml", &[]).unwrap().scenario;
    let mut wanted = plain;
    wanted.dataset.as_mut().unwrap().rows = Some(2000);
    wanted.fleet.workers = 3;
    "index".clone_into(&mut wanted.phases[0].name);
    let Step::Ingest { timeout_ms, .. } = &mut wanted.phases[1].step else { panic!("an ingest") };
    *timeout_ms = 3000;
    let Step::Query(query) = &mut wanted.phases[2].step else { panic!("a query") };
    query.ask.k = 5;
    query.load = Load::Closed { clients: 2, pipeline: 1 };
    assert_eq!(parse(SOUND, "case.yaml", &overrides).unwrap().scenario, wanted);
}

#[test]
fn anchors_repeat_a_load() {
    let text =
        with("load: {closed: {clients: 8, pipeline: 8}}", "load: &hard {closed: {clients: 8, pipeline: 8}}")
            .replace(
                "shrink: {keep: 50%, load: {closed: {clients: 8, pipeline: 8}}}",
                "shrink: {keep: 50%, load: *hard}",
            );
    assert!(text.contains("*hard"));
    assert_eq!(
        parse(&text, "case.yaml", &[]).unwrap().scenario,
        parse(SOUND, "case.yaml", &[]).unwrap().scenario
    );
}

#[test]
fn faults_found_later_point_at_the_value_or_at_the_nearest_key() {
    let checked = parse(SOUND, "case.yaml", &pairs(&[("phases.ask.k", "500")])).unwrap();
    let spanned = |path: &str| {
        let faults = checked.source.fault(path, "message", "label", "hint");
        let fault = faults.iter().next().unwrap().clone();
        fault.text()[fault.span()].to_owned()
    };
    assert_eq!(spanned("phases.ask.query.k"), "500");
    assert_eq!(spanned("phases.ask.query.ef_runtime"), "query");
    assert_eq!(spanned("phases.halve"), "halve");
    assert_eq!(spanned("dataset.base"), "base.u8bin");
    assert_eq!(spanned("dataset.rows"), "dataset");
    assert_eq!(spanned("fleet.workers"), "name");
    let faults = checked.source.fault(
        "phases.ask.query.k",
        "k is 500, but the truth holds 100 neighbours",
        "too deep",
        "k <= 100",
    );
    insta::assert_snapshot!(shown(&faults));
}

#[test]
fn a_byte_order_mark_and_carriage_returns_shift_nothing() {
    for text in [format!("\u{feff}{SOUND}"), SOUND.replace('\n', "\r\n")] {
        parse(&text, "case.yaml", &[]).unwrap();
        let faults = faults_of(&text.replace("k: 10", "k: ten"));
        let fault = faults.iter().next().unwrap();
        assert_eq!(&fault.text()[fault.span()], "ten");
    }
}

#[test]
fn a_mixed_phase_says_how_many_requests_there_are_and_what_its_queries_ask() {
    let mixed = |keys: &str| format!("{SOUND}  - name: serve\n    mixed: {{{keys}}}\n");
    let spec = |keys: &str| match &parse(&mixed(keys), "case.yaml", &[]).unwrap().scenario.phases[4].step {
        Step::Mixed(mixed) => mixed.clone(),
        other => panic!("{other:?}"),
    };
    let weights = "weights: {query: 70, ingest: 20, delete: 10}, k: 10";
    let closed = format!("{weights}, operations: 5000, load: {{closed: {{clients: 2, pipeline: 1}}}}");
    assert_eq!((spec(&closed).operations, spec(&closed).weights.all()), (5000, [70, 20, 10, 0]));
    let open =
        |arrival: &str| format!("{weights}, duration: 3s, load: {{open: {{{arrival}, connections: 4}}}}");
    assert_eq!(spec(&open("rate: 500/s")).operations, 1500);
    assert_eq!(spec(&open("arrival: {poisson: {rate: 500/s}}")).operations, 1500);
    assert_eq!(spec(&format!("{}, operations: 40", open("rate: 500/s"))).operations, 40);
    let filtered = spec(&format!("{closed}, filter: {{tag: 12.5%}}, returns: row"));
    assert_eq!((filtered.ask.filter, filtered.ask.returns), (Some(Filter::Tag(0.125)), Returns::Row));
    let numeric = spec(&format!("{closed}, filter: {{numeric: 25%}}, returns: nothing"));
    assert_eq!((numeric.ask.filter, numeric.ask.returns), (Some(Filter::Numeric(0.25)), Returns::Nothing));
    let faulty = [
        format!("{closed}, duration: 3s"),
        format!("{weights}, load: {{open: {{rate: 500/s, connections: 4}}}}"),
        open("arrival: {ramp: {from: 0/s, to: 10/s}}"),
        closed.replace("query: 70, ", ""),
        closed.replace(", ingest: 20, delete: 10", ""),
        closed.replace("delete", "remove"),
        format!("{closed}, filter: {{tag: 0%}}"),
        format!("{closed}, filter: {{tag: 10%, numeric: 10%}}"),
        format!("{closed}, filter: tag"),
        format!("{closed}, returns: vector"),
    ];
    let told: Vec<String> = faulty.iter().map(|keys| shown(&faults_of(&mixed(keys)))).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_shrink_may_say_rows_or_copies_and_later_shares_are_judged_by_the_plan() {
    let keep = |text: &str| {
        let text = format!(
            "{}  - name: less\n    churn: {{by: 90%, load: {{closed: {{clients: 1, pipeline: 1}}}}}}\n",
            with("keep: 50%", text)
        );
        match &parse(&text, "case.yaml", &[]).unwrap().scenario.phases[3].step {
            Step::Shrink(shrink) => shrink.keep,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(keep("keep_rows: 500"), Keep::Rows(500));
    assert_eq!(keep("keep_copies: 2"), Keep::Copies(2));
    let settle = SettleSpec { threshold: 0.02, window_ms: 5_000, max_wait_ms: 600_000 };
    assert_eq!(
        keep("keep_memory: 60MiB, settle: {threshold: 2%}"),
        Keep::Memory(MemoryTarget { bytes: 60 << 20, settle })
    );
    assert_eq!(messages(&with("keep: 50%", "keep_memory: much")), ["`keep_memory` takes a size, not `much`"]);
    assert_eq!(messages(&with("keep: 50%", "keep: 50%, settle: {}")).len(), 1);
    assert_eq!(messages(&with("keep: 50%", "keep: 50%, keep_rows: 5")).len(), 1);
    assert_eq!(
        messages(&with("keep: 50%", "keep_copies: 0")),
        ["`keep_copies` must be from 1 to 1000000, but is 0"]
    );
}

#[test]
fn every_example_of_the_document_on_workloads_is_accepted() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/workloads.md"));
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut phases = 0;
    for block in blocks {
        // A phase of its own name in front would be the second one of that name.
        let sound = SOUND.replace("name: load", "name: loaded");
        let whole = if block.starts_with("name:") { block.to_owned() } else { format!("{sound}{block}") };
        let checked = parse(&whole, "workloads.md", &[]);
        phases += checked.unwrap_or_else(|faults| panic!("{}", shown(&faults))).scenario.phases.len();
    }
    assert!(phases > 20, "{phases}");
}
