//! How vectors are laid out in a file, told by its name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a coordinate is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Element {
    /// 32-bit float, little endian.
    F32,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
}

impl Element {
    /// Bytes of one coordinate.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::U8 | Self::I8 => 1,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::U8 => "u8",
            Self::I8 => "i8",
        })
    }
}

/// The layout of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// big-ann: u32 rows, u32 dimensions (little endian), then the rows, packed, of f32.
    Fbin,
    /// The same of u8.
    U8bin,
    /// The same of i8.
    I8bin,
}

impl Format {
    /// All formats that can be read.
    pub const ALL: [Self; 3] = [Self::Fbin, Self::U8bin, Self::I8bin];
    /// Bytes before the first row.
    pub const HEADER_BYTES: u64 = 8;

    /// The format that a file's name tells by its extension.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit('/').next()?.rsplit_once('.')?;
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    /// The extension of such files.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Fbin => "fbin",
            Self::U8bin => "u8bin",
            Self::I8bin => "i8bin",
        }
    }

    /// What its coordinates are stored as.
    #[must_use]
    pub fn element(self) -> Element {
        match self {
            Self::Fbin => Element::F32,
            Self::U8bin => Element::U8,
            Self::I8bin => Element::I8,
        }
    }
}

/// The known extensions, as a message names them.
pub(super) fn extensions() -> String {
    Format::ALL.map(|format| format!(".{}", format.extension())).join(", ")
}
