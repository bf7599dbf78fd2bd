//! Broken files: of each all that is wrong is said at once, with its place and the way out.
//!
//! The files are those of the folder `broken`; the snapshots beside it are what a person sees.

use super::super::config::{self, Surroundings};
use super::*;

/// No file but the one that is read, and no variable.
struct Nothing;

impl Surroundings for Nothing {
    fn file(&self, _: &str, _: &str) -> Result<(String, String), String> {
        Err(String::from("no such file"))
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

#[test]
fn of_every_broken_file_all_that_is_wrong_is_said_at_once() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/scenario/check/tests/broken");
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 20, "{} files", names.len());
    for name in names {
        let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        let faults = match name.starts_with("config_") {
            true => config::parse(&text, &name, &Nothing).map(drop).unwrap_err(),
            false => parse(&text, &name, &[]).map(drop).unwrap_err(),
        };
        for fault in faults.iter() {
            assert!(!fault.hint().is_empty() && !fault.label().is_empty(), "{name}: {}", fault.message());
        }
        insta::assert_snapshot!(name.trim_end_matches(".yaml"), shown(&faults));
    }
}
