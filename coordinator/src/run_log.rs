//! The run log: everything of a run that must survive, as numbered immutable entries in the run directory.
//!
//! Controls come from the run's state machine, batches from `intake` and from the coordinator's own observations;
//! `archive` and analysis read the entries. [`core`] decides, this is its shell. Law: what was reported durable is in
//! the log exactly once, whoever dies at whatever instant; to lead a run is to have created its next entry.

pub mod core;
mod replay;
pub(crate) mod store;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, pin_mut};
use tokio::sync::{mpsc, oneshot, watch};
use vst_common::clock::{self, MonoNs, SECOND_NS};
use vst_common::entry::{self, Control, StoredBatch};
use vst_common::ids::RunId;
use vst_common::run_dir::{self, Results, RunDir, layout};

use self::core::{Action, Event, Found, Now, RunLogCore, Ticket};
pub use self::core::{Limits, Record, Stopped};
pub use self::replay::Replay;
use self::store::DurableStore;
use crate::intake::{BatchLog, Durable, Refused};

/// A leader is sure to lead for this long after it began its last entry, nanoseconds: nobody takes the lead before
/// [`SILENCE_NS`].
pub const SURE_NS: u64 = 4 * SECOND_NS;
/// A log that has not grown for this long has no leader any more, nanoseconds.
const SILENCE_NS: u64 = 6 * SECOND_NS;
/// Time between two looks for the next entry.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Records that wait to be looked at; behind them the log holds at most [`Limits::entry_bytes`] and one batch.
const QUEUE_RECORDS: usize = 256;

/// Why a log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run directory cannot be read.
    #[error(transparent)]
    RunDir(#[from] run_dir::Error),
    /// The folder cannot be made or synced.
    #[error("run directory `{location}` cannot be written; check that the folder may be created there")]
    Folder {
        /// Where.
        location: String,
        /// Why.
        source: io::Error,
    },
    /// `run.json` cannot be written.
    #[error("`run.json` cannot be written to the run directory")]
    RunJson(#[source] io::Error),
    /// The log is another run's.
    #[error("the run directory holds run `{found}`, not `{wanted}`; give each run a directory of its own")]
    OtherRun {
        /// The run that was to be continued.
        wanted: RunId,
        /// The run in the log.
        found: RunId,
    },
    /// The run is not what this coordinator was started for.
    #[error("run {run} cannot be continued: {reason}")]
    Unfit {
        /// The run.
        run: RunId,
        /// Why, with the fix.
        reason: String,
    },
    /// Two leaders wrote at once: the store does not keep its promise of create-if-absent.
    #[error(
        "log entry {number} has epoch {epoch} after epoch {before}: the store let two coordinators lead at once"
    )]
    EpochFell {
        /// The entry.
        number: u64,
        /// Its epoch.
        epoch: u64,
        /// The epoch of the entry before.
        before: u64,
    },
    /// The log takes nothing more.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Opens the log in a run directory (a path or URL as [`RunDir::open`] takes it; a folder is made when it is not
/// there), replays it, and takes the lead. `leader` names this process; no two processes may share a name.
///
/// # Errors
/// [`Error`] when the directory cannot be used, holds another run, or another coordinator took the lead meanwhile.
pub async fn open(location: &str, run: &RunId, leader: &str) -> Result<RunLog, Error> {
    open_dir(made(location).await?, run, leader, Limits::default()).await
}

/// A run directory that can be written; a store needs nothing made.
async fn made(location: &str) -> Result<RunDir, Error> {
    if let Results::Folder(folder) = location.parse()? {
        let failed = |source| Error::Folder { location: location.to_owned(), source };
        store::prepare_folder(&folder).await.map_err(failed)?;
    }
    Ok(RunDir::open(location)?)
}

/// As [`open`], in a run directory that the caller opened, with limits of its own.
///
/// # Errors
/// As [`open`].
pub async fn open_dir(dir: RunDir, run: &RunId, leader: &str, limits: Limits) -> Result<RunLog, Error> {
    let replay = replay(&dir, run).await?;
    lead(dir, run, leader, limits, replay).await
}

/// What waiting for the lead came to.
#[derive(Debug)]
pub enum Waited {
    /// The lead is taken; the replay says what was there before.
    Leads(RunLog),
    /// The run is over.
    Over(Replay),
}

/// Who may begin a run that has no log yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// This coordinator, at once.
    Here,
    /// Only another one, which has to within this time, nanoseconds.
    ByAnother {
        /// From now on.
        within_ns: u64,
    },
}

/// Takes the lead of a run as soon as nobody has it: at once where there is no log yet, else when the log has not grown
/// for a while. `look` is shown what the log says while somebody else leads, and may refuse to go on with such a run.
///
/// # Errors
/// As [`open`]; but that another coordinator took the lead meanwhile only means to wait on.
pub async fn wait_for_lead(
    location: &str,
    run: &RunId,
    leader: &str,
    begin: Begin,
    mut look: impl FnMut(&Replay) -> Result<(), Error>,
) -> Result<Waited, Error> {
    let since = clock::mono_ns();
    if let Begin::ByAnother { within_ns } = begin {
        // Nothing is left behind where nobody begins.
        while let Err(e @ run_dir::Error::NoFolder { .. }) = RunDir::open(location) {
            if clock::mono_ns().saturating_sub(since) >= within_ns {
                tracing::warn!("{e}");
                return Err(not_begun(location, run));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    let dir = made(location).await?;
    let store = DurableStore::new(dir.clone());
    let mut replay = replay(&dir, run).await?;
    let mut grew = clock::mono_ns();
    if let Begin::ByAnother { within_ns } = begin
        && replay.last == 0
    {
        let seconds = within_ns / SECOND_NS;
        tracing::warn!(
            "run {run} has no log in `{location}` yet; waiting up to {seconds} s for its leader to begin it"
        );
    }
    loop {
        let is_over = |(_, control): &(u64, Control)| matches!(control, Control::RunClosed { .. });
        if replay.controls.last().is_some_and(is_over) {
            return Ok(Waited::Over(replay));
        }
        if replay.last > 0 {
            look(&replay)?;
        }
        let silent = clock::mono_ns().saturating_sub(grew) >= SILENCE_NS;
        let free = if replay.last == 0 { begin == Begin::Here } else { silent };
        if let Begin::ByAnother { within_ns } = begin
            && replay.last == 0
            && clock::mono_ns().saturating_sub(since) >= within_ns
        {
            return Err(not_begun(location, run));
        }
        if free {
            let known = replay.clone();
            match lead(dir.clone(), run, leader, Limits::default(), known).await {
                Ok(log) => return Ok(Waited::Leads(log)),
                Err(Error::Stopped(Stopped::OtherLeader { .. })) => grew = clock::mono_ns(),
                Err(e) => return Err(e),
            }
        }
        let number = replay.last.saturating_add(1);
        match store.find(&layout::entry_path(number)).await {
            Found::Object(bytes) => {
                let entry = entry::Entry::decode(&bytes)
                    .map_err(|source| run_dir::Error::Entry { number, source })?;
                replay.take(entry, run)?;
                grew = clock::mono_ns();
            }
            Found::Nothing => tokio::time::sleep(LOOK_EVERY).await,
            Found::Unreadable(reason) => {
                // Nothing is known about the leader: silence must not be counted.
                tracing::warn!("log entry {number} cannot be read: {reason}");
                grew = clock::mono_ns();
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

fn not_begun(location: &str, run: &RunId) -> Error {
    let reason = format!(
        "no coordinator has begun it in `{location}`; give --results and --run the leader's values, in a place that \
         both can write to"
    );
    Error::Unfit { run: run.clone(), reason }
}

async fn lead(
    dir: RunDir,
    run: &RunId,
    leader: &str,
    limits: Limits,
    replay: Replay,
) -> Result<RunLog, Error> {
    let (claim, claimed) = oneshot::channel();
    let now = now();
    let ticket = Ticket(0);
    let next = replay.last.saturating_add(1);
    let epoch = replay.epoch.saturating_add(1);
    let (core, actions) = RunLogCore::lead(run.clone(), leader, epoch, next, ticket, limits, now);
    let (requests, incoming) = mpsc::channel(QUEUE_RECORDS);
    let (state, seen) = watch::channel(Progress { durable: replay.last, confirmed: 0, stopped: None });
    let shell = Shell {
        core,
        store: DurableStore::new(dir.clone()),
        incoming,
        open: true,
        callers: HashMap::from([(ticket, claim)]),
        next_ticket: 1,
        closers: Vec::new(),
        state,
        store_work: None,
        wake_at: None,
        finished: false,
    };
    tokio::spawn(shell.run(actions));
    claimed.await.unwrap_or(Err(Stopped::Closed))?;
    Ok(RunLog { requests, seen, dir, replay: Arc::new(replay), epoch })
}

/// Reads a log without taking the lead.
///
/// # Errors
/// [`Error`] when the directory cannot be read or holds another run.
pub async fn replay(dir: &RunDir, run: &RunId) -> Result<Replay, Error> {
    let numbers = dir.list_entries().await?;
    if let Some(first) = numbers.first().filter(|first| **first > entry::FIRST) {
        let count = first - entry::FIRST;
        return Err(run_dir::Error::Missing { first: entry::FIRST, count }.into());
    }
    let mut replay = Replay::default();
    let entries = dir.read_entries(numbers);
    pin_mut!(entries);
    while let Some(entry) = entries.next().await {
        replay.take(entry?, run)?;
    }
    Ok(replay)
}

#[derive(Clone, Debug)]
struct Progress {
    durable: u64,
    /// When the last durable entry was begun.
    confirmed: MonoNs,
    stopped: Option<Stopped>,
}

#[expect(clippy::large_enum_variant, reason = "a few hundred exist at once, each for a moment")]
enum Request {
    Append(Record, oneshot::Sender<Result<u64, Stopped>>),
    Close(oneshot::Sender<()>),
}

/// A handle to the log of this leader; clones share it. When all are gone the log writes what it took and ends.
#[derive(Clone, Debug)]
pub struct RunLog {
    requests: mpsc::Sender<Request>,
    seen: watch::Receiver<Progress>,
    dir: RunDir,
    replay: Arc<Replay>,
    epoch: u64,
}

/// A record that the log took and that is not yet durable.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<u64, Stopped>>);

impl Pending {
    /// The number of the entry that holds the record, once that entry and all before it are durable.
    ///
    /// # Errors
    /// [`Stopped`] when this log will not write it; it may be in the log all the same.
    pub async fn durable(self) -> Result<u64, Stopped> {
        self.0.await.unwrap_or(Err(Stopped::Closed))
    }
}

impl RunLog {
    /// What the log held when it was opened.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// The epoch of this leader: also the generation of the batches that the coordinator itself makes, so that they
    /// never share an identity with those of a leader before.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The directory that the log is in.
    #[must_use]
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// Number of the last entry that is durable with all before it.
    #[must_use]
    pub fn last_durable(&self) -> u64 {
        self.seen.borrow().durable
    }

    /// When this leader was last seen to lead: the instant at which its last durable entry was begun.
    #[must_use]
    pub fn confirmed_at(&self) -> MonoNs {
        self.seen.borrow().confirmed
    }

    /// Waits until entry `number` is durable; `false` when the log stopped before.
    pub async fn reached(&self, number: u64) -> bool {
        let mut seen = self.seen.clone();
        let state = seen.wait_for(|state| state.durable >= number || state.stopped.is_some()).await;
        state.is_ok_and(|state| state.durable >= number)
    }

    /// Waits until the log takes nothing more, and says why.
    pub async fn stopped(&self) -> Stopped {
        let mut seen = self.seen.clone();
        match seen.wait_for(|state| state.stopped.is_some()).await {
            Ok(state) => state.stopped.clone().unwrap_or(Stopped::Closed),
            Err(_) => Stopped::Closed,
        }
    }

    /// Hands a record to the log, waiting for room; records of one caller are written in the order of these calls.
    ///
    /// # Errors
    /// [`Stopped`] when the log takes nothing more.
    pub async fn enqueue(&self, record: Record) -> Result<Pending, Stopped> {
        let (done, pending) = oneshot::channel();
        match self.requests.send(Request::Append(record, done)).await {
            Ok(()) => Ok(Pending(pending)),
            Err(_) => Err(self.seen.borrow().stopped.clone().unwrap_or(Stopped::Closed)),
        }
    }

    /// Appends a control and waits until it is durable; gives the number of its entry.
    ///
    /// # Errors
    /// [`Stopped`] when the log does not write it.
    pub async fn append_control(&self, control: Control) -> Result<u64, Stopped> {
        self.enqueue(Record::Control(control)).await?.durable().await
    }

    /// Appends a batch and waits until it is durable; gives the number of its entry. Batches of workers go through
    /// `intake`, which knows those that are already here.
    ///
    /// # Errors
    /// [`Stopped`] when the log does not write it.
    pub async fn append_batch(&self, batch: StoredBatch) -> Result<u64, Stopped> {
        self.enqueue(Record::Batch(batch)).await?.durable().await
    }

    /// Writes `run.json`, also over an older one; readers see the one or the other, whole.
    ///
    /// # Errors
    /// [`Error::RunJson`] when it cannot be written.
    pub async fn write_run_json(&self, facts: &serde_json::Value) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(facts).map_err(|e| Error::RunJson(io::Error::other(e)))?;
        DurableStore::new(self.dir.clone())
            .replace(run_dir::RUN_JSON, Bytes::from(bytes))
            .await
            .map_err(Error::RunJson)
    }

    /// Writes what was appended and takes nothing more; gives the number of the last durable entry.
    pub async fn close(&self) -> u64 {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            // An error means that the log has ended already, which is what is waited for.
            let _ = closed.await;
        }
        self.last_durable()
    }
}

impl BatchLog for RunLog {
    async fn append(&self, batch: StoredBatch) -> Result<Durable, Refused> {
        let pending = self.enqueue(Record::Batch(batch)).await.map_err(|e| Refused(e.to_string()))?;
        Ok(async move { pending.durable().await.map(|_| ()).map_err(|e| Refused(e.to_string())) }.boxed())
    }
}

/// Runs the core: one at a time the store's work, beside it the queue and the clock.
struct Shell {
    core: RunLogCore,
    store: DurableStore,
    incoming: mpsc::Receiver<Request>,
    open: bool,
    callers: HashMap<Ticket, oneshot::Sender<Result<u64, Stopped>>>,
    next_ticket: u64,
    closers: Vec<oneshot::Sender<()>>,
    state: watch::Sender<Progress>,
    store_work: Option<BoxFuture<'static, Event>>,
    wake_at: Option<clock::MonoNs>,
    finished: bool,
}

impl Shell {
    async fn run(mut self, first: Vec<Action>) {
        self.perform(first);
        while !self.finished {
            let event = self.next_event().await;
            if let Some(event) = event {
                self.wake_at = self.wake_at.filter(|_| !matches!(event, Event::Woke));
                let actions = self.core.step(event, now());
                self.perform(actions);
            }
        }
        // What came after the end is refused, not left to wait.
        self.incoming.close();
        while let Some(request) = self.incoming.recv().await {
            match request {
                Request::Append(_, done) => {
                    let _ = done.send(Err(Stopped::Closed));
                }
                Request::Close(done) => drop(done),
            }
        }
    }

    async fn next_event(&mut self) -> Option<Event> {
        let wait = self.wake_at.map(|at| Duration::from_nanos(at.saturating_sub(clock::mono_ns())));
        let store_work = async {
            match &mut self.store_work {
                Some(work) => work.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = store_work => {
                self.store_work = None;
                Some(event)
            }
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => Some(Event::Woke),
            request = self.incoming.recv(), if self.open && self.core.has_room() => match request {
                Some(Request::Append(record, done)) => {
                    let ticket = Ticket(self.next_ticket);
                    self.next_ticket += 1;
                    self.callers.insert(ticket, done);
                    Some(Event::Appended(ticket, record))
                }
                Some(Request::Close(done)) => {
                    self.closers.push(done);
                    Some(Event::Closing)
                }
                None => {
                    self.open = false;
                    Some(Event::Closing)
                }
            },
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Create { number, bytes, wait_ns } => {
                    let store = self.store.clone();
                    self.store_work = Some(
                        async move {
                            if wait_ns > 0 {
                                tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
                            }
                            Event::Created(store.create(&layout::entry_path(number), bytes).await)
                        }
                        .boxed(),
                    );
                }
                Action::ReadBack { number } => {
                    let store = self.store.clone();
                    self.store_work = Some(
                        async move { Event::ReadBack(store.find(&layout::entry_path(number)).await) }.boxed(),
                    );
                }
                Action::Durable { number, begun, tickets } => {
                    self.state.send_modify(|state| {
                        state.durable = number;
                        state.confirmed = begun;
                    });
                    self.answer(tickets, &Ok(number));
                }
                Action::Refuse(tickets, reason) => {
                    if !matches!(reason, Stopped::Record(_) | Stopped::Closed) {
                        self.stopped(reason.clone());
                    }
                    self.answer(tickets, &Err(reason));
                }
                Action::WakeAt(at) => self.wake_at = Some(at),
                Action::Finished => {
                    self.stopped(Stopped::Closed);
                    self.finished = true;
                }
            }
        }
    }

    fn stopped(&self, reason: Stopped) {
        self.state.send_modify(|state| {
            state.stopped.get_or_insert(reason);
        });
    }

    fn answer(&mut self, tickets: Vec<Ticket>, result: &Result<u64, Stopped>) {
        for ticket in tickets {
            if let Some(caller) = self.callers.remove(&ticket) {
                // A caller that went away needs no answer.
                let _ = caller.send(result.clone());
            }
        }
    }
}

fn now() -> Now {
    Now { mono: clock::mono_ns(), wall: clock::wall_ns() }
}

#[cfg(test)]
mod tests;
