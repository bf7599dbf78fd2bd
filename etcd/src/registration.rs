//! One key under a lease that is kept alive, and put back when etcd lost it.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Client, Error};
use crate::rpc;

/// First pause after a failure; doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Keeps a key in etcd while it lives; call [`Registration::end`] to remove the key at once.
#[derive(Debug)]
pub struct Registration {
    client: Client,
    held: watch::Receiver<Option<i64>>,
    keeper: JoinHandle<()>,
}

impl Registration {
    /// Writes the key and keeps it there. The first write is waited for; later losses are mended in the background.
    ///
    /// `ttl` is how long etcd keeps the key after this process was last heard of, in whole seconds, at least 2.
    ///
    /// # Errors
    /// [`Error::Call`] when the first write fails.
    pub async fn hold(client: &Client, key: String, value: Vec<u8>, ttl: Duration) -> Result<Self, Error> {
        let seconds = vst_common::count::to_i64(ttl.as_secs().max(2));
        let lease = client.grant(seconds).await?;
        client.put(&key, &value, lease).await?;
        let (holds, held) = watch::channel(Some(lease));
        let keeper = Keeper { client: client.clone(), key, value, seconds, holds };
        Ok(Self { client: client.clone(), held, keeper: tokio::spawn(keeper.run(lease)) })
    }

    /// Whether etcd is known to hold the key now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// Removes the key.
    ///
    /// # Errors
    /// [`Error::Call`] when etcd cannot be told; the key goes when its time to live is over.
    pub async fn end(self) -> Result<(), Error> {
        self.keeper.abort();
        let lease = *self.held.borrow();
        match lease {
            Some(lease) => self.client.revoke(lease).await,
            None => Ok(()),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Keeper {
    client: Client,
    key: String,
    value: Vec<u8>,
    seconds: i64,
    holds: watch::Sender<Option<i64>>,
}

impl Keeper {
    async fn run(self, first: i64) {
        let mut lease = Some(first);
        let mut pause = PAUSE;
        loop {
            match lease {
                Some(held) => {
                    let why = self.keep_alive(held).await;
                    tracing::warn!(
                        "etcd may have lost the registration {}: {why}; writing it again",
                        self.key
                    );
                    self.holds.send_replace(None);
                    lease = None;
                }
                None => match self.write().await {
                    Ok(new) => {
                        tracing::info!("the registration {} is in etcd again", self.key);
                        self.holds.send_replace(Some(new));
                        lease = Some(new);
                        pause = PAUSE;
                    }
                    Err(e) => {
                        tracing::debug!("{e}");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                },
            }
        }
    }

    async fn write(&self) -> Result<i64, Error> {
        let lease = self.client.grant(self.seconds).await?;
        self.client.put(&self.key, &self.value, lease).await?;
        Ok(lease)
    }

    /// Renews the lease three times in its life until it cannot be; gives why.
    async fn keep_alive(&self, lease: i64) -> String {
        let every = Duration::from_secs(u64::try_from(self.seconds).unwrap_or(2)) / 3;
        let (ask, asked) = mpsc::channel(1);
        let request = self.client.with_token(ReceiverStream::new(asked));
        let mut leases = self.client.leases();
        let opened = async {
            // The first question goes along: etcd opens its side of the stream only when it is asked something.
            let _ = ask.send(rpc::LeaseKeepAliveRequest { id: lease }).await;
            leases.lease_keep_alive(request).await
        };
        let mut answers = match self.client.within("keeping a lease alive", opened).await {
            Ok(answers) => answers,
            Err(e) => return e.to_string(),
        };
        loop {
            match tokio::time::timeout(every, answers.message()).await {
                Ok(Ok(Some(answer))) if answer.ttl > 0 => {}
                Ok(Ok(Some(_))) => return "the lease has ended".into(),
                Ok(Ok(None)) => return "etcd closed the stream".into(),
                Ok(Err(status)) => return crate::client::explain(&status),
                Err(_) => return "no answer in time".into(),
            }
            tokio::time::sleep(every).await;
            if ask.send(rpc::LeaseKeepAliveRequest { id: lease }).await.is_err() {
                return "etcd closed the stream".into();
            }
        }
    }
}
