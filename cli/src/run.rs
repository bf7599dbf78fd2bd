//! `vst run`: everything for one run on this machine, as a user wants it.
//!
//! Checks the scenario and its data, starts a local cluster where no target is named, then a coordinator and workers
//! as separate processes that talk exactly as in a fleet; shows progress, and at the end the report. Whatever it
//! started is stopped again, however it ends.

pub(crate) mod children;
mod dry_run;
pub(crate) mod list;
mod options;

use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tokio::sync::watch;
use vst_common::exit::Exit;
use vst_common::run_dir::Results;
use vst_coordinator::local_cluster::{
    LocalCluster, LocalClusterError, LocalClusterOptions, Saved, ServerFiles,
};
use vst_coordinator::plan::{self, ClientLimit};
use vst_coordinator::serve;
use vst_coordinator::target::{Target, TargetError, TargetUrl};
use vst_proto::fleet::fleet_client::FleetClient;
use vst_proto::fleet::{Status, WatchRequest};

use self::children::{Children, Launch};
pub(crate) use self::options::RunCommand;
use self::options::{RunOptions, ScenarioAction};
use crate::error::Failure;
use crate::progress::Display;
use crate::scenario_file::{Loaded, load};
use crate::signals::Signals;
use crate::{output, token};

pub(crate) async fn run(command: RunCommand) -> Result<Exit, Failure> {
    match command.action() {
        #[cfg(feature = "analysis")]
        ScenarioAction::Search(search) => crate::search::run(search).await,
        #[cfg(feature = "analysis")]
        ScenarioAction::Campaign(campaign) => crate::search::campaign(*campaign).await,
        ScenarioAction::List { json } => list::list(json),
        ScenarioAction::Run(options) => run_scenario(&*options?).await,
    }
}

/// What the data are, from their headers and truth; faults point into the scenario.
pub(crate) async fn check_data(loaded: &Loaded) -> Result<Option<plan::DataFacts>, Failure> {
    let refuse = |faults| crate::scenario_file::refuse(&faults);
    let facts = plan::read_data(&loaded.checked, &loaded.base).await.map_err(refuse)?;
    plan::check(&loaded.checked, facts.as_ref()).map_err(refuse)?;
    Ok(facts)
}

/// The data in a line.
pub(crate) fn describe(facts: Option<&plan::DataFacts>) -> String {
    let Some(facts) = facts else { return String::from("none: plain commands") };
    let data = format!(
        "{} vectors of {} dimensions, {} queries, truth to depth {}",
        facts.base.rows, facts.base.dims, facts.queries.rows, facts.truth.k
    );
    match &facts.separation {
        Some(separation) => format!("{data}; {separation}"),
        None => data,
    }
}

/// A coordinator that was asked to abort has this long before it is killed.
const ABORTS_WITHIN: Duration = Duration::from_secs(10);
/// A server that vst starts lets so many clients in, if it may open that many files.
const LOCAL_CLIENTS: u64 = 10_000;
/// Files that such a server keeps for itself.
const LOCAL_FILES_BESIDE: u64 = 32;
/// Primaries of a local cluster.
pub(crate) const LOCAL_PRIMARIES: u16 = 3;

async fn run_scenario(options: &RunOptions) -> Result<Exit, Failure> {
    // First of all, so that whatever is started later is also stopped.
    let signals = Signals::listen()?;
    let token = token::from_env_or(options.token_file.as_deref())?;
    if options.etcd.is_some() && token.is_none() {
        let text = "the environment names an etcd, so the coordinator serves every address of this machine: set VST_TOKEN \
                    or `token_file`, or anybody could join";
        return Err(Failure::new(Exit::Usage, text.to_owned()));
    }
    let loaded = load(&options.scenario, &options.set)?;
    let refuse = |faults| crate::scenario_file::refuse(&faults);
    plan::check_programs(&loaded.checked, options.allow_hooks || options.dry_run).map_err(refuse)?;
    let facts = signals.unless_asked(check_data(&loaded)).await?;
    crate::config::obey(&options.guard, options.target.as_deref(), &loaded, facts.as_ref())?;
    let named = options.target.as_deref().map(TargetUrl::from_env).transpose();
    named.map_err(|e| Failure::new(Exit::Usage, e.to_string()))?;
    signals.unless_asked(check_results(&options.results)).await?;
    if options.target.is_none() {
        check_local_limits(&loaded, LOCAL_PRIMARIES)?;
    }
    let saved = local_data(options)?;
    if options.dry_run {
        output::result(&signals.unless_asked(dry_run::describe(options, &loaded, facts.as_ref())).await?)?;
        return Ok(Exit::Valid);
    }
    if let Some(target) = &options.target {
        signals.unless_asked(check_limits_of(target, &loaded)).await?;
    }
    let mut display = Display::new(options.quiet);
    let cluster = match &options.target {
        Some(_) => None,
        None => {
            let replicas = u16::from(loaded.checked.scenario.needs_replicas());
            display.note(match (&saved, replicas) {
                (Some(_), _) => "starting a local cluster with the data that was saved",
                (None, 0) => "starting a local cluster of 3 primaries",
                (None, _) => "starting a local cluster of 3 primaries, each with a replica",
            });
            match signals.unless_asked(start_cluster(saved, LOCAL_PRIMARIES, replicas)).await {
                Ok(cluster) => Some(cluster),
                Err(failure) => {
                    display.end();
                    return Err(failure);
                }
            }
        }
    };
    let target = match (&options.target, &cluster) {
        (Some(target), _) => target.clone(),
        (None, Some(cluster)) => cluster.url(),
        (None, None) => String::new(),
    };
    let outcome = drive(options, &loaded, &target, &token.unwrap_or_default(), &signals, &mut display).await;
    display.end();
    let ended_well = matches!(&outcome, Ok((_, Exit::Valid | Exit::NotValid)));
    let saving = async {
        if !ended_well && (options.bgsave || options.save_target.is_some()) {
            output::note("the run did not go through: nothing is saved of its target");
            return Ok(());
        }
        if options.bgsave {
            return bgsave(&target).await;
        }
        let (Some(folder), Some(cluster)) = (&options.save_target, &cluster) else { return Ok(()) };
        let bytes = cluster.save(folder).await.map_err(|e| Failure::new(Exit::Target, with_causes(&e)))?;
        output::note(&format!("saved the target's data in {}: {bytes} bytes", folder.display()));
        Ok(())
    };
    let saved = tokio::select! {
        saved = saving => saved,
        _ = signals.nth(1), if ended_well => {
            Err(Failure::new(Exit::Interrupted, "stopped while the target's data was being saved: it is not whole"))
        }
    };
    // The report does not need the servers; they end before a person starts to read.
    if let Some(cluster) = cluster {
        cluster.stop();
    }
    let (run_dir, exit) = outcome?;
    saved?;
    let Some(run_dir) = run_dir else { return Ok(exit) };
    tokio::select! {
        judged = crate::report::summary(&run_dir, options.json) => match (judged, exit) {
            (judged, Exit::Valid) => judged,
            (Ok(_), exit) => Ok(exit),
            // Why there is no report matters less than why the run ended.
            (Err(failure), exit) => {
                failure.tell();
                Ok(exit)
            }
        },
        _ = signals.nth(3) => Ok(Exit::Interrupted),
    }
}

async fn check_results(results: &Results) -> Result<(), Failure> {
    serve::check_results(results).await.map_err(|e| Failure::new(Exit::Usage, e.to_string()))
}

/// What the run asks of this machine, with the servers on it.
pub(crate) fn check_local_limits(loaded: &Loaded, primaries: u16) -> Result<(), Failure> {
    let refuse = |faults| crate::scenario_file::refuse(&faults);
    let files = crate::limits::open_files();
    plan::check_open_files(&loaded.checked, u64::from(primaries), files).map_err(refuse)?;
    let server = ClientLimit {
        address: String::from("a local server"),
        most: LOCAL_CLIENTS.min(files.saturating_sub(LOCAL_FILES_BESIDE)),
        connected: 0,
    };
    plan::check_clients(&loaded.checked, &[server]).map_err(refuse)
}

/// What the run asks of this machine, with the servers elsewhere; the coordinator asks those themselves.
async fn check_limits_of(target: &str, loaded: &Loaded) -> Result<(), Failure> {
    let target = Target::connect(target).await.map_err(|e| crate::fleet::of_coordinator(e.into()))?;
    let primaries = vst_common::count::len(target.primaries().count());
    plan::check_open_files(&loaded.checked, primaries, crate::limits::open_files())
        .map_err(|faults| crate::scenario_file::refuse(&faults))
}

/// What the local cluster begins with; refuses what could not be read or written later.
fn local_data(options: &RunOptions) -> Result<Option<Saved>, Failure> {
    let told = options.restore_target.is_some() || options.save_target.is_some();
    if told && options.target.is_some() {
        // The configuration names it: the command line refuses its own.
        let reason = "--restore-target and --save-target are for the local cluster: leave the target out";
        return Err(Failure::new(Exit::Usage, reason));
    }
    if options.bgsave && !(options.target.is_some() && options.guard.may_save) {
        let reason = "--bgsave is for a target whose operator allows it: name the target, and say `guard: {save: allowed}` \
                      in the file of --config; a local cluster is saved with --save-target";
        return Err(Failure::new(Exit::Usage, reason));
    }
    let refused = |e: LocalClusterError| Failure::new(Exit::Usage, with_causes(&e));
    if let Some(folder) = &options.save_target {
        LocalCluster::can_save(folder).map_err(refused)?;
    }
    options.restore_target.as_deref().map(Saved::open).transpose().map_err(refused)
}

/// Has the target's operator's own disks hold what the run loaded.
async fn bgsave(target: &str) -> Result<(), Failure> {
    let failed = |e: TargetError| Failure::new(e.exit(), with_causes(&e));
    let target = Target::connect(target).await.map_err(failed)?;
    for written in target.save().await.map_err(failed)? {
        output::note(&format!("{} saved its data in {}", written.address, written.path));
    }
    Ok(())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(crate) async fn start_cluster(
    saved: Option<Saved>,
    primaries: u16,
    replicas: u16,
) -> Result<LocalCluster, Failure> {
    let files = ServerFiles::find().map_err(|e| Failure::new(Exit::Target, e.to_string()))?;
    let failed = |e: LocalClusterError| Failure::new(Exit::Target, with_causes(&e));
    let options = match saved {
        None => LocalClusterOptions { primaries, replicas, ..LocalClusterOptions::new(files) },
        Some(saved) => {
            LocalClusterOptions { replicas, ..LocalClusterOptions::restored(files, saved).map_err(failed)? }
        }
    };
    LocalCluster::start(options).await.map_err(failed)
}

/// Starts the fleet, watches it to its end, and gives the run directory and the run's own exit code.
async fn drive(
    options: &RunOptions,
    loaded: &Loaded,
    target: &str,
    token: &str,
    signals: &Signals,
    display: &mut Display,
) -> Result<(Option<String>, Exit), Failure> {
    let mut children = Children::new(token, options.pushgateway.clone())?;
    let coordinator = children.coordinator_pid();
    let mut last = None;
    let ended = tokio::select! {
        ended = fleet(&mut children, options, loaded, target, token, display, &mut last) => Some(ended?),
        () = pass_on(signals, coordinator) => None,
    };
    // A coordinator that a signal found before it listened has no code of its own.
    let exit = match ended {
        Some(Exit::Bug) | None if signals.count() > 0 => Exit::Interrupted,
        exit => exit.unwrap_or(Exit::Bug),
    };
    if ended.is_none() {
        children.kill().await;
    }
    Ok((last.map(|status| status.run_directory).filter(|dir| !dir.is_empty()), exit))
}

/// The fleet from its start to its end.
async fn fleet(
    children: &mut Children,
    options: &RunOptions,
    loaded: &Loaded,
    target: &str,
    token: &str,
    display: &mut Display,
    last: &mut Option<Status>,
) -> Result<Exit, Failure> {
    let launch = Launch {
        scenario: &options.scenario,
        target,
        set: &options.set,
        results: &options.results,
        cleanup: options.cleanup,
        allow_hooks: options.allow_hooks,
        stages: options.stages,
        etcd: options.etcd.as_ref().map(|(etcd, fleet)| (etcd.as_str(), fleet.as_deref())),
        most_memory: options.guard.most_memory_bytes,
        on_demand: false,
    };
    let Some(address) = children.start_coordinator(&launch).await? else {
        return children.coordinator_ended().await;
    };
    let fleet = &loaded.checked.scenario.fleet;
    for n in 1..=fleet.workers {
        children.start_worker(&address, &format!("w{n}"), fleet.lanes)?;
    }
    watch(&address, token, display, last).await;
    let exit = children.coordinator_ended().await?;
    children.workers_ended().await;
    Ok(exit)
}

/// Follows the run until it ends; leaves the last status.
pub(crate) async fn watch(address: &str, token: &str, display: &mut Display, last: &mut Option<Status>) {
    let Ok(mut client) = FleetClient::connect(format!("http://{address}")).await else { return };
    let Ok(statuses) = client.watch(WatchRequest { token: token.to_owned(), members: false }).await else {
        return;
    };
    let mut statuses = statuses.into_inner();
    while let Ok(Some(status)) = statuses.message().await {
        display.show(&status);
        let ended = status.ended;
        *last = Some(status);
        if ended {
            break;
        }
    }
}

/// Passes signals on to the coordinator, which drains at the first and aborts at the second. Resolves when it is time
/// to leave whatever it does: at the third, or when it has not ended soon after the second.
async fn pass_on(signals: &Signals, mut coordinator: watch::Receiver<u32>) {
    for (n, said) in [
        (1, "stopping: what is in flight ends, then there is a report; once more to abort"),
        (2, "aborting: there is a report of what is recorded; once more to leave at once"),
    ] {
        let asked = signals.nth(n).await;
        output::note(said);
        // It may not have been started yet, or be gone while workers still leave.
        let pid = tokio::select! {
            pid = coordinator.wait_for(|pid| *pid != 0) => pid.map_or(0, |pid| *pid),
            _ = signals.nth(n + 1) => 0,
        };
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // One that is gone is noticed by those who wait for it.
            let _ = kill_process(pid, asked.into());
        }
    }
    if tokio::time::timeout(ABORTS_WITHIN, signals.nth(3)).await.is_err() {
        output::note("the coordinator does not end; it is killed");
    }
}
