use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::dataset::sample;
use crate::ground_truth::{distance, nearest};

fn extent(vectors: &[Vec<f32>]) -> Extent {
    let mut extent = Extent::empty(u32::try_from(vectors.first().map_or(0, Vec::len)).unwrap());
    vectors.iter().for_each(|v| extent.add(v));
    extent
}

fn vectors(dims: usize, most: usize) -> impl Strategy<Value = Vec<Vec<f32>>> {
    let number = prop_oneof![
        (-100i16..=100).prop_map(f32::from),
        -1.0f32..1.0,
        (-100i16..=100).prop_map(|x| f32::from(x) * 0.125),
    ];
    prop::collection::vec(prop::collection::vec(number, dims), 1..most)
}

fn data() -> impl Strategy<Value = (Vec<Vec<f32>>, Vec<Vec<f32>>)> {
    (1usize..6).prop_flat_map(|dims| (vectors(dims, 40), vectors(dims, 5)))
}

/// Every row of every copy, under the number copy x rows + row.
fn union(copier: &Copier, base: &[Vec<f32>], copies: u32) -> Vec<(u64, Vec<f32>)> {
    let cells = (0..copies).flat_map(|copy| base.iter().map(move |row| (copy, row)));
    (0..)
        .zip(cells.map(|(copy, row)| {
            let mut out = Vec::new();
            copier.row(copy, row, &mut out);
            out
        }))
        .collect()
}

fn asked(copier: &Copier, copy: u32, query: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    copier.query(copy, query, &mut out);
    out
}

/// The truth over the union of all copies is the base's truth under the copy's own numbers. Distances agree to
/// `tolerance`, so that rows whose distances differ by less may stand in another order.
fn check_derived_truth(
    metric: Metric,
    expansion: &Expansion,
    base: &[Vec<f32>],
    queries: &[Vec<f32>],
    copies: u32,
    depth: usize,
    tolerance: f64,
) -> Result<(), TestCaseError> {
    let copier = expansion.copier(u32::try_from(base[0].len()).unwrap());
    let all = union(&copier, base, copies);
    let (rows, depth) = (count::len(base.len()), depth.min(base.len()));
    let own: Vec<(u64, Vec<f32>)> = all[..base.len()].to_vec();
    for query in queries {
        let list = nearest(metric, own.iter().map(|(n, v)| (*n, v)), &asked(&copier, 0, query), depth);
        for copy in 0..copies {
            let found =
                nearest(metric, all.iter().map(|(n, v)| (*n, v)), &asked(&copier, copy, query), depth);
            prop_assert_eq!(found.len(), list.len());
            for ((cell, d), (row, listed)) in found.iter().zip(&list) {
                prop_assert_eq!(cell / rows, u64::from(copy), "a row of another copy comes near");
                prop_assert!((d - listed).abs() <= tolerance, "{} for {}", d, listed);
                prop_assert!(tolerance > 0.0 || cell % rows == *row);
            }
        }
    }
    Ok(())
}

fn reach(metric: Metric, base: &[Vec<f32>], queries: &[Vec<f32>], depth: usize) -> f64 {
    let farthest = |q: &Vec<f32>| {
        let list = nearest(metric, (0..).zip(base), q, depth);
        list.last().map_or(0.0, |(_, d)| if metric == Metric::L2 { d.sqrt() } else { *d - list[0].1 })
    };
    queries.iter().map(farthest).fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_truth_over_all_translated_copies_is_the_derived_truth(
        (base, queries) in data(), copies in 1u32..9, depth in 1usize..8, tight: bool,
    ) {
        let (b, q) = (extent(&base), extent(&queries));
        let reach = if tight { reach(Metric::L2, &base, &queries, depth) } else { q.farthest(&b) };
        let (plan, proof) = Translation::plan(&b, &q, reach, copies, None).unwrap();
        prop_assert!(proof.delta > proof.norm_max && proof.margin > 0.0);
        let needed = proof.norm_max.max(proof.width + proof.reach);
        prop_assert!(proof.delta <= needed * 1.3 + 1e-20, "{proof:?}");
        check_derived_truth(Metric::L2, &Expansion::Translation(plan), &base, &queries, copies, depth, 0.0)?;
    }

    #[test]
    fn a_translated_copy_is_exact(
        (base, queries) in data(), copies in 1u32..600, copy in 0u32..600,
    ) {
        let copy = copy % copies;
        let (b, q) = (extent(&base), extent(&queries));
        let (plan, _) = Translation::plan(&b, &q, q.farthest(&b), copies, None).unwrap();
        prop_assert!(u64::from(plan.radix).pow(u32::try_from(plan.places.len()).unwrap()) >= u64::from(copies));
        let copier = Expansion::Translation(plan.clone()).copier(u32::try_from(base[0].len()).unwrap());
        let (mut zero, mut moved) = (Vec::new(), Vec::new());
        for vector in base.iter().chain(&queries) {
            copier.row(0, vector, &mut zero);
            copier.row(copy, vector, &mut moved);
            if !plan.rounds {
                prop_assert_eq!(&zero, vector);
            }
            let mut number = copy;
            for place in &plan.places {
                let place = usize::try_from(*place).unwrap();
                let digit = number % plan.radix;
                number /= plan.radix;
                // In 64 bits the sum is exact: the 32-bit copy holds every bit of it.
                prop_assert_eq!(f64::from(moved[place]), f64::from(zero[place]) + f64::from(digit) * plan.delta);
                prop_assert!((f64::from(zero[place]) - f64::from(vector[place])).abs() <= power(plan.grid_exponent) / 2.0);
                zero[place] = moved[place];
            }
            prop_assert_eq!(&zero, &moved, "nothing but the chosen coordinates moves");
        }
    }

    #[test]
    fn the_truth_over_all_lifted_copies_is_the_derived_truth(
        (base, queries) in data(), copies in 1u32..70, depth in 1usize..8, tight: bool, cosine: bool,
    ) {
        let metric = if cosine { Metric::Cosine } else { Metric::InnerProduct };
        let zero = |v: &Vec<f32>| v.iter().all(|x| *x == 0.0);
        prop_assume!(!cosine || !(base.iter().any(zero) || queries.iter().any(zero)));
        let size = if cosine { 1.0 } else { extent(&base).norm_max * extent(&queries).norm_max };
        let spread = if tight { reach(metric, &base, &queries, depth) } else { 2.0 * size };
        let dims = u32::try_from(base[0].len()).unwrap();
        let (lift, proof) = Lift::plan(metric, dims, spread, size, copies, None).unwrap();
        prop_assert!(proof.margin > 0.0);
        let tolerance = 1e-5 * (1.0 + size);
        check_derived_truth(metric, &Expansion::Lift(lift), &base, &queries, copies, depth, tolerance)?;
    }

    #[test]
    fn permutations_keep_every_distance_within_a_copy(
        (base, queries) in data(), seed: u64, copies in 1u32..5, metric in 0usize..3,
    ) {
        let metric = [Metric::L2, Metric::Cosine, Metric::InnerProduct][metric];
        let copier = Expansion::Permutation(Permutation { seed, copies }).copier(u32::try_from(base[0].len()).unwrap());
        let (mut row, mut query) = (Vec::new(), Vec::new());
        for copy in 0..copies {
            copier.row(copy, &base[0], &mut row);
            copier.query(copy, &queries[0], &mut query);
            let (a, b) = (distance(metric, &query, &row), distance(metric, &queries[0], &base[0]));
            prop_assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()));
            prop_assert!(copy > 0 || (row == base[0] && query == queries[0]));
        }
    }

    #[test]
    fn pairs_are_distinct_and_every_copy_has_its_turn(queries in 1u64..300, copies in 1u32..400) {
        let n = pairs(queries, copies);
        let all: BTreeSet<(u64, u32)> = (0..n).map(|p| pair(p, queries, copies)).collect();
        prop_assert_eq!(count::len(all.len()), n);
        prop_assert!(all.iter().all(|(q, c)| *q < queries && *c < copies));
        prop_assert_eq!(all.iter().map(|(_, c)| c).collect::<BTreeSet<_>>().len(), usize::try_from(copies).unwrap());
    }

    #[test]
    fn an_extent_holds_what_was_added_and_merging_is_adding(
        (base, more) in (1usize..4).prop_flat_map(|d| (vectors(d, 20), vectors(d, 20))),
    ) {
        let mut merged = extent(&base);
        merged.merge(&extent(&more));
        let all = extent(&[base, more].concat());
        prop_assert_eq!(&merged, &all);
        let whole = |x: f32, grain: i32| (f64::from(x) / power(grain)).fract() == 0.0;
        let fits = all.grain.iter().zip(&all.bounds).all(|(g, (l, h))| whole(*l, *g) && whole(*h, *g));
        prop_assert!(fits);
    }
}

/// The rule |V| > NormMax alone would let this through: -1 of the second copy is 1, the query itself.
#[test]
fn the_line_of_two_points_moved_by_two_is_refused_with_its_numbers() {
    let base = extent(&[vec![-1.0], vec![1.0]]);
    let queries = extent(&[vec![1.0]]);
    for reach in [0.0, 2.0] {
        let refusal = Translation::plan(&base, &queries, reach, 2, Some(2.0)).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Near { moved: 2.0, norm_max: 1.0, nearest: 0.0, .. }),
            "{refusal}"
        );
    }
    let text = Translation::plan(&base, &queries, 2.0, 2, Some(2.0)).unwrap_err().to_string();
    assert!(text.contains("|V| = 2") && text.contains("NormMax = 1") && text.contains("near as 0"), "{text}");
    let refusal = Translation::plan(&base, &queries, 0.0, 2, Some(1.0)).unwrap_err();
    assert_eq!(refusal, Refusal::Norm { moved: 1.0, norm_max: 1.0 });
    // Found instead of given, the step is far enough and hardly farther.
    let (_, proof) = Translation::plan(&base, &queries, 2.0, 2, None).unwrap();
    assert_eq!(proof.delta, 4.5);
}

#[test]
fn a_lift_of_too_small_a_gain_is_refused_with_its_numbers() {
    let refusal = Lift::plan(Metric::Cosine, 4, 0.5, 1.0, 40, Some(0.5)).unwrap_err();
    assert!(matches!(refusal, Refusal::Lift { separation: 0.25, .. }), "{refusal}");
    assert!(matches!(Lift::plan(Metric::L2, 4, 0.5, 1.0, 2, None), Err(Refusal::Metric { .. })));
    assert!(matches!(Lift::plan(Metric::Cosine, 4, 0.5, 1.0, 2_049, None), Err(Refusal::TooMany { .. })));
}

#[test]
fn code_words_have_the_inner_products_that_the_proof_uses() {
    let lift = Lift { row_scale: 1.0, query_scale: 1.0, relative: false };
    let copier = Expansion::Lift(lift).copier(0);
    let words: Vec<Vec<f32>> = (0..2_048).map(|copy| asked(&copier, copy, &[])).collect();
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    for (n, a) in words.iter().enumerate() {
        assert_eq!(product(a, a), 1.0);
        for (m, b) in words.iter().enumerate().skip(n + 1) {
            let most = if m < 32 { 0.0 } else { 0.5 };
            assert!(product(a, b) <= most, "words {n} and {m}");
        }
    }
}

#[test]
fn permutations_are_estimated_and_refused_for_noise() {
    let plan = Permutation { seed: 3, copies: 5 };
    let mut draw = crate::seed::Draw::new(1, 1, 1);
    let mut noise =
        |n: usize| (0..n).map(|_| (0..8).map(|_| narrow(draw.unit() - 0.5)).collect()).collect::<Vec<_>>();
    let (rows, queries) = (noise(2_000), noise(20));
    let refusal = plan.estimate(Metric::L2, &rows, &queries).unwrap_err();
    assert!(matches!(refusal, Refusal::Isotropic { ratio } if ratio > 0.7 && ratio < 1.4), "{refusal}");
    let estimate = plan.estimate(Metric::L2, &sample::base(), &sample::queries()).unwrap();
    assert!(estimate.ratio < 0.1, "{estimate:?}");
}

#[test]
fn bytes_need_no_scan_and_no_rounding() {
    use crate::dataset::Element;
    let base = Extent::of_type(Element::U8, 128).unwrap();
    let queries = extent(&sample::queries());
    let (plan, proof) = Translation::plan(&base, &queries, queries.farthest(&base), 1_000, None).unwrap();
    assert_eq!((plan.places.len(), plan.radix, plan.rounds), (10, 2, false));
    assert!(proof.delta <= 8192.0, "{proof:?}");
    sample::base()
        .iter()
        .for_each(|row| assert!(row.iter().zip(&base.bounds).all(|(x, (l, h))| l <= x && x <= h)));
}
