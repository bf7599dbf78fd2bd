//! Every measurement of a search by the point at which it was taken, and what the constraints say of a point.
//!
//! Noise is told from repeats, pooled over points that are alike; a point is judged only as far as its noise allows. An
//! error that measurements declare is known: it is judged by the normal distribution, and that of a sample of queries
//! not at all, because a constraint is on the queries that were asked. Fed by the searches, which ask for repeats where a
//! point is near a bound. Law: a point that keeps a constraint is called broken, or one that breaks it kept, with no more
//! than the probability that was asked for.

use std::collections::BTreeMap;

use crate::constraint::{Constraint, Side};
use crate::figure::{Figure, Unit};
use crate::measured::Measured;
use crate::number::float;
use crate::statistics::{Estimate, Interval, mean, squares};

/// Repeats by which the noise at a point can be told from the point alone.
pub(crate) const REPEATS_TO_TELL: usize = 3;
/// Share of a value that the rounding of a mean may be.
const ROUNDING: f64 = 1e-12;

/// What the constraints say of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All hold, beyond the noise.
    Pass,
    /// The constraint of this index is broken, beyond the noise.
    Fail(usize),
    /// The constraint of this index cannot be told.
    Near(usize),
}

/// Measurements at one point.
#[derive(Clone, Debug, Default)]
struct Point {
    repeats: usize,
    scaled: BTreeMap<Figure, Vec<f64>>,
    declared: BTreeMap<Figure, Vec<f64>>,
    at_least: BTreeMap<Figure, bool>,
}

/// Measurements by point.
#[derive(Clone, Debug)]
pub(crate) struct Book<K> {
    points: BTreeMap<K, Point>,
    /// Whether the noise of two points is the same for figures that depend on where they are.
    alike: fn(&K, &K) -> bool,
}

impl<K: Ord + Clone> Book<K> {
    /// `alike` says whether the noise of two points is the same for figures that depend on where they are.
    pub(crate) fn new(alike: fn(&K, &K) -> bool) -> Self {
        Self { points: BTreeMap::new(), alike }
    }

    pub(crate) fn enter(&mut self, at: &K, measured: &Measured) {
        let point = self.points.entry(at.clone()).or_default();
        point.repeats += 1;
        for (figure, reading) in &measured.figures {
            let scaled = figure.scale().of(reading.value);
            point.scaled.entry(*figure).or_default().push(scaled);
            if let Some(error) = reading.error {
                let share = figure.scale().of(reading.value + error) - scaled;
                point.declared.entry(*figure).or_default().push(share.powi(2));
            }
            *point.at_least.entry(*figure).or_default() |= reading.at_least;
        }
    }

    pub(crate) fn repeats(&self, at: &K) -> usize {
        self.points.get(at).map_or(0, |point| point.repeats)
    }

    pub(crate) fn points(&self) -> impl Iterator<Item = &K> {
        self.points.keys()
    }

    /// Readings of a figure at a point, on the figure's scale.
    pub(crate) fn scaled(&self, at: &K, figure: Figure) -> &[f64] {
        self.points.get(at).and_then(|point| point.scaled.get(&figure)).map_or(&[], Vec::as_slice)
    }

    /// Variance between measurements of a figure near a point, and its degrees of freedom; `None` while nothing near
    /// was repeated often enough.
    pub(crate) fn variance(&self, at: &K, figure: Figure) -> Option<(f64, f64)> {
        let (mut sum, mut freedom) = (0.0, 0.0);
        for (key, point) in &self.points {
            let values = point.scaled.get(&figure).map_or(&[][..], Vec::as_slice);
            if values.len() > 1 && (!figure.depends_on_rate() || (self.alike)(at, key)) {
                sum += squares(values);
                freedom += float(values.len() - 1);
            }
        }
        if freedom < float(REPEATS_TO_TELL - 1) {
            return None;
        }
        Some((sum / freedom, freedom))
    }

    /// Mean of a figure at a point on the figure's scale, with the error that repeats show.
    fn repeated(&self, at: &K, figure: Figure) -> Option<Estimate> {
        let values = self.scaled(at, figure);
        let (variance, freedom) = self.variance(at, figure)?;
        let n = float(values.len());
        (n > 0.0).then(|| Estimate { mean: mean(values), error: (variance / n).sqrt(), freedom })
    }

    /// The same with the error that the measurements declare, which is known; `None` where they declare none.
    fn declared(&self, at: &K, figure: Figure) -> Option<Estimate> {
        let declared = self.points.get(at)?.declared.get(&figure).filter(|d| !d.is_empty())?;
        // More repeats of the same queries are not more queries.
        let n = if figure.is_of_fixed_sample() { 1.0 } else { float(declared.len()) };
        let error = (mean(declared) / n).sqrt();
        Some(Estimate { mean: mean(self.scaled(at, figure)), error, freedom: f64::INFINITY })
    }

    /// Mean of a figure at a point on the figure's scale, with the larger of both errors.
    pub(crate) fn estimate(&self, at: &K, figure: Figure) -> Option<Estimate> {
        let repeated = self.repeated(at, figure)?;
        let declared = self.declared(at, figure).map_or(0.0, |d| d.error);
        Some(Estimate { error: repeated.error.max(declared), ..repeated })
    }

    /// The interval that the measurements declare of a figure, in its base unit.
    pub(crate) fn declared_interval(&self, at: &K, figure: Figure, confidence: f64) -> Option<Interval> {
        let declared = self.declared(at, figure)?;
        let margin = declared.margin(confidence);
        let back = |scaled: f64| match figure.unit() {
            Unit::Share => figure.scale().back(scaled).clamp(0.0, 1.0),
            _ => figure.scale().back(scaled),
        };
        let (low, high) = (back(declared.mean - margin), back(declared.mean + margin));
        Some(Interval { value: back(declared.mean), low, high })
    }

    /// What the constraints say of a point, each wrong call with a probability of at most `alpha`.
    ///
    /// Of several broken constraints the worst is named.
    pub(crate) fn judge(&self, at: &K, constraints: &[Constraint], alpha: f64) -> Verdict {
        let (mut near, mut broken) = (None, None);
        for (i, constraint) in constraints.iter().enumerate() {
            match self.judge_one(at, constraint, alpha) {
                Some(true) => {}
                Some(false) => {
                    let violation = constraint.violation(mean(self.scaled(at, constraint.figure())));
                    if broken.is_none_or(|(worst, _)| violation > worst) {
                        broken = Some((violation, i));
                    }
                }
                None => near = Some(i),
            }
        }
        match (broken, near) {
            (Some((_, i)), _) => Verdict::Fail(i),
            (None, Some(i)) => Verdict::Near(i),
            (None, None) => Verdict::Pass,
        }
    }

    /// Whether one constraint holds; `None` where that cannot be told.
    pub(crate) fn judge_one(&self, at: &K, constraint: &Constraint, alpha: f64) -> Option<bool> {
        let figure = constraint.figure();
        let mean = mean(self.scaled(at, figure));
        let slack = constraint.slack(mean);
        let at_least = self.points.get(at).and_then(|p| p.at_least.get(&figure)).copied().unwrap_or(false);
        if at_least {
            // At least so much, and even that is inside: the true value may be on either side.
            return match constraint.side() {
                Side::AtMost => (slack < 0.0).then_some(false),
                Side::AtLeast => (slack > 0.0).then_some(true),
            };
        }
        if let Some(repeated) = self.repeated(at, figure) {
            // Where all repeats agree, what is on the bound is inside.
            if repeated.error <= ROUNDING * mean.abs() && slack.abs() <= ROUNDING * mean.abs() {
                return Some(true);
            }
            let declared = self.declared(at, figure).filter(|_| !figure.is_of_fixed_sample());
            let mut errors = std::iter::once(repeated).chain(declared);
            let told = |e: Estimate| {
                let e = Estimate { mean: slack, ..e };
                if slack > 0.0 { e.is_above_zero(alpha) } else { e.is_below_zero(alpha) }
            };
            return errors.all(told).then_some(slack > 0.0);
        }
        // Its noise is not known yet; what is far off is off whatever it is.
        constraint.is_far(mean).then_some(slack > 0.0)
    }
}

/// After how many repeats a point is judged again: not after each, because each look is a chance to be wrong.
pub(crate) fn next_look(repeats: usize) -> usize {
    match repeats {
        0 => 1,
        1 | 2 => 3,
        3 => 4,
        n => n + n / 2,
    }
}

/// How often a point is judged that is repeated at most so often.
pub(crate) fn looks(most: usize) -> usize {
    let (mut n, mut looks) = (0, 0);
    while n < most {
        n = next_look(n).min(most);
        looks += 1;
    }
    looks
}

#[cfg(test)]
#[path = "book/tests.rs"]
mod tests;
