//! The page's charts without the page: what stands on which axis, for whoever draws them as files.
//!
//! Made from the very data that the page holds, so that a file and the page never disagree. Law: a chart without data is
//! left out; a value that is not known breaks its line.

use vst_common::count;

use super::data::{Data, NodeData, OperationData};

/// How values of an axis are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Seconds from the start of the run.
    Elapsed,
    Bytes,
    PerSecond,
    Nanoseconds,
    /// A share near one.
    Share,
    /// A percentile by its number of nines.
    Nines,
    Plain,
}

/// A stretch of time with a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Band {
    pub(super) name: String,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) label: String,
    /// In order of x; `None` where nothing is known.
    pub(super) points: Vec<(f64, Option<f64>)>,
    pub(super) colour: usize,
    pub(super) is_dashed: bool,
    /// Each point stands for itself.
    pub(super) is_cloud: bool,
}

/// Rows of cells, the darker the more.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cells {
    /// Their names, from below.
    pub(super) rows: Vec<String>,
    /// Where each column is.
    pub(super) at: Vec<f64>,
    /// By row, then column.
    pub(super) values: Vec<Vec<f64>>,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chart {
    pub(super) id: &'static str,
    pub(super) title: String,
    pub(super) x: Unit,
    pub(super) y: Unit,
    /// Whether y is drawn by its logarithm.
    pub(super) is_log: bool,
    pub(super) bands: Vec<Band>,
    pub(super) lines: Vec<Line>,
    pub(super) cells: Option<Cells>,
}

impl Chart {
    fn has_data(&self) -> bool {
        self.cells.as_ref().is_some_and(|cells| !cells.rows.is_empty())
            || self.lines.iter().any(|line| line.points.iter().any(|(_, y)| y.is_some()))
    }
}

/// The charts of a run that have data.
pub(super) fn of(data: &Data) -> Vec<Chart> {
    let mut charts = memory(data);
    charts.extend([
        classes(data),
        throughput(data),
        latency(data),
        percentiles(data),
        recall(data),
        correlation(data),
    ]);
    charts.retain(Chart::has_data);
    charts
}

fn over_time(data: &Data, id: &'static str, title: &str, y: Unit, is_log: bool, lines: Vec<Line>) -> Chart {
    let bands = data.phases.iter().filter(|p| !p.beside).map(|p| Band {
        name: p.name.clone(),
        from: p.start_s,
        to: p.end_s,
    });
    Chart {
        id,
        title: format!("{title} · {}", data.title),
        x: Unit::Elapsed,
        y,
        is_log,
        bands: bands.collect(),
        lines,
        cells: None,
    }
}

fn line<T: Copy>(
    label: String,
    (colour, is_dashed): (usize, bool),
    at: &[f64],
    values: &[Option<T>],
    number: impl Fn(T) -> f64,
) -> Line {
    let points = at.iter().zip(values).map(|(x, y)| (*x, y.map(&number))).collect();
    Line { label, points, colour, is_dashed, is_cloud: false }
}

fn memory(data: &Data) -> Vec<Chart> {
    let by_node = |pick: fn(&NodeData) -> &[Option<u64>]| -> Vec<Line> {
        let nodes = data.nodes.iter().enumerate();
        nodes
            .map(|(i, n)| line(n.name.clone(), (i, n.replica), &data.ticks_s, pick(n), count::to_f64))
            .collect()
    };
    let ratio = |n: &NodeData| -> Vec<Option<f64>> {
        let pairs = n.rss.iter().zip(&n.used);
        pairs
            .map(|(rss, used)| {
                let (rss, used) = rss.zip(used.filter(|used| *used > 0))?;
                Some(count::to_f64(rss) / count::to_f64(used))
            })
            .collect()
    };
    let nodes = || data.nodes.iter().enumerate();
    let fragmentation =
        nodes().map(|(i, n)| line(n.name.clone(), (i, n.replica), &data.ticks_s, &ratio(n), |x| x)).collect();
    let faults = nodes()
        .flat_map(|(i, n)| {
            [
                line(format!("{} without a read", n.name), (i, false), &data.ticks_s, &n.minor_faults, |x| x),
                line(
                    format!("{} from disk or swap", n.name),
                    (i, true),
                    &data.ticks_s,
                    &n.major_faults,
                    |x| x,
                ),
            ]
        })
        .collect();
    vec![
        over_time(data, "memory", "Memory used by node", Unit::Bytes, false, by_node(|n| &n.used)),
        over_time(data, "resident", "Resident memory by node", Unit::Bytes, false, by_node(|n| &n.rss)),
        over_time(data, "fragmentation", "Resident over used memory", Unit::Plain, false, fragmentation),
        over_time(data, "swap", "Swapped out by node", Unit::Bytes, false, by_node(|n| &n.swap)),
        over_time(data, "faults", "Page faults by node", Unit::PerSecond, false, faults),
    ]
}

/// Bytes of pages beyond those in use, over all nodes.
fn classes(data: &Data) -> Chart {
    let heat = &data.heat;
    let free = |row: usize, at: usize| -> f64 {
        let of = |all: &[Vec<u64>]| all.get(row).and_then(|row| row.get(at)).copied().unwrap_or(0);
        heat.nodes.iter().map(|node| count::to_f64(of(&node.kept).saturating_sub(of(&node.used)))).sum()
    };
    let all = heat.classes.iter().enumerate().map(|(row, class)| {
        let values: Vec<f64> = (0..heat.times_s.len()).map(|at| free(row, at)).collect();
        (format!("{} B", crate::number::grouped(class.size)), values)
    });
    // As on the page: a class in which nothing is ever free has no row.
    let (rows, values) = all.filter(|(_, values)| values.iter().any(|free| *free > 0.0)).unzip();
    let title = "Size classes: pages kept beyond what is in use";
    let mut chart = over_time(data, "classes", title, Unit::Bytes, false, Vec::new());
    chart.cells = Some(Cells { rows, at: heat.times_s.clone(), values });
    chart
}

fn throughput(data: &Data) -> Chart {
    let lines = data.operations.iter().enumerate().flat_map(|(i, o)| {
        let of = |what: &str, colour: usize, is_dashed: bool, values: &[Option<f64>]| {
            line(format!("{} {what}", o.name), (colour, is_dashed), &data.load_s, values, |x| x)
        };
        [
            of("due", 3 * i, true, &o.due),
            of("ok", 3 * i + 2, false, &o.ok),
            of("failed", 3 * i + 1, false, &o.failed),
        ]
    });
    // A line of zeros says nothing that its absence does not.
    let lines = lines.filter(|line| line.points.iter().any(|(_, y)| y.is_some_and(|y| y > 0.0)));
    over_time(data, "throughput", "Throughput", Unit::PerSecond, false, lines.collect())
}

fn latency(data: &Data) -> Chart {
    let lines = data.operations.iter().enumerate().flat_map(|(i, o)| {
        let of = |what: &str, colour: usize, is_dashed: bool, pick: fn(&OperationData) -> &[Option<u64>]| {
            line(format!("{} {what}", o.name), (colour, is_dashed), &data.load_s, pick(o), count::to_f64)
        };
        [
            of("response p50", 2 * i, false, |o| &o.response_p50),
            of("response p99", 2 * i + 1, false, |o| &o.response_p99),
            of("response p99.99", 2 * i + 4, false, |o| &o.response_p9999),
            of("service p50", 2 * i, true, |o| &o.service_p50),
            of("service p99", 2 * i + 1, true, |o| &o.service_p99),
            of("service p99.99", 2 * i + 4, true, |o| &o.service_p9999),
        ]
    });
    let lines = lines.filter(|line| line.points.iter().any(|(_, y)| y.is_some()));
    over_time(data, "latency", "Latency over time", Unit::Nanoseconds, true, lines.collect())
}

fn percentiles(data: &Data) -> Chart {
    let nines: Vec<f64> = data.quantiles.iter().map(|q| -(1.0 - q).log10()).collect();
    // Response and service of one operation have one colour.
    let mut asked: Vec<(&str, &str)> = data.curves.iter().map(|c| (&*c.phase, &*c.operation)).collect();
    asked.dedup();
    let lines = data.curves.iter().map(|curve| {
        let label = format!("{} {} {}", curve.phase, curve.operation, curve.time);
        let colour = asked.iter().position(|of| *of == (&*curve.phase, &*curve.operation)).unwrap_or(0);
        line(label, (colour, curve.time == "service"), &nines, &curve.values, count::to_f64)
    });
    let lines = lines.collect();
    Chart {
        x: Unit::Nines,
        bands: Vec::new(),
        ..over_time(data, "percentiles", "Percentile curves", Unit::Nanoseconds, true, lines)
    }
}

fn recall(data: &Data) -> Chart {
    let lines = vec![line(String::from("recall"), (2, false), &data.recall_s, &data.recall, |x| x)];
    over_time(data, "recall", "Recall over time", Unit::Share, false, lines)
}

fn correlation(data: &Data) -> Chart {
    let lines = data.correlation.iter().enumerate().map(|(i, cloud)| {
        let p99 = cloud.p99.iter().map(|ns| Some(count::to_f64(*ns)));
        let points = cloud.used.iter().copied().zip(p99).collect();
        Line { label: cloud.phase.clone(), points, colour: i, is_dashed: false, is_cloud: true }
    });
    let lines = lines.collect();
    Chart {
        x: Unit::Bytes,
        bands: Vec::new(),
        ..over_time(data, "correlation", "Memory against p99", Unit::Nanoseconds, true, lines)
    }
}
