//! From what is due to exactly one outcome per request.
//!
//! The pure middle of a load lane: fed with instants, replies and connection changes by `lane`, it fills the
//! connections' out-buffers and the recorder. It reads no clock and touches no socket, so that tests drive the very
//! code that runs.
//!
//! Laws: every request ends exactly once; what is in flight never exceeds connections x depth; a request that finds
//! no slot waits and its lateness is latency, it is never skipped; every attempt is executed, rejected or unknown.

mod blocks;
mod due;
mod finish;
mod layout;
mod node;
mod overflow;
mod readers;
mod reply;
mod retry;
mod routes;
mod send;
mod stuck;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use slab::Slab;
use vst_common::clock::SECOND_NS;
use vst_common::content::Scratch;
use vst_common::count;
use vst_common::ids::NodeId;
use vst_common::latency::Window;
use vst_common::outcome::{Kind, Outcome};
use vst_common::scenario::Load;

use self::blocks::Blocks;
pub(crate) use self::node::LinkIndex;
use self::node::{Again, FreeSlot, Item, Link, NodeState, Owed, Parts, Waiting};
use self::overflow::Overflow;
use self::readers::Readers;
pub(crate) use self::reply::Unasked;
use self::retry::Refused;
use self::routes::Routes;
use crate::pacer::Pacer;
use crate::recorder::{Operation, Recorder};
use crate::requests::{Error, Hit, Requests};
use crate::work::{ArmedPhase, LaneEvent, Pair, RowBlock, Totals};
use vst_common::recall::RecallCell;
use vst_common::shares::ShareSet;

/// A phase drains for at most this long, or its timeout if that is longer.
const DRAIN_NS: u64 = 10 * SECOND_NS;

/// A request that was sent at least once.
#[derive(Debug)]
struct Request {
    serial: u64,
    item: Item,
    operation: Operation,
    query: u32,
    due: Option<u64>,
    slot_free: u64,
    sent: u64,
    window: Window,
    /// Parts that have not ended.
    parts: Parts,
    attempts: u32,
    refused: Refused,
    /// Its outcome is recorded; only replies (or, for a row, its fate) are awaited.
    ended: bool,
    fault: Option<Kind>,
    /// The reply said that there was nothing.
    miss: bool,
    hits: Vec<Hit>,
}

impl Request {
    /// What becomes of it when it ends now.
    fn outcome(&self, kind: Kind, now: u64) -> Outcome {
        Outcome {
            due: self.due,
            slot_free: self.slot_free,
            sent: Some(self.sent),
            ended: now,
            kind,
            attempts: self.attempts,
        }
    }
}

/// One lane's share of one phase.
#[derive(Debug)]
pub(crate) struct Pipeline {
    phase: Arc<ArmedPhase>,
    requests: Requests,
    /// Rows come in blocks that others lease; otherwise requests are numbered.
    leased: bool,
    /// Requests that a closed loop keeps open; `None` in an open loop.
    closed: Option<usize>,
    depth: usize,
    links_per_node: usize,
    nodes: Vec<NodeState>,
    links: Vec<Link>,
    routes: Routes,
    readers: Readers,
    /// The node of each part of the request that is about to be sent.
    targets: Vec<u16>,
    /// When a layout of the cluster was last taken in: what waited for a node that had failed could not go out before.
    routed_at: u64,
    /// The map may be wrong.
    doubt: bool,
    /// Connections that are of no use any more.
    useless: Vec<LinkIndex>,
    pacer: Pacer,
    blocks: Blocks,
    open: Slab<Request>,
    /// Requests that were taken up and have not ended, waiting ones included.
    active: usize,
    /// Requests that timed out and still hold their slot.
    overdue: usize,
    backlog: VecDeque<Waiting>,
    overflow: Overflow,
    /// Requests that may wait for one node.
    room: usize,
    deadlines: VecDeque<(u64, usize, u64)>,
    /// Attempts that wait for an instant; `None` where the map will say which node gets them.
    later: BTreeMap<(u64, u64), (Option<u16>, Again)>,
    serial: u64,
    recorder: Recorder,
    totals: Totals,
    events: Vec<LaneEvent>,
    told: BTreeSet<String>,
    /// Refusals since they were last told, by kind and node.
    refusals: BTreeMap<(&'static str, u16), (u64, &'static str)>,
    refusals_at: u64,
    dirty: Vec<LinkIndex>,
    key: Vec<u8>,
    /// Where a vector is widened before it is sent.
    vector: Vec<u8>,
    scratch: Scratch,
    start: Option<u64>,
    stop: Option<u64>,
    fenced: bool,
    expired: bool,
    /// Rows could not be written for too long.
    gave_up: bool,
    /// When nodes that rows wait for are looked at next.
    look_at: u64,
}

impl Pipeline {
    /// Everything but the start instant, for one lane of the fleet.
    pub(crate) fn new(phase: Arc<ArmedPhase>, lane: u32) -> Result<Self, Error> {
        let order = &phase.order;
        let requests = Requests::new(order, &phase.topology, phase.queries.as_ref())?;
        let (closed, depth, connections) = match &order.load {
            Load::Closed { clients, pipeline } => {
                let clients = split(*clients, lane, order.lanes_total);
                let depth = usize::try_from(*pipeline).unwrap_or(1).max(1);
                (Some(clients * depth), depth, clients)
            }
            Load::Open { connections, .. } => (None, 1, split(*connections, lane, order.lanes_total)),
        };
        let routes = Routes::new(phase.topology.slots.clone(), requests.anchors().to_vec());
        let mut pipeline = Self {
            leased: order.work.is_leased(),
            recorder: Recorder::new(0, order.interval_ns, Vec::new(), requests.operations()),
            requests,
            closed,
            depth,
            links_per_node: connections,
            nodes: Vec::new(),
            links: Vec::new(),
            routes,
            readers: Readers::new(order.connection.read_from),
            targets: Vec::new(),
            routed_at: 0,
            doubt: false,
            useless: Vec::new(),
            pacer: Pacer::new(order, lane),
            blocks: Blocks::default(),
            open: Slab::new(),
            active: 0,
            overdue: 0,
            backlog: VecDeque::new(),
            overflow: Overflow::default(),
            room: overflow::room(phase.topology.primaries()),
            deadlines: VecDeque::new(),
            later: BTreeMap::new(),
            serial: 0,
            totals: Totals::default(),
            events: Vec::new(),
            told: BTreeSet::new(),
            refusals: BTreeMap::new(),
            refusals_at: 0,
            dirty: Vec::new(),
            key: Vec::new(),
            vector: Vec::new(),
            scratch: Scratch::default(),
            start: None,
            stop: None,
            fenced: false,
            expired: false,
            gave_up: false,
            look_at: 0,
            phase: Arc::clone(&phase),
        };
        for node in phase.topology.nodes.iter().take(phase.topology.primaries()) {
            pipeline.add_node(node.id.clone(), node.host.clone(), node.port);
        }
        pipeline.know_replicas(&phase.topology.nodes);
        Ok(pipeline)
    }

    fn add_node(&mut self, id: NodeId, host: String, port: u16) -> u16 {
        let index = u16::try_from(self.nodes.len()).unwrap_or(u16::MAX);
        self.recorder.add_node(id.clone());
        self.nodes.push(NodeState::new(id, host, port));
        for _ in 0..self.links_per_node {
            self.links.push(Link { node: index, ..Link::default() });
        }
        index
    }

    /// How many connections there should be; they are numbered from 0 and never fewer.
    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    /// Where a connection goes: node, host, port.
    pub(crate) fn address(&self, link: LinkIndex) -> Option<(&NodeId, &str, u16)> {
        let node = self.nodes.get(usize::from(self.links.get(link)?.node))?;
        Some((&node.id, &node.host, node.port))
    }

    /// The schedule begins at `at` on the own clock.
    pub(crate) fn start(&mut self, at: u64) {
        let nodes = self.nodes.iter().map(|n| n.id.clone()).collect();
        self.recorder = Recorder::new(at, self.phase.order.interval_ns, nodes, self.requests.operations());
        self.pacer.start(at);
        self.start = Some(at);
        self.stop = self.pacer.end();
    }

    /// From an instant after the start on this lane sends these shares of the schedule too.
    pub(crate) fn take_over(&mut self, from_ns: u64, shares: &ShareSet) {
        self.pacer.take_over(from_ns, shares);
    }

    /// A connection is ready for requests.
    pub(crate) fn link_up(&mut self, link: LinkIndex, now: u64) {
        let Some(state) = self.links.get_mut(link) else { return };
        state.up = true;
        let (node, epoch) = (state.node, state.epoch);
        let Some(at) = self.nodes.get_mut(usize::from(node)) else { return };
        at.free.extend((0..self.depth).map(|_| FreeSlot { link, epoch, since: now }));
        at.up += 1;
        let place = vst_access::join(&at.host, at.port);
        if let Some(since) = at.away_since.take() {
            let away = count::to_f64(now.saturating_sub(since)) / 1e9;
            let id = at.id.clone();
            self.happened("node_reachable", Some(id), format!("{place} answers again after {away:.2} s"));
        } else if epoch > 0 {
            let id = at.id.clone();
            self.happened("connection_regained", Some(id), place);
        }
    }

    /// A connection ended: what it owed is lost, or sent again where repeating is safe.
    pub(crate) fn link_down(&mut self, link: LinkIndex, now: u64) {
        let Some(state) = self.links.get_mut(link) else { return };
        let was_up = std::mem::take(&mut state.up);
        state.epoch += 1;
        state.out.clear();
        let node = state.node;
        let owed = std::mem::take(&mut state.owed);
        if was_up && !self.expired {
            self.doubt = true;
            if let Some(at) = self.nodes.get_mut(usize::from(node)) {
                at.up = at.up.saturating_sub(1);
                if at.up == 0 {
                    at.away_since = Some(now);
                    let (id, place) = (at.id.clone(), vst_access::join(&at.host, at.port));
                    self.happened("node_unreachable", Some(id), format!("no connection to {place} is left"));
                }
            }
        }
        for owed in owed {
            if let Owed::Request { key, part } = owed {
                self.reply_lost(key, part, node, now);
            }
        }
    }

    /// A connection could not be made, so whoever is looked for may be elsewhere.
    pub(crate) fn link_refused(&mut self, link: LinkIndex) {
        // A node that owns nothing is waited for without haste.
        self.doubt |= self.links.get(link).is_some_and(|link| self.serves(link.node));
    }

    /// Whether the phase can begin without this connection: its node owns no slot any more, and is not read from.
    pub(crate) fn is_idle(&self, link: LinkIndex) -> bool {
        self.links.get(link).is_none_or(|link| !self.serves(link.node))
    }

    /// Whether requests may go to a node.
    fn serves(&self, node: u16) -> bool {
        self.routes.owns(node) || self.readers.has(node)
    }

    /// Whether somebody should ask the cluster for its layout; asks once.
    pub(crate) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubt)
    }

    /// Connections that are to be closed.
    pub(crate) fn take_useless(&mut self) -> Vec<LinkIndex> {
        std::mem::take(&mut self.useless)
    }

    /// Bytes to write on a connection; the caller removes what it wrote.
    pub(crate) fn out(&mut self, link: LinkIndex) -> Option<&mut Vec<u8>> {
        let state = self.links.get_mut(link)?;
        state.dirty = false;
        Some(&mut state.out)
    }

    /// Connections that have new bytes to write since the last call.
    pub(crate) fn take_dirty(&mut self, into: &mut Vec<LinkIndex>) {
        into.append(&mut self.dirty);
    }

    /// Rows to write or delete.
    pub(crate) fn give(&mut self, rows: RowBlock) {
        self.events.extend(self.blocks.give(rows));
    }

    /// No more rows will come.
    pub(crate) fn no_more_rows(&mut self) {
        self.blocks.complete = true;
    }

    /// While fenced nothing new is sent; what falls due waits.
    pub(crate) fn fence(&mut self, fenced: bool) {
        self.fenced = fenced;
    }

    /// The rows in hand of a phase that is over: what became of those that were sent is told, the others were not
    /// tried.
    pub(crate) fn give_back_rows(&mut self) {
        self.events.extend(self.blocks.give_back());
    }

    /// The phase takes up nothing new from now on.
    pub(crate) fn drain(&mut self, now: u64) {
        self.stop = Some(self.stop.map_or(now, |stop| stop.min(now)));
    }

    /// Lets time pass: takes up what is due, sends what finds a slot, ends what took too long.
    pub(crate) fn pump(&mut self, now: u64) {
        if self.start.is_none_or(|start| now < start) || self.expired {
            return;
        }
        self.time_out(now);
        self.take_due(now);
        if self.stop.is_none() && self.is_exhausted() {
            self.stop = Some(now);
        }
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let (node, again) = entry.remove();
            self.line_up(node, again);
        }
        // First, so that a process that was stopped for long does not send what its phase no longer wants.
        if self.drain_limit().is_some_and(|limit| now >= limit) {
            self.expire(now);
        } else if !self.fenced {
            self.send_waiting(now);
        }
        let over = self.stop.is_some_and(|stop| now >= stop);
        if over && self.active == 0 && self.open.is_empty() && !self.overflow.is_empty() {
            self.drop_overflow(now);
        }
        self.look_for_stuck(now);
        self.tell_refusals(now);
    }

    /// Whether this lane's part of a fixed number of requests has been taken up.
    fn is_exhausted(&self) -> bool {
        !self.leased
            && self.phase.order.operations.is_some()
            && self.pacer.is_exhausted(self.closed.is_some())
    }

    fn window(&self, at: u64) -> Window {
        let warm_up_end = self.start.unwrap_or(0).saturating_add(self.phase.order.warm_up_ns);
        if at < warm_up_end { Window::WarmUp } else { Window::Measure }
    }

    fn window_end(&self, window: Window) -> u64 {
        let start = self.start.unwrap_or(0);
        match window {
            Window::WarmUp => start.saturating_add(self.phase.order.warm_up_ns),
            Window::Measure => self.pacer.end().unwrap_or(u64::MAX),
        }
    }

    fn drain_limit(&self) -> Option<u64> {
        self.stop.map(|stop| stop.saturating_add(DRAIN_NS.max(self.phase.order.timeout_ns)))
    }

    /// When the pipeline needs to be pumped next, if nothing arrives before.
    pub(crate) fn next_wake(&self, now: u64) -> Option<u64> {
        let start = self.start?;
        if now < start {
            return Some(start);
        }
        let due = match self.closed {
            None if self.leased && !self.blocks.has_next() => None,
            None => self.pacer.peek_due().filter(|due| self.stop.is_none_or(|stop| *due < stop)),
            Some(_) => self.stop.filter(|stop| now < *stop),
        };
        let deadline = self.deadlines.front().map(|d| d.0);
        let later = self.later.first_key_value().map(|(k, _)| k.0);
        let end = self.stop.filter(|stop| now < *stop).or_else(|| self.drain_limit());
        [due, deadline, later, end, self.next_look()].into_iter().flatten().min()
    }

    /// When the current interval ends and can be handed over.
    pub(crate) fn next_interval(&self, now: u64) -> Option<u64> {
        let start = self.start?;
        let interval_ns = self.phase.order.interval_ns.max(1);
        let next = (now.saturating_sub(start) / interval_ns).saturating_add(1);
        Some(start.saturating_add(next.saturating_mul(interval_ns)))
    }

    /// Ends everything at once.
    pub(crate) fn abort(&mut self, now: u64) {
        if self.start.is_none() {
            self.start(now);
        }
        if !self.expired {
            self.expire(now);
        }
    }

    /// Whether the phase is over on this lane.
    pub(crate) fn is_done(&self, now: u64) -> bool {
        if self.expired {
            return true;
        }
        if self.start.is_none_or(|start| now < start) {
            return self.stop.is_some_and(|stop| now >= stop);
        }
        let stopped = self.stop.is_some_and(|stop| now >= stop);
        let nothing_new = stopped
            || if self.leased {
                self.blocks.complete && !self.blocks.has_next() && self.blocks.is_empty()
            } else {
                self.is_exhausted()
            };
        nothing_new && self.active == 0 && self.open.is_empty() && self.overflow.is_empty()
    }

    /// Requests in flight and requests that wait for a slot.
    pub(crate) fn load(&self) -> (u64, u64) {
        let waiting = self.backlog.len() + self.nodes.iter().map(NodeState::waits).sum::<usize>();
        (count::len(self.open.len()), count::len(waiting).saturating_add(self.overflow.len()))
    }

    /// Counts since the start.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// The recorder, to hand over intervals.
    pub(crate) fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Verdicts by query and copy over the measured window.
    pub(crate) fn take_per_query(&mut self) -> Vec<(Pair, RecallCell)> {
        let asked = self.recorder.take_per_query();
        asked.into_iter().map(|(asked, cell)| (self.requests.pair(asked), cell)).collect()
    }

    /// What happened that someone should know.
    pub(crate) fn take_events(&mut self) -> Vec<LaneEvent> {
        std::mem::take(&mut self.events)
    }

    /// Adds something worth a row in `events`.
    pub(crate) fn happened(&mut self, kind: &'static str, node: Option<NodeId>, detail: String) {
        self.events.push(LaneEvent::Happened { kind, node, detail, count: 1 });
    }
}

/// A lane's part of a total over the fleet, at least one.
fn split(total: u32, lane: u32, lanes: u32) -> usize {
    let lanes = lanes.max(1);
    let extra = u32::from(lane % lanes < total % lanes);
    usize::try_from(total / lanes + extra).unwrap_or(1).max(1)
}
