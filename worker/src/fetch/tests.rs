use proptest::prelude::*;
use vst_common::scenario::{DatasetSpec, Metric};

use super::*;

fn base(rows: u32, dims: u32) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = [rows.to_le_bytes(), dims.to_le_bytes()].concat();
    bytes.extend((0..rows * dims).map(|i| u8::try_from(i % 251).unwrap()));
    let path = folder.path().join("base.u8bin");
    std::fs::write(&path, bytes).unwrap();
    let url = Url::from_file_path(path).unwrap().to_string();
    (folder, url)
}

fn work(base: &str, dims: u32, live: LiveSet) -> VectorWork {
    let none = String::new();
    VectorWork {
        dataset: DatasetSpec { base: base.into(), queries: none.clone(), ground_truth: none, rows: None },
        rows: live.rows,
        dims,
        expansion: vst_common::expand::Expansion::None,
        order: vst_common::scenario::CopyOrder::Interleaved,
        truth: vst_common::phase::TruthSource::Listed,
        metric: Metric::L2,
        prefix: "t:".into(),
        field: "v".into(),
        on: vst_common::scenario::RowKind::Hash,
        attributes: vst_common::attributes::Attributes::default(),
        live,
        search: vst_common::phase::SearchPlan::ServerSide {
            module: vst_common::phase::SearchModule::RediSearch,
            index: "i".into(),
        },
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_range_gives_each_of_its_rows_once_with_its_own_vector(
        rows in 1u32..900, dims in 1u32..5, at in 0.0f64..1.0, length in 0u64..900,
    ) {
        let (_folder, url) = base(rows, dims);
        let start = count::from_f64(at * f64::from(rows));
        let end = (start + length).min(u64::from(rows));
        let live = LiveSet::empty(1, u64::from(rows), 1);
        let blocks = block_on(async {
            let source = Source::open(&Work::Ingest(work(&url, dims, live))).await.unwrap().unwrap();
            source.blocks(RowRange { start, end }).await.unwrap()
        });
        prop_assert!(blocks.iter().all(|b| b.rows.len() <= BLOCK_ROWS && !b.rows.is_empty()));
        let cells: Vec<(u32, u64)> = blocks.iter().flat_map(|b| b.rows.clone()).collect();
        prop_assert_eq!(&cells, &(start..end).map(|row| (0, row)).collect::<Vec<_>>());
        // A lane sends each as it would be in a block that was widened before.
        let mut space = Vec::new();
        let bytes = usize::try_from(dims * 4).unwrap();
        let sent: Vec<Vec<u8>> = blocks
            .iter()
            .flat_map(|b| (0..b.rows.len()).map(move |n| (b, n)))
            .map(|(b, n)| b.vector(n, bytes, &mut space).to_vec())
            .collect();
        let widened: Vec<RowBlock> = blocks.into_iter().map(RowBlock::widened).collect();
        prop_assert_eq!(sent.concat(), widened.iter().flat_map(|b| b.vectors.clone()).collect::<Vec<u8>>());
        let numbers: Vec<f32> = widened
            .iter()
            .flat_map(|b| b.vectors.chunks_exact(4))
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let stored = (start * u64::from(dims)..end * u64::from(dims)).map(|i| f32::from(u8::try_from(i % 251).unwrap()));
        prop_assert_eq!(numbers, stored.collect::<Vec<_>>());
    }

    #[test]
    fn the_ranges_of_an_ingest_together_write_every_cell_once_with_its_own_vector(
        rows in 1u32..300, copies in 1u32..6, lack in 0.0f64..=1.0, length in 1u64..400, clustered: bool,
    ) {
        let (_folder, url) = base(rows, 3);
        let missing = count::from_f64(lack * f64::from(rows));
        let live = LiveSet::empty(1, u64::from(rows), copies).lacking(missing);
        let mut order = work(&url, 3, live);
        order.order = if clustered { CopyOrder::Clustered } else { CopyOrder::Interleaved };
        let permutation = vst_common::expand::Permutation { seed: 5, copies };
        order.expansion = vst_common::expand::Expansion::Permutation(permutation);
        let copier = order.expansion.copier(3);
        let cut = vst_common::ranges::Cut::new(RowRange { start: 0, end: live.cells() }, length);
        let mut written = Vec::new();
        let source = block_on(Source::open(&Work::Ingest(order))).unwrap().unwrap();
        for range in (0..cut.count()).filter_map(|i| cut.get(i)) {
            for block in block_on(source.blocks(range)).unwrap() {
                prop_assert_eq!(block.vectors.len(), block.rows.len() * 12);
                written.extend(block.rows.into_iter().zip(block.vectors.chunks(12).map(<[u8]>::to_vec)));
            }
        }
        let in_order: Vec<(u32, u64)> = written.iter().map(|(cell, _)| *cell).collect();
        let key = |(copy, row): &(u32, u64)| if clustered { (u64::from(*copy), *row) } else { (*row, u64::from(*copy)) };
        prop_assert!(in_order.is_sorted_by_key(key));
        written.sort_unstable();
        written.dedup();
        prop_assert_eq!(count::len(written.len()), live.cells());
        for ((copy, row), vector) in written {
            let number = |i: u64| f32::from(u8::try_from((row * 3 + i) % 251).unwrap());
            let mut own = Vec::new();
            copier.row(copy, &[number(0), number(1), number(2)], &mut own);
            prop_assert_eq!(vector, own.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn all_ranges_of_a_shrink_together_delete_exactly_what_leaves_the_live_set(
        rows in 1u64..2_000, from in 0.0f64..1.0, to in 0.0f64..1.0, length in 1u64..700, seed: u64,
    ) {
        let before = LiveSet::empty(seed, rows, 1).keep(from.max(to));
        let after = before.keep(from.min(to));
        let source = block_on(Source::open(&Work::Delete(work("", 1, before)))).unwrap().unwrap();
        let cut = vst_common::ranges::Cut::new(RowRange { start: after.cut, end: before.cut }, length);
        let mut deleted = Vec::new();
        for range in (0..cut.count()).filter_map(|i| cut.get(i)) {
            for block in block_on(source.blocks(range)).unwrap() {
                prop_assert!(block.vectors.is_empty());
                deleted.extend(block.rows);
            }
        }
        deleted.sort_unstable();
        let leave = |row: &u64| before.is_live(0, *row) && !after.is_live(0, *row);
        prop_assert_eq!(deleted, (0..rows).filter(leave).map(|row| (0, row)).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_update_writes_what_lives_once_and_a_churn_makes_the_population_that_was_planned(
        rows in 4u32..300, copies in 1u32..4, alive in 0.2f64..0.9, by in 0.01f64..0.9, length in 1u64..90, seed: u64,
    ) {
        let (_folder, url) = base(rows, 2);
        let live = LiveSet::empty(seed, u64::from(rows), copies).keep(alive);
        let cells = |live: LiveSet| -> std::collections::BTreeSet<(u32, u64)> {
            (0..live.count()).map(|p| live.cell_at(p).unwrap()).collect()
        };
        let mut order = work(&url, 2, live);
        let permutation = vst_common::expand::Permutation { seed: 5, copies };
        order.expansion = vst_common::expand::Expansion::Permutation(permutation);
        let copier = order.expansion.copier(2);
        let own = |copy: u32, row: u64| {
            let number = |i: u64| f32::from(u8::try_from((row * 2 + i) % 251).unwrap());
            let mut own = Vec::new();
            copier.row(copy, &[number(0), number(1)], &mut own);
            own.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()
        };
        let all = |work: Work, total: u64| {
            let length = length.next_multiple_of(2);
            let cut = vst_common::ranges::Cut::new(RowRange { start: 0, end: total }, length);
            block_on(async {
                let source = Source::open(&work).await.unwrap().unwrap();
                let mut blocks = Vec::new();
                for range in (0..cut.count()).filter_map(|i| cut.get(i)) {
                    blocks.extend(source.blocks(range).await.unwrap());
                }
                blocks
            })
        };
        let mut written = Vec::new();
        for block in all(Work::Update(order.clone()), live.cells()) {
            written.extend(block.rows.into_iter().zip(block.vectors.chunks(8).map(<[u8]>::to_vec)));
        }
        prop_assert!(written.iter().all(|((copy, row), vector)| *vector == own(*copy, *row)));
        prop_assert_eq!(count::len(written.len()), live.count());
        prop_assert_eq!(written.into_iter().map(|(cell, _)| cell).collect::<std::collections::BTreeSet<_>>(), cells(live));

        // What grew is what was not there before.
        let from = count::from_f64(by * count::to_f64(live.count()));
        let grown: std::collections::BTreeSet<_> = all(Work::Grow(order.clone(), from), live.cells())
            .into_iter()
            .flat_map(|block| block.rows)
            .collect();
        prop_assert_eq!(&cells(live) - &cells(live.with_cut(from)), grown);

        let room = live.count().min(live.cells() - live.count());
        let pairs = count::from_f64(by * count::to_f64(room));
        let mixed = order.clone();
        let (mut now, mut changed): (_, Vec<(u32, u64)>) = (cells(live), Vec::new());
        for block in all(Work::Churn(order), 2 * pairs) {
            prop_assert_eq!(block.vectors.len(), block.rows.len() / 2 * 8);
            for (i, pair) in block.rows.chunks(2).enumerate() {
                prop_assert!(now.remove(&pair[0]), "only what lives is deleted");
                prop_assert!(now.insert(pair[1]), "only what does not live is inserted");
                prop_assert_eq!(&block.vectors[i * 8..i * 8 + 8], own(pair[1].0, pair[1].1));
                changed.extend(pair);
            }
        }
        prop_assert_eq!(changed.len(), changed.iter().collect::<std::collections::BTreeSet<_>>().len(), "no cell twice");
        prop_assert_eq!(now, cells(live.moved_on(pairs, pairs)));

        let weights = vst_common::mix::MixWeights { query: 3, ingest: 2, delete: 1, update: 1 };
        let mut units = 2 * pairs + 3;
        while !Mix::new(weights, units, live).fits() {
            units -= 1;
        }
        let ask = vst_common::scenario::Ask::nearest(1, None);
        let work = Work::Mixed { vectors: mixed, ask, weights, units };
        let mix = work.mix().unwrap();
        let (mut now, mut next) = (cells(live), 0);
        for block in all(work, units) {
            prop_assert_eq!(block.first, next);
            let mut vectors = block.vectors.chunks(8);
            for ((copy, row), unit) in block.rows.iter().copied().zip(block.first..) {
                let right = match mix.deed(unit) {
                    Deed::Query => true,
                    Deed::Delete(_) => now.remove(&(copy, row)),
                    Deed::Ingest(_) => now.insert((copy, row)) && vectors.next() == Some(&own(copy, row)[..]),
                    Deed::Update(_) => now.contains(&(copy, row)) && vectors.next() == Some(&own(copy, row)[..]),
                };
                prop_assert!(right, "unit {} of {:?}", unit, mix);
                next = unit + 1;
            }
            prop_assert_eq!(vectors.next(), None);
        }
        prop_assert_eq!((next, now), (units, cells(mix.after())));
    }
}

#[test]
fn data_that_differs_from_the_plan_is_refused() {
    let (_folder, url) = base(3, 4);
    let live = LiveSet::empty(1, 3, 1);
    let error = block_on(Source::open(&Work::Ingest(work(&url, 5, live)))).unwrap_err();
    assert!(matches!(error, Error::Dims { found: 4, expected: 5, .. }), "{error}");
    let source = block_on(Source::open(&Work::Delete(work("", 4, live)))).unwrap().unwrap();
    let error = block_on(source.blocks(RowRange { start: 2, end: 4 })).unwrap_err();
    assert!(matches!(error, Error::Position { cells: 3, .. }), "{error}");
}
