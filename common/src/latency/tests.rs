use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Nanoseconds over all magnitudes.
fn ns() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>().prop_map(|n| n >> (n % 64)), 0..100_000_u64]
}

fn within() -> impl Strategy<Value = u64> {
    ns().prop_map(|n| n.clamp(LOWEST_NS, HIGHEST_NS))
}

fn hdr(values: &[u64]) -> Hdr {
    let mut hdr = Hdr::new();
    for v in values {
        hdr.record(*v);
    }
    hdr
}

/// What the histogram may be wrong by: three significant digits, and no finer than its lowest value.
fn close(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= LOWEST_NS.max(a.max(b) / 1000)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Ok),
        2 => (0..8_usize).prop_map(|i| Kind::Error(ErrorKind::ALL[i])),
        1 => Just(Kind::Timeout),
        1 => Just(Kind::Lost),
        1 => Just(Kind::Unsent),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    (proptest::option::of(0..1_000_000_u64), 0..1000_u64, 0..1000_u64, ns(), kind()).prop_map(
        |(due, wait, write, took, kind)| {
            let slot_free = due.unwrap_or(5) + wait;
            let sent = (kind != Kind::Unsent).then_some(slot_free + write);
            let ended = sent.unwrap_or(slot_free).saturating_add(took);
            Outcome { due, slot_free, sent, ended, kind, attempts: 1 }
        },
    )
}

fn record(outcomes: &[Outcome], window_end: u64) -> Cell {
    let mut cell = Cell::default();
    for outcome in outcomes {
        cell.record(outcome, window_end);
    }
    cell
}

fn len(hdr: &Option<Hdr>) -> u64 {
    hdr.as_ref().map_or(0, Hdr::len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_quantile_is_the_value_of_its_rank(mut values in vec(within(), 1..60), q in 0.0..=1.0_f64) {
        let hdr = hdr(&values);
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).max(1);
        let got = hdr.quantile(q).unwrap();
        prop_assert!(close(got, values[rank - 1]), "{} against {}", got, values[rank - 1]);
        prop_assert!(close(hdr.max().unwrap(), *values.last().unwrap()));
        let mean = values.iter().map(|v| *v as f64).sum::<f64>() / values.len() as f64;
        prop_assert!((hdr.mean().unwrap() - mean).abs() <= 16.0 + mean / 1000.0);
    }

    #[test]
    fn a_value_outside_the_bounds_is_told_and_kept_at_the_bound(value in ns()) {
        let mut hdr = Hdr::new();
        prop_assert_eq!(hdr.record(value), (LOWEST_NS..=HIGHEST_NS).contains(&value));
        prop_assert_eq!(hdr.len(), 1);
        prop_assert!(close(hdr.max().unwrap(), value.clamp(LOWEST_NS, HIGHEST_NS)));
    }

    #[test]
    fn merging_histograms_is_recording_everything_into_one(a in vec(ns(), 0..40), b in vec(ns(), 0..40)) {
        let mut merged = hdr(&a);
        merged.merge(&hdr(&b));
        prop_assert_eq!(merged, hdr(&[a, b].concat()));
    }

    #[test]
    fn a_histogram_survives_its_encoding(values in vec(ns(), 0..60)) {
        let hdr = hdr(&values);
        prop_assert_eq!(Hdr::decode(&hdr.encode().unwrap()).unwrap(), hdr);
    }

    #[test]
    fn any_bytes_are_a_histogram_or_refused(
        values in vec(ns(), 0..9), noise in vec(any::<u8>(), 0..60),
        cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
    ) {
        let _ = Hdr::decode(&noise);
        let whole = hdr(&values).encode().unwrap();
        prop_assert!(Hdr::decode(&whole[..cut.index(whole.len())]).is_err(), "a torn one is refused");
        // Past the header, whose bounds may ask for more memory than a test should take.
        let mut damaged = whole;
        let last = damaged.len() - 1;
        damaged[(40 + at.index(60)).min(last)] ^= 0x55;
        let _ = Hdr::decode(&damaged);
    }

    #[test]
    fn merging_cells_is_recording_everything_into_one(
        a in vec(outcome(), 0..30), b in vec(outcome(), 0..30), end in 0..2_000_000_u64,
    ) {
        let mut merged = record(&a, end);
        merged.merge(&record(&b, end));
        prop_assert_eq!(merged, record(&[a, b].concat(), end));
    }

    #[test]
    fn merging_cells_adds_every_counter(a in vec(0..1000_u64, 24), b in vec(0..1000_u64, 24)) {
        let cell = |n: &[u64]| Cell {
            due: n[0], sent: n[1], ok: n[2], ok_in_window: n[3], errors: n[4..12].try_into().unwrap(), timeout: n[12],
            lost: n[13], unsent: n[14], partial: n[15], attempts_executed: n[16], attempts_rejected: n[17],
            attempts_unknown: n[18], late: n[19], repair: n[20], bytes_in: n[21], bytes_out: n[22],
            out_of_range: n[23], ..Cell::default()
        };
        let sum: Vec<u64> = a.iter().zip(&b).map(|(x, y)| x + y).collect();
        let mut merged = cell(&a);
        merged.merge(&cell(&b));
        prop_assert_eq!(merged, cell(&sum));
    }

    #[test]
    fn each_request_that_ended_is_counted_once(outcomes in vec(outcome(), 0..60), end in 0..2_000_000_u64) {
        let cell = record(&outcomes, end);
        let of = |f: &dyn Fn(&Outcome) -> bool| count::len(outcomes.iter().filter(|o| f(o)).count());
        prop_assert_eq!(cell.ended(), count::len(outcomes.len()));
        prop_assert_eq!(cell.ok, of(&|o| o.kind == Kind::Ok));
        prop_assert_eq!(cell.ok_in_window, of(&|o| o.kind == Kind::Ok && o.ended <= end));
        prop_assert_eq!(cell.answered_errors(), of(&|o| matches!(o.kind, Kind::Error(_))));
        for kind in ErrorKind::ALL {
            prop_assert_eq!(cell.errors[kind.index()], of(&|o| o.kind == Kind::Error(kind)));
        }
        // Answered errors are beside the latency, not in it; a closed loop has no response time.
        let timed = |o: &Outcome| !matches!(o.kind, Kind::Error(_));
        prop_assert_eq!(len(&cell.response), of(&|o| o.due.is_some() && timed(o)));
        prop_assert_eq!(len(&cell.censored), of(&|o| o.due.is_some() && o.is_censored()));
        prop_assert_eq!(len(&cell.service), cell.ok);
    }

    #[test]
    fn a_quantile_among_the_cut_off_is_a_lower_bound_and_says_so(
        requests in vec((within(), prop::bool::weighted(0.1)), 1..60), at in any::<prop::sample::Index>(),
    ) {
        let rank = at.index(requests.len()) + 1;
        let q = rank as f64 / requests.len() as f64;
        let all: Vec<u64> = requests.iter().map(|r| r.0).collect();
        let cut: Vec<u64> = requests.iter().filter(|r| r.1).map(|r| r.0).collect();
        let got = censored_quantile(&hdr(&all), &hdr(&cut), q).unwrap();
        // The truth lies between each cut-off request ending at its age and never.
        let mut low = all.clone();
        let mut high: Vec<u64> = requests.iter().map(|r| if r.1 { u64::MAX } else { r.0 }).collect();
        low.sort_unstable();
        high.sort_unstable();
        // The rounding of q may ask for the next rank.
        let rank = (q * all.len() as f64).ceil() as usize;
        let (low, high) = (low[rank - 1], high[rank - 1]);
        prop_assert!(close(got.ns, low), "{} against {}", got.ns, low);
        if high == u64::MAX || !close(low, high) {
            prop_assert!(got.censored, "the true value may be {}", high);
        } else if low == high {
            prop_assert!(!got.censored, "the true value is known");
        }
    }
}

#[test]
fn an_empty_histogram_has_no_quantile() {
    let empty = Hdr::new();
    assert_eq!((empty.quantile(0.5), empty.max(), empty.mean()), (None, None, None));
    assert_eq!(censored_quantile(&empty, &empty, 0.5), None);
}

#[test]
fn one_stall_shows_in_the_quantiles_as_censored_when_the_client_gave_up() {
    // 10 s at 2,000/s; in 1 s of them the server stood still and the client gave up after 0.3 s.
    let (mut all, mut cut) = (Hdr::new(), Hdr::new());
    for i in 0..20_000_u64 {
        let wait_ns = if i < 2000 { (2000 - i) * 500_000 } else { 200_000 };
        all.record(wait_ns.min(300_000_000));
        if wait_ns > 300_000_000 {
            cut.record(300_000_000);
        }
    }
    let p99 = censored_quantile(&all, &cut, 0.99).unwrap();
    assert!(p99.censored && close(p99.ns, 300_000_000));
    let p50 = censored_quantile(&all, &cut, 0.5).unwrap();
    assert!(!p50.censored && close(p50.ns, 200_000));
}
