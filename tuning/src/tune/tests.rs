use proptest::prelude::*;

use super::*;
use crate::double::{Double, Noise};
use crate::limit::{self, Limit, LimitSpec};
use crate::measured::{Measured, Reading};
use crate::replay::Source;

/// A function as the one who answers.
struct With<F>(F);

impl<F: FnMut(&Ask) -> Measured> Source<Ask> for With<F> {
    fn answer(&mut self, ask: Ask) -> Result<Measured, Stop> {
        Ok((self.0)(&ask))
    }
}

fn number(setting: &Setting, path: &str) -> f64 {
    match &setting.0[path] {
        Value::Int(n) => crate::number::of_int(*n),
        Value::Float(x) => *x,
        Value::Text(text) => panic!("{text} is no number"),
    }
}

fn constraints(texts: &[&str]) -> Vec<Constraint> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ints(values: &[i64]) -> Range {
    Range::List(values.iter().copied().map(Value::Int).collect())
}

fn ef(range: Range) -> Parameter {
    Parameter::new("phases.query.ef_runtime", range)
}

fn ef_of(setting: &Setting) -> f64 {
    number(setting, "phases.query.ef_runtime")
}

const EFS: [i64; 12] = [10, 20, 40, 60, 80, 100, 120, 150, 200, 300, 400, 500];

fn best_ef(range: Range, shape: Shape) -> TuneSpec {
    TuneSpec::new(
        Objective::Maximise(Figure::Qps),
        constraints(&["recall >= 0.95"]),
        vec![ef(range).shaped(shape)],
    )
}

fn flat_out(spec: &TuneSpec, double: &mut Double) -> Outcome {
    walk::run(spec, &mut With(|ask: &Ask| double.flat_out(ef_of(&ask.setting)))).unwrap()
}

/// The winner, or the best of a tie.
fn best(outcome: &Outcome) -> (&Setting, Interval) {
    match &outcome.conclusion {
        Conclusion::Tie { settings, value, .. } => (&settings[0], *value),
        _ => winner(outcome),
    }
}

fn winner(outcome: &Outcome) -> (&Setting, Interval) {
    match &outcome.conclusion {
        Conclusion::Winner { setting, value, .. } => (setting, *value),
        other => panic!("no winner: {other:?}"),
    }
}

#[test]
fn the_smallest_ef_with_enough_recall_wins_whatever_is_known_of_it() {
    for shape in [Shape::Falling, Shape::Test, Shape::Any] {
        let (mut right, mut covered, mut measurements, seeds) = (0, 0, 0, 300);
        for seed in 0..seeds {
            let mut double = Double::new(seed);
            let outcome = flat_out(&best_ef(ints(&EFS), shape), &mut double);
            let turns = |f: &Finding| matches!(f, Finding::NonMonotone { .. });
            assert!(!outcome.findings.iter().any(turns), "{seed} {:?}", outcome.findings);
            let (setting, value) = best(&outcome);
            let truth = double.capacity_at(100.0);
            right += u32::from(ef_of(setting) == 100.0);
            covered += u32::from(value.low <= truth && truth <= value.high);
            measurements += outcome.measurements;
        }
        println!(
            "{shape:?}: ef 100 wins {right} of {seeds}, value covered {covered}, {measurements} measurements"
        );
        assert!(right >= 299 && covered >= 270, "{shape:?}: right {right} covered {covered}");
    }
}

#[test]
fn of_all_whole_numbers_the_edge_is_found_as_nearly_as_recall_can_be_told() {
    for seed in 0..300 {
        let outcome = flat_out(&best_ef(Range::LogInt(10, 500), Shape::Falling), &mut Double::new(seed));
        // Recall is 0.95 at ef 92.1; one measurement tells it to 0.002, which is 1.6 of ef.
        let found = ef_of(winner(&outcome).0);
        assert!((93.0..=99.0).contains(&found), "{seed}: {found}");
        assert!(outcome.measurements <= 60, "{seed}: {}", outcome.measurements);
    }
}

/// Tunes ef where a setting's throughput is the rate at which p99 reaches its bound: each value is a search.
fn with_limits(seed: u64) -> (f64, f64, u64) {
    let mut double = Double::new(seed);
    let spec = best_ef(ints(&EFS), Shape::Falling);
    let mut start = 500.0;
    let outcome = walk::run(
        &spec,
        &mut With(|ask: &Ask| {
            let ef = ef_of(&ask.setting);
            if !ask.figures.contains(&Figure::Qps) {
                // Recall alone is told where a request costs least.
                return double.at(500.0, ef);
            }
            let search =
                LimitSpec { start, ..LimitSpec::new(constraints(&["p99 <= 10ms"]), 500.0, 200_000.0) };
            let mut limit = Limit::new(LimitSpec {
                look_beyond: false,
                climb: if start > 500.0 { 1.1 } else { 2.0 },
                ..search
            })
            .unwrap();
            let mut actions = limit.actions();
            loop {
                match actions.pop().unwrap() {
                    limit::Action::Measure(ask) => actions = limit.step(double.event(ask.rate, ef)),
                    limit::Action::Done(found) => {
                        let limit::Conclusion::Limit { rate, .. } = found.conclusion else {
                            panic!("{found:?}")
                        };
                        start = rate.value;
                        let error = (rate.high - rate.low) / 4.0;
                        let recall = found.points.len();
                        assert!(recall > 0);
                        let measured = double.at(500.0, ef);
                        return measured.with(Figure::Qps, Reading::with_error(rate.value, error));
                    }
                    limit::Action::Drain => panic!("drains last"),
                }
            }
        }),
    )
    .unwrap();
    let (setting, value) = winner(&outcome);
    (ef_of(setting), value.value / double.limit(100.0, 10e6), double.requests)
}

#[test]
fn the_right_ef_and_its_limit_cost_less_than_a_third_of_a_full_grid() {
    let double = Double::new(0);
    let grid: f64 = EFS
        .iter()
        .map(|ef| {
            let limit = double.limit(crate::number::of_int(*ef), 10e6);
            let rates = std::iter::successors(Some(500.0), |rate| Some(rate * 1.03));
            rates.take_while(|rate| *rate < 2.0 * limit).map(|rate| rate * 10.0).sum::<f64>()
        })
        .sum();
    let (mut right, mut close, mut share, seeds) = (0, 0, 0.0, 200_u32);
    for seed in 0..u64::from(seeds) {
        let (ef, ratio, requests) = with_limits(seed);
        right += u32::from(ef == 100.0);
        close += u32::from((ratio - 1.0).abs() <= 0.03);
        share += f64::from(u32::try_from(requests).unwrap()) / grid / f64::from(seeds);
    }
    println!("right ef {right}, limit within 3 % {close} of {seeds}, share of the grid {share:.4}");
    assert!(right >= 199 && close >= 199 && share < 1.0 / 3.0, "{right} {close} {share}");
}

/// Throughput with a hump over the number of connections.
fn hump(ask: &Ask, noise: &mut Noise, top: f64, deviation: f64) -> Measured {
    let clients = number(&ask.setting, "clients");
    let qps = 1e4 * (-0.5 * ((clients / top).ln() / 0.8).powi(2)).exp() * (deviation * noise.normal()).exp();
    Measured::default().with(Figure::Qps, Reading::of(qps))
}

fn clients(shape: Shape) -> TuneSpec {
    let range = Range::LogInt(1, 256);
    let parameter = Parameter::new("clients", range).shaped(shape);
    TuneSpec::new(Objective::Maximise(Figure::Qps), Vec::new(), vec![parameter])
}

#[test]
fn a_hump_is_told_as_non_monotone_and_its_top_is_found() {
    let mut near = 0;
    for seed in 0..300 {
        let mut noise = Noise::new(seed);
        let outcome =
            walk::run(&clients(Shape::Test), &mut With(|ask: &Ask| hump(ask, &mut noise, 20.0, 0.01)))
                .unwrap();
        let finding = Finding::NonMonotone { path: "clients".to_owned(), figure: Figure::Qps };
        assert_eq!(outcome.findings, [finding], "{seed}");
        let best = match &outcome.conclusion {
            Conclusion::Winner { setting, .. } => setting,
            Conclusion::Tie { settings, .. } => &settings[0],
            other => panic!("{other:?}"),
        };
        // Throughput is within 3 % of the top from 16.5 to 24.3 clients.
        near += u32::from((16.5..=24.3).contains(&number(best, "clients")));
    }
    assert!(near >= 285, "{near} of 300");
}

#[test]
fn settings_that_are_alike_are_a_tie_and_never_a_winner() {
    let mut won = 0;
    for seed in 0..300 {
        let mut noise = Noise::new(seed);
        let flat =
            |_: &Ask| Measured::default().with(Figure::Qps, Reading::of(1e4 * (0.03 * noise.normal()).exp()));
        let spec = TuneSpec {
            parameters: vec![Parameter::new("clients", ints(&[8, 16, 32, 64])).shaped(Shape::Any)],
            ..clients(Shape::Any)
        };
        let outcome = walk::run(&spec, &mut With(flat)).unwrap();
        won += u32::from(matches!(outcome.conclusion, Conclusion::Winner { .. }));
    }
    println!("a winner among equals in {won} of 300");
    assert!(won <= 15, "{won}");
}

#[test]
fn what_no_value_reaches_is_infeasible_and_named() {
    let mut spec = best_ef(Range::LogInt(10, 60), Shape::Falling);
    let outcome = flat_out(&spec, &mut Double::new(1));
    let Conclusion::Infeasible { binding, closest } = &outcome.conclusion else { panic!("{outcome:?}") };
    assert_eq!(binding, &constraints(&["recall >= 0.95"]));
    assert_eq!((ef_of(&closest.setting), closest.holds), (60.0, Some(false)));
    // The best that 60 gives.
    assert!((closest.figures[&Figure::Recall] - 0.888).abs() < 0.005, "{closest:?}");

    // Enough recall from ef 93, enough throughput up to ef 80: each can be had, both cannot.
    spec = best_ef(Range::LogInt(10, 500), Shape::Falling);
    spec.constraints = constraints(&["recall >= 0.95", "qps >= 23077/s"]);
    let outcome = flat_out(&spec, &mut Double::new(1));
    let Conclusion::Infeasible { binding, .. } = &outcome.conclusion else { panic!("{outcome:?}") };
    assert_eq!(binding, &spec.constraints);
}

/// Recall by ef from few queries, always the same; p99 by repeat.
fn deterministic(ask: &Ask, recall: f64, p99_ms: &[f64]) -> Measured {
    let ms = p99_ms[ask.repeat % p99_ms.len()];
    Measured::default()
        .with(Figure::Recall, Reading::with_error(recall, 0.0094))
        .with(Figure::P99, Reading::of(ms * 1e6))
        .with(Figure::Qps, Reading::of(10_000.0 / ef_of(&ask.setting) * (1.0 + 0.01 * ms)))
}

fn two_efs(repeats: usize) -> TuneSpec {
    let under = constraints(&["recall >= 0.99", "p99 <= 10ms"]);
    let parameters = vec![ef(ints(&[10, 30])).shaped(Shape::Falling)];
    TuneSpec { repeats, ..TuneSpec::new(Objective::Maximise(Figure::Qps), under, parameters) }
}

#[test]
fn a_setting_with_all_recall_that_there_is_wins_with_three_repeats_of_few_queries() {
    for repeats in [3, 4] {
        let answer =
            |ask: &Ask| deterministic(ask, if ef_of(&ask.setting) < 30.0 { 0.97 } else { 1.0 }, &[2.0, 2.1]);
        let outcome = walk::run(&two_efs(repeats), &mut With(answer)).unwrap();
        assert_eq!(ef_of(winner(&outcome).0), 30.0);
        // It is said what the queries leave open.
        let candidate = outcome.candidates.iter().find(|c| ef_of(&c.setting) == 30.0).unwrap();
        let interval = candidate.intervals[&Figure::Recall];
        assert!(interval.low < 0.99 && interval.high <= 1.0 && interval.value == 1.0, "{interval:?}");
        let [Finding::FewQueries { constraint, settings }] = &outcome.findings[..] else {
            panic!("{outcome:?}")
        };
        assert_eq!((constraint.to_string().as_str(), settings.len()), ("recall >= 0.99", 1));
    }
}

#[test]
fn what_is_told_neither_way_is_unsure_and_not_infeasible() {
    // p99 jumps about its bound at every setting.
    let outcome =
        walk::run(&two_efs(4), &mut With(|ask: &Ask| deterministic(ask, 1.0, &[5.0, 19.0]))).unwrap();
    let Conclusion::Unsure { undecided, closest } = &outcome.conclusion else { panic!("{outcome:?}") };
    assert_eq!(undecided, &constraints(&["p99 <= 10ms"]));
    assert_eq!(closest.holds, None);
    assert!(outcome.candidates.iter().all(|c| c.holds != Some(true)));
}

#[test]
fn a_budget_that_ends_before_anything_is_told_is_unsure() {
    let mut spec = two_efs(4);
    spec.budget = 1;
    let outcome = walk::run(&spec, &mut With(|ask: &Ask| deterministic(ask, 1.0, &[9.0]))).unwrap();
    assert!(matches!(outcome.conclusion, Conclusion::Unsure { .. }) && outcome.is_cut_short, "{outcome:?}");
}

#[test]
fn of_two_parameters_the_best_pair_is_found() {
    // More links per node: more recall at the same ef, slower; 16 with ef 100 is best of all that has recall.
    let measured = |ask: &Ask, noise: &mut Noise| {
        let (m, ef) = (number(&ask.setting, "index.m"), ef_of(&ask.setting));
        let recall = 1.0 - 0.5 * (-ef / 40.0 * (m / 16.0).min(1.0)).exp() + 0.002 * noise.normal();
        let qps = 30_000.0 / (0.5 + ef / 100.0) / (0.5 + m / 32.0) * (0.02 * noise.normal()).exp();
        Measured::default().with(Figure::Qps, Reading::of(qps)).with(Figure::Recall, Reading::of(recall))
    };
    let mut right = 0;
    for seed in 0..100 {
        let mut noise = Noise::new(seed);
        let mut spec = best_ef(ints(&EFS), Shape::Falling);
        spec.parameters.push(Parameter::new("index.m", ints(&[8, 16, 32, 64])).shaped(Shape::Any));
        let outcome = walk::run(&spec, &mut With(|ask: &Ask| measured(ask, &mut noise))).unwrap();
        let (setting, _) = winner(&outcome);
        right += u32::from((number(setting, "index.m"), ef_of(setting)) == (16.0, 100.0));
        assert!(outcome.measurements < 12 * 4 * 3 / 2, "{seed}: {}", outcome.measurements);
    }
    assert!(right >= 98, "{right} of 100");
}

#[test]
fn a_winner_prints_the_command_that_sets_it() {
    let spec = best_ef(ints(&EFS), Shape::Falling);
    let outcome = flat_out(&spec, &mut Double::new(1));
    assert_eq!(winner(&outcome).0.to_string(), "--set phases.query.ef_runtime=100");
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let fault = |parameters: Vec<Parameter>| {
        Tune::new(TuneSpec { parameters, ..clients(Shape::Any) }).unwrap_err().to_string()
    };
    assert!(fault(vec![]).contains("at least one parameter"));
    assert_eq!(
        fault(vec![Parameter::new("clients", Range::Int(9, 3))]),
        "parameter `clients`: the range holds no value: write the smaller end first"
    );
    assert!(fault(vec![Parameter::new("clients", Range::LogInt(0, 3))]).contains("begin above zero"));
    assert!(
        fault(vec![Parameter::new("clients", ints(&[1])), Parameter::new("clients", ints(&[1]))])
            .contains("twice")
    );
}

fn any_range() -> impl Strategy<Value = Range> {
    prop_oneof![
        (-50_i64..50, 0_i64..3000).prop_map(|(low, n)| Range::Int(low, low + n)),
        (1_i64..50, 0_i64..3000).prop_map(|(low, n)| Range::LogInt(low, low + n)),
        (0.1_f64..5.0, 0.1_f64..100.0).prop_map(|(low, n)| Range::Float(low, low + n)),
        (0.1_f64..5.0, 0.1_f64..100.0).prop_map(|(low, n)| Range::LogFloat(low, low + n)),
        (1_i64..20).prop_map(|n| Range::List((0..n).map(Value::Int).collect())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn positions_stand_in_the_order_of_their_values_and_halving_ends(range in any_range()) {
        let parameter = Parameter::new("x", range);
        prop_assert_eq!(parameter.check(), Ok(()));
        let spread = parameter.spread(5);
        prop_assert!(spread.windows(2).all(|w| w[0] < w[1]));
        prop_assert_eq!((spread.first(), spread.last()), (Some(&0), Some(&parameter.last())));
        let float = |i: i64| number(&Setting([("x".to_owned(), parameter.value(i))].into()), "x");
        prop_assert!(spread.windows(2).all(|w| float(w[0]) < float(w[1])));
        let (mut low, mut high, mut steps) = (0, parameter.last(), 0);
        while parameter.is_split(low, high) {
            let middle = parameter.between(low, high);
            prop_assert!(low < middle && middle < high);
            if steps % 2 == 0 { low = middle } else { high = middle }
            steps += 1;
            prop_assert!(steps < 40);
        }
    }

    #[test]
    fn a_stopped_search_goes_on_as_if_it_had_not_been(seed in any::<u64>(), stop in 0_usize..40) {
        let spec = best_ef(Range::LogInt(10, 500), Shape::Test);
        let mut double = Double::new(seed);
        let mut tune = Tune::new(spec.clone()).unwrap();
        let (mut steps, mut actions) = (0, tune.actions());
        let outcome = loop {
            match actions.pop().unwrap() {
                Action::Done(outcome) => break outcome,
                Action::Measure(ask) => {
                    if steps == stop {
                        tune = serde_json::from_str(&serde_json::to_string(&tune).unwrap()).unwrap();
                        prop_assert_eq!(tune.actions().pop(), Some(Action::Measure(ask.clone())));
                    }
                    steps += 1;
                    actions = tune.step(Event::Measured(double.flat_out(ef_of(&ask.setting))));
                }
                Action::Drain => prop_assert!(false, "drains last"),
            }
        };
        prop_assert_eq!(*outcome, flat_out(&spec, &mut Double::new(seed)));
    }

    #[test]
    fn whatever_it_is_told_it_ends_within_budget_and_a_winner_keeps_its_constraints(
        values in prop::collection::vec((0.5_f64..2.0, 0.9_f64..1.0), 1..60), budget in 0_usize..50,
        shape in prop_oneof![Just(Shape::Test), Just(Shape::Rising), Just(Shape::Falling), Just(Shape::Any)], range in any_range(),
    ) {
        let mut spec = best_ef(range, shape);
        spec.budget = budget;
        let mut told = 0;
        let outcome = walk::run(&spec, &mut With(|_: &Ask| {
            let (qps, recall) = values[told % values.len()];
            told += 1;
            Measured::default().with(Figure::Qps, Reading::of(qps)).with(Figure::Recall, Reading::of(recall))
        })).unwrap();
        prop_assert!(told <= budget && outcome.measurements == told);
        let (best, others) = match &outcome.conclusion {
            Conclusion::Winner { setting, .. } => (setting, vec![]),
            Conclusion::Tie { settings, .. } => (&settings[0], settings[1..].to_vec()),
            _ => return Ok(()),
        };
        for candidate in &outcome.candidates {
            if candidate.setting == *best || others.contains(&candidate.setting) {
                prop_assert_eq!(candidate.holds, Some(true));
            } else if candidate.holds == Some(true) && candidate.figures.contains_key(&Figure::Qps) {
                // Whoever is neither best nor in the tie is worse by its mean.
                let value = outcome.candidates.iter().find(|c| c.setting == *best).unwrap().figures[&Figure::Qps];
                prop_assert!(candidate.figures[&Figure::Qps] < value);
            }
        }
    }
}
