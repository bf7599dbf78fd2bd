//! The way of a search for throughput: every measurement passes through here, to whoever answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Ask, Effort, Offered, Outcome};
use crate::book::REPEATS_TO_TELL;
use crate::constraint::Constraint;
use crate::curve::{CurvePoint, Knee, knee};
use crate::figure::{Figure, Scale};
use crate::limit::{self, Conclusion, LimitSpec};
use crate::measured::{Measured, Reading};
use crate::number::float;
use crate::replay::{Pause, Source};
use crate::statistics::{Estimate, Interval, mean, squares};
use crate::tune::{self, Setting};

/// The floor is this share of the capacity of the slowest setting that was probed: hardly any queue.
const FLOOR_SHARE: f64 = 0.1;
/// Where the climb to a limit begins, as a share of the capacity.
const START_SHARE: f64 = 0.5;
/// How far above its capacity a setting is tried at first.
const CEILING_SHARE: f64 = 1.6;
/// How often the ceiling is raised where everything holds there.
const RAISES: usize = 3;
/// About a limit that is known, where it is looked for again.
const AGAIN: f64 = 1.3;

/// What one setting carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// What was set.
    pub setting: Setting,
    /// What follows.
    pub limit: limit::Outcome,
}

impl Carried {
    /// The rate that it carries, with its interval; a rate at which everything still holds is the lowest it can be.
    #[must_use]
    pub fn rate(&self) -> Option<Interval> {
        match self.limit.conclusion {
            Conclusion::Limit { rate, .. } => Some(rate),
            Conclusion::AboveCeiling { ceiling } => {
                Some(Interval { value: ceiling, low: ceiling, high: f64::MAX })
            }
            _ => None,
        }
    }
}

/// Everything that was measured of a setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What was set.
    pub setting: Setting,
    /// What it takes in a closed loop, per second; absent where that was not probed.
    pub capacity: Option<f64>,
    /// Open-loop rates, in order.
    pub rates: Vec<CurveRate>,
    /// Where throughput over the median of response time is greatest.
    pub knee: Knee,
    /// Mean of recall over all measurements, with its 95 % interval; absent where it was not told.
    pub recall: Option<Interval>,
}

/// One rate of a setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurveRate {
    /// Offered, per second.
    pub rate: f64,
    /// Measurements.
    pub repeats: usize,
    /// Means of the figures in their base units (geometric for rates, times, sizes).
    pub figures: BTreeMap<Figure, f64>,
    /// Figures of which a reading was only a lower bound.
    pub at_least: Vec<Figure>,
}

/// One answer.
struct Taken {
    setting: Setting,
    offered: Offered,
    measured: Measured,
}

/// Where a search is.
pub(crate) struct Course<'a, S> {
    source: &'a mut S,
    constraints: Vec<Constraint>,
    effort: &'a Effort,
    taken: Vec<Taken>,
    limits: Vec<Carried>,
    floor: Option<f64>,
    /// The question that stopped a search inside this one.
    need: Option<Ask>,
}

impl<'a, S: Source<Ask>> Course<'a, S> {
    pub(crate) fn new(source: &'a mut S, constraints: Vec<Constraint>, effort: &'a Effort) -> Self {
        let floor = effort.rates.map(|(floor, _)| floor);
        Self { source, constraints, effort, taken: Vec::new(), limits: Vec::new(), floor, need: None }
    }

    pub(crate) fn taken_need(&mut self) -> Pause<Ask> {
        match self.need.take() {
            Some(ask) => Pause::Need(ask),
            None => Pause::GaveUp(String::from("a search stopped without a question")),
        }
    }

    pub(crate) fn outcome(self, settings: Result<Option<tune::Outcome>, Pause<Ask>>) -> Result<Outcome, Ask> {
        let settings = match settings {
            Ok(settings) => settings,
            Err(Pause::Need(ask)) => return Err(ask),
            Err(Pause::Spent) => None,
            Err(Pause::GaveUp(reason)) => Some(tune::Outcome {
                conclusion: tune::Conclusion::Abandoned { reason },
                findings: Vec::new(),
                candidates: Vec::new(),
                is_cut_short: false,
                measurements: 0,
                requests: 0,
            }),
        };
        let (measurements, requests) = self.spent();
        Ok(Outcome { settings, curves: self.curves(), measurements, requests, limits: self.limits })
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures: Vec<Figure> = self.constraints.iter().map(Constraint::figure).collect();
        figures.sort_unstable();
        figures.dedup();
        figures
    }

    pub(crate) fn measure(
        &mut self,
        setting: &Setting,
        offered: Offered,
        figures: Vec<Figure>,
    ) -> Result<Measured, Pause<Ask>> {
        let ask = Ask { setting: setting.clone(), offered, figures };
        let measured = self.source.answer(ask)?;
        self.taken.push(Taken { setting: setting.clone(), offered, measured: measured.clone() });
        Ok(measured)
    }

    /// What a setting takes in a closed loop; measured once.
    fn capacity(&mut self, setting: &Setting) -> Result<f64, Pause<Ask>> {
        if let Some(known) = self.probed(setting) {
            return Ok(known);
        }
        let measured = self.measure(setting, Offered::FlatOut, vec![Figure::Qps])?;
        match measured.figures.get(&Figure::Qps).map(|r| r.value) {
            Some(qps) if qps > 0.0 => Ok(qps),
            _ => Err(Pause::GaveUp(format!("the target answers nothing at {setting} in a closed loop"))),
        }
    }

    fn probed(&self, setting: &Setting) -> Option<f64> {
        let closed = |t: &&Taken| t.setting == *setting && t.offered == Offered::FlatOut;
        let taken = self.taken.iter().find(closed)?;
        taken.measured.figures.get(&Figure::Qps).map(|r| r.value)
    }

    /// Fixes the floor by the slowest of these settings, unless it is given.
    pub(crate) fn floor_of(&mut self, settings: &[Setting]) -> Result<(), Pause<Ask>> {
        if self.floor.is_some() {
            return Ok(());
        }
        let mut slowest = f64::INFINITY;
        for setting in settings {
            slowest = slowest.min(self.capacity(setting)?);
        }
        self.floor = Some(slowest * FLOOR_SHARE);
        Ok(())
    }

    /// The limit of the only setting there is.
    pub(crate) fn only(&mut self, setting: &Setting) -> Result<(), Pause<Ask>> {
        self.floor_of(std::slice::from_ref(setting))?;
        let constraints = self.constraints.clone();
        self.limit(setting, &constraints).map(drop)
    }

    /// The highest rate of a setting at which these hold.
    pub(crate) fn limit(
        &mut self,
        setting: &Setting,
        constraints: &[Constraint],
    ) -> Result<Carried, Pause<Ask>> {
        let known = self.limits.iter().rev().find(|c| c.setting == *setting).and_then(Carried::rate);
        let (floor, start, mut ceiling) = match (self.effort.rates, known) {
            (Some((floor, ceiling)), None) => (floor, floor, ceiling),
            (Some((floor, ceiling)), Some(known)) => (floor, known.value.clamp(floor, ceiling), ceiling),
            (None, known) => {
                let capacity = self.capacity(setting)?;
                let floor = self.floor.unwrap_or(capacity * FLOOR_SHARE).min(capacity * FLOOR_SHARE);
                let start = known.map_or(capacity * START_SHARE, |known| known.value).max(floor);
                (floor, start, (capacity * CEILING_SHARE).max(start))
            }
        };
        let climb = if known.is_some() { AGAIN } else { 2.0 };
        let mut raises = 0;
        loop {
            let mut spec = LimitSpec::new(constraints.to_vec(), floor, ceiling);
            spec.start = if raises == 0 { start } else { ceiling / 2.0 };
            spec.climb = climb;
            spec.width = self.effort.width;
            spec.repeats = self.effort.repeats;
            // A repeated search has seen the rates above.
            spec.look_beyond = known.is_none();
            let limit =
                limit::run(&spec, &mut Rates { course: self, setting }).map_err(|_| self.taken_need())?;
            let is_above = matches!(limit.conclusion, Conclusion::AboveCeiling { .. });
            if is_above && self.effort.rates.is_none() && raises < RAISES {
                raises += 1;
                ceiling *= 2.0;
                continue;
            }
            let carried = Carried { setting: setting.clone(), limit };
            self.limits.push(carried.clone());
            return Ok(carried);
        }
    }

    /// Measurements, and requests that they took.
    pub(crate) fn spent(&self) -> (usize, u64) {
        (self.taken.len(), self.taken.iter().map(|t| t.measured.requests).sum())
    }

    /// All that was measured, by setting in the order in which they were first met.
    pub(crate) fn curves(&self) -> Vec<Curve> {
        let mut settings: Vec<&Setting> = Vec::new();
        for taken in &self.taken {
            if !settings.contains(&&taken.setting) {
                settings.push(&taken.setting);
            }
        }
        settings.into_iter().map(|setting| self.curve(setting)).collect()
    }

    pub(crate) fn curve(&self, setting: &Setting) -> Curve {
        let mut by_rate: BTreeMap<u64, Vec<&Measured>> = BTreeMap::new();
        let mut recalls = Vec::new();
        for taken in self.taken.iter().filter(|t| t.setting == *setting) {
            recalls.extend(taken.measured.figures.get(&Figure::Recall));
            if let Offered::Rate(rate) = taken.offered {
                by_rate.entry(rate.to_bits()).or_default().push(&taken.measured);
            }
        }
        let rates: Vec<CurveRate> =
            by_rate.iter().map(|(bits, all)| rate_of(f64::from_bits(*bits), all)).collect();
        let error = power_error(&by_rate);
        let point = |rate: &CurveRate| {
            Some(CurvePoint {
                throughput: *rate.figures.get(&Figure::Qps)?,
                response_ns: *rate.figures.get(&Figure::P50)?,
                error: error / float(rate.repeats).sqrt(),
            })
        };
        let points: Vec<CurvePoint> = rates.iter().filter_map(point).collect();
        Curve {
            setting: setting.clone(),
            capacity: self.probed(setting),
            knee: knee(&points),
            rates,
            recall: recall_of(&recalls),
        }
    }
}

/// Means at one rate.
fn rate_of(rate: f64, all: &[&Measured]) -> CurveRate {
    let mut scaled: BTreeMap<Figure, Vec<f64>> = BTreeMap::new();
    let mut at_least: Vec<Figure> = Vec::new();
    for (figure, reading) in all.iter().flat_map(|m| &m.figures) {
        scaled.entry(*figure).or_default().push(figure.scale().of(reading.value));
        if reading.at_least && !at_least.contains(figure) {
            at_least.push(*figure);
        }
    }
    let figures = scaled.iter().map(|(figure, values)| (*figure, figure.scale().back(mean(values))));
    CurveRate { rate, repeats: all.len(), figures: figures.collect(), at_least }
}

/// Relative deviation of one measurement's throughput over response time, pooled over the rates that were repeated.
fn power_error(by_rate: &BTreeMap<u64, Vec<&Measured>>) -> f64 {
    let (mut sum, mut freedom) = (0.0, 0.0);
    for all in by_rate.values().filter(|all| all.len() > 1) {
        let power = |m: &&Measured| {
            let of = |figure: Figure| m.figures.get(&figure).map(|r| Scale::Log.of(r.value));
            Some(of(Figure::Qps)? - of(Figure::P50)?)
        };
        let powers: Vec<f64> = all.iter().filter_map(power).collect();
        if powers.len() > 1 {
            sum += squares(&powers);
            freedom += float(powers.len() - 1);
        }
    }
    if freedom > 0.0 { (sum / freedom).sqrt() } else { 0.0 }
}

/// Mean of recall with the larger of the noise between repeats and the error of each.
fn recall_of(readings: &[&Reading]) -> Option<Interval> {
    let values: Vec<f64> = readings.iter().map(|r| r.value).collect();
    if values.is_empty() {
        return None;
    }
    let value = mean(&values);
    let own = readings.iter().filter_map(|r| r.error).fold(0.0, f64::max) * 1.96;
    let between = Estimate::of(&values)
        .filter(|_| values.len() >= REPEATS_TO_TELL)
        .map_or(0.0, |estimate| estimate.margin(0.95));
    let half = own.max(between);
    Some(Interval { value, low: (value - half).max(0.0), high: (value + half).min(1.0) })
}

/// The questions of a search over rates, at one setting.
struct Rates<'c, 'a, S> {
    course: &'c mut Course<'a, S>,
    setting: &'c Setting,
}

impl<S: Source<Ask>> Source<limit::Ask> for Rates<'_, '_, S> {
    fn answer(&mut self, ask: limit::Ask) -> Result<Measured, Pause<limit::Ask>> {
        let asked = self.course.measure(self.setting, Offered::Rate(ask.rate), ask.figures.clone());
        asked.map_err(|pause| self.course.stopped(pause, ask))
    }
}

impl<S: Source<Ask>> Course<'_, S> {
    /// A pause as the search inside knows it; what has to be measured is kept here.
    fn stopped<A>(&mut self, pause: Pause<Ask>, ask: A) -> Pause<A> {
        match pause {
            Pause::Need(need) => {
                self.need = Some(need);
                Pause::Need(ask)
            }
            Pause::Spent => Pause::Spent,
            Pause::GaveUp(reason) => Pause::GaveUp(reason),
        }
    }

    /// A setting at the floor, and what it carries where that is asked for.
    fn answer_setting(&mut self, ask: &tune::Ask) -> Result<Measured, Pause<Ask>> {
        let floor = match self.floor {
            Some(floor) => floor,
            None => self.capacity(&ask.setting)? * FLOOR_SHARE,
        };
        let figures = self.figures();
        let before = self.taken.len();
        let mut measured = self.measure(&ask.setting, Offered::Rate(floor), figures)?;
        if !ask.figures.contains(&Figure::Qps) {
            return Ok(measured);
        }
        let moving: Vec<Constraint> =
            self.constraints.iter().copied().filter(|c| c.figure().depends_on_rate()).collect();
        let carried = self.limit(&ask.setting, &moving)?;
        let reading = match carried.limit.conclusion {
            Conclusion::Limit { rate, .. } => Reading::with_error(rate.value, (rate.high - rate.low) / 4.0),
            Conclusion::AboveCeiling { ceiling } => Reading::at_least(ceiling),
            // At the floor everything held, or nobody would ask what it carries.
            Conclusion::Infeasible { rate, .. } => Reading::of(rate),
            Conclusion::Unknown { holds_at, .. } => Reading::of(holds_at.unwrap_or(floor)),
            Conclusion::Abandoned { reason } => return Err(Pause::GaveUp(reason)),
        };
        measured.requests = self.taken.iter().skip(before).map(|t| t.measured.requests).sum();
        Ok(measured.with(Figure::Qps, reading))
    }
}

impl<S: Source<Ask>> Source<tune::Ask> for Course<'_, S> {
    fn answer(&mut self, ask: tune::Ask) -> Result<Measured, Pause<tune::Ask>> {
        let answered = self.answer_setting(&ask);
        answered.map_err(|pause| self.stopped(pause, ask))
    }
}
