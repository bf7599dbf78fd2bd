//! Ends a child process when its parent is gone.
//!
//! The parent holds the other end of the child's standard input; however the parent ends, the kernel closes it. So a
//! fleet that `vst run` started does not outlive it, even after kill -9.

use tokio::io::AsyncReadExt;

/// What the record of a run says whose parent has gone.
pub(crate) const PARENT_GONE: &str = "`vst run`, which started it, is gone without a word (was it killed?)";

/// Resolves at the end of standard input.
pub(crate) async fn parent_gone() {
    let mut input = tokio::io::stdin();
    let mut byte = [0; 64];
    while !matches!(input.read(&mut byte).await, Ok(0) | Err(_)) {}
}
