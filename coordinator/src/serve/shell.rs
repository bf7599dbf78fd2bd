//! The loop around the run: everything that happens becomes an event, every action is performed, in order.
//!
//! What takes time runs beside the loop and reports back, so the loop itself waits only for room in the log. Law:
//! records and the coordinator's own batches enter the log in the order of the run's actions.

mod demands;
mod records;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use vst_common::batch::events::EventRow;
use vst_common::batch::{Table, commandstats};
use vst_common::clock;
use vst_common::entry::{Control, PhaseOutcome};
use vst_common::exit::Exit;
use vst_common::ids::{Generation, PhaseIndex, RunId};
use vst_common::scenario::operations::Operation;

use super::counting::{self, Counters};
use super::hooks::{self, Hooks};
use super::{Prepared, chain, effects, facts};
use crate::archive::Follower;
use crate::intake::{Intake, Reached};
use crate::plan;
use crate::run::{Action, Edge, Event, Failure, LogFate, Note, RunCore, Tell, Ticket, Verdict};
use crate::run_log::{self, Pending, Record, RunLog, Stopped};
use crate::session::{Demand, Hub, Waiting};
use crate::status::Look;
use crate::target::Target;

/// The run hears of passing time this often.
const TICK: Duration = Duration::from_millis(50);
/// What has arrived is taken in before silence is judged, up to so many events: there may be no end of them.
const AT_ONCE: usize = 4096;
/// Those who look on are shown something new this often: with a thousand workers a look takes milliseconds.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// Time between two looks at the target's memory for those who look on.
const MEMORY_EVERY: Duration = Duration::from_secs(2);
/// The same where it must not pass a bound.
const GUARD_EVERY: Duration = Duration::from_millis(250);

/// What the loop works with.
pub(super) struct Parts {
    pub(super) run: RunId,
    /// The run directory, as people are told.
    pub(super) location: String,
    /// How this process names itself in the log.
    pub(super) leader: String,
    pub(super) prepared: Prepared,
    pub(super) most_memory: Option<u64>,
    pub(super) log: RunLog,
    pub(super) intake: Intake,
    pub(super) archive: Follower,
    pub(super) hub: Arc<Hub>,
    pub(super) core: RunCore,
    /// What the core wants done first.
    pub(super) first: Vec<Action>,
    /// The server's counters before the load that another coordinator began.
    pub(super) counters: Option<Counters>,
    /// Whether anything but the marker may be on the target already.
    pub(super) touched: bool,
    pub(super) shown: watch::Sender<Look>,
    /// What `run.json` says so far.
    pub(super) facts: serde_json::Value,
    pub(super) hooks: Hooks,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) verdict: Verdict,
    /// Whether anything but the marker may be on the target.
    pub(super) touched: bool,
    /// Whether the log was written to the end; if not, somebody else may lead the run now.
    pub(super) leads: bool,
    pub(super) target: Arc<Target>,
}

/// What an effect reports.
enum Done {
    Event(Event),
    Counted(PhaseIndex, Edge, Counters),
    /// `used_memory` summed over all nodes, bytes; `None` from a target that did not answer.
    Memory(Option<u64>),
    /// The cluster was changed, in words, or not.
    Operated(Result<String, Failure>),
    /// A program has ended; whether the phase that runs is that program.
    Program(hooks::Ended, bool),
    /// What was done to the target is in the run directory, or not.
    Audited(Result<(), run_log::Error>),
}

/// The loop.
pub(super) struct Shell {
    run: RunId,
    location: String,
    leader: String,
    prepared: Prepared,
    /// Memory of the target at which the run ends, bytes; taken when it has been reached.
    most_memory: Option<u64>,
    log: RunLog,
    intake: Intake,
    archive: Arc<Follower>,
    hub: Arc<Hub>,
    core: RunCore,
    shown: watch::Sender<Look>,
    facts: serde_json::Value,
    effects: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    /// Counters read at the start of the phase that runs.
    before: Counters,
    notes: Vec<EventRow>,
    sequence: u64,
    /// The last of the coordinator's own batches.
    last_batch: Option<Pending>,
    delivered: Reached,
    /// Whether the run waits for its next phase, and who is to be told when it does.
    awaits: bool,
    waiting: Option<oneshot::Sender<Result<Waiting, String>>>,
    indexed: bool,
    touched: bool,
    leads: bool,
    verdict: Option<Verdict>,
    hooks: Hooks,
    /// Whether the log is to be turned into parts when the programs that run have ended.
    archives: bool,
    /// Whether what was done to the target is being written.
    audits: bool,
}

impl Shell {
    /// Runs to the end.
    pub(super) async fn run(
        parts: Parts,
        mut inbox: mpsc::Receiver<Event>,
        mut stops: mpsc::Receiver<String>,
        mut demands: mpsc::Receiver<Demand>,
    ) -> Ended {
        let mut shell = Self {
            run: parts.run,
            location: parts.location,
            leader: parts.leader,
            prepared: parts.prepared,
            most_memory: parts.most_memory,
            log: parts.log,
            intake: parts.intake,
            archive: Arc::new(parts.archive),
            hub: parts.hub,
            core: parts.core,
            shown: parts.shown,
            facts: parts.facts,
            effects: FuturesUnordered::new(),
            before: parts.counters.unwrap_or_else(|| Ok(BTreeMap::new())),
            notes: Vec::new(),
            sequence: 0,
            last_batch: None,
            delivered: Reached::new(),
            awaits: false,
            waiting: None,
            indexed: false,
            touched: parts.touched,
            leads: true,
            verdict: None,
            hooks: parts.hooks,
            archives: false,
            audits: false,
        };
        for fault in shell.prepared.data.as_ref().map(|data| data.faults.take()).unwrap_or_default() {
            shell.note(Note {
                kind: "read_fault",
                worker: None,
                phase: PhaseIndex(0),
                detail: fault.to_string(),
            });
        }
        shell.indexed = shell.core.is_indexed();
        // Who registered with another coordinator may still have something to deliver, whatever became of it.
        for (generation, member) in shell.core.roster().all() {
            shell.intake.expect(member.arrival.worker.clone(), generation);
        }
        shell.look_at_memory(Duration::ZERO);
        let mut reached = shell.intake.reached();
        for action in parts.first {
            if let Err(stopped) = shell.perform(action).await {
                shell.take(log_lost(&stopped)).await;
            }
        }
        // What the log held before this coordinator led was delivered too.
        let known = reached.borrow_and_update().clone();
        shell.reached(known).await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut show = tokio::time::interval(SHOW_EVERY);
        show.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shell.verdict.is_none() {
            // The arms are cancel-safe; what an arm does is done outside, so that nothing is lost half way.
            tokio::select! {
                Some(event) = inbox.recv() => shell.take(event).await,
                Some(done) = shell.effects.next() => shell.finished(done).await,
                Ok(()) = reached.changed() => {
                    let now = reached.borrow_and_update().clone();
                    shell.reached(now).await;
                }
                Some(demand) = demands.recv() => shell.demand(demand).await,
                Some(reason) = stops.recv() => shell.take(Event::Stop(reason)).await,
                _ = tick.tick() => {
                    // What has arrived comes first: silence is judged by what was really not said.
                    for _ in 0..AT_ONCE {
                        let Ok(event) = inbox.try_recv() else { break };
                        shell.take(event).await;
                    }
                    shell.take(Event::Tick).await;
                }
                _ = show.tick() => {
                    shell.show();
                    shell.audit();
                }
            }
        }
        shell.show();
        shell.log.close().await;
        let verdict =
            shell.verdict.unwrap_or_else(|| Verdict::failed(Exit::Bug, "the run ended without a verdict"));
        Ended { verdict, touched: shell.touched, leads: shell.leads, target: shell.prepared.target }
    }

    /// Lets the run see an event and does what it says, and what follows from that.
    async fn take(&mut self, event: Event) {
        if matches!(event, Event::Stop(_)) {
            self.hooks.stop();
        }
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.leads &= !matches!(&event, Event::Failed(failure) if failure.log != LogFate::Writable);
            for action in self.core.step(event, clock::mono_ns()) {
                if let Err(stopped) = self.perform(action).await {
                    events.push_back(log_lost(&stopped));
                }
            }
        }
        if let Err(stopped) = self.write_notes().await {
            // The run hears of it with its next record; notes alone do not end it.
            tracing::error!("events were not written: {stopped}");
        }
    }

    async fn perform(&mut self, action: Action) -> Result<(), Stopped> {
        match action {
            // Whoever has not written to the log lately may not lead any more, and must let nobody go on sending.
            Action::Tell(_, Tell::Heard { .. }) if !self.leads_surely() => {}
            Action::Tell(generation, tell) => {
                if matches!(tell, Tell::Welcome) {
                    self.expect_deliveries(generation);
                }
                self.hub.tell(generation, &tell);
            }
            Action::Adopt { stream, registration } => self.hub.adopt(stream, registration),
            Action::Refuse(generation, refusal) => self.hub.refuse(generation, &refusal),
            Action::Dismiss(generation) => self.hub.end(generation),
            Action::Log(ticket, control) => {
                self.write_notes().await?;
                return self.append(ticket, *control).await;
            }
            Action::CreateIndex { again } => {
                let (target, plan) = (Arc::clone(&self.prepared.target), Arc::clone(&self.prepared.plan));
                self.report(async move { Done::Event(effects::create_index(&target, &plan, again).await) });
            }
            Action::DropIndex => {
                let (target, plan) = (Arc::clone(&self.prepared.target), Arc::clone(&self.prepared.plan));
                self.indexed = false;
                self.report(async move { Done::Event(effects::drop_index(&target, &plan).await) });
            }
            Action::RebuildIndex(shape) => {
                let (target, plan) = (Arc::clone(&self.prepared.target), Arc::clone(&self.prepared.plan));
                self.indexed = false;
                self.report(async move { Done::Event(effects::rebuild_index(&target, &plan, &shape).await) });
            }
            Action::Operate(operation) => self.operate(operation),
            Action::CountCommands { phase, edge } => {
                let target = Arc::clone(&self.prepared.target);
                self.report(async move { Done::Counted(phase, edge, counting::read(&target).await) });
            }
            Action::CutOff(generation, worker) => {
                let target = Arc::clone(&self.prepared.target);
                let name = format!("{}/{worker}/{generation}", self.run);
                self.report(async move {
                    Done::Event(Event::CutOff(generation, effects::cut_off(&target, &name).await))
                });
            }
            Action::ReadRest => {
                let target = Arc::clone(&self.prepared.target);
                let search = self.prepared.plan.search.clone().filter(|_| self.indexed);
                self.report(async move { Done::Event(effects::rest(&target, search.as_ref()).await) });
            }
            Action::AwaitNext => {
                self.awaits = true;
                self.tell_waiting();
            }
            Action::Decide { phase, keep_rows } => {
                let decided =
                    plan::decided(&self.prepared.plan, self.prepared.data.as_ref(), phase, keep_rows);
                let event = match decided {
                    Ok(plan) => {
                        self.prepared.plan = Arc::new(plan);
                        Event::Decided(Arc::clone(&self.prepared.plan))
                    }
                    Err(reason) => Event::Failed(Failure { exit: Exit::Bug, reason, log: LogFate::Writable }),
                };
                self.report(async move { Done::Event(event) });
            }
            Action::Note(note) => self.note(note),
            Action::Archive => {
                self.write_notes().await?;
                self.archives = true;
                self.archive_when_idle();
            }
            Action::Finish(verdict) => self.verdict = Some(verdict),
        }
        Ok(())
    }

    /// Whoever is a member may deliver, also what it measured before it had to register anew.
    fn expect_deliveries(&self, generation: Generation) {
        let Some(member) = self.core.roster().get(generation) else { return };
        for generation in [Some(generation), member.before].into_iter().flatten() {
            self.intake.expect(member.arrival.worker.clone(), generation);
        }
    }

    /// Whether no other coordinator can lead yet, as far as the log tells.
    fn leads_surely(&self) -> bool {
        clock::mono_ns().saturating_sub(self.log.confirmed_at()) < run_log::SURE_NS
    }

    /// Hands a record to the log; when it is durable the run hears of it.
    async fn append(&mut self, ticket: Ticket, control: Control) -> Result<(), Stopped> {
        let mut awaited = None;
        if let Control::PhaseStarted(started) = &control {
            tracing::info!("phase {} ({})", started.name, started.step);
            self.touched |= started.index.0 > 0;
            self.prepared.target.audit().purpose(format!("phase {}", started.name));
            self.order_of(started.index);
            // Programs accompany the phases of the sequence.
            if started.beside.is_none() {
                let programs = self.hooks.phase_starts(started);
                self.start(programs);
                awaited = started.order.is_none().then(|| self.hooks.rest());
            }
        }
        let main = |index| self.prepared.plan.phases.iter().any(|p| p.index == index && p.beside.is_none());
        if let Control::PhaseEnded(ended) = &control
            && main(ended.index)
        {
            let outcome = match &ended.outcome {
                PhaseOutcome::Completed => "completed",
                PhaseOutcome::Interrupted => "interrupted",
                PhaseOutcome::Failed { .. } => "failed",
            };
            let programs = self.hooks.phase_ends(ended.index, outcome);
            self.start(programs);
        }
        match &control {
            Control::PhaseEnded(ended) if !main(ended.index) => {}
            Control::PhaseEnded(_) | Control::PopulationChanged { .. } => awaited = Some(self.hooks.rest()),
            _ => {}
        }
        if let Control::StreamEnded { worker, generation, last_sequence, .. } = &control {
            self.intake.state(worker.clone(), *generation, *last_sequence).await;
        }
        let pending = self.log.enqueue(Record::Control(control)).await?;
        self.report(async move {
            let durable = pending.durable().await;
            // What a phase waits for beside its record are the programs that accompany it.
            if let Some(rest) = awaited {
                rest.await;
            }
            Done::Event(match durable {
                Ok(_) => Event::Logged(ticket),
                Err(stopped) => log_lost(&stopped),
            })
        });
        Ok(())
    }

    async fn finished(&mut self, done: Done) {
        if let Done::Counted(..) = &done {
            // Who is a primary may have changed: from the next order on, samples say so.
            let target = &self.prepared.target;
            self.hub.learn(&target.now(), self.prepared.plan.search.as_ref());
        }
        match done {
            Done::Event(event) => {
                self.indexed |= matches!(event, Event::IndexCreated);
                self.take(event).await;
            }
            Done::Operated(outcome) => {
                // Another node may serve what was asked of one before.
                let target = &self.prepared.target;
                self.hub.learn(&target.now(), self.prepared.plan.search.as_ref());
                self.indexed = self.core.is_indexed();
                match outcome {
                    Ok(said) => {
                        self.note_of_phase("operation", said);
                        self.take(Event::Operated).await;
                    }
                    Err(failure) => self.take(Event::DeedFailed(failure)).await,
                }
            }
            Done::Program(ended, is_phase) => {
                self.hooks.ended(ended.id);
                self.note_of_phase("hook", ended.said);
                match ended.stops {
                    Some(reason) => {
                        let failure = Failure { exit: Exit::Scenario, reason, log: LogFate::Writable };
                        self.take(match is_phase {
                            true => Event::DeedFailed(failure),
                            false => Event::Failed(failure),
                        })
                        .await;
                    }
                    None if is_phase => self.take(Event::Operated).await,
                    None => {
                        if let Err(stopped) = self.write_notes().await {
                            self.take(log_lost(&stopped)).await;
                        }
                    }
                }
                self.archive_when_idle();
            }
            Done::Audited(written) => {
                self.audits = false;
                if let Err(e) = written {
                    tracing::error!("what was done to the target is not written: {}", chain(&e));
                }
            }
            Done::Memory(bytes) => {
                if let Some(bytes) = bytes {
                    self.hub.board().used_memory(bytes);
                    if let Some(most) = self.most_memory.take_if(|most| bytes >= *most) {
                        let reason = format!(
                            "the guard ends the run: the target uses {bytes} bytes, and {most} is the most that it may"
                        );
                        self.take(Event::Failed(Failure {
                            exit: Exit::Target,
                            reason,
                            log: LogFate::Writable,
                        }))
                        .await;
                    }
                }
                let guarded = self.most_memory.is_some();
                self.look_at_memory(if guarded { GUARD_EVERY } else { MEMORY_EVERY });
            }
            Done::Counted(phase, Edge::Start, counters) => {
                if let Ok(value) = serde_json::to_value(&counters) {
                    let counted = Control::CommandsCounted { phase, counters: value };
                    if let Err(stopped) = self.log.enqueue(Record::Control(counted)).await {
                        self.take(log_lost(&stopped)).await;
                    }
                }
                self.before = counters;
                self.take(Event::CommandsCounted(Edge::Start)).await;
            }
            Done::Counted(phase, Edge::End, counters) => {
                let rows = self.counted(phase, &counters);
                let stamp = self.stamp();
                let batch = commandstats::to_batch(&stamp, &rows);
                if let Err(stopped) = self.write_batch(Table::Commandstats, &stamp, batch).await {
                    self.take(log_lost(&stopped)).await;
                }
                self.take(Event::CommandsCounted(Edge::End)).await;
            }
        }
    }

    /// Changes the cluster, or runs a program.
    fn operate(&mut self, operation: Operation) {
        if let Operation::Command(command) = operation {
            let program = self.hooks.command(command);
            return self.report(program.map(|ended| Done::Program(ended, true)));
        }
        let target = Arc::clone(&self.prepared.target);
        let search = self.prepared.plan.search.clone();
        self.report(
            async move { Done::Operated(effects::operate(&target, &operation, search.as_ref()).await) },
        );
    }

    /// Runs programs beside the loop.
    fn start(&self, programs: Vec<BoxFuture<'static, hooks::Ended>>) {
        for program in programs {
            self.report(program.map(|ended| Done::Program(ended, false)));
        }
    }

    /// Writes what was done to the target, where there is anything new.
    fn audit(&mut self) {
        if self.audits {
            return;
        }
        if let Some(deeds) = self.prepared.target.audit().take_news() {
            self.audits = true;
            let log = self.log.clone();
            self.report(async move { Done::Audited(log.write_audit(&deeds).await) });
        }
    }

    /// Turns the log into parts once no program can add to it.
    fn archive_when_idle(&mut self) {
        if self.archives && self.hooks.is_idle() {
            self.archives = false;
            self.archive();
        }
    }

    /// Tells the run of the streams that are further than before.
    async fn reached(&mut self, now: Reached) {
        let further: Vec<(Generation, u64)> = now
            .iter()
            .filter(|(key, sequence)| self.delivered.get(key) != Some(sequence))
            .map(|((_, generation), sequence)| (*generation, sequence.0))
            .collect();
        self.delivered = now;
        for (generation, sequence) in further {
            self.take(Event::Delivered(generation, sequence)).await;
        }
    }

    /// Takes nothing more in, and brings what was acknowledged into parts.
    fn archive(&mut self) {
        let (intake, archive, log) = (self.intake.clone(), Arc::clone(&self.archive), self.log.clone());
        let last_batch = self.last_batch.take();
        let facts = facts::with_fleet(self.facts.clone(), self.core.roster());
        self.report(async move {
            intake.close().await;
            if let Some(last) = last_batch {
                // What is not durable has ended the run already.
                let _ = last.durable().await;
            }
            let failed =
                |reason| Event::Failed(Failure { exit: Exit::NotValid, reason, log: LogFate::Writable });
            if let Err(e) = log.write_run_json(&facts).await {
                return Done::Event(failed(chain(&e)));
            }
            Done::Event(match archive.flush().await {
                Ok(_) => Event::Archived,
                Err(e) => failed(chain(&e)),
            })
        });
    }

    /// Runs an effect beside the loop.
    fn report(&self, effect: impl Future<Output = Done> + 'static) {
        self.effects.push(effect.boxed_local());
    }

    /// For the eye only: a target that does not answer keeps its last figure.
    fn look_at_memory(&self, wait: Duration) {
        let target = Arc::clone(&self.prepared.target);
        self.report(async move {
            tokio::time::sleep(wait).await;
            Done::Memory(target.used_memory().await.ok())
        });
    }

    fn show(&self) {
        let now = clock::mono_ns();
        let mut look = self.hub.board().look(&self.core.view(now), self.core.roster(), now);
        self.run.as_str().clone_into(&mut look.status.run);
        self.location.clone_into(&mut look.status.run_directory);
        self.leader.clone_into(&mut look.status.leader);
        look.status.epoch = self.log.epoch();
        look.status.log_entries = self.log.last_durable();
        self.shown.send_replace(look);
    }
}

fn log_lost(stopped: &Stopped) -> Event {
    let reason = format!("the run log cannot be written: {}", chain(stopped));
    match stopped {
        Stopped::OtherLeader { .. } => {
            Event::Failed(Failure { exit: Exit::Fleet, reason: chain(stopped), log: LogFate::Taken })
        }
        _ => Event::Failed(Failure { exit: Exit::Usage, reason, log: LogFate::Lost }),
    }
}
