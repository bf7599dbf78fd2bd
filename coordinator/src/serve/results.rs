//! Whether the results folder can take a run, found out before anything is started.
//!
//! Asked by the command line and by the coordinator. Law: what is not there yet is not made, and nothing stays behind.

use std::io::Write;
use std::path::{Path, PathBuf};

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

/// Tries to write where the run directory will be made, or in the nearest folder above it that exists.
///
/// # Errors
/// [`Error`].
pub fn check(results: &Path) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_be_made_is_fine_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path()).unwrap();
        check(&folder.path().join("a/b")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn a_file_in_the_way_and_a_folder_without_rights_are_named_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for results in [file.clone(), file.join("below")] {
            let said = check(&results).unwrap_err().to_string();
            assert!(said.contains(&*file.to_string_lossy()) && said.contains("--results"), "{said}");
        }
        // Nobody, not even root, makes files there.
        let said = check(Path::new("/proc/results")).unwrap_err().to_string();
        assert!(said.contains("/proc/results") && said.contains("--results"), "{said}");
    }
}
