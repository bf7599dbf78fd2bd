//! Why there is no run, and what a script is told then.
//!
//! Given back by [`super::run`] for what went wrong before a run began. Law: the text names what was asked for and
//! every cause below it.

use std::path::PathBuf;

use vst_common::exit::Exit;
use vst_common::scenario::check::Faults;

use super::results;
use crate::target::TargetError;
use crate::{archive, run_log};

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scenario asks what its data cannot give.
    #[error(transparent)]
    Scenario(#[from] Faults),
    /// The target cannot be used.
    #[error("{}", chain(.0))]
    Target(#[from] TargetError),
    /// The run directory cannot be made.
    #[error("{}", chain(.0))]
    Log(#[from] run_log::Error),
    /// The run directory cannot be read back.
    #[error("{}", chain(.0))]
    Archive(#[source] Box<archive::Error>),
    /// Nobody can connect.
    #[error("cannot listen on `{address}`: {source}; give --listen another host:port")]
    Listen {
        /// As asked for.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The state cannot be shown.
    #[error(transparent)]
    Http(#[from] vst_http::Error),
    /// Figures cannot be pushed.
    #[error(transparent)]
    Push(#[from] vst_http::PushError),
    /// Workers cannot be told who leads.
    #[error(transparent)]
    Etcd(#[from] vst_etcd::Error),
    /// The address cannot be told.
    #[error("cannot write the address to `{path}`: {source}", path = path.display())]
    Announce {
        /// As asked for.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates are no good.
    #[error("the certificates of the port cannot be used: {}", chain(.0))]
    Certificates(tonic::transport::Error),
    /// Where results go no run can be written.
    #[error(transparent)]
    Unwritable(#[from] results::Error),
    /// The run of another coordinator cannot be planned from here.
    #[error("the log of the run is not of this plan: {0}; start the coordinator with the run's own scenario")]
    OtherPlan(String),
    /// Somebody wanted it to end before it began.
    #[error("interrupted before the run began")]
    Interrupted,
}

impl From<archive::Error> for Error {
    fn from(error: archive::Error) -> Self {
        Self::Archive(Box::new(error))
    }
}

impl Error {
    /// What a script is told.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Scenario(_) | Self::OtherPlan(_) => Exit::Scenario,
            Self::Target(e) => e.exit(),
            Self::Etcd(_) => Exit::Fleet,
            Self::Log(_)
            | Self::Archive(_)
            | Self::Http(_)
            | Self::Push(_)
            | Self::Listen { .. }
            | Self::Announce { .. }
            | Self::Certificates(_)
            | Self::Unwritable(_) => Exit::Usage,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// The faults of the scenario, for whoever prints them with their places.
    #[must_use]
    pub fn faults(&self) -> Option<&Faults> {
        match self {
            Self::Scenario(faults) => Some(faults),
            _ => None,
        }
    }
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
