//! The run log's decisions: what goes into which entry, when it is written, and who may be told that it is durable.
//!
//! Fed by the shell in `run_log`, which performs the actions. Pure: time is an argument. Law: at most one create is in
//! flight; its bytes never change while its outcome is open; a record is durable only when its own entry and all
//! before it are known to be in the log as this leader wrote them; after another leader's entry nothing is.

use bytes::Bytes;
use vst_common::clock::{MonoNs, SECOND_NS, WallNs};
use vst_common::count;
use vst_common::entry::{Control, Entry, StoredBatch};
use vst_common::ids::RunId;

/// Names one appended record until it is durable or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What is appended.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few hundred exist at once, each for a moment")]
pub enum Record {
    /// A fact about the run.
    Control(Control),
    /// A delivered batch.
    Batch(StoredBatch),
}

/// When entries are cut.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Least time from the begin of one entry to that of the next, nanoseconds: a lone record is written at once, a
    /// stream of them in groups.
    pub commit_interval_ns: u64,
    /// Payload at which an entry is begun without waiting, bytes. Beyond it the log takes nothing in.
    pub entry_bytes: u64,
    /// A create whose outcome stays open for longer than this ends the leadership, nanoseconds.
    pub give_up_ns: u64,
    /// A leader that has nothing to write writes an empty entry after this long, nanoseconds: who waits for the lead
    /// takes silence for death. 0 for never.
    pub idle_ns: u64,
    /// Wait before the first repetition of a create, nanoseconds; doubles up to [`Limits::LONGEST_RETRY_NS`].
    pub retry_ns: u64,
}

impl Limits {
    /// The longest wait between two repetitions of a create, nanoseconds.
    pub const LONGEST_RETRY_NS: u64 = 5 * SECOND_NS;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            commit_interval_ns: SECOND_NS / 4,
            entry_bytes: 4 << 20,
            give_up_ns: 30 * SECOND_NS,
            idle_ns: 2 * SECOND_NS,
            retry_ns: SECOND_NS / 10,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few hundred exist at once, each for a moment")]
pub enum Event {
    /// Somebody appends.
    Appended(Ticket, Record),
    /// The instant of [`Action::WakeAt`] has come.
    Woke,
    /// A create has ended.
    Created(CreateOutcome),
    /// A read has ended.
    ReadBack(Found),
    /// No more will be appended.
    Closing,
}

/// How a create ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The object is there, durably, as it was given.
    Done,
    /// An object of this name was there before: another leader's, or our own of an earlier try.
    Exists,
    /// It may be there or not, or may come to be there later.
    Unknown(String),
}

/// What a read-back found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An object, made durable.
    Object(Bytes),
    /// None.
    Nothing,
    /// The store did not answer.
    Unreadable(String),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the entry if no object of its name exists, after a wait. Answered by [`Event::Created`].
    Create {
        /// Number of the entry.
        number: u64,
        /// Its bytes.
        bytes: Bytes,
        /// How long to wait first, nanoseconds.
        wait_ns: u64,
    },
    /// Read the entry. Answered by [`Event::ReadBack`].
    ReadBack {
        /// Number of the entry.
        number: u64,
    },
    /// These records are durable.
    Durable {
        /// The entry that holds them.
        number: u64,
        /// When it was begun: at that instant this leader still led.
        begun: MonoNs,
        /// The records, in the order in which they were appended.
        tickets: Vec<Ticket>,
    },
    /// These records will not be written by this log; whether they are in it is not known.
    Refuse(Vec<Ticket>, Stopped),
    /// Send [`Event::Woke`] then; replaces the instant given before.
    WakeAt(MonoNs),
    /// Everything appended is durable or refused, and nothing more is taken.
    Finished,
}

/// Why a log takes nothing more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Another coordinator leads.
    #[error(
        "log entry {number} was written by `{leader}` in epoch {epoch}: it leads this run now, this coordinator steps down"
    )]
    OtherLeader {
        /// The entry that this coordinator wanted to write.
        number: u64,
        /// The other's epoch.
        epoch: u64,
        /// The other's name.
        leader: String,
    },
    /// The store does not say whether an entry was written.
    #[error("log entry {number} could not be written: {reason}; check the run directory's space and rights")]
    Store {
        /// The entry.
        number: u64,
        /// The store's last reason.
        reason: String,
    },
    /// The record cannot be written as JSON.
    #[error("record cannot be written to the log: {0}")]
    Record(String),
    /// The log was closed.
    #[error("the run log is closed")]
    Closed,
}

/// An entry whose outcome is open.
#[derive(Debug)]
struct InFlight {
    number: u64,
    bytes: Bytes,
    tickets: Vec<Ticket>,
    begun: MonoNs,
    retry_ns: u64,
    reason: String,
}

#[derive(Debug, Default)]
struct Waiting {
    controls: Vec<Control>,
    batches: Vec<StoredBatch>,
    tickets: Vec<Ticket>,
    bytes: u64,
}

/// The log of one leader.
#[derive(Debug)]
pub struct RunLogCore {
    leader: String,
    epoch: u64,
    limits: Limits,
    next: u64,
    waiting: Waiting,
    in_flight: Option<InFlight>,
    begun_last: Option<MonoNs>,
    closing: bool,
    stopped: Option<Stopped>,
}

impl RunLogCore {
    /// A log that is to be led from entry `next` on. `claim` names the record of taking the lead: the first actions
    /// create the entry that does so.
    #[must_use]
    pub fn lead(
        run: RunId,
        leader: &str,
        epoch: u64,
        next: u64,
        claim: Ticket,
        limits: Limits,
        now: Now,
    ) -> (Self, Vec<Action>) {
        let mut core = Self {
            leader: leader.to_owned(),
            epoch,
            limits,
            next,
            waiting: Waiting::default(),
            in_flight: None,
            begun_last: None,
            closing: false,
            stopped: None,
        };
        let led = Control::Led { run, epoch, leader: leader.to_owned() };
        let actions = core.step(Event::Appended(claim, Record::Control(led)), now);
        (core, actions)
    }

    /// Whether more may be appended now; else the caller waits, which holds back whoever delivers.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.stopped.is_some() || self.waiting.bytes < self.limits.entry_bytes
    }

    /// Takes in what happened and says what to do, in order.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Appended(ticket, record) => self.append(ticket, record, &mut actions),
            Event::Woke => {}
            Event::Closing => self.closing = true,
            Event::Created(outcome) => self.created(outcome, &mut actions),
            Event::ReadBack(found) => self.read_back(found, now, &mut actions),
        }
        self.begin(now, &mut actions);
        if self.closing && self.in_flight.is_none() && self.waiting.tickets.is_empty() {
            self.stopped.get_or_insert(Stopped::Closed);
            actions.push(Action::Finished);
        }
        actions
    }

    fn append(&mut self, ticket: Ticket, record: Record, actions: &mut Vec<Action>) {
        let refusal = self.stopped.clone().or(self.closing.then_some(Stopped::Closed));
        if let Some(reason) = refusal {
            actions.push(Action::Refuse(vec![ticket], reason));
            return;
        }
        let waiting = &mut self.waiting;
        match record {
            Record::Batch(batch) => {
                waiting.bytes = waiting.bytes.saturating_add(count::len(batch.ipc.len()));
                waiting.batches.push(batch);
            }
            // A record that has no JSON form is refused by itself, before it can spoil the entry of others.
            Record::Control(control) => match serde_json::to_vec(&control) {
                Ok(json) => {
                    waiting.bytes = waiting.bytes.saturating_add(count::len(json.len()));
                    waiting.controls.push(control);
                }
                Err(e) => {
                    actions.push(Action::Refuse(vec![ticket], Stopped::Record(e.to_string())));
                    return;
                }
            },
        }
        waiting.tickets.push(ticket);
    }

    /// Begins the next entry when there is one to begin and it is time.
    fn begin(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.in_flight.is_some() || self.stopped.is_some() {
            return;
        }
        if self.waiting.tickets.is_empty() {
            let Some(last) = self.begun_last.filter(|_| self.limits.idle_ns > 0 && !self.closing) else {
                return;
            };
            let due = last.saturating_add(self.limits.idle_ns);
            if now.mono < due {
                actions.push(Action::WakeAt(due));
                return;
            }
        }
        let due = self.begun_last.map_or(0, |last| last.saturating_add(self.limits.commit_interval_ns));
        if now.mono < due && self.waiting.bytes < self.limits.entry_bytes && !self.closing {
            actions.push(Action::WakeAt(due));
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let entry = Entry {
            number: self.next,
            epoch: self.epoch,
            leader: self.leader.clone(),
            written_at: now.wall,
            controls: waiting.controls,
            batches: waiting.batches,
        };
        match entry.encode() {
            Ok(bytes) => {
                self.begun_last = Some(now.mono);
                actions.push(Action::Create { number: self.next, bytes: bytes.clone(), wait_ns: 0 });
                self.in_flight = Some(InFlight {
                    number: self.next,
                    bytes,
                    tickets: waiting.tickets,
                    begun: now.mono,
                    retry_ns: self.limits.retry_ns,
                    reason: String::new(),
                });
            }
            Err(e) => {
                let reason = Stopped::Store { number: self.next, reason: e.to_string() };
                actions.push(Action::Refuse(waiting.tickets, reason.clone()));
                self.stop(reason, actions);
            }
        }
    }

    fn created(&mut self, outcome: CreateOutcome, actions: &mut Vec<Action>) {
        match outcome {
            CreateOutcome::Done => self.durable(actions),
            // Not yet proof of another leader: a store's client repeats a request whose answer it lost, and then
            // meets its own object.
            CreateOutcome::Exists => self.ask(None, actions),
            CreateOutcome::Unknown(reason) => self.ask(Some(reason), actions),
        }
    }

    fn ask(&mut self, reason: Option<String>, actions: &mut Vec<Action>) {
        if let Some(in_flight) = &mut self.in_flight {
            if let Some(reason) = reason {
                in_flight.reason = reason;
            }
            actions.push(Action::ReadBack { number: in_flight.number });
        }
    }

    fn read_back(&mut self, found: Found, now: Now, actions: &mut Vec<Action>) {
        let Some(in_flight) = &mut self.in_flight else { return };
        match found {
            Found::Object(bytes) if bytes == in_flight.bytes => self.durable(actions),
            Found::Object(bytes) => {
                let number = in_flight.number;
                let stopped = match Entry::decode(&bytes) {
                    Ok(other) => Stopped::OtherLeader { number, epoch: other.epoch, leader: other.leader },
                    Err(e) => Stopped::Store { number, reason: format!("something else has its name: {e}") },
                };
                self.stop(stopped, actions);
            }
            Found::Nothing => self.repeat(now, actions),
            Found::Unreadable(reason) => {
                in_flight.reason = reason;
                self.repeat(now, actions);
            }
        }
    }

    /// Creates the same bytes again: an earlier try may still arrive, and then it is this entry and no other.
    fn repeat(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some(in_flight) = &mut self.in_flight else { return };
        if now.mono.saturating_sub(in_flight.begun) >= self.limits.give_up_ns {
            let stopped = Stopped::Store { number: in_flight.number, reason: in_flight.reason.clone() };
            self.stop(stopped, actions);
            return;
        }
        let wait_ns = in_flight.retry_ns;
        in_flight.retry_ns = wait_ns.saturating_mul(2).min(Limits::LONGEST_RETRY_NS);
        actions.push(Action::Create { number: in_flight.number, bytes: in_flight.bytes.clone(), wait_ns });
    }

    fn durable(&mut self, actions: &mut Vec<Action>) {
        if let Some(in_flight) = self.in_flight.take() {
            self.next = in_flight.number.saturating_add(1);
            let InFlight { number, begun, tickets, .. } = in_flight;
            actions.push(Action::Durable { number, begun, tickets });
        }
    }

    fn stop(&mut self, reason: Stopped, actions: &mut Vec<Action>) {
        let mut tickets = self.in_flight.take().map_or_else(Vec::new, |in_flight| in_flight.tickets);
        tickets.append(&mut std::mem::take(&mut self.waiting).tickets);
        if !tickets.is_empty() {
            actions.push(Action::Refuse(tickets, reason.clone()));
        }
        self.stopped = Some(reason);
    }
}

/// An instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, for waits.
    pub mono: MonoNs,
    /// Wall, for labels.
    pub wall: WallNs,
}

#[cfg(test)]
mod tests;
