//! What is refused, and single cases that no law covers.

use super::stored::{element_of, write};
use super::*;

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
