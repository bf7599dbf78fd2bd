//! The thread that starts the servers, and with which they end.
//!
//! Each server asks the kernel to be killed when its parent goes. "Parent" there is the *thread* that started it, so
//! one thread starts them all and does nothing but wait until it is told to stop them; it ends when the [`Keeper`] is
//! dropped, or with the process, whatever ended that.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

use super::{Launch, LocalClusterError};

/// Owns the servers' processes through its thread.
#[derive(Debug)]
pub(super) struct Keeper {
    pids: Vec<u32>,
    questions: Option<Sender<Question>>,
    thread: Option<JoinHandle<()>>,
}

/// Which servers have ended? Answered in the order of the launches.
type Question = Sender<Vec<bool>>;

impl Keeper {
    /// Starts one server for each launch.
    pub(super) fn launch(server: &Path, launches: &[Launch]) -> Result<Self, LocalClusterError> {
        let refused = |source| LocalClusterError::Spawn { path: server.to_owned(), source };
        let mut commands: Vec<Command> = launches.iter().map(|launch| command(server, launch)).collect();
        let (questions, inbox) = channel();
        let (started, outcome) = channel();
        let thread = std::thread::Builder::new()
            .name("server-keeper".to_owned())
            .spawn(move || {
                let mut children = Vec::new();
                for command in &mut commands {
                    match command.spawn() {
                        Ok(child) => children.push(child),
                        Err(e) => {
                            stop(&mut children);
                            // A caller that is gone needs no answer.
                            let _gone = started.send(Err(e));
                            return;
                        }
                    }
                }
                let pids = children.iter().map(Child::id).collect();
                if started.send(Ok(pids)).is_ok() {
                    keep(&mut children, &inbox);
                }
                stop(&mut children);
            })
            .map_err(refused)?;
        match outcome.recv() {
            Ok(Ok(pids)) => Ok(Self { pids, questions: Some(questions), thread: Some(thread) }),
            Ok(Err(e)) => Err(refused(e)),
            Err(_) => Err(refused(std::io::Error::other("the thread that starts servers ended"))),
        }
    }

    /// Process of each server, in the order of the launches.
    pub(super) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Which servers have ended, in the order of the launches.
    pub(super) fn ended(&self) -> Vec<bool> {
        let (answer, inbox) = channel();
        let asked = self.questions.as_ref().is_some_and(|questions| questions.send(answer).is_ok());
        let all = || vec![true; self.pids.len()];
        if asked { inbox.recv().unwrap_or_else(|_| all()) } else { all() }
    }

    /// Kills the servers and waits until they are gone.
    pub(super) fn stop(&mut self) {
        drop(self.questions.take());
        if let Some(thread) = self.thread.take() {
            // A keeper that panicked has ended, and with it its servers.
            let _ended = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Until the other side is gone.
fn keep(children: &mut [Child], inbox: &Receiver<Question>) {
    while let Ok(answer) = inbox.recv() {
        let ended = children.iter_mut().map(|child| !matches!(child.try_wait(), Ok(None))).collect();
        let _gone = answer.send(ended);
    }
}

/// Nothing is kept on disk, so there is nothing that a gentler end would save.
fn stop(children: &mut [Child]) {
    for child in children.iter_mut() {
        // An error means that it has ended already.
        let _ended = child.kill();
    }
    for child in children {
        let _reaped = child.wait();
    }
}

fn command(server: &Path, launch: &Launch) -> Command {
    let mut command = Command::new(server);
    command
        .args(&launch.args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let parent = getpid();
    let die_with_parent = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have gone before the request was made.
        if getppid() == Some(parent) { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
    };
    #[expect(unsafe_code, reason = "runs between fork and exec: two system calls, no memory is allocated")]
    // SAFETY: the closure only makes system calls that are safe after a fork, and takes no lock.
    unsafe {
        command.pre_exec(die_with_parent);
    }
    command
}
