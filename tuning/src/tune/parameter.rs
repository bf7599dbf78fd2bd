//! What may be changed, and between which values.
//!
//! A range is a row of positions, from 0, in the order of its values; searches know positions only. Law: positions and
//! values go together one to one, in order.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::number::{nearest, of_int};

/// Steps of a range of floats.
const FLOAT_STEPS: i64 = 100;

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A word, such as an element type.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => n.fmt(f),
            Self::Float(x) => x.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// Values by path of the scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting(pub BTreeMap<String, Value>);

impl fmt::Display for Setting {
    /// As on the command line: `--set path=value ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (path, value)) in self.0.iter().enumerate() {
            write!(f, "{}--set {path}={value}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// Between which values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// Whole numbers, both ends included.
    Int(i64, i64),
    /// The same, of which ratios matter and not differences.
    LogInt(i64, i64),
    /// Numbers, in steps of a hundredth of the range.
    Float(f64, f64),
    /// The same, in steps of equal ratio.
    LogFloat(f64, f64),
    /// These, in this order.
    List(Vec<Value>),
}

/// What is known of how figures change along a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Nothing: tested with three points. Three points cannot prove it; a narrow hump between them stays hidden.
    #[default]
    Test,
    /// Every figure changes one way, and the objective's figure rises.
    Rising,
    /// Every figure changes one way, and the objective's figure falls.
    Falling,
    /// Figures may go up and down, or values have no order.
    Any,
}

/// One parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its path in the scenario, as `--set` names it.
    pub path: String,
    /// Between which values.
    pub range: Range,
    /// What is known of it.
    #[serde(default)]
    pub shape: Shape,
}

/// A range that cannot be searched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// No value in it.
    #[error("the range holds no value: write the smaller end first")]
    Empty,
    /// No logarithm.
    #[error("a range of ratios must begin above zero")]
    NotPositive,
    /// No number.
    #[error("an end of the range is not a number")]
    NotANumber,
    /// No name.
    #[error("a parameter needs the path of a key in the scenario")]
    NoPath,
}

impl Parameter {
    /// With nothing known of it.
    #[must_use]
    pub fn new(path: &str, range: Range) -> Self {
        Self { path: path.to_owned(), range, shape: Shape::Test }
    }

    /// With this known of it.
    #[must_use]
    pub fn shaped(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    pub(super) fn check(&self) -> Result<(), ParameterError> {
        if self.path.trim().is_empty() {
            return Err(ParameterError::NoPath);
        }
        match &self.range {
            Range::Int(low, high) | Range::LogInt(low, high) if low > high => Err(ParameterError::Empty),
            Range::LogInt(low, _) if *low <= 0 => Err(ParameterError::NotPositive),
            Range::Float(low, high) | Range::LogFloat(low, high)
                if !(low.is_finite() && high.is_finite()) =>
            {
                Err(ParameterError::NotANumber)
            }
            Range::Float(low, high) | Range::LogFloat(low, high) if low >= high => Err(ParameterError::Empty),
            Range::LogFloat(low, _) if *low <= 0.0 => Err(ParameterError::NotPositive),
            Range::List(values) if values.is_empty() => Err(ParameterError::Empty),
            _ => Ok(()),
        }
    }

    /// The last position.
    pub(super) fn last(&self) -> i64 {
        match &self.range {
            Range::Int(low, high) | Range::LogInt(low, high) => high.saturating_sub(*low),
            Range::Float(..) | Range::LogFloat(..) => FLOAT_STEPS,
            Range::List(values) => i64::try_from(values.len()).unwrap_or(i64::MAX) - 1,
        }
    }

    pub(super) fn value(&self, position: i64) -> Value {
        let share = of_int(position) / of_int(FLOAT_STEPS);
        match &self.range {
            Range::Int(low, _) | Range::LogInt(low, _) => Value::Int(low.saturating_add(position)),
            Range::Float(low, high) => Value::Float(low + (high - low) * share),
            Range::LogFloat(low, high) => Value::Float(low * (high / low).powf(share)),
            Range::List(values) => usize::try_from(position)
                .ok()
                .and_then(|i| values.get(i))
                .cloned()
                .unwrap_or_else(|| Value::Text(String::new())),
        }
    }

    /// The first or the last value.
    pub(crate) fn end(&self, last: bool) -> Value {
        self.value(if last { self.last() } else { 0 })
    }

    /// A position between two, in the middle of what the range measures by.
    pub(super) fn between(&self, a: i64, b: i64) -> i64 {
        let (a, b) = (a.min(b), a.max(b));
        let middle = match &self.range {
            Range::LogInt(low, _) => {
                let product = of_int(low.saturating_add(a)) * of_int(low.saturating_add(b));
                nearest(product.sqrt()).saturating_sub(*low)
            }
            _ => a + (b - a) / 2,
        };
        if b - a < 2 { a } else { middle.clamp(a + 1, b - 1) }
    }

    /// Whether there is a value between two positions that is worth a measurement.
    pub(super) fn is_split(&self, a: i64, b: i64) -> bool {
        (a - b).abs() > 1
    }

    /// About `n` positions over the whole range, its ends among them, in order; of a list, all.
    pub(super) fn spread(&self, n: usize) -> Vec<i64> {
        let last = self.last();
        if matches!(self.range, Range::List(_)) {
            return (0..=last).collect();
        }
        let mut positions = vec![0, last];
        while positions.len() < n {
            let mut finer: Vec<i64> = positions.windows(2).map(|w| self.between(w[0], w[1])).collect();
            finer.extend(&positions);
            finer.sort_unstable();
            finer.dedup();
            if finer.len() == positions.len() {
                break;
            }
            positions = finer;
        }
        positions.dedup();
        positions
    }
}
