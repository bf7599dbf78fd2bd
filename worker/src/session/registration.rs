//! Being registered: the greeting, what the coordinator grants, and what it is told after it was away.
//!
//! Part of the session core. Laws: the right to load is counted from the question, never from the answer; what must reach
//! a coordinator and found none waits until one is there; a registration that goes on takes all that runs with it.

use vst_common::clock::{ClockOffset, MonoNs};
use vst_common::ids::{Generation, RunId};
use vst_proto::fleet;
use vst_proto::fleet::worker_message::Message as ToCoordinator;

use super::clock::Exchanges;
use super::phase::Phase;
use super::{Action, Departure, Lease, Link, SessionCore};
use crate::work::{LaneCommand, LoadLease};

impl SessionCore {
    pub(super) fn connected(&mut self, now: MonoNs, out: &mut Vec<Action>) {
        if let Link::Away(since) = self.link {
            self.link = Link::Greeted { since, hello: now };
            let before = self.registration();
            let hello = fleet::Hello { before, ..self.config.hello.clone() };
            out.push(Action::Send(ToCoordinator::Hello(hello)));
        }
    }

    /// What this worker has, for a coordinator that may let it go on.
    fn registration(&self) -> Option<fleet::Registration> {
        let (run, generation) = (self.run.as_ref()?, self.generation?);
        let mut held: Vec<fleet::RowRange> = self.phases.iter().flat_map(Phase::held).collect();
        held.extend(self.unsaid.iter().filter_map(|message| match message {
            ToCoordinator::RangeDone(done) => done.range,
            _ => None,
        }));
        Some(fleet::Registration {
            run: run.to_string(),
            generation: generation.0,
            phases: self
                .phases
                .iter()
                .map(|phase| fleet::PhaseState { phase: phase.index().0, stage: phase.stage().into() })
                .collect(),
            held,
            ended: self.statements.clone(),
        })
    }

    pub(super) fn welcomed(
        &mut self,
        now: MonoNs,
        hello: MonoNs,
        welcome: fleet::Welcome,
        out: &mut Vec<Action>,
    ) {
        self.heard_at = now;
        let run = RunId::new(welcome.run.as_str());
        if self.run.as_ref().is_some_and(|own| *own != run) {
            let reason = format!("the coordinator now leads run {run}; start a new worker for it");
            self.leave(Departure::Refused { reason }, out);
            return;
        }
        if welcome.resumed && self.generation == Some(Generation(welcome.generation)) {
            return self.resumed(now, hello, &welcome, out);
        }
        // What the last registration held is void: the coordinator has given it to others once this worker's lease
        // was over.
        self.generation = Some(Generation(welcome.generation));
        self.statements.clear();
        self.group = None;
        self.unsaid.clear();
        self.phases.renewed();
        self.run = Some(run.clone());
        self.link = Link::Welcomed;
        self.exchanges = Exchanges::default();
        self.heartbeat_ns = welcome.heartbeat_ns.max(1_000_000);
        self.next_heartbeat = now;
        // Counted from the question: the coordinator may have heard nothing of this worker since.
        let until = hello.saturating_add(welcome.lease_ns);
        // A right of its own: lanes of the registration before must not be given it.
        self.lease = Lease { length_ns: welcome.lease_ns, right: LoadLease::new(until), fenced: false };
        out.push(Action::Register {
            run,
            generation: Generation(welcome.generation),
            target: welcome.target,
        });
        self.pass(now, out);
    }

    /// The registration goes on, and with it everything that runs.
    fn resumed(&mut self, now: MonoNs, hello: MonoNs, welcome: &fleet::Welcome, out: &mut Vec<Action>) {
        self.link = Link::Welcomed;
        // Perhaps another coordinator, with another clock.
        self.exchanges = Exchanges::default();
        self.heartbeat_ns = welcome.heartbeat_ns.max(1_000_000);
        self.next_heartbeat = now;
        self.lease.length_ns = welcome.lease_ns;
        self.renew(now, hello.saturating_add(welcome.lease_ns), out);
        self.phases.iter_mut().for_each(Phase::resumed);
        out.extend(std::mem::take(&mut self.unsaid).into_iter().map(Action::Send));
        self.pass(now, out);
    }

    pub(super) fn heard(&mut self, now: MonoNs, reply: fleet::HeartbeatReply, out: &mut Vec<Action>) {
        self.exchanges.add(ClockOffset::from_exchange(reply.worker_mono_ns, reply.coordinator_mono_ns, now));
        if let Some(best) = self.exchanges.best() {
            out.push(Action::Offset(best));
        }
        // Counted from the question, not the answer: the coordinator may have forgotten this worker at any moment
        // after it answered.
        let until = reply.worker_mono_ns.min(now).saturating_add(self.lease.length_ns);
        self.heard_at = now;
        self.renew(now, until, out);
    }

    fn renew(&mut self, now: MonoNs, until: MonoNs, out: &mut Vec<Action>) {
        self.lease.right.renew(until);
        if self.lease.fenced && now < self.lease.right.until() {
            self.lease.fenced = false;
            self.every_lane(out, || LaneCommand::Resume);
        }
    }

    /// What must reach a coordinator waits until one is there.
    pub(super) fn keep_unsaid(&mut self, out: &mut Vec<Action>) {
        let speechless = matches!(self.link, Link::Away(_) | Link::Greeted { .. });
        out.retain(|action| {
            let Action::Send(message) = action else { return true };
            if let ToCoordinator::PhaseDone(statement) = message {
                self.statements.retain(|before| before.phase != statement.phase);
                self.statements.push(*statement);
            }
            let matters = matches!(
                message,
                ToCoordinator::RangeDone(_)
                    | ToCoordinator::PhaseDone(_)
                    | ToCoordinator::Armed(_)
                    | ToCoordinator::Fault(_)
            );
            if speechless && matters && self.generation.is_some() {
                self.unsaid.push(message.clone());
                return false;
            }
            true
        });
    }
}
