//! What fell due while there was no room left to remember it one by one.
//!
//! A node that is away for minutes would otherwise cost memory without bound. Fed by the pipeline when a node's queue is
//! full, emptied when the phase is over. Law: every request is counted, in the interval in which it was due, and its
//! wait is never said to be longer than it was.

use std::collections::BTreeMap;

use vst_common::latency::Window;

use crate::recorder::{Operation, Place};

/// Requests that may wait in all queues of a lane together.
const ROOM: usize = 1 << 20;
/// Requests that may wait for one node, however many nodes there are.
const LEAST_ROOM: usize = 1 << 10;

/// Requests that may wait for each of `nodes` nodes.
pub(super) fn room(nodes: usize) -> usize {
    (ROOM / nodes.max(1)).max(LEAST_ROOM)
}

/// Interval, window, operation and node (`None`: all nodes).
type Counted = (u64, Window, Operation, Option<u16>);

/// Requests that will not be sent, counted only.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    /// How many, and when the last of them was due.
    counts: BTreeMap<Counted, (u64, u64)>,
}

/// Requests of one interval that were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) window: Window,
    pub(super) operation: Operation,
    pub(super) place: Place,
    pub(super) n: u64,
    /// None of them was due later.
    pub(super) due: u64,
}

impl Overflow {
    /// Counts one.
    pub(super) fn add(
        &mut self,
        interval: u64,
        window: Window,
        operation: Operation,
        place: Place,
        due: u64,
    ) {
        let node = match place {
            Place::All => None,
            Place::Node(node) => Some(node),
        };
        let (n, last) = self.counts.entry((interval, window, operation, node)).or_default();
        *n += 1;
        *last = due.max(*last);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.counts.values().map(|(n, _)| n).sum()
    }

    /// All of them, to be counted as not sent.
    pub(super) fn take(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.counts)
            .into_iter()
            .map(|((_, window, operation, node), (n, due))| Dropped {
                window,
                operation,
                place: node.map_or(Place::All, Place::Node),
                n,
                due,
            })
            .collect()
    }
}
