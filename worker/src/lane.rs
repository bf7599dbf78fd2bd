//! A load lane: one thread, one poll set, its own connections.
//!
//! The thin shell around `pipeline`: it moves bytes between sockets and the pipeline, waits on a timer descriptor (the
//! poll call's own timeout counts milliseconds and would make every request late), and hands over measurements. It
//! takes [`LaneCommand`]s and gives [`LaneEvent`]s; it never waits for anyone who reads them.

mod resolver;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::sync::mpsc::UnboundedSender;
use vst_common::clock::{MonoNs, SECOND_NS, mono_ns, thread_cpu_ns};
use vst_common::count;
use vst_common::ids::{Generation, RunId, WorkerId};
use vst_common::seed::Draw;

use self::resolver::{Found, Resolver};
use crate::connection::{Connection, Error as ConnectionError, Greeting, Place, Progress};
use crate::pipeline::{LinkIndex, Pipeline};
pub use crate::topology::Credentials;
use crate::work::{ArmedPhase, LaneCommand, LaneEvent, LoadLease};

const WAKE: Token = Token(0);
const TIMER: Token = Token(1);
const FIRST_LINK: usize = 2;

/// Arming fails when a node does not answer for this long.
const CONNECT_LIMIT_NS: u64 = 10 * SECOND_NS;
/// Pause before the answer of a name server is looked for again.
const NAME_NS: u64 = 20_000_000;
/// First pause before a lost connection is opened again; doubles up to the largest.
const RECONNECT_NS: u64 = 50_000_000;
const RECONNECT_MAX_NS: u64 = SECOND_NS;
/// Time between two questions for the layout of the cluster.
const ASK_NS: u64 = 100_000_000;
/// An instant closer than this is waited for by polling without sleeping: setting a timer takes about as long.
const SPIN_NS: u64 = 10_000;

/// Why a lane could not begin.
#[derive(Debug, thiserror::Error)]
#[error("load lane could not be started: {0}")]
pub struct SpawnError(#[from] io::Error);

/// What a lane is called and how it logs in.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names it in its events: no two lanes of a process share one.
    pub number: u32,
    /// The worker.
    pub worker: WorkerId,
    /// The run.
    pub run: RunId,
    /// The worker's registration.
    pub generation: Generation,
    /// Login at the target.
    pub credentials: Credentials,
}

/// A running lane. Dropping it makes the thread leave.
#[derive(Debug)]
pub struct Handle {
    commands: Sender<LaneCommand>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Gives a command; a lane that left takes none.
    pub fn send(&self, command: LaneCommand) {
        if self.commands.send(command).is_ok() {
            // A failed wake means that the poll set is gone, and with it the lane.
            let _ = self.waker.wake();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.send(LaneCommand::Leave);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts a lane; its events arrive with its number.
///
/// # Errors
/// [`SpawnError`] when the operating system gives no thread, poll set or timer.
pub fn spawn(config: Config, events: UnboundedSender<(u32, LaneEvent)>) -> Result<Handle, SpawnError> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
        .map_err(io::Error::from)?;
    poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
    let (commands, receiver) = channel();
    let name = format!("lane-{}", config.number);
    let client_name = format!("{}/{}/{}", config.run, config.worker, config.generation);
    let lane = Lane {
        config,
        client_name,
        poll,
        timer,
        timer_at: 0,
        commands: receiver,
        events,
        resolver: Resolver::new(),
        drive: None,
    };
    let thread = std::thread::Builder::new().name(name).spawn(move || lane.run())?;
    Ok(Handle { commands, waker, thread: Some(thread) })
}

struct Lane {
    config: Config,
    /// What CLIENT LIST shows for its connections.
    client_name: String,
    poll: Poll,
    timer: OwnedFd,
    timer_at: MonoNs,
    commands: Receiver<LaneCommand>,
    events: UnboundedSender<(u32, LaneEvent)>,
    resolver: Resolver,
    drive: Option<Drive>,
}

/// A connection and its way back after a loss.
struct Line {
    connection: Option<Connection>,
    retry_at: MonoNs,
    pause_ns: u64,
    blocked: bool,
    /// The last connection never became ready: its address may be stale.
    refused: bool,
}

/// A phase on this lane.
struct Drive {
    phase: Arc<ArmedPhase>,
    pipeline: Pipeline,
    /// What every connection says first.
    greeting: Arc<Greeting>,
    /// Until when load may be sent, and whether the session said to send none before.
    lease: LoadLease,
    fenced: bool,
    lines: Vec<Line>,
    /// Lines without a connection.
    missing: usize,
    armed: bool,
    give_up_at: MonoNs,
    last_interval: u64,
    dirty: Vec<LinkIndex>,
    busy_since: MonoNs,
    cpu_before: u64,
    last_error: String,
    /// The layout of the cluster is in doubt, and has not been asked for yet.
    doubts: bool,
    /// When it may be asked for again.
    ask_at: MonoNs,
}

/// What a poll event says of a socket.
#[derive(Clone, Copy)]
struct Ready {
    readable: bool,
    writable: bool,
    closed: bool,
}

enum After {
    Stay,
    Leave,
}

impl Lane {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            if let After::Leave = self.take_commands() {
                return;
            }
            let wake = self.advance();
            if let Err(error) = self.wait(&mut events, wake) {
                self.tell(LaneEvent::Failed { reason: format!("polling failed: {error}"), target: false });
                return;
            }
            let now = mono_ns();
            let Some(drive) = &mut self.drive else { continue };
            drive.busy_since = now;
            for event in &events {
                if let Some(link) = event.token().0.checked_sub(FIRST_LINK) {
                    let ready = Ready {
                        readable: event.is_readable() || event.is_error(),
                        writable: event.is_writable() || event.is_error(),
                        closed: event.is_read_closed(),
                    };
                    drive.ready(link, ready, now, self.poll.registry());
                }
            }
        }
    }

    fn tell(&self, event: LaneEvent) {
        // Nobody listens only when the worker is leaving.
        let _ = self.events.send((self.config.number, event));
    }

    fn take_commands(&mut self) -> After {
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(std::sync::mpsc::TryRecvError::Empty) => return After::Stay,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return After::Leave,
            };
            match command {
                LaneCommand::Arm { phase, lane, lease } => self.arm(phase, lane, lease),
                LaneCommand::Leave => return After::Leave,
                LaneCommand::Abort => self.abort(),
                command => {
                    if let Some(drive) = &mut self.drive {
                        drive.obey(command);
                    }
                }
            }
        }
    }

    fn arm(&mut self, phase: Arc<ArmedPhase>, lane: u32, lease: LoadLease) {
        self.close_all();
        let greeting = Greeting::new(&self.client_name, &self.config.credentials, phase.order.connection);
        match Drive::new(phase, lane, lease, greeting) {
            Ok(drive) => self.drive = Some(drive),
            Err(reason) => self.tell(LaneEvent::Failed { reason, target: false }),
        }
    }

    fn abort(&mut self) {
        if let Some(drive) = &mut self.drive {
            let now = mono_ns();
            drive.pipeline.drain(now);
            drive.pipeline.abort(now);
        }
    }

    fn close_all(&mut self) {
        if let Some(drive) = self.drive.take() {
            for line in drive.lines {
                if let Some(connection) = line.connection {
                    connection.close(self.poll.registry());
                }
            }
        }
    }

    /// Does everything that can be done now; gives the instant at which to go on.
    fn advance(&mut self) -> Option<MonoNs> {
        let drive = self.drive.as_mut()?;
        let now = mono_ns();
        drive.connect(&mut self.resolver, self.poll.registry(), now);
        if !drive.armed {
            if drive.is_connected() {
                drive.armed = true;
                let phase = drive.phase.order.index;
                self.tell(LaneEvent::Armed { phase });
            } else if now >= drive.give_up_at {
                let reason = format!("cannot connect to the target: {}", drive.last_error);
                self.close_all();
                self.tell(LaneEvent::Failed { reason, target: true });
                return None;
            }
        }
        let drive = self.drive.as_mut()?;
        // Whatever the session says or does not get to say: the own clock decides.
        drive.pipeline.fence(drive.fenced || now >= drive.lease.until());
        drive.pipeline.pump(now);
        drive.flush(now, self.poll.registry());
        drive.close_useless(now, self.poll.registry());
        if drive.pipeline.take_doubt() {
            drive.doubts = true;
        }
        let asks = drive.doubts && now >= drive.ask_at;
        if asks {
            drive.doubts = false;
            drive.ask_at = now.saturating_add(ASK_NS);
        }
        let (measured, done) = drive.measure(mono_ns());
        if done.is_some() {
            drive.pipeline.give_back_rows();
        }
        let events = drive.pipeline.take_events();
        let wake = drive.wake(now);
        if asks {
            self.tell(LaneEvent::LayoutWanted);
        }
        for event in events.into_iter().chain(measured) {
            self.tell(event);
        }
        if let Some(done) = done {
            self.close_all();
            self.tell(done);
            return None;
        }
        wake
    }

    fn wait(&mut self, events: &mut Events, wake: Option<MonoNs>) -> io::Result<()> {
        let mut timeout = None;
        if let Some(at) = wake {
            let now = mono_ns();
            if at <= now.saturating_add(SPIN_NS) {
                timeout = Some(std::time::Duration::ZERO);
            } else if at < self.timer_at || self.timer_at <= now {
                // A timer that rings earlier stays as it is: in a busy lane it would be set anew at every turn.
                self.set_timer(at)?;
            }
        }
        loop {
            match self.poll.poll(events, timeout) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn set_timer(&mut self, at: MonoNs) -> io::Result<()> {
        let seconds = i64::try_from(at / SECOND_NS).unwrap_or(i64::MAX);
        let nanos = i64::try_from(at % SECOND_NS).unwrap_or(0);
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds, tv_nsec: nanos },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec).map_err(io::Error::from)?;
        self.timer_at = at;
        Ok(())
    }
}

impl Drive {
    fn new(phase: Arc<ArmedPhase>, lane: u32, lease: LoadLease, greeting: Greeting) -> Result<Self, String> {
        let pipeline = Pipeline::new(Arc::clone(&phase), lane).map_err(|e| e.to_string())?;
        let now = mono_ns();
        Ok(Self {
            phase,
            pipeline,
            greeting: Arc::new(greeting),
            lease,
            fenced: false,
            lines: Vec::new(),
            missing: 0,
            armed: false,
            give_up_at: now.saturating_add(CONNECT_LIMIT_NS),
            last_interval: 0,
            dirty: Vec::new(),
            busy_since: now,
            cpu_before: thread_cpu_ns(),
            last_error: String::from("no answer"),
            doubts: false,
            ask_at: now,
        })
    }

    fn obey(&mut self, command: LaneCommand) {
        match command {
            LaneCommand::Start { at, .. } => self.pipeline.start(at),
            LaneCommand::TakeOver { from_ns, shares } => self.pipeline.take_over(from_ns, &shares),
            LaneCommand::Rows(block) => self.pipeline.give(block),
            LaneCommand::NoMoreRows => self.pipeline.no_more_rows(),
            LaneCommand::Fence => self.fenced = true,
            LaneCommand::Resume => self.fenced = false,
            LaneCommand::Drain => self.pipeline.drain(mono_ns()),
            LaneCommand::Layout(layout) => self.pipeline.adopt(&layout, mono_ns()),
            LaneCommand::Arm { .. } | LaneCommand::Abort | LaneCommand::Leave => {}
        }
    }

    /// Opens connections that are missing and whose time has come.
    fn connect(&mut self, resolver: &mut Resolver, registry: &mio::Registry, now: MonoNs) {
        while self.lines.len() < self.pipeline.links() {
            self.lines.push(Line {
                connection: None,
                retry_at: now,
                pause_ns: RECONNECT_NS,
                blocked: false,
                refused: false,
            });
            self.missing += 1;
        }
        if self.missing == 0 {
            return;
        }
        for (link, line) in self.lines.iter_mut().enumerate() {
            if line.connection.is_some() || line.retry_at > now {
                continue;
            }
            let Some((_, host, port)) = self.pipeline.address(link) else { continue };
            if std::mem::take(&mut line.refused) {
                resolver.forget(host, port);
            }
            let place = if vst_access::is_socket_path(host) {
                Place::Unix(host.into())
            } else {
                match resolver.find(host, port) {
                    Found::Address(address) => Place::Tcp { address, name: host.to_owned() },
                    Found::Pending => {
                        line.retry_at = now.saturating_add(NAME_NS);
                        continue;
                    }
                    Found::Nowhere(reason) => {
                        self.last_error = reason;
                        line.postpone(link, now);
                        continue;
                    }
                }
            };
            match Connection::open(&place, &self.greeting, registry, Token(link + FIRST_LINK)) {
                Ok(connection) => {
                    line.connection = Some(connection);
                    self.missing -= 1;
                }
                Err(error) => {
                    self.last_error = format!("{place}: {error}");
                    line.refused = true;
                    line.postpone(link, now);
                    self.pipeline.link_refused(link);
                }
            }
        }
    }

    fn ready(&mut self, link: LinkIndex, ready: Ready, now: MonoNs, registry: &mio::Registry) {
        let Some(line) = self.lines.get_mut(link) else { return };
        let Some(connection) = &mut line.connection else { return };
        let mut result = Ok(Progress::Same);
        if ready.writable {
            line.blocked = false;
            result = connection.writable().map(|()| Progress::Same);
            if let Some(out) = self.pipeline.out(link)
                && connection.is_ready()
                && !out.is_empty()
                && result.is_ok()
            {
                result = connection.write(out).map(|()| Progress::Same);
            }
        }
        if (ready.readable || ready.closed) && result.is_ok() {
            let pipeline = &mut self.pipeline;
            result = connection.readable(ready.closed, |reply| Ok(pipeline.reply(link, reply, now)?));
        }
        match result {
            Ok(Progress::Same) => {}
            Ok(Progress::Ready) => {
                line.pause_ns = RECONNECT_NS;
                self.pipeline.link_up(link, now);
            }
            Err(error) => self.lose(link, &error, now, registry),
        }
    }

    fn lose(&mut self, link: LinkIndex, error: &ConnectionError, now: MonoNs, registry: &mio::Registry) {
        let Some(line) = self.lines.get_mut(link) else { return };
        let Some(connection) = line.connection.take() else { return };
        let was_ready = connection.is_ready();
        connection.close(registry);
        line.refused = !was_ready;
        line.postpone(link, now);
        self.missing += 1;
        let (node, place) = match self.pipeline.address(link) {
            Some((id, host, port)) => (Some(id.clone()), vst_access::join(host, port)),
            None => (None, String::from("a node that is gone")),
        };
        self.last_error = format!("{place}: {error}");
        if error.is_final() && !self.armed {
            self.give_up_at = now;
        }
        if was_ready {
            self.pipeline.happened("connection_lost", node, format!("{place}: {error}"));
            self.pipeline.link_down(link, now);
        } else {
            self.pipeline.link_refused(link);
        }
    }

    /// Whether every connection that the phase needs is there.
    fn is_connected(&self) -> bool {
        let ready = |line: &Line| line.connection.as_ref().is_some_and(Connection::is_ready);
        self.lines.iter().enumerate().all(|(link, line)| ready(line) || self.pipeline.is_idle(link))
    }

    /// Closes connections to nodes that own nothing any more and do not answer.
    fn close_useless(&mut self, now: MonoNs, registry: &mio::Registry) {
        for link in self.pipeline.take_useless() {
            self.lose(link, &ConnectionError::Useless, now, registry);
        }
    }

    /// Writes what the pipeline put into out-buffers.
    fn flush(&mut self, now: MonoNs, registry: &mio::Registry) {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.pipeline.take_dirty(&mut dirty);
        for link in dirty.drain(..) {
            let Some(line) = self.lines.get_mut(link) else { continue };
            let Some(out) = self.pipeline.out(link) else { continue };
            if line.blocked || out.is_empty() {
                continue;
            }
            let Some(connection) = &mut line.connection else { continue };
            match connection.write(out) {
                // What is left goes out when the socket says it is writable again.
                Ok(()) => line.blocked = !out.is_empty(),
                Err(error) => self.lose(link, &error, now, registry),
            }
        }
        self.dirty = dirty;
    }

    /// Intervals that are over, and the end of the phase.
    fn measure(&mut self, now: MonoNs) -> (Option<LaneEvent>, Option<LaneEvent>) {
        let phase = self.phase.order.index;
        let done = self.armed && self.pipeline.is_done(now);
        let interval = self.pipeline.recorder().interval(now);
        let (in_flight, backlog) = self.pipeline.load();
        let busy = now.saturating_sub(self.busy_since);
        self.pipeline.recorder().effort(now, busy, in_flight, backlog);
        self.busy_since = now;
        if interval == self.last_interval && !done {
            return (None, None);
        }
        self.last_interval = interval;
        let mut intervals = self.pipeline.recorder().take(now, done);
        // Reading a thread's CPU time is a system call, so it is done once an interval and booked to its end.
        let cpu = thread_cpu_ns();
        if let Some(health) = intervals.health.last_mut() {
            health.cpu_ns = cpu.saturating_sub(self.cpu_before);
            self.cpu_before = cpu;
        }
        let totals = self.pipeline.totals();
        let measured = LaneEvent::Measured {
            phase,
            cells: intervals.cells,
            recall: intervals.recall,
            health: intervals.health,
            totals,
            in_flight,
            backlog,
        };
        let done = done.then(|| LaneEvent::Done { phase, totals, per_query: self.pipeline.take_per_query() });
        (Some(measured), done)
    }

    fn wake(&self, now: MonoNs) -> Option<MonoNs> {
        let absent = self.lines.iter().filter(|line| line.connection.is_none());
        let retry = if self.missing == 0 { None } else { absent.map(|line| line.retry_at).min() };
        let give_up = (!self.armed).then_some(self.give_up_at);
        let interval = self.pipeline.next_interval(now);
        let ask = self.doubts.then_some(self.ask_at);
        [ask, self.pipeline.next_wake(now), retry, give_up, interval].into_iter().flatten().min()
    }
}

impl Line {
    /// Jitter keeps the connections of a fleet from coming back all at once.
    fn postpone(&mut self, link: LinkIndex, now: MonoNs) {
        let jitter = Draw::new(now, std::process::id(), count::len(link)).below(self.pause_ns);
        self.retry_at = now.saturating_add(self.pause_ns / 2).saturating_add(jitter);
        self.pause_ns = (self.pause_ns * 2).min(RECONNECT_MAX_NS);
        self.blocked = false;
    }
}
