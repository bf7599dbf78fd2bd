//! A coordinator and its workers as processes of their own, so that a test can stop and kill each.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::command::{LIMIT, Output, vst};
use crate::run::Results;

/// The processes; what they say on stderr goes to files.
#[derive(Debug)]
pub struct Fleet {
    /// The coordinator.
    pub coordinator: Child,
    /// Workers by name.
    pub workers: BTreeMap<String, Child>,
    folder: tempfile::TempDir,
}

impl Fleet {
    /// Starts the coordinator: the quick scenario with these values replaced.
    #[must_use]
    pub fn start(results: &Results, target: &str, sets: &[&str]) -> Self {
        Self::start_dressed(results, target, sets, |command| {
            command.arg("--cleanup");
        })
    }

    /// As [`Fleet::start`], with options and an environment of the test's own.
    #[must_use]
    pub fn start_dressed(
        results: &Results,
        target: &str,
        sets: &[&str],
        dress: impl FnOnce(&mut Command),
    ) -> Self {
        Self::start_scenario(results, target, "quick", sets, dress)
    }

    /// As [`Fleet::start_dressed`], of any scenario.
    #[must_use]
    pub fn start_scenario(
        results: &Results,
        target: &str,
        scenario: &str,
        sets: &[&str],
        dress: impl FnOnce(&mut Command),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = vst(&["coordinator", "start", "--scenario", scenario, "--target", target]);
        results.dress(&mut command);
        command.arg("--announce").arg(folder.path().join("address"));
        for set in sets {
            command.args(["--set", set]);
        }
        let said = std::fs::File::create(folder.path().join("coordinator")).expect("a file");
        command.stdout(Stdio::null()).stderr(said);
        dress(&mut command);
        let coordinator = command.spawn().expect("coordinator starts");
        Self { coordinator, workers: BTreeMap::new(), folder }
    }

    /// Where the coordinator listens, as soon as it does.
    pub async fn address(&self) -> String {
        loop {
            let address = self.said("address");
            if !address.is_empty() {
                return address.trim().to_owned();
            }
            assert!(self.coordinates(), "the coordinator listens: {}", self.said("coordinator"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the coordinator has not ended; one that has stays in the table of processes until it is waited for.
    fn coordinates(&self) -> bool {
        let Some(pid) = self.coordinator.id() else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    /// Starts workers as soon as there is somebody to call; they say what `log` names.
    pub async fn start_workers(&mut self, count: u32, log: &str) {
        let address = self.address().await;
        for n in 0..count {
            self.start_worker(&format!("w{n}"), log, |command| {
                command.args(["--coordinator", &address]);
            });
        }
    }

    /// Starts one worker; the test says how it finds its coordinator.
    pub fn start_worker(&mut self, name: &str, log: &str, dress: impl FnOnce(&mut Command)) {
        let said = std::fs::File::create(self.folder.path().join(name)).expect("a file");
        let mut command: Command = vst(&["--log", log, "worker", "start", "--name", name]);
        command.stdout(Stdio::null()).stderr(said);
        dress(&mut command);
        self.workers.insert(name.to_owned(), command.spawn().expect("worker starts"));
    }

    /// What a process has said on stderr so far: `coordinator` or the name of a worker.
    #[must_use]
    pub fn said(&self, who: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(who)).unwrap_or_default()
    }

    /// Sends a signal to a worker.
    pub fn signal_worker(&self, name: &str, signal: Signal) {
        send(&self.workers[name], signal);
    }

    /// Sends a signal to the coordinator.
    pub fn signal_coordinator(&self, signal: Signal) {
        send(&self.coordinator, signal);
    }

    /// Waits for the end of the coordinator and of the workers that still run; what the coordinator said is stderr.
    pub async fn end(&mut self) -> (Output, BTreeMap<String, i32>) {
        let status = tokio::time::timeout(LIMIT, self.coordinator.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("the run ends in time:\n{}", self.said("coordinator")));
        let code = status.expect("the coordinator can be waited for").code().unwrap_or(-1);
        let mut codes = BTreeMap::new();
        for (name, worker) in &mut self.workers {
            let status = tokio::time::timeout(LIMIT, worker.wait()).await.expect("workers end in time");
            codes.insert(name.clone(), status.expect("a worker can be waited for").code().unwrap_or(-1));
        }
        let output = Output { code, stdout: String::new(), stderr: self.said("coordinator") };
        (output, codes)
    }
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(pid.expect("still running"), signal).expect("signalled");
}
