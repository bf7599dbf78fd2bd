use proptest::prelude::*;

use super::*;
use crate::double::Double;

fn spec(change: f64) -> CompareSpec {
    CompareSpec { margins: vec![Margin { figure: Figure::Qps, change }], confidence: 0.95, blocks: 25 }
}

/// Two settings of one target.
struct Live {
    double: Double,
    ef: [f64; 2],
}

impl Source<Ask> for Live {
    fn answer(&mut self, ask: Ask) -> Result<Measured, Pause<Ask>> {
        let [a, b] = self.ef;
        Ok(self.double.flat_out(if ask.side == Side::A { a } else { b }))
    }
}

fn compare(spec: &CompareSpec, seed: u64, ef: [f64; 2], noise: f64, drift: f64) -> Outcome {
    let mut double = Double::new(seed);
    (double.p99_noise, double.drift) = (noise, drift);
    run(spec, &mut Live { double, ef }).unwrap()
}

fn call(outcome: &Outcome) -> Call {
    outcome.compared[0].call
}

#[test]
fn a_side_compared_with_itself_is_called_equal_twenty_times_of_twenty() {
    for seed in 0..20 {
        let outcome = compare(&spec(0.02), seed, [100.0, 100.0], 0.01, 1.0);
        assert_eq!(call(&outcome), Call::Equal, "{seed}: {:?}", outcome.compared);
        assert!(outcome.narrow);
    }
}

#[test]
fn of_a_thousand_equal_pairs_no_more_are_called_different_than_the_level_allows() {
    for (name, noise, drift, change) in [
        ("narrow", 0.01, 1.0, 0.02),
        ("blocks run out", 0.1, 1.0, 0.02),
        // Two per cent from one measurement to the next, and a margin far below the noise.
        ("drift", 0.02, 0.98, 0.001),
    ] {
        let seeds = 1_000;
        let different = (0..seeds)
            .filter(|seed| {
                call(&compare(&spec(change), *seed, [100.0, 100.0], noise, drift)) == Call::Different
            })
            .count();
        println!("{name}: {different} of {seeds} equal pairs called different");
        assert!(different <= 50, "{name}: {different}");
    }
}

#[test]
fn with_several_figures_the_level_is_that_of_all_together() {
    let spec = CompareSpec {
        margins: [(Figure::Qps, 0.001), (Figure::P99, 0.001), (Figure::Recall, 0.0001)]
            .map(|(figure, change)| Margin { figure, change })
            .to_vec(),
        ..spec(0.1)
    };
    let seeds = 500;
    let wrong = (0..seeds)
        .filter(|seed| {
            let mut double = Double::new(*seed);
            let mut source =
                |_: Ask| double.at(10_000.0, 100.0).with(Figure::Qps, crate::measured::Reading::of(1.0));
            let mut log = Vec::new();
            let outcome = loop {
                match run(&spec, &mut Replay::new(&log)) {
                    Ok(outcome) => break outcome,
                    Err(ask) => log.push(Event::Measured(source(ask))),
                }
            };
            outcome.compared.iter().any(|c| c.call == Call::Different)
        })
        .count();
    assert!(wrong <= 35, "{wrong} of {seeds}");
}

#[test]
fn ef_100_and_ef_110_are_told_apart_where_noise_allows_and_called_too_small_where_not() {
    let truth = Double::new(0).capacity_at(110.0) / Double::new(0).capacity_at(100.0) - 1.0;
    let (mut apart, mut covered) = (0, 0);
    for seed in 0..200 {
        let outcome = compare(&spec(0.02), seed, [100.0, 110.0], 0.02, 0.999);
        let change = outcome.compared[0].change;
        apart += u32::from(call(&outcome) == Call::Different && change.high < 0.0);
        covered += u32::from(change.low <= truth && truth <= change.high);
    }
    assert!(apart >= 199 && covered >= 184, "told apart {apart}, covered {covered} of 200 ({truth})");

    // With 60 % of noise and six blocks an effect of 6 % cannot be seen, and that is said with the figure.
    let (mut unseen, mut figures) = (0, Vec::new());
    for seed in 0..200 {
        let outcome = compare(&CompareSpec { blocks: 6, ..spec(0.02) }, seed, [100.0, 110.0], 0.6, 1.0);
        unseen += u32::from(call(&outcome) == Call::TooSmallToSee);
        figures.push(outcome.compared[0].smallest_effect);
    }
    assert!(unseen >= 180, "{unseen} of 200");
    assert!(figures.iter().all(|f| *f > truth.abs()), "smallest effects above {truth}: {figures:?}");
}

#[test]
fn an_effect_of_the_smallest_size_is_seen_in_four_of_five() {
    // ef whose capacity differs by the smallest effect that ten blocks of 3 % noise can show: 2 log-normal means of 20.
    let blocks = CompareSpec { blocks: 10, ..spec(0.0001) };
    let named: f64 = (0..200)
        .map(|seed| compare(&blocks, seed, [100.0, 100.0], 0.03, 1.0).compared[0].smallest_effect)
        .sum::<f64>()
        / 200.0;
    let ef = 100.0 * (1.5 * (1.0 + named) - 0.5);
    let seen = (0..1_000)
        .filter(|seed| call(&compare(&blocks, *seed, [100.0, ef], 0.03, 1.0)) == Call::Different)
        .count();
    println!("an effect of {named:.4} seen in {seen} of 1000");
    assert!((720..=880).contains(&seen), "{seen}");
}

#[test]
fn a_comparison_that_makes_no_sense_is_refused() {
    let fault = |spec: CompareSpec| Compare::new(spec).unwrap_err().to_string();
    assert!(fault(CompareSpec { margins: vec![], ..spec(0.1) }).contains("needs a figure"));
    assert!(fault(spec(0.0)).contains("`qps` that matters must be above 0"));
    assert!(fault(CompareSpec { confidence: 1.0, ..spec(0.1) }).contains("`confidence` is 1"));
    assert!(fault(CompareSpec { blocks: 3, ..spec(0.1) }).contains("`blocks` is 3"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn sides_take_turns_and_a_stop_changes_nothing(seed in any::<u64>(), stop in 0_usize..40) {
        let mut double = Double::new(seed);
        double.p99_noise = 0.02;
        let mut compare = Compare::new(spec(0.02)).unwrap();
        let (mut order, mut actions) = (Vec::new(), compare.actions());
        let outcome = loop {
            match actions.pop().unwrap() {
                Action::Done(outcome) => break outcome,
                Action::Measure(ask) => {
                    if order.len() == stop {
                        compare = serde_json::from_str(&serde_json::to_string(&compare).unwrap()).unwrap();
                    }
                    actions = compare.step(Event::Measured(double.flat_out(if ask.side == Side::A { 100.0 } else { 120.0 })));
                    order.push(ask.side);
                }
                Action::Drain => prop_assert!(false, "drains last"),
            }
        };
        prop_assert_eq!(order.len(), outcome.blocks * 4);
        for block in order.chunks(4) {
            prop_assert!(block[0] == block[3] && block[1] == block[2] && block[0] != block[1]);
        }
        let mut live = Double::new(seed);
        live.p99_noise = 0.02;
        prop_assert_eq!(*outcome, run(&spec(0.02), &mut Live { double: live, ef: [100.0, 120.0] }).unwrap());
    }

    #[test]
    fn equal_is_never_called_where_the_interval_leaves_room(values in prop::collection::vec((1.0_f64..1.2, 1.0_f64..1.2), 8..50), change in 0.001_f64..0.3) {
        let mut values = values.iter().cycle();
        let mut source = |ask: Ask| {
            let (a, b) = *values.next().unwrap();
            Measured::default().with(Figure::Qps, crate::measured::Reading::of(if ask.side == Side::A { a } else { b }))
        };
        let mut log = Vec::new();
        let outcome = loop {
            match run(&spec(change), &mut Replay::new(&log)) {
                Ok(outcome) => break outcome,
                Err(ask) => log.push(Event::Measured(source(ask))),
            }
        };
        let c = &outcome.compared[0];
        let inside = c.change.low >= -c.margin && c.change.high <= c.margin;
        prop_assert_eq!(c.call == Call::Equal, inside);
        prop_assert!(c.change.low <= c.change.value && c.change.value <= c.change.high);
        prop_assert!(!outcome.narrow || c.change.high - c.change.low <= c.margin * 2.0 / 3.0 + 1e-12);
    }
}
