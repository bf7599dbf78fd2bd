//! How vectors are laid out in a file, told by its name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Element;

/// The layout of a file; all numbers are little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// big-ann: u32 rows, u32 dimensions, then the rows, packed, of f32.
    Fbin,
    /// The same of u8.
    U8bin,
    /// The same of i8.
    I8bin,
    /// The same of i32.
    Ibin,
    /// Each row: i32 dimensions, then f32 coordinates.
    Fvecs,
    /// Each row: i32 dimensions, then u8 coordinates.
    Bvecs,
    /// Each row: i32 dimensions, then i32 coordinates.
    Ivecs,
    /// big-ann ground truth: u32 queries, u32 k, all ids (u32), all distances (f32). Its rows are the id lists.
    GroundTruth,
    /// NumPy, versions 1 to 3, two dimensions in C order.
    Npy,
    /// ann-benchmarks: an HDF5 file with `train`, `test`, `neighbors`, `distances`.
    Hdf5,
    /// Apache Parquet with a list column.
    Parquet,
    /// VKV: blocks of keys and vectors, packed by zstd or lz4 or not.
    Vkv,
    /// valkey-bench, magic 0xDECDB001: vectors, queries and truth in one file.
    ValkeyBench,
    /// valkey-bench: sections of a headerless .bin, described by a YAML file beside it.
    ValkeyBenchSchema,
    /// No file: each row is computed from a seed and its number.
    Generated,
}

impl Format {
    /// All formats that a name can tell.
    pub const ALL: [Self; 14] = [
        Self::Fbin,
        Self::U8bin,
        Self::I8bin,
        Self::Ibin,
        Self::Fvecs,
        Self::Bvecs,
        Self::Ivecs,
        Self::GroundTruth,
        Self::Npy,
        Self::Hdf5,
        Self::Parquet,
        Self::Vkv,
        Self::ValkeyBench,
        Self::ValkeyBenchSchema,
    ];

    /// The format that a file's name tells by its extension. `.bin` is [`Format::ValkeyBench`] or
    /// [`Format::GroundTruth`]; the file's first bytes tell which.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = Packing::strip(name).0.rsplit('/').next()?.rsplit_once('.')?;
        match extension {
            "bin" => Some(Self::ValkeyBench),
            "h5" => Some(Self::Hdf5),
            "yml" => Some(Self::ValkeyBenchSchema),
            _ => Self::ALL.into_iter().find(|format| format.extension() == extension),
        }
    }

    /// Whether a file of this name can hold several data sets, of which one is named after `#`.
    pub(super) fn has_sections(name: &str) -> bool {
        matches!(
            Self::of_name(name),
            Some(Self::Hdf5 | Self::Parquet | Self::ValkeyBench | Self::ValkeyBenchSchema)
        )
    }

    /// The extension of such files.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Fbin => "fbin",
            Self::U8bin => "u8bin",
            Self::I8bin => "i8bin",
            Self::Ibin => "ibin",
            Self::Fvecs => "fvecs",
            Self::Bvecs => "bvecs",
            Self::Ivecs => "ivecs",
            Self::GroundTruth | Self::ValkeyBench => "bin",
            Self::Npy => "npy",
            Self::Hdf5 => "hdf5",
            Self::Parquet => "parquet",
            Self::Vkv => "vkv",
            Self::ValkeyBenchSchema => "yaml",
            Self::Generated => "",
        }
    }

    /// What its coordinates are stored as, where the format alone says it.
    #[must_use]
    pub fn element(self) -> Option<Element> {
        match self {
            Self::Fbin | Self::Fvecs => Some(Element::F32),
            Self::U8bin | Self::Bvecs => Some(Element::U8),
            Self::I8bin => Some(Element::I8),
            Self::Ibin | Self::Ivecs => Some(Element::I32),
            Self::GroundTruth => Some(Element::U32),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GroundTruth => "big-ann ground truth",
            Self::ValkeyBench => "valkey-bench (0xDECDB001)",
            Self::ValkeyBenchSchema => "valkey-bench YAML",
            Self::Generated => "generated",
            other => other.extension(),
        })
    }
}

/// How a whole file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// A name without the extension of its compression, and that compression.
    pub(super) fn strip(name: &str) -> (&str, Option<Self>) {
        if let Some(name) = name.strip_suffix(".gz") {
            (name, Some(Self::Gzip))
        } else if let Some(name) = name.strip_suffix(".zst") {
            (name, Some(Self::Zstd))
        } else {
            (name, None)
        }
    }
}

/// The known extensions, as a message names them.
pub(super) fn extensions() -> String {
    let mut names: Vec<String> = Vec::new();
    for format in Format::ALL {
        let name = format!(".{}", format.extension());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    format!("{}, each also with .gz or .zst", names.join(", "))
}
