//! What one measurement said: a reading of each figure, and what it cost.
//!
//! Made by whoever ran the phase, from its summary; read by every search. One measurement is one run of a phase; its
//! repeats are further measurements. Law: a reading that only says "at least so much" never makes a bound from above
//! hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::figure::Figure;

/// One figure of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// In the figure's base unit: per second, share, nanoseconds, bytes.
    pub value: f64,
    /// Standard error by the measurement's own series, where that is known. The noise between repeats is measured
    /// besides. Of recall it is that of the sample of queries, the same at each repeat: see
    /// [`Figure::is_of_fixed_sample`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The value is only known to be at least so large: a quantile among requests that got no reply.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
}

impl Reading {
    /// A value whose own error is not known.
    #[must_use]
    pub fn of(value: f64) -> Self {
        Self { value, error: None, at_least: false }
    }

    /// A value with the standard error that its own series gives it (autocorrelation included).
    #[must_use]
    pub fn with_error(value: f64, error: f64) -> Self {
        Self { value, error: Some(error), at_least: false }
    }

    /// A value that is at least so large.
    #[must_use]
    pub fn at_least(value: f64) -> Self {
        Self { value, error: None, at_least: true }
    }
}

/// One run of a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// By figure.
    pub figures: BTreeMap<Figure, Reading>,
    /// Requests that it took.
    #[serde(default)]
    pub requests: u64,
}

impl Measured {
    /// With one more reading.
    #[must_use]
    pub fn with(mut self, figure: Figure, reading: Reading) -> Self {
        self.figures.insert(figure, reading);
        self
    }
}

/// What became of what was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It was measured, and the measurement is valid.
    Measured(Measured),
    /// It was not, or the measurement is not valid: why.
    Invalid(String),
}

impl Event {
    /// The same, or not valid where a reading is no number: such a state could not be written and read back, and no
    /// comparison with a bound means anything.
    pub(crate) fn checked(self) -> Self {
        let is_number =
            |r: &Reading| r.value.is_finite() && r.error.is_none_or(|e| e.is_finite() && e >= 0.0);
        match &self {
            Self::Measured(measured) => match measured.figures.iter().find(|(_, r)| !is_number(r)) {
                Some((figure, reading)) => {
                    Self::Invalid(format!("`{figure}` is {} with error {:?}", reading.value, reading.error))
                }
                None => self,
            },
            Self::Invalid(_) => self,
        }
    }
}
