use proptest::prelude::*;

use super::*;
use crate::double::Noise;
use crate::measured::Reading;

fn p99(ms: f64) -> Measured {
    Measured::default().with(Figure::P99, Reading::of(ms * 1e6))
}

fn book() -> Book<u32> {
    Book::new(|_, _| true)
}

fn at_most_10ms() -> [Constraint; 1] {
    ["p99 <= 10ms".parse().unwrap()]
}

#[test]
fn a_point_near_its_bound_is_not_judged_before_its_noise_is_known() {
    let mut book = book();
    book.enter(&1, &p99(9.0));
    assert_eq!(book.judge(&1, &at_most_10ms(), 0.01), Verdict::Near(0));
    book.enter(&1, &p99(9.01));
    assert_eq!(book.judge(&1, &at_most_10ms(), 0.01), Verdict::Near(0));
    book.enter(&1, &p99(8.99));
    assert_eq!(book.judge(&1, &at_most_10ms(), 0.01), Verdict::Pass);
    // The noise of a point that is alike will do for another.
    book.enter(&2, &p99(12.0));
    assert_eq!(book.judge(&2, &at_most_10ms(), 0.01), Verdict::Fail(0));
}

#[test]
fn a_reading_that_is_only_a_lower_bound_never_keeps_an_upper_one() {
    let mut book = book();
    for _ in 0..20 {
        book.enter(&1, &Measured::default().with(Figure::P99, Reading::at_least(1e6)));
        book.enter(&2, &Measured::default().with(Figure::P99, Reading::at_least(11e6)));
    }
    assert_eq!(book.judge(&1, &at_most_10ms(), 0.01), Verdict::Near(0));
    assert_eq!(book.judge(&2, &at_most_10ms(), 0.01), Verdict::Fail(0));
}

#[test]
fn an_error_that_the_measurement_declares_counts_where_repeats_agree_by_chance() {
    let mut book = book();
    for value in [9.0, 9.01, 8.99] {
        let reading = Reading::with_error(value * 1e6, 1e6);
        book.enter(&1, &Measured::default().with(Figure::P99, reading));
    }
    assert_eq!(book.judge(&1, &at_most_10ms(), 0.01), Verdict::Near(0));
}

#[test]
fn a_declared_error_is_known_and_is_not_judged_as_if_it_were_estimated_from_a_few_repeats() {
    let mut book = book();
    for _ in 0..3 {
        // Five of its errors inside: Student's t with two degrees of freedom could not tell that.
        let reading = Reading::with_error(9e6, 0.3e6);
        book.enter(&1, &Measured::default().with(Figure::P99, reading));
    }
    assert_eq!(book.judge(&1, &at_most_10ms(), 0.01), Verdict::Pass);
}

fn recalls(values: &[f64], error: f64) -> Verdict {
    let mut book = book();
    for value in values {
        book.enter(&1, &Measured::default().with(Figure::Recall, Reading::with_error(*value, error)));
    }
    book.judge(&1, &["recall >= 0.99".parse().unwrap()], 0.005)
}

#[test]
fn recall_that_every_repeat_confirms_is_good_however_few_the_queries_are() {
    assert_eq!(recalls(&[1.0; 3], 0.0094), Verdict::Pass);
    assert_eq!(recalls(&[0.991; 4], 0.0094), Verdict::Pass);
    // On the bound is inside.
    assert_eq!(recalls(&[0.99; 3], 0.0094), Verdict::Pass);
    assert_eq!(recalls(&[0.989; 3], 0.0094), Verdict::Fail(0));
    // Where the repeats differ, that is noise like any other.
    assert_eq!(recalls(&[0.995, 0.985, 0.999], 0.0), Verdict::Near(0));
}

proptest! {
    #[test]
    fn no_declared_error_of_the_same_queries_turns_a_call(
        values in prop::collection::vec(0.9_f64..=1.0, 3..5), error in 0.0_f64..0.1
    ) {
        prop_assert_eq!(recalls(&values, error), recalls(&values, 0.0));
    }
}

#[test]
fn the_worst_of_several_broken_constraints_is_named() {
    let mut book = book();
    let constraints: [Constraint; 3] =
        ["p99 <= 10ms", "recall >= 0.95", "error_rate <= 1%"].map(|t| t.parse().unwrap());
    let measured = p99(25.0).with(Figure::Recall, Reading::of(0.5)).with(Figure::ErrorRate, Reading::of(0.5));
    book.enter(&1, &measured);
    assert_eq!(book.judge(&1, &constraints, 0.01), Verdict::Fail(2));
}

#[test]
fn wrong_calls_at_the_bound_are_as_rare_as_was_asked() {
    // Just on the bound every call is wrong in half of its ways; with three repeats, alpha on each side.
    let mut noise = Noise::new(11);
    for (alpha, tries) in [(0.05, 4_000_u32), (0.005, 20_000)] {
        let called = (0..tries)
            .filter(|_| {
                let mut book = book();
                for _ in 0..3 {
                    book.enter(&1, &p99(10.0 * (0.1 * noise.normal()).exp()));
                }
                book.judge(&1, &at_most_10ms(), alpha) != Verdict::Near(0)
            })
            .count();
        let share = float(called) / f64::from(tries);
        let deviation = (2.0 * alpha / f64::from(tries)).sqrt();
        assert!((share - 2.0 * alpha).abs() < 4.0 * deviation, "{alpha}: {share}");
    }
}

#[test]
fn looks_are_counted_as_they_are_taken() {
    assert_eq!((looks(1), looks(3), looks(4), looks(8)), (1, 2, 3, 5));
}
