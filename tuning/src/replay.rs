//! How a search that is written as a plain function stops at a question and goes on at its answer.
//!
//! A search asks a [`Source`]. In production that is a [`Replay`] of the answers so far: the search runs again from its
//! start, takes them one by one, and stops at the first question without one. So its whole state is that list. Law: what
//! a search asks depends on nothing but its specification and the answers before.

use crate::measured::{Event, Measured};

/// How often in a row a measurement may be not valid before a search gives up.
const INVALID_MOST: usize = 3;

/// Why a search cannot go on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pause<A> {
    /// This has to be measured next.
    Need(A),
    /// As many measurements as are allowed were made.
    Spent,
    /// What was delivered does not do.
    GaveUp(String),
}

/// Who answers.
pub(crate) trait Source<A> {
    fn answer(&mut self, ask: A) -> Result<Measured, Pause<A>>;
}

/// Answers of before.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    log: &'a [Event],
}

impl<'a> Replay<'a> {
    pub(crate) fn new(log: &'a [Event]) -> Self {
        Self { log }
    }
}

impl<A> Source<A> for Replay<'_> {
    fn answer(&mut self, ask: A) -> Result<Measured, Pause<A>> {
        let mut faults = 0;
        while let Some((first, rest)) = self.log.split_first() {
            self.log = rest;
            match first {
                Event::Measured(measured) => return Ok(measured.clone()),
                Event::Invalid(why) => {
                    faults += 1;
                    if faults >= INVALID_MOST {
                        return Err(Pause::GaveUp(format!(
                            "{faults} measurements in a row were not valid, the last: {why}"
                        )));
                    }
                }
            }
        }
        Err(Pause::Need(ask))
    }
}
