//! One run of `vst` with a results folder of its own, and its report as JSON.

use tempfile::TempDir;
use tokio::process::Command;
use vst_analysis::{Note, PhaseSummary, Rule, Summary};

use crate::command::{Output, finish, vst};

/// Where a test's runs go.
#[derive(Debug)]
pub struct Results {
    folder: TempDir,
}

impl Default for Results {
    fn default() -> Self {
        Self::new()
    }
}

impl Results {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("vst-results-").tempdir().expect("a folder") }
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
        command.args(args).args(["--results", self.path()]);
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
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
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
