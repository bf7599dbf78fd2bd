//! Programs on the coordinator's machine: hooks that accompany phases, and phases that are a program.
//!
//! Fed by the shell with the starts and ends of phases; what a program did comes back as a sentence for the table of
//! events. Laws: a program is ended with all its children when its time is over or the coordinator leaves; a phase
//! without load begins after its start hooks, and the next phase after the end hooks of this one; the fleet's secrets are
//! not in a program's environment.

use std::collections::BTreeSet;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use vst_common::clock::{self, MonoNs};
use vst_common::count;
use vst_common::entry::PhaseStarted;
use vst_common::ids::PhaseIndex;
use vst_common::scenario::operations::{CommandRun, Hook, Hooks as Spec, OnFailure};

/// Variables that a program does not get.
const SECRETS: [&str; 3] = ["VST_PASSWORD", "VALKEY_PASSWORD", "VST_TOKEN"];
/// From being asked to end to being killed.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// For the last of its output, when it has ended; children of it may still hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Bytes of its output that are kept, the last ones.
const KEPT_BYTES: usize = 2_000;

/// What a program is told: variables of its environment.
pub(super) type Surroundings = Vec<(&'static str, String)>;

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its number among those of this run.
    pub(super) id: u64,
    /// In words, with the end of its output.
    pub(super) said: String,
    /// Why the run cannot go on, where it cannot.
    pub(super) stops: Option<String>,
}

/// The programs that accompany the phase that runs.
pub(super) struct Hooks {
    spec: Spec,
    surroundings: Surroundings,
    current: Option<Current>,
    next_id: u64,
    running: watch::Sender<Running>,
    /// Changes when those that run are to end.
    stop: watch::Sender<u64>,
    stages: Option<fn(&str)>,
}

struct Current {
    index: PhaseIndex,
    name: String,
    step: String,
    began: MonoNs,
    /// Becomes true when the phase has ended.
    over: watch::Sender<bool>,
}

/// Programs that run, by their number.
#[derive(Debug, Default)]
struct Running {
    /// Those that are waited for.
    awaited: BTreeSet<u64>,
    /// Those that are not before the phase has ended.
    beside: BTreeSet<u64>,
}

impl Hooks {
    /// None runs yet. `stages` is told of the stages, line by line.
    pub(super) fn new(spec: Spec, surroundings: Surroundings, stages: Option<fn(&str)>) -> Self {
        Self {
            spec,
            surroundings,
            current: None,
            next_id: 0,
            running: watch::Sender::default(),
            stop: watch::Sender::default(),
            stages,
        }
    }

    /// A phase starts: what is to run. A start that is said again is the same one.
    pub(super) fn phase_starts(&mut self, started: &PhaseStarted) -> Vec<BoxFuture<'static, Ended>> {
        if self.current.as_ref().is_some_and(|current| current.index == started.index) {
            return Vec::new();
        }
        self.tell(&format!("[STAGE:START] {}:{}", started.name, started.step));
        let current = Current {
            index: started.index,
            name: started.name.clone(),
            step: started.step.clone(),
            began: clock::mono_ns(),
            over: watch::Sender::new(false),
        };
        // The start of a load has been named, and does not wait.
        let is_load = started.order.is_some();
        let hooks: Vec<Hook> =
            self.spec.on_phase_start.iter().filter(|hook| hook.is_for(&started.name)).cloned().collect();
        let around = self.around(&current, "start", None);
        let runs = hooks
            .into_iter()
            .map(|hook| {
                let over = hook.until_end.then(|| current.over.subscribe());
                let awaited = !is_load && !hook.until_end;
                self.begin(
                    hook.command,
                    around.clone(),
                    over,
                    awaited,
                    format!("on_phase_start of {}", started.name),
                )
            })
            .collect();
        self.current = Some(current);
        runs
    }

    /// A phase has ended: what is to run.
    pub(super) fn phase_ends(&mut self, index: PhaseIndex, outcome: &str) -> Vec<BoxFuture<'static, Ended>> {
        let Some(current) = self.current.take_if(|current| current.index == index) else { return Vec::new() };
        let seconds = count::to_f64(clock::mono_ns().saturating_sub(current.began)) / 1e9;
        self.tell(&format!("[STAGE:END] {}:{} duration={seconds:.3}s", current.name, current.step));
        current.over.send_replace(true);
        self.running.send_modify(|running| {
            let mut beside = std::mem::take(&mut running.beside);
            running.awaited.append(&mut beside);
        });
        let hooks: Vec<Hook> =
            self.spec.on_phase_end.iter().filter(|hook| hook.is_for(&current.name)).cloned().collect();
        let around = self.around(&current, "end", Some(outcome));
        hooks
            .into_iter()
            .map(|hook| {
                self.begin(
                    hook.command,
                    around.clone(),
                    None,
                    true,
                    format!("on_phase_end of {}", current.name),
                )
            })
            .collect()
    }

    /// A phase that is a program.
    pub(super) fn command(&mut self, command: CommandRun) -> BoxFuture<'static, Ended> {
        let around = match &self.current {
            Some(current) => self.around(current, "run", None),
            None => self.surroundings.clone(),
        };
        self.begin(command, around, None, true, String::from("command"))
    }

    /// A program has ended.
    pub(super) fn ended(&self, id: u64) {
        self.running.send_modify(|running| {
            running.awaited.remove(&id);
            running.beside.remove(&id);
        });
    }

    /// Ends those that run: nobody waits for them any more.
    pub(super) fn stop(&self) {
        self.stop.send_modify(|n| *n = n.saturating_add(1));
    }

    /// Whether none runs.
    pub(super) fn is_idle(&self) -> bool {
        let running = self.running.borrow();
        running.awaited.is_empty() && running.beside.is_empty()
    }

    /// Resolves when no program is waited for.
    pub(super) fn rest(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut running = self.running.subscribe();
        async move {
            // Whoever told us is gone: nobody waits any more.
            let _ = running.wait_for(|running| running.awaited.is_empty()).await;
        }
    }

    fn begin(
        &mut self,
        command: CommandRun,
        around: Surroundings,
        over: Option<watch::Receiver<bool>>,
        awaited: bool,
        what: String,
    ) -> BoxFuture<'static, Ended> {
        self.next_id = self.next_id.saturating_add(1);
        let id = self.next_id;
        self.running.send_modify(|running| {
            let set = if awaited { &mut running.awaited } else { &mut running.beside };
            set.insert(id);
        });
        run(id, what, command, around, Signals { over, stop: self.stop.subscribe() }).boxed()
    }

    fn around(&self, current: &Current, stage: &str, outcome: Option<&str>) -> Surroundings {
        let mut around = self.surroundings.clone();
        around.extend([
            ("VST_PHASE", current.name.clone()),
            ("VST_PHASE_INDEX", current.index.0.to_string()),
            ("VST_STEP", current.step.clone()),
            ("VST_STAGE", stage.to_owned()),
        ]);
        around.extend(outcome.map(|outcome| ("VST_OUTCOME", outcome.to_owned())));
        around
    }

    fn tell(&self, line: &str) {
        if let Some(tell) = self.stages {
            tell(line);
        }
    }
}

/// What ends a program before its time.
struct Signals {
    /// Becomes true when the phase that it lasts for has ended.
    over: Option<watch::Receiver<bool>>,
    /// Changes when the run is to end.
    stop: watch::Receiver<u64>,
}

/// A program with its children; killed when this is dropped before it has ended.
struct Group {
    child: Child,
    pid: Option<Pid>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // One that has ended needs no signal.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn run(id: u64, what: String, command: CommandRun, around: Surroundings, signals: Signals) -> Ended {
    let began = clock::mono_ns();
    let said = Arc::new(Mutex::new(Vec::new()));
    let ended = execute(&command, around, signals, &said).await;
    let seconds = count::to_f64(clock::mono_ns().saturating_sub(began)) / 1e9;
    let program = command.run.first().map_or("", String::as_str);
    let (fine, how) = match ended {
        Ok(status) => (status.success(), status.to_string()),
        Err(why) => (false, why),
    };
    let output =
        String::from_utf8_lossy(&said.lock().unwrap_or_else(PoisonError::into_inner)).trim().to_owned();
    let mut text = format!("{what}: `{program}` ended after {seconds:.2} s: {how}");
    if !output.is_empty() {
        text = format!("{text}; it said: {output}");
    }
    let stops = (!fine && command.on_failure == OnFailure::Stop).then(|| text.clone());
    Ended { id, said: text, stops }
}

async fn execute(
    command: &CommandRun,
    around: Surroundings,
    signals: Signals,
    said: &Arc<Mutex<Vec<u8>>>,
) -> Result<ExitStatus, String> {
    let Some((program, args)) = command.run.split_first() else { return Err(String::from("no program")) };
    let mut start = Command::new(program);
    start.args(args).envs(around).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for secret in SECRETS {
        start.env_remove(secret);
    }
    let mut child =
        start.process_group(0).kill_on_drop(true).spawn().map_err(|e| format!("cannot be started: {e}"))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut reader =
        tokio::spawn(futures::future::join(keep(out, Arc::clone(said)), keep(err, Arc::clone(said))));
    let mut group = Group { child, pid };
    let ended = until_end(&mut group, signals, command.timeout_ms).await;
    // Those that it left behind keep neither the pipe nor the machine.
    drop(group);
    if tokio::time::timeout(LAST_WORDS, &mut reader).await.is_err() {
        reader.abort();
    }
    ended
}

async fn until_end(group: &mut Group, signals: Signals, timeout_ms: u64) -> Result<ExitStatus, String> {
    let Signals { over, mut stop } = signals;
    if let Some(mut over) = over {
        tokio::select! {
            ended = group.child.wait() => return ended.map_err(|e| e.to_string()),
            // The one who told us being gone means the same.
            _ = over.wait_for(|over| *over) => {}
            _ = stop.changed() => {}
        }
        group.signal(Signal::INT);
    }
    let why = tokio::select! {
        ended = group.child.wait() => return ended.map_err(|e| e.to_string()),
        () = tokio::time::sleep(Duration::from_millis(timeout_ms)) => format!("its time of {timeout_ms} ms was over"),
        _ = stop.changed() => String::from("the run was stopped"),
    };
    group.signal(Signal::TERM);
    if tokio::time::timeout(ENDS_WITHIN, group.child.wait()).await.is_err() {
        group.signal(Signal::KILL);
        // What is killed ends.
        let _ = group.child.wait().await;
    }
    Err(why)
}

/// Keeps the last of what a program says.
async fn keep(from: Option<impl AsyncRead + Unpin>, said: Arc<Mutex<Vec<u8>>>) {
    let Some(mut from) = from else { return };
    let mut some = [0; 1024];
    while let Ok(n @ 1..) = from.read(&mut some).await {
        let mut kept = said.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(some.get(..n).unwrap_or_default());
        let surplus = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..surplus);
    }
}
