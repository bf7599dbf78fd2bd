//! What a curve says as a whole: its knee, and which points no other beats.
//!
//! Fed with the points that a search or a sweep over rates measured; read by reports. The knee is where throughput over
//! response time is greatest (power: Kleinrock 1979, "Power and deterministic rules of thumb for probabilistic problems
//! in computer communications"; Jain 1991, section 3.3). It needs no scale: neither a unit nor the range that was
//! measured moves it. Law: of M/M/1 it is at half the capacity.

use serde::{Deserialize, Serialize};

use crate::statistics::{Interval, line};

/// One rate of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Requests that ended well, per second.
    pub throughput: f64,
    /// Response time, nanoseconds: the mean or a quantile, the same at every point.
    pub response_ns: f64,
    /// Relative standard error of throughput over response time, by repeats.
    pub error: f64,
}

impl CurvePoint {
    fn log_power(&self) -> f64 {
        self.throughput.max(1e-12).ln() - self.response_ns.max(1e-12).ln()
    }
}

/// Where the knee is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knee {
    /// At this throughput, per second; the interval is between the nearest rates that are told from the best by two
    /// standard errors.
    At(Interval),
    /// Power still rises at the highest rate: the knee lies above it, per second.
    Above(f64),
    /// Power already falls at the lowest rate: the knee lies below it, per second.
    Below(f64),
    /// Fewer than three rates.
    Unknown,
}

/// The knee of a throughput and response time curve.
#[must_use]
pub fn knee(points: &[CurvePoint]) -> Knee {
    let mut points: Vec<CurvePoint> = points.iter().copied().filter(|p| p.throughput > 0.0).collect();
    points.sort_by(|a, b| a.throughput.total_cmp(&b.throughput));
    // At overload more rates have one throughput: the best of them is the curve's.
    points.dedup_by(|b, a| {
        let same = b.throughput <= a.throughput * 1.001;
        if same && b.log_power() > a.log_power() {
            *a = *b;
        }
        same
    });
    if points.len() < 3 {
        return Knee::Unknown;
    }
    let best = (0..points.len()).max_by(|a, b| {
        let power = |i: &usize| points.get(*i).map_or(f64::MIN, CurvePoint::log_power);
        power(a).total_cmp(&power(b))
    });
    let (Some(best), Some(first), Some(last)) = (best, points.first(), points.last()) else {
        return Knee::Unknown;
    };
    let Some(top) = points.get(best) else { return Knee::Unknown };
    let is_worse = |p: &&CurvePoint| top.log_power() - p.log_power() > 2.0 * top.error.hypot(p.error);
    let below = points.iter().take(best).rev().find(is_worse);
    let above = points.iter().skip(best + 1).find(is_worse);
    match (below, above) {
        (None, _) => Knee::Below(above.unwrap_or(last).throughput),
        (_, None) => Knee::Above(below.unwrap_or(first).throughput),
        (Some(below), Some(above)) => {
            let (low, high) = (below.throughput, above.throughput);
            let value = vertex(&points, best).unwrap_or(top.throughput).clamp(low, high);
            Knee::At(Interval { value, low, high })
        }
    }
}

/// Top of the parabola through a point and its neighbours, over the logarithm of throughput.
fn vertex(points: &[CurvePoint], best: usize) -> Option<f64> {
    let near = |i: usize| points.get(i).map(|p| (p.throughput.ln(), p.log_power()));
    let (a, b, c) = (near(best.checked_sub(1)?)?, near(best)?, near(best + 1)?);
    let (_, rise) = line(&[a, b])?;
    let (_, fall) = line(&[b, c])?;
    let bend = (fall - rise) / (c.0 - a.0);
    (bend < 0.0).then(|| (f64::midpoint(a.0, b.0) - rise / bend / 2.0).exp())
}

/// One setting of a trade between throughput and recall, each with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trade {
    /// Per second.
    pub qps: Interval,
    /// A share.
    pub recall: Interval,
}

/// Where a setting stands among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No other has at least as much of both and more of one.
    Front,
    /// Another has, but within the noise: it may belong to the front.
    Contested,
    /// Another has more of both, beyond the noise.
    Dominated,
}

/// Which settings form the Pareto front of throughput against recall.
#[must_use]
pub fn pareto(trades: &[Trade]) -> Vec<Standing> {
    let dominates = |a: &Trade, b: &Trade| {
        a.qps.value >= b.qps.value
            && a.recall.value >= b.recall.value
            && (a.qps.value > b.qps.value || a.recall.value > b.recall.value)
    };
    let surely = |a: &Trade, b: &Trade| a.qps.low > b.qps.high && a.recall.low > b.recall.high;
    let standing = |b: &Trade| {
        if trades.iter().any(|a| surely(a, b)) {
            Standing::Dominated
        } else if trades.iter().any(|a| dominates(a, b)) {
            Standing::Contested
        } else {
            Standing::Front
        }
    };
    trades.iter().map(standing).collect()
}

#[cfg(test)]
#[path = "curve/tests.rs"]
mod tests;
