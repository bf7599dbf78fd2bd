//! Parquet parts, and whether they are whole.
//!
//! The query engine's errors do not name the file they came from. Before the first query each part's footer is read,
//! and after a query that failed on stored data all rows, so that a damaged file is named. Law: a part whose bytes
//! cannot be read as its table is named with its directory.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use vst_common::run_dir::{Part, RunDir};

use super::Error;

/// As much of a file's end as holds most footers, bytes.
const TAIL_BYTES: u64 = 64 * 1024;

/// A part in its store.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    directory: String,
    path: String,
    store: Arc<dyn ObjectStore>,
    location: Path,
}

impl Stored {
    pub(super) fn of(directory: &str, dir: &RunDir, part: &Part) -> Self {
        let path = part.path();
        let location = dir.path(&path);
        Self { directory: directory.to_owned(), path, store: Arc::clone(dir.store()), location }
    }

    /// Reads the footer, which lists what the file holds.
    pub(super) async fn check_footer(&self) -> Result<(), Error> {
        self.footer(TAIL_BYTES).await.map_err(|reason| self.damaged(reason))
    }

    async fn footer(&self, mut tail_bytes: u64) -> Result<(), String> {
        let told = |e: object_store::Error| e.to_string();
        let size = self.store.head(&self.location).await.map_err(told)?.size;
        loop {
            let from = size.saturating_sub(tail_bytes);
            let tail = self.store.get_range(&self.location, from..size).await.map_err(told)?;
            match ParquetMetaDataReader::new().try_parse_sized(&tail, size) {
                Ok(()) => return Ok(()),
                Err(ParquetError::NeedMoreData(wanted)) if from > 0 => {
                    tail_bytes = vst_common::count::len(wanted).max(tail_bytes.saturating_mul(2));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Reads every row.
    pub(super) async fn check_rows(&self) -> Result<(), Error> {
        let failed = |e: object_store::Error| self.damaged(e.to_string());
        let bytes = self.store.get(&self.location).await.map_err(failed)?.bytes().await.map_err(failed)?;
        read_all(bytes).map_err(|reason| self.damaged(reason))
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Part { directory: self.directory.clone(), path: self.path.clone(), reason }
    }
}

fn read_all(bytes: Bytes) -> Result<(), String> {
    let rows = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|e| e.to_string())?;
    for batch in rows {
        batch.map_err(|e| e.to_string())?;
    }
    Ok(())
}
