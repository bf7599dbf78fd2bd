use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

use super::*;
use crate::dataset::sample::{base, block_on, queries, truth};
use crate::scenario::Metric;

fn file(queries: u32, k: u32, body: &[u8]) -> Vec<u8> {
    [&queries.to_le_bytes(), &k.to_le_bytes(), body].concat()
}

fn open(content: Vec<u8>) -> Result<GroundTruth, Error> {
    block_on(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("truth.bin");
        store.put(&path, content.into()).await.unwrap();
        GroundTruth::open(store, path, Url::parse("memory:///truth.bin").unwrap()).await
    })
}

fn encode(truth: &GroundTruth) -> Vec<u8> {
    let ids = truth.ids.iter().flat_map(|id| id.to_le_bytes());
    let distances = truth.distances.iter().flat_map(|d| d.to_le_bytes());
    file(truth.queries, truth.k, &ids.chain(distances).collect::<Vec<u8>>())
}

#[test]
fn published_neighbours_agree_with_brute_force() {
    let (base, truth) = (base(), truth());
    assert_eq!((truth.queries, truth.k), (100, 100));
    truth.check_against(10_000).unwrap();
    for (q, query) in (0..).zip(queries()) {
        let exact = nearest(Metric::L2, (0..).zip(&base), &query, 100);
        let published = truth.ids(q);
        // Rows at the same distance may stand in any order.
        for ((row, exact), (id, file)) in exact.iter().zip(published.iter().zip(truth.distances(q))) {
            let own = distance(Metric::L2, &query, &base[*id as usize]);
            assert_eq!(own, *exact, "query {q}: row {id} in place of {row}");
            assert_eq!(f64::from(*file), own, "query {q}, row {id}");
        }
    }
}

#[test]
fn faults_name_the_numbers_and_the_fix() {
    let of = |content| open(content).unwrap_err().to_string();
    let truth = |ids: &[u32]| GroundTruth { queries: 1, k: 3, ids: ids.to_vec(), distances: vec![0.0; 3] };
    let messages = [
        of(Vec::new()),
        of(vec![0; 7]),
        of(file(2, 3, &[0; 47])),
        of(file(2, 3, &[0; 49])),
        of(file(0, 3, &[])),
        of(file(3, 0, &[])),
        of(file(u32::MAX, u32::MAX, &[])),
        truth(&[0, 1, 7]).check_against(7).unwrap_err().to_string(),
        truth(&[5, 1, 5]).check_against(7).unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(messages.join("\n"), @"
    ground truth memory:///truth.bin has 0 bytes, a header alone has 8: the file is truncated
    ground truth memory:///truth.bin has 7 bytes, a header alone has 8: the file is truncated
    ground truth memory:///truth.bin has 55 bytes, its header (2 queries x 3 neighbours) asks for 56: the file is truncated
    ground truth memory:///truth.bin has 57 bytes, its header (2 queries x 3 neighbours) asks for 56: the file is too long or not a big-ann ground truth
    ground truth memory:///truth.bin is empty by its header: 0 queries x 3 neighbours
    ground truth memory:///truth.bin is empty by its header: 3 queries x 0 neighbours
    ground truth memory:///truth.bin has 8 bytes, its header (4294967295 queries x 4294967295 neighbours) asks for 18446744073709551615: the file is truncated
    neighbour 3 of query 0 is row 7, the base has 7 rows: this truth belongs to another base
    query 0 has row 5 twice in its list of neighbours: compute the truth anew
    ");
    truth(&[6, 1, 5]).check_against(7).unwrap();
}

#[test]
fn queries_that_do_not_exist_have_no_neighbours() {
    let truth = GroundTruth { queries: 1, k: 1, ids: vec![3], distances: vec![0.5] };
    assert_eq!((truth.ids(0), truth.distances(0)), (&[3][..], &[0.5][..]));
    assert!(truth.ids(1).is_empty() && truth.distances(u32::MAX).is_empty());
}

#[test]
fn distances_are_those_of_the_metric() {
    let (a, b) = ([3.0, 0.0, 4.0], [0.0, 2.0, 0.0]);
    assert_eq!(distance(Metric::L2, &a, &b), 29.0);
    assert_eq!(distance(Metric::InnerProduct, &a, &a), -24.0);
    assert_eq!(distance(Metric::Cosine, &a, &b), 1.0);
    assert_eq!(distance(Metric::Cosine, &a, &[6.0, 0.0, 8.0]), 0.0);
    assert_eq!(distance(Metric::Cosine, &a, &[0.0; 3]), 1.0);
}

/// The distance as a server computes it: all of it in 32 bits.
fn distance_f32(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0_f32, |sum, (x, y)| sum + x * y);
    let unit = |a: &[f32]| -> Vec<f32> {
        let norm = dot(a, a).sqrt();
        a.iter().map(|x| x / norm).collect()
    };
    match metric {
        Metric::L2 => a.iter().zip(b).fold(0.0, |sum, (x, y)| sum + (x - y) * (x - y)),
        Metric::InnerProduct => 1.0 - dot(a, b),
        Metric::Cosine => 1.0 - dot(&unit(a), &unit(b)),
    }
}

proptest! {
    #[test]
    fn what_is_written_opens(entries in prop::collection::vec(prop::collection::vec((any::<u32>(), 0.0_f32..1e6), 4), 1..20)) {
        let queries = u32::try_from(entries.len()).unwrap();
        let (ids, distances) = entries.into_iter().flatten().unzip();
        let truth = GroundTruth { queries, k: 4, ids, distances };
        prop_assert_eq!(open(encode(&truth)).unwrap(), truth);
    }

    /// Coordinates of one sign let the errors of a sum grow; mixed ones let its terms cancel.
    #[test]
    fn error_bound_holds_for_32_bit_arithmetic(
        pairs in prop::collection::vec((-100.0_f32..100.0, -100.0_f32..100.0), 1..2_000),
        one_sign: bool,
        metric in prop::sample::select(vec![Metric::L2, Metric::Cosine, Metric::InnerProduct]),
    ) {
        let (a, b): (Vec<f32>, Vec<f32>) =
            pairs.into_iter().map(|(x, y)| if one_sign { (x.abs(), y.abs()) } else { (x, y) }).unzip();
        let own = measure(metric, &a, &b);
        let error = (f64::from(distance_f32(metric, &a, &b)) - own.distance).abs();
        prop_assert!(error <= own.f32_error, "{} > {}", error, own.f32_error);
    }
}
