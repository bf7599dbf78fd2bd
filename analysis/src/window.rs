//! How long a phase's measured window really was, and what the schedule held in it.
//!
//! Fed with the log's record of a phase and with what fell due by interval; read by `latency`. A phase that ran to its
//! end has the length that was ordered. One that was stopped has the time until the last request fell due: the log's
//! end includes the drain, in which nothing is offered any more. Law: what is offered comes from the schedule alone,
//! so that a worker that took its rows with it lowers what was due and not what was offered.

use vst_common::count;
use vst_common::entry::PhaseOutcome;
use vst_common::scenario::Load;
use vst_common::schedule::Schedule;
use vst_common::shares::ShareSet;

use crate::engine::PhaseRecord;

/// Random arrivals beyond this many are not drawn again to be counted; their mean stands for them.
const DRAWN_AT_MOST: f64 = 2e7;

/// Requests by interval over all workers, warm-up included, in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// Since the start instant, nanoseconds.
    pub(crate) start_ns: u64,
    /// See `start_ns`.
    pub(crate) end_ns: u64,
    /// Requests that fell due in it (open loop) or were taken up (closed loop).
    pub(crate) due: u64,
    /// Requests of the measured window that ended well in it, before the window's end.
    pub(crate) ok_in_window: u64,
}

/// The measured window of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Its length, nanoseconds.
    pub(crate) length_ns: u64,
    /// Requests that the schedule has in it; absent in a closed loop.
    pub(crate) scheduled: Option<u64>,
    /// Requests that ended well in it, where that is less than what the rows say: in a phase that was stopped, rows
    /// count up to the end that was ordered.
    pub(crate) ok_until: Option<u64>,
}

/// The window of a phase.
pub(crate) fn measured(record: &PhaseRecord, intervals: &[Interval]) -> Measured {
    let started = &record.started;
    let (warm_up, duration) = (started.warm_up_ns(), started.duration_ns());
    let took = record
        .ended
        .as_ref()
        .map(|ended| count::to_u64(ended.end_wall_ns.saturating_sub(started.start_wall_ns)));
    let beside = started.order.as_ref().is_some_and(|order| order.beside.is_some());
    if duration == 0 && !(beside && started.load().is_some_and(|load| matches!(load, Load::Open { .. }))) {
        let ran = took.or(intervals.last().map(|i| i.end_ns)).unwrap_or(0);
        return Measured { length_ns: ran.saturating_sub(warm_up), ..Measured::default() };
    }
    // What runs beside a phase may have no end of its own, or one that it does not reach.
    let ordered = if duration == 0 { u64::MAX } else { warm_up.saturating_add(duration) };
    let schedule = started.order.as_ref().and_then(Schedule::of_order);
    let cut = record
        .ended
        .as_ref()
        .and_then(|ended| ended.scheduled)
        .zip(schedule.as_ref().and_then(Schedule::count));
    let reached = !beside
        || took.is_some_and(|took| took >= ordered)
            && cut.is_none_or(|(scheduled, whole)| scheduled >= whole);
    let completed =
        reached && record.ended.as_ref().is_some_and(|ended| ended.outcome == PhaseOutcome::Completed);
    let (ran, ok_until) = if completed {
        (ordered.min(took.unwrap_or(ordered)), None)
    } else {
        let ran = stopped_after(intervals, schedule.as_ref()).min(ordered).min(took.unwrap_or(ordered));
        let ok = intervals.iter().filter(|i| i.start_ns < ran).map(|i| i.ok_in_window).sum();
        (ran, Some(ok))
    };
    let scheduled = schedule.map(|schedule| due_between(&schedule, warm_up, ran));
    Measured { length_ns: ran.saturating_sub(warm_up), scheduled, ok_until }
}

/// When the last request fell due, from the start instant: the end of its interval, or, where no request is missing
/// and the schedule says when each is due, the instant at which the one after it would have been.
fn stopped_after(intervals: &[Interval], schedule: Option<&Schedule>) -> u64 {
    let Some(last) = intervals.iter().rfind(|i| i.due > 0) else { return 0 };
    let due: u64 = intervals.iter().map(|i| i.due).sum();
    let Some(schedule) = schedule.filter(|s| s.count().is_some()) else { return last.end_ns };
    let whole = due_between(schedule, 0, last.start_ns) < due;
    match schedule.due_ns(due) {
        Some(next) if whole => next.clamp(last.start_ns, last.end_ns),
        _ => last.end_ns,
    }
}

fn due_between(schedule: &Schedule, from_ns: u64, until_ns: u64) -> u64 {
    let mean = schedule.expected_by(until_ns) - schedule.expected_by(from_ns);
    if schedule.count().is_none() && mean > DRAWN_AT_MOST {
        return count::from_f64(mean.max(0.0).round());
    }
    schedule.due_in(&ShareSet::all(), from_ns, until_ns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vst_common::entry::{PhaseEnded, PhaseStarted, Totals};
    use vst_common::ids::PhaseIndex;
    use vst_common::scenario::{Arrival, Load};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn record(rate: f64, warm_up: u64, duration: u64, outcome: PhaseOutcome, took: u64) -> PhaseRecord {
        let work = crate::tests::any_query();
        let order = vst_common::phase::PhaseOrder {
            beside: None,
            index: PhaseIndex(1),
            name: String::from("ask"),
            seed: 7,
            work,
            load: Load::Open { arrival: Arrival::Constant { rate }, connections: 1 },
            warm_up_ns: warm_up,
            operations: None,
            duration_ns: duration,
            timeout_ns: SECOND,
            interval_ns: SECOND,
            lanes_total: 1,
            connection: vst_common::scenario::ConnectionSpec::default(),
        };
        let started = PhaseStarted {
            beside: None,
            index: PhaseIndex(1),
            name: String::from("ask"),
            step: String::from("query"),
            start_wall_ns: 5,
            start_mono_ns: 0,
            order: Some(order),
        };
        let end_wall_ns = count::to_i64(5 + took);
        let ended = PhaseEnded {
            index: PhaseIndex(1),
            end_wall_ns,
            outcome,
            totals: Totals::default(),
            live: 0,
            exit_code: 0,
            scheduled: None,
            unowned: 0,
        };
        PhaseRecord { started, ended: Some(ended) }
    }

    /// What fell due by second when load was offered until an instant.
    fn offered(schedule: &Schedule, until_ns: u64) -> Vec<Interval> {
        (0..until_ns.div_ceil(SECOND))
            .map(|i| {
                let (start_ns, end_ns) = (i * SECOND, (i + 1) * SECOND);
                let due = schedule.due_in(&ShareSet::all(), start_ns, end_ns.min(until_ns));
                Interval { start_ns, end_ns, due, ok_in_window: due }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn whenever_a_phase_is_stopped_its_length_is_known_to_one_request(
            rate in 1.0_f64..5_000.0,
            warm_up in 0_u64..3,
            duration in 1_u64..20,
            part in 0.0_f64..1.0,
            drain in 0_u64..10,
        ) {
            let (warm_up, duration) = (warm_up * SECOND, duration * SECOND);
            let stop = count::from_f64(part * count::to_f64(warm_up + duration));
            let record = record(rate, warm_up, duration, PhaseOutcome::Interrupted, stop + drain * SECOND);
            let schedule = Schedule::of_order(record.started.order.as_ref().unwrap()).unwrap();
            let intervals = offered(&schedule, stop);
            let found = measured(&record, &intervals);
            let one = count::from_f64(1e9 / rate) + 1;
            let ran = stop.saturating_sub(warm_up);
            prop_assert!(found.length_ns <= ran + one && found.length_ns + one >= ran, "{} for {ran}", found.length_ns);
            let due: u64 = intervals.iter().map(|i| i.due).sum::<u64>()
                - schedule.due_in(&ShareSet::all(), 0, warm_up.min(stop));
            prop_assert_eq!(found.scheduled, Some(due), "nothing that was offered is called missing");
        }

        /// Without a length of its own, or with one that it does not reach, it lasts as long as the other phase.
        #[test]
        fn a_load_beside_a_phase_ends_with_it(
            rate in 1.0_f64..5_000.0, length in 1_u64..20, has_length: bool, drain in 0_u64..10,
        ) {
            let stop = length * SECOND;
            let duration = if has_length { stop + SECOND } else { 0 };
            let took = stop + if has_length { 0 } else { drain * SECOND };
            let mut record = record(rate, 0, duration, PhaseOutcome::Completed, took);
            record.started.order.as_mut().unwrap().beside = Some(PhaseIndex(0));
            let schedule = Schedule::of_order(record.started.order.as_ref().unwrap()).unwrap();
            let intervals = offered(&schedule, stop);
            let found = measured(&record, &intervals);
            let one = count::from_f64(1e9 / rate) + 1;
            prop_assert!(found.length_ns <= stop + one && found.length_ns + one >= stop, "{}", found.length_ns);
            prop_assert_eq!(found.scheduled, Some(intervals.iter().map(|i| i.due).sum::<u64>()));
        }
    }
}
