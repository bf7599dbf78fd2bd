use std::path::Path as FilePath;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

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

/// A data set, the files that hold it and the reference that names it.
#[derive(Clone, Debug)]
struct Stored {
    reference: String,
    files: Vec<(String, Vec<u8>)>,
    rows: u64,
    dims: u32,
    element: Element,
    body: Vec<u8>,
}

impl Stored {
    fn row_bytes(&self) -> usize {
        count::index(u64::from(self.dims) * self.element.bytes())
    }
}

const KINDS: [&str; 25] = [
    "fbin",
    "u8bin",
    "i8bin",
    "ibin",
    "fvecs",
    "bvecs",
    "ivecs",
    "truth",
    "npy1 f64",
    "npy2 f16",
    "npy1 u8",
    "decdb f32",
    "decdb f16",
    "decdb queries",
    "decdb truth",
    "yaml",
    "yaml queries",
    "yaml truth",
    "vkv 0",
    "vkv 1",
    "vkv 2",
    "parquet list",
    "parquet fixed",
    "fvecs.gz",
    "u8bin.zst",
];

fn element_of(kind: &str) -> Element {
    match kind.split([' ', '.']).next_back().unwrap() {
        "u8bin" | "bvecs" | "u8" => Element::U8,
        "i8bin" | "1" => Element::I8,
        "ibin" | "ivecs" => Element::I32,
        "truth" if kind == "decdb truth" => Element::I64,
        "truth" => Element::U32,
        "f16" => Element::F16,
        "f64" | "2" => Element::F64,
        _ if kind.starts_with("u8bin") => Element::U8,
        _ => Element::F32,
    }
}

/// Writes each format by its description, without the code that reads it.
fn write(kind: &str, rows: u64, dims: u32, element: Element, body: &[u8]) -> Stored {
    let row_bytes = count::index(u64::from(dims) * element.bytes());
    let row = |i: u64| &body[count::index(i) * row_bytes..(count::index(i) + 1) * row_bytes];
    let n = u32::try_from(rows).unwrap();
    let big_ann = || [&n.to_le_bytes()[..], &dims.to_le_bytes(), body].concat();
    let vecs = || (0..rows).flat_map(|i| [&dims.to_le_bytes()[..], row(i)].concat()).collect::<Vec<u8>>();
    let one = |name: &str, content: Vec<u8>| (name.to_owned(), vec![(name.to_owned(), content)]);
    let (reference, files) = match kind {
        "fbin" | "u8bin" | "i8bin" | "ibin" => one(&format!("v.{kind}"), big_ann()),
        "fvecs" | "bvecs" | "ivecs" => one(&format!("v.{kind}"), vecs()),
        "truth" => one("t.bin", [big_ann(), vec![1; body.len()]].concat()),
        "npy1 f64" | "npy1 u8" => {
            let descr = if element == Element::U8 { "|u1" } else { "<f8" };
            let text =
                format!("{{\"descr\": \"{descr}\", \"fortran_order\": False, \"shape\": ({rows},{dims})}}\n");
            let length = u16::try_from(text.len()).unwrap();
            let head = [b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], text.as_bytes()].concat();
            one("v.npy", [&head[..], body].concat())
        }
        "npy2 f16" => {
            let text =
                format!("{{'shape': ({rows}, {dims}), 'fortran_order': False, 'descr': '<f2', }}   \n");
            let length = u32::try_from(text.len()).unwrap();
            let head = [b"\x93NUMPY\x02\x00", &length.to_le_bytes()[..], text.as_bytes()].concat();
            one("v.npy", [&head[..], body].concat())
        }
        "decdb f32" | "decdb f16" | "decdb queries" | "decdb truth" => {
            let padded = row_bytes.div_ceil(64) * 64;
            let mut head = vec![0; 4096];
            head[..4].copy_from_slice(&0xDECD_B001_u32.to_le_bytes());
            head[4] = 1;
            head[265] = u8::from(element == Element::F16);
            let is_truth = kind == "decdb truth";
            head[268..272].copy_from_slice(&(if is_truth { 3 } else { dims }).to_le_bytes());
            head[272..280].copy_from_slice(&rows.to_le_bytes());
            head[280..288].copy_from_slice(&rows.to_le_bytes());
            head[288..292].copy_from_slice(&dims.to_le_bytes());
            let at = |i: u64| 4096 + i * rows * count::len(padded);
            for (i, offset) in [(0, 296), (1, 304), (2, 312)] {
                head[offset..offset + 8].copy_from_slice(&at(i).to_le_bytes());
            }
            let packed: Vec<u8> =
                (0..rows).flat_map(|i| [row(i), &vec![0xEE; padded - row_bytes][..]].concat()).collect();
            let noise = vec![0x55; packed.len()];
            let section = kind.split(' ').next_back().unwrap();
            let (name, content) = match section {
                "queries" => ("q.bin#queries", [head, noise, packed].concat()),
                "truth" => {
                    // The truth's rows are packed; the sections before it are of three dimensions of f32.
                    let before = count::index(rows) * 64 * 2;
                    head[312..320].copy_from_slice(&count::len(4096 + before).to_le_bytes());
                    ("q.bin#ground_truth", [&head[..], &vec![9; before], body].concat())
                }
                _ => ("v.bin", [head, packed].concat()),
            };
            (name.to_owned(), vec![(name.split('#').next().unwrap().to_owned(), content)])
        }
        "yaml" | "yaml queries" | "yaml truth" => {
            let (dims_said, depth) = if kind == "yaml truth" { (2, dims) } else { (dims, 1) };
            let yaml = format!(
                "version: 1\nmetadata: {{name: x}}\nrecord:\n  fields:\n    - {{name: tag, type: tag, length: variable, max_bytes: 3}}\n    \
                 - {{name: emb, type: vector, dimensions: {dims_said}}}\n    - {{name: price, type: numeric}}\nsections:\n  \
                 records: {{count: {rows}}}\n  keys: {{present: true, max_bytes: 5}}\n  queries: {{present: true, count: {rows}, \
                 query_fields: [emb, price]}}\n  ground_truth: {{present: true, neighbors_per_query: {depth}, id_type: u32}}\n"
            );
            let vector_bytes = count::index(u64::from(dims_said) * 4);
            let wanted = |section: &str| kind == section;
            let noise = vec![7; vector_bytes];
            let mut data = Vec::new();
            for i in 0..rows {
                let vector = if wanted("yaml") { row(i) } else { &noise };
                data.extend([&[1; 7][..], vector, &[2; 8]].concat());
            }
            data.extend(vec![3; count::index(rows) * 5]);
            for i in 0..rows {
                let vector = if wanted("yaml queries") { row(i) } else { &noise };
                data.extend([vector, &[4; 8]].concat());
            }
            data.extend(if wanted("yaml truth") { body.to_vec() } else { vec![5; count::index(rows) * 4] });
            let section = match kind {
                "yaml queries" => "#queries",
                "yaml truth" => "#ground_truth",
                _ => "",
            };
            (format!("d.yaml{section}"), vec![("d.yaml".into(), yaml.into_bytes()), ("d.bin".into(), data)])
        }
        "vkv 0" | "vkv 1" | "vkv 2" => {
            let number: u8 = kind.split(' ').next_back().unwrap().parse().unwrap();
            let code = match element {
                Element::F32 => 0,
                Element::F64 => 1,
                Element::I8 => 2,
                _ => 3,
            };
            let mut file = [
                b"VKV\x01",
                &rows.to_le_bytes()[..],
                &dims.to_le_bytes(),
                &[code, number],
                &7_u32.to_le_bytes(),
            ]
            .concat();
            file.resize(64, 0);
            for (index, start) in (0..rows).step_by(7).enumerate() {
                let end = rows.min(start + 7);
                let mut block = Vec::new();
                for i in start..end {
                    let key = format!("k{}", i * i);
                    block.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
                    block.extend(key.as_bytes());
                    block.extend(row(i));
                }
                let packed = match number {
                    0 => block.clone(),
                    1 => zstd::bulk::compress(&block, 1).unwrap(),
                    _ => lz4_flex::block::compress(&block),
                };
                for word in [
                    u32::try_from(index).unwrap(),
                    u32::try_from(end - start).unwrap(),
                    u32::try_from(packed.len()).unwrap(),
                    u32::try_from(block.len()).unwrap(),
                ] {
                    file.extend(word.to_le_bytes());
                }
                file.extend(packed);
            }
            one("v.vkv", file)
        }
        "parquet list" | "parquet fixed" => {
            one("v.parquet", parquet_file(rows, dims, body, kind == "parquet fixed"))
        }
        "fvecs.gz" => {
            // Two members, as a parallel packer writes them.
            let plain = vecs();
            let (a, b) = plain.split_at(plain.len() / 2);
            let pack = |part: &[u8]| {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut out, part).unwrap();
                out.finish().unwrap()
            };
            one("v.fvecs.gz", [pack(a), pack(b)].concat())
        }
        _ => one("v.u8bin.zst", zstd::bulk::compress(&big_ann(), 1).unwrap()),
    };
    Stored { reference, files, rows, dims, element, body: body.to_vec() }
}

fn parquet_file(rows: u64, dims: u32, body: &[u8], fixed: bool) -> Vec<u8> {
    use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, ListBuilder};
    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    let values = numbers(Element::F32, body);
    let list: ArrayRef = if fixed {
        let mut list = FixedSizeListBuilder::new(Float32Builder::new(), i32::try_from(dims).unwrap());
        for row in values.chunks(count::index(u64::from(dims))) {
            list.values().append_slice(row);
            list.append(true);
        }
        Arc::new(list.finish())
    } else {
        let mut list = ListBuilder::new(Float32Builder::new());
        for row in values.chunks(count::index(u64::from(dims))) {
            list.values().append_slice(row);
            list.append(true);
        }
        Arc::new(list.finish())
    };
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..i64::try_from(rows).unwrap()));
    let batch = RecordBatch::try_from_iter([("id", ids), ("emb", list)]).unwrap();
    let properties = ::parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(11))
        .set_data_page_row_count_limit(4)
        .set_write_batch_size(2)
        .build();
    let mut file = Vec::new();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

/// A data set in some format, and two places in 0..=rows.
fn contents() -> impl Strategy<Value = (Stored, u64, u64)> {
    (prop::sample::select(&KINDS[..]), 1_u32..40, 1_u32..20).prop_flat_map(|(kind, rows, dims)| {
        let element = element_of(kind);
        let size = count::index(u64::from(rows * dims) * element.bytes());
        let rows = u64::from(rows);
        let body = prop::collection::vec(any::<u8>(), size);
        (body, 0..=rows, 0..=rows)
            .prop_map(move |(body, a, b)| (write(kind, rows, dims, element, &body), a, b))
    })
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

/// What a type cannot hold is refused, not rounded.
#[test]
fn a_number_that_the_type_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = resolve("a.u8bin", folder.path()).unwrap();
    let half = Rows { dims: 1, element: Element::F32, bytes: Bytes::copy_from_slice(&1.5_f32.to_le_bytes()) };
    let refused = block_on(async {
        let mut writer = DatasetWriter::create(&url, 1, 1, Element::F32).await.unwrap();
        writer.write(&half).await.unwrap_err().to_string()
    });
    assert!(refused.contains("row 0 holds 1.5, which is no u8"), "{refused}");
    assert!(!folder.path().join("a.u8bin").exists());
}

#[test]
fn neighbours_are_read_from_any_list_of_row_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let lists: Vec<u8> = [3_u32, 1, 2, 0].iter().flat_map(|id| id.to_le_bytes()).collect();
    let wide: Vec<u8> = [3_u64, 1, 2, 0].iter().flat_map(|id| id.to_le_bytes()).collect();
    let truth = |kind: &str| {
        let stored = match kind {
            "decdb truth" => write(kind, 2, 2, Element::I64, &wide),
            _ => write(kind, 2, 2, element_of(kind), &lists),
        };
        for (name, content) in &stored.files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        block_on(open_truth(&resolve(&stored.reference, folder.path()).unwrap(), &ReadFaults::default()))
            .unwrap()
    };
    for kind in ["truth", "ivecs", "ibin", "yaml truth", "decdb truth"] {
        let truth = truth(kind);
        assert_eq!((truth.queries, truth.k, &truth.ids[..]), (2, 2, &[3, 1, 2, 0][..]), "{kind}");
        assert_eq!(truth.distances.len(), 4);
    }
    let vectors = write("fbin", 2, 2, Element::F32, &[0; 16]);
    std::fs::write(folder.path().join("v.fbin"), &vectors.files[0].1).unwrap();
    let refused =
        block_on(open_truth(&resolve("v.fbin", folder.path()).unwrap(), &ReadFaults::default())).unwrap_err();
    assert!(refused.to_string().contains("neighbours are row numbers"), "{refused}");
}

#[test]
fn a_copy_is_made_anew_when_the_object_changes() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let options = ReadOptions { cache: Some(folder.path().to_owned()), ..ReadOptions::default() };
        let path = Path::from("v.u8bin");
        let url = Url::parse("s3://bucket/v.u8bin").unwrap();
        for value in [1, 2] {
            store.put(&path, file(1, 2, &[value; 2]).into()).await.unwrap();
            for _ in 0..2 {
                let view =
                    DatasetView::open_object(Arc::clone(&store), path.clone(), &url, &options).await.unwrap();
                let row = view.read(RowRange { start: 0, end: 1 }).await.unwrap();
                assert_eq!(row.bytes.as_ref(), [value; 2]);
                assert_eq!(view.manifest().url, "s3://bucket/v.u8bin");
            }
        }
    });
}

#[test]
fn sample_is_what_its_readme_says() {
    let view = block_on(open(url("base.u8bin"))).unwrap();
    let manifest = view.manifest();
    assert_eq!((manifest.rows, manifest.dims, manifest.element), (10_000, 128, Element::U8));
    assert_eq!(manifest.size_bytes, 1_280_008);
    let norm_max = super::sample::base()
        .iter()
        .map(|row| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt())
        .fold(0.0, f64::max);
    assert!((norm_max - 511.0675).abs() < 1e-4, "{norm_max}");
}

#[test]
fn faults_name_the_numbers_and_the_fix() {
    let messages = [
        error_of("v.u8bin", file(3, 4, &[0; 11])),
        error_of("v.u8bin", file(3, 4, &[0; 13])),
        error_of("v.fbin", file(3, 4, &[0; 12])),
        error_of("v.i8bin", vec![1, 2, 3]),
        error_of("v.i8bin", Vec::new()),
        error_of("v.u8bin", file(0, 4, &[])),
        error_of("v.u8bin", file(4, 0, &[])),
        error_of("v.u8bin", file(u32::MAX, u32::MAX, &[])),
        error_of("v.txt", vec![0; 16]),
        error_of("v.fvecs", vec![0; 16]),
        error_of("v.fvecs", [[3, 0, 0, 0].as_slice(), &[0; 13]].concat()),
        error_of("v.npy", vec![1; 16]),
        error_of("v.vkv", vec![1; 64]),
        error_of("v.bin", vec![1; 64]),
        error_of("v.parquet", vec![1; 64]),
        error_of("v.hdf5", vec![1; 64]),
        error_of("u8bin", vec![0; 16]),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    memory:///v.u8bin has 19 bytes, its header (3 rows x 4 dimensions of u8) asks for 20: the file is truncated
    memory:///v.u8bin has 21 bytes, its header (3 rows x 4 dimensions of u8) asks for 20: the file is too long, or its name tells the wrong format
    memory:///v.fbin has 20 bytes, its header (3 rows x 4 dimensions of f32) asks for 56: the file is truncated
    memory:///v.i8bin has 3 bytes, its header alone has 8: the file is truncated
    memory:///v.i8bin has 0 bytes, its header alone has 8: the file is truncated
    memory:///v.u8bin is empty by its header: 0 rows x 4 dimensions
    memory:///v.u8bin is empty by its header: 4 rows x 0 dimensions
    memory:///v.u8bin has 8 bytes, its header (4294967295 rows x 4294967295 dimensions of u8) asks for 18446744065119617033: the file is truncated
    `memory:///v.txt` does not tell its format: the name must end in .fbin, .u8bin, .i8bin, .ibin, .fvecs, .bvecs, .ivecs, .bin, .npy, .hdf5, .parquet, .vkv, .yaml, each also with .gz or .zst
    memory:///v.fvecs is empty by its header: 0 rows x 0 dimensions
    memory:///v.fvecs cannot be read as fvecs: its first row has 3 dimensions, 16 bytes a row, but 17 bytes are no multiple of that: the file is truncated or not fvecs
    memory:///v.npy cannot be read as npy: it does not begin with \x93NUMPY
    memory:///v.vkv cannot be read as vkv: it does not begin with VKV\x01
    memory:///v.bin cannot be read as valkey-bench (0xDECDB001): it begins with neither 0xDECDB001 nor the header of a big-ann ground truth of its size
    memory:///v.parquet cannot be read as parquet: Parquet error: Invalid Parquet file. Corrupt footer
    memory:///v.hdf5 cannot be read as hdf5: invalid HDF5 magic bytes
    `memory:///u8bin` does not tell its format: the name must end in .fbin, .u8bin, .i8bin, .ibin, .fvecs, .bvecs, .ivecs, .bin, .npy, .hdf5, .parquet, .vkv, .yaml, each also with .gz or .zst
    ");
}

#[test]
fn rows_that_do_not_exist_are_refused() {
    let view = block_on(in_memory("v.u8bin", file(2, 1, &[1, 2]))).unwrap();
    for (start, end) in [(0, 3), (3, 3), (2, 1), (0, u64::MAX)] {
        assert!(
            matches!(block_on(view.read(RowRange { start, end })), Err(Error::OutOfRange { .. })),
            "{start}..{end}"
        );
    }
    assert!(block_on(view.read(RowRange { start: 2, end: 2 })).unwrap().is_empty());
}

/// A replaced object of the same size is another data set: its rows must not pass for those of the manifest.
#[test]
fn change_of_the_object_is_noticed() {
    block_on(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("v.u8bin");
        store.put(&path, file(2, 1, &[1, 2]).into()).await.unwrap();
        let url = Url::parse("memory:///v.u8bin").unwrap();
        let view = DatasetView::open(Arc::clone(&store), path.clone(), url).await.unwrap();
        store.put(&path, file(2, 1, &[3, 4]).into()).await.unwrap();
        let read = view.read(RowRange { start: 0, end: 1 }).await;
        assert!(matches!(read, Err(Error::Changed { .. })), "{read:?}");
    });
}

#[test]
fn references_become_absolute_urls() {
    let base = FilePath::new("/data/scenarios");
    let resolved = |reference: &str| resolve(reference, base).map(|url| url.to_string());
    assert_eq!(resolved("a.u8bin").unwrap(), "file:///data/scenarios/a.u8bin");
    assert_eq!(resolved("../big ann/./a#1.u8bin").unwrap(), "file:///data/big%20ann/a%231.u8bin");
    assert_eq!(resolved("/abs/a.u8bin").unwrap(), "file:///abs/a.u8bin");
    assert_eq!(resolved("file:///abs/a.u8bin").unwrap(), "file:///abs/a.u8bin");
    assert_eq!(resolved("glove.hdf5#test").unwrap(), "file:///data/scenarios/glove.hdf5#test");
    assert_eq!(resolved("s3://bucket/a.u8bin").unwrap(), "s3://bucket/a.u8bin");
    let messages =
        ["ftp://host/a.u8bin", "s3://user:secret@bucket/a.u8bin", "file://host/a.u8bin", "://", ""]
            .map(|bad| resolved(bad).unwrap_err().to_string());
    insta::assert_snapshot!(messages.join("\n"), @"
    `ftp://host/a.u8bin` has the scheme `ftp`: known are a plain path and file://, s3://, gs://, az://, http://, https:// and generate:
    `s3://bucket/a.u8bin` is neither a path nor a URL that names a file: credentials do not belong in a URL: give them in the environment
    `file://host/a.u8bin` is neither a path nor a URL that names a file: a file URL names no host: file:///absolute/path
    `://` is neither a path nor a URL that names a file: relative URL without a base
    `` is neither a path nor a URL that names a file: it is empty
    ");
}

#[test]
fn resolved_urls_open_whatever_the_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["plain.u8bin", "a b#c?d%20e.u8bin", "ä.u8bin"] {
        let view = block_on(on_disk(folder.path(), name, &file(1, 1, &[9]))).unwrap();
        assert_eq!(block_on(view.read(RowRange { start: 0, end: 1 })).unwrap().bytes.as_ref(), [9]);
    }
    let missing = block_on(open(resolve("missing.u8bin", folder.path()).unwrap()));
    assert!(matches!(missing, Err(Error::NotFound { .. })));
}

/// A billion rows cost as little to open as ten, and a range of them as much as it has bytes.
#[test]
fn a_billion_rows_are_opened_and_read_at_random() {
    const ROWS: u32 = 1_000_000_000;
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("base.u8bin")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[ROWS.to_le_bytes(), 128_u32.to_le_bytes()].concat(), 0)
        .unwrap();
    file.set_len(8 + 128 * u64::from(ROWS)).unwrap();
    let marked: Vec<u64> = (0..50).map(|n| crate::seed::Draw::new(7, 0, n).below(u64::from(ROWS))).collect();
    for row in &marked {
        std::os::unix::fs::FileExt::write_all_at(&file, &row.to_le_bytes(), 8 + row * 128).unwrap();
    }
    let begun = crate::clock::mono_ns();
    let view = block_on(open_all("base.u8bin", folder.path())).unwrap();
    assert!(crate::clock::mono_ns() - begun < crate::clock::SECOND_NS, "opening reads the header only");
    assert_eq!((view.manifest().rows, view.manifest().dims), (u64::from(ROWS), 128));
    for row in marked {
        let start = row.saturating_sub(3);
        let rows = block_on(view.read(RowRange { start, end: row + 1 })).unwrap();
        assert_eq!(rows.stored(count::index(row - start))[..8], row.to_le_bytes());
    }
}
