//! The way of one search over the settings.

mod line;
mod race;

use std::cmp::Ordering;

use super::{Ask, Candidate, Conclusion, Finding, Outcome, Setting, Shape, Stop, TuneSpec};
use crate::book::{Book, Verdict, looks, next_look};
use crate::constraint::Constraint;
use crate::figure::Figure;
use crate::measured::{Measured, Reading};
use crate::number::float;
use crate::replay::{Pause, Source};
use crate::statistics::{Estimate, Interval, mean};

/// A setting: the position of each parameter.
type At = Vec<i64>;

/// Searches; `Err` is the next question.
pub(super) fn run(spec: &TuneSpec, source: &mut impl Source<Ask>) -> Result<Outcome, Ask> {
    let mut walk = Walk::new(spec, source);
    let mut is_cut_short = false;
    let conclusion = match walk.search() {
        Ok(conclusion) => conclusion,
        Err(Pause::Need(ask)) => return Err(ask),
        Err(Pause::Spent) => {
            is_cut_short = true;
            walk.conclude()
        }
        Err(Pause::GaveUp(reason)) => Conclusion::Abandoned { reason },
    };
    let unsure: Vec<Setting> = walk.unsure();
    let mut findings = walk.findings.clone();
    findings.extend(walk.few_queries(&conclusion));
    if !unsure.is_empty() {
        findings.push(Finding::Unsure { settings: unsure });
    }
    Ok(Outcome {
        conclusion,
        findings,
        candidates: walk.book.points().map(|at| walk.candidate(at)).collect(),
        is_cut_short,
        measurements: walk.measurements,
        requests: walk.requests,
    })
}

struct Walk<'a, S> {
    spec: &'a TuneSpec,
    source: &'a mut S,
    book: Book<At>,
    findings: Vec<Finding>,
    /// Constraints that were seen to shut out each other along a parameter.
    opposed: Vec<Constraint>,
    /// Which way the objective goes with each parameter, where that was told or tested: 1 better when higher, -1 when
    /// lower.
    better: Vec<Option<f64>>,
    measurements: usize,
    requests: u64,
    /// Probability of one wrong call.
    alpha: f64,
    bounded: Vec<Figure>,
}

impl<'a, S: Source<Ask>> Walk<'a, S> {
    fn new(spec: &'a TuneSpec, source: &'a mut S) -> Self {
        let mut bounded: Vec<Figure> = spec.constraints.iter().map(Constraint::figure).collect();
        bounded.sort_unstable();
        bounded.dedup();
        // Calls that can go wrong: settings near an edge or near the best, a few per parameter, at each look.
        let chances = looks(spec.repeats) * 4 * spec.parameters.len();
        let alpha = (1.0 - spec.confidence) / float(chances.max(1));
        Self {
            spec,
            source,
            book: Book::new(|_, _| true),
            findings: Vec::new(),
            opposed: Vec::new(),
            better: vec![None; spec.parameters.len()],
            measurements: 0,
            requests: 0,
            alpha,
            bounded,
        }
    }

    fn setting(&self, at: &At) -> Setting {
        let named = self.spec.parameters.iter().zip(at).map(|(p, i)| (p.path.clone(), p.value(*i)));
        Setting(named.collect())
    }

    fn measure(&mut self, at: &At, with_objective: bool) -> Result<(), Stop> {
        if self.measurements >= self.spec.budget {
            return Err(Pause::Spent);
        }
        let mut figures = self.bounded.clone();
        let objective = self.spec.objective.figure();
        if (with_objective || figures.is_empty()) && !figures.contains(&objective) {
            figures.push(objective);
        }
        let (setting, repeat) = (self.setting(at), self.book.repeats(at) + 1);
        let measured = self.source.answer(Ask { setting, repeat, figures: figures.clone() })?;
        self.measurements += 1;
        self.requests = self.requests.saturating_add(measured.requests);
        // What was not asked for may come from a measurement that was too cheap to tell it.
        let asked =
            |(figure, reading): (&Figure, &Reading)| figures.contains(figure).then_some((*figure, *reading));
        let told = Measured { figures: measured.figures.iter().filter_map(asked).collect(), requests: 0 };
        self.book.enter(at, &told);
        match figures.iter().find(|figure| !measured.figures.contains_key(figure)) {
            Some(figure) => Err(Pause::GaveUp(format!(
                "the measurement of {} does not tell `{figure}`",
                self.setting(at)
            ))),
            None => Ok(()),
        }
    }

    /// Measures a setting until its constraints can be told, or as often as is allowed.
    fn judge(&mut self, at: &At, with_objective: bool) -> Result<Verdict, Stop> {
        loop {
            let repeats = self.book.repeats(at);
            if repeats > 0 {
                let verdict = self.verdict(at);
                if !matches!(verdict, Verdict::Near(_)) || repeats >= self.spec.repeats {
                    return Ok(verdict);
                }
            }
            for _ in repeats..next_look(repeats).min(self.spec.repeats) {
                self.measure(at, with_objective)?;
            }
        }
    }

    fn verdict(&self, at: &At) -> Verdict {
        self.book.judge(at, &self.spec.constraints, self.alpha)
    }

    /// Sees to it that the objective was measured at least so often at a setting.
    fn measure_objective(&mut self, at: &At, times: usize) -> Result<(), Stop> {
        while self.book.scaled(at, self.spec.objective.figure()).len() < times {
            self.measure(at, true)?;
        }
        Ok(())
    }

    fn search(&mut self) -> Result<Conclusion, Stop> {
        let spec = self.spec;
        let mut best: At = spec.parameters.iter().map(|p| p.between(0, p.last())).collect();
        for _ in 0..spec.cycles.max(1) {
            let before = best.clone();
            for parameter in 0..spec.parameters.len() {
                best = self.along(best, parameter)?;
            }
            if spec.parameters.len() == 1 || best == before {
                break;
            }
        }
        self.judge(&best, true)?;
        // More repeats may show that the edge does not hold after all: then the next one that does is looked at.
        loop {
            while let Some(at) = self.unmeasured() {
                self.measure_objective(&at, 3)?;
            }
            self.settle()?;
            if self.unmeasured().is_none() {
                return Ok(self.conclude());
            }
        }
    }

    /// A setting that keeps all constraints, is not known to be worse than another, and whose objective is not known.
    fn unmeasured(&self) -> Option<At> {
        let objective = self.spec.objective.figure();
        let passing: Vec<&At> = self.book.points().filter(|at| self.verdict(at) == Verdict::Pass).collect();
        let wanted = |at: &&&At| {
            self.book.scaled(at, objective).is_empty() && !passing.iter().any(|b| self.is_known_worse(at, b))
        };
        passing.iter().find(wanted).map(|at| (*at).clone())
    }

    /// The best setting along one parameter.
    fn along(&mut self, at: At, parameter: usize) -> Result<At, Stop> {
        let Some(known) = self.spec.parameters.get(parameter) else { return Ok(at) };
        if known.last() == 0 {
            return Ok(at);
        }
        match known.shape {
            Shape::Rising => self.along_edge(at, parameter, 1.0),
            Shape::Falling => self.along_edge(at, parameter, -1.0),
            Shape::Any => self.along_race(at, parameter),
            Shape::Test => match self.direction(&at, parameter)? {
                Some(direction) => self.along_edge(at, parameter, direction),
                None => self.along_race(at, parameter),
            },
        }
    }

    /// Repeats the best and whoever may still be as good, until the noise tells or repeats run out.
    fn settle(&mut self) -> Result<(), Stop> {
        while let Some(best) = self.leader() {
            let is_open = |at: &At| self.book.repeats(at) < self.spec.repeats;
            // One whose constraints could not be told when little was known of the noise.
            let near =
                |at: &At| matches!(self.verdict(at), Verdict::Near(_)) && !self.is_known_worse(at, &best);
            let unsure = self.book.points().find(|at| is_open(at) && near(at)).cloned();
            if let Some(unsure) = unsure {
                self.measure(&unsure, true)?;
                continue;
            }
            let mut open = self.rivals(&best);
            open.retain(|at| self.book.repeats(at) < self.spec.repeats);
            let Some(rival) = open.into_iter().min_by(|a, b| self.rank(a, b)) else { break };
            if self.book.repeats(&best) < self.spec.repeats {
                self.measure(&best, true)?;
            }
            self.measure(&rival, true)?;
        }
        Ok(())
    }

    /// Whether the objective of one cannot be better than that of another: it differs only in parameters along which
    /// the objective goes one way, and to the worse side.
    fn is_known_worse(&self, at: &At, than: &At) -> bool {
        let to_worse = |((a, b), better): ((&i64, &i64), &Option<f64>)| match (a.cmp(b), better) {
            (Ordering::Equal, _) => true,
            (Ordering::Less, Some(better)) => *better > 0.0,
            (Ordering::Greater, Some(better)) => *better < 0.0,
            (_, None) => false,
        };
        at != than && at.iter().zip(than).zip(&self.better).all(to_worse)
    }

    /// Settings that keep all constraints and whose objective was measured, without those that are known to be worse.
    fn feasible(&self) -> Vec<At> {
        let objective = self.spec.objective.figure();
        let known =
            |at: &&At| !self.book.scaled(at, objective).is_empty() && self.verdict(at) == Verdict::Pass;
        let all: Vec<&At> = self.book.points().filter(known).collect();
        let best = |at: &&&At| !all.iter().any(|other| self.is_known_worse(at, other));
        all.iter().filter(best).map(|at| (*at).clone()).collect()
    }

    /// Mean of the objective on its scale, so that more is better.
    fn gain(&self, at: &At) -> f64 {
        self.spec.objective.sign() * mean(self.book.scaled(at, self.spec.objective.figure()))
    }

    /// The one with the best mean.
    fn leader(&self) -> Option<At> {
        self.feasible().into_iter().max_by(|a, b| self.gain(a).total_cmp(&self.gain(b)))
    }

    /// Those that the leader does not beat beyond the noise.
    fn rivals(&self, best: &At) -> Vec<At> {
        self.feasible().into_iter().filter(|at| at != best && !self.beats(best, at)).collect()
    }

    /// Whether the objective of one is better than that of another, beyond the noise.
    fn beats(&self, a: &At, b: &At) -> bool {
        let figure = self.spec.objective.figure();
        let (Some(x), Some(y)) = (self.estimate(a, figure), self.estimate(b, figure)) else { return false };
        let by = x.minus(&y);
        Estimate { mean: by.mean * self.spec.objective.sign(), ..by }.is_above_zero(self.alpha)
    }

    fn estimate(&self, at: &At, figure: Figure) -> Option<Estimate> {
        self.book.estimate(at, figure)
    }

    /// How badly constraints are broken, all together.
    fn violation(&self, at: &At) -> f64 {
        let one = |c: &Constraint| c.violation(mean(self.book.scaled(at, c.figure())));
        self.spec.constraints.iter().map(one).sum()
    }

    /// Better first: what keeps the constraints before what does not, then by objective or by violation (Deb 2000).
    fn rank(&self, a: &At, b: &At) -> Ordering {
        let (pass_a, pass_b) = (self.verdict(a) == Verdict::Pass, self.verdict(b) == Verdict::Pass);
        match (pass_a, pass_b) {
            (true, true) => self.gain(b).total_cmp(&self.gain(a)),
            (false, false) => self.violation(a).total_cmp(&self.violation(b)),
            (a, b) => b.cmp(&a),
        }
    }

    fn unsure(&self) -> Vec<Setting> {
        let near = |at: &&At| matches!(self.verdict(at), Verdict::Near(_));
        self.book.points().filter(near).map(|at| self.setting(at)).collect()
    }

    fn candidate(&self, at: &At) -> Candidate {
        let mut figures = self.bounded.clone();
        figures.push(self.spec.objective.figure());
        let known = |f: &Figure| {
            let values = self.book.scaled(at, *f);
            (!values.is_empty()).then(|| (*f, f.scale().back(mean(values))))
        };
        Candidate {
            setting: self.setting(at),
            repeats: self.book.repeats(at),
            holds: match self.verdict(at) {
                Verdict::Pass => Some(true),
                Verdict::Fail(_) => Some(false),
                Verdict::Near(_) => None,
            },
            intervals: figures.iter().filter_map(|f| Some((*f, self.sampled(at, *f)?))).collect(),
            figures: figures.iter().filter_map(known).collect(),
        }
    }

    /// What the queries that were asked leave open of a figure.
    fn sampled(&self, at: &At, figure: Figure) -> Option<Interval> {
        if !figure.is_of_fixed_sample() {
            return None;
        }
        self.book.declared_interval(at, figure, self.spec.confidence)
    }

    /// Constraints that the best keep on the queries that were asked, but might not on others.
    fn few_queries(&self, conclusion: &Conclusion) -> Vec<Finding> {
        let best = match conclusion {
            Conclusion::Winner { setting, .. } => std::slice::from_ref(setting),
            Conclusion::Tie { settings, .. } => settings.as_slice(),
            _ => &[],
        };
        let open = |c: &Constraint, at: &At| {
            let slack = |x: f64| c.slack(c.figure().scale().of(x));
            self.sampled(at, c.figure()).is_some_and(|i| slack(i.low).min(slack(i.high)) < 0.0)
        };
        let finding = |c: &Constraint| {
            let at = self.book.points().filter(|at| open(c, at)).map(|at| self.setting(at));
            let settings: Vec<Setting> = at.filter(|setting| best.contains(setting)).collect();
            (!settings.is_empty()).then_some(Finding::FewQueries { constraint: *c, settings })
        };
        self.spec.constraints.iter().filter_map(finding).collect()
    }

    /// What follows from all that was measured.
    fn conclude(&self) -> Conclusion {
        let Some(best) = self.leader() else { return self.without_best() };
        let figure = self.spec.objective.figure();
        let confidence = self.spec.confidence;
        let center = mean(self.book.scaled(&best, figure));
        // Before its noise is known a value may be anything.
        let margin = self.estimate(&best, figure).map_or(f64::MAX.ln(), |e| e.margin(confidence));
        let back = |scaled: f64| figure.scale().back(scaled);
        let value = Interval { value: back(center), low: back(center - margin), high: back(center + margin) };
        let mut rivals = self.rivals(&best);
        rivals.sort_by(|a, b| self.rank(a, b));
        if rivals.is_empty() {
            return Conclusion::Winner { setting: self.setting(&best), value, confidence };
        }
        let settings = std::iter::once(&best).chain(&rivals).map(|at| self.setting(at)).collect();
        Conclusion::Tie { settings, value, confidence }
    }

    /// Nothing is known to keep all constraints and to have an objective: because all breaks, or because that is open.
    fn without_best(&self) -> Conclusion {
        let closest_of = |may: &dyn Fn(Verdict) -> bool| {
            let points = self.book.points().filter(|at| may(self.verdict(at)));
            points.min_by(|a, b| self.violation(a).total_cmp(&self.violation(b)))
        };
        let open =
            closest_of(&|v| v == Verdict::Pass).or_else(|| closest_of(&|v| matches!(v, Verdict::Near(_))));
        if let Some(open) = open {
            let is_open = |c: &&Constraint| self.book.judge_one(open, c, self.alpha).is_none();
            let undecided = self.spec.constraints.iter().filter(is_open).copied().collect();
            return Conclusion::Unsure { undecided, closest: self.candidate(open) };
        }
        let Some(closest) = closest_of(&|_| true) else {
            return Conclusion::Abandoned { reason: "the budget allows no measurement".to_owned() };
        };
        let broken = |c: &&Constraint| self.book.judge_one(closest, c, self.alpha) != Some(true);
        let mut binding: Vec<Constraint> = self.opposed.clone();
        binding.extend(self.spec.constraints.iter().filter(broken).filter(|c| !self.opposed.contains(c)));
        Conclusion::Infeasible { binding, closest: self.candidate(closest) }
    }
}
