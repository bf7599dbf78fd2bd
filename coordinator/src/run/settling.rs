//! Waits until the target has come to rest: nothing is being indexed, nothing is queued, memory is stable. Where its
//! memory has a bound, it is weighed then, and the phase ends when it is planned what is to be deleted next.
//!
//! Law: the phase ends only after a whole window of readings, all of them at rest, whose memory differs by no more
//! than the threshold; when that does not come within the limit the run fails and says what was still moving.

use std::collections::VecDeque;

use vst_common::clock::{MonoNs, SECOND_NS};
use vst_common::count;
use vst_common::entry::Control;
use vst_common::exit::Exit;
use vst_common::scenario::SettleSpec;

use super::book::Book;
use super::closing::Closing;
use super::ending::Ending;
use super::state::{State, TransitionTo};
use super::weighing::{Next, Weight};
use super::{Action, Happened, Rest, Verdict};

/// Time between two readings, nanoseconds.
const READ_EVERY_NS: u64 = SECOND_NS / 4;

#[derive(Debug)]
pub(crate) struct Settling {
    spec: SettleSpec,
    /// Memory that the target may use, where it is weighed; bytes.
    bound_bytes: Option<u64>,
    began: MonoNs,
    readings: Readings,
    asked: bool,
    read_at: MonoNs,
}

impl Settling {
    pub(crate) fn new(spec: SettleSpec, bound_bytes: Option<u64>, now: MonoNs) -> Self {
        let window_ns = spec.window_ms.saturating_mul(1_000_000);
        let readings = Readings::new(spec.threshold, window_ns);
        Self { spec, bound_bytes, began: now, readings, asked: false, read_at: now }
    }

    pub(crate) fn advance(mut self, happened: Happened, now: MonoNs, book: &mut Book) -> State {
        match happened {
            Happened::RestRead(rest) => {
                self.asked = false;
                self.read_at = now.saturating_add(READ_EVERY_NS);
                let used_bytes = rest.used_memory_bytes;
                if self.readings.take(rest, now) {
                    return match self.bound_bytes {
                        None => self.to(Ending::quiet(now, book)),
                        Some(bound_bytes) => self.weigh(used_bytes, bound_bytes, now, book),
                    };
                }
            }
            Happened::Tick => {
                if now.saturating_sub(self.began) > self.spec.max_wait_ms.saturating_mul(1_000_000) {
                    let reason = format!(
                        "the target did not settle within {} s: {}; give `max_wait` more time or widen `threshold`",
                        self.spec.max_wait_ms / 1_000,
                        self.readings.why_not()
                    );
                    return Closing::enter(Verdict::failed(Exit::Target, reason), now, book);
                }
                if !self.asked && now >= self.read_at {
                    self.asked = true;
                    book.act(Action::ReadRest);
                }
            }
            _ => {}
        }
        State::Settling(self)
    }

    fn weigh(self, used_bytes: u64, bound_bytes: u64, now: MonoNs, book: &mut Book) -> State {
        let rows = book.phase().map_or(0, |phase| phase.before.count());
        let next = book.weigh(Weight { rows, used_bytes }, bound_bytes);
        let phase = book.phase_index();
        let keep_rows = match next {
            Next::Hopeless(reason) => {
                return Closing::enter(Verdict::failed(Exit::Target, reason), now, book);
            }
            Next::Reached => None,
            Next::Keep(rows) => Some(rows),
        };
        let what = match keep_rows {
            None => String::from("no more has to go"),
            Some(left) => format!("{} go next", rows.saturating_sub(left)),
        };
        let detail = format!(
            "the target uses {used_bytes} bytes with {rows} rows, {bound_bytes} is the bound: {what}"
        );
        book.note("memory_weighed", None, detail);
        book.log(Control::PopulationDecided { phase, used_bytes, keep_rows });
        match keep_rows {
            None => self.to(Ending::quiet(now, book)),
            Some(keep_rows) => {
                book.act(Action::Decide { phase, keep_rows });
                self.to(Deciding)
            }
        }
    }
}

/// What goes next is being planned.
#[derive(Debug)]
pub(crate) struct Deciding;

impl Deciding {
    pub(crate) fn advance(self, happened: &Happened, now: MonoNs, book: &mut Book) -> State {
        match happened {
            Happened::Decided => self.to(Ending::quiet(now, book)),
            _ => State::Deciding(self),
        }
    }
}

/// The readings that a decision rests on.
#[derive(Debug)]
struct Readings {
    threshold: f64,
    window_ns: u64,
    /// (when, used memory in bytes), since the target was last busy.
    at_rest: VecDeque<(MonoNs, u64)>,
    busy: Option<String>,
}

impl Readings {
    fn new(threshold: f64, window_ns: u64) -> Self {
        Self { threshold, window_ns, at_rest: VecDeque::new(), busy: None }
    }

    /// Takes a reading in; gives whether the target has come to rest.
    fn take(&mut self, rest: Rest, now: MonoNs) -> bool {
        self.busy = rest.busy;
        if self.busy.is_some() {
            self.at_rest.clear();
            return false;
        }
        self.at_rest.push_back((now, rest.used_memory_bytes));
        // The oldest one that is kept is at least a window old, so that the kept ones span a whole window.
        while self.at_rest.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= self.window_ns) {
            self.at_rest.pop_front();
        }
        let spans = self.at_rest.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= self.window_ns);
        spans && self.change() <= self.threshold
    }

    /// Largest relative change of memory among the readings.
    fn change(&self) -> f64 {
        let bytes = || self.at_rest.iter().map(|(_, bytes)| *bytes);
        let (least, most) = (bytes().min().unwrap_or(0), bytes().max().unwrap_or(0));
        if most == 0 { 0.0 } else { count::to_f64(most - least) / count::to_f64(most) }
    }

    fn why_not(&self) -> String {
        match &self.busy {
            Some(busy) => busy.clone(),
            None if self.at_rest.is_empty() => String::from("it did not answer"),
            None => format!(
                "memory still changes by {:.2} % within {} ms, {:.2} % are allowed",
                self.change() * 100.0,
                self.window_ns / 1_000_000,
                self.threshold * 100.0
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn settles_at_the_first_whole_window_of_stable_readings_and_not_before(
            steps in prop::collection::vec((1u64..40, 900u64..1100, prop::bool::weighted(0.2)), 1..80),
            window in 0u64..150,
            threshold in 0.0f64..0.2,
        ) {
            let mut readings = Readings::new(threshold, window);
            let mut seen: Vec<(u64, u64, bool)> = Vec::new();
            let mut now = 0;
            for (wait, bytes, busy) in steps {
                now += wait;
                seen.push((now, bytes, busy));
                let settled = readings.take(
                    Rest { used_memory_bytes: bytes, busy: busy.then(|| "backfill".into()) }, now
                );
                // The shortest run of readings up to now that spans the window.
                let first = seen.iter().rposition(|(at, _, _)| now - at >= window);
                let expected = first.is_some_and(|first| {
                    let last = &seen[first..];
                    let (least, most) = (
                        last.iter().map(|s| s.1).min().unwrap(), last.iter().map(|s| s.1).max().unwrap()
                    );
                    last.iter().all(|s| !s.2) && (most - least) as f64 / most as f64 <= threshold
                });
                prop_assert_eq!(settled, expected);
            }
        }
    }
}
