//! The stream to the coordinator: messages out, messages in.
//!
//! A task owns the call; the worker knows it by a number, so that what an old stream still says is told apart.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use vst_proto::fleet;
use vst_proto::fleet::fleet_client::FleetClient;
use vst_proto::fleet::worker_message::Message as ToCoordinator;
use vst_proto::security::Security;

use super::Note;
use crate::session::Event;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A stream that is open or being opened. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Handle {
    id: u64,
    messages: UnboundedSender<fleet::WorkerMessage>,
}

impl Handle {
    /// Calls the coordinator. What is sent before it answers waits.
    pub(super) fn open(channel: Channel, noted: UnboundedSender<Note>) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (messages, receiver) = unbounded_channel();
        tokio::spawn(async move {
            let say = |event| {
                let _ = noted.send(Note::Stream(id, event));
            };
            let mut client = FleetClient::new(channel);
            let end = async {
                let mut inbound = client.session(UnboundedReceiverStream::new(receiver)).await?.into_inner();
                while let Some(message) = inbound.message().await? {
                    if let Some(message) = message.message {
                        say(Event::Received(message));
                    }
                }
                Ok::<(), Status>(())
            };
            match end.await {
                Ok(()) => say(Event::Disconnected),
                Err(status) if is_final(&status) => {
                    say(Event::Refused { reason: status.message().to_owned() });
                }
                Err(status) if let Some(reason) = Security::refusal(&status) => {
                    say(Event::Refused { reason: format!("its TLS and this side's do not fit: {reason}") });
                }
                Err(status) => {
                    tracing::debug!("stream to the coordinator ended: {status}");
                    say(Event::Disconnected);
                }
            }
        });
        Self { id, messages }
    }

    /// Its number.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Sends a message; one for a stream that has ended is lost, and the session hears of the end.
    pub(super) fn send(&self, message: ToCoordinator) {
        let _ = self.messages.send(fleet::WorkerMessage { message: Some(message) });
    }
}

/// Whether calling again cannot help: another version, a wrong token, a coordinator that is something else. A name
/// that is taken is no such reason: the coordinator may not have noticed yet that the last stream ended.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unimplemented
    )
}
