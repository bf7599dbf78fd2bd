//! A target whose memory, recall and capacity are known functions, and small campaigns on it.

use proptest::prelude::*;

use crate::campaign::*;
use crate::constraint::Constraint;
use crate::figure::Figure;
use crate::measured::{Measured, Reading};
use crate::tune::Value;

#[derive(Clone, Debug)]
pub(super) struct World {
    /// Net bytes of a row, by setting.
    pub(super) row_bytes: Vec<f64>,
    /// Recall that no EF_RUNTIME goes beyond, by setting.
    pub(super) full_recall: Vec<f64>,
    /// Bytes of an empty server.
    pub(super) baseline: f64,
    /// Queries per second of a shard at EF_RUNTIME 100 and 10,000 rows.
    pub(super) capacity: f64,
}

impl World {
    pub(super) fn plain() -> Self {
        Self {
            row_bytes: vec![800.0, 650.0, 500.0],
            full_recall: vec![0.99, 0.98, 0.97],
            baseline: 1e6,
            capacity: 5_000.0,
        }
    }

    fn recall(&self, spec: &CampaignSpec, place: Place, ef: i64) -> f64 {
        let rows = crate::number::of_int(i64::try_from(spec.stages[place.stage].rows).unwrap());
        let ef = crate::number::of_int(ef);
        (self.full_recall[place.setting] - 0.3 * (-ef / 40.0).exp() - 0.004 * (rows / 10_000.0).ln()).max(0.0)
    }

    fn p99(&self, spec: &CampaignSpec, place: Place, ef: i64) -> f64 {
        let stage = &spec.stages[place.stage];
        let rows = crate::number::of_int(i64::try_from(stage.rows).unwrap());
        let shards = f64::from(spec.shards[place.shards]);
        let cost =
            (0.2 + 0.8 * crate::number::of_int(ef) / 100.0) * (1.0 + (rows / 10_000.0).ln().max(0.0) * 0.1);
        let load = stage.rate * cost / (self.capacity * shards);
        1e6 * cost / (1.0 - load).max(0.01)
    }

    fn fullest(&self, spec: &CampaignSpec, place: Place) -> f64 {
        let rows = crate::number::of_int(i64::try_from(spec.stages[place.stage].rows).unwrap());
        self.baseline + rows * self.row_bytes[place.setting] / f64::from(spec.shards[place.shards])
    }

    /// Whether the goal of a place holds at an EF_RUNTIME.
    pub(super) fn holds(&self, spec: &CampaignSpec, place: Place, ef: i64) -> bool {
        let stage = &spec.stages[place.stage];
        let fits = stage.shard_memory.is_none_or(|most| self.fullest(spec, place) <= most);
        fits && stage.constraints.iter().all(|c| self.keeps(spec, place, ef, c))
    }

    fn keeps(&self, spec: &CampaignSpec, place: Place, ef: i64, c: &Constraint) -> bool {
        match c.figure() {
            Figure::Recall => self.recall(spec, place, ef) >= c.bound(),
            Figure::P99 => self.p99(spec, place, ef) <= c.bound(),
            _ => true,
        }
    }

    fn tuned(&self, spec: &CampaignSpec, place: Place) -> Option<i64> {
        let (low, high) = spec.tune?;
        (low..=high).find(|ef| self.holds(spec, place, *ef))
    }

    /// Whether a stage can reach its goal in any shape.
    pub(super) fn is_possible(&self, spec: &CampaignSpec, stage: usize) -> bool {
        let settings = 0..spec.settings.len();
        settings
            .flat_map(|setting| (0..spec.shards.len()).map(move |shards| Place { stage, setting, shards }))
            .any(|place| {
                let own = spec.ef.is_some_and(|ef| self.holds(spec, place, ef));
                own || self.tuned(spec, place).is_some()
            })
    }

    /// What the world tells of a step.
    pub(super) fn answer(&self, spec: &CampaignSpec, ask: &Ask) -> Vec<Event> {
        let place = ask.place;
        let shards = f64::from(spec.shards[place.shards]);
        match ask.step {
            Step::Prepare | Step::Change | Step::Shards => vec![Event::Done { took_ms: 10 }],
            Step::Load => {
                let rows = spec.stages[place.stage].rows;
                let baseline = self.baseline * shards;
                let net = crate::number::of_int(i64::try_from(rows).unwrap()) * self.row_bytes[place.setting];
                let memory =
                    Memory { rows, used: baseline + net, baseline, fullest: self.fullest(spec, place) };
                let known = |stage: usize, setting: usize| {
                    let rows = crate::number::of_int(i64::try_from(spec.stages[stage].rows).unwrap());
                    let net = rows * self.row_bytes[setting];
                    Forecast { stage, setting, net, low: net * 0.98, how: String::from("measured") }
                };
                let all = (0..spec.stages.len())
                    .flat_map(|stage| (0..spec.settings.len()).map(move |setting| known(stage, setting)));
                let took_ms = spec.costs.load_ms + rows / 2;
                vec![Event::Loaded { memory, findings: Vec::new(), took_ms }, Event::Forecasts(all.collect())]
            }
            Step::Tune => {
                let (_, high) = spec.tune.unwrap();
                let binding = spec.stages[place.stage].constraints.iter();
                let binding = binding.filter(|c| !self.keeps(spec, place, high, c)).copied().collect();
                let ef = self.tuned(spec, place);
                vec![Event::Tuned { ef, binding, text: String::from("tried"), took_ms: 10 }]
            }
            Step::Measure => {
                let ef = ask.ef.unwrap();
                let pass = Measured { requests: 1_000, ..Measured::default() }
                    .with(Figure::Recall, Reading::of(self.recall(spec, place, ef)))
                    .with(Figure::P99, Reading::of(self.p99(spec, place, ef)))
                    .with(Figure::AchievedShare, Reading::of(1.0));
                let passes = vec![pass; ask.passes];
                vec![Event::Measured { passes, findings: Vec::new(), took_ms: 10 }]
            }
        }
    }
}

pub(super) fn spec(rows: &[u64], settings: usize, shards: &[u16]) -> CampaignSpec {
    let constraints: Vec<Constraint> =
        ["recall >= 0.95", "p99 <= 5ms"].iter().map(|text| text.parse().unwrap()).collect();
    let stage = |rows: &u64| Stage {
        rows: *rows,
        rate: 1_000.0,
        constraints: constraints.clone(),
        shard_memory: None,
    };
    let setting = |n: usize| {
        let m = Value::Int(i64::from(16 >> n));
        Setting([(String::from("index.m"), m)].into_iter().collect())
    };
    CampaignSpec {
        stages: rows.iter().map(stage).collect(),
        settings: (0..settings).map(setting).collect(),
        shards: shards.to_vec(),
        ef: Some(100),
        tune: Some((10, 400)),
        prepared: Vec::new(),
        repeats: 3,
        repeats_most: 8,
        confidence: 0.95,
        costs: Costs {
            prepare_row_ms: 0.05,
            load_row_ms: 0.5,
            load_ms: 10_000,
            pass_ms: 6_000,
            tune_ms: 15_000,
            change_ms: 1_000,
            shard_ms: 300_000,
        },
    }
}

/// Campaigns of up to three populations, three settings and three numbers of shards.
pub(super) fn specs() -> impl Strategy<Value = CampaignSpec> {
    let shape = (1..4_usize, 1..4_usize, 1..4_usize);
    let costs = (0..20_000_u64, 0..400_000_u64, 0..100_000_u64);
    let bounds = (20e6..120e6_f64, 0.90..0.99_f64, 2e6..50e6_f64);
    let more = (10..200_i64, prop::option::of(Just((10, 400))), prop::bool::ANY);
    (shape, costs, bounds, more).prop_map(
        |((stages, settings, shards), (change, shard, tune), (memory, recall, p99), (ef, tuning, budget))| {
            let mut spec = spec(&[20_000, 50_000, 100_000][..stages], settings, &[1, 2, 4][..shards]);
            (spec.costs.change_ms, spec.costs.shard_ms, spec.costs.tune_ms) = (change, shard, tune);
            (spec.ef, spec.tune) = (Some(ef), tuning);
            for stage in &mut spec.stages {
                stage.shard_memory = budget.then_some(memory);
                stage.constraints = vec![
                    Constraint::new(Figure::Recall, crate::constraint::Side::AtLeast, recall).unwrap(),
                    Constraint::new(Figure::P99, crate::constraint::Side::AtMost, p99).unwrap(),
                ];
            }
            spec
        },
    )
}

pub(super) fn worlds() -> impl Strategy<Value = World> {
    (
        prop::collection::vec(300.0..1_500.0_f64, 3),
        prop::collection::vec(0.93..1.0_f64, 3),
        1_000.0..10_000.0_f64,
    )
        .prop_map(|(row_bytes, full_recall, capacity)| World {
            row_bytes,
            full_recall,
            capacity,
            ..World::plain()
        })
}

pub(super) fn forecasts() -> impl Strategy<Value = Vec<Forecast>> {
    let one = (0..3_usize, 0..3_usize, 1e6..300e6_f64).prop_map(|(stage, setting, net)| Forecast {
        stage,
        setting,
        net,
        low: net * 0.9,
        how: String::from("made up"),
    });
    prop::collection::vec(one, 0..9)
}

/// Cost of the cheapest way as far as one leads, by trying every shape at every stage; nothing is loaded or measured yet.
pub(super) fn cheapest_by_trying_all(campaign: &Campaign) -> Option<u64> {
    let spec = campaign.spec();
    let shapes: Vec<(usize, usize)> = (0..spec.settings.len())
        .flat_map(|setting| (0..spec.shards.len()).map(move |shards| (setting, shards)))
        .collect();
    let mut ways: Vec<(u64, (usize, usize))> = vec![(0, (0, 0))];
    let mut furthest = None;
    for (stage, wanted) in spec.stages.iter().enumerate() {
        let mut next = Vec::new();
        for (cost, (setting, shards)) in &ways {
            for (to_setting, to_shards) in &shapes {
                let forecast = campaign.events().iter().find_map(|event| match event {
                    Event::Forecasts(all) => {
                        all.iter().rev().find(|f| (f.stage, f.setting) == (stage, *to_setting))
                    }
                    _ => None,
                });
                let too_much = forecast
                    .zip(wanted.shard_memory)
                    .is_some_and(|(f, most)| f.low / f64::from(spec.shards[*to_shards]) > most);
                if too_much {
                    continue;
                }
                let change = if to_setting == setting { 0 } else { spec.costs.change_ms };
                let more = spec.shards[*to_shards].saturating_sub(spec.shards[*shards]);
                let more = u64::from(more) * spec.costs.shard_ms;
                let rows = crate::number::of_int(i64::try_from(wanted.rows).unwrap());
                let whole = |x: f64| u64::try_from(crate::number::nearest(x)).unwrap();
                let own = whole(rows * spec.costs.prepare_row_ms)
                    + spec.costs.load_ms
                    + whole(rows * spec.costs.load_row_ms)
                    + 3 * spec.costs.pass_ms;
                next.push((cost + change + more + own, (*to_setting, *to_shards)));
            }
        }
        ways = next;
        furthest = ways.iter().map(|(cost, _)| *cost).min().or(furthest);
    }
    furthest
}
