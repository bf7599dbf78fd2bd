//! Public data sets that vector search is measured with, and where their publishers keep them.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableStyle};
use serde::Serialize;
use vst_common::count;
use vst_common::exit::Exit;

use crate::error::Failure;
use crate::output;

/// A public data set.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) rows: u64,
    pub(super) dims: u32,
    pub(super) element: &'static str,
    pub(super) metric: &'static str,
    /// Of all files; of compressed formats about.
    pub(super) gigabytes: f64,
    pub(super) licence: &'static str,
    pub(super) files: &'static [File],
}

/// One of its files and what it is good for.
#[derive(Debug, Serialize)]
pub(super) struct File {
    pub(super) role: &'static str,
    pub(super) url: &'static str,
}

macro_rules! file {
    ($role:literal, $url:literal) => {
        File { role: $role, url: $url }
    };
}

const ALL_IN_ONE: &str = "base, #test queries, #neighbors truth";

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "sift-1m",
        rows: 1_000_000,
        dims: 128,
        element: "f32",
        metric: "l2",
        gigabytes: 0.5,
        licence: "CC0 1.0",
        files: &[File { role: ALL_IN_ONE, url: "http://ann-benchmarks.com/sift-128-euclidean.hdf5" }],
    },
    Entry {
        name: "gist-1m",
        rows: 1_000_000,
        dims: 960,
        element: "f32",
        metric: "l2",
        gigabytes: 3.8,
        licence: "CC0 1.0",
        files: &[File { role: ALL_IN_ONE, url: "http://ann-benchmarks.com/gist-960-euclidean.hdf5" }],
    },
    Entry {
        name: "glove-100",
        rows: 1_183_514,
        dims: 100,
        element: "f32",
        metric: "cosine",
        gigabytes: 0.5,
        licence: "PDDL 1.0",
        files: &[File { role: ALL_IN_ONE, url: "http://ann-benchmarks.com/glove-100-angular.hdf5" }],
    },
    Entry {
        name: "mnist",
        rows: 60_000,
        dims: 784,
        element: "f32",
        metric: "l2",
        gigabytes: 0.2,
        licence: "see the publisher",
        files: &[File { role: ALL_IN_ONE, url: "http://ann-benchmarks.com/mnist-784-euclidean.hdf5" }],
    },
    Entry {
        name: "fashion-mnist",
        rows: 60_000,
        dims: 784,
        element: "f32",
        metric: "l2",
        gigabytes: 0.2,
        licence: "MIT",
        files: &[File {
            role: ALL_IN_ONE,
            url: "http://ann-benchmarks.com/fashion-mnist-784-euclidean.hdf5",
        }],
    },
    Entry {
        name: "cohere-1m",
        rows: 1_000_000,
        dims: 768,
        element: "f32",
        metric: "cosine",
        gigabytes: 3.1,
        licence: "see the publisher",
        files: &[
            file!("base", "https://assets.zilliz.com/benchmark/cohere_medium_1m/train.parquet"),
            file!("queries", "https://assets.zilliz.com/benchmark/cohere_medium_1m/test.parquet"),
            file!("truth", "https://assets.zilliz.com/benchmark/cohere_medium_1m/neighbors.parquet"),
        ],
    },
    Entry {
        name: "openai-500k",
        rows: 500_000,
        dims: 1536,
        element: "f32",
        metric: "cosine",
        gigabytes: 3.1,
        licence: "see the publisher",
        files: &[
            file!("base", "https://assets.zilliz.com/benchmark/openai_medium_500k/train.parquet"),
            file!("queries", "https://assets.zilliz.com/benchmark/openai_medium_500k/test.parquet"),
            file!("truth", "https://assets.zilliz.com/benchmark/openai_medium_500k/neighbors.parquet"),
        ],
    },
    Entry {
        name: "bigann-1b",
        rows: 1_000_000_000,
        dims: 128,
        element: "u8",
        metric: "l2",
        gigabytes: 128.0,
        licence: "CC0 1.0",
        files: &[
            file!("base", "https://dl.fbaipublicfiles.com/billion-scale-ann-benchmarks/bigann/base.1B.u8bin"),
            file!(
                "queries",
                "https://dl.fbaipublicfiles.com/billion-scale-ann-benchmarks/bigann/query.public.10K.u8bin"
            ),
            file!(
                "truth",
                "https://dl.fbaipublicfiles.com/billion-scale-ann-benchmarks/bigann/GT.public.1B.ibin"
            ),
        ],
    },
    Entry {
        name: "deep-1b",
        rows: 1_000_000_000,
        dims: 96,
        element: "f32",
        metric: "l2",
        gigabytes: 384.0,
        licence: "CC BY 4.0",
        files: &[
            file!("base", "https://storage.yandexcloud.net/yandex-research/ann-datasets/DEEP/base.1B.fbin"),
            file!(
                "queries",
                "https://storage.yandexcloud.net/yandex-research/ann-datasets/DEEP/query.public.10K.fbin"
            ),
            file!(
                "truth",
                "https://storage.yandexcloud.net/yandex-research/ann-datasets/deep_new_groundtruth.public.10K.bin"
            ),
        ],
    },
    Entry {
        name: "spacev-1b",
        rows: 1_402_020_720,
        dims: 100,
        element: "i8",
        metric: "l2",
        gigabytes: 140.2,
        licence: "O-UDA 1.0",
        files: &[
            file!(
                "base",
                "https://comp21storage.z5.web.core.windows.net/comp21/spacev1b/spacev1b_base.i8bin"
            ),
            file!("queries", "https://comp21storage.z5.web.core.windows.net/comp21/spacev1b/query.i8bin"),
            file!(
                "truth",
                "https://comp21storage.z5.web.core.windows.net/comp21/spacev1b/public_query_gt100.bin"
            ),
        ],
    },
];

/// The entry of a name.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

pub(super) fn list(json: bool) -> Result<Exit, Failure> {
    if json {
        output::result(&super::json(&ENTRIES)?)?;
        return Ok(Exit::Valid);
    }
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["name", "rows", "dims", "type", "metric", "GB", "licence", "where"]);
    for entry in ENTRIES {
        let place = entry.files.first().map_or("", |file| file.url);
        table.add_row([
            entry.name.to_owned(),
            grouped(entry.rows),
            entry.dims.to_string(),
            entry.element.to_owned(),
            entry.metric.to_owned(),
            format!("{:.1}", entry.gigabytes),
            entry.licence.to_owned(),
            place.to_owned(),
        ]);
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if matches!(i, 1 | 2 | 5) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    output::result(&table.trim_fmt())?;
    Ok(Exit::Valid)
}

/// A number with commas.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && count::len(digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_names_files_whose_format_is_known() {
        let here = std::path::Path::new("/");
        for entry in ENTRIES {
            assert!(!entry.files.is_empty(), "{}", entry.name);
            for file in entry.files {
                let url = vst_common::dataset::resolve(file.url, here).unwrap();
                assert!(vst_common::dataset::Format::of_name(url.path()).is_some(), "{}", file.url);
            }
        }
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!([0, 999, 1000, 1_402_020_720].map(grouped), ["0", "999", "1,000", "1,402,020,720"]);
    }
}
