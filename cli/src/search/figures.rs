//! What one point of a search said, from the tables of its run.
//!
//! Fed with a run directory whose phase has ended and is in the log; gives the searches a measurement, or why it is
//! none. Laws: a quantile that is only a lower bound says so; a point of which the report would say "not valid" is not a
//! measurement.

use vst_analysis::{OperationSummary, PhaseSummary, Rule, Summary};
use vst_common::count;
use vst_common::exit::Exit;
use vst_common::latency::Quantile;
use vst_tuning::figure::Figure;
use vst_tuning::measured::{Event, Measured, Reading};
use vst_tuning::throughput::Offered;

use crate::analyze::of_analysis;
use crate::error::Failure;

/// Half the width of a 95 % interval in standard errors.
const Z: f64 = 1.96;

/// Reads one phase.
pub(crate) async fn read(
    run_directory: &str,
    phase: &str,
    offered: Offered,
    figures: &[Figure],
) -> Result<Event, Failure> {
    let summary = vst_analysis::phases(run_directory).await.map_err(|e| of_analysis(&e))?;
    let lost = summary.verdict.not_valid.iter().find(|note| note.rule == Rule::LostWorker);
    if let Some(note) = lost {
        return Err(Failure::new(Exit::Fleet, note.text.clone()));
    }
    let found = summary.phases.iter().find(|p| p.name == phase);
    let found = found.ok_or_else(|| {
        Failure::new(Exit::Bug, format!("phase `{phase}` is not in the run directory `{run_directory}`"))
    })?;
    let cpu = if figures.contains(&Figure::CpuPerQuery) {
        cpu_per_query(run_directory, found).await?
    } else {
        None
    };
    Ok(of(&summary, found, offered, cpu))
}

/// The measurement that a phase is.
fn of(summary: &Summary, phase: &PhaseSummary, offered: Offered, cpu_per_query_ns: Option<f64>) -> Event {
    // A closed loop whose lanes are busy says less than the target's capacity: enough to begin a search with.
    let matters = |rule: Rule| !(rule == Rule::BusyLanes && offered == Offered::FlatOut);
    let against = summary
        .verdict
        .not_valid
        .iter()
        .find(|note| note.phase.as_deref() == Some(phase.name.as_str()) && matters(note.rule));
    if let Some(note) = against {
        return Event::Invalid(note.text.clone());
    }
    if phase.outcome != "completed" {
        return Event::Invalid(format!("the phase is {}", phase.outcome));
    }
    let queries = phase.operations.iter().find(|o| o.operation == "knn").or(phase.operations.first());
    let Some(queries) = queries else { return Event::Invalid(String::from("no query was sent")) };
    let mut measured = of_queries(queries);
    if let Some(recall) = &phase.recall
        && let Some(value) = recall.recall
    {
        // The interval ends at 1; what it leaves open is its longer side.
        let error = recall.interval.map(|(low, high)| (high - value).max(value - low) / Z);
        measured = measured.with(Figure::Recall, Reading { value, error, at_least: false });
    }
    let memory =
        summary.checkpoints.iter().rev().filter(|c| c.step == "checkpoint").find_map(|c| c.figures.as_ref());
    if let Some(memory) = memory {
        measured = measured.with(Figure::Memory, Reading::of(count::to_f64(memory.used_bytes)));
        if let Some(bytes) = memory.net_bytes_per_vector {
            measured = measured.with(Figure::BytesPerVector, Reading::of(bytes));
        }
    }
    if let Some(ns) = cpu_per_query_ns {
        measured = measured.with(Figure::CpuPerQuery, Reading::of(ns));
    }
    Event::Measured(measured)
}

fn of_queries(queries: &OperationSummary) -> Measured {
    let mut measured = Measured { requests: queries.sent, ..Measured::default() };
    if let Some(qps) = queries.achieved_per_second {
        measured = measured.with(Figure::Qps, Reading::of(qps));
        if let Some(offered) = queries.offered_per_second.filter(|rate| *rate > 0.0) {
            measured = measured.with(Figure::AchievedShare, Reading::of(qps / offered));
        }
    }
    let ended = queries.ended();
    if ended > 0 {
        let failed = count::to_f64(ended.saturating_sub(queries.ok)) / count::to_f64(ended);
        measured = measured.with(Figure::ErrorRate, Reading::of(failed));
    }
    // A closed loop has no due instant, so its latency is from sent to reply.
    if let Some(latency) = queries.response.as_ref().or(queries.service.as_ref()) {
        for (figure, quantile) in
            [(Figure::P50, latency.p50), (Figure::P95, latency.p95), (Figure::P99, latency.p99)]
        {
            measured = measured.with(figure, of_quantile(quantile));
        }
    }
    measured
}

fn of_quantile(quantile: Quantile) -> Reading {
    let ns = count::to_f64(quantile.ns);
    if quantile.censored { Reading::at_least(ns) } else { Reading::of(ns) }
}

/// CPU time of all servers over the queries of the same time, nanoseconds; `None` where the samples do not tell.
async fn cpu_per_query(run_directory: &str, phase: &PhaseSummary) -> Result<Option<f64>, Failure> {
    let sql = format!(
        "select sum(cpu) as cpu, avg(seconds) as seconds, count(*) as nodes from (
             select node, max(used_cpu_sys + used_cpu_user) - min(used_cpu_sys + used_cpu_user) as cpu,
                    cast(max(cast(sampled_at as bigint)) - min(cast(sampled_at as bigint)) as double) / 1e9 as seconds
             from memory where phase_index = {} and missing is null group by node)",
        phase.index
    );
    let answer = vst_analysis::query(&[run_directory.to_owned()], &sql).await.map_err(|e| of_analysis(&e))?;
    let lines = answer.to_json_lines().map_err(|e| of_analysis(&e))?;
    let row: serde_json::Value =
        lines.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let number = |key: &str| row.get(key).and_then(serde_json::Value::as_f64);
    let (Some(cpu), Some(seconds)) = (number("cpu"), number("seconds")) else { return Ok(None) };
    let qps = phase.operations.iter().find_map(|o| o.achieved_per_second).filter(|qps| *qps > 0.0);
    Ok(qps.filter(|_| seconds > 0.0).map(|qps| cpu / seconds / qps * 1e9))
}
