//! The run as a state machine: what happens is an [`Event`], what to do about it an [`Action`].
//!
//! Fed by `serve` (ticks, worker streams, the log, finished effects), which also performs the actions and reports
//! back. Pure: time is an argument, nothing here waits. Law: a phase ends only when every worker that was armed for it
//! has ended it or is lost, its end is logged only after what the workers stated is delivered or given up on, and
//! the log says started and ended in turns, in the order of the plan. The legal moves are in `run::state`.

mod awaiting;
mod beginning;
mod book;
mod checkpointing;
mod closing;
mod ending;
mod gathering;
mod loading;
mod recovery;
mod settling;
#[cfg(test)]
mod simulation;
mod state;
mod weighing;

use std::sync::Arc;

use vst_common::clock::{MonoNs, WallNs};
use vst_common::entry::{Control, RunState};
use vst_common::exit::Exit;
use vst_common::ids::{Generation, PhaseIndex, WorkerId};
use vst_common::phase::PhaseOrder;
use vst_common::ranges::RowRange;
use vst_common::scenario::IndexSpec;
use vst_common::scenario::operations::Operation;
use vst_common::shares::ShareSet;

use crate::plan::{PlannedPhase, RunPlan};
pub use crate::roster::Statement;
use crate::roster::{Arrival, Before, Presence, Refusal, Roster};
use book::Book;
pub use book::{Findings, Settings, View};
pub use recovery::Past;
use state::State;

/// Names one log record until it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Start or end of a phase of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Before the first request.
    Start,
    /// After the last reply.
    End,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time went by. Comes often enough for deadlines of a tenth of a second.
    Tick,
    /// A worker said something on its stream.
    Said(Generation, Said),
    /// A worker's stream ended, whoever ended it. The worker may come back until its lease is over.
    StreamEnded(Generation),
    /// The log holds this worker's batches up to this sequence, without a gap.
    Delivered(Generation, u64),
    /// A record is durable, with all before it.
    Logged(Ticket),
    /// The index exists on every node.
    IndexCreated,
    /// The index exists on no node.
    IndexDropped,
    /// The cluster is changed as was asked, or the program has ended.
    Operated,
    /// The server's counters were read and handed to the log.
    CommandsCounted(Edge),
    /// A lost worker's connections are closed on every node, or why that is not known.
    CutOff(Generation, Result<(), String>),
    /// An answer to [`Action::ReadRest`].
    RestRead(Rest),
    /// An answer to [`Action::Decide`]: the plan from here on.
    Decided(Arc<RunPlan>),
    /// Everything acknowledged is in parts.
    Archived,
    /// Something could not be done; the run cannot go on.
    Failed(Failure),
    /// The same of what was to be done to index or cluster, and of a program that is a phase.
    DeedFailed(Failure),
    /// Of a run whose phases come on demand: one more at the end of the plan, or none will come.
    Next(Option<Box<PlannedPhase>>),
    /// Somebody wants the run to end early. The second time it ends at once.
    Stop(String),
}

/// What a worker says.
#[derive(Clone, Debug)]
pub enum Said {
    /// The first word.
    Hello(Box<Arrival>),
    /// It is alive.
    Heartbeat {
        /// Its clock when it asked.
        worker_mono: MonoNs,
        /// The coordinator's clock when that came.
        at: MonoNs,
    },
    /// Ready for the phase.
    Armed(PhaseIndex),
    /// It can take up to `ranges` more ranges.
    LeaseRequest {
        /// For which phase.
        phase: PhaseIndex,
        /// How many it can take.
        ranges: u32,
    },
    /// It hands a range back.
    RangeDone {
        /// Of which phase.
        phase: PhaseIndex,
        /// The range.
        range: RowRange,
        /// Rows that ended well.
        ok: u64,
        /// Rows that did not.
        failed: u64,
        /// The first error's text, empty for none.
        first_error: String,
    },
    /// It has ended the phase.
    PhaseDone(Statement),
    /// It cannot go on.
    Fault {
        /// In which phase.
        phase: PhaseIndex,
        /// Why.
        reason: String,
        /// Whether it is the target that does not do its part.
        target: bool,
    },
    /// It has ended what it did and leaves, because somebody asked it to. It still delivers.
    Goodbye(String),
}

/// How far the target is from rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// `used_memory` summed over all nodes, bytes.
    pub used_memory_bytes: u64,
    /// What is still going on (a backfill, queued mutations), in words; `None` when nothing is.
    pub busy: Option<String>,
}

/// Why the run cannot go on, and what a script is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// For people: lower case, with the fix where one is known.
    pub reason: String,
    /// Whether more can be logged.
    pub log: LogFate,
}

/// Whether more can be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFate {
    /// It can.
    Writable,
    /// The log cannot be written any more.
    Lost,
    /// Another coordinator leads: the run goes on without this one.
    Taken,
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send to a worker.
    Tell(Generation, Tell),
    /// A stream that was opened as one registration goes on as another, of which nothing else may be heard.
    Adopt {
        /// The stream, by the registration that it was opened as.
        stream: Generation,
        /// The registration that it speaks for from now on.
        registration: Generation,
    },
    /// Tell a worker why it is not let in, and end its stream.
    Refuse(Generation, Refusal),
    /// End the stream of a worker that counts as lost, so that it learns of it.
    Dismiss(Generation),
    /// Append to the run log, in the order of the actions. Answered by [`Event::Logged`].
    Log(Ticket, Box<Control>),
    /// Create the index. Answered by [`Event::IndexCreated`].
    CreateIndex {
        /// Whether a coordinator before this one may have begun to.
        again: bool,
    },
    /// Drop the index. Answered by [`Event::IndexDropped`].
    DropIndex,
    /// Drop the index and create one of this shape. Answered by [`Event::IndexCreated`].
    RebuildIndex(IndexSpec),
    /// Change the cluster, or run a program. Answered by [`Event::Operated`].
    Operate(Operation),
    /// Read the server's command counters on every node. Answered by [`Event::CommandsCounted`].
    CountCommands {
        /// For which phase.
        phase: PhaseIndex,
        /// At its start or its end.
        edge: Edge,
    },
    /// Close this lost worker's connections on every node. Answered by [`Event::CutOff`].
    CutOff(Generation, WorkerId),
    /// Ask every node how far it is from rest. Answered by [`Event::RestRead`].
    ReadRest,
    /// Plan rows to delete behind this phase, until so many are left, and another weighing behind that. Answered by
    /// [`Event::Decided`].
    Decide {
        /// The phase that weighed.
        phase: PhaseIndex,
        /// Rows that stay.
        keep_rows: u64,
    },
    /// Write a row of the table of events.
    Note(Note),
    /// Everything so far has ended and is in the log: say what comes next. Answered by [`Event::Next`].
    AwaitNext,
    /// Turn the log into parts. Answered by [`Event::Archived`].
    Archive,
    /// The run is over.
    Finish(Verdict),
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub enum Tell {
    /// It is a member.
    Welcome,
    /// It goes on under the registration that it had.
    Resumed,
    /// Its heartbeat was heard; with this its lease is renewed, so only members that are here get it.
    Heard {
        /// Its clock when it asked.
        worker_mono: MonoNs,
        /// The coordinator's clock when that came.
        at: MonoNs,
    },
    /// Get ready for a phase.
    Arm {
        /// The order.
        order: Arc<PhaseOrder>,
        /// Position of the worker's first lane in the deal of shares.
        first_lane: u32,
        /// Lanes that it runs.
        lanes: u32,
    },
    /// The schedule begins.
    Start {
        /// Which phase.
        phase: PhaseIndex,
        /// When, on the coordinator's clock.
        at: MonoNs,
        /// The same instant on the wall clock.
        at_wall: WallNs,
    },
    /// Ranges for it; `exhausted` when all work of the phase is done.
    Lease {
        /// Of which phase.
        phase: PhaseIndex,
        /// The ranges.
        ranges: Vec<RowRange>,
        /// Whether there will be no more.
        exhausted: bool,
    },
    /// Another worker has nothing to do: hand back this range if nothing of it has begun.
    GiveBack {
        /// Of which phase.
        phase: PhaseIndex,
        /// The range.
        range: RowRange,
    },
    /// From an instant on it sends this part of the schedule too.
    TakeOver {
        /// Of which phase.
        phase: PhaseIndex,
        /// After the start instant, nanoseconds.
        from_ns: u64,
        /// For each of its lanes that gets some, the shares.
        lanes: Vec<(u32, ShareSet)>,
    },
    /// Send nothing new and end the phase.
    Drain(PhaseIndex),
    /// Sample these nodes, positions in the target's list of nodes, for this phase.
    Observe {
        /// The phase that samples belong to from now on.
        phase: PhaseIndex,
        /// Its name.
        name: String,
        /// Which nodes.
        nodes: Vec<usize>,
        /// Whether the index exists.
        indexed: bool,
    },
    /// The run is over.
    Close(String),
}

/// A row of the table of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Kind: `worker_joined`, `worker_lost`, `range_failed`, ...
    pub kind: &'static str,
    /// The worker that it is about.
    pub worker: Option<Generation>,
    /// The phase in which it happened.
    pub phase: PhaseIndex,
    /// Details for people.
    pub detail: String,
}

/// How the run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How, as the log says it.
    pub state: RunState,
    /// The exit code.
    pub exit: Exit,
    /// Why, for people; empty when it just ended well.
    pub reason: String,
}

impl Verdict {
    /// The run could not go on.
    #[must_use]
    pub fn failed(exit: Exit, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { state: RunState::Failed { reason: reason.clone() }, exit, reason }
    }

    /// Somebody wanted it to end.
    #[must_use]
    pub fn interrupted(reason: &str) -> Self {
        Self {
            state: RunState::Interrupted,
            exit: Exit::Interrupted,
            reason: format!("stopped early: {reason}"),
        }
    }

    /// All phases are over.
    #[must_use]
    pub fn finished(exit: Exit, reason: impl Into<String>) -> Self {
        Self { state: RunState::Finished, exit, reason: reason.into() }
    }
}

/// The run.
#[derive(Debug)]
pub struct RunCore {
    book: Book,
    state: State,
    stops: u32,
}

impl RunCore {
    /// Nothing has happened yet; gathering begins now. `nodes` is how many nodes the target has.
    #[must_use]
    pub fn new(plan: Arc<RunPlan>, settings: Settings, roster: Roster, nodes: usize, now: MonoNs) -> Self {
        let state = gathering::Gathering::new(&settings, now).into();
        Self { book: Book::new(plan, settings, roster, nodes, now), state, stops: 0 }
    }

    /// Goes on where the log of another coordinator ends; gives what is to be done first.
    #[must_use]
    pub fn resume(
        plan: Arc<RunPlan>,
        settings: Settings,
        roster: Roster,
        nodes: usize,
        past: &Past,
        now: MonoNs,
    ) -> (Self, Vec<Action>) {
        let mut book = Book::new(plan, settings, roster, nodes, now);
        let state = recovery::go_on(past, now, &mut book);
        let first = book.take_actions();
        (Self { book, state, stops: 0 }, first)
    }

    /// Takes in what happened and says what to do, in order.
    pub fn step(&mut self, event: Event, now: MonoNs) -> Vec<Action> {
        match event {
            Event::Tick => {
                self.book.roster.listen(now);
                for generation in self.book.roster.silent() {
                    self.leave(generation, now, "sent no heartbeat for longer than its lease");
                }
                self.book.cut_off(now);
                self.advance(Happened::Tick, now);
            }
            Event::Said(generation, said) => self.said(generation, said, now),
            Event::StreamEnded(generation) => self.stream_ended(generation, now),
            Event::Delivered(generation, sequence) => {
                self.book.delivered(generation, sequence);
                self.advance(Happened::Delivered, now);
            }
            Event::Logged(ticket) => self.advance(Happened::Logged(ticket), now),
            Event::IndexCreated => self.advance(Happened::IndexCreated, now),
            Event::IndexDropped => self.advance(Happened::IndexDropped, now),
            Event::Operated => self.advance(Happened::Operated, now),
            Event::CommandsCounted(edge) => self.advance(Happened::CommandsCounted(edge), now),
            Event::CutOff(generation, outcome) => {
                if self.book.was_cut_off(generation, outcome, now) {
                    self.advance(Happened::CutOff(generation), now);
                }
            }
            Event::RestRead(rest) => self.advance(Happened::RestRead(rest), now),
            Event::Decided(plan) => {
                self.book.plan = plan;
                self.advance(Happened::Decided, now);
            }
            Event::Archived => self.advance(Happened::Archived, now),
            Event::Next(phase) => {
                self.book.demand(phase);
                self.advance(Happened::Next, now);
            }
            Event::Failed(failure) => self.replace(|state, book| state.fail(failure, now, book)),
            Event::DeedFailed(failure) => {
                self.replace(|state, book| state.deed_failed(failure, now, book));
            }
            Event::Stop(reason) => {
                self.stops = self.stops.saturating_add(1);
                let at_once = self.stops > 1;
                self.replace(|state, book| state.stop(&reason, at_once, now, book));
            }
        }
        self.book.take_actions()
    }

    /// What a person is shown.
    #[must_use]
    pub fn view(&self, now: MonoNs) -> View {
        let (units_done, units_total) = self.state.units();
        self.book.view(&self.state.doing(&self.book), units_done, units_total, now)
    }

    /// Whether the index was made.
    #[must_use]
    pub fn is_indexed(&self) -> bool {
        self.book.indexed
    }

    /// Whether [`Action::Finish`] was given.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The members, for those who write their names.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.book.roster
    }

    fn said(&mut self, generation: Generation, said: Said, now: MonoNs) {
        self.book.roster.heard(generation, now);
        let said = match said {
            Said::Hello(arrival) => return self.hello(generation, *arrival, now),
            other => other,
        };
        // Whoever is not (or no longer) a member has lost its leases: what it says must change nothing, and no answer
        // may renew its right to send load.
        let here = self.book.roster.get(generation).is_some_and(|m| m.presence == Presence::Here);
        match said {
            _ if !here => {}
            Said::Heartbeat { worker_mono, at } => {
                self.book.tell(generation, Tell::Heard { worker_mono, at })
            }
            Said::Goodbye(reason) => self.goodbye(generation, &reason, now),
            said => self.advance(Happened::Said(generation, said), now),
        }
    }

    /// A worker that has ended everything of its own accord costs the run nothing but its part of the load to come.
    fn goodbye(&mut self, generation: Generation, reason: &str, now: MonoNs) {
        if self.state.is_closing() || !self.book.roster.mark(generation, Presence::Leaving) {
            return;
        }
        let name = self.book.worker_name(generation);
        self.book.note("worker_left", Some(generation), format!("worker {name} left: {reason}"));
        self.book.left(generation, reason, false, now);
        self.book.observe();
        self.advance(Happened::Left(generation), now);
    }

    fn hello(&mut self, generation: Generation, arrival: Arrival, now: MonoNs) {
        if let Some(before) = arrival.before.clone()
            && self.book.roster.resume(before.generation, &arrival, now)
        {
            return self.resumed(generation, before, now);
        }
        if let Some(earlier) = self.book.roster.earlier(&arrival) {
            self.leave(earlier, now, "it registered anew");
        }
        match self.book.roster.register(generation, arrival, now) {
            Ok(()) => {
                self.book.joined(generation, now);
                self.advance(Happened::Joined(generation), now);
            }
            Err(refusal) => {
                self.book.refused(&refusal);
                self.book.act(Action::Refuse(generation, refusal));
            }
        }
    }

    /// A worker whose stream had ended, or whose coordinator was another one, goes on.
    fn resumed(&mut self, stream: Generation, before: Before, now: MonoNs) {
        let registration = before.generation;
        self.book.act(Action::Adopt { stream, registration });
        self.book.tell(registration, Tell::Resumed);
        let name = self.book.worker_name(registration);
        let detail = format!("worker {name} is back and goes on where it was");
        self.book.note("worker_resumed", Some(registration), detail);
        self.book.observe();
        self.advance(Happened::Resumed(registration, before), now);
    }

    /// A worker without a stream may come back; it is not lost before its lease is over.
    fn stream_ended(&mut self, generation: Generation, now: MonoNs) {
        let here = self.book.roster.get(generation).is_some_and(|m| m.presence == Presence::Here);
        if here && !self.state.is_closing() && self.state.counts_losses() {
            self.book.roster.gone_away(generation);
            return;
        }
        self.leave(generation, now, "its stream ended");
    }

    fn leave(&mut self, generation: Generation, now: MonoNs, how: &str) {
        let told = self.book.roster.get(generation).is_some_and(|m| m.presence == Presence::Leaving);
        let wanted = self.state.is_closing() || told;
        let presence = if wanted { Presence::Left } else { Presence::Lost };
        if !self.book.roster.mark(generation, presence) {
            return;
        }
        self.book.act(Action::Dismiss(generation));
        if told {
            return self.advance(Happened::Left(generation), now);
        }
        // The log is what a run is judged by later, so it must call lost exactly what spoils this run.
        let spoils = !wanted && self.state.counts_losses();
        self.book.left(generation, how, spoils, now);
        if spoils {
            self.book.lost(generation, now);
        } else if !wanted {
            let name = self.book.worker_name(generation);
            self.book.note("worker_left", Some(generation), format!("worker {name} left: {how}"));
        }
        self.advance(Happened::Left(generation), now);
    }

    fn advance(&mut self, happened: Happened, now: MonoNs) {
        self.replace(|state, book| state.advance(happened, now, book));
    }

    fn replace(&mut self, step: impl FnOnce(State, &mut Book) -> State) {
        let state = std::mem::replace(&mut self.state, State::Over);
        self.state = step(state, &mut self.book);
    }
}

/// An event as the states see it, after the roster has been brought up to date.
#[derive(Clone, Debug)]
pub(crate) enum Happened {
    /// Time went by.
    Tick,
    /// A member came.
    Joined(Generation),
    /// A member came back, and what it has.
    Resumed(Generation, Before),
    /// A member is gone; the roster says whether lost or left.
    Left(Generation),
    /// A member that is here said something other than hello and heartbeat.
    Said(Generation, Said),
    /// More is in the log.
    Delivered,
    Logged(Ticket),
    IndexCreated,
    IndexDropped,
    Operated,
    CommandsCounted(Edge),
    /// A lost worker can send nothing more.
    CutOff(Generation),
    RestRead(Rest),
    /// The plan goes on with what was decided.
    Decided,
    /// There is another phase, or it is known that there will be none.
    Next,
    Archived,
}
