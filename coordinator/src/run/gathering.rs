//! Before the first phase: waits for the workers that the run wants.

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
}

impl Gathering {
    pub(crate) fn new(settings: &Settings, now: MonoNs) -> Self {
        Self { until: now.saturating_add(settings.gather_ns) }
    }

    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        let here = book.roster.count_here();
        let wanted = book.settings.workers_wanted;
        match happened {
            Happened::Joined(_) | Happened::Tick if here >= wanted => begin_next(self, now, book),
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
