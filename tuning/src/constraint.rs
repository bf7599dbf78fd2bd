//! What must hold of a figure, read from text such as `p99 <= 10ms` or `memory <= 2GiB/1M`.
//!
//! Written by a person in a scenario or on the command line; read by every search. Law: what is written is read back
//! as the same constraint.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::figure::{Figure, Scale, Unit, UnknownFigure};

/// Which side of the bound is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
}

/// A bound on a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    figure: Figure,
    side: Side,
    bound: f64,
}

/// A text that is no constraint.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConstraintError {
    /// Neither `<=` nor `>=`.
    #[error("`{0}` is no constraint: write a figure, `<=` or `>=`, and a bound, for example `p99 <= 10ms`")]
    NoComparison(String),
    /// What is compared is not known.
    #[error(transparent)]
    Figure(#[from] UnknownFigure),
    /// The bound cannot be read.
    #[error("`{text}` is no bound of `{figure}`: write it like `{example}`")]
    Bound {
        /// What is bounded.
        figure: Figure,
        /// What was written.
        text: String,
        /// What would do.
        example: &'static str,
    },
    /// No measurement can be on the other side, or on this one.
    #[error("`{figure}` lies between 0 and 100%, and {bound} does not")]
    NotAShare {
        /// What is bounded.
        figure: Figure,
        /// What was written.
        bound: f64,
    },
}

impl Constraint {
    /// A constraint on a figure in its base unit: per second, share, nanoseconds, bytes.
    ///
    /// # Errors
    /// When the bound is not a positive number, or not a share where one is needed.
    pub fn new(figure: Figure, side: Side, bound: f64) -> Result<Self, ConstraintError> {
        match figure.unit() {
            Unit::Share if !(0.0..=1.0).contains(&bound) => Err(ConstraintError::NotAShare { figure, bound }),
            Unit::Rate | Unit::Time | Unit::Size if !(bound.is_finite() && bound > 0.0) => {
                Err(ConstraintError::Bound {
                    figure,
                    text: bound.to_string(),
                    example: example(figure.unit()),
                })
            }
            _ => Ok(Self { figure, side, bound }),
        }
    }

    /// What is bounded.
    #[must_use]
    pub fn figure(&self) -> Figure {
        self.figure
    }

    /// Which side is allowed.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// The bound in the figure's base unit.
    #[must_use]
    pub fn bound(&self) -> f64 {
        self.bound
    }

    /// How far inside a value on the figure's scale is: negative outside.
    pub(crate) fn slack(&self, scaled: f64) -> f64 {
        let bound = self.figure.scale().of(self.bound);
        match self.side {
            Side::AtMost => bound - scaled,
            Side::AtLeast => scaled - bound,
        }
    }

    /// The value on the figure's scale that has this slack.
    pub(crate) fn at_slack(&self, slack: f64) -> f64 {
        let bound = self.figure.scale().of(self.bound);
        match self.side {
            Side::AtMost => bound - slack,
            Side::AtLeast => bound + slack,
        }
    }

    /// Whether a value on the figure's scale is off the bound by a factor of two, in what it costs: more than any noise
    /// of a sound measurement. Of a share that must be large that is what is missing to the whole.
    pub(crate) fn is_far(&self, scaled: f64) -> bool {
        let value = self.figure.scale().back(scaled);
        let (cost, bound) = match (self.side, self.figure.scale()) {
            (Side::AtMost, _) => (value, self.bound),
            (Side::AtLeast, Scale::Log) => (1.0 / value, 1.0 / self.bound),
            (Side::AtLeast, Scale::Linear) => (1.0 - value, 1.0 - self.bound),
        };
        cost > 2.0 * bound || 2.0 * cost < bound
    }

    /// How badly a value on the figure's scale breaks it, comparable between figures: 0 where it holds.
    pub(crate) fn violation(&self, scaled: f64) -> f64 {
        let outside = (-self.slack(scaled)).max(0.0);
        match self.figure.scale() {
            Scale::Log => outside,
            Scale::Linear => outside / self.bound.max(0.01),
        }
    }
}

fn example(unit: Unit) -> &'static str {
    match unit {
        Unit::Rate => "5000/s",
        Unit::Share => "0.95 or 95%",
        Unit::Time => "10ms",
        Unit::Size => "2GiB",
    }
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, side, bound) = [("<=", Side::AtMost), (">=", Side::AtLeast)]
            .into_iter()
            .find_map(|(sign, side)| text.split_once(sign).map(|(name, bound)| (name, side, bound)))
            .ok_or_else(|| ConstraintError::NoComparison(text.trim().to_owned()))?;
        let (named, bound): (Figure, &str) = (name.trim().parse()?, bound.trim());
        let fault = |figure: Figure| ConstraintError::Bound {
            figure,
            text: bound.to_owned(),
            example: example(figure.unit()),
        };
        // Memory per so many vectors is memory per vector.
        let (figure, value) = match bound.split_once('/') {
            Some((size, vectors)) if named == Figure::Memory => {
                let vectors = quantity(vectors.trim(), &COUNTS).filter(|n| *n > 0.0);
                let size = quantity(size.trim(), units(Unit::Size));
                (Figure::BytesPerVector, size.zip(vectors).map(|(size, n)| size / n))
            }
            Some((rate, "s")) if named.unit() == Unit::Rate => (named, quantity(rate.trim(), &COUNTS)),
            _ => (named, quantity(bound, units(named.unit()))),
        };
        Self::new(figure, side, value.ok_or_else(|| fault(named))?)
    }
}

const COUNTS: [(&str, f64); 4] = [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)];

fn units(unit: Unit) -> &'static [(&'static str, f64)] {
    match unit {
        Unit::Rate => &COUNTS,
        Unit::Share => &[("", 1.0), ("%", 0.01)],
        Unit::Time => &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)],
        Unit::Size => &[
            ("", 1.0),
            ("B", 1.0),
            ("kB", 1e3),
            ("KB", 1e3),
            ("MB", 1e6),
            ("GB", 1e9),
            ("TB", 1e12),
            ("KiB", 1024.0),
            ("MiB", 1_048_576.0),
            ("GiB", 1_073_741_824.0),
            ("TiB", 1_099_511_627_776.0),
        ],
    }
}

/// A number with a unit, in base units.
fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    digits
        .parse::<f64>()
        .ok()
        .map(|number| if *factor < 1.0 { number / (1.0 / factor) } else { number * factor })
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.side == Side::AtMost { "<=" } else { ">=" };
        let bound = self.bound;
        write!(f, "{} {sign} ", self.figure)?;
        match self.figure.unit() {
            Unit::Rate => write!(f, "{bound}/s"),
            Unit::Share => write!(f, "{bound}"),
            Unit::Time => written(f, bound, &[("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0)]),
            Unit::Size => written(
                f,
                bound,
                &[("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1024.0), ("B", 1.0)],
            ),
        }
    }
}

/// In the largest unit in which it is a whole number, else in the base unit.
fn written(f: &mut fmt::Formatter<'_>, value: f64, units: &[(&str, f64)]) -> fmt::Result {
    let whole = |factor: f64| value >= factor && (value / factor).fract() == 0.0;
    let base = units.last().copied().unwrap_or(("", 1.0));
    let (name, factor) = units.iter().copied().find(|(_, factor)| whole(*factor)).unwrap_or(base);
    write!(f, "{}{name}", value / factor)
}

impl TryFrom<String> for Constraint {
    type Error = ConstraintError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Constraint> for String {
    fn from(constraint: Constraint) -> Self {
        constraint.to_string()
    }
}

#[cfg(test)]
#[path = "constraint/tests.rs"]
mod tests;
