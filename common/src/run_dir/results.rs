//! Where run directories are made: a folder of this machine, or a prefix in an object store.
//!
//! Written by a person (`--results`, or `results` of an environment), read by the coordinator, which makes each run's
//! directory below it. Law: what a directory is called is its place and the run's name, so that whoever is given both
//! finds it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

use super::{Error, folder_of};
use crate::dataset;
use crate::ids::RunId;

/// Schemes of stores that create an object only where none is, which the run log needs.
const STORES: &[&str] = &["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];

/// Where run directories are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Results {
    /// A folder of this machine, as it was written.
    Folder(PathBuf),
    /// A prefix in an object store: `s3://bucket/prefix`, `gs://...`, `az://...`.
    Store(Url),
}

impl Results {
    /// The directory of a run, as [`super::RunDir::open`] takes it.
    #[must_use]
    pub fn of_run(&self, run: &RunId) -> String {
        match self {
            Self::Folder(folder) => folder.join(run.as_str()).to_string_lossy().into_owned(),
            Self::Store(url) => format!("{}/{run}", url.as_str().trim_end_matches('/')),
        }
    }

    /// The folder, where it is on this machine.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Store(_) => None,
        }
    }
}

impl Default for Results {
    /// `runs` in the working folder.
    fn default() -> Self {
        Self::Folder(PathBuf::from("runs"))
    }
}

impl FromStr for Results {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if !text.contains("://") {
            return match text {
                "" => Err(Error::Location { location: String::new(), reason: String::from("it is empty") }),
                _ => Ok(Self::Folder(PathBuf::from(text))),
            };
        }
        let malformed = |reason: String| Error::Location { location: text.to_owned(), reason };
        let url = Url::parse(text).map_err(|e| malformed(e.to_string()))?;
        if url.scheme() == "file" {
            return folder_of(text).map(Self::Folder);
        }
        if !is_store(&url) {
            return Err(Error::Scheme { location: text.to_owned(), scheme: url.scheme().to_owned() });
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(malformed(String::from(
                "a prefix of a store has no query and no fragment; credentials come from the environment",
            )));
        }
        // Also refuses credentials in the URL and a bucket that is missing.
        dataset::resolve(text, Path::new(".")).map_err(|e| malformed(e.to_string()))?;
        Ok(Self::Store(url))
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Store(url) => url.fmt(f),
        }
    }
}

/// Whether a URL is a place in an object store that can hold a run directory.
pub(super) fn is_store(url: &Url) -> bool {
    STORES.contains(&url.scheme())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn results(text: &str) -> Result<Results, Error> {
        text.parse()
    }

    #[test]
    fn a_run_is_below_its_results_wherever_they_are() {
        let run = RunId::new("r1");
        for (text, expected) in [
            ("runs", "runs/r1"),
            ("/var/runs/", "/var/runs/r1"),
            ("file:///var/runs", "/var/runs/r1"),
            ("s3://bucket", "s3://bucket/r1"),
            ("s3://bucket/", "s3://bucket/r1"),
            ("gs://bucket/a/b", "gs://bucket/a/b/r1"),
            ("az://container/a/", "az://container/a/r1"),
        ] {
            assert_eq!(results(text).unwrap().of_run(&run), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_hold_a_run_is_refused_with_its_reason() {
        for (text, word) in [
            ("", "empty"),
            ("http://host/runs", "`http`"),
            ("ftp://host/runs", "`ftp`"),
            ("s3://", "bucket"),
            ("s3://key:secret@bucket/runs", "credentials"),
            ("s3://bucket/runs?x=1", "query"),
        ] {
            let said = results(text).unwrap_err().to_string();
            assert!(said.contains(word), "{text}: {said}");
            assert!(!said.contains("secret@") || text.contains("secret"), "{said}");
        }
    }

    proptest! {
        /// What is shown is what is read again.
        #[test]
        fn written_and_read_again_it_is_the_same(folder in "[a-z/.]{1,20}", bucket in "[a-z]{3,9}", prefix in "[a-z/]{0,9}") {
            for text in [folder, format!("s3://{bucket}/{prefix}")] {
                let once: Results = text.parse().unwrap();
                prop_assert_eq!(&once, &once.to_string().parse::<Results>().unwrap());
            }
        }
    }
}
