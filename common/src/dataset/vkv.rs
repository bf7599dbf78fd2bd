//! VKV files: a header of 64 bytes, then blocks of {key length, key, vector}, each packed by zstd or lz4 or not.
//!
//! Where a block lies is known once the lengths of those before it are: the list of blocks is read as far as a range
//! needs it, sixteen bytes a block, and kept. One block is held unpacked, the one that was read last.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::lock::Mutex;

use super::blob::Blob;
use super::{Element, Error, Format};
use crate::count;
use crate::ranges::RowRange;

const MAGIC: &[u8; 4] = b"VKV\x01";
const HEADER_BYTES: u64 = 64;
const BLOCK_HEADER_BYTES: u64 = 16;
/// No writer makes larger blocks; a damaged length must not ask for all memory.
const LARGEST_BLOCK: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packed {
    Not,
    Zstd,
    Lz4,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    /// Of its content.
    offset: u64,
    first_row: u64,
    rows: u64,
    packed_bytes: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Known {
    blocks: Vec<Block>,
    /// Number of the block that was unpacked last, and its vectors.
    last: Option<(usize, Bytes)>,
}

/// An open file.
#[derive(Clone, Debug)]
pub(super) struct VkvRows {
    blob: Blob,
    rows: u64,
    dims: u32,
    element: Element,
    packed: Packed,
    known: Arc<Mutex<Known>>,
}

impl VkvRows {
    /// Reads the header.
    pub(super) async fn open(blob: Blob) -> Result<Self, Error> {
        let head = blob.head(HEADER_BYTES).await?;
        if count::len(head.len()) < HEADER_BYTES {
            let (expected, found) = (HEADER_BYTES, blob.size());
            return Err(Error::NoHeader { url: blob.url().to_owned(), expected, found });
        }
        let said = parse(&head).map_err(|reason| refused(&blob, reason))?;
        let (rows, dims, element, packed) = said;
        let file = Self { blob, rows, dims, element, packed, known: Arc::default() };
        if rows > 0 {
            file.block_of(0).await?;
        }
        Ok(file)
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn dims(&self) -> u32 {
        self.dims
    }

    pub(super) fn element(&self) -> Element {
        self.element
    }

    /// Reads rows that exist, packed.
    pub(super) async fn read(&self, rows: RowRange) -> Result<Bytes, Error> {
        let row_bytes = count::index(u64::from(self.dims).saturating_mul(self.element.bytes()));
        let mut packed = BytesMut::with_capacity(row_bytes.saturating_mul(count::index(rows.len())));
        let mut next = rows.start;
        while next < rows.end {
            let (number, block) = self.block_of(next).await?;
            let vectors = self.vectors(number, block).await?;
            let end = rows.end.min(block.first_row + block.rows);
            let at = |row: u64| count::index(row - block.first_row).saturating_mul(row_bytes);
            packed.extend_from_slice(vectors.get(at(next)..at(end)).unwrap_or_default());
            next = end;
        }
        Ok(packed.freeze())
    }

    /// The block that holds a row.
    async fn block_of(&self, row: u64) -> Result<(usize, Block), Error> {
        let mut known = self.known.lock().await;
        loop {
            let (offset, first_row) = match known.blocks.last() {
                Some(last) if row < last.first_row + last.rows => {
                    let number =
                        known.blocks.partition_point(|block| block.first_row <= row).saturating_sub(1);
                    let block = known.blocks.get(number).copied();
                    return block
                        .map(|b| (number, b))
                        .ok_or_else(|| refused(&self.blob, String::from("it has no blocks")));
                }
                Some(last) => (last.offset.saturating_add(last.packed_bytes), last.first_row + last.rows),
                None => (HEADER_BYTES, 0),
            };
            let block = self.header_at(offset, first_row).await?;
            known.blocks.push(block);
        }
    }

    async fn header_at(&self, offset: u64, first_row: u64) -> Result<Block, Error> {
        let content = offset.saturating_add(BLOCK_HEADER_BYTES);
        let head = self.blob.read(offset..content).await?;
        let (words, _) = head.as_chunks::<4>();
        let word = |i: usize| words.get(i).map_or(0, |w| u64::from(u32::from_le_bytes(*w)));
        let (rows, packed_bytes, bytes) = (word(1), word(2), word(3));
        let wrong = |reason: String| Err(refused(&self.blob, format!("the block at byte {offset} {reason}")));
        if rows == 0 || first_row.saturating_add(rows) > self.rows {
            return wrong(format!("holds rows {first_row}.. of {}, {rows} of them", self.rows));
        }
        if bytes > LARGEST_BLOCK || packed_bytes > LARGEST_BLOCK {
            return wrong(format!("has {packed_bytes} bytes, {bytes} unpacked, which is not plausible"));
        }
        let end = content.saturating_add(packed_bytes);
        if end > self.blob.size() {
            return wrong(format!("ends at byte {end}, the file at {}: it is truncated", self.blob.size()));
        }
        Ok(Block { offset: content, first_row, rows, packed_bytes, bytes })
    }

    async fn vectors(&self, number: usize, block: Block) -> Result<Bytes, Error> {
        if let Some((last, vectors)) = &self.known.lock().await.last
            && *last == number
        {
            return Ok(vectors.clone());
        }
        let stored = self.blob.read(block.offset..block.offset + block.packed_bytes).await?;
        let (packed, vector_bytes) = (self.packed, count::index(u64::from(self.dims) * self.element.bytes()));
        let unpacked =
            tokio::task::spawn_blocking(move || unpack(packed, &stored, block, vector_bytes)).await;
        let vectors = match unpacked {
            Ok(Ok(vectors)) => vectors,
            Ok(Err(reason)) => return Err(refused(&self.blob, format!("block {number} {reason}"))),
            Err(_) => return Err(refused(&self.blob, String::from("reading it was broken off"))),
        };
        self.known.lock().await.last = Some((number, vectors.clone()));
        Ok(vectors)
    }
}

fn parse(head: &[u8]) -> Result<(u64, u32, Element, Packed), String> {
    if !head.starts_with(MAGIC) {
        return Err(String::from("it does not begin with VKV\\x01"));
    }
    let rows = head.get(4..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b));
    let dims = head.get(12..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_le_bytes(*b));
    let element = match head.get(16) {
        Some(0) => Element::F32,
        Some(1) => Element::F64,
        Some(2) => Element::I8,
        Some(3) => Element::U8,
        other => return Err(format!("its type is {other:?}; 0 to 3 (f32, f64, i8, u8) can be read")),
    };
    let packed = match head.get(17) {
        Some(0) => Packed::Not,
        Some(1) => Packed::Zstd,
        Some(2) => Packed::Lz4,
        other => return Err(format!("its compression is {other:?}; 0 to 2 (none, zstd, lz4) can be read")),
    };
    Ok((rows, dims, element, packed))
}

fn unpack(packed: Packed, stored: &[u8], block: Block, vector_bytes: usize) -> Result<Bytes, String> {
    let bytes = count::index(block.bytes);
    let content = match packed {
        Packed::Not => stored.to_vec(),
        Packed::Zstd => zstd::bulk::decompress(stored, bytes).map_err(|e| format!("is not zstd: {e}"))?,
        Packed::Lz4 => lz4(stored, bytes)?,
    };
    if content.len() != bytes {
        return Err(format!("has {} bytes unpacked, its header says {bytes}", content.len()));
    }
    let mut vectors = BytesMut::with_capacity(vector_bytes.saturating_mul(count::index(block.rows)));
    let mut rest = content.as_slice();
    for row in 0..block.rows {
        let short = || format!("ends within its row {row}");
        let (length, after) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        let after = after.get(usize::from(u16::from_le_bytes(*length))..).ok_or_else(short)?;
        let (vector, after) = after.split_at_checked(vector_bytes).ok_or_else(short)?;
        vectors.extend_from_slice(vector);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(format!("has {} bytes after its last row", rest.len()));
    }
    Ok(vectors.freeze())
}

/// Python's `lz4.frame` writes frames, `lz4.block` the length before a block; both are met.
fn lz4(stored: &[u8], bytes: usize) -> Result<Vec<u8>, String> {
    const FRAME: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
    if stored.starts_with(&FRAME) {
        let mut content = Vec::with_capacity(bytes);
        let frame = lz4_flex::frame::FrameDecoder::new(stored);
        let mut frame = std::io::Read::take(frame, count::len(bytes).saturating_add(1));
        std::io::Read::read_to_end(&mut frame, &mut content).map_err(|e| format!("is not lz4: {e}"))?;
        return Ok(content);
    }
    let said = stored.first_chunk::<4>().map(|b| u64::from(u32::from_le_bytes(*b)));
    let block = if said == Some(count::len(bytes)) { stored.get(4..).unwrap_or_default() } else { stored };
    lz4_flex::block::decompress(block, bytes).map_err(|e| format!("is not lz4: {e}"))
}

fn refused(blob: &Blob, reason: String) -> Error {
    Error::Layout { url: blob.url().to_owned(), format: Format::Vkv, reason }
}
