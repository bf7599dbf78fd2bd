//! The end of a run: workers leave, the log becomes parts, the last record is written.
//!
//! Law: the last record of a log is the closing one, and it is written after every stream has ended or was given up
//! on. Whatever fails on the way, the run comes to its end and keeps the first reason.

use vst_common::clock::MonoNs;
use vst_common::entry::Control;
use vst_common::exit::Exit;

use super::book::Book;
use super::state::State;
use super::{Action, Failure, Happened, LogFate, Ticket, Verdict};

#[derive(Debug)]
pub(crate) struct Closing {
    verdict: Verdict,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Workers deliver what they have and leave.
    Leaving { until: MonoNs },
    /// The log becomes parts.
    Archiving,
    /// The closing record is on its way.
    Sealing(Ticket),
}

impl Closing {
    /// Tells everybody that it is over.
    pub(crate) fn enter(verdict: Verdict, now: MonoNs, book: &mut Book) -> State {
        book.observing = false;
        book.break_off(&verdict, now);
        let reason = if verdict.reason.is_empty() { "the run is complete" } else { &verdict.reason };
        if verdict.exit != Exit::Valid {
            book.note("run_ending", None, reason.to_owned());
        }
        book.close_all(reason);
        let until = now.saturating_add(book.settings.leave_ns);
        Self { verdict, stage: Stage::Leaving { until } }.leave(now, book)
    }

    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        match (&self.stage, happened) {
            (Stage::Leaving { .. }, Happened::Left(_) | Happened::Tick) => self.leave(now, book),
            (Stage::Archiving, Happened::Archived) => self.seal(now, book),
            (Stage::Sealing(ticket), Happened::Logged(logged)) if ticket == logged => {
                book.finish(self.verdict);
                State::Over
            }
            (_, Happened::Joined(generation) | Happened::Resumed(generation, _)) => {
                book.tell(*generation, super::Tell::Close(String::from("the run is over")));
                State::Closing(self)
            }
            _ => State::Closing(self),
        }
    }

    fn leave(mut self, now: MonoNs, book: &mut Book) -> State {
        let Stage::Leaving { until } = self.stage else { return State::Closing(self) };
        let staying: Vec<_> = book.roster.staying().map(|(g, _)| g).collect();
        if !staying.is_empty() && now < until {
            return State::Closing(self);
        }
        for generation in staying {
            let detail = format!("worker {} did not leave in time", book.worker_name(generation));
            book.note("worker_stayed", Some(generation), detail.clone());
            if self.verdict.exit == Exit::Valid {
                self.verdict = Verdict::finished(Exit::NotValid, detail);
            }
        }
        book.act(Action::Archive);
        self.stage = Stage::Archiving;
        State::Closing(self)
    }

    /// Writes the closing record now, whatever was still awaited.
    pub(crate) fn seal(mut self, now: MonoNs, book: &mut Book) -> State {
        if !matches!(self.stage, Stage::Sealing(_)) {
            let state = self.verdict.state.clone();
            let ticket = book.log(Control::RunClosed {
                state,
                exit_code: self.verdict.exit.code(),
                at_wall_ns: book.wall(now),
            });
            book.sealed = true;
            self.stage = Stage::Sealing(ticket);
        }
        State::Closing(self)
    }

    /// Something fails while the run closes.
    pub(crate) fn fail(mut self, failure: Failure, now: MonoNs, book: &mut Book) -> State {
        if self.verdict.exit == Exit::Valid {
            self.verdict = Verdict::finished(failure.exit, failure.reason);
        }
        if failure.log != LogFate::Writable {
            book.finish(self.verdict);
            return State::Over;
        }
        match self.stage {
            Stage::Archiving => self.seal(now, book),
            _ => self.leave(now, book),
        }
    }
}
