//! Whether rows that a server acknowledged are still there after another node took over its slots.
//!
//! Replication is asynchronous: what a primary acknowledged in its last moments may never have reached the replica that
//! was promoted. Asked by `session` when a phase of rows has seen a failover; gives the rows that are not as they should
//! be, for the lanes to send again. Law: every row of the doubted ranges in the doubted slots is looked at, none other.

use std::collections::{BTreeMap, BTreeSet};

use redis::aio::MultiplexedConnection;
use vst_common::count;
use vst_common::keys::{KeySpace, slot};
use vst_common::phase::Work;
use vst_common::ranges::RowRange;
use vst_common::scenario::RowKind;

use super::Source;
use crate::topology::{Credentials, Topology, connect};
use crate::work::{REPAIR_BLOCKS, RowBlock};

/// What may have been lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubted {
    /// Ranges whose rows were acknowledged, or may have been, before the failover.
    pub ranges: Vec<RowRange>,
    /// Slots that another node took over.
    pub slots: BTreeSet<u16>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Rows that were looked at.
    pub checked: u64,
    /// Those that are not as they should be, to be sent again.
    pub lost: Vec<RowBlock>,
}

/// What a row should be.
enum Wanted<'a> {
    /// Its field holds the vector.
    Vector(&'a str),
    /// It is gone.
    Nothing,
}

/// Looks at every doubted row.
///
/// # Errors
/// Why it cannot be known, for people.
pub(crate) async fn lost_rows(
    source: &Source,
    work: &Work,
    doubted: &Doubted,
    topology: &Topology,
    credentials: &Credentials,
) -> Result<Verified, String> {
    if work.vectors().is_some_and(|vectors| vectors.on == RowKind::Json) {
        return Err(String::from(
            "documents are not compared after a failover, so what was lost is not known",
        ));
    }
    let (wanted, prefix) = match work {
        Work::Ingest(vectors) | Work::Fill(vectors) | Work::Grow(vectors, _) | Work::Update(vectors) => {
            (Wanted::Vector(&vectors.field), &vectors.prefix)
        }
        Work::Delete(vectors) | Work::DropCopies { vectors, .. } => (Wanted::Nothing, &vectors.prefix),
        Work::Churn(_) | Work::Mixed { .. } => {
            return Err(String::from(
                "a phase that writes and deletes may have changed a row twice, so what it should be is not known",
            ));
        }
        Work::Query { .. } | Work::Commands(_) => return Ok(Verified::default()),
    };
    let mut look = Look {
        keys: KeySpace::new(prefix),
        wanted,
        topology,
        credentials,
        connections: BTreeMap::new(),
        found: Verified::default(),
    };
    for range in &doubted.ranges {
        for block in source.every_block(*range).await.map_err(|e| e.to_string())? {
            look.at(&block.widened(), &doubted.slots).await?;
        }
    }
    Ok(look.found)
}

struct Look<'a> {
    keys: KeySpace,
    wanted: Wanted<'a>,
    topology: &'a Topology,
    credentials: &'a Credentials,
    connections: BTreeMap<u16, MultiplexedConnection>,
    found: Verified,
}

impl Look<'_> {
    /// Looks at the doubted rows of a block, each node's together.
    async fn at(&mut self, block: &RowBlock, slots: &BTreeSet<u16>) -> Result<(), String> {
        let mut by_node: BTreeMap<u16, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
        for (position, (copy, row)) in block.rows.iter().enumerate() {
            let mut key = Vec::new();
            self.keys.write(*copy, *row, &mut key);
            let slot = slot(&key);
            if slots.contains(&slot)
                && let Some(owner) = self.topology.slots.get(usize::from(slot))
            {
                by_node.entry(*owner).or_default().push((position, key));
            }
        }
        let bytes = block.vectors.len() / block.rows.len().max(1);
        let vector = |position: usize| block.vectors.get(position * bytes..(position + 1) * bytes);
        let mut wrong = Vec::new();
        for (node, rows) in by_node {
            let mut pipeline = redis::pipe();
            for (_, key) in &rows {
                match self.wanted {
                    Wanted::Vector(field) => pipeline.cmd("HGET").arg(key).arg(field),
                    Wanted::Nothing => pipeline.cmd("EXISTS").arg(key),
                };
            }
            let connection = self.connection(node).await?;
            let answers: Vec<redis::Value> =
                connection.send_packed_commands(&pipeline, 0, rows.len()).await.map_err(|e| e.to_string())?;
            for ((position, key), answer) in rows.iter().zip(answers) {
                self.found.checked += 1;
                if !self.is_right(key, vector(*position), &answer)? {
                    wrong.push(*position);
                }
            }
        }
        if !wrong.is_empty() {
            wrong.sort_unstable();
            let rows = wrong.iter().filter_map(|position| block.rows.get(*position).copied()).collect();
            let vectors = wrong.iter().filter_map(|position| vector(*position)).flatten().copied().collect();
            self.found.lost.push(RowBlock { id: REPAIR_BLOCKS, rows, vectors, ..RowBlock::default() });
        }
        Ok(())
    }

    fn is_right(&self, key: &[u8], vector: Option<&[u8]>, answer: &redis::Value) -> Result<bool, String> {
        match (&self.wanted, answer) {
            (Wanted::Vector(_), redis::Value::Nil) => Ok(false),
            (Wanted::Vector(_), redis::Value::BulkString(found)) => Ok(vector == Some(found.as_slice())),
            (Wanted::Nothing, redis::Value::Int(there)) => Ok(*there == 0),
            (_, answer) => Err(format!("{} was answered with {answer:?}", String::from_utf8_lossy(key))),
        }
    }

    async fn connection(&mut self, node: u16) -> Result<&mut MultiplexedConnection, String> {
        if !self.connections.contains_key(&node) {
            let at = self.topology.nodes.get(usize::from(node)).ok_or("a slot has no node")?;
            let made = connect(&at.host, at.port, self.credentials).await.map_err(|e| e.to_string())?;
            self.connections.insert(node, made);
        }
        self.connections.get_mut(&node).ok_or_else(|| String::from("a slot has no node"))
    }
}

/// What an event says of it.
#[must_use]
pub(crate) fn told(found: &Verified) -> String {
    let lost: u64 = found.lost.iter().map(|block| count::len(block.rows.len())).sum();
    format!(
        "{lost} of {} rows that were acknowledged before a failover were not as they should be on the node that took \
         over; written again",
        found.checked
    )
}
