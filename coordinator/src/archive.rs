//! Turning log entries into Parquet parts while the run goes on.
//!
//! Follows `run_log`; analysis reads the parts, then the entries that no part covers. A part is named by the interval
//! of entries that it holds; entries stay in the log, which is what a coordinator recovers from. Law: whatever was
//! written when somebody died, parts and uncovered entries together hold every acknowledged batch exactly once.

mod part;
mod progress;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, pin_mut};
use tokio::sync::{mpsc, oneshot};
use vst_common::batch::Table;
use vst_common::count;
use vst_common::entry::StoredBatch;
use vst_common::ids::RunId;
use vst_common::run_dir::{self, Part, RunDir};

pub use self::progress::Progress;
use crate::run_log::RunLog;
use crate::run_log::core::{CreateOutcome, Found};
use crate::run_log::store::DurableStore;

/// Callers that wait for a flush.
const QUEUE_FLUSHES: usize = 8;

/// When a part is cut.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries that a part holds, unless the end is asked for.
    pub entries: u64,
    /// Batches that are held in memory at once, bytes as Arrow IPC; reached earlier, it cuts the part.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1024, bytes: 64 << 20 }
    }
}

/// Why parts could not be written. What is not in a part stays readable in the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run directory cannot be read.
    #[error(transparent)]
    RunDir(#[from] run_dir::Error),
    /// The part could not be made.
    #[error("part `{path}` cannot be made")]
    Part {
        /// Its path within the run directory.
        path: String,
        /// Why.
        source: part::Error,
    },
    /// The part could not be put into the run directory.
    #[error("part `{path}` cannot be written: {reason}; check the run directory's space and rights")]
    Store {
        /// Its path within the run directory.
        path: String,
        /// The store's reason.
        reason: String,
    },
    /// The archive's task is gone.
    #[error("the archive has ended")]
    Ended,
}

/// Compacts one run's log.
#[derive(Debug)]
pub struct Archive {
    run: RunId,
    dir: RunDir,
    store: DurableStore,
    limits: Limits,
    progress: Progress,
}

/// Batches of consecutive entries, by table.
#[derive(Debug, Default)]
struct Slice {
    entries: u64,
    bytes: u64,
    last: u64,
    batches: BTreeMap<Table, Vec<(u64, StoredBatch)>>,
}

impl Archive {
    /// Looks at what parts there are and continues behind them.
    ///
    /// # Errors
    /// [`Error`] when the directory cannot be read.
    pub async fn open(dir: RunDir, run: RunId, limits: Limits) -> Result<Self, Error> {
        let mut covers = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            covers.push((table, dir.cover(table).await?));
        }
        let progress = Progress::of(covers.iter().map(|(table, cover)| (*table, cover)));
        Ok(Self { run, store: DurableStore::new(dir.clone()), dir, limits, progress })
    }

    /// The entry at which [`Archive::compact`] has a whole part to write.
    #[must_use]
    pub fn next_full(&self) -> u64 {
        self.progress.resume_at().saturating_add(self.limits.entries).saturating_sub(1)
    }

    /// Writes the parts that are full with the entries up to `through`, which must be durable.
    ///
    /// # Errors
    /// [`Error`]; another call goes on where this one stopped.
    pub async fn compact(&mut self, through: u64) -> Result<(), Error> {
        self.write_slices(through, false).await
    }

    /// Writes parts so that every table's cover all entries up to `through`, which must be durable.
    ///
    /// # Errors
    /// [`Error`]; another call goes on where this one stopped.
    pub async fn finish(&mut self, through: u64) -> Result<(), Error> {
        self.write_slices(through, true).await
    }

    async fn write_slices(&mut self, through: u64, to_the_end: bool) -> Result<(), Error> {
        let mut slice = Slice { last: self.progress.resume_at().saturating_sub(1), ..Slice::default() };
        let entries = self.dir.read_entries((self.progress.resume_at()..=through).collect());
        pin_mut!(entries);
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            slice.entries += 1;
            slice.last = entry.number;
            for batch in entry.batches {
                slice.bytes = slice.bytes.saturating_add(count::len(batch.ipc.len()));
                slice.batches.entry(batch.table).or_default().push((entry.number, batch));
            }
            if slice.entries >= self.limits.entries || slice.bytes >= self.limits.bytes {
                self.write(std::mem::take(&mut slice), false).await?;
            }
        }
        if to_the_end {
            slice.last = slice.last.max(through);
            self.write(slice, true).await?;
        }
        Ok(())
    }

    /// A table without rows in the slice gets no part, unless it is the end; its next part begins further back.
    async fn write(&mut self, slice: Slice, to_the_end: bool) -> Result<(), Error> {
        for table in Table::ALL {
            let source = if table == Table::LatencyRollup { Table::Latency } else { table };
            let batches: Vec<StoredBatch> = slice
                .batches
                .get(&source)
                .into_iter()
                .flatten()
                .filter(|(entry, _)| self.progress.wants(table, *entry))
                .map(|(_, batch)| batch.clone())
                .collect();
            if batches.is_empty() && !to_the_end {
                continue;
            }
            if let Some(part) = self.progress.part(table, slice.last) {
                self.put(part, self.encode(part, batches).await?).await?;
                self.progress.wrote(part);
            }
        }
        self.progress.scanned(slice.last);
        Ok(())
    }

    async fn encode(&self, part: Part, batches: Vec<StoredBatch>) -> Result<Bytes, Error> {
        let run = self.run.clone();
        let made = tokio::task::spawn_blocking(move || match part.table {
            Table::LatencyRollup => part::encode_rollup(&run, &batches),
            table => part::encode(table, &batches),
        });
        made.await.map_err(|_| Error::Ended)?.map_err(|source| Error::Part { path: part.path(), source })
    }

    /// A part of this name that is there already holds the same batches: entries never change.
    async fn put(&self, part: Part, bytes: Bytes) -> Result<(), Error> {
        let path = part.path();
        match self.store.create(&path, bytes).await {
            CreateOutcome::Done | CreateOutcome::Exists => Ok(()),
            CreateOutcome::Unknown(reason) => match self.store.find(&path).await {
                Found::Object(_) => Ok(()),
                Found::Nothing => Err(Error::Store { path, reason }),
                Found::Unreadable(reason) => Err(Error::Store { path, reason }),
            },
        }
    }
}

/// A handle to an archive that follows a log. When it is dropped the archive ends.
#[derive(Debug)]
pub struct Follower(mpsc::Sender<oneshot::Sender<Result<u64, Error>>>);

impl Follower {
    /// Compacts a log as it grows.
    ///
    /// # Errors
    /// [`Error`] when the directory cannot be read.
    pub async fn spawn(log: RunLog, run: RunId, limits: Limits) -> Result<Self, Error> {
        let archive = Archive::open(log.dir().clone(), run, limits).await?;
        let (flushes, incoming) = mpsc::channel(QUEUE_FLUSHES);
        tokio::spawn(follow(archive, log, incoming));
        Ok(Self(flushes))
    }

    /// Brings everything that is durable now into parts; gives the last entry that is. May be asked more than once.
    ///
    /// # Errors
    /// [`Error`] when a part cannot be written; the log is readable all the same.
    pub async fn flush(&self) -> Result<u64, Error> {
        let (done, answer) = oneshot::channel();
        self.0.send(done).await.map_err(|_| Error::Ended)?;
        answer.await.unwrap_or(Err(Error::Ended))
    }
}

async fn follow(
    mut archive: Archive,
    log: RunLog,
    mut flushes: mpsc::Receiver<oneshot::Sender<Result<u64, Error>>>,
) {
    let mut follows = true;
    loop {
        let next_full = archive.next_full();
        tokio::select! {
            flush = flushes.recv() => {
                let Some(done) = flush else { return };
                let through = log.last_durable();
                let finished = archive.finish(through).await.map(|()| through);
                follows = follows || finished.is_ok();
                drop(done.send(finished));
            }
            reached = log.reached(next_full), if follows => {
                // A log that stopped grows no more, and a directory that refused a part is asked again by a flush.
                follows = reached;
                if reached && let Err(error) = archive.compact(log.last_durable()).await {
                    tracing::warn!(%error, "log entries stay uncompacted for now");
                    follows = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
