//! Rows at equal distances in an object: where each lies is arithmetic.
//!
//! Most formats come down to this once their header is read: the big-ann and vecs families, NumPy, the sections of
//! valkey-bench files. Fed by their headers, read through [`Strided::read`].

use bytes::{Bytes, BytesMut};

use super::blob::Blob;
use super::{Element, Error, Format};
use crate::count;
use crate::ranges::RowRange;

/// Row r begins at `offset + r x stride`, with `lead` bytes before its coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strided {
    pub(super) offset: u64,
    pub(super) stride: u64,
    pub(super) lead: u64,
    pub(super) payload: u64,
    /// The lead of each row must be this number of dimensions (vecs).
    pub(super) says_dims: Option<u32>,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) rows: u64,
    pub(super) dims: u32,
    pub(super) element: Element,
    pub(super) strided: Strided,
}

impl Strided {
    /// Rows one after another, nothing between them.
    pub(super) fn packed(offset: u64, dims: u32, element: Element) -> Self {
        let payload = u64::from(dims).saturating_mul(element.bytes());
        Self { offset, stride: payload, lead: 0, payload, says_dims: None }
    }

    /// One past the last byte of so many rows; saturates.
    pub(super) fn end(&self, rows: u64) -> u64 {
        let Some(last) = rows.checked_sub(1) else { return self.offset };
        let start = last.saturating_mul(self.stride).saturating_add(self.offset);
        start.saturating_add(self.lead).saturating_add(self.payload)
    }

    /// Reads rows that exist, packed.
    pub(super) async fn read(&self, blob: &Blob, format: Format, rows: RowRange) -> Result<Bytes, Error> {
        let Some(last) = rows.end.checked_sub(1).filter(|last| *last >= rows.start) else {
            return Ok(Bytes::new());
        };
        // Within the size of the object, which was checked against the header: no overflow.
        let start = self.offset + rows.start * self.stride;
        let end = self.offset + last * self.stride + self.lead + self.payload;
        let bytes = blob.read(start..end).await?;
        if self.lead == 0 && (self.stride == self.payload || rows.len() == 1) {
            return Ok(bytes);
        }
        let (lead, payload) = (count::index(self.lead), count::index(self.payload));
        let mut packed = BytesMut::with_capacity(payload.saturating_mul(count::index(rows.len())));
        for (row, stored) in (rows.start..).zip(bytes.chunks(count::index(self.stride).max(1))) {
            let (before, rest) = stored.split_at_checked(lead).unwrap_or_default();
            if let Some(dims) = self.says_dims
                && before != dims.to_le_bytes()
            {
                let found = before.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                let reason = format!("row {row} says it has {found} dimensions, row 0 has {dims}");
                return Err(Error::Layout { url: blob.url().to_owned(), format, reason });
            }
            packed.extend_from_slice(rest.get(..payload).unwrap_or_default());
        }
        Ok(packed.freeze())
    }
}

/// big-ann: u32 rows, u32 dimensions, packed rows.
pub(super) async fn big_ann(blob: &Blob, element: Element) -> Result<Header, Error> {
    const HEADER_BYTES: u64 = 8;
    let head = blob.head(HEADER_BYTES).await?;
    let (words, _) = head.as_chunks::<4>();
    let [rows, dims, ..] = words else {
        return Err(Error::NoHeader {
            url: blob.url().to_owned(),
            expected: HEADER_BYTES,
            found: blob.size(),
        });
    };
    let (rows, dims) = (u64::from(u32::from_le_bytes(*rows)), u32::from_le_bytes(*dims));
    Ok(Header { rows, dims, element, strided: Strided::packed(HEADER_BYTES, dims, element) })
}

/// vecs: the number of rows follows from the size.
pub(super) async fn vecs(blob: &Blob, format: Format, element: Element) -> Result<Header, Error> {
    const LEAD: u64 = 4;
    let (url, found) = (blob.url().to_owned(), blob.size());
    let head = blob.head(LEAD).await?;
    let Some(dims) = head.first_chunk::<4>() else {
        return Err(Error::NoHeader { url, expected: LEAD, found });
    };
    let dims = u32::from_le_bytes(*dims);
    if dims == 0 {
        return Err(Error::Empty { url, rows: 0, dims });
    }
    let payload = u64::from(dims).saturating_mul(element.bytes());
    let stride = payload.saturating_add(LEAD);
    if i32::try_from(dims).is_err() || !found.is_multiple_of(stride) {
        let reason = format!(
            "its first row has {dims} dimensions, {stride} bytes a row, but {found} bytes are no multiple of that: the \
             file is truncated or not {format}"
        );
        return Err(Error::Layout { url, format, reason });
    }
    let strided = Strided { offset: 0, stride, lead: LEAD, payload, says_dims: Some(dims) };
    Ok(Header { rows: found / stride, dims, element, strided })
}

/// big-ann ground truth, whose size says whether it is one; its rows are the lists of ids.
pub(super) async fn truth(blob: &Blob) -> Result<Option<Header>, Error> {
    let header = big_ann(blob, Element::U32).await?;
    let expected = header.rows.saturating_mul(u64::from(header.dims)).saturating_mul(8).saturating_add(8);
    Ok((expected == blob.size()).then_some(header))
}
