//! How a request ended, and how its attempts are accounted for.
//!
//! A *request* is what the schedule asked for; it ends exactly once. An *attempt* is one command put on a connection;
//! a redirected or repaired request has several. Latency is recorded per request, the accounting against the
//! server's own counters is per attempt.

use serde::{Deserialize, Serialize};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Answered without an error.
    Ok,
    /// Answered with an error.
    Error(ErrorKind),
    /// No answer within the client's timeout, counted from the first send. Right-censored.
    Timeout,
    /// The connection ended before the answer. Right-censored.
    Lost,
    /// Due in the phase but never sent before the drain ended. Right-censored.
    Unsent,
}

/// The kinds of error a server answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// `OOM`: over `maxmemory`.
    Oom,
    /// `READONLY`: a replica was asked to write.
    ReadOnly,
    /// `NOAUTH`, `NOPERM`, `WRONGPASS`.
    Auth,
    /// `WRONGTYPE`.
    WrongType,
    /// `LOADING`: the server is reading its data.
    Loading,
    /// `CLUSTERDOWN` or `MASTERDOWN`.
    ClusterDown,
    /// A redirect (`MOVED`, `ASK`, `TRYAGAIN`) that was still followed by another after the limit of attempts.
    Redirect,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// All kinds, in the order of the columns of `latency`.
    pub const ALL: [Self; 8] = [
        Self::Oom,
        Self::ReadOnly,
        Self::Auth,
        Self::WrongType,
        Self::Loading,
        Self::ClusterDown,
        Self::Redirect,
        Self::Other,
    ];

    /// Position in [`ErrorKind::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name of the column that counts this kind.
    #[must_use]
    pub fn column(self) -> &'static str {
        match self {
            Self::Oom => "err_oom",
            Self::ReadOnly => "err_readonly",
            Self::Auth => "err_auth",
            Self::WrongType => "err_wrong_type",
            Self::Loading => "err_loading",
            Self::ClusterDown => "err_cluster_down",
            Self::Redirect => "err_redirect",
            Self::Other => "err_other",
        }
    }

    /// The kind of an error reply, from its text without the leading `-`.
    #[must_use]
    pub fn of_reply(text: &[u8]) -> Self {
        let word = text.split(|b| *b == b' ').next().unwrap_or_default();
        match word {
            b"OOM" => Self::Oom,
            b"READONLY" => Self::ReadOnly,
            b"NOAUTH" | b"NOPERM" | b"WRONGPASS" => Self::Auth,
            b"WRONGTYPE" => Self::WrongType,
            b"LOADING" => Self::Loading,
            b"CLUSTERDOWN" | b"MASTERDOWN" => Self::ClusterDown,
            b"MOVED" | b"ASK" | b"TRYAGAIN" => Self::Redirect,
            _ => Self::Other,
        }
    }
}

/// What the server did with one attempt, as its own counters see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// Answered by execution, also when the execution failed: counted in `calls`.
    Executed,
    /// Refused before execution (`MOVED`, `OOM`, `LOADING`, ...): counted in `rejected_calls`.
    Rejected,
    /// No reply was ever seen: the server may have executed it or not.
    Unknown,
}

impl Attempt {
    /// What an error reply says about execution.
    ///
    /// The server refuses before it executes for reasons of cluster, memory, role, rights or loading; any other
    /// error text comes from the command itself.
    #[must_use]
    pub fn of_error(text: &[u8]) -> Self {
        let word = text.split(|b| *b == b' ').next().unwrap_or_default();
        match word {
            b"MOVED" | b"ASK" | b"TRYAGAIN" | b"CROSSSLOT" | b"CLUSTERDOWN" | b"MASTERDOWN" | b"LOADING"
            | b"OOM" | b"READONLY" | b"NOAUTH" | b"NOPERM" | b"MISCONF" | b"NOREPLICAS" | b"BUSY" => {
                Self::Rejected
            }
            _ => Self::Executed,
        }
    }
}

/// The life of one request, in nanoseconds of the worker's monotonic clock.
///
/// `due` is absent in a closed loop, where the next request waits for a reply and only service time has a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When the schedule wanted it sent; `None` in a closed loop.
    pub due: Option<u64>,
    /// When a slot (connection x depth) became free for it.
    pub slot_free: u64,
    /// When its first attempt was written; `None` if it never was.
    pub sent: Option<u64>,
    /// When it ended: reply complete, timeout, loss, or end of the drain.
    pub ended: u64,
    /// How it ended.
    pub kind: Kind,
    /// Commands written for it.
    pub attempts: u32,
}

impl Outcome {
    /// Due to end, nanoseconds; `None` in a closed loop. A lower bound where the outcome is censored.
    #[must_use]
    pub fn response_ns(&self) -> Option<u64> {
        self.due.map(|due| self.ended.saturating_sub(due))
    }

    /// Sent to end, nanoseconds; `None` if it was never sent.
    #[must_use]
    pub fn service_ns(&self) -> Option<u64> {
        self.sent.map(|sent| self.ended.saturating_sub(sent))
    }

    /// The worker's own delay, nanoseconds: sent minus the later of due and slot free.
    #[must_use]
    pub fn slip_ns(&self) -> Option<u64> {
        let sent = self.sent?;
        Some(sent.saturating_sub(self.due.unwrap_or(0).max(self.slot_free)))
    }

    /// Whether the true latency is only known to be at least the recorded one.
    #[must_use]
    pub fn is_censored(&self) -> bool {
        matches!(self.kind, Kind::Timeout | Kind::Lost | Kind::Unsent)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn kind() -> impl Strategy<Value = Kind> {
        let errors = ErrorKind::ALL.map(Kind::Error);
        proptest::sample::select([&errors[..], &[Kind::Ok, Kind::Timeout, Kind::Lost, Kind::Unsent]].concat())
    }

    proptest! {
        #[test]
        fn a_requests_time_is_the_schedules_wait_the_workers_slip_and_the_service(
            due in proptest::option::of(0..1000_u64), waits in (0..1000_u64, 0..1000_u64, 0..1000_u64), kind in kind(),
        ) {
            let slot_free = due.unwrap_or(7) + waits.0;
            let sent = slot_free + waits.1;
            let o = Outcome { due, slot_free, sent: Some(sent), ended: sent + waits.2, kind, attempts: 1 };
            prop_assert_eq!(o.slip_ns(), Some(waits.1), "the wait for a slot is the target's");
            prop_assert_eq!(o.service_ns(), Some(waits.2));
            prop_assert_eq!(o.response_ns(), due.map(|_| waits.0 + waits.1 + waits.2));
        }

        #[test]
        fn a_slot_that_was_free_early_does_not_make_slip(due in 0..1000_u64, early in 0..1000_u64, slip in 0..1000_u64) {
            let slot_free = due.saturating_sub(early);
            let (sent, ended) = (Some(due + slip), due + slip + 1);
            let o = Outcome { due: Some(due), slot_free, sent, ended, kind: Kind::Ok, attempts: 1 };
            prop_assert_eq!(o.slip_ns(), Some(slip));
        }

        #[test]
        fn what_ended_without_an_answer_is_censored(kind in kind()) {
            let o = Outcome { due: Some(0), slot_free: 0, sent: None, ended: 9, kind, attempts: 0 };
            prop_assert_eq!(o.is_censored(), !matches!(kind, Kind::Ok | Kind::Error(_)));
            prop_assert_eq!((o.response_ns(), o.service_ns(), o.slip_ns()), (Some(9), None, None));
        }

        #[test]
        fn any_error_text_has_a_kind_and_a_fate(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (ErrorKind::of_reply(&text), Attempt::of_error(&text));
        }

        #[test]
        fn only_the_first_word_of_an_error_counts(word in "(OOM|READONLY|WRONGTYPE|MOVED|LOADING|ERR)", rest in "[A-Z ]{0,20}") {
            let text = format!("{word} {rest}");
            prop_assert_eq!(ErrorKind::of_reply(text.as_bytes()), ErrorKind::of_reply(word.as_bytes()));
            prop_assert_eq!(Attempt::of_error(text.as_bytes()), Attempt::of_error(word.as_bytes()));
            let glued = format!("{word}{}", "X");
            prop_assert_eq!(ErrorKind::of_reply(glued.as_bytes()), ErrorKind::Other);
        }
    }

    #[test]
    fn every_kind_has_its_place_and_its_column() {
        for (i, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), i);
        }
        let columns: BTreeSet<_> = ErrorKind::ALL.map(ErrorKind::column).into_iter().collect();
        assert_eq!(columns.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn error_replies_are_told_apart_as_servers_write_them() {
        use Attempt::{Executed, Rejected};
        for (text, kind, attempt) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::Oom, Rejected),
            ("READONLY You can't write against a read only replica.", ErrorKind::ReadOnly, Rejected),
            ("NOAUTH Authentication required.", ErrorKind::Auth, Rejected),
            ("NOPERM User x has no permissions to run the 'hset' command", ErrorKind::Auth, Rejected),
            ("WRONGPASS invalid username-password pair or user is disabled.", ErrorKind::Auth, Executed),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                ErrorKind::WrongType,
                Executed,
            ),
            ("LOADING Valkey is loading the dataset in memory", ErrorKind::Loading, Rejected),
            ("CLUSTERDOWN Hash slot not served", ErrorKind::ClusterDown, Rejected),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                ErrorKind::ClusterDown,
                Rejected,
            ),
            ("MOVED 3999 127.0.0.1:6381", ErrorKind::Redirect, Rejected),
            ("ASK 3999 127.0.0.1:6381", ErrorKind::Redirect, Rejected),
            ("TRYAGAIN Multiple keys request during rehashing of slot", ErrorKind::Redirect, Rejected),
            ("MISCONF Valkey is configured to save RDB snapshots", ErrorKind::Other, Rejected),
            ("ERR Unknown index name", ErrorKind::Other, Executed),
            ("", ErrorKind::Other, Executed),
        ] {
            assert_eq!(ErrorKind::of_reply(text.as_bytes()), kind, "{text}");
            assert_eq!(Attempt::of_error(text.as_bytes()), attempt, "{text}");
        }
    }
}
