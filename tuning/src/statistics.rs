//! How sure a mean or a difference of a few measurements is.
//!
//! Measurements are few, so quantiles are Student's. Fed with values on the scale on which their noise is even (see
//! [`crate::figure::Scale`]); read by every search. Law: an interval of confidence c holds the true mean of normal
//! values in at least c of the cases.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::number::float;

/// A figure with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A mean with the standard error of that mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) mean: f64,
    pub(crate) error: f64,
    /// Degrees of freedom of the error; infinite where the error is known and not estimated.
    pub(crate) freedom: f64,
}

impl Estimate {
    /// Of independent values; `None` of fewer than two.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        if values.len() < 2 {
            return None;
        }
        let n = float(values.len());
        let squares = squares(values);
        Some(Self { mean: mean(values), error: (squares / (n - 1.0) / n).sqrt(), freedom: n - 1.0 })
    }

    /// Whether the mean is above zero; false alarms have probability `alpha`.
    pub(crate) fn is_above_zero(&self, alpha: f64) -> bool {
        self.mean > 0.0 && (self.error <= 0.0 || tail(self.mean / self.error, self.freedom) < alpha)
    }

    /// Whether the mean is below zero.
    pub(crate) fn is_below_zero(&self, alpha: f64) -> bool {
        Self { mean: -self.mean, ..*self }.is_above_zero(alpha)
    }

    /// Half the width of its interval, at a two-sided confidence.
    pub(crate) fn margin(&self, confidence: f64) -> f64 {
        student(0.5 + confidence / 2.0, self.freedom) * self.error
    }

    /// `self - other`, their errors independent and of one common variance.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        Self {
            mean: self.mean - other.mean,
            error: self.error.hypot(other.error),
            freedom: self.freedom.min(other.freedom),
        }
    }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / float(values.len()).max(1.0)
}

/// Sum of squared deviations from the mean.
pub(crate) fn squares(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|x| (x - mean).powi(2)).sum()
}

/// Least-squares line through points: (intercept, slope).
pub(crate) fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let (xs, ys): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    let (x0, y0, xx) = (mean(&xs), mean(&ys), squares(&xs));
    if xx <= 0.0 {
        return None;
    }
    let slope = points.iter().map(|(x, y)| (x - x0) * (y - y0)).sum::<f64>() / xx;
    Some((y0 - slope * x0, slope))
}

/// Probability that Student's t is above `t`.
pub(crate) fn tail(t: f64, freedom: f64) -> f64 {
    if freedom.is_infinite() {
        return Normal::new(0.0, 1.0).map_or(f64::NAN, |normal| normal.sf(t));
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |students| students.sf(t))
}

/// Quantile of Student's distribution for p of at least 0.5.
pub(crate) fn student(p: f64, freedom: f64) -> f64 {
    let p = p.min(1.0 - 1e-12);
    if freedom.is_infinite() {
        return Normal::new(0.0, 1.0).map_or(f64::NAN, |normal| normal.inverse_cdf(p));
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |students| students.inverse_cdf(p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::Noise;

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        for (p, freedom, t) in [
            (0.975, 1.0, 12.706),
            (0.975, 4.0, 2.776),
            (0.995, 9.0, 3.250),
            (0.9, 30.0, 1.310),
            (0.99, 120.0, 2.358),
            (0.999, 3.0, 10.215),
            (0.975, f64::INFINITY, 1.960),
            (0.5, 5.0, 0.0),
        ] {
            assert!((student(p, freedom) - t).abs() < 0.001, "{p} {freedom}: {}", student(p, freedom));
            assert!((tail(t, freedom) - (1.0 - p)).abs() < 1e-4);
        }
    }

    #[test]
    fn an_interval_holds_the_true_mean_as_often_as_it_says() {
        let mut noise = Noise::new(3);
        for n in [2, 3, 5, 20] {
            let tries = 4_000;
            let held = (0..tries)
                .filter(|_| {
                    let values: Vec<f64> = (0..n).map(|_| 5.0 + 2.0 * noise.normal()).collect();
                    let estimate = Estimate::of(&values).unwrap();
                    (estimate.mean - 5.0).abs() <= estimate.margin(0.9)
                })
                .count();
            // Four standard deviations of a count with p = 0.9.
            let share = float(held) / f64::from(tries);
            assert!((share - 0.9).abs() < 4.0 * (0.09 / f64::from(tries)).sqrt(), "{n}: {share}");
        }
    }

    #[test]
    fn a_line_through_points_of_a_line_is_that_line() {
        let (intercept, slope) = line(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]).unwrap();
        assert!((intercept - 3.0).abs() < 1e-12 && (slope - 2.0).abs() < 1e-12);
        assert_eq!(line(&[(1.0, 5.0), (1.0, 6.0)]), None);
    }
}
