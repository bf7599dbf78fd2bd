//! NumPy files: the header is a Python dictionary in text.

use super::blob::Blob;
use super::strided::{Header, Strided};
use super::{Element, Error, Format};
use crate::count;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Magic, version, and a length of 2 bytes (version 1) or 4.
const LONGEST_PREAMBLE: u64 = 12;
/// NumPy itself refuses to evaluate longer headers.
const LONGEST_TEXT: u64 = 65_536;

/// Reads the header.
pub(super) async fn open(blob: &Blob) -> Result<Header, Error> {
    let refused = |reason: String| Error::Layout { url: blob.url().to_owned(), format: Format::Npy, reason };
    let preamble = blob.head(LONGEST_PREAMBLE).await?;
    let (start, length) = text_at(&preamble).map_err(&refused)?;
    if length > LONGEST_TEXT {
        return Err(refused(format!("its header has {length} bytes, which is not plausible")));
    }
    let text = blob.read(start..start.saturating_add(length)).await?;
    let said = parse(&String::from_utf8_lossy(&text)).map_err(&refused)?;
    let (rows, dims, element) = said;
    let strided = Strided::packed(start.saturating_add(length), dims, element);
    Ok(Header { rows, dims, element, strided })
}

/// Where the header's text begins and how long it is.
fn text_at(preamble: &[u8]) -> Result<(u64, u64), String> {
    let rest = preamble.strip_prefix(MAGIC).ok_or("it does not begin with \\x93NUMPY")?;
    match rest {
        [1, _, low, high, ..] => Ok((10, u64::from(u16::from_le_bytes([*low, *high])))),
        [2 | 3, _, a, b, c, d] => Ok((12, u64::from(u32::from_le_bytes([*a, *b, *c, *d])))),
        [version, ..] => Err(format!("its version is {version}; 1, 2 and 3 can be read")),
        [] => Err(String::from("the file is truncated")),
    }
}

fn parse(text: &str) -> Result<(u64, u32, Element), String> {
    let descr = value(text, "descr").and_then(quoted).ok_or("its header has no plain `descr`")?;
    let element = match descr {
        "<f4" => Element::F32,
        "<f2" => Element::F16,
        "<f8" => Element::F64,
        "|u1" => Element::U8,
        "|i1" => Element::I8,
        "<i4" => Element::I32,
        "<u4" => Element::U32,
        "<i8" => Element::I64,
        "<u8" => Element::U64,
        other => {
            return Err(format!(
                "its type is `{other}`; little-endian floats of 2, 4 or 8 bytes and integers can be read: save it with \
                 astype('<f4')"
            ));
        }
    };
    if value(text, "fortran_order").is_none_or(|v| !v.starts_with("False")) {
        return Err(String::from("it is in Fortran order: save it with numpy.ascontiguousarray"));
    }
    let shape =
        value(text, "shape").and_then(|v| v.strip_prefix('(')?.split_once(')')).map(|(inner, _)| inner);
    let shape = shape.ok_or("its header has no `shape`")?;
    let lengths: Option<Vec<u64>> =
        shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok()).collect();
    match lengths.as_deref() {
        Some([rows, dims]) => {
            let dims = u32::try_from(*dims).map_err(|_| format!("{dims} dimensions are not plausible"))?;
            Ok((*rows, dims, element))
        }
        _ => Err(format!("its shape is ({shape}); two lengths are wanted: rows and dimensions")),
    }
}

/// What follows a key.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let at = ['\'', '"'].iter().find_map(|q| text.find(&format!("{q}{key}{q}")))?;
    Some(text.get(at + key.len() + 2..)?.trim_start().strip_prefix(':')?.trim_start())
}

fn quoted(value: &str) -> Option<&str> {
    let quote = value.chars().next().filter(|c| *c == '\'' || *c == '"')?;
    value.get(1..)?.split(quote).next()
}

/// The header of a file with so many rows, padded so that the rows begin at a multiple of 64 bytes; `None` for types
/// that have no name in NumPy.
pub(super) fn header(rows: u64, dims: u32, element: Element) -> Vec<u8> {
    let descr = match element {
        Element::F32 => "<f4",
        Element::F16 => "<f2",
        Element::F64 => "<f8",
        Element::U8 => "|u1",
        Element::I8 => "|i1",
        Element::I32 => "<i4",
        Element::U32 => "<u4",
        Element::I64 => "<i8",
        Element::U64 => "<u8",
    };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dims}), }}");
    // Preamble of 10 bytes and a line end.
    let padding = (64 - (10 + text.len() + 1) % 64) % 64;
    text.push_str(&" ".repeat(padding));
    text.push('\n');
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    debug_assert_eq!(count::len(text.len()), u64::from(length));
    [MAGIC, &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat()
}
