//! The port at which workers and the command line call: the fleet's service and the intake of batches, side by side.
//!
//! Opened by [`super::run`] once this coordinator leads, closed when the run is over. Law: an open call has a moment to
//! end, and no longer.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use vst_proto::fleet::fleet_server::FleetServer;
use vst_proto::security::Security;

use super::{FAREWELL, chain};
use crate::intake::{Intake, flight_service};
use crate::session::{FleetService, Hub};

/// The port, served until [`Serving::end`].
pub(super) struct Serving {
    stop: tokio_util::sync::CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// Serves the fleet and takes in its batches. Connections are as `security` says, which was found usable before.
pub(super) fn serve(
    listener: TcpListener,
    hub: Arc<Hub>,
    intake: Intake,
    token: Option<String>,
    security: Security,
) -> Serving {
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let server = match security.server() {
            Ok(server) => server,
            Err(e) => {
                tracing::error!("the port is not served: {}", chain(&e));
                return;
            }
        };
        let served = server
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .http2_keepalive_timeout(Some(Duration::from_secs(30)))
            .add_service(FleetServer::new(FleetService::new(hub)))
            .add_service(flight_service(intake, token))
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                stopped.cancelled_owned(),
            )
            .await;
        if let Err(e) = served {
            tracing::error!("the port is no longer served: {}", chain(&e));
        }
    });
    Serving { stop, task }
}

impl Serving {
    /// Lets open calls end for a moment, then closes.
    pub(super) async fn end(self) {
        self.stop.cancel();
        let abort = self.task.abort_handle();
        if tokio::time::timeout(FAREWELL, self.task).await.is_err() {
            abort.abort();
        }
    }
}
