//! Where a figure crosses its bound, by a straight line through measurements about that place, with its interval.
//!
//! The interval is Fieller's (1954, "Some problems in interval estimation"): all rates at which the line's mean is not
//! told from the bound. Within a few per cent of rate the logarithm of a latency is straight enough; further away it is
//! not, so only near measurements are given to it. Law: of a line with normal noise, the true crossing is in the
//! interval with the confidence that was asked for.

use crate::constraint::Constraint;
use crate::number::float;
use crate::statistics::{Estimate, line, mean, squares, student};

/// Measurements below which neither slope nor noise can be told.
pub(super) const LEAST: usize = 6;

/// A line through (logarithm of the rate, slack).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    slope: f64,
    variance: f64,
}

/// Where slack is zero, as logarithms of the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Crossing {
    /// There.
    At { value: f64, low: f64, high: f64 },
    /// Nowhere near: the constraint holds in all the region.
    Above,
    /// Nowhere near: it is broken in all the region.
    Below,
    /// The noise hides it.
    Hidden,
}

impl Fit {
    pub(super) fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < LEAST {
            return None;
        }
        let (intercept, slope) = line(points)?;
        let (xs, ys): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        let n = float(points.len());
        let residuals: f64 = points.iter().map(|(x, y)| (y - intercept - slope * x).powi(2)).sum();
        Some(Self { n, x: mean(&xs), y: mean(&ys), xx: squares(&xs), slope, variance: residuals / (n - 2.0) })
    }

    fn freedom(&self) -> f64 {
        self.n - 2.0
    }

    /// Where the line crosses zero while it falls.
    pub(super) fn crossing(&self, confidence: f64) -> Crossing {
        let t = student(0.5 + confidence / 2.0, self.freedom());
        let noise = t * t * self.variance;
        let squared = self.slope.powi(2) - noise / self.xx;
        if squared <= 0.0 || self.slope >= 0.0 {
            let error = (noise / self.n).sqrt();
            return match () {
                () if self.y > error => Crossing::Above,
                () if self.y < -error => Crossing::Below,
                () => Crossing::Hidden,
            };
        }
        let half = -self.y * self.slope;
        let root = (half.powi(2) - squared * (self.y.powi(2) - noise / self.n)).max(0.0).sqrt();
        Crossing::At {
            value: self.x - self.y / self.slope,
            low: self.x + (half - root) / squared,
            high: self.x + (half + root) / squared,
        }
    }

    /// Deviation of one measurement, as a deviation of the rate.
    pub(super) fn deviation(&self) -> f64 {
        (self.variance / self.slope.powi(2)).sqrt()
    }

    /// Whether one more measurement at `x` is off the line, with a false alarm of probability `alpha`.
    pub(super) fn is_off(&self, x: f64, slack: f64, alpha: f64) -> Option<f64> {
        let expected = self.y + self.slope * (x - self.x);
        let error = (self.variance * (1.0 + 1.0 / self.n + (x - self.x).powi(2) / self.xx)).sqrt();
        let margin = student(1.0 - alpha / 2.0, self.freedom()) * error;
        ((slack - expected).abs() > margin).then_some(expected)
    }
}

/// The first crossing of several constraints, as logarithms of the rate, and which it is.
pub(super) struct First {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) binding: Constraint,
    pub(super) deviation: f64,
}

/// The first crossing of all; `None` while one is hidden or has too few measurements.
pub(super) fn first(fits: &[(Constraint, Option<Fit>)], confidence: f64) -> Option<First> {
    let each = 1.0 - (1.0 - confidence) / float(fits.len()).max(1.0);
    let mut first: Option<First> = None;
    for (constraint, fit) in fits {
        let fit = (*fit)?;
        match fit.crossing(each) {
            Crossing::At { value, low, high } => {
                let this = First { value, low, high, binding: *constraint, deviation: fit.deviation() };
                first = Some(match first {
                    None => this,
                    Some(other) => {
                        let (low, high) = (low.min(other.low), high.min(other.high));
                        First { low, high, ..if this.value < other.value { this } else { other } }
                    }
                });
            }
            Crossing::Above => {}
            Crossing::Below | Crossing::Hidden => return None,
        }
    }
    first
}

/// Where, in points in order of time, those after an instant lie off those before it: the heights of both at the middle.
///
/// One line through all, then Student's t between the residuals before and after, at each instant.
pub(super) fn turn(points: &[(f64, f64)], alpha: f64) -> Option<(f64, f64)> {
    let n = points.len();
    if n < LEAST + 2 {
        return None;
    }
    let fit = Fit::through(points)?;
    let residuals: Vec<f64> = points.iter().map(|(x, y)| y - fit.y - fit.slope * (x - fit.x)).collect();
    (2..=n - 2).find_map(|at| {
        let (before, after) = residuals.split_at(at);
        let variance = (squares(before) + squares(after)) / float(n - 3);
        let error = (variance * (1.0 / float(before.len()) + 1.0 / float(after.len()))).sqrt();
        let step = Estimate { mean: mean(after) - mean(before), error, freedom: float(n - 3) };
        let each = alpha / 2.0 / float(n - 3);
        (error > 0.0 && (step.is_above_zero(each) || step.is_below_zero(each)))
            .then(|| (fit.y + mean(before), fit.y + mean(after)))
    })
}
