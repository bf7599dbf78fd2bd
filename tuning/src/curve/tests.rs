use proptest::prelude::*;

use super::*;
use crate::double::Noise;

/// M/M/1 of this capacity, at rates a fifth apart from a hundredth of it on, with relative noise of the response.
fn queue(capacity: f64, noise: &mut Noise, deviation: f64) -> Vec<CurvePoint> {
    let rates = std::iter::successors(Some(capacity / 100.0), |rate| Some(rate * 1.2));
    let point = |rate: f64| CurvePoint {
        throughput: rate,
        response_ns: 1e9 / (capacity - rate) * (deviation * noise.normal()).exp(),
        error: deviation,
    };
    rates.take_while(|rate| *rate < capacity).map(point).collect()
}

fn at(knee: Knee) -> Interval {
    match knee {
        Knee::At(interval) => interval,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_knee_of_a_queue_is_at_half_its_capacity_in_whatever_unit() {
    for capacity in [1.0, 700.0, 20_000.0, 1e6] {
        let knee = at(knee(&queue(capacity, &mut Noise::new(1), 0.0)));
        assert!((knee.value / capacity - 0.5).abs() < 0.02, "{knee:?}");
        assert!(knee.low < 0.5 * capacity && knee.high > 0.5 * capacity);
    }
}

#[test]
fn noise_makes_the_interval_of_the_knee_wide_and_it_holds_the_knee() {
    let mut held = 0;
    for seed in 0..1_000 {
        let mut noise = Noise::new(seed);
        let interval = match knee(&queue(20_000.0, &mut noise, 0.05)) {
            Knee::At(interval) => interval,
            Knee::Above(low) => Interval { value: low, low, high: f64::MAX },
            Knee::Below(high) => Interval { value: high, low: 0.0, high },
            Knee::Unknown => panic!("unknown"),
        };
        held += u32::from(interval.low <= 1e4 && 1e4 <= interval.high);
    }
    println!("knee held in {held} of 1000");
    assert!(held >= 950, "{held}");
}

#[test]
fn a_curve_that_stops_before_its_knee_or_begins_after_it_is_told() {
    let whole = queue(1000.0, &mut Noise::new(1), 0.0);
    let (low, high): (Vec<CurvePoint>, Vec<CurvePoint>) = whole.iter().partition(|p| p.throughput < 450.0);
    assert!(matches!(knee(&low), Knee::Above(rate) if rate < 450.0));
    assert!(matches!(knee(&high[1..]), Knee::Below(rate) if rate > 500.0));
    assert_eq!(knee(&whole[..2]), Knee::Unknown);
}

#[test]
fn rates_beyond_the_capacity_do_not_move_the_knee() {
    let mut points = queue(1000.0, &mut Noise::new(1), 0.0);
    let before = knee(&points);
    for response_ns in [1e10, 3e10, 1e11] {
        points.push(CurvePoint { throughput: 1000.0, response_ns, error: 0.0 });
    }
    assert_eq!(knee(&points), before);
}

fn exact(value: f64) -> Interval {
    Interval { value, low: value, high: value }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn of_exact_points_the_front_is_what_no_other_beats(points in prop::collection::vec((1_u32..8, 1_u32..8), 1..12)) {
        let trades: Vec<Trade> =
            points.iter().map(|(q, r)| Trade { qps: exact(f64::from(*q)), recall: exact(f64::from(*r)) }).collect();
        for (i, standing) in pareto(&trades).into_iter().enumerate() {
            let (q, r) = points[i];
            let beaten = points.iter().any(|(a, b)| *a >= q && *b >= r && (*a > q || *b > r));
            let beaten_in_both = points.iter().any(|(a, b)| *a > q && *b > r);
            prop_assert_eq!(standing == Standing::Front, !beaten);
            prop_assert_eq!(standing == Standing::Dominated, beaten_in_both);
        }
    }

    #[test]
    fn wider_intervals_never_put_a_point_behind(points in prop::collection::vec((1.0_f64..8.0, 1.0_f64..8.0), 1..12), by in 0.0_f64..3.0) {
        let with = |by: f64| -> Vec<Trade> {
            let wide = |value: f64| Interval { value, low: value - by, high: value + by };
            points.iter().map(|(q, r)| Trade { qps: wide(*q), recall: wide(*r) }).collect()
        };
        for (narrow, wide) in pareto(&with(0.0)).into_iter().zip(pareto(&with(by))) {
            prop_assert!(wide != Standing::Dominated || narrow == Standing::Dominated);
            prop_assert_eq!(wide == Standing::Front, narrow == Standing::Front);
        }
    }
}
