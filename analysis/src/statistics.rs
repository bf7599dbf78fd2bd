//! How sure a mean, a slope or a difference is, for series that are measured one interval after another.
//!
//! Neighbouring intervals are alike (a compaction, a warm cache), so a series of n holds less than n independent
//! values: its standard error is widened by the autocorrelation time. Quantiles are Student's, because series are
//! short. Law: of series that differ by chance alone, no more are called different than the confidence allows, whatever
//! their autocorrelation up to 0.8.

use statrs::distribution::{ContinuousCDF, StudentsT};
use vst_common::count;

/// A mean of correlated values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// The mean.
    pub(crate) mean: f64,
    /// Its standard error, autocorrelation included.
    pub(crate) error: f64,
    /// Degrees of freedom of that error.
    pub(crate) freedom: f64,
    /// How many values.
    pub(crate) n: u64,
}

impl Estimate {
    /// Of a series in order of time; `None` of fewer than two values.
    pub(crate) fn of(series: &[f64]) -> Option<Self> {
        let n = float(series.len());
        if series.len() < 2 {
            return None;
        }
        let mean = series.iter().sum::<f64>() / n;
        let deviations: Vec<f64> = series.iter().map(|x| x - mean).collect();
        let (effective, variance) = spread(&deviations, 1.0);
        let error = (variance / effective).sqrt();
        Some(Self { mean, error, freedom: (effective - 1.0).max(1.0), n: count::len(series.len()) })
    }

    /// Of independent values, one per repeat of a run.
    pub(crate) fn of_repeats(values: &[f64]) -> Option<Self> {
        let n = float(values.len());
        if values.len() < 2 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Some(Self { mean, error: (variance / n).sqrt(), freedom: n - 1.0, n: count::len(values.len()) })
    }
}

/// Effective number of values and variance of deviations from a fit with `fitted` parameters.
fn spread(deviations: &[f64], fitted: f64) -> (f64, f64) {
    let n = float(deviations.len());
    let squares: f64 = deviations.iter().map(|d| d * d).sum();
    if squares <= 0.0 {
        return (n, 0.0);
    }
    let time = autocorrelation_time(deviations, squares);
    let effective = (n / time).max(fitted + 1.0);
    // The sample variance of correlated values is too small by about the share of one effective value.
    (effective, squares / n * effective / (effective - fitted).max(0.5))
}

/// How many values in a row say as much as one: 1 for independent values.
///
/// The larger of two estimates, each too low at times: that of a first-order process with the small-sample bias of its
/// coefficient put back, and the sum of correlations while pairs of them stay positive (Geyer's initial sequence).
fn autocorrelation_time(deviations: &[f64], squares: f64) -> f64 {
    let n = deviations.len();
    let at = |lag: usize| -> f64 {
        deviations.iter().zip(deviations.iter().skip(lag)).map(|(a, b)| a * b).sum::<f64>() / squares
    };
    let first = at(1);
    let corrected = (first + (1.0 + 4.0 * first.max(0.0)) / float(n)).clamp(0.0, 0.97);
    let process = (1.0 + corrected) / (1.0 - corrected);
    let mut sum = 1.0 + 2.0 * first.max(0.0);
    let mut lag = 2;
    while lag + 1 < n / 2 {
        let pair = at(lag) + at(lag + 1);
        if pair <= 0.0 {
            break;
        }
        sum += 2.0 * pair;
        lag += 2;
    }
    process.max(sum).clamp(1.0, float(n))
}

/// A difference of two independent estimates, `b - a`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    /// `b - a`.
    pub(crate) value: f64,
    /// Its standard error.
    pub(crate) error: f64,
    /// Degrees of freedom (Welch and Satterthwaite).
    pub(crate) freedom: f64,
}

impl Difference {
    pub(crate) fn of(a: &Estimate, b: &Estimate) -> Self {
        let (va, vb) = (a.error.powi(2), b.error.powi(2));
        let both = va + vb;
        let parts = va.powi(2) / a.freedom + vb.powi(2) / b.freedom;
        let freedom = if parts > 0.0 { both.powi(2) / parts } else { a.freedom + b.freedom };
        Self { value: b.mean - a.mean, error: both.sqrt(), freedom }
    }

    /// Half the width of its interval at a confidence such as 0.99.
    pub(crate) fn margin(&self, confidence: f64) -> f64 {
        student(0.5 + confidence / 2.0, self.freedom) * self.error
    }
}

/// A straight line through a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    /// At x = 0.
    pub(crate) intercept: f64,
    /// Per unit of x.
    pub(crate) slope: f64,
    /// Standard error of the slope, autocorrelation of the residuals included.
    pub(crate) slope_error: f64,
    /// Degrees of freedom.
    pub(crate) freedom: f64,
    /// Variance of the values about the line.
    pub(crate) variance: f64,
    mean_x: f64,
    squares_x: f64,
    effective: f64,
}

impl Line {
    /// The least-squares line through at least three points in order of x; `correlated` where neighbours are alike.
    pub(crate) fn through(points: &[(f64, f64)], correlated: bool) -> Option<Self> {
        let n = float(points.len());
        if points.len() < 3 {
            return None;
        }
        let (mean_x, mean_y) =
            (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
        let squares_x: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
        if squares_x <= 0.0 {
            return None;
        }
        let slope = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / squares_x;
        let intercept = mean_y - slope * mean_x;
        let residuals: Vec<f64> = points.iter().map(|p| p.1 - intercept - slope * p.0).collect();
        let (effective, variance) = if correlated {
            let (effective, variance) = spread(&residuals, 2.0);
            (effective.max(3.0), variance)
        } else {
            (n, residuals.iter().map(|r| r * r).sum::<f64>() / (n - 2.0))
        };
        let slope_error = (variance / squares_x * n / effective).sqrt();
        Some(Self {
            intercept,
            slope,
            slope_error,
            freedom: (effective - 2.0).max(1.0),
            variance,
            mean_x,
            squares_x,
            effective,
        })
    }

    /// Half the width of the slope's interval.
    pub(crate) fn slope_margin(&self, confidence: f64) -> f64 {
        student(0.5 + confidence / 2.0, self.freedom) * self.slope_error
    }

    /// The value at x, and half the width of the interval in which one more measurement there would lie.
    pub(crate) fn predict(&self, x: f64, confidence: f64) -> (f64, f64) {
        let far = (x - self.mean_x).powi(2) / self.squares_x;
        let error = (self.variance * (1.0 + 1.0 / self.effective + far)).sqrt();
        (self.intercept + self.slope * x, student(0.5 + confidence / 2.0, self.freedom) * error)
    }
}

/// Quantile of Student's distribution, for p of at least 0.5.
pub(crate) fn student(p: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |students| students.inverse_cdf(p.min(1.0 - 1e-12)))
}

fn float(n: usize) -> f64 {
    count::to_f64(count::len(n))
}

#[cfg(test)]
#[path = "statistics/tests.rs"]
mod tests;
