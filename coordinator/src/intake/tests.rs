//! Intake behind a real Flight connection, in front of a log that the test holds in its hand.

use std::sync::{Arc, Mutex};

use arrow_flight::FlightData;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::utils::batches_to_flight_data;
use futures::FutureExt;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Server};
use tonic::{Code, Streaming};
use vst_common::batch::events::{EventRow, to_batch};
use vst_common::batch::{Stamp, Table};
use vst_common::ids::PhaseIndex;
use vst_proto::fleet::{Acknowledgement, Delivery};

use super::*;

/// A log whose batches become durable when the test says so.
#[derive(Clone, Debug, Default)]
struct HeldLog(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    appended: Vec<StoredBatch>,
    undecided: Vec<(u64, oneshot::Sender<bool>)>,
    changed: Option<watch::Sender<usize>>,
}

impl HeldLog {
    fn new() -> (Self, watch::Receiver<usize>) {
        let (changed, lengths) = watch::channel(0);
        (Self(Arc::new(Mutex::new(Held { changed: Some(changed), ..Held::default() }))), lengths)
    }

    fn decide(&self, sequence: u64, durable: bool) {
        let mut held = self.0.lock().unwrap();
        let at = held.undecided.iter().position(|(n, _)| *n == sequence).unwrap();
        held.undecided.remove(at).1.send(durable).unwrap();
    }

    fn appended(&self) -> Vec<u64> {
        self.0.lock().unwrap().appended.iter().map(|batch| batch.sequence.0).collect()
    }
}

impl BatchLog for HeldLog {
    async fn append(&self, batch: StoredBatch) -> Result<Durable, Refused> {
        let (decide, decided) = oneshot::channel();
        let mut held = self.0.lock().unwrap();
        held.undecided.push((batch.sequence.0, decide));
        held.appended.push(batch);
        let length = held.appended.len();
        held.changed.as_ref().unwrap().send_replace(length);
        let refused = || Refused(String::from("another leads"));
        Ok(async move { if decided.await == Ok(true) { Ok(()) } else { Err(refused()) } }.boxed())
    }
}

struct Fixture {
    intake: Intake,
    log: HeldLog,
    lengths: watch::Receiver<usize>,
    client: FlightServiceClient<Channel>,
}

async fn fixture() -> Fixture {
    fixture_with(None).await
}

async fn fixture_with(token: Option<&str>) -> Fixture {
    let (log, lengths) = HeldLog::new();
    let intake = Intake::spawn(RunId::new("r"), Delivered::default(), log.clone());
    intake.expect(WorkerId::new("w"), Generation(4));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder().add_service(flight_service(intake.clone(), token.map(str::to_owned)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let client = FlightServiceClient::new(channel);
    Fixture { intake, log, lengths, client }
}

impl Fixture {
    async fn until_appended(&mut self, length: usize) {
        self.lengths.wait_for(|found| *found >= length).await.unwrap();
    }

    async fn connect(&mut self) -> (mpsc::Sender<FlightData>, Streaming<arrow_flight::PutResult>) {
        let (messages, outgoing) = mpsc::channel(16);
        let [schema, _] = messages_of(1, "r", "events");
        messages.send(schema).await.unwrap();
        let replies = self.client.do_put(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        (messages, replies)
    }
}

/// The schema message and the batch message of a delivery.
fn messages_of(sequence: u64, run: &str, table: &str) -> [FlightData; 2] {
    let stamp = Stamp {
        run: RunId::new(run),
        worker: WorkerId::new("w"),
        generation: Generation(4),
        sequence: Sequence(sequence),
    };
    let row = EventRow {
        at: 1,
        phase: String::from("p"),
        phase_index: PhaseIndex(0),
        kind: String::from("moved"),
        node: None,
        detail: String::new(),
        count: sequence,
    };
    let batch = to_batch(&stamp, &[row]).unwrap();
    let messages = batches_to_flight_data(&batch.schema(), vec![batch]).unwrap();
    let [schema, mut data]: [FlightData; 2] = messages.try_into().unwrap();
    let delivery =
        Delivery { run: run.into(), worker: "w".into(), generation: 4, sequence, table: table.into() };
    data.app_metadata = delivery.encode_to_vec().into();
    [schema, data]
}

fn data(sequence: u64) -> FlightData {
    let [_, data] = messages_of(sequence, "r", "events");
    data
}

async fn next_ack(replies: &mut Streaming<arrow_flight::PutResult>) -> u64 {
    let reply = replies.message().await.unwrap().unwrap();
    let acknowledgement = Acknowledgement::decode(reply.app_metadata).unwrap();
    assert_eq!((acknowledgement.worker.as_str(), acknowledgement.generation), ("w", 4));
    acknowledgement.sequence
}

#[tokio::test]
async fn a_batch_is_acknowledged_when_it_and_all_before_it_are_durable() {
    let mut fixture = fixture().await;
    let (messages, mut replies) = fixture.connect().await;
    for sequence in [1, 3, 2] {
        messages.send(data(sequence)).await.unwrap();
    }
    fixture.until_appended(3).await;
    fixture.log.decide(3, true);
    fixture.log.decide(2, true);
    let mut reached = fixture.intake.reached();
    assert!(reached.borrow().is_empty());
    fixture.log.decide(1, true);
    assert_eq!(
        [next_ack(&mut replies).await, next_ack(&mut replies).await, next_ack(&mut replies).await],
        [1, 2, 3]
    );
    let key = (WorkerId::new("w"), Generation(4));
    reached.wait_for(|reached| reached.get(&key) == Some(&Sequence(3))).await.unwrap();
    let batch = fixture.log.0.lock().unwrap().appended.first().cloned().unwrap();
    let read = vst_common::batch::table::read_ipc(&batch.ipc).unwrap();
    let rows = vst_common::batch::events::from_batch(&read[0]).unwrap();
    assert_eq!((batch.table, rows[0].1.count), (Table::Events, 1));
    // The worker half-closes: what was answered is all there is.
    drop(messages);
    assert!(replies.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_retry_on_a_new_connection_is_acknowledged_and_appended_once() {
    let mut fixture = fixture().await;
    let (messages, replies) = fixture.connect().await;
    messages.send(data(1)).await.unwrap();
    fixture.until_appended(1).await;
    drop((messages, replies));
    let (messages, mut replies) = fixture.connect().await;
    messages.send(data(1)).await.unwrap();
    messages.send(data(2)).await.unwrap();
    fixture.until_appended(2).await;
    fixture.log.decide(1, true);
    assert_eq!(next_ack(&mut replies).await, 1);
    messages.send(data(1)).await.unwrap();
    assert_eq!(next_ack(&mut replies).await, 1);
    fixture.log.decide(2, true);
    assert_eq!(next_ack(&mut replies).await, 2);
    assert_eq!(fixture.log.appended(), vec![1, 2]);
}

#[tokio::test]
async fn what_is_foreign_ends_the_connection_with_the_reason() {
    let mut fixture = fixture().await;
    for (message, code, text) in [
        (messages_of(1, "q", "events"), Code::FailedPrecondition, "run `q`"),
        (messages_of(1, "r", "memory"), Code::InvalidArgument, "table memory"),
        (messages_of(0, "r", "events"), Code::InvalidArgument, "sequences begin at 1"),
    ] {
        let (messages, mut replies) = fixture.connect().await;
        let [_, data] = message;
        messages.send(data).await.unwrap();
        let status = replies.message().await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
    assert!(fixture.log.appended().is_empty());
}

#[tokio::test]
async fn who_never_registered_delivers_nothing_until_it_has() {
    let mut fixture = fixture().await;
    let of = |generation| {
        let stamp = Stamp {
            run: RunId::new("r"),
            worker: WorkerId::new("w"),
            generation: Generation(generation),
            sequence: Sequence(1),
        };
        let batch = arrow_array::RecordBatch::new_empty(Table::Events.schema());
        let [_, mut data]: [FlightData; 2] =
            batches_to_flight_data(&batch.schema(), vec![batch]).unwrap().try_into().unwrap();
        let delivery = Delivery {
            run: stamp.run.to_string(),
            worker: stamp.worker.to_string(),
            generation,
            sequence: stamp.sequence.0,
            table: String::from("events"),
        };
        data.app_metadata = delivery.encode_to_vec().into();
        data
    };
    let (messages, mut replies) = fixture.connect().await;
    messages.send(of(5)).await.unwrap();
    let status = replies.message().await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.metadata().get(vst_common::batch::REFUSED_BATCH).is_none(), "the batch is not given up");
    assert!(fixture.log.appended().is_empty());
    fixture.intake.expect(WorkerId::new("w"), Generation(5));
    let (messages, _replies) = fixture.connect().await;
    messages.send(of(5)).await.unwrap();
    fixture.until_appended(1).await;
}

#[tokio::test]
async fn what_the_log_refuses_is_not_acknowledged() {
    let mut fixture = fixture().await;
    let (messages, mut replies) = fixture.connect().await;
    messages.send(data(1)).await.unwrap();
    fixture.until_appended(1).await;
    fixture.log.decide(1, false);
    let status = replies.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_fleet_with_a_token_takes_in_only_what_shows_it() {
    let mut fixture = fixture_with(Some("secret")).await;
    for shown in [None, Some("secret"), Some("Bearer "), Some("Bearer Secret"), Some("Bearer secret2")] {
        let mut request = tonic::Request::new(futures::stream::iter(messages_of(1, "r", "events")));
        if let Some(shown) = shown {
            request.metadata_mut().insert("authorization", shown.parse().unwrap());
        }
        let status = fixture.client.do_put(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{shown:?}");
        assert!(!status.message().contains("secret"), "a refusal shows no token");
    }
    assert!(fixture.log.appended().is_empty());
    let mut request = tonic::Request::new(futures::stream::iter(messages_of(1, "r", "events")));
    request.metadata_mut().insert("authorization", "Bearer secret".parse().unwrap());
    let mut replies = fixture.client.do_put(request).await.unwrap().into_inner();
    fixture.until_appended(1).await;
    fixture.log.decide(1, true);
    assert_eq!(next_ack(&mut replies).await, 1);
}

#[tokio::test]
async fn only_do_put_is_offered() {
    let mut fixture = fixture().await;
    let status = fixture.client.list_flights(arrow_flight::Criteria::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_stated_stream_is_complete_when_its_last_batch_is_durable() {
    let fixture = fixture().await;
    let (worker, generation) = (WorkerId::new("w"), Generation(4));
    fixture.intake.state(worker.clone(), generation, Sequence(1)).await;
    assert_eq!(fixture.intake.report().await[0].missing, 1);
    let delivered = StoredBatch {
        worker: worker.clone(),
        generation,
        sequence: Sequence(1),
        table: Table::Events,
        ipc: bytes::Bytes::new(),
    };
    let (intake, mut lengths) = (fixture.intake.clone(), fixture.lengths.clone());
    let delivery = tokio::spawn(async move { intake.deliver(delivered).await });
    lengths.wait_for(|length| *length == 1).await.unwrap();
    let complete = fixture.intake.complete(worker.clone(), generation, Sequence(1));
    fixture.log.decide(1, true);
    assert_eq!(complete.await, Ok(()));
    assert_eq!(delivery.await.unwrap(), Ok(()));
    assert_eq!(fixture.intake.report().await[0].missing, 0);
    fixture.intake.close().await;
    assert_eq!(fixture.intake.complete(worker, generation, Sequence(2)).await, Err(Refusal::Closed));
}
