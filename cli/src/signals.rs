//! The signals that ask a command to end, counted: the first lets things end in order, the second breaks off what is
//! in flight, the third leaves at once.
//!
//! Listened to before anything is started, so that no signal finds a process that would just die of it and leave
//! servers behind. A terminal that closes (SIGHUP) asks like any other.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use vst_common::exit::Exit;

use crate::error::Failure;

/// A signal that asks for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Ctrl-C.
    Interrupt,
    /// What a service manager sends.
    Terminate,
    /// The terminal is gone.
    HangUp,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
        })
    }
}

impl From<Asked> for rustix::process::Signal {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Interrupt => Self::INT,
            Asked::Terminate => Self::TERM,
            Asked::HangUp => Self::HUP,
        }
    }
}

/// How many have come, and the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Signals(watch::Receiver<(u32, Asked)>);

impl Signals {
    /// From now on no signal ends the process by itself.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|e| Failure::new(Exit::Bug, format!("signals cannot be caught: {e}")))
        };
        let caught =
            (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?, catch(SignalKind::hangup())?);
        let (count, seen) = watch::channel((0, Asked::Interrupt));
        tokio::spawn(counted(caught, count));
        Ok(Self(seen))
    }

    /// Resolves when at least `n` have come; gives the last.
    pub(crate) async fn nth(&self, n: u32) -> Asked {
        let mut seen = self.0.clone();
        let asked = seen.wait_for(|(count, _)| *count >= n).await.map(|seen| seen.1);
        match asked {
            Ok(asked) => asked,
            // Only the end of the process ends the counting.
            Err(_) => std::future::pending().await,
        }
    }

    /// How many have come.
    pub(crate) fn count(&self) -> u32 {
        self.0.borrow().0
    }

    /// Does something that can be dropped at any time, unless a signal comes first.
    pub(crate) async fn unless_asked<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            asked = self.nth(1) => {
                Err(Failure::new(Exit::Interrupted, format!("stopped by {asked} before the run began")))
            }
        }
    }
}

async fn counted(
    (mut interrupt, mut terminate, mut hang_up): (Signal, Signal, Signal),
    count: watch::Sender<(u32, Asked)>,
) {
    loop {
        let asked = tokio::select! {
            Some(()) = interrupt.recv() => Asked::Interrupt,
            Some(()) = terminate.recv() => Asked::Terminate,
            Some(()) = hang_up.recv() => Asked::HangUp,
            else => return,
        };
        count.send_modify(|(n, last)| (*n, *last) = (n.saturating_add(1), asked));
    }
}
