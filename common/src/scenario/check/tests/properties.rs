//! Laws over arbitrary scenarios and arbitrary damage to their text.

mod kv;

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::super::{
    Algorithm, Arrival, Ask, ChurnSpec, CopyOrder, DatasetSpec, ExpansionMethod, FleetSpec, IndexSpec, Keep,
    KeyspaceSpec, Load, Metric, MixedSpec, PhaseSpec, PopulationSpec, QuerySpec, Returns, SamplingSpec,
    Scenario, SettleSpec, ShrinkSpec, Step, UpdateSpec,
};
use super::super::fault::{Complaint, Place, Sources};
use super::super::parse;
use super::{SOUND, shown};
use crate::attributes::Filter;
use crate::mix::MixWeights;
use crate::scenario::library::text_of;
use crate::scenario::{ConnectionSpec, Protocol, ReadFrom, RowKind};

fn words() -> impl Strategy<Value = String> {
    "\\PC{0,20}".prop_filter("text must not be blank", |text| !text.trim().is_empty())
}

fn rate() -> impl Strategy<Value = f64> {
    prop_oneof![(1..1_000_000u32).prop_map(f64::from), (1..1_000_000u32).prop_map(|n| f64::from(n) / 1024.0)]
}

fn maybe_rate() -> impl Strategy<Value = f64> {
    prop_oneof![3 => rate(), 1 => Just(0.0)]
}

fn ms() -> impl Strategy<Value = u64> {
    prop_oneof![1..=100_000u64, (1..=720u64).prop_map(|h| h * 3_600_000)]
}

fn arrival() -> impl Strategy<Value = Arrival> {
    prop_oneof![
        rate().prop_map(|rate| Arrival::Constant { rate }),
        rate().prop_map(|rate| Arrival::Poisson { rate }),
        (maybe_rate(), rate()).prop_map(|(from, to)| Arrival::Ramp { from, to }),
        (vec((maybe_rate(), ms()), 0..3), (rate(), ms())).prop_map(|(mut steps, last)| {
            steps.push(last);
            Arrival::Steps { steps }
        }),
        (maybe_rate(), rate(), ms(), ms()).prop_map(|(base, peak, a, b)| Arrival::Burst {
            base,
            peak,
            length_ms: a.min(b),
            period_ms: a.max(b)
        }),
    ]
}

fn closed() -> impl Strategy<Value = Load> {
    (1..=1_000_000u32, 1..=10_000u32).prop_map(|(clients, pipeline)| Load::Closed { clients, pipeline })
}

fn load() -> impl Strategy<Value = Load> {
    prop_oneof![
        closed(),
        (arrival(), 1..=1_000_000u32).prop_map(|(arrival, connections)| Load::Open { arrival, connections })
    ]
}

/// The load of a phase that its rows end: no ramp, which would have to know its length.
fn rows_load() -> impl Strategy<Value = Load> {
    load().prop_filter("no ramp", |load| !matches!(load, Load::Open { arrival: Arrival::Ramp { .. }, .. }))
}

fn query() -> impl Strategy<Value = Step> {
    let ef = option::of(1..=1_000_000u32);
    let warm_up = prop_oneof![Just(0), ms()];
    (ask(ef), load(), warm_up, ms(), 1..=3_600_000u64).prop_map(
        |(ask, load, warm_up_ms, duration_ms, timeout_ms)| {
            Step::Query(QuerySpec { ask, load, warm_up_ms, duration_ms, timeout_ms })
        },
    )
}

fn ask(ef: impl Strategy<Value = Option<u32>>) -> impl Strategy<Value = Ask> {
    // Eighths are exact, so multiplying by 100 and dividing again changes no bit of them.
    let share = select(vec![1.0, 0.5, 0.125, 0.0625]);
    let filter = (share, any::<bool>()).prop_map(|(share, tag)| match tag {
        true => Filter::Tag(share),
        false => Filter::Numeric(share),
    });
    let returns = select(vec![Returns::Nothing, Returns::Distance, Returns::Row]);
    (1..=1_000_000u32, ef, option::of(filter), returns).prop_map(|(k, ef_runtime, filter, returns)| Ask {
        k,
        ef_runtime,
        filter,
        returns,
    })
}

fn yaml_ask(ask: &Ask) -> String {
    let filter = match ask.filter {
        None => String::new(),
        Some(Filter::Tag(share)) => format!(", filter: {{tag: {}%}}", share * 100.0),
        Some(Filter::Numeric(share)) => format!(", filter: {{numeric: {}%}}", share * 100.0),
    };
    let returns = match ask.returns {
        Returns::Nothing => ", returns: nothing",
        Returns::Distance => "",
        Returns::Row => ", returns: row",
    };
    let ef = ask.ef_runtime.map_or_else(String::new, |ef| format!(", ef_runtime: {ef}"));
    format!("k: {}{ef}{filter}{returns}", ask.k)
}

fn mixed() -> impl Strategy<Value = Step> {
    let weights = (1..=1000u32, 1..=1000u32, 0..=1000u32, 0..=1000u32)
        .prop_map(|(query, ingest, delete, update)| MixWeights { query, ingest, delete, update });
    (weights, 1..=1_000_000_000u64, ask(option::of(1..=1_000_000u32)), rows_load(), 1..=3_600_000u64)
        .prop_map(|(weights, operations, ask, load, timeout_ms)| {
            Step::Mixed(MixedSpec { weights, operations, ask, load, timeout_ms })
        })
}

fn settle() -> impl Strategy<Value = Step> {
    (1..=100u32, ms(), ms()).prop_map(|(percent, a, b)| {
        let threshold = f64::from(percent) / 100.0;
        Step::Settle(SettleSpec { threshold, window_ms: a.min(b), max_wait_ms: a.max(b) })
    })
}

/// Steps in an order that can be carried out: whatever shrinks are drawn become ever smaller shares, and churns exchange
/// as much as they can.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ingest = (rows_load(), 1..=3_600_000u64, any::<bool>())
        .prop_map(|(load, timeout_ms, reuse)| Step::Ingest { load, timeout_ms, reuse });
    let later = prop_oneof![
        query(),
        settle(),
        mixed(),
        Just(Step::Checkpoint),
        kv::kv(),
        (rows_load(), 1..=3_600_000u64).prop_map(|(load, timeout_ms)| Step::Shrink(ShrinkSpec {
            keep: Keep::Share(0.0),
            load,
            timeout_ms
        })),
        (select(vec![1.0, 0.25, 0.0625]), rows_load(), 1..=3_600_000u64)
            .prop_map(|(share, load, timeout_ms)| Step::Update(UpdateSpec { share, load, timeout_ms })),
        (rows_load(), 1..=3_600_000u64).prop_map(|(load, timeout_ms)| Step::Churn(ChurnSpec {
            by: 0.0,
            load,
            timeout_ms
        })),
    ];
    (ingest, vec(later, 0..8)).prop_map(|(ingest, later)| {
        let (mut percent, mut left) = (87.5, 1.0);
        let mut steps = vec![Step::CreateIndex, ingest];
        for mut step in later {
            if let Step::Shrink(shrink) = &mut step {
                left = percent / 100.0;
                shrink.keep = Keep::Share(left);
                percent /= 2.0;
            }
            if let Step::Churn(churn) = &mut step {
                churn.by = f64::min(left, 1.0 - left);
                if churn.by == 0.0 {
                    continue;
                }
            }
            steps.push(step);
        }
        steps
    })
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let dataset = (words(), words(), words(), option::of(1..=999_999_999_999u64))
        .prop_map(|(base, queries, ground_truth, rows)| DatasetSpec { base, queries, ground_truth, rows });
    let metric = select(vec![Metric::L2, Metric::Cosine, Metric::InnerProduct]);
    let index = (metric, option::of(1..=65_536u32), 1..=65_536u32, 1..=1_000_000u32).prop_map(
        |(metric, dims, m, ef_construction)| IndexSpec {
            // Documents cannot be taken over from an earlier run, which some of the steps do.
            on: RowKind::Hash,
            algorithm: Algorithm::Hnsw,
            metric,
            dims,
            m,
            ef_construction,
        },
    );
    let prefix = "\\PC{1,8}".prop_filter("a prefix has rules", |prefix| {
        !prefix.contains(['{', '}']) && !prefix.starts_with('_') && !prefix.trim().is_empty()
    });
    (
        "[a-z0-9_-]{1,64}",
        words(),
        any::<u64>(),
        dataset,
        index,
        prefix,
        (1..=10_000u32, 1..=1024u32),
        steps(),
        10..=3_600_000u64,
    )
        .prop_map(
            |(name, purpose, seed, dataset, index, prefix, (workers, lanes), steps, interval_ms)| Scenario {
                name,
                purpose,
                family: String::from("own"),
                parameters: Default::default(),
                seed,
                dataset: Some(dataset),
                index: Some(index),
                keyspace: KeyspaceSpec { keys: 5000 + seed % 7, elements: 5, group: 3 },
                population: PopulationSpec {
                    prefix,
                    copies: 1.0,
                    expansion: ExpansionMethod::Auto,
                    order: CopyOrder::Interleaved,
                },
                fleet: FleetSpec { workers, lanes, lease_ms: 10_000 },
                connection: ConnectionSpec {
                    protocol: if seed % 2 == 0 { Protocol::Resp2 } else { Protocol::Resp3 },
                    read_from: match seed % 3 {
                        0 => ReadFrom::Primary,
                        1 => ReadFrom::PreferReplica,
                        _ => ReadFrom::RoundRobin,
                    },
                },
                sampling: SamplingSpec { interval_ms, size_classes_ms: interval_ms.max(100) },
                criteria: Vec::new(),
                hooks: Default::default(),
                phases: steps
                    .into_iter()
                    .enumerate()
                    .map(|(n, step)| PhaseSpec {
                        name: format!("{n}_{}", step.word()),
                        step,
                        criteria: Vec::new(),
                        beside: Vec::new(),
                    })
                    .collect(),
            },
        )
}

fn quoted(text: &str) -> String {
    // What looks like a parameter is none.
    serde_json::to_string(&text.replace("${", "$${")).unwrap()
}

fn yaml_load(load: &Load) -> String {
    match load {
        Load::Closed { clients, pipeline } => {
            format!("{{closed: {{clients: {clients}, pipeline: {pipeline}}}}}")
        }
        Load::Open { arrival, connections } => {
            let arrival = match arrival {
                Arrival::Constant { rate } => format!("rate: {rate}/s"),
                Arrival::Poisson { rate } => format!("arrival: {{poisson: {{rate: {rate}/s}}}}"),
                Arrival::Ramp { from, to } => format!("arrival: {{ramp: {{from: {from}/s, to: {to}/s}}}}"),
                Arrival::Steps { steps } => {
                    let steps: Vec<String> = steps
                        .iter()
                        .map(|(rate, ms)| format!("{{rate: {rate}/s, length: {ms}ms}}"))
                        .collect();
                    format!("arrival: {{steps: [{}]}}", steps.join(", "))
                }
                Arrival::Burst { base, peak, length_ms, period_ms } => format!(
                    "arrival: {{burst: {{base: {base}/s, peak: {peak}/s, length: {length_ms}ms, period: {period_ms}ms}}}}"
                ),
            };
            format!("{{open: {{{arrival}, connections: {connections}}}}}")
        }
    }
}

fn yaml_step(step: &Step) -> String {
    match step {
        Step::CreateIndex | Step::DropIndex => "{}".to_owned(),
        Step::RebuildIndex(_) | Step::Grow(_) | Step::Operate(_) => unreachable!("not drawn"),
        Step::Checkpoint => String::new(),
        Step::Ingest { load, timeout_ms, reuse } => {
            let prefill = if *reuse { ", prefill: reuse" } else { "" };
            format!("{{load: {}, timeout: {timeout_ms}ms{prefill}}}", yaml_load(load))
        }
        Step::Update(update) => format!(
            "{{share: {}%, load: {}, timeout: {}ms}}",
            update.share * 100.0,
            yaml_load(&update.load),
            update.timeout_ms
        ),
        Step::Churn(churn) => format!(
            "{{by: {}%, load: {}, timeout: {}ms}}",
            churn.by * 100.0,
            yaml_load(&churn.load),
            churn.timeout_ms
        ),
        Step::Settle(settle) => format!(
            "{{threshold: {}%, window: {}ms, max_wait: {}ms}}",
            (settle.threshold * 100.0).round(),
            settle.window_ms,
            settle.max_wait_ms
        ),
        Step::Query(query) => format!(
            "{{{}, load: {}, warm_up: {}ms, duration: {}ms, timeout: {}ms}}",
            yaml_ask(&query.ask),
            yaml_load(&query.load),
            query.warm_up_ms,
            query.duration_ms,
            query.timeout_ms
        ),
        // Halves of 87.5 are exact, so multiplying by 100 and dividing again changes no bit of them.
        Step::Shrink(shrink) => format!(
            "{{{}, load: {}, timeout: {}ms}}",
            match shrink.keep {
                Keep::Share(share) => format!("keep: {}%", share * 100.0),
                Keep::Rows(rows) => format!("keep_rows: {rows}"),
                Keep::Copies(copies) => format!("keep_copies: {copies}"),
                Keep::Memory(target) => format!("keep_memory: {}B", target.bytes),
            },
            yaml_load(&shrink.load),
            shrink.timeout_ms
        ),
        Step::Mixed(mixed) => {
            let [query, ingest, delete, update] = mixed.weights.all();
            format!(
                "{{weights: {{query: {query}, ingest: {ingest}, delete: {delete}, update: {update}}}, operations: {}, {}, \
                 load: {}, timeout: {}ms}}",
                mixed.operations,
                yaml_ask(&mixed.ask),
                yaml_load(&mixed.load),
                mixed.timeout_ms
            )
        }
        Step::Kv(kv) => kv::yaml_kv(kv),
    }
}

/// The scenario as a person could have written it; `checkpoint` without a value stands for one without keys.
fn yaml(scenario: &Scenario) -> String {
    let Scenario {
        name,
        purpose,
        seed,
        dataset,
        index,
        population,
        keyspace,
        fleet,
        connection,
        sampling,
        phases,
        ..
    } = scenario;
    let (dataset, index) = (dataset.as_ref().unwrap(), index.as_ref().unwrap());
    let metric = match index.metric {
        Metric::L2 => "l2",
        Metric::Cosine => "cosine",
        Metric::InnerProduct => "inner_product",
    };
    let mut text = format!(
        "name: {}\npurpose: {}\nseed: {seed}\ndataset:\n  base: {}\n  queries: {}\n  ground_truth: {}\n",
        quoted(name),
        quoted(purpose),
        quoted(&dataset.base),
        quoted(&dataset.queries),
        quoted(&dataset.ground_truth)
    );
    if let Some(rows) = dataset.rows {
        writeln!(text, "  rows: {rows}").unwrap();
    }
    write!(text, "index: {{algorithm: hnsw, metric: {metric}, m: {}, ", index.m).unwrap();
    if let Some(dims) = index.dims {
        write!(text, "dims: {dims}, ").unwrap();
    }
    writeln!(text, "ef_construction: {}}}", index.ef_construction).unwrap();
    writeln!(text, "population: {{prefix: {}}}", quoted(&population.prefix)).unwrap();
    let KeyspaceSpec { keys, elements, group } = keyspace;
    writeln!(text, "keyspace: {{keys: {keys}, elements: {elements}, group: {group}}}").unwrap();
    writeln!(text, "fleet: {{workers: {}, lanes: {}}}", fleet.workers, fleet.lanes).unwrap();
    let protocol = if connection.protocol == Protocol::Resp2 { "resp2" } else { "resp3" };
    let read_from = match connection.read_from {
        ReadFrom::Primary => "primary",
        ReadFrom::PreferReplica => "prefer_replica",
        ReadFrom::RoundRobin => "round_robin",
    };
    writeln!(text, "connection: {{protocol: {protocol}, read_from: {read_from}}}").unwrap();
    let SamplingSpec { interval_ms, size_classes_ms } = sampling;
    writeln!(text, "sampling: {{interval: {interval_ms}ms, size_classes: {size_classes_ms}ms}}\nphases:")
        .unwrap();
    for phase in phases {
        writeln!(
            text,
            "  - name: {}\n    {}: {}",
            quoted(&phase.name),
            phase.step.word(),
            yaml_step(&phase.step)
        )
        .unwrap();
    }
    text
}

/// Damage to a text: the characters from a place on, how many go, and what comes instead.
fn damage() -> impl Strategy<Value = Vec<(usize, usize, String)>> {
    let bits = select(vec![
        "é",
        "日本",
        "\u{1f980}",
        "\n",
        "\t",
        " ",
        ":",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "#",
        "&a ",
        "*a",
        "!!int ",
        "|",
        ">",
        "%",
        "~",
        "1",
        "-1",
        "<<",
        "? ",
        "\r\n",
        "\0",
        "\u{feff}",
        "\u{2028}",
        "---\n",
        "...\n",
        "10/s",
        "é: ",
    ])
    .prop_map(str::to_owned);
    vec((any::<prop::sample::Index>(), 0..12usize, prop_oneof![4 => bits, 1 => "\\PC{0,6}"]), 1..4)
        .prop_map(|cuts| cuts.into_iter().map(|(at, gone, new)| (at.index(4096), gone, new)).collect())
}

fn damaged(text: &str, damage: &[(usize, usize, String)]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for (at, gone, new) in damage {
        let start = at % (characters.len() + 1);
        let end = (start + gone).min(characters.len());
        characters.splice(start..end, new.chars());
    }
    characters.into_iter().collect()
}

/// Every refusal has faults whose spans can be shown.
fn refused_properly(text: &str, overrides: &[(String, String)]) -> Result<(), TestCaseError> {
    if let Err(faults) = parse(text, "damaged.yaml", overrides) {
        prop_assert!(faults.len() > 0);
        for fault in faults.iter() {
            prop_assert!(
                fault.text().get(fault.span()).is_some(),
                "{:?} of {:?}",
                fault.span(),
                fault.text()
            );
            prop_assert!(!fault.text()[fault.span()].contains('\n'));
            prop_assert!(
                !fault.message().is_empty() && !fault.label().is_empty() && !fault.hint().is_empty()
            );
        }
        prop_assert!(!shown(&faults).contains("Failed to read"), "{}", shown(&faults));
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(scenario in scenario()) {
        let text = yaml(&scenario);
        match parse(&text, "written.yaml", &[]) {
            Ok(checked) => prop_assert_eq!(checked.scenario, scenario),
            Err(faults) => prop_assert!(false, "{}\n{}", text, shown(&faults)),
        }
    }

    #[test]
    fn damage_never_panics_and_its_faults_can_be_shown(damage in damage(), quick in any::<bool>()) {
        let sound = if quick { text_of("quick").unwrap() } else { SOUND };
        refused_properly(&damaged(sound, &damage), &[])?;
    }

    #[test]
    fn any_text_and_any_override_can_be_refused(
        text in "\\PC*",
        path in prop_oneof!["\\PC{0,12}", Just("phases.ask.load".to_owned()), Just("dataset.é.x".to_owned())],
        value in "\\PC*",
    ) {
        refused_properly(&text, &[])?;
        refused_properly(SOUND, &[(path, value)])?;
    }

    #[test]
    fn a_place_out_of_bounds_or_within_a_character_becomes_one_that_can_be_shown(
        text in "\\PC{0,9}(\r?\n)?\\PC{0,9}",
        start in 0..40usize,
        end in 0..40usize,
    ) {
        let sources = Sources::of_file("any.yaml", &text);
        let fault = sources.fault(Place { source: 0, start, end }, Complaint::new("m", "l", "h"));
        prop_assert!(text.get(fault.span()).is_some_and(|part| !part.contains('\n')));
        prop_assert!(fault.span().start <= start && fault.span().end <= end.max(start));
    }

    #[test]
    fn an_override_is_the_same_as_the_file_written_so(seed in any::<u64>(), rows in 1..1_000_000u64, k in 1..1000u32) {
        let overrides = [
            ("seed".to_owned(), seed.to_string()),
            ("dataset.rows".to_owned(), rows.to_string()),
            ("phases.ask.k".to_owned(), k.to_string()),
        ];
        let written = SOUND
            .replace("ground_truth: truth.bin", &format!("ground_truth: truth.bin, rows: {rows}"))
            .replace("k: 10", &format!("k: {k}"))
            + &format!("seed: {seed}\n");
        let overridden = parse(SOUND, "a.yaml", &overrides).unwrap().scenario;
        prop_assert_eq!(overridden, parse(&written, "a.yaml", &[]).unwrap().scenario);
    }
}
