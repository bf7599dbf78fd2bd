//! Writing objects of a run directory so that they are whole, durable, and never written over.
//!
//! Used by the run log for entries and by the archive for parts. A folder of this machine is written with `std::fs`,
//! because `LocalFileSystem` never syncs: a temporary file under `tmp/`, synced, then given its name without
//! replacing one, then the folder synced. Other stores create with `PutMode::Create`. Law: under its name an object
//! is whole or absent, and of all who create a name one succeeds.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use vst_common::run_dir::{RunDir, layout};

use super::core::{CreateOutcome, Found};

/// Rights of what is written, less the process's umask.
const FILE_MODE: u32 = 0o644;

/// A run directory that is written to.
#[derive(Clone, Debug)]
pub(crate) struct DurableStore(RunDir);

impl DurableStore {
    /// Over a run directory; see [`prepare_folder`] for one that is new.
    pub(crate) fn new(dir: RunDir) -> Self {
        Self(dir)
    }

    /// Creates an object unless one of its name exists.
    pub(crate) async fn create(&self, relative: &str, bytes: Bytes) -> CreateOutcome {
        match self.0.folder() {
            Some(folder) => {
                let (folder, relative) = (folder.to_owned(), relative.to_owned());
                let done = blocking(move || write_file(&folder, &relative, &bytes, Mode::Create)).await;
                match done {
                    Ok(()) => CreateOutcome::Done,
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => CreateOutcome::Exists,
                    Err(e) => CreateOutcome::Unknown(e.to_string()),
                }
            }
            None => {
                let options = PutOptions::from(PutMode::Create);
                match self.0.store().put_opts(&self.0.path(relative), PutPayload::from(bytes), options).await
                {
                    Ok(_) => CreateOutcome::Done,
                    Err(object_store::Error::AlreadyExists { .. }) => CreateOutcome::Exists,
                    Err(e) => CreateOutcome::Unknown(e.to_string()),
                }
            }
        }
    }

    /// Writes an object, also over one of its name; readers see the old one or the new one.
    pub(crate) async fn replace(&self, relative: &str, bytes: Bytes) -> io::Result<()> {
        match self.0.folder() {
            Some(folder) => {
                let (folder, relative) = (folder.to_owned(), relative.to_owned());
                blocking(move || write_file(&folder, &relative, &bytes, Mode::Replace)).await
            }
            None => {
                let put = self.0.store().put(&self.0.path(relative), PutPayload::from(bytes)).await;
                put.map(|_| ()).map_err(io::Error::other)
            }
        }
    }

    /// Reads an object and makes durable that it is there.
    pub(crate) async fn find(&self, relative: &str) -> Found {
        let read = match self.0.folder() {
            Some(folder) => {
                let path = folder.join(relative);
                blocking(move || confirm_file(&path)).await
            }
            None => self.fetch(relative).await,
        };
        match read {
            Ok(Some(bytes)) => Found::Object(bytes),
            Ok(None) => Found::Nothing,
            Err(e) => Found::Unreadable(e.to_string()),
        }
    }

    async fn fetch(&self, relative: &str) -> io::Result<Option<Bytes>> {
        match self.0.store().get(&self.0.path(relative)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(io::Error::other),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(io::Error::other(e)),
        }
    }
}

/// Makes the folders of a run directory on this machine, and makes durable what is in the log.
///
/// A coordinator that died after it named an entry may not have synced the folder: whoever continues the log builds
/// on that entry, so it must not vanish any more.
pub(crate) async fn prepare_folder(folder: &Path) -> io::Result<()> {
    let folder = folder.to_owned();
    blocking(move || {
        make_folder(&folder)?;
        for name in [layout::LOG, layout::TEMPORARY] {
            make_folder(&folder.join(name))?;
        }
        sync_folder(&folder.join(layout::LOG))
    })
    .await
}

#[derive(Clone, Copy)]
enum Mode {
    Create,
    Replace,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

fn write_file(folder: &Path, relative: &str, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let path = folder.join(relative);
    let parent = path.parent().map_or_else(|| folder.to_owned(), PathBuf::from);
    make_folder(&parent)?;
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(FILE_MODE))
        .tempfile_in(folder.join(layout::TEMPORARY))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match mode {
        Mode::Create => file.persist_noclobber(&path),
        Mode::Replace => file.persist(&path),
    }
    .map_err(|e| e.error)?;
    sync_folder(&parent)
}

fn confirm_file(path: &Path) -> io::Result<Option<Bytes>> {
    match fs::read(path) {
        Ok(bytes) => {
            File::open(path)?.sync_all()?;
            if let Some(parent) = path.parent() {
                sync_folder(parent)?;
            }
            Ok(Some(Bytes::from(bytes)))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes a folder and those above it that are missing, each made durable in the one above.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else { return Ok(()) };
    make_folder(above)?;
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    sync_folder(above)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    // What lies above the first part of a relative path is the working folder, and has no name.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `runs` in the working folder is where run directories are made when nobody says otherwise.
    #[test]
    fn a_folder_is_made_below_the_working_folder_by_its_name_alone() {
        let name = PathBuf::from(format!("made-by-a-test-{}", std::process::id()));
        let made = make_folder(&name.join("run"));
        let there = name.join("run").is_dir();
        fs::remove_dir_all(&name).unwrap();
        made.unwrap();
        assert!(there);
    }
}
