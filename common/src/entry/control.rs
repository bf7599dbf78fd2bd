//! What the run log says about the course of a run, next to the batches.
//!
//! Appended by the coordinator before it acts on them, read by analysis (bounds of phases, load offered, what was
//! alive) and by a coordinator that takes over. Law: a fold over the controls in log order gives the state of the run.

use serde::{Deserialize, Serialize};

use crate::clock::{MonoNs, WallNs};
use crate::ids::{Generation, PhaseIndex, RunId, Sequence, WorkerId};
use crate::live_set::LiveSet;
use crate::phase::PhaseOrder;
use crate::ranges::RowRange;
use crate::scenario::Load;

/// One fact about the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "a run has thousands, of which few exist at once")]
pub enum Control {
    /// A coordinator leads from this entry on; always the first control of its first entry.
    Led {
        /// The run that this log belongs to.
        run: RunId,
        /// Grows by one with each leader.
        epoch: u64,
        /// Names the process; no two processes share one.
        leader: String,
    },
    /// The run exists; said once.
    RunOpened {
        /// When.
        at_wall_ns: WallNs,
        /// What `run.json` holds: scenario and its hash, seed, versions, server configuration.
        facts: serde_json::Value,
    },
    /// A worker registered.
    WorkerJoined {
        /// Its name.
        worker: WorkerId,
        /// This registration.
        generation: Generation,
        /// Where it runs.
        host: String,
        /// Load lanes it offers.
        lanes: u32,
        /// When.
        at_wall_ns: WallNs,
        /// Drawn when its process started: only that process may go on under this registration.
        #[serde(default)]
        instance: u64,
    },
    /// A worker's registration ended.
    WorkerLeft {
        /// Its name.
        worker: WorkerId,
        /// The registration that ended.
        generation: Generation,
        /// Whether it went before its work was over.
        lost: bool,
        /// Why, for people.
        reason: String,
        /// When.
        at_wall_ns: WallNs,
    },
    /// A phase began.
    PhaseStarted(PhaseStarted),
    /// The server's counters before the first request of a phase, for whoever reads them after the last.
    CommandsCounted {
        /// The phase.
        phase: PhaseIndex,
        /// As the coordinator read them, on every node.
        counters: serde_json::Value,
    },
    /// Who takes part in a phase of load from an instant on: which part of an open phase's schedule each sends. Replaces
    /// the deal before.
    SharesOwned {
        /// The phase.
        phase: PhaseIndex,
        /// From this long after the start instant on, nanoseconds.
        from_ns: u64,
        /// Owners; lanes that nobody owns are missing.
        lanes: Vec<LaneOwner>,
        /// Lanes over the whole fleet.
        total: u32,
    },
    /// What departed workers would send of an open phase's schedule belongs from an instant on to these, share by share
    /// in turn over their lanes.
    SharesMoved {
        /// The phase.
        phase: PhaseIndex,
        /// From this long after the start instant on, nanoseconds.
        from_ns: u64,
        /// The heirs, in the order of the deal.
        lanes: Vec<LaneOwner>,
    },
    /// All rows of a leased range have ended.
    RangeDone {
        /// The phase.
        phase: PhaseIndex,
        /// The rows (or positions in the live set's order).
        range: RowRange,
        /// Who did them.
        worker: WorkerId,
        /// In which registration.
        generation: Generation,
        /// Rows that ended well.
        ok: u64,
        /// Rows that ended with an error.
        failed: u64,
    },
    /// What is alive on the target from now on.
    PopulationChanged {
        /// The phase that changed it.
        phase: PhaseIndex,
        /// The population.
        live: LiveSet,
    },
    /// A target at rest was weighed against a bound of its memory; it counts when the phase has ended.
    PopulationDecided {
        /// The phase that weighed.
        phase: PhaseIndex,
        /// `used_memory` over all nodes, bytes.
        used_bytes: u64,
        /// Rows that the next phase leaves alive; `None` where the target is under its bound.
        keep_rows: Option<u64>,
    },
    /// A worker's statement at the end of a phase. A stream without one is open-ended.
    StreamEnded {
        /// Who.
        worker: WorkerId,
        /// In which registration.
        generation: Generation,
        /// The phase.
        phase: PhaseIndex,
        /// The last sequence that it will ever deliver for the phase, over all tables; 0 when it delivered none.
        last_sequence: Sequence,
        /// What its batches of the phase add up to.
        totals: Totals,
    },
    /// A phase is over.
    PhaseEnded(PhaseEnded),
    /// The run is over; nothing but compaction follows.
    RunClosed {
        /// How.
        state: RunState,
        /// What the coordinator's exit code was to be, by what it knew; analysis may judge worse.
        exit_code: u8,
        /// When.
        at_wall_ns: WallNs,
    },
}

/// The beginning of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseStarted {
    /// Position in the run.
    pub index: PhaseIndex,
    /// Unique name.
    pub name: String,
    /// What happens: `baseline`, or the word of the scenario's step.
    pub step: String,
    /// The start instant, wall clock: the beginning of interval 0.
    pub start_wall_ns: WallNs,
    /// The same instant on the coordinator's monotonic clock.
    pub start_mono_ns: MonoNs,
    /// What workers were ordered; `None` where no load is driven.
    pub order: Option<PhaseOrder>,
    /// The phase that it runs beside; `None` where it is one of the sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<PhaseIndex>,
}

impl PhaseStarted {
    /// The load offered; `None` where none is.
    #[must_use]
    pub fn load(&self) -> Option<&Load> {
        self.order.as_ref().map(|order| &order.load)
    }

    /// Length of the unmeasured beginning, nanoseconds.
    #[must_use]
    pub fn warm_up_ns(&self) -> u64 {
        self.order.as_ref().map_or(0, |order| order.warm_up_ns)
    }

    /// Length of the measured part, nanoseconds; 0 where the work itself ends the phase.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.order.as_ref().map_or(0, |order| order.duration_ns)
    }
}

/// The end of a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseEnded {
    /// Position in the run.
    pub index: PhaseIndex,
    /// When everything had ended, the drain included.
    pub end_wall_ns: WallNs,
    /// How it went.
    pub outcome: PhaseOutcome,
    /// Requests over all workers, from their statements.
    pub totals: Totals,
    /// Requests that the schedule holds until the phase ended or was cut short, warm-up included, whoever was there
    /// to send them; `None` where the work itself is the load.
    #[serde(default)]
    pub scheduled: Option<u64>,
    /// Of those, how many fell due while no worker owned them, by arithmetic.
    #[serde(default)]
    pub unowned: u64,
    /// Rows alive on the target afterwards.
    pub live: u64,
    /// What the run is to exit with, where it ends with this phase.
    #[serde(default)]
    pub exit_code: u8,
}

/// How a phase went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseOutcome {
    /// It did what it was to do.
    Completed,
    /// It was cut short; what there is was kept.
    Interrupted,
    /// It could not do what it was to do.
    Failed {
        /// Why, with the fix where one is known.
        reason: String,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// All phases are over.
    Finished,
    /// Stopped by a person or a signal.
    Interrupted,
    /// It could not go on.
    Failed {
        /// Why, with the fix where one is known.
        reason: String,
    },
}

/// Lanes of one worker within the deal of an open phase's shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneOwner {
    /// Who.
    pub worker: WorkerId,
    /// In which registration.
    pub generation: Generation,
    /// Its first lane.
    pub first_lane: u32,
    /// How many follow each other from there.
    pub lanes: u32,
}

/// Requests of a phase, each counted in exactly one of the ways to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Fell due (open loop) or were taken up (closed loop).
    pub due: u64,
    /// First attempts written.
    pub sent: u64,
    /// Ended well.
    pub ok: u64,
    /// Answered with an error.
    pub errors: u64,
    /// Not answered in time.
    pub timeout: u64,
    /// Connection ended first.
    pub lost: u64,
    /// Never sent.
    pub unsent: u64,
}

impl Totals {
    /// Adds another worker's requests.
    pub fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.sent += other.sent;
        self.ok += other.ok;
        self.errors += other.errors;
        self.timeout += other.timeout;
        self.lost += other.lost;
        self.unsent += other.unsent;
    }
}
