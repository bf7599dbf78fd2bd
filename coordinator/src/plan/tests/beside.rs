//! What runs beside a phase: where it stands in the plan, and what its queries may expect.

use vst_common::phase::During;

use super::*;

const ASK: &str = "query: {k: 10, load: {open: {rate: 100/s, connections: 8}}}";

/// The law: what stays lives before and after, and what lives before or after may be found meanwhile.
fn holds(during: During, before: LiveSet, after: LiveSet) {
    for row in 0..before.rows {
        for copy in 0..before.copies {
            let [was, is] = [before, after].map(|live| live.is_live(copy, row));
            let [stays, may] = [during.stable, during.ever].map(|live| live.is_live(copy, row));
            assert!(!stays || (was && is), "({copy}, {row}) goes or comes, and is said to stay");
            assert!(may || !(was || is), "({copy}, {row}) lives, and is said never to");
            assert!(stays || !(was && is), "({copy}, {row}) stays, and is said to move");
        }
    }
}

#[test]
fn queries_beside_a_phase_are_judged_by_the_rows_that_stay() {
    let changes = [
        ("shrink: {keep: 30%, load: LOAD}", 0.5, 0.3),
        ("grow: {to: 80%, load: LOAD}", 0.5, 0.8),
        ("churn: {by: 20%, load: LOAD}", 0.5, 0.5),
        ("update: {share: 50%, load: LOAD}", 0.5, 0.5),
        ("ingest: {prefill: reuse, load: LOAD}", 0.5, 1.0),
    ];
    for (change, from, to) in changes {
        let text = format!(
            "  - {{name: half, shrink: {{keep: 50%, load: LOAD}}}}\n  - name: change\n    {change}\n    beside:\n      - {{name: readers, {ASK}}}\n"
        );
        let checked = then(&text, &[("dataset.rows", "400")]);
        let plan = plan(&checked, Some(&data(400, 10, 100)), Some(search())).unwrap();
        let [main, readers] =
            ["change", "readers"].map(|name| plan.phases.iter().find(|p| p.name == name).unwrap());
        assert_eq!(readers.beside, Some((main.index, 0)));
        assert_eq!(readers.index.0, main.index.0 + 1);
        assert_eq!(
            (main.before.keep(from).count(), main.after.count()),
            (main.before.count(), main.before.keep(to).count())
        );
        let PlannedStep::Load(load) = &readers.step else { panic!("it asks") };
        assert_eq!((load.order.beside, load.order.duration_ns), (Some(main.index), 0));
        let Work::Query { during, vectors, .. } = &load.order.work else { panic!("it asks") };
        let during = during.unwrap_or(During { stable: vectors.live, ever: vectors.live });
        holds(during, main.before, main.after);
    }
}

#[test]
fn keys_that_are_read_beside_a_phase_are_written_before_it_and_deeds_have_their_time() {
    let text = "  - name: ask
    query: {k: 10, load: LOAD, duration: 10s}
    beside:
      - {name: late, after: 3s, rebuild_index: {m: 8}}
      - {name: keys, after: 1500ms, kv: {commands: [GET], load: {open: {rate: 10/s, connections: 8}}}}
  - {name: last, query: {k: 10, load: LOAD, duration: 1s}}
";
    let checked = then(text, &[]);
    let plan = plan(&checked, Some(&data(10_000, 10, 100)), Some(search())).unwrap();
    let names: Vec<(&str, Option<u64>)> =
        plan.phases.iter().map(|p| (p.name.as_str(), p.beside.map(|(_, after_ns)| after_ns))).collect();
    let ask = names.iter().position(|(name, _)| *name == "ask").unwrap();
    let (late, keys) = (("late", Some(3_000_000_000)), ("keys", Some(1_500_000_000)));
    assert_eq!(names[ask - 1..], [("keys_fill", None), ("ask", None), late, keys, ("last", None)]);
    let beside: Vec<&str> = plan.beside(plan.phases[ask].index).map(|p| p.name.as_str()).collect();
    assert_eq!(beside, ["late", "keys"]);
}

#[test]
fn queries_beside_the_first_ingest_are_asked_though_nothing_stays_and_k_has_its_bound() {
    let (head, _) = text_of("quick").unwrap().split_once("phases:").unwrap();
    let phases = |k: u32| {
        let text = format!(
            "{head}phases:
  - {{name: create, create_index: {{}}}}
  - name: load
    ingest: {{load: {{closed: {{clients: 8, pipeline: 8}}}}}}
    beside:
      - {{name: early, query: {{k: {k}, load: {{open: {{rate: \"${{rate}}\", connections: 8}}}}, duration: \"${{duration}}\"}}}}
"
        );
        parse(&text, "own.yaml", &[]).unwrap()
    };
    check(&phases(10), Some(&data(10_000, 10, 100))).unwrap();
    let told = refused(&phases(101), &data(10_000, 10, 100));
    assert!(told.contains("k is 101, the truth knows 100") && told.ends_with("@ 101"), "{told}");
}
