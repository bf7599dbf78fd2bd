//! What the page draws, as the JSON that its script reads.
//!
//! Columns side by side rather than rows, because that is how the charting library wants them; times in seconds from
//! the start of the run.

use std::collections::BTreeMap;

use serde::Serialize;
use vst_common::count;
use vst_common::latency::Window;

use super::heat::{self, Heat};
use super::seconds;
use crate::course::{Course, LoadPoint, NodePoint, TickPoint};
use crate::engine::rows::rows;
use crate::engine::{Engine, Error};
use crate::number;
use crate::report::terminal;
use crate::summary::Summary;
use crate::validity::Note;

/// Ticks that the page holds; of more, evenly spaced ones are kept.
const TICKS: usize = 1_200;
/// Where percentile curves are taken.
const QUANTILES: [f64; 16] = [
    0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 0.99995, 0.99999,
    0.999999,
];

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Data {
    pub(super) title: String,
    pub(super) length_s: f64,
    pub(super) verdict: VerdictData,
    pub(super) phases: Vec<PhaseData>,
    pub(super) nodes: Vec<NodeData>,
    pub(super) ticks_s: Vec<f64>,
    pub(super) heat: Heat,
    pub(super) load_s: Vec<f64>,
    pub(super) operations: Vec<OperationData>,
    pub(super) quantiles: [f64; 16],
    pub(super) curves: Vec<Curve>,
    pub(super) recall_s: Vec<f64>,
    pub(super) recall: Vec<Option<f64>>,
    pub(super) correlation: Vec<Cloud>,
    pub(super) table: Vec<TableRow>,
    pub(super) scenario: String,
}

#[derive(Debug, Serialize)]
pub(super) struct VerdictData {
    headline: String,
    tone: &'static str,
    not_valid: Vec<String>,
    saturated: Vec<String>,
    findings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct PhaseData {
    pub(super) name: String,
    pub(super) start_s: f64,
    pub(super) end_s: f64,
    /// It ran while another one did.
    pub(super) beside: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeData {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) replica: bool,
    pub(super) used: Vec<Option<u64>>,
    pub(super) rss: Vec<Option<u64>>,
    pub(super) swap: Vec<Option<u64>>,
    /// Per second since the tick before.
    pub(super) minor_faults: Vec<Option<f64>>,
    pub(super) major_faults: Vec<Option<f64>>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct OperationData {
    pub(super) name: String,
    pub(super) due: Vec<Option<f64>>,
    pub(super) ok: Vec<Option<f64>>,
    pub(super) failed: Vec<Option<f64>>,
    pub(super) response_p50: Vec<Option<u64>>,
    pub(super) response_p99: Vec<Option<u64>>,
    pub(super) response_p9999: Vec<Option<u64>>,
    pub(super) service_p50: Vec<Option<u64>>,
    pub(super) service_p99: Vec<Option<u64>>,
    pub(super) service_p9999: Vec<Option<u64>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Curve {
    pub(super) phase: String,
    pub(super) operation: String,
    pub(super) time: &'static str,
    pub(super) values: Vec<Option<u64>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Cloud {
    pub(super) phase: String,
    pub(super) used: Vec<f64>,
    pub(super) p99: Vec<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct TableRow {
    phase: String,
    step: String,
    length_s: Option<f64>,
    offered: Option<f64>,
    achieved: Option<f64>,
    p50: String,
    p95: String,
    p99: String,
    p999: String,
    p9999: String,
    max: String,
    errors: Option<u64>,
    recall: Option<f64>,
    net_bytes: Option<f64>,
}

pub(super) async fn of(engine: &Engine, summary: &Summary, course: &Course) -> Result<Data, Error> {
    let starts = summary.phases.iter().map(|p| p.start_wall_ns);
    let zero = starts.chain(course.ticks.first().map(|t| t.at_ns)).min().unwrap_or_default();
    let phases: Vec<PhaseData> = phases(summary, course, zero);
    let ticks = thinned(&course.ticks);
    let (load_s, operations) = operations(course, zero);
    let (recall_s, recall) = recall(engine, zero).await?;
    let log = engine.logs().first();
    let scenario = log.and_then(|log| serde_json::to_string_pretty(log.facts.get("scenario")?).ok());
    let last = phases.iter().map(|p| p.end_s).fold(0.0, f64::max);
    Ok(Data {
        title: match &summary.setting.scenario {
            Some(scenario) => format!("{scenario} · {}", summary.run),
            None => summary.run.clone(),
        },
        length_s: ticks.last().map_or(last, |t| last.max(seconds(t.at_ns, zero))),
        verdict: verdict(summary),
        phases,
        nodes: nodes(&ticks),
        ticks_s: ticks.iter().map(|t| seconds(t.at_ns, zero)).collect(),
        heat: heat::of(engine, zero).await?,
        load_s,
        operations,
        quantiles: QUANTILES,
        curves: curves(engine).await?,
        recall_s,
        recall,
        correlation: correlation(summary, course),
        table: table(summary),
        scenario: scenario.unwrap_or_default(),
    })
}

fn verdict(summary: &Summary) -> VerdictData {
    let texts = |notes: &[Note]| notes.iter().map(terminal::sentence).collect();
    let verdict = &summary.verdict;
    VerdictData {
        headline: terminal::headline(verdict),
        tone: match (verdict.not_valid.is_empty(), verdict.saturated.is_empty()) {
            (false, _) => "bad",
            (true, false) => "warn",
            (true, true) => "good",
        },
        not_valid: texts(&verdict.not_valid),
        saturated: texts(&verdict.saturated),
        findings: texts(&verdict.findings),
    }
}

fn phases(summary: &Summary, course: &Course, zero: i64) -> Vec<PhaseData> {
    let seen = |index: u64| {
        let load = course.load.iter().filter(|p| p.phase_index == index);
        let ends = load.map(|p| p.start_ns.saturating_add(count::to_i64(p.length_ns)));
        ends.chain(course.ticks_of(index).map(|t| t.at_ns)).max()
    };
    summary
        .phases
        .iter()
        .map(|p| {
            let took = p.took_ns.map(|ns| p.start_wall_ns.saturating_add(count::to_i64(ns)));
            let end = took.or_else(|| seen(p.index)).unwrap_or(p.start_wall_ns);
            PhaseData {
                name: p.name.clone(),
                start_s: seconds(p.start_wall_ns, zero),
                end_s: seconds(end, zero),
                beside: p.beside.is_some(),
            }
        })
        .collect()
}

fn thinned(ticks: &[TickPoint]) -> Vec<&TickPoint> {
    let stride = ticks.len().div_ceil(TICKS).max(1);
    ticks.iter().step_by(stride).collect()
}

fn nodes(ticks: &[&TickPoint]) -> Vec<NodeData> {
    let Some(last) = ticks.last() else { return Vec::new() };
    last.nodes
        .iter()
        .map(|node| {
            let of = |pick: &dyn Fn(&NodePoint) -> Option<u64>| -> Vec<Option<u64>> {
                ticks.iter().map(|t| t.nodes.iter().find(|n| n.node == node.node).and_then(pick)).collect()
            };
            NodeData {
                id: node.node.clone(),
                name: number::short_node(&node.node),
                replica: node.is_replica,
                used: of(&|n| Some(n.used)),
                rss: of(&|n| n.rss),
                swap: of(&|n| n.swap),
                minor_faults: growth(ticks, &of(&|n| n.minor_faults)),
                major_faults: growth(ticks, &of(&|n| n.major_faults)),
            }
        })
        .collect()
}

/// What a counter grew by per second since the tick before; one that fell began anew with its process.
fn growth(ticks: &[&TickPoint], counted: &[Option<u64>]) -> Vec<Option<f64>> {
    let at = ticks.iter().zip(counted);
    let grown = at.clone().zip(at.skip(1)).map(|((t0, before), (t1, now))| {
        let seconds = seconds(t1.at_ns, t0.at_ns);
        let more = now.zip(*before).and_then(|(now, before)| now.checked_sub(before))?;
        (seconds > 0.0).then(|| count::to_f64(more) / seconds)
    });
    std::iter::once(None).chain(grown).take(counted.len()).collect()
}

/// Series by operation over one axis of time. After each phase an instant without values breaks the lines.
fn operations(course: &Course, zero: i64) -> (Vec<f64>, Vec<OperationData>) {
    let mut names: Vec<&str> = course.load.iter().map(|p| p.operation.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut at: BTreeMap<i64, Vec<&LoadPoint>> = BTreeMap::new();
    for point in &course.load {
        at.entry(point.start_ns).or_default().push(point);
        // Overwritten by the next interval where that follows at once.
        at.entry(point.start_ns.saturating_add(count::to_i64(point.length_ns))).or_default();
    }
    let rate = |n: u64, p: &LoadPoint| count::to_f64(n) * 1e9 / count::to_f64(p.length_ns.max(1));
    let series = names
        .into_iter()
        .map(|name| {
            let mut made = OperationData { name: name.to_owned(), ..OperationData::default() };
            for points in at.values() {
                // Warm-up and measured part of one interval: the longer one stands for it.
                let here: Vec<&&LoadPoint> = points.iter().filter(|p| p.operation == name).collect();
                let point = here.iter().max_by_key(|p| p.ok + p.errors + p.unanswered).copied();
                made.due.push(point.map(|_| here.iter().map(|p| rate(p.due, p)).sum()));
                made.ok.push(point.map(|_| here.iter().map(|p| rate(p.ok, p)).sum()));
                made.failed.push(point.map(|_| here.iter().map(|p| rate(p.errors + p.unanswered, p)).sum()));
                made.response_p50.push(point.and_then(|p| p.response_p50_ns));
                made.response_p99.push(point.and_then(|p| p.response_p99_ns));
                made.response_p9999.push(point.and_then(|p| p.response_p9999_ns));
                made.service_p50.push(point.and_then(|p| p.service_p50_ns));
                made.service_p99.push(point.and_then(|p| p.service_p99_ns));
                made.service_p9999.push(point.and_then(|p| p.service_p9999_ns));
            }
            made
        })
        .collect();
    (at.keys().map(|ns| seconds(*ns, zero)).collect(), series)
}

async fn curves(engine: &Engine) -> Result<Vec<Curve>, Error> {
    let sql = "select phase_index, max(phase) as phase, operation, hdr_merge(response_hdr) as response,
                      hdr_merge(service_hdr) as service
               from latency_rollup group by phase_index, operation order by phase_index, operation";
    let mut found = Vec::new();
    for row in rows(&engine.sql(sql).await?) {
        for time in ["response", "service"] {
            let hdr = row.hdr(time)?;
            if !hdr.is_empty() {
                // Beyond the count there is only the maximum again.
                let known = 1.0 - 1.0 / count::to_f64(hdr.len()).max(1.0);
                found.push(Curve {
                    phase: row.word("phase"),
                    operation: row.word("operation"),
                    time,
                    values: QUANTILES.map(|q| hdr.quantile(q).filter(|_| q <= known)).to_vec(),
                });
            }
        }
    }
    Ok(found)
}

async fn recall(engine: &Engine, zero: i64) -> Result<(Vec<f64>, Vec<Option<f64>>), Error> {
    let sql = format!(
        "select cast(interval_start as bigint) as start, max(interval_ns) as length, sum(hits) as hits,
                sum(possible) as possible
         from recall where \"window\" = '{}' group by interval_start order by interval_start",
        Window::Measure.as_str()
    );
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut until = None;
    for row in rows(&engine.sql(&sql).await?) {
        let start = row.int("start").unwrap_or_default();
        if let Some(until) = until.filter(|until| *until < start) {
            times.push(seconds(until, zero));
            values.push(None);
        }
        let possible = row.total("possible");
        times.push(seconds(start, zero));
        values.push((possible > 0).then(|| count::to_f64(row.total("hits")) / count::to_f64(possible)));
        until = Some(start.saturating_add(row.int("length").unwrap_or_default()));
    }
    Ok((times, values))
}

/// Per phase the p99 of each interval beside the memory of the tick that is nearest.
fn correlation(summary: &Summary, course: &Course) -> Vec<Cloud> {
    summary
        .phases
        .iter()
        .filter_map(|phase| {
            let ticks: Vec<&TickPoint> = course.ticks_of(phase.index).collect();
            let points: Vec<(f64, u64)> = course
                .load
                .iter()
                .filter(|p| p.phase_index == phase.index && p.measured)
                .filter_map(|p| {
                    let middle = p.start_ns.saturating_add(count::to_i64(p.length_ns / 2));
                    let tick = ticks.iter().min_by_key(|t| t.at_ns.abs_diff(middle))?;
                    Some((tick.used(), p.response_p99_ns.or(p.service_p99_ns)?))
                })
                .collect();
            (!points.is_empty()).then(|| Cloud {
                phase: phase.name.clone(),
                used: points.iter().map(|p| p.0).collect(),
                p99: points.iter().map(|p| p.1).collect(),
            })
        })
        .collect()
}

fn table(summary: &Summary) -> Vec<TableRow> {
    summary
        .phases
        .iter()
        .map(|phase| {
            let operation = phase.operations.first();
            let times = operation.and_then(|o| o.response.as_ref().or(o.service.as_ref()));
            let cell = |pick: fn(&crate::latency::Distribution) -> vst_common::latency::Quantile| {
                times.map_or_else(|| String::from("–"), |d| number::quantile(pick(d)))
            };
            let checkpoint = summary.checkpoints.iter().find(|c| c.phase_index == phase.index);
            TableRow {
                phase: phase.name.clone(),
                step: phase.step.clone(),
                length_s: phase.took_ns.map(|ns| count::to_f64(ns) / 1e9),
                offered: operation.and_then(|o| o.offered_per_second),
                achieved: operation.and_then(|o| o.achieved_per_second),
                p50: cell(|d| d.p50),
                p95: cell(|d| d.p95),
                p99: cell(|d| d.p99),
                p999: cell(|d| d.p999),
                p9999: cell(|d| d.p9999),
                max: cell(|d| d.max),
                errors: operation.map(crate::latency::OperationSummary::answered_errors),
                recall: phase.recall.as_ref().and_then(|r| r.recall),
                net_bytes: checkpoint.and_then(|c| c.figures.as_ref()?.net_bytes_per_vector),
            }
        })
        .collect()
}
