//! The session in a world that does anything at any time: lanes that end in any order or fail, reads that fail,
//! a coordinator that comes and goes, time that passes in jumps.

mod world;

use proptest::prelude::*;

use self::world::{BESIDE, FakeState, LANES, World, arm, arm_beside};
use super::*;

#[test]
fn a_quiet_run_registers_loads_queries_and_leaves() {
    let mut world = World::new(9);
    world.begin("ingest");
    world.settle();
    assert_eq!((world.tally.started, world.tally.done, world.ranges_left), (1, 1, 0));
    assert_eq!(world.next_row, 2_700);
    world.tell(arm(2, "query"));
    world.settle();
    world.tell(FromCoordinator::Start(fleet::Start {
        phase: 2,
        at_coordinator_mono_ns: world.now,
        at_wall_ns: 6,
    }));
    world.settle();
    assert_eq!((world.tally.started, world.tally.done), (2, 1));
    world.tell(FromCoordinator::Drain(fleet::Drain { phase: 2 }));
    world.settle();
    assert_eq!(world.tally.done, 2);
    world.tell(FromCoordinator::Close(fleet::Close { reason: String::new() }));
    world.settle();
    assert_eq!(world.tally.left, vec![Departure::Closed]);
}

#[test]
fn without_a_coordinator_load_ends_with_the_lease_and_the_worker_a_minute_later() {
    let mut world = World::new(0);
    world.begin("query");
    let renewed = world.lease_until;
    world.connect(false);
    world.now = renewed - 1;
    world.happen(Event::Tick { unacknowledged: 0 });
    assert!(world.lanes.iter().all(|lane| !lane.fenced));
    assert_eq!(world.core.wake_at(), renewed);
    world.pass(1);
    assert!(world.lanes.iter().all(|lane| lane.fenced));
    world.pass(60 * SECOND_NS);
    assert_eq!(world.tally.left, vec![Departure::CoordinatorGone]);
}

#[test]
fn a_worker_that_is_asked_to_end_hands_back_what_it_holds_and_says_goodbye() {
    let mut world = World::new(100);
    world.begin("ingest");
    world.coordinator_step();
    world.coordinator_step();
    assert!(!world.ranges.is_empty(), "it holds ranges");
    world.outbox.clear();
    world.happen(Event::Stop);
    world.settle();
    // That each range was handed back before the statement is checked with the statement.
    assert_eq!((world.tally.started, world.tally.done, world.tally.goodbyes), (1, 1, 1));
    assert!(!world.outbox.iter().any(|m| matches!(m, ToCoordinator::Fault(_))), "that is no fault");
    assert_eq!(world.tally.left, vec![Departure::Stopped]);
}

#[test]
fn a_target_that_is_away_is_told_apart_from_a_worker_that_fails() {
    let mut world = World::new(0);
    world.settle();
    world.tell(arm(1, "query"));
    world.outbox.clear();
    world.task_step(0, true);
    let faults: Vec<bool> = world
        .outbox
        .iter()
        .filter_map(|m| if let ToCoordinator::Fault(fault) = m { Some(fault.target) } else { None })
        .collect();
    assert_eq!(faults, [true]);
}

#[test]
fn a_worker_that_comes_back_goes_on_and_says_what_it_could_not_say() {
    let mut world = World::new(9);
    world.begin("ingest");
    (0..3).for_each(|_| world.coordinator_step());
    assert_eq!((world.running, world.ranges.is_empty()), (Some(1), false));
    world.connect(false);
    for _ in 0..60 {
        world.task_step(0, false);
        (0..LANES as usize).for_each(|lane| world.lane_step(lane, false));
        world.pass(SECOND_NS / 50);
    }
    assert!(world.ranges.values().all(|lease| lease.handed_back == 0), "nobody is there to be told");
    world.settle();
    assert_eq!((world.tally.resumed, world.tally.started, world.tally.done), (1, 1, 1));
    assert_eq!(world.next_row, 2_700, "every range was leased, once");
}

#[test]
fn a_coordinator_that_says_nothing_is_left_for_another_before_the_lease_ends() {
    let mut world = World::new(0);
    world.core.config.others = true;
    world.begin("query");
    let heard = world.now;
    while world.connected {
        world.pass(SECOND_NS / 10);
        world.outbox.clear();
    }
    assert!(world.now - heard < 6 * SECOND_NS, "{}", world.now - heard);
    assert!(world.core.wants_stream());
    world.settle();
    assert_eq!((world.tally.resumed, world.running), (1, Some(1)), "the load went on");
}

#[test]
fn a_second_phase_is_refused_while_one_runs() {
    let mut world = World::new(0);
    world.begin("query");
    world.outbox.clear();
    world.tell(arm(2, "query"));
    let faults: Vec<_> = world.outbox.iter().filter(|m| matches!(m, ToCoordinator::Fault(_))).collect();
    assert_eq!(faults.len(), 1);
    assert_eq!(world.running, Some(1));
}

#[test]
fn what_runs_beside_a_phase_has_lanes_of_its_own_and_a_statement_of_its_own() {
    let mut world = World::new(0);
    world.begin("query");
    world.outbox.clear();
    world.tell(arm_beside(1, 1));
    world.settle();
    let start =
        |phase, at| FromCoordinator::Start(fleet::Start { phase, at_coordinator_mono_ns: at, at_wall_ns: 0 });
    world.tell(start(1 + BESIDE, world.now));
    world.settle();
    let running = |world: &World, phase: u32| {
        world.lanes.iter().filter(|l| l.state == FakeState::Running && l.phase.0 == phase).count()
    };
    assert_eq!((running(&world, 1), running(&world, 1 + BESIDE)), (2, 2));
    world.tell(FromCoordinator::Drain(fleet::Drain { phase: 1 + BESIDE }));
    world.settle();
    assert_eq!((running(&world, 1), running(&world, 1 + BESIDE)), (2, 0), "the phase itself goes on");
    assert_eq!((world.running, world.tally.done), (Some(1), 0));
    world.drain(1);
    world.settle();
    assert_eq!((world.running, world.tally.done), (None, 1));
}

proptest! {
    /// The assertions are in the world: one phase at a time, no load without a lease, each leased range handed back
    /// once with the rows that ended well, `PhaseDone` after everything it speaks for.
    #[test]
    fn the_laws_hold_whatever_happens(
        ranges in 0u32..30, begun: bool, resumes: bool, others: bool, deeds in prop::collection::vec((0u8..40, any::<u16>()), 0..300),
    ) {
        let mut world = World::new(ranges);
        world.resumes = resumes;
        world.core.config.others = others;
        let mut phase = 0;
        if begun {
            phase = 1;
            world.begin("ingest");
        }
        for (deed, number) in deeds {
            let pick = usize::from(number);
            match deed {
                0..=8 => world.lane_step(pick % world.lanes.len().max(1), false),
                9 => world.lane_step(pick % world.lanes.len().max(1), number % 7 == 0),
                10..=16 => world.task_step(pick, false),
                17 => world.task_step(pick, true),
                18..=26 => world.coordinator_step(),
                27 => {
                    phase += 1;
                    world.tell(arm(phase, if number % 3 == 0 { "query" } else { "ingest" }));
                }
                37 => world.tell(arm_beside(phase, 1 + u32::from(number % 2))),
                28 | 29 | 38 => {
                    let at_coordinator_mono_ns = world.now + u64::from(number);
                    let phase = if deed == 38 { phase + BESIDE * (1 + u32::from(number % 2)) } else { phase };
                    world.tell(FromCoordinator::Start(fleet::Start { phase, at_coordinator_mono_ns, at_wall_ns: 0 }));
                }
                30 if number % 4 == 0 => world.drain(phase),
                31 if number % 8 == 0 => world.connect(false),
                32 | 33 => world.connect(true),
                34 if number % 50 == 0 => world.tell(FromCoordinator::Close(fleet::Close { reason: String::new() })),
                35 if number % 50 == 0 => world.happen(Event::Stop),
                36 => world.pass(u64::from(number) * 100_000),
                _ => world.pass(u64::from(number) * 1_000),
            }
        }
        // Whatever happened: a phase that runs can be brought to its end, and the run can be closed.
        world.settle();
        (0..=phase).for_each(|phase| world.drain(phase));
        world.settle();
        prop_assert!(world.running.is_none(), "phase {:?} never ends", world.running);
        prop_assert!(world.core.phases.is_empty(), "something beside a phase never ends");
        world.tell(FromCoordinator::Close(fleet::Close { reason: String::new() }));
        world.settle();
        prop_assert_eq!(world.tally.left.len(), 1);
    }
}
