//! A wire between two processes that a test can cut: bytes stop in both directions, and nobody is told.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A port of this machine behind which is another; it ends with the test's runtime.
#[derive(Debug)]
pub struct Wire {
    /// `127.0.0.1:port`
    pub address: String,
    whole: Arc<watch::Sender<bool>>,
}

impl Wire {
    /// A whole wire to an address.
    pub async fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("its address").to_string();
        let whole = Arc::new(watch::Sender::new(true));
        let (far, state) = (address.to_owned(), Arc::clone(&whole));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (far, state) = (far.clone(), state.subscribe());
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(&far).await {
                        let (near, far) = (near.into_split(), far.into_split());
                        tokio::join!(pass(near.0, far.1, state.clone()), pass(far.0, near.1, state));
                    }
                });
            }
        });
        Self { address: own, whole }
    }

    /// From now on nothing gets through.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// What waited goes on.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut whole: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(n) = from.read(&mut bytes).await
        && n > 0
    {
        // The end of the test is the end of the wire.
        if whole.wait_for(|whole| *whole).await.is_err() || to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}
