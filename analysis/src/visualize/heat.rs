//! What the map of size classes draws: bytes in use and bytes of pages, by class, slow tick and node.
//!
//! Read from table `allocator`. Law: the map holds at most [`CELLS`] cells, however long the run and however many nodes;
//! what is left out is thinned evenly or summed, never cut off.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vst_common::count;

use super::seconds;
use crate::engine::rows::rows;
use crate::engine::{Engine, Error};

/// Cells (node, class and tick) that the page holds.
const CELLS: usize = 60_000;
/// Nodes that are told apart; more are one.
const NODES: usize = 16;
/// Classes that are shown, those that hold most.
const CLASSES: usize = 40;

#[derive(Debug, Default, Serialize)]
pub(super) struct Heat {
    pub(super) times_s: Vec<f64>,
    pub(super) classes: Vec<Class>,
    pub(super) nodes: Vec<Node>,
    /// Why there is nothing.
    pub(super) missing: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Class {
    pub(super) kind: String,
    pub(super) size: u64,
}

/// Bytes of a node by class, then by tick.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    /// As in the list of nodes; `*` for all together.
    pub(super) id: String,
    pub(super) used: Vec<Vec<u64>>,
    pub(super) kept: Vec<Vec<u64>>,
}

type Key = (u64, String);

pub(super) async fn of(engine: &Engine, zero: i64) -> Result<Heat, Error> {
    let counted = "select count(distinct node) as nodes from allocator where kind is not null";
    let nodes = rows(&engine.sql(counted).await?).next().map_or(0, |row| row.total("nodes"));
    if nodes == 0 {
        let why = "select max(missing) as missing from allocator";
        let missing =
            rows(&engine.sql(why).await?).next().and_then(|row| row.text("missing").map(str::to_owned));
        return Ok(Heat { missing, ..Heat::default() });
    }
    let by_node = nodes <= count::len(NODES);
    let node = if by_node { "node" } else { "'*'" };
    // A node that two workers asked at one tick counts once.
    let sql = format!(
        "select tick, min(at) as at, {node} as node, kind, size_bytes, sum(used) as used, sum(kept) as kept
         from (select tick, min(cast(sampled_at as bigint)) as at, node, kind, size_bytes,
                      max(allocated_bytes) as used, max(coalesce(held_bytes, allocated_bytes)) as kept
               from allocator where kind is not null group by tick, node, kind, size_bytes)
         group by tick, {node}, kind, size_bytes order by tick"
    );
    let mut at: BTreeMap<u64, i64> = BTreeMap::new();
    let mut most: BTreeMap<Key, u64> = BTreeMap::new();
    let mut cells: BTreeMap<(String, Key, u64), (u64, u64)> = BTreeMap::new();
    for row in rows(&engine.sql(&sql).await?) {
        let (tick, key) = (row.total("tick"), (row.total("size_bytes"), row.word("kind")));
        let instant = row.int("at").unwrap_or_default();
        at.entry(tick).and_modify(|first| *first = instant.min(*first)).or_insert(instant);
        let kept = row.total("kept");
        most.entry(key.clone()).and_modify(|most| *most = kept.max(*most)).or_insert(kept);
        cells.insert((row.word("node"), key, tick), (row.total("used"), kept));
    }
    let mut largest: Vec<(&Key, u64)> =
        most.iter().map(|(key, bytes)| (key, *bytes)).filter(|c| c.1 > 0).collect();
    largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut classes: Vec<Key> = largest.into_iter().take(CLASSES).map(|(key, _)| key.clone()).collect();
    classes.sort();
    let names: BTreeSet<String> = cells.keys().map(|(node, _, _)| node.clone()).collect();
    let most_ticks = (CELLS / (names.len() * classes.len()).max(1)).max(1);
    let ticks: Vec<u64> = at.keys().copied().step_by(at.len().div_ceil(most_ticks).max(1)).collect();
    let of_node = |id: String| {
        let bytes = |pick: fn(&(u64, u64)) -> u64| -> Vec<Vec<u64>> {
            let of = |key: &Key, tick: u64| cells.get(&(id.clone(), key.clone(), tick)).map_or(0, pick);
            classes.iter().map(|key| ticks.iter().map(|tick| of(key, *tick)).collect()).collect()
        };
        Node { used: bytes(|cell| cell.0), kept: bytes(|cell| cell.1), id: id.clone() }
    };
    let nodes = names.into_iter().map(of_node).collect();
    Ok(Heat {
        times_s: ticks.iter().filter_map(|tick| at.get(tick)).map(|at| seconds(*at, zero)).collect(),
        classes: classes.into_iter().map(|(size, kind)| Class { kind, size }).collect(),
        nodes,
        missing: None,
    })
}
