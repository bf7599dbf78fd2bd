//! What passes between a worker's async side (session, fetch, uplink) and its load lanes.
//!
//! A lane is one operating-system thread; it takes [`LaneCommand`]s and gives [`LaneEvent`]s and shares nothing else
//! with anyone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vst_common::clock::{MonoNs, WallNs};
use vst_common::dataset::Rows;
pub use vst_common::entry::Totals;
use vst_common::ids::{NodeId, PhaseIndex};
use vst_common::latency::{Cell, Hdr, Window};
use vst_common::phase::PhaseOrder;
use vst_common::recall::{QueryJudge, RecallCell};
use vst_common::shares::ShareSet;

use crate::topology::{Layout, Topology};

/// A phase with everything a lane needs to begin it.
#[derive(Debug)]
pub struct ArmedPhase {
    /// The coordinator's order.
    pub order: PhaseOrder,
    /// Where the slots are.
    pub topology: Arc<Topology>,
    /// Queries and how to judge their answers; present for query work.
    pub queries: Option<Arc<QuerySet>>,
}

/// Row of a query in the data set, and the copy of the base that it is asked of.
pub type Pair = (u32, u32);

/// The queries of a phase, ready to send and to judge.
#[derive(Debug)]
pub struct QuerySet {
    /// Query vectors as the index takes them (FLOAT32, little endian), one blob each.
    pub blobs: Vec<Vec<u8>>,
    /// How to judge the answer to each.
    pub judges: Vec<QueryJudge>,
    /// Which query of the data set each is, and the copy that it is asked of.
    pub pairs: Vec<Pair>,
}

/// Blocks with this id and above hold rows that a failover lost, which are sent again.
pub const REPAIR_BLOCKS: u64 = 1 << 63;

/// Rows of one leased range (or a part of it) for a lane to write or delete.
#[derive(Debug, Default)]
pub struct RowBlock {
    /// Identifies the block in [`LaneEvent::BlockDone`].
    pub id: u64,
    /// Number of its first unit within the phase; the others follow it. Where all units are alike it does not matter.
    pub first: u64,
    /// (copy, row) of each row; of a unit that asks it says nothing.
    pub rows: Vec<(u32, u64)>,
    /// For `HSET`: the vectors, FLOAT32 little endian, `dims * 4` bytes each, in the order of `rows`, of those that are
    /// written. Empty for `DEL`.
    pub vectors: Vec<u8>,
    /// In place of them, the vectors as the data set has them: a lane widens each as it sends it, so that it crosses from
    /// thread to thread in the least bytes.
    pub stored: Option<Rows>,
}

impl RowBlock {
    /// The n-th vector, FLOAT32 little endian; `space` is where it is widened, if it has to be.
    pub(crate) fn vector<'a>(&'a self, n: usize, bytes: usize, space: &'a mut Vec<u8>) -> &'a [u8] {
        match &self.stored {
            Some(stored) => {
                space.resize(bytes, 0);
                stored.write_f32_le(n..n.saturating_add(1), space);
                space
            }
            None => self.vectors.get(n * bytes..(n + 1) * bytes).unwrap_or_default(),
        }
    }

    /// The same with every vector widened.
    #[must_use]
    pub fn widened(mut self) -> Self {
        if let Some(stored) = self.stored.take() {
            stored.to_f32_le(&mut self.vectors);
        }
        self
    }
}

/// What a lane is told.
#[derive(Debug)]
pub enum LaneCommand {
    /// Get ready: connect to every node, encode what can be encoded. Answered by [`LaneEvent::Armed`].
    Arm {
        /// The phase.
        phase: Arc<ArmedPhase>,
        /// Position of this lane in the deal of shares over the fleet.
        lane: u32,
        /// Until when it may send.
        lease: LoadLease,
    },
    /// Interval 0 and the schedule begin at this instant of the own clock.
    Start {
        /// Instant of the own monotonic clock.
        at: MonoNs,
        /// Its label.
        at_wall: WallNs,
    },
    /// From an instant after the start on, these shares of the schedule are this lane's too.
    TakeOver {
        /// After the start instant, nanoseconds.
        from_ns: u64,
        /// Which.
        shares: Box<ShareSet>,
    },
    /// Rows to write or delete (ingest, shrink).
    Rows(RowBlock),
    /// No more rows will come; the phase ends when those given are done.
    NoMoreRows,
    /// The lease ended: send nothing new until [`LaneCommand::Resume`].
    Fence,
    /// The lease is renewed.
    Resume,
    /// Send nothing new; end when what is in flight has ended or after the drain limit.
    Drain,
    /// The cluster's layout, asked for because a lane doubted its own.
    Layout(Arc<Layout>),
    /// End at once.
    Abort,
    /// Leave the thread.
    Leave,
}

/// Where a cell of measurements belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// Interval since the start instant, from 0.
    pub interval: u64,
    /// Warm-up or measured part.
    pub window: Window,
    /// Operation: `hset`, `del`, `knn`, `knn_part`, or the name of a command of the scenario.
    pub operation: Arc<str>,
    /// The server's command, as `INFO commandstats` spells it.
    pub command: Arc<str>,
    /// Node, or `*` for a request that goes to several.
    pub node: NodeId,
}

/// Self-metering of one lane over one interval.
#[derive(Clone, Debug, Default)]
pub struct LaneHealth {
    /// Interval since the start instant.
    pub interval: u64,
    /// The worker's own delays (sent minus the later of due and slot free).
    pub slip: Hdr,
    /// Time in which the lane was doing something, nanoseconds.
    pub busy_ns: u64,
    /// CPU time of the lane's thread, nanoseconds.
    pub cpu_ns: u64,
    /// Most requests in flight at once.
    pub in_flight_max: u64,
    /// Most requests that waited for a slot at once.
    pub backlog_max: u64,
}

/// Until when load may be sent, by the own clock. The session renews it, lanes look at it before they send: a lane
/// whose session does not run (the process was stopped, the async side is stuck) must not send either.
#[derive(Clone, Debug, Default)]
pub struct LoadLease(Arc<AtomicU64>);

impl LoadLease {
    /// A right that ends at `until`.
    #[must_use]
    pub fn new(until: MonoNs) -> Self {
        Self(Arc::new(AtomicU64::new(until)))
    }

    /// When it ends.
    #[must_use]
    pub fn until(&self) -> MonoNs {
        self.0.load(Ordering::Acquire)
    }

    /// It ends at `until`, unless it ended later already.
    pub fn renew(&self, until: MonoNs) {
        self.0.fetch_max(until, Ordering::AcqRel);
    }
}

/// What a lane gives.
#[derive(Debug)]
pub enum LaneEvent {
    /// Connected and ready.
    Armed {
        /// The phase.
        phase: PhaseIndex,
    },
    /// Intervals that are over.
    Measured {
        /// The phase.
        phase: PhaseIndex,
        /// Latency and counters.
        cells: Vec<(CellKey, Cell)>,
        /// Recall by interval and window.
        recall: Vec<(u64, Window, RecallCell)>,
        /// Self-metering.
        health: Vec<LaneHealth>,
        /// Totals since the start.
        totals: Totals,
        /// Requests in flight now.
        in_flight: u64,
        /// Requests waiting for a slot now.
        backlog: u64,
    },
    /// All rows of a block have ended.
    BlockDone {
        /// The block.
        id: u64,
        /// Rows written or deleted.
        ok: u64,
        /// Rows that ended with an error.
        failed: u64,
        /// The first error's text.
        first_error: Option<String>,
    },
    /// Something worth a row in `events`.
    Happened {
        /// Kind: `moved`, `connection_lost`, `reconnected`, ...
        kind: &'static str,
        /// Where.
        node: Option<NodeId>,
        /// Details for people.
        detail: String,
        /// How many of the same.
        count: u64,
    },
    /// Another node took over these slots: what the one before had acknowledged may be lost.
    TakenOver {
        /// Slots that a promoted node serves now.
        slots: BTreeSet<u16>,
    },
    /// What this lane knows of the cluster may be wrong: a connection is lost, or a node refuses its slots.
    LayoutWanted,
    /// Rows could not be written for too long: the lane takes up nothing new and will say [`LaneEvent::Done`].
    GaveUp {
        /// What they waited for, with the fix.
        reason: String,
    },
    /// The phase is over on this lane; everything measured was given before.
    Done {
        /// The phase.
        phase: PhaseIndex,
        /// Final totals.
        totals: Totals,
        /// Per query and copy, over the measured window: verdicts summed. Query work only.
        per_query: Vec<(Pair, RecallCell)>,
    },
    /// The lane cannot go on.
    Failed {
        /// Why, with the fix where one is known.
        reason: String,
        /// Whether the target is what does not do its part.
        target: bool,
    },
}
