//! Parameters: what they put in place, and what a person sees of a wrong one.

use proptest::prelude::*;

use super::*;

const SIZED: &str = "\
name: sized
purpose: the base of the tests
parameters:
  rows: {default: 10000, min: 100, max: 20000, meaning: rows of the base}
  rate: {default: 200/s, max: 1k/s, meaning: queries per second}
  base: {default: base, meaning: name of the base}
  metric: {default: l2, one_of: [l2, cosine], meaning: the metric}
dataset:
  base: ${base}.u8bin
  queries: $${base}.u8bin
  ground_truth: truth.bin
  rows: ${rows}
index: {algorithm: hnsw, metric: \"${metric}\"}
phases:
  - name: create
    create_index: {}
  - name: load
    ingest: {load: {closed: {clients: 8, pipeline: 8}}}
  - name: ask
    query: {k: 10, load: {open: {rate: \"${rate}\", connections: 16}}, duration: 10s}
";

fn refused(text: &str, overrides: &[(&str, &str)]) -> String {
    shown(&parse(text, "sized.yaml", &pairs(overrides)).expect_err("something is wrong"))
}

#[test]
fn values_take_their_places_with_their_types_and_a_doubled_sign_stands_for_itself() {
    let scenario =
        parse(SIZED, "sized.yaml", &pairs(&[("rows", "2000"), ("rate", "50/s")])).unwrap().scenario;
    let dataset = scenario.dataset.unwrap();
    assert_eq!((dataset.base.as_str(), dataset.queries.as_str()), ("base.u8bin", "${base}.u8bin"));
    assert_eq!(dataset.rows, Some(2000));
    let Step::Query(query) = &scenario.phases[2].step else { panic!("a query") };
    let Load::Open { arrival, .. } = &query.load else { panic!("an open load") };
    assert_eq!(*arrival, Arrival::Constant { rate: 50.0 });
    let values: Vec<&str> = scenario.parameters.values().map(String::as_str).collect();
    assert_eq!(values, ["base", "l2", "50/s", "2000"]);
}

#[test]
fn a_path_still_goes_over_a_parameter() {
    let sets = [("rows", "2000"), ("dataset.rows", "300")];
    assert_eq!(parse(SIZED, "sized.yaml", &pairs(&sets)).unwrap().scenario.dataset.unwrap().rows, Some(300));
}

#[test]
fn wrong_values_of_parameters() {
    insta::assert_snapshot!(refused(
        SIZED,
        &[("rows", "99"), ("rate", "500"), ("metric", "l3"), ("colour", "red")]
    ));
}

#[test]
fn wrong_declarations_of_parameters() {
    let text = SIZED
        .replace("rows: {default: 10000, min: 100,", "rows: {default: 50, min: 100,")
        .replace("max: 1k/s", "max: 1000")
        .replace("base: {default: base, meaning", "base: {default: base, least: 1, meaning")
        .replace(
            "metric: {default: l2,",
            "seed: {default: 1, meaning: x}\n  spare: {default: 1, meaning: x}\n  metric: {default: l4,",
        )
        .replace("rows: ${rows}", "rows: ${row}");
    insta::assert_snapshot!(refused(&text, &[]));
}

#[test]
fn criteria_that_cannot_be_judged() {
    let text = SIZED
        .replace(
            "duration: 10s}\n",
            "duration: 10s}\n    criteria: [p99 < 1ms, p99.9 <= 1ms, memory <= 1GiB, recall >= 2]\n",
        )
        .replace("phases:", "criteria: [bytes_per_vector <= 2000B]\nphases:");
    insta::assert_snapshot!(refused(&text, &[]));
}

proptest! {
    /// Law: a scenario with a parameter is the scenario with the value written in its place.
    #[test]
    fn a_parameter_is_the_same_as_its_value_written_in_place(rows in 100..20_000u64, rate in 1..1000u32) {
        let written = SIZED.replace("rows: ${rows}", &format!("rows: {rows}")).replace("\"${rate}\"", &format!("{rate}/s"));
        let written = written.replace("  rows: {default: 10000, min: 100, max: 20000, meaning: rows of the base}\n", "")
            .replace("  rate: {default: 200/s, max: 1k/s, meaning: queries per second}\n", "");
        let set = parse(SIZED, "a.yaml", &pairs(&[("rows", &rows.to_string()), ("rate", &format!("{rate}/s"))])).unwrap().scenario;
        let mut plain = parse(&written, "a.yaml", &[]).unwrap().scenario;
        plain.parameters = set.parameters.clone();
        prop_assert_eq!(set, plain);
    }

    /// Law: whatever a text holds between dollar and braces, it is read or refused, never a panic.
    #[test]
    fn any_reference_can_be_read_or_refused(text in "[${}a-z]{0,12}") {
        let sized = SIZED.replace("${base}.u8bin", &serde_json::to_string(&text).unwrap());
        if let Err(faults) = parse(&sized, "a.yaml", &[]) {
            prop_assert!(faults.iter().all(|fault| fault.text().get(fault.span()).is_some()));
        }
    }
}
