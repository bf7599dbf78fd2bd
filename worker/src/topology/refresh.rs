//! Asks the cluster again who owns which slot, because a lane doubts what it knows.
//!
//! Fed by the worker with its lanes' doubts; gives layouts for all lanes. A node that is gone cannot say who follows it,
//! and a demoted one may not know it yet, so several are asked at once and their answers merged. Laws: questions are
//! never closer than the shortest pause; a doubt that comes while one is under way leads to another; the merged layout
//! does not depend on who answered first.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use vst_common::clock::{MonoNs, SECOND_NS, mono_ns};
use vst_common::ids::NodeId;

use super::{Credentials, Layout, Node, SLOTS, connect, from_cluster_slots};

/// Nodes that are asked at once.
const ASKED: usize = 8;
/// A node that has not answered after this long is left out.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time from one question to the next, nanoseconds: while answers bring nothing new it doubles up to the largest.
const PAUSE_NS: u64 = SECOND_NS / 5;
const PAUSE_MAX_NS: u64 = 2 * SECOND_NS;

/// When to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refresh {
    doubted: bool,
    asking: bool,
    next_at: MonoNs,
    pause_ns: u64,
}

/// What it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A lane doubts its map.
    Doubt,
    /// The nodes that were asked have answered, or have not in time; whether that was news.
    Answered { news: bool },
    /// Time went by.
    Tick,
}

impl Refresh {
    pub(crate) fn new(now: MonoNs) -> Self {
        Self { doubted: false, asking: false, next_at: now, pause_ns: PAUSE_NS }
    }

    /// Takes an event in; gives whether to ask now.
    pub(crate) fn step(&mut self, event: Event, now: MonoNs) -> bool {
        match event {
            Event::Doubt => self.doubted = true,
            Event::Tick => {}
            Event::Answered { news } => {
                self.asking = false;
                self.pause_ns = if news { PAUSE_NS } else { (self.pause_ns * 2).min(PAUSE_MAX_NS) };
                self.next_at = now.saturating_add(self.pause_ns);
            }
        }
        if !self.doubted && !self.asking && now >= self.next_at.saturating_add(PAUSE_MAX_NS) {
            // Calm for a while: the next doubt is about something new.
            self.pause_ns = PAUSE_NS;
        }
        let ask = self.doubted && !self.asking && now >= self.next_at;
        if ask {
            (self.doubted, self.asking) = (false, true);
        }
        ask
    }

    /// When [`Refresh::step`] has to hear of time.
    pub(crate) fn wake_at(&self) -> Option<MonoNs> {
        (self.doubted && !self.asking).then_some(self.next_at)
    }
}

/// What one node says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    layout: Layout,
    /// How new each node's claim to its slots is (its configuration epoch).
    epochs: BTreeMap<NodeId, u64>,
}

/// For each slot the owner with the newest claim; of equal ones the greater id, so that the order does not matter.
fn merge(answers: &[Answer]) -> Layout {
    let mut nodes: BTreeMap<NodeId, Node> = BTreeMap::new();
    for node in answers.iter().flat_map(|answer| &answer.layout.nodes) {
        let known = nodes.entry(node.id.clone()).or_insert_with(|| node.clone());
        if (&node.host, node.port) > (&known.host, known.port) {
            *known = node.clone();
        }
    }
    let newest = |slot: usize| {
        let claims = answers.iter().filter_map(|answer| {
            let owner = answer.layout.slots.get(slot).copied().flatten()?;
            let id = &answer.layout.nodes.get(usize::from(owner))?.id;
            Some((answer.epochs.get(id).copied().unwrap_or(0), id))
        });
        claims.max().map(|(_, id)| id)
    };
    let owners: Vec<Option<&NodeId>> = (0..usize::from(SLOTS)).map(newest).collect();
    let is_owner: std::collections::BTreeSet<&NodeId> = owners.iter().copied().flatten().collect();
    // Of several who say whom a replica copies, the one that follows the newest claim counts.
    let copies = |id: &NodeId| {
        let said = answers.iter().filter_map(|answer| {
            let of = answer.layout.nodes.iter().find(|node| node.id == *id)?.of.as_ref()?;
            Some((answer.epochs.get(of).copied().unwrap_or(0), of))
        });
        said.max().map(|(_, of)| of.clone())
    };
    let mut list: Vec<Node> = nodes
        .values()
        .map(|node| {
            let primary = is_owner.contains(&node.id);
            Node { primary, of: if primary { None } else { copies(&node.id) }, ..node.clone() }
        })
        .collect();
    list.sort_by(|a, b| (!a.primary, &a.id).cmp(&(!b.primary, &b.id)));
    let places: BTreeMap<&NodeId, u16> = list.iter().map(|node| &node.id).zip(0u16..).collect();
    let slots = owners.into_iter().map(|owner| places.get(owner?).copied()).collect();
    Layout { nodes: list, slots }
}

/// Asks one node. One that is no cluster has nothing to say.
async fn ask(host: &str, port: u16, credentials: &Credentials) -> Option<Answer> {
    let mut connection = connect(host, port, credentials).await.ok()?;
    let slots = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await.ok()?;
    let nodes: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await.ok()?;
    let layout = from_cluster_slots(&slots, host).ok()?;
    Some(Answer { layout, epochs: read_epochs(&nodes) })
}

/// The seventh word of each line of `CLUSTER NODES` is the node's configuration epoch.
fn read_epochs(nodes: &str) -> BTreeMap<NodeId, u64> {
    let read = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some((NodeId::new(*words.first()?), words.get(6)?.parse().ok()?))
    };
    nodes.lines().filter_map(read).collect()
}

/// A task that asks on demand. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Handle {
    doubts: UnboundedSender<Vec<Node>>,
    task: tokio::task::JoinHandle<()>,
}

impl Handle {
    /// A lane doubts its map.
    pub(crate) fn doubt(&self) {
        // The task ends with this handle only.
        let _ = self.doubts.send(Vec::new());
    }

    /// Nodes to ask when there is a doubt.
    pub(crate) fn know(&self, nodes: &[Node]) {
        if !nodes.is_empty() {
            let _ = self.doubts.send(nodes.to_vec());
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts one that knows no node yet. `told` gets every layout that at least one node has given.
pub(crate) fn spawn(credentials: Credentials, told: UnboundedSender<Layout>) -> Handle {
    let (doubts, receiver) = unbounded_channel();
    Handle { doubts, task: tokio::spawn(run(credentials, receiver, told)) }
}

async fn run(
    credentials: Credentials,
    mut doubts: UnboundedReceiver<Vec<Node>>,
    told: UnboundedSender<Layout>,
) {
    let mut known: Vec<(String, u16)> = Vec::new();
    let mut last = Layout::default();
    let mut refresh = Refresh::new(mono_ns());
    loop {
        let wait = refresh.wake_at().map(|at| Duration::from_nanos(at.saturating_sub(mono_ns())));
        let event = tokio::select! {
            heard = doubts.recv() => match heard {
                None => return,
                Some(nodes) if nodes.is_empty() => Event::Doubt,
                Some(nodes) => {
                    learn(&mut known, &nodes);
                    continue;
                }
            },
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => Event::Tick,
        };
        if !refresh.step(event, mono_ns()) {
            continue;
        }
        // Each time others come first, so that a large cluster is heard as a whole.
        let first = ASKED.min(known.len());
        known.rotate_left(first);
        let asked = known.iter().take(ASKED).map(|(host, port)| {
            let credentials = &credentials;
            async move { tokio::time::timeout(PATIENCE, ask(host, *port, credentials)).await.ok().flatten() }
        });
        let answers: Vec<Answer> = join_all(asked).await.into_iter().flatten().collect();
        let layout = merge(&answers);
        let news = !answers.is_empty() && layout != last;
        if !answers.is_empty() {
            learn(&mut known, &layout.nodes);
            last = layout.clone();
            // Lanes that hear what they know already change nothing; some may have been told something else by a node.
            if told.send(layout).is_err() {
                return;
            }
        }
        let again = refresh.step(Event::Answered { news }, mono_ns());
        debug_assert!(!again, "there is a pause after every answer");
    }
}

fn learn(known: &mut Vec<(String, u16)>, nodes: &[Node]) {
    for node in nodes {
        if !known.iter().any(|(host, port)| *host == node.host && *port == node.port) {
            known.push((node.host.clone(), node.port));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: usize) -> Node {
        Node {
            id: NodeId::new(format!("n{id}")),
            host: format!("h{id}"),
            port: 7000,
            primary: true,
            of: None,
        }
    }

    /// Owners of the first slots, by node; all others have none.
    fn answer(owners: &[Option<usize>], epochs: &[u64]) -> Answer {
        let nodes: Vec<Node> = (0..epochs.len()).map(node).collect();
        let mut slots: Vec<Option<u16>> =
            owners.iter().map(|o| o.map(|o| u16::try_from(o).unwrap())).collect();
        slots.resize(usize::from(SLOTS), None);
        let epochs = epochs.iter().enumerate().map(|(id, epoch)| (node(id).id, *epoch)).collect();
        Answer { layout: Layout { nodes, slots }, epochs }
    }

    fn answers() -> impl Strategy<Value = Vec<Answer>> {
        let one = (prop::collection::vec(prop::option::of(0usize..4), 6), prop::collection::vec(0u64..5, 4));
        prop::collection::vec(one.prop_map(|(owners, epochs)| answer(&owners, &epochs)), 0..5)
    }

    proptest! {
        #[test]
        fn the_newest_claim_to_a_slot_counts_whoever_says_it_and_when(answers in answers(), turn in 0usize..5) {
            let merged = merge(&answers);
            let mut turned = answers.clone();
            turned.rotate_left(turn.min(answers.len()));
            prop_assert_eq!(&merge(&turned), &merged);
            for slot in 0..6 {
                let claim = |answer: &Answer| {
                    let owner = answer.layout.slots[slot].map(|o| answer.layout.nodes[usize::from(o)].id.clone());
                    owner.map(|id| answer.epochs[&id])
                };
                let newest = answers.iter().filter_map(claim).max();
                let owner = merged.slots[slot].map(|o| &merged.nodes[usize::from(o)]);
                prop_assert_eq!(owner.is_some(), newest.is_some());
                if let Some(owner) = owner {
                    prop_assert!(owner.primary, "who owns a slot is a primary");
                    let said = |a: &Answer| {
                        let of = a.layout.slots[slot].map(|o| a.layout.nodes[usize::from(o)].id.clone());
                        of.filter(|id| *id == owner.id).map(|id| a.epochs[&id])
                    };
                    prop_assert_eq!(answers.iter().filter_map(said).max(), newest);
                }
            }
        }

        #[test]
        fn questions_keep_their_distance_and_no_doubt_is_forgotten(
            steps in prop::collection::vec((0u64..600_000_000, any::<bool>(), prop::option::of(any::<bool>())), 1..60),
        ) {
            let mut refresh = Refresh::new(0);
            let (mut now, mut asking, mut open, mut ended) = (0, false, false, None::<u64>);
            for (wait, doubt, news) in steps {
                now += wait;
                let event = match (asking, news) {
                    (true, Some(news)) => Event::Answered { news },
                    _ if doubt => Event::Doubt,
                    _ => Event::Tick,
                };
                if let Event::Answered { .. } = event {
                    (asking, ended) = (false, Some(now));
                }
                open |= event == Event::Doubt;
                if refresh.step(event, now) {
                    prop_assert!(open && !asking, "asked only in doubt, and one question at a time");
                    prop_assert!(ended.is_none_or(|at| now - at >= PAUSE_NS));
                    (asking, open) = (true, false);
                }
                prop_assert_eq!(open && !asking, refresh.wake_at().is_some(), "a doubt that waits has its instant");
                if let Some(at) = refresh.wake_at() {
                    prop_assert!(at <= now + PAUSE_MAX_NS);
                }
            }
        }
    }

    #[test]
    fn epochs_are_read_from_what_a_node_says() {
        let said =
            "aa1 :7000@17000 myself,master - 0 0 7 connected 0-5\nbb2 h:1@2 slave aa1 0 1 3 connected\nx\n";
        let epochs = read_epochs(said);
        assert_eq!((epochs[&NodeId::new("aa1")], epochs[&NodeId::new("bb2")], epochs.len()), (7, 3, 2));
    }
}
