//! The only place that reads a clock.
//!
//! Schedules, latencies and leases run on the machine's monotonic clock, in nanoseconds, which no time service steps.
//! Wall time only labels results. Everything else takes instants as arguments, so that simulation can own time.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`. Comparable between processes of one machine; not between machines.
pub type MonoNs = u64;

/// Nanoseconds since 1970-01-01T00:00:00Z.
pub type WallNs = i64;

/// One second in nanoseconds.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Now, on the monotonic clock.
#[must_use]
pub fn mono_ns() -> MonoNs {
    read(ClockId::Monotonic)
}

/// Now, on the wall clock.
#[must_use]
pub fn wall_ns() -> WallNs {
    crate::count::to_i64(read(ClockId::Realtime))
}

/// CPU time that the calling thread has used so far, in nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    read(ClockId::ThreadCPUTime)
}

/// CPU time that the whole process has used so far, in nanoseconds.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    read(ClockId::ProcessCPUTime)
}

fn read(id: ClockId) -> u64 {
    let t = clock_gettime(id);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(SECOND_NS).saturating_add(nanos)
}

/// Wall time as RFC 3339 in UTC, to the second.
#[must_use]
pub fn rfc3339(wall: WallNs) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(wall))
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_else(|_| String::from("-"))
}

/// Another machine's monotonic clock as seen from here.
///
/// Estimated from one exchange: the peer's reading is taken to lie in the middle of the round trip, so the error is
/// at most half of it, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Peer clock minus own clock, nanoseconds.
    pub offset_ns: i64,
    /// Half the round trip, nanoseconds: the bound of the error.
    pub error_ns: u64,
}

impl ClockOffset {
    /// From one exchange: own clock when asked and when answered, the peer's clock in between.
    #[must_use]
    pub fn from_exchange(asked: MonoNs, peer: MonoNs, answered: MonoNs) -> Self {
        let round_trip = answered.saturating_sub(asked);
        let middle = asked.saturating_add(round_trip / 2);
        let offset = i128::from(peer) - i128::from(middle);
        Self { offset_ns: i64::try_from(offset).unwrap_or(0), error_ns: round_trip.div_ceil(2) }
    }

    /// A reading of the peer's clock on the own clock.
    #[must_use]
    pub fn to_own(self, peer: MonoNs) -> MonoNs {
        peer.saturating_add_signed(self.offset_ns.saturating_neg())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_true_offset_lies_within_the_error(
            asked in 0..1_u64 << 50, (out, back) in prop_oneof![(0..3_u64, 0..3_u64), (0..9999_u64, 0..9999_u64)],
            true_offset in -(1_i64 << 49)..1 << 49,
        ) {
            let peer = (asked + out).saturating_add_signed(true_offset);
            prop_assume!(asked.checked_add_signed(true_offset).is_some());
            let seen = ClockOffset::from_exchange(asked, peer, asked + out + back);
            prop_assert!(seen.offset_ns.abs_diff(true_offset) <= seen.error_ns);
            prop_assert!(seen.error_ns <= (out + back).div_ceil(2), "and the error is no larger than need be");
        }

        #[test]
        fn a_peers_reading_comes_back_to_the_own_clock(own in 1_u64 << 50..1 << 60, offset in -(1_i64 << 49)..1 << 49) {
            let peer = own.saturating_add_signed(offset);
            prop_assert_eq!(ClockOffset { offset_ns: offset, error_ns: 0 }.to_own(peer), own);
        }

        #[test]
        fn a_wall_instant_prints_to_the_second(second in 0..4_000_000_000_i64, part in 0..1_000_000_000_i64) {
            let text = rfc3339(second * 1_000_000_000 + part);
            let read: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(read.as_second(), second);
            prop_assert_eq!(text.len(), "1970-01-01T00:00:00Z".len());
        }
    }

    #[test]
    fn clocks_do_not_run_backwards() {
        let mut last = (0, 0, 0);
        for _ in 0..1000 {
            let now = (mono_ns(), thread_cpu_ns(), process_cpu_ns());
            assert!(now.0 >= last.0 && now.1 >= last.1 && now.2 >= last.2);
            last = now;
        }
        assert!(rfc3339(wall_ns()).as_str() > "2025");
    }
}
