//! How measurements leave this worker: as numbered Arrow batches that are kept until the coordinator holds them.
//!
//! Fed by `serve` with what lanes and the sampler measured; gives Arrow Flight streams, one per table. About once a
//! second what is complete becomes a batch. A stream that breaks costs nothing: what it carried without an
//! acknowledgement goes out again on the next one, under the same numbers.

mod core;
mod flight;
mod rows;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::Channel;
use vst_common::batch::allocator::AllocatorRow;
use vst_common::batch::memory::MemoryRow;
use vst_common::batch::{DELIVERY_BYTES, Stamp, Table};
use vst_common::clock::{ClockOffset, MonoNs, SECOND_NS, mono_ns, wall_ns};
use vst_common::ids::{Generation, NodeId, PhaseIndex, RunId, Sequence, WorkerId};
use vst_common::latency::{Cell, Window};
use vst_common::recall::RecallCell;

use crate::work::{CellKey, LaneHealth, Pair};
use core::{Bounds, UplinkCore};
pub use rows::PhaseLabel;
use rows::{Events, Intervals, TableRows};
use stream::{Happened, Stream};

/// Batches that wait for their acknowledgement may take this much memory.
const BOUNDS: Bounds =
    Bounds { held_bytes: 256 << 20, in_flight_bytes: 16 << 20, batch_bytes: DELIVERY_BYTES };
/// An event that tells of a loss may displace a batch itself; it is told this many times at most.
const LOSSES_TOLD: u32 = 3;
/// Time between two batches of a table, nanoseconds.
const CUT_NS: u64 = SECOND_NS;
const TICK: Duration = Duration::from_millis(50);
/// First pause before a broken stream is opened again, nanoseconds; doubles up to the largest.
const RETRY_NS: u64 = SECOND_NS / 10;
const RETRY_MAX_NS: u64 = 2 * SECOND_NS;

/// What the uplink is told.
#[derive(Debug)]
pub enum Order {
    /// Deliver this way from now on.
    Call(Channel),
    /// Batches are numbered anew under this registration.
    Register {
        /// The run.
        run: RunId,
        /// The registration.
        generation: Generation,
    },
    /// The intervals of a phase have names.
    Label(PhaseLabel),
    /// What a lane measured.
    Record {
        /// Which lane of this worker.
        lane: u32,
        /// The phase.
        phase: PhaseIndex,
        /// Latency and counters.
        cells: Vec<(CellKey, Cell)>,
        /// Recall by interval and window.
        recall: Vec<(u64, Window, RecallCell)>,
        /// Self-metering.
        health: Vec<LaneHealth>,
    },
    /// Recall by query.
    RecordQueries {
        /// The phase.
        phase: PhaseIndex,
        /// (query, verdicts summed).
        per_query: Vec<(Pair, RecallCell)>,
    },
    /// Something for people.
    Event {
        /// Position and name of the phase, if there is one.
        phase: Option<(PhaseIndex, String)>,
        /// Kind of event.
        kind: &'static str,
        /// Where.
        node: Option<NodeId>,
        /// Details.
        detail: String,
        /// How many of the same.
        count: u64,
    },
    /// What the sampler read.
    Memory(Vec<MemoryRow>),
    /// Size classes that the sampler read.
    Allocator(Vec<AllocatorRow>),
    /// The coordinator's clock as seen from here.
    Offset(ClockOffset),
    /// Number everything taken in so far and report the last sequence.
    Flush {
        /// Returned in [`Report::Flushed`].
        ticket: u64,
        /// The phase that is over.
        phase: PhaseIndex,
    },
    /// Deliver what there is, report and end.
    Deliver,
}

/// What the uplink says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Everything before the flush has a sequence number.
    Flushed {
        /// That of the order.
        ticket: u64,
        /// The last number given out.
        last_sequence: u64,
        /// Batches given up since the flush before.
        dropped: u64,
    },
    /// Nothing more will be delivered.
    Delivered {
        /// Batches that nobody took.
        left: u64,
    },
}

/// The way to a running uplink. Dropping it ends the uplink.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: UnboundedSender<Order>,
    unacknowledged: Arc<AtomicU64>,
}

impl Handle {
    /// Gives an order; an uplink that has ended takes none.
    pub fn send(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Batches that the coordinator does not hold yet.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        self.unacknowledged.load(Ordering::Relaxed)
    }
}

/// Starts an uplink; it delivers as soon as it is told where to.
#[must_use]
pub fn spawn(worker: WorkerId, token: Option<String>, reports: UnboundedSender<Report>) -> Handle {
    let (orders, receiver) = unbounded_channel();
    let unacknowledged = Arc::new(AtomicU64::new(0));
    let uplink = Uplink {
        worker,
        channel: None,
        token,
        reports,
        unacknowledged: Arc::clone(&unacknowledged),
        core: None,
        phases: BTreeMap::new(),
        events: Events::default(),
        memory: Vec::new(),
        allocator: Vec::new(),
        clock: ClockOffset { offset_ns: 0, error_ns: 0 },
        streams: BTreeMap::new(),
        retry: BTreeMap::new(),
        next_cut: mono_ns(),
        closing: false,
    };
    tokio::spawn(uplink.run(receiver));
    Handle { orders, unacknowledged }
}

/// When a table's stream may be opened again.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: MonoNs,
    pause_ns: u64,
}

struct Uplink {
    worker: WorkerId,
    channel: Option<Channel>,
    token: Option<String>,
    reports: UnboundedSender<Report>,
    unacknowledged: Arc<AtomicU64>,
    core: Option<UplinkCore>,
    phases: BTreeMap<PhaseIndex, Intervals>,
    events: Events,
    memory: Vec<MemoryRow>,
    allocator: Vec<AllocatorRow>,
    clock: ClockOffset,
    streams: BTreeMap<Table, Stream>,
    retry: BTreeMap<Table, Retry>,
    next_cut: MonoNs,
    closing: bool,
}

impl Uplink {
    async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        let (told, mut happened) = unbounded_channel();
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some((table, stream, event)) = happened.recv() => self.happened(table, stream, event),
                _ = ticker.tick() => {
                    if mono_ns() >= self.next_cut {
                        self.next_cut = mono_ns().saturating_add(CUT_NS);
                        self.cut(false);
                    }
                }
            }
            self.pump(&told);
            let left = self.core.as_ref().map_or(0, UplinkCore::unacknowledged);
            self.unacknowledged.store(left, Ordering::Relaxed);
            if self.closing && left == 0 {
                let _ = self.reports.send(Report::Delivered { left });
                return;
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Call(channel) => {
                self.channel = Some(channel);
                self.retry.clear();
                for table in std::mem::take(&mut self.streams).into_keys() {
                    if let Some(core) = &mut self.core {
                        core.broken(table);
                    }
                }
            }
            Order::Register { run, generation } => {
                // What was measured under the last registration belongs to it.
                self.cut(true);
                self.phases.clear();
                let stamp = Stamp { run, worker: self.worker.clone(), generation, sequence: Sequence(0) };
                self.core.get_or_insert_with(|| UplinkCore::new(BOUNDS, stamp)).register(generation);
            }
            Order::Label(label) => {
                self.phases.insert(label.phase, Intervals::new(label));
            }
            Order::Record { lane, phase, cells, recall, health } => {
                let unacknowledged = self.unacknowledged.load(Ordering::Relaxed);
                if let Some(intervals) = self.phases.get_mut(&phase) {
                    intervals.record(lane, cells, recall, health, self.clock, unacknowledged);
                }
            }
            Order::RecordQueries { phase, per_query } => {
                if let Some(intervals) = self.phases.get_mut(&phase) {
                    intervals.record_queries(per_query);
                }
            }
            Order::Event { phase, kind, node, detail, count } => {
                self.events.add(wall_ns(), phase, kind, node, detail, count)
            }
            Order::Memory(rows) => self.memory.extend(rows),
            Order::Allocator(rows) => self.allocator.extend(rows),
            Order::Offset(clock) => self.clock = clock,
            Order::Flush { ticket, phase } => {
                self.cut(true);
                self.phases.remove(&phase);
                let last_sequence = self.core.as_ref().map_or(0, UplinkCore::last_sequence);
                let dropped = self.core.as_mut().map_or(0, UplinkCore::take_dropped);
                let _ = self.reports.send(Report::Flushed { ticket, last_sequence, dropped });
            }
            Order::Deliver => {
                self.cut(true);
                self.closing = true;
            }
        }
    }

    /// Makes batches of what is complete, or of everything.
    fn cut(&mut self, all: bool) {
        let Some(core) = &mut self.core else { return };
        let mut rows = Vec::new();
        for intervals in self.phases.values_mut() {
            rows.extend(if all { intervals.take_all() } else { intervals.take_complete() });
        }
        rows.push(TableRows::Memory(std::mem::take(&mut self.memory)));
        rows.push(TableRows::Allocator(std::mem::take(&mut self.allocator)));
        rows.push(self.events.take());
        seal(core, rows, &mut self.events);
        // What is given up while this is sealed is said with it: there may be no next time.
        for _ in 0..LOSSES_TOLD {
            let loss = core.take_loss();
            if loss.batches > 0 {
                let detail = format!("{} rows in {} batches were given up", loss.rows, loss.batches);
                tracing::warn!("measurements are lost: {detail}");
                self.events.add(wall_ns(), None, "undelivered", None, detail, 1);
            }
            let told = self.events.take();
            if told.is_empty() {
                return;
            }
            seal(core, vec![told], &mut self.events);
        }
    }

    /// Puts on the streams what they take.
    fn pump(&mut self, told: &UnboundedSender<(Table, u64, Happened)>) {
        let (Some(core), Some(channel)) = (&mut self.core, &self.channel) else { return };
        let now = mono_ns();
        for table in core.waiting() {
            if !self.streams.contains_key(&table) {
                if self.retry.get(&table).is_some_and(|retry| now < retry.at) {
                    continue;
                }
                let stream = Stream::open(table, channel.clone(), self.token.as_deref(), told.clone());
                stream.send(flight::schema_message(table));
                self.streams.insert(table, stream);
            }
            let Some(stream) = self.streams.get(&table) else { continue };
            while let Some(batch) = core.next(table) {
                match flight::batch_message(&batch) {
                    Ok(message) => stream.send(message),
                    Err(error) => tracing::error!(%table, "batch could not be encoded: {error}"),
                }
            }
        }
    }

    fn happened(&mut self, table: Table, stream: u64, event: Happened) {
        if self.streams.get(&table).is_none_or(|own| own.id() != stream) {
            return;
        }
        let Some(core) = &mut self.core else { return };
        match event {
            Happened::Acknowledged(ack) => {
                self.retry.remove(&table);
                for batch in core.acknowledged(table, Generation(ack.generation), ack.sequence) {
                    tracing::debug!(
                        target: "vst::ack",
                        "acknowledged worker={} generation={} sequence={} table={}",
                        batch.stamp.worker,
                        batch.stamp.generation,
                        batch.stamp.sequence.0,
                        batch.table,
                    );
                }
            }
            Happened::Broken { reason, nobody_there, refused } => {
                self.streams.remove(&table);
                if let Some((generation, sequence)) = refused {
                    tracing::error!(%table, "batch {generation}/{sequence} is given up: {reason}");
                    core.refused(table, generation, sequence);
                }
                core.broken(table);
                tracing::info!(%table, "delivery stream ended, it is opened again: {reason}");
                if self.closing && nobody_there {
                    // The coordinator is gone for good: it closed the run before its end of the connection.
                    let left = core.unacknowledged();
                    let _ = self.reports.send(Report::Delivered { left });
                }
                let pause_ns =
                    self.retry.get(&table).map_or(RETRY_NS, |r| (2 * r.pause_ns).min(RETRY_MAX_NS));
                self.retry.insert(table, Retry { at: mono_ns().saturating_add(pause_ns), pause_ns });
            }
        }
    }
}

/// Numbers rows and holds them; what cannot be written becomes an event.
fn seal(core: &mut UplinkCore, rows: Vec<TableRows>, events: &mut Events) {
    for part in rows.into_iter().flat_map(TableRows::parts) {
        if let Err(error) = core.seal(&part) {
            let detail = format!("rows of table {} could not be written: {error}", part.table());
            tracing::error!("{detail}");
            events.add(wall_ns(), None, "undelivered", None, detail, 1);
        }
    }
}
