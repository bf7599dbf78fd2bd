//! The Arrow Flight face of intake: `DoPut`, and nothing else of Flight.
//!
//! Workers open one `DoPut` per table: a schema message first, then one message per batch with a `Delivery` as its
//! `app_metadata`. Each is answered by a `PutResult` with an `Acknowledgement` once the log holds everything of its
//! stream up to it. Law: nobody without the fleet's token is read, and a connection has at most [`OUTSTANDING`]
//! unanswered deliveries; beyond that it is not read.

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use prost::Message as _;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use vst_common::ids::{Generation, Sequence};
use vst_proto::fleet::Acknowledgement;

use super::admission::{BATCH_BYTES, admit};
use super::core::Event;
use super::message::Reader;
use super::{Caller, Intake, Message, Refusal, StreamKey};
use crate::secret::same_secret;

/// Unanswered deliveries per connection.
pub(super) const OUTSTANDING: usize = 4096;

/// What a message may hold beside the batch, bytes.
const FRAMING_BYTES: usize = 64 << 10;

type Reply = Result<PutResult, Status>;

/// The service to be served beside the fleet's own, on the same port. With a `token`, only those are read who show it
/// as `authorization: Bearer <token>`.
#[must_use]
pub fn flight_service(intake: Intake, token: Option<String>) -> FlightServiceServer<FlightIntake> {
    FlightServiceServer::new(FlightIntake { intake, token })
        .max_decoding_message_size(BATCH_BYTES + FRAMING_BYTES)
}

/// Flight in front of an [`Intake`].
#[derive(Debug)]
pub struct FlightIntake {
    intake: Intake,
    token: Option<String>,
}

impl FlightIntake {
    fn authorise(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Some(own) = &self.token else { return Ok(()) };
        let shown = metadata.get("authorization").and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if shown.is_some_and(|shown| same_secret(own.as_bytes(), shown)) {
            return Ok(());
        }
        Err(Status::unauthenticated("this fleet has a token: set VST_TOKEN to the coordinator's value"))
    }
}

/// Where the answer to one delivery goes; its room in the connection's queue is reserved.
#[derive(Debug)]
pub(super) struct PutCaller {
    permit: OwnedPermit<Reply>,
    replies: mpsc::Sender<Reply>,
}

impl PutCaller {
    pub(super) fn is_gone(&self) -> bool {
        self.replies.is_closed()
    }

    pub(super) fn acknowledge(self, (worker, generation): StreamKey, sequence: Sequence) {
        let acknowledgement = Acknowledgement {
            worker: worker.as_str().to_owned(),
            generation: generation.0,
            sequence: sequence.0,
        };
        let app_metadata = Bytes::from(acknowledgement.encode_to_vec());
        drop(self.permit.send(Ok(PutResult { app_metadata })));
    }

    pub(super) fn refuse(self, refusal: &Refusal) {
        drop(self.permit.send(Err(Status::from(refusal))));
    }
}

/// Reads one connection until it ends, from either side, or delivers what is refused.
async fn take_in(intake: Intake, mut messages: Streaming<FlightData>, replies: mpsc::Sender<Reply>) {
    let mut reader = Reader::default();
    loop {
        let message = tokio::select! {
            () = replies.closed() => return,
            message = messages.message() => message,
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return,
            // A message that is too large; or the connection is gone, and nobody is told.
            Err(status) => {
                let _ = replies.send(Err(status)).await;
                return;
            }
        };
        let batch = match reader.take(&message) {
            Ok(Some(batch)) => batch,
            Ok(None) => continue,
            Err(e) => {
                tracing::debug!("a delivery stream was ended: {e}");
                let _ = replies.send(Err(Status::invalid_argument(e.to_string()))).await;
                return;
            }
        };
        let Ok(permit) = replies.clone().reserve_owned().await else { return };
        let caller = PutCaller { permit, replies: replies.clone() };
        let admitted = admit(intake.run(), &message.app_metadata, &batch).and_then(|stored| {
            let key = (stored.worker.clone(), stored.generation);
            if intake.expects(&key) {
                return Ok(stored);
            }
            Err(Refusal::Stranger { worker: key.0, generation: key.1.0 })
        });
        match admitted {
            Ok(stored) => {
                let event = Event::Delivered(stored, Caller::Put(caller));
                if let Err(unsent) = intake.messages.send(Message::Event(event)).await {
                    if let Message::Event(Event::Delivered(_, Caller::Put(caller))) = unsent.0 {
                        caller.refuse(&Refusal::Closed);
                    }
                    return;
                }
            }
            Err(refusal) => {
                // Whoever was never let in must not be able to fill the log.
                if matches!(&refusal, Refusal::Batch { worker, generation, .. }
                    if intake.expects(&(worker.clone(), Generation(*generation))))
                {
                    tracing::warn!(%refusal, "a delivery was refused");
                }
                caller.refuse(&refusal);
                return;
            }
        }
    }
}

fn not_offered<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{what} is not offered here, only DoPut is")))
}

#[tonic::async_trait]
impl FlightService for FlightIntake {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Reply>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        self.authorise(request.metadata())?;
        let (replies, outgoing) = mpsc::channel(OUTSTANDING);
        tokio::spawn(take_in(self.intake.clone(), request.into_inner(), replies));
        Ok(Response::new(ReceiverStream::new(outgoing).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        not_offered("Handshake")
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        not_offered("ListFlights")
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        not_offered("GetFlightInfo")
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        not_offered("PollFlightInfo")
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        not_offered("GetSchema")
    }

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        not_offered("DoGet")
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        not_offered("DoExchange")
    }

    async fn do_action(
        &self,
        _: Request<arrow_flight::Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        not_offered("DoAction")
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        not_offered("ListActions")
    }
}
