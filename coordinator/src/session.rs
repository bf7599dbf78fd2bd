//! The fleet's gRPC service: streams of workers in, orders out; `Watch` and `Stop` for whoever looks on.
//!
//! Turns messages into events for the run and the run's words into messages; decides nothing. Each stream of a worker
//! is one generation, given when it opens. Law: what one stream says reaches the run in order; whoever has not said
//! hello and been let in is not heard; a worker that does not read its orders loses its stream instead of holding the
//! others back.

mod words;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use vst_common::clock;
use vst_common::ids::Generation;
use vst_common::phase::SearchPlan;
use vst_common::scenario::PhaseSpec;
use vst_proto::fleet;
use vst_proto::fleet::worker_message::Message as FromWorker;

use crate::roster::Refusal;
use crate::run::{Event, Tell};
use crate::secret::same_secret;
use crate::status::{Board, Look};
use crate::target::TargetNode;
pub use words::Words;
pub(crate) use words::role_name;

/// Orders that wait to be read by one worker.
const OUTGOING: usize = 256;
/// A registration that no stream has: generations of a leader begin at 1.
const NOBODY: u64 = 0;
/// For the first word of a stream to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks at the run.
const WATCH_EVERY: Duration = Duration::from_millis(500);

type Order = Result<fleet::CoordinatorMessage, Status>;

/// All streams of the run.
#[derive(Debug)]
pub struct Hub {
    words: Mutex<Words>,
    token: Option<String>,
    opened: AtomicU64,
    events: mpsc::Sender<Event>,
    streams: Mutex<HashMap<Generation, Outgoing>>,
    board: Mutex<Board>,
    demands: Option<mpsc::Sender<Demand>>,
    status: watch::Receiver<Look>,
}

/// Somebody wants a further phase of a run whose phases come on demand.
#[derive(Debug)]
pub struct Demand {
    /// The phase; `None` only to wait.
    pub phase: Option<PhaseSpec>,
    /// No phase will come any more.
    pub last: bool,
    /// Told when the run waits for the next, or why it never will.
    pub answer: oneshot::Sender<Result<Waiting, String>>,
}

/// Where a run is that waits for its next phase.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The run.
    pub run: String,
    /// Its directory.
    pub run_directory: String,
}

#[derive(Clone, Debug)]
struct Outgoing {
    orders: mpsc::Sender<Order>,
    ended: CancellationToken,
    /// As which registration what it says is passed on.
    speaks_as: Arc<AtomicU64>,
    /// Whether the worker at the other end was let in.
    welcomed: bool,
}

impl Hub {
    /// No stream is open. Generations count on from `before`; `status` is what `Watch` shows.
    #[must_use]
    pub fn new(
        words: Words,
        token: Option<String>,
        before: Generation,
        events: mpsc::Sender<Event>,
        status: watch::Receiver<Look>,
    ) -> Self {
        Self {
            words: Mutex::new(words),
            token,
            opened: AtomicU64::new(before.0),
            events,
            streams: Mutex::default(),
            board: Mutex::default(),
            demands: None,
            status,
        }
    }

    /// The nodes as they are now: orders to observe them name the roles and indexes that they have.
    pub(crate) fn learn(&self, nodes: &[TargetNode], search: Option<&SearchPlan>) {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).learn(nodes, search);
    }

    /// Whoever asks for a further phase is heard by this channel's other end.
    #[must_use]
    pub fn on_demand(self, demands: mpsc::Sender<Demand>) -> Self {
        Self { demands: Some(demands), ..self }
    }

    /// Sends to a worker. One that is gone is told nothing; one that does not read is let go.
    pub fn tell(&self, generation: Generation, tell: &Tell) {
        let known = self.streams().get_mut(&generation).map(|outgoing| {
            outgoing.welcomed |= matches!(tell, Tell::Welcome | Tell::Resumed);
            outgoing.clone()
        });
        let Some(outgoing) = known else { return };
        let message = self.words.lock().unwrap_or_else(PoisonError::into_inner).message(generation, tell);
        let message = match message {
            Ok(message) => fleet::CoordinatorMessage { message: Some(message) },
            Err(e) => {
                tracing::error!("order to worker {generation} cannot be written: {e}");
                return self.end(generation);
            }
        };
        if outgoing.orders.try_send(Ok(message)).is_err() {
            tracing::warn!("worker {generation} does not read its orders; its stream is ended");
            self.end(generation);
        }
    }

    /// Tells a worker why it is not let in, and ends its stream.
    pub fn refuse(&self, generation: Generation, refusal: &Refusal) {
        let text = refusal.to_string();
        let status = match refusal {
            Refusal::Version { .. } => Status::failed_precondition(text),
            Refusal::Token { .. } => Status::unauthenticated(text),
            Refusal::Empty { .. } | Refusal::Reserved { .. } => Status::invalid_argument(text),
            Refusal::Taken { .. } => Status::already_exists(text),
        };
        if let Some(outgoing) = self.streams().get(&generation) {
            // A full queue would lose the reason, which only a worker that does not read can cause.
            let _ = outgoing.orders.try_send(Err(status));
        }
        self.end(generation);
    }

    /// Tells whoever is no worker why its stream ends.
    fn turn_away(&self, generation: Generation, status: Status) {
        if let Some(outgoing) = self.streams().get(&generation) {
            // The queue is empty: nothing was sent to it yet.
            let _ = outgoing.orders.try_send(Err(status));
        }
    }

    /// From now on this stream is that of an earlier registration; what the stream before still says is nobody's.
    pub fn adopt(&self, stream: Generation, registration: Generation) {
        let mut streams = self.streams();
        let Some(outgoing) = streams.remove(&stream) else { return };
        outgoing.speaks_as.store(registration.0, Ordering::Release);
        if let Some(before) = streams.insert(registration, outgoing) {
            before.speaks_as.store(NOBODY, Ordering::Release);
            before.ended.cancel();
        }
    }

    /// Ends a stream; what was sent before still goes out.
    pub fn end(&self, generation: Generation) {
        if let Some(outgoing) = self.streams().remove(&generation) {
            outgoing.ended.cancel();
        }
        self.board().left(generation);
    }

    /// Takes a stream out that has ended; gives whose it was, and nobody where another has taken its place.
    fn ended_by_itself(&self, speaks_as: &Arc<AtomicU64>) -> Option<Generation> {
        let mut streams = self.streams();
        let generation = Generation(speaks_as.load(Ordering::Acquire));
        if streams.get(&generation).is_some_and(|outgoing| Arc::ptr_eq(&outgoing.speaks_as, speaks_as)) {
            streams.remove(&generation);
        }
        drop(streams);
        self.board().left(generation);
        (generation.0 != NOBODY).then_some(generation)
    }

    /// The figures that workers report.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<Generation, Outgoing>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, token: &str) -> Result<(), Status> {
        match &self.token {
            Some(own) if !same_secret(own.as_bytes(), token.as_bytes()) => Err(Status::unauthenticated(
                "this fleet has a token: set VST_TOKEN to the coordinator's value",
            )),
            _ => Ok(()),
        }
    }

    /// Reads one stream until either side ends it.
    async fn read(
        self: Arc<Self>,
        speaks_as: Arc<AtomicU64>,
        from: String,
        mut inbound: Streaming<fleet::WorkerMessage>,
        ended: CancellationToken,
    ) {
        let own = || Generation(speaks_as.load(Ordering::Acquire));
        let run = self.words.lock().unwrap_or_else(PoisonError::into_inner).run.clone();
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        let mut greeted = false;
        loop {
            let message = tokio::select! {
                () = ended.cancelled() => break,
                () = &mut patience, if !greeted => {
                    self.turn_away(own(), Status::deadline_exceeded("a session begins with a hello, at once"));
                    break;
                }
                message = inbound.message() => message,
            };
            // A broken stream is an ended one: the worker comes back with a new one if it can.
            let Ok(Some(fleet::WorkerMessage { message })) = message else { break };
            let Some(message) = message else { continue };
            let (now, generation) = (clock::mono_ns(), own());
            match (greeted, matches!(message, FromWorker::Hello(_))) {
                (false, true) => greeted = true,
                (false, false) => {
                    self.turn_away(generation, Status::invalid_argument("a session begins with a hello"));
                    break;
                }
                // Who it is has been said.
                (true, true) => continue,
                // Only a member is heard: whoever was not let in can neither show figures nor keep the run busy.
                (true, false) => {
                    if !self.streams().get(&generation).is_some_and(|outgoing| outgoing.welcomed) {
                        continue;
                    }
                }
            }
            if let FromWorker::Progress(progress) = message {
                self.board().progress(generation, progress, now);
                continue;
            }
            if let FromWorker::Heartbeat(beat) = &message {
                self.board().unacknowledged(generation, beat.unacknowledged);
            }
            let Some(said) = words::said(message, now, &from, &run) else { continue };
            if generation.0 == NOBODY || self.events.send(Event::Said(generation, said)).await.is_err() {
                break;
            }
        }
        let Some(generation) = self.ended_by_itself(&speaks_as) else { return };
        // The run may be over, then nobody needs to know.
        let _ = self.events.send(Event::StreamEnded(generation)).await;
    }
}

/// The service in front of a [`Hub`].
#[derive(Clone, Debug)]
pub struct FleetService(Arc<Hub>);

impl FleetService {
    /// Serves this hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

#[tonic::async_trait]
impl fleet::fleet_server::Fleet for FleetService {
    type SessionStream = ReceiverStream<Order>;
    type WatchStream = ReceiverStream<Result<fleet::Status, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<fleet::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let hub = Arc::clone(&self.0);
        let generation = Generation(hub.opened.fetch_add(1, Ordering::Relaxed).saturating_add(1));
        let (orders, outgoing) = mpsc::channel(OUTGOING);
        let ended = CancellationToken::new();
        let speaks_as = Arc::new(AtomicU64::new(generation.0));
        let stream =
            Outgoing { orders, ended: ended.clone(), speaks_as: Arc::clone(&speaks_as), welcomed: false };
        hub.streams().insert(generation, stream);
        let from = request.remote_addr().map_or_else(String::new, |address| address.to_string());
        tokio::spawn(hub.read(speaks_as, from, request.into_inner(), ended));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn watch(
        &self,
        request: Request<fleet::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let fleet::WatchRequest { token, members } = request.into_inner();
        self.0.admit(&token)?;
        let mut status = self.0.status.clone();
        let (looks, outgoing) = mpsc::channel(2);
        tokio::spawn(async move {
            loop {
                let look = status.borrow_and_update().clone();
                let ended = look.status.ended;
                let shown = if members { look.whole() } else { look.status };
                if looks.send(Ok(shown)).await.is_err() || ended {
                    return;
                }
                // The end is shown at once, everything else at its time; an error means that the run is gone.
                let over = status.wait_for(|look| look.status.ended);
                if matches!(tokio::time::timeout(WATCH_EVERY, over).await, Ok(Err(_))) {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn stop(&self, request: Request<fleet::StopRequest>) -> Result<Response<fleet::StopReply>, Status> {
        let fleet::StopRequest { reason, token } = request.into_inner();
        self.0.admit(&token)?;
        let reason = if reason.is_empty() { String::from("asked to stop") } else { reason };
        let sent = self.0.events.send(Event::Stop(reason)).await;
        sent.map_err(|_| Status::failed_precondition("the run is over"))?;
        Ok(Response::new(fleet::StopReply {}))
    }

    async fn next(&self, request: Request<fleet::NextRequest>) -> Result<Response<fleet::NextReply>, Status> {
        let fleet::NextRequest { token, phase_json, last } = request.into_inner();
        self.0.admit(&token)?;
        let phase = match phase_json.as_str() {
            "" => None,
            text => Some(serde_json::from_str(text).map_err(|e| Status::invalid_argument(e.to_string()))?),
        };
        let over = || Status::failed_precondition("the run is over");
        let Some(demands) = &self.0.demands else {
            return Err(Status::failed_precondition(
                "this run has all its phases: it was not started for more",
            ));
        };
        let (answer, answered) = oneshot::channel();
        demands.send(Demand { phase, last, answer }).await.map_err(|_| over())?;
        let Waiting { run, run_directory } =
            answered.await.map_err(|_| over())?.map_err(Status::failed_precondition)?;
        Ok(Response::new(fleet::NextReply { run, run_directory }))
    }
}

#[cfg(test)]
mod tests;
