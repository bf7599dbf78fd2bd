//! One object of a store, read by ranges of bytes.
//!
//! Fed by the formats, which know where their rows lie. Behind it: the check that the object is still the one that was
//! opened, repetition with back-off where a repetition can help, and large ranges cut into parts of which several are
//! in flight. Law: the bytes of a range are those of the object, or an error; never some of them, never another
//! object's.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use url::Url;

use super::fault::{ReadFault, ReadFaults};
use super::local::LocalFile;
use super::{Error, location};
use crate::count;

/// How a store over a network is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPolicy {
    /// Attempts of one request, the first included.
    pub attempts: u32,
    /// Pause after the first failed attempt; it doubles with each further one, up to [`ReadPolicy::LONGEST_PAUSE`].
    pub first_pause: Duration,
    /// An attempt that takes longer counts as failed.
    pub attempt_limit: Duration,
    /// A request asks for at most so many bytes.
    pub part_bytes: u64,
    /// Parts of one range in flight at once.
    pub parts_in_flight: usize,
}

impl ReadPolicy {
    /// The longest pause between two attempts.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);
}

impl Default for ReadPolicy {
    fn default() -> Self {
        Self {
            attempts: 8,
            first_pause: Duration::from_millis(100),
            attempt_limit: Duration::from_secs(30),
            part_bytes: 8 << 20,
            parts_in_flight: 4,
        }
    }
}

/// An object that was opened.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    store: Arc<dyn ObjectStore>,
    path: Path,
    url: Arc<str>,
    size: u64,
    etag: Option<String>,
    remote: bool,
    /// The file itself, where the object is one.
    file: Option<LocalFile>,
    policy: ReadPolicy,
    faults: ReadFaults,
}

impl Blob {
    /// Asks the store for size and tag.
    pub(super) async fn open(
        store: Arc<dyn ObjectStore>,
        path: Path,
        url: &Url,
        policy: ReadPolicy,
        faults: ReadFaults,
    ) -> Result<Self, Error> {
        let (remote, is_file) = (location::is_remote(url), url.scheme() == "file");
        let url: Arc<str> = Arc::from(location::shown(url));
        let mut blob = Self { store, path, url, size: 0, etag: None, remote, file: None, policy, faults };
        let meta = blob
            .repeated(0, || async {
                let meta = blob.store.head(&blob.path).await?;
                Ok((Bytes::new(), meta))
            })
            .await?
            .1;
        blob.size = meta.size;
        blob.etag = meta.e_tag;
        if is_file {
            let file = LocalFile::open(&blob.path).map_err(|e| blob.unreadable(e))?;
            blob.check(file.stamp().size, &blob.etag)?;
            blob.file = Some(file);
        }
        Ok(blob)
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    pub(super) fn is_remote(&self) -> bool {
        self.remote
    }

    /// The first bytes, fewer where the object is shorter.
    pub(super) async fn head(&self, bytes: u64) -> Result<Bytes, Error> {
        self.read(0..bytes.min(self.size)).await
    }

    /// Reads a range, which has to lie within the object.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if range.end > self.size {
            return Err(Error::Truncated { url: self.url.to_string(), end: range.end, found: self.size });
        }
        let length = range.end - range.start;
        if !self.remote || length <= self.policy.part_bytes {
            return self.part(range).await;
        }
        let parts = length.div_ceil(self.policy.part_bytes);
        let parts = (0..parts).map(|i| {
            let start = range.start + i * self.policy.part_bytes;
            self.part(start..start.saturating_add(self.policy.part_bytes).min(range.end))
        });
        let mut whole = BytesMut::with_capacity(count::index(length));
        let mut parts = futures::stream::iter(parts).buffered(self.policy.parts_in_flight.max(1));
        while let Some(part) = parts.try_next().await? {
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    async fn part(&self, range: Range<u64>) -> Result<Bytes, Error> {
        if let Some(file) = &self.file {
            let wanted = range.end - range.start;
            let (bytes, now) = file.read(range).await.map_err(|e| self.unreadable(e))?;
            if now != file.stamp() || count::len(bytes.len()) != wanted {
                return Err(self.changed(now.size, &Some(String::from("of a later write"))));
            }
            return Ok(bytes);
        }
        let (bytes, meta) = self.repeated(range.start, || self.get(range.clone())).await?;
        // Compared here and not asked of the store, since not every store honours conditions on a read.
        self.check(meta.size, &meta.e_tag)?;
        Ok(bytes)
    }

    /// Refuses an object that is not the one that was opened.
    fn check(&self, size: u64, etag: &Option<String>) -> Result<(), Error> {
        if (size, etag) == (self.size, &self.etag) { Ok(()) } else { Err(self.changed(size, etag)) }
    }

    fn changed(&self, size: u64, etag: &Option<String>) -> Error {
        let say = |size: u64, etag: &Option<String>| {
            format!("{size} bytes, tag {}", etag.as_deref().unwrap_or("-"))
        };
        Error::Changed { url: self.url.to_string(), opened: say(self.size, &self.etag), now: say(size, etag) }
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        let source = match error.kind() {
            std::io::ErrorKind::NotFound => {
                object_store::Error::NotFound { path: self.path.to_string(), source: error.into() }
            }
            _ => object_store::Error::Generic { store: "file", source: error.into() },
        };
        location::failed(&self.url, source)
    }

    async fn get(&self, range: Range<u64>) -> object_store::Result<(Bytes, ObjectMeta)> {
        let wanted = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self.store.get_opts(&self.path, options).await?;
        let meta = found.meta.clone();
        let bytes = found.bytes().await?;
        if count::len(bytes.len()) != wanted {
            let reason = format!("{} bytes came, {wanted} were asked for", bytes.len());
            return Err(object_store::Error::Generic { store: "reader", source: reason.into() });
        }
        Ok((bytes, meta))
    }

    /// Repeats a request to a store over a network, with growing pauses, while a repetition can help.
    async fn repeated<T, F>(&self, offset: u64, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let failed = |source| location::failed(&self.url, source);
        if !self.remote {
            return request().await.map_err(failed);
        }
        let mut pause = self.policy.first_pause;
        for attempt in 1..self.policy.attempts.max(1) {
            let reason = match tokio::time::timeout(self.policy.attempt_limit, request()).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) if !can_be_repeated(&error) => return Err(failed(error)),
                Ok(Err(error)) => location::with_causes(&error),
                Err(_) => format!("nothing came within {:?}", self.policy.attempt_limit),
            };
            self.faults.note(ReadFault { url: self.url.to_string(), offset, attempt, reason });
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(ReadPolicy::LONGEST_PAUSE);
        }
        match tokio::time::timeout(self.policy.attempt_limit, request()).await {
            Ok(ended) => ended.map_err(failed),
            Err(_) => Err(Error::Stalled {
                url: self.url.to_string(),
                attempts: self.policy.attempts.max(1),
                limit: self.policy.attempt_limit,
            }),
        }
    }
}

/// What is not there, not allowed or not understood stays so.
fn can_be_repeated(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
        && !location::is_about_credentials(error)
}
