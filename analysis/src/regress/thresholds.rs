//! Which change for the worse a comparison tolerates.
//!
//! Read from a YAML file; what it leaves out has the defaults. All are fractions, and their names say the direction.

use serde::{Deserialize, Serialize};

use super::Metric;

/// Tolerated changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Share by which throughput may fall.
    pub throughput_drop: f64,
    /// Share by which the 99th percentile may rise.
    pub p99_rise: f64,
    /// By how much recall may fall, absolute.
    pub recall_drop: f64,
    /// Share by which bytes per vector may rise.
    pub memory_rise: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { throughput_drop: 0.10, p99_rise: 0.15, recall_drop: 0.02, memory_rise: 0.20 }
    }
}

/// Why a file holds no thresholds.
#[derive(Debug, thiserror::Error)]
pub enum ThresholdsError {
    /// Not YAML of the form.
    #[error(
        "{0}; the keys are throughput_drop, p99_rise, recall_drop and memory_rise, each a fraction such as 0.10"
    )]
    Form(String),
    /// A fraction that cannot be.
    #[error("`{key}` is {value}: give a fraction between 0 and 10, such as 0.10 for ten percent")]
    Range {
        /// Which.
        key: &'static str,
        /// What it is.
        value: f64,
    },
}

impl Thresholds {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`ThresholdsError`] naming the key or the line.
    pub fn from_yaml(text: &str) -> Result<Self, ThresholdsError> {
        let read: Self = if text.trim().is_empty() {
            Self::default()
        } else {
            serde_saphyr::from_str(text).map_err(|e| ThresholdsError::Form(e.to_string()))?
        };
        for (key, value) in [
            ("throughput_drop", read.throughput_drop),
            ("p99_rise", read.p99_rise),
            ("recall_drop", read.recall_drop),
            ("memory_rise", read.memory_rise),
        ] {
            if !(0.0..=10.0).contains(&value) {
                return Err(ThresholdsError::Range { key, value });
            }
        }
        Ok(read)
    }

    /// The one for a metric.
    pub(super) fn of(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Throughput => self.throughput_drop,
            Metric::P99 => self.p99_rise,
            Metric::Recall => self.recall_drop,
            Metric::Memory => self.memory_rise,
        }
    }
}
