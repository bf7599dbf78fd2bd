//! Everything a search has measured, on disk after each point, so that a stopped one goes on where it was.
//!
//! Written by the searches into their folder as `search.json`; read by `--resume` and by whoever asks later what was
//! found. Law: whatever the instant at which the process dies, the file holds a whole state: some points, in order.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use vst_common::clock;
use vst_common::exit::Exit;

use super::bench::{BenchSpec, Point};
use crate::error::Failure;

/// Name of the file in the search's folder.
pub(crate) const FILE: &str = "search.json";

/// What the file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Version of vst.
    pub(crate) vst: String,
    /// `tune`, `throughput`, `sweep` or `compare`.
    pub(crate) kind: String,
    /// What is measured; of a comparison A and B.
    pub(crate) benches: Vec<BenchSpec>,
    /// What is fixed beside the search's own specification.
    pub(crate) fixed: Json,
    /// The search's specification.
    pub(crate) spec: Json,
    /// The measurements, in order.
    pub(crate) points: Vec<Point>,
    /// Tries of points that were not valid and were made again, before the point that came of it; no search has seen them.
    #[serde(default)]
    pub(crate) retries: Vec<Retry>,
    /// What was found; absent while it is looked for.
    pub(crate) outcome: Option<Json>,
}

/// A try that was not valid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Retry {
    /// Of which point, from 1.
    pub(crate) point: usize,
    /// What became of it.
    #[serde(flatten)]
    pub(crate) tried: Point,
}

/// The file and what it holds.
pub(crate) struct Journal {
    folder: PathBuf,
    pub(crate) written: Written,
}

impl Journal {
    /// A new folder below the results folder.
    pub(crate) fn begin(
        results: &Path,
        kind: &str,
        benches: Vec<BenchSpec>,
        fixed: Json,
        spec: &impl Serialize,
    ) -> Result<Self, Failure> {
        let folder = new_folder(results, kind)?;
        let written = Written {
            vst: String::from(env!("CARGO_PKG_VERSION")),
            kind: kind.to_owned(),
            benches,
            fixed,
            spec: to_json(spec)?,
            points: Vec::new(),
            retries: Vec::new(),
            outcome: None,
        };
        let journal = Self { folder, written };
        journal.write()?;
        Ok(journal)
    }

    /// What an earlier search left.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let file = folder.join(FILE);
        let fault = |e: String| {
            Failure::new(Exit::Usage, format!("`{}` is no search that can go on: {e}", file.display()))
        };
        let text = std::fs::read_to_string(&file).map_err(|e| fault(e.to_string()))?;
        let written = serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?;
        Ok(Self { folder: folder.to_owned(), written })
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its run directories are.
    pub(crate) fn runs(&self) -> PathBuf {
        self.folder.join("runs")
    }

    /// The search's specification.
    pub(crate) fn spec<S: DeserializeOwned>(&self) -> Result<S, Failure> {
        let fault = |e| Failure::new(Exit::Usage, format!("`{}` cannot be read back: {e}", FILE));
        serde_json::from_value(self.written.spec.clone()).map_err(fault)
    }

    /// Goes on with a search of one of these kinds, or begins it.
    pub(crate) async fn resumed_or(
        resume: Option<&Path>,
        kinds: &[&str],
        begin: impl Future<Output = Result<Self, Failure>>,
    ) -> Result<Self, Failure> {
        let Some(folder) = resume else { return begin.await };
        let journal = Self::read(folder)?;
        let kind = journal.written.kind.as_str();
        if kinds.contains(&kind) {
            return Ok(journal);
        }
        Err(Failure::new(Exit::Usage, format!("the search in this folder is a `{kind}`: resume that")))
    }

    /// Writes down a try of the next point that was not valid.
    pub(crate) fn push_retry(&mut self, tried: Point) -> Result<(), Failure> {
        let point = self.written.points.len() + 1;
        self.written.retries.push(Retry { point, tried });
        self.write()
    }

    /// Writes down one more point.
    pub(crate) fn push(&mut self, point: Point) -> Result<(), Failure> {
        self.written.points.push(point);
        self.write()
    }

    /// Writes down what was found.
    pub(crate) fn end(&mut self, outcome: &impl Serialize) -> Result<(), Failure> {
        self.written.outcome = Some(to_json(outcome)?);
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        write_whole(&self.folder, FILE, &self.written)
    }
}

/// A new folder below the results folder, named by the time.
pub(crate) fn new_folder(results: &Path, kind: &str) -> Result<PathBuf, Failure> {
    let time: String =
        clock::rfc3339(clock::wall_ns()).chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    std::fs::create_dir_all(results)
        .map_err(|e| Failure::new(Exit::Usage, format!("cannot make `{}`: {e}", results.display())))?;
    let mut folder = tempfile::Builder::new();
    let prefix = format!("{}-{kind}-", time.to_lowercase());
    Ok(folder.prefix(&prefix).rand_bytes(6).tempdir_in(results)?.keep())
}

/// Puts a whole file in the place of the one before, or leaves that.
pub(crate) fn write_whole(folder: &Path, name: &str, what: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(what)
        .map_err(|e| Failure::new(Exit::Bug, format!("`{name}` cannot be written: {e}")))?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name)).map_err(|e| e.error)?;
    Ok(())
}

/// As JSON.
pub(crate) fn to_json(what: &impl Serialize) -> Result<Json, Failure> {
    serde_json::to_value(what).map_err(|e| Failure::new(Exit::Bug, format!("not to be written as JSON: {e}")))
}
