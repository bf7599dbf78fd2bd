use proptest::prelude::*;

use super::*;

/// States are numbers; moves are edges.
#[derive(Clone, Debug)]
struct Graph {
    edges: Vec<(usize, usize, Cost)>,
    ends: BTreeSet<usize>,
}

impl Space for Graph {
    type State = usize;
    type Move = usize;

    fn is_end(&self, state: &usize) -> bool {
        self.ends.contains(state)
    }

    fn moves(&self, state: &usize) -> Vec<(usize, Cost, usize)> {
        let from = self.edges.iter().enumerate().filter(|(_, (a, _, _))| a == state);
        from.map(|(i, (_, b, cost))| (i, *cost, *b)).collect()
    }
}

/// Cost of the best of all ways that come nowhere twice.
fn by_trying_all(graph: &Graph, at: usize, seen: &mut Vec<usize>) -> Option<Cost> {
    if graph.is_end(&at) {
        return Some(Cost::default());
    }
    seen.push(at);
    let mut best = None;
    for (_, cost, next) in graph.moves(&at) {
        if !seen.contains(&next)
            && let Some(rest) = by_trying_all(graph, next, seen)
        {
            let way = cost.and(rest);
            best = Some(best.map_or(way, |known: Cost| known.min(way)));
        }
    }
    seen.pop();
    best
}

fn graphs() -> impl Strategy<Value = Graph> {
    let cost = (0..6_u64, 0..3_u64).prop_map(|(price, weight)| Cost { price, weight });
    let edges = prop::collection::vec((0..7_usize, 0..7_usize, cost), 0..22);
    (edges, prop::collection::btree_set(1..7_usize, 0..3)).prop_map(|(edges, ends)| Graph { edges, ends })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_other_way_is_cheaper_and_none_as_cheap_weighs_less(graph in graphs()) {
        let found = cheapest(&graph, &0);
        let expected = by_trying_all(&graph, 0, &mut Vec::new());
        prop_assert_eq!(found.as_ref().map(|way| way.cost), expected);
    }

    #[test]
    fn a_way_is_made_of_moves_that_there_are_and_ends_at_an_end(graph in graphs()) {
        if let Some(way) = cheapest(&graph, &0) {
            let mut at = 0;
            let mut sum = 0;
            for (edge, cost) in &way.moves {
                let (a, b, price) = graph.edges[*edge];
                prop_assert_eq!((a, price.price), (at, *cost));
                (at, sum) = (b, sum + price.price);
            }
            prop_assert!(graph.is_end(&at));
            prop_assert_eq!(sum, way.cost.price);
        }
    }
}
