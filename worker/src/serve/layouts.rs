//! What a worker knows of the target's nodes while a phase runs, and what it asks of them when that was wrong.
//!
//! Lanes that doubt their map say so to `serve`; `topology::refresh` asks the cluster, and what it says goes to every
//! lane. Law: each lane gets each layout, and rows that a failover may have lost are looked for until it is known what
//! became of them or the cluster has not answered several times.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use vst_access::TargetUrl;
use vst_common::phase::Work;

use super::{Note, Worker, with_sources};
use crate::fetch::Source;
use crate::fetch::verify::{self, Doubted, Verified};
use crate::session::Event;
use crate::topology::{self, Layout, Node};
use crate::work::LaneCommand;

/// How often, and how far apart, lost rows are looked for in a cluster that does not answer.
const VERIFY_TRIES: u32 = 5;
const VERIFY_PAUSE: Duration = Duration::from_secs(1);

impl Worker {
    /// A lane doubts what it knows of the cluster.
    pub(super) fn doubt(&self) {
        if let Some(refresh) = &self.refresh {
            refresh.doubt();
        }
    }

    /// Nodes to ask when the one that the target's URL names is away.
    pub(super) fn remember(&mut self, nodes: &[Node]) {
        if let Some(refresh) = &self.refresh {
            refresh.know(nodes);
        }
        for node in nodes {
            let place = (node.host.clone(), node.port);
            if !self.known.contains(&place) {
                self.known.push(place);
            }
        }
    }

    /// The cluster has said who owns its slots: every lane is told.
    pub(super) fn laid_out(&mut self, layout: Layout) {
        self.remember(&layout.nodes);
        let layout = Arc::new(layout);
        self.lanes.tell_all(|| LaneCommand::Layout(Arc::clone(&layout)));
    }

    pub(super) fn verify(&self, ticket: u64, doubted: Doubted) {
        let (source, noted) = (self.source.of(ticket), self.noted.clone());
        let (Some(target), known) = (self.target.clone(), self.known.clone()) else { return };
        tokio::spawn(async move {
            let outcome = match source {
                Some((work, source)) => verify_rows(&work, &source, &doubted, &target, &known).boxed().await,
                None => Err(String::from("the phase has no rows")),
            };
            let _ = noted.send(Note::Session(Event::Verified { ticket, outcome }));
        });
    }
}

/// Looks for lost rows, several times where the cluster is not calm yet.
async fn verify_rows(
    work: &Work,
    source: &Source,
    doubted: &Doubted,
    target: &TargetUrl,
    known: &[(String, u16)],
) -> Result<Verified, String> {
    let mut tries = 0;
    loop {
        let looked = async {
            let topology = topology::discover(target, known).await.map_err(|e| with_sources(&e))?;
            verify::lost_rows(source, work, doubted, &topology, target.credentials()).await
        };
        match looked.await {
            Err(_) if tries < VERIFY_TRIES => {
                tries += 1;
                tokio::time::sleep(VERIFY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
