//! Which rows a target holds already, so that only the others are written.
//!
//! Asked by `fetch` for the rows of a leased range, on connections of its own, before the range goes to the lanes. Law: a
//! row is left out only where its vector is there in full length; of a node that cannot be asked nothing is left out
//! silently, the range fails and is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use vst_common::count;
use vst_common::keys::{KeySpace, slot};
use vst_common::phase::VectorWork;

use crate::topology::{self, Credentials, Topology};
use crate::work::RowBlock;

/// A node that cannot be asked which rows it holds.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be asked which rows it holds: {source}")]
pub struct Error {
    /// `host:port`.
    address: String,
    /// The client's error.
    source: redis::RedisError,
}

/// Connections to ask on.
pub struct Presence {
    topology: Arc<Topology>,
    /// One for each primary, in the order of the topology.
    connections: Vec<MultiplexedConnection>,
    keys: KeySpace,
    field: String,
    vector_bytes: usize,
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence").field("field", &self.field).finish_non_exhaustive()
    }
}

impl Presence {
    /// Connects to every primary.
    ///
    /// # Errors
    /// [`Error`] for the first that cannot be reached.
    pub async fn open(
        topology: &Arc<Topology>,
        credentials: &Credentials,
        vectors: &VectorWork,
    ) -> Result<Self, Error> {
        let dims = vectors.expansion.index_dims(vectors.dims);
        let mut connections = Vec::new();
        for node in topology.nodes.iter().take(topology.primaries()) {
            let opened = topology::connect(&node.host, node.port, credentials).await;
            connections.push(
                opened.map_err(|source| Error { address: address(topology, connections.len()), source })?,
            );
        }
        Ok(Self {
            topology: Arc::clone(topology),
            connections,
            keys: KeySpace::new(&vectors.prefix),
            field: vectors.field.clone(),
            vector_bytes: count::index(u64::from(dims).saturating_mul(4)),
        })
    }

    /// The block without the rows that are there.
    ///
    /// # Errors
    /// [`Error`] for a node that does not answer.
    pub async fn missing(&self, block: RowBlock) -> Result<RowBlock, Error> {
        let block = block.widened();
        let mut by_node: BTreeMap<usize, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
        for (place, (copy, row)) in block.rows.iter().enumerate() {
            let mut key = Vec::new();
            self.keys.write(*copy, *row, &mut key);
            let node = self.topology.slots.get(usize::from(slot(&key))).map_or(0, |node| usize::from(*node));
            by_node.entry(node).or_default().push((place, key));
        }
        let mut there = vec![false; block.rows.len()];
        for (node, keys) in by_node {
            let Some(connection) = self.connections.get(node) else { continue };
            let mut pipeline = redis::Pipeline::with_capacity(keys.len());
            for (_, key) in &keys {
                pipeline.cmd("HSTRLEN").arg(key).arg(&self.field);
            }
            let lengths: Vec<u64> = pipeline
                .query_async(&mut connection.clone())
                .await
                .map_err(|source| Error { address: address(&self.topology, node), source })?;
            for ((place, _), length) in keys.iter().zip(lengths) {
                if let Some(there) = there.get_mut(*place) {
                    *there = length == count::len(self.vector_bytes);
                }
            }
        }
        let mut rows = Vec::new();
        let mut vectors = Vec::new();
        let all = block.rows.iter().zip(block.vectors.chunks(self.vector_bytes.max(1)));
        for ((row, vector), _) in all.zip(&there).filter(|(_, there)| !**there) {
            rows.push(*row);
            vectors.extend_from_slice(vector);
        }
        Ok(RowBlock { rows, vectors, ..block })
    }
}

fn address(topology: &Topology, node: usize) -> String {
    topology.nodes.get(node).map_or_else(String::new, |node| vst_access::join(&node.host, node.port))
}
