//! How sure a mean or a difference of a few measurements is.
//!
//! Measurements are few, so quantiles are Student's. Fed with values on the scale on which their noise is even (see
//! [`crate::figure::Scale`]); read by every search. Law: an interval of confidence c holds the true mean of normal
//! values in at least c of the cases.

use serde::{Deserialize, Serialize};

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
    /// Degrees of freedom of the error.
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

/// Probability that Student's t is above `t`, for t of at least 0.
pub(crate) fn tail(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5)
}

/// Quantile of Student's distribution for p of at least 0.5: Newton's steps on [`tail`], kept inside a bracket.
pub(crate) fn student(p: f64, freedom: f64) -> f64 {
    let wanted = (1.0 - p).max(1e-12);
    if wanted >= 0.5 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 2.0);
    while tail(high, freedom) > wanted && high < 1e12 {
        low = high;
        high *= 4.0;
    }
    let log_front = log_gamma(f64::midpoint(freedom, 1.0))
        - log_gamma(freedom / 2.0)
        - 0.5 * (freedom * std::f64::consts::PI).ln();
    let mut t = f64::midpoint(low, high);
    for _ in 0..60 {
        let above = tail(t, freedom);
        if above > wanted {
            low = t
        } else {
            high = t
        }
        let density = (log_front - f64::midpoint(freedom, 1.0) * (t * t / freedom).ln_1p()).exp();
        let step = t + (above - wanted) / density;
        let next = if step > low && step < high { step } else { f64::midpoint(low, high) };
        if (next - t).abs() <= 1e-10 * t {
            return next;
        }
        t = next;
    }
    t
}

/// Regularised incomplete beta function (continued fraction, modified Lentz: Numerical Recipes, section 6.4).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let kept = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let (mut c, mut d) = (1.0, 1.0 / kept(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for i in 1..300_u32 {
        let m = f64::from(i);
        let last = fraction;
        for term in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / kept(1.0 + term * d);
            c = kept(1.0 + term / c);
            fraction *= d * c;
        }
        if (fraction / last - 1.0).abs() < 1e-13 {
            break;
        }
    }
    (log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a * fraction
}

/// Logarithm of the gamma function of a positive number: Stirling's series, after shifting it up.
fn log_gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 0.0);
    while x < 10.0 {
        below += x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - below
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
