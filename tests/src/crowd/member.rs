//! One worker of a crowd: a connection, a session, a delivery stream.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, PutResult};
use prost::Message;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use vst_common::batch::{Stamp, Table};
use vst_common::clock::{WallNs, mono_ns, wall_ns};
use vst_common::count;
use vst_common::ids::{Generation, RunId, Sequence, WorkerId};
use vst_common::latency::Hdr;
use vst_common::phase::PhaseOrder;
use vst_proto::fleet;
use vst_proto::fleet::coordinator_message::Message as FromCoordinator;
use vst_proto::fleet::fleet_client::FleetClient;
use vst_proto::fleet::worker_message::Message as ToCoordinator;

use super::rows::{self, Pool, REQUESTS, ROWS};

/// As often a real worker says how far it is, while it sends load.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// As a real worker's connection.
const PING: Duration = Duration::from_secs(5);
const PING_ANSWER: Duration = Duration::from_secs(30);

/// Who a client says that it is.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Name.
    pub name: String,
    /// Version of vst.
    pub version: String,
    /// The fleet's secret; empty for none.
    pub token: String,
}

impl Credentials {
    /// A worker of this version and of a fleet without a token.
    #[must_use]
    pub fn own(name: &str) -> Self {
        Self { name: name.to_owned(), version: String::from(env!("CARGO_PKG_VERSION")), token: String::new() }
    }

    /// The first word of a session.
    #[must_use]
    pub fn hello(&self, instance: u64) -> fleet::Hello {
        fleet::Hello {
            worker: self.name.clone(),
            version: self.version.clone(),
            cores: 1,
            memory_bytes: 1 << 30,
            host: String::from("crowd"),
            lanes: 1,
            token: self.token.clone(),
            instance,
            ..fleet::Hello::default()
        }
    }
}

/// What became of a member.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its registration.
    pub generation: u64,
    /// Batches that it sent.
    pub sent: u64,
    /// Times to acknowledgement, one per batch.
    pub acknowledged: Hdr,
}

/// A connection of its own.
pub async fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PING_ANSWER);
    let mut failed = None;
    for _ in 0..50 {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(e) => failed = Some(e),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no connection to {address}: {failed:?}")
}

/// A session: what is sent goes to the sender, what comes back is read from the stream.
pub async fn session(
    channel: Channel,
    first: Option<ToCoordinator>,
) -> Result<(UnboundedSender<fleet::WorkerMessage>, Streaming<fleet::CoordinatorMessage>), tonic::Status> {
    let (messages, outgoing) = unbounded_channel();
    if let Some(first) = first {
        let _ = messages.send(fleet::WorkerMessage { message: Some(first) });
    }
    let inbound =
        FleetClient::new(channel).session(UnboundedReceiverStream::new(outgoing)).await?.into_inner();
    Ok((messages, inbound))
}

/// A delivery stream with a token, where there is one; its first message is on its way.
pub async fn put(
    channel: Channel,
    token: &str,
    first: FlightData,
) -> Result<(UnboundedSender<FlightData>, Streaming<PutResult>), tonic::Status> {
    let (messages, outgoing) = unbounded_channel();
    let _ = messages.send(first);
    let mut request = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
    if !token.is_empty() {
        let shown = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", shown);
    }
    let replies = FlightServiceClient::new(channel).do_put(request).await?.into_inner();
    Ok((messages, replies))
}

/// The load of a phase, as far as it is told of.
struct Load {
    order: PhaseOrder,
    began: WallNs,
    /// When the next batch is cut.
    next: Instant,
    done: u64,
    of: u64,
}

impl Load {
    fn start(order: PhaseOrder, began: WallNs, after: Duration) -> Self {
        let wait = Duration::from_nanos(count::to_u64((began - wall_ns()).max(0)));
        let interval = Duration::from_nanos(order.interval_ns);
        let of = order.duration_ns / order.interval_ns;
        Self { began, next: Instant::now() + wait + interval + after, done: 0, of, order }
    }

    fn progress(&self, latency_hdr: Vec<u8>) -> fleet::Progress {
        let requests = self.done * u64::from(ROWS) * REQUESTS;
        fleet::Progress {
            phase: self.order.index.0,
            due: requests,
            sent: requests,
            ok: requests,
            latency_hdr,
            ..fleet::Progress::default()
        }
    }

    fn statement(&self, last_sequence: u64) -> fleet::PhaseDone {
        let requests = self.done * u64::from(ROWS) * REQUESTS;
        fleet::PhaseDone {
            phase: self.order.index.0,
            last_sequence,
            due: requests,
            sent: requests,
            ok: requests,
            ..fleet::PhaseDone::default()
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Lives as a worker until the run is over. `after` its interval is over it cuts the batch of that interval.
pub(super) async fn live(
    address: String,
    credentials: Credentials,
    after: Duration,
    pool: Arc<OnceLock<Pool>>,
) -> Member {
    let mut member =
        Member { name: credentials.name.clone(), generation: 0, sent: 0, acknowledged: Hdr::new() };
    let name = credentials.name.as_str();
    let channel = connect(&address).await;
    let hello = ToCoordinator::Hello(credentials.hello(mono_ns()));
    let (messages, mut inbound) =
        session(channel.clone(), Some(hello)).await.unwrap_or_else(|e| panic!("{name} is let in: {e}"));
    let say = |message| {
        let _ = messages.send(fleet::WorkerMessage { message: Some(message) });
    };
    let (delivered, mut replies) =
        put(channel, &credentials.token, rows::opening(Table::Latency)).await.expect("a delivery stream");
    let mut run = RunId::new("");
    let mut beats = ticks(Duration::from_secs(1));
    let mut looks = ticks(LOOK_EVERY);
    let shown = rows::histogram(7).encode().expect("encoded");
    let (mut order, mut load): (Option<PhaseOrder>, Option<Load>) = (None, None);
    let mut underway: VecDeque<(u64, u64)> = VecDeque::new();
    let mut closing = false;
    while !(closing && underway.is_empty()) {
        let next = load.as_ref().map_or_else(Instant::now, |load| load.next);
        tokio::select! {
            message = inbound.message() => {
                let message = message.unwrap_or_else(|e| panic!("{name} is kept: {e}"));
                let Some(message) = message.and_then(|m| m.message) else { break };
                match message {
                    FromCoordinator::Welcome(welcome) => {
                        member.generation = welcome.generation;
                        run = RunId::new(welcome.run);
                        beats = ticks(Duration::from_nanos(welcome.heartbeat_ns));
                    }
                    FromCoordinator::Arm(arm) => {
                        order = Some(serde_json::from_str(&arm.order_json).expect("an order"));
                        say(ToCoordinator::Armed(fleet::Armed { phase: arm.phase }));
                    }
                    FromCoordinator::Start(start) => {
                        let order = order.take().expect("armed before");
                        load = Some(Load::start(order, start.at_wall_ns, after));
                    }
                    FromCoordinator::Drain(_) => panic!("{name} is drained before its time"),
                    FromCoordinator::Close(_) => closing = true,
                    _ => {}
                }
            }
            _ = beats.tick() => say(ToCoordinator::Heartbeat(fleet::Heartbeat {
                mono_ns: mono_ns(),
                unacknowledged: count::len(underway.len()),
            })),
            _ = looks.tick(), if load.is_some() => {
                if let Some(load) = &load {
                    say(ToCoordinator::Progress(load.progress(shown.clone())));
                }
            }
            () = sleep_until(next), if load.is_some() => {
                let Some(now) = &mut load else { continue };
                let sequence = Sequence(member.sent + 1);
                let (worker, generation) = (WorkerId::new(name), Generation(member.generation));
                let stamp = Stamp { run: run.clone(), worker, generation, sequence };
                let interval = count::to_i64(now.order.interval_ns);
                let pool = pool.get_or_init(|| {
                    Pool::new(&stamp, &now.order.name, now.order.index, now.order.interval_ns)
                });
                let batch = pool.batch(&stamp, now.began + interval * count::to_i64(now.done));
                underway.push_back((sequence.0, mono_ns()));
                let _ = delivered.send(rows::delivery(&stamp, Table::Latency, &batch));
                member.sent = sequence.0;
                now.done += 1;
                now.next += Duration::from_nanos(now.order.interval_ns);
                if now.done == now.of {
                    say(ToCoordinator::Progress(now.progress(shown.clone())));
                    say(ToCoordinator::PhaseDone(now.statement(member.sent)));
                    load = None;
                }
            }
            reply = replies.message() => {
                let reply = reply.unwrap_or_else(|e| panic!("{name} delivers: {e}"));
                let reply = reply.unwrap_or_else(|| panic!("{name}: the delivery stream was ended"));
                let said = fleet::Acknowledgement::decode(reply.app_metadata).expect("an acknowledgement");
                assert_eq!((said.worker.as_str(), said.generation), (name, member.generation));
                while let Some((_, sent)) = underway.pop_front_if(|(sequence, _)| *sequence <= said.sequence) {
                    member.acknowledged.record(mono_ns() - sent);
                }
            }
        }
    }
    member
}
