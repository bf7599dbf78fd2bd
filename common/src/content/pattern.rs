//! Which of several weighted operations request n is, and how many of the same came before it.
//!
//! Operations follow a fixed shuffled pattern as long as the sum of their weights, turned by another amount in each
//! round so that it does not fall in step with the deal of shares. Law: each whole round holds each operation exactly
//! as often as its weight says, and ranks count up without a gap, so that any worker knows by arithmetic which key or
//! row the n-th request touches.

use crate::count;
use crate::seed::{Draw, mix};

/// Keeps the shuffle apart from the numbers that requests draw.
const SHUFFLE: u64 = 0x5EED_0F_7A77E2;

/// The pattern of a phase.
#[derive(Clone, Debug)]
pub struct Pattern {
    seed: u64,
    table: Vec<usize>,
    /// Per operation: its places in the table, ascending.
    places: Vec<Vec<u64>>,
}

impl Pattern {
    /// A pattern of operations with these weights; a weight of 0 never comes.
    #[must_use]
    pub fn new(weights: &[u32], seed: u64, phase: u32) -> Self {
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        let mut table: Vec<usize> = Vec::new();
        for (operation, weight) in weights.iter().enumerate() {
            table.extend((0..weight / divisor).map(|_| operation));
        }
        let mut draw = Draw::new(seed ^ SHUFFLE, phase, u64::MAX);
        for i in (1..table.len()).rev() {
            let j = count::index(draw.below(count::len(i) + 1));
            table.swap(i, j);
        }
        let mut places = vec![Vec::new(); weights.len()];
        for (place, operation) in table.iter().enumerate() {
            if let Some(list) = places.get_mut(*operation) {
                list.push(count::len(place));
            }
        }
        Self { seed: draw.next_u64(), table, places }
    }

    /// Length of the pattern of these weights.
    #[must_use]
    pub fn length_of(weights: &[u32]) -> u64 {
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        weights.iter().map(|weight| u64::from(weight / divisor)).sum()
    }

    fn length(&self) -> u64 {
        count::len(self.table.len()).max(1)
    }

    /// Round of request `n`, by how much the round is turned, and the place within the round.
    fn locate(&self, n: u64) -> (u64, u64, u64) {
        let length = self.length();
        let round = n / length;
        (round, mix(self.seed ^ round) % length, n % length)
    }

    /// Which operation request `n` is.
    #[must_use]
    pub fn operation(&self, n: u64) -> usize {
        if self.table.len() <= 1 {
            return self.table.first().copied().unwrap_or(0);
        }
        let (_, turn, place) = self.locate(n);
        let place = (turn + place) % self.length();
        self.table.get(count::index(place)).copied().unwrap_or(0)
    }

    /// How many requests below `n` are of this operation.
    #[must_use]
    pub fn before(&self, operation: usize, n: u64) -> u64 {
        let Some(places) = self.places.get(operation) else { return 0 };
        let (round, turn, place) = self.locate(n);
        let below = |end: u64| count::len(places.partition_point(|p| *p < end));
        let whole = count::len(places.len());
        let end = turn + place;
        let within = if end <= self.length() {
            below(end) - below(turn)
        } else {
            whole - below(turn) + below(end - self.length())
        };
        round.saturating_mul(whole).saturating_add(within)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
