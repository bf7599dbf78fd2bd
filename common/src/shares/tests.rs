use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn any_shares() -> impl Strategy<Value = BTreeSet<u32>> {
    btree_set(0..SHARES, 0..200)
}

fn set(shares: &BTreeSet<u32>) -> ShareSet {
    shares.iter().copied().collect()
}

/// A move of some shares, most of which several moves touch.
fn any_move() -> impl Strategy<Value = Move> {
    (btree_set(0..12_u32, 1..6), proptest::option::of(0..9_u32), 0..40_u64)
        .prop_map(|(shares, to, from_ns)| Move { shares: set(&shares), to, from_ns })
}

proptest! {
    #[test]
    fn a_share_set_is_a_set(a in any_shares(), b in any_shares()) {
        let (x, y) = (set(&a), set(&b));
        prop_assert_eq!(x.iter().collect::<Vec<_>>(), a.iter().copied().collect::<Vec<_>>(), "in order, each once");
        prop_assert_eq!(usize::try_from(x.len()).unwrap(), a.len());
        prop_assert_eq!(x.is_empty(), a.is_empty());
        prop_assert_eq!(x.union(&y), set(&a.union(&b).copied().collect()));
        prop_assert_eq!(x.intersection(&y), set(&a.intersection(&b).copied().collect()));
        prop_assert_eq!(x.difference(&y), set(&a.difference(&b).copied().collect()));
        for share in 0..SHARES {
            prop_assert_eq!(x.contains(share), a.contains(&share));
        }
    }

    #[test]
    fn a_share_set_survives_json(a in any_shares()) {
        let x = set(&a);
        let json = serde_json::to_string(&x).unwrap();
        prop_assert_eq!(serde_json::from_str::<ShareSet>(&json).unwrap(), x);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
        prop_assert!(ShareSet::try_from(text).is_err());
    }

    #[test]
    fn the_deal_gives_each_share_to_exactly_one_lane(lanes in 1..5000_u32) {
        let dealt = deal(lanes);
        let mut owner = vec![None; 4096];
        for (lane, shares) in dealt.iter().enumerate() {
            for share in shares.iter() {
                prop_assert_eq!(owner[share as usize].replace(lane), None, "share {} dealt twice", share);
            }
        }
        prop_assert!(owner.iter().all(Option::is_some));
        let sizes: Vec<u32> = dealt.iter().map(ShareSet::len).collect();
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        let owned = Ownership::dealt(lanes);
        for (share, owner) in (0_u32..).zip(&owner) {
            prop_assert_eq!(owned.owner_at(share, 0).map(|lane| lane as usize), *owner, "ownership begins as dealt");
        }
    }

    #[test]
    fn lanes_interleave_in_time(lanes in 1..=SHARES, at in 0..SHARES) {
        // As many requests in a row as there are lanes come from as many lanes.
        let row: ShareSet = (at.min(SHARES - lanes)..SHARES).take(lanes as usize).collect();
        for shares in deal(lanes) {
            prop_assert_eq!(shares.intersection(&row).len(), 1);
        }
    }

    #[test]
    fn each_share_has_one_owner_or_none_at_each_instant(lanes in 0..6_u32, moves in vec(any_move(), 0..12)) {
        let mut own = Ownership::dealt(lanes);
        // The same history told share by share: the instants at which it got a new owner.
        let mut told: Vec<Vec<(u64, Option<u32>)>> = vec![Vec::new(); 12];
        for step in moves {
            let shares: Vec<u32> = step.shares.iter().collect();
            let past = shares.iter().any(|s| told[*s as usize].last().is_some_and(|l| l.0 >= step.from_ns));
            prop_assert_eq!(own.apply(step.clone()).is_err(), past);
            if !past {
                for share in shares {
                    told[share as usize].push((step.from_ns, step.to));
                }
            }
        }
        for at in 0..42 {
            for (share, history) in (0_u32..).zip(&told) {
                let dealt = share.checked_rem(lanes);
                let owner = history.iter().rfind(|(from, _)| *from <= at).map_or(dealt, |l| l.1);
                prop_assert_eq!(own.owner_at(share, at), owner);
            }
            let mut parts: Vec<ShareSet> = (0..9).map(|lane| own.owned_by(lane, at)).collect();
            parts.push(own.unowned_at(at));
            prop_assert_eq!(parts.iter().map(ShareSet::len).sum::<u32>(), SHARES);
            prop_assert_eq!(parts.iter().fold(ShareSet::empty(), |a, b| a.union(b)), ShareSet::all());
        }
    }

    #[test]
    fn ownership_changes_only_at_its_instants(lanes in 1..6_u32, moves in vec(any_move(), 0..6)) {
        let mut own = Ownership::dealt(lanes);
        for step in moves {
            let _ = own.apply(step);
        }
        let instants = own.instants();
        for at in 1..42 {
            if !instants.contains(&at) {
                for share in 0..12 {
                    prop_assert_eq!(own.owner_at(share, at), own.owner_at(share, at - 1));
                }
            }
        }
    }

    #[test]
    fn a_request_belongs_to_its_number_modulo_the_shares(n in any::<u64>()) {
        prop_assert_eq!(u64::from(share_of(n)), n % 4096);
    }
}

#[test]
fn what_was_announced_is_not_rewritten() {
    let mut own = Ownership::dealt(2);
    own.apply(Move { shares: ShareSet::for_lane(1, 2), to: Some(0), from_ns: 100 }).unwrap();
    let early = Move { shares: [3].into_iter().collect(), to: Some(1), from_ns: 100 };
    let refused = own.apply(early).unwrap_err();
    assert_eq!(refused, Error::Announced { share: 3, from_ns: 100, announced_ns: 100 });
    assert_eq!(own.owner_at(3, 100), Some(0));
    assert_eq!(own.owner_at(3, 99), Some(1));
}
