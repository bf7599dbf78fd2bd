//! What is known of the target: what was measured, what is predicted from it, and what either of them forbids.
//!
//! A fold over events; read by the moves of a plan. Laws: nothing is known that no event told; a prediction forbids only
//! where even the least that it allows is too much; what is forbidden stays so until a newer prediction replaces the old.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Ask, CampaignSpec, Event, Finding, Forecast, Memory, Place, Stage, Step, Trouble};
use crate::book::{Book, Verdict};
use crate::constraint::{Constraint, Side};
use crate::figure::Figure;
use crate::measured::{Event as Reading, Measured};
use crate::number::float;
use crate::throughput::ACHIEVED_SHARE;

/// How often in a row a step may be not valid before the campaign gives up.
const INVALID_MOST: usize = 3;
/// How often a finding that puts a measurement in doubt may come back before the place is given up.
const DOUBTS_MOST: usize = 2;

/// A bound on memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Of the fullest primary, bytes.
    Shard(f64),
    /// Of all primaries or of a vector.
    Of(Constraint),
}

/// Why a place is not gone to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It would take too much memory.
    PredictedMemory {
        /// Of what.
        bound: Bound,
        /// What is expected, in the bound's unit.
        value: f64,
        /// What it takes at least.
        low: f64,
        /// What that is known from.
        how: String,
    },
    /// It takes too much memory.
    Memory {
        /// Of what.
        bound: Bound,
        /// What was measured.
        value: f64,
    },
    /// A constraint is broken, and there is no other EF_RUNTIME to try.
    Missed {
        /// Which.
        constraint: Constraint,
        /// What was measured, the mean.
        value: f64,
        /// At which EF_RUNTIME.
        ef: Option<i64>,
        /// What the report found at that, if anything.
        findings: Vec<Finding>,
    },
    /// No EF_RUNTIME keeps the constraints.
    Untunable {
        /// Those that cannot be kept.
        binding: Vec<Constraint>,
        /// What the search said.
        text: String,
    },
    /// As many passes as are allowed do not tell whether a constraint holds.
    Undecided {
        /// Which.
        constraint: Constraint,
        /// How many.
        passes: usize,
    },
    /// A finding came back: what is measured there does not last.
    Doubtful(Finding),
    /// The target did not do a step.
    Failed {
        /// Which.
        step: Step,
        /// Why.
        reason: String,
    },
    /// The same shape missed at fewer rows what is wanted here too.
    Follows {
        /// At which stage.
        stage: usize,
        /// What was missed.
        constraints: Vec<Constraint>,
    },
}

/// Passes of queries at one EF_RUNTIME.
#[derive(Clone, Debug, Default)]
struct Trial {
    passes: Vec<Measured>,
    findings: Vec<Finding>,
    /// How often a finding put it in doubt.
    doubts: usize,
    /// The last passes were in doubt.
    is_doubtful: bool,
}

/// Memory that a place would take, bytes: as it is expected, and at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    /// Of all primaries.
    pub(super) total: (f64, f64),
    /// Of the fullest.
    pub(super) fullest: (f64, f64),
    pub(super) how: &'a str,
}

/// What passes of queries say.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Judged {
    /// All hold.
    Holds,
    /// This one does not; its mean.
    Breaks(Constraint, f64),
    /// More passes are needed; for this one, if any is open.
    Open(Option<Constraint>),
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    pub(super) spec: &'a CampaignSpec,
    pub(super) setting: usize,
    pub(super) shards: usize,
    pub(super) loaded: Option<usize>,
    pub(super) prepared: BTreeSet<usize>,
    /// How many stages have reached their goal, and where.
    pub(super) reached: Vec<(Place, Option<i64>)>,
    pub(super) memory: BTreeMap<Place, Memory>,
    pub(super) tuned: BTreeMap<Place, i64>,
    forecasts: BTreeMap<(usize, usize), Forecast>,
    trials: BTreeMap<(Place, Option<i64>), Trial>,
    refused: BTreeMap<Place, Refusal>,
    pub(super) findings: Vec<(Place, Finding)>,
    /// Milliseconds that a row took, of the last load.
    pub(super) load_row_ms: Option<f64>,
    invalid: usize,
    /// Why it cannot go on.
    pub(super) given_up: Option<String>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(spec: &'a CampaignSpec) -> Self {
        Self {
            spec,
            setting: 0,
            shards: 0,
            loaded: None,
            prepared: spec.prepared.iter().copied().collect(),
            reached: Vec::new(),
            memory: BTreeMap::new(),
            tuned: BTreeMap::new(),
            forecasts: BTreeMap::new(),
            trials: BTreeMap::new(),
            refused: BTreeMap::new(),
            findings: Vec::new(),
            load_row_ms: None,
            invalid: 0,
            given_up: None,
        }
    }

    /// Takes what is told besides the answer to a step; `false` where the event is such an answer.
    pub(super) fn hear(&mut self, event: &Event) -> bool {
        match event {
            Event::Forecasts(all) => {
                for forecast in all.iter().filter(|f| f.net.is_finite() && f.low.is_finite()) {
                    self.forecasts.insert((forecast.stage, forecast.setting), forecast.clone());
                }
                true
            }
            Event::Lost => {
                self.loaded = None;
                true
            }
            _ => false,
        }
    }

    /// Takes what became of a step.
    pub(super) fn learn(&mut self, ask: &Ask, event: &Event) {
        let place = ask.place;
        if !matches!(event, Event::Invalid(_)) {
            self.invalid = 0;
        }
        match (ask.step, event) {
            (Step::Prepare, Event::Done { .. }) => {
                self.prepared.insert(place.stage);
            }
            (Step::Change | Step::Shards, Event::Done { .. }) => {
                (self.setting, self.shards, self.loaded) = (place.setting, place.shards, None);
            }
            (Step::Load, Event::Loaded { memory, findings, took_ms }) => {
                self.loaded = Some(place.stage);
                self.memory.insert(place, *memory);
                let over = took_ms.saturating_sub(self.spec.costs.load_ms);
                self.load_row_ms = Some(ms(over) / rows(memory.rows.max(1)));
                self.findings.extend(findings.iter().map(|f| (place, f.clone())));
            }
            (Step::Tune, Event::Tuned { ef: Some(ef), .. }) => {
                self.tuned.insert(place, *ef);
            }
            (Step::Tune, Event::Tuned { ef: None, binding, text, .. }) => {
                let refusal = Refusal::Untunable { binding: binding.clone(), text: text.clone() };
                self.refused.insert(place, refusal);
            }
            (Step::Measure, Event::Measured { passes, findings, .. }) => {
                self.measured(place, ask.ef, passes, findings);
            }
            (Step::Prepare, Event::Failed(reason)) => {
                self.given_up = Some(format!("data cannot be prepared: {reason}"));
            }
            (step, Event::Failed(reason)) => {
                self.loaded = None;
                self.refused.insert(place, Refusal::Failed { step, reason: reason.clone() });
            }
            (step, Event::Invalid(reason)) => {
                self.invalid += 1;
                if self.invalid >= INVALID_MOST {
                    let n = self.invalid;
                    self.given_up =
                        Some(format!("`{step}` was not valid {n} times in a row, the last: {reason}"));
                }
            }
            (step, _) => {
                self.given_up = Some(format!("`{step}` was answered with something else"));
            }
        }
    }

    fn measured(&mut self, place: Place, ef: Option<i64>, passes: &[Measured], findings: &[Finding]) {
        // A reading that is no number is none: the passes are kept, that one is not.
        let sound = passes
            .iter()
            .filter(|m| matches!(Reading::Measured((*m).clone()).checked(), Reading::Measured(_)));
        let sound: Vec<Measured> = sound.cloned().collect();
        let trial = self.trials.entry((place, ef)).or_default();
        trial.is_doubtful = findings.iter().any(|f| matches!(f.trouble, Trouble::Leak | Trouble::Decay));
        trial.doubts += usize::from(trial.is_doubtful);
        trial.passes.extend(sound);
        trial.findings.extend(findings.iter().cloned());
        self.findings.extend(findings.iter().map(|f| (place, f.clone())));
        if self.judged(place, ef) == Judged::Holds && self.refusal(place).is_none() {
            self.reached.push((place, ef));
        }
    }

    /// EF_RUNTIME of a measurement: found at this place, or at fewer rows with the same index parameters, or the
    /// scenario's.
    pub(super) fn ef_for(&self, place: Place) -> Option<i64> {
        let here = self.tuned.get(&place);
        let smaller = || {
            let near = |p: &Place| p.setting == place.setting && p.stage < place.stage;
            self.tuned.iter().filter(|(p, _)| near(p)).max_by_key(|(p, _)| **p).map(|(_, ef)| ef)
        };
        here.or_else(smaller).copied().or(self.spec.ef)
    }

    pub(super) fn passes(&self, place: Place, ef: Option<i64>) -> usize {
        self.trials.get(&(place, ef)).map_or(0, |trial| trial.passes.len())
    }

    /// What passes of queries at a place say so far.
    pub(super) fn judged(&self, place: Place, ef: Option<i64>) -> Judged {
        let Some((trial, stage)) = self.trials.get(&(place, ef)).zip(self.spec.stages.get(place.stage))
        else {
            return Judged::Open(None);
        };
        let mut book = Book::new(|(), ()| true);
        for measured in &trial.passes {
            book.enter(&(), measured);
        }
        let mut all: Vec<Constraint> =
            stage.constraints.iter().filter(|c| !is_of_memory(c)).copied().collect();
        all.extend(Constraint::new(Figure::AchievedShare, Side::AtLeast, ACHIEVED_SHARE));
        let alpha = (1.0 - self.spec.confidence) / float(all.len());
        match book.judge(&(), &all, alpha) {
            _ if trial.passes.len() < self.spec.repeats => Judged::Open(None),
            Verdict::Pass if trial.is_doubtful => Judged::Open(None),
            Verdict::Pass => Judged::Holds,
            Verdict::Fail(i) => all.get(i).map_or(Judged::Open(None), |constraint| {
                let scaled = crate::statistics::mean(book.scaled(&(), constraint.figure()));
                Judged::Breaks(*constraint, constraint.figure().scale().back(scaled))
            }),
            Verdict::Near(i) => Judged::Open(all.get(i).copied()),
        }
    }

    /// Whether a measurement at this EF_RUNTIME has nothing more to tell.
    pub(super) fn is_spent(&self, place: Place, ef: Option<i64>) -> bool {
        match self.judged(place, ef) {
            Judged::Breaks(..) => true,
            Judged::Holds => false,
            Judged::Open(_) => self.passes(place, ef) >= self.spec.repeats_most,
        }
    }

    /// What is expected of a place's memory.
    pub(super) fn expected(&self, place: Place) -> Option<Expected<'_>> {
        let forecast = self.forecasts.get(&(place.stage, place.setting))?;
        let shards = f64::from(self.spec.shards.get(place.shards).copied().unwrap_or(1));
        let shards_of = |p: &Place| f64::from(self.spec.shards.get(p.shards).copied().unwrap_or(1));
        // Servers are alike: each costs the same before anything is loaded.
        let each = self.memory.iter().next_back().map_or(0.0, |(p, m)| m.baseline / shards_of(p));
        let skew = |p: &Place, m: &Memory| {
            let (net, n) = (m.used - m.baseline, shards_of(p));
            if net > 0.0 { ((m.fullest - m.baseline / n) * n / net).max(1.0) } else { 1.0 }
        };
        let same = self.memory.iter().filter(|(p, _)| p.shards == place.shards);
        let skew = same.map(|(p, m)| skew(p, m)).fold(1.0, f64::max);
        let total = |net: f64| each * shards + net;
        let fullest = |net: f64| each + net / shards * skew;
        let (net, low) = (forecast.net, forecast.low);
        let (total, fullest) = ((total(net), total(low)), (fullest(net), fullest(low)));
        Some(Expected { total, fullest, how: &forecast.how })
    }

    /// Why a place is not gone to, if so.
    pub(super) fn refusal(&self, place: Place) -> Option<Refusal> {
        self.measured_refusal(place).or_else(|| self.follows(place)).or_else(|| self.predicted(place))
    }

    /// What events forbid at this very place.
    fn measured_refusal(&self, place: Place) -> Option<Refusal> {
        if let Some(refusal) = self.refused.get(&place) {
            return Some(refusal.clone());
        }
        let stage = self.spec.stages.get(place.stage)?;
        if let Some(memory) = self.memory.get(&place) {
            let net = memory.used - memory.baseline;
            let found = bounds(stage).into_iter().find_map(|bound| {
                let value = match &bound {
                    Bound::Shard(_) => memory.fullest,
                    Bound::Of(c) if is_per_vector(c) => net / rows(memory.rows.max(1)),
                    Bound::Of(_) => memory.used,
                };
                bound.is_broken(value).then_some(Refusal::Memory { bound, value })
            });
            if found.is_some() {
                return found;
            }
        }
        let ef = self.ef_for(place);
        let doubtful = self.trials.iter().find(|((p, _), trial)| *p == place && trial.doubts >= DOUBTS_MOST);
        if let Some(finding) = doubtful.and_then(|(_, trial)| trial.findings.last()) {
            return Some(Refusal::Doubtful(finding.clone()));
        }
        let may_tune = self.spec.tune.is_some() && !self.tuned.contains_key(&place);
        if may_tune || !self.is_spent(place, ef) {
            return None;
        }
        let findings = self.trials.get(&(place, ef)).map_or(&[][..], |trial| trial.findings.as_slice());
        match self.judged(place, ef) {
            Judged::Breaks(constraint, value) => {
                Some(Refusal::Missed { constraint, value, ef, findings: findings.to_vec() })
            }
            Judged::Open(constraint) => {
                let constraint = constraint.or_else(|| stage.constraints.first().copied())?;
                Some(Refusal::Undecided { constraint, passes: self.passes(place, ef) })
            }
            Judged::Holds => None,
        }
    }

    /// What the same shape missed at fewer rows, where as much is wanted here: recall falls and time rises with rows.
    fn follows(&self, place: Place) -> Option<Refusal> {
        let here = self.spec.stages.get(place.stage)?;
        (0..place.stage).find_map(|stage| {
            let smaller = Place { stage, ..place };
            let constraints = match self.measured_refusal(smaller)? {
                Refusal::Missed { constraint, .. } => vec![constraint],
                Refusal::Untunable { binding, .. } if !binding.is_empty() => binding,
                _ => return None,
            };
            let below = self.spec.stages.get(stage)?;
            let as_much = |c: &Constraint| {
                let same = |own: &&Constraint| own.figure() == c.figure() && own.side() == c.side();
                let is_load = c.figure() == Figure::AchievedShare;
                is_load || here.constraints.iter().find(same).is_some_and(|own| is_as_strict(own, c))
            };
            (here.rate >= below.rate && constraints.iter().all(as_much))
                .then_some(Refusal::Follows { stage, constraints })
        })
    }

    fn predicted(&self, place: Place) -> Option<Refusal> {
        if self.memory.contains_key(&place) {
            return None;
        }
        let stage = self.spec.stages.get(place.stage)?;
        let Expected { total, fullest, how } = self.expected(place)?;
        let net = self.forecasts.get(&(place.stage, place.setting))?;
        let live = rows(stage.rows.max(1));
        bounds(stage).into_iter().find_map(|bound| {
            let (value, low) = match &bound {
                Bound::Shard(_) => fullest,
                Bound::Of(c) if is_per_vector(c) => (net.net / live, net.low / live),
                Bound::Of(_) => total,
            };
            let how = how.to_owned();
            bound.is_broken(low).then_some(Refusal::PredictedMemory { bound, value, low, how })
        })
    }

    /// Whether a finding at fewer rows makes it likely that a load of more rows in as many shards is done in vain, or
    /// takes longer.
    pub(super) fn is_risky(&self, place: Place) -> bool {
        self.findings.iter().any(|(at, finding)| {
            at.shards == place.shards
                && at.stage < place.stage
                && matches!(finding.trouble, Trouble::Bottleneck | Trouble::LoadDecay)
        })
    }
}

/// Bounds of memory. That memory be large is nothing that a budget asks for: no such bound is one.
fn bounds(stage: &Stage) -> Vec<Bound> {
    let of = stage.constraints.iter().filter(|c| is_of_memory(c) && c.side() == Side::AtMost);
    stage.shard_memory.map(Bound::Shard).into_iter().chain(of.copied().map(Bound::Of)).collect()
}

impl Bound {
    fn is_broken(&self, value: f64) -> bool {
        match self {
            Self::Shard(most) => value > *most,
            Self::Of(constraint) => value > constraint.bound(),
        }
    }
}

fn is_per_vector(constraint: &Constraint) -> bool {
    constraint.figure() == Figure::BytesPerVector
}

/// Told by a checkpoint and not by queries.
pub(super) fn is_of_memory(constraint: &Constraint) -> bool {
    matches!(constraint.figure(), Figure::Memory | Figure::BytesPerVector)
}

fn is_as_strict(own: &Constraint, other: &Constraint) -> bool {
    match own.side() {
        Side::AtMost => own.bound() <= other.bound(),
        Side::AtLeast => own.bound() >= other.bound(),
    }
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "rows stay far below 2^53")]
pub(super) fn rows(n: u64) -> f64 {
    n as f64
}

/// Exact up to 2^53.
fn ms(n: u64) -> f64 {
    rows(n)
}
