//! Nodes, their connections, and the slots in which a request can be in flight.
//!
//! A slot is one place in one connection's pipeline (connection x depth). The free ones of a node are a queue, so
//! that load spreads over connections and the instant at which a slot became free is known: slip is measured from it.

use std::collections::VecDeque;

use vst_common::ids::NodeId;

/// Position of a connection in the pipeline's list.
pub(crate) type LinkIndex = usize;

/// A reply that is owed on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// To a request (or one part of it), by its key.
    Request(usize),
    /// To a command that only prepares another (`ASKING`).
    Ignored,
}

/// One connection as the pipeline sees it: bytes to write, replies owed.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(super) node: u16,
    /// Counts reconnects; a free slot of an earlier life is void.
    pub(super) epoch: u32,
    pub(super) up: bool,
    pub(super) out: Vec<u8>,
    pub(super) owed: VecDeque<Owed>,
    pub(super) dirty: bool,
}

/// A place for one request in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreeSlot {
    pub(super) link: LinkIndex,
    pub(super) epoch: u32,
    pub(super) since: u64,
}

/// What waits for a slot: never bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) item: Item,
    pub(super) due: Option<u64>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Request number of a phase whose requests are numbered.
    Numbered { n: u64 },
    /// A row of a block in hand.
    Row { block: usize, position: usize },
}

/// A request that needs another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    pub(super) key: usize,
    /// Which request had the key when this was put down.
    pub(super) serial: u64,
    pub(super) asking: bool,
    pub(super) repair: bool,
}

/// The nodes that owe a reply to a request. One is the rule and takes no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Parts {
    first: Option<u16>,
    more: Vec<u16>,
}

impl Parts {
    pub(super) fn push(&mut self, node: u16) {
        if self.first.is_none() {
            self.first = Some(node);
        } else {
            self.more.push(node);
        }
    }

    /// Takes out one reply of a node; nothing if it owes none.
    pub(super) fn remove(&mut self, node: u16) {
        if self.first == Some(node) {
            self.first = self.more.pop();
        } else if let Some(i) = self.more.iter().position(|n| *n == node) {
            self.more.swap_remove(i);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.first.into_iter().chain(self.more.iter().copied())
    }
}

/// One server.
#[derive(Debug)]
pub(super) struct NodeState {
    pub(super) id: NodeId,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) free: VecDeque<FreeSlot>,
    pub(super) backlog: VecDeque<Waiting>,
    pub(super) again: VecDeque<Again>,
}

impl NodeState {
    pub(super) fn new(id: NodeId, host: String, port: u16) -> Self {
        Self { id, host, port, free: VecDeque::new(), backlog: VecDeque::new(), again: VecDeque::new() }
    }

    /// Drops void slots from the front; whether a usable one is left.
    pub(super) fn has_free(&mut self, links: &[Link]) -> bool {
        while let Some(slot) = self.free.front() {
            if links.get(slot.link).is_some_and(|l| l.up && l.epoch == slot.epoch) {
                return true;
            }
            self.free.pop_front();
        }
        false
    }
}
