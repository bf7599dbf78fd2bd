//! A comparison for a terminal, for a pull request and for CI.
//!
//! Law: each shows every verdict with its interval and the smallest effect that it could have seen.

use std::fmt::Write as _;

use super::{Call, Comparison, Judgement, Metric};
use crate::number;

/// The verdict in one line.
pub(crate) fn headline(comparison: &Comparison) -> String {
    let regressions = comparison.regressions().count();
    let judged = comparison.judgements.iter().filter(|j| j.call != Call::TooShort).count();
    match (regressions, judged) {
        (0, 0) => String::from("NOTHING COMPARED"),
        (0, n) if comparison.doubts.is_empty() => format!("NO REGRESSION in {n} comparisons"),
        (0, n) => format!("IN DOUBT: no regression in {n} comparisons, see below"),
        (1, n) => format!("REGRESSION in 1 of {n} comparisons"),
        (r, n) => format!("REGRESSION in {r} of {n} comparisons"),
    }
}

fn word(call: Call) -> &'static str {
    match call {
        Call::Regression => "REGRESSION",
        Call::Improvement => "improvement",
        Call::Unchanged => "unchanged",
        Call::WithinNoise => "within noise",
        Call::TooShort => "too short",
    }
}

fn value(metric: Metric, x: f64) -> String {
    match metric {
        Metric::Throughput => number::rate(x),
        Metric::P99 => number::duration(vst_common::count::from_f64(x)),
        Metric::Recall => number::fraction(x),
        Metric::Memory => format!("{} B", number::significant(x)),
    }
}

fn change(metric: Metric, x: f64) -> String {
    let sign = if x > 0.0 { "+" } else { "" };
    match metric {
        Metric::Recall => format!("{sign}{x:.4}"),
        _ => format!("{sign}{}", number::percent(x)),
    }
}

fn unsigned(metric: Metric, x: Option<f64>) -> String {
    x.map_or_else(|| String::from("-"), |x| change(metric, x).trim_start_matches('+').to_owned())
}

pub(crate) const HEADER: [&str; 9] =
    ["phase", "metric", "baseline", "candidate", "change", "±", "tolerated", "smallest seen", "verdict"];

pub(crate) fn cells(j: &Judgement) -> [String; 9] {
    let metric = match &j.operation {
        Some(operation) if j.metric != Metric::Recall => format!("{operation} {}", j.metric.as_str()),
        _ => j.metric.as_str().to_owned(),
    };
    [
        j.phase.clone(),
        metric,
        value(j.metric, j.baseline),
        value(j.metric, j.candidate),
        change(j.metric, j.change),
        unsigned(j.metric, j.margin),
        unsigned(j.metric, Some(j.threshold)),
        unsigned(j.metric, j.smallest_effect),
        word(j.call).to_owned(),
    ]
}

/// How to read the table.
pub(crate) fn explanation(comparison: &Comparison) -> String {
    format!(
        "± is half the interval of the change at {} for all verdicts together, autocorrelation included; a change counts \
         beyond both ± and what is tolerated. An effect as large as `smallest seen` would be called in 4 of 5 comparisons.",
        number::percent(comparison.confidence)
    )
}

pub(super) fn text(comparison: &Comparison) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::TableStyle::new()).set_header(HEADER);
    for judgement in &comparison.judgements {
        table.add_row(cells(judgement));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut out = format!("{}\n{}\n{}\n", headline(comparison), table.trim_fmt(), explanation(comparison));
    for doubt in &comparison.doubts {
        let _ = writeln!(out, "in doubt: {doubt}");
    }
    out
}

pub(super) fn markdown(comparison: &Comparison) -> String {
    let mut out = format!("## {}\n\n| {} |\n|", headline(comparison), HEADER.join(" | "));
    out.push_str(&" --- |".repeat(HEADER.len()));
    out.push('\n');
    for judgement in &comparison.judgements {
        let cells = cells(judgement).map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    let _ = write!(out, "\n{}\n", explanation(comparison));
    for doubt in &comparison.doubts {
        let _ = write!(out, "\n- in doubt: {doubt}\n");
    }
    let runs = |directories: &[String]| directories.join(", ");
    let _ = write!(
        out,
        "\nBaseline: {}\nCandidate: {}\n",
        runs(&comparison.baseline),
        runs(&comparison.candidate)
    );
    out
}

pub(super) fn junit(comparison: &Comparison) -> String {
    let doubtful = comparison.doubts.len();
    let tests = comparison.judgements.len() + doubtful;
    let skipped = comparison.judgements.iter().filter(|j| j.call == Call::TooShort).count();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"vst regress\" tests=\"{tests}\" \
         failures=\"{}\" errors=\"{doubtful}\" skipped=\"{skipped}\">\n",
        comparison.regressions().count()
    );
    for judgement in &comparison.judgements {
        let cells = cells(judgement);
        let [phase, metric, ..] = &cells;
        let said: Vec<String> =
            HEADER.iter().zip(&cells).map(|(name, cell)| format!("{name}: {cell}")).collect();
        let said = escape(&said.join(", "));
        let inside = match judgement.call {
            Call::Regression => format!("<failure message=\"{said}\"/>"),
            Call::TooShort => format!("<skipped message=\"{said}\"/>"),
            Call::Improvement | Call::Unchanged | Call::WithinNoise => {
                format!("<system-out>{said}</system-out>")
            }
        };
        let _ = writeln!(
            out,
            "<testcase classname=\"{}\" name=\"{}\">{inside}</testcase>",
            escape(phase),
            escape(metric)
        );
    }
    for doubt in &comparison.doubts {
        let text = escape(doubt);
        let _ = writeln!(
            out,
            "<testcase classname=\"comparison\" name=\"{text}\"><error message=\"{text}\"/></testcase>"
        );
    }
    out.push_str("</testsuite>\n</testsuites>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
