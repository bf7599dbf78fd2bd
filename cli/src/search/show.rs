//! What a person reads of a search: a line per point, and the result.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value as Json;
use vst_tuning::compare::{self, Call};
use vst_tuning::constraint::Constraint;
use vst_tuning::curve::{Knee, Standing};
use vst_tuning::figure::{Figure, Scale, Unit};
use vst_tuning::limit::{self, Ended};
use vst_tuning::measured::Event;
use vst_tuning::statistics::Interval;
use vst_tuning::sweep;
use vst_tuning::throughput::{self, Carried, Curve, Offered, ThroughputSpec};
use vst_tuning::tune::{self, Setting};

use super::bench::{BenchSpec, CLIENTS, CONNECTIONS, Point};

/// Three significant digits.
fn digits(x: f64) -> String {
    let magnitude = if x.abs() > 0.0 { x.abs().log10().floor() } else { 0.0 };
    match magnitude {
        m if m >= 2.0 => format!("{x:.0}"),
        m if m >= 1.0 => format!("{x:.1}"),
        m if m >= 0.0 => format!("{x:.2}"),
        m if m >= -1.0 => format!("{x:.3}"),
        _ => format!("{x:.4}"),
    }
}

/// A value with its unit.
pub(super) fn value(figure: Figure, x: f64) -> String {
    match figure.unit() {
        Unit::Rate => format!("{}/s", digits(x)),
        Unit::Share if figure == Figure::Recall => format!("{x:.4}"),
        Unit::Share => format!("{} %", digits(x * 100.0)),
        Unit::Time if x >= 1e9 => format!("{} s", digits(x / 1e9)),
        Unit::Time if x >= 1e6 => format!("{} ms", digits(x / 1e6)),
        Unit::Time => format!("{} us", digits(x / 1e3)),
        Unit::Size if x >= f64::from(1u32 << 30) => format!("{} GiB", digits(x / f64::from(1u32 << 30))),
        Unit::Size if x >= f64::from(1u32 << 20) => format!("{} MiB", digits(x / f64::from(1u32 << 20))),
        Unit::Size => format!("{} B", digits(x)),
    }
}

fn interval(figure: Figure, i: &Interval) -> String {
    let high = if i.high >= f64::MAX { String::from("...") } else { value(figure, i.high) };
    format!("{} [{}, {high}]", value(figure, i.value), value(figure, i.low))
}

/// A setting in few words: last keys only.
fn short(setting: &Setting) -> String {
    let words = setting.0.iter().map(|(path, value)| {
        let key = path.rsplit('.').next().unwrap_or(path);
        format!("{key} {value}")
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { String::from("the scenario as it is") } else { words.join(", ") }
}

/// One point, for the progress.
pub(super) fn point(n: usize, point: &Point) -> String {
    let offered = match point.offered {
        Offered::FlatOut => String::from("closed loop"),
        Offered::Rate(rate) => format!("{}/s offered", digits(rate)),
    };
    let mut text = format!("{n:>4}  {}, {offered}:", short(&point.setting));
    match &point.event {
        Event::Invalid(why) => {
            let _ = write!(text, " not valid, is repeated: {why}");
        }
        Event::Measured(measured) => {
            for figure in [Figure::Qps, Figure::P50, Figure::P99, Figure::Recall, Figure::ErrorRate] {
                let Some(reading) = measured.figures.get(&figure) else { continue };
                if figure == Figure::ErrorRate && reading.value <= 0.0 {
                    continue;
                }
                let sign = if reading.at_least { "> " } else { "" };
                let _ = write!(text, "  {figure} {sign}{}", value(figure, reading.value));
            }
        }
    }
    text
}

/// Where the files are.
pub(super) fn files(folder: &Path, names: &[String]) -> String {
    let mut text = format!("\n{}: search.json, runs/", folder.display());
    for name in names {
        let _ = write!(text, ", {name}");
    }
    text.push('\n');
    text
}

/// The command that runs a setting alone.
pub(super) fn command(
    spec: &BenchSpec,
    queries: &str,
    setting: &Setting,
    offered: Option<Offered>,
) -> String {
    let mut words = vec![String::from("vst run scenario"), quoted(&spec.scenario)];
    if let Some(target) = &spec.target {
        words.push(format!("--target {}", quoted(target)));
    }
    let (mut clients, mut connections) = (spec.clients.to_string(), spec.connections.to_string());
    let mut sets = spec.set.clone();
    for (path, value) in &setting.0 {
        match path.as_str() {
            CLIENTS => clients = value.to_string(),
            CONNECTIONS => connections = value.to_string(),
            path => sets.push(format!("{path}={value}")),
        }
    }
    match offered {
        Some(Offered::Rate(rate)) => {
            let rate = rate.floor();
            sets.push(format!(
                "phases.{queries}.query.load={{open: {{rate: {rate}/s, connections: {connections}}}}}"
            ));
        }
        Some(Offered::FlatOut) => {
            sets.push(format!("phases.{queries}.query.load={{closed: {{clients: {clients}, pipeline: 1}}}}"))
        }
        None => {}
    }
    sets.push(format!("phases.{queries}.query.warm_up={}", spec.warm_up));
    sets.push(format!("phases.{queries}.query.duration={}", spec.length));
    words.extend(sets.iter().map(|set| format!("--set {}", quoted(set))));
    words.join(" ")
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn carried(carried: &Carried) -> String {
    use limit::Conclusion;
    let mut text = match &carried.limit.conclusion {
        Conclusion::Limit { rate, confidence, binding, ended, .. } => {
            let why = match ended {
                Ended::Narrow => "",
                Ended::Noise => "; the noise allows no narrower interval",
                Ended::Budget => "; the budget allows no narrower interval",
            };
            format!(
                "{} ({:.0} %), `{binding}` breaks first{why}",
                interval(Figure::Qps, rate),
                confidence * 100.0
            )
        }
        Conclusion::AboveCeiling { ceiling } => {
            format!("at least {}: everything still holds there", value(Figure::Qps, *ceiling))
        }
        Conclusion::Infeasible { binding, rate, value: v } => format!(
            "infeasible: `{binding}` is broken already at {}, where it is {}",
            value(Figure::Qps, *rate),
            value(binding.figure(), *v)
        ),
        Conclusion::Unknown { holds_at, fails_at } => {
            let at =
                |rate: &Option<f64>| rate.map_or(String::from("nowhere known"), |r| value(Figure::Qps, r));
            format!("not known: all holds at {}, something breaks at {}", at(holds_at), at(fails_at))
        }
        Conclusion::Abandoned { reason } => format!("given up: {reason}"),
    };
    for finding in &carried.limit.findings {
        let _ = match finding {
            limit::Finding::NonMonotone { fails_at, passes_at } => write!(
                text,
                "; not monotone: fails at {} and holds again at {}",
                value(Figure::Qps, *fails_at),
                value(Figure::Qps, *passes_at)
            ),
            limit::Finding::Drift { rate, figure, before, after } => write!(
                text,
                "; drifts: {figure} at {} went from {} to {}",
                value(Figure::Qps, *rate),
                value(*figure, *before),
                value(*figure, *after)
            ),
        };
    }
    text
}

fn candidates(outcome: &tune::Outcome) -> String {
    let mut text = String::new();
    for candidate in &outcome.candidates {
        let holds = match candidate.holds {
            Some(true) => "holds",
            Some(false) => "breaks",
            None => "cannot be told",
        };
        let _ = write!(text, "  {:<24} {holds:<14}", short(&candidate.setting));
        for (figure, x) in &candidate.figures {
            let _ = match candidate.intervals.get(figure) {
                Some(known) => write!(text, "  {figure} {}", interval(*figure, known)),
                None => write!(text, "  {figure} {}", value(*figure, *x)),
            };
        }
        let _ = writeln!(text, "  n {}", candidate.repeats);
    }
    text
}

fn bounds(constraints: &[Constraint]) -> String {
    let texts: Vec<String> = constraints.iter().map(|c| format!("`{c}`")).collect();
    texts.join(" and ")
}

fn conclusion(outcome: &tune::Outcome, figure: Figure) -> String {
    let mut text = match &outcome.conclusion {
        tune::Conclusion::Winner { setting, value, confidence } => {
            format!(
                "{figure} {} ({:.0} %) with {}\n",
                interval(figure, value),
                confidence * 100.0,
                short(setting)
            )
        }
        tune::Conclusion::Tie { settings, value, confidence } => {
            let others: Vec<String> = settings.iter().skip(1).map(short).collect();
            format!(
                "{figure} {} ({:.0} %) with {}; as good within the noise: {}\n",
                interval(figure, value),
                confidence * 100.0,
                settings.first().map(short).unwrap_or_default(),
                others.join("; ")
            )
        }
        tune::Conclusion::Infeasible { binding, closest } => format!(
            "infeasible: no setting keeps {}; {} comes closest\n",
            bounds(binding),
            short(&closest.setting)
        ),
        tune::Conclusion::Unsure { undecided, closest } if undecided.is_empty() => format!(
            "not decided: {} keeps everything, but the search ended before its {figure} was told; allow more --budget\n",
            short(&closest.setting)
        ),
        tune::Conclusion::Unsure { undecided, closest } => format!(
            "not decided: the measurements do not tell whether any setting keeps {}; {} comes closest. Longer points \
             (--length), more repeats (--setting-repeats) or more --budget would tell\n",
            bounds(undecided),
            short(&closest.setting)
        ),
        tune::Conclusion::Abandoned { reason } => format!("given up: {reason}\n"),
    };
    for finding in &outcome.findings {
        let _ = match finding {
            tune::Finding::NonMonotone { path, figure } => {
                writeln!(text, "not monotone: {figure} goes up and down along `{path}`")
            }
            tune::Finding::FewQueries { constraint, settings } => {
                let all: Vec<String> = settings.iter().map(short).collect();
                writeln!(
                    text,
                    "`{constraint}` holds on the queries that were asked; they are too few to say so of others: {}",
                    all.join("; ")
                )
            }
            tune::Finding::Unsure { settings } => {
                let all: Vec<String> = settings.iter().map(short).collect();
                writeln!(
                    text,
                    "the noise does not tell whether these keep the constraints: {}",
                    all.join("; ")
                )
            }
        };
    }
    if outcome.is_cut_short {
        text.push_str("the budget was spent before the search had ended\n");
    }
    text
}

/// The result of a search for the best setting.
pub(super) fn settings(outcome: &tune::Outcome, figure: Figure, again: Option<&str>) -> String {
    let mut text = conclusion(outcome, figure);
    let _ = writeln!(text, "\nsettings, {} points, {} requests:", outcome.measurements, outcome.requests);
    text.push_str(&candidates(outcome));
    if let Some(again) = again {
        let _ = writeln!(text, "\nalone again:\n  {again}");
    }
    text
}

/// The result of a search for throughput.
pub(super) fn throughput(
    outcome: &throughput::Outcome,
    spec: &ThroughputSpec,
    again: Option<&str>,
) -> String {
    let under = if spec.constraints.is_empty() {
        String::new()
    } else {
        format!(" under {}", bounds(&spec.constraints))
    };
    let mut text = format!("most queries per second{under}:\n");
    match &outcome.settings {
        Some(settings) => text.push_str(&conclusion(settings, Figure::Qps)),
        None => {
            if let Some(last) = outcome.limits.last() {
                let _ = writeln!(text, "{}", carried(last));
            }
        }
    }
    let _ = writeln!(text, "\nmeasured: {} points, {} requests", outcome.measurements, outcome.requests);
    if let Some(settings) = &outcome.settings {
        text.push_str("settings, constraints judged at the lowest rate:\n");
        text.push_str(&candidates(settings));
        text.push_str("limits:\n");
        for one in &outcome.limits {
            let _ = writeln!(text, "  {:<24} {}", short(&one.setting), carried(one));
        }
    }
    if let Some(again) = again {
        let _ = writeln!(text, "\nalone again, at the lower end of the interval:\n  {again}");
    }
    text
}

fn knee(curve: &Curve) -> String {
    match curve.knee {
        Knee::At(i) => interval(Figure::Qps, &i),
        Knee::Above(rate) => format!("above {}", value(Figure::Qps, rate)),
        Knee::Below(rate) => format!("below {}", value(Figure::Qps, rate)),
        Knee::Unknown => String::from("not known"),
    }
}

/// The result of a sweep.
pub(super) fn sweep(outcome: &sweep::Outcome) -> String {
    let mut text = String::new();
    for swept in &outcome.settings {
        let _ = writeln!(text, "{}", short(&swept.curve.setting));
        let _ = writeln!(text, "  limit   {}", carried(&swept.limit));
        let _ = writeln!(text, "  knee    {}", knee(&swept.curve));
        if let Some(recall) = &swept.curve.recall {
            let _ = writeln!(text, "  recall  {}", interval(Figure::Recall, recall));
        }
        let standing = match swept.standing {
            Some(Standing::Front) => "on the front of throughput against recall",
            Some(Standing::Contested) => "beaten, but only within the noise",
            Some(Standing::Dominated) => "beaten in both throughput and recall",
            None => "not placed: its limit or its recall is not known",
        };
        let _ = writeln!(text, "  stands  {standing}");
        let _ =
            writeln!(text, "  {:>10} {:>10} {:>10} {:>10} {:>3}", "offered", "achieved", "p50", "p99", "n");
        for rate in &swept.curve.rates {
            let shown = |figure: Figure| {
                let sign = if rate.at_least.contains(&figure) { ">" } else { "" };
                rate.figures
                    .get(&figure)
                    .map_or(String::from("-"), |x| format!("{sign}{}", value(figure, *x)))
            };
            let _ = writeln!(
                text,
                "  {:>10} {:>10} {:>10} {:>10} {:>3}",
                value(Figure::Qps, rate.rate),
                shown(Figure::Qps),
                shown(Figure::P50),
                shown(Figure::P99),
                rate.repeats
            );
        }
    }
    if let Some(reason) = &outcome.abandoned {
        let _ = writeln!(text, "given up: {reason}");
    }
    let _ = writeln!(text, "measured: {} points, {} requests", outcome.measurements, outcome.requests);
    text
}

/// The result of a comparison.
pub(super) fn compare(outcome: &compare::Outcome, a: &Setting, b: &Setting, identities: &[Json]) -> String {
    let mut text = format!("A: {}\nB: {}\n", short(a), short(b));
    for identity in identities {
        let of = |pointer: &str| identity.pointer(pointer).and_then(Json::as_str).unwrap_or("?").to_owned();
        let _ = writeln!(
            text,
            "ran: {} on {} (server {}), run {}",
            of("/machine/cpu"),
            of("/target/url"),
            of("/target/server_version"),
            of("/run")
        );
    }
    for one in &outcome.compared {
        let change = |x: f64| match one.figure.scale() {
            Scale::Log => format!("{:+.2} %", x * 100.0),
            Scale::Linear => format!("{x:+.4}"),
        };
        let call = match one.call {
            Call::Equal => String::from("equal"),
            Call::Different => String::from("different"),
            Call::TooSmallToSee => {
                format!("too small to see: {} would have been seen", change(one.smallest_effect))
            }
        };
        let _ = writeln!(
            text,
            "{}: A {}, B {}, change {} [{}, {}] ({:.0} % together), {} matters: {call}",
            one.figure,
            value(one.figure, one.a),
            value(one.figure, one.b),
            change(one.change.value),
            change(one.change.low),
            change(one.change.high),
            outcome.confidence * 100.0,
            change(one.margin)
        );
    }
    if let Some(reason) = &outcome.abandoned {
        let _ = writeln!(text, "given up: {reason}");
    }
    let ended = if outcome.narrow { "the intervals are narrow enough" } else { "the blocks ran out" };
    let _ = writeln!(text, "{} blocks of A B B A, {} requests; {ended}", outcome.blocks, outcome.requests);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_their_unit() {
        assert_eq!(value(Figure::Qps, 2412.3), "2412/s");
        assert_eq!(value(Figure::P99, 9.876e6), "9.88 ms");
        assert_eq!(value(Figure::P50, 480e3), "480 us");
        assert_eq!(value(Figure::Recall, 0.95), "0.9500");
        assert_eq!(value(Figure::ErrorRate, 0.001), "0.100 %");
        assert_eq!(value(Figure::BytesPerVector, 2067.0), "2067 B");
    }

    #[test]
    fn a_value_that_a_shell_would_split_is_quoted() {
        assert_eq!(quoted("index.m=16"), "index.m=16");
        assert_eq!(quoted("load={open: {rate: 5/s}}"), "'load={open: {rate: 5/s}}'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
