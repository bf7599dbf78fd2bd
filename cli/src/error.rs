//! Expected failures of a command, each with its exit code.

use vst_common::exit::Exit;

use crate::output;

/// A command ended without a result.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    exit: Exit,
}

impl Failure {
    /// A failure with the text a person sees and the code a script sees.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), exit }
    }

    /// Says it on stderr: faults of a file stand for themselves, anything else begins with who says it.
    pub(crate) fn tell(&self) {
        match self.exit {
            Exit::Scenario if self.message.contains('\n') => output::note(&self.message),
            _ => output::complain(&self.message),
        }
    }

    /// The code that the process returns.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Bug, error.to_string())
    }
}
