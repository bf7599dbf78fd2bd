//! The processes that `vst run` starts: one coordinator, some workers.
//!
//! Each is in a process group of its own, so that Ctrl-C reaches only the parent, which ends the run in order; and
//! each stops when its standard input ends, so that none outlives the parent.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use vst_common::exit::Exit;
use vst_common::run_dir::Results;

use crate::error::Failure;
use crate::scenario_file::Override;
use crate::token;

const ANNOUNCE_EVERY: Duration = Duration::from_millis(20);
/// Workers leave by themselves when the coordinator has closed the run; after this long they are ended.
const WORKERS_LEAVE: Duration = Duration::from_secs(10);

/// What a coordinator is started for.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) scenario: &'a str,
    pub(crate) target: &'a str,
    pub(crate) set: &'a [Override],
    pub(crate) results: &'a Results,
    pub(crate) cleanup: bool,
    /// Memory of the target at which the run ends, bytes.
    pub(crate) most_memory: Option<u64>,
    /// Phases beyond the population come one by one.
    pub(crate) on_demand: bool,
}

/// The fleet of one run.
pub(crate) struct Children {
    program: PathBuf,
    folder: TempDir,
    token: String,
    coordinator: Option<Child>,
    workers: Vec<Child>,
    /// Process of the coordinator while it runs, else 0.
    coordinator_pid: watch::Sender<u32>,
}

impl Children {
    pub(crate) fn new(token: &str) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("vst-run-").tempdir()?;
        Ok(Self {
            program: std::env::current_exe()?,
            folder,
            token: token.to_owned(),
            coordinator: None,
            workers: Vec::new(),
            coordinator_pid: watch::Sender::new(0),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).process_group(0);
        // They are on this machine, in no one's sight.
        for variable in crate::security::VARIABLES {
            command.env_remove(variable);
        }
        if !self.token.is_empty() {
            command.env(token::NAME, &self.token);
        }
        command
    }

    /// Starts the coordinator and waits for its address; `None` if it ended before it had one.
    pub(crate) async fn start_coordinator(&mut self, launch: &Launch<'_>) -> Result<Option<String>, Failure> {
        let announce = self.folder.path().join("address");
        let mut command = self.command();
        command.args(["coordinator", "start", "--leashed", "--listen", "127.0.0.1:0"]);
        command.args(["--scenario", launch.scenario, "--target", launch.target]);
        command.arg("--results").arg(launch.results.to_string()).arg("--announce").arg(&announce);
        if launch.on_demand {
            command.arg("--on-demand");
        }
        for set in launch.set {
            command.arg("--set").arg(set.to_string());
        }
        if let Some(most) = launch.most_memory {
            command.arg("--most-memory").arg(most.to_string());
        }
        if launch.cleanup {
            command.arg("--cleanup");
        }
        let mut child = command.spawn()?;
        self.coordinator_pid.send_replace(child.id().unwrap_or(0));
        loop {
            if let Ok(address) = std::fs::read_to_string(&announce)
                && !address.is_empty()
            {
                self.coordinator = Some(child);
                return Ok(Some(address.trim().to_owned()));
            }
            if child.try_wait()?.is_some() {
                self.coordinator_pid.send_replace(0);
                self.coordinator = Some(child);
                return Ok(None);
            }
            tokio::time::sleep(ANNOUNCE_EVERY).await;
        }
    }

    pub(crate) fn start_worker(&mut self, address: &str, name: &str, lanes: u32) -> Result<(), Failure> {
        let mut command = self.command();
        command.args(["worker", "start", "--leashed", "--coordinator", address, "--name", name]);
        command.arg("--lanes").arg(lanes.to_string());
        self.workers.push(command.spawn()?);
        Ok(())
    }

    /// Waits for the coordinator; its exit code is the run's.
    pub(crate) async fn coordinator_ended(&mut self) -> Result<Exit, Failure> {
        match &mut self.coordinator {
            Some(child) => {
                let ended = child.wait().await;
                self.coordinator_pid.send_replace(0);
                Ok(exit_of(ended?))
            }
            None => Ok(Exit::Bug),
        }
    }

    /// Process of the coordinator while it runs, else 0.
    pub(crate) fn coordinator_pid(&self) -> watch::Receiver<u32> {
        self.coordinator_pid.subscribe()
    }

    /// Kills what still runs and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        for child in self.workers.iter_mut().chain(&mut self.coordinator) {
            // An error means that it has ended already.
            let _ = child.kill().await;
        }
    }

    /// Waits for the workers, and ends those that do not leave.
    pub(crate) async fn workers_ended(&mut self) {
        let all = async {
            for worker in &mut self.workers {
                // A worker whose end cannot be waited for is ended when it is dropped.
                let _ = worker.wait().await;
            }
        };
        if tokio::time::timeout(WORKERS_LEAVE, all).await.is_err() {
            tracing::warn!("a worker did not leave in time and is ended");
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    status.code().map_or(Exit::Bug, Exit::of_code)
}
