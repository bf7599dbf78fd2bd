//! Numbers as people read them: a unit, three significant digits, thousands kept apart.

use vst_common::count;
use vst_common::latency::Quantile;

/// A duration in nanoseconds: `312 ns`, `1.25 ms`, `61.0 s`.
pub(crate) fn duration(ns: u64) -> String {
    scaled(count::to_f64(ns), &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")])
}

/// A quantile; one that is only a lower bound says so.
pub(crate) fn quantile(q: Quantile) -> String {
    if q.censored { format!("> {}", duration(q.ns)) } else { duration(q.ns) }
}

/// An amount of memory: `1.25 MiB`.
pub(crate) fn bytes(n: f64) -> String {
    const KIB: f64 = 1024.0;
    let units = [(1.0, "B"), (KIB, "KiB"), (KIB.powi(2), "MiB"), (KIB.powi(3), "GiB"), (KIB.powi(4), "TiB")];
    scaled(n, &units)
}

/// A rate per second: `1,250/s`, `0.333/s`.
pub(crate) fn rate(per_second: f64) -> String {
    format!("{}/s", significant(per_second))
}

/// A share as percent: `97.3 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", significant(share * 100.0))
}

/// A ratio near one, as recall is: four decimals, because 0.999 and 0.9999 are not the same.
pub(crate) fn fraction(x: f64) -> String {
    format!("{x:.4}")
}

/// A count with its thousands apart: `10,000`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A float of three significant digits; whole and grouped from a thousand on.
pub(crate) fn significant(x: f64) -> String {
    if !x.is_finite() {
        return String::from("-");
    }
    let (sign, size) = if x < 0.0 { ("-", -x) } else { ("", x) };
    let rounded = match size {
        s if s >= 1000.0 => {
            // Three digits of a large number, the rest zeros.
            let step = 10_f64.powf(s.log10().floor() - 2.0);
            return format!("{sign}{}", grouped(count::from_f64((s / step).round() * step + 0.5)));
        }
        s if s >= 99.95 => format!("{s:.0}"),
        s if s >= 9.995 => format!("{s:.1}"),
        s if s >= 0.9995 => format!("{s:.2}"),
        s if s >= 0.001 => format!("{s:.3}"),
        s if s > 0.0 => format!("{s:.1e}"),
        _ => String::from("0"),
    };
    format!("{sign}{rounded}")
}

/// A node id short enough for a column: cluster ids have 40 hex digits, of which eight tell nodes apart.
pub(crate) fn short_node(node: &str) -> String {
    let is_cluster_id = node.len() == 40 && node.bytes().all(|b| b.is_ascii_hexdigit());
    if is_cluster_id { node.chars().take(8).collect() } else { node.to_owned() }
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    // The largest unit in which the rounded value is at least one.
    let size = value.abs();
    let unit = units.iter().rev().find(|(scale, _)| size >= scale * 0.9995).or(units.first());
    unit.map_or_else(String::new, |(scale, name)| format!("{} {name}", significant(value / scale)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let durations =
            [(0, "0 ns"), (999, "999 ns"), (1_000, "1.00 µs"), (999_949, "1.00 ms"), (1_234_567, "1.23 ms")];
        for (ns, text) in durations {
            assert_eq!(duration(ns), text);
        }
        assert_eq!(duration(61_000_000_000), "61.0 s");
        assert_eq!(quantile(Quantile { ns: 300_000_000, censored: true }), "> 300 ms");
        assert_eq!(bytes(2_067.0), "2.02 KiB");
        assert_eq!(bytes(-512.0), "-512 B");
        assert_eq!(rate(1_234.5), "1,230/s");
        assert_eq!(rate(0.3333), "0.333/s");
        assert_eq!(percent(0.9734), "97.3 %");
        assert_eq!(grouped(1_402_020_720), "1,402,020,720");
        assert_eq!(significant(f64::NAN), "-");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_within_half_a_percent(x in 0.001_f64..1e12) {
            let shown: f64 = significant(x).replace(',', "").parse().unwrap();
            prop_assert!((shown - x).abs() <= 0.0051 * x, "{} for {}", shown, x);
        }
    }
}
