//! Ends a child process when its parent is gone.
//!
//! The parent holds the other end of the child's standard input; however the parent ends, the kernel closes it. So a
//! fleet that `vst run` started does not outlive it, even after kill -9.

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// Resolves when the process is asked to stop: SIGINT, SIGTERM, or (with `leashed`) the end of standard input.
pub(crate) async fn stop_asked(leashed: bool) {
    tokio::select! {
        () = asked(SignalKind::interrupt()) => {}
        () = asked(SignalKind::terminate()) => {}
        () = parent_gone(), if leashed => {}
    }
}

/// Resolves at the next signal of a kind; never when it cannot be listened to.
pub(crate) async fn asked(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "signals cannot be caught");
            std::future::pending::<()>().await;
        }
    }
}

async fn parent_gone() {
    let mut input = tokio::io::stdin();
    let mut byte = [0; 64];
    while !matches!(input.read(&mut byte).await, Ok(0) | Err(_)) {}
}
