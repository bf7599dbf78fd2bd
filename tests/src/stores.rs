//! Stores over HTTP for the suites: a signed S3 endpoint, and a layer that fails as networks and servers fail.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::process::Command;

/// The only key that the endpoint knows.
pub const ACCESS_KEY: &str = "vst-suite";
/// Its secret.
pub const SECRET_KEY: &str = "not-a-secret";

/// How a server fails: requests are numbered, and each kind of fault has its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// One request in so many is answered 500 (0: none).
    pub errors_every: u64,
    /// One in so many is cut off in the middle of its body.
    pub cuts_every: u64,
    /// One in so many is not answered at all.
    pub stalls_every: u64,
}

/// A running server; it ends with the test's runtime.
#[derive(Clone, Debug)]
pub struct Store {
    /// `http://127.0.0.1:port`
    pub url: String,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: AtomicU64,
    faults: AtomicU64,
}

impl Store {
    /// How many requests were spoilt.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.seen.faults.load(Ordering::Relaxed)
    }

    /// How many requests came.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// Sets what a client of the S3 endpoint has in its environment.
    pub fn sign(&self, command: &mut Command) {
        command.env("AWS_ENDPOINT_URL", &self.url).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    }
}

/// A signed S3 endpoint whose buckets are the folders of `root`.
pub async fn s3(root: &Path, faults: Faults) -> Store {
    let mut builder = S3ServiceBuilder::new(FileSystem::new(root).expect("a folder"));
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = builder.build();
    // It looks whether an object is there, and then creates it: of two who do that at once both would succeed.
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    let endpoint = move |request: Request| {
        let (service, turn) = (service.clone(), Arc::clone(&turn));
        async move {
            let _turn = match *request.method() {
                Method::PUT => Some(turn.lock().await),
                _ => None,
            };
            let request = request.map(s3s::Body::http_body_unsync);
            match service.call(request).await {
                Ok(response) => response.map(Body::new).into_response(),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    serve(Router::new().fallback(endpoint), faults).await
}

/// Files of a folder over plain HTTP, by ranges.
pub async fn files(root: &Path, faults: Faults) -> Store {
    let root = root.to_owned();
    let endpoint = move |request: Request| {
        let root = root.clone();
        async move { file(&root, &request) }
    };
    serve(Router::new().fallback(endpoint), faults).await
}

fn file(root: &Path, request: &Request) -> Response {
    let Ok(content) = std::fs::read(root.join(request.uri().path().trim_start_matches('/'))) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let whole = content.len();
    let tag = format!("\"{whole:x}\"");
    let asked = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
    let range = asked.and_then(|range| {
        let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()? + 1))
    });
    let answer = Response::builder().header(header::ETAG, tag).header(header::ACCEPT_RANGES, "bytes");
    let answer = match range {
        Some((start, end)) if start < end && end <= whole => answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{whole}", end - 1))
            .body(Body::from(content[start..end].to_vec())),
        Some(_) => answer.status(StatusCode::RANGE_NOT_SATISFIABLE).body(Body::empty()),
        None => answer.body(Body::from(content)),
    };
    answer.expect("an answer")
}

async fn serve(router: Router, faults: Faults) -> Store {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let seen = Arc::new(Seen::default());
    let state = (faults, Arc::clone(&seen));
    let router = router.layer(axum::middleware::from_fn_with_state(state, spoil));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Store { url, seen }
}

async fn spoil(State((faults, seen)): State<(Faults, Arc<Seen>)>, request: Request, next: Next) -> Response {
    let number = seen.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let turn = |every: u64| every > 0 && number.is_multiple_of(every);
    if turn(faults.stalls_every) {
        seen.faults.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    if turn(faults.errors_every) {
        seen.faults.fetch_add(1, Ordering::Relaxed);
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let answer = next.run(request).await;
    if !turn(faults.cuts_every) || !answer.status().is_success() {
        return answer;
    }
    let (head, body) = answer.into_parts();
    let Ok(whole) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if whole.is_empty() {
        return Response::from_parts(head, Body::empty());
    }
    seen.faults.fetch_add(1, Ordering::Relaxed);
    let half: Result<Bytes, std::io::Error> = Ok(whole.slice(..whole.len() / 2));
    let cut = Err(std::io::Error::other("cut"));
    let mut spoilt = Response::from_parts(head, Body::from_stream(futures::stream::iter([half, cut])));
    // The length that was promised stays, so that the client can tell.
    spoilt.headers_mut().insert(header::CONTENT_LENGTH, whole.len().into());
    spoilt
}
