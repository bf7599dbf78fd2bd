use proptest::prelude::*;

use super::*;
use crate::dataset::sample;
use crate::ground_truth::nearest;

const METRICS: [Metric; 3] = [Metric::L2, Metric::Cosine, Metric::InnerProduct];

fn brute(
    metric: Metric,
    base: &[Vec<f32>],
    query: &[f32],
    k: usize,
    alive: impl Fn(u64) -> bool,
) -> Vec<Neighbour> {
    nearest(metric, (0..).zip(base).filter(|(row, _)| alive(*row)), query, k)
}

/// Searches a base that comes in the given pieces.
fn search(
    metric: Metric,
    base: &[Vec<f32>],
    queries: &[Vec<f32>],
    k: usize,
    pieces: &[(usize, usize)],
    alive: impl Fn(u64) -> bool,
    threads: usize,
) -> Vec<Vec<Neighbour>> {
    let dims = queries[0].len();
    let mut search = ExactSearch::new(metric, dims, queries.concat(), k);
    for (start, end) in pieces {
        search.add(count::len(*start), &base[*start..*end].concat(), &alive, threads);
    }
    search.finish()
}

/// Cuts 0..n at some places and puts the pieces in some order.
fn pieces(n: usize, cuts: &[usize], turn: usize) -> Vec<(usize, usize)> {
    let mut at: Vec<usize> = cuts.iter().map(|c| c % (n + 1)).chain([0, n]).collect();
    at.sort_unstable();
    let mut pieces: Vec<(usize, usize)> = at.windows(2).map(|w| (w[0], w[1])).collect();
    let turn = turn % pieces.len();
    pieces.rotate_left(turn);
    pieces
}

/// Numbers that are hard on 32 bits: whole ones that tie, far from the origin, tiny, huge.
fn numbers() -> impl Strategy<Value = (f32, f32)> {
    prop_oneof![
        Just((1.0, 0.0)),
        Just((0.37, 0.0)),
        Just((1.0, 4096.0)),
        Just((1e-3, 1000.0)),
        Just((1e-20, 0.0)),
        Just((1e19, 0.0)),
        Just((3e18, -1e19)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn the_result_is_that_of_brute_force_for_any_cut_order_filter_and_threads(
        rows in prop::collection::vec(prop::collection::vec(-4i8..=4, 5), 1..1400),
        queries in prop::collection::vec(prop::collection::vec(-4i8..=4, 5), 1..20),
        (scale, shift) in numbers(),
        cuts in prop::collection::vec(0usize..2000, 0..4), turn in 0usize..5,
        k in 1usize..40, keep in 1u64..4, threads in 1usize..4, metric in 0usize..3,
    ) {
        let number = |x: &i8| f32::from(*x) * scale + shift;
        let floats = |v: &[Vec<i8>]| v.iter().map(|r| r.iter().map(number).collect()).collect::<Vec<Vec<f32>>>();
        let (base, queries) = (floats(&rows), floats(&queries));
        let alive = |row: u64| crate::seed::mix(row).is_multiple_of(keep);
        let metric = METRICS[metric];
        let found = search(metric, &base, &queries, k, &pieces(base.len(), &cuts, turn), alive, threads);
        for (query, found) in queries.iter().zip(&found) {
            prop_assert_eq!(found, &brute(metric, &base, query, k, alive));
        }
    }

    #[test]
    fn shards_together_find_what_one_search_finds(
        rows in prop::collection::vec(prop::collection::vec(0u8..6, 3), 2..300), cut in 0usize..300, k in 1usize..20,
    ) {
        let base: Vec<Vec<f32>> = rows.iter().map(|r| r.iter().map(|x| f32::from(*x)).collect()).collect();
        let cut = cut % base.len();
        let query = vec![2.0, 2.5, 3.0];
        let part = |from: usize, to: usize| {
            let mut search = ExactSearch::new(Metric::L2, 3, query.clone(), k);
            search.add(count::len(from), &base[from..to].concat(), |_| true, 1);
            search
        };
        let mut all = part(cut, base.len());
        all.merge(part(0, cut));
        prop_assert_eq!(&all.finish()[0], &brute(Metric::L2, &base, &query, k, |_| true));
    }
}

#[test]
fn real_vectors_have_their_published_neighbours() {
    let (base, queries, truth) = (sample::base(), sample::queries(), sample::truth());
    for metric in METRICS {
        let found = search(metric, &base, &queries, 100, &[(0, 3000), (3000, 10_000)], |_| true, 2);
        for ((q, query), found) in (0u32..).zip(&queries).zip(&found) {
            assert_eq!(found, &brute(metric, &base, query, 100, |_| true), "{metric:?}, query {q}");
            if metric == Metric::L2 {
                let published: Vec<f64> = truth.distances(q).iter().map(|d| f64::from(*d)).collect();
                assert_eq!(found.iter().map(|(_, d)| *d).collect::<Vec<_>>(), published);
            }
        }
    }
}

#[test]
fn more_neighbours_than_rows_gives_all_rows() {
    let found = search(Metric::L2, &[vec![1.0], vec![0.0]], &[vec![0.2]], 5, &[(0, 2)], |_| true, 4);
    assert_eq!(found[0].iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 0]);
}

/// Data that 8 bits find hard or easy, each in its own way.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Uniform,
    Normal,
    Clustered,
    Copies,
    Outliers,
    HugeOutliers,
    OneHugeCoordinate,
    Constant,
    HeavyTails,
    Bytes,
    SignedBytes,
    FarWholes,
    Tiny,
    FarAway,
    Zeros,
}

const KINDS: [Kind; 15] = [
    Kind::Uniform,
    Kind::Normal,
    Kind::Clustered,
    Kind::Copies,
    Kind::Outliers,
    Kind::HugeOutliers,
    Kind::OneHugeCoordinate,
    Kind::Constant,
    Kind::HeavyTails,
    Kind::Bytes,
    Kind::SignedBytes,
    Kind::FarWholes,
    Kind::Tiny,
    Kind::FarAway,
    Kind::Zeros,
];

/// Repeatable vectors of a kind.
fn vectors(kind: Kind, n: usize, dims: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed;
    let mut draw = move || {
        state = crate::seed::mix(state.wrapping_add(0x9e37_79b9));
        (state >> 40) as f32 / (1_u32 << 24) as f32
    };
    let row = |i: usize| -> Vec<f32> {
        let far = draw() < 0.01;
        let cluster = (draw() * 4.0).floor();
        let of_copy = (draw() * 9.0).floor();
        let number = |j: usize| {
            let u = draw();
            let normal = (0..6).map(|_| draw()).sum::<f32>() - 3.0;
            match kind {
                Kind::Uniform => u,
                Kind::Normal => normal,
                Kind::Clustered => ((cluster + 1.0) * 37.0 * (j as f32 + 1.0)).sin() * 10.0 + normal * 1e-3,
                Kind::Copies => ((of_copy + 1.0) * 13.0 * (j as f32 + 1.0)).cos(),
                Kind::Outliers => normal * if far { 1e6 } else { 1.0 },
                Kind::HugeOutliers => normal * if far { 1e15 } else { 1.0 },
                Kind::OneHugeCoordinate => {
                    if far && j == 0 {
                        1e6
                    } else {
                        u
                    }
                }
                Kind::Constant => 0.7,
                Kind::HeavyTails => 0.1 / (u - 0.5 + 1e-7).powi(3),
                Kind::Bytes => (u * 256.0).floor(),
                Kind::SignedBytes => (u * 256.0).floor() - 128.0,
                Kind::FarWholes => (u * 256.0).floor() + 70_000.0,
                Kind::Tiny => normal * 1e-21,
                Kind::FarAway => 1e6 + u,
                Kind::Zeros => {
                    if i.is_multiple_of(3) {
                        0.0
                    } else {
                        normal
                    }
                }
            }
        };
        (0..dims).map(number).collect()
    };
    (0..n).map(row).collect()
}

fn assert_is_brute_force(
    metric: Metric,
    base: &[Vec<f32>],
    queries: &[Vec<f32>],
    k: usize,
    pieces: &[(usize, usize)],
    alive: impl Fn(u64) -> bool + Copy,
    what: &str,
) {
    let found = search(metric, base, queries, k, pieces, alive, 2);
    for (query, (vector, found)) in queries.iter().zip(&found).enumerate() {
        assert_eq!(found, &brute(metric, base, vector, k, alive), "{what}, {metric:?}, k {k}, query {query}");
    }
}

#[test]
fn eight_bits_propose_every_neighbour_whatever_the_data() {
    for (i, kind) in KINDS.into_iter().enumerate() {
        // Not multiples of what one step, one register or one panel holds, and those.
        let dims = [3, 64, 17, 128, 5, 1, 30][i % 7];
        let base = vectors(kind, 2900, dims, 1);
        let queries = vectors(kind, 27, dims, 2);
        for (metric, k) in METRICS.into_iter().zip([10, 1, 300]) {
            let alive = |row: u64| !row.is_multiple_of(7);
            assert_is_brute_force(
                metric,
                &base,
                &queries,
                k,
                &[(700, 2900), (0, 700)],
                alive,
                &format!("{kind:?}"),
            );
        }
    }
}

#[test]
fn eight_bits_propose_queries_own_rows_and_more_neighbours_than_there_are_rows() {
    for kind in KINDS {
        let base = vectors(kind, 300, 20, 5);
        for metric in METRICS {
            assert_is_brute_force(
                metric,
                &base,
                &base[40..60],
                1000,
                &[(0, 130), (130, 300)],
                |_| true,
                "all",
            );
        }
    }
}

#[test]
fn queries_unlike_the_rows_have_their_neighbours_too() {
    for (of_rows, of_queries) in [
        (Kind::Bytes, Kind::Normal),
        (Kind::Bytes, Kind::HugeOutliers),
        (Kind::Normal, Kind::Bytes),
        (Kind::Uniform, Kind::FarAway),
        (Kind::Tiny, Kind::Normal),
        (Kind::Zeros, Kind::Zeros),
    ] {
        let (base, queries) = (vectors(of_rows, 1500, 24, 3), vectors(of_queries, 13, 24, 4));
        for metric in METRICS {
            let what = format!("{of_queries:?} in {of_rows:?}");
            assert_is_brute_force(metric, &base, &queries, 10, &[(0, 1500)], |_| true, &what);
        }
    }
}

#[test]
fn a_base_that_changes_its_nature_on_the_way_is_searched_to_the_end() {
    let mut base = Vec::new();
    for (i, kind) in KINDS.into_iter().enumerate() {
        base.extend(vectors(kind, 260, 12, i as u64));
    }
    let queries: Vec<Vec<f32>> = base.iter().step_by(250).cloned().collect();
    for metric in METRICS {
        let pieces = [(0, 100), (100, 1000), (1000, 3900)];
        assert_is_brute_force(metric, &base, &queries, 20, &pieces, |_| true, "all kinds");
    }
}
