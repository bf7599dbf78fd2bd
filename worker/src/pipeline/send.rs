//! From what waits to bytes on connections.
//!
//! Laws: what was refused or lost goes before what was never sent; a node gets no more at once than it has slots; a
//! closed loop takes up its next request only when one of its own has ended.

use vst_common::count;
use vst_common::outcome::Kind;

use super::node::{Again, Item, Owed, Parts, Waiting};
use super::retry::Refused;
use super::{Pipeline, Request};
use crate::recorder::Place;
use crate::requests::Row;

impl Pipeline {
    pub(super) fn send_waiting(&mut self, now: u64) {
        loop {
            let mut sent = false;
            for node in 0..u16::try_from(self.nodes.len()).unwrap_or(u16::MAX) {
                sent |= self.send_to(node, now);
            }
            sent |= self.send_to_all(now);
            // A closed loop takes up its next request only now, so that it never waits behind its own backlog.
            let mut taken = false;
            while self.take_closed(now) {
                taken = true;
            }
            if !taken && !sent {
                return;
            }
        }
    }

    fn send_to(&mut self, node: u16, now: u64) -> bool {
        let mut sent = false;
        loop {
            let Some(state) = self.nodes.get_mut(usize::from(node)) else { return sent };
            if (state.again.is_empty() && state.backlog.is_empty()) || !state.has_free(&self.links) {
                return sent;
            }
            if let Some(again) = state.again.pop_front() {
                self.send_again(again, node, now);
            } else if let Some(waiting) = state.backlog.pop_front() {
                let slot_free = state.free.front().map_or(now, |slot| slot.since);
                let key = self.open_request(waiting, slot_free, now);
                self.write(key, 0, node, false, now);
            }
            sent = true;
        }
    }

    /// A fanned-out request begins only when the nodes of all parts have a slot, so that its parts go out together.
    fn send_to_all(&mut self, now: u64) -> bool {
        let mut sent = false;
        while !self.backlog.is_empty() {
            let mut slot_free = 0;
            self.choose_targets();
            for node in &self.targets {
                let Some(node) = self.nodes.get_mut(usize::from(*node)) else { return sent };
                if !node.has_free(&self.links) {
                    return sent;
                }
                slot_free = slot_free.max(node.free.front().map_or(now, |slot| slot.since));
            }
            let Some(waiting) = self.backlog.pop_front() else { return sent };
            let key = self.open_request(waiting, slot_free, now);
            let targets = std::mem::take(&mut self.targets);
            for (part, node) in (0..).zip(&targets) {
                self.write(key, part, *node, false, now);
            }
            self.targets = targets;
            sent = true;
        }
        sent
    }

    /// The node of each part of the next fanned-out request.
    fn choose_targets(&mut self) {
        self.targets.clear();
        if !self.readers.asks_replicas() {
            return self.targets.extend_from_slice(self.routes.parts());
        }
        for primary in self.routes.parts() {
            let up = |node: u16| self.nodes.get(usize::from(node)).is_some_and(|node| node.up > 0);
            let nodes = &self.nodes;
            let usable =
                |node: u16| nodes.get(usize::from(node)).is_some_and(|n| n.up > 0 && !n.free.is_empty());
            self.targets.push(self.readers.next(*primary, up, usable));
        }
    }

    /// Makes a waiting item a request that is about to be sent for the first time.
    fn open_request(&mut self, waiting: Waiting, slot_free: u64, now: u64) -> usize {
        self.serial += 1;
        let query = match waiting.item {
            Item::Numbered { n } => self.requests.query(n),
            Item::Row { .. } => 0,
        };
        let window = self.window(waiting.due.unwrap_or(now));
        let operation = self.operation(waiting.item);
        let fans_out = self.requests.fans_out(operation);
        let key = self.open.insert(Request {
            serial: self.serial,
            item: waiting.item,
            operation,
            query,
            due: waiting.due,
            slot_free,
            sent: now,
            window,
            parts: Parts::default(),
            attempts: 0,
            refused: Refused::default(),
            ended: false,
            fault: None,
            miss: false,
            hits: Vec::new(),
        });
        self.deadlines.push_back((now.saturating_add(self.phase.order.timeout_ns), key, self.serial));
        self.totals.sent += 1;
        if fans_out {
            self.recorder.cell(now, window, operation, Place::All).sent += 1;
        }
        // What waited for a node that had failed could not go out before its slots had a new owner.
        let free = slot_free.max(self.routed_at);
        self.recorder.slip(now, now.saturating_sub(waiting.due.unwrap_or(0).max(free)));
        key
    }

    fn send_again(&mut self, again: Again, node: u16, now: u64) {
        // A request that ended meanwhile and that nothing is owed to was forgotten; its place may hold another.
        let Some(request) = self.open.get(again.key).filter(|r| r.serial == again.serial) else { return };
        if request.ended && matches!(request.item, Item::Numbered { .. }) {
            // Nobody waits for it any more.
            return self.part_ended(again.key, again.part, node, Kind::Timeout, None, now);
        }
        let (window, operation) = (request.window, self.requests.part(request.operation));
        if again.repair {
            self.recorder.cell(now, window, operation, Place::Node(node)).repair += 1;
        }
        self.write(again.key, again.part, node, again.asking, now);
    }

    /// Puts one attempt into a free slot of a node; where there is none, it waits for one.
    fn write(&mut self, key: usize, part: u16, node: u16, asking: bool, now: u64) {
        let Some(state) = self.nodes.get_mut(usize::from(node)) else { return };
        let Some(request) = self.open.get_mut(key) else { return };
        let slot = if state.has_free(&self.links) { state.free.pop_front() } else { None };
        let Some((slot, link)) = slot.and_then(|slot| Some((slot, self.links.get_mut(slot.link)?))) else {
            request.parts.sent(part, node);
            request.parts.answered(part);
            state.again.push_back(Again { key, serial: request.serial, part, asking, repair: false });
            return;
        };
        let before = link.out.len();
        if asking {
            vst_common::resp::push_args(&mut link.out, &[b"ASKING"]);
            link.owed.push_back(Owed::Ignored);
        }
        match request.item {
            Item::Numbered { n } => {
                self.requests.encode(n, request.query, part, &mut self.scratch, &mut link.out);
            }
            Item::Row { block, position } => {
                let cell = self.blocks.cell(block, position);
                self.requests.key(cell, &mut self.key);
                if let Some(rows) = self.blocks.get(block) {
                    let row = Row { cell, key: &self.key, block: rows, position };
                    self.requests.encode_row(row, &mut self.vector, &mut link.out);
                }
            }
        }
        link.owed.push_back(Owed::Request { key, part });
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(slot.link);
        }
        let bytes = count::len(link.out.len() - before);
        let fans_out = self.requests.fans_out(request.operation);
        let fresh = request.parts.sent(part, node);
        let first = request.attempts == 0 || (fans_out && fresh);
        request.attempts += 1;
        let repair = first && matches!(request.item, Item::Row { block, .. } if self.blocks.is_repair(block));
        let (window, operation) = (request.window, self.requests.part(request.operation));
        let cell = self.recorder.cell(now, window, operation, Place::Node(node));
        cell.bytes_out += bytes;
        if first {
            cell.sent += 1;
        }
        cell.repair += u64::from(repair);
        if fans_out && fresh {
            cell.due += 1;
        }
    }
}
