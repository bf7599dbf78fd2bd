//! Whether B differs from A, measured in turns: A B B A, B A A B, ...
//!
//! Whatever drifts evenly in time cancels inside a block of four, so blocks are compared and not single measurements
//! (paired blocks, Student's t). A difference that does not matter is called equal only if the whole interval lies within
//! the margin that was given (two one-sided tests: Schuirmann 1987). Fed by whoever runs the two sides. Laws: of sides
//! that are equal no more are called different than the confidence allows; equal is never called where the interval
//! leaves room for a difference that matters.

use serde::{Deserialize, Serialize};

use crate::figure::{Figure, Scale};
use crate::measured::{Event, Measured};
use crate::number::float;
use crate::replay::{Pause, Replay, Source};
use crate::search::{self, Search, Spec};
use crate::statistics::{Estimate, Interval, mean, student};

/// Share of comparisons in which the smallest effect that is named would be seen.
const POWER: f64 = 0.8;
/// Blocks below which no interval is believed.
const BLOCKS_LEAST: usize = 4;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What is compared with.
    A,
    /// What is compared.
    B,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareSpec {
    /// Figures with the change that matters of each: a share of A's value; of shares such as recall, a difference.
    pub margins: Vec<Margin>,
    /// Confidence of all calls together.
    #[serde(default = "default_confidence")]
    pub confidence: f64,
    /// Blocks of four measurements at most.
    #[serde(default = "default_blocks")]
    pub blocks: usize,
}

/// A figure and the change of it that matters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Margin {
    /// Which.
    pub figure: Figure,
    /// Changes up to this are as good as none.
    pub change: f64,
}

fn default_confidence() -> f64 {
    0.95
}
fn default_blocks() -> usize {
    25
}

/// A comparison that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// Nothing to compare.
    #[error(
        "a comparison needs a figure and the change of it that matters, for example {{figure: qps, change: 0.02}}"
    )]
    NoFigure,
    /// No change is too small to matter.
    #[error("the change of `{figure}` that matters must be above 0 and below 1, not {change}")]
    Margin {
        /// Of what.
        figure: Figure,
        /// What was given.
        change: f64,
    },
    /// A confidence that none can have.
    #[error("`confidence` is {0} and must be from 0.5 to below 1")]
    Confidence(f64),
    /// Too few blocks for an interval.
    #[error("`blocks` is {0} and must be at least {BLOCKS_LEAST}: fewer tell no noise")]
    Blocks(usize),
}

impl CompareSpec {
    /// A comparison with everything else as usual.
    #[must_use]
    pub fn new(margins: Vec<Margin>, blocks: Option<usize>) -> Self {
        Self { margins, confidence: default_confidence(), blocks: blocks.unwrap_or(default_blocks()) }
    }
}

/// What to do next, in this order.
pub type Action = search::Action<Ask, Outcome>;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Of which side.
    pub side: Side,
    /// In which block, from 0.
    pub block: usize,
    /// Figures that it has to tell.
    pub figures: Vec<Figure>,
}

/// What follows for one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Any difference is within the margin.
    Equal,
    /// There is a difference, and it may matter.
    Different,
    /// Neither: a difference of the size of `smallest_effect` might have been missed.
    TooSmallToSee,
}

/// One figure of both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Which.
    pub figure: Figure,
    /// Mean of A in base units (geometric for rates, times, sizes).
    pub a: f64,
    /// Mean of B.
    pub b: f64,
    /// Change from A to B: a share of A; of shares, a difference.
    pub change: Interval,
    /// The change that matters.
    pub margin: f64,
    /// The smallest change that would have been told from none in four of five comparisons.
    pub smallest_effect: f64,
    /// What follows.
    pub call: Call,
}

/// What the comparison found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// One per figure; none where the comparison had to be given up.
    pub compared: Vec<Compared>,
    /// Blocks of four.
    pub blocks: usize,
    /// Whether every interval became narrow enough; otherwise the blocks ran out.
    pub narrow: bool,
    /// Confidence of all calls together.
    pub confidence: f64,
    /// Requests that it took.
    pub requests: u64,
    /// Why it had to be given up.
    pub abandoned: Option<String>,
}

/// A comparison of two sides.
pub type Compare = Search<CompareSpec>;

impl Spec for CompareSpec {
    type Ask = Ask;
    type Outcome = Outcome;
    type Error = CompareError;

    fn check(&self) -> Result<(), CompareError> {
        if self.margins.is_empty() {
            return Err(CompareError::NoFigure);
        }
        for Margin { figure, change } in &self.margins {
            if !(*change > 0.0 && *change < 1.0) {
                return Err(CompareError::Margin { figure: *figure, change: *change });
            }
        }
        if !(self.confidence >= 0.5 && self.confidence < 1.0) {
            return Err(CompareError::Confidence(self.confidence));
        }
        if self.blocks < BLOCKS_LEAST {
            return Err(CompareError::Blocks(self.blocks));
        }
        Ok(())
    }

    fn follow(&self, answers: &[Event]) -> Result<Outcome, Ask> {
        run(self, &mut Replay::new(answers))
    }
}

/// One figure over the blocks, on the figure's scale.
#[derive(Default)]
struct Series {
    a: Vec<f64>,
    b: Vec<f64>,
}

fn run(spec: &CompareSpec, source: &mut impl Source<Ask>) -> Result<Outcome, Ask> {
    let figures: Vec<Figure> = spec.margins.iter().map(|m| m.figure).collect();
    let mut series: Vec<Series> = figures.iter().map(|_| Series::default()).collect();
    let mut outcome = Outcome {
        compared: Vec::new(),
        blocks: 0,
        narrow: false,
        confidence: spec.confidence,
        requests: 0,
        abandoned: None,
    };
    while outcome.blocks < spec.blocks && !outcome.narrow {
        // Every other block the other way round, so that what bends cancels too.
        let order = if outcome.blocks.is_multiple_of(2) {
            [Side::A, Side::B, Side::B, Side::A]
        } else {
            [Side::B, Side::A, Side::A, Side::B]
        };
        for side in order {
            let ask = Ask { side, block: outcome.blocks, figures: figures.clone() };
            let taken = match source.answer(ask) {
                Ok(measured) => enter(&mut series, &figures, side, &measured).map(|()| measured.requests),
                Err(Pause::Need(ask)) => return Err(ask),
                Err(Pause::Spent) => break,
                Err(Pause::GaveUp(reason)) => Err(reason),
            };
            match taken {
                Ok(requests) => outcome.requests = outcome.requests.saturating_add(requests),
                Err(reason) => return Ok(Outcome { abandoned: Some(reason), ..outcome }),
            }
        }
        outcome.blocks += 1;
        if outcome.blocks >= BLOCKS_LEAST {
            outcome.compared =
                spec.margins.iter().zip(&series).filter_map(|(m, s)| compared(spec, *m, s)).collect();
            // A third of the margin leaves room for two more of chance: equal sides are then called so.
            outcome.narrow = outcome.compared.iter().all(|c| half_width(c) <= c.margin / 3.0);
        }
    }
    Ok(outcome)
}

fn enter(series: &mut [Series], figures: &[Figure], side: Side, measured: &Measured) -> Result<(), String> {
    for (figure, series) in figures.iter().zip(series) {
        let reading =
            measured.figures.get(figure).ok_or_else(|| format!("a measurement does not tell `{figure}`"))?;
        if reading.at_least {
            return Err(format!(
                "a measurement tells of `{figure}` only that it is at least {}",
                reading.value
            ));
        }
        let values = if side == Side::A { &mut series.a } else { &mut series.b };
        values.push(figure.scale().of(reading.value));
    }
    Ok(())
}

fn half_width(compared: &Compared) -> f64 {
    (compared.change.high - compared.change.low) / 2.0
}

fn compared(
    spec: &CompareSpec,
    Margin { figure, change: margin }: Margin,
    series: &Series,
) -> Option<Compared> {
    let differences: Vec<f64> =
        series.a.chunks(2).zip(series.b.chunks(2)).map(|(a, b)| mean(b) - mean(a)).collect();
    let estimate = Estimate::of(&differences)?;
    // A fifth of what may go wrong is left for looking after every block.
    let alpha = 0.8 * (1.0 - spec.confidence) / float(spec.margins.len());
    let half = estimate.margin(1.0 - alpha);
    let seen = half + student(POWER, estimate.freedom) * estimate.error;
    // On the scale of a share of A, or as it is.
    let shown = |d: f64| if figure.scale() == Scale::Log { d.exp_m1() } else { d };
    let change = Interval {
        value: shown(estimate.mean),
        low: shown(estimate.mean - half),
        high: shown(estimate.mean + half),
    };
    let call = if change.low >= -margin && change.high <= margin {
        Call::Equal
    } else if change.low > 0.0 || change.high < 0.0 {
        Call::Different
    } else {
        Call::TooSmallToSee
    };
    let back = |values: &[f64]| figure.scale().back(mean(values));
    let (a, b) = (back(&series.a), back(&series.b));
    Some(Compared { figure, a, b, change, margin, smallest_effect: shown(seen), call })
}

#[cfg(test)]
#[path = "compare/tests.rs"]
mod tests;
