//! The way of one search over the rates: bracket by the signs of single measurements, then repeat about the limit.

use std::collections::BTreeMap;

use super::crossing::{First, Fit, LEAST, first, turn};
use super::{Ask, Conclusion, Ended, Finding, LimitSpec, Outcome, RatePoint, Stop};
use crate::book::{Book, Verdict, looks, next_look};
use crate::constraint::{Constraint, Side};
use crate::figure::{Figure, Unit};
use crate::measured::Measured;
use crate::number::float;
use crate::replay::{Pause, Source};
use crate::statistics::{Interval, mean};

/// Probability that a target that does not drift is said to.
const DRIFT_ALPHA: f64 = 0.005;
/// How often a search begins anew because of drift.
const DRIFTS_MOST: usize = 2;
/// Repeats at a floor or ceiling that is near its bound.
const EDGE_REPEATS: usize = 8;
/// How many steps above a floor that fails are tried.
const STEPS_ABOVE: usize = 8;

/// A rate as a key: positive floats are ordered as their bits.
type Key = u64;

/// Searches; `Err` is the next question.
pub(super) fn run(spec: &LimitSpec, source: &mut impl Source<Ask>) -> Result<Outcome, Ask> {
    let mut walk = Walk::new(spec, source);
    let conclusion = match walk.search() {
        Ok(conclusion) => conclusion,
        Err(Pause::Need(ask)) => return Err(ask),
        Err(Pause::Spent) => walk.conclude(Ended::Budget),
        Err(Pause::GaveUp(reason)) => Conclusion::Abandoned { reason },
    };
    let points = walk.book.points().map(|key| RatePoint {
        rate: f64::from_bits(*key),
        repeats: walk.book.repeats(key),
        figures: walk.figures.iter().map(|f| (*f, f.scale().back(mean(walk.book.scaled(key, *f))))).collect(),
    });
    Ok(Outcome {
        conclusion,
        points: points.collect(),
        findings: walk.findings,
        measurements: walk.measurements,
        requests: walk.requests,
    })
}

/// One measurement since the last drift.
struct Taken {
    rate: f64,
    /// Slack of each constraint, and whether it is far from its bound.
    slack: Vec<(f64, bool)>,
}

impl Taken {
    /// Of the constraint that is furthest outside, or least inside.
    fn worst(&self) -> f64 {
        self.slack.iter().map(|(slack, _)| *slack).fold(f64::INFINITY, f64::min)
    }

    fn is_far_outside(&self) -> bool {
        self.slack.iter().any(|(slack, far)| *slack < 0.0 && *far)
    }

    fn is_far_inside(&self) -> bool {
        self.slack.iter().all(|(slack, far)| *slack > 0.0 && *far)
    }
}

struct Walk<'a, S> {
    spec: &'a LimitSpec,
    source: &'a mut S,
    figures: Vec<Figure>,
    /// Those that change with the rate, and those that do not.
    moving: Vec<Constraint>,
    fixed: Vec<Constraint>,
    book: Book<Key>,
    /// All measurements as if at one rate: for what does not depend on it.
    whole: Book<()>,
    taken: Vec<Taken>,
    findings: Vec<Finding>,
    measurements: usize,
    requests: u64,
    alpha: f64,
    /// Where the limit seems to be, as a logarithm.
    centre: f64,
}

impl<'a, S: Source<Ask>> Walk<'a, S> {
    fn new(spec: &'a LimitSpec, source: &'a mut S) -> Self {
        let mut figures: Vec<Figure> = spec.constraints.iter().map(Constraint::figure).collect();
        figures.sort_unstable();
        figures.dedup();
        let (moving, fixed) = spec.constraints.iter().copied().partition(|c| c.figure().depends_on_rate());
        let chances = looks(spec.budget) * spec.constraints.len();
        Self {
            spec,
            source,
            figures,
            moving,
            fixed,
            book: Book::new(|a, b| a == b),
            whole: Book::new(|(), ()| true),
            taken: Vec::new(),
            findings: Vec::new(),
            measurements: 0,
            requests: 0,
            alpha: (1.0 - spec.confidence) / 2.0 / float(chances.max(1)),
            centre: spec.start.ln(),
        }
    }

    fn measure(&mut self, rate: f64) -> Result<(), Stop> {
        if self.measurements >= self.spec.budget {
            return Err(Pause::Spent);
        }
        let key = rate.to_bits();
        let repeat = self.book.repeats(&key) + 1;
        let measured = self.source.answer(Ask { rate, repeat, figures: self.figures.clone() })?;
        self.measurements += 1;
        self.requests = self.requests.saturating_add(measured.requests);
        if let Some(figure) = self.figures.iter().find(|figure| !measured.figures.contains_key(figure)) {
            return Err(Pause::GaveUp(format!("the measurement at {rate}/s does not tell `{figure}`")));
        }
        self.book.enter(&key, &measured);
        self.whole.enter(&(), &measured);
        let slack = self.moving.iter().map(|constraint| slack_of(constraint, &measured)).collect();
        self.taken.push(Taken { rate, slack });
        Ok(())
    }

    /// Slack of the worst constraint by one measurement.
    fn probe(&mut self, rate: f64) -> Result<f64, Stop> {
        self.measure(rate)?;
        Ok(self.taken.last().map_or(0.0, Taken::worst))
    }

    /// Measures a rate until its constraints can be told, or often.
    fn judge(&mut self, rate: f64, constraints: &[Constraint]) -> Result<Verdict, Stop> {
        let key = rate.to_bits();
        loop {
            let repeats = self.book.repeats(&key);
            if repeats > 0 {
                let verdict = self.book.judge(&key, constraints, self.alpha);
                if !matches!(verdict, Verdict::Near(_)) || repeats >= EDGE_REPEATS {
                    return Ok(verdict);
                }
            }
            for _ in repeats..next_look(repeats).min(EDGE_REPEATS) {
                self.measure(rate)?;
            }
        }
    }

    fn search(&mut self) -> Result<Conclusion, Stop> {
        // What does not depend on the rate is told where a request costs least.
        let fixed = self.fixed.clone();
        let start = self.spec.start;
        let verdict = self.judge(start, &fixed)?;
        if let Verdict::Fail(i) = verdict
            && let Some(binding) = fixed.get(i)
        {
            return Ok(self.infeasible(*binding, start));
        }
        if self.moving.is_empty() {
            return Ok(match verdict {
                Verdict::Pass => Conclusion::AboveCeiling { ceiling: self.spec.ceiling },
                _ => Conclusion::Unknown { holds_at: None, fails_at: None },
            });
        }
        let (mut start, mut climb) = (start, self.spec.climb);
        for drifts in 0.. {
            if let Some(end) = self.bracket(start, climb)? {
                return Ok(end);
            }
            if drifts == 0 && self.spec.look_beyond {
                self.look_beyond()?;
            }
            self.bisect()?;
            let ended = self.refine()?;
            if let Verdict::Fail(i) = self.whole.judge(&(), &fixed, self.alpha)
                && let Some(binding) = fixed.get(i)
            {
                return Ok(self.infeasible(*binding, start));
            }
            if drifts >= DRIFTS_MOST || !(ended.is_none() || self.has_drifted()?) {
                self.widen()?;
                return Ok(self.conclude(ended.unwrap_or(Ended::Noise)));
            }
            self.taken.clear();
            self.book = Book::new(|a, b| a == b);
            (start, climb) = (self.centre.exp(), (1.0 + 4.0 * self.spec.width).min(self.spec.climb));
        }
        Ok(self.conclude(Ended::Noise))
    }

    /// The highest rate inside below the lowest one outside, by the signs of what was measured.
    fn bounds(&self) -> (Option<f64>, Option<f64>) {
        let mean_worst = self.means();
        let first_inside = mean_worst.iter().find(|(_, worst)| **worst >= 0.0).map(|(key, _)| *key);
        let outside = mean_worst.range(first_inside.unwrap_or(0)..).find(|(_, worst)| **worst < 0.0);
        let high = outside.map(|(key, _)| *key);
        let inside = mean_worst.range(..high.unwrap_or(Key::MAX)).rfind(|(_, worst)| **worst >= 0.0);
        (inside.map(|(key, _)| f64::from_bits(*key)), high.map(f64::from_bits))
    }

    /// Mean slack of the worst constraint by rate.
    fn means(&self) -> BTreeMap<Key, f64> {
        let mut by_rate: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
        for taken in &self.taken {
            by_rate.entry(taken.rate.to_bits()).or_default().push(taken.worst());
        }
        by_rate.into_iter().map(|(key, worst)| (key, mean(&worst))).collect()
    }

    /// Finds a rate inside and a higher one outside; or what follows where there are none.
    fn bracket(&mut self, start: f64, climb: f64) -> Result<Option<Conclusion>, Stop> {
        let LimitSpec { floor, ceiling, .. } = *self.spec;
        // After drift the first steps are small; the further the limit has gone, the larger they become.
        let grown = |factor: f64| (factor * factor).min(self.spec.climb);
        let (mut rate, mut factor) = (start, climb);
        if self.book.repeats(&start.to_bits()) == 0 {
            self.measure(start)?;
        }
        let moving = self.moving.clone();
        let mut from = start;
        while self.bounds().0.is_none() {
            if rate <= floor {
                match self.above_a_failing_floor(&moving)? {
                    Ok(passes_at) => from = passes_at,
                    Err(conclusion) => return Ok(Some(conclusion)),
                }
                break;
            }
            rate = (rate / factor).max(floor);
            factor = grown(factor);
            self.measure(rate)?;
        }
        (rate, factor) = (from, climb);
        while self.bounds().1.is_none() {
            if rate >= ceiling {
                match self.judge(ceiling, &moving)? {
                    Verdict::Pass => return Ok(Some(Conclusion::AboveCeiling { ceiling })),
                    Verdict::Fail(_) if self.bounds().1.is_some() => break,
                    _ => {
                        return Ok(Some(Conclusion::Unknown { holds_at: self.far_inside(), fails_at: None }));
                    }
                }
            }
            rate = (rate * factor).min(ceiling);
            factor = grown(factor);
            self.measure(rate)?;
        }
        Ok(None)
    }

    /// Nothing passes down to the floor: the first rate above that does, or what follows.
    fn above_a_failing_floor(&mut self, moving: &[Constraint]) -> Result<Result<f64, Conclusion>, Stop> {
        let LimitSpec { floor, ceiling, climb, .. } = *self.spec;
        let verdict = self.judge(floor, moving)?;
        if self.bounds().0.is_some() {
            return Ok(Ok(floor));
        }
        let mut rate = self.taken.iter().map(|t| t.rate).fold(floor, f64::max);
        let fails_at = rate;
        for _ in 0..STEPS_ABOVE {
            if rate >= ceiling || matches!(verdict, Verdict::Near(_)) {
                break;
            }
            rate = (rate * climb).min(ceiling);
            if self.probe(rate)? > 0.0 && self.judge(rate, moving)? == Verdict::Pass {
                self.findings.push(Finding::NonMonotone { fails_at, passes_at: rate });
                self.taken.retain(|t| t.rate >= rate);
                return Ok(Ok(rate));
            }
        }
        Ok(Err(match verdict {
            Verdict::Fail(i) if let Some(binding) = moving.get(i) => self.infeasible(*binding, floor),
            _ => Conclusion::Unknown { holds_at: None, fails_at: None },
        }))
    }

    fn infeasible(&self, binding: Constraint, rate: f64) -> Conclusion {
        let figure = binding.figure();
        let value = figure.scale().back(mean(self.book.scaled(&rate.to_bits(), figure)));
        Conclusion::Infeasible { binding, rate, value }
    }

    /// Whether the target passes again above the first rate that failed.
    fn look_beyond(&mut self) -> Result<(), Stop> {
        let (_, Some(high)) = self.bounds() else { return Ok(()) };
        let beyond = (high * self.spec.climb.sqrt()).min(self.spec.ceiling);
        if beyond <= high {
            return Ok(());
        }
        self.measure(beyond)?;
        let sure = |t: &Taken, at: f64| t.rate.to_bits() == at.to_bits();
        let failed = self.taken.iter().any(|t| sure(t, high) && t.is_far_outside());
        let passes = self.taken.iter().any(|t| sure(t, beyond) && t.is_far_inside());
        if failed && passes {
            self.findings.push(Finding::NonMonotone { fails_at: high, passes_at: beyond });
        }
        // The limit that is looked for is the one below.
        self.taken.pop();
        Ok(())
    }

    /// Halves the bracket by single measurements until repeats can be spread over what is left.
    fn bisect(&mut self) -> Result<(), Stop> {
        while let (Some(low), Some(high)) = self.bounds() {
            if high <= low * (1.0 + 4.0 * self.spec.width) {
                break;
            }
            self.measure((low * high).sqrt())?;
        }
        if let (Some(low), Some(high)) = self.bounds() {
            self.centre = (low * high).sqrt().ln();
        }
        Ok(())
    }

    /// The lowest rate that is far outside, above every one that was seen inside.
    fn far_outside(&self) -> Option<f64> {
        let inside = self.taken.iter().filter(|t| t.worst() >= 0.0).map(|t| t.rate).fold(0.0, f64::max);
        let outside = self.taken.iter().filter(|t| t.is_far_outside() && t.rate > inside);
        outside.map(|t| t.rate).reduce(f64::min)
    }

    /// The highest rate that is far inside, below every one that was seen outside.
    fn far_inside(&self) -> Option<f64> {
        let outside =
            self.taken.iter().filter(|t| t.worst() < 0.0).map(|t| t.rate).fold(f64::INFINITY, f64::min);
        let inside = self.taken.iter().filter(|t| t.is_far_inside() && t.rate < outside);
        inside.map(|t| t.rate).reduce(f64::max)
    }

    /// Lines of the constraints that matter within a distance of a rate (both as logarithms).
    fn fits(&self, middle: f64, distance: f64) -> Vec<(Constraint, Option<Fit>)> {
        let near: Vec<&Taken> =
            self.taken.iter().filter(|t| (t.rate.ln() - middle).abs() <= distance).collect();
        let mut fits = Vec::new();
        for (i, constraint) in self.moving.iter().enumerate() {
            let slack = |t: &&Taken| t.slack.get(i).copied().unwrap_or((0.0, false));
            if near.len() >= LEAST && near.iter().map(slack).all(|(slack, far)| slack > 0.0 && far) {
                continue;
            }
            let points: Vec<(f64, f64)> =
                near.iter().map(|t| (t.rate.ln(), straightened(constraint, slack(t).0))).collect();
            fits.push((*constraint, Fit::through(&points)));
        }
        fits
    }

    /// The crossing by what lies within a distance of a rate.
    fn found_near(&self, middle: f64, distance: f64) -> Option<First> {
        // The rest of what may go wrong is left for looking more than once.
        let confidence = 1.0 - (1.0 - self.spec.confidence) / 3.0;
        first(&self.fits(middle, distance), confidence)
    }

    /// The crossing by the measurements about the limit.
    fn found(&self) -> Option<First> {
        let width = self.spec.width.ln_1p();
        let mut found = self.found_near(self.centre, 4.0 * width)?;
        for _ in 0..3 {
            let Some(closer) = self.found_near(found.value, self.reach(found.deviation)) else { break };
            found = closer;
        }
        Some(found)
    }

    /// How far from the limit measurements count: the nearer the less noise there is, because a short line is straighter.
    fn reach(&self, deviation: f64) -> f64 {
        let width = self.spec.width.ln_1p();
        (5.0 * deviation).clamp(width / 2.0, 4.0 * width)
    }

    /// Measures about the limit, to both sides of it, until its interval is narrow or that was often enough; `None` when
    /// later measurements are off the earlier ones.
    fn refine(&mut self) -> Result<Option<Ended>, Stop> {
        let width = self.spec.width.ln_1p();
        let mut step = width;
        for round in 0..self.spec.repeats {
            if self.has_turned() {
                return Ok(None);
            }
            if let Some(found) = self.found() {
                if found.high - found.low <= width {
                    return Ok(Some(Ended::Narrow));
                }
                self.centre = found.value.clamp(self.centre - width, self.centre + width);
                step = (2.0 * found.deviation).clamp(width / 8.0, 2.0 * width);
            } else if round >= LEAST {
                step = 2.0 * width;
            }
            let rate = (self.centre + if round % 2 == 0 { -step } else { step }).exp();
            self.measure(readable(rate).clamp(self.spec.floor, self.spec.ceiling))?;
        }
        Ok(Some(Ended::Noise))
    }

    /// Where no line can be told from noise: sees to it that a rate is known that is far inside, and one far outside.
    fn widen(&mut self) -> Result<(), Stop> {
        let step = self.spec.climb.sqrt();
        let mut rate = self.centre.exp();
        while self.found().is_none() && self.far_outside().is_none() && rate < self.spec.ceiling {
            rate = (rate * step).min(self.spec.ceiling);
            self.measure(rate)?;
        }
        rate = self.centre.exp();
        while self.found().is_none() && self.far_inside().is_none() && rate > self.spec.floor {
            rate = (rate / step).max(self.spec.floor);
            self.measure(rate)?;
        }
        Ok(())
    }

    /// Whether later measurements about the limit are off the earlier ones.
    fn has_turned(&mut self) -> bool {
        let width = self.spec.width.ln_1p();
        let alpha = DRIFT_ALPHA / float(self.spec.repeats * self.moving.len().max(1));
        for (i, constraint) in self.moving.clone().iter().enumerate() {
            let near = self.taken.iter().filter(|t| (t.rate.ln() - self.centre).abs() <= 4.0 * width);
            let slack = |t: &Taken| t.slack.get(i).map_or(0.0, |(slack, _)| straightened(constraint, *slack));
            let points: Vec<(f64, f64)> = near.map(|t| (t.rate.ln(), slack(t))).collect();
            if let Some((before, after)) = turn(&points, alpha) {
                let (figure, rate) = (constraint.figure(), self.centre.exp());
                let shown = |y: f64| figure.scale().back(constraint.at_slack(bent(constraint, y)));
                self.findings.push(Finding::Drift {
                    rate,
                    figure,
                    before: shown(before),
                    after: shown(after),
                });
                return true;
            }
        }
        false
    }

    /// Measures the lower end once more and compares that with the line.
    fn has_drifted(&mut self) -> Result<bool, Stop> {
        let Some(found) = self.found() else { return Ok(false) };
        let fits = self.fits(found.value, self.reach(found.deviation));
        let rate = readable(found.low.exp()).clamp(self.spec.floor, self.spec.ceiling);
        match self.measure(rate) {
            // What was found stands, unconfirmed.
            Err(Pause::Spent) => return Ok(false),
            other => other?,
        }
        let alpha = DRIFT_ALPHA / float(fits.len().max(1));
        let mut drifted = false;
        for (constraint, fit) in &fits {
            let figure = constraint.figure();
            let Some(after) = self.book.scaled(&rate.to_bits(), figure).last().copied() else { continue };
            let slack = straightened(constraint, constraint.slack(after));
            if let Some(expected) = fit.and_then(|fit| fit.is_off(rate.ln(), slack, alpha)) {
                let scale = figure.scale();
                let before = scale.back(constraint.at_slack(bent(constraint, expected)));
                self.findings.push(Finding::Drift { rate, figure, before, after: scale.back(after) });
                drifted = true;
            }
        }
        Ok(drifted)
    }

    /// What follows from all that was measured.
    fn conclude(&self, ended: Ended) -> Conclusion {
        let (holds_at, fails_at) = (self.far_inside(), self.far_outside());
        let found = self.found().map(|f| ((f.value, f.low, f.high), f.binding));
        let Some(((value, low, high), binding)) = found.or_else(|| self.far_apart()) else {
            return Conclusion::Unknown { holds_at, fails_at };
        };
        let unsure = |c: &Constraint| self.whole.judge_one(&(), c, self.alpha).is_none();
        Conclusion::Limit {
            rate: Interval { value: value.exp(), low: low.exp(), high: high.exp() },
            confidence: self.spec.confidence,
            binding,
            ended,
            unsure: self.fixed.iter().copied().filter(unsure).collect(),
        }
    }

    /// Where no line can be told from noise: from the last rate that is far inside to the first that is far outside.
    fn far_apart(&self) -> Option<((f64, f64, f64), Constraint)> {
        let (low, high) = (self.far_inside()?.ln(), self.far_outside()?.ln());
        let outside = self.taken.iter().find(|t| t.rate.ln().to_bits() == high.to_bits())?;
        let worst = |a: &(&Constraint, f64), b: &(&Constraint, f64)| a.1.total_cmp(&b.1);
        let slacks = self.moving.iter().zip(outside.slack.iter().map(|(slack, _)| *slack));
        let (binding, _) = slacks.min_by(worst)?;
        Some(((self.centre.clamp(low, high), low, high), *binding))
    }
}

/// Slack of a constraint by one measurement, and whether it is far from its bound.
fn slack_of(constraint: &Constraint, measured: &Measured) -> (f64, bool) {
    let figure = constraint.figure();
    let reading = measured.figures.get(&figure);
    let scaled = figure.scale().of(reading.map_or(0.0, |r| r.value));
    let slack = constraint.slack(scaled);
    match reading {
        // At least so much: no less than outside, and how far is not known.
        Some(reading) if reading.at_least && constraint.side() == Side::AtMost => {
            (slack.min(-1e-9), slack < 0.0)
        }
        _ => (slack, constraint.is_far(scaled)),
    }
}

/// Slack on a scale on which it falls in a straight line with the rate.
///
/// The reciprocal of a queue's latency does: it is the share of the capacity that is idle (of M/M/1 exactly so, of others
/// the more so the higher the load: Kingman 1961).
fn straightened(constraint: &Constraint, slack: f64) -> f64 {
    if is_latency(constraint) { slack.exp_m1() } else { slack }
}

/// The inverse of [`straightened`].
fn bent(constraint: &Constraint, straight: f64) -> f64 {
    if is_latency(constraint) { straight.max(-0.999).ln_1p() } else { straight }
}

fn is_latency(constraint: &Constraint) -> bool {
    constraint.figure().unit() == Unit::Time && constraint.side() == Side::AtMost
}

/// To three significant digits: a rate that a person can type.
fn readable(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.log10().floor() - 2.0);
    (rate / unit).round() * unit
}
