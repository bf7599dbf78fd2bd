//! A worker process: the thin shell around `session`.
//!
//! Holds what the session core has no business with: the stream to the coordinator, lane threads, uplink and sampler,
//! and the tasks that prepare phases and read rows. It turns what they say into events and does what the actions say;
//! no decision is made here.

mod calling;
mod lanes;
mod layouts;
mod preparing;
mod stream;
mod whereabouts;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tonic::transport::Channel;
use vst_access::{TargetUrl, TargetUrlError};
use vst_common::clock::{MonoNs, SECOND_NS, mono_ns};
use vst_common::dataset::{ReadFault, ReadFaults};
use vst_common::exit::Exit;
use vst_common::ids::{Generation, RunId, WorkerId};
use vst_common::phase::{PhaseOrder, Work};
use vst_proto::fleet;
use vst_proto::security::Security;

use crate::fetch::Source;
use crate::health::Machine;
use crate::session::{Action, Config, Departure, Event, NotReady, SessionCore};
use crate::site::WorkerSite;
use crate::topology::{Layout, refresh};
use crate::uplink::{Order, PhaseLabel, Report};
use crate::work::{ArmedPhase, LaneEvent};
use crate::{lane, sampler, uplink};
use calling::{RETRY_NS, endpoint};
use lanes::Lanes;
use preparing::{Newest, prepare};
pub use whereabouts::Coordinators;
use whereabouts::Whereabouts;

/// A worker whose coordinator has been away for this long leaves, nanoseconds.
const GIVE_UP_NS: u64 = 60 * SECOND_NS;
/// The session hears of passing time this often at least, and no more often than the shortest.
const TICK: Duration = Duration::from_millis(50);
const SHORTEST_TICK: Duration = Duration::from_millis(1);
/// Those who look on are told how the session stands this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How a worker is started.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Where the coordinator is.
    pub coordinators: Coordinators,
    /// The target, where it is not the one that the coordinator names. Without password.
    pub target: Option<String>,
    /// Name of this worker; made from host and process where absent.
    pub worker: Option<WorkerId>,
    /// Load lanes (threads), at least 1.
    pub lanes: u32,
    /// The fleet's shared secret.
    pub token: Option<String>,
    /// Certificates, and whom it trusts.
    pub security: Security,
    /// Where its own state is shown, `host:port`; nowhere where absent.
    pub http: Option<String>,
    /// Where figures are pushed.
    pub pushgateway: Option<vst_http::Gateway>,
}

/// Why a worker ended without an order to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator's address cannot be used.
    #[error("coordinator `{address}` is not a usable address: {source}; expected host:port")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// No coordinator.
    #[error(
        "coordinator `{address}` did not answer for {seconds} s; is it running, and reachable from here?"
    )]
    CoordinatorGone {
        /// As given.
        address: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The coordinator does not let this worker in.
    #[error("the coordinator refuses this worker: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
    },
    /// The target's URL, or the files for TLS with it.
    #[error(transparent)]
    Target(#[from] TargetUrlError),
    /// Nobody can say where the coordinator is.
    #[error(transparent)]
    Etcd(#[from] vst_etcd::Error),
    /// The state cannot be shown.
    #[error(transparent)]
    Http(#[from] vst_http::Error),
    /// Figures cannot be pushed.
    #[error(transparent)]
    Push(#[from] vst_http::PushError),
    /// The operating system gives no thread.
    #[error(transparent)]
    Lanes(#[from] lane::SpawnError),
}

impl Error {
    /// What a script is told.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Address { .. } | Self::Http(_) | Self::Target(_) | Self::Push(_) => Exit::Usage,
            Self::CoordinatorGone { .. } | Self::Refused { .. } | Self::Etcd(_) => Exit::Fleet,
            Self::Lanes(_) => Exit::Bug,
        }
    }
}

/// Runs a worker until the coordinator closes the run, `shutdown` completes or it cannot go on.
///
/// Gives [`Exit::Valid`] after the run was closed, [`Exit::Interrupted`] after `shutdown`.
///
/// # Errors
/// [`Error`], whose [`Error::exit`] is what a script should be told.
pub async fn run(options: WorkerOptions, shutdown: impl Future<Output = ()>) -> Result<Exit, Error> {
    let mut whereabouts = Whereabouts::open(&options.coordinators).await?;
    let mut worker = Worker::new(options)?;
    let mut core = SessionCore::new(worker.config(), mono_ns());
    let (show, shown) = watch::channel((mono_ns(), core.view(mono_ns())));
    let http = worker.show(shown.clone()).await?;
    let pusher = worker.push(shown)?;
    let mut hello = worker.hello();
    hello.http = http.as_ref().map_or_else(String::new, |http| http.address().to_string());
    let registered = worker.register_in_etcd(&hello).await?;
    core.introduce(hello);
    let mut stopped = false;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    let end = loop {
        let wait = Duration::from_nanos(core.wake_at().saturating_sub(mono_ns())).clamp(SHORTEST_TICK, TICK);
        let event = tokio::select! {
            () = &mut shutdown, if !stopped => {
                stopped = true;
                Some(Event::Stop)
            }
            Some(note) = worker.notes.recv() => worker.event_of(note, &mut whereabouts),
            Some((lane, event)) = worker.lanes.next() => match event {
                LaneEvent::LayoutWanted => {
                    worker.doubt();
                    None
                }
                event => Some(Event::Lane { lane, event }),
            },
            () = whereabouts.changed() => worker.moved(&whereabouts, core.run()),
            _ = looks.tick() => {
                show.send_replace((mono_ns(), core.view(mono_ns())));
                None
            }
            () = tokio::time::sleep(wait) => Some(Event::Tick { unacknowledged: worker.uplink.unacknowledged() }),
        };
        let mut left = None;
        for action in event.map_or_else(Vec::new, |event| core.step(mono_ns(), event)) {
            match action {
                Action::Leave(departure) => left = Some(departure),
                Action::HangUp => worker.hang_up(&mut whereabouts),
                action => worker.act(action)?,
            }
        }
        if let Some(departure) = left {
            break departure;
        }
        if core.wants_stream() {
            worker.call(&whereabouts, core.run())?;
        }
    };
    if let Some(registered) = registered
        && let Err(e) = registered.end().await
    {
        tracing::warn!("the registration runs out by itself: {e}");
    }
    if let Some(pusher) = pusher {
        pusher.end().await;
    }
    worker.leave(end).await
}

/// What the tasks of a worker say.
#[derive(Debug)]
enum Note {
    /// The stream with this number says something.
    Stream(u64, Event),
    /// A phase is prepared.
    Prepared { ticket: u64, outcome: Result<(Arc<ArmedPhase>, Option<Arc<Source>>), NotReady> },
    /// Something for the session.
    Session(Event),
    /// A node was sampled.
    Sampled(sampler::Sampled),
    /// The cluster was asked who owns its slots.
    Layout(Layout),
    /// The uplink says something.
    Uplink(Report),
}

struct Worker {
    options: WorkerOptions,
    name: WorkerId,
    /// Tells this process from another of the same name.
    instance: u64,
    /// The coordinator that is called, and the way to it.
    called: Option<(String, Channel)>,
    notes: UnboundedReceiver<Note>,
    noted: UnboundedSender<Note>,
    uplink: uplink::Handle,
    stream: Option<stream::Handle>,
    call_at: MonoNs,
    pause_ns: u64,
    registration: Option<(RunId, Generation)>,
    target: Option<TargetUrl>,
    lanes: Lanes,
    sampler: Option<sampler::Handle>,
    refresh: Option<refresh::Handle>,
    /// Where nodes of the target were seen.
    known: Vec<(String, u16)>,
    source: Newest<(Arc<Work>, Arc<Source>)>,
    left_behind: u64,
}

impl Worker {
    fn new(options: WorkerOptions) -> Result<Self, Error> {
        if let Coordinators::Listed(all) = &options.coordinators {
            // Known to be wrong now, not when it is their turn.
            all.iter().try_for_each(|address| endpoint(&options.security, address).map(drop))?;
        }
        let name = options
            .worker
            .clone()
            .unwrap_or_else(|| WorkerId::new(format!("{}-{}", Machine::here().host, std::process::id())));
        let (noted, notes) = unbounded_channel();
        let reports = forward(&noted, Note::Uplink);
        let uplink = uplink::spawn(name.clone(), options.token.clone(), reports);
        Ok(Self {
            name,
            instance: random(),
            called: None,
            notes,
            noted,
            uplink,
            stream: None,
            call_at: mono_ns(),
            pause_ns: RETRY_NS,
            registration: None,
            target: None,
            lanes: Lanes::default(),
            sampler: None,
            refresh: None,
            known: Vec::new(),
            source: Newest::default(),
            left_behind: 0,
            options,
        })
    }

    fn config(&self) -> Config {
        let (waits, others) = match &self.options.coordinators {
            Coordinators::Listed(all) => (false, all.len() > 1),
            Coordinators::Etcd(_) => (true, true),
        };
        let lanes = self.options.lanes.max(1);
        Config { hello: self.hello(), lanes, give_up_ns: GIVE_UP_NS, waits, others }
    }

    fn hello(&self) -> fleet::Hello {
        let machine = Machine::here();
        fleet::Hello {
            worker: self.name.to_string(),
            version: String::from(env!("CARGO_PKG_VERSION")),
            cores: machine.cores,
            memory_bytes: machine.memory_bytes,
            host: machine.host,
            lanes: self.options.lanes.max(1),
            token: self.options.token.clone().unwrap_or_default(),
            http: String::new(),
            instance: self.instance,
            before: None,
        }
    }

    /// Shows the state where that was asked for.
    async fn show(&self, shown: crate::site::Shown) -> Result<Option<vst_http::Server>, Error> {
        let Some(address) = &self.options.http else { return Ok(None) };
        let site = Arc::new(WorkerSite { worker: self.name.clone(), shown });
        Ok(Some(vst_http::Server::start(address, site).await?))
    }

    /// Pushes the state where that was asked for.
    fn push(&self, shown: crate::site::Shown) -> Result<Option<vst_http::Pusher>, Error> {
        let Some(gateway) = &self.options.pushgateway else { return Ok(None) };
        let site = Arc::new(WorkerSite { worker: self.name.clone(), shown });
        Ok(Some(vst_http::Pusher::start(gateway.clone(), site)?))
    }

    async fn register_in_etcd(&self, hello: &fleet::Hello) -> Result<Option<vst_etcd::Registration>, Error> {
        let Coordinators::Etcd(fleet) = &self.options.coordinators else { return Ok(None) };
        let member = vst_etcd::Member {
            worker: self.name.clone(),
            version: hello.version.clone(),
            host: hello.host.clone(),
            address: fleet.own_address().await,
            http: hello.http.clone(),
            cores: hello.cores,
            memory_bytes: hello.memory_bytes,
            lanes: hello.lanes,
        };
        let registered = fleet.register(&member).await?;
        tracing::info!("registered in etcd as {}", self.name);
        Ok(Some(registered))
    }

    fn event_of(&mut self, note: Note, whereabouts: &mut Whereabouts) -> Option<Event> {
        match note {
            Note::Stream(id, _) if self.stream.as_ref().is_none_or(|s| s.id() != id) => None,
            Note::Stream(_, event) => {
                if matches!(event, Event::Disconnected) {
                    self.hang_up(whereabouts);
                }
                Some(event)
            }
            Note::Prepared { ticket, outcome } => {
                let outcome = outcome.map(|(armed, source)| {
                    let work = Arc::new(armed.order.work.clone());
                    if let Some(source) = source {
                        self.source.put(ticket, (work, source));
                    }
                    self.remember(&armed.topology.nodes);
                    armed
                });
                Some(Event::Prepared { ticket, outcome })
            }
            Note::Session(event) => Some(event),
            Note::Layout(layout) => {
                self.laid_out(layout);
                None
            }
            Note::Sampled(sampled) => {
                self.uplink.send(match sampled {
                    sampler::Sampled::Memory(row) => Order::Memory(vec![*row]),
                    sampler::Sampled::Allocator(rows) => Order::Allocator(rows),
                });
                None
            }
            Note::Uplink(Report::Flushed { ticket, last_sequence, dropped }) => {
                Some(Event::Flushed { ticket, last_sequence, dropped })
            }
            Note::Uplink(Report::Delivered { left }) => {
                self.left_behind = left;
                Some(Event::Delivered)
            }
        }
    }

    fn act(&mut self, action: Action) -> Result<(), Error> {
        match action {
            Action::Send(message) => {
                if let Some(stream) = &self.stream {
                    stream.send(message);
                }
            }
            Action::Register { run, generation, target } => self.register(run, generation, target)?,
            Action::RestartLanes { first, count } => self.lanes.end(first, count),
            Action::Lane { lane, command } => self.lanes.command(lane, command)?,
            Action::Prepare { ticket, order } => self.prepare(ticket, *order),
            Action::Fetch { ticket, range } => self.fetch(ticket, range),
            Action::Verify { ticket, doubted } => self.verify(ticket, doubted),
            Action::Label { phase, name, at_wall, at: _, interval_ns, first_lane, lanes, k } => {
                let label = PhaseLabel { phase, name, at_wall, interval_ns, first_lane, lanes, k };
                self.uplink.send(Order::Label(label));
            }
            Action::Record { lane, phase, cells, recall, health } => {
                self.uplink.send(Order::Record { lane, phase, cells, recall, health });
            }
            Action::RecordQueries { lane: _, phase, per_query } => {
                self.uplink.send(Order::RecordQueries { phase, per_query });
            }
            Action::RecordEvent { phase, kind, node, detail, count } => {
                self.uplink.send(Order::Event { phase, kind, node, detail, count });
            }
            Action::Flush { ticket, phase } => self.uplink.send(Order::Flush { ticket, phase }),
            Action::Offset(offset) => {
                self.uplink.send(Order::Offset(offset));
                if let Some(sampler) = &self.sampler {
                    sampler.clock(offset);
                }
            }
            Action::Observe(observe) => {
                if let Some(sampler) = &self.sampler {
                    sampler.observe(observe.into());
                }
            }
            Action::Deliver => {
                self.sampler = None;
                self.refresh = None;
                self.lanes.end_all();
                self.uplink.send(Order::Deliver);
            }
            // The loop's own.
            Action::Leave(_) | Action::HangUp => {}
        }
        Ok(())
    }

    fn register(&mut self, run: RunId, generation: Generation, target: String) -> Result<(), Error> {
        tracing::info!("registered for run {run} as {} (generation {generation})", self.name);
        self.pause_ns = RETRY_NS;
        let target = TargetUrl::from_env(self.options.target.as_deref().unwrap_or(&target))?;
        let credentials = target.credentials().clone();
        self.target = Some(target);
        self.uplink.send(Order::Register { run: run.clone(), generation });
        self.lanes.register(lane::Config {
            number: 0,
            worker: self.name.clone(),
            run: run.clone(),
            generation,
            credentials: credentials.clone(),
        });
        self.registration = Some((run, generation));
        self.sampler = Some(sampler::spawn(credentials.clone(), forward(&self.noted, Note::Sampled)));
        self.refresh = Some(refresh::spawn(credentials, forward(&self.noted, Note::Layout)));
        Ok(())
    }

    fn prepare(&self, ticket: u64, order: PhaseOrder) {
        // There are no orders before the registration.
        let Some(target) = self.target.clone() else { return };
        let (known, noted) = (self.known.clone(), self.noted.clone());
        tokio::spawn(async move {
            let faults = ReadFaults::default();
            let outcome = prepare(order, target, &known, &faults).await;
            tell(&faults.take(), &noted);
            let _ = noted.send(Note::Prepared { ticket, outcome });
        });
    }

    fn fetch(&self, ticket: u64, range: vst_common::ranges::RowRange) {
        let (source, noted) = (self.source.of(ticket), self.noted.clone());
        tokio::spawn(async move {
            let outcome = match source {
                Some((_, source)) => {
                    let outcome = source.blocks(range).await.map_err(|e| with_sources(&e));
                    tell(&source.faults(), &noted);
                    outcome
                }
                None => Err(String::from("the phase has no rows")),
            };
            let _ = noted.send(Note::Session(Event::Fetched { ticket, range, outcome }));
        });
    }

    async fn leave(mut self, departure: Departure) -> Result<Exit, Error> {
        self.lanes.leave().await;
        let left = self.left_behind.max(self.uplink.unacknowledged());
        if left > 0 {
            tracing::warn!("{left} batches of measurements were not delivered");
        }
        match departure {
            Departure::Closed => Ok(Exit::Valid),
            Departure::Stopped => Ok(Exit::Interrupted),
            Departure::CoordinatorGone => Err(Error::CoordinatorGone {
                address: match (self.options.coordinators, self.called) {
                    (Coordinators::Listed(all), _) => all.join(", "),
                    (Coordinators::Etcd(_), Some((address, _))) => address,
                    (Coordinators::Etcd(_), None) => String::from("named by etcd"),
                },
                seconds: GIVE_UP_NS / SECOND_NS,
            }),
            Departure::Refused { reason } => Err(Error::Refused { reason }),
        }
    }
}

/// Random bits from the seed that the standard library takes from the system for its hash maps.
fn random() -> u64 {
    RandomState::new().hash_one(mono_ns())
}

/// A channel whose items become notes.
fn forward<T: Send + 'static>(noted: &UnboundedSender<Note>, note: fn(T) -> Note) -> UnboundedSender<T> {
    let (sender, mut receiver) = unbounded_channel();
    let noted = noted.clone();
    tokio::spawn(async move {
        while let Some(item) = receiver.recv().await {
            if noted.send(note(item)).is_err() {
                return;
            }
        }
    });
    sender
}

/// Repeated requests to a store become events.
fn tell(faults: &[ReadFault], noted: &UnboundedSender<Note>) {
    for fault in faults {
        let _ = noted.send(Note::Session(Event::ReadFault { detail: fault.to_string() }));
    }
}

/// The error and what is behind it, in one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(behind) = source {
        let said = behind.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = behind.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_and_none_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read x")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("disk on fire"));
        assert_eq!(with_sources(&error), "cannot read x: disk on fire");
    }
}
