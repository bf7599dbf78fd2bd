//! A coordinator process: the thin shell around [`RunCore`].
//!
//! Started by the command line. Prepares everything, opens the run directory, claims the target, serves workers, and
//! then turns what happens into events and does what the run's actions say, until the run is over. Law: nothing is
//! written anywhere before everything that can be known to fail has been checked; nothing is decided here.

mod counting;
mod door;
mod effects;
mod error;
mod facts;
mod hooks;
mod port;
mod prepare;
mod preview;
mod results;
mod shell;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use vst_common::clock::{self, SECOND_NS};
use vst_common::count;
use vst_common::entry::{Control, RunState};
use vst_common::exit::Exit;
use vst_common::ids::{Generation, RunId};
use vst_common::run_dir::Results;
use vst_common::scenario::check::Checked;
use vst_http::{Gateway, Pusher, Server as HttpServer};
use vst_proto::fleet;
use vst_proto::security::Security;

use crate::archive::{self, Follower};
use crate::intake::Intake;
use crate::plan;
use crate::roster::{Roster, Terms};
use crate::run::{Action, Event, Failure, LogFate, Past, RunCore, Settings};
use crate::run_log::{self, RunLog};
use crate::session::{Hub, Words, role_name};
use crate::site::CoordinatorSite;
use crate::status::{self, Look};
use crate::target::{Lease, OwnerMarker, TargetError};
pub use error::Error;
pub(crate) use error::chain;
pub use prepare::{Prepared, prepare};
pub use preview::{Preview, preview};
pub use results::check as check_results;
use shell::Shell;

/// Time between two heartbeats of a worker, nanoseconds.
const HEARTBEAT_NS: u64 = SECOND_NS;
/// Generations of one leader; the next leader's begin behind them.
const GENERATIONS: u64 = 1 << 32;
/// Messages that wait for the run.
const QUEUE: usize = 1024;
/// For those who look on to be shown the end, and for connections to close.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a coordinator is started.
#[derive(Debug)]
pub struct CoordinatorOptions {
    /// What to do.
    pub checked: Checked,
    /// Folder that the scenario's relative paths start from.
    pub base_dir: PathBuf,
    /// `valkey://[user@]host:port`; the password comes from the environment.
    pub target: String,
    /// Where the run directory is made.
    pub results: Results,
    /// Address to serve on, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// The bound address is written to this file when workers can come.
    pub announce: Option<PathBuf>,
    /// The run's name, where other coordinators may go on with it or it may be one that another began.
    pub run: Option<RunId>,
    /// Only go on with a run that another coordinator began.
    pub standby: bool,
    /// How long such a one waits for the begin of that run, nanoseconds.
    pub begun_within_ns: u64,
    /// Workers to wait for; the scenario's number where absent.
    pub workers: Option<u32>,
    /// Where the state is shown over HTTP, `host:port`; nowhere where absent.
    pub http: Option<String>,
    /// Where figures are pushed.
    pub pushgateway: Option<Gateway>,
    /// Where workers look for the leader, beside being told its address.
    pub etcd: Option<vst_etcd::Fleet>,
    /// What is written there as the leader's address, `host:port`, where it is not the bound one.
    pub advertise: Option<String>,
    /// The fleet's shared secret.
    pub token: Option<String>,
    /// Certificates of the port, and whose it lets in.
    pub security: Security,
    /// Remove what an earlier run left under the prefix before, and what this run made after.
    pub cleanup: bool,
    /// Memory of the target, bytes over all nodes, at which the run ends; no bound where absent.
    pub most_memory: Option<u64>,
    /// Whether programs that the scenario names may run on this machine.
    pub allow_programs: bool,
    /// Told of each stage, line by line, for profilers that follow; nobody where absent.
    pub stages: Option<fn(&str)>,
    /// After the scenario's phases wait for more, which come one by one, until it is said that none will.
    pub on_demand: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// The run.
    pub run: RunId,
    /// Where its records are.
    pub run_dir: String,
    /// What a script is told.
    pub exit: Exit,
    /// Why, where it did not just end well.
    pub reason: Option<String>,
}

/// Runs a scenario to its end. Each message on `stops` asks for an early end and says why: the first lets what is in
/// flight end, the second does not wait.
///
/// # Errors
/// [`Error`] when the run could not begin; whatever happens to a run that began is in [`RunEnd`].
pub async fn run(options: CoordinatorOptions, stops: mpsc::Receiver<String>) -> Result<RunEnd, Error> {
    options.security.server().map_err(Error::Certificates)?;
    results::check(&options.results).await?;
    plan::check_programs(&options.checked, options.allow_programs)?;
    let looking = Look::idle(status::Role::Preparing, "looks at the data and the target", clock::mono_ns());
    let (shown, looks) = watch::channel(looking);
    let site = || Arc::new(CoordinatorSite(looks.clone()));
    let _http = match &options.http {
        Some(address) => Some(HttpServer::start(address, site()).await?),
        None => None,
    };
    let pusher = match &options.pushgateway {
        Some(gateway) => Some(Pusher::start(gateway.clone(), site())?),
        None => None,
    };
    let ended = run_shown(options, (shown, looks.clone()), stops).await;
    if let Some(pusher) = pusher {
        pusher.end().await;
    }
    ended
}

/// The run, while others look on.
async fn run_shown(
    options: CoordinatorOptions,
    (shown, looks): Shown,
    mut stops: mpsc::Receiver<String>,
) -> Result<RunEnd, Error> {
    let mut prepared = tokio::select! {
        prepared = prepare(&options.checked, &options.base_dir, &options.target) => prepared?,
        Some(_) = stops.recv() => return Err(Error::Interrupted),
    };
    let candidate = Candidate::new(&options, &prepared);
    if options.run.is_some() {
        return lead_when_free(options, prepared, candidate, (shown, looks), stops).await;
    }
    // Bound before anything is written, so that an address that is taken costs nothing.
    let listener = port::hold(&options.listen).await?.open()?;
    let lease = tokio::select! {
        lease = prepare::take(&mut prepared, &candidate.run, options.cleanup) => lease?,
        // What was being removed is still marked, and a sign of life runs out by itself.
        Some(_) = stops.recv() => return Err(Error::Interrupted),
    };
    let log = match run_log::open(&candidate.location, &candidate.run, &candidate.leader).await {
        Ok(log) => log,
        Err(e) => {
            lease.release().await;
            return Err(e.into());
        }
    };
    let marker = prepare::marker(&prepared, &candidate.run);
    let lead = Lead { candidate, log, past: Past::default(), listener, marker };
    finish(lead, options, prepared, lease, (shown, looks), stops).await
}

type Shown = (watch::Sender<Look>, watch::Receiver<Look>);

/// Who would lead which run, and where its directory is.
struct Candidate {
    run: RunId,
    location: String,
    leader: String,
}

impl Candidate {
    fn new(options: &CoordinatorOptions, prepared: &Prepared) -> Self {
        let run = options.run.clone().unwrap_or_else(|| facts::run_id(&prepared.plan.scenario.name));
        Self { location: options.results.of_run(&run), run, leader: facts::leader() }
    }
}

/// Everything that leading needs beside what was prepared.
struct Lead {
    candidate: Candidate,
    log: RunLog,
    /// What another coordinator did before.
    past: Past,
    listener: TcpListener,
    marker: OwnerMarker,
}

/// Waits until nobody leads the run, and goes on with it where it was begun.
async fn lead_when_free(
    options: CoordinatorOptions,
    mut prepared: Prepared,
    candidate: Candidate,
    (shown, looks): Shown,
    mut stops: mpsc::Receiver<String>,
) -> Result<RunEnd, Error> {
    // Nobody else can have the port from now on; it stays closed until this one leads, so that workers call another.
    let held = port::hold(&options.listen).await?;
    let Candidate { run, location, leader } = &candidate;
    let own = facts::scenario_hash(&prepared.plan.scenario);
    let look = |replay: &run_log::Replay| {
        let past = Past::of(replay.controls.iter().map(|(_, control)| control));
        let theirs = past.facts().and_then(|facts| facts.get("scenario_sha256")).and_then(|h| h.as_str());
        if theirs.is_some_and(|theirs| theirs != own) {
            let reason = String::from(
                "it was opened with another scenario; start this one with the same file and values",
            );
            return Err(run_log::Error::Unfit { run: run.clone(), reason });
        }
        let message = format!("another coordinator leads run {run} in epoch {}", replay.epoch);
        shown.send_replace(Look::idle(status::Role::Standby, message, clock::mono_ns()));
        Ok(())
    };
    let begin = match options.standby {
        true => run_log::Begin::ByAnother { within_ns: options.begun_within_ns },
        false => run_log::Begin::Here,
    };
    let waited = tokio::select! {
        waited = run_log::wait_for_lead(location, run, leader, begin, look) => waited?,
        Some(_) = stops.recv() => return Err(Error::Interrupted),
    };
    let log = match waited {
        run_log::Waited::Leads(log) => log,
        run_log::Waited::Over(replay) => return Ok(over(&options, candidate.run, &replay)),
    };
    let past = Past::of(log.replay().controls.iter().map(|(_, control)| control));
    let taken = async {
        let listener = held.open()?;
        if let Some(facts) = past.facts() {
            prepare::as_planned(&mut prepared, facts, past.decided())?;
            let (lease, marker) = prepare::take_over(&prepared, run).await?;
            return Ok((listener, lease, marker));
        }
        let lease = prepare::take(&mut prepared, run, options.cleanup).await?;
        Ok((listener, lease, prepare::marker(&prepared, run)))
    };
    match taken.await {
        Ok((listener, lease, marker)) => {
            let lead = Lead { candidate, log, past, listener, marker };
            finish(lead, options, prepared, lease, (shown, looks), stops).await
        }
        Err(e) => {
            close_failed(&log, &e).await;
            Err(e)
        }
    }
}

/// The end of a run that another coordinator led.
fn over(options: &CoordinatorOptions, run: RunId, replay: &run_log::Replay) -> RunEnd {
    let past = Past::of(replay.controls.iter().map(|(_, control)| control));
    let exit = past.closed().map_or(Exit::Bug, |(_, code)| Exit::of_code(i32::from(*code)));
    let reason = match past.closed() {
        Some((RunState::Failed { reason }, _)) => Some(reason.clone()),
        _ => None,
    };
    RunEnd { run_dir: options.results.of_run(&run), run, exit, reason }
}

/// A run that cannot even begin is over: no other coordinator must try the same again.
async fn close_failed(log: &RunLog, error: &Error) {
    let closed = Control::RunClosed {
        state: RunState::Failed { reason: error.to_string() },
        exit_code: error.exit().code(),
        at_wall_ns: clock::wall_ns(),
    };
    // The error matters more than whether the log took it.
    let _ = log.append_control(closed).await;
}

/// Leads to the end, and lets go of the prefix unless another coordinator leads now.
async fn finish(
    lead: Lead,
    options: CoordinatorOptions,
    prepared: Prepared,
    lease: Lease,
    shown: Shown,
    stops: mpsc::Receiver<String>,
) -> Result<RunEnd, Error> {
    let (ended, leads) = match lead_on(lead, options, prepared, &lease, shown, stops).await {
        Ok((ended, leads)) => (Ok(ended), leads),
        Err(e) => (Err(e), true),
    };
    if leads {
        lease.release().await;
    }
    ended
}

/// The run, from its directory to its end, under a prefix that is held. Gives whether this coordinator led to the end.
async fn lead_on(
    lead: Lead,
    options: CoordinatorOptions,
    prepared: Prepared,
    lease: &Lease,
    (shown, looks): Shown,
    stops: mpsc::Receiver<String>,
) -> Result<(RunEnd, bool), Error> {
    let Lead { candidate: Candidate { run, location, leader }, log, past, listener, marker } = lead;
    let address =
        listener.local_addr().map_err(|source| Error::Listen { address: options.listen.clone(), source })?;
    let workers_wanted = options.workers.unwrap_or(prepared.plan.scenario.fleet.workers);
    let facts = past.facts().cloned().unwrap_or_else(|| facts::run_json(&run, &prepared, workers_wanted));
    log.write_run_json(&facts).await?;
    let intake = Intake::spawn(run.clone(), log.replay().delivered.clone(), log.clone());
    let archive = Follower::spawn(log.clone(), run.clone(), archive::Limits::default()).await?;
    if past.facts().is_none() {
        let opened = Control::RunOpened { at_wall_ns: clock::wall_ns(), facts: facts.clone() };
        log.append_control(opened).await.map_err(run_log::Error::from)?;
    }
    // What was there before is nobody's to remove unasked.
    let adopted = prepared.prefill.is_some();
    let claimed = match &prepared.prefill {
        Some(prefill) => lease.adopt(&prefill.left, &marker).await,
        None => lease.claim(&marker).await,
    };
    if let Err(e) = claimed {
        let e = e.into();
        close_failed(&log, &e).await;
        return Err(e);
    }

    let (events, inbox) = mpsc::channel(QUEUE);
    let ownership = tokio::spawn(tell_of_loss(lease.lost(), events.clone()));
    let before = Generation(log.epoch().saturating_sub(1).saturating_mul(GENERATIONS));
    let token = options.token.clone().filter(|token| !token.is_empty());
    let (demand, demands) = mpsc::channel(QUEUE);
    let hub = Hub::new(words(&run, &prepared), token.clone(), before, events, looks);
    let hub = Arc::new(if options.on_demand { hub.on_demand(demand) } else { hub });
    let server =
        port::serve(listener, Arc::clone(&hub), intake.clone(), token.clone(), options.security.clone());
    let (core, first) = core(&prepared, workers_wanted, token, options.on_demand, &past);
    if let Err(source) = announce(options.announce.as_ref(), address) {
        prepare::unmark(&prepared, &marker, lease).await?;
        return Err(Error::Announce { path: options.announce.unwrap_or_default(), source });
    }
    let announced = match &options.etcd {
        Some(fleet) => {
            let entry = vst_etcd::Leader {
                run: run.clone(),
                epoch: log.epoch(),
                address: advertised(&options, fleet, address).await,
                leader: leader.clone(),
                version: String::from(env!("CARGO_PKG_VERSION")),
                since: clock::wall_ns(),
                run_directory: location.clone(),
            };
            match fleet.announce(&entry).await {
                Ok(announced) => Some(announced),
                // etcd holds nothing that the run cannot lose: whoever goes on with a run does so without it.
                Err(e) if past.facts().is_some() => {
                    tracing::error!("workers cannot be told who leads: {e}");
                    None
                }
                Err(e) => {
                    prepare::unmark(&prepared, &marker, lease).await?;
                    return Err(e.into());
                }
            }
        }
        None => None,
    };
    tracing::info!("run {run}: waiting for {workers_wanted} workers on {address}");

    let hooks = hooks::Hooks::new(
        prepared.plan.scenario.hooks.clone(),
        vec![
            ("VST_RUN", run.to_string()),
            ("VST_RUN_DIRECTORY", location.clone()),
            ("VST_SCENARIO", prepared.plan.scenario.name.clone()),
            ("VST_TARGET", prepared.target.url().to_string()),
        ],
        options.stages,
    );
    if past.facts().is_some() {
        prepared.target.audit().precede(log.read_audit().await);
    }
    let parts = shell::Parts {
        run: run.clone(),
        location,
        leader,
        prepared,
        most_memory: options.most_memory,
        log,
        intake,
        archive,
        hub,
        core,
        first,
        counters: past.counters().and_then(|counters| serde_json::from_value(counters.clone()).ok()),
        touched: past.touched(),
        shown,
        facts,
        hooks,
    };
    let audit_log = parts.log.clone();
    let mut ended = Shell::run(parts, inbox, stops, demands).await;
    ended.target.audit().purpose("after the run");
    if ended.leads && !adopted && (options.cleanup || !ended.touched) {
        let cleaned = prepare::remove(&ended.target, &marker, lease, ended.touched).await;
        if let Err(e) = cleaned
            && ended.verdict.exit == Exit::Valid
        {
            ended.verdict.exit = e.exit();
            ended.verdict.reason = chain(&e);
        }
    }
    if ended.leads
        && let Err(e) = audit_log.write_audit(&ended.target.audit().all()).await
    {
        tracing::error!("what was done to the target is not written to the end: {}", chain(&e));
    }
    ownership.abort();
    if let Some(announced) = announced
        && let Err(e) = announced.end().await
    {
        tracing::warn!("the leader's registration runs out by itself: {e}");
    }
    server.end().await;
    let reason = Some(ended.verdict.reason).filter(|reason| !reason.is_empty());
    let run_dir = options.results.of_run(&run);
    Ok((RunEnd { run, run_dir, exit: ended.verdict.exit, reason }, ended.leads))
}

/// Where workers are told to call.
async fn advertised(options: &CoordinatorOptions, fleet: &vst_etcd::Fleet, bound: SocketAddr) -> String {
    match &options.advertise {
        Some(address) => address.clone(),
        None if bound.ip().is_unspecified() => format!("{}:{}", fleet.own_address().await, bound.port()),
        None => bound.to_string(),
    }
}

/// A run whose prefix somebody else has taken must not go on.
async fn tell_of_loss(lost: impl Future<Output = TargetError>, events: mpsc::Sender<Event>) {
    let e = lost.await;
    let failure = Failure { exit: e.exit(), reason: chain(&e), log: LogFate::Writable };
    // A run that is over needs no warning.
    let _ = events.send(Event::Failed(failure)).await;
}

fn core(
    prepared: &Prepared,
    workers_wanted: u32,
    token: Option<String>,
    on_demand: bool,
    past: &Past,
) -> (RunCore, Vec<Action>) {
    let terms = Terms {
        version: String::from(env!("CARGO_PKG_VERSION")),
        token,
        lease_ns: lease_ns(prepared),
        margin_ns: prepared.plan.scenario.fleet.margin_ms().saturating_mul(SECOND_NS / 1000),
    };
    let now = clock::mono_ns();
    let wall_minus_mono_ns = clock::wall_ns().saturating_sub(count::to_i64(now));
    let wanted = count::index(u64::from(workers_wanted));
    let mut settings = Settings::new(wanted, prepared.sample_interval_ns(), wall_minus_mono_ns);
    settings.on_demand = on_demand;
    let (plan, roster, nodes) =
        (Arc::clone(&prepared.plan), Roster::new(terms), prepared.target.nodes().len());
    match past.facts() {
        Some(_) => RunCore::resume(plan, settings, roster, nodes, past, now),
        None => (RunCore::new(plan, settings, roster, nodes, now), Vec::new()),
    }
}

fn lease_ns(prepared: &Prepared) -> u64 {
    prepared.plan.scenario.fleet.lease_ms.saturating_mul(SECOND_NS / 1000)
}

fn words(run: &RunId, prepared: &Prepared) -> Words {
    let nodes = prepared.target.nodes();
    Words {
        run: run.clone(),
        target: prepared.target.url().to_string(),
        lease_ns: lease_ns(prepared),
        heartbeat_ns: HEARTBEAT_NS,
        sample_interval_ns: prepared.sample_interval_ns(),
        size_classes_ns: prepared.plan.scenario.sampling.size_classes_ms.saturating_mul(1_000_000),
        nodes: nodes
            .iter()
            .map(|node| fleet::Node {
                id: node.id.as_str().to_owned(),
                address: node.address(),
                role: role_name(&node.role).to_owned(),
            })
            .collect(),
        indexes: nodes.iter().map(|node| plan::index_on(prepared.plan.search.as_ref(), &node.id)).collect(),
    }
}

/// Writes the address whole or not at all, because somebody may be reading the file at this moment.
fn announce(path: Option<&PathBuf>, address: SocketAddr) -> std::io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, address.to_string().as_bytes())?;
    file.persist(path).map(drop).map_err(|e| e.error)
}
