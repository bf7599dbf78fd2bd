//! One Flight stream of one table: messages out, acknowledgements back.
//!
//! A task owns the call; the uplink knows it by a number, so that what an old stream still says is told apart from
//! what the present one says.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow_flight::FlightData;
use arrow_flight::flight_service_client::FlightServiceClient;
use prost::Message;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;
use tonic::transport::Channel;
use vst_common::batch::{REFUSED_BATCH, Table};
use vst_common::ids::Generation;
use vst_proto::fleet::Acknowledgement;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// What a stream says.
#[derive(Debug)]
pub(super) enum Happened {
    /// The coordinator holds what the stream carried up to here.
    Acknowledged(Acknowledgement),
    /// The stream is over.
    Broken {
        /// Why.
        reason: String,
        /// Whether nobody takes batches there: no process, or a run that is closed.
        nobody_there: bool,
        /// (generation, sequence) of the batch that ended it, where it was one that will never be taken.
        refused: Option<(Generation, u64)>,
    },
}

/// An open stream. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Stream {
    id: u64,
    messages: UnboundedSender<FlightData>,
}

impl Stream {
    /// Opens a stream; what it says comes as (table, number of the stream, event).
    pub(super) fn open(
        table: Table,
        channel: Channel,
        token: Option<&str>,
        told: UnboundedSender<(Table, u64, Happened)>,
    ) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (messages, receiver) = unbounded_channel();
        let mut request = tonic::Request::new(UnboundedReceiverStream::new(receiver));
        if let Some(value) = token.and_then(|token| format!("Bearer {token}").parse().ok()) {
            request.metadata_mut().insert("authorization", value);
        }
        tokio::spawn(async move {
            let mut client = FlightServiceClient::new(channel);
            let end = async {
                let mut results = client.do_put(request).await?.into_inner();
                while let Some(result) = results.message().await? {
                    let ack = Acknowledgement::decode(result.app_metadata).map_err(|e| {
                        tonic::Status::internal(format!("an acknowledgement could not be read: {e}"))
                    })?;
                    let _ = told.send((table, id, Happened::Acknowledged(ack)));
                }
                Ok::<(), tonic::Status>(())
            };
            let (reason, nobody_there, refused) = match end.await {
                Ok(()) => (String::from("ended by the coordinator"), false, None),
                Err(status) => {
                    let nobody = matches!(status.code(), Code::Unavailable | Code::FailedPrecondition);
                    (status.message().to_owned(), nobody, refused_batch(&status))
                }
            };
            let _ = told.send((table, id, Happened::Broken { reason, nobody_there, refused }));
        });
        Self { id, messages }
    }

    /// Its number.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Puts a message on it; one that goes to a broken stream is sent again with all that is not acknowledged.
    pub(super) fn send(&self, message: FlightData) {
        let _ = self.messages.send(message);
    }
}

/// Which batch a status speaks of.
fn refused_batch(status: &tonic::Status) -> Option<(Generation, u64)> {
    let (generation, sequence) = status.metadata().get(REFUSED_BATCH)?.to_str().ok()?.split_once('/')?;
    Some((Generation(generation.parse().ok()?), sequence.parse().ok()?))
}
