//! Which node answers a request that changes nothing.
//!
//! Asked by the pipeline when such a request is taken up; told by every layout who copies whom. Laws: a primary is asked
//! where the scenario says so, where no replica can be reached, and for every further attempt of a request that was
//! refused; the others are taken in turn.

use std::collections::BTreeMap;

use vst_common::count;
use vst_common::scenario::ReadFrom;

use super::routes::NodeIndex;

/// Who copies whom, and whether that matters.
#[derive(Debug)]
pub(super) struct Readers {
    policy: ReadFrom,
    /// The replicas of each primary, and whose turn it is there: a turn of all would fall in step with the parts of a
    /// query.
    replicas: BTreeMap<NodeIndex, (Vec<NodeIndex>, u64)>,
}

impl Readers {
    /// Without any replica.
    pub(super) fn new(policy: ReadFrom) -> Self {
        Self { policy, replicas: BTreeMap::new() }
    }

    /// Whether replicas are asked at all.
    pub(super) fn asks_replicas(&self) -> bool {
        self.policy != ReadFrom::Primary
    }

    /// From now on these replicas, each with its primary.
    pub(super) fn adopt(&mut self, copies: impl IntoIterator<Item = (NodeIndex, NodeIndex)>) {
        self.replicas.clear();
        for (replica, primary) in copies {
            self.replicas.entry(primary).or_default().0.push(replica);
        }
    }

    /// Whether a node is a replica that may be asked.
    pub(super) fn has(&self, node: NodeIndex) -> bool {
        self.replicas.values().any(|(replicas, _)| replicas.contains(&node))
    }

    /// The next in turn of those who may answer for a primary: the first that is `usable`. Where no replica is `up`, or
    /// nobody is usable, it is the primary.
    pub(super) fn next(
        &mut self,
        primary: NodeIndex,
        up: impl Fn(NodeIndex) -> bool,
        usable: impl Fn(NodeIndex) -> bool,
    ) -> NodeIndex {
        if self.policy == ReadFrom::Primary {
            return primary;
        }
        let Some((replicas, turn)) = self.replicas.get_mut(&primary) else { return primary };
        let mut able: Vec<NodeIndex> = replicas.iter().copied().filter(|node| up(*node)).collect();
        if self.policy == ReadFrom::RoundRobin || able.is_empty() {
            able.insert(0, primary);
        }
        *turn = turn.wrapping_add(1);
        let first = count::index(*turn % count::len(able.len()));
        let mut in_turn = able.iter().cycle().skip(first).take(able.len()).copied();
        let chosen = in_turn.clone().find(|node| usable(*node));
        chosen.or_else(|| in_turn.next()).unwrap_or(primary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(readers: &mut Readers, up: &[NodeIndex], times: usize) -> BTreeMap<NodeIndex, usize> {
        let mut asked = BTreeMap::new();
        for _ in 0..times {
            let is_up = |node| up.contains(&node);
            *asked.entry(readers.next(0, is_up, is_up)).or_default() += 1;
        }
        asked
    }

    #[test]
    fn each_policy_asks_whom_it_names_in_turn() {
        let copies = [(2, 0), (3, 0), (4, 1)];
        let of = |policy| {
            let mut readers = Readers::new(policy);
            readers.adopt(copies);
            readers
        };
        assert_eq!(asked(&mut of(ReadFrom::Primary), &[0, 2, 3], 6), [(0, 6)].into());
        assert_eq!(asked(&mut of(ReadFrom::PreferReplica), &[0, 2, 3], 6), [(2, 3), (3, 3)].into());
        assert_eq!(asked(&mut of(ReadFrom::RoundRobin), &[0, 2, 3], 6), [(0, 2), (2, 2), (3, 2)].into());
        assert_eq!(asked(&mut of(ReadFrom::PreferReplica), &[0, 3], 6), [(3, 6)].into());
        assert_eq!(asked(&mut of(ReadFrom::PreferReplica), &[0], 6), [(0, 6)].into(), "nobody else is there");
        assert_eq!(asked(&mut of(ReadFrom::PreferReplica), &[], 6), [(0, 6)].into());
        assert!(of(ReadFrom::RoundRobin).has(4) && !of(ReadFrom::RoundRobin).has(1));
    }
}
