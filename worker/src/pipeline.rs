//! From what is due to exactly one outcome per request.
//!
//! The pure middle of a load lane: fed with instants, replies and connection changes by `lane`, it fills the
//! connections' out-buffers and the recorder. It reads no clock and touches no socket, so that tests drive the very
//! code that runs.
//!
//! Laws: every request ends exactly once; what is in flight never exceeds connections x depth; a request that finds
//! no slot waits and its lateness is latency, it is never skipped; every attempt is executed, rejected or unknown.

mod blocks;
mod finish;
mod node;

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
pub(crate) use self::finish::Unasked;
pub(crate) use self::node::LinkIndex;
use self::node::{Again, FreeSlot, Item, Link, NodeState, Owed, Parts, Waiting};
use crate::pacer::Pacer;
use crate::recorder::{Operation, Place, Recorder};
use crate::requests::{Error, Hit, Requests};
use crate::work::{ArmedPhase, LaneEvent, Pair, RowBlock, Totals};
use vst_common::recall::RecallCell;

/// A phase drains for at most this long, or its timeout if that is longer.
const DRAIN_NS: u64 = 10 * SECOND_NS;
/// Attempts of one request before a redirect counts as its error.
const MAX_ATTEMPTS: u32 = 16;
/// Pause before an attempt that the server asked to try again later.
const TRY_AGAIN_NS: u64 = 10_000_000;

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
    /// Nodes that owe a reply.
    parts: Parts,
    attempts: u32,
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
    primaries: usize,
    /// Requests that a closed loop keeps open; `None` in an open loop.
    closed: Option<usize>,
    depth: usize,
    links_per_node: usize,
    nodes: Vec<NodeState>,
    links: Vec<Link>,
    slots: Vec<u16>,
    pacer: Pacer,
    blocks: Blocks,
    open: Slab<Request>,
    /// Requests that were taken up and have not ended, waiting ones included.
    active: usize,
    /// Requests that timed out and still hold their slot.
    overdue: usize,
    backlog: VecDeque<Waiting>,
    deadlines: VecDeque<(u64, usize, u64)>,
    later: BTreeMap<(u64, u64), (u16, Again)>,
    serial: u64,
    recorder: Recorder,
    totals: Totals,
    events: Vec<LaneEvent>,
    told: BTreeSet<String>,
    dirty: Vec<LinkIndex>,
    key: Vec<u8>,
    scratch: Scratch,
    start: Option<u64>,
    stop: Option<u64>,
    fenced: bool,
    expired: bool,
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
        let primaries = phase.topology.primaries();
        let mut pipeline = Self {
            leased: order.work.is_leased(),
            recorder: Recorder::new(0, order.interval_ns, Vec::new(), requests.operations()),
            requests,
            primaries,
            closed,
            depth,
            links_per_node: connections,
            nodes: Vec::new(),
            links: Vec::new(),
            slots: phase.topology.slots.clone(),
            pacer: Pacer::new(order, lane),
            blocks: Blocks::default(),
            open: Slab::new(),
            active: 0,
            overdue: 0,
            backlog: VecDeque::new(),
            deadlines: VecDeque::new(),
            later: BTreeMap::new(),
            serial: 0,
            totals: Totals::default(),
            events: Vec::new(),
            told: BTreeSet::new(),
            dirty: Vec::new(),
            key: Vec::new(),
            scratch: Scratch::default(),
            start: None,
            stop: None,
            fenced: false,
            expired: false,
            phase: Arc::clone(&phase),
        };
        for node in phase.topology.nodes.iter().take(primaries) {
            pipeline.add_node(node.id.clone(), node.host.clone(), node.port);
        }
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

    /// A connection is ready for requests.
    pub(crate) fn link_up(&mut self, link: LinkIndex, now: u64) {
        let Some(state) = self.links.get_mut(link) else { return };
        state.up = true;
        let (node, epoch) = (state.node, state.epoch);
        if let Some(node) = self.nodes.get_mut(usize::from(node)) {
            node.free.extend((0..self.depth).map(|_| FreeSlot { link, epoch, since: now }));
        }
    }

    /// A connection ended: what it owed is lost, or sent again where repeating is safe.
    pub(crate) fn link_down(&mut self, link: LinkIndex, now: u64) {
        let Some(state) = self.links.get_mut(link) else { return };
        state.up = false;
        state.epoch += 1;
        state.out.clear();
        let node = state.node;
        let owed = std::mem::take(&mut state.owed);
        for owed in owed {
            if let Owed::Request(key) = owed {
                self.reply_lost(key, node, now);
            }
        }
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
            if let Some(node) = self.nodes.get_mut(usize::from(node)) {
                node.again.push_back(again);
            }
        }
        // First, so that a process that was stopped for long does not send what its phase no longer wants.
        if self.drain_limit().is_some_and(|limit| now >= limit) {
            self.expire(now);
        } else if !self.fenced {
            self.send_waiting(now);
        }
    }

    fn take_due(&mut self, now: u64) {
        let until = self.stop.map_or(now, |stop| now.min(stop));
        if self.closed.is_some() {
            return;
        }
        // Where rows are leased, an instant takes the next row in hand; while there is none it waits, and is late.
        while !self.leased || self.blocks.has_next() {
            let Some((n, due)) = self.pacer.next_due(until) else { return };
            let numbered = Item::Numbered { n };
            let item = if self.leased { self.next_unit().unwrap_or(numbered) } else { numbered };
            let window = self.window(due);
            self.active += 1;
            self.totals.due += 1;
            let waiting = Waiting { item, due: Some(due) };
            let (operation, place) = self.enqueue(waiting);
            self.recorder.cell(due, window, operation, place).due += 1;
        }
    }

    /// The next unit in hand. One that asks changes no row: its block is done with it, and from here on it is a numbered
    /// request like any other query.
    fn next_unit(&mut self) -> Option<Item> {
        let item = self.blocks.next()?;
        let Item::Row { block, position } = item else { return Some(item) };
        let n = self.blocks.unit(block, position);
        if !self.requests.asks(n) {
            return Some(item);
        }
        self.events.extend(self.blocks.row_ended(block, None));
        Some(Item::Numbered { n })
    }

    /// Whether this lane's part of a fixed number of requests has been taken up.
    fn is_exhausted(&self) -> bool {
        !self.leased
            && self.phase.order.operations.is_some()
            && self.pacer.is_exhausted(self.closed.is_some())
    }

    fn operation(&self, item: Item) -> Operation {
        match item {
            Item::Numbered { n } => self.requests.operation(n),
            Item::Row { block, position } => self.requests.row_operation(self.blocks.unit(block, position)),
        }
    }

    /// Lets a request wait for a slot of its node, or of all nodes.
    fn enqueue(&mut self, waiting: Waiting) -> (Operation, Place) {
        let operation = self.operation(waiting.item);
        if self.requests.fans_out(operation) {
            self.backlog.push_back(waiting);
            return (operation, Place::All);
        }
        let node = self.route(waiting.item);
        if let Some(node) = self.nodes.get_mut(usize::from(node)) {
            node.backlog.push_back(waiting);
        }
        (operation, Place::Node(node))
    }

    /// The next request of a closed loop, if it may begin.
    fn take_closed(&mut self, now: u64) -> bool {
        let Some(limit) = self.closed else { return false };
        if self.active + self.overdue >= limit || self.stop.is_some_and(|stop| now >= stop) {
            return false;
        }
        let item = if self.leased {
            self.next_unit()
        } else {
            self.pacer.next_number().map(|n| Item::Numbered { n })
        };
        let Some(item) = item else { return false };
        self.active += 1;
        self.totals.due += 1;
        let (operation, place) = self.enqueue(Waiting { item, due: None });
        let window = self.window(now);
        self.recorder.cell(now, window, operation, place).due += 1;
        true
    }

    fn route(&mut self, item: Item) -> u16 {
        match item {
            // One server: no key needs to be hashed.
            _ if self.nodes.len() == 1 => 0,
            Item::Numbered { n } => match self.requests.slot(n, &mut self.scratch) {
                Some(slot) => self.slots.get(usize::from(slot)).copied().unwrap_or(0),
                None => u16::try_from(n % count::len(self.primaries).max(1)).unwrap_or(0),
            },
            Item::Row { block, position } => {
                let mut key = std::mem::take(&mut self.key);
                self.requests.key(self.blocks.cell(block, position), &mut key);
                let slot = vst_common::keys::slot(&key);
                self.key = key;
                self.slots.get(usize::from(slot)).copied().unwrap_or(0)
            }
        }
    }

    fn send_waiting(&mut self, now: u64) {
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
                self.write(key, node, false, now);
            }
            sent = true;
        }
    }

    /// A fanned-out request begins only when every primary has a slot, so that its parts go out together.
    fn send_to_all(&mut self, now: u64) -> bool {
        let mut sent = false;
        while !self.backlog.is_empty() {
            let mut slot_free = 0;
            for node in self.nodes.iter_mut().take(self.primaries) {
                if !node.has_free(&self.links) {
                    return sent;
                }
                slot_free = slot_free.max(node.free.front().map_or(now, |slot| slot.since));
            }
            let Some(waiting) = self.backlog.pop_front() else { return sent };
            let key = self.open_request(waiting, slot_free, now);
            for node in 0..u16::try_from(self.primaries).unwrap_or(u16::MAX) {
                self.write(key, node, false, now);
            }
            sent = true;
        }
        sent
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
        self.recorder.slip(now, now.saturating_sub(waiting.due.unwrap_or(0).max(slot_free)));
        key
    }

    fn send_again(&mut self, again: Again, node: u16, now: u64) {
        // A request that ended meanwhile and that nothing is owed to was forgotten; its place may hold another.
        let Some(request) = self.open.get(again.key).filter(|r| r.serial == again.serial) else { return };
        let (window, operation) = (request.window, self.requests.part(request.operation));
        if again.repair {
            self.recorder.cell(now, window, operation, Place::Node(node)).repair += 1;
        }
        self.write(again.key, node, again.asking, now);
    }

    /// Puts one attempt into a free slot of a node; the caller made sure there is one.
    fn write(&mut self, key: usize, node: u16, asking: bool, now: u64) {
        let Some(slot) = self.nodes.get_mut(usize::from(node)).and_then(|n| n.free.pop_front()) else {
            return;
        };
        let Some(request) = self.open.get_mut(key) else { return };
        let Some(link) = self.links.get_mut(slot.link) else { return };
        let before = link.out.len();
        if asking {
            vst_common::resp::push_args(&mut link.out, &[b"ASKING"]);
            link.owed.push_back(Owed::Ignored);
        }
        match request.item {
            Item::Numbered { n } => {
                self.requests.encode(n, request.query, node, &mut self.scratch, &mut link.out);
            }
            Item::Row { block, position } => {
                let cell = self.blocks.cell(block, position);
                self.requests.key(cell, &mut self.key);
                let vectors = self.blocks.vectors(block);
                self.requests.encode_row(cell, &self.key, vectors, position, &mut link.out);
            }
        }
        link.owed.push_back(Owed::Request(key));
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(slot.link);
        }
        let bytes = count::len(link.out.len() - before);
        let fans_out = self.requests.fans_out(request.operation);
        let first = request.attempts == 0 || fans_out;
        request.parts.push(node);
        request.attempts += 1;
        let (window, operation) = (request.window, self.requests.part(request.operation));
        let cell = self.recorder.cell(now, window, operation, Place::Node(node));
        cell.bytes_out += bytes;
        if first {
            cell.sent += 1;
        }
        if fans_out {
            cell.due += 1;
        }
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
        [due, deadline, later, end].into_iter().flatten().min()
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
            return self.stop.is_some_and(|stop| self.start.is_none() && now >= stop);
        }
        let stopped = self.stop.is_some_and(|stop| now >= stop);
        let nothing_new = stopped
            || if self.leased {
                self.blocks.complete && !self.blocks.has_next() && self.blocks.is_empty()
            } else {
                self.is_exhausted()
            };
        nothing_new && self.active == 0 && self.open.is_empty()
    }

    /// Requests in flight and requests that wait for a slot.
    pub(crate) fn load(&self) -> (u64, u64) {
        let waiting =
            self.backlog.len() + self.nodes.iter().map(|n| n.backlog.len() + n.again.len()).sum::<usize>();
        (count::len(self.open.len()), count::len(waiting))
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
        self.events.push(LaneEvent::Happened { kind, node, detail });
    }
}

/// A lane's part of a total over the fleet, at least one.
fn split(total: u32, lane: u32, lanes: u32) -> usize {
    let lanes = lanes.max(1);
    let extra = u32::from(lane % lanes < total % lanes);
    usize::try_from(total / lanes + extra).unwrap_or(1).max(1)
}
