//! How fast the target answered, per phase.
//!
//! Reads `latency` and `health`, gives offered and achieved rates, response and service quantiles, outcomes by kind
//! and the workers' own delay. Only the measured window counts. Law: a quantile that falls among requests that never
//! ended is a lower bound and says so; offered comes from the schedule, what was due, sent and ended from the rows,
//! and none is derived from another.

use futures::future::try_join3;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vst_common::clock::SECOND_NS;
use vst_common::count;
use vst_common::latency::{Hdr, Quantile, Window, censored_quantile};
use vst_common::outcome::ErrorKind;
use vst_common::scenario::Load;

use crate::engine::rows::{Row, rows};
use crate::engine::{Engine, Error, PhaseRecord};
use crate::number;
use crate::window::{Interval, Measured, measured};

/// Quantiles of a set of durations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many requests.
    pub n: u64,
    /// Median.
    pub p50: Quantile,
    /// 95 % took at most this long.
    pub p95: Quantile,
    /// 99 % took at most this long.
    pub p99: Quantile,
    /// 99.9 % took at most this long.
    pub p999: Quantile,
    /// 99.99 % took at most this long; of fewer than 10,000 requests the longest.
    pub p9999: Quantile,
    /// The longest.
    pub max: Quantile,
}

/// One operation in the measured window of a phase, over all workers and nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationSummary {
    /// `knn`, `hset`, `del`.
    pub operation: String,
    /// Length of the window, nanoseconds.
    pub length_ns: u64,
    /// Requests that fell due in it (open loop) or were taken up (closed loop).
    pub due: u64,
    /// Requests whose first attempt was written.
    pub sent: u64,
    /// Requests that ended well.
    pub ok: u64,
    /// Of those, the ones that ended before the window did.
    pub ok_in_window: u64,
    /// Requests answered with an error, by the column's name without `err_`; kinds that did not occur are absent.
    pub errors: BTreeMap<String, u64>,
    /// Requests without an answer within the timeout.
    pub timeout: u64,
    /// Requests whose connection ended.
    pub lost: u64,
    /// Requests that were due and never sent.
    pub unsent: u64,
    /// Answers with fewer than k results though k live rows exist.
    pub partial: u64,
    /// Of `ok`, answers that there was nothing.
    pub miss: u64,
    /// Latencies outside the histogram's bounds.
    pub out_of_range: u64,
    /// What the schedule held over the length; open loop only. Of several operations, each has its share of what was
    /// due.
    pub offered_per_second: Option<f64>,
    /// `ok_in_window` over the length; absent where the length is not known.
    pub achieved_per_second: Option<f64>,
    /// Due to reply; open loop only. Answered errors are not in it, requests that never ended are, at their age.
    pub response: Option<Distribution>,
    /// Sent to reply, of the requests that ended well.
    pub service: Option<Distribution>,
}

impl OperationSummary {
    /// Requests answered with an error.
    #[must_use]
    pub fn answered_errors(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Requests that ended in any way.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ok + self.answered_errors() + self.timeout + self.lost + self.unsent
    }

    /// An operation that nobody was asked for.
    fn nothing(operation: &str, window: Measured) -> Self {
        Self {
            operation: operation.to_owned(),
            length_ns: window.length_ns,
            due: 0,
            sent: 0,
            ok: 0,
            ok_in_window: 0,
            errors: BTreeMap::new(),
            timeout: 0,
            lost: 0,
            unsent: 0,
            partial: 0,
            miss: 0,
            out_of_range: 0,
            offered_per_second: window.scheduled.and_then(|n| rate(n, window.length_ns)),
            achieved_per_second: rate(0, window.length_ns),
            response: None,
            service: None,
        }
    }
}

/// One operation on one node, in the measured window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// `knn_part` (that node's part of a query), `hset`, `del`.
    pub operation: String,
    /// The node.
    pub node: String,
    /// Requests that ended well.
    pub ok: u64,
    /// Requests that ended in any other way.
    pub failed: u64,
    /// Sent to reply, of those that ended well.
    pub service: Option<Distribution>,
}

/// What the load generator says about itself in a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratorSummary {
    /// Requests whose delay was measured.
    pub n: u64,
    /// The workers' own delay (sent minus the later of due and slot free), nanoseconds: 99th percentile.
    pub slip_p99_ns: Option<u64>,
    /// The same: the longest.
    pub slip_max_ns: Option<u64>,
    /// Share of its time in which the busiest lane was doing something, 0..=1.
    pub lane_busy_share: Option<f64>,
    /// Requests that waited for a slot at the end of the window: the most in its last interval, over all lanes.
    pub backlog_at_end: u64,
    /// Largest error of a worker's clock offset, nanoseconds.
    pub clock_error_ns: Option<u64>,
}

/// Everything that this module says of a phase.
#[derive(Clone, Debug, Default)]
pub(crate) struct PhaseLatency {
    /// Requests that the schedule held in the measured window as long as it ran; open loop only.
    pub(crate) scheduled: Option<u64>,
    pub(crate) operations: Vec<OperationSummary>,
    pub(crate) nodes: Vec<NodeSummary>,
    pub(crate) generator: GeneratorSummary,
}

/// Latency of all phases, by position in the run.
pub(crate) async fn by_phase(engine: &Engine) -> Result<BTreeMap<u64, PhaseLatency>, Error> {
    let mut phases: BTreeMap<u64, PhaseLatency> = BTreeMap::new();
    let records: BTreeMap<u64, &PhaseRecord> =
        engine.logs().iter().flat_map(|log| &log.phases).map(|(i, p)| (u64::from(i.0), p)).collect();
    let (of_operations, of_nodes) = (operations_query(), nodes_query());
    // At once: each leaves cores idle while it waits for its file.
    let (mut intervals, batches, nodes) =
        try_join3(intervals(engine, &records), engine.sql(&of_operations), engine.sql(&of_nodes)).await?;
    let windows: BTreeMap<u64, Measured> = records
        .iter()
        .map(|(index, record)| (*index, measured(record, &intervals.remove(index).unwrap_or_default())))
        .collect();
    let mut wholes: BTreeMap<u64, Whole> = BTreeMap::new();
    for row in rows(&batches) {
        let whole = wholes.entry(row.total("phase_index")).or_default();
        whole.due += row.total("due");
        whole.ok_in_window += row.total("ok_in_window");
    }
    for row in rows(&batches) {
        let index = row.total("phase_index");
        let window = windows.get(&index).copied().unwrap_or_default();
        let load = records.get(&index).and_then(|r| r.started.load());
        let is_open = load.is_none_or(|load| matches!(load, Load::Open { .. }));
        let whole = wholes.get(&index).copied().unwrap_or_default();
        phases.entry(index).or_default().operations.push(operation(row, window, is_open, whole)?);
    }
    // A phase of load that nobody drove must not vanish.
    for (index, record) in records.iter().filter(|(_, record)| record.started.load().is_some()) {
        let window = windows.get(index).copied().unwrap_or_default();
        let phase = phases.entry(*index).or_default();
        phase.scheduled = window.scheduled;
        if phase.operations.is_empty() {
            phase.operations.push(OperationSummary::nothing(&record.started.step, window));
        }
    }
    for row in rows(&nodes) {
        let service = row.hdr("service")?;
        phases.entry(row.total("phase_index")).or_default().nodes.push(NodeSummary {
            operation: row.word("operation"),
            node: row.word("node"),
            ok: row.total("ok"),
            failed: row.total("failed"),
            service: distribution(&service, &Hdr::new()),
        });
    }
    for (index, generator) in generators(engine).await? {
        phases.entry(index).or_default().generator = generator;
    }
    Ok(phases)
}

/// The first error reply of each phase in the server's words.
pub(crate) async fn first_errors(engine: &Engine) -> Result<BTreeMap<u64, String>, Error> {
    let sql = "select phase_index, first_value(detail order by \"at\") as detail,
                      first_value(node order by \"at\") as node
               from events where kind in ('error_reply', 'unreadable_reply') group by phase_index";
    Ok(rows(&engine.sql(sql).await?)
        .map(|row| {
            let text = row.word("detail");
            let said = match row.text("node") {
                Some(node) => format!("`{text}` from node {}", number::short_node(node)),
                None => format!("`{text}`"),
            };
            (row.total("phase_index"), said)
        })
        .collect())
}

fn error_columns() -> impl Iterator<Item = &'static str> {
    ErrorKind::ALL.into_iter().map(ErrorKind::column)
}

fn operations_query() -> String {
    let errors: String = error_columns().map(|c| format!("sum({c}) as {c}, ")).collect();
    format!(
        "select phase_index, operation, sum(due) as due, sum(sent) as sent, sum(ok) as ok, \
         sum(ok_in_window) as ok_in_window, {errors} sum(timeout) as timeout, sum(lost) as lost, \
         sum(unsent) as unsent, sum(partial) as partial, sum(miss) as miss, sum(out_of_range) as out_of_range, \
         hdr_merge(response_hdr) as response, hdr_merge(censored_hdr) as censored, \
         hdr_merge(service_hdr) as service \
         from latency_rollup group by phase_index, operation order by phase_index, operation"
    )
}

fn nodes_query() -> String {
    // A kind that an older run did not know must not swallow the others.
    let errors: String = error_columns().map(|c| format!(" + coalesce({c}, 0)")).collect();
    format!(
        "select phase_index, operation, node, sum(ok) as ok, sum(timeout + lost + unsent{errors}) as failed, \
         hdr_merge(service_hdr) as service \
         from latency_rollup_all where \"window\" = '{measure}' and node <> '*' \
         group by phase_index, operation, node order by phase_index, operation, node",
        measure = Window::Measure.as_str()
    )
}

/// Requests of each phase by interval.
async fn intervals(
    engine: &Engine,
    records: &BTreeMap<u64, &PhaseRecord>,
) -> Result<BTreeMap<u64, Vec<Interval>>, Error> {
    let sql = format!(
        "select phase_index, cast(interval_start as bigint) as start, max(interval_ns) as length, sum(due) as due, \
         sum(case when \"window\" = '{measure}' then ok_in_window else 0 end) as ok_in_window \
         from latency_rollup_all where operation <> 'knn_part' group by phase_index, interval_start \
         order by phase_index, interval_start",
        measure = Window::Measure.as_str()
    );
    let mut found: BTreeMap<u64, Vec<Interval>> = BTreeMap::new();
    for row in rows(&engine.sql(&sql).await?) {
        let index = row.total("phase_index");
        let Some((record, at)) = records.get(&index).zip(row.int("start")) else { continue };
        let start_ns = count::to_u64(at.saturating_sub(record.started.start_wall_ns));
        found.entry(index).or_default().push(Interval {
            start_ns,
            end_ns: start_ns.saturating_add(row.total("length")),
            due: row.total("due"),
            ok_in_window: row.total("ok_in_window"),
        });
    }
    Ok(found)
}

async fn generators(engine: &Engine) -> Result<BTreeMap<u64, GeneratorSummary>, Error> {
    // A phase with a fixed length goes on into its drain; the backlog at the end is that of the window's last
    // interval. A lane's busy share is taken over the intervals that it reported, and not over more than the phase
    // took: the last interval is a whole one however early the phase ended, and would hide a lane that had no rest.
    let sql = "
        with took as (
            select run, phase_index, cast(\"end\" as bigint) - cast(start as bigint) as took_ns
            from phases where \"end\" > start
        ),
        lanes as (
            select h.phase_index, h.worker, h.generation, h.lane,
                   least(1.0, cast(sum(h.busy_ns) as double)
                              / cast(least(sum(h.interval_ns), max(t.took_ns)) as double)) as busy
            from health h left join took t on h.run = t.run and h.phase_index = t.phase_index
            group by h.phase_index, h.worker, h.generation, h.lane
        ),
        busiest as (select phase_index, max(busy) as busy from lanes group by phase_index),
        inside as (
            select h.phase_index, h.interval_start, h.backlog_max
            from health h join phases p on h.run = p.run and h.phase_index = p.phase_index
            where (p.duration_ns > 0 or p.beside is not null) and cast(h.interval_start as bigint) + h.interval_ns
                  <= least(case when p.duration_ns > 0 then cast(p.start as bigint) + p.warm_up_ns + p.duration_ns end,
                           case when p.beside is not null then cast(p.\"end\" as bigint) end)
        ),
        final as (select phase_index, max(interval_start) as at from inside group by phase_index),
        backlog as (
            select i.phase_index, sum(i.backlog_max) as waiting
            from inside i join final f on i.phase_index = f.phase_index and i.interval_start = f.at
            group by i.phase_index
        ),
        slips as (
            select phase_index, hdr_merge(slip_hdr) as slip, max(clock_error_ns) as clock_error
            from health group by phase_index
        )
        select s.phase_index, s.clock_error, hdr_count(s.slip) as n, hdr_quantile(s.slip, 0.99) as p99,
               hdr_max(s.slip) as longest, b.busy, k.waiting
        from slips s join busiest b on s.phase_index = b.phase_index
             left join backlog k on s.phase_index = k.phase_index";
    let batches = engine.sql(sql).await?;
    let made = rows(&batches).map(|row| {
        let generator = GeneratorSummary {
            n: row.total("n"),
            slip_p99_ns: row.count("p99"),
            slip_max_ns: row.count("longest"),
            lane_busy_share: row.float("busy").filter(|x| x.is_finite()),
            backlog_at_end: row.total("waiting"),
            clock_error_ns: row.count("clock_error"),
        };
        (row.total("phase_index"), generator)
    });
    Ok(made.collect())
}

/// Sums over all operations of a phase.
#[derive(Clone, Copy, Debug, Default)]
struct Whole {
    due: u64,
    ok_in_window: u64,
}

fn operation(row: Row<'_>, window: Measured, is_open: bool, whole: Whole) -> Result<OperationSummary, Error> {
    let (response, censored, service) = (row.hdr("response")?, row.hdr("censored")?, row.hdr("service")?);
    let errors = ErrorKind::ALL
        .into_iter()
        .map(|kind| (kind.column().trim_start_matches("err_").to_owned(), row.total(kind.column())))
        .filter(|(_, n)| *n > 0)
        .collect();
    let (due, length_ns) = (row.total("due"), window.length_ns);
    let ok_in_window = match window.ok_until {
        Some(until) => part(until, row.total("ok_in_window"), whole.ok_in_window),
        None => row.total("ok_in_window"),
    };
    let offered = window.scheduled.filter(|_| is_open).map(|n| part(n, due, whole.due));
    Ok(OperationSummary {
        operation: row.word("operation"),
        length_ns,
        due,
        sent: row.total("sent"),
        ok: row.total("ok"),
        ok_in_window,
        errors,
        timeout: row.total("timeout"),
        lost: row.total("lost"),
        unsent: row.total("unsent"),
        partial: row.total("partial"),
        miss: row.total("miss"),
        out_of_range: row.total("out_of_range"),
        offered_per_second: offered.and_then(|n| rate(n, length_ns)),
        achieved_per_second: rate(ok_in_window, length_ns),
        response: if is_open { distribution(&response, &censored) } else { None },
        service: distribution(&service, &Hdr::new()),
    })
}

/// `n` times `one / all`, and all of it where that is not known.
fn part(n: u64, one: u64, all: u64) -> u64 {
    if one == all || all == 0 {
        return n;
    }
    count::from_f64((count::to_f64(n) * count::to_f64(one) / count::to_f64(all)).round())
}

fn rate(n: u64, length_ns: u64) -> Option<f64> {
    (length_ns > 0).then(|| count::to_f64(n) * count::to_f64(SECOND_NS) / count::to_f64(length_ns))
}

fn distribution(all: &Hdr, censored: &Hdr) -> Option<Distribution> {
    let at = |q| censored_quantile(all, censored, q);
    Some(Distribution {
        n: all.len(),
        p50: at(0.5)?,
        p95: at(0.95)?,
        p99: at(0.99)?,
        p999: at(0.999)?,
        p9999: at(0.9999)?,
        max: at(1.0)?,
    })
}
