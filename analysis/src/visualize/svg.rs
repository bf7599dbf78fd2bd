//! A chart as an SVG file, for documents and slides.
//!
//! Draws what `chart` gives, by hand: axes at round numbers, bands of phases, lines, a legend. Law: everything lies within
//! the picture, a line breaks where a value is not known, and no name breaks out of its text.

use std::fmt::Write as _;

use vst_common::count;

use super::chart::{Cells, Chart, Line, Unit};
use crate::number;

const WIDTH: f64 = 960.0;
/// Height of the part with axes.
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 34.0;
/// Height of a line of the legend, and width that a letter takes in it.
const LEGEND_LINE: f64 = 18.0;
const LETTER: f64 = 6.3;
/// Ticks that an axis has about.
const TICKS: f64 = 6.0;
const COLOURS: [&str; 8] =
    ["#2563eb", "#d9480f", "#2b8a3e", "#9c36b5", "#c2255c", "#0b7285", "#866118", "#5c677d"];

/// An axis: its values and where they lie in the picture.
struct Scale {
    unit: Unit,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    is_log: bool,
}

impl Scale {
    /// Over these values, with room for a line that is flat; bytes and rates begin at zero.
    fn over(values: impl Iterator<Item = f64>, unit: Unit, is_log: bool, from: f64, to: f64) -> Self {
        let values = values.filter(|v| v.is_finite() && (!is_log || *v > 0.0));
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            (low, high) = (1.0, 2.0);
        }
        if is_log {
            low = 10_f64.powf(low.log10().floor());
            high = 10_f64.powf(high.log10().ceil()).max(low * 10.0);
        } else if matches!(unit, Unit::Bytes | Unit::PerSecond | Unit::Plain) && low >= 0.0 && to < from {
            // Upwards only: memory on the horizontal axis is spread out instead.
            low = 0.0;
            high *= 1.05;
        }
        if high <= low {
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.05 };
            (low, high) = (low - room, high + room);
        }
        Self { unit, low, high, from, to, is_log }
    }

    fn at(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.low).log10() - self.low.log10()) / (self.high.log10() - self.low.log10())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round numbers within the axis.
    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let first = self.low.log10().ceil();
            let ticks = (0..20).map(|n| 10_f64.powf(first + f64::from(n)));
            return ticks.take_while(|tick| *tick <= self.high * 1.000_001).collect();
        }
        let step = self.step();
        let first = (self.low / step).ceil();
        let ticks = (0..40).map(|n| (first + f64::from(n)) * step);
        ticks.take_while(|tick| *tick <= self.high + step * 1e-6).collect()
    }

    fn step(&self) -> f64 {
        let rough = (self.high - self.low) / TICKS;
        if self.unit == Unit::Bytes {
            return 2_f64.powf(rough.log2().ceil());
        }
        let ten = 10_f64.powf(rough.log10().floor());
        [1.0, 2.0, 5.0].into_iter().map(|n| n * ten).find(|step| *step >= rough).unwrap_or(10.0 * ten)
    }

    fn written(&self, value: f64) -> String {
        let whole = count::from_f64(value.max(0.0).round());
        match self.unit {
            Unit::Elapsed if self.high < 120.0 => format!("{} s", number::significant(value)),
            Unit::Elapsed => {
                let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
                if self.high < 3600.0 {
                    format!("{minutes:02}:{seconds:02}")
                } else {
                    format!("{hours}:{minutes:02}:{seconds:02}")
                }
            }
            Unit::Bytes => number::bytes(value),
            Unit::PerSecond => number::rate(value),
            Unit::Nanoseconds => number::duration(whole),
            Unit::Share => number::fraction(value),
            Unit::Nines => {
                let digits = count::index(count::from_f64((value.ceil() - 2.0).max(0.0)));
                format!("p{:.digits$}", 100.0 * (1.0 - 10_f64.powf(-value)))
            }
            Unit::Plain => number::significant(value),
        }
    }
}

/// The file's text.
pub(super) fn draw(chart: &Chart) -> String {
    let legend = legend(&chart.lines);
    let height = HEIGHT + legend.height;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#1d2126\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"600\">{}</text>\n",
        escaped(&chart.title)
    );
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let bands = chart.bands.iter().flat_map(|band| [band.from, band.to]);
    let columns = chart.cells.iter().flat_map(|cells| &cells.at).copied();
    let xs = points().filter(|(_, y)| y.is_some()).map(|(x, _)| *x).chain(bands).chain(columns);
    let x = Scale::over(xs, chart.x, false, LEFT, WIDTH - RIGHT);
    let y = Scale::over(points().filter_map(|(_, y)| *y), chart.y, chart.is_log, HEIGHT - BOTTOM, TOP);
    draw_bands(&mut out, chart, &x);
    draw_ticks(
        &mut out,
        &x,
        |at| (at, HEIGHT - BOTTOM + 16.0, "middle"),
        |at| (at, TOP, at, HEIGHT - BOTTOM),
    );
    match &chart.cells {
        Some(cells) => draw_cells(&mut out, cells, &x),
        None => {
            draw_ticks(&mut out, &y, |at| (LEFT - 7.0, at + 4.0, "end"), |at| (LEFT, at, WIDTH - RIGHT, at))
        }
    }
    for line in &chart.lines {
        draw_line(&mut out, line, &x, &y);
    }
    out.push_str(&legend.text);
    out.push_str("</svg>\n");
    out
}

fn draw_bands(out: &mut String, chart: &Chart, x: &Scale) {
    let mut free = 0.0;
    for (i, band) in chart.bands.iter().enumerate() {
        let (from, to) = (x.at(band.from), x.at(band.to));
        if i % 2 == 0 && to > from {
            let (width, height) = (to - from, HEIGHT - BOTTOM - TOP);
            let _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\" fill=\"#6b7c93\" \
                 fill-opacity=\"0.08\"/>"
            );
        }
        let width = width_of(&band.name);
        if width + 6.0 < to - from && from > free {
            let name = escaped(&band.name);
            let (left, base) = (from + 3.0, TOP + 12.0);
            let _ = writeln!(
                out,
                "<text x=\"{left:.1}\" y=\"{base}\" font-size=\"10.5\" fill=\"#646c76\">{name}</text>"
            );
            free = from + width;
        }
    }
}

fn draw_ticks(
    out: &mut String,
    scale: &Scale,
    text_at: impl Fn(f64) -> (f64, f64, &'static str),
    line_at: impl Fn(f64) -> (f64, f64, f64, f64),
) {
    for tick in scale.ticks() {
        let at = scale.at(tick);
        let ((x, y, anchor), (x1, y1, x2, y2)) = (text_at(at), line_at(at));
        let text = escaped(&scale.written(tick));
        let _ = writeln!(
            out,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dfe2e6\"/>\
             <text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#646c76\">{text}</text>"
        );
    }
}

fn draw_cells(out: &mut String, cells: &Cells, x: &Scale) {
    let most = cells.values.iter().flatten().fold(1.0_f64, |most, value| most.max(*value));
    let rows = count::to_f64(count::len(cells.rows.len())).max(1.0);
    let each = (HEIGHT - BOTTOM - TOP) / rows;
    for (i, (name, values)) in cells.rows.iter().zip(&cells.values).enumerate() {
        let top = HEIGHT - BOTTOM - each * (count::to_f64(count::len(i)) + 1.0);
        let base = top + each / 2.0 + 3.0;
        let size = each.clamp(5.0, 11.0);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\" font-size=\"{size:.1}\" fill=\"#646c76\">{}</text>",
            LEFT - 7.0,
            escaped(name)
        );
        for (at, value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let Some(here) = cells.at.get(at) else { continue };
            // Up to halfway to its neighbours.
            let beside = |other: Option<&f64>| other.map_or(*here, |other| (here + other) / 2.0);
            let from = x.at(beside(at.checked_sub(1).and_then(|n| cells.at.get(n))));
            let to = x.at(beside(cells.at.get(at + 1))).max(from + 1.0).min(WIDTH - RIGHT);
            // A root, so that small classes are seen beside large ones.
            let ink = (value / most).sqrt().max(0.04);
            let (width, height) = ((to - from).max(0.0), each * 0.92);
            let _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{}\" \
                 fill-opacity=\"{ink:.2}\"/>",
                COLOURS[0]
            );
        }
    }
}

fn draw_line(out: &mut String, line: &Line, x: &Scale, y: &Scale) {
    let colour = colour(line);
    let dash = if line.is_dashed { " stroke-dasharray=\"4 3\"" } else { "" };
    for stretch in line.points.split(|(_, y)| y.is_none()) {
        let places: Vec<(f64, f64)> =
            stretch.iter().filter_map(|(a, b)| Some((x.at(*a), y.at((*b)?)))).collect();
        if line.is_cloud || places.len() == 1 {
            for (a, b) in places {
                let _ = writeln!(out, "<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"2.5\" fill=\"{colour}\"/>");
            }
        } else if !places.is_empty() {
            let path: Vec<String> = places.iter().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
            let path = path.join(" ");
            let _ = writeln!(
                out,
                "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dash}/>"
            );
        }
    }
}

fn colour(line: &Line) -> &'static str {
    COLOURS.get(line.colour % COLOURS.len()).copied().unwrap_or("#000000")
}

struct Legend {
    text: String,
    height: f64,
}

/// Names beside their colours, in as many lines as they need.
fn legend(lines: &[Line]) -> Legend {
    let mut out = String::new();
    let (mut left, mut base) = (LEFT, HEIGHT + 10.0);
    for line in lines {
        let width = 26.0 + width_of(&line.label);
        if left > LEFT && left + width > WIDTH - RIGHT {
            (left, base) = (LEFT, base + LEGEND_LINE);
        }
        let dash = if line.is_dashed { " stroke-dasharray=\"4 3\"" } else { "" };
        let (from, to, text, middle) = (left, left + 14.0, left + 18.0, base - 4.0);
        let _ = writeln!(
            out,
            "<line x1=\"{from:.1}\" y1=\"{middle:.1}\" x2=\"{to:.1}\" y2=\"{middle:.1}\" stroke=\"{}\" \
             stroke-width=\"2\"{dash}/><text x=\"{text:.1}\" y=\"{base:.1}\">{}</text>",
            colour(line),
            escaped(&line.label)
        );
        left += width + 8.0;
    }
    let height = if lines.is_empty() { 0.0 } else { base - HEIGHT + LEGEND_LINE };
    Legend { text: out, height }
}

fn width_of(text: &str) -> f64 {
    LETTER * count::to_f64(count::len(text.chars().count()))
}

/// Text within an element; what XML does not allow at all is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::chart::Band;
    use super::*;

    fn chart(lines: Vec<Line>, is_log: bool) -> Chart {
        Chart {
            id: "memory",
            title: String::from("Memory"),
            x: Unit::Elapsed,
            y: Unit::Bytes,
            is_log,
            bands: vec![Band { name: String::from("load"), from: 0.0, to: 10.0 }],
            lines,
            cells: None,
        }
    }

    fn line(label: &str, points: Vec<(f64, Option<f64>)>) -> Line {
        Line { label: label.to_owned(), points, colour: 3, is_dashed: false, is_cloud: false }
    }

    /// Every pair of numbers of every stretch of line.
    fn places(svg: &str) -> Vec<Vec<(f64, f64)>> {
        let lists = svg.split("points=\"").skip(1).filter_map(|rest| rest.split('"').next());
        lists
            .map(|list| {
                let pairs = list.split(' ').map(|pair| pair.split_once(',').unwrap());
                pairs.map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).collect()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn everything_lies_within_the_axes_and_in_the_order_of_its_values(
            values in prop::collection::vec(prop::option::weighted(0.8, 1e-3_f64..1e12), 2..60),
            is_log: bool,
        ) {
            let points: Vec<_> =
                values.iter().enumerate().map(|(i, y)| (count::to_f64(count::len(i)), *y)).collect();
            let svg = draw(&chart(vec![line("a", points)], is_log));
            let drawn = places(&svg);
            let stretches: Vec<Vec<f64>> = values
                .split(Option::is_none)
                .filter(|stretch| stretch.len() > 1)
                .map(|stretch| stretch.iter().flatten().copied().collect())
                .collect();
            prop_assert_eq!(drawn.len(), stretches.len());
            for (places, values) in drawn.iter().zip(&stretches) {
                prop_assert_eq!(places.len(), values.len());
                for (x, y) in places {
                    prop_assert!((LEFT - 0.1..=WIDTH - RIGHT + 0.1).contains(x), "{}", x);
                    prop_assert!((TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(y), "{}", y);
                }
                for ((a, b), (v, w)) in places.iter().zip(&places[1..]).zip(values.iter().zip(&values[1..])) {
                    prop_assert!(a.0 < b.0);
                    // Downwards in the picture is less; to a tenth of a pixel.
                    let (low, high) = if v < w { (b.1, a.1) } else { (a.1, b.1) };
                    prop_assert!(low <= high + 0.1, "{} {}", low, high);
                }
            }
        }

        #[test]
        fn an_axis_has_a_few_round_ticks_within_its_bounds(low in 0.0_f64..1e6, width in 1.0_f64..1e9) {
            for unit in [Unit::Elapsed, Unit::Bytes, Unit::Plain] {
                let scale = Scale::over([low, low + width].into_iter(), unit, false, 0.0, 100.0);
                let ticks = scale.ticks();
                prop_assert!((2..=14).contains(&ticks.len()), "{:?}", ticks);
                let slack = (scale.high - scale.low) * 1e-6;
                prop_assert!(ticks.iter().all(|t| *t >= scale.low - slack && *t <= scale.high + slack));
            }
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_text() {
        let svg = draw(&chart(vec![line("</text><script>\"&\u{1}", vec![(0.0, Some(1.0))])], false));
        assert!(svg.contains("&lt;/text&gt;&lt;script&gt;&quot;&amp;<"), "{svg}");
        assert!(!svg.contains("<script"));
        assert_eq!(svg.matches("<circle").count(), 1, "a point without a neighbour is seen");
    }

    #[test]
    fn cells_are_as_dark_as_their_values_and_nothing_is_not_drawn() {
        let mut map = chart(Vec::new(), false);
        map.cells = Some(Cells {
            rows: vec![String::from("64 B"), String::from("640 B")],
            at: vec![0.0, 5.0, 10.0],
            values: vec![vec![0.0, 100.0, 25.0], vec![0.0, 0.0, 100.0]],
        });
        let svg = draw(&map);
        let inks: Vec<&str> =
            svg.split(&format!("fill=\"{}\" fill-opacity=\"", COLOURS[0])).skip(1).collect();
        let inks: Vec<&str> = inks.iter().filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(inks, ["1.00", "0.50", "1.00"]);
        assert!(svg.contains(">640 B</text>"));
    }
}
