//! A file of this machine, held open and read in place.
//!
//! Stands behind `blob` where an object is a file: the generic store opens it anew for each range and clears memory
//! that it is about to fill, which takes longer than the page cache takes to give the bytes. Law: the bytes are those of
//! the file that was opened, or it is said that the file has changed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use rustix::buffer::spare_capacity;

use crate::count;

/// What changes with the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Bytes.
    pub(super) size: u64,
    /// When it was written last: seconds, and nanoseconds of them.
    written: (i64, i64),
}

/// An open file.
#[derive(Clone, Debug)]
pub(super) struct LocalFile {
    file: Arc<File>,
    stamp: Stamp,
}

impl LocalFile {
    /// Opens the file that a path of the local store names.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = LocalFileSystem::new().path_to_filesystem(path).map_err(io::Error::other)?;
        let file = File::open(path)?;
        let stamp = stamp(&file)?;
        Ok(Self { file: Arc::new(file), stamp })
    }

    /// The file as it was when it was opened.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The bytes of a range, fewer past the end, and the file as it is after they were read.
    pub(super) async fn read(&self, range: Range<u64>) -> io::Result<(Bytes, Stamp)> {
        let file = Arc::clone(&self.file);
        let read = move || Ok((Bytes::from(read_range(&file, range)?), stamp(&file)?));
        match tokio::runtime::Handle::try_current() {
            // A disk may take its time, for which nobody else is to wait.
            Ok(runtime) => runtime.spawn_blocking(read).await.map_err(io::Error::other)?,
            Err(_) => read(),
        }
    }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let found = file.metadata()?;
    Ok(Stamp { size: found.len(), written: (found.mtime(), found.mtime_nsec()) })
}

fn read_range(file: &File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let wanted = count::index(range.end.saturating_sub(range.start));
    let mut bytes = Vec::with_capacity(wanted);
    while bytes.len() < wanted {
        let at = range.start.saturating_add(count::len(bytes.len()));
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            // It was cut short: its stamp says so.
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Memory may be had in larger pieces than was asked for.
    bytes.truncate(wanted);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn any_range_is_that_of_the_file_and_one_that_was_cut_short_says_so() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let stored: Vec<u8> = (0..100_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        file.write_all(&stored).unwrap();
        let path = Path::from_absolute_path(file.path()).unwrap();
        let local = LocalFile::open(&path).unwrap();
        for (start, end) in [(0, 100_000), (0, 1), (99_999, 100_000), (7, 70_001), (5, 5)] {
            let (bytes, now) = block_on(local.read(start..end)).unwrap();
            assert_eq!(bytes, &stored[count::index(start)..count::index(end)]);
            assert_eq!(now, local.stamp());
        }
        file.as_file().set_len(99_999).unwrap();
        let (bytes, now) = block_on(local.read(99_990..100_000)).unwrap();
        assert_eq!((bytes.len(), now.size), (9, 99_999));
        assert_ne!(now, local.stamp());
    }
}
