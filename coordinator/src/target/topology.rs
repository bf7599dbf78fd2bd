//! The nodes of a cluster as one of them describes it.

use std::ops::RangeInclusive;

use redis::cmd;
use serde::{Deserialize, Serialize};
use vst_access::{TargetUrl, join, split};
use vst_common::ids::NodeId;
use vst_common::keys::SLOTS;

use super::link::Link;
use super::{TargetError, uncovered};

/// What a node is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Copies a primary.
    Replica {
        /// The primary.
        of: NodeId,
    },
}

/// One node of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetNode {
    /// The cluster's name for it, or `host:port` of a standalone server.
    pub id: NodeId,
    /// Where it answers.
    pub host: String,
    /// Where it answers.
    pub port: u16,
    /// What it is for.
    pub role: Role,
    /// Slots that it serves; all of them for a standalone server.
    pub slots: Vec<RangeInclusive<u16>>,
}

impl TargetNode {
    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        join(&self.host, self.port)
    }

    pub(super) fn standalone(url: &TargetUrl) -> Self {
        Self {
            id: NodeId::new(url.address()),
            host: url.host().to_owned(),
            port: url.port(),
            role: Role::Primary,
            slots: vec![0..=SLOTS - 1],
        }
    }
}

/// Asks a node for the cluster's nodes, primaries first, each kind by address.
pub(super) async fn read(link: &Link) -> Result<Vec<TargetNode>, TargetError> {
    let nodes = read_any(link).await?;
    match uncovered(&nodes) {
        0 => Ok(nodes),
        missing => Err(TargetError::UncoveredSlots { url: format!("valkey://{}", link.address()), missing }),
    }
}

/// The same of a cluster that may not serve all its slots just now.
pub(super) async fn read_any(link: &Link) -> Result<Vec<TargetNode>, TargetError> {
    let mut command = cmd("CLUSTER");
    command.arg("NODES");
    let text: String = link.ask(&command).await?;
    let (asked_host, _) = split(link.address()).unwrap_or((link.address(), 0));
    parse(&text, asked_host).map_err(|line| link.unexpected(&command, format!("`{line}`")))
}

/// Reads `CLUSTER NODES`. A node that has not learned its own address is at the one that was asked. Nodes that are
/// gone or not yet known are left out. The error is the line that makes no sense.
fn parse(text: &str, asked_host: &str) -> Result<Vec<TargetNode>, String> {
    let mut nodes = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let node = parse_line(line, asked_host).ok_or_else(|| line.to_owned())?;
        nodes.extend(node);
    }
    nodes.sort_by_key(|node| (node.role != Role::Primary, node.host.clone(), node.port));
    Ok(nodes)
}

/// `id ip:port@bus[,host[,...]] flags primary ping pong epoch link slot...`
fn parse_line(line: &str, asked_host: &str) -> Option<Option<TargetNode>> {
    let mut words = line.split_whitespace();
    let (id, address, flags, primary) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let flags: Vec<&str> = flags.split(',').collect();
    let is = |flag| flags.contains(&flag);
    let slots: Vec<&str> = words.skip(4).filter(|slot| !slot.starts_with('[')).collect();
    if is("noaddr") || is("handshake") || (is("fail") && slots.is_empty()) {
        return Some(None);
    }
    let (host, port) = split(address.split('@').next()?)?;
    let slots = slots
        .into_iter()
        .map(|slot| {
            let (first, last) = slot.split_once('-').unwrap_or((slot, slot));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect::<Option<_>>()?;
    let role =
        if is("slave") || is("replica") { Role::Replica { of: NodeId::new(primary) } } else { Role::Primary };
    let host = if host.is_empty() { asked_host } else { host };
    Some(Some(TargetNode { id: NodeId::new(id), host: host.to_owned(), port, role, slots }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
bb2 10.0.0.2:7001@17001,two.example slave aa1 0 1700000000000 1 connected
aa1 :7000@17000 myself,master - 0 0 1 connected 0-5 7 [9->-cc3] 9-16383
cc3 ::1:7002@17002,,tls-port=0,shard-id=x master - 0 0 3 connected 6 8
dd4 10.0.0.4:7003@17003 master,fail - 0 0 4 disconnected
ee5 :0@0 master,noaddr - 0 0 4 disconnected
";

    #[test]
    fn nodes_come_with_role_address_and_slots() {
        let nodes = parse(NODES, "10.0.0.1").unwrap();
        let shown: Vec<_> =
            nodes.iter().map(|node| (node.id.as_str(), node.address(), node.slots.clone())).collect();
        assert_eq!(
            shown,
            [
                ("aa1", "10.0.0.1:7000".to_owned(), vec![0..=5, 7..=7, 9..=16383]),
                ("cc3", "[::1]:7002".to_owned(), vec![6..=6, 8..=8]),
                ("bb2", "10.0.0.2:7001".to_owned(), vec![]),
            ]
        );
        assert_eq!(nodes[2].role, Role::Replica { of: NodeId::new("aa1") });
        assert_eq!(uncovered(&nodes), 0);
    }

    #[test]
    fn slots_that_nobody_serves_are_counted() {
        let nodes = parse(&NODES.replace(" 6 8", " 6"), "10.0.0.1").unwrap();
        assert_eq!(uncovered(&nodes), 1);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named() {
        assert_eq!(parse("aa1 nonsense", "h"), Err("aa1 nonsense".to_owned()));
        assert!(parse("aa1 h:1@2 master - 0 0 1 connected 0-x", "h").is_err());
    }
}
