//! Whether settled memory grows over equal populations, and how small a growth would have been seen.
//!
//! Fed with the checkpoints and the ticks of memory within them; its verdicts stand in the summary, a leak is a finding
//! as well. Three checkpoints and more show by themselves how much memory differs from one cycle to the next; two do
//! not, so there a growth below [`CYCLE_NOISE`] of the memory is not called. Law: of flat series no more than one in a
//! hundred is called a leak, and every verdict says the smallest leak that it would have seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vst_common::count;

use crate::course::{Course, TickPoint};
use crate::memory::Checkpoint;
use crate::number;
use crate::statistics::{Difference, Estimate, Line, student};

/// Growth of memory at equal population that is called a leak, bytes per hour.
pub const LEAK_BYTES_PER_HOUR: f64 = 100e6;
/// Confidence of the interval about the growth.
const CONFIDENCE: f64 = 0.99;
/// Share of the leaks of the smallest size named that would be called.
const POWER: f64 = 0.8;
/// How much settled memory may differ between two cycles without any leak, as a share.
const CYCLE_NOISE: f64 = 0.01;
const HOUR_NS: f64 = 3.6e12;

/// What two or more checkpoints with the same rows say of growth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeakCheck {
    /// Live rows at each of them.
    pub live: u64,
    /// The first.
    pub from: String,
    /// The last.
    pub to: String,
    /// How many.
    pub checkpoints: u64,
    /// Growth of the primaries' used memory, bytes per hour.
    pub bytes_per_hour: f64,
    /// Half the width of its 99 % interval.
    pub margin: f64,
    /// The smallest leak that would have been called in four of five runs, bytes per hour.
    pub smallest: f64,
    /// Keys that came beside the population.
    pub strangers: u64,
    /// Whether it is called a leak.
    pub is_leak: bool,
}

impl LeakCheck {
    /// What was seen and what could have been.
    pub(crate) fn sentence(&self) -> String {
        let beside = if self.strangers > 0 {
            format!("; {} keys more, which are not the population's", number::grouped(self.strangers))
        } else {
            String::new()
        };
        format!(
            "memory at {} live rows grew by {}/h ± {} from {} to {}{beside}; the smallest leak that {} checkpoints \
             would have shown is {}/h",
            number::grouped(self.live),
            number::bytes(self.bytes_per_hour),
            number::bytes(self.margin),
            self.from,
            self.to,
            number::grouped(self.checkpoints),
            number::bytes(self.smallest),
        )
    }
}

/// One check for each population that more than one checkpoint had.
pub(crate) fn checks(checkpoints: &[Checkpoint], course: &Course) -> Vec<LeakCheck> {
    let mut by_population: BTreeMap<u64, Vec<&Checkpoint>> = BTreeMap::new();
    for checkpoint in checkpoints.iter().filter(|c| c.step != "baseline") {
        if let Some(live) = checkpoint.live {
            by_population.entry(live).or_default().push(checkpoint);
        }
    }
    let start = course.ticks.first().map_or(0, |tick| tick.at_ns);
    let mut found = Vec::new();
    for (live, same) in by_population {
        let [first, .., last] = same.as_slice() else { continue };
        let settled: Vec<Settled> = same
            .iter()
            .filter_map(|c| Settled::of(&course.ticks_of(c.phase_index).collect::<Vec<_>>(), start))
            .collect();
        let Some(growth) = Growth::of(&settled) else { continue };
        let keys = |c: &Checkpoint| course.ticks_of(c.phase_index).last().and_then(TickPoint::keys);
        found.push(LeakCheck {
            live,
            from: first.phase.clone(),
            to: last.phase.clone(),
            checkpoints: count::len(settled.len()),
            bytes_per_hour: growth.bytes_per_hour,
            margin: growth.margin,
            smallest: growth.smallest,
            strangers: keys(first).zip(keys(last)).map_or(0, |(a, b)| b.saturating_sub(a)),
            is_leak: growth.is_leak(),
        });
    }
    found
}

/// Settled memory at one checkpoint.
#[derive(Clone, Debug)]
struct Settled {
    hours: f64,
    used: Estimate,
}

impl Settled {
    fn of(ticks: &[&TickPoint], start_ns: i64) -> Option<Self> {
        let middle = ticks.get(ticks.len() / 2)?.at_ns.saturating_sub(start_ns);
        let series: Vec<f64> = ticks.iter().map(|tick| tick.used()).collect();
        Self::from_series(count::to_f64(count::to_u64(middle)) / HOUR_NS, &series)
    }

    fn from_series(hours: f64, series: &[f64]) -> Option<Self> {
        let used = match series {
            [one] => Some(Estimate { mean: *one, error: 0.0, freedom: 1.0, n: 1 }),
            _ => Estimate::of(series),
        }?;
        Some(Self { hours, used })
    }
}

/// Growth over checkpoints, bytes per hour.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Growth {
    bytes_per_hour: f64,
    margin: f64,
    /// What must be exceeded beside the margin.
    floor: f64,
    smallest: f64,
}

impl Growth {
    /// `None` of fewer than two checkpoints, or of such at one instant.
    fn of(settled: &[Settled]) -> Option<Self> {
        let [first, .., last] = settled else { return None };
        let hours = last.hours - first.hours;
        if hours <= 0.0 {
            return None;
        }
        let points: Vec<(f64, f64)> = settled.iter().map(|s| (s.hours, s.used.mean)).collect();
        let (bytes_per_hour, error, freedom, cycle) = match Line::through(&points, false) {
            Some(line) => (line.slope, line.slope_error, line.freedom, 0.0),
            None => {
                let difference = Difference::of(&first.used, &last.used);
                let cycle = CYCLE_NOISE * first.used.mean / hours;
                (difference.value / hours, difference.error / hours, difference.freedom, cycle)
            }
        };
        let margin = student(0.5 + CONFIDENCE / 2.0, freedom) * error;
        // The lower end of the interval must exceed what is tolerated.
        let floor = LEAK_BYTES_PER_HOUR.max(cycle);
        let called_from = (LEAK_BYTES_PER_HOUR + margin).max(floor);
        // What differs between two cycles may hide a leak as well; its bound is taken as two standard errors.
        let unseen = student(POWER, freedom) * error.hypot(cycle / 2.0);
        Some(Self { bytes_per_hour, margin, floor, smallest: called_from + unseen })
    }

    fn is_leak(&self) -> bool {
        self.bytes_per_hour - self.margin > LEAK_BYTES_PER_HOUR && self.bytes_per_hour > self.floor
    }
}

#[cfg(test)]
#[path = "leak/tests.rs"]
mod tests;
