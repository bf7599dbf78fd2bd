//! What a new layout of the cluster means for requests that wait, and for connections.
//!
//! Fed by the lane with what the worker asked the cluster for. Law: afterwards nothing waits for a node that no longer
//! owns its slot, and nothing is sent twice because of it: what is in flight is answered, refused or lost by itself.

use vst_access::join;

use super::Pipeline;
use super::node::{Again, Waiting};
use crate::topology::{Layout, Node};
use crate::work::LaneEvent;

impl Pipeline {
    /// Takes in a layout of the cluster.
    pub(crate) fn adopt(&mut self, layout: &Layout, now: u64) {
        if self.expired {
            return;
        }
        let ours: Vec<Option<u16>> =
            layout.nodes.iter().map(|node| node.primary.then(|| self.place_of(node))).collect();
        let owners = layout.slots.iter().map(|owner| ours.get(usize::from((*owner)?)).copied().flatten());
        let change = self.routes.adopt(owners);
        self.know_replicas(&layout.nodes);
        // Redirects, one by one, may have taken a node's last slot from it before.
        let empty = (0..).zip(&self.nodes).filter(|(at, node)| node.waits() > 0 && !self.serves(*at));
        let mut sources: Vec<u16> = empty.map(|(at, _)| at).collect();
        if change.moved.is_empty() && sources.is_empty() {
            return;
        }
        self.routed_at = now;
        sources.extend(change.moved.keys().map(|(from, _)| *from));
        self.reroute(&sources);
        if change.moved.is_empty() {
            return;
        }
        let name = |node: u16| match self.nodes.get(usize::from(node)) {
            Some(node) => join(&node.host, node.port),
            None => String::from("a node that is gone"),
        };
        let told: Vec<String> = change
            .moved
            .iter()
            .map(|((from, to), slots)| format!("{slots} slots of {} belong to {}", name(*from), name(*to)))
            .collect();
        self.happened("topology_changed", None, told.join(", "));
        for (nodes, what) in [
            (&change.went, "owns no slots any more"),
            (&change.came, "owns slots now, and owned none before"),
        ] {
            for node in nodes {
                let id = self.nodes.get(usize::from(*node)).map(|node| node.id.clone());
                let place = self.address_of(*node);
                self.happened("role_changed", id, format!("{place} {what}"));
            }
        }
        if !change.taken_over.is_empty() {
            self.events.push(LaneEvent::TakenOver { slots: change.taken_over });
        }
        for node in change.went {
            self.close_silent(node);
        }
    }

    fn address_of(&self, node: u16) -> String {
        self.nodes.get(usize::from(node)).map_or_else(String::new, |node| join(&node.host, node.port))
    }

    /// Takes in who copies whom, where replicas are read from.
    pub(super) fn know_replicas(&mut self, nodes: &[Node]) {
        if !self.readers.asks_replicas() {
            return;
        }
        let mut copies = Vec::new();
        for node in nodes.iter().filter(|node| !node.primary) {
            let Some(of) = &node.of else { continue };
            let at = self.place_of(node);
            let primary = self.nodes.iter().position(|known| known.id == *of);
            copies
                .extend(primary.and_then(|primary| u16::try_from(primary).ok()).map(|primary| (at, primary)));
        }
        self.readers.adopt(copies);
    }

    /// Our position of a node; a node that has moved to another address keeps its position.
    fn place_of(&mut self, node: &Node) -> u16 {
        let same = self.nodes.iter().position(|known| known.id == node.id);
        let there = || self.nodes.iter().position(|known| known.host == node.host && known.port == node.port);
        let known = same.or_else(there).and_then(|at| u16::try_from(at).ok());
        let Some(at) = known else {
            return self.add_node(node.id.clone(), node.host.clone(), node.port);
        };
        if let Some(known) = self.nodes.get_mut(usize::from(at)) {
            node.host.clone_into(&mut known.host);
            known.port = node.port;
        }
        at
    }

    /// What waits for these nodes waits for the owners of its slots from now on.
    fn reroute(&mut self, nodes: &[u16]) {
        let (mut waiting, mut again): (Vec<Waiting>, Vec<Again>) = (Vec::new(), Vec::new());
        for node in nodes {
            if let Some(node) = self.nodes.get_mut(usize::from(*node)) {
                waiting.extend(node.backlog.drain(..));
                again.extend(node.again.drain(..));
            }
        }
        // A node may have been named twice; by now it has nothing left.
        waiting.sort_by_key(|waiting| waiting.due);
        for waiting in waiting {
            let to = self.route(waiting.item);
            if let Some(node) = self.nodes.get_mut(usize::from(to)) {
                node.backlog.push_back(waiting);
            }
        }
        for again in again {
            self.line_up(None, Again { asking: false, ..again });
        }
    }

    /// Puts an attempt into the queue of a node; without one, into that of the owner of its slot.
    pub(super) fn line_up(&mut self, node: Option<u16>, again: Again) {
        let Some(request) = self.open.get(again.key).filter(|r| r.serial == again.serial) else { return };
        let (item, operation) = (request.item, request.operation);
        let to = match node {
            Some(node) => node,
            None if self.requests.fans_out(operation) => self.routes.part(again.part),
            None => self.route(item),
        };
        if let Some(node) = self.nodes.get_mut(usize::from(to)) {
            node.again.push_back(again);
        }
    }

    /// A node that owns nothing and has let a request time out is not waited for: closing its connections says what
    /// became of what it was sent, as far as that can be known.
    pub(super) fn close_silent(&mut self, node: u16) {
        use super::node::Owed;
        for (at, link) in self.links.iter().enumerate().filter(|(_, link)| link.up && link.node == node) {
            let timed_out = |owed: &Owed| match owed {
                Owed::Request { key, .. } => self.open.get(*key).is_some_and(|request| request.ended),
                Owed::Ignored => false,
            };
            if link.owed.iter().any(timed_out) {
                self.useless.push(at);
            }
        }
    }
}
