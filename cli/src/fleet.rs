//! `vst coordinator start` and `vst worker start`: the processes of a fleet.
//!
//! `vst run` starts these very commands as its children; on Kubernetes they are the containers' commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::sync::mpsc;
use vst_common::exit::Exit;
use vst_common::ids::{RunId, WorkerId};
use vst_common::run_dir::Results;
use vst_coordinator::serve::{self, CoordinatorOptions};
use vst_http::Gateway;
use vst_worker::serve::{Coordinators, WorkerOptions};

use crate::error::Failure;
use crate::leash::{PARENT_GONE, parent_gone};
use crate::registry::{Patience, Registry};
use crate::scenario_file::{Override, load, refuse};
use crate::security::{SecurityOptions, Side};
use crate::signals::{Asked, Signals};
use crate::{output, token};

/// The coordinator.
#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorCommand {
    /// Plan a scenario, wait for workers, go through its phases, write the run directory
    Start(Box<CoordinatorStart>),
}

/// Options of `vst coordinator start`.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorStart {
    /// Path of a scenario file, or name of a built-in scenario
    #[arg(long)]
    scenario: String,
    /// Replaces a value of the scenario: a path of keys (phases by their name) and what to put there
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<Override>,
    /// The server or any node of the cluster, valkey://[user@]host:port; the password comes from VST_PASSWORD
    #[arg(long)]
    target: String,
    /// Where the run directory is made: a folder, s3://, gs:// or az://
    #[arg(long, default_value = "runs", value_name = "PLACE")]
    results: Results,
    /// Name of the run and of its directory; made up if absent. Coordinators that are given the same one share the run:
    /// one leads, the others stand by and go on when it is gone
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    run: Option<RunId>,
    /// Do not begin the run, only go on with it when its leader is gone
    #[arg(long, requires = "run")]
    standby: bool,
    /// SIGTERM does not end the run but leaves it to the next coordinator of its name, as a pod that is moved should
    #[arg(long, requires = "run")]
    hand_over: bool,
    /// Workers to wait for, instead of the scenario's number
    #[arg(long)]
    workers: Option<u32>,
    /// Address for workers and for `vst run`
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Writes the bound address to this file
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,
    /// Shows the state on this host:port: a page, /status, /metrics, /healthz, /readyz
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    #[command(flatten)]
    push: Push,
    #[command(flatten)]
    registry: Registry,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    security: SecurityOptions,
    /// host:port at which workers reach this coordinator, where it is not the address it listens on
    #[arg(long, value_name = "ADDRESS", requires = "etcd")]
    advertise: Option<String>,
    /// Remove what an earlier run left under the prefix before, and what this run made after
    #[arg(long)]
    cleanup: bool,
    /// Let programs run on this machine that the scenario names (docs/hooks.md)
    #[arg(long)]
    allow_hooks: bool,
    /// Write [STAGE:START] and [STAGE:END] lines to stderr, for a profiler that follows phases
    #[arg(long)]
    stages: bool,
    /// Ends the run when the target uses so many bytes, over all its nodes
    #[arg(long, value_name = "BYTES")]
    most_memory: Option<u64>,
    /// Go through the scenario up to its first query, then take further phases from whoever asks for them
    #[arg(long, hide = true, conflicts_with = "run")]
    on_demand: bool,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    leashed: bool,
}

/// Where figures go that nobody scrapes.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Pushes the figures of /metrics to this pushgateway (http://host:port) every 5 s and at the end, under the labels
    /// job="vst", run and part; a password in it belongs into the environment
    #[arg(long = "pushgateway", env = PUSHGATEWAY, hide_env_values = true, value_name = "URL")]
    pub(crate) gateway: Option<Gateway>,
}

/// Variable that says the same as `--pushgateway`.
pub(crate) const PUSHGATEWAY: &str = "VST_PUSHGATEWAY";

/// A worker.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Register with a coordinator and drive load until the run ends
    Start(WorkerStart),
}

/// Options of `vst worker start`.
#[derive(Debug, Args)]
pub(crate) struct WorkerStart {
    /// The coordinator, host:port; again for each that may lead
    #[arg(long, conflicts_with = "etcd", required_unless_present = "etcd")]
    coordinator: Vec<String>,
    #[command(flatten)]
    registry: Registry,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    security: SecurityOptions,
    /// Shows this worker's state on this host:port: /status, /metrics, /healthz, /readyz
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    #[command(flatten)]
    push: Push,
    /// Name of the worker; made up if absent
    #[arg(long)]
    name: Option<String>,
    /// Load lanes (threads)
    #[arg(long, default_value_t = 1)]
    lanes: u32,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    leashed: bool,
}

fn run_name(text: &str) -> Result<RunId, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.starts_with('.') || !text.chars().all(fits) {
        return Err(String::from(
            "a run's name is made of letters, digits, `-`, `_` and `.`, and does not begin with `.`",
        ));
    }
    Ok(RunId::new(text))
}

/// Time that a worker whose parent has gone leaves the coordinator, which sees the same, to end the run in order.
const ORPHAN_STAYS: Duration = Duration::from_secs(15);

pub(crate) async fn coordinator(command: CoordinatorCommand) -> Result<Exit, Failure> {
    let CoordinatorCommand::Start(options) = command;
    let options = *options;
    let signals = Signals::listen()?;
    let token = token::from_env()?;
    let security = options.security.read(Side::Coordinator)?;
    let workers = options.workers.map(|n| Override::new("fleet.workers", n));
    let set: Vec<Override> = options.set.into_iter().chain(workers).collect();
    let mut loaded = load(&options.scenario, &set)?;
    if options.on_demand {
        loaded.checked.scenario.keep_before_queries();
    }
    let etcd = tokio::select! {
        fleet = options.registry.awaited(&options.patience) => fleet?,
        signal = signals.nth(1) => return Err(gone_while_waiting(signal)),
    };
    let (stop, stops) = mpsc::channel(4);
    if options.leashed {
        let stop = stop.clone();
        tokio::spawn(async move {
            parent_gone().await;
            // A run that is over needs no stop.
            let _ = stop.send(String::from(PARENT_GONE)).await;
        });
    }
    let handed_over = {
        let (signals, hand_over) = (signals.clone(), options.hand_over);
        async move {
            if !(hand_over && signals.nth(1).await == Asked::Terminate) {
                std::future::pending().await
            }
        }
    };
    let asked = signals.clone();
    tokio::spawn(async move {
        if options.hand_over && asked.nth(1).await == Asked::Terminate {
            return;
        }
        // The first drains, the second aborts.
        for n in 1..=2 {
            let signal = asked.nth(n).await;
            let _ = stop.send(format!("asked to stop by {signal}")).await;
        }
    });
    let run = serve::run(
        CoordinatorOptions {
            checked: loaded.checked,
            base_dir: loaded.base,
            target: options.target,
            results: options.results,
            listen: options.listen,
            run: options.run,
            standby: options.standby,
            announce: options.announce,
            http: options.http,
            pushgateway: options.push.gateway,
            begun_within_ns: options.patience.ns(),
            etcd,
            advertise: options.advertise,
            workers: None,
            token,
            security,
            cleanup: options.cleanup,
            most_memory: options.most_memory,
            allow_programs: options.allow_hooks,
            stages: options.stages.then_some(output::note as fn(&str)),
            on_demand: options.on_demand,
        },
        stops,
    );
    let end = tokio::select! {
        end = run => end.map_err(of_coordinator)?,
        // Nothing is said to anybody: what is not yet in the log is what a killed leader would leave, and the next
        // one takes that up.
        () = handed_over => {
            let text = "left at SIGTERM; the run goes on under the next coordinator of its name";
            return Err(Failure::new(Exit::Fleet, text));
        }
        signal = signals.nth(3) => {
            return Err(Failure::new(Exit::Interrupted, format!("left at once at the third signal ({signal})")));
        }
    };
    if let Some(reason) = &end.reason {
        output::complain(reason);
    }
    output::result(&end.run_dir)?;
    Ok(end.exit)
}

fn gone_while_waiting(signal: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Interrupted, format!("asked to stop by {signal} while etcd did not answer"))
}

pub(crate) fn of_coordinator(error: serve::Error) -> Failure {
    match error.faults() {
        Some(faults) => refuse(faults),
        None => Failure::new(error.exit(), error.to_string()),
    }
}

pub(crate) async fn worker(command: WorkerCommand) -> Result<Exit, Failure> {
    let WorkerCommand::Start(options) = command;
    let signals = Signals::listen()?;
    let token = token::from_env()?;
    let security = options.security.read(Side::Caller)?;
    let etcd = tokio::select! {
        fleet = options.registry.awaited(&options.patience) => fleet?,
        signal = signals.nth(1) => return Err(gone_while_waiting(signal)),
    };
    let coordinators = match etcd {
        Some(fleet) => Coordinators::Etcd(fleet),
        None => Coordinators::Listed(options.coordinator),
    };
    let worker = WorkerOptions {
        coordinators,
        target: None,
        worker: options.name.map(WorkerId::new),
        lanes: options.lanes,
        token,
        security,
        http: options.http,
        pushgateway: options.push.gateway,
    };
    let asked = signals.clone();
    let stop = async move {
        let orphaned = async {
            parent_gone().await;
            tokio::time::sleep(ORPHAN_STAYS).await;
        };
        tokio::select! {
            _ = asked.nth(1) => {}
            () = orphaned, if options.leashed => {}
        }
    };
    tokio::select! {
        end = vst_worker::serve::run(worker, stop) => end.map_err(|e| Failure::new(e.exit(), e.to_string())),
        signal = signals.nth(2) => {
            Err(Failure::new(Exit::Interrupted, format!("left at once at the second signal ({signal})")))
        }
    }
}
