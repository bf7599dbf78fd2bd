//! What the vectors cost: memory at the baseline and at each checkpoint.
//!
//! Reads `memory` and `phases`. The figures of a phase are those of its last *complete* tick, one at which every
//! node of the run answered; a phase without one has no figures. A tick after the phase's logged end is not of the
//! phase: the next one arms by then. Sums are over primaries, so that bytes per vector do not depend on the number of
//! replicas. Law: net bytes per vector = (used - used at the baseline) / live rows.

use serde::{Deserialize, Serialize};
use vst_common::count;
use vst_common::keys::KeySpace;

use crate::allocator::{self, AllocatorFigures};
use crate::engine::rows::rows;
use crate::engine::{Engine, Error};

/// Memory of the target at a baseline or checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Position of the phase in the run.
    pub phase_index: u64,
    /// Name of the phase.
    pub phase: String,
    /// `baseline` or `checkpoint`.
    pub step: String,
    /// Ticks of the phase, up to its end, and of those the ones at which every node answered.
    pub ticks: u64,
    /// See `ticks`.
    pub complete_ticks: u64,
    /// Rows alive on the target; absent where the run did not get that far.
    pub live: Option<u64>,
    /// Bytes of the names of the live rows' keys, `live * length of a key`: a part of what the target uses, without
    /// what it adds to each name. Absent where the prefix of the keys is not known.
    pub key_name_bytes: Option<u64>,
    /// Whether the run had made an index by then.
    pub indexed: bool,
    /// The figures; absent without a complete tick.
    pub figures: Option<Figures>,
    /// Size classes of the primaries' allocators; absent unless each primary of the figures said its own.
    pub allocator: Option<AllocatorFigures>,
}

/// Figures of one complete tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The tick.
    pub tick: u64,
    /// Primaries that the sums are over.
    pub primaries: u64,
    /// Replicas that answered too.
    pub replicas: u64,
    /// Keys.
    pub keys: Option<u64>,
    /// Vectors in the index; absent unless every primary said how many its part holds.
    pub index_docs: Option<u64>,
    /// Primaries that said it.
    pub index_nodes: u64,
    /// Rows that could not be indexed.
    pub index_failures: Option<u64>,
    /// `used_memory`, bytes.
    pub used_bytes: u64,
    /// `used_memory_rss`, bytes.
    pub rss_bytes: Option<u64>,
    /// What the search module says it uses, bytes.
    pub module_bytes: Option<u64>,
    /// What the module could give back, bytes.
    pub reclaimable_bytes: Option<u64>,
    /// `rss_bytes / used_bytes`.
    pub fragmentation: Option<f64>,
    /// `(used - used at the baseline) / live`, bytes per vector.
    pub net_bytes_per_vector: Option<f64>,
    /// Since the checkpoint before, where rows were removed: bytes given back over the bytes that the removed rows
    /// held on average, `(used before - used) / (net before * (1 - live / live before))`. 1 when a vector costs as much
    /// as before; less when memory stayed behind; more when what is left costs less per vector than it did at the
    /// checkpoint before, because that one still held memory that no row needed (buffers, tables half grown).
    pub returned_share: Option<f64>,
}

/// The baseline and all checkpoints that began, in order; `prefix` is that of all keys.
pub(crate) async fn checkpoints(engine: &Engine, prefix: Option<&str>) -> Result<Vec<Checkpoint>, Error> {
    let batches = engine.sql(QUERY).await?;
    let key_bytes = prefix.map(|prefix| {
        let mut key = Vec::new();
        KeySpace::new(prefix).write(0, 0, &mut key);
        count::len(key.len())
    });
    let mut found: Vec<Checkpoint> = rows(&batches)
        .map(|row| Checkpoint {
            phase_index: row.total("phase_index"),
            phase: row.word("phase"),
            step: row.word("step"),
            ticks: row.total("ticks"),
            complete_ticks: row.total("complete_ticks"),
            live: row.count("live"),
            key_name_bytes: row.count("live").zip(key_bytes).map(|(live, each)| live.saturating_mul(each)),
            indexed: row.total("indexes") > 0,
            figures: row.count("used").map(|used_bytes| {
                let rss_bytes = row.count("rss");
                Figures {
                    tick: row.total("tick"),
                    primaries: row.total("primaries"),
                    replicas: row.total("replicas"),
                    keys: row.count("keys"),
                    index_docs: row
                        .count("index_docs")
                        .filter(|_| row.total("index_nodes") == row.total("primaries")),
                    index_nodes: row.total("index_nodes"),
                    index_failures: row.count("index_failures"),
                    used_bytes,
                    rss_bytes,
                    module_bytes: row.count("module_bytes"),
                    reclaimable_bytes: row.count("reclaimable_bytes"),
                    fragmentation: rss_bytes
                        .filter(|_| used_bytes > 0)
                        .map(|rss| count::to_f64(rss) / count::to_f64(used_bytes)),
                    net_bytes_per_vector: None,
                    returned_share: None,
                }
            }),
            allocator: None,
        })
        .collect();
    for (phase, classes) in allocator::by_phase(engine).await? {
        let here = found.iter_mut().find(|c| c.phase_index == phase);
        if let Some(checkpoint) = here
            && checkpoint.figures.as_ref().is_some_and(|f| f.primaries == classes.primaries)
        {
            checkpoint.allocator = Some(classes);
        }
    }
    relate(&mut found);
    Ok(found)
}

/// Fills in what compares a checkpoint with the baseline and with the one before.
fn relate(checkpoints: &mut [Checkpoint]) {
    let baseline = checkpoints
        .iter()
        .find(|c| c.step == "baseline")
        .and_then(|c| c.figures.as_ref())
        .map(|f| count::to_f64(f.used_bytes));
    let Some(baseline) = baseline else { return };
    let mut before: Option<(f64, f64)> = None;
    for checkpoint in checkpoints.iter_mut().filter(|c| c.step != "baseline") {
        let (Some(live), Some(figures)) = (checkpoint.live.map(count::to_f64), checkpoint.figures.as_mut())
        else {
            continue;
        };
        let used = count::to_f64(figures.used_bytes);
        if live > 0.0 {
            figures.net_bytes_per_vector = Some((used - baseline) / live);
        }
        if let Some((used_before, live_before)) = before
            && live < live_before
        {
            let held = (used_before - baseline) * (1.0 - live / live_before);
            figures.returned_share = (held > 0.0).then(|| (used_before - used) / held);
        }
        before = Some((used, live));
    }
}

// A node that two workers sampled at one tick (its owner changed) counts once: first by node, then over nodes. The
// last known node set is that of the whole run: a node that never answered in a phase is missing there, not absent.
// Rows carry the name of the phase until the next one starts, so those asked for while that one arms are left out.
const QUERY: &str = "
    with expected as (select run, count(distinct node) as nodes from memory group by run),
    inside as (
        select m.run, m.phase_index, m.tick
        from memory m left join phases p on m.run = p.run and m.phase_index = p.phase_index
        group by m.run, m.phase_index, m.tick
        having max(p.\"end\") is null or max(m.sampled_at) <= max(p.\"end\")
    ),
    sampled as (
        select m.* from memory m
             join inside i on m.run = i.run and m.phase_index = i.phase_index and m.tick = i.tick
    ),
    by_node as (
        select run, phase_index, tick, node, max(role) as role, max(used_memory) as used, max(used_memory_rss) as rss,
               max(keys) as keys, max(index_docs) as index_docs, max(index_failures) as index_failures,
               max(module_used_memory_bytes) as module_bytes, max(module_reclaimable_bytes) as reclaimable_bytes
        from sampled where missing is null and used_memory is not null
        group by run, phase_index, tick, node
    ),
    answered as (
        select run, phase_index, tick, count(*) as nodes,
               sum(case when role = 'replica' then 0 else 1 end) as primaries,
               sum(case when role = 'replica' then 1 else 0 end) as replicas,
               sum(case when role <> 'replica' then used end) as used,
               sum(case when role <> 'replica' then rss end) as rss,
               sum(case when role <> 'replica' then keys end) as keys,
               sum(case when role <> 'replica' then index_docs end) as index_docs,
               sum(case when role <> 'replica' and index_docs is not null then 1 else 0 end) as index_nodes,
               sum(case when role <> 'replica' then index_failures end) as index_failures,
               sum(case when role <> 'replica' then module_bytes end) as module_bytes,
               sum(case when role <> 'replica' then reclaimable_bytes end) as reclaimable_bytes
        from by_node group by run, phase_index, tick
    ),
    complete as (
        select a.*, row_number() over (partition by a.run, a.phase_index order by a.tick desc) as recency,
               count(*) over (partition by a.run, a.phase_index) as complete_ticks
        from answered a join expected e on a.run = e.run and a.nodes = e.nodes
    ),
    asked as (select run, phase_index, count(distinct tick) as ticks from inside group by run, phase_index),
    made as (
        select c.run, c.phase_index,
               case when max(case when i.step in ('create_index', 'rebuild_index', 'query') then i.phase_index else -1 end)
                         > max(case when i.step = 'drop_index' then i.phase_index else -1 end)
                    then 1 else 0 end as indexes
        from phases c join phases i on c.run = i.run and i.phase_index < c.phase_index
        group by c.run, c.phase_index
    )
    select p.phase_index, p.phase, p.step, p.live_after as live, k.ticks, c.complete_ticks, c.tick, c.primaries,
           c.replicas, c.used, c.rss, c.keys, c.index_docs, c.index_nodes, i.indexes, c.index_failures,
           c.module_bytes, c.reclaimable_bytes
    from phases p
         left join asked k on p.run = k.run and p.phase_index = k.phase_index
         left join (select * from complete where recency = 1) c
              on p.run = c.run and p.phase_index = c.phase_index
         left join made i on p.run = i.run and p.phase_index = i.phase_index
    where p.step in ('baseline', 'checkpoint')
    order by p.phase_index";
