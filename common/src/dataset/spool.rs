//! Local copies: of a whole object that is used again and again, and of what a compressed object unpacks to.
//!
//! A copy is used only while the object behind it has the size and the tag that it was made from; it appears under its
//! name when it is whole. An unpacked file is read by ranges like any other, so that a range of a compressed file costs
//! one pass over it, once per machine, and never memory.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use url::Url;

use super::Error;
use super::blob::Blob;
use super::format::Packing;
use crate::count;
use crate::ranges::{Cut, RowRange};

/// Bytes that a download asks for at once.
const PART_BYTES: u64 = 8 << 20;
/// Bytes of compressed input that are read ahead of the unpacking.
const AHEAD: usize = 2;
/// The unpacked file is at most so many times its source; a file that claims more is not data.
const MOST_EXPANSION: u64 = 4096;

/// What a copy was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    url: String,
    size_bytes: u64,
    etag: Option<String>,
}

impl Origin {
    fn of(blob: &Blob) -> Self {
        let etag = blob.etag().map(str::to_owned);
        Self { url: blob.url().to_owned(), size_bytes: blob.size(), etag }
    }
}

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    origin: Origin,
    part_bytes: u64,
    parts: Vec<u64>,
}

/// Told while an object is copied: bytes that are there, bytes in all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Where the copies of an object lie.
fn place(folder: &Path, blob: &Blob, kind: &str) -> PathBuf {
    let name: String =
        blob.url().rsplit('/').next().unwrap_or_default().chars().filter(|c| *c != '#').take(80).collect();
    // Equal sums of different URLs are told apart by the origin that lies beside the copy.
    let sum = crc32fast::hash(blob.url().as_bytes());
    folder.join(format!("{sum:08x}-{kind}-{name}"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn is_current(path: &Path, origin: &Origin) -> bool {
    let Ok(text) = std::fs::read_to_string(beside(path, ".origin")) else { return false };
    path.is_file() && serde_json::from_str::<Origin>(&text).is_ok_and(|made| made == *origin)
}

/// Puts a finished file under its name, its origin first, so that a file without one is never taken for current.
fn finish(part: &Path, path: &Path, origin: &Origin) -> std::io::Result<()> {
    File::open(part)?.sync_all()?;
    // An older copy must not be taken for this origin.
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    std::fs::write(beside(path, ".origin"), serde_json::to_vec(origin)?)?;
    std::fs::rename(part, path)
}

/// The URL of a local copy of an object, made now where there is none.
pub(super) async fn copied(blob: &Blob, folder: &Path) -> Result<Url, Error> {
    let path = place(folder, blob, "copy");
    let origin = Origin::of(blob);
    if !is_current(&path, &origin) {
        let failed = |source| local(&path, source);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let part = beside(&path, &format!(".{}", std::process::id()));
        download(blob, &part, 4, &(Arc::new(|_, _| {}) as Progress)).await?;
        finish(&part, &path, &origin).map_err(failed)?;
    }
    url_of(&path)
}

/// The URL of what an object unpacks to, made now where there is none.
pub(super) async fn unpacked(blob: &Blob, packing: Packing, folder: &Path) -> Result<Url, Error> {
    let path = place(folder, blob, "plain");
    let (name, _) = Packing::strip(path.to_str().unwrap_or_default());
    let path = PathBuf::from(name);
    let origin = Origin::of(blob);
    if !is_current(&path, &origin) {
        let failed = |source| local(&path, source);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let part = beside(&path, &format!(".{}", std::process::id()));
        let unpacked = unpack(blob, packing, &part).await;
        if unpacked.is_err() {
            // What is left of it helps nobody.
            let _ = std::fs::remove_file(&part);
        }
        unpacked?;
        finish(&part, &path, &origin).map_err(failed)?;
    }
    url_of(&path)
}

fn url_of(path: &Path) -> Result<Url, Error> {
    Url::from_file_path(path).map_err(|()| Error::Reference {
        reference: path.display().to_string(),
        reason: String::from("the folder of local copies is not an absolute path"),
    })
}

fn local(path: &Path, source: std::io::Error) -> Error {
    Error::Local { path: path.display().to_string(), source }
}

/// Copies an object to a file, several ranges at once; goes on where an earlier call ended, if the object is still
/// the same.
pub(super) async fn download(
    blob: &Blob,
    path: &Path,
    connections: usize,
    progress: &Progress,
) -> Result<(), Error> {
    let failed = |source| local(path, source);
    let state = beside(path, ".parts");
    let origin = Origin::of(blob);
    let cut = Cut::new(RowRange { start: 0, end: blob.size() }, PART_BYTES);
    let earlier = std::fs::read(&state).ok().and_then(|text| serde_json::from_slice::<Done>(&text).ok());
    let earlier =
        earlier.filter(|done| path.is_file() && done.origin == origin && done.part_bytes == PART_BYTES);
    let mut done = earlier.unwrap_or(Done { origin, part_bytes: PART_BYTES, parts: Vec::new() });
    let options = OpenOptions::new().create(true).write(true).truncate(done.parts.is_empty()).open(path);
    let file = Arc::new(options.map_err(failed)?);
    file.set_len(blob.size()).map_err(failed)?;
    let have: std::collections::BTreeSet<u64> = done.parts.iter().copied().collect();
    let mut bytes: u64 = have.iter().filter_map(|i| cut.get(*i)).map(RowRange::len).sum();
    progress(bytes, blob.size());
    let parts = (0..cut.count()).filter(|i| !have.contains(i)).filter_map(|i| Some((i, cut.get(i)?)));
    let mut parts = futures::stream::iter(parts.map(|(i, range)| async move {
        let bytes = blob.read(range.start..range.end).await?;
        Ok::<_, Error>((i, range, bytes))
    }))
    .buffer_unordered(connections.max(1));
    while let Some((i, range, part)) = parts.try_next().await? {
        let out = Arc::clone(&file);
        let written = tokio::task::spawn_blocking(move || out.write_all_at(&part, range.start)).await;
        written.map_err(|e| failed(std::io::Error::other(e)))?.map_err(failed)?;
        done.parts.push(i);
        bytes = bytes.saturating_add(range.len());
        // A part is listed after it is written; a crash in between costs that part again.
        let text = serde_json::to_vec(&done).map_err(|e| failed(e.into()))?;
        std::fs::write(&state, text).map_err(failed)?;
        progress(bytes, blob.size());
    }
    file.sync_all().map_err(failed)?;
    match std::fs::remove_file(&state) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(()),
    }
}

/// Unpacks an object into a file: reading runs ahead of unpacking by a bounded number of parts.
async fn unpack(blob: &Blob, packing: Packing, path: &Path) -> Result<(), Error> {
    let (parts, receiver) = std::sync::mpsc::sync_channel::<bytes::Bytes>(AHEAD);
    let out = path.to_owned();
    let limit = blob.size().saturating_mul(MOST_EXPANSION).max(1 << 20);
    let unpacking = tokio::task::spawn_blocking(move || -> std::io::Result<u64> {
        let input = Parts { parts: receiver, now: bytes::Bytes::new() };
        let mut reader: Box<dyn Read> = match packing {
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(input)),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(input)?),
        };
        let mut out = BufWriter::with_capacity(1 << 20, File::create(out)?);
        let written = std::io::copy(&mut reader.by_ref().take(limit), &mut out)?;
        out.flush()?;
        Ok(written)
    });
    let cut = Cut::new(RowRange { start: 0, end: blob.size() }, PART_BYTES);
    let mut ranges = futures::stream::iter((0..cut.count()).filter_map(|i| cut.get(i)))
        .map(|range| blob.read(range.start..range.end))
        .buffered(AHEAD);
    while let Some(part) = ranges.try_next().await? {
        let parts = parts.clone();
        // The unpacking side went away only with an error of its own, which is told below.
        let sent = tokio::task::spawn_blocking(move || parts.send(part).is_ok()).await;
        if !sent.unwrap_or(false) {
            break;
        }
    }
    drop(parts);
    let refused = |reason: String| Error::Unpack { url: blob.url().to_owned(), reason };
    match unpacking.await {
        Ok(Ok(written)) if written >= limit => Err(refused(format!("it unpacks to more than {limit} bytes"))),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::StorageFull => Err(local(path, e)),
        Ok(Err(e)) => Err(refused(e.to_string())),
        Err(_) => Err(refused(String::from("it was broken off"))),
    }
}

/// The parts of an object as one stream.
struct Parts {
    parts: std::sync::mpsc::Receiver<bytes::Bytes>,
    now: bytes::Bytes,
}

impl Read for Parts {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.now.is_empty() {
            match self.parts.recv() {
                Ok(part) => self.now = part,
                Err(_) => return Ok(0),
            }
        }
        let taken = self.now.len().min(out.len());
        let part = self.now.split_to(taken);
        if let Some(out) = out.get_mut(..taken) {
            out.copy_from_slice(&part);
        }
        debug_assert!(count::len(taken) <= count::len(out.len()));
        Ok(taken)
    }
}
