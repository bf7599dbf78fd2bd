//! One run of `vst` with a results folder of its own, and its report as JSON.

use tempfile::TempDir;
use tokio::process::Command;
use vst_analysis::{Note, PhaseSummary, Rule, Summary};

use crate::command::{Output, finish, vst};
use crate::stores::{self, Faults, Store};

/// Where a test's runs go.
#[derive(Debug)]
pub struct Results {
    folder: TempDir,
    store: Option<Store>,
}

/// The bucket of runs in an object store.
const BUCKET: &str = "runs";

impl Default for Results {
    fn default() -> Self {
        Self::new()
    }
}

impl Results {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self {
            folder: tempfile::Builder::new().prefix("vst-results-").tempdir().expect("a folder"),
            store: None,
        }
    }

    /// An empty bucket of a signed S3 endpoint that fails as told.
    pub async fn on_s3(faults: Faults) -> Self {
        let mut results = Self::new();
        std::fs::create_dir(results.folder.path().join(BUCKET)).expect("a bucket");
        results.store = Some(stores::s3(results.folder.path(), faults).await);
        results
    }

    /// The endpoint, where there is one.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// What `--results` is given.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.store {
            Some(_) => format!("s3://{BUCKET}"),
            None => self.path().to_owned(),
        }
    }

    /// Tells a command where results go, and what it needs to write there.
    pub fn dress(&self, command: &mut Command) {
        command.args(["--results", &self.place()]);
        if let Some(store) = &self.store {
            store.sign(command);
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.folder.path().to_str().expect("text")
    }

    /// `vst run ARGS` with results here.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = vst(&["run"]);
        command.args(args);
        self.dress(&mut command);
        command
    }

    /// Runs and reads the report.
    pub async fn run(&self, args: &[&str]) -> (Output, Summary) {
        let mut command = self.command(args);
        command.arg("--json");
        let output = finish(command).await;
        let report = report(&output);
        (output, report)
    }

    /// The run directories, oldest first.
    #[must_use]
    pub fn run_dirs(&self) -> Vec<String> {
        // The endpoint keeps a bucket's objects as files.
        let folder = match &self.store {
            Some(_) => self.folder.path().join(BUCKET),
            None => self.folder.path().to_owned(),
        };
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .expect("the results folder can be listed")
            .map(|entry| entry.expect("entry").path().to_string_lossy().into_owned())
            .filter(|path| std::path::Path::new(path).is_dir())
            .collect();
        names.sort();
        names
    }

    /// The newest run directory.
    #[must_use]
    pub fn newest(&self) -> String {
        self.run_dirs().pop().expect("a run directory")
    }
}

/// The report that a command printed with `--json`.
#[must_use]
pub fn report(output: &Output) -> Summary {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| {
        panic!("no report ({e}), exit {}\n{}\n{}", output.code, output.stdout, output.stderr)
    })
}

/// Fails unless the run is valid, or all that speaks against it is that this machine had no CPU left for the lanes.
pub fn assert_sound(output: &Output, report: &Summary) {
    let busy = |note: &&Note| matches!(note.rule, Rule::Slip | Rule::BusyLanes);
    let against = &report.verdict.not_valid;
    let sound = match output.code {
        0 => against.is_empty(),
        7 => !against.is_empty() && against.iter().filter(busy).count() == against.len(),
        _ => false,
    };
    assert!(sound, "exit {}, {against:?}\n{}", output.code, output.stderr);
}

/// A phase of a report.
#[must_use]
pub fn phase<'a>(report: &'a Summary, name: &str) -> &'a PhaseSummary {
    report.phases.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("no phase `{name}` in the report"))
}
