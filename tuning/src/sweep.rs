//! The curve of throughput against latency and recall, at every setting of a grid.
//!
//! Of each setting the capacity is probed, its limit looked for, and the rates of a curve below and just above the limit
//! are measured. Fed by whoever runs phases; read by `vst run sweep`. Laws: every setting of the grid has its curve;
//! what stands on the front is beaten by no other setting beyond its interval.

use serde::{Deserialize, Serialize};

use crate::constraint::Constraint;
use crate::curve::{Standing, Trade, pareto};
use crate::figure::Figure;
use crate::measured::Event;
use crate::replay::{Pause, Replay, Source};
use crate::search::{self, Search, Spec};
use crate::statistics::Interval;
use crate::throughput::{Ask, Carried, Course, Curve, Effort, Offered, ThroughputError, ThroughputSpec};
use crate::tune::Setting;

/// Rates of a curve as shares of the limit.
const SHARES: [f64; 7] = [0.2, 0.4, 0.6, 0.75, 0.9, 1.0, 1.15];
/// A rate this near to one that was measured adds nothing to a curve.
const NEAR: f64 = 0.04;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepSpec {
    /// What must hold at a limit. Unless it is bounded here, 95 % of what is offered must be achieved besides.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// The settings, at least one; an empty one is the scenario as it is.
    pub settings: Vec<Setting>,
    /// How much is spent on each.
    #[serde(default)]
    pub effort: Effort,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swept {
    /// Its curve with the knee.
    pub curve: Curve,
    /// Its limit.
    pub limit: Carried,
    /// Where its limit and its recall stand among all settings; absent where either is not known.
    pub standing: Option<Standing>,
}

/// What the sweep found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// In the order of the grid; fewer where the sweep had to be given up.
    pub settings: Vec<Swept>,
    /// Measurements.
    pub measurements: usize,
    /// Requests that they took.
    pub requests: u64,
    /// Why it had to be given up.
    pub abandoned: Option<String>,
}

/// What to do next, in this order.
pub type Action = search::Action<Ask, Outcome>;

/// A sweep under way.
pub type Sweep = Search<SweepSpec>;

impl Spec for SweepSpec {
    type Ask = Ask;
    type Outcome = Outcome;
    type Error = ThroughputError;

    fn check(&self) -> Result<(), ThroughputError> {
        ThroughputSpec::with_achieved(&self.constraints)?;
        Ok(self.effort.check()?)
    }

    fn follow(&self, answers: &[Event]) -> Result<Outcome, Ask> {
        let constraints = ThroughputSpec::with_achieved(&self.constraints).unwrap_or_default();
        let mut replay = Replay::new(answers);
        let mut swept = Swept::none();
        for setting in &self.settings {
            // Each setting has a floor of its own.
            let mut course = Course::new(&mut replay, constraints.clone(), &self.effort);
            match one(&mut course, setting, &constraints) {
                Ok(limit) => {
                    swept.settings.push(Swept { curve: course.curve(setting), limit, standing: None })
                }
                Err(Pause::Need(ask)) => return Err(ask),
                Err(Pause::Spent) => swept.abandoned = Some(String::from("the budget is spent")),
                Err(Pause::GaveUp(reason)) => swept.abandoned = Some(reason),
            }
            let (measurements, requests) = course.spent();
            swept.measurements += measurements;
            swept.requests = swept.requests.saturating_add(requests);
            if swept.abandoned.is_some() {
                break;
            }
        }
        swept.stand();
        Ok(swept)
    }
}

impl Swept {
    fn none() -> Outcome {
        Outcome { settings: Vec::new(), measurements: 0, requests: 0, abandoned: None }
    }
}

impl Outcome {
    fn stand(&mut self) {
        let trade = |swept: &Swept| Some(Trade { qps: swept.limit.rate()?, recall: swept.curve.recall? });
        let trades: Vec<Option<Trade>> = self.settings.iter().map(trade).collect();
        let known: Vec<Trade> = trades.iter().flatten().copied().collect();
        let mut standings = pareto(&known).into_iter();
        for (swept, trade) in self.settings.iter_mut().zip(trades) {
            swept.standing = trade.and_then(|_| standings.next());
        }
    }
}

/// The limit of a setting, then the rates of its curve.
fn one<S: Source<Ask>>(
    course: &mut Course<'_, S>,
    setting: &Setting,
    constraints: &[Constraint],
) -> Result<Carried, Pause<Ask>> {
    course.floor_of(std::slice::from_ref(setting))?;
    let carried = course.limit(setting, constraints)?;
    let mut figures: Vec<Figure> = constraints.iter().map(Constraint::figure).collect();
    figures.push(Figure::Qps);
    let Some(Interval { value, .. }) = carried.rate() else { return Ok(carried) };
    for share in SHARES {
        let rate = value * share;
        let near = |known: f64| (known / rate - 1.0).abs() < NEAR;
        if !course.curve(setting).rates.iter().any(|known| near(known.rate)) {
            course.measure(setting, Offered::Rate(rate), figures.clone())?;
        }
    }
    Ok(carried)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::curve::Knee;
    use crate::double::Double;
    use crate::tune::Value;

    #[test]
    fn a_grid_over_ef_gives_each_its_limit_and_its_knee_and_all_stand_on_the_front() {
        let efs = [20_i64, 60, 180];
        let setting = |ef: &i64| Setting(BTreeMap::from([(String::from("ef"), Value::Int(*ef))]));
        let spec = SweepSpec {
            constraints: vec!["p99 <= 10ms".parse().unwrap()],
            settings: efs.iter().map(setting).collect(),
            effort: Effort::default(),
        };
        let mut double = Double::new(11);
        double.recall_noise = 0.0005;
        let mut sweep = Sweep::new(spec).unwrap();
        let outcome = loop {
            match sweep.actions().pop().unwrap() {
                Action::Done(outcome) => break *outcome,
                Action::Drain => panic!("drains last"),
                Action::Measure(ask) => {
                    let Some(Value::Int(ef)) = ask.setting.0.get("ef") else { panic!("{ask:?}") };
                    let ef = crate::number::of_int(*ef);
                    let mut measured = match ask.offered {
                        Offered::FlatOut => double.flat_out(ef),
                        Offered::Rate(rate) => double.at(rate, ef),
                    };
                    let p99 = measured.figures[&Figure::P99];
                    measured = measured.with(Figure::P50, p99);
                    sweep.step(Event::Measured(measured));
                }
            }
        };
        assert_eq!(outcome.abandoned, None);
        assert_eq!((outcome.measurements, outcome.requests), (double.measurements, double.requests));
        for (swept, ef) in outcome.settings.iter().zip(efs) {
            let ef = crate::number::of_int(ef);
            let truth = double.limit(ef, 10e6);
            let rate = swept.limit.rate().unwrap();
            assert!((rate.value / truth - 1.0).abs() < 0.03, "{rate:?} {truth}");
            assert!((swept.curve.recall.unwrap().value - double.recall_at(ef)).abs() < 0.005);
            assert_eq!(swept.standing, Some(Standing::Front));
            // A queue's knee is at half its capacity.
            let Knee::At(knee) = swept.curve.knee else { panic!("{:?}", swept.curve.knee) };
            let half = double.capacity_at(ef) / 2.0;
            assert!(knee.low <= half && half <= knee.high, "{knee:?} {half}");
        }
    }
}
