mod beside;

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use vst_common::count;
use vst_common::dataset::{DatasetManifest, Element, Format, ReadFaults};
use vst_common::ground_truth::GroundTruth;
use vst_common::phase::{SearchModule, Work};
use vst_common::scenario::DatasetSpec;
use vst_common::scenario::check::parse;
use vst_common::scenario::library::text_of;

use super::*;

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn quick(overrides: &[(&str, &str)]) -> Checked {
    let overrides: Vec<(String, String)> =
        overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    parse(text_of("quick").unwrap(), "quick.yaml", &overrides).unwrap()
}

fn search() -> SearchPlan {
    SearchPlan::ServerSide { module: SearchModule::ValkeySearch, index: "i".into() }
}

fn vectors(rows: u64, dims: u32) -> DatasetManifest {
    DatasetManifest {
        url: "file:///d.u8bin".into(),
        format: Format::U8bin,
        rows,
        dims,
        element: Element::U8,
        size_bytes: 0,
        etag: None,
        metric: None,
        objects: Vec::new(),
    }
}

/// A base of `rows`, with the first `depth` rows as the neighbours of each query.
fn data(rows: u64, queries: u32, depth: u32) -> DataFacts {
    let ids: Vec<u32> = (0..queries).flat_map(|_| 0..depth).collect();
    let distances = vec![0.0; ids.len()];
    let url = String::from("file:///d");
    DataFacts {
        urls: DatasetSpec { base: url.clone(), queries: url.clone(), ground_truth: url, rows: None },
        base: vectors(rows, 128),
        queries: vectors(u64::from(queries), 128),
        truth: GroundTruth { queries, k: depth, ids, distances },
        expansion: Expansion::None,
        separation: None,
        faults: ReadFaults::default(),
    }
}

fn messages(faults: &Faults) -> Vec<String> {
    faults.iter().map(|f| format!("{} @ {}", f.message(), &f.text()[f.span()])).collect()
}

fn refused(checked: &Checked, data: &DataFacts) -> String {
    messages(&check(checked, Some(data)).unwrap_err()).join("\n")
}

#[tokio::test]
async fn the_quick_scenario_is_planned_on_its_own_data() {
    let checked = quick(&[]);
    let data = check_data(&checked, &scenarios()).await.unwrap().unwrap();
    let queries = data.queries.rows;
    assert_eq!(
        data.to_string(),
        format!("10000 rows x 128 u8, {queries} queries, {} neighbours each", data.truth.k)
    );
    let plan = plan(&checked, Some(&data), Some(search())).unwrap();
    let names: Vec<&str> = plan.phases.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names[..3], [BASELINE, "create", "load"]);
    assert!(plan.phases.iter().zip(0u32..).all(|(p, i)| p.index == PhaseIndex(i)));
    let live: Vec<u64> = plan.phases.iter().map(|p| p.after.count()).collect();
    assert_eq!(live, [0, 0, 10_000, 10_000, 10_000, 10_000, 5_000, 5_000, 5_000, 5_000]);
    let PlannedStep::Load(query) = &plan.phases[8].step else { panic!("phase 8 is the second query") };
    let Work::Query { vectors, ask, .. } = &query.order.work else { panic!("it asks") };
    assert_eq!((vectors.live.count(), ask.k, query.cut), (5_000, 10, None));
    assert!(vectors.dataset.base.starts_with("file:///"), "workers get absolute URLs");
}

#[tokio::test]
async fn data_that_is_not_there_is_a_fault_at_the_key_that_names_it() {
    let checked = quick(&[("dataset.base", "nowhere.u8bin"), ("dataset.ground_truth", "no.bin")]);
    let error = check_data(&checked, &scenarios()).await.unwrap_err();
    let said = messages(error.faults().unwrap());
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("nowhere.u8bin") && said[1].contains("no.bin"));
}

#[test]
fn what_the_data_cannot_give_is_a_fault_with_its_place() {
    let good = data(10_000, 10, 100);
    assert!(check(&quick(&[("phases.delete_half.shrink.keep", "95%")]), Some(&good)).is_ok());
    let deep = quick(&[("phases.query_full.query.k", "101"), ("phases.query_full.query.ef_runtime", "200")]);
    assert!(refused(&deep, &good).contains("k is 101, the truth knows 100 neighbours of each query @ 101"));
    assert!(
        refused(&quick(&[]), &DataFacts { queries: vectors(10, 96), ..good.clone() })
            .contains("96 dimensions")
    );
    assert!(
        refused(&quick(&[]), &DataFacts { base: vectors(10_000, 64), ..good.clone() })
            .contains("index is to have")
    );
    assert!(
        refused(&quick(&[]), &DataFacts { queries: vectors(11, 128), ..good.clone() })
            .contains("there are 11")
    );
    assert!(refused(&quick(&[("dataset.rows", "10001")]), &good).contains("10001 rows are asked for"));
    let crowd = quick(&[("population.copies", "3"), ("phases.delete_half.shrink.keep", "0.05%")]);
    assert!(refused(&crowd, &good).contains("each of 3 copies has 5"));
}

#[test]
fn a_load_that_cannot_be_dealt_to_the_lanes_is_a_fault() {
    let good = data(10_000, 10, 100);
    let said = refused(&quick(&[("phases.load.ingest.load.closed.clients", "1")]), &good);
    assert!(said.contains("1 clients cannot be dealt to 2 lanes"), "{said}");
    let said = refused(&quick(&[("fleet.lanes", "9")]), &good);
    assert!(said.contains("16 connections cannot be dealt to 18 lanes"), "{said}");
}

#[test]
fn connections_that_cannot_be_had_are_a_fault_with_the_numbers_and_the_most_that_can() {
    let said = |checked: &Checked, refused: Result<(), Faults>| {
        let said = messages(&refused.unwrap_err()).join("\n");
        assert!(!said.is_empty() && checked.source.fault("name", "", "", "").len() == 1);
        said
    };
    // 16 connections of the query phases are 8 for each of 2 workers, to 3 primaries: 24 files, and 64 beside.
    let checked = quick(&[]);
    check_open_files(&checked, 3, 1024).unwrap();
    check_open_files(&checked, 3, 64 + 24).unwrap();
    let text = said(&checked, check_open_files(&checked, 3, 64 + 23));
    assert!(text.contains("24 connections") && text.contains("87 files"), "{text}");

    let greedy = quick(&[("phases.load.ingest.load.closed.clients", "1000000")]);
    let text = said(&greedy, check_open_files(&greedy, 3, 1024));
    assert!(text.contains("1000000 clients") && text.contains("1024"), "{text}");
    let server = |address: &str, most| ClientLimit { address: address.to_owned(), most, connected: 5 };
    let servers = [server("a:1", 10_000), server("b:2", 5_000)];
    let text = said(&greedy, check_clients(&greedy, &servers));
    assert!(text.contains("b:2 lets 5000 clients in") && text.contains("5 are connected"), "{text}");
    check_clients(&checked, &servers).unwrap();
    // What is named as the most is accepted, and one more is not.
    let most = |n: u64| quick(&[("phases.load.ingest.load.closed.clients", &n.to_string())]);
    let room = 5_000 - 5 - 16 - 2;
    check_clients(&most(room), &servers).unwrap();
    check_clients(&most(room + 1), &servers).unwrap_err();
    check_open_files(&most(640), 3, 64 + 960).unwrap();
    check_open_files(&most(641), 3, 64 + 960).unwrap_err();
}

#[test]
fn several_faults_are_told_at_once() {
    let checked = quick(&[("dataset.rows", "10001"), ("phases.query_half.query.k", "101")]);
    assert_eq!(check(&checked, Some(&data(10_000, 10, 100))).unwrap_err().len(), 2);
}

/// Past half masked, what the list still knows says little: the neighbours are computed over what is alive.
#[test]
fn the_truth_is_computed_where_most_queries_would_be_masked() {
    let sources = |keep: &str| {
        let checked = quick(&[("phases.delete_half.shrink.keep", keep)]);
        let plan = plan(&checked, Some(&data(10_000, 10, 20)), Some(search())).unwrap();
        let of = |p: &PlannedPhase| match &p.step {
            PlannedStep::Load(load) => match &load.order.work {
                Work::Query { vectors, .. } => Some(vectors.truth),
                _ => None,
            },
            _ => None,
        };
        plan.phases.iter().filter_map(of).collect::<Vec<_>>()
    };
    use vst_common::phase::TruthSource::{Computed, Listed};
    assert_eq!(sources("90%"), [Listed, Listed]);
    assert_eq!(sources("10%"), [Listed, Computed]);
}

/// `quick` with other phases behind its first two, which make the index and load every row.
fn then(phases: &str, overrides: &[(&str, &str)]) -> Checked {
    let (head, _) = text_of("quick").unwrap().split_once("phases:").unwrap();
    // Its parameters are used in the phases that go.
    let (before, parameters) = head.split_once("parameters:\n").unwrap();
    let own = parameters.lines().take_while(|line| line.starts_with("  ")).count();
    let rest = parameters.lines().skip(own).collect::<Vec<_>>().join("\n");
    let head = format!("{before}{rest}\n");
    let load = "{closed: {clients: 8, pipeline: 8}}";
    let text = format!(
        "{head}phases:\n  - {{name: create, create_index: {{}}}}\n  - {{name: load, ingest: {{load: {load}}}}}\n{}",
        phases.replace("LOAD", load)
    );
    let overrides: Vec<(String, String)> =
        overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    parse(&text, "case.yaml", &overrides).unwrap()
}

#[test]
fn a_mixed_phase_leaves_a_population_that_is_known_before_it_and_needs_room() {
    let phases = "
  - {name: room, shrink: {keep_rows: 6000, load: LOAD}}
  - {name: serve, mixed: {weights: {query: 70, ingest: 20, delete: 10}, operations: 10000, k: 10, load: LOAD}}
  - {name: less, shrink: {keep_rows: 500, load: LOAD}}
";
    let checked = then(phases, &[]);
    let good = data(10_000, 10, 100);
    let plan = plan(&checked, Some(&good), Some(search())).unwrap();
    let after: Vec<u64> = plan.phases.iter().map(|p| p.after.count()).collect();
    assert_eq!(after, [0, 0, 10_000, 6_000, 7_000, 500]);
    let PlannedStep::Load(load) = &plan.phases[4].step else { panic!("it loads") };
    assert_eq!(load.commands, ["del", "hset", "FT.SEARCH"]);
    let cut = load.cut.unwrap();
    assert_eq!((0..cut.count()).map(|i| cut.get(i).unwrap().len()).sum::<u64>(), 10_000);
    let many = then(phases, &[("phases.serve.mixed.operations", "30000")]);
    let said = refused(&many, &good);
    assert!(said.contains("6000 insert and 3000 delete; 6000 rows are alive and 4000 are not"), "{said}");
    let none = then(phases, &[("phases.room.shrink.keep_rows", "10000")]);
    let said = refused(&none, &good);
    assert!(said.contains("10000 rows are alive before this phase and 10000 after it"), "{said}");
    let deep = then(phases, &[("phases.serve.mixed.k", "101")]);
    assert!(refused(&deep, &good).contains("k is 101"));
}

#[test]
fn copies_go_whole_only_where_all_rows_live_and_what_is_left_can_be_shrunk_further() {
    let phases = "
  - {name: drop, shrink: {keep_copies: 2, load: LOAD}}
  - {name: half, shrink: {keep: 50%, load: LOAD}}
";
    let checked = then(phases, &[("population.copies", "3.5")]);
    let good = data(10_000, 10, 100);
    let plan = plan(&checked, Some(&good), Some(search())).unwrap();
    let after: Vec<(u32, u64)> = plan.phases.iter().map(|p| (p.after.copies, p.after.count())).collect();
    assert_eq!(after, [(4, 0), (4, 0), (4, 35_000), (2, 20_000), (2, 10_000)]);
    let PlannedStep::Load(load) = &plan.phases[3].step else { panic!("it loads") };
    assert!(matches!(load.order.work, Work::DropCopies { keep: 2, .. }));
    let cut = load.cut.unwrap();
    assert_eq!((0..cut.count()).map(|i| cut.get(i).unwrap().len()).sum::<u64>(), 15_000);
    let late = phases.replace("keep: 50%", "keep_copies: 1").replace("keep_copies: 2", "keep: 50%");
    let said = refused(&then(&late, &[("population.copies", "3")]), &good);
    assert!(said.contains("3 copies are there before this phase, with 15000 of 30000 rows alive"), "{said}");
    assert!(refused(&then(phases, &[("population.copies", "2")]), &good).contains("2 copies are there"));
}

/// How many rows a bound of memory leaves turns out in the run; each decision is planned as if the scenario had said it.
#[test]
fn what_weighing_decides_is_planned_behind_it_and_what_follows_knows() {
    let phases = "
  - {name: fit, shrink: {keep_memory: 10MiB, load: LOAD}}
  - {name: half, shrink: {keep: 30%, load: LOAD}}
  - {name: after, query: {k: 10, load: LOAD, duration: 1s}}
";
    let (checked, good) = (then(phases, &[]), data(10_000, 10, 100));
    let mut planned = plan(&checked, Some(&good), Some(search())).unwrap();
    let mut weighed = planned.phases.iter().find(|phase| phase.name == "fit").unwrap().index;
    let said = |plan: &RunPlan| -> Vec<(String, u64, u64)> {
        let behind = plan.phases.iter().skip_while(|phase| phase.name != "fit");
        behind.map(|p| (p.name.clone(), p.before.count(), p.after.count())).collect()
    };
    let told = |list: &[(&str, u64, u64)]| -> Vec<(String, u64, u64)> {
        list.iter().map(|(name, before, after)| ((*name).to_owned(), *before, *after)).collect()
    };
    assert_eq!(
        said(&planned),
        told(&[("fit", 10_000, 10_000), ("half", 10_000, 3_000), ("after", 3_000, 3_000)])
    );
    for keep in [7_000, 6_500] {
        let before = planned.clone();
        planned = decided(&planned, Some(&good), weighed, keep).unwrap();
        let position = usize::try_from(weighed.0).unwrap();
        for (own, known) in planned.phases.iter().zip(&before.phases).take(position + 1) {
            assert_eq!(format!("{own:?}"), format!("{known:?}"), "what lies behind stays");
        }
        let indexes: Vec<u32> = planned.phases.iter().map(|phase| phase.index.0).collect();
        assert_eq!(indexes, (0..u32::try_from(indexes.len()).unwrap()).collect::<Vec<_>>());
        weighed = planned.phases[position + 2].index;
        assert!(matches!(planned.phases[position + 2].step, PlannedStep::Weigh(_)));
        let PlannedStep::Load(load) = &planned.phases[position + 1].step else { panic!("it deletes") };
        let cut = load.cut.unwrap();
        let gone: u64 = (0..cut.count()).map(|i| cut.get(i).unwrap().len()).sum();
        assert_eq!(gone, before.phases[position].after.count() - keep);
    }
    assert_eq!(
        said(&planned),
        told(&[
            ("fit", 10_000, 10_000),
            ("fit_1", 10_000, 7_000),
            ("fit_1_weighed", 7_000, 7_000),
            ("fit_2", 7_000, 6_500),
            ("fit_2_weighed", 6_500, 6_500),
            ("half", 6_500, 3_000),
            ("after", 3_000, 3_000),
        ])
    );
    assert!(decided(&planned, Some(&good), PhaseIndex(0), 1).is_err());
    let none = "\n  - {name: all, shrink: {keep_rows: 0, load: LOAD}}\n  - {name: fit, shrink: {keep_memory: 10MiB, load: LOAD}}\n";
    assert!(refused(&then(none, &[]), &good).contains("0 rows are alive before this phase"));
}

#[test]
fn rows_carry_what_some_phase_filters_by_and_a_filter_that_the_list_cannot_answer_is_computed() {
    let phases = "
  - {name: wide, query: {k: 10, filter: {tag: 90%}, load: LOAD, duration: 1s}}
  - {name: narrow, query: {k: 10, filter: {numeric: 1%}, load: LOAD, duration: 1s}}
  - {name: all, query: {k: 10, returns: nothing, load: LOAD, duration: 1s}}
";
    let checked = then(phases, &[]);
    let good = data(10_000, 10, 100);
    let plan_of = |search| plan(&checked, Some(&good), Some(search));
    let planned = plan_of(search()).unwrap();
    assert_eq!(planned.attributes().fields(), ["tag", "number"]);
    let sources: Vec<_> = planned
        .phases
        .iter()
        .filter_map(|phase| match &phase.step {
            PlannedStep::Load(load) if load.order.work.ask().is_some() => {
                Some(load.order.work.vectors().unwrap().truth)
            }
            _ => None,
        })
        .collect();
    use vst_common::phase::TruthSource::{Computed, Listed};
    assert_eq!(sources, [Listed, Computed, Listed]);
    let few = then(phases, &[("phases.narrow.query.filter", "{numeric: 0.05%}")]);
    let said = refused(&few, &good);
    assert!(said.contains("the filter matches 5 of 10000 rows"), "{said}");
    // Keys without distances cannot be merged.
    let node = |n: &str| (vst_common::ids::NodeId::new(n), format!("i{{{n}}}"));
    let merged = |nodes: &[&str]| SearchPlan::ClientSide {
        module: SearchModule::RediSearch,
        indexes: nodes.iter().map(|n| node(n)).collect(),
    };
    assert!(plan_of(merged(&["a"])).is_ok());
    let said = messages(&plan_of(merged(&["a", "b"])).unwrap_err());
    assert!(said.len() == 1 && said[0].contains("`all` asks for keys alone"), "{said:?}");
    let rows = then(phases, &[("phases.all.query.returns", "row")]);
    let said = messages(&plan(&rows, Some(&good), Some(merged(&["a"]))).unwrap_err());
    assert!(said.len() == 1 && said[0].contains("whole rows"), "{said:?}");
    assert!(plan(&rows, Some(&good), Some(search())).is_ok());
}

#[tokio::test]
async fn copies_are_planned_with_their_proof_and_loaded_in_parts() {
    let checked = quick(&[("population.copies", "2.5")]);
    let data = check_data(&checked, &scenarios()).await.unwrap().unwrap();
    assert!(matches!(&data.expansion, Expansion::Translation(t) if t.places.len() == 2 && !t.rounds));
    let said = data.to_string();
    for word in ["2.5 copies", "NormMax", "margin"] {
        assert!(said.contains(word), "{said}");
    }
    let plan = plan(&checked, Some(&data), Some(search())).unwrap();
    let phase = |name: &str| plan.phases.iter().find(|phase| phase.name == name).unwrap();
    let left = |name: &str| phase(name).after.count();
    assert_eq!(
        (plan.copies, left("load"), left("query_full"), left("delete_half")),
        (3, 25_000, 25_000, 12_500)
    );
    let PlannedStep::Load(load) = &phase("load").step else { panic!("it loads") };
    let cut = load.cut.unwrap();
    assert_eq!((0..cut.count()).map(|i| cut.get(i).unwrap().len()).sum::<u64>(), 25_000);
}

proptest! {
    #[test]
    fn populations_follow_each_other_and_ranges_cover_the_work(
        rows in 1_000u64..2_000_000, keep in 1u32..100, workers in 1u32..40, lanes in 1u32..8, seed in any::<u32>()
    ) {
        let mut checked = quick(&[("phases.delete_half.shrink.keep", &format!("{keep}%"))]);
        checked.scenario.fleet.workers = workers;
        checked.scenario.fleet.lanes = lanes;
        checked.scenario.seed = u64::from(seed);
        // Planned without the check of the truth, which is about recall and not about work.
        let plan = phases::plan(&checked.scenario, Some(&data(rows, 10, 100)), Some(search()));
        for pair in plan.phases.windows(2) {
            prop_assert_eq!(pair[0].after, pair[1].before);
        }
        for phase in &plan.phases {
            let PlannedStep::Load(load) = &phase.step else { continue };
            let (before, after) = (phase.before.count(), phase.after.count());
            prop_assert_eq!(load.cut.is_some(), before != after);
            let Some(cut) = load.cut else { continue };
            let mut next = before.min(after);
            for i in 0..cut.count() {
                let range = cut.get(i).unwrap();
                prop_assert_eq!(range.start, next);
                prop_assert!(range.len() <= 10_000);
                next = range.end;
            }
            prop_assert_eq!(next, before.max(after));
        }
        // To the nearest whole cell; which of the two at a tie is the float's choice.
        let left = count::to_f64(plan.phases.last().unwrap().after.count());
        let exact = count::to_f64(rows) * f64::from(keep) / 100.0;
        prop_assert!((left - exact).abs() <= 0.5 + 1e-6, "{} of {} for {} %", left, rows, keep);
    }
}

#[test]
fn keys_are_written_once_before_the_first_phase_that_needs_them_and_cleanup_knows_them_all() {
    let text = "
name: k
purpose: x
keyspace: {keys: 70, group: 16}
phases:
  - {name: a, kv: {commands: [GET, LLEN], load: {closed: {clients: 4, pipeline: 2}}, operations: 10}}
  - {name: b, kv: {commands: [MGET, HGET, INCR], load: {open: {rate: 5/s, connections: 3}}, duration: 1s}}
  - {name: c, kv: {commands: [GET, \"FOO {key}\"], load: {closed: {clients: 4, pipeline: 2}}, duration: 1s}}
  - {name: d, kv: {commands: [XLEN], fill: none, load: {closed: {clients: 4, pipeline: 2}}, duration: 1s}}
";
    let checked = parse(text, "k.yaml", &[]).unwrap();
    let plan = plan(&checked, None, None).unwrap();
    let names: Vec<&str> = plan.phases.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, [BASELINE, "a_fill", "a", "b_fill", "b", "c", "d"]);
    assert!(plan.phases.iter().zip(0u32..).all(|(p, i)| p.index == PhaseIndex(i)));
    let fill = |name: &str| match plan.phases.iter().find(|p| p.name == name).map(|p| &p.step) {
        Some(PlannedStep::Load(load)) => (load.order.operations, load.commands.clone()),
        _ => panic!("{name}"),
    };
    assert_eq!(fill("a_fill"), (Some(140), vec!["rpush".into(), "set".into()]));
    // Strings are there; hashes and counters are not.
    assert_eq!(fill("b_fill"), (Some(140), vec!["hset".into(), "set".into()]));
    assert_eq!(fill("b"), (None, vec!["hget".into(), "incr".into(), "mget".into()]));
    let spaces: Vec<&str> = spaces(&checked.scenario).into_iter().collect();
    assert_eq!(spaces, ["counter", "hash", "key", "list", "stream", "string"]);
}

#[test]
fn a_phase_may_not_have_the_name_of_one_that_is_put_before_another() {
    let text = "
name: k
purpose: x
phases:
  - {name: a, kv: {commands: [GET], load: {closed: {clients: 4, pipeline: 2}}, operations: 10}}
  - {name: a_fill, kv: {commands: [GET], load: {closed: {clients: 4, pipeline: 2}}, operations: 10}}
";
    let checked = parse(text, "k.yaml", &[]).unwrap();
    let faults = check(&checked, None).unwrap_err();
    assert!(messages(&faults)[0].contains("`a_fill`"), "{:?}", messages(&faults));
}

/// Law: what a header of the library promises is what the tool itself estimates.
#[tokio::test]
async fn headers_of_the_library_say_what_the_estimate_says() {
    let mut wrong = Vec::new();
    for (name, text) in vst_common::scenario::library::LIBRARY {
        let checked = parse(text, &format!("{name}.yaml"), &[]).unwrap();
        let data = read_data(&checked, &scenarios()).await.unwrap();
        check(&checked, data.as_ref()).unwrap_or_else(|faults| panic!("{name}: {faults}"));
        let estimate = estimate(&checked, data.as_ref(), 3);
        for line in [format!("# Time: {}.", estimate.time()), format!("# Memory: {}.", estimate.memory())] {
            if !text.lines().any(|found| found == line) {
                wrong.push(format!("{name}: {line}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}
