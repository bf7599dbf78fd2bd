//! The server's own command counters around a phase, and whether they can be compared with ours.
//!
//! Read over connections of its own at both edges of a phase of load. Law: a window counts as checkable only when the
//! node was the same process with the same slots at both edges, and a primary unless the command changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use vst_common::batch::commandstats::CommandstatsRow;
use vst_common::content::catalog;
use vst_common::ids::{NodeId, PhaseIndex};

use super::chain;
use crate::target::{CommandCalls, Role, Target, TargetNode};

/// All nodes at one edge; or why they could not be read.
pub(super) type Counters = Result<BTreeMap<NodeId, NodeCounters>, String>;

/// One node at one edge. Also what the log keeps of it, for a coordinator that takes the lead in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeCounters {
    primary: bool,
    slots: Vec<RangeInclusive<u16>>,
    process: Option<String>,
    calls: BTreeMap<String, CommandCalls>,
}

/// Reads the counters of all nodes that there are now. A node that does not answer is left out: it is not checkable,
/// the others are.
pub(super) async fn read(target: &Target) -> Counters {
    // Asked anew, because who is a primary and which slots it has may have changed since the last time.
    target.refresh().await.map_err(|e| chain(&e))?;
    let mut stats = target.commandstats().await;
    let node = |node: &TargetNode| {
        let counted = match stats.remove(&node.id)? {
            Ok(counted) => counted,
            Err(e) => {
                tracing::warn!("the counters of node {} are not known: {}", node.id, chain(&e));
                return None;
            }
        };
        let counters = NodeCounters {
            primary: node.role == Role::Primary,
            slots: node.slots.clone(),
            process: counted.process,
            calls: counted.calls,
        };
        Some((node.id.clone(), counters))
    };
    Ok(target.now().iter().filter_map(node).collect())
}

/// The rows of a phase, one per node and command.
pub(super) fn rows(
    phase: PhaseIndex,
    phase_name: &str,
    commands: &[String],
    before: &Counters,
    after: &Counters,
) -> Vec<CommandstatsRow> {
    let nodes: BTreeSet<&NodeId> = before.iter().chain(after).flat_map(BTreeMap::keys).collect();
    let at =
        |counters: &Counters, node: &NodeId| counters.as_ref().ok().and_then(|all| all.get(node)).cloned();
    nodes
        .into_iter()
        .flat_map(|node| {
            let (first, last) = (at(before, node), at(after, node));
            commands.iter().map(move |command| {
                let why_not = why_not(before, after, first.as_ref(), last.as_ref(), command);
                let calls = |counters: &Option<NodeCounters>| {
                    let name = command.to_ascii_uppercase();
                    counters.as_ref().map(|c| c.calls.get(&name).copied().unwrap_or_default())
                };
                let (calls_before, calls_after) = (calls(&first), calls(&last));
                CommandstatsRow {
                    phase: phase_name.to_owned(),
                    phase_index: phase,
                    node: node.clone(),
                    command: command.clone(),
                    calls_before: calls_before.map(|c| c.calls),
                    calls_after: calls_after.map(|c| c.calls),
                    rejected_before: calls_before.map(|c| c.rejected_calls),
                    rejected_after: calls_after.map(|c| c.rejected_calls),
                    why_not,
                }
            })
        })
        .collect()
}

fn why_not(
    before: &Counters,
    after: &Counters,
    first: Option<&NodeCounters>,
    last: Option<&NodeCounters>,
    command: &str,
) -> Option<String> {
    if let Err(e) = before {
        return Some(format!("not read before the phase: {e}"));
    }
    if let Err(e) = after {
        return Some(format!("not read after the phase: {e}"));
    }
    let (Some(first), Some(last)) = (first, last) else {
        return Some(String::from("the node did not answer at both ends of the phase"));
    };
    // Only what changes something is replayed.
    if !(first.primary && last.primary || catalog::only_reads(command)) {
        return Some(String::from("a replica counts what it replays"));
    }
    if first.process.is_none() || first.process != last.process {
        return Some(String::from("the server was restarted, which forgets its counts"));
    }
    (first.slots != last.slots).then(|| String::from("slots moved, and a migration counts what it replays"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(process: &str, primary: bool, hset: u64) -> NodeCounters {
        let calls = CommandCalls { calls: hset, rejected_calls: 1 };
        NodeCounters {
            primary,
            slots: vec![0..=5],
            process: Some(process.into()),
            calls: [("HSET".to_owned(), calls)].into(),
        }
    }

    fn counters(nodes: &[(&str, NodeCounters)]) -> Counters {
        Ok(nodes.iter().map(|(id, node)| (NodeId::new(*id), node.clone())).collect())
    }

    #[test]
    fn only_a_primary_that_stayed_the_same_process_with_the_same_slots_is_checkable() {
        let moved = NodeCounters { slots: vec![0..=4], ..node("p", true, 1) };
        let before = counters(&[
            ("same", node("p", true, 3)),
            ("restarted", node("p", true, 3)),
            ("demoted", node("p", true, 3)),
            ("moved", node("p", true, 3)),
            ("gone", node("p", true, 3)),
        ]);
        let after = counters(&[
            ("same", node("p", true, 10)),
            ("restarted", node("q", true, 1)),
            ("demoted", node("p", false, 10)),
            ("moved", moved),
        ]);
        let rows = rows(PhaseIndex(2), "load", &["hset".into(), "FT.SEARCH".into()], &before, &after);
        let of = |id: &str| rows.iter().find(|r| r.node.as_str() == id && r.command == "hset").unwrap();
        assert_eq!(rows.len(), 10);
        assert_eq!(of("same").why_not, None);
        assert_eq!((of("same").calls_before, of("same").calls_after), (Some(3), Some(10)));
        assert_eq!((of("same").rejected_before, of("same").rejected_after), (Some(1), Some(1)));
        for (id, word) in
            [("restarted", "restarted"), ("demoted", "replica"), ("moved", "slots"), ("gone", "answer")]
        {
            assert!(
                of(id).why_not.as_ref().is_some_and(|why| why.contains(word)),
                "{id}: {:?}",
                of(id).why_not
            );
        }
        assert_eq!(of("gone").calls_after, None);
        let read = rows.iter().find(|r| r.node.as_str() == "demoted" && r.command == "FT.SEARCH").unwrap();
        assert_eq!(read.why_not, None, "a replica does not replay what changes nothing");
        let search = rows.iter().find(|r| r.node.as_str() == "same" && r.command == "FT.SEARCH").unwrap();
        assert_eq!(
            (search.calls_before, search.calls_after),
            (Some(0), Some(0)),
            "a command never called counts 0"
        );
    }

    #[test]
    fn counters_that_could_not_be_read_say_why() {
        let before = counters(&[("a", node("p", true, 3))]);
        let rows = rows(PhaseIndex(2), "load", &["hset".into()], &before, &Err("connection refused".into()));
        assert_eq!(rows.len(), 1);
        assert!(rows[0].why_not.as_ref().unwrap().contains("connection refused"));
    }
}
