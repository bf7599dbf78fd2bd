//! Whether the results place can take a run, found out before anything is started.
//!
//! Asked by the command line and by the coordinator. Law: what is not there yet is not made, and nothing stays behind.

use std::io::Write;
use std::path::{Path, PathBuf};

use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;
use vst_common::ids::RunId;
use vst_common::run_dir::Results;
use vst_common::{clock, dataset};

use super::error::chain;

/// A run that finds less room than this would not come to its end, bytes.
const LEAST_FREE: u64 = 64 * 1024 * 1024;

/// Why no run directory can be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, or below one.
    #[error("the results folder `{path}` cannot be made: `{file}` is not a folder; give --results another folder",
        path = path.display(), file = file.display())]
    NotAFolder {
        /// As asked for.
        path: PathBuf,
        /// What is in the way.
        file: PathBuf,
    },
    /// Nothing can be written there.
    #[error("the results folder `{path}` cannot be written: {source}; give --results another folder",
        path = path.display())]
    NotWritable {
        /// As asked for.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A store that does not take it.
    #[error(
        "the results place `{url}` cannot be written: {reason}; give --results another place, or the rights"
    )]
    Store {
        /// As asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// A store without create-if-absent.
    #[error(
        "the results place `{url}` lets an object be written over although it was to be created only once: two \
         coordinators could lead at once; give --results a store with conditional writes, or a folder"
    )]
    WritesOver {
        /// As asked for.
        url: String,
    },
    /// Too little room.
    #[error(
        "the disk of the results folder `{path}` has {free_mib} MiB left, a run wants at least {least_mib} MiB; free \
         some, or give --results a folder on another disk", path = path.display(), least_mib = LEAST_FREE >> 20
    )]
    Full {
        /// As asked for.
        path: PathBuf,
        /// What is left.
        free_mib: u64,
    },
}

/// Tries to write where the run directory will be made. A folder that is not there yet is not made: the nearest one
/// above it that exists is tried.
///
/// # Errors
/// [`Error`].
pub async fn check(results: &Results) -> Result<(), Error> {
    match results {
        Results::Folder(folder) => check_folder(folder),
        Results::Store(url) => check_store(url).await,
    }
}

fn check_folder(results: &Path) -> Result<(), Error> {
    let path = || results.to_owned();
    let absolute =
        std::path::absolute(results).map_err(|source| Error::NotWritable { path: path(), source })?;
    // What cannot be looked at is taken to be there, so that the attempt below says why.
    let is_there = |folder: &&Path| folder.try_exists().unwrap_or(true);
    let folder = absolute.ancestors().find(is_there).unwrap_or(&absolute);
    if folder.metadata().is_ok_and(|found| !found.is_dir()) {
        return Err(Error::NotAFolder { path: path(), file: folder.to_owned() });
    }
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.as_file().sync_all()
    });
    written.map_err(|source| Error::NotWritable { path: path(), source })?;
    if let Ok(space) = rustix::fs::statvfs(folder) {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < LEAST_FREE {
            return Err(Error::Full { path: path(), free_mib: free >> 20 });
        }
    }
    Ok(())
}

/// Beside being writable a store must create an object only where none is: by that alone one coordinator leads.
async fn check_store(results: &Url) -> Result<(), Error> {
    let shown = || results.to_string();
    let object = Results::Store(results.clone()).of_run(&RunId::new(format!(".probe-{}", probe_name())));
    let url = Url::parse(&object).map_err(|e| Error::Store { url: shown(), reason: e.to_string() })?;
    let (store, path) = dataset::open_store_that_repeats(&url)
        .map_err(|e| Error::Store { url: shown(), reason: chain(&e) })?;
    match probe(store.as_ref(), &path).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::WritesOver { url: shown() }),
        Err(source) => Err(Error::Store { url: shown(), reason: chain(&source) }),
    }
}

/// Whether an object that exists is not created again; leaves nothing behind.
async fn probe(store: &dyn ObjectStore, path: &object_store::path::Path) -> object_store::Result<bool> {
    let create = async |bytes: &'static [u8]| {
        store.put_opts(path, PutPayload::from_static(bytes), PutOptions::from(PutMode::Create)).await
    };
    match create(b"first").await {
        // A request that was sent again meets its own object.
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(source) => return Err(source),
    }
    let again = create(b"second").await;
    // What cannot be removed is a few bytes that nothing reads.
    let _ = store.delete(path).await;
    match again {
        Err(object_store::Error::AlreadyExists { .. }) => Ok(true),
        Err(source) => Err(source),
        Ok(_) => Ok(false),
    }
}

/// No two coordinators probe by the same name.
fn probe_name() -> String {
    format!("{}-{}", std::process::id(), clock::wall_ns())
}

#[cfg(test)]
mod tests {
    use futures::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::path::Path as Place;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
        PutResult, Result,
    };

    use super::*;

    #[test]
    fn a_folder_that_can_be_made_is_fine_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        check_folder(folder.path()).unwrap();
        check_folder(&folder.path().join("a/b")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn a_file_in_the_way_and_a_folder_without_rights_are_named_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for results in [file.clone(), file.join("below")] {
            let said = check_folder(&results).unwrap_err().to_string();
            assert!(said.contains(&*file.to_string_lossy()) && said.contains("--results"), "{said}");
        }
        // Nobody, not even root, makes files there.
        let said = check_folder(Path::new("/proc/results")).unwrap_err().to_string();
        assert!(said.contains("/proc/results") && said.contains("--results"), "{said}");
    }

    /// A store that takes `PutMode::Create` for a wish.
    #[derive(Debug)]
    struct Careless(InMemory);

    impl std::fmt::Display for Careless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Careless {
        async fn put_opts(&self, at: &Place, bytes: PutPayload, _: PutOptions) -> Result<PutResult> {
            self.0.put(at, bytes).await
        }
        async fn put_multipart_opts(
            &self,
            at: &Place,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(at, options).await
        }
        async fn get_opts(&self, at: &Place, options: GetOptions) -> Result<GetResult> {
            self.0.get_opts(at, options).await
        }
        fn delete_stream(
            &self,
            places: BoxStream<'static, Result<Place>>,
        ) -> BoxStream<'static, Result<Place>> {
            self.0.delete_stream(places)
        }
        fn list(&self, prefix: Option<&Place>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.0.list(prefix)
        }
        async fn list_with_delimiter(&self, prefix: Option<&Place>) -> Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }
        async fn copy_opts(&self, from: &Place, to: &Place, options: CopyOptions) -> Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    #[tokio::test]
    async fn a_store_that_creates_twice_is_found_out_and_nothing_stays_behind() {
        let place = Place::from("runs/.probe");
        let careful = InMemory::new();
        assert!(probe(&careful, &place).await.unwrap());
        let careless = Careless(InMemory::new());
        assert!(!probe(&careless, &place).await.unwrap());
        for left in [careful.list(None), careless.list(None)] {
            assert_eq!(futures::StreamExt::count(left).await, 0);
        }
    }
}
