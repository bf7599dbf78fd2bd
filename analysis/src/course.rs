//! The course of a run: what each interval of load and each tick of memory said, over all workers.
//!
//! Read once from the tables by whoever needs series: findings, comparison, prediction, the page of charts. Merged by
//! the query engine, so that it is as short for a thousand workers as for one. Law: a tick counts only where every node
//! of the run answered.

use std::collections::{BTreeMap, BTreeSet};

use vst_common::count;
use vst_common::latency::Window;
use vst_common::outcome::ErrorKind;

use crate::engine::rows::rows;
use crate::engine::{Engine, Error};

/// One operation in one interval, over all workers and nodes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoadPoint {
    pub(crate) phase_index: u64,
    pub(crate) operation: String,
    /// Whether it is of the measured window.
    pub(crate) measured: bool,
    /// Wall clock, nanoseconds.
    pub(crate) start_ns: i64,
    pub(crate) length_ns: u64,
    pub(crate) due: u64,
    pub(crate) ok: u64,
    pub(crate) errors: u64,
    /// Timed out, lost or never sent.
    pub(crate) unanswered: u64,
    pub(crate) response_p50_ns: Option<u64>,
    pub(crate) response_p99_ns: Option<u64>,
    pub(crate) response_p9999_ns: Option<u64>,
    pub(crate) service_p50_ns: Option<u64>,
    pub(crate) service_p99_ns: Option<u64>,
    pub(crate) service_p9999_ns: Option<u64>,
}

/// One node at one tick.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodePoint {
    pub(crate) node: String,
    pub(crate) is_replica: bool,
    pub(crate) used: u64,
    pub(crate) rss: Option<u64>,
    pub(crate) maxmemory: Option<u64>,
    pub(crate) keys: Option<u64>,
    /// CPU that the server's main thread had used, seconds.
    pub(crate) main_cpu: Option<f64>,
    /// Memory of its process in swap, bytes; known where a worker ran on the same machine, as are the two after it.
    pub(crate) swap: Option<u64>,
    /// Page faults since its start that read nothing from disk.
    pub(crate) minor_faults: Option<u64>,
    /// Page faults since its start that did.
    pub(crate) major_faults: Option<u64>,
}

/// All nodes at one tick.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TickPoint {
    pub(crate) phase_index: u64,
    /// Wall clock, nanoseconds.
    pub(crate) at_ns: i64,
    pub(crate) nodes: Vec<NodePoint>,
}

impl TickPoint {
    fn primaries(&self) -> impl Iterator<Item = &NodePoint> {
        self.nodes.iter().filter(|n| !n.is_replica)
    }

    /// `used_memory` of the primaries, bytes.
    pub(crate) fn used(&self) -> f64 {
        count::to_f64(self.primaries().map(|n| n.used).sum())
    }

    /// Keys of the primaries.
    pub(crate) fn keys(&self) -> Option<u64> {
        self.primaries().map(|n| n.keys).sum()
    }
}

/// The course of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Course {
    /// In order of phase, operation and time.
    pub(crate) load: Vec<LoadPoint>,
    /// Complete ticks in order of time.
    pub(crate) ticks: Vec<TickPoint>,
}

impl Course {
    /// Of the first run of an engine; intervals are put together so that about `most` are left.
    pub(crate) async fn read(engine: &Engine, most: u64) -> Result<Self, Error> {
        Ok(Self { load: load(engine, most).await?, ticks: ticks(engine).await? })
    }

    /// The whole intervals of the measured window of a phase and operation, in order of time. The first and the last
    /// of a phase whose end is its work's are cut by its beginning and its end, and left out.
    pub(crate) fn measured(&self, phase_index: u64, operation: &str, ends_itself: bool) -> Vec<&LoadPoint> {
        let all: Vec<&LoadPoint> = self
            .load
            .iter()
            .filter(|p| p.phase_index == phase_index && p.operation == operation && p.measured)
            .collect();
        match all.as_slice() {
            [_, inside @ .., _] if ends_itself => inside.to_vec(),
            _ => all,
        }
    }

    /// The complete ticks of a phase.
    pub(crate) fn ticks_of(&self, phase_index: u64) -> impl Iterator<Item = &TickPoint> {
        self.ticks.iter().filter(move |t| t.phase_index == phase_index)
    }
}

async fn load(engine: &Engine, most: u64) -> Result<Vec<LoadPoint>, Error> {
    let span = "select min(interval_ns) as each,
                       max(cast(interval_start as bigint)) - min(cast(interval_start as bigint)) as span
                from latency_rollup_all";
    let width = rows(&engine.sql(span).await?).next().map_or(1, |row| {
        let each = row.total("each").max(1);
        (row.total("span") / each / most.max(1) + 1).saturating_mul(each)
    });
    // A kind that an older run did not know must not swallow the others.
    let errors: Vec<String> =
        ErrorKind::ALL.into_iter().map(|kind| format!("coalesce(l.{}, 0)", kind.column())).collect();
    let errors = errors.join(" + ");
    // Buckets begin with their phase, as intervals do.
    let sql = format!(
        "select l.phase_index, l.operation, l.\"window\" as part,
                (cast(l.interval_start as bigint) - cast(p.start as bigint)) / {width} as bucket,
                min(cast(l.interval_start as bigint)) as start,
                max(cast(l.interval_start as bigint) + l.interval_ns) as stop,
                sum(due) as due, sum(l.ok) as ok, sum({errors}) as errors,
                sum(l.timeout + l.lost + l.unsent) as unanswered,
                hdr_quantile(hdr_merge(response_hdr), 0.5) as response_p50,
                hdr_quantile(hdr_merge(response_hdr), 0.99) as response_p99,
                hdr_quantile(hdr_merge(response_hdr), 0.9999) as response_p9999,
                hdr_quantile(hdr_merge(service_hdr), 0.5) as service_p50,
                hdr_quantile(hdr_merge(service_hdr), 0.99) as service_p99,
                hdr_quantile(hdr_merge(service_hdr), 0.9999) as service_p9999
         from (select * from latency_rollup_all where operation <> 'knn_part') l
              join (select run, phase_index, start from phases) p on l.run = p.run and l.phase_index = p.phase_index
         group by l.phase_index, l.operation, l.\"window\", bucket
         order by l.phase_index, l.operation, start"
    );
    let batches = engine.sql(&sql).await?;
    let made = rows(&batches).map(|row| {
        let start_ns = row.int("start").unwrap_or_default();
        LoadPoint {
            phase_index: row.total("phase_index"),
            operation: row.word("operation"),
            measured: row.text("part") == Some(Window::Measure.as_str()),
            start_ns,
            length_ns: count::to_u64(row.int("stop").unwrap_or_default().saturating_sub(start_ns)),
            due: row.total("due"),
            ok: row.total("ok"),
            errors: row.total("errors"),
            unanswered: row.total("unanswered"),
            response_p50_ns: row.count("response_p50"),
            response_p99_ns: row.count("response_p99"),
            response_p9999_ns: row.count("response_p9999"),
            service_p50_ns: row.count("service_p50"),
            service_p99_ns: row.count("service_p99"),
            service_p9999_ns: row.count("service_p9999"),
        }
    });
    Ok(made.collect())
}

async fn ticks(engine: &Engine) -> Result<Vec<TickPoint>, Error> {
    let sql =
        "select max(m.phase_index) as phase_index, m.tick, min(cast(m.sampled_at as bigint)) as at, m.node,
                      max(m.role) as role, max(m.used_memory) as used, max(m.used_memory_rss) as rss,
                      max(m.maxmemory) as maxmemory, max(m.keys) as keys,
                      max(m.used_cpu_sys_main_thread + m.used_cpu_user_main_thread) as main_cpu,
                      max(m.process_swap_bytes) as swap, max(m.process_minor_faults) as minor_faults,
                      max(m.process_major_faults) as major_faults
               from memory m left join phases p on m.run = p.run and m.phase_index = p.phase_index
               where m.missing is null and m.used_memory is not null
                     and (p.\"end\" is null or m.sampled_at <= p.\"end\")
               group by m.tick, m.node order by m.tick, m.node";
    let mut found: BTreeMap<u64, TickPoint> = BTreeMap::new();
    for row in rows(&engine.sql(sql).await?) {
        let tick = found.entry(row.total("tick")).or_insert_with(|| TickPoint {
            phase_index: row.total("phase_index"),
            at_ns: row.int("at").unwrap_or_default(),
            nodes: Vec::new(),
        });
        tick.nodes.push(NodePoint {
            node: row.word("node"),
            is_replica: row.text("role") == Some("replica"),
            used: row.total("used"),
            rss: row.count("rss"),
            maxmemory: row.count("maxmemory"),
            keys: row.count("keys"),
            main_cpu: row.float("main_cpu"),
            swap: row.count("swap"),
            minor_faults: row.count("minor_faults"),
            major_faults: row.count("major_faults"),
        });
    }
    let nodes: BTreeSet<String> = found.values().flat_map(|t| &t.nodes).map(|n| n.node.clone()).collect();
    Ok(found.into_values().filter(|t| t.nodes.len() == nodes.len()).collect())
}
