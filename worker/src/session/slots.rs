//! The phases that a worker has: one of the sequence, and those that run beside it, each on lanes of its own.
//!
//! Law: a lane belongs to one phase at most, and what a phase that was given up has left in its lanes is gone before the
//! next one is armed there.

use std::collections::BTreeSet;

use vst_common::count;
use vst_common::ids::PhaseIndex;

use super::phase::Phase;

/// The phases, each in a slot of as many lanes as the worker has for a phase.
#[derive(Debug)]
pub(super) struct Slots {
    lanes: u32,
    slots: Vec<Option<Phase>>,
    /// Slots whose lanes hold a phase that was given up.
    stale: BTreeSet<u32>,
}

impl Slots {
    pub(super) fn new(lanes: u32) -> Self {
        Self { lanes: lanes.max(1), slots: Vec::new(), stale: BTreeSet::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Phase> {
        self.slots.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Phase> {
        self.slots.iter_mut().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The phase of the sequence.
    pub(super) fn main(&self) -> Option<&Phase> {
        self.iter().find(|phase| phase.group() == phase.index()).or_else(|| self.iter().next())
    }

    pub(super) fn of_ticket(&mut self, ticket: u64) -> Option<&mut Phase> {
        self.iter_mut().find(|phase| phase.ticket() == ticket)
    }

    pub(super) fn named(&mut self, index: u32) -> Option<&mut Phase> {
        self.iter_mut().find(|phase| phase.index().0 == index)
    }

    /// The phase that a lane works for, and its number there.
    pub(super) fn of_lane(&mut self, lane: u32) -> Option<(&mut Phase, u32)> {
        let slot = self.slots.get_mut(count::index(u64::from(lane / self.lanes)))?;
        Some((slot.as_mut()?, lane % self.lanes))
    }

    /// Lanes that may have been told something.
    pub(super) fn all_lanes(&self) -> std::ops::Range<u32> {
        0..self.lanes.saturating_mul(u32::try_from(self.slots.len().max(1)).unwrap_or(u32::MAX))
    }

    /// What this phase makes stale is not used again.
    pub(super) fn spoil(&mut self, lane: u32) {
        self.stale.insert(lane / self.lanes);
    }

    /// The same of the lanes of a phase.
    pub(super) fn spoil_phase(&mut self, index: u32) {
        let at =
            self.slots.iter().position(|slot| slot.as_ref().is_some_and(|phase| phase.index().0 == index));
        self.stale.extend(at.and_then(|at| u32::try_from(at).ok()));
    }

    /// Gives up phases that have not begun and that an order for `index` of this group replaces.
    pub(super) fn replace(&mut self, index: PhaseIndex, group: PhaseIndex) {
        for (n, slot) in (0u32..).zip(&mut self.slots) {
            let replaced = |phase: &Phase| phase.index() == index || phase.group() != group;
            if slot.take_if(|phase| !phase.began() && replaced(phase)).is_some() {
                self.stale.insert(n);
            }
        }
    }

    /// A free slot: its first lane, and whether its lanes have to be replaced before they are used.
    pub(super) fn free(&mut self) -> (u32, bool) {
        let at = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if at == self.slots.len() {
            self.slots.push(None);
        }
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        (at.saturating_mul(self.lanes), self.stale.remove(&at))
    }

    /// Puts a phase where [`Slots::free`] found room.
    pub(super) fn put(&mut self, first: u32, phase: Phase) {
        if let Some(slot) = self.slots.get_mut(count::index(u64::from(first / self.lanes))) {
            *slot = Some(phase);
        }
    }

    /// Takes a phase out that has ended.
    pub(super) fn end(&mut self, ticket: u64) {
        for slot in &mut self.slots {
            slot.take_if(|phase| phase.ticket() == ticket);
        }
    }

    /// Takes all out; gives whether there was any.
    pub(super) fn clear(&mut self) -> bool {
        let any = !self.is_empty();
        self.slots.iter_mut().for_each(|slot| *slot = None);
        any
    }

    /// All lanes are new.
    pub(super) fn renewed(&mut self) {
        self.slots.clear();
        self.stale.clear();
    }
}
