#[path = "tests/world.rs"]
mod world;

use proptest::prelude::*;

use self::world::{World, spec, specs, worlds};
use super::*;
use crate::figure::Figure;
use crate::measured::Reading;

/// Goes through a campaign in a world; gives all questions with the state before each.
fn run(campaign: &mut Campaign, world: &World) -> Outcome {
    for _ in 0..500 {
        match campaign.actions().pop().unwrap() {
            Action::Done(outcome) => return *outcome,
            Action::Run(ask) => {
                for event in world.answer(campaign.spec(), &ask) {
                    campaign.step(event);
                }
            }
        }
    }
    panic!("it does not end: {:?}", campaign.so_far().conclusion);
}

/// Whether events told so far speak against a place, by another way than the planner's.
fn is_told_to_fail(campaign: &Campaign, place: Place) -> bool {
    let spec = campaign.spec();
    let most = spec.stages[place.stage].shard_memory;
    let shards = f64::from(spec.shards[place.shards]);
    let loads: Vec<(Place, Memory)> = (campaign.so_far().steps.iter())
        .filter_map(|done| match &done.event {
            Event::Loaded { memory, .. } => Some((done.planned.ask.place, *memory)),
            _ => None,
        })
        .collect();
    if let Some((_, memory)) = loads.iter().rev().find(|(p, _)| *p == place) {
        return most.is_some_and(|most| memory.fullest > most);
    }
    let forecast = campaign.events().iter().rev().find_map(|event| match event {
        Event::Forecasts(all) => all.iter().find(|f| (f.stage, f.setting) == (place.stage, place.setting)),
        _ => None,
    });
    // A primary has its own baseline and its share of the rest, evenly in these worlds.
    let each = loads.first().map_or(0.0, |(p, m)| m.baseline / f64::from(spec.shards[p.shards]));
    forecast.zip(most).is_some_and(|(f, most)| each + f.low / shards > most * 1.000_001)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_plan_is_the_cheapest_of_all_ways(spec in specs(), forecasts in world::forecasts()) {
        let mut campaign = Campaign::new(spec.clone()).unwrap();
        campaign.step(Event::Forecasts(forecasts));
        let plan = campaign.plan();
        let planned = (!plan.is_empty()).then(|| plan.iter().map(|p| p.cost_ms).sum::<u64>());
        prop_assert_eq!(planned, world::cheapest_by_trying_all(&campaign));
    }

    #[test]
    fn nothing_that_is_measured_or_predicted_to_fail_is_in_a_plan(spec in specs(), world in worlds()) {
        let mut campaign = Campaign::new(spec).unwrap();
        for _ in 0..500 {
            for planned in campaign.plan() {
                let place = planned.ask.place;
                let goes_there = matches!(planned.ask.step, Step::Load | Step::Tune | Step::Measure);
                prop_assert!(!(goes_there && is_told_to_fail(&campaign, place)), "{planned:?}");
            }
            let Action::Run(ask) = campaign.actions().pop().unwrap() else { return Ok(()) };
            for event in world.answer(campaign.spec(), &ask) {
                campaign.step(event);
            }
        }
        prop_assert!(false, "it does not end");
    }

    #[test]
    fn the_goal_is_called_reached_where_it_can_be_and_impossible_where_it_cannot(
        spec in specs(),
        world in worlds(),
    ) {
        let mut campaign = Campaign::new(spec.clone()).unwrap();
        let outcome = run(&mut campaign, &world);
        for (place, ef) in &outcome.reached {
            prop_assert!(world.holds(&spec, *place, ef.unwrap_or(0)), "{place:?} at {ef:?}");
        }
        let first_impossible = (0..spec.stages.len()).find(|stage| !world.is_possible(&spec, *stage));
        match outcome.conclusion {
            Conclusion::Reached => prop_assert_eq!(first_impossible, None),
            Conclusion::Impossible { stage } => prop_assert_eq!(first_impossible, Some(stage)),
            other => prop_assert!(false, "{other:?}"),
        }
        for (place, fate) in &outcome.places {
            let was_come_to = place.stage <= first_impossible.unwrap_or(spec.stages.len());
            prop_assert!(!was_come_to || *fate != Fate::Open, "{place:?} has no fate");
        }
    }

    #[test]
    fn a_goal_is_reached_by_measurements_alone_and_the_same_events_ask_the_same(
        spec in specs(),
        world in worlds(),
    ) {
        let mut campaign = Campaign::new(spec).unwrap();
        let mut reached = 0;
        for _ in 0..500 {
            let Action::Run(ask) = campaign.actions().pop().unwrap() else { return Ok(()) };
            for event in world.answer(campaign.spec(), &ask) {
                let measured = matches!(event, Event::Measured { .. });
                campaign.step(event);
                let now = campaign.so_far().reached;
                prop_assert!(now.len() == reached || (measured && now.len() == reached + 1));
                prop_assert!(now.len() == reached || now.last().unwrap().0 == ask.place);
                reached = now.len();
            }
            let text = serde_json::to_string(&campaign).unwrap();
            let back: Campaign = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.actions(), campaign.actions());
        }
    }
}

/// 20k, 50k and 100k rows; a primary may use 70 MiB; M of 16 or 8, one or two shards.
fn growing() -> (CampaignSpec, World) {
    let mut spec = spec(&[20_000, 50_000, 100_000], 2, &[1, 2]);
    for stage in &mut spec.stages {
        stage.shard_memory = Some(70e6);
    }
    let world = World { row_bytes: vec![800.0, 650.0], full_recall: vec![0.99, 0.99], ..World::plain() };
    (spec, world)
}

fn shape_of(outcome: &Outcome, stage: usize) -> (usize, usize) {
    let (place, _) = outcome.reached[stage];
    (place.setting, place.shards)
}

#[test]
fn a_budget_that_the_third_population_would_break_leads_to_other_parameters_before_it_is_loaded() {
    let (spec, world) = growing();
    let mut campaign = Campaign::new(spec).unwrap();
    let outcome = run(&mut campaign, &world);
    assert_eq!(outcome.conclusion, Conclusion::Reached);
    assert_eq!((shape_of(&outcome, 1), shape_of(&outcome, 2)), ((0, 0), (1, 0)));
    let loads = outcome.steps.iter().filter(|done| done.planned.ask.step == Step::Load).count();
    assert_eq!(loads, 3, "nothing is loaded that is predicted to fail");
    let change = outcome.steps.iter().find(|done| done.planned.ask.step == Step::Change).unwrap();
    assert!(matches!(&change.planned.why, Why::Instead { refusal: Refusal::PredictedMemory { .. }, .. }));
}

#[test]
fn where_smaller_graphs_lose_too_much_recall_shards_are_added() {
    let (spec, mut world) = growing();
    world.full_recall = vec![0.99, 0.90];
    let outcome = run(&mut Campaign::new(spec).unwrap(), &world);
    assert_eq!(outcome.conclusion, Conclusion::Reached);
    assert_eq!(shape_of(&outcome, 2), (0, 1));
    let tried = Place { stage: 2, setting: 1, shards: 0 };
    let fate = &outcome.places.iter().find(|(place, _)| *place == tried).unwrap().1;
    assert!(matches!(fate, Fate::Refused(Refusal::Untunable { .. })), "{fate:?}");
}

#[test]
fn a_shape_that_missed_at_fewer_rows_is_not_loaded_with_more_unless_less_is_wanted_there() {
    let (mut spec, mut world) = growing();
    world.full_recall = vec![0.90, 0.99];
    spec.shards = vec![1];
    let fate_of = |spec: &CampaignSpec| {
        let outcome = run(&mut Campaign::new(spec.clone()).unwrap(), &world);
        assert_eq!(outcome.conclusion, Conclusion::Reached);
        let place = Place { stage: 1, setting: 0, shards: 0 };
        outcome.places.into_iter().find(|(at, _)| *at == place).unwrap().1
    };
    assert!(matches!(fate_of(&spec), Fate::Refused(Refusal::Follows { stage: 0, .. })));
    spec.stages[1].constraints = vec!["recall >= 0.8".parse().unwrap()];
    assert_eq!(fate_of(&spec), Fate::Unneeded);
}

#[test]
fn where_nothing_helps_each_way_has_its_reason() {
    let (mut spec, world) = growing();
    spec.shards = vec![1];
    spec.stages[2].shard_memory = Some(30e6);
    let outcome = run(&mut Campaign::new(spec).unwrap(), &world);
    assert_eq!(outcome.conclusion, Conclusion::Impossible { stage: 2 }, "{:?}", outcome.places);
    let last = outcome.places.iter().filter(|(place, _)| place.stage == 2);
    for (place, fate) in last {
        assert!(matches!(fate, Fate::Refused(Refusal::PredictedMemory { .. })), "{place:?} {fate:?}");
    }
}

fn pass(recall: f64) -> Measured {
    Measured { requests: 1_000, ..Measured::default() }
        .with(Figure::Recall, Reading::of(recall))
        .with(Figure::P99, Reading::of(1e6))
        .with(Figure::AchievedShare, Reading::of(1.0))
}

fn measured(recalls: &[f64], trouble: Option<Trouble>) -> Event {
    let findings = trouble.map(|trouble| Finding { trouble, text: String::from("seen") });
    Event::Measured {
        passes: recalls.iter().map(|r| pass(*r)).collect(),
        findings: findings.into_iter().collect(),
        took_ms: 1,
    }
}

/// A campaign whose first population is loaded.
fn loaded() -> Campaign {
    let (spec, world) = growing();
    let mut campaign = Campaign::new(spec).unwrap();
    while let Some(Action::Run(ask)) = campaign.actions().pop()
        && ask.step != Step::Measure
    {
        for event in world.answer(campaign.spec(), &ask) {
            campaign.step(event);
        }
    }
    campaign
}

fn next(campaign: &Campaign) -> Step {
    match campaign.actions().pop().unwrap() {
        Action::Run(ask) => ask.step,
        Action::Done(outcome) => panic!("{outcome:?}"),
    }
}

#[test]
fn what_is_near_its_bound_is_measured_again_and_what_misses_it_is_tuned() {
    let mut campaign = loaded();
    campaign.step(measured(&[0.96, 0.94, 0.955], None));
    assert_eq!(next(&campaign), Step::Measure);
    campaign.step(measured(&[0.80, 0.80, 0.80, 0.80, 0.80], None));
    assert_eq!(next(&campaign), Step::Tune);
    campaign.step(Event::Tuned { ef: Some(200), binding: Vec::new(), text: String::new(), took_ms: 1 });
    let Some(Action::Run(ask)) = campaign.actions().pop() else { panic!() };
    assert_eq!((ask.step, ask.ef), (Step::Measure, Some(200)));
    campaign.step(measured(&[0.99; 3], None));
    assert_eq!(campaign.so_far().reached.len(), 1);
}

#[test]
fn a_finding_that_puts_a_pass_in_doubt_asks_for_more_and_refuses_the_place_when_it_comes_back() {
    for trouble in [Trouble::Leak, Trouble::Decay] {
        let mut campaign = loaded();
        campaign.step(measured(&[0.99; 3], Some(trouble)));
        assert_eq!((next(&campaign), campaign.so_far().reached.len()), (Step::Measure, 0));
        let mut again = campaign.clone();
        again.step(measured(&[0.99; 3], None));
        assert_eq!(again.so_far().reached.len(), 1, "it did not come back");
        campaign.step(measured(&[0.99; 3], Some(trouble)));
        assert_eq!(next(&campaign), Step::Change, "another shape is tried");
        let refused = campaign.so_far().places.into_iter().find(|(p, _)| p.stage == 0).unwrap().1;
        assert!(matches!(refused, Fate::Refused(Refusal::Doubtful(_))), "{refused:?}");
    }
}

#[test]
fn a_server_at_its_limit_makes_shards_the_cheaper_way_for_more_rows() {
    let (mut spec, world) = growing();
    spec.settings.truncate(1);
    spec.stages.iter_mut().for_each(|stage| stage.shard_memory = None);
    spec.costs.shard_ms = 5_000;
    let goes_by = |trouble: Option<Trouble>| {
        let mut campaign = Campaign::new(spec.clone()).unwrap();
        while next(&campaign) != Step::Measure {
            let Some(Action::Run(ask)) = campaign.actions().pop() else { panic!() };
            for event in world.answer(&spec, &ask) {
                campaign.step(event);
            }
        }
        campaign.step(measured(&[0.99; 3], trouble));
        campaign.plan().iter().map(|planned| planned.ask.step).collect::<Vec<Step>>()
    };
    assert!(!goes_by(None).contains(&Step::Shards));
    assert!(goes_by(Some(Trouble::Bottleneck)).contains(&Step::Shards));
}

#[test]
fn what_the_target_refuses_is_not_tried_again_and_what_is_not_valid_three_times_ends_it() {
    let (spec, _) = growing();
    let mut campaign = Campaign::new(spec).unwrap();
    campaign.step(Event::Done { took_ms: 1 });
    assert_eq!(next(&campaign), Step::Load);
    let mut failed = campaign.clone();
    failed.step(Event::Failed(String::from("OOM")));
    assert_eq!(next(&failed), Step::Change);
    for _ in 0..3 {
        campaign.step(Event::Invalid(String::from("late")));
    }
    let Some(Action::Done(outcome)) = campaign.actions().pop() else { panic!() };
    assert!(matches!(outcome.conclusion, Conclusion::Abandoned { .. }));
}

#[test]
fn what_a_stop_has_taken_is_loaded_again() {
    let mut campaign = loaded();
    campaign.step(Event::Lost);
    assert_eq!(next(&campaign), Step::Load);
}

#[test]
fn a_specification_that_cannot_be_planned_says_why() {
    let good = spec(&[1_000, 2_000], 1, &[1]);
    assert_eq!(good.check(), Ok(()));
    let with = |change: fn(&mut CampaignSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec.check().unwrap_err()
    };
    assert_eq!(with(|s| s.stages.clear()), CampaignError::NoStage);
    assert_eq!(with(|s| s.stages.reverse()), CampaignError::NotGrowing(2));
    assert_eq!(with(|s| s.settings.clear()), CampaignError::NoShape);
    assert_eq!(with(|s| s.shards = vec![2, 1]), CampaignError::Shards);
    assert_eq!(with(|s| s.repeats = 2), CampaignError::Repeats(2));
    assert_eq!(with(|s| s.confidence = 1.0), CampaignError::Confidence);
}
