//! How sure a recall is: an interval whose sampling unit is the distinct query.
//!
//! The k neighbours of one query fail together and a query that is asked twice answers twice alike, so counting
//! neighbours as independent trials would give an interval that is far too narrow.

use crate::count;

/// The standard normal quantile at 0.975.
const Z_975: f64 = 1.959_963_984_540_054;

/// Recall with its 95 % interval `(mean, low, high)`, from (hits, possible) per distinct query; `None` where nothing
/// was possible. Queries with nothing possible (masked ones) do not count.
///
/// With n queries, hits h_i out of p_i possible:
/// - mean: the ratio estimator `m = sum h_i / sum p_i`;
/// - variance: `v = n/(n-1) * sum (h_i - m p_i)^2 / (sum p_i)^2` (proportions in cluster sampling: Cochran, Sampling
///   Techniques, 3rd ed., 1977, section 3.12);
/// - interval: Wilson's (1927) with the effective number of trials `n_eff = m (1 - m) / v` and Student's t for n - 1
///   degrees of freedom, which unlike `m +- t sqrt(v)` stays within 0..1 and keeps its level near 1 (Dean and Pagano,
///   Journal of Survey Statistics and Methodology 3, 2015).
///
/// Where v is zero (all queries alike, mostly all perfect) or n is 1, each query counts as one trial, `n_eff = n`: a
/// recall within 0..1 cannot vary more than that, so 100 perfect queries say "at least 0.962" and not "exactly 1".
#[must_use]
pub fn recall_interval(per_query: &[(u64, u64)]) -> Option<(f64, f64, f64)> {
    let queries: Vec<(f64, f64)> = per_query
        .iter()
        .filter(|(_, possible)| *possible > 0)
        .map(|(hits, possible)| (count::to_f64(*hits), count::to_f64(*possible)))
        .collect();
    if queries.is_empty() {
        return None;
    }
    let n = count::to_f64(count::len(queries.len()));
    let possible: f64 = queries.iter().map(|(_, p)| p).sum();
    let mean = queries.iter().map(|(h, _)| h).sum::<f64>() / possible;
    let squares: f64 = queries.iter().map(|(h, p)| (h - mean * p).powi(2)).sum();
    let freedom = (n - 1.0).max(1.0);
    let variance = n / freedom * squares / (possible * possible);
    let spread = mean * (1.0 - mean);
    // Rounding leaves a variance of about 1e-32 where all queries are alike: that is no observation either.
    let is_observed = n > 1.0 && variance > f64::EPSILON * f64::EPSILON && spread > 0.0;
    let trials = if is_observed { spread / variance } else { n };
    let (low, high) = wilson(mean, trials, student_t_975(freedom));
    Some((mean, low, high))
}

/// Wilson's score interval for a proportion `p` of `n` trials.
fn wilson(p: f64, n: f64, t: f64) -> (f64, f64) {
    let tt = t * t;
    let centre = (p + tt / (2.0 * n)) / (1.0 + tt / n);
    let half = t / (1.0 + tt / n) * (p * (1.0 - p) / n + tt / (4.0 * n * n)).max(0.0).sqrt();
    ((centre - half).clamp(0.0, p), (centre + half).clamp(p, 1.0))
}

/// Student's t at 0.975: the normal quantile expanded in 1/freedom (Abramowitz and Stegun 26.7.5). Within 0.5 % from
/// 4 degrees of freedom on; too small below, where an interval means little anyway.
fn student_t_975(freedom: f64) -> f64 {
    let z = Z_975;
    let g1 = (z.powi(3) + z) / 4.0;
    let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + g1 / freedom + g2 / freedom.powi(2) + g3 / freedom.powi(3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seed::Draw;

    #[test]
    fn t_quantiles_agree_with_the_tables() {
        for (freedom, t) in [(4.0, 2.776), (9.0, 2.262), (29.0, 2.045), (99.0, 1.984), (1e9, 1.960)] {
            assert!((student_t_975(freedom) - t).abs() < 0.005 * t, "{freedom}");
        }
    }

    #[test]
    fn perfect_answers_leave_doubt() {
        let (mean, low, high) = recall_interval(&[(10, 10); 100]).unwrap();
        assert_eq!((mean, high), (1.0, 1.0));
        assert!((low - 0.962).abs() < 0.001, "{low}");
        let (_, low_of_more, _) = recall_interval(&[(10, 10); 10_000]).unwrap();
        assert!(low_of_more > 0.999);
        let (mean, low, high) = recall_interval(&[(9, 10); 100]).unwrap();
        assert!(low < mean - 0.02 && high > mean + 0.02, "{low} {high}");
        assert!(recall_interval(&[(0, 10)]).unwrap().2 > 0.5);
        assert_eq!(recall_interval(&[(0, 0); 3]), None);
        assert_eq!(recall_interval(&[]), None);
    }

    /// Asking the same queries again teaches nothing about other queries.
    #[test]
    fn repeats_do_not_narrow_the_interval() {
        let once: Vec<(u64, u64)> = (0..100).map(|i| (10 - u64::from(i % 7 == 0), 10)).collect();
        let often: Vec<(u64, u64)> = once.iter().map(|(h, p)| (h * 50, p * 50)).collect();
        let (a, b) = (recall_interval(&once).unwrap(), recall_interval(&often).unwrap());
        assert!((a.1 - b.1).abs() < 1e-9 && (a.2 - b.2).abs() < 1e-9);
    }

    /// Of many samples of queries, about 95 % give an interval with the population's recall in it. A query is either
    /// easy (0.99 per neighbour) or, one time in five, hard (0.6), so neighbours of a query go together; an interval
    /// over independent neighbours covers about 70 %.
    #[test]
    fn interval_covers_the_population_in_95_of_100_samples() {
        let truth = 0.8 * 0.99 + 0.2 * 0.6;
        let samples = 2_000;
        let covered = (0..samples)
            .filter(|sample| {
                let queries: Vec<(u64, u64)> = (0..100)
                    .map(|query| {
                        let mut draw = Draw::new(5, *sample, query);
                        let chance = if draw.unit() < 0.2 { 0.6 } else { 0.99 };
                        ((0..10).map(|_| u64::from(draw.unit() < chance)).sum(), 10)
                    })
                    .collect();
                let (_, low, high) = recall_interval(&queries).unwrap();
                low <= truth && truth <= high
            })
            .count();
        assert!((1_860..=1_940).contains(&covered), "{covered} of {samples} covered");
    }

    proptest! {
        #[test]
        fn interval_holds_its_mean(queries in prop::collection::vec((0_u64..=10, 0_u64..50), 0..40)) {
            let queries: Vec<(u64, u64)> = queries.iter().map(|(h, n)| (h * n, 10 * n)).collect();
            if let Some((mean, low, high)) = recall_interval(&queries) {
                prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
                prop_assert!(low <= mean && mean <= high && low < high);
            }
        }
    }
}
