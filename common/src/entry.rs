//! One entry of the run log: an immutable object that holds controls and batches.
//!
//! Written by `coordinator::run_log`, read by whoever opens a run directory. Bytes, little endian: magic `VSTL`,
//! version u32, header length u32, payload length u64, the header as JSON, the batches' Arrow IPC bytes in the
//! header's order, and the CRC-32 (IEEE) of all before. Law: `decode(encode(e)) == e`, and no other bytes decode to
//! an entry unnoticed: what is cut short, changed, appended to or foreign is an error.

mod control;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::batch::Table;
use crate::clock::WallNs;
use crate::count;
use crate::ids::{Generation, Sequence, WorkerId};

pub use control::{Control, LaneOwner, PhaseEnded, PhaseOutcome, PhaseStarted, RunState, Totals};

/// Number of the first entry of a log.
pub const FIRST: u64 = 1;

const MAGIC: [u8; 4] = *b"VSTL";
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 4;

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another kind of file.
    #[error("not an entry of a vst run log: it does not begin with `VSTL`")]
    Foreign,
    /// Written by another version of vst.
    #[error(
        "entry format {found} is not known, this vst reads format {VERSION}; use the vst that wrote the run"
    )]
    Version {
        /// What the entry says.
        found: u32,
    },
    /// Shorter or longer than it says of itself.
    #[error("entry is torn: {found} bytes, its prefix asks for {wanted}")]
    Torn {
        /// Length of the input.
        found: usize,
        /// Length that is needed, as far as it is known.
        wanted: u64,
    },
    /// Changed after it was written.
    #[error("entry is damaged: checksum {found:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// What the entry says.
        found: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// The header does not describe an entry, or not these payloads.
    #[error("entry header is wrong: {reason}")]
    Header {
        /// What is wrong.
        reason: String,
    },
}

/// An entry: everything that one group commit made durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Position in the log, from [`FIRST`], without gaps.
    pub number: u64,
    /// The leader's epoch; never falls along the log.
    pub epoch: u64,
    /// The leader's name.
    pub leader: String,
    /// When it was put together.
    pub written_at: WallNs,
    /// Facts about the run, in the order in which they were appended.
    pub controls: Vec<Control>,
    /// Batches, in the order in which they were appended.
    pub batches: Vec<StoredBatch>,
}

/// A delivered batch as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Who delivered it.
    pub worker: WorkerId,
    /// The registration in which it was made.
    pub generation: Generation,
    /// Its number within (worker, generation).
    pub sequence: Sequence,
    /// The table it belongs to.
    pub table: Table,
    /// Arrow IPC bytes with the table's schema.
    pub ipc: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Header {
    number: u64,
    epoch: u64,
    leader: String,
    written_at_wall_ns: WallNs,
    controls: Vec<Control>,
    batches: Vec<BatchHeader>,
}

#[derive(Serialize, Deserialize)]
struct BatchHeader {
    worker: WorkerId,
    generation: Generation,
    sequence: Sequence,
    table: String,
    bytes: u64,
}

impl Entry {
    /// The entry as it is stored.
    ///
    /// # Errors
    /// [`Error::Header`] when the header cannot be written as JSON, or is longer than 4 GiB.
    pub fn encode(&self) -> Result<Bytes, Error> {
        let header = Header {
            number: self.number,
            epoch: self.epoch,
            leader: self.leader.clone(),
            written_at_wall_ns: self.written_at,
            controls: self.controls.clone(),
            batches: self.batches.iter().map(BatchHeader::of).collect(),
        };
        let json = serde_json::to_vec(&header).map_err(|e| Error::Header { reason: e.to_string() })?;
        let header_bytes = u32::try_from(json.len())
            .map_err(|_| Error::Header { reason: format!("{} bytes are too many", json.len()) })?;
        let payload: usize = self.batches.iter().map(|b| b.ipc.len()).sum();
        let mut out = BytesMut::with_capacity(PREFIX_BYTES + json.len() + payload + CHECKSUM_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(header_bytes);
        out.put_u64_le(count::len(payload));
        out.put_slice(&json);
        for batch in &self.batches {
            out.put_slice(&batch.ipc);
        }
        let checksum = crc32fast::hash(&out);
        out.put_u32_le(checksum);
        Ok(out.freeze())
    }

    /// Reads an entry; the batches share one copy of the bytes.
    ///
    /// # Errors
    /// [`Error`] when the bytes are not exactly one whole, unchanged entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (header_bytes, wanted) = read_prefix(bytes)?;
        if count::len(bytes.len()) != wanted {
            return Err(Error::Torn { found: bytes.len(), wanted });
        }
        let torn = || Error::Torn { found: bytes.len(), wanted };
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(torn)?;
        let found = u32::from_le_bytes(*checksum);
        let computed = crc32fast::hash(body);
        if found != computed {
            return Err(Error::Checksum { found, computed });
        }
        let rest = body.get(PREFIX_BYTES..).ok_or_else(torn)?;
        let (json, payload) = rest.split_at_checked(header_bytes).ok_or_else(torn)?;
        let header: Header =
            serde_json::from_slice(json).map_err(|e| Error::Header { reason: e.to_string() })?;
        let batches = cut_batches(&header.batches, &Bytes::copy_from_slice(payload))?;
        Ok(Self {
            number: header.number,
            epoch: header.epoch,
            leader: header.leader,
            written_at: header.written_at_wall_ns,
            controls: header.controls,
            batches,
        })
    }
}

impl BatchHeader {
    fn of(batch: &StoredBatch) -> Self {
        Self {
            worker: batch.worker.clone(),
            generation: batch.generation,
            sequence: batch.sequence,
            table: batch.table.as_str().to_owned(),
            bytes: count::len(batch.ipc.len()),
        }
    }
}

/// Length of the header and of the whole entry, in bytes.
fn read_prefix(bytes: &[u8]) -> Result<(usize, u64), Error> {
    let begins = bytes.get(..MAGIC.len().min(bytes.len())).unwrap_or_default();
    if !MAGIC.starts_with(begins) {
        return Err(Error::Foreign);
    }
    let prefix = bytes
        .first_chunk::<PREFIX_BYTES>()
        .ok_or(Error::Torn { found: bytes.len(), wanted: count::len(PREFIX_BYTES) })?;
    let [_, _, _, _, v0, v1, v2, v3, h0, h1, h2, h3, payload @ ..] = *prefix;
    let version = u32::from_le_bytes([v0, v1, v2, v3]);
    if version != VERSION {
        return Err(Error::Version { found: version });
    }
    let header = u64::from(u32::from_le_bytes([h0, h1, h2, h3]));
    let wanted = u64::from_le_bytes(payload)
        .saturating_add(header)
        .saturating_add(count::len(PREFIX_BYTES + CHECKSUM_BYTES));
    Ok((count::index(header), wanted))
}

fn cut_batches(headers: &[BatchHeader], payload: &Bytes) -> Result<Vec<StoredBatch>, Error> {
    let mut at = 0_usize;
    let mut batches = Vec::with_capacity(headers.len());
    for header in headers {
        let end = at.saturating_add(count::index(header.bytes));
        if end > payload.len() {
            return Err(Error::Header {
                reason: format!("its batches are longer than the {} bytes there are", payload.len()),
            });
        }
        let table = header
            .table
            .parse::<Table>()
            .map_err(|_| Error::Header { reason: format!("table `{}` is not known", header.table) })?;
        batches.push(StoredBatch {
            worker: header.worker.clone(),
            generation: header.generation,
            sequence: header.sequence,
            table,
            ipc: payload.slice(at..end),
        });
        at = end;
    }
    if at != payload.len() {
        return Err(Error::Header { reason: format!("{} bytes belong to no batch", payload.len() - at) });
    }
    Ok(batches)
}

#[cfg(test)]
mod tests;
