//! What is alive: the population as a fold over the mutation steps.
//!
//! The cells of a plan are its (row, copy) pairs. A keyed permutation gives each cell a position, and a cell is alive
//! while its position lies below the cut; a step moves the cut, or turns the order so that others come first. The
//! coordinator plans with it, workers delete and judge with it, and none of them keeps a list. Laws: the permutation is
//! a bijection that does not depend on the cut, so counts are exact, shrinks nest, and raising the cut brings back
//! exactly the cells that left.

use serde::{Deserialize, Serialize};

use crate::count;
use crate::seed::mix;

/// Rounds of the Feistel network, half of them on either part. Four suffice in theory for large domains; two more
/// serve the small ones.
const ROUNDS: u64 = 6;
/// Odd constants: one separates the rounds, one spreads a part over all 64 bits before it meets the key.
const ROUND_STEP: u64 = 0x9E37_79B9_7F4A_7C15;
const SPREAD: u64 = 0xD6E8_FEB8_6659_FD93;

/// The population at one step of the plan. Cells are numbered with the copy innermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSet {
    /// Key of the permutation.
    pub seed: u64,
    /// Rows of the base that take part.
    pub rows: u64,
    /// Copies of the base, at least 1.
    pub copies: u32,
    /// Rows at the end of the base that the last copy lacks: a population of 1.5 copies has half of the second.
    #[serde(default)]
    pub missing: u64,
    /// By how many places the order is turned: position 0 is this far on in the permutation.
    #[serde(default)]
    pub turn: u64,
    /// Cells at positions below this are alive.
    pub cut: u64,
}

impl LiveSet {
    /// Nothing is alive.
    #[must_use]
    pub fn empty(seed: u64, rows: u64, copies: u32) -> Self {
        Self { seed, rows, copies, missing: 0, turn: 0, cut: 0 }
    }

    /// The same plan where the last copy lacks this many rows at the end (at most all of them); nothing is alive.
    #[must_use]
    pub fn lacking(self, missing: u64) -> Self {
        Self { missing: missing.min(self.rows), cut: 0, ..self }
    }

    /// Rows that a copy has, alive or not.
    #[must_use]
    pub fn rows_of(self, copy: u32) -> u64 {
        match copy.checked_add(1) {
            Some(number) if number < self.copies => self.rows,
            Some(number) if number == self.copies => self.rows.saturating_sub(self.missing),
            _ => 0,
        }
    }

    /// The (copy, row) of a cell by its number, the copy innermost: row r of every copy, then row r + 1.
    #[must_use]
    pub fn cell(self, number: u64) -> Option<(u32, u64)> {
        if number >= self.cells() {
            return None;
        }
        let copies = u64::from(self.copies);
        // Rows that every copy has come first.
        let shared = self.rows.saturating_sub(self.missing);
        let (row, copy) = match number.checked_sub(shared.saturating_mul(copies)) {
            None => (number / copies, number % copies),
            Some(rest) => (shared + rest.checked_div(copies - 1)?, rest % (copies - 1)),
        };
        Some((u32::try_from(copy).ok()?, row))
    }

    /// The number of a cell; `None` for what is not in the plan.
    #[must_use]
    pub fn number(self, copy: u32, row: u64) -> Option<u64> {
        if row >= self.rows_of(copy) {
            return None;
        }
        let copies = u64::from(self.copies);
        let shared = self.rows.saturating_sub(self.missing);
        let before = match row.checked_sub(shared) {
            None => row.checked_mul(copies)?,
            Some(rest) => shared.checked_mul(copies)?.checked_add(rest.checked_mul(copies - 1)?)?,
        };
        before.checked_add(u64::from(copy))
    }

    /// The same plan with every cell alive.
    #[must_use]
    pub fn full(self) -> Self {
        self.with_cut(self.cells())
    }

    /// Cells of the plan, alive or not.
    #[must_use]
    pub fn cells(self) -> u64 {
        self.rows.saturating_mul(u64::from(self.copies)).saturating_sub(if self.copies == 0 {
            0
        } else {
            self.missing
        })
    }

    /// The same plan with the first `cut` positions alive, at most all.
    #[must_use]
    pub fn with_cut(self, cut: u64) -> Self {
        Self { cut: cut.min(self.cells()), ..self }
    }

    /// The same plan with this share of its *cells* (not of those alive now) alive, rounded to a whole cell.
    #[must_use]
    pub fn keep(self, share: f64) -> Self {
        self.with_cut(count::from_f64((share * count::to_f64(self.cells())).round()))
    }

    /// The population after the first `gone` of it were deleted and the next `come` cells behind it inserted. Cells that
    /// left come again last.
    #[must_use]
    pub fn moved_on(self, gone: u64, come: u64) -> Self {
        let gone = gone.min(self.count());
        let turn = self.turn.saturating_add(gone).checked_rem(self.cells()).unwrap_or(0);
        Self { turn, ..self }.with_cut((self.count() - gone).saturating_add(come))
    }

    /// The copies behind the first `keep` as a population of their own, in which copy 0 is copy `keep` of this one;
    /// nothing is alive.
    #[must_use]
    pub fn behind(self, keep: u32) -> Self {
        let copies = self.copies.saturating_sub(keep);
        Self { copies, missing: if copies == 0 { 0 } else { self.missing }, turn: 0, cut: 0, ..self }
    }

    /// The first `keep` copies with every row alive.
    #[must_use]
    pub fn first(self, keep: u32) -> Self {
        let copies = keep.min(self.copies);
        let missing = if copies == self.copies { self.missing } else { 0 };
        Self { copies, missing, turn: 0, cut: 0, ..self }.full()
    }

    /// Cells that are alive.
    #[must_use]
    pub fn count(self) -> u64 {
        self.cut.min(self.cells())
    }

    /// Whether this row of this copy is alive; false for what is not in the plan.
    #[must_use]
    pub fn is_live(self, copy: u32, row: u64) -> bool {
        self.position(copy, row).is_some_and(|position| position < self.cut)
    }

    /// The (copy, row) at a position of the order; `None` past the last cell.
    ///
    /// Going from a cut `a` to a smaller cut `b` deletes the cells at positions `b..a`.
    #[must_use]
    pub fn cell_at(self, position: u64) -> Option<(u32, u64)> {
        let order = Order::new(self.seed, self.cells(), position)?;
        // Widened, because a sum of two positions may not fit.
        let turned = (u128::from(position) + u128::from(self.turn)) % u128::from(self.cells());
        self.cell(order.cell(u64::try_from(turned).ok()?))
    }

    /// Position of a cell in the order; `None` for what is not in the plan.
    #[must_use]
    pub fn position(self, copy: u32, row: u64) -> Option<u64> {
        let cell = self.number(copy, row)?;
        let place = Order::new(self.seed, self.cells(), cell)?.position(cell);
        let turn = self.turn % self.cells();
        Some(if place >= turn { place - turn } else { self.cells() - turn + place })
    }
}

/// A keyed permutation of `0..cells`.
///
/// A Feistel network over pairs (high, low) with modular addition, whose domain `high_bound x 2^low_bits` exceeds the
/// cells by less than `2^low_bits`; values that fall outside are sent through again until they fall inside ("cycle
/// walking"; both from Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002). A power of two on one side
/// saves the divisions, a tight domain saves the walking.
struct Order {
    key: u64,
    cells: u64,
    low_bits: u32,
    high_bound: u64,
}

impl Order {
    /// The permutation; `None` unless `value` lies in `0..cells`.
    fn new(seed: u64, cells: u64, value: u64) -> Option<Self> {
        if value >= cells {
            return None;
        }
        let last = cells - 1;
        let low_bits = (u64::BITS - last.leading_zeros()) / 2;
        Some(Self { key: mix(seed), cells, low_bits, high_bound: (last >> low_bits) + 1 })
    }

    fn position(&self, cell: u64) -> u64 {
        let mut value = self.forward(cell);
        while value >= self.cells {
            value = self.forward(value);
        }
        value
    }

    fn cell(&self, position: u64) -> u64 {
        let mut value = self.backward(position);
        while value >= self.cells {
            value = self.backward(value);
        }
        value
    }

    fn forward(&self, value: u64) -> u64 {
        let (mut high, mut low) = self.split(value);
        for pair in 0..ROUNDS / 2 {
            high += self.high_shift(2 * pair, low);
            if high >= self.high_bound {
                high -= self.high_bound;
            }
            low = low.wrapping_add(self.round(2 * pair + 1, high)) & self.low_mask();
        }
        (high << self.low_bits) | low
    }

    fn backward(&self, value: u64) -> u64 {
        let (mut high, mut low) = self.split(value);
        for pair in (0..ROUNDS / 2).rev() {
            low = low.wrapping_sub(self.round(2 * pair + 1, high)) & self.low_mask();
            let shift = self.high_shift(2 * pair, low);
            high = if high >= shift { high - shift } else { high + self.high_bound - shift };
        }
        (high << self.low_bits) | low
    }

    fn split(&self, value: u64) -> (u64, u64) {
        (value >> self.low_bits, value & self.low_mask())
    }

    fn low_mask(&self) -> u64 {
        (1 << self.low_bits) - 1
    }

    /// A round's hash of the low part, in `0..high_bound` (multiply and shift instead of a remainder).
    fn high_shift(&self, round: u64, low: u64) -> u64 {
        let wide = u128::from(self.round(round, low)) * u128::from(self.high_bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    fn round(&self, round: u64, part: u64) -> u64 {
        mix(self.key.wrapping_add(round.wrapping_mul(ROUND_STEP)) ^ part.wrapping_mul(SPREAD))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn cells_of(live: LiveSet) -> impl Iterator<Item = (u32, u64)> {
        (0..live.rows).flat_map(move |row| (0..live.copies).map(move |copy| (copy, row)))
    }

    fn alive(live: LiveSet) -> HashSet<(u32, u64)> {
        cells_of(live).filter(|(copy, row)| live.is_live(*copy, *row)).collect()
    }

    proptest! {
        #[test]
        fn a_last_copy_in_part_has_the_first_rows_and_every_law_holds_for_it(
            seed: u64, rows in 1_u64..200, copies in 1_u32..5, lack in 0.0_f64..=1.0, share in 0.0_f64..=1.0,
        ) {
            let missing = count::from_f64(lack * count::to_f64(rows));
            let live = LiveSet::empty(seed, rows, copies).lacking(missing);
            prop_assert_eq!(live.cells(), rows * u64::from(copies) - missing);
            let cells: HashSet<_> = (0..live.cells()).map(|n| live.cell(n).unwrap()).collect();
            prop_assert_eq!(count::len(cells.len()), live.cells());
            prop_assert!(cells.iter().all(|(c, r)| *r < live.rows_of(*c) && live.number(*c, *r).is_some()));
            prop_assert!((0..live.cells()).all(|n| live.cell(n).and_then(|(c, r)| live.number(c, r)) == Some(n)));
            prop_assert_eq!(live.cell(live.cells()), None);
            prop_assert_eq!(live.number(copies - 1, rows - missing), None);
            let half = live.full().keep(share);
            prop_assert_eq!(count::len(alive(half).len()), half.count());
            prop_assert!(alive(half).is_subset(&cells));
            prop_assert_eq!((0..half.cut).map(|p| half.cell_at(p).unwrap()).collect::<HashSet<_>>(), alive(half));
        }

        #[test]
        fn whole_copies_go_as_the_rows_that_the_others_do_not_have(
            seed: u64, rows in 1_u64..100, copies in 1_u32..6, lack in 0.0_f64..=1.0, keep in 1_u32..6,
        ) {
            let missing = count::from_f64(lack * count::to_f64(rows));
            let all = LiveSet::empty(seed, rows, copies).lacking(missing).full();
            let (left, gone) = (all.first(keep), all.behind(keep));
            let own = |(copy, row): (u32, u64)| (copy + keep, row);
            let gone: HashSet<_> = (0..gone.cells()).map(|n| own(gone.cell(n).unwrap())).collect();
            let left = alive(left);
            prop_assert!(left.is_disjoint(&gone));
            prop_assert_eq!(left.union(&gone).copied().collect::<HashSet<_>>(), alive(all));
            prop_assert!(left.iter().all(|(copy, _)| *copy < keep));
        }

        #[test]
        fn order_is_a_bijection(seed: u64, rows in 0_u64..400, copies in 1_u32..6) {
            let live = LiveSet::empty(seed, rows, copies);
            let positions: HashSet<u64> = cells_of(live).map(|(c, r)| live.position(c, r).unwrap()).collect();
            prop_assert_eq!(positions.len(), usize::try_from(live.cells()).unwrap());
            prop_assert!(positions.iter().all(|p| *p < live.cells()));
            prop_assert!(cells_of(live).all(|(c, r)| live.cell_at(live.position(c, r).unwrap()) == Some((c, r))));
        }

        #[test]
        fn a_population_that_moves_on_loses_its_first_cells_and_gains_those_behind_it(
            seed: u64, rows in 1_u64..150, copies in 1_u32..4, share in 0.0_f64..=1.0,
            steps in proptest::collection::vec((0_u64..80, 0_u64..80), 1..5),
        ) {
            let mut live = LiveSet::empty(seed, rows, copies).keep(share);
            for (gone, come) in steps {
                let gone = gone.min(live.count());
                let come = come.min(live.cells() - live.count());
                let next = live.moved_on(gone, come);
                let out: HashSet<_> = (0..gone).map(|p| live.cell_at(p).unwrap()).collect();
                let first_in = live.count();
                let new: HashSet<_> = (first_in..first_in + come).map(|p| live.cell_at(p).unwrap()).collect();
                let expected: HashSet<_> = alive(live).difference(&out).chain(&new).copied().collect();
                prop_assert_eq!(alive(next), expected);
                prop_assert_eq!(next.count(), live.count() - gone + come);
                let back = |p| next.cell_at(p).and_then(|(copy, row)| next.position(copy, row));
                prop_assert!((0..next.cells()).all(|p| back(p) == Some(p)));
                live = next;
            }
        }

        #[test]
        fn order_is_invertible_at_any_size(
            seed: u64, rows in 1_u64..4_000_000_000, copies in 1_u32..=2_049, at in 0.0_f64..1.0,
        ) {
            let live = LiveSet::empty(seed, rows, copies);
            let position = count::from_f64(at * count::to_f64(live.cells()));
            let (copy, row) = live.cell_at(position).unwrap();
            prop_assert!(copy < copies && row < rows);
            prop_assert_eq!(live.position(copy, row), Some(position));
        }

        #[test]
        fn counts_are_exact(seed: u64, rows in 0_u64..300, copies in 1_u32..5, share in 0.0_f64..=1.0) {
            let live = LiveSet::empty(seed, rows, copies).keep(share);
            let wanted = (share * count::to_f64(rows * u64::from(copies))).round();
            prop_assert_eq!(live.count(), count::from_f64(wanted));
            prop_assert_eq!(count::len(alive(live).len()), live.count());
        }

        #[test]
        fn shrinks_nest_and_growth_restores(
            seed: u64, rows in 1_u64..300, copies in 1_u32..5, a in 0.0_f64..=1.0, b in 0.0_f64..=1.0,
        ) {
            let before = LiveSet::empty(seed, rows, copies).keep(a.max(b));
            let after = before.keep(a.min(b));
            prop_assert!(alive(after).is_subset(&alive(before)));
            let gone: HashSet<_> = (after.cut..before.cut).map(|p| before.cell_at(p).unwrap()).collect();
            let missing: HashSet<_> = alive(before).difference(&alive(after)).copied().collect();
            prop_assert_eq!(gone, missing);
            prop_assert_eq!(alive(after.with_cut(before.cut)), alive(before));
        }

        /// Deletes hit every part of the base alike, or memory and recall after them would tell of their order.
        /// Bound: six standard deviations of the hypergeometric count.
        #[test]
        fn life_is_spread_evenly(seed: u64) {
            let live = LiveSet::empty(seed, 10_000, 1).keep(0.5);
            for block in 0..100_u64 {
                let alive = (block * 100..block * 100 + 100).filter(|row| live.is_live(0, *row)).count();
                prop_assert!((20..=80).contains(&alive), "{} of 100 alive in block {}", alive, block);
            }
        }
    }

    #[test]
    fn what_is_not_in_the_plan_is_not_alive() {
        let live = LiveSet::empty(7, 10, 2).full();
        assert_eq!(live.count(), 20);
        assert!(live.is_live(1, 9));
        assert!(!live.is_live(2, 0) && !live.is_live(0, 10) && !live.is_live(u32::MAX, u64::MAX));
        assert_eq!(live.cell_at(20), None);
        assert_eq!(LiveSet::empty(7, 0, 1).full().count(), 0);
        assert_eq!(live.with_cut(u64::MAX).count(), 20);
        assert_eq!(live.keep(f64::NAN).count(), 0);
        assert_eq!(live.keep(7.0).count(), 20);
    }

    /// Seeds and runs that were recorded stay meaningful: the order is part of the contract between versions.
    #[test]
    fn order_stays_the_same_between_versions() {
        let live = LiveSet::empty(42, 1_000, 3);
        let first: Vec<_> = (0..4).filter_map(|p| live.cell_at(p)).collect();
        assert_eq!(first, [(0, 716), (1, 479), (1, 156), (1, 498)]);
    }

    #[test]
    fn other_seeds_give_other_orders() {
        let a = LiveSet::empty(1, 1_000, 1);
        let b = LiveSet::empty(2, 1_000, 1);
        let same = (0..1_000).filter(|p| a.cell_at(*p) == b.cell_at(*p)).count();
        assert!(same < 20, "{same} of 1000 positions agree");
    }
}
