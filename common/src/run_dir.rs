//! A run directory, as anyone reads it: facts, log entries, Parquet parts.
//!
//! Written by the coordinator (`run_log`, `archive`), read by it when it takes over and by analysis at any time, also
//! while the run goes on. Layout: `run.json`, `log/<number>`, `<table>/part-<first>-<last>.parquet`, and `tmp/` with
//! what is being written. Law: it can be read after a crash of anyone at any instant; each batch in it is read once.

pub mod layout;
mod results;

use std::path::PathBuf;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use crate::batch::Table;
use crate::dataset;
use crate::entry::{self, Entry};

pub use layout::{Cover, Gap, Part, RUN_JSON};
pub use results::Results;

/// Entries that are fetched at once when several are read.
const READ_AHEAD: usize = 4;

/// Why a run directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A place that this vst cannot reach.
    #[error(
        "run directory `{location}`: scheme `{scheme}` is not supported; give a folder, s3://, gs:// or az://"
    )]
    Scheme {
        /// What was asked for.
        location: String,
        /// Its scheme.
        scheme: String,
    },
    /// Not a location at all.
    #[error("run directory `{location}` is not a path or URL: {reason}")]
    Location {
        /// What was asked for.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder is not there.
    #[error("run directory `{location}` is not there or is not a folder")]
    NoFolder {
        /// What was asked for.
        location: String,
    },
    /// The store cannot be opened.
    #[error("run directory `{location}`: {source}")]
    Opened {
        /// What was asked for.
        location: String,
        /// Why, with the fix.
        source: Box<dataset::Error>,
    },
    /// The store did not answer.
    #[error("run directory: cannot read `{path}`")]
    Store {
        /// What was read.
        path: String,
        /// The store's reason.
        source: object_store::Error,
    },
    /// An entry's bytes are wrong.
    #[error("run directory: log entry {number} (`{}`) cannot be read", layout::entry_path(*.number))]
    Entry {
        /// Which.
        number: u64,
        /// Why.
        source: entry::Error,
    },
    /// An entry under another's name.
    #[error("run directory: log entry {number} says of itself that it is {found}; the file was renamed")]
    Misplaced {
        /// By its name.
        number: u64,
        /// By its header.
        found: u64,
    },
    /// Entries are missing.
    #[error("run directory: log entries {first} to {} are missing, though later ones are there; restore them", .first + .count - 1)]
    Missing {
        /// The first one.
        first: u64,
        /// How many.
        count: u64,
    },
    /// `run.json` is no JSON.
    #[error("run directory: `run.json` is not JSON")]
    RunJson(#[source] serde_json::Error),
}

/// A run directory in a store.
#[derive(Clone, Debug)]
pub struct RunDir {
    store: Arc<dyn ObjectStore>,
    root: Path,
    folder: Option<PathBuf>,
}

impl RunDir {
    /// Opens a run directory that exists: a path, a `file://` URL, or a place in an object store (`s3://`, `gs://`,
    /// `az://`; there nothing is asked yet).
    ///
    /// # Errors
    /// [`Error`] when the location is malformed, not supported, or not there.
    pub fn open(location: &str) -> Result<Self, Error> {
        if let Ok(url) = Url::parse(location)
            && results::is_store(&url)
        {
            let opened = |source| Error::Opened { location: location.to_owned(), source: Box::new(source) };
            let (store, root) = dataset::open_store_that_repeats(&url).map_err(opened)?;
            return Ok(Self { store, root, folder: None });
        }
        let folder = folder_of(location)?;
        if !folder.is_dir() {
            return Err(Error::NoFolder { location: location.to_owned() });
        }
        let store = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|source| Error::Store { path: location.to_owned(), source })?;
        Ok(Self { store: Arc::new(store), root: Path::default(), folder: Some(folder) })
    }

    /// The run directory at `root` of a store that the caller opened.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, root: Path) -> Self {
        Self { store, root, folder: None }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The folder on this machine; `None` when it is in an object store.
    #[must_use]
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_deref()
    }

    /// A path of [`layout`] as the store knows it.
    #[must_use]
    pub fn path(&self, relative: &str) -> Path {
        relative.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    /// The facts of the run, from `run.json`.
    ///
    /// # Errors
    /// [`Error`] when it is not there or not JSON.
    pub async fn read_run_json(&self) -> Result<serde_json::Value, Error> {
        serde_json::from_slice(&self.read(RUN_JSON).await?).map_err(Error::RunJson)
    }

    /// Numbers of all entries of the log, in order and without gaps; those that only parts hold are not among them.
    ///
    /// # Errors
    /// [`Error`] when the store does not answer; [`Error::Missing`] when there is a gap.
    pub async fn list_entries(&self) -> Result<Vec<u64>, Error> {
        // A folder's listing is no snapshot: an entry may be missed while a later one is seen. The second listing
        // sees whatever was there when the first one ended.
        let listed = self.listed_entries().await?;
        if gap_within(&listed).is_none() {
            return Ok(listed);
        }
        let listed = self.listed_entries().await?;
        match gap_within(&listed) {
            None => Ok(listed),
            Some(Gap { first, count }) => Err(Error::Missing { first, count }),
        }
    }

    /// One entry.
    ///
    /// # Errors
    /// [`Error`] when it is not there, or not whole, or not what its name says.
    pub async fn read_entry(&self, number: u64) -> Result<Entry, Error> {
        let bytes = self.read(&layout::entry_path(number)).await?;
        let entry = Entry::decode(&bytes).map_err(|source| Error::Entry { number, source })?;
        if entry.number != number {
            return Err(Error::Misplaced { number, found: entry.number });
        }
        Ok(entry)
    }

    /// Entries one after another in the order given; a few are fetched ahead.
    pub fn read_entries(
        &self,
        numbers: Vec<u64>,
    ) -> impl Stream<Item = Result<Entry, Error>> + Send + 'static {
        let dir = self.clone();
        stream::iter(numbers)
            .map(move |number| {
                let dir = dir.clone();
                async move { dir.read_entry(number).await }
            })
            .buffered(READ_AHEAD)
    }

    /// All parts of a table, also those that overlap, in no particular order. To read a table use [`RunDir::cover`].
    ///
    /// # Errors
    /// [`Error`] when the store does not answer.
    pub async fn parts(&self, table: Table) -> Result<Vec<Part>, Error> {
        let names = self.file_names(table.as_str()).await?;
        Ok(names.iter().filter_map(|name| Part::parse(table, name)).collect())
    }

    /// What to read for a table: parts, then the entries that no part covers.
    ///
    /// The rows of [`Table::LatencyRollup`] in an uncovered entry are those of [`Table::Latency`], still to be merged
    /// over workers.
    ///
    /// # Errors
    /// [`Error`] when the store does not answer; [`Error::Missing`] when an entry is in neither.
    pub async fn cover(&self, table: Table) -> Result<Cover, Error> {
        // Parts first: what they hold was in the log before, so the later listing knows it.
        let parts = self.parts(table).await?;
        let entries = self.listed_entries().await?;
        match layout::cover(parts.clone(), entries) {
            Ok(cover) => Ok(cover),
            Err(_) => layout::cover(parts, self.listed_entries().await?)
                .map_err(|Gap { first, count }| Error::Missing { first, count }),
        }
    }

    /// The entries that no part of the table covers.
    ///
    /// # Errors
    /// As [`RunDir::cover`].
    pub async fn uncovered(&self, table: Table) -> Result<Vec<u64>, Error> {
        Ok(self.cover(table).await?.uncovered)
    }

    async fn listed_entries(&self) -> Result<Vec<u64>, Error> {
        let names = self.file_names(layout::LOG).await?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| layout::entry_number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn file_names(&self, folder: &str) -> Result<Vec<String>, Error> {
        let prefix = self.path(folder);
        let listed = self
            .store
            .list_with_delimiter(Some(&prefix))
            .await
            .map_err(|source| Error::Store { path: prefix.to_string(), source })?;
        Ok(listed.objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect())
    }

    async fn read(&self, relative: &str) -> Result<bytes::Bytes, Error> {
        let path = self.path(relative);
        let failed = |source| Error::Store { path: path.to_string(), source };
        self.store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)
    }
}

/// The first gap between listed entries. A log whose beginning was removed has none.
fn gap_within(sorted: &[u64]) -> Option<Gap> {
    sorted.windows(2).find_map(|pair| match pair {
        [a, b] if *b > a.saturating_add(1) => Some(Gap { first: a + 1, count: b - a - 1 }),
        _ => None,
    })
}

/// The folder that a path or `file://` URL names.
///
/// # Errors
/// [`Error::Scheme`] for any other URL, [`Error::Location`] for what is no location.
pub fn folder_of(location: &str) -> Result<PathBuf, Error> {
    let malformed = |reason: String| Error::Location { location: location.to_owned(), reason };
    if !location.contains("://") {
        return std::path::absolute(location).map_err(|e| malformed(e.to_string()));
    }
    let url = Url::parse(location).map_err(|e| malformed(e.to_string()))?;
    if url.scheme() != "file" {
        return Err(Error::Scheme { location: location.to_owned(), scheme: url.scheme().to_owned() });
    }
    url.to_file_path().map_err(|()| malformed(String::from("a file:// URL names no other host")))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use object_store::memory::InMemory;

    use super::*;

    fn entry(number: u64) -> Bytes {
        let entry = Entry {
            number,
            epoch: 1,
            leader: String::from("a"),
            written_at: 5,
            controls: Vec::new(),
            batches: Vec::new(),
        };
        entry.encode().unwrap()
    }

    async fn put(dir: &RunDir, relative: &str, bytes: Bytes) {
        dir.store().put(&dir.path(relative), bytes.into()).await.unwrap();
    }

    async fn filled(dir: &RunDir) {
        for number in 1..=4 {
            put(dir, &layout::entry_path(number), entry(number)).await;
        }
        put(dir, &Part { table: Table::Memory, first: 1, last: 2 }.path(), Bytes::from_static(b"PAR1")).await;
        put(dir, "tmp/.tmpX", Bytes::from_static(b"half")).await;
        put(dir, "log/00000000000000000005.part", Bytes::from_static(b"half")).await;
        put(dir, "run.json", Bytes::from_static(b"{\"seed\":7}")).await;
    }

    async fn check(dir: &RunDir) {
        assert_eq!(dir.list_entries().await.unwrap(), vec![1, 2, 3, 4]);
        assert_eq!(dir.uncovered(Table::Memory).await.unwrap(), vec![3, 4]);
        assert_eq!(dir.uncovered(Table::Latency).await.unwrap(), vec![1, 2, 3, 4]);
        assert_eq!(dir.read_run_json().await.unwrap()["seed"], 7);
        let read: Vec<u64> = dir.read_entries(vec![3, 1]).map(|entry| entry.unwrap().number).collect().await;
        assert_eq!(read, vec![3, 1]);
    }

    #[tokio::test]
    async fn a_store_and_a_folder_read_alike() {
        let dir = RunDir::over(Arc::new(InMemory::new()), Path::from("runs/one"));
        filled(&dir).await;
        check(&dir).await;
        let folder = tempfile::tempdir().unwrap();
        let by_path = RunDir::open(folder.path().to_str().unwrap()).unwrap();
        filled(&by_path).await;
        check(&by_path).await;
        check(&RunDir::open(Url::from_file_path(folder.path()).unwrap().as_str()).unwrap()).await;
    }

    #[tokio::test]
    async fn an_entry_that_is_gone_is_named() {
        let dir = RunDir::over(Arc::new(InMemory::new()), Path::default());
        filled(&dir).await;
        dir.store().delete(&dir.path(&layout::entry_path(3))).await.unwrap();
        assert!(matches!(dir.list_entries().await, Err(Error::Missing { first: 3, count: 1 })));
        assert!(matches!(dir.cover(Table::Memory).await, Err(Error::Missing { first: 3, count: 1 })));
    }

    #[tokio::test]
    async fn an_entry_under_another_name_is_refused() {
        let dir = RunDir::over(Arc::new(InMemory::new()), Path::default());
        put(&dir, &layout::entry_path(1), entry(2)).await;
        assert!(matches!(dir.read_entry(1).await, Err(Error::Misplaced { number: 1, found: 2 })));
    }

    #[test]
    fn places_that_cannot_be_reached_say_so() {
        assert!(matches!(RunDir::open("http://host/run"), Err(Error::Scheme { .. })));
        assert!(matches!(RunDir::open("/there/is/no/such/folder"), Err(Error::NoFolder { .. })));
        assert!(matches!(
            RunDir::open("file://host/x"),
            Err(Error::Location { .. } | Error::NoFolder { .. })
        ));
    }
}
