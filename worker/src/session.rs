//! What this worker does next: the pure middle of its conversation with the coordinator.
//!
//! `serve` feeds it with what arrives (messages, lane events, finished preparations, time) and does what the returned
//! actions say. It reads no clock and owns no socket, so tests run the very code that production runs.
//! A worker that is asked to end hands back what it holds and says goodbye; the run goes on without it.
//! Laws: no two phases of the sequence run at once; without a valid lease nothing that causes load leaves here; each leased range is
//! handed back exactly once; `PhaseDone` follows only when every block that was dealt has ended.

mod clock;
mod phase;
mod progress;
mod ranges;
mod registration;
mod slots;
mod terms;
#[cfg(test)]
mod tests;
mod view;

use vst_common::clock::{MonoNs, SECOND_NS};
use vst_common::ids::{Generation, PhaseIndex, RunId};
use vst_common::phase::PhaseOrder;
use vst_common::ranges::RowRange;
use vst_proto::fleet;
use vst_proto::fleet::coordinator_message::Message as FromCoordinator;
use vst_proto::fleet::worker_message::Message as ToCoordinator;

use crate::work::{LaneCommand, LaneEvent, LoadLease};
use clock::Exchanges;
use phase::Phase;
use slots::Slots;
pub use terms::{Action, Departure, Event, NotReady};
pub use view::{BUCKETS_NS, Buckets, PhaseView, View};

/// A coordinator that says nothing for this long is left for another where there may be one, nanoseconds. Shorter than
/// the lease, so that the load goes on under the next one.
const SILENCE_NS: u64 = 5 * SECOND_NS;
/// Time for the last deliveries after the coordinator closed the run, nanoseconds.
const CLOSING_NS: u64 = 10 * SECOND_NS;

/// What a session is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the worker introduces itself.
    pub hello: fleet::Hello,
    /// Load lanes of this worker.
    pub lanes: u32,
    /// Give up when the coordinator has been away for this long, nanoseconds.
    pub give_up_ns: u64,
    /// Whether it waits without limit for its first registration.
    pub waits: bool,
    /// Whether another coordinator may lead when the one that was called says nothing.
    pub others: bool,
}

/// Whether there is somebody to talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// No stream since this instant.
    Away(MonoNs),
    /// Hello was sent; no registration since the first instant.
    Greeted { since: MonoNs, hello: MonoNs },
    /// Registered.
    Welcomed,
    /// The run is over; deliver until this instant.
    Closing { until: MonoNs, stopped: bool },
    /// Nothing more will happen.
    Over,
}

/// The right to send load, by the own clock.
#[derive(Clone, Debug)]
struct Lease {
    length_ns: u64,
    /// Shared with the lanes of this registration.
    right: LoadLease,
    fenced: bool,
}

/// The state of a worker's session.
#[derive(Debug)]
pub struct SessionCore {
    config: Config,
    link: Link,
    run: Option<RunId>,
    /// The registration of this worker, also while nobody is there to speak to.
    generation: Option<Generation>,
    /// The phase of the sequence that was ordered last, or that what was ordered last is beside.
    group: Option<PhaseIndex>,
    /// Its last statements: of a phase of the sequence, and of those beside it.
    statements: Vec<fleet::PhaseDone>,
    /// What there was to say while nobody was there.
    unsaid: Vec<ToCoordinator>,
    /// When the coordinator was last heard of.
    heard_at: MonoNs,
    lease: Lease,
    heartbeat_ns: u64,
    next_heartbeat: MonoNs,
    unacknowledged: u64,
    exchanges: Exchanges,
    phases: Slots,
    /// Asked to end: until when what runs may be ended in order.
    leaving: Option<MonoNs>,
    tickets: u64,
    blocks: u64,
}

impl SessionCore {
    /// A worker that is not connected yet.
    #[must_use]
    pub fn new(config: Config, now: MonoNs) -> Self {
        Self {
            phases: Slots::new(config.lanes),
            config,
            link: Link::Away(now),
            run: None,
            generation: None,
            group: None,
            statements: Vec::new(),
            unsaid: Vec::new(),
            heard_at: now,
            lease: Lease { length_ns: 0, right: LoadLease::new(now), fenced: true },
            heartbeat_ns: SECOND_NS,
            next_heartbeat: now,
            unacknowledged: 0,
            exchanges: Exchanges::default(),
            leaving: None,
            tickets: 0,
            blocks: 0,
        }
    }

    /// How the worker introduces itself from now on.
    pub fn introduce(&mut self, hello: fleet::Hello) {
        self.config.hello = hello;
    }

    /// What those who look on are shown.
    #[must_use]
    pub fn view(&self, now: MonoNs) -> View {
        let state = match self.link {
            Link::Away(_) => "away",
            Link::Greeted { .. } => "greeted",
            Link::Welcomed => "registered",
            Link::Closing { .. } => "closing",
            Link::Over => "over",
        };
        let left = self.lease.right.until().saturating_sub(now);
        View {
            state,
            run: self.run.clone(),
            lease_left_ns: if self.lease.fenced { 0 } else { left },
            unacknowledged: self.unacknowledged,
            phase: self.phases.main().map(Phase::view),
        }
    }

    /// The run that this worker is or was registered for.
    #[must_use]
    pub fn run(&self) -> Option<&RunId> {
        self.run.as_ref()
    }

    /// The instant at which a [`Event::Tick`] is needed at the latest.
    #[must_use]
    pub fn wake_at(&self) -> MonoNs {
        match self.link {
            Link::Away(since) | Link::Greeted { since, .. } => {
                self.fence_at().min(self.gives_up_at(since)).min(self.hangs_up_at())
            }
            Link::Closing { until, .. } => until.min(self.next_heartbeat),
            Link::Over => MonoNs::MAX,
            Link::Welcomed => {
                let phase = self.phases.iter().map(Phase::wake_at).min().unwrap_or(MonoNs::MAX);
                let leave = self.leaving.unwrap_or(MonoNs::MAX);
                self.next_heartbeat.min(phase).min(self.fence_at()).min(leave).min(self.hangs_up_at())
            }
        }
    }

    /// Whether the coordinator should be called.
    #[must_use]
    pub fn wants_stream(&self) -> bool {
        matches!(self.link, Link::Away(_))
    }

    /// When a coordinator that is away since an instant is given up.
    fn gives_up_at(&self, since: MonoNs) -> MonoNs {
        if self.config.waits && self.run.is_none() {
            return MonoNs::MAX;
        }
        since.saturating_add(self.config.give_up_ns)
    }

    /// When a coordinator that says nothing is left for another.
    fn hangs_up_at(&self) -> MonoNs {
        match self.link {
            Link::Greeted { hello, .. } if self.config.others => hello.saturating_add(SILENCE_NS),
            Link::Welcomed if self.config.others => self.heard_at.saturating_add(SILENCE_NS),
            _ => MonoNs::MAX,
        }
    }

    fn fence_at(&self) -> MonoNs {
        if self.lease.fenced { MonoNs::MAX } else { self.lease.right.until() }
    }

    /// Takes one event at an instant of the own clock and says what is to be done, in order.
    pub fn step(&mut self, now: MonoNs, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        // Time first: whatever the event is, it may not use a lease that has ended meanwhile.
        self.pass(now, &mut out);
        if self.link == Link::Over {
            return out;
        }
        match event {
            Event::Tick { unacknowledged } => self.unacknowledged = unacknowledged,
            Event::Connected => self.connected(now, &mut out),
            Event::Disconnected => {
                self.link = match self.link {
                    Link::Welcomed => Link::Away(now),
                    Link::Greeted { since, .. } => Link::Away(since),
                    other => other,
                };
                if self.leaving.is_some() {
                    // Nobody is there to be told goodbye; what was measured can still be delivered.
                    self.close(now, true, &mut out);
                }
            }
            Event::Refused { reason } => self.leave(Departure::Refused { reason }, &mut out),
            Event::Received(message) => self.received(now, message, &mut out),
            Event::Lane { lane, event } => self.lane(now, lane, event, &mut out),
            Event::Prepared { ticket, outcome } => {
                if let Some(phase) = self.phases.of_ticket(ticket) {
                    phase.prepared(outcome, &mut out);
                }
            }
            Event::Fetched { ticket, range, outcome } => {
                let mut next_block = self.blocks;
                if let Some(phase) = self.phases.of_ticket(ticket) {
                    phase.fetched(range, outcome, &mut next_block, &mut out);
                }
                self.blocks = next_block;
            }
            Event::Verified { ticket, outcome } => {
                let mut next_block = self.blocks;
                if let Some(phase) = self.phases.of_ticket(ticket) {
                    phase.verified(outcome, &mut next_block, &mut out);
                }
                self.blocks = next_block;
            }
            Event::ReadFault { detail } => out.push(Action::RecordEvent {
                phase: self.phases.main().map(Phase::title),
                kind: "read_fault",
                node: None,
                detail,
                count: 1,
            }),
            Event::Flushed { ticket, last_sequence, dropped } => {
                if let Some(phase) = self.phases.of_ticket(ticket)
                    && phase.flushed(last_sequence, dropped, &mut out)
                {
                    self.phases.end(ticket);
                }
            }
            Event::Delivered => {
                if let Link::Closing { stopped, .. } = self.link {
                    self.leave(if stopped { Departure::Stopped } else { Departure::Closed }, &mut out);
                }
            }
            Event::Stop => self.stop(now, &mut out),
        }
        self.advance(now, &mut out);
        self.keep_unsaid(&mut out);
        out
    }

    /// What the passing of time alone does.
    fn pass(&mut self, now: MonoNs, out: &mut Vec<Action>) {
        if !self.lease.fenced && now >= self.lease.right.until() {
            self.lease.fenced = true;
            self.every_lane(out, || LaneCommand::Fence);
            out.push(Action::RecordEvent {
                phase: self.phases.main().map(Phase::title),
                kind: "fenced",
                node: None,
                detail: String::from(
                    "no heartbeat reply within the lease: no load is sent until it is renewed",
                ),
                count: 1,
            });
        }
        match self.link {
            Link::Away(since) | Link::Greeted { since, .. } if now >= self.gives_up_at(since) => {
                self.leave(Departure::CoordinatorGone, out);
            }
            Link::Greeted { since, .. } if now >= self.hangs_up_at() => {
                self.link = Link::Away(since);
                out.push(Action::HangUp);
            }
            Link::Welcomed if now >= self.hangs_up_at() => {
                self.link = Link::Away(now);
                out.push(Action::HangUp);
            }
            Link::Closing { until, stopped } if now >= until => {
                self.leave(if stopped { Departure::Stopped } else { Departure::Closed }, out);
            }
            // Also while the last batches are delivered: a silent worker counts as lost.
            Link::Welcomed | Link::Closing { .. } if now >= self.next_heartbeat => {
                self.next_heartbeat = now.saturating_add(self.heartbeat_ns);
                let beat = fleet::Heartbeat { mono_ns: now, unacknowledged: self.unacknowledged };
                out.push(Action::Send(ToCoordinator::Heartbeat(beat)));
            }
            _ => {}
        }
    }

    /// What the present state allows to go on.
    fn advance(&mut self, now: MonoNs, out: &mut Vec<Action>) {
        if self.link == Link::Over {
            return;
        }
        if let Some(until) = self.leaving
            && self.link == Link::Welcomed
            && (self.phases.is_empty() || now >= until)
        {
            // Of what has not ended in time nobody knows whether it has: whoever is not told so closes the connections.
            if self.phases.is_empty() {
                let reason = String::from("it was asked to end");
                out.push(Action::Send(ToCoordinator::Goodbye(fleet::Goodbye { reason })));
            }
            self.close(now, true, out);
            return;
        }
        let may_load = !self.lease.fenced;
        let offset = self.exchanges.best();
        let connected = self.link == Link::Welcomed;
        for phase in self.phases.iter_mut() {
            phase.advance(now, may_load, connected, offset, out);
        }
    }

    fn received(&mut self, now: MonoNs, message: FromCoordinator, out: &mut Vec<Action>) {
        match (self.link, message) {
            (Link::Greeted { hello, .. }, FromCoordinator::Welcome(welcome)) => {
                self.welcomed(now, hello, welcome, out)
            }
            (Link::Welcomed, FromCoordinator::HeartbeatReply(reply)) => self.heard(now, reply, out),
            (Link::Welcomed, FromCoordinator::Arm(arm)) => self.arm(now, &arm, out),
            (Link::Welcomed, FromCoordinator::Start(start)) => match self.phases.named(start.phase) {
                Some(phase) => phase.start_ordered(start, out),
                None => fault(start.phase, "start of a phase that is not armed", out),
            },
            (Link::Welcomed, FromCoordinator::Lease(lease)) => match self.phases.named(lease.phase) {
                Some(phase) => phase.leased(now, &lease, out),
                None => {
                    for range in lease.ranges {
                        out.push(Action::Send(ToCoordinator::RangeDone(fleet::RangeDone {
                            phase: lease.phase,
                            range: Some(range),
                            ok: 0,
                            failed: 0,
                            first_error: String::from("the phase does not run on this worker"),
                        })));
                    }
                }
            },
            (Link::Welcomed, FromCoordinator::TakeOver(taken)) => {
                if let Some(phase) = self.phases.named(taken.phase) {
                    phase.take_over(taken, out);
                }
            }
            (Link::Welcomed, FromCoordinator::GiveBack(asked)) => {
                if let (Some(phase), Some(range)) = (self.phases.named(asked.phase), asked.range) {
                    phase.give_back(RowRange { start: range.start, end: range.end }, out);
                }
            }
            (Link::Welcomed, FromCoordinator::Drain(drain)) => {
                if let Some(phase) = self.phases.named(drain.phase) {
                    let began = phase.began();
                    phase.drain(out);
                    if !began {
                        // Lanes that were armed and never started are replaced before the next phase.
                        self.phases.spoil_phase(drain.phase);
                    }
                }
            }
            (Link::Welcomed, FromCoordinator::Observe(observe)) => out.push(Action::Observe(observe)),
            (Link::Welcomed | Link::Greeted { .. }, FromCoordinator::Close(_)) => self.close(now, false, out),
            _ => {}
        }
    }

    fn arm(&mut self, now: MonoNs, arm: &fleet::Arm, out: &mut Vec<Action>) {
        let order: PhaseOrder = match serde_json::from_str(&arm.order_json) {
            Ok(order) => order,
            Err(e) => return fault(arm.phase, &format!("the order of the phase is not readable: {e}"), out),
        };
        let group = order.beside.unwrap_or(order.index);
        let in_the_way = |phase: &&Phase| phase.group() != group || phase.index() == order.index;
        if let Some(phase) = self.phases.iter().filter(|phase| phase.began()).find(in_the_way) {
            let reason = format!("phase {} still runs on this worker", phase.index());
            return fault(arm.phase, &reason, out);
        }
        self.phases.replace(order.index, group);
        if self.leaving.is_some() {
            // The goodbye is on its way and says it all.
            return;
        }
        if arm.lanes == 0 || arm.lanes > self.config.lanes {
            let reason = format!("{} lanes were ordered, this worker has {}", arm.lanes, self.config.lanes);
            return fault(arm.phase, &reason, out);
        }
        if self.group != Some(group) {
            // What was stated about the phases before has been heard, or there would be no other.
            self.group = Some(group);
            self.statements.clear();
        }
        let (first, is_stale) = self.phases.free();
        if is_stale {
            out.push(Action::RestartLanes { first, count: self.config.lanes });
        }
        self.tickets += 1;
        let lease = self.lease.right.clone();
        self.phases.put(first, Phase::new(self.tickets, order.clone(), arm, first, lease, now));
        out.push(Action::Prepare { ticket: self.tickets, order: Box::new(order) });
    }

    fn lane(&mut self, now: MonoNs, lane: u32, event: LaneEvent, out: &mut Vec<Action>) {
        match (event, self.phases.of_lane(lane)) {
            (LaneEvent::Happened { kind, node, detail, count }, found) => {
                let phase = found.map(|(phase, _)| phase.title());
                out.push(Action::RecordEvent { phase, kind, node, detail, count });
            }
            (LaneEvent::Failed { reason, target }, found) => {
                match found {
                    Some((phase, lane)) => phase.lane_failed(lane, &reason, target, out),
                    None => fault(0, &reason, out),
                }
                // The thread is gone; the next phase there needs new ones.
                self.phases.spoil(lane);
            }
            (event, Some((phase, lane))) => phase.lane_event(now, lane, event, out),
            (_, None) => {}
        }
    }

    /// Ends what runs in order, so that nothing is lost and others can have what this worker held.
    fn stop(&mut self, now: MonoNs, out: &mut Vec<Action>) {
        if self.link != Link::Welcomed {
            return self.close(now, true, out);
        }
        self.leaving = Some(now.saturating_add(self.phases.iter().map(Phase::drain_ns).max().unwrap_or(0)));
        for phase in self.phases.iter_mut() {
            phase.drain(out);
        }
    }

    fn close(&mut self, now: MonoNs, stopped: bool, out: &mut Vec<Action>) {
        if matches!(self.link, Link::Closing { .. }) {
            return;
        }
        if self.phases.clear() {
            self.every_lane(out, || LaneCommand::Abort);
        }
        self.link = Link::Closing { until: now.saturating_add(CLOSING_NS), stopped };
        out.push(Action::Deliver);
    }

    fn leave(&mut self, departure: Departure, out: &mut Vec<Action>) {
        if self.phases.clear() {
            self.every_lane(out, || LaneCommand::Abort);
        }
        self.link = Link::Over;
        out.push(Action::Leave(departure));
    }

    fn every_lane(&self, out: &mut Vec<Action>, command: impl Fn() -> LaneCommand) {
        out.extend(self.phases.all_lanes().map(|lane| Action::Lane { lane, command: command() }));
    }
}

fn fault(phase: u32, reason: &str, out: &mut Vec<Action>) {
    let reason = reason.to_owned();
    out.push(Action::Send(ToCoordinator::Fault(fleet::Fault { phase, reason, target: false })));
}

fn target_fault(phase: u32, reason: &str, out: &mut Vec<Action>) {
    let reason = reason.to_owned();
    out.push(Action::Send(ToCoordinator::Fault(fleet::Fault { phase, reason, target: true })));
}
