//! Along a parameter that moves every figure one way: the edge of what is allowed, by halving.

use super::{At, Walk};
use crate::book::Verdict;
use crate::constraint::Constraint;
use crate::figure::Figure;
use crate::replay::Source;
use crate::tune::{Ask, Finding, Stop};

/// Repeats of each of the three points that test a parameter.
const TEST_REPEATS: usize = 3;

impl<S: Source<Ask>> Walk<'_, S> {
    pub(super) fn moved(at: &At, parameter: usize, position: i64) -> At {
        let mut moved = at.clone();
        if let Some(one) = moved.get_mut(parameter) {
            *one = position;
        }
        moved
    }

    /// Which way the objective's figure goes along a parameter, by three points: 1 up, -1 down; `None` where a figure
    /// turns, or where the objective cannot be told from one that does.
    pub(super) fn direction(&mut self, at: &At, parameter: usize) -> Result<Option<f64>, Stop> {
        let Some(known) = self.spec.parameters.get(parameter) else { return Ok(None) };
        let last = known.last();
        let points = [0, known.between(0, last), last].map(|i| Self::moved(at, parameter, i));
        for point in &points {
            while self.book.repeats(point) < TEST_REPEATS.min(self.spec.repeats) {
                self.measure(point, true)?;
            }
            self.measure_objective(point, 1)?;
        }
        let objective = self.spec.objective.figure();
        let mut figures = self.bounded.clone();
        figures.retain(|figure| *figure != objective);
        figures.push(objective);
        let mut direction = None;
        for figure in figures {
            let steps = self.steps(&points, figure);
            if steps.contains(&1.0) && steps.contains(&-1.0) {
                let path = known.path.clone();
                let finding = Finding::NonMonotone { path, figure };
                if !self.findings.contains(&finding) {
                    self.findings.push(finding);
                }
                return Ok(None);
            }
            if figure == objective {
                // A step that is not told from none may hide a hump.
                direction = (steps[0] != 0.0 && steps[0].to_bits() == steps[1].to_bits()).then_some(steps[0]);
            }
        }
        Ok(direction)
    }

    /// Signs of the two steps between three points, 0 where the noise does not tell.
    fn steps(&self, points: &[At; 3], figure: Figure) -> [f64; 2] {
        let sign = |a: &At, b: &At| match (self.estimate(a, figure), self.estimate(b, figure)) {
            (Some(a), Some(b)) => {
                let step = b.minus(&a);
                f64::from(step.is_above_zero(self.alpha)) - f64::from(step.is_below_zero(self.alpha))
            }
            _ => 0.0,
        };
        let [low, middle, high] = points;
        [sign(low, middle), sign(middle, high)]
    }

    /// The best setting along a parameter along which the objective's figure goes one way.
    pub(super) fn along_edge(&mut self, at: At, parameter: usize, direction: f64) -> Result<At, Stop> {
        let Some(known) = self.spec.parameters.get(parameter) else { return Ok(at) };
        let better_is_high = direction * self.spec.objective.sign() > 0.0;
        if let Some(better) = self.better.get_mut(parameter) {
            *better = Some(direction * self.spec.objective.sign());
        }
        let (good, bad) = if better_is_high { (known.last(), 0) } else { (0, known.last()) };
        let there = Self::moved(&at, parameter, good);
        let constraints = self.spec.constraints.clone();
        if self.judge(&there, false)? == Verdict::Pass {
            return Ok(there);
        }
        // What does not surely hold at the good end can only begin to hold away from it.
        let wanted: Vec<Constraint> =
            constraints.iter().filter(|c| self.holds(&there, c) != Some(true)).copied().collect();
        let end = Self::moved(&at, parameter, bad);
        self.judge(&end, false)?;
        if let Some(never) = wanted.iter().find(|c| self.holds(&end, c) != Some(true)) {
            // Broken at both ends, so everywhere; or not told there. Go to the end that comes closer.
            if self.holds(&there, never) == Some(false) && self.holds(&end, never) == Some(false) {
                self.oppose(&[*never]);
            }
            let closer = self.rank(&there, &end).is_le();
            return Ok(if closer { there } else { end });
        }
        let (mut fails, mut holds) = (good, bad);
        while known.is_split(fails, holds) {
            let middle = known.between(fails, holds);
            let point = Self::moved(&at, parameter, middle);
            self.judge(&point, false)?;
            if wanted.iter().all(|c| self.holds(&point, c) == Some(true)) {
                holds = middle
            } else {
                fails = middle
            }
        }
        let edge = Self::moved(&at, parameter, holds);
        // What held at the good end may be broken by now: then nothing along this line keeps both.
        let broken: Vec<Constraint> =
            constraints.iter().filter(|c| self.holds(&edge, c) == Some(false)).copied().collect();
        if !broken.is_empty() {
            let both: Vec<Constraint> = wanted.iter().copied().chain(broken).collect();
            self.oppose(&both);
        }
        Ok(edge)
    }

    fn holds(&self, at: &At, constraint: &Constraint) -> Option<bool> {
        self.book.judge_one(at, constraint, self.alpha)
    }

    fn oppose(&mut self, constraints: &[Constraint]) {
        for constraint in constraints {
            if !self.opposed.contains(constraint) {
                self.opposed.push(*constraint);
            }
        }
    }
}
