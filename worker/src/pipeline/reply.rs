//! Replies and their absence: what an attempt came to, and whether there is another.
//!
//! Law: every attempt is counted once, as executed, rejected or unknown, at the node that had it.

use vst_common::count;
use vst_common::ids::NodeId;
use vst_common::outcome::{Attempt, ErrorKind, Kind};

use super::node::{Again, FreeSlot, Item, Owed};
use super::retry::{Next, Refusal};
use super::{LinkIndex, Pipeline};
use crate::recorder::Place;
use crate::work::LaneEvent;

/// Distinct error texts that are told per phase and lane; the rest only counts.
const TOLD_TEXTS: usize = 32;
/// Time between two events about refusals, nanoseconds.
const REFUSALS_NS: u64 = 250_000_000;

/// A reply that nobody asked for: the stream is out of step and the connection has to be closed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the server sent a reply that no command is waiting for")]
pub(crate) struct Unasked;

impl Pipeline {
    /// One whole reply arrived on a connection.
    pub(crate) fn reply(&mut self, link: LinkIndex, bytes: &[u8], now: u64) -> Result<(), Unasked> {
        let state = self.links.get_mut(link).ok_or(Unasked)?;
        let (node, epoch) = (state.node, state.epoch);
        let (key, part) = match state.owed.pop_front().ok_or(Unasked)? {
            Owed::Ignored => return Ok(()),
            Owed::Request { key, part } => (key, part),
        };
        if let Some(state) = self.nodes.get_mut(usize::from(node)) {
            state.free.push_back(FreeSlot { link, epoch, since: now });
        }
        let Some(request) = self.open.get_mut(key) else { return Ok(()) };
        request.parts.answered(part);
        let (window, ended) = (request.window, request.ended);
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
            let mut kind = Kind::Ok;
            if let Err(reason) = self.requests.read_hits(whole, bytes, &mut request.hits) {
                self.tell("unreadable_reply", node, reason);
                kind = Kind::Error(ErrorKind::Other);
            } else if self.requests.missed(whole, bytes) {
                request.miss = true;
            }
            self.part_ended(key, part, node, kind, None, now);
            return Ok(());
        };
        let text = String::from_utf8_lossy(error).into_owned();
        if let Some(refusal) = Refusal::of(&text)
            && self.try_again(key, part, node, &refusal, now)
        {
            if let Some(request) = self.open.get(key) {
                self.refused_since(request.item, request.refused.since(now), &text, now);
            }
            return Ok(());
        }
        self.tell("error_reply", node, text.clone());
        self.part_ended(key, part, node, Kind::Error(ErrorKind::of_reply(error)), Some(text), now);
        Ok(())
    }

    /// Sees to another attempt of a part that was refused; not where nobody waits for it or where that cannot help.
    fn try_again(&mut self, key: usize, part: u16, from: u16, refusal: &Refusal<'_>, now: u64) -> bool {
        self.refusals.entry((refusal.event(), from)).or_insert((0, refusal.meaning())).0 += 1;
        let redirected = match *refusal {
            Refusal::Moved { host, port, slot } => {
                let to = self.node_at(from, host, port);
                if let Some(slot) = slot {
                    self.routes.redirect(slot, to);
                }
                Some(to)
            }
            Refusal::Ask { host, port } => Some(self.node_at(from, host, port)),
            _ => None,
        };
        self.doubt |= refusal.doubts_the_map();
        let Some(request) = self.open.get_mut(key) else { return false };
        let forgotten = request.ended && matches!(request.item, Item::Numbered { .. });
        // A server that is alone and read-only stays so.
        let hopeless = *refusal == Refusal::ReadOnly && self.phase.topology.is_standalone();
        if forgotten || hopeless {
            return false;
        }
        let asking = matches!(refusal, Refusal::Ask { .. });
        let again = Again { key, serial: request.serial, part, asking, repair: false };
        match request.refused.again(refusal, now, request.serial) {
            Next::GiveUp => return false,
            Next::Now => self.line_up(redirected, again),
            Next::At(at) => {
                self.serial += 1;
                self.later.insert((at, self.serial), (redirected.filter(|_| asking), again));
            }
        }
        true
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
                    .map_or_else(|| NodeId::new(vst_access::join(&host, port)), |n| n.id.clone());
                self.happened("node_joined", Some(id.clone()), format!("redirected to {host}:{port}"));
                self.add_node(id, host, port)
            }
        }
    }

    /// The connection ended before a reply came.
    pub(super) fn reply_lost(&mut self, key: usize, part: u16, node: u16, now: u64) {
        let Some(request) = self.open.get_mut(key) else { return };
        request.parts.answered(part);
        let (window, item, serial) = (request.window, request.item, request.serial);
        let operation = self.requests.part(request.operation);
        self.recorder.cell(now, window, operation, Place::Node(node)).record_attempt(Attempt::Unknown);
        match item {
            // Writing a row twice changes nothing, so it is repeated until its fate is known.
            Item::Row { .. } if !self.expired => {
                self.line_up(None, Again { key, serial, part, asking: false, repair: true });
            }
            _ => self.part_ended(key, part, node, Kind::Lost, Some(String::from("connection lost")), now),
        }
    }

    /// Reports a kind of event with its text, each distinct text once per phase.
    fn tell(&mut self, kind: &'static str, node: u16, text: String) {
        if self.told.len() < TOLD_TEXTS && self.told.insert(format!("{kind} {node} {text}")) {
            let node = self.nodes.get(usize::from(node)).map(|n| n.id.clone());
            self.happened(kind, node, text);
        }
    }

    /// Tells of refusals from time to time: while slots move there are thousands.
    pub(super) fn tell_refusals(&mut self, now: u64) {
        if self.refusals.is_empty() || now < self.refusals_at {
            return;
        }
        self.refusals_at = now.saturating_add(REFUSALS_NS);
        for ((kind, node), (count, meaning)) in std::mem::take(&mut self.refusals) {
            let node = self.nodes.get(usize::from(node)).map(|node| node.id.clone());
            let detail = String::from(meaning);
            self.events.push(LaneEvent::Happened { kind, node, detail, count });
        }
    }
}
