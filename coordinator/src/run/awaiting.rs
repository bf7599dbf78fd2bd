//! Between two phases of a run whose phases come on demand: waits to hear what is next.
//!
//! Law: it is said that the run waits only when everything before has ended and its end is in the log, so that whoever
//! reads the run then reads all of it.

use vst_common::clock::MonoNs;

use super::beginning::begin_next;
use super::book::Book;
use super::state::State;
use super::{Action, Happened};

#[derive(Debug)]
pub(crate) struct Awaiting;

impl Awaiting {
    pub(crate) fn new(book: &mut Book) -> Self {
        book.act(Action::AwaitNext);
        Self
    }

    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        match happened {
            Happened::Next => begin_next(self, now, book),
            _ => State::Awaiting(self),
        }
    }
}
