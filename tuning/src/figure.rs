//! The figures that a search maximises, minimises or bounds, and on which scale their noise is even.
//!
//! Named as in scenarios and reports. Law: each name is read back as the figure that wrote it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A figure of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Figure {
    /// Requests that ended well, per second.
    Qps,
    /// Recall@k, a share.
    Recall,
    /// Median response time, nanoseconds.
    P50,
    /// 95th percentile of response time, nanoseconds.
    P95,
    /// 99th percentile of response time, nanoseconds.
    P99,
    /// 99.9th percentile of response time, nanoseconds.
    P999,
    /// Share of the requests that did not end well: answered errors, timed out, lost, unsent.
    ErrorRate,
    /// Achieved over offered rate, a share.
    AchievedShare,
    /// Memory of the server, bytes.
    Memory,
    /// Memory per vector net of the baseline, bytes.
    BytesPerVector,
    /// CPU time of the server per query, nanoseconds.
    CpuPerQuery,
}

/// On which scale the noise of a figure is about as large everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Of rates, times and sizes: relative noise.
    Log,
    /// Of shares: absolute noise.
    Linear,
}

/// In what a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Per second.
    Rate,
    /// 0 to 1, or per cent.
    Share,
    /// Nanoseconds.
    Time,
    /// Bytes.
    Size,
}

/// All figures with their names.
pub const FIGURES: [(Figure, &str); 11] = [
    (Figure::Qps, "qps"),
    (Figure::Recall, "recall"),
    (Figure::P50, "p50"),
    (Figure::P95, "p95"),
    (Figure::P99, "p99"),
    (Figure::P999, "p99.9"),
    (Figure::ErrorRate, "error_rate"),
    (Figure::AchievedShare, "achieved_share"),
    (Figure::Memory, "memory"),
    (Figure::BytesPerVector, "bytes_per_vector"),
    (Figure::CpuPerQuery, "cpu_per_query"),
];

/// A name that is no figure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no figure; use one of {}", FIGURES.map(|(_, name)| name).join(", "))]
pub struct UnknownFigure {
    name: String,
}

impl Figure {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        FIGURES.iter().find(|(figure, _)| *figure == self).map_or("", |(_, name)| name)
    }

    /// In what it is written.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Qps => Unit::Rate,
            Self::Recall | Self::ErrorRate | Self::AchievedShare => Unit::Share,
            Self::P50 | Self::P95 | Self::P99 | Self::P999 | Self::CpuPerQuery => Unit::Time,
            Self::Memory | Self::BytesPerVector => Unit::Size,
        }
    }

    /// On which scale its noise is even.
    #[must_use]
    pub fn scale(self) -> Scale {
        if self.unit() == Unit::Share { Scale::Linear } else { Scale::Log }
    }

    /// Whether it changes with the offered rate. Recall and memory do not: one measurement at any rate tells them.
    #[must_use]
    pub fn depends_on_rate(self) -> bool {
        !matches!(self, Self::Recall | Self::Memory | Self::BytesPerVector)
    }

    /// Whether the error that a measurement declares of it is that of its sample of queries. Repeats ask the same
    /// queries: they neither show this error nor make it smaller, and what holds of these queries holds surely.
    #[must_use]
    pub fn is_of_fixed_sample(self) -> bool {
        self == Self::Recall
    }
}

impl Scale {
    /// A value on this scale.
    #[must_use]
    pub fn of(self, value: f64) -> f64 {
        match self {
            // A time or size of zero is less than anything that can be measured, and has no logarithm.
            Self::Log => value.max(1e-12).ln(),
            Self::Linear => value,
        }
    }

    /// The value back.
    #[must_use]
    pub fn back(self, scaled: f64) -> f64 {
        match self {
            Self::Log => scaled.exp(),
            Self::Linear => scaled,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Figure {
    type Err = UnknownFigure;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        FIGURES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(figure, _)| *figure)
            .ok_or_else(|| UnknownFigure { name: text.to_owned() })
    }
}

impl TryFrom<String> for Figure {
    type Error = UnknownFigure;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Figure> for String {
    fn from(figure: Figure) -> Self {
        figure.as_str().to_owned()
    }
}
