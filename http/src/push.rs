//! Figures for a pushgateway: of a fleet that no Prometheus reaches, or that is gone before it is scraped.
//!
//! Puts what `/metrics` shows every few seconds under the grouping key job, run and part, and once more at the end.
//! Law: a gateway that is slow, away or refuses costs the process a line in its log and nothing else; the password that
//! an address may hold is in no text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Client, header};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

use crate::{Metrics, Site};

/// Time between two pushes.
const EVERY: Duration = Duration::from_secs(5);
/// A gateway that has not answered after this long is left alone until the next push.
const PATIENCE: Duration = Duration::from_secs(4);
/// Value of the label `job`.
const JOB: &str = "vst";

/// Where a pushgateway is.
#[derive(Clone, PartialEq, Eq)]
pub struct Gateway(Box<Url>);

/// Why a text names no pushgateway.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; for example http://pushgateway:9091")]
pub struct GatewayError(String);

impl FromStr for Gateway {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self, GatewayError> {
        // The text itself may hold a password.
        let url = Url::parse(text).map_err(|e| GatewayError(format!("not a URL ({e})")))?;
        match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(_)) if url.query().is_none() && url.fragment().is_none() => {
                Ok(Self(Box::new(url)))
            }
            ("http" | "https", Some(_)) => Err(GatewayError(String::from("a URL without `?` and `#`"))),
            (other, _) => Err(GatewayError(format!("`{other}` is not http or https"))),
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path().trim_end_matches('/'))
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gateway({self})")
    }
}

impl Gateway {
    /// With the name and the password that it may hold, for a child process.
    #[must_use]
    pub fn whole(&self) -> &str {
        self.0.as_str()
    }

    /// The place of a group. Labels are base64, because a `/` in one cannot be written otherwise.
    fn place(&self, group: &Group) -> String {
        let of = |text: &str| match text {
            "" => String::from("="),
            text => URL_SAFE_NO_PAD.encode(text),
        };
        let base = self.0.as_str().trim_end_matches('/');
        format!("{base}/metrics/job/{JOB}/run@base64/{}/part@base64/{}", of(&group.run), of(&group.part))
    }
}

/// The labels that a process's figures have in a pushgateway, beside `job`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The run.
    pub run: String,
    /// Whose figures these are: `coordinator`, or the name of a worker.
    pub part: String,
}

/// A site that is pushed while the value lives.
#[derive(Debug)]
pub struct Pusher {
    over: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Pusher {
    /// Begins to push a site; what it shows goes nowhere before it has a [`Group`].
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn start(gateway: Gateway, site: Arc<dyn Site>) -> Result<Self, PushError> {
        let client = Client::builder().timeout(PATIENCE).build();
        let client = client.map_err(|source| PushError { gateway: gateway.to_string(), source })?;
        let (over, ended) = oneshot::channel();
        Ok(Self { over: Some(over), task: tokio::spawn(push(gateway, site, client, ended)) })
    }

    /// Pushes once more and ends.
    pub async fn end(mut self) {
        drop(self.over.take());
        // It ends within its patience; a task that failed has nothing more to push.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why nothing can be pushed.
#[derive(Debug, thiserror::Error)]
#[error("cannot push to {gateway}: {source}; leave out --pushgateway or mend the machine's certificates")]
pub struct PushError {
    gateway: String,
    source: reqwest::Error,
}

async fn push(gateway: Gateway, site: Arc<dyn Site>, client: Client, mut ended: oneshot::Receiver<()>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut fails = false;
    let mut over = false;
    while !over {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut ended => over = true,
        }
        match once(&gateway, site.as_ref(), &client).await {
            Ok(()) if fails => {
                tracing::info!("the pushgateway {gateway} takes figures again");
                fails = false;
            }
            Ok(()) => {}
            // Said once, not every few seconds.
            Err(why) if !fails => {
                tracing::warn!("the pushgateway {gateway} does not take figures: {why}");
                fails = true;
            }
            Err(_) => {}
        }
    }
}

async fn once(gateway: &Gateway, site: &dyn Site, client: &Client) -> Result<(), String> {
    let Some(group) = site.group() else { return Ok(()) };
    let mut metrics = Metrics::of_process();
    site.metrics(&mut metrics);
    let text = metrics.text().map_err(|e| e.to_string())?;
    // PUT takes the place of all that the group had; POST would keep what is no longer said.
    let asked = client.put(gateway.place(&group)).header(header::CONTENT_TYPE, Metrics::CONTENT_TYPE);
    let answer = asked.body(text).send().await.map_err(|e| without_address(&e))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let said = answer.text().await.unwrap_or_default();
    Err(format!("{status}: {}", said.lines().next().unwrap_or_default()))
}

/// What the client says, with its causes and without the address, which may hold a password.
fn without_address(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    match (causes.pop(), error.is_timeout()) {
        (_, true) => format!("no answer within {} s", PATIENCE.as_secs()),
        (Some(cause), _) => cause,
        (None, _) => String::from("the request failed"),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::{Request, State};
    use axum::http::StatusCode;
    use tokio::sync::mpsc;

    use super::*;
    use crate::Health;

    struct Shown(Option<Group>);

    impl Site for Shown {
        fn health(&self) -> Health {
            Ok(())
        }
        fn readiness(&self) -> Health {
            Ok(())
        }
        fn metrics(&self, metrics: &mut Metrics) {
            metrics.gauge("vst_workers", "Workers.", &[], 2.0);
        }
        fn status(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
        fn group(&self) -> Option<Group> {
            self.0.clone()
        }
    }

    /// A gateway that answers with a status; gives where it is and what was put.
    async fn gateway(status: StatusCode) -> (Gateway, mpsc::UnboundedReceiver<(String, String)>) {
        let (put, puts) = mpsc::unbounded_channel();
        let take = async move |State(put): State<mpsc::UnboundedSender<(String, String)>>,
                               request: Request| {
            let what = format!("{} {}", request.method(), request.uri().path());
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            put.send((what, String::from_utf8(body.to_vec()).unwrap())).unwrap();
            (status, "no room\nmore\n")
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(put);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (format!("http://{address}/").parse().unwrap(), puts)
    }

    fn group(run: &str, part: &str) -> Option<Group> {
        Some(Group { run: run.to_owned(), part: part.to_owned() })
    }

    #[tokio::test]
    async fn figures_are_put_at_once_and_at_the_end_under_their_group() {
        let (gateway, mut puts) = gateway(StatusCode::OK).await;
        let pusher = Pusher::start(gateway, Arc::new(Shown(group("r/1", "w 1")))).unwrap();
        let (first, text) = puts.recv().await.unwrap();
        assert_eq!(first, "PUT /metrics/job/vst/run@base64/ci8x/part@base64/dyAx");
        assert!(text.contains("\nvst_workers 2\n") && text.contains("process_cpu_seconds_total"), "{text}");
        pusher.end().await;
        assert_eq!(puts.recv().await.unwrap().0, first);
        assert!(puts.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_process_without_a_run_pushes_nothing() {
        let (gateway, mut puts) = gateway(StatusCode::OK).await;
        Pusher::start(gateway, Arc::new(Shown(None))).unwrap().end().await;
        assert!(puts.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_gateway_that_refuses_or_is_away_ends_nothing_and_tells_no_password() {
        let (refusing, _puts) = gateway(StatusCode::BAD_REQUEST).await;
        let site = Shown(group("r", "p"));
        let client = Client::builder().timeout(PATIENCE).build().unwrap();
        let said = once(&refusing, &site, &client).await.unwrap_err();
        assert_eq!(said, "400 Bad Request: no room");
        let away: Gateway = "http://me:s3cret@127.0.0.1:1/at".parse().unwrap();
        let said = once(&away, &site, &client).await.unwrap_err();
        assert!(!said.contains("s3cret"), "{said}");
        assert_eq!(
            (format!("{away}"), format!("{away:?}")),
            (String::from("http://127.0.0.1:1/at"), String::from("Gateway(http://127.0.0.1:1/at)"),)
        );
        Pusher::start(away, Arc::new(site)).unwrap().end().await;
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_repeated() {
        for bad in ["s3cret", "ftp://s3cret@host", "http://host/?s3cret", "http://", "host:9091"] {
            let said = bad.parse::<Gateway>().unwrap_err().to_string();
            assert!(said.contains("http://pushgateway:9091") && !said.contains("s3cret"), "{bad}: {said}");
        }
    }
}
