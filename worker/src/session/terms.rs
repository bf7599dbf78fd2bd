//! What a session hears and what it wants done.
//!
//! The words between `serve`, which has the sockets and threads, and the core, which has none.

use std::sync::Arc;

use vst_common::clock::{ClockOffset, MonoNs, WallNs};
use vst_common::ids::{Generation, NodeId, PhaseIndex, RunId};
use vst_common::latency::Window;
use vst_common::phase::PhaseOrder;
use vst_common::ranges::RowRange;
use vst_common::recall::RecallCell;
use vst_proto::fleet;
use vst_proto::fleet::coordinator_message::Message as FromCoordinator;
use vst_proto::fleet::worker_message::Message as ToCoordinator;

use crate::fetch::verify::{Doubted, Verified};
use crate::work::{ArmedPhase, CellKey, LaneCommand, LaneEvent, LaneHealth, Pair, RowBlock};

/// What can happen to a session.
#[derive(Debug)]
pub enum Event {
    /// Time has passed.
    Tick {
        /// Batches that the coordinator does not hold yet.
        unacknowledged: u64,
    },
    /// A stream to the coordinator is open.
    Connected,
    /// The stream ended or could not be opened.
    Disconnected,
    /// The coordinator will never let this worker in.
    Refused {
        /// Its reason.
        reason: String,
    },
    /// The coordinator speaks.
    Received(FromCoordinator),
    /// A lane of the present generation speaks.
    Lane {
        /// Which lane of this worker.
        lane: u32,
        /// What it says.
        event: LaneEvent,
    },
    /// [`Action::Prepare`] has ended.
    Prepared {
        /// The ticket of the action.
        ticket: u64,
        /// The phase, ready for the lanes, or why not.
        outcome: Result<Arc<ArmedPhase>, NotReady>,
    },
    /// [`Action::Fetch`] has ended.
    Fetched {
        /// The ticket of the action.
        ticket: u64,
        /// The leased range.
        range: RowRange,
        /// Its rows in blocks, or why they could not be read. Block ids are assigned by the session.
        outcome: Result<Vec<RowBlock>, String>,
    },
    /// [`Action::Verify`] has ended.
    Verified {
        /// The ticket of the action.
        ticket: u64,
        /// What was found, or why it is not known.
        outcome: Result<Verified, String>,
    },
    /// A request to the store of the vectors failed and was repeated.
    ReadFault {
        /// The request, and why.
        detail: String,
    },
    /// [`Action::Flush`] has ended.
    Flushed {
        /// The ticket of the action.
        ticket: u64,
        /// Last sequence given out so far.
        last_sequence: u64,
        /// Batches given up since the flush before.
        dropped: u64,
    },
    /// [`Action::Deliver`] has ended: everything is acknowledged, or nobody is there to take it.
    Delivered,
    /// The process was asked to end.
    Stop,
}

/// Why a phase could not be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// In words, with the fix where one is known.
    pub reason: String,
    /// Whether the target is what does not do its part.
    pub target: bool,
}

/// What a session wants done.
#[derive(Debug)]
pub enum Action {
    /// Put a message on the stream; dropped where there is none.
    Send(ToCoordinator),
    /// Leave the stream: the coordinator at its other end says nothing.
    HangUp,
    /// A registration begins: end the lanes there are, start new ones under its name, deliver under its name.
    Register {
        /// The run.
        run: RunId,
        /// The registration.
        generation: Generation,
        /// URL of the target, without password.
        target: String,
    },
    /// End these lanes and start new ones: the old ones hold a phase that will never be.
    RestartLanes {
        /// The first of them.
        first: u32,
        /// How many follow each other from there.
        count: u32,
    },
    /// Give a lane a command; one that does not run yet is started when it is armed.
    Lane {
        /// Which lane of this worker.
        lane: u32,
        /// The command.
        command: LaneCommand,
    },
    /// Ask the target for its layout and build what the phase needs.
    Prepare {
        /// Returned in [`Event::Prepared`].
        ticket: u64,
        /// The phase.
        order: Box<PhaseOrder>,
    },
    /// Read the rows of a leased range.
    Fetch {
        /// Returned in [`Event::Fetched`]; that of the phase's [`Action::Prepare`].
        ticket: u64,
        /// The range.
        range: RowRange,
    },
    /// See whether rows that were acknowledged before a failover are still there.
    Verify {
        /// Returned in [`Event::Verified`]; that of the phase's [`Action::Prepare`].
        ticket: u64,
        /// Which rows.
        doubted: Doubted,
    },
    /// The schedule of a phase begins: what its intervals are called.
    Label {
        /// The phase.
        phase: PhaseIndex,
        /// Its name.
        name: String,
        /// Interval 0 on the wall clock.
        at_wall: WallNs,
        /// Interval 0 on the own clock.
        at: MonoNs,
        /// Length of an interval, nanoseconds.
        interval_ns: u64,
        /// Position of this worker's first lane in the deal of shares.
        first_lane: u32,
        /// How many lanes contribute.
        lanes: u32,
        /// Neighbours asked for; 0 where the phase asks for none.
        k: u32,
    },
    /// Take in measurements of a lane.
    Record {
        /// Which lane.
        lane: u32,
        /// The phase.
        phase: PhaseIndex,
        /// Latency and counters.
        cells: Vec<(CellKey, vst_common::latency::Cell)>,
        /// Recall by interval and window.
        recall: Vec<(u64, Window, RecallCell)>,
        /// Self-metering.
        health: Vec<LaneHealth>,
    },
    /// Take in recall by query of a lane that is done.
    RecordQueries {
        /// Which lane.
        lane: u32,
        /// The phase.
        phase: PhaseIndex,
        /// (query, verdicts summed).
        per_query: Vec<(Pair, RecallCell)>,
    },
    /// Take in an event for people.
    RecordEvent {
        /// Position and name of the phase that this worker has, if any.
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
    /// Give every measurement taken so far a sequence number and answer with the last one.
    Flush {
        /// Returned in [`Event::Flushed`].
        ticket: u64,
        /// The phase that is over.
        phase: PhaseIndex,
    },
    /// A better estimate of the coordinator's clock.
    Offset(ClockOffset),
    /// Sample these nodes from now on.
    Observe(fleet::Observe),
    /// Stop sampling, end the lanes, deliver what is left and say so.
    Deliver,
    /// The session is over.
    Leave(Departure),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The coordinator closed the run.
    Closed,
    /// The process was asked to end.
    Stopped,
    /// The coordinator did not come back (or never came).
    CoordinatorGone,
    /// The coordinator does not let this worker in.
    Refused {
        /// Its reason.
        reason: String,
    },
}
