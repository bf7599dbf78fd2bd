use proptest::prelude::*;

use super::*;
use crate::ground_truth::distance;

/// The law of the bound itself: whatever the numbers, a score is no farther from the exact one than is said.
fn check(isa: Isa, metric: Metric, dims: usize, queries: &[f32], rows: &[f32]) -> Result<(), TestCaseError> {
    let Some(quantised) = Quantised::with(isa, metric, dims, queries, rows) else { return Ok(()) };
    let n = rows.len() / dims;
    let takes_part: Vec<bool> = (0..n).map(|row| row % 5 != 3).collect();
    let mut panels = Panels::default();
    if !quantised.fill(&mut panels, rows, &takes_part, 2) {
        return Ok(());
    }
    for (query, vector) in queries.chunks_exact(dims).enumerate() {
        let (group, place) = (query / GROUP, query % GROUP);
        let mut limits = [f32::NEG_INFINITY; GROUP];
        limits[place] = f32::MAX;
        let mut hits = Vec::new();
        quantised.scan(&panels, 0..n, group, &limits, &mut hits);
        let expected: Vec<usize> = (0..n).filter(|row| takes_part[*row]).collect();
        prop_assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), expected);
        for hit in &hits {
            prop_assert_eq!(hit.query, place);
            let exact = distance(metric, vector, &rows[hit.row * dims..][..dims]);
            let (low, high) =
                (f64::from(hit.low), f64::from(hit.low) + quantised.spread(&panels, query, hit.row));
            let score = exact - quantised.offsets[query].offset;
            // The offset's own rounding is known where distances become limits.
            let own = quantised.offsets[query].error + 1e-15 * (exact.abs() + score.abs());
            prop_assert!(
                low <= score + own && score <= high + own,
                "{low} <= {score} <= {high}, row {}",
                hit.row
            );
            // A limit made of the row's own distance lets the row through.
            limits[place] = quantised.limit(query, exact);
            let mut near = Vec::new();
            quantised.scan(&panels, 0..n, group, &limits, &mut near);
            prop_assert!(near.iter().any(|near| near.row == hit.row && near.low <= limits[place]));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn exact_scores_are_within_the_bound(
        numbers in prop::collection::vec(-1.0f32..1.0, 1..700), dims in 1usize..40, queries in 1usize..15,
        scale in prop_oneof![Just(1.0f32), Just(1e6), Just(1e-3), Just(1e-18), Just(1e15)],
        shift in prop_oneof![Just(0.0f32), Just(1.0), Just(1e3), Just(-1e7)],
        whole in any::<bool>(), outlier in prop_oneof![Just(1.0f32), Just(1e6), Just(1e12)], metric in 0usize..3,
    ) {
        let number = |(i, x): (usize, &f32)| {
            let x = if whole { (x * 100.0).round() } else { x * scale };
            if i % 97 == 5 { x * outlier + shift } else { x + shift }
        };
        let numbers: Vec<f32> = numbers.iter().enumerate().map(number).collect();
        let vectors = numbers.len() / dims;
        prop_assume!(vectors >= 2);
        let (queries, rows) = numbers.split_at(queries.min(vectors - 1) * dims);
        let rows = &rows[..rows.len() / dims * dims];
        for isa in Isa::all() {
            check(isa, [Metric::L2, Metric::Cosine, Metric::InnerProduct][metric], dims, queries, rows)?;
        }
    }
}

#[test]
fn small_whole_numbers_lose_nothing() {
    for isa in Isa::all() {
        for (low, metric) in [(0_i16, Metric::L2), (-128, Metric::InnerProduct), (0, Metric::InnerProduct)] {
            let whole = |i: u16| f32::from(low) + f32::from((u32::from(i) * 7919 % 256) as u8);
            let rows: Vec<f32> = (0..64 * 100).map(whole).collect();
            let quantised = Quantised::with(isa, metric, 100, &rows[..1200], &rows).unwrap();
            let mut panels = Panels::default();
            assert!(quantised.fill(&mut panels, &rows, &[true; 64], 1));
            for hit in 0..64 {
                // The rounding of 32-bit scores is left; that of bytes would come to thousands.
                assert!(quantised.spread(&panels, 3, hit) < 4.0, "{low} {metric:?}");
            }
        }
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    let dims = DIMS_MAX;
    let rows: Vec<f32> = (0..2 * dims).map(|i| if i < dims { 255.0 } else { 0.0 }).collect();
    for isa in Isa::all() {
        for metric in [Metric::L2, Metric::InnerProduct] {
            check(isa, metric, dims, &rows, &rows).unwrap();
        }
    }
}
