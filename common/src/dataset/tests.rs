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
fn numbers(element: Element, stored: &[u8]) -> Vec<f32> {
    match element {
        Element::F32 => stored.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect(),
        Element::U8 => stored.iter().map(|b| f32::from(*b)).collect(),
        Element::I8 => stored.iter().map(|b| f32::from(i8::from_le_bytes([*b]))).collect(),
    }
}

/// Number of rows and dimensions, the stored rows, two places in 0..=rows.
fn contents() -> impl Strategy<Value = (Format, u32, u32, Vec<u8>, u64, u64)> {
    (prop::sample::select(&Format::ALL[..]), 1_u32..40, 1_u32..20).prop_flat_map(|(format, rows, dims)| {
        let size = count::index(u64::from(rows * dims) * format.element().bytes());
        let body = prop::collection::vec(any::<u8>(), size);
        (Just(format), Just(rows), Just(dims), body, 0..=u64::from(rows), 0..=u64::from(rows))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_range_equals_the_same_rows_of_the_whole((format, rows, dims, body, a, b) in contents()) {
        let name = format!("v.{}", format.extension());
        let range = RowRange { start: a.min(b), end: a.max(b) };
        let content = file(rows, dims, &body);
        let folder = tempfile::tempdir().unwrap();
        let views = block_on(async {
            [in_memory(&name, content.clone()).await.unwrap(), on_disk(folder.path(), &name, &content).await.unwrap()]
        });
        for view in views {
            prop_assert_eq!((view.manifest().rows, view.manifest().dims), (u64::from(rows), dims));
            let part = block_on(view.read(range)).unwrap();
            prop_assert_eq!(count::len(part.len()), range.len());
            prop_assert_eq!(part.is_empty(), range.is_empty());
            let row_bytes = count::index(view.manifest().row_bytes());
            let (start, end) = (count::index(range.start) * row_bytes, count::index(range.end) * row_bytes);
            prop_assert_eq!(part.bytes.as_ref(), &body[start..end]);
        }
    }

    #[test]
    fn both_ways_to_numbers_agree_with_the_element((format, _, dims, body, ..) in contents()) {
        let element = format.element();
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

    /// Whatever the size of a file, it opens only if that is the size which its header asks for.
    #[test]
    fn size_and_header_must_agree((format, rows, dims, mut body, ..) in contents(), size in 0_usize..400) {
        let right = body.len();
        body.resize(size, 0);
        let name = format!("v.{}", format.extension());
        let opened = block_on(in_memory(&name, file(rows, dims, &body)));
        prop_assert_eq!(opened.is_ok(), size == right);
    }
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
        error_of("v.fvecs", vec![0; 16]),
        error_of("u8bin", vec![0; 16]),
    ];
    insta::assert_snapshot!(messages.join("\n"), @"
    memory:///v.u8bin has 19 bytes, its header (3 rows x 4 dimensions of u8) asks for 20: the file is truncated
    memory:///v.u8bin has 21 bytes, its header (3 rows x 4 dimensions of u8) asks for 20: the file is too long, or its name tells the wrong format
    memory:///v.fbin has 20 bytes, its header (3 rows x 4 dimensions of f32) asks for 56: the file is truncated
    memory:///v.i8bin has 3 bytes, its header alone has 8: the file is truncated
    memory:///v.i8bin has 0 bytes, its header alone has 8: the file is truncated
    memory:///v.u8bin is empty by its header: 0 rows x 4 dimensions
    memory:///v.u8bin is empty by its header: 4 rows x 0 dimensions
    memory:///v.u8bin has 8 bytes, its header (4294967295 rows x 4294967295 dimensions of u8) asks for 18446744065119617033: the file is truncated
    `memory:///v.fvecs` does not tell its format: the name must end in .fbin, .u8bin, .i8bin
    `memory:///u8bin` does not tell its format: the name must end in .fbin, .u8bin, .i8bin
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
    let messages = ["s3://bucket/a.u8bin", "file://host/a.u8bin", "://", ""]
        .map(|bad| resolved(bad).unwrap_err().to_string());
    insta::assert_snapshot!(messages.join("\n"), @"
    `s3://bucket/a.u8bin` has the scheme `s3`: supported are a plain path and file://
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
    assert!(matches!(missing, Err(Error::Store { .. })));
}
