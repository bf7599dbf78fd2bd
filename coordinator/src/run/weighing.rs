//! How many rows have to go for a target to come under a bound of its memory.
//!
//! Fed with what the target used at rest and how many rows lived then; read by `settling`, which asks for the deletes.
//! Law: rows go only while the target is over its bound, each time at least one and never more than what was measured
//! says is needed (but for the least slice), and what cannot be reached is said after finitely many slices.

use vst_common::count;

/// The least part of the living rows that goes at once: a bound is not crept up to row by row.
const LEAST_SHARE: u64 = 100;
/// Slices after which it is given up.
const MOST_SLICES: usize = 40;

/// What a target used when so many rows lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Rows alive.
    pub(crate) rows: u64,
    /// `used_memory` over all nodes, bytes.
    pub(crate) used_bytes: u64,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The target is under its bound.
    Reached,
    /// Rows are deleted until so many are left.
    Keep(u64),
    /// It does not come under its bound; why, for people.
    Hopeless(String),
}

/// What is to be done after these weighings, the last one last.
pub(crate) fn next(weights: &[Weight], bound_bytes: u64) -> Next {
    let Some(now) = weights.last().copied() else {
        return Next::Hopeless(String::from("nothing was weighed"));
    };
    if now.used_bytes <= bound_bytes {
        return Next::Reached;
    }
    let over = now.used_bytes - bound_bytes;
    if now.rows == 0 {
        return Next::Hopeless(format!(
            "the target uses {} bytes with no row left, {over} more than it may: give `keep_memory` at least what the \
             empty target uses",
            now.used_bytes
        ));
    }
    if weights.len() > MOST_SLICES {
        return Next::Hopeless(format!(
            "after {MOST_SLICES} slices the target still uses {} bytes, {over} more than it may, with {} rows left: \
             what was deleted gave no memory back",
            now.used_bytes, now.rows
        ));
    }
    // What the rows that went gave back; before any went, a row cannot have cost more than its part of everything.
    let measured =
        weights.iter().rev().find(|w| w.rows > now.rows && w.used_bytes > now.used_bytes).map(|before| {
            count::to_f64(before.used_bytes - now.used_bytes) / count::to_f64(before.rows - now.rows)
        });
    let row_bytes = measured.unwrap_or_else(|| count::to_f64(now.used_bytes) / count::to_f64(now.rows));
    let needed = count::from_f64((count::to_f64(over) / row_bytes).ceil());
    let least = (now.rows / LEAST_SHARE).max(1);
    Next::Keep(now.rows.saturating_sub(needed.max(least)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Deletes as told until the end; gives the weighings and how it ended.
    fn shrink(rows: u64, bound_bytes: u64, used: impl Fn(u64) -> u64) -> (Vec<Weight>, Next) {
        let mut weights = vec![Weight { rows, used_bytes: used(rows) }];
        loop {
            match next(&weights, bound_bytes) {
                Next::Keep(left) => {
                    assert!(left < weights.last().unwrap().rows, "every slice deletes something");
                    weights.push(Weight { rows: left, used_bytes: used(left) });
                }
                ended => return (weights, ended),
            }
        }
    }

    proptest! {
        #[test]
        fn a_target_whose_rows_cost_alike_is_brought_under_its_bound_and_hardly_further(
            rows in 1u64..1_000_000, row_bytes in 1u64..10_000, empty in 0u64..100_000_000, part in 0.0f64..1.2,
        ) {
            let used = |rows: u64| empty + rows * row_bytes;
            let bound = empty + count::from_f64(part * count::to_f64(rows * row_bytes));
            let (weights, ended) = shrink(rows, bound, used);
            prop_assert_eq!(ended, Next::Reached);
            let last = weights.last().unwrap();
            prop_assert!(last.used_bytes <= bound);
            // Without a slice more than was needed, but for the least one.
            if let [.., before, last] = weights[..] {
                let most = bound.saturating_sub(empty) / row_bytes;
                prop_assert!(last.rows + before.rows / LEAST_SHARE + 1 >= most.min(before.rows), "{weights:?}");
            }
            prop_assert!(weights.len() < 12, "{weights:?}");
        }

        #[test]
        fn whatever_memory_does_it_ends_and_only_a_target_under_its_bound_is_left_alone(
            rows in 1u64..100_000, bound in 0u64..1_000_000, used in prop::collection::vec(0u64..2_000_000, 1..20),
        ) {
            let at = |rows: u64| used[usize::try_from(rows).unwrap() % used.len()];
            let (weights, ended) = shrink(rows, bound, at);
            let last = weights.last().unwrap();
            prop_assert_eq!(ended == Next::Reached, last.used_bytes <= bound, "{:?}", weights);
            prop_assert!(weights[..weights.len() - 1].iter().all(|w| w.used_bytes > bound));
            prop_assert!(weights.len() <= MOST_SLICES + 1);
        }
    }

    #[test]
    fn an_empty_target_over_its_bound_is_hopeless() {
        let said = next(&[Weight { rows: 0, used_bytes: 900 }], 500);
        assert!(
            matches!(&said, Next::Hopeless(reason) if reason.contains("400 more than it may")),
            "{said:?}"
        );
    }
}
