//! `vst run`: everything for one run on this machine, as a user wants it.
//!
//! Checks the scenario and its data, starts a local cluster where no target is named, then a coordinator and workers
//! as separate processes that talk exactly as in a fleet; shows progress, and at the end the report. Whatever it
//! started is stopped again, however it ends.

mod children;
mod options;

use vst_common::exit::Exit;
use vst_coordinator::local_cluster::{LocalCluster, LocalClusterOptions, ServerFiles};
use vst_coordinator::plan;
use vst_coordinator::target::TargetUrl;
use vst_proto::fleet::fleet_client::FleetClient;
use vst_proto::fleet::{Status, StopRequest, WatchRequest};

use self::children::Children;
pub(crate) use self::options::RunCommand;
use self::options::{RunOptions, ScenarioAction};
use crate::error::Failure;
use crate::output;
use crate::progress::Display;
use crate::scenario_file::{Loaded, load};

pub(crate) async fn run(command: RunCommand) -> Result<Exit, Failure> {
    match command.action() {
        ScenarioAction::List { json } => list(json),
        ScenarioAction::Run(options) => run_scenario(&options).await,
    }
}

fn list(json: bool) -> Result<Exit, Failure> {
    let mut rows = Vec::new();
    for (name, text) in vst_common::scenario::check::BUILTIN {
        let checked = vst_common::scenario::check::parse(text, name, &[])
            .map_err(|faults| crate::scenario_file::refuse(&faults))?;
        rows.push((*name, checked.scenario.purpose));
    }
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, purpose)| serde_json::json!({"name": name, "purpose": purpose}))
            .collect();
        output::result(&serde_json::Value::Array(rows).to_string())?;
    } else {
        let lines: Vec<String> = rows.iter().map(|(name, purpose)| format!("{name:<12} {purpose}")).collect();
        output::result(&lines.join("\n"))?;
    }
    Ok(Exit::Valid)
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
    format!(
        "{} vectors of {} dimensions, {} queries, truth to depth {}",
        facts.base.rows, facts.base.dims, facts.queries.rows, facts.truth.k
    )
}

async fn run_scenario(options: &RunOptions) -> Result<Exit, Failure> {
    let loaded = load(&options.scenario, &options.set)?;
    let facts = check_data(&loaded).await?;
    let workers = loaded.checked.scenario.fleet.workers;
    let named = options.target.as_deref().map(TargetUrl::from_env).transpose();
    let named = named.map_err(|e| Failure::new(Exit::Usage, e.to_string()))?;
    if options.dry_run {
        let target = named.map(|url| url.to_string());
        output::result(&dry_run(&loaded, facts.as_ref(), workers, target.as_deref()))?;
        return Ok(Exit::Valid);
    }
    let mut display = Display::new(options.quiet);
    let cluster = match &options.target {
        Some(_) => None,
        None => {
            display.note("starting a local cluster of 3 primaries");
            Some(start_cluster().await?)
        }
    };
    let target = match (&options.target, &cluster) {
        (Some(target), _) => target.clone(),
        (None, Some(cluster)) => cluster.url(),
        (None, None) => String::new(),
    };
    let outcome = drive(options, &loaded, &target, workers, &mut display).await;
    display.end();
    // The report does not need the servers; they end before a person starts to read.
    if let Some(cluster) = cluster {
        cluster.stop();
    }
    let (run_dir, exit) = outcome?;
    let Some(run_dir) = run_dir else { return Ok(exit) };
    let judged = crate::analyze::summary(&run_dir, options.json).await?;
    Ok(if exit == Exit::Valid { judged } else { exit })
}

async fn start_cluster() -> Result<LocalCluster, Failure> {
    let files = ServerFiles::find().map_err(|e| Failure::new(Exit::Target, e.to_string()))?;
    let started = LocalCluster::start(LocalClusterOptions::new(files)).await;
    started.map_err(|e| Failure::new(Exit::Target, e.to_string()))
}

/// Starts the fleet, watches it to its end, and gives the run directory and the run's own exit code.
async fn drive(
    options: &RunOptions,
    loaded: &Loaded,
    target: &str,
    workers: u32,
    display: &mut Display,
) -> Result<(Option<String>, Exit), Failure> {
    let mut children = Children::new()?;
    let lanes = loaded.checked.scenario.fleet.lanes;
    let Some(address) = children.start_coordinator(options, target).await? else {
        return Ok((None, children.coordinator_ended().await?));
    };
    for n in 1..=workers {
        children.start_worker(&address, &format!("w{n}"), lanes)?;
    }
    let stopper = tokio::spawn(stop_on_signal(address.clone()));
    let last = watch(&address, display).await;
    let exit = children.coordinator_ended().await?;
    stopper.abort();
    children.workers_ended().await;
    let run_dir = last.map(|status| status.run_directory).filter(|dir| !dir.is_empty());
    Ok((run_dir, exit))
}

/// The fleet's shared secret, empty where there is none.
fn token() -> String {
    std::env::var("VST_TOKEN").unwrap_or_default()
}

/// Follows the run until it ends; gives the last status.
async fn watch(address: &str, display: &mut Display) -> Option<Status> {
    let mut last = None;
    let mut client = FleetClient::connect(format!("http://{address}")).await.ok()?;
    let mut statuses = client.watch(WatchRequest { token: token() }).await.ok()?.into_inner();
    while let Ok(Some(status)) = statuses.message().await {
        display.show(&status);
        let ended = status.ended;
        last = Some(status);
        if ended {
            break;
        }
    }
    last
}

/// Passes each Ctrl-C or SIGTERM on to the coordinator: it drains, and the second time aborts.
async fn stop_on_signal(address: String) {
    loop {
        crate::leash::stop_asked(false).await;
        output::note("stopping: what is in flight ends, then there is a report; once more to abort");
        if let Ok(mut client) = FleetClient::connect(format!("http://{address}")).await {
            // A coordinator that is gone is noticed by the watch.
            let _ = client.stop(StopRequest { reason: String::from("interrupted"), token: token() }).await;
        }
    }
}

fn dry_run(loaded: &Loaded, facts: Option<&plan::DataFacts>, workers: u32, target: Option<&str>) -> String {
    let scenario = &loaded.checked.scenario;
    let mut lines = vec![
        format!("scenario  {}: {}", scenario.name, scenario.purpose),
        format!("data      {}", describe(facts)),
        format!("target    {}", target.unwrap_or("a local cluster of 3 primaries, started for the run")),
        format!("fleet     {workers} workers of {} lanes", scenario.fleet.lanes),
    ];
    for phase in &scenario.phases {
        lines.push(format!("phase     {:<16} {}", phase.name, phase.step.word()));
    }
    lines.join("\n")
}
