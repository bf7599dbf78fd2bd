//! The curves of a search as files: JSON and CSV for programs, a picture for people.
//!
//! Fed with what a search measured. The picture is one SVG of two panels over throughput: the 99th percentile of response
//! time, and recall. Law: every rate that was measured is in each of the files.

use std::fmt::Write;
use std::path::Path;

use vst_common::count;
use vst_tuning::curve::Knee;
use vst_tuning::figure::{FIGURES, Figure};
use vst_tuning::throughput::Curve;

use crate::error::Failure;

const JSON: &str = "curve.json";
const CSV: &str = "curve.csv";
const SVG: &str = "curve.svg";
/// Colours that people with any colour vision tell apart (Okabe and Ito 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 30.0;
const BELOW: f64 = 50.0;

/// Writes them; gives their names.
pub(super) fn write(folder: &Path, curves: &[Curve]) -> Result<Vec<String>, Failure> {
    let json = serde_json::to_string_pretty(curves)
        .map_err(|e| Failure::new(vst_common::exit::Exit::Bug, format!("curves cannot be written: {e}")))?;
    for (name, text) in [(JSON, json), (CSV, csv(curves)), (SVG, svg(curves))] {
        std::fs::write(folder.join(name), text)?;
    }
    Ok([JSON, CSV, SVG].map(String::from).to_vec())
}

fn csv(curves: &[Curve]) -> String {
    let mut text = String::from("setting,offered_per_second,repeats,at_least");
    for (_, name) in FIGURES {
        let _ = write!(text, ",{name}");
    }
    text.push('\n');
    for curve in curves {
        for rate in &curve.rates {
            let at_least: Vec<&str> = rate.at_least.iter().map(|f| f.as_str()).collect();
            let setting = curve.setting.to_string().replace('"', "\"\"");
            let _ = write!(text, "\"{setting}\",{},{},{}", rate.rate, rate.repeats, at_least.join(" "));
            for (figure, _) in FIGURES {
                match rate.figures.get(&figure) {
                    Some(x) => {
                        let _ = write!(text, ",{x}");
                    }
                    None => text.push(','),
                }
            }
            text.push('\n');
        }
    }
    text
}

/// A scale of one axis.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, x: f64) -> f64 {
        let of = |x: f64| if self.log { x.max(1e-12).ln() } else { x };
        let span = of(self.high) - of(self.low);
        let share = if span > 0.0 { (of(x) - of(self.low)) / span } else { 0.5 };
        self.from + (self.to - self.from) * share
    }

    /// Round values within the range: on a log scale 1, 2, 5 of every decade.
    fn ticks(&self) -> Vec<f64> {
        let inside = |x: &f64| *x >= self.low * 0.999 && *x <= self.high * 1.001;
        if self.log {
            let decades = (-6..12).map(|d| 10f64.powi(d));
            return decades.flat_map(|d| [d, 2.0 * d, 5.0 * d]).filter(inside).collect();
        }
        let raw = (self.high - self.low) / 5.0;
        if raw <= 0.0 {
            return vec![self.low];
        }
        let unit = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * unit).into_iter().find(|s| *s >= raw).unwrap_or(raw);
        let first = (self.low / step).ceil();
        (0..12).map(|i| (first + f64::from(i)) * step).filter(inside).collect()
    }
}

fn points(curve: &Curve, figure: Figure, unit: f64) -> Vec<(f64, f64)> {
    let of = |f: Figure, rate: &vst_tuning::throughput::CurveRate| rate.figures.get(&f).copied();
    curve.rates.iter().filter_map(|r| Some((of(Figure::Qps, r)?, of(figure, r)? / unit))).collect()
}

fn svg(curves: &[Curve]) -> String {
    let legend = 20.0 * count::to_f64(count::len(curves.len())) + 20.0;
    let panel = HEIGHT + TOP + BELOW;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        2.0 * panel + legend
    );
    text.push_str(&one_panel(curves, Figure::P99, 1e6, "p99 of response time, ms", true, 0.0));
    text.push_str(&one_panel(curves, Figure::Recall, 1.0, "recall", false, panel));
    for (i, curve) in curves.iter().enumerate() {
        let y = 2.0 * panel + 20.0 * count::to_f64(count::len(i));
        let colour = COLOURS.get(i % COLOURS.len()).copied().unwrap_or("black");
        let setting = curve.setting.to_string().replace("--set ", "");
        let name = if setting.is_empty() { String::from("the scenario as it is") } else { escaped(&setting) };
        let _ = writeln!(
            text,
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\">{name}</text>",
            LEFT + 20.0,
            y + 11.0
        );
    }
    text.push_str("</svg>\n");
    text
}

fn one_panel(curves: &[Curve], figure: Figure, unit: f64, title: &str, log: bool, top: f64) -> String {
    let all: Vec<(f64, f64)> = curves.iter().flat_map(|c| points(c, figure, unit)).collect();
    let mut text = format!("<text x=\"{LEFT}\" y=\"{}\">{title}</text>\n", top + 18.0);
    if all.is_empty() {
        let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"{}\">not measured</text>", top + 40.0);
        return text;
    }
    let range = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        (low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    };
    let (_, most) = range(all.iter().map(|p| p.0).collect());
    let (least, highest) = range(all.iter().map(|p| p.1).collect());
    let (low, high) = if log {
        (least * 0.8, highest * 1.25)
    } else {
        ((least - 0.01).max(0.0), (highest + 0.01).min(1.0))
    };
    let x = Axis { low: 0.0, high: most * 1.05, log: false, from: LEFT, to: WIDTH - 20.0 };
    let y = Axis { low, high, log, from: top + TOP + HEIGHT, to: top + TOP };
    for tick in x.ticks() {
        let at = x.at(tick);
        let _ = writeln!(
            text,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            y.from,
            y.to,
            y.from + 16.0
        );
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        let shown = if log { format!("{tick}") } else { format!("{tick:.3}") };
        let _ = writeln!(
            text,
            "<line x1=\"{}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{shown}</text>",
            x.from,
            x.to,
            LEFT - 6.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">achieved, per second</text>",
        WIDTH - 20.0,
        y.from + 34.0
    );
    for (i, curve) in curves.iter().enumerate() {
        let colour = COLOURS.get(i % COLOURS.len()).copied().unwrap_or("black");
        let places: Vec<(f64, f64)> =
            points(curve, figure, unit).iter().map(|(a, b)| (x.at(*a), y.at(*b))).collect();
        let line: Vec<String> = places.iter().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            line.join(" ")
        );
        for (a, b) in places {
            let _ = writeln!(text, "<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        if let Knee::At(knee) = curve.knee
            && log
        {
            let at = x.at(knee.value);
            let _ = writeln!(
                text,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"{colour}\" stroke-dasharray=\"4 4\"/>",
                y.from, y.to
            );
        }
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vst_tuning::throughput::CurveRate;
    use vst_tuning::tune::{Setting, Value};

    use super::*;

    fn curve() -> Curve {
        let rate = |rate: f64| CurveRate {
            rate,
            repeats: 1,
            figures: BTreeMap::from([(Figure::Qps, rate), (Figure::P99, 1e6 + rate * 1e3)]),
            at_least: Vec::new(),
        };
        Curve {
            setting: Setting(BTreeMap::from([(String::from("a<b"), Value::Int(1))])),
            capacity: None,
            rates: [100.0, 200.0, 350.0].map(rate).to_vec(),
            knee: Knee::Unknown,
            recall: None,
        }
    }

    #[test]
    fn every_rate_is_a_line_of_the_csv_and_a_dot_of_the_picture() {
        let curves = [curve()];
        assert_eq!(csv(&curves).lines().count(), 4);
        let picture = svg(&curves);
        assert_eq!(picture.matches("<circle").count(), 3);
        assert!(picture.contains("a&lt;b=1") && picture.contains("not measured"), "{picture}");
    }
}
