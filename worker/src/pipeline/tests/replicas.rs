//! Reads from replicas: who gets what, and what a refusal or a failover changes.

use vst_common::scenario::{ConnectionSpec, Protocol, ReadFrom};

use super::*;

/// Each of two primaries has a replica, at positions 2 and 3; every query is asked of both indexes.
fn replicated(read_from: ReadFrom, work: Work) -> Arc<ArmedPhase> {
    let plain = phase(2, work, Load::Closed { clients: 4, pipeline: 1 }, 1000 * MS);
    let mut topology = topology(2);
    for i in 0..2u16 {
        let (id, of) = (NodeId::new(format!("r{i}")), Some(NodeId::new(format!("n{i}"))));
        topology.nodes.push(Node { id, host: String::from("h"), port: 7100 + i, primary: false, of });
    }
    Arc::new(ArmedPhase {
        order: PhaseOrder {
            beside: None,
            connection: ConnectionSpec { protocol: Protocol::Resp2, read_from },
            ..plain.order.clone()
        },
        topology: Arc::new(topology),
        queries: plain.queries.clone(),
    })
}

fn queries(read_from: ReadFrom) -> Simulation {
    let ask = vst_common::scenario::Ask::nearest(1, None);
    Simulation::new(replicated(read_from, Work::Query { vectors: vectors(2, true), ask, during: None }))
}

/// Commands answered by each node, until so many were.
fn asked(simulation: &mut Simulation, answers: usize) -> BTreeMap<u16, usize> {
    let mut asked = BTreeMap::new();
    for turn in 0..answers {
        simulation.step(MS);
        let busy: Vec<usize> =
            simulation.in_flight.iter().filter(|(_, q)| !q.is_empty()).map(|(link, _)| *link).collect();
        let link = busy[turn % busy.len()];
        *asked.entry(simulation.pipeline.links[link].node).or_default() += 1;
        simulation.answer(turn, &Answer::Well);
    }
    asked
}

#[test]
fn each_part_of_a_query_goes_where_the_scenario_says() {
    assert_eq!(queries(ReadFrom::Primary).pipeline.links(), 8, "replicas have no connections without need");
    let nodes = |read_from| asked(&mut queries(read_from), 400).into_keys().collect::<Vec<_>>();
    assert_eq!(nodes(ReadFrom::Primary), [0, 1]);
    assert_eq!(nodes(ReadFrom::PreferReplica), [2, 3]);
    let shared = asked(&mut queries(ReadFrom::RoundRobin), 400);
    assert_eq!(shared.len(), 4);
    assert!(shared.values().all(|n| (60..=140).contains(n)), "in turn: {shared:?}");
}

#[test]
fn what_a_replica_refuses_is_asked_of_its_primary_and_rows_never_go_there() {
    let mut simulation = queries(ReadFrom::PreferReplica);
    simulation.step(MS);
    let busy: Vec<usize> = simulation.in_flight.keys().copied().collect();
    let link = *busy.iter().find(|link| simulation.pipeline.links[**link].node == 2).unwrap();
    simulation.in_flight.get_mut(&link).unwrap().pop_front().unwrap();
    simulation.pipeline.reply(link, b"-LOADING the dataset in memory\r\n", simulation.now).unwrap();
    simulation.step(500 * MS);
    let to_primary = |simulation: &Simulation| {
        let links = simulation.in_flight.iter().filter(|(_, q)| !q.is_empty()).map(|(link, _)| *link);
        links.filter(|link| simulation.pipeline.links[*link].node == 0).count()
    };
    assert_eq!(to_primary(&simulation), 1, "its next attempt");

    let mut rows = Simulation::new(replicated(ReadFrom::RoundRobin, Work::Ingest(vectors(2, false))));
    let cells: Vec<(u32, u64)> = (0..40).map(|row| (0, row)).collect();
    rows.pipeline.give(RowBlock { id: 1, rows: cells, vectors: vec![0; 160], ..RowBlock::default() });
    rows.pipeline.no_more_rows();
    assert!(asked(&mut rows, 40).into_keys().all(|node| node < 2));
}

#[test]
fn a_promoted_replica_is_asked_as_a_primary_and_one_that_is_gone_not_at_all() {
    let mut simulation = queries(ReadFrom::PreferReplica);
    simulation.step(MS);
    // r0 took over from n0, which is gone; r1 is gone too.
    let known = &simulation.pipeline.phase.topology.nodes;
    let mut nodes = vec![known[1].clone(), known[2].clone()];
    (nodes[1].primary, nodes[1].of) = (true, None);
    let slots = (0..16384).map(|slot| Some(u16::from(slot < 8192))).collect();
    simulation.pipeline.adopt(&Layout { nodes, slots }, simulation.now);
    while simulation.in_flight.values().any(|q| !q.is_empty()) && simulation.now < 100 * MS {
        simulation.answer(0, &Answer::Well);
        simulation.now += MS;
    }
    let asked = asked(&mut simulation, 100);
    assert_eq!(asked.into_keys().collect::<Vec<_>>(), [1, 2]);
}
