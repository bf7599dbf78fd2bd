//! The states of a run and the moves between them that are legal.
//!
//! A move that is not listed here does not compile. Any state may move to [`Closing`], because anything may fail or be
//! stopped.

use vst_common::clock::MonoNs;

use super::awaiting::Awaiting;
use super::beginning::{Beginning, Creating};
use super::book::Book;
use super::checkpointing::Checkpointing;
use super::closing::Closing;
use super::ending::Ending;
use super::gathering::Gathering;
use super::loading::{Arming, CountingIn, CountingOut, Loading, Starting};
use super::settling::{Deciding, Settling};
use super::{Failure, Happened, LogFate, Verdict};

/// Where the run is.
#[derive(Debug)]
pub(crate) enum State {
    Gathering(Gathering),
    Beginning(Beginning),
    Creating(Creating),
    Arming(Arming),
    CountingIn(CountingIn),
    Starting(Starting),
    Loading(Loading),
    CountingOut(CountingOut),
    Settling(Settling),
    Deciding(Deciding),
    Checkpointing(Checkpointing),
    Ending(Ending),
    Awaiting(Awaiting),
    Closing(Closing),
    /// Nothing can happen any more.
    Over,
}

/// A legal move from one state to another.
pub(crate) trait TransitionTo<Next>: Sized
where
    State: From<Next>,
{
    /// Moves.
    fn to(self, next: Next) -> State {
        State::from(next)
    }
}

impl TransitionTo<Beginning> for Gathering {}
impl TransitionTo<Creating> for Beginning {}
impl TransitionTo<Arming> for Gathering {}
impl TransitionTo<Arming> for Ending {}
impl TransitionTo<Settling> for Beginning {}
impl TransitionTo<Checkpointing> for Beginning {}
impl TransitionTo<Ending> for Creating {}
impl TransitionTo<CountingIn> for Arming {}
impl TransitionTo<Starting> for CountingIn {}
impl TransitionTo<Loading> for Starting {}
impl TransitionTo<CountingOut> for Loading {}
impl TransitionTo<Ending> for CountingOut {}
impl TransitionTo<Ending> for Settling {}
impl TransitionTo<Deciding> for Settling {}
impl TransitionTo<Ending> for Deciding {}
impl TransitionTo<Ending> for Checkpointing {}
impl TransitionTo<Beginning> for Ending {}
impl TransitionTo<Awaiting> for Gathering {}
impl TransitionTo<Awaiting> for Ending {}
impl TransitionTo<Awaiting> for Awaiting {}
impl TransitionTo<Beginning> for Awaiting {}
impl TransitionTo<Arming> for Awaiting {}

macro_rules! states {
    ($($name:ident),+) => {
        $(
            impl From<$name> for State {
                fn from(state: $name) -> Self {
                    Self::$name(state)
                }
            }
        )+
    };
}
states!(
    Gathering,
    Beginning,
    Creating,
    Arming,
    CountingIn,
    Starting,
    Loading,
    CountingOut,
    Settling,
    Deciding,
    Checkpointing,
    Ending,
    Awaiting,
    Closing
);

impl State {
    /// The next state.
    pub(crate) fn advance(self, happened: Happened, now: MonoNs, book: &mut Book) -> Self {
        match self {
            Self::Gathering(s) => s.advance(&happened, now, book),
            Self::Beginning(s) => s.advance(&happened, now, book),
            Self::Creating(s) => s.advance(&happened, now, book),
            Self::Arming(s) => s.advance(happened, now, book),
            Self::CountingIn(s) => s.advance(happened, now, book),
            Self::Starting(s) => s.advance(happened, now, book),
            Self::Loading(s) => s.advance(happened, now, book),
            Self::CountingOut(s) => s.advance(&happened, now, book),
            Self::Settling(s) => s.advance(happened, now, book),
            Self::Deciding(s) => s.advance(&happened, now, book),
            Self::Checkpointing(s) => s.advance(&happened, now, book),
            Self::Ending(s) => s.advance(&happened, now, book),
            Self::Awaiting(s) => s.advance(&happened, now, book),
            Self::Closing(s) => s.advance(&happened, now, book),
            Self::Over => Self::Over,
        }
    }

    /// The run cannot go on.
    pub(crate) fn fail(self, failure: Failure, now: MonoNs, book: &mut Book) -> Self {
        match self {
            Self::Over => Self::Over,
            Self::Closing(s) => s.fail(failure, now, book),
            _ if failure.log != LogFate::Writable => {
                // Where another coordinator leads, the run is not over: its workers are to look for that one.
                if failure.log == LogFate::Lost {
                    book.close_all(&failure.reason);
                }
                book.finish(Verdict::failed(failure.exit, failure.reason));
                Self::Over
            }
            // What was measured until now is worth having, all the more when something went wrong.
            Self::Loading(s) => s.fail(Verdict::failed(failure.exit, failure.reason), now, book),
            Self::CountingOut(_) | Self::Ending(_) => {
                book.stop_after_phase(Verdict::failed(failure.exit, failure.reason));
                self
            }
            _ => Closing::enter(Verdict::failed(failure.exit, failure.reason), now, book),
        }
    }

    /// What was to be done to index or cluster, or a program that is a phase, has failed.
    pub(crate) fn deed_failed(self, failure: Failure, now: MonoNs, book: &mut Book) -> Self {
        match self {
            Self::Loading(s) if failure.log == LogFate::Writable => {
                s.deed_failed(Verdict::failed(failure.exit, failure.reason), now, book)
            }
            other => other.fail(failure, now, book),
        }
    }

    /// Somebody wants it to end.
    pub(crate) fn stop(self, reason: &str, at_once: bool, now: MonoNs, book: &mut Book) -> Self {
        let verdict = Verdict::interrupted(reason);
        match self {
            Self::Over => Self::Over,
            Self::Closing(s) if at_once => s.seal(now, book),
            Self::Closing(s) => Self::Closing(s),
            _ if at_once => match Closing::enter(verdict, now, book) {
                Self::Closing(s) => s.seal(now, book),
                other => other,
            },
            // Load that runs is drained first, so that what is in flight is counted and not cut off.
            Self::Loading(s) => {
                book.stop_after_phase(verdict);
                s.drain(now, book)
            }
            Self::CountingOut(s) => {
                book.stop_after_phase(verdict);
                Self::CountingOut(s)
            }
            Self::Ending(s) => {
                book.stop_after_phase(verdict);
                Self::Ending(s)
            }
            _ => Closing::enter(verdict, now, book),
        }
    }

    /// Whether workers are expected to leave.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self, Self::Closing(_) | Self::Over)
    }

    /// Whether a worker that goes now spoils the run: before the first phase nothing was measured yet.
    pub(crate) fn counts_losses(&self) -> bool {
        match self {
            Self::Gathering(s) => s.is_again(),
            _ => true,
        }
    }

    /// What the run is doing and what it waits for, for people.
    pub(crate) fn doing(&self, book: &Book) -> String {
        match self {
            Self::Arming(s) => format!("{}: {}", self.word(), s.waits_for(book)),
            _ => self.word().to_owned(),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Gathering(_) => "gathering workers",
            Self::Beginning(_) => "beginning",
            Self::Creating(_) => "changing the target",
            Self::Arming(_) | Self::CountingIn(_) | Self::Starting(_) => "arming",
            Self::Loading(_) => "loading",
            Self::Settling(_) | Self::Deciding(_) => "settling",
            Self::Checkpointing(_) => "sampling memory",
            Self::CountingOut(_) | Self::Ending(_) => "ending",
            Self::Awaiting(_) => "waiting for the next phase",
            Self::Closing(_) => "closing",
            Self::Over => "over",
        }
    }

    /// Rows done and in total, where the phase leases ranges.
    pub(crate) fn units(&self) -> (u64, u64) {
        match self {
            Self::Arming(s) => s.load().units(),
            Self::CountingIn(s) => s.load().units(),
            Self::Starting(s) => s.load().units(),
            Self::Loading(s) => s.load().units(),
            Self::CountingOut(s) => s.load().units(),
            _ => (0, 0),
        }
    }
}
