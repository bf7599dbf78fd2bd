//! Vectors without a file: each row is computed from a seed and its number.
//!
//! Written as a URL, `generate:clustered?rows=1000000000&dims=128&seed=7`, so that it goes wherever a file goes; with
//! `#queries` it names the queries of the same population. Law: a row depends on the seed and its number alone, on any
//! machine, so ranges need not agree on who computes what.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Element, Error};
use crate::count;
use crate::ranges::RowRange;
use crate::seed::Draw;

pub(super) const SCHEME: &str = "generate";
const EXAMPLE: &str =
    "generate:clustered?rows=1000000&dims=128&seed=1&element=f32&clusters=1000&spread=0.1&queries=1000";
/// Streams of [`Draw`]: rows, queries, the cluster of each, and the centres.
const ROWS: u32 = 0;
const QUERIES: u32 = 1;
const CENTRES: u32 = 2;

/// Whether a reference asks for generated vectors.
pub(super) fn is_generated(reference: &str) -> bool {
    reference.strip_prefix(SCHEME).is_some_and(|rest| rest.starts_with(':'))
}

/// How coordinates are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Uniform in [0, 1); of bytes over their whole range.
    Uniform,
    /// Normal, mean 0 and deviation 1; of bytes around their middle, clipped.
    Gaussian,
    /// Normal around one of many centres, which are uniform in [0, 1).
    Clustered,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generator {
    /// How coordinates are distributed.
    pub distribution: Distribution,
    /// Number of vectors.
    pub rows: u64,
    /// Number of queries.
    pub queries: u64,
    /// Dimensions.
    pub dims: u32,
    /// The seed.
    pub seed: u64,
    /// What coordinates are given as: f32, u8 or i8.
    pub element: Element,
    /// Number of centres.
    pub clusters: u64,
    /// Deviation around a centre.
    pub spread: f64,
    /// Whether its queries are meant.
    pub asks_queries: bool,
}

impl Generator {
    /// Reads a `generate:` URL.
    ///
    /// # Errors
    /// When the URL says something else, or too little.
    pub fn from_url(url: &Url) -> Result<Self, Error> {
        parse(url).map_err(|reason| Error::Reference {
            reference: url.to_string(),
            reason: format!("{reason}; for example {EXAMPLE}"),
        })
    }

    /// Vectors or queries, whichever is meant.
    #[must_use]
    pub fn count(&self) -> u64 {
        if self.asks_queries { self.queries } else { self.rows }
    }

    /// Computes some rows, packed.
    #[must_use]
    pub fn generate(&self, rows: RowRange) -> Bytes {
        let row_bytes = u64::from(self.dims).saturating_mul(self.element.bytes());
        let mut packed = Vec::with_capacity(count::index(rows.len().saturating_mul(row_bytes)));
        for row in rows.start..rows.end {
            self.row(row, &mut packed);
        }
        Bytes::from(packed)
    }

    fn row(&self, row: u64, out: &mut Vec<u8>) {
        let stream = if self.asks_queries { QUERIES } else { ROWS };
        let mut draw = Draw::new(self.seed, stream, row);
        match (self.distribution, self.element) {
            // Eight bytes a draw: a byte's range is its distribution.
            (Distribution::Uniform, Element::U8 | Element::I8) => {
                let mut left = count::index(u64::from(self.dims));
                while left > 0 {
                    let bytes = draw.next_u64().to_le_bytes();
                    let taken = left.min(bytes.len());
                    out.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                    left -= taken;
                }
            }
            (Distribution::Uniform, _) => self.put(out, (0..self.dims).map(|_| draw.unit())),
            (Distribution::Gaussian, _) => {
                let mut normal = Normal::default();
                self.put(out, (0..self.dims).map(|_| normal.next(&mut draw)));
            }
            (Distribution::Clustered, _) => {
                let mut centre = Draw::new(self.seed, CENTRES, draw.below(self.clusters.max(1)));
                let mut normal = Normal::default();
                self.put(out, (0..self.dims).map(|_| centre.unit() + self.spread * normal.next(&mut draw)));
            }
        }
    }

    fn put(&self, out: &mut Vec<u8>, numbers: impl Iterator<Item = f64>) {
        match self.element {
            Element::U8 | Element::I8 => {
                // Normal ones have their middle at the type's; what is within four deviations is not clipped.
                let (scale, shift) = match self.distribution {
                    Distribution::Gaussian => (32.0, 128.0),
                    Distribution::Uniform | Distribution::Clustered => (256.0, 0.0),
                };
                let flip = if self.element == Element::I8 { 0x80 } else { 0 };
                out.extend(numbers.map(|number| {
                    let whole = count::from_f64((number * scale + shift).clamp(0.0, 255.0));
                    u8::try_from(whole).unwrap_or(u8::MAX) ^ flip
                }));
            }
            _ => {
                for number in numbers {
                    super::element::put_f32(number, out);
                }
            }
        }
    }
}

/// Normal numbers by pairs (Box and Muller 1958), with a logarithm and cosine that are the same everywhere.
#[derive(Debug, Default)]
struct Normal {
    kept: Option<f64>,
}

impl Normal {
    fn next(&mut self, draw: &mut Draw) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        let radius = (-2.0 * libm::log(draw.unit())).sqrt();
        let (sine, cosine) = libm::sincos(2.0 * std::f64::consts::PI * draw.unit());
        self.kept = Some(radius * sine);
        radius * cosine
    }
}

fn parse(url: &Url) -> Result<Generator, String> {
    let distribution = match url.path() {
        "uniform" => Distribution::Uniform,
        "gaussian" => Distribution::Gaussian,
        "clustered" => Distribution::Clustered,
        other => return Err(format!("`{other}` is not uniform, gaussian or clustered")),
    };
    let asks_queries = match url.fragment() {
        None | Some("" | "vectors") => false,
        Some("queries") => true,
        Some(other) => return Err(format!("it has no section `{other}`")),
    };
    let mut made = Generator {
        distribution,
        rows: 0,
        queries: 1000,
        dims: 0,
        seed: 1,
        element: Element::F32,
        clusters: 1000,
        spread: 0.1,
        asks_queries,
    };
    for (key, value) in url.query_pairs() {
        let whole = || {
            value.replace('_', "").parse::<u64>().map_err(|_| format!("`{key}={value}` is no whole number"))
        };
        match key.as_ref() {
            "rows" => made.rows = whole()?,
            "queries" => made.queries = whole()?,
            "dims" => {
                made.dims = u32::try_from(whole()?).map_err(|_| format!("`dims={value}` is too much"))?
            }
            "seed" => made.seed = whole()?,
            "clusters" => made.clusters = whole()?.max(1),
            "spread" => {
                let spread = value.parse().ok().filter(|s: &f64| s.is_finite() && *s >= 0.0);
                made.spread = spread.ok_or_else(|| format!("`spread={value}` is no deviation"))?;
            }
            "element" => {
                made.element = match value.as_ref() {
                    "f32" => Element::F32,
                    "u8" => Element::U8,
                    "i8" => Element::I8,
                    _ => return Err(format!("`element={value}` is not f32, u8 or i8")),
                }
            }
            _ => {
                return Err(format!(
                    "`{key}` is not one of rows, dims, seed, element, clusters, spread, queries"
                ));
            }
        }
    }
    if made.rows == 0 || made.dims == 0 || made.count() == 0 {
        return Err(String::from("rows and dims must be given and not be 0"));
    }
    Ok(made)
}
