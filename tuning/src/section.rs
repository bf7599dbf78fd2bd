//! The sections `sweep:`, `tune:` and `compare:` of a scenario, as a person writes them.
//!
//! Parameters are named by their path, as `--set` names them; rates, bounds and margins are texts with units. Read by
//! whoever loads a scenario, which checks the paths against it; made into specifications here, so that a section that
//! is read can be searched. Law: what a section leaves out has the value that the specification has by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compare::{Compare, CompareError, CompareSpec, Margin};
use crate::constraint::{Constraint, ConstraintError, Side};
use crate::figure::Figure;
use crate::limit::{Limit, LimitError, LimitSpec};
use crate::tune::{Objective, Parameter, Range, Setting, Shape, Tune, TuneError, TuneSpec, Value};

/// A section that cannot be searched.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SectionError {
    /// A rate that is none.
    #[error("`{key}`: `{text}` is no rate: write it like `5000/s`")]
    Rate {
        /// Which.
        key: &'static str,
        /// What was written.
        text: String,
    },
    /// An objective that is none.
    #[error("a `tune` section needs one of `maximise: FIGURE` and `minimise: FIGURE`")]
    Objective,
    /// The search over rates.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The search over settings.
    #[error(transparent)]
    Tune(#[from] TuneError),
    /// The comparison.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A bound.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

/// `sweep:`: the curve of one phase, at each setting of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepSection {
    /// Name of the open-loop phase whose rate is searched.
    pub phase: String,
    /// The lowest and the highest rate, for example `500/s` and `100000/s`.
    pub rate: (String, String),
    /// What must hold at a rate, for example `p99 <= 10ms`.
    pub constraints: Vec<Constraint>,
    /// Values by path, every combination of which gets its own search.
    #[serde(default)]
    pub grid: BTreeMap<String, Vec<Value>>,
    /// How narrow the interval of a limit shall become, as a share.
    #[serde(default)]
    pub width: Option<f64>,
    /// Measurements about a limit at most.
    #[serde(default)]
    pub repeats: Option<usize>,
    /// Measurements of one search at most.
    #[serde(default)]
    pub budget: Option<usize>,
}

/// `tune:`: the best setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneSection {
    /// The figure that shall be large.
    #[serde(default)]
    pub maximise: Option<Figure>,
    /// The figure that shall be small.
    #[serde(default)]
    pub minimise: Option<Figure>,
    /// What must hold.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// What may be changed, by path, in order of the paths.
    pub parameters: BTreeMap<String, RangeSection>,
    /// Measurements of one setting at most.
    #[serde(default)]
    pub repeats: Option<usize>,
    /// Measurements at most.
    #[serde(default)]
    pub budget: Option<usize>,
}

/// The range of a parameter: `[1, 2, 4]`, or with what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RangeSection {
    /// These values, of which nothing is known.
    List(Vec<Value>),
    /// A range.
    Known(KnownRange),
}

/// A range with what is known of it, for example `{log_int: [10, 500], shape: falling}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnownRange {
    /// Between which values.
    #[serde(flatten)]
    pub range: Range,
    /// What is known.
    #[serde(default)]
    pub shape: Shape,
}

/// `compare:`: two settings of the same scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareSection {
    /// What A sets.
    #[serde(default)]
    pub a: Setting,
    /// What B sets.
    pub b: Setting,
    /// Figures with the change that matters of each.
    pub margins: BTreeMap<Figure, f64>,
    /// Blocks of four measurements at most.
    #[serde(default)]
    pub blocks: Option<usize>,
}

impl SweepSection {
    /// The search of one setting.
    ///
    /// # Errors
    /// When the section cannot be searched.
    pub fn search(&self) -> Result<Limit, SectionError> {
        let (floor, ceiling) = (rate("rate", &self.rate.0)?, rate("rate", &self.rate.1)?);
        let mut spec = LimitSpec::new(self.constraints.clone(), floor, ceiling);
        spec.width = self.width.unwrap_or(spec.width);
        spec.repeats = self.repeats.unwrap_or(spec.repeats);
        spec.budget = self.budget.unwrap_or(spec.budget);
        Ok(Limit::new(spec)?)
    }

    /// Every setting of the grid; one empty setting where there is no grid.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = vec![Setting::default()];
        for (path, values) in &self.grid {
            let with = |(setting, value): (&Setting, &Value)| {
                let mut more = setting.clone();
                more.0.insert(path.clone(), value.clone());
                more
            };
            settings = settings.iter().flat_map(|s| values.iter().map(move |v| (s, v))).map(with).collect();
        }
        settings
    }
}

impl TuneSection {
    /// The search.
    ///
    /// # Errors
    /// When the section cannot be searched.
    pub fn search(&self) -> Result<Tune, SectionError> {
        let objective = match (self.maximise, self.minimise) {
            (Some(figure), None) => Objective::Maximise(figure),
            (None, Some(figure)) => Objective::Minimise(figure),
            _ => return Err(SectionError::Objective),
        };
        let parameter = |(path, range): (&String, &RangeSection)| match range {
            RangeSection::List(values) => {
                Parameter::new(path, Range::List(values.clone())).shaped(Shape::Any)
            }
            RangeSection::Known(known) => Parameter::new(path, known.range.clone()).shaped(known.shape),
        };
        let parameters = self.parameters.iter().map(parameter).collect();
        let mut spec = TuneSpec::new(objective, self.constraints.clone(), parameters);
        spec.repeats = self.repeats.unwrap_or(spec.repeats);
        spec.budget = self.budget.unwrap_or(spec.budget);
        Ok(Tune::new(spec)?)
    }
}

impl CompareSection {
    /// The comparison.
    ///
    /// # Errors
    /// When the section cannot be compared by.
    pub fn search(&self) -> Result<Compare, SectionError> {
        let margins = self.margins.iter().map(|(figure, change)| Margin { figure: *figure, change: *change });
        Ok(Compare::new(CompareSpec::new(margins.collect(), self.blocks))?)
    }
}

/// A rate with its unit, read as the bound of a constraint on throughput is.
fn rate(key: &'static str, text: &str) -> Result<f64, SectionError> {
    let fault = |_| SectionError::Rate { key, text: text.to_owned() };
    let constraint: Constraint = format!("qps >= {text}").parse().map_err(fault)?;
    debug_assert_eq!(constraint.side(), Side::AtLeast);
    Ok(constraint.bound())
}

#[cfg(test)]
#[path = "section/tests.rs"]
mod tests;
