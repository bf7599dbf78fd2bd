//! Ends of attempts and requests: replies, losses, timeouts, the end of the drain.

use vst_common::count;
use vst_common::ids::NodeId;
use vst_common::outcome::{Attempt, ErrorKind, Kind, Outcome};

use super::node::{Again, FreeSlot, Item, Owed};
use super::{LinkIndex, MAX_ATTEMPTS, Pipeline, TRY_AGAIN_NS};
use crate::recorder::Place;

/// Distinct error texts that are told per phase and lane; the rest only counts.
const TOLD_TEXTS: usize = 32;

/// A reply that nobody asked for: the stream is out of step and the connection has to be closed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the server sent a reply that no command is waiting for")]
pub(crate) struct Unasked;

enum Redirect<'a> {
    Moved(&'a str, u16),
    Ask(&'a str, u16),
    Later,
}

impl Pipeline {
    /// One whole reply arrived on a connection.
    pub(crate) fn reply(&mut self, link: LinkIndex, bytes: &[u8], now: u64) -> Result<(), Unasked> {
        let state = self.links.get_mut(link).ok_or(Unasked)?;
        let (node, epoch) = (state.node, state.epoch);
        let key = match state.owed.pop_front().ok_or(Unasked)? {
            Owed::Ignored => return Ok(()),
            Owed::Request(key) => key,
        };
        if let Some(state) = self.nodes.get_mut(usize::from(node)) {
            state.free.push_back(FreeSlot { link, epoch, since: now });
        }
        let Some(request) = self.open.get_mut(key) else { return Ok(()) };
        request.parts.remove(node);
        let (window, ended, attempts) = (request.window, request.ended, request.attempts);
        let whole = request.operation;
        let operation = self.requests.part(whole);

        let error = match bytes.first() {
            Some(b'-') => bytes.get(1..).map(|b| b.trim_ascii_end()),
            // RESP3 `!<length>`: the text is on the next line.
            Some(b'!') => bytes.split(|b| *b == b'\n').nth(1).map(<[u8]>::trim_ascii_end),
            _ => None,
        };
        let cell = self.recorder.cell(now, window, operation, Place::Node(node));
        cell.bytes_in += count::len(bytes.len());
        cell.record_attempt(error.map_or(Attempt::Executed, Attempt::of_error));
        if ended {
            cell.late += 1;
        }
        let Some(error) = error else {
            let hits = self.open.get_mut(key).map(|r| std::mem::take(&mut r.hits));
            let mut hits = hits.unwrap_or_default();
            let fault = match self.requests.read_hits(whole, bytes, &mut hits) {
                Ok(()) => None,
                Err(reason) => {
                    self.tell("unreadable_reply", node, reason);
                    Some(Kind::Error(ErrorKind::Other))
                }
            };
            if let Some(request) = self.open.get_mut(key) {
                request.hits = hits;
                request.miss = self.requests.missed(whole, bytes);
            }
            self.part_ended(key, node, fault.unwrap_or(Kind::Ok), None, now);
            return Ok(());
        };
        let text = String::from_utf8_lossy(error).into_owned();
        if !self.requests.fans_out(whole)
            && attempts < MAX_ATTEMPTS
            && let Some(redirect) = read_redirect(&text)
        {
            self.follow(key, node, &redirect, &text, now);
            return Ok(());
        }
        self.tell("error_reply", node, text.clone());
        self.part_ended(key, node, Kind::Error(ErrorKind::of_reply(error)), Some(text), now);
        Ok(())
    }

    fn follow(&mut self, key: usize, from: u16, redirect: &Redirect<'_>, text: &str, now: u64) {
        let Some(request) = self.open.get(key) else { return };
        let mut again = Again { key, serial: request.serial, asking: false, repair: false };
        match *redirect {
            Redirect::Later => {
                self.serial += 1;
                self.later.insert((now.saturating_add(TRY_AGAIN_NS), self.serial), (from, again));
            }
            Redirect::Moved(host, port) | Redirect::Ask(host, port) => {
                let to = self.node_at(from, host, port);
                if let Redirect::Moved(..) = redirect {
                    let slot = text.split(' ').nth(1).and_then(|s| s.parse::<usize>().ok());
                    if let Some(owner) = slot.and_then(|s| self.slots.get_mut(s)) {
                        *owner = to;
                    }
                    self.tell("moved", from, String::from("slots moved; following the cluster's redirects"));
                } else {
                    again.asking = true;
                    self.tell("ask", from, String::from("a slot is being moved away"));
                }
                if let Some(node) = self.nodes.get_mut(usize::from(to)) {
                    node.again.push_back(again);
                }
            }
        }
    }

    fn node_at(&mut self, from: u16, host: &str, port: u16) -> u16 {
        // An empty host in a redirect means the host that sent it.
        let host = match self.nodes.get(usize::from(from)) {
            Some(node) if host.is_empty() => node.host.clone(),
            _ => host.to_owned(),
        };
        let known = self.nodes.iter().position(|n| n.host == host && n.port == port);
        match known.and_then(|i| u16::try_from(i).ok()) {
            Some(i) => i,
            None => {
                let id = self
                    .phase
                    .topology
                    .nodes
                    .iter()
                    .find(|n| n.host == host && n.port == port)
                    .map_or_else(|| NodeId::new(format!("{host}:{port}")), |n| n.id.clone());
                self.happened("node_joined", Some(id.clone()), format!("redirected to {host}:{port}"));
                self.add_node(id, host, port)
            }
        }
    }

    /// The connection ended before a reply came.
    pub(super) fn reply_lost(&mut self, key: usize, node: u16, now: u64) {
        let Some(request) = self.open.get_mut(key) else { return };
        request.parts.remove(node);
        let (window, item, serial) = (request.window, request.item, request.serial);
        let operation = self.requests.part(request.operation);
        self.recorder.cell(now, window, operation, Place::Node(node)).record_attempt(Attempt::Unknown);
        match item {
            // Writing a row twice changes nothing, so it is repeated until its fate is known.
            Item::Row { .. } if !self.expired => {
                let to = self.route(item);
                if let Some(node) = self.nodes.get_mut(usize::from(to)) {
                    node.again.push_back(Again { key, serial, asking: false, repair: true });
                }
            }
            _ => self.part_ended(key, node, Kind::Lost, Some(String::from("connection lost")), now),
        }
    }

    /// One node's part of a request ended.
    fn part_ended(&mut self, key: usize, node: u16, kind: Kind, error: Option<String>, now: u64) {
        let Some(request) = self.open.get_mut(key) else { return };
        let fans_out = self.requests.fans_out(request.operation);
        let part = self.requests.part(request.operation);
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
            self.recorder.cell(now, window, part, Place::Node(node)).record(&outcome, window_end);
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
        let part = self.requests.part(operation);
        request.ended = true;
        self.overdue += 1;
        let outcome = request.outcome(kind, now);
        let (window, item) = (request.window, request.item);
        let owes_nothing = request.parts.is_empty();
        let parts: Vec<u16> = request.parts.iter().collect();
        let window_end = self.window_end(window);
        let place = if fans_out {
            for node in &parts {
                self.recorder.cell(now, window, part, Place::Node(*node)).record(&outcome, window_end);
            }
            Place::All
        } else {
            Place::Node(parts.first().copied().unwrap_or_else(|| self.route(item)))
        };
        self.recorder.cell(now, window, operation, place).record(&outcome, window_end);
        self.count(kind);
        // A query that waits for another attempt (its node is away) is not worth one any more, and holds no slot.
        if owes_nothing && !matches!(item, Item::Row { .. }) {
            self.overdue = self.overdue.saturating_sub(1);
            self.open.try_remove(key);
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

    /// Reports a kind of event with its text, each distinct text once per phase.
    fn tell(&mut self, kind: &'static str, node: u16, text: String) {
        if self.told.len() < TOLD_TEXTS && self.told.insert(format!("{kind} {node} {text}")) {
            let node = self.nodes.get(usize::from(node)).map(|n| n.id.clone());
            self.happened(kind, node, text);
        }
    }
}

fn read_redirect(text: &str) -> Option<Redirect<'_>> {
    let mut words = text.split(' ');
    let kind = words.next()?;
    if kind == "TRYAGAIN" {
        return Some(Redirect::Later);
    }
    let (host, port) = words.nth(1)?.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match kind {
        "MOVED" => Some(Redirect::Moved(host, port)),
        "ASK" => Some(Redirect::Ask(host, port)),
        _ => None,
    }
}
