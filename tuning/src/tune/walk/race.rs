//! Along a parameter of which nothing is known: candidates race, and the region of the best is looked at more closely.
//!
//! Successive halving (Karnin, Koren, Somekh 2013): each round the better half is measured twice as often. What was
//! left behind is not lost: before anything is concluded, whoever may still be as good is brought up to the best.

use super::{At, Walk};
use crate::book::Verdict;
use crate::replay::Source;
use crate::tune::{Ask, Stop};

/// Candidates over a range of numbers.
const CANDIDATES: usize = 5;

impl<S: Source<Ask>> Walk<'_, S> {
    /// The best setting along a parameter, whatever its shape.
    pub(super) fn along_race(&mut self, at: At, parameter: usize) -> Result<At, Stop> {
        let Some(known) = self.spec.parameters.get(parameter) else { return Ok(at) };
        let mut positions = known.spread(CANDIDATES);
        let mut best = at;
        loop {
            let field: Vec<At> = positions.iter().map(|i| Self::moved(&best, parameter, *i)).collect();
            best = self.race(field)?;
            let here = best.get(parameter).copied().unwrap_or(0);
            // Between the best and its neighbours, while its neighbours are told from it.
            let below = positions.iter().rev().find(|i| **i < here).copied();
            let above = positions.iter().find(|i| **i > here).copied();
            let is_worse = |walk: &Self, i: i64| {
                let other = Self::moved(&best, parameter, i);
                walk.verdict(&other) != Verdict::Pass || walk.beats(&best, &other)
            };
            let sides = [below, above].into_iter().flatten();
            let finer: Vec<i64> = sides
                .filter(|i| known.is_split(*i, here) && is_worse(self, *i))
                .map(|i| known.between(i, here))
                .filter(|i| !positions.contains(i))
                .collect();
            if finer.is_empty() {
                return Ok(best);
            }
            positions.extend(finer);
            positions.sort_unstable();
        }
    }

    /// The best of a field by successive halving.
    fn race(&mut self, mut field: Vec<At>) -> Result<At, Stop> {
        let mut repeats = 1;
        loop {
            for at in &field {
                // The first of all is repeated, so that there is a noise to judge the others by.
                let least = if self.measurements == 0 { 3 } else { repeats };
                while self.book.repeats(at) < least.min(self.spec.repeats) {
                    self.measure(at, true)?;
                }
                self.measure_objective(at, 1)?;
                self.judge(at, true)?;
            }
            field.sort_by(|a, b| self.rank(a, b));
            if field.len() <= 1 || repeats >= self.spec.repeats {
                break;
            }
            field.truncate(field.len().div_ceil(2));
            if let Some((first, rest)) = field.split_first()
                && rest.iter().all(|other| self.is_beaten(other, first))
            {
                break;
            }
            repeats *= 2;
        }
        Ok(field.into_iter().next().unwrap_or_default())
    }

    fn is_beaten(&self, other: &At, by: &At) -> bool {
        let (a, b) = (self.verdict(by), self.verdict(other));
        (a == Verdict::Pass && matches!(b, Verdict::Fail(_))) || (a == b && self.beats(by, other))
    }
}
