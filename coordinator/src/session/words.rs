//! The run's words as messages of the contract, and workers' messages as the run understands them.

use vst_common::clock::MonoNs;
use vst_common::entry::Totals;
use vst_common::ids::{Generation, PhaseIndex, RunId, WorkerId};
use vst_common::phase::SearchPlan;
use vst_common::ranges::RowRange;
use vst_proto::fleet;
use vst_proto::fleet::coordinator_message::Message as ToWorker;
use vst_proto::fleet::worker_message::Message as FromWorker;

use crate::roster::{Arrival, Before, Stage};
use crate::run::{Said, Statement, Tell};
use crate::target::{Role, TargetNode, index_of};

/// Of what a worker says in words so much is kept.
const LONGEST_TEXT_BYTES: usize = 1024;

/// What messages say that the run itself does not need to know.
#[derive(Clone, Debug)]
pub struct Words {
    /// The run.
    pub run: RunId,
    /// URL of the target, without password.
    pub target: String,
    /// How long a worker may send load without hearing from the coordinator, nanoseconds.
    pub lease_ns: u64,
    /// Time between two heartbeats, nanoseconds.
    pub heartbeat_ns: u64,
    /// Time between two samples of a node, nanoseconds.
    pub sample_interval_ns: u64,
    /// Time between two questions for the size classes of a node, nanoseconds.
    pub size_classes_ns: u64,
    /// The target's nodes.
    pub nodes: Vec<fleet::Node>,
    /// The index that each node has once it is created.
    pub indexes: Vec<String>,
}

impl Words {
    /// A message.
    ///
    /// # Errors
    /// When an order cannot be written as JSON, which is a bug.
    pub(super) fn message(&self, generation: Generation, tell: &Tell) -> Result<ToWorker, serde_json::Error> {
        Ok(match tell {
            Tell::Welcome => ToWorker::Welcome(self.welcome(generation, false)),
            Tell::Resumed => ToWorker::Welcome(self.welcome(generation, true)),
            Tell::Heard { worker_mono, at } => ToWorker::HeartbeatReply(fleet::HeartbeatReply {
                worker_mono_ns: *worker_mono,
                coordinator_mono_ns: *at,
            }),
            Tell::Arm { order, first_lane, lanes } => ToWorker::Arm(fleet::Arm {
                order_json: serde_json::to_string(order.as_ref())?,
                phase: order.index.0,
                first_lane: *first_lane,
                lanes: *lanes,
            }),
            Tell::Start { phase, at, at_wall } => ToWorker::Start(fleet::Start {
                phase: phase.0,
                at_coordinator_mono_ns: *at,
                at_wall_ns: *at_wall,
            }),
            Tell::Lease { phase, ranges, exhausted } => ToWorker::Lease(fleet::Lease {
                phase: phase.0,
                ranges: ranges.iter().map(|r| fleet::RowRange { start: r.start, end: r.end }).collect(),
                exhausted: *exhausted,
            }),
            Tell::GiveBack { phase, range } => ToWorker::GiveBack(fleet::GiveBack {
                phase: phase.0,
                range: Some(fleet::RowRange { start: range.start, end: range.end }),
            }),
            Tell::TakeOver { phase, from_ns, lanes } => ToWorker::TakeOver(fleet::TakeOver {
                phase: phase.0,
                from_ns: *from_ns,
                lanes: lanes
                    .iter()
                    .map(|(lane, shares)| fleet::LaneShares { lane: *lane, shares: shares.clone().into() })
                    .collect(),
            }),
            Tell::Drain(phase) => ToWorker::Drain(fleet::Drain { phase: phase.0 }),
            Tell::Observe { phase, name, nodes, indexed } => {
                ToWorker::Observe(self.observe(*phase, name, nodes, *indexed))
            }
            Tell::Close(reason) => ToWorker::Close(fleet::Close { reason: reason.clone() }),
        })
    }

    /// Takes in what each node is now. A node that is gone stays: that it does not answer is to be seen. One that is new is
    /// not sampled, because there is no baseline of it.
    pub(super) fn learn(&mut self, now: &[TargetNode], search: Option<&SearchPlan>) {
        for (node, index) in self.nodes.iter_mut().zip(&mut self.indexes) {
            let Some(found) = now.iter().find(|found| found.id.as_str() == node.id) else { continue };
            node.address = found.address();
            node.role = String::from(role_name(&found.role));
            if let Some(name) = search.and_then(|plan| index_of(plan, found)) {
                *index = name;
            }
        }
    }

    fn welcome(&self, generation: Generation, resumed: bool) -> fleet::Welcome {
        fleet::Welcome {
            run: self.run.as_str().to_owned(),
            generation: generation.0,
            lease_ns: self.lease_ns,
            target: self.target.clone(),
            heartbeat_ns: self.heartbeat_ns,
            resumed,
        }
    }

    fn observe(&self, phase: PhaseIndex, name: &str, nodes: &[usize], indexed: bool) -> fleet::Observe {
        let index = |at: &usize| if indexed { self.indexes.get(*at).cloned() } else { None };
        fleet::Observe {
            nodes: nodes.iter().filter_map(|at| self.nodes.get(*at).cloned()).collect(),
            interval_ns: self.sample_interval_ns,
            size_classes_ns: self.size_classes_ns,
            phase: phase.0,
            phase_name: name.to_owned(),
            indexes: nodes.iter().map(|at| index(at).unwrap_or_default()).collect(),
        }
    }
}

/// How a role is written in orders and tables.
pub(crate) fn role_name(role: &Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Replica { .. } => "replica",
    }
}

/// What a message says to the run; `None` for what says nothing to it. `now` is when it came, `from` is from where.
pub(super) fn said(message: FromWorker, now: MonoNs, from: &str, run: &RunId) -> Option<Said> {
    Some(match message {
        FromWorker::Hello(hello) => Said::Hello(Box::new(Arrival {
            worker: WorkerId::new(short(hello.worker)),
            version: short(hello.version),
            token: hello.token,
            host: short(hello.host),
            cores: hello.cores,
            memory_bytes: hello.memory_bytes,
            lanes: hello.lanes,
            address: from.to_owned(),
            http: short(hello.http),
            instance: hello.instance,
            before: hello.before.filter(|before| before.run == run.as_str()).map(before_of),
        })),
        FromWorker::Heartbeat(beat) => Said::Heartbeat { worker_mono: beat.mono_ns, at: now },
        FromWorker::Armed(armed) => Said::Armed(PhaseIndex(armed.phase)),
        FromWorker::LeaseRequest(request) => {
            Said::LeaseRequest { phase: PhaseIndex(request.phase), ranges: request.ranges }
        }
        FromWorker::RangeDone(done) => {
            let range = done.range?;
            Said::RangeDone {
                phase: PhaseIndex(done.phase),
                range: range_of(&range),
                ok: done.ok,
                failed: done.failed,
                first_error: short(done.first_error),
            }
        }
        FromWorker::PhaseDone(done) => Said::PhaseDone(statement_of(&done)),
        FromWorker::Fault(fault) => {
            Said::Fault { phase: PhaseIndex(fault.phase), reason: short(fault.reason), target: fault.target }
        }
        FromWorker::Goodbye(goodbye) => Said::Goodbye(short(goodbye.reason)),
        FromWorker::Progress(_) => return None,
    })
}

/// What others say is kept and shown: not more of it than somebody reads.
fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_TEXT_BYTES));
    text
}

fn range_of(range: &fleet::RowRange) -> RowRange {
    RowRange { start: range.start, end: range.end }
}

fn statement_of(done: &fleet::PhaseDone) -> Statement {
    Statement {
        phase: PhaseIndex(done.phase),
        last_sequence: done.last_sequence,
        dropped: done.dropped,
        totals: Totals {
            due: done.due,
            sent: done.sent,
            ok: done.ok,
            errors: done.errors,
            timeout: done.timeout,
            lost: done.lost,
            unsent: done.unsent,
        },
    }
}

fn before_of(before: fleet::Registration) -> Before {
    let phase = |state: &fleet::PhaseState| {
        let stage = match state.stage() {
            fleet::Stage::None => return None,
            fleet::Stage::Preparing => Stage::Preparing,
            fleet::Stage::Armed => Stage::Armed,
            fleet::Stage::Running => Stage::Running,
        };
        Some((PhaseIndex(state.phase), stage))
    };
    Before {
        generation: Generation(before.generation),
        phases: before.phases.iter().filter_map(phase).collect(),
        held: before.held.iter().map(range_of).collect(),
        ended: before.ended.iter().map(statement_of).collect(),
    }
}
