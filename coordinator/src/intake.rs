//! Taking in what workers measured: each delivered batch goes to the log once, and is acknowledged when it is there.
//!
//! Fed by workers over Arrow Flight (`service`, read by `message`), checked by [`admission`], decided by [`core`]; what
//! is new goes to a [`BatchLog`], which is the run log. Law: only who registered delivers; a retry never doubles, a loss is never silent, arrival order is
//! irrelevant; an acknowledgement says that the log holds everything of the stream up to it.

pub mod admission;
pub mod core;
mod delivered;
mod message;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;
use vst_common::entry::StoredBatch;
use vst_common::ids::{Generation, RunId, Sequence, WorkerId};

use crate::roster::COORDINATOR;

use self::core::{Action, Event, IntakeCore, Waiter};
pub use self::core::{Refusal, Refused, StreamReport};
pub use self::delivered::{Delivered, Sequences, StreamKey};
use self::service::PutCaller;
pub use self::service::{FlightIntake, flight_service};

/// Deliveries that wait to be looked at, over all connections; behind them the connections wait.
const QUEUE_DELIVERIES: usize = 256;

/// Resolves when a batch is durable.
pub type Durable = BoxFuture<'static, Result<(), Refused>>;

/// Where batches are kept.
pub trait BatchLog: Send + Sync + 'static {
    /// Hands a batch over, waiting for room; what it gives resolves when the batch is durable with all before it.
    ///
    /// # Errors
    /// [`Refused`] when nothing more is taken.
    fn append(&self, batch: StoredBatch) -> impl Future<Output = Result<Durable, Refused>> + Send;
}

/// Up to where the log holds each stream without a gap.
pub type Reached = BTreeMap<StreamKey, Sequence>;

/// A handle to the intake of one run; clones share it.
#[derive(Clone, Debug)]
pub struct Intake {
    run: RunId,
    messages: mpsc::Sender<Message>,
    reached: watch::Receiver<Reached>,
    /// Whose deliveries are taken.
    expected: Arc<RwLock<BTreeSet<StreamKey>>>,
}

#[derive(Debug)]
enum Message {
    Event(Event<Caller>),
    Report(oneshot::Sender<Vec<StreamReport>>),
}

/// Who is told that a sequence is reached.
#[derive(Debug)]
enum Caller {
    /// A delivery on a Flight connection.
    Put(PutCaller),
    /// A caller within the coordinator.
    Local(oneshot::Sender<Result<(), Refusal>>),
}

impl Waiter for Caller {
    fn is_gone(&self) -> bool {
        match self {
            Self::Put(put) => put.is_gone(),
            Self::Local(local) => local.is_closed(),
        }
    }
}

impl Intake {
    /// Begins to take in batches of a run, of which `delivered` are in the log already.
    #[must_use]
    pub fn spawn(run: RunId, delivered: Delivered, log: impl BatchLog) -> Self {
        let before: Reached = delivered.streams().map(|(key, held)| (key.clone(), held.through())).collect();
        // The coordinator's own batches are in the log too, and nobody else makes any.
        let workers = before.keys().filter(|(worker, _)| worker.as_str() != COORDINATOR);
        let expected = Arc::new(RwLock::new(workers.cloned().collect()));
        let (messages, incoming) = mpsc::channel(QUEUE_DELIVERIES);
        let (changed, reached) = watch::channel(before);
        let shell =
            Shell { core: IntakeCore::new(delivered), log, appended: FuturesUnordered::new(), changed };
        tokio::spawn(shell.run(incoming));
        Self { run, messages, reached, expected }
    }

    /// From now on this registration's deliveries are taken. They are for as long as the run is open, whatever becomes
    /// of the worker.
    pub fn expect(&self, worker: WorkerId, generation: Generation) {
        self.expected.write().unwrap_or_else(PoisonError::into_inner).insert((worker, generation));
    }

    /// Whether a registration's deliveries are taken.
    fn expects(&self, key: &StreamKey) -> bool {
        self.expected.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Follows how far each stream is.
    #[must_use]
    pub fn reached(&self) -> watch::Receiver<Reached> {
        self.reached.clone()
    }

    /// Notes a worker's statement of the last sequence that it delivers for a phase (0 for none).
    pub async fn state(&self, worker: WorkerId, generation: Generation, last: Sequence) {
        self.send(Event::Stated((worker, generation), last)).await;
    }

    /// Waits until the log holds everything of a stream up to `last`.
    ///
    /// # Errors
    /// [`Refusal`] when that cannot happen any more.
    pub async fn complete(
        &self,
        worker: WorkerId,
        generation: Generation,
        last: Sequence,
    ) -> Result<(), Refusal> {
        let (done, answer) = oneshot::channel();
        self.send(Event::Awaited((worker, generation), last, Caller::Local(done))).await;
        answer.await.unwrap_or(Err(Refusal::Closed))
    }

    /// Takes in a batch that came another way than over Flight, and waits for its acknowledgement.
    ///
    /// # Errors
    /// [`Refusal`] when it is not taken.
    pub async fn deliver(&self, batch: StoredBatch) -> Result<(), Refusal> {
        let (done, answer) = oneshot::channel();
        self.send(Event::Delivered(batch, Caller::Local(done))).await;
        answer.await.unwrap_or(Err(Refusal::Closed))
    }

    /// How far each stream is, and what is missing of what was stated.
    pub async fn report(&self) -> Vec<StreamReport> {
        let (done, answer) = oneshot::channel();
        if self.messages.send(Message::Report(done)).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// The run is closed: takes nothing new from now on; what was handed to the log is still acknowledged.
    pub async fn close(&self) {
        self.send(Event::Closed).await;
    }

    /// A message that finds nobody drops its caller, who is told by that.
    async fn send(&self, event: Event<Caller>) {
        let _ = self.messages.send(Message::Event(event)).await;
    }
}

/// Runs the core: deliveries in, batches to the log, acknowledgements out.
struct Shell<L> {
    core: IntakeCore<Caller>,
    log: L,
    appended: FuturesUnordered<BoxFuture<'static, Event<Caller>>>,
    changed: watch::Sender<Reached>,
}

impl<L: BatchLog> Shell<L> {
    async fn run(mut self, mut incoming: mpsc::Receiver<Message>) {
        loop {
            let message = tokio::select! {
                Some(event) = self.appended.next(), if !self.appended.is_empty() => Some(Message::Event(event)),
                message = incoming.recv() => message,
            };
            match message {
                Some(Message::Event(event)) => self.step(event).await,
                Some(Message::Report(done)) => drop(done.send(self.core.report())),
                None => break,
            }
        }
        // Nobody delivers any more; who was promised an answer still gets it.
        while let Some(event) = self.appended.next().await {
            self.step(event).await;
        }
    }

    async fn step(&mut self, event: Event<Caller>) {
        for action in self.core.step(event) {
            match action {
                // While the log has no room nothing else is taken in either: that holds the workers back.
                Action::Append(batch) => {
                    let (key, sequence) = ((batch.worker.clone(), batch.generation), batch.sequence);
                    let handed_over = self.log.append(batch).await;
                    let outcome = async move {
                        match handed_over {
                            Ok(durable) => durable.await,
                            Err(refused) => Err(refused),
                        }
                    };
                    self.appended.push(Box::pin(async move {
                        match outcome.await {
                            Ok(()) => Event::Durable(key, sequence),
                            Err(refused) => Event::Failed(key, sequence, refused),
                        }
                    }));
                }
                Action::Acknowledge(Caller::Put(put), key, sequence) => put.acknowledge(key, sequence),
                Action::Acknowledge(Caller::Local(local), ..) => drop(local.send(Ok(()))),
                Action::Refuse(Caller::Put(put), refusal) => put.refuse(&refusal),
                Action::Refuse(Caller::Local(local), refusal) => drop(local.send(Err(refusal))),
                Action::Reached(key, sequence) => self.changed.send_modify(|reached| {
                    reached.insert(key, sequence);
                }),
            }
        }
    }
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::OtherRun { .. } | Refusal::Closed => Self::failed_precondition(text),
            Refusal::Batch { generation, sequence, .. } => {
                // The worker is told which one, so that it does not deliver it for ever.
                let mut metadata = tonic::metadata::MetadataMap::new();
                if let Ok(which) = format!("{generation}/{sequence}").parse() {
                    metadata.insert(vst_common::batch::REFUSED_BATCH, which);
                }
                Self::with_metadata(tonic::Code::InvalidArgument, text, metadata)
            }
            Refusal::Delivery(_) | Refusal::Sequence { .. } => Self::invalid_argument(text),
            // Not for good: a worker may deliver before the coordinator has read its hello.
            Refusal::Stranger { .. } => Self::permission_denied(text),
            Refusal::Log(_) => Self::unavailable(text),
        }
    }
}

#[cfg(test)]
mod tests;
