//! What is registered under a prefix, followed over time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Client, Error, after_prefix, explain};
use crate::rpc::event::EventType;
use crate::rpc::{self, watch_request::RequestUnion};

/// Pause before a watch that ended is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// Keys (without the prefix) and values.
pub type Members = BTreeMap<String, Vec<u8>>;

/// Follows a prefix while it lives.
#[derive(Debug)]
pub struct Watching {
    seen: watch::Receiver<Members>,
    follower: JoinHandle<()>,
}

impl Watching {
    /// Reads what is there now and follows it from that revision on. While etcd is away the last view stands: losing
    /// etcd must not look like losing everybody.
    ///
    /// # Errors
    /// [`Error::Call`] when the first reading fails.
    pub async fn start(client: &Client, prefix: &str) -> Result<Self, Error> {
        let (members, revision) = read(client, prefix).await?;
        let (show, seen) = watch::channel(members);
        let follower = Follower { client: client.clone(), prefix: prefix.into(), show };
        Ok(Self { seen, follower: tokio::spawn(follower.run(revision)) })
    }

    /// What is there, and its changes.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Members> {
        self.seen.clone()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

async fn read(client: &Client, prefix: &str) -> Result<(Members, i64), Error> {
    let (pairs, revision) = client.list(prefix).await?;
    let own = |(key, value): (String, Vec<u8>)| (strip(&key, prefix), value);
    Ok((pairs.into_iter().map(own).collect(), revision))
}

fn strip(key: &str, prefix: &str) -> String {
    key.strip_prefix(prefix).unwrap_or(key).to_owned()
}

struct Follower {
    client: Client,
    prefix: String,
    show: watch::Sender<Members>,
}

impl Follower {
    async fn run(self, revision: i64) {
        let mut from = revision;
        loop {
            let why = self.follow(&mut from).await;
            tracing::debug!("the watch of {} ended: {why}; opening it again", self.prefix);
            // Read anew: what happened in between may have been compacted away.
            loop {
                tokio::time::sleep(PAUSE).await;
                match read(&self.client, &self.prefix).await {
                    Ok((members, revision)) => {
                        from = revision;
                        self.show.send_if_modified(|shown| {
                            let changed = *shown != members;
                            *shown = members;
                            changed
                        });
                        break;
                    }
                    Err(e) => tracing::debug!("{e}"),
                }
            }
        }
    }

    async fn follow(&self, from: &mut i64) -> String {
        let (ask, asked) = mpsc::channel(1);
        let create = rpc::WatchCreateRequest {
            key: self.prefix.as_str().into(),
            range_end: after_prefix(self.prefix.as_bytes()),
            start_revision: from.saturating_add(1),
        };
        let create = rpc::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let mut watches = self.client.watches();
        let request = self.client.with_token(ReceiverStream::new(asked));
        let opened = async {
            let _ = ask.send(create).await;
            watches.watch(request).await
        };
        let mut changes = match self.client.within("watching keys", opened).await {
            Ok(changes) => changes,
            Err(e) => return e.to_string(),
        };
        loop {
            let change = match changes.message().await {
                Ok(Some(change)) => change,
                Ok(None) => return "etcd closed it".into(),
                Err(status) => return explain(&status),
            };
            if change.canceled {
                return change.cancel_reason;
            }
            if let Some(header) = &change.header {
                *from = header.revision;
            }
            if !change.events.is_empty() {
                self.show.send_modify(|shown| self.apply(shown, change.events));
            }
        }
    }

    fn apply(&self, shown: &mut Members, events: Vec<rpc::Event>) {
        for event in events {
            let kind = event.r#type();
            let Some(pair) = event.kv else { continue };
            let name = strip(&String::from_utf8_lossy(&pair.key), &self.prefix);
            match kind {
                EventType::Put => shown.insert(name, pair.value),
                EventType::Delete => shown.remove(&name),
            };
        }
    }
}
