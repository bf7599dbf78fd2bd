//! A node fails, another takes its slots: what waits follows, what was refused is tried again, memory has an end.

use super::*;

const DOWN: &str = "-CLUSTERDOWN The cluster is down\r\n";

fn rows(nodes: u16, count: u64, timeout_ns: u64) -> Simulation {
    let mut simulation = Simulation::new(ingest(nodes, 4, 1, timeout_ns));
    let rows: Vec<(u32, u64)> = (0..count).map(|row| (0, row)).collect();
    simulation.pipeline.give(RowBlock {
        id: 1,
        vectors: vec![0; rows.len() * 4],
        rows,
        ..RowBlock::default()
    });
    simulation.pipeline.no_more_rows();
    simulation.step(MS);
    simulation
}

fn node_of(simulation: &Simulation, link: usize) -> u16 {
    simulation.pipeline.links[link].node
}

#[test]
fn a_row_is_tried_until_the_cluster_serves_again_and_a_query_until_its_timeout() {
    let mut simulation = rows(1, 1, 100 * MS);
    let mut refused = 0;
    while simulation.now < 3_000 * MS {
        refused += u64::from(simulation.in_flight.values().any(|queue| !queue.is_empty()));
        simulation.answer(0, &Answer::Error(DOWN));
        simulation.step(10 * MS);
    }
    assert!((8..60).contains(&refused), "with growing pauses, and no longer than the largest: {refused}");
    simulation.run_out();
    let hset = simulation.cells().remove("hset").unwrap();
    assert_eq!((hset.attempts_rejected, hset.attempts_executed, hset.timeout), (refused, 1, 1));
    assert_eq!(simulation.rows_seen.len(), 1, "the row is there");

    let mut simulation = Simulation::new(open_queries(1, false, 1.0, 1, 300 * MS));
    while simulation.now < 900 * MS {
        simulation.answer(0, &Answer::Error(DOWN));
        simulation.step(10 * MS);
    }
    let knn = simulation.cells().remove("knn").unwrap();
    assert_eq!((knn.due, knn.timeout, knn.answered_errors()), (1, 1, 0), "refused is not answered");
    assert!(knn.attempts_rejected >= 4, "{}", knn.attempts_rejected);
    assert!(simulation.happened("cluster_down"));
    assert!(simulation.pipeline.take_doubt(), "somebody is to ask who serves now");
}

#[test]
fn what_waits_for_a_node_that_is_gone_follows_its_slots() {
    let mut simulation = rows(2, 40, 60_000 * MS);
    let gone: Vec<usize> =
        (0..simulation.pipeline.links()).filter(|l| node_of(&simulation, *l) == 0).collect();
    for link in &gone {
        simulation.server.cut +=
            u64::try_from(simulation.in_flight.remove(link).map_or(0, |q| q.len())).unwrap();
        simulation.scanners.remove(link);
        simulation.pipeline.link_down(*link, simulation.now);
    }
    assert!(simulation.pipeline.take_doubt());
    // Only the other node answers: all clients end up waiting for the one that is gone.
    for _ in 0..200 {
        simulation.answer(0, &Answer::Well);
        simulation.step(MS);
    }
    assert!(simulation.rows_seen.len() < 40 && simulation.in_flight.values().all(VecDeque::is_empty));
    // A replica takes over.
    simulation.lay_out([Some(2), None, None]);
    simulation.lay_out([None, Some(1), Some(1)]);
    assert_eq!(simulation.pipeline.routes.owners().len(), 2);
    simulation.run_out();
    let hset = simulation.cells().remove("hset").unwrap();
    assert_eq!((hset.due, hset.ok, simulation.rows_seen.len()), (40, 40, 40));
    check_accounting(&simulation, &hset).unwrap();
    for kind in ["node_unreachable", "topology_changed", "role_changed"] {
        assert!(simulation.happened(kind), "{kind}");
    }
}

#[test]
fn a_demoted_node_that_stays_silent_is_not_waited_for() {
    let mut simulation = rows(2, 4, 500 * MS);
    simulation.lay_out([Some(1), Some(1), Some(1)]);
    assert!(simulation.pipeline.take_useless().is_empty(), "it may still answer");
    simulation.step(600 * MS);
    let useless: BTreeSet<usize> = simulation.pipeline.take_useless().into_iter().collect();
    assert!(!useless.is_empty() && useless.iter().all(|link| node_of(&simulation, *link) == 0));
    for link in useless {
        simulation.server.cut +=
            u64::try_from(simulation.in_flight.remove(&link).map_or(0, |q| q.len())).unwrap();
        simulation.pipeline.link_down(link, simulation.now);
    }
    simulation.run_out();
    let hset = simulation.cells().remove("hset").unwrap();
    assert_eq!(simulation.rows_seen.len(), 4);
    assert!(hset.repair > 0 && hset.timeout > 0);
    check_accounting(&simulation, &hset).unwrap();
}

#[test]
fn a_part_of_a_query_follows_its_index_to_the_promoted_replica() {
    let mut simulation = Simulation::new(open_queries(2, true, 10.0, 1, 5_000 * MS));
    simulation.step(MS);
    // The first half of the slots, and with it the index of the first node, belongs to a stranger now.
    let link = *simulation.in_flight.keys().find(|link| node_of(&simulation, **link) == 0).unwrap();
    let sent = simulation.in_flight.get_mut(&link).unwrap().pop_front().unwrap();
    let anchor = simulation.pipeline.requests.anchors()[0];
    simulation.server.rejected += 1;
    let moved = format!("-MOVED {anchor} stranger:7777\r\n");
    simulation.pipeline.reply(link, moved.as_bytes(), simulation.now).unwrap();
    simulation.step(MS);
    simulation.step(MS);
    let (there, again) =
        simulation.in_flight.iter().find(|(link, _)| node_of(&simulation, **link) == 2).unwrap();
    assert_eq!(again[0], sent, "the same part on {there}");
    simulation.run_out();
    let cells = simulation.cells();
    let (knn, part) = (&cells["knn"], &cells["knn_part"]);
    assert_eq!((knn.due, knn.ok), (10, 10));
    assert_eq!((part.due, part.sent, part.ok), (20, 20, 20), "a part is one part, however often it is sent");
    check_accounting(&simulation, part).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_falls_due_for_a_node_that_is_away_takes_no_more_room_than_there_is_and_is_counted(
        room in 1usize..50,
        rate in 100f64..1000.0,
        back_ms in prop::option::of(0u64..1500),
    ) {
        let mut simulation = Simulation::new(open_queries(1, false, rate, 2, 1_000 * MS));
        simulation.pipeline.room = room;
        for link in 0..2 {
            simulation.pipeline.link_down(link, 0);
        }
        let mut up = false;
        while !simulation.pipeline.is_done(simulation.now) {
            prop_assert!(simulation.pipeline.nodes[0].backlog.len() <= room);
            simulation.now += 5 * MS;
            if !up && back_ms.is_some_and(|at| simulation.now >= at * MS) {
                up = true;
                simulation.pipeline.link_up(0, simulation.now);
                simulation.pipeline.link_up(1, simulation.now);
            }
            simulation.pipeline.pump(simulation.now);
            simulation.collect();
            while simulation.in_flight.values().any(|queue| !queue.is_empty()) {
                simulation.answer(0, &Answer::Well);
                simulation.pipeline.pump(simulation.now);
                simulation.collect();
            }
            prop_assert!(simulation.now < 60_000 * MS);
        }
        let totals = simulation.pipeline.totals();
        let knn = simulation.cells().remove("knn").unwrap();
        prop_assert_eq!(Some(knn.due), Schedule::of_order(&simulation.pipeline.phase.order).unwrap().count());
        prop_assert_eq!((knn.ended(), totals.unsent), (knn.due, knn.unsent));
        prop_assert_eq!(knn.ok + knn.unsent, knn.due);
        prop_assert_eq!(knn.response.as_ref().map_or(0, |h| h.len()), knn.due, "each has its age");
        if back_ms.is_none() {
            prop_assert_eq!(knn.ok, 0);
            prop_assert!(simulation.happened("node_unreachable"));
        }
    }
}

#[test]
fn a_row_phase_whose_primary_nobody_replaces_ends_and_says_why() {
    let mut simulation = rows(2, 40, 100 * MS);
    let gone: Vec<usize> =
        (0..simulation.pipeline.links()).filter(|l| node_of(&simulation, *l) == 0).collect();
    let gave_up = |simulation: &Simulation| {
        simulation.events.iter().any(|event| matches!(event, LaneEvent::GaveUp { .. }))
    };
    for link in &gone {
        simulation.in_flight.remove(link);
        simulation.scanners.remove(link);
        simulation.pipeline.link_down(*link, simulation.now);
    }
    while simulation.now < 29_900 * MS {
        simulation.answer(0, &Answer::Well);
        simulation.step(100 * MS);
    }
    assert!(!gave_up(&simulation), "a replica may still take over");
    while simulation.now < 31_000 * MS {
        simulation.step(100 * MS);
    }
    assert!(gave_up(&simulation), "{:?}", simulation.events);
    simulation.step(super::super::DRAIN_NS);
    assert!(simulation.pipeline.is_done(simulation.now));
    simulation.pipeline.give_back_rows();
    simulation.collect();
    let (mut ok, mut failed) = (0, 0);
    for event in &simulation.events {
        if let LaneEvent::BlockDone { ok: o, failed: f, .. } = event {
            (ok, failed) = (ok + o, failed + f);
        }
    }
    assert_eq!(ok, u64::try_from(simulation.rows_seen.len()).unwrap());
    assert!(failed > 0 && ok + failed < 41, "{ok} written, {failed} named as failed");
}

#[test]
fn a_cluster_that_stays_down_ends_a_row_phase_and_one_that_comes_back_in_time_does_not() {
    for (down_for, gives_up) in [(25_000 * MS, false), (31_000 * MS, true)] {
        let mut simulation = rows(1, 8, 100 * MS);
        while simulation.now < down_for {
            simulation.answer(0, &Answer::Error(DOWN));
            simulation.step(10 * MS);
        }
        let reasons: Vec<&String> = simulation
            .events
            .iter()
            .filter_map(|event| match event {
                LaneEvent::GaveUp { reason } => Some(reason),
                _ => None,
            })
            .collect();
        assert_eq!(reasons.len(), usize::from(gives_up), "once: {reasons:?}");
        assert!(reasons.iter().all(|reason| reason.contains("CLUSTERDOWN")), "{reasons:?}");
        simulation.run_out();
        assert_eq!(simulation.rows_seen.len() == 8, !gives_up, "{:?}", simulation.rows_seen.len());
    }
}
