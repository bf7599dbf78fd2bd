//! Redirects, one at a time: where the next attempt goes, and what comes before it.

use super::*;

/// One row, sent to the first node.
fn one_row(nodes: u16) -> Simulation {
    let mut simulation = Simulation::new(ingest(nodes, 1, 1, 1000 * MS));
    simulation.pipeline.give(RowBlock {
        id: 1,
        rows: vec![(0, 5)],
        vectors: vec![0; 4],
        ..RowBlock::default()
    });
    simulation.pipeline.no_more_rows();
    simulation.step(MS);
    simulation
}

/// The connection and the commands that are in flight; only one connection has any.
fn wire(simulation: &mut Simulation) -> (usize, Vec<Vec<u8>>) {
    simulation.step(0);
    let busy: Vec<_> = simulation.in_flight.iter().filter(|(_, q)| !q.is_empty()).collect();
    assert_eq!(busy.len(), 1, "one connection is busy");
    (*busy[0].0, busy[0].1.iter().cloned().collect())
}

fn reply(simulation: &mut Simulation, link: usize, reply: &[u8]) {
    simulation.in_flight.get_mut(&link).unwrap().pop_front().unwrap();
    simulation.pipeline.reply(link, reply, simulation.now).unwrap();
}

#[test]
fn ask_goes_to_the_other_node_behind_asking_and_the_map_stays_as_it_was() {
    let mut simulation = one_row(2);
    let (link, sent) = wire(&mut simulation);
    let (from, before) = (simulation.pipeline.links[link].node, simulation.pipeline.routes.clone());
    reply(&mut simulation, link, format!("-ASK 5 h:{}\r\n", 7001 - from).as_bytes());
    let (asked, again) = wire(&mut simulation);
    assert_eq!(simulation.pipeline.links[asked].node, 1 - from);
    assert_eq!(again[0], b"*1\r\n$6\r\nASKING\r\n");
    assert_eq!(again[1..], sent[..], "the same command, right behind it");
    assert_eq!(simulation.pipeline.routes, before, "the slot still belongs to the node that asks away");
    assert!(simulation.happened("ask"));
}

#[test]
fn moved_to_a_stranger_opens_connections_there_and_waits_for_them() {
    let mut simulation = one_row(2);
    let (link, sent) = wire(&mut simulation);
    let slot = vst_common::keys::slot(b"p:000000000005");
    let before = simulation.pipeline.links();
    reply(&mut simulation, link, format!("-MOVED {slot} far.example:7777\r\n").as_bytes());
    simulation.pipeline.pump(simulation.now);
    simulation.collect();
    assert!(simulation.in_flight.values().all(VecDeque::is_empty), "nothing can be sent there yet");
    let added: Vec<usize> = (before..simulation.pipeline.links()).collect();
    assert_eq!(added.len(), 1, "as many connections as any node has");
    let (_, host, port) = simulation.pipeline.address(added[0]).unwrap();
    assert_eq!((host, port), ("far.example", 7777));
    let (there, again) = wire(&mut simulation);
    assert_eq!((there, again), (added[0], sent), "the same command, once a connection is there");
    let owner = simulation.pipeline.routes.owner(slot);
    assert_eq!(simulation.pipeline.nodes[usize::from(owner)].host, "far.example", "and the slot is known");
    assert!(simulation.happened("node_joined"));
}

#[test]
fn a_query_that_waits_for_a_node_which_never_comes_ends_and_frees_its_place() {
    let work = Work::Query {
        vectors: vectors(1, false),
        ask: vst_common::scenario::Ask::nearest(1, None),
        during: None,
    };
    let mut simulation = Simulation::new(phase(1, work, Load::Closed { clients: 1, pipeline: 1 }, 100 * MS));
    simulation.step(MS);
    let (link, _) = wire(&mut simulation);
    reply(&mut simulation, link, b"-MOVED 5 gone.example:7777\r\n");
    // The stranger gets no connection: only time passes.
    simulation.now += 200 * MS;
    simulation.pipeline.pump(simulation.now);
    simulation.collect();
    assert_eq!(simulation.pipeline.totals().timeout, 1, "it timed out");
    assert_eq!(simulation.pipeline.totals().sent, 2, "and the client goes on with the next");
    simulation.run_out();
    let knn = simulation.cells().remove("knn").unwrap();
    assert_eq!((knn.due, knn.timeout), (knn.ended(), 1));
}
