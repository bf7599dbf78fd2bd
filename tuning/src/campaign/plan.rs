//! The cheapest way from a state to one in which nothing is left to do.
//!
//! Uniform-cost search (Dijkstra 1959) over states that are found by making moves; fed with a space by whoever plans, and
//! again after every step, because a plan holds only as long as what is known. Laws: no other way costs less, and of those
//! that cost the same none weighs less; the same space gives the same way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// What can be done where.
pub(crate) trait Space {
    type State: Clone + Ord;
    type Move: Clone;

    /// Whether nothing is left to do.
    fn is_end(&self, state: &Self::State) -> bool;

    /// What may be done, what it costs and where it leads.
    fn moves(&self, state: &Self::State) -> Vec<(Self::Move, Cost, Self::State)>;
}

/// What a move costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    pub(crate) price: u64,
    /// Decides between ways of the same price.
    pub(crate) weight: u64,
}

impl Cost {
    pub(crate) fn and(self, other: Self) -> Self {
        let (price, weight) =
            (self.price.saturating_add(other.price), self.weight.saturating_add(other.weight));
        Self { price, weight }
    }
}

/// A way and its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way<M> {
    /// Each move with what it costs.
    pub(crate) moves: Vec<(M, u64)>,
    /// Of all moves.
    pub(crate) cost: Cost,
}

/// A state that was found, and the move that led there from another.
type Found<S, M> = (S, Option<(usize, M, u64)>);

/// The cheapest way; `None` where none leads to an end.
pub(crate) fn cheapest<S: Space>(space: &S, start: &S::State) -> Option<Way<S::Move>> {
    let mut open = BinaryHeap::from([Reverse((Cost::default(), 0_usize))]);
    let mut found: Vec<Found<S::State, S::Move>> = vec![(start.clone(), None)];
    let mut best = BTreeMap::from([(start.clone(), Cost::default())]);
    let mut closed = BTreeSet::new();
    while let Some(Reverse((cost, at))) = open.pop() {
        let (state, _) = found.get(at)?;
        let state = state.clone();
        if !closed.insert(state.clone()) {
            continue;
        }
        if space.is_end(&state) {
            return Some(Way { moves: back(&found, at), cost });
        }
        for (made, price, next) in space.moves(&state) {
            let reached = cost.and(price);
            if closed.contains(&next) || best.get(&next).is_some_and(|known| *known <= reached) {
                continue;
            }
            best.insert(next.clone(), reached);
            open.push(Reverse((reached, found.len())));
            found.push((next, Some((at, made, price.price))));
        }
    }
    None
}

/// The moves that led to a state.
fn back<S, M: Clone>(found: &[Found<S, M>], mut at: usize) -> Vec<(M, u64)> {
    let mut moves = Vec::new();
    while let Some((_, Some((from, made, price)))) = found.get(at) {
        moves.push((made.clone(), *price));
        at = *from;
    }
    moves.reverse();
    moves
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
