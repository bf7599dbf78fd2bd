use proptest::prelude::*;

use super::*;
use crate::figure::FIGURES;

fn constraint(text: &str) -> Constraint {
    text.parse().unwrap()
}

#[test]
fn texts_of_the_manual_mean_what_they_say() {
    for (text, figure, side, bound) in [
        ("recall >= 0.95", Figure::Recall, Side::AtLeast, 0.95),
        ("recall>=95%", Figure::Recall, Side::AtLeast, 0.95),
        ("p99 <= 10ms", Figure::P99, Side::AtMost, 10e6),
        ("p99.9 <= 1.5s", Figure::P999, Side::AtMost, 1.5e9),
        ("p50 <= 250us", Figure::P50, Side::AtMost, 250e3),
        ("error_rate <= 0.1%", Figure::ErrorRate, Side::AtMost, 0.001),
        ("memory <= 2GiB/1M", Figure::BytesPerVector, Side::AtMost, 2_147.483_648),
        ("memory <= 2GiB", Figure::Memory, Side::AtMost, 2_147_483_648.0),
        ("bytes_per_vector <= 900", Figure::BytesPerVector, Side::AtMost, 900.0),
        ("qps >= 5k", Figure::Qps, Side::AtLeast, 5000.0),
        ("qps >= 5000/s", Figure::Qps, Side::AtLeast, 5000.0),
        ("cpu_per_query <= 80us", Figure::CpuPerQuery, Side::AtMost, 80e3),
    ] {
        assert_eq!(constraint(text), Constraint { figure, side, bound }, "{text}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_way_out() {
    for (text, message) in [
        ("recall > 0.9", "`recall > 0.9` is no constraint"),
        ("speed >= 3", "`speed` is no figure; use one of qps, recall"),
        ("p99 <= 10", "`10` is no bound of `p99`: write it like `10ms`"),
        ("p99 <= 0ms", "`0` is no bound of `p99`"),
        ("p99 <= -1ms", "`-1ms` is no bound of `p99`"),
        ("recall >= 95", "between 0 and 100%, and 95 does not"),
        ("memory <= 2GiB/0", "`2GiB/0` is no bound of `memory`: write it like `2GiB`"),
        ("memory <= 2Gib", "`2Gib` is no bound of `memory`"),
        ("qps >= inf", "`inf` is no bound of `qps`"),
    ] {
        let fault = text.parse::<Constraint>().unwrap_err().to_string();
        assert!(fault.contains(message), "{text}: {fault}");
    }
}

#[test]
fn far_is_a_factor_of_two_of_what_it_costs() {
    for (text, value, far) in [
        ("p99 <= 10ms", 4.9e6, true),
        ("p99 <= 10ms", 5.1e6, false),
        ("p99 <= 10ms", 19e6, false),
        ("p99 <= 10ms", 21e6, true),
        ("qps >= 100", 210.0, true),
        ("qps >= 100", 190.0, false),
        ("recall >= 0.95", 0.976, true),
        ("recall >= 0.95", 0.97, false),
        ("recall >= 0.95", 0.89, true),
        ("error_rate <= 1%", 0.0, true),
    ] {
        let constraint = constraint(text);
        assert_eq!(constraint.is_far(constraint.figure().scale().of(value)), far, "{text} at {value}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_is_written_is_read_back(which in 0..FIGURES.len(), most in any::<bool>(), mantissa in 1_u32..100_000, power in -3_i32..12) {
        let figure = FIGURES[which].0;
        let share = figure.unit() == Unit::Share;
        let bound = if share { f64::from(mantissa) / 100_000.0 } else { f64::from(mantissa) * 10_f64.powi(power) };
        let side = if most { Side::AtMost } else { Side::AtLeast };
        let written = Constraint::new(figure, side, bound).unwrap();
        let read = constraint(&written.to_string());
        prop_assert_eq!((read.figure, read.side), (written.figure, written.side));
        prop_assert!((read.bound / bound - 1.0).abs() < 1e-14, "{} {}", written, read);
        prop_assert_eq!(constraint(&read.to_string()).to_string(), read.to_string());
    }

    #[test]
    fn slack_is_positive_exactly_where_the_constraint_holds(which in 0..FIGURES.len(), most in any::<bool>(), bound in 0.001_f64..1.0, value in 0.001_f64..1.0) {
        let figure = FIGURES[which].0;
        let constraint = Constraint::new(figure, if most { Side::AtMost } else { Side::AtLeast }, bound).unwrap();
        let holds = if most { value <= bound } else { value >= bound };
        let scaled = figure.scale().of(value);
        prop_assert_eq!(constraint.slack(scaled) >= 0.0, holds);
        prop_assert_eq!(constraint.violation(scaled) <= 0.0, holds);
    }
}
