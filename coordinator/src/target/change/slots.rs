//! Which slots move where, so that every primary serves its share.
//!
//! Law: afterwards each primary serves what its share says, to the slot; slots that are bound stay; no slot moves that
//! need not.

use std::collections::BTreeSet;

use vst_common::count;
use vst_common::keys::SLOTS;

/// Slots that go from one primary to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// Position of the primary that serves them.
    pub(super) from: usize,
    /// Position of the one that is to.
    pub(super) to: usize,
    /// The slots.
    pub(super) slots: Vec<u16>,
}

/// The moves. `owned` are the slots of each primary, all of them together; the same share for each where none are given.
/// The error says in words what does not fit.
pub(super) fn moves(owned: &[Vec<u16>], shares: &[f64], pinned: &BTreeSet<u16>) -> Result<Vec<Move>, String> {
    if !shares.is_empty() && shares.len() != owned.len() {
        return Err(format!(
            "there are {} shares, and the target has {} primaries: write one for each",
            shares.len(),
            owned.len()
        ));
    }
    let even = vec![1.0 / count::to_f64(count::len(owned.len().max(1))); owned.len()];
    let wanted = allotted(if shares.is_empty() { &even } else { shares });
    // What each has too much, the bound ones not among it.
    let mut spare: Vec<(usize, Vec<u16>)> = Vec::new();
    for (n, (slots, wanted)) in owned.iter().zip(&wanted).enumerate() {
        let surplus = slots.len().saturating_sub(*wanted);
        let mut free: Vec<u16> = slots.iter().copied().filter(|slot| !pinned.contains(slot)).collect();
        if free.len() < surplus {
            return Err(format!(
                "primary {} cannot give {surplus} slots: indexes are bound to its slots",
                n + 1
            ));
        }
        spare.push((n, free.split_off(free.len() - surplus)));
    }
    let mut moves = Vec::new();
    for (to, (slots, wanted)) in owned.iter().zip(&wanted).enumerate() {
        let mut lacking = wanted.saturating_sub(slots.len());
        for (from, spare) in &mut spare {
            let taken = lacking.min(spare.len());
            if taken > 0 {
                let slots = spare.split_off(spare.len() - taken);
                moves.push(Move { from: *from, to, slots });
                lacking -= taken;
            }
        }
    }
    Ok(moves)
}

/// How many slots each share is; what rounding leaves over goes to the first ones.
fn allotted(shares: &[f64]) -> Vec<usize> {
    let all = usize::from(SLOTS);
    let whole = |share: &f64| count::index(count::from_f64((share * f64::from(SLOTS)).floor()));
    let mut wanted: Vec<usize> = shares.iter().map(whole).collect();
    let mut left = all.saturating_sub(wanted.iter().sum());
    while left > 0 && !wanted.is_empty() {
        for n in wanted.iter_mut().take(left) {
            *n += 1;
            left -= 1;
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A cluster's slots dealt to primaries at random, shares for them, and bound slots.
    fn cluster() -> impl Strategy<Value = (Vec<Vec<u16>>, Vec<f64>, BTreeSet<u16>)> {
        (1..6usize).prop_flat_map(|primaries| {
            (
                prop::collection::vec(0..primaries, usize::from(SLOTS)),
                prop::collection::vec(1..100u32, primaries),
                prop::collection::btree_set(0..SLOTS, 0..6),
                any::<bool>(),
            )
                .prop_map(move |(owner, weights, pinned, even)| {
                    let mut owned = vec![Vec::new(); primaries];
                    owner.iter().zip(0..SLOTS).for_each(|(n, slot)| owned[*n].push(slot));
                    let sum: u32 = weights.iter().sum();
                    let shares = weights.iter().map(|w| f64::from(*w) / f64::from(sum)).collect();
                    (owned, if even { Vec::new() } else { shares }, pinned)
                })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_primary_gets_its_share_and_nothing_moves_in_vain((owned, shares, pinned) in cluster()) {
            let mut after = owned.clone();
            let moves = moves(&owned, &shares, &pinned).unwrap();
            let mut moved = 0;
            for Move { from, to, slots } in moves {
                for slot in &slots {
                    prop_assert!(!pinned.contains(slot), "slot {slot} is bound");
                    let at = after[from].iter().position(|s| s == slot);
                    prop_assert!(at.is_some(), "{from} does not serve slot {slot}");
                    after[from].swap_remove(at.unwrap());
                    after[to].push(*slot);
                }
                moved += slots.len();
            }
            let mut all: Vec<u16> = after.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..SLOTS).collect::<Vec<_>>(), "every slot is served, once");
            let mut least = 0;
            for (n, slots) in after.iter().enumerate() {
                let share = shares.get(n).copied().unwrap_or(1.0 / owned.len() as f64);
                let wanted = share * f64::from(SLOTS);
                prop_assert!((slots.len() as f64 - wanted).abs() <= owned.len() as f64, "{} of {wanted}", slots.len());
                least += owned[n].len().saturating_sub(slots.len());
            }
            prop_assert_eq!(moved, least);
        }
    }

    #[test]
    fn shares_have_to_fit_the_primaries() {
        let owned = [(0..SLOTS / 2).collect(), (SLOTS / 2..SLOTS).collect()];
        assert!(moves(&owned, &[0.6, 0.3, 0.1], &BTreeSet::new()).unwrap_err().contains("2 primaries"));
        let bound = (0..SLOTS / 2).collect();
        assert!(moves(&owned, &[0.1, 0.9], &bound).unwrap_err().contains("bound"));
        assert_eq!(moves(&owned, &[0.5, 0.5], &bound), Ok(Vec::new()));
    }
}
