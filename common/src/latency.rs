//! Latency histograms and the counters that stand beside them.
//!
//! Fed by `worker::recorder`, merged by the archive and by analysis. Law: `merge(record(a), record(b))` equals
//! `record(a ++ b)`, and the counts of a cell add up: each request that ended is in exactly one of `ok`, the error
//! kinds, `timeout`, `lost`, `unsent`.

use std::io::Cursor;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

use crate::count;
use crate::outcome::{Attempt, ErrorKind, Kind, Outcome};

/// Smallest latency that is told apart, nanoseconds.
pub const LOWEST_NS: u64 = 16;
/// Largest latency that is told apart: one hour, in nanoseconds.
pub const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Significant decimal digits of a recorded value.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// Why a histogram could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not an HDR V2 histogram.
    #[error("not a readable HDR V2 histogram of {length} bytes: {reason}")]
    Decode {
        /// Length of the input.
        length: usize,
        /// The library's reason.
        reason: String,
    },
    /// The histogram could not be written.
    #[error("histogram could not be encoded: {0}")]
    Encode(String),
}

/// An HDR histogram of nanoseconds, 16 ns to 1 h, three significant digits.
#[derive(Clone, Debug, PartialEq)]
pub struct Hdr(Histogram<u64>);

impl Default for Hdr {
    fn default() -> Self {
        Self::new()
    }
}

impl Hdr {
    /// An empty histogram.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the bounds are constants that the library accepts")]
    pub fn new() -> Self {
        Self(
            Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_DIGITS)
                .expect("constant histogram bounds are valid"),
        )
    }

    /// Records one value; one outside the bounds is recorded at the nearest bound and `false` is returned.
    pub fn record(&mut self, ns: u64) -> bool {
        self.record_many(ns, 1)
    }

    /// Records the same value `n` times.
    pub fn record_many(&mut self, ns: u64, n: u64) -> bool {
        let clamped = ns.clamp(LOWEST_NS, HIGHEST_NS);
        self.0.saturating_record_n(clamped, n);
        clamped == ns
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so the only error of the library (a value that does not fit) cannot occur;
        // what is decoded is brought to the same bounds first.
        let _ = self.0.add(&other.0);
    }

    /// Number of recorded values.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value at quantile `q` in 0..=1, nanoseconds; `None` when empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        (!self.is_empty()).then(|| self.0.value_at_quantile(q))
    }

    /// The largest value, nanoseconds; `None` when empty.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.0.max())
    }

    /// The mean, nanoseconds; `None` when empty.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.0.mean())
    }

    /// How many values are at most so large, to the resolution of a slot; nanoseconds.
    #[must_use]
    pub fn count_at_most(&self, ns: u64) -> u64 {
        self.0.count_between(0, ns)
    }

    /// Forgets all values and keeps the memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// The HDR V2 encoding, not deflated: Parquet's zstd compresses it better.
    ///
    /// # Errors
    /// [`Error::Encode`] when the library cannot write it (it writes to memory, so this is not expected).
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut out).map_err(|e| Error::Encode(format!("{e:?}")))?;
        Ok(out)
    }

    /// Reads an HDR V2 histogram of any bounds.
    ///
    /// # Errors
    /// [`Error::Decode`] when the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut Cursor::new(bytes))
            .map_err(|e| Error::Decode { length: bytes.len(), reason: format!("{e:?}") })?;
        let mut own = Self::new();
        own.0.add(&read).map_err(|e| Error::Decode { length: bytes.len(), reason: format!("{e:?}") })?;
        Ok(own)
    }
}

/// A quantile of which the true value may be unknown because requests were cut off before they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantile {
    /// The value, nanoseconds; a lower bound if `censored`.
    pub ns: u64,
    /// Whether the quantile falls among requests that never ended: print it as `> ns`.
    pub censored: bool,
}

/// The quantile of response times of which some are only known to be at least a value.
///
/// `response` holds all requests, the censored ones at their age; `censored` holds those again. The true quantile
/// lies between the one with each censored request at its age and the one with each at infinity. Where both fall
/// into the same bucket it is known; otherwise only the lower bound is.
#[must_use]
pub fn censored_quantile(response: &Hdr, censored: &Hdr, q: f64) -> Option<Quantile> {
    let lower = response.quantile(q)?;
    let total = response.len();
    let known = total.saturating_sub(censored.len());
    // Same rank rule as the histogram's own quantile: the smallest rank that covers the share, at least one.
    let rank = count::from_f64((q * count::to_f64(total)).ceil()).clamp(1, total);
    if censored.is_empty() {
        return Some(Quantile { ns: lower, censored: false });
    }
    if rank > known {
        return Some(Quantile { ns: lower, censored: true });
    }
    // With the censored at infinity the rank counts only the others.
    let mut others = response.0.clone();
    let upper = match others.subtract(&censored.0) {
        // Half a rank below, so that no rounding of the division asks for the next one.
        Ok(()) => others.value_at_quantile((count::to_f64(rank) - 0.5) / count::to_f64(known)),
        Err(_) => return Some(Quantile { ns: lower, censored: true }),
    };
    Some(Quantile { ns: lower, censored: !response.0.equivalent(lower, upper) })
}

/// The part of an open phase in which a request is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Before the measured part; reported apart.
    WarmUp,
    /// The measured part. What is due in it belongs to it, also when it ends in the drain.
    Measure,
}

impl Window {
    /// The name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WarmUp => "warm_up",
            Self::Measure => "measure",
        }
    }
}

/// One worker's measurements of one operation on one node in one interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// Requests that fell due in the interval.
    pub due: u64,
    /// Requests whose first attempt was written in the interval.
    pub sent: u64,
    /// Requests that ended well.
    pub ok: u64,
    /// Of `ok`, those that ended before the window did.
    pub ok_in_window: u64,
    /// Requests that ended with an answered error, by [`ErrorKind::index`].
    pub errors: [u64; 8],
    /// Requests without an answer within the timeout.
    pub timeout: u64,
    /// Requests whose connection ended.
    pub lost: u64,
    /// Requests that were due and never sent.
    pub unsent: u64,
    /// Answered queries that returned fewer than k results though k live rows exist.
    pub partial: u64,
    /// Of `ok`, answers that there was nothing: nil, or empty where something was asked for.
    pub miss: u64,
    /// Attempts answered by execution.
    pub attempts_executed: u64,
    /// Attempts refused before execution.
    pub attempts_rejected: u64,
    /// Attempts without a reply.
    pub attempts_unknown: u64,
    /// Replies that came after their request had timed out.
    pub late: u64,
    /// Attempts written again because the fate of an earlier one was unknown.
    pub repair: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Latencies outside the histogram's bounds.
    pub out_of_range: u64,
    /// Due to end of all requests that ended, but for answered errors; censored ones at their age. Open loop only.
    pub response: Option<Hdr>,
    /// The censored ones of `response` again.
    pub censored: Option<Hdr>,
    /// Sent to end of the requests that ended well.
    pub service: Option<Hdr>,
}

impl Cell {
    /// Counts a request that ended. `window_end` is the end of its window on the same clock.
    pub fn record(&mut self, outcome: &Outcome, window_end: u64) {
        let mut latency = true;
        match outcome.kind {
            Kind::Ok => {
                self.ok += 1;
                if outcome.ended <= window_end {
                    self.ok_in_window += 1;
                }
                if let Some(ns) = outcome.service_ns()
                    && !self.service.get_or_insert_default().record(ns)
                {
                    self.out_of_range += 1;
                }
            }
            Kind::Error(kind) => {
                self.count_error(kind);
                latency = false;
            }
            Kind::Timeout => self.timeout += 1,
            Kind::Lost => self.lost += 1,
            Kind::Unsent => self.unsent += 1,
        }
        if latency && let Some(ns) = outcome.response_ns() {
            if !self.response.get_or_insert_default().record(ns) {
                self.out_of_range += 1;
            }
            if outcome.is_censored() {
                self.censored.get_or_insert_default().record(ns);
            }
        }
    }

    /// Counts `n` requests that were due, were never sent, and have waited for this long at least.
    pub fn record_unsent(&mut self, n: u64, waited_ns: u64) {
        self.unsent += n;
        if !self.response.get_or_insert_default().record_many(waited_ns, n) {
            self.out_of_range += n;
        }
        self.censored.get_or_insert_default().record_many(waited_ns, n);
    }

    fn count_error(&mut self, kind: ErrorKind) {
        if let Some(slot) = self.errors.get_mut(kind.index()) {
            *slot += 1;
        }
    }

    /// Counts an attempt whose fate is decided.
    pub fn record_attempt(&mut self, attempt: Attempt) {
        match attempt {
            Attempt::Executed => self.attempts_executed += 1,
            Attempt::Rejected => self.attempts_rejected += 1,
            Attempt::Unknown => self.attempts_unknown += 1,
        }
    }

    /// Requests that ended, in any way.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ok + self.answered_errors() + self.timeout + self.lost + self.unsent
    }

    /// Requests answered with an error.
    #[must_use]
    pub fn answered_errors(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Adds another cell of the same key.
    pub fn merge(&mut self, other: &Self) {
        self.due += other.due;
        self.sent += other.sent;
        self.ok += other.ok;
        self.ok_in_window += other.ok_in_window;
        for (own, its) in self.errors.iter_mut().zip(other.errors) {
            *own += its;
        }
        self.timeout += other.timeout;
        self.lost += other.lost;
        self.unsent += other.unsent;
        self.partial += other.partial;
        self.miss += other.miss;
        self.attempts_executed += other.attempts_executed;
        self.attempts_rejected += other.attempts_rejected;
        self.attempts_unknown += other.attempts_unknown;
        self.late += other.late;
        self.repair += other.repair;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.out_of_range += other.out_of_range;
        merge_hdr(&mut self.response, other.response.as_ref());
        merge_hdr(&mut self.censored, other.censored.as_ref());
        merge_hdr(&mut self.service, other.service.as_ref());
    }
}

fn merge_hdr(own: &mut Option<Hdr>, other: Option<&Hdr>) {
    if let Some(other) = other {
        own.get_or_insert_default().merge(other);
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers, for comparison")]
mod tests;
