//! Before the first phase: waits for the workers that the run wants. After a change of leader between two phases: waits
//! for those who were there, until each is back or counts as lost.

use vst_common::clock::{MonoNs, SECOND_NS};
use vst_common::exit::Exit;

use super::beginning::begin_next;
use super::book::{Book, Settings};
use super::closing::Closing;
use super::state::State;
use super::{Happened, Verdict};

#[derive(Debug)]
pub(crate) struct Gathering {
    until: MonoNs,
    /// After a change of leader.
    again: bool,
}

impl Gathering {
    pub(crate) fn new(settings: &Settings, now: MonoNs) -> Self {
        Self { until: now.saturating_add(settings.gather_ns), again: false }
    }

    /// Another coordinator led until now.
    pub(crate) fn again(settings: &Settings, now: MonoNs) -> Self {
        Self { again: true, ..Self::new(settings, now) }
    }

    pub(crate) fn is_again(&self) -> bool {
        self.again
    }

    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        let here = book.roster.count_here();
        let wanted = match self.again {
            true => here.saturating_add(book.roster.away().count()).max(1),
            false => book.settings.workers_wanted,
        };
        match happened {
            Happened::Joined(_) | Happened::Resumed(..) | Happened::Tick if here >= wanted => {
                begin_next(self, now, book)
            }
            Happened::Tick if now >= self.until => {
                let reason = format!(
                    "{here} of {wanted} workers came within {} s: start more, or ask for fewer with --workers",
                    book.settings.gather_ns / SECOND_NS
                );
                Closing::enter(Verdict::failed(Exit::Fleet, reason), now, book)
            }
            _ => State::Gathering(self),
        }
    }
}
