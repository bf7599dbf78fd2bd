mod single;
mod stored;

use std::path::Path as FilePath;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

use self::stored::{Stored, contents};
use super::sample::{block_on, open, url};
use super::*;
use crate::count;

/// A file of the given format: header, then `body`.
fn file(rows: u32, dims: u32, body: &[u8]) -> Vec<u8> {
    [&rows.to_le_bytes(), &dims.to_le_bytes(), body].concat()
}

async fn in_memory(name: &str, content: Vec<u8>) -> Result<DatasetView, Error> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from(name);
    store.put(&path, content.into()).await.unwrap();
    let url = Url::parse(&format!("memory:///{name}")).unwrap();
    DatasetView::open(store, path, url).await
}

async fn on_disk(folder: &FilePath, name: &str, content: &[u8]) -> Result<DatasetView, Error> {
    std::fs::write(folder.join(name), content).unwrap();
    open(resolve(name, folder).unwrap()).await
}

fn error_of(name: &str, content: Vec<u8>) -> String {
    block_on(in_memory(name, content)).unwrap_err().to_string()
}

/// What a row holds by the definition of its element.
#[expect(clippy::cast_possible_truncation, reason = "an index takes 32-bit floats: the nearest")]
fn numbers(element: Element, stored: &[u8]) -> Vec<f32> {
    let size = count::index(element.bytes());
    stored
        .chunks(size)
        .map(|c| match element {
            Element::F32 => f32::from_le_bytes(c.try_into().unwrap()),
            Element::F16 => half::f16::from_le_bytes(c.try_into().unwrap()).to_f32(),
            Element::F64 => f64::from_le_bytes(c.try_into().unwrap()) as f32,
            Element::U8 => f32::from(c[0]),
            Element::I8 => f32::from(i8::from_le_bytes([c[0]])),
            Element::I32 => i32::from_le_bytes(c.try_into().unwrap()) as f32,
            Element::U32 => u32::from_le_bytes(c.try_into().unwrap()) as f32,
            Element::I64 => i64::from_le_bytes(c.try_into().unwrap()) as f64 as f32,
            Element::U64 => u64::from_le_bytes(c.try_into().unwrap()) as f64 as f32,
        })
        .collect()
}

/// The same files in memory, on disk, and behind a network that is asked for seven bytes at a time.
async fn everywhere(stored: &Stored, folder: &FilePath) -> Result<Vec<DatasetView>, Error> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (name, content) in &stored.files {
        store.put(&Path::from(name.as_str()), content.clone().into()).await.unwrap();
        std::fs::write(folder.join(name), content).unwrap();
    }
    let name = stored.reference.split('#').next().unwrap();
    let unpack = ReadOptions { cache: Some(folder.join("cache")), ..ReadOptions::default() };
    let packed = name.ends_with("gz") || name.ends_with("zst");
    let in_parts = ReadOptions {
        policy: ReadPolicy { part_bytes: 7, parts_in_flight: 3, ..ReadPolicy::default() },
        cache: packed.then(|| folder.join("other")),
    };
    let url = |scheme: &str| Url::parse(&format!("{scheme}://host/{}", stored.reference)).unwrap();
    Ok(vec![
        DatasetView::open_object(Arc::clone(&store), Path::from(name), &url("memory"), &unpack).await?,
        DatasetView::open_with(&resolve(&stored.reference, folder)?, &unpack).await?,
        DatasetView::open_object(Arc::clone(&store), Path::from(name), &url("http"), &in_parts).await?,
        DatasetView::open_object(store, Path::from(name), &url("s3"), &unpack).await?,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_range_equals_the_same_rows_of_the_whole((stored, a, b) in contents(), step in 1_u64..30) {
        let range = RowRange { start: a.min(b), end: a.max(b) };
        let folder = tempfile::tempdir().unwrap();
        let views = block_on(everywhere(&stored, folder.path())).unwrap();
        for view in views {
            let manifest = view.manifest();
            prop_assert_eq!((manifest.rows, manifest.dims, manifest.element), (stored.rows, stored.dims, stored.element));
            let part = block_on(view.read(range)).unwrap();
            prop_assert_eq!(count::len(part.len()), range.len());
            prop_assert_eq!(part.is_empty(), range.is_empty());
            let (start, end) = (count::index(range.start) * stored.row_bytes(), count::index(range.end) * stored.row_bytes());
            prop_assert_eq!(part.bytes.as_ref(), &stored.body[start..end]);
            let mut whole = Vec::new();
            let cut = crate::ranges::Cut::new(RowRange { start: 0, end: stored.rows }, step);
            for range in (0..cut.count()).filter_map(|i| cut.get(i)) {
                whole.extend_from_slice(&block_on(view.read(range)).unwrap().bytes);
            }
            prop_assert_eq!(&whole, &stored.body);
            prop_assert_eq!(view.faults().total(), 0);
        }
    }

    #[test]
    fn both_ways_to_numbers_agree_with_the_element(
        element in prop::sample::select(&Element::ALL[..]), rows in 0_usize..700, dims in 1_u32..4, seed: u64,
    ) {
        let size = rows * count::index(u64::from(dims) * element.bytes());
        let mut draw = crate::seed::Draw::new(seed, 0, 0);
        let body: Vec<u8> = (0..size).map(|_| draw.next_u64().to_le_bytes()[0]).collect();
        let rows = Rows { dims, element, bytes: Bytes::from(body.clone()) };
        let wanted: Vec<u8> = numbers(element, &body).iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut blob = vec![7];
        rows.to_f32_le(&mut blob);
        prop_assert_eq!(&blob[1..], &wanted);
        let each: Vec<u8> = rows.iter().flatten().flat_map(f32::to_le_bytes).collect();
        prop_assert_eq!(each, wanted);
        let mut row = vec![1.0];
        rows.row_f32(rows.len(), &mut row);
        prop_assert!(row.is_empty());
    }

    /// Whatever is cut off the end of a file, it does not open, or says so when its end is read; padding may go.
    #[test]
    fn a_truncated_file_never_gives_all_its_rows((stored, ..) in contents(), cut in 1_usize..200) {
        let (name, content) = stored.files.last().unwrap().clone();
        let padding = if name == "v.bin" || name == "q.bin" && !stored.reference.ends_with("truth") { 64 } else { 0 };
        // Noise behind the wanted section may be cut as well.
        let is_last = !stored.reference.starts_with("d.yaml") || stored.reference.ends_with("truth");
        prop_assume!(is_last && cut >= padding && cut < content.len());
        let mut short = stored.clone();
        short.files.last_mut().unwrap().1.truncate(content.len() - cut);
        let folder = tempfile::tempdir().unwrap();
        let whole = RowRange { start: 0, end: stored.rows };
        let read = block_on(async {
            for view in everywhere(&short, folder.path()).await? {
                view.read(RowRange { end: view.manifest().rows, ..whole }).await?;
                if view.manifest().rows != stored.rows {
                    return Ok(false);
                }
            }
            Ok::<bool, Error>(true)
        });
        prop_assert!(!read.unwrap_or(false), "{:?} was read whole", stored.reference);
    }

    #[test]
    fn objects_of_one_data_set_are_read_as_one(
        lengths in prop::collection::vec(1_u32..20, 1..5), a in 0.0_f64..1.0, b in 0.0_f64..1.0, listed: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut body = Vec::new();
        for (i, rows) in lengths.iter().enumerate() {
            let part: Vec<u8> = (0..rows * 3).map(|n| u8::try_from((n * 7 + u32::try_from(i).unwrap()) % 251).unwrap()).collect();
            std::fs::write(folder.path().join(format!("part-{i:03}.u8bin")), file(*rows, 3, &part)).unwrap();
            body.extend(part);
        }
        let reference = if listed { "part-*.u8bin".to_owned() } else { format!("part-{{000..{}}}.u8bin", lengths.len() - 1) };
        let view = block_on(open_all(&reference, folder.path())).unwrap();
        let rows = u64::from(lengths.iter().sum::<u32>());
        prop_assert_eq!(view.manifest().rows, rows);
        prop_assert_eq!(view.manifest().objects.len(), lengths.len());
        let at = |share: f64| count::from_f64(share * count::to_f64(rows + 1));
        let range = RowRange { start: at(a).min(at(b)), end: at(a).max(at(b)) };
        let read = block_on(view.read(range)).unwrap();
        prop_assert_eq!(read.bytes.as_ref(), &body[count::index(range.start) * 3..count::index(range.end) * 3]);
    }

    /// A row is computed from its number alone, and queries are other vectors of the same population.
    #[test]
    fn generated_rows_do_not_depend_on_the_range(
        kind in prop::sample::select(&["uniform", "gaussian", "clustered"][..]),
        element in prop::sample::select(&["f32", "u8", "i8"][..]), dims in 1_u32..40, seed: u64, row in 0_u64..1_000_000_000,
    ) {
        let url = |rest: &str| Url::parse(&format!(
            "generate:{kind}?rows=1_000_000_000&dims={dims}&seed={seed}&element={element}{rest}")).unwrap();
        let view = block_on(DatasetView::open_url(&url(""))).unwrap();
        let end = (row + 5).min(1_000_000_000);
        let some = block_on(view.read(RowRange { start: row, end })).unwrap();
        let one = block_on(view.read(RowRange { start: row, end: row + 1 })).unwrap();
        prop_assert_eq!(some.stored(0), one.stored(0));
        let queries = block_on(DatasetView::open_url(&url("&queries=20#queries"))).unwrap();
        prop_assert_eq!(queries.manifest().rows, 20);
        prop_assert!(some.iter().flatten().all(f32::is_finite));
        let again = block_on(DatasetView::open_url(&url(""))).unwrap();
        prop_assert_eq!(block_on(again.read(RowRange { start: row, end })).unwrap(), some);
    }
}

async fn open_all(reference: &str, folder: &FilePath) -> Result<DatasetView, Error> {
    DatasetView::open_url(&resolve(reference, folder)?).await
}

/// Written by h5py, contiguous and in packed chunks; `test` is the first rows of `train`.
#[test]
fn hdf5_files_are_read_by_ranges() {
    let folder = FilePath::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/dataset/fixtures"));
    for name in ["contiguous.hdf5", "chunked.hdf5"] {
        let view = block_on(open_all(name, folder)).unwrap();
        let manifest = view.manifest();
        assert_eq!((manifest.rows, manifest.dims, manifest.element), (50, 7, Element::F32), "{name}");
        assert_eq!(manifest.metric.as_deref(), Some("angular"));
        for (start, end) in [(0, 50), (0, 1), (13, 29), (49, 50), (20, 20)] {
            let rows = block_on(view.read(RowRange { start, end })).unwrap();
            let wanted: Vec<Vec<f32>> = (start..end)
                .map(|r| (0..7_u16).map(|d| f32::from(u16::try_from(r).unwrap() * 7 + d) / 4.0).collect())
                .collect();
            assert_eq!(rows.iter().collect::<Vec<_>>(), wanted, "{name} {start}..{end}");
        }
        let truth = block_on(open_all(&format!("{name}#neighbors"), folder)).unwrap();
        assert_eq!((truth.manifest().rows, truth.manifest().dims), (5, 3));
        let lists = block_on(truth.read(RowRange { start: 0, end: 5 })).unwrap();
        assert_eq!(lists.row_numbers(4).collect::<Vec<_>>(), [Some(12), Some(13), Some(14)]);
        let missing = block_on(open_all(&format!("{name}#nothing"), folder)).unwrap_err();
        assert!(missing.to_string().contains("nothing"), "{missing}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What the writer was given reads back as the same numbers, for every format that can be written.
    #[test]
    fn written_rows_read_back(
        name in prop::sample::select(&["a.fbin", "a.u8bin", "a.i8bin", "a.fvecs", "a.bvecs", "a.npy", "a.parquet"][..]),
        rows in 1_u64..60, dims in 1_u32..9, step in 1_u64..40, small: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let element = if small { Element::I8 } else { Element::F32 };
        let body: Vec<u8> = (0..rows * u64::from(dims))
            .flat_map(|i| {
                let number = u8::try_from(i * 5 % 127).unwrap();
                if small { vec![number] } else { f32::from(number).to_le_bytes().to_vec() }
            })
            .collect();
        let given = Rows { dims, element, bytes: Bytes::from(body) };
        let url = resolve(name, folder.path()).unwrap();
        let read = block_on(async {
            let mut writer = DatasetWriter::create(&url, rows, dims, element).await.unwrap();
            let size = count::index(u64::from(dims) * element.bytes());
            for start in (0..rows).step_by(count::index(step)) {
                let end = (start + step).min(rows);
                let bytes = given.bytes.slice(count::index(start) * size..count::index(end) * size);
                writer.write(&Rows { bytes, ..given }).await.unwrap();
            }
            assert!(!folder.path().join(name).exists(), "not visible before it is whole");
            writer.finish().await.unwrap();
            let view = DatasetView::open_url(&url).await.unwrap();
            view.read(RowRange { start: 0, end: rows }).await.unwrap()
        });
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), given.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_survey_of_parts_is_the_survey_of_the_whole(
        numbers in prop::collection::vec(prop_oneof![Just(0.0_f32), Just(f32::NAN), -5.0_f32..5.0], 2..40), cut in 0_usize..20,
    ) {
        let bytes: Vec<u8> = numbers.iter().take(numbers.len() / 2 * 2).flat_map(|x| x.to_le_bytes()).collect();
        let rows = |bytes: &[u8]| Rows { dims: 2, element: Element::F32, bytes: Bytes::copy_from_slice(bytes) };
        let at = (cut * 8).min(bytes.len());
        let (mut whole, mut a, mut b) = (Survey::default(), Survey::default(), Survey::default());
        whole.add(0, &rows(&bytes));
        a.add(0, &rows(&bytes[..at]));
        b.add(count::len(at / 8), &rows(&bytes[at..]));
        b.join(a);
        prop_assert_eq!(&b, &whole);
        let zero = rows(&bytes).iter().filter(|row| row.iter().all(|x| *x == 0.0)).count();
        prop_assert_eq!(whole.zero, count::len(zero));
    }
}
