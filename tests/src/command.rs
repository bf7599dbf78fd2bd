//! Runs the real `vst` binary.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// The longest that any command of a suite may take.
pub const LIMIT: Duration = Duration::from_secs(180);

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The binary that `make test` built beside this test.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let folder =
        test.ancestors().find(|p| p.join("vst").is_file()).expect("vst is built: cargo build -p vst");
    folder.join("vst")
}

/// The folder of the project.
#[must_use]
pub fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A command of the project's binary, run in the project's folder.
#[must_use]
pub fn vst(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).current_dir(project()).kill_on_drop(true).stdin(Stdio::null());
    command.env("NO_COLOR", "1");
    command
}

/// Runs a command to its end.
pub async fn run(args: &[&str]) -> Output {
    finish(vst(args)).await
}

/// Runs a prepared command to its end.
pub async fn finish(command: Command) -> Output {
    finish_within(command, LIMIT).await
}

/// Runs a prepared command that may take longer than others to its end.
pub async fn finish_within(mut command: Command, limit: Duration) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("vst starts");
    let output = tokio::time::timeout(limit, child.wait_with_output()).await;
    let output = output.expect("vst ends in time").expect("vst can be waited for");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command that runs while the test watches what it says.
#[derive(Debug)]
pub struct Watched {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
    stderr: String,
}

impl Watched {
    /// Starts a prepared command.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("vst starts");
        let said = BufReader::new(child.stderr.take().expect("stderr")).lines();
        Self { child, said, stderr: String::new() }
    }

    /// Waits for a line on stderr that contains `text`.
    pub async fn says(&mut self, text: &str) -> String {
        let line = async {
            while let Some(line) = self.said.next_line().await.expect("stderr is text") {
                self.stderr.push_str(&line);
                self.stderr.push('\n');
                if line.contains(text) {
                    return line;
                }
            }
            panic!("vst ended before it said `{text}`:\n{}", self.stderr);
        };
        tokio::time::timeout(LIMIT, line).await.expect("vst says it in time")
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("still running")
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Output {
        let rest = async {
            while let Some(line) = self.said.next_line().await.expect("stderr is text") {
                self.stderr.push_str(&line);
                self.stderr.push('\n');
            }
        };
        tokio::time::timeout(LIMIT, rest).await.expect("vst ends in time");
        let output = self.child.wait_with_output().await.expect("vst can be waited for");
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: self.stderr,
        }
    }
}
