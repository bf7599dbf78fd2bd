//! The way to the coordinator: whom to call, when, and when to try the next.
//!
//! Asked by the loop of `serve` whenever the session wants a stream. Law: there is one stream at a time, and calls are never
//! closer than the pause, which grows while nobody answers.

use std::time::Duration;

use tonic::transport::Endpoint;
use vst_common::clock::{SECOND_NS, mono_ns};
use vst_common::ids::RunId;
use vst_proto::security::Security;

use super::whereabouts::Whereabouts;
use super::{Error, Note, Worker, stream};
use crate::session::Event;
use crate::uplink::Order;

/// First pause before the coordinator is called again, nanoseconds; doubles up to the largest.
pub(super) const RETRY_NS: u64 = SECOND_NS / 10;
const RETRY_MAX_NS: u64 = SECOND_NS;
/// The coordinator is pinged this often, and may take this long for a connection.
const PING: Duration = Duration::from_secs(5);
/// A connection that does not answer a ping for this long is closed. Longer than the lease: a coordinator that was
/// paused for a moment finds its fleet as it left it.
const PING_ANSWER: Duration = Duration::from_secs(30);

impl Worker {
    /// Calls the coordinator, unless a call is under way or it is too early for the next.
    pub(super) fn call(&mut self, whereabouts: &Whereabouts, run: Option<&RunId>) -> Result<(), Error> {
        if self.stream.is_some() || mono_ns() < self.call_at {
            return Ok(());
        }
        let Some(place) = whereabouts.current(run) else { return Ok(()) };
        let own = env!("CARGO_PKG_VERSION");
        if let Some(theirs) = place.version.filter(|version| version != own) {
            let reason = format!(
                "the leader at {} is vst {theirs}, this worker is vst {own}: start it from version {theirs}",
                place.address
            );
            return Err(Error::Refused { reason });
        }
        let channel = match &self.called {
            Some((address, channel)) if *address == place.address => channel.clone(),
            _ => {
                let endpoint = endpoint(&self.options.security, &place.address)?;
                // Two connections: batches in bulk must not hold up heartbeats.
                self.uplink.send(Order::Call(endpoint.connect_lazy()));
                let channel = endpoint.connect_lazy();
                self.called = Some((place.address, channel.clone()));
                channel
            }
        };
        let stream = stream::Handle::open(channel, self.noted.clone());
        let _ = self.noted.send(Note::Stream(stream.id(), Event::Connected));
        self.stream = Some(stream);
        Ok(())
    }

    /// The stream is over; the next call goes to the next address, after a pause.
    pub(super) fn hang_up(&mut self, whereabouts: &mut Whereabouts) {
        self.stream = None;
        whereabouts.failed();
        self.call_at = mono_ns().saturating_add(self.pause_ns);
        self.pause_ns = (2 * self.pause_ns).min(RETRY_MAX_NS);
    }

    /// Somebody else may lead: what the one before still says does not count any more.
    pub(super) fn moved(&mut self, whereabouts: &Whereabouts, run: Option<&RunId>) -> Option<Event> {
        let place = whereabouts.current(run)?;
        if self.called.as_ref().is_some_and(|(address, _)| *address == place.address) {
            return None;
        }
        tracing::info!("the coordinator is at {} now", place.address);
        self.call_at = mono_ns();
        self.stream.take().map(|_| Event::Disconnected)
    }
}

pub(super) fn endpoint(security: &Security, address: &str) -> Result<Endpoint, Error> {
    let unusable = |source| Error::Address { address: address.to_owned(), source };
    let endpoint = security.endpoint(address).map_err(unusable)?;
    Ok(endpoint.connect_timeout(PING).http2_keep_alive_interval(PING).keep_alive_timeout(PING_ANSWER))
}
