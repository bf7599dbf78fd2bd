//! Rows that could not be written for so long that the phase has to say so.
//!
//! A row is tried until it is written, and a part of the cluster that nobody takes over would be tried without end. Asked
//! at every refusal and as time passes. Law: a lane gives up only when a row was refused, or waited for a node without a
//! connection, for the whole bound; then it drains once, and says what it waited for.

use vst_common::clock::SECOND_NS;

use super::Pipeline;
use super::node::Item;
use crate::work::LaneEvent;

/// Rows wait this long for somebody to serve their slot, or for the timeout where that is longer.
pub(super) const STUCK_NS: u64 = 30 * SECOND_NS;
/// Time between two looks at the nodes, nanoseconds.
const LOOK_NS: u64 = 100_000_000;

impl Pipeline {
    fn patience(&self) -> u64 {
        STUCK_NS.max(self.phase.order.timeout_ns)
    }

    /// Looks for nodes that rows wait for in vain.
    pub(super) fn look_for_stuck(&mut self, now: u64) {
        if !self.leased || self.gave_up || now < self.look_at {
            return;
        }
        self.look_at = now.saturating_add(LOOK_NS);
        let patience = self.patience();
        let mut stuck = None;
        for node in &mut self.nodes {
            if node.up > 0 || node.waits() == 0 {
                node.unserved_since = None;
                continue;
            }
            let since = *node.unserved_since.get_or_insert(now);
            if now.saturating_sub(since) >= patience {
                stuck =
                    Some(format!("there is no connection to {}", vst_access::join(&node.host, node.port)));
            }
        }
        if let Some(what) = stuck {
            self.give_up(&what, now);
        }
    }

    /// When the nodes are to be looked at again, where rows wait for one without a connection.
    pub(super) fn next_look(&self) -> Option<u64> {
        let since = self.nodes.iter().filter_map(|node| node.unserved_since).min()?;
        (!self.gave_up).then(|| since.saturating_add(self.patience()).max(self.look_at))
    }

    /// A request was refused again, for the first time at `since`.
    pub(super) fn refused_since(&mut self, item: Item, since: u64, text: &str, now: u64) {
        let is_row = matches!(item, Item::Row { .. });
        if is_row && !self.gave_up && now.saturating_sub(since) >= self.patience() {
            self.give_up(&format!("the last refusal was `{text}`"), now);
        }
    }

    fn give_up(&mut self, what: &str, now: u64) {
        self.gave_up = true;
        if self.stop.is_some_and(|stop| now >= stop) {
            // It ends soon by itself.
            return;
        }
        let seconds = self.patience() / SECOND_NS;
        let reason = format!(
            "rows could not be written for {seconds} s: {what}, and no other node serves the slots; see whether the \
             cluster is up, and give its primaries replicas"
        );
        self.events.push(LaneEvent::GaveUp { reason });
        self.drain(now);
    }
}
