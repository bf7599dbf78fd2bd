//! Nodes, their connections, and the slots in which a request can be in flight.
//!
//! A slot is one place in one connection's pipeline (connection x depth). The free ones of a node are a queue, so
//! that load spreads over connections and the instant at which a slot became free is known: slip is measured from it.

use std::collections::VecDeque;

use vst_common::ids::NodeId;

use super::routes::NodeIndex;

/// Position of a connection in the pipeline's list.
pub(crate) type LinkIndex = usize;

/// A reply that is owed on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// To one part of a request, by the request's key; a request that does not fan out is its part 0.
    Request { key: usize, part: u16 },
    /// To a command that only prepares another (`ASKING`).
    Ignored,
}

/// One connection as the pipeline sees it: bytes to write, replies owed.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(super) node: NodeIndex,
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

/// A part of a request that needs another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    pub(super) key: usize,
    /// Which request had the key when this was put down.
    pub(super) serial: u64,
    pub(super) part: u16,
    pub(super) asking: bool,
    pub(super) repair: bool,
}

/// A part that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) part: u16,
    /// Where it was sent last.
    pub(super) node: NodeIndex,
    /// Whether a reply is owed to it; otherwise it waits for another attempt.
    pub(super) owed: bool,
}

/// The parts of a request that have not ended. One is the rule and takes no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Parts {
    first: Option<Part>,
    more: Vec<Part>,
}

impl Parts {
    /// A part went out, for the first time or again. Gives whether it was the first time.
    pub(super) fn sent(&mut self, part: u16, node: NodeIndex) -> bool {
        let sent = Part { part, node, owed: true };
        if let Some(known) = self.iter_mut().find(|p| p.part == part) {
            *known = sent;
            return false;
        }
        if self.first.is_none() {
            self.first = Some(sent);
        } else {
            self.more.push(sent);
        }
        true
    }

    /// No reply is owed to a part any more; it may go out again.
    pub(super) fn answered(&mut self, part: u16) {
        if let Some(known) = self.iter_mut().find(|p| p.part == part) {
            known.owed = false;
        }
    }

    /// A part ended.
    pub(super) fn ended(&mut self, part: u16) {
        if self.first.is_some_and(|p| p.part == part) {
            self.first = self.more.pop();
        } else {
            self.more.retain(|p| p.part != part);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether a reply is owed to any part.
    pub(super) fn is_owed(&self) -> bool {
        self.iter().any(|p| p.owed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Part> + '_ {
        self.first.into_iter().chain(self.more.iter().copied())
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        self.first.iter_mut().chain(&mut self.more)
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
    /// Connections that are ready.
    pub(super) up: usize,
    /// Since when none is, after there was one.
    pub(super) away_since: Option<u64>,
    /// Since when something waits for it and no connection is ready.
    pub(super) unserved_since: Option<u64>,
}

impl NodeState {
    pub(super) fn new(id: NodeId, host: String, port: u16) -> Self {
        Self {
            id,
            host,
            port,
            free: VecDeque::new(),
            backlog: VecDeque::new(),
            again: VecDeque::new(),
            up: 0,
            away_since: None,
            unserved_since: None,
        }
    }

    /// How many attempts wait for a slot.
    pub(super) fn waits(&self) -> usize {
        self.backlog.len() + self.again.len()
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
