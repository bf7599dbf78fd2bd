//! Recall is taken on the very requests whose latency is reported.

use vst_common::ground_truth::TruthList;
use vst_common::recall::{QueryJudge, RecallCell};

use super::*;

/// The key of a row as the plan writes it, or one that is not of the plan.
fn key(row: u32) -> String {
    if row == u32::MAX { String::from("q:1") } else { format!("p:{row:012}") }
}

/// What a node answers: rows with their distances.
fn knn_reply(hits: &[(u32, f64)]) -> Vec<u8> {
    let mut out = format!("*{}\r\n:{}\r\n", 1 + 2 * hits.len(), hits.len());
    for (row, distance) in hits {
        let (key, distance) = (key(*row), distance.to_string());
        let alias = vst_common::search::SCORE_ALIAS;
        out += &format!("${}\r\n{key}\r\n*2\r\n", key.len());
        out += &format!("${}\r\n{alias}\r\n${}\r\n{distance}\r\n", alias.len(), distance.len());
    }
    out.into_bytes()
}

/// Queries whose truth is rows 1 and 2, asked of every node.
fn judged(nodes: u16, warm_up_ns: u64) -> Simulation {
    let live = LiveSet { cut: 1000, ..LiveSet::empty(1, 1000, 1) };
    let truth = TruthList { ids: &[1, 2, 3, 4], distances: &[0.1, 0.2, 0.3, 0.4] };
    let judge = QueryJudge::build(truth, 0, 2, &live, |_| None);
    let work = Work::Query {
        vectors: vectors(nodes, true),
        ask: vst_common::scenario::Ask::nearest(2, None),
        during: None,
    };
    let load = Load::Open { arrival: Arrival::Constant { rate: 10.0 }, connections: 1 };
    let mut phase = phase(nodes, work, load, 500 * MS);
    let own = Arc::get_mut(&mut phase).unwrap();
    own.order.warm_up_ns = warm_up_ns;
    own.queries =
        Some(Arc::new(QuerySet { blobs: vec![vec![0; 4]], judges: vec![judge], pairs: vec![(0, 0)] }));
    Simulation::new(phase)
}

/// Answers every part in flight: node 0 with `first`, all others with `other`.
fn answer_all(simulation: &mut Simulation, first: &[u8], other: &[u8]) {
    let busy: Vec<(usize, usize)> = simulation.in_flight.iter().map(|(l, q)| (*l, q.len())).collect();
    for (link, parts) in busy {
        let node = simulation.pipeline.links[link].node;
        for _ in 0..parts {
            simulation.in_flight.get_mut(&link).unwrap().pop_front();
            let reply = if node == 0 { first } else { other };
            simulation.pipeline.reply(link, reply, simulation.now).unwrap();
        }
    }
    simulation.collect();
}

fn recall(simulation: &mut Simulation) -> BTreeMap<Window, RecallCell> {
    let mut sums: BTreeMap<Window, RecallCell> = BTreeMap::new();
    for (_, window, cell) in simulation.pipeline.recorder().take(u64::MAX / 2, true).recall {
        sums.entry(window).or_default().merge(&cell);
    }
    sums
}

#[test]
fn parts_of_all_nodes_are_merged_by_distance_before_they_are_judged() {
    let mut simulation = judged(2, 0);
    // Each node alone has one of the two neighbours, and a row that is farther than the other node's.
    let (first, other) = (knn_reply(&[(1, 0.1), (7, 0.9)]), knn_reply(&[(2, 0.2), (8, 0.8)]));
    while !simulation.pipeline.is_done(simulation.now) {
        simulation.step(10 * MS);
        answer_all(&mut simulation, &first, &other);
    }
    let cell = recall(&mut simulation)[&Window::Measure].clone();
    assert_eq!((cell.queries, cell.hits, cell.possible, cell.partial), (10, 20, 20, 0));
    let per_query = simulation.pipeline.recorder().take_per_query();
    assert_eq!(per_query.iter().map(|(query, cell)| (*query, cell.queries)).collect::<Vec<_>>(), [(0, 10)]);
}

#[test]
fn misses_strangers_and_short_answers_are_counted_and_the_warm_up_stands_apart() {
    let mut simulation = judged(1, 500 * MS);
    while !simulation.pipeline.is_done(simulation.now) {
        simulation.step(10 * MS);
        // In the warm-up every neighbour is found; afterwards one is, beside a key that is not ours, or one alone.
        let reply = match simulation.now / MS {
            0..500 => knn_reply(&[(1, 0.1), (2, 0.2)]),
            500..1000 => knn_reply(&[(u32::MAX, 0.0), (1, 0.1), (2, 0.2)]),
            _ => knn_reply(&[(9, 0.1)]),
        };
        answer_all(&mut simulation, &reply, &reply);
    }
    let sums = recall(&mut simulation);
    let (warm, measured) = (&sums[&Window::WarmUp], &sums[&Window::Measure]);
    assert_eq!((warm.queries, warm.hits, warm.possible), (5, 10, 10));
    assert_eq!((measured.queries, measured.hits, measured.possible), (10, 5, 20));
    assert_eq!((measured.contamination, measured.partial), (5, 5));
    let per_query = simulation.pipeline.recorder().take_per_query();
    assert_eq!(per_query[0].1.queries, 10, "per query only what was measured");
    let knn = simulation.windows();
    assert_eq!(
        knn.get(&(Window::Measure, String::from("knn"))).map(|c| c.partial),
        None,
        "already handed over with the recall"
    );
}

#[test]
fn a_query_that_timed_out_or_failed_is_not_judged() {
    let mut simulation = judged(2, 0);
    let good = knn_reply(&[(1, 0.1), (2, 0.2)]);
    simulation.step(MS);
    answer_all(&mut simulation, b"-ERR no such index\r\n", &good);
    simulation.step(600 * MS);
    simulation.step(600 * MS);
    answer_all(&mut simulation, &good, &good);
    simulation.run_out();
    let totals = simulation.pipeline.totals();
    assert!(totals.timeout > 0 && totals.errors == 10 - totals.timeout - totals.ok);
    let judged = recall(&mut simulation).get(&Window::Measure).map_or(0, |cell| cell.queries);
    assert_eq!(judged, totals.ok, "what is judged is what answered well in time");
}
