//! Who owns which slot, as far as this lane knows, and what a new layout of the cluster changes.
//!
//! Fed by redirects (one slot at a time) and by layouts that the worker asked the cluster for; read at every request.
//! Law: after a layout is taken in, every slot that it covers goes to the owner it names, and slots that it does not
//! cover stay where they were: somebody will serve them again.

use std::collections::{BTreeMap, BTreeSet};

/// Position of a node in the pipeline's list.
pub(super) type NodeIndex = u16;

/// The map of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Routes {
    slots: Vec<NodeIndex>,
    /// The same as the last layout had it, without the redirects that came since.
    laid_out: Vec<NodeIndex>,
    /// A slot of each part of a fanned-out request: whoever owns it answers that part.
    anchors: Vec<u16>,
    /// The node of each part.
    parts: Vec<NodeIndex>,
    /// How many slots each node owns.
    held: BTreeMap<NodeIndex, usize>,
    /// Nodes that own a slot, ascending.
    owners: Vec<NodeIndex>,
}

/// What a layout changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Slots by (owner before, owner now).
    pub(super) moved: BTreeMap<(NodeIndex, NodeIndex), usize>,
    /// Slots that came from a node which owns none any more, or went to one which owned none before: a failover.
    pub(super) taken_over: BTreeSet<u16>,
    /// Nodes that own a slot now and owned none before.
    pub(super) came: Vec<NodeIndex>,
    /// Nodes that own no slot any more.
    pub(super) went: Vec<NodeIndex>,
}

impl Routes {
    /// From the owner of each slot, and a slot of each part.
    pub(super) fn new(slots: Vec<NodeIndex>, anchors: Vec<u16>) -> Self {
        let mut routes = Self {
            laid_out: slots.clone(),
            slots,
            anchors,
            parts: Vec::new(),
            held: BTreeMap::new(),
            owners: Vec::new(),
        };
        routes.index();
        routes
    }

    fn index(&mut self) {
        self.held.clear();
        for owner in &self.slots {
            *self.held.entry(*owner).or_default() += 1;
        }
        self.owners = self.held.keys().copied().collect();
        self.parts = self.anchors.iter().map(|slot| self.owner(*slot)).collect();
    }

    /// The node that a slot goes to.
    pub(super) fn owner(&self, slot: u16) -> NodeIndex {
        self.slots.get(usize::from(slot)).copied().unwrap_or(0)
    }

    /// The node of each part of a fanned-out request.
    pub(super) fn parts(&self) -> &[NodeIndex] {
        &self.parts
    }

    /// The node of one part.
    pub(super) fn part(&self, part: u16) -> NodeIndex {
        self.parts.get(usize::from(part)).copied().unwrap_or(0)
    }

    /// Nodes that own slots, ascending.
    pub(super) fn owners(&self) -> &[NodeIndex] {
        &self.owners
    }

    /// Whether a node owns a slot.
    pub(super) fn owns(&self, node: NodeIndex) -> bool {
        self.owners.binary_search(&node).is_ok()
    }

    /// Takes in a redirect.
    pub(super) fn redirect(&mut self, slot: u16, to: NodeIndex) {
        let Some(owner) = self.slots.get_mut(usize::from(slot)) else { return };
        let from = std::mem::replace(owner, to);
        if from == to {
            return;
        }
        // A slot at a time is the rule while slots move, so the whole map is gone over only when a node comes or goes.
        let last = self.held.get_mut(&from).is_none_or(|held| {
            *held -= 1;
            *held == 0
        });
        if last || !self.held.contains_key(&to) || self.anchors.contains(&slot) {
            self.index();
        } else {
            *self.held.entry(to).or_default() += 1;
        }
    }

    /// Takes in a layout; `None` stands for a slot whose owner it does not name.
    pub(super) fn adopt(&mut self, owners: impl IntoIterator<Item = Option<NodeIndex>>) -> Change {
        let mut change = Change::default();
        let before: BTreeSet<NodeIndex> = self.laid_out.iter().copied().collect();
        let mut moved = Vec::new();
        for (slot, ((own, last), now)) in (0..).zip(self.slots.iter_mut().zip(&mut self.laid_out).zip(owners))
        {
            let Some(now) = now else { continue };
            *own = now;
            if now != *last {
                *change.moved.entry((*last, now)).or_default() += 1;
                moved.push((slot, *last, now));
                *last = now;
            }
        }
        let after: BTreeSet<NodeIndex> = self.laid_out.iter().copied().collect();
        self.index();
        change.came = after.difference(&before).copied().collect();
        change.went = before.difference(&after).copied().collect();
        let taken =
            moved.iter().filter(|(_, from, to)| change.went.contains(from) || change.came.contains(to));
        change.taken_over = taken.map(|(slot, ..)| *slot).collect();
        change
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_layout_is_followed_where_it_speaks_and_nothing_else_changes(
            before in prop::collection::vec(0u16..4, 40),
            redirects in prop::collection::vec((0u16..40, 0u16..6), 0..10),
            layout in prop::collection::vec(prop::option::weighted(0.8, 0u16..6), 40),
            anchors in prop::collection::vec(0u16..40, 0..4),
        ) {
            let (mut expected, mut laid_out) = (before.clone(), before.clone());
            let mut routes = Routes::new(before, anchors.clone());
            for (slot, to) in redirects {
                routes.redirect(slot, to);
                expected[usize::from(slot)] = to;
                prop_assert_eq!(routes.parts(), anchors.iter().map(|a| expected[usize::from(*a)]).collect::<Vec<_>>());
            }
            let owned = |slots: &[u16]| slots.iter().copied().collect::<BTreeSet<_>>();
            prop_assert!(owned(&expected).iter().all(|node| routes.owns(*node)), "every owner is known as one");
            let was = owned(&laid_out);
            let change = routes.adopt(layout.clone());
            let mut moved = 0;
            for (slot, now) in layout.iter().enumerate() {
                moved += usize::from(now.is_some_and(|now| now != laid_out[slot]));
                laid_out[slot] = now.unwrap_or(laid_out[slot]);
                expected[slot] = now.unwrap_or(expected[slot]);
                prop_assert_eq!(routes.owner(u16::try_from(slot).unwrap()), expected[slot]);
            }
            prop_assert_eq!(change.moved.values().sum::<usize>(), moved);
            prop_assert_eq!(routes.owners().iter().copied().collect::<BTreeSet<_>>(), owned(&expected));
            let is = owned(&laid_out);
            prop_assert!(change.taken_over.iter().all(|slot| layout[usize::from(*slot)].is_some()));
            prop_assert_eq!(&change.came, &is.difference(&was).copied().collect::<Vec<_>>());
            prop_assert_eq!(&change.went, &was.difference(&is).copied().collect::<Vec<_>>());
            prop_assert_eq!(routes.parts(), anchors.iter().map(|a| expected[usize::from(*a)]).collect::<Vec<_>>());
        }
    }
}
