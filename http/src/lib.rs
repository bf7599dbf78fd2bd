//! What a process of the fleet shows of itself over HTTP: is it alive, can it be used, what does it measure.
//!
//! Coordinator and worker each implement [`Site`]; probes, Prometheus and people read it, and a [`Pusher`] hands its
//! figures to a pushgateway. Law: nothing can be changed through it: every method but GET and HEAD is refused, and no
//! request reaches anything but a [`Site`]'s views.

mod guarded;
mod metrics;
mod push;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use guarded::Guarded;
pub use metrics::{Histogram, Metrics};
pub use push::{Gateway, GatewayError, Group, PushError, Pusher};

/// Whether something is as it should be; the text says what is wrong.
pub type Health = Result<(), String>;

/// What is shown.
pub trait Site: Send + Sync + 'static {
    /// Whether the process does its work; one that does not should be started anew.
    fn health(&self) -> Health;
    /// Whether others can use it now.
    fn readiness(&self) -> Health;
    /// The figures.
    fn metrics(&self, metrics: &mut Metrics);
    /// The whole picture.
    fn status(&self) -> serde_json::Value;
    /// The labels of its figures where they are pushed; `None` as long as they are of no run.
    fn group(&self) -> Option<Group> {
        None
    }
    /// A page for people, which needs nothing but `/status`.
    fn page(&self) -> Option<&'static str> {
        None
    }
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
#[error("cannot show the state on `{address}`: {source}; give --http another host:port")]
pub struct Error {
    address: String,
    source: std::io::Error,
}

/// A port that is served while the value lives.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves a site on `host:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`Error`] when the address cannot be used.
    pub async fn start(address: &str, site: Arc<dyn Site>) -> Result<Self, Error> {
        let failed = |source| Error { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let task = tokio::spawn(async move {
            if let Err(e) = axum::serve(Guarded::new(listener), router(site)).await {
                tracing::error!("the state is no longer shown: {e}");
            }
        });
        tracing::info!("the state is shown on http://{bound}/");
        Ok(Self { address: bound, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shown = State<Arc<dyn Site>>;

fn router(site: Arc<dyn Site>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(async |State(site): Shown| said(site.health())))
        .route("/readyz", get(async |State(site): Shown| said(site.readiness())))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(site)
}

const PLAIN: &str = "text/plain; charset=utf-8";
/// A page may run its own script and read this server; it can load nothing else and cannot be framed.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response {
    let headers: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (status, headers, body).into_response()
}

fn said(health: Health) -> Response {
    match health {
        Ok(()) => reply(StatusCode::OK, PLAIN, String::from("ok\n")),
        Err(what) => reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{what}\n")),
    }
}

async fn page(State(site): Shown) -> Response {
    match site.page() {
        Some(page) => reply(StatusCode::OK, "text/html; charset=utf-8", page.to_owned()),
        None => reply(StatusCode::OK, PLAIN, String::from("/healthz /readyz /metrics /status\n")),
    }
}

async fn metrics(State(site): Shown) -> Response {
    let mut metrics = Metrics::of_process();
    site.metrics(&mut metrics);
    match metrics.text() {
        Ok(text) => reply(StatusCode::OK, Metrics::CONTENT_TYPE, text),
        Err(e) => reply(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{e}\n")),
    }
}

async fn status(State(site): Shown) -> Response {
    reply(StatusCode::OK, "application/json", site.status().to_string())
}
