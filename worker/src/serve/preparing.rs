//! What a worker needs for a phase before it is armed: who serves which slots, the rows to read, the queries and their
//! truth.
//!
//! Asked by `serve` for each order, in a task of its own. Law: what an older preparation brings late is not kept.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use vst_access::TargetUrl;
use vst_common::dataset::ReadFaults;
use vst_common::phase::{PhaseOrder, Work};

use super::with_sources;
use crate::fetch::Source;
use crate::presence::Presence;
use crate::session::NotReady;
use crate::work::ArmedPhase;
use crate::{recall_probe, topology};

/// For the target to say who serves which slots.
const TOPOLOGY_LIMIT: Duration = Duration::from_secs(10);

/// What the newest phase with rows works with, by the ticket of its preparation. What an older preparation brings late is
/// not kept, and nobody gets what belongs to another phase.
#[derive(Debug)]
pub(super) struct Newest<T>(Option<(u64, T)>);

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Newest<T> {
    pub(super) fn put(&mut self, ticket: u64, item: T) {
        if self.0.as_ref().is_none_or(|(own, _)| *own < ticket) {
            self.0 = Some((ticket, item));
        }
    }

    pub(super) fn of(&self, ticket: u64) -> Option<T> {
        self.0.as_ref().filter(|(own, _)| *own == ticket).map(|(_, item)| item.clone())
    }
}

pub(super) async fn prepare(
    order: PhaseOrder,
    target: TargetUrl,
    known: &[(String, u16)],
    faults: &ReadFaults,
) -> Result<(Arc<ArmedPhase>, Option<Arc<Source>>), NotReady> {
    // Boxed: the compiler cannot see by itself that the client's future may move between threads.
    let asked = tokio::time::timeout(TOPOLOGY_LIMIT, topology::discover(&target, known).boxed()).await;
    let no_target = |reason| NotReady { reason, target: true };
    let topology = match asked {
        Ok(topology) => topology.map_err(|e| no_target(with_sources(&e)))?,
        Err(_) => {
            let seconds = TOPOLOGY_LIMIT.as_secs();
            return Err(no_target(format!(
                "target `{target}` did not say within {seconds} s who serves its slots"
            )));
        }
    };
    let not_ready = |e: &dyn std::error::Error| NotReady { reason: with_sources(e), target: false };
    let source = Source::of_order(&order).await.map_err(|e| not_ready(&e))?;
    let topology = Arc::new(topology);
    let source = match (source, &order.work) {
        (Some(source), Work::Fill(vectors)) => {
            let held = Presence::open(&topology, target.credentials(), vectors).boxed().await;
            Some(source.without(held.map_err(|e| no_target(with_sources(&e)))?))
        }
        (source, _) => source,
    };
    let queries = recall_probe::build(&order.work, faults).await.map_err(|e| not_ready(&e))?.map(Arc::new);
    Ok((Arc::new(ArmedPhase { order, topology, queries }), source.map(Arc::new)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_preparation_brings_late_is_not_kept() {
        let mut newest = Newest::default();
        newest.put(2, "second");
        newest.put(1, "first, drained meanwhile");
        assert_eq!((newest.of(2), newest.of(1)), (Some("second"), None));
        assert_eq!(newest.of(3), None, "a phase without rows has no source");
    }
}
