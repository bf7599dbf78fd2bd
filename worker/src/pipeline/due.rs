//! What is due, and for which node it waits.
//!
//! Fed by the pacer (numbered requests, instants) and by the blocks in hand (rows). Law: every request that falls due is
//! taken up exactly once, waits in exactly one queue or is counted as one for which there was no room.

use vst_common::count;

use super::Pipeline;
use super::node::{Item, Waiting};
use crate::recorder::{Operation, Place};

impl Pipeline {
    pub(super) fn take_due(&mut self, now: u64) {
        let until = self.stop.map_or(now, |stop| now.min(stop));
        if self.closed.is_some() {
            return;
        }
        // Where rows are leased, an instant takes the next row in hand; while there is none it waits, and is late.
        while !self.leased || self.blocks.has_next() {
            let Some((n, due)) = self.pacer.next_due(until) else { return };
            let numbered = Item::Numbered { n };
            let item = if self.leased { self.next_unit().unwrap_or(numbered) } else { numbered };
            let window = self.window(due);
            self.active += 1;
            self.totals.due += 1;
            let (operation, place) = self.enqueue(Waiting { item, due: Some(due) });
            self.recorder.cell(due, window, operation, place).due += 1;
        }
    }

    /// The next unit in hand. One that asks changes no row: its block is done with it, and from here on it is a numbered
    /// request like any other query.
    fn next_unit(&mut self) -> Option<Item> {
        let item = self.blocks.next()?;
        let Item::Row { block, position } = item else { return Some(item) };
        let n = self.blocks.unit(block, position);
        if !self.requests.asks(n) {
            return Some(item);
        }
        self.events.extend(self.blocks.row_ended(block, None));
        Some(Item::Numbered { n })
    }

    pub(super) fn operation(&self, item: Item) -> Operation {
        match item {
            Item::Numbered { n } => self.requests.operation(n),
            Item::Row { block, position } => self.requests.row_operation(self.blocks.unit(block, position)),
        }
    }

    /// Lets a request wait for a slot of its node, or of all nodes. What falls due by the clock while the queue is full
    /// is counted and will not be sent: memory has an end, and the schedule does not wait.
    fn enqueue(&mut self, waiting: Waiting) -> (Operation, Place) {
        let operation = self.operation(waiting.item);
        let (place, queue) = if self.requests.fans_out(operation) {
            (Place::All, Some(&mut self.backlog))
        } else {
            let node = self.route(waiting.item);
            let node = self.reader(node, waiting.item, operation);
            (Place::Node(node), self.nodes.get_mut(usize::from(node)).map(|node| &mut node.backlog))
        };
        match (waiting, queue) {
            (Waiting { item: Item::Numbered { .. }, due: Some(due) }, Some(queue))
                if queue.len() >= self.room =>
            {
                let (interval, window) = (self.recorder.interval(due), self.window(due));
                self.active = self.active.saturating_sub(1);
                self.overflow.add(interval, window, operation, place, due);
            }
            (waiting, Some(queue)) => queue.push_back(waiting),
            (_, None) => {}
        }
        (operation, place)
    }

    /// The next request of a closed loop, if it may begin.
    pub(super) fn take_closed(&mut self, now: u64) -> bool {
        let Some(limit) = self.closed else { return false };
        if self.active + self.overdue >= limit || self.stop.is_some_and(|stop| now >= stop) {
            return false;
        }
        let item = if self.leased {
            self.next_unit()
        } else {
            self.pacer.next_number().map(|n| Item::Numbered { n })
        };
        let Some(item) = item else { return false };
        self.active += 1;
        self.totals.due += 1;
        let (operation, place) = self.enqueue(Waiting { item, due: None });
        let window = self.window(now);
        self.recorder.cell(now, window, operation, place).due += 1;
        true
    }

    /// A node for a request that any can answer: in turn, those that cannot be reached left out.
    fn any_node(&self, n: u64) -> u16 {
        let owners = self.routes.owners();
        let first = count::index(n % count::len(owners.len()).max(1));
        let mut in_turn = owners.iter().cycle().skip(first).take(owners.len()).copied();
        let is_up = |node: &u16| self.nodes.get(usize::from(*node)).is_some_and(|node| node.up > 0);
        in_turn.clone().find(is_up).or_else(|| in_turn.next()).unwrap_or(0)
    }

    /// Who answers for a primary, where that need not be itself.
    fn reader(&mut self, primary: u16, item: Item, operation: Operation) -> u16 {
        let reads = matches!(item, Item::Numbered { .. }) && self.requests.reads(operation);
        if !reads || !self.readers.asks_replicas() {
            return primary;
        }
        let nodes = &self.nodes;
        let up = |node: u16| nodes.get(usize::from(node)).is_some_and(|node| node.up > 0);
        self.readers.next(primary, up, up)
    }

    pub(super) fn route(&mut self, item: Item) -> u16 {
        match item {
            // One server: no key needs to be hashed.
            _ if self.nodes.len() == 1 => 0,
            Item::Numbered { n } => match self.requests.slot(n, &mut self.scratch) {
                Some(slot) => self.routes.owner(slot),
                None => self.any_node(n),
            },
            Item::Row { block, position } => {
                let mut key = std::mem::take(&mut self.key);
                self.requests.key(self.blocks.cell(block, position), &mut key);
                let slot = vst_common::keys::slot(&key);
                self.key = key;
                self.routes.owner(slot)
            }
        }
    }
}
