//! Ends of requests: outcomes, timeouts, the end of the drain.

use vst_common::outcome::{Kind, Outcome};

use super::Pipeline;
use super::node::{Item, Part};
use crate::recorder::Place;

impl Pipeline {
    /// One node's part of a request ended.
    pub(super) fn part_ended(
        &mut self,
        key: usize,
        part: u16,
        node: u16,
        kind: Kind,
        error: Option<String>,
        now: u64,
    ) {
        let Some(request) = self.open.get_mut(key) else { return };
        request.parts.ended(part);
        let fans_out = self.requests.fans_out(request.operation);
        let of_part = self.requests.part(request.operation);
        if kind != Kind::Ok {
            // The first fault is the request's; a reply that is known to be lost outranks an answered error.
            match request.fault {
                None => request.fault = Some(kind),
                Some(Kind::Error(_)) if kind == Kind::Lost => request.fault = Some(kind),
                Some(_) => {}
            }
        }
        if fans_out && !request.ended {
            let outcome = Outcome { attempts: 1, ..request.outcome(kind, now) };
            let window = request.window;
            let window_end = self.window_end(window);
            self.recorder.cell(now, window, of_part, Place::Node(node)).record(&outcome, window_end);
        }
        if self.open.get(key).is_some_and(|r| r.parts.is_empty()) {
            self.finish(key, node, error, now);
        }
    }

    /// All parts of a request ended: records its outcome unless it had timed out, and forgets it.
    fn finish(&mut self, key: usize, node: u16, error: Option<String>, now: u64) {
        let Some(mut request) = self.open.try_remove(key) else { return };
        let kind = request.fault.unwrap_or(Kind::Ok);
        if request.ended {
            self.overdue = self.overdue.saturating_sub(1);
        } else {
            let operation = request.operation;
            let place = if self.requests.fans_out(operation) { Place::All } else { Place::Node(node) };
            let verdict = match kind {
                Kind::Ok => self.requests.judge(operation, request.query, &mut request.hits),
                _ => None,
            };
            if let Some(verdict) = &verdict {
                self.recorder.verdict(now, request.window, request.query, verdict);
            }
            let outcome = request.outcome(kind, now);
            let window_end = self.window_end(request.window);
            let cell = self.recorder.cell(now, request.window, operation, place);
            cell.record(&outcome, window_end);
            if kind == Kind::Ok && request.miss {
                cell.miss += 1;
            }
            if verdict.is_some_and(|v| v.partial) {
                cell.partial += 1;
            }
            self.count(kind);
        }
        if let Item::Row { block, .. } = request.item {
            let error = (kind != Kind::Ok).then(|| error.unwrap_or_else(|| String::from("failed")));
            let done = self.blocks.row_ended(block, error);
            self.events.extend(done);
        }
    }

    fn count(&mut self, kind: Kind) {
        self.active = self.active.saturating_sub(1);
        match kind {
            Kind::Ok => self.totals.ok += 1,
            Kind::Error(_) => self.totals.errors += 1,
            Kind::Timeout => self.totals.timeout += 1,
            Kind::Lost => self.totals.lost += 1,
            Kind::Unsent => self.totals.unsent += 1,
        }
    }

    /// Ends requests that are older than the timeout. Their slots stay taken until the replies come: the server
    /// still works on them, and a client that opened new connections instead would hide that.
    pub(super) fn time_out(&mut self, now: u64) {
        while let Some(&(deadline, key, serial)) = self.deadlines.front() {
            let pending = self.open.get(key).is_some_and(|r| r.serial == serial && !r.ended);
            if pending && deadline > now {
                return;
            }
            self.deadlines.pop_front();
            if pending {
                self.end_censored(key, Kind::Timeout, now);
            }
        }
    }

    /// Records that a request has no outcome of its own and goes on waiting for what is owed to it.
    fn end_censored(&mut self, key: usize, kind: Kind, now: u64) {
        let Some(request) = self.open.get_mut(key) else { return };
        let operation = request.operation;
        let fans_out = self.requests.fans_out(operation);
        let of_part = self.requests.part(operation);
        request.ended = true;
        self.overdue += 1;
        let outcome = request.outcome(kind, now);
        let (window, item) = (request.window, request.item);
        let owes_nothing = !request.parts.is_owed();
        let parts: Vec<Part> = request.parts.iter().collect();
        let window_end = self.window_end(window);
        let place = if fans_out {
            for part in &parts {
                self.recorder.cell(now, window, of_part, Place::Node(part.node)).record(&outcome, window_end);
            }
            Place::All
        } else {
            // Where it was sent last: that node has let it wait.
            Place::Node(parts.first().map_or_else(|| self.route(item), |part| part.node))
        };
        self.recorder.cell(now, window, operation, place).record(&outcome, window_end);
        self.count(kind);
        // A query that waits for another attempt (its node is away) is not worth one any more, and holds no slot.
        if owes_nothing && !matches!(item, Item::Row { .. }) {
            self.overdue = self.overdue.saturating_sub(1);
            self.open.try_remove(key);
        }
        for part in parts.iter().filter(|part| part.owed) {
            self.doubt |= kind == Kind::Timeout && !self.expired;
            if !self.serves(part.node) {
                self.close_silent(part.node);
            }
        }
    }

    /// The drain is over: what waits was never sent, what is in flight never ended.
    pub(super) fn expire(&mut self, now: u64) {
        self.expired = true;
        let mut waiting: Vec<(Place, super::Waiting)> =
            self.backlog.drain(..).map(|w| (Place::All, w)).collect();
        for (i, node) in self.nodes.iter_mut().enumerate() {
            let place = Place::Node(u16::try_from(i).unwrap_or(u16::MAX));
            waiting.extend(node.backlog.drain(..).map(|w| (place, w)));
            node.again.clear();
        }
        self.later.clear();
        self.drop_overflow(now);
        for (place, waiting) in waiting {
            let window = self.window(waiting.due.unwrap_or(now));
            let outcome = Outcome {
                due: waiting.due,
                slot_free: now,
                sent: None,
                ended: now,
                kind: Kind::Unsent,
                attempts: 0,
            };
            let window_end = self.window_end(window);
            let operation = self.operation(waiting.item);
            self.recorder.cell(now, window, operation, place).record(&outcome, window_end);
            self.count(Kind::Unsent);
            if let Item::Row { block, .. } = waiting.item {
                let done =
                    self.blocks.row_ended(block, Some(String::from("not sent before the phase ended")));
                self.events.extend(done);
            }
        }
        let keys: Vec<usize> = self.open.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self.open.get(key).is_some_and(|r| !r.ended) {
                self.end_censored(key, Kind::Timeout, now);
            }
        }
        for link in 0..self.links.len() {
            self.link_down(link, now);
        }
        // Requests that wait for another attempt owe nothing on any connection.
        for request in self.open.drain().collect::<Vec<_>>() {
            if let Item::Row { block, .. } = request.item {
                let done = self.blocks.row_ended(block, Some(String::from("its fate is unknown")));
                self.events.extend(done);
            }
        }
    }

    /// What there was no room for was never sent.
    pub(super) fn drop_overflow(&mut self, now: u64) {
        for dropped in self.overflow.take() {
            let cell = self.recorder.cell(now, dropped.window, dropped.operation, dropped.place);
            cell.record_unsent(dropped.n, now.saturating_sub(dropped.due));
            self.totals.unsent += dropped.n;
        }
    }
}
