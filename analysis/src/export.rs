//! A run's course in the formats of other tools: CSV and JSON by tick of memory, HDR histogram log by interval of load.
//!
//! Fed with a run directory by `vst visualize export-data`. The columns are those of the first tool of this purpose, so
//! that its scripts and spreadsheets go on working. Laws: CSV and JSON hold the same numbers, and those of the Parquet
//! tables; the log's histograms are those of the tables, merged over workers and nodes.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use serde::Serialize;
use vst_common::count;
use vst_common::latency::Hdr;

use crate::engine::rows::rows;
use crate::engine::{Engine, Error, on_own_threads};

/// Columns of the CSV, in order.
const COLUMNS: &str = "timestamp,phase,rss_mb,active_mb,resident_mb,allocated_mb,fragmentation_ratio,qps,ips,dps,p50_ms,p95_ms,p99_ms";
/// One "MB" of these columns, bytes.
const MB: f64 = 1_048_576.0;
const MS_NS: f64 = 1e6;
/// Largest value of the log's lines is shown in milliseconds.
const LOG_UNIT: f64 = 1e6;

/// One tick at which every node answered, and the interval of load in which it lies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExportRow {
    /// Instant of the sample, seconds since the epoch.
    pub timestamp: f64,
    /// The phase.
    pub phase: String,
    /// Resident memory of the primaries, MiB; so are the three after it.
    pub rss_mb: Option<f64>,
    /// The allocator's active pages.
    pub active_mb: Option<f64>,
    /// The allocator's resident pages.
    pub resident_mb: Option<f64>,
    /// What the allocator has given out.
    pub allocated_mb: Option<f64>,
    /// Resident over used memory.
    pub fragmentation_ratio: Option<f64>,
    /// Queries and plain commands that ended well, per second.
    pub qps: f64,
    /// Rows written, per second.
    pub ips: f64,
    /// Rows deleted, per second.
    pub dps: f64,
    /// Median of the interval over its operations: response time, in a closed loop service time; absent without load.
    pub p50_ms: Option<f64>,
    /// 95 % took at most this long.
    pub p95_ms: Option<f64>,
    /// 99 % took at most this long.
    pub p99_ms: Option<f64>,
}

/// What can be exported of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Export {
    /// The run.
    pub run: String,
    /// In order of time.
    pub rows: Vec<ExportRow>,
}

/// One interval of load over all operations that count requests.
struct Interval {
    start_ns: i64,
    end_ns: i64,
    qps: f64,
    ips: f64,
    dps: f64,
    times: Hdr,
}

/// The rows of a run.
///
/// # Errors
/// [`Error`] when the directory cannot be read.
pub async fn export(run_dir: &str) -> Result<Export, Error> {
    let run_dir = run_dir.to_owned();
    on_own_threads(async move || {
        let engine = Engine::open(&[run_dir]).await?;
        let run = engine.logs().first().map(|log| log.run.clone()).unwrap_or_default();
        let intervals = intervals(&engine).await?;
        let mut found = Vec::new();
        for row in rows(&engine.sql(TICKS).await?) {
            let at = row.int("at").unwrap_or_default();
            // The last interval that began before; they are in order.
            let before = intervals.partition_point(|interval| interval.start_ns <= at);
            let interval = before.checked_sub(1).and_then(|i| intervals.get(i)).filter(|i| at < i.end_ns);
            let mb = |name: &str| row.count(name).map(|bytes| count::to_f64(bytes) / MB);
            let ms = |q: f64| interval.and_then(|i| i.times.quantile(q)).map(|ns| count::to_f64(ns) / MS_NS);
            let rate = |pick: fn(&Interval) -> f64| interval.map_or(0.0, pick);
            found.push(ExportRow {
                timestamp: seconds(at),
                phase: row.word("phase"),
                rss_mb: mb("rss"),
                active_mb: mb("active"),
                resident_mb: mb("resident"),
                allocated_mb: mb("allocated"),
                fragmentation_ratio: row
                    .count("rss")
                    .zip(row.count("used").filter(|used| *used > 0))
                    .map(|(rss, used)| count::to_f64(rss) / count::to_f64(used)),
                qps: rate(|i| i.qps),
                ips: rate(|i| i.ips),
                dps: rate(|i| i.dps),
                p50_ms: ms(0.5),
                p95_ms: ms(0.95),
                p99_ms: ms(0.99),
            });
        }
        Ok(Export { run, rows: found })
    })
    .await
}

impl Export {
    /// As CSV with a line of names; what is not known is empty.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut out = String::from(COLUMNS);
        out.push('\n');
        for row in &self.rows {
            let quoted = row.phase.contains(['"', ',', '\n']);
            let phase =
                if quoted { format!("\"{}\"", row.phase.replace('"', "\"\"")) } else { row.phase.clone() };
            let _ = write!(out, "{},{phase}", row.timestamp);
            let rates = [row.qps, row.ips, row.dps].map(Some);
            let memory =
                [row.rss_mb, row.active_mb, row.resident_mb, row.allocated_mb, row.fragmentation_ratio];
            let times = [row.p50_ms, row.p95_ms, row.p99_ms];
            for value in memory.into_iter().chain(rates).chain(times) {
                out.push(',');
                if let Some(value) = value {
                    let _ = write!(out, "{value}");
                }
            }
            out.push('\n');
        }
        out
    }

    /// As JSON: the run and its rows, names as in the CSV; what is not known is null.
    ///
    /// # Errors
    /// [`Error::Write`] when it cannot be written.
    pub fn to_json(&self) -> Result<String, Error> {
        serde_json::to_string_pretty(self).map_err(|e| Error::Write(e.to_string()))
    }
}

/// The latencies of a run as an HDR histogram log (version 1.3; histograms V2, deflated), in nanoseconds. Each line has
/// the tag `phase/operation/response` or `.../service`.
///
/// # Errors
/// [`Error`] when the directory cannot be read.
pub async fn hdr_log(run_dir: &str) -> Result<String, Error> {
    let run_dir = run_dir.to_owned();
    on_own_threads(async move || {
        let engine = Engine::open(&[run_dir]).await?;
        let batches = engine.sql(LOG).await?;
        let written = |e: &dyn std::fmt::Debug| Error::Write(format!("HDR histogram log: {e:?}"));
        let zero = rows(&batches).filter_map(|row| row.int("start")).min().unwrap_or_default();
        let mut out = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        {
            let mut builder = IntervalLogWriterBuilder::new();
            builder
                .add_comment("vst: latencies in nanoseconds, tags are phase/operation/time")
                .with_base_time(time_of(zero))
                .with_start_time(time_of(zero))
                .with_max_value_divisor(LOG_UNIT);
            let mut log = builder.begin_log_with(&mut out, &mut serializer).map_err(|e| written(&e))?;
            for row in rows(&batches) {
                for time in ["response", "service"] {
                    let hdr = row.hdr(time)?;
                    if hdr.is_empty() {
                        continue;
                    }
                    let bytes = hdr.encode()?;
                    let histogram: Histogram<u64> =
                        Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|e| written(&e))?;
                    let tag = plain(&format!("{}/{}/{time}", row.word("phase"), row.word("operation")));
                    let since = count::to_u64(row.int("start").unwrap_or_default().saturating_sub(zero));
                    log.write_histogram(
                        &histogram,
                        std::time::Duration::from_nanos(since),
                        std::time::Duration::from_nanos(row.total("length")),
                        Tag::new(&tag),
                    )
                    .map_err(|e| written(&e))?;
                }
            }
        }
        String::from_utf8(out).map_err(|e| Error::Write(e.to_string()))
    })
    .await
}

fn time_of(wall_ns: i64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_nanos(count::to_u64(wall_ns))
}

/// A tag of the log ends at a comma, a space or a line's end.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c == ',' || c.is_whitespace() { '_' } else { c }).collect()
}

fn seconds(wall_ns: i64) -> f64 {
    // To the millisecond: a float of this size holds no nanoseconds.
    count::to_f64(count::to_u64(wall_ns / 1_000_000)) / 1e3
}

async fn intervals(engine: &Engine) -> Result<Vec<Interval>, Error> {
    let mut found: Vec<Interval> = Vec::new();
    for row in rows(&engine.sql(LOAD).await?) {
        let start_ns = row.int("start").unwrap_or_default();
        let length_ns = row.total("length").max(1);
        let rate = count::to_f64(row.total("ok")) * 1e9 / count::to_f64(length_ns);
        let response = row.hdr("response")?;
        let times = if response.is_empty() { row.hdr("service")? } else { response };
        if found.last().is_none_or(|last| last.start_ns != start_ns) {
            let end_ns = start_ns.saturating_add(count::to_i64(length_ns));
            found.push(Interval { start_ns, end_ns, qps: 0.0, ips: 0.0, dps: 0.0, times: Hdr::new() });
        }
        let Some(interval) = found.last_mut() else { continue };
        interval.times.merge(&times);
        match row.text("class") {
            Some("insert") => interval.ips += rate,
            Some("delete") => interval.dps += rate,
            _ => interval.qps += rate,
        }
    }
    Ok(found)
}

// Sums over primaries at ticks at which every node of the run answered; a node that two workers sampled counts once.
const TICKS: &str = "
    with by_node as (
        select tick, node, max(role) as role, min(cast(sampled_at as bigint)) as at, min(phase_index) as phase_index,
               max(used_memory) as used, max(used_memory_rss) as rss, max(allocator_active) as active,
               max(allocator_resident) as resident, max(allocator_allocated) as allocated
        from memory where missing is null and used_memory is not null group by tick, node
    )
    select t.*, p.phase from (
        select tick, min(at) as at, min(phase_index) as phase_index,
               sum(case when role <> 'replica' then used end) as used,
               sum(case when role <> 'replica' then rss end) as rss,
               sum(case when role <> 'replica' then active end) as active,
               sum(case when role <> 'replica' then resident end) as resident,
               sum(case when role <> 'replica' then allocated end) as allocated
        from by_node group by tick
        having count(*) = (select count(distinct node) from memory)
    ) t left join phases p on t.phase_index = p.phase_index
    order by t.at";

const LOAD: &str = "
    select cast(l.interval_start as bigint) as start, max(l.interval_ns) as length, sum(l.ok) as ok,
           case when p.step not in ('query', 'kv') and l.operation = 'del' then 'delete'
                when p.step not in ('query', 'kv') then 'insert' else 'query' end as class,
           hdr_merge(l.response_hdr) as response, hdr_merge(l.service_hdr) as service
    from latency_rollup_all l join phases p on l.run = p.run and l.phase_index = p.phase_index
    where l.operation <> 'knn_part'
    group by cast(l.interval_start as bigint), class order by start, class";

const LOG: &str = "
    select phase, operation, cast(interval_start as bigint) as start, max(interval_ns) as length,
           hdr_merge(response_hdr) as response, hdr_merge(service_hdr) as service
    from latency_rollup group by phase, operation, cast(interval_start as bigint) order by start, phase, operation";
