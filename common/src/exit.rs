//! Exit codes: what a script may rely on.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Finished and valid.
    Valid = 0,
    /// A bug in vst.
    Bug = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A scenario, data set or configuration is wrong.
    Scenario = 3,
    /// The target does not answer, lacks what the scenario needs, or refused.
    Target = 4,
    /// The fleet is incomplete: too few workers came, or one was lost.
    Fleet = 5,
    /// A success criterion was missed, or a regression was found.
    Criterion = 6,
    /// Finished, but the measurement is not valid.
    NotValid = 7,
    /// Interrupted; what there is was written and is marked partial.
    Interrupted = 130,
}

impl Exit {
    /// The number that the process returns.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What a number means that a process of vst returned; any other number is a bug.
    #[must_use]
    pub fn of_code(code: i32) -> Self {
        let all = [
            Self::Valid,
            Self::Usage,
            Self::Scenario,
            Self::Target,
            Self::Fleet,
            Self::Criterion,
            Self::NotValid,
            Self::Interrupted,
        ];
        all.into_iter().find(|exit| i32::from(exit.code()) == code).unwrap_or(Self::Bug)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
