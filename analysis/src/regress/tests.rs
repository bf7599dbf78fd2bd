use proptest::prelude::*;

use super::*;

/// The same numbers on every machine.
struct Numbers(u64);

impl Numbers {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        float((mixed ^ (mixed >> 32)) >> 11) / 9_007_199_254_740_992.0
    }

    /// A long flat series, as a server under constant load gives: neighbours alike, now and then a dip.
    fn recorded(&mut self, n: usize) -> Vec<f64> {
        let mut x = 0.0;
        (0..n)
            .map(|_| {
                let normal: f64 = (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0;
                x = 0.6 * x + 0.8 * normal;
                let dip = if self.uniform() < 0.03 { 0.5 } else { 0.0 };
                (1_000.0 * (1.0 + 0.25 * x - dip)).max(1.0)
            })
            .collect()
    }

    /// A series of n intervals, put together from blocks of a recorded one.
    fn resampled(&mut self, recorded: &[f64], n: usize) -> Vec<f64> {
        let block = 10;
        let mut out = Vec::new();
        while out.len() < n {
            let last = float(vst_common::count::len(recorded.len() - block));
            let at = vst_common::count::index(vst_common::count::from_f64(self.uniform() * last));
            out.extend(&recorded[at..at + block]);
        }
        out.truncate(n);
        out
    }
}

fn run(figures: impl IntoIterator<Item = (&'static str, Metric, Figure)>) -> BTreeMap<Key, Figure> {
    let of = |(name, metric, figure): (&str, Metric, Figure)| {
        ((1, name.to_owned(), Some(String::from("knn")), metric), figure)
    };
    figures.into_iter().map(of).collect()
}

#[test]
fn of_a_thousand_resampled_flat_comparisons_at_most_ten_call_a_regression() {
    let mut numbers = Numbers(11);
    let recorded = numbers.recorded(2_000);
    // Without a threshold nothing but the noise protects from a false alarm.
    for threshold in [0.0, 0.10] {
        let thresholds = Thresholds {
            throughput_drop: threshold,
            p99_rise: threshold,
            recall_drop: 0.0,
            memory_rise: 0.0,
        };
        let comparisons = 1_000;
        let alarms = (0..comparisons)
            .filter(|i| {
                let n = [15, 20, 30, 60, 120][i % 5];
                let mut side = || {
                    let rate = numbers.resampled(&recorded, n);
                    let p99 = numbers.resampled(&recorded, n).iter().map(|x| x.ln()).collect();
                    run([
                        ("ask", Metric::Throughput, Figure::Series(rate)),
                        ("ask", Metric::P99, Figure::Series(p99)),
                    ])
                };
                let (judged, missing) = compare(&[side()], &[side()], &thresholds);
                assert_eq!((judged.len(), missing.len()), (2, 0));
                assert!(
                    judged.iter().all(|j| j.smallest_effect.is_some()),
                    "every verdict says what it could see"
                );
                judged.iter().any(|j| j.call == Call::Regression)
            })
            .count();
        assert!(alarms <= 10, "{alarms} of {comparisons} at a threshold of {threshold}");
    }
}

#[test]
fn what_is_smaller_than_the_smallest_effect_is_missed_and_what_is_larger_is_seen() {
    let mut numbers = Numbers(5);
    let recorded = numbers.recorded(2_000);
    let thresholds = Thresholds::default();
    let (mut seen, mut asked, mut smallest) = ([0, 0], 0, 0.0);
    for _ in 0..200 {
        let a = numbers.resampled(&recorded, 120);
        let b = numbers.resampled(&recorded, 120);
        let flat = judge(
            Metric::Throughput,
            &[Figure::Series(a.clone())],
            &[Figure::Series(b.clone())],
            thresholds.throughput_drop,
            0.99,
        )
        .unwrap();
        let effect = flat.smallest_effect.unwrap();
        smallest += effect / 200.0;
        asked += 1;
        for (which, part) in [(0, 0.3), (1, 1.3)] {
            let slower: Vec<f64> = b.iter().map(|x| x * (1.0 - effect * part)).collect();
            let judged =
                judge(Metric::Throughput, &[Figure::Series(a.clone())], &[Figure::Series(slower)], 0.1, 0.99);
            seen[which] += usize::from(judged.unwrap().call == Call::Regression);
        }
    }
    assert!(seen[0] * 20 <= asked, "{seen:?} of {asked}, smallest effect {smallest}");
    assert!(seen[1] * 5 >= asked * 4, "{seen:?} of {asked}, smallest effect {smallest}");
}

proptest! {
    #[test]
    fn the_direction_of_worse_is_the_metrics_own(mean in 10.0_f64..1e6, factor in 1.5_f64..4.0) {
        let series = |scale: f64, log: bool| {
            let wobble = |i: i32| mean * scale * (1.0 + 0.001 * f64::from(i % 5));
            Figure::Series((0..40).map(|i| if log { wobble(i).ln() } else { wobble(i) }).collect())
        };
        for (metric, worse_up, log) in
            [(Metric::Throughput, false, false), (Metric::P99, true, true), (Metric::Memory, true, false)]
        {
            let (low, high) = (series(1.0, log), series(factor, log));
            let up = judge(metric, std::slice::from_ref(&low), std::slice::from_ref(&high), 0.1, 0.99).unwrap();
            let down = judge(metric, &[high], &[low], 0.1, 0.99).unwrap();
            let (bad, good) = if worse_up { (&up, &down) } else { (&down, &up) };
            prop_assert_eq!((bad.call, good.call), (Call::Regression, Call::Improvement));
            prop_assert!((up.change - (factor - 1.0)).abs() < 1e-6);
            prop_assert!((up.candidate / up.baseline - factor).abs() < 1e-6);
        }
    }
}

#[test]
fn a_change_needs_the_threshold_and_the_noise() {
    let flat = |mean: f64, spread: f64| {
        let swing = |i: usize| mean * (1.0 + spread * [1.0, -1.0, 0.5, -0.5][i % 4]);
        Figure::Series((0..40).map(swing).collect())
    };
    let call = |a: Figure, b: Figure| judge(Metric::Throughput, &[a], &[b], 0.1, 0.99).unwrap().call;
    assert_eq!(call(flat(100.0, 0.001), flat(95.0, 0.001)), Call::Unchanged, "sure, but tolerated");
    assert_eq!(call(flat(100.0, 0.001), flat(85.0, 0.001)), Call::Regression);
    assert_eq!(call(flat(100.0, 0.9), flat(85.0, 0.9)), Call::WithinNoise);
    let short = Figure::Series(vec![100.0; 11]);
    assert_eq!(call(short, flat(50.0, 0.001)), Call::TooShort, "what is not known is not called");
}

#[test]
fn from_three_repeats_on_the_noise_is_that_between_runs() {
    let runs = |means: &[f64]| -> Vec<Figure> {
        means.iter().map(|mean| Figure::Series((0..40).map(|i| mean + f64::from(i % 3)).collect())).collect()
    };
    let call = |a: &[f64], b: &[f64]| judge(Metric::Throughput, &runs(a), &runs(b), 0.1, 0.99).unwrap();
    // Within each run the noise is tiny; between runs it is not.
    let judged = call(&[100.0, 140.0, 70.0], &[80.0, 95.0, 70.0]);
    assert_eq!((judged.call, judged.n), (Call::WithinNoise, (3, 3)));
    assert_eq!(call(&[100.0, 101.0, 99.0], &[80.0, 81.0, 79.0]).call, Call::Regression);
}

#[test]
fn phases_that_a_side_lacks_are_named() {
    let series = Figure::Series(vec![1.0; 20]);
    let a = run([("ask", Metric::Throughput, series.clone()), ("more", Metric::Throughput, series.clone())]);
    let b = run([("ask", Metric::Throughput, series)]);
    let (judged, missing) = compare(&[a], &[b], &Thresholds::default());
    assert_eq!(judged.len(), 1);
    assert!(missing[0].contains("more"), "{missing:?}");
}

#[test]
fn thresholds_are_read_or_refused_by_name() {
    assert_eq!(Thresholds::from_yaml("").unwrap(), Thresholds::default());
    let read = Thresholds::from_yaml("p99_rise: 0.3\n").unwrap();
    assert_eq!(read, Thresholds { p99_rise: 0.3, ..Thresholds::default() });
    for (text, word) in [
        ("p99_rise: -0.3\n", "p99_rise"),
        ("p99: 0.3\n", "p99"),
        ("p99_rise: fast\n", "p99_rise"),
        ("[", "p99_rise"),
    ] {
        let error = Thresholds::from_yaml(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn reports_show_every_verdict_and_what_it_could_have_seen() {
    let figure = |mean: f64| Figure::Series((0..30).map(|i| mean + f64::from(i % 3)).collect());
    let a = run([("ask <1>", Metric::Throughput, figure(300.0)), ("ask <1>", Metric::P99, figure(14.0))]);
    let b = run([("ask <1>", Metric::Throughput, figure(200.0)), ("ask <1>", Metric::P99, figure(14.0))]);
    let (judgements, doubts) = compare(&[a], &[b], &Thresholds::default());
    let comparison = Comparison {
        baseline: vec![String::from("runs/a")],
        candidate: vec![String::from("runs/b")],
        confidence: CONFIDENCE,
        judgements,
        doubts,
    };
    assert_eq!(comparison.exit(), Exit::Criterion);
    insta::assert_snapshot!(comparison.to_text());
    insta::assert_snapshot!(comparison.to_markdown());
    insta::assert_snapshot!(comparison.to_junit());
}
