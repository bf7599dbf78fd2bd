//! Which node owns which slot.
//!
//! Asked of the target before a phase is armed, used by every lane to route; a lane that is told MOVED corrects its own
//! copy, and one that doubts it has the cluster asked again (`refresh`). Law: of what several nodes say of a slot, the
//! owner with the newest claim counts, as it does in the cluster.

pub(crate) mod refresh;

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{FromRedisValue, Value};
pub use vst_access::Credentials;
use vst_access::{Limits, TargetUrl, join};
use vst_common::ids::NodeId;

/// Number of hash slots of a cluster.
pub const SLOTS: u16 = 16_384;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the layout of the target is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target does not answer as a server does.
    #[error("target `{url}` could not be asked for its topology: {source}")]
    Ask {
        /// As given, without password.
        url: String,
        /// The client's error.
        source: redis::RedisError,
    },
    /// A cluster that does not serve all slots.
    #[error("{missing} of 16384 slots of the target have no node; repair the cluster first (CLUSTER INFO)")]
    Uncovered {
        /// Slots without a node.
        missing: usize,
    },
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Cluster node id, or `host:port` of a standalone server.
    pub id: NodeId,
    /// Host as clients reach it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether it owns slots.
    pub primary: bool,
    /// The primary that it copies, if it is a replica.
    pub of: Option<NodeId>,
}

/// The layout of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Primaries first, then replicas; each group ordered by id.
    pub nodes: Vec<Node>,
    /// For each slot, the position of its primary in `nodes`.
    pub slots: Vec<u16>,
}

impl Topology {
    /// A single server that owns every slot.
    #[must_use]
    pub fn standalone(host: &str, port: u16) -> Self {
        let node =
            Node { id: NodeId::new(join(host, port)), host: host.to_owned(), port, primary: true, of: None };
        Self { nodes: vec![node], slots: vec![0; usize::from(SLOTS)] }
    }

    /// How many nodes own slots; they come first.
    #[must_use]
    pub fn primaries(&self) -> usize {
        self.nodes.iter().take_while(|node| node.primary).count()
    }

    /// Whether it is a server that is no cluster.
    #[must_use]
    pub fn is_standalone(&self) -> bool {
        matches!(self.nodes.as_slice(), [node] if node.id.as_str() == join(&node.host, node.port))
    }
}

/// What is known of a cluster while it fails over or moves slots: some slots may have no owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Primaries first, then replicas; each group ordered by id.
    pub nodes: Vec<Node>,
    /// For each slot, the position of its primary in `nodes`.
    pub slots: Vec<Option<u16>>,
}

impl Layout {
    /// Slots without an owner.
    fn missing(&self) -> usize {
        self.slots.iter().filter(|owner| owner.is_none()).count()
    }
}

/// Asks a target for its layout; where the node of the URL does not answer, nodes of the same cluster that are known
/// from before.
///
/// # Errors
/// [`Error`] when the target cannot be asked or does not serve all slots.
pub async fn discover(target: &TargetUrl, known: &[(String, u16)]) -> Result<Topology, Error> {
    let credentials = target.credentials();
    let first = discover_at(target.host(), target.port(), credentials).await;
    let Err(Error::Ask { .. }) = &first else { return first };
    for (host, port) in known {
        if let Ok(topology) = discover_at(host, *port, credentials).await {
            return Ok(topology);
        }
    }
    first
}

async fn discover_at(host: &str, port: u16, credentials: &Credentials) -> Result<Topology, Error> {
    let ask = |source| Error::Ask { url: join(host, port), source };
    let mut connection = connect(host, port, credentials).await.map_err(ask)?;
    let info: String = redis::cmd("INFO").arg("cluster").query_async(&mut connection).await.map_err(ask)?;
    if !info.contains("cluster_enabled:1") {
        return Ok(Topology::standalone(host, port));
    }
    let slots: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await.map_err(ask)?;
    let layout = from_cluster_slots(&slots, host).map_err(ask)?;
    match layout.missing() {
        0 => Ok(Topology { nodes: layout.nodes, slots: layout.slots.into_iter().flatten().collect() }),
        missing => Err(Error::Uncovered { missing }),
    }
}

/// Opens a connection for commands that are not part of the load.
///
/// # Errors
/// The client's error when the server does not answer within five seconds or refuses the login.
pub async fn connect(
    host: &str,
    port: u16,
    credentials: &Credentials,
) -> Result<redis::aio::MultiplexedConnection, redis::RedisError> {
    let limits = Limits { connect: CONNECT_TIMEOUT, answer: CONNECT_TIMEOUT };
    vst_access::connect(host, port, credentials, limits).await
}

type SlotRange = (u16, u16, Vec<(String, u16, NodeId)>);

fn from_cluster_slots(reply: &Value, asked_host: &str) -> Result<Layout, redis::RedisError> {
    let ranges = read_ranges(reply, asked_host)?;
    let mut primaries = BTreeMap::new();
    let mut replicas = BTreeMap::new();
    for (_, _, nodes) in &ranges {
        let first = nodes.first().map(|(_, _, id)| id);
        for (i, (host, port, id)) in nodes.iter().enumerate() {
            let group = if i == 0 { &mut primaries } else { &mut replicas };
            let of = first.filter(|_| i > 0).cloned();
            group.insert(id.clone(), (host.clone(), *port, of));
        }
    }
    let node = |primary: bool| {
        move |(id, (host, port, of)): (&NodeId, &(String, u16, Option<NodeId>))| Node {
            id: id.clone(),
            host: host.clone(),
            port: *port,
            primary,
            of: of.clone(),
        }
    };
    let mut nodes: Vec<Node> = primaries.iter().map(node(true)).collect();
    nodes.extend(replicas.iter().map(node(false)));

    let mut slots = vec![None; usize::from(SLOTS)];
    for (first, last, owners) in &ranges {
        let owner = owners.first().and_then(|(_, _, id)| nodes.iter().position(|n| n.id == *id));
        let owner = owner.and_then(|i| u16::try_from(i).ok());
        for slot in *first..=*last {
            if let Some(place) = slots.get_mut(usize::from(slot)) {
                *place = owner;
            }
        }
    }
    Ok(Layout { nodes, slots })
}

fn read_ranges(reply: &Value, asked_host: &str) -> Result<Vec<SlotRange>, redis::RedisError> {
    let shape =
        || redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "unreadable CLUSTER SLOTS"));
    let Value::Array(rows) = reply else { return Err(shape()) };
    let mut ranges = Vec::new();
    for row in rows {
        let Value::Array(items) = row else { return Err(shape()) };
        let [first, last, nodes @ ..] = items.as_slice() else { return Err(shape()) };
        let mut owners = Vec::new();
        for node in nodes {
            let Value::Array(parts) = node else { return Err(shape()) };
            let [host, port, id, ..] = parts.as_slice() else { return Err(shape()) };
            // A node that does not know its own address sends an empty one: it is the one that was asked.
            let host = Option::<String>::from_redis_value_ref(host)?.filter(|h| !h.is_empty());
            owners.push((
                host.unwrap_or_else(|| asked_host.to_owned()),
                u16::from_redis_value_ref(port)?,
                NodeId::new(String::from_redis_value_ref(id)?),
            ));
        }
        ranges.push((u16::from_redis_value_ref(first)?, u16::from_redis_value_ref(last)?, owners));
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: i64, id: &str) -> Value {
        Value::Array(vec![
            Value::BulkString(host.into()),
            Value::Int(port),
            Value::BulkString(id.into()),
            Value::Array(Vec::new()),
        ])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    #[test]
    fn every_slot_has_its_primary_and_replicas_own_none() {
        let reply = Value::Array(vec![
            range(0, 8000, vec![node("10.0.0.1", 7001, "b"), node("10.0.0.3", 7003, "r")]),
            range(8001, 16383, vec![node("", 7002, "a")]),
        ]);
        let topology = from_cluster_slots(&reply, "asked").unwrap();
        assert_eq!((topology.nodes.iter().filter(|n| n.primary).count(), topology.missing()), (2, 0));
        let owner = |slot: usize| &topology.nodes[usize::from(topology.slots[slot].unwrap())];
        assert_eq!(owner(0).host, "10.0.0.1");
        assert_eq!(owner(8000).port, 7001);
        assert_eq!((owner(8001).host.as_str(), owner(16383).port), ("asked", 7002));
        let replica = topology.nodes.iter().find(|n| !n.primary).unwrap();
        assert_eq!((replica.id.as_str(), replica.of.as_ref().unwrap().as_str()), ("r", "b"));
    }

    #[test]
    fn a_hole_in_a_cluster_is_counted() {
        let reply = Value::Array(vec![range(0, 100, vec![node("h", 1, "a")])]);
        assert_eq!(from_cluster_slots(&reply, "h").unwrap().missing(), 16283);
    }
}
