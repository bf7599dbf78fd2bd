//! The run against a simulated fleet, log and target: what must hold whatever the workers do and when they do it.

mod fleet;
mod laws;
mod stage;
mod world;

use proptest::prelude::*;

use vst_common::clock::SECOND_NS;
use vst_common::entry::Control;
use vst_common::exit::Exit;
use vst_common::ids::Generation;

use super::*;
use fleet::Worker;
use stage::{Weather, weather};
use world::{LEASE_NS, STEP_NS, STEPS, World, arrival};

fn run(weather: Weather) -> World {
    run_on(World::new(weather))
}

fn run_on(mut world: World) -> World {
    for step in 0..STEPS {
        world.step(step);
        if world.core.is_over() {
            break;
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_run_comes_to_its_end_in_order_whatever_the_workers_do(weather in weather()) {
        let world = run(weather.clone());
        prop_assert!(world.core.is_over(), "still running: {:?}", world.core.view(world.now));
        prop_assert_eq!(world.finished.len(), 1);
        world.check_log();
        let verdict = &world.finished[0];
        let through = world.trace.iter().any(|c| matches!(c, Control::PhaseEnded(e) if e.index.0 == 8));
        let stopped = weather.stop_at.is_some() || weather.stop_again_at.is_some();
        // What the log says of losses is what the run must be judged by.
        let lost = world.trace.iter().any(|c| matches!(c, Control::WorkerLeft { lost: true, .. }));
        let unowned = world.trace.iter().any(|c| matches!(c, Control::PhaseEnded(e) if e.unowned > 0));
        let stayed = world.workers.iter().any(|(g, w)| {
            g.0 <= weather.workers && !w.silent && !w.leaving && !w.replaced && !world.lost.contains(g)
        });
        let failed = world.any_fault || world.any_range_failed;
        if verdict.exit == Exit::Valid {
            prop_assert!(through && !weather.lose_deliveries);
            prop_assert_eq!(&verdict.state, &vst_common::entry::RunState::Finished);
        }
        if !failed && !stopped && stayed {
            prop_assert!(through, "one worker that stays brings the run to its end: {}", verdict.reason);
            let expected = match (lost || unowned, weather.lose_deliveries) {
                (true, _) => Exit::Fleet,
                (false, true) => Exit::NotValid,
                (false, false) => Exit::Valid,
            };
            prop_assert_eq!(verdict.exit, expected, "{}", verdict.reason);
        }
        if verdict.exit == Exit::Target {
            prop_assert!(failed, "{}", verdict.reason);
        }
        for (who, exit) in [("target", Exit::Target), ("worker", Exit::Fleet)] {
            let blamed = verdict.reason.contains(&format!("simulated fault of the {who}"));
            prop_assert!(!blamed || verdict.exit == exit, "{}: {:?}", verdict.reason, verdict.exit);
        }
        if verdict.exit == Exit::Interrupted {
            prop_assert!(stopped);
        }
    }
}

#[test]
fn a_calm_run_goes_through_all_phases() {
    let world = run(Weather::fair(2));
    assert_eq!(world.finished, vec![Verdict::finished(Exit::Valid, "")]);
    let ended: Vec<(u32, u64)> = world
        .trace
        .iter()
        .filter_map(|c| if let Control::PhaseEnded(e) = c { Some((e.index.0, e.live)) } else { None })
        .filter(|(index, _)| *index < stage::BESIDE)
        .collect();
    assert_eq!(ended, [(0, 0), (1, 0), (2, 300), (3, 300), (4, 300), (5, 150), (6, 150), (7, 150), (8, 150)]);
}

#[test]
fn too_few_workers_end_the_run_with_the_fleet_code_and_a_fix() {
    let mut world = World::new(Weather::fair(1));
    world.workers.clear();
    (0..STEPS)
        .take_while(|step| {
            world.step(*step);
            !world.core.is_over()
        })
        .count();
    assert_eq!(world.finished[0].exit, Exit::Fleet);
    assert!(world.finished[0].reason.contains("0 of 1 workers"));
    assert!(!world.trace.iter().any(|c| matches!(c, Control::PhaseStarted(_))), "nothing begins");
}

#[test]
fn a_worker_that_goes_spoils_the_run_only_after_the_fleet_was_complete() {
    let goes = |world: &mut World, generation: Generation| {
        world.workers.get_mut(&generation).unwrap().gone = true;
        world.event(Event::StreamEnded(generation));
    };
    let lost = |world: &World| -> Vec<(u64, bool)> {
        let left = world.trace.iter().filter_map(|c| match c {
            Control::WorkerLeft { generation, lost, .. } => Some((generation.0, *lost)),
            _ => None,
        });
        left.collect()
    };
    let mut world = World::new(Weather::fair(2));
    world.workers.insert(Generation(80), Worker::default());
    world.says(Generation(80), Said::Hello(Box::new(arrival(Generation(80)))));
    goes(&mut world, Generation(80));
    assert_eq!(lost(&world), [(80, false)]);
    let world = run_on(world);
    assert_eq!(world.finished, vec![Verdict::finished(Exit::Valid, "")]);
    assert!(lost(&world).iter().all(|(_, lost)| !lost), "a valid run has lost nobody: {:?}", lost(&world));

    let mut world = World::new(Weather::fair(2));
    (0..STEPS)
        .take_while(|step| {
            world.step(*step);
            !world.trace.iter().any(|c| matches!(c, Control::PhaseStarted(_)))
        })
        .count();
    goes(&mut world, Generation(1));
    assert_eq!(lost(&world), [], "it may come back until its lease is over");
    for step in 0..=(LEASE_NS + 2 * SECOND_NS) / STEP_NS {
        world.step(step);
    }
    assert_eq!(lost(&world), [(1, true)]);
    assert_eq!(run_on(world).finished[0].exit, Exit::Fleet);
}
