//! A prepared population with a fleet in front of it: measures one point after another.
//!
//! Used by the searches. The population is loaded once by a run whose further phases come on demand, so that all points
//! of one population are phases of one run directory; a setting that changes the population (index, rows, fleet) ends
//! that run and begins another. Law: a point that is not valid is never handed on as a measurement.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tonic::transport::Channel;
use vst_common::count;
use vst_common::exit::Exit;
use vst_common::run_dir::Results;
use vst_common::scenario::check::config::Guard;
use vst_common::scenario::{Arrival, Load, PhaseSpec, QuerySpec, Step};
use vst_coordinator::local_cluster::LocalCluster;
use vst_proto::fleet::NextRequest;
use vst_proto::fleet::fleet_client::FleetClient;
use vst_tuning::figure::Figure;
use vst_tuning::measured::Event;
use vst_tuning::throughput::Offered;
use vst_tuning::tune::{Setting, Value};

use super::figures;
use crate::config;
use crate::error::Failure;
use crate::progress::Display;
use crate::run::children::{Children, Launch};
use crate::run::{LOCAL_PRIMARIES, check_data, check_local_limits, start_cluster, watch};
use crate::scenario_file::{Loaded, Override, load};
use crate::signals::Signals;

/// The memory of the loaded population is taken in this phase.
pub(crate) const POPULATION: &str = "population";
/// Requests that a point shall have at least, so that there is a 99th percentile to speak of.
const REQUESTS_LEAST: f64 = 400.0;
/// A point is made so much longer for that, at most.
const LONGER_MOST: u64 = 6;
/// A coordinator that was asked to stop has this long to leave its report.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// Settings that are no path of the scenario: how many are at work in a closed loop, and over how many connections an
/// open one goes.
pub(crate) const CLIENTS: &str = "clients";
/// See [`CLIENTS`].
pub(crate) const CONNECTIONS: &str = "connections";

/// What is measured, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BenchSpec {
    /// Name or path.
    pub(crate) scenario: String,
    /// `path=value`, as `--set` takes them.
    pub(crate) set: Vec<String>,
    /// A local cluster where absent.
    pub(crate) target: Option<String>,
    /// Remove what was left under the prefix, and what was made.
    pub(crate) cleanup: bool,
    /// Measured part of a point, as scenarios write durations.
    pub(crate) length: String,
    /// Unmeasured part before it.
    pub(crate) warm_up: String,
    /// Clients of a closed loop.
    pub(crate) clients: u32,
    /// Connections of an open loop.
    pub(crate) connections: u32,
    /// Primaries of the local cluster, where it is not the usual number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) primaries: Option<u16>,
    /// The environment, whose guard is obeyed whenever a population is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<PathBuf>,
}

/// One measurement, as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Name of the run directory below `runs`.
    pub(crate) run: String,
    /// Its phase.
    pub(crate) phase: String,
    /// What was set.
    pub(crate) setting: Setting,
    /// How the target was driven.
    pub(crate) offered: Offered,
    /// What became of it.
    pub(crate) event: Event,
}

/// A population that is there.
struct Opened {
    /// What made it: the scenario up to its queries.
    made_by: Json,
    cluster: Option<LocalCluster>,
    children: Children,
    client: FleetClient<Channel>,
    run: String,
    run_directory: String,
}

/// See the module.
pub(crate) struct Bench {
    spec: BenchSpec,
    runs: PathBuf,
    token: String,
    signals: Signals,
    quiet: bool,
    /// Name of the scenario's first phase of queries.
    queries: String,
    opened: Option<Opened>,
    /// What the environment forbids.
    guard: Guard,
    /// Points so far, those of earlier runs included.
    points: usize,
}

/// A scenario at one setting.
struct At {
    loaded: Loaded,
    set: Vec<Override>,
    query: QuerySpec,
    clients: u32,
    connections: u32,
    made_by: Json,
}

fn interrupted(signals: &Signals) -> bool {
    signals.count() > 0
}

impl Bench {
    /// Nothing is started yet; the scenario is checked with its data.
    pub(crate) async fn new(
        spec: BenchSpec,
        runs: PathBuf,
        token: String,
        signals: Signals,
        quiet: bool,
        points: usize,
    ) -> Result<Self, Failure> {
        let loaded = load(&spec.scenario, &overrides(&spec.set)?)?;
        let queries = first_queries(&loaded)?.0.to_owned();
        let guard = spec.config.as_deref().map(config::load).transpose()?.unwrap_or_default().guard;
        let bench = Self { spec, runs, token, signals, quiet, queries, opened: None, guard, points };
        bench.allow(&bench.at(&Setting::default())?).await?;
        Ok(bench)
    }

    /// Checks data, this machine and the guard.
    async fn allow(&self, at: &At) -> Result<(), Failure> {
        let facts = self.signals.unless_asked(check_data(&at.loaded)).await?;
        config::obey(&self.guard, self.spec.target.as_deref(), &at.loaded, facts.as_ref())?;
        match self.spec.target {
            None => check_local_limits(&at.loaded, self.primaries()),
            Some(_) => Ok(()),
        }
    }

    fn primaries(&self) -> u16 {
        self.spec.primaries.unwrap_or(LOCAL_PRIMARIES)
    }

    /// Points so far.
    pub(crate) fn points(&self) -> usize {
        self.points
    }

    /// What was asked for.
    pub(crate) fn spec(&self) -> &BenchSpec {
        &self.spec
    }

    /// Who is listened to.
    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Name of the phase of queries that is measured.
    pub(crate) fn queries(&self) -> &str {
        &self.queries
    }

    /// What makes the population of a setting: two settings of one population need it loaded once.
    pub(crate) fn population_of(&self, setting: &Setting) -> Result<Json, Failure> {
        Ok(self.at(setting)?.made_by)
    }

    fn at(&self, setting: &Setting) -> Result<At, Failure> {
        let mut set = overrides(&self.spec.set)?;
        set.push(Override::new(&format!("phases.{}.query.duration", self.queries), &self.spec.length));
        set.push(Override::new(&format!("phases.{}.query.warm_up", self.queries), &self.spec.warm_up));
        let (mut clients, mut connections) = (self.spec.clients, self.spec.connections);
        for (path, value) in &setting.0 {
            match path.as_str() {
                CLIENTS => clients = whole(path, value)?,
                CONNECTIONS => connections = whole(path, value)?,
                path => set.push(Override::new(path, value)),
            }
        }
        let loaded = load(&self.spec.scenario, &set)?;
        let query = first_queries(&loaded)?.1.clone();
        let fleet = &loaded.checked.scenario.fleet;
        let lanes = fleet.workers.saturating_mul(fleet.lanes);
        let mut population = loaded.checked.scenario.clone();
        population.keep_before_queries();
        let made_by = serde_json::to_value(&population).unwrap_or_default();
        Ok(At {
            loaded,
            set,
            query,
            clients: clients.max(lanes),
            connections: connections.max(lanes),
            made_by,
        })
    }

    /// Runs one point; `figures` are those that it has to tell.
    pub(crate) async fn measure(
        &mut self,
        setting: &Setting,
        offered: Offered,
        figures: &[Figure],
    ) -> Result<Point, Failure> {
        let at = self.at(setting)?;
        self.prepare(&at).await?;
        self.points += 1;
        let phase = phase_name(self.points);
        let mut query = at.query;
        query.load = match offered {
            Offered::FlatOut => Load::Closed { clients: at.clients, pipeline: 1 },
            Offered::Rate(rate) => {
                let wanted_ms = REQUESTS_LEAST / rate * 1e3;
                let longest = query.duration_ms.saturating_mul(LONGER_MOST);
                query.duration_ms = query.duration_ms.max(count::from_f64(wanted_ms).min(longest));
                Load::Open { arrival: Arrival::Constant { rate }, connections: at.connections }
            }
        };
        let (run, run_directory) = self
            .next(Some(&PhaseSpec {
                name: phase.clone(),
                step: Step::Query(query),
                criteria: Vec::new(),
                beside: Vec::new(),
            }))
            .await?;
        let event = figures::read(&run_directory, &phase, offered, figures).await?;
        Ok(Point { run, phase, setting: setting.clone(), offered, event })
    }

    /// Loads the population of a setting, unless it is there; gives its run directory.
    pub(crate) async fn load(&mut self, setting: &Setting) -> Result<String, Failure> {
        let at = self.at(setting)?;
        self.prepare(&at).await?;
        Ok(self.opened.as_ref().map(|opened| opened.run_directory.clone()).unwrap_or_default())
    }

    /// Samples the memory of the population that is there, in a phase of this name; gives its run directory.
    pub(crate) async fn checkpoint(&mut self, name: &str) -> Result<String, Failure> {
        let phase = PhaseSpec {
            name: name.to_owned(),
            step: Step::Checkpoint,
            criteria: Vec::new(),
            beside: Vec::new(),
        };
        Ok(self.next(Some(&phase)).await?.1)
    }

    async fn prepare(&mut self, at: &At) -> Result<(), Failure> {
        if self.opened.as_ref().is_none_or(|opened| opened.made_by != at.made_by) {
            self.close().await?;
            self.allow(at).await?;
            self.open(at).await?;
        }
        Ok(())
    }

    /// Loads the population of a setting.
    async fn open(&mut self, at: &At) -> Result<(), Failure> {
        let mut display = Display::new(self.quiet);
        std::fs::create_dir_all(&self.runs)?;
        let cluster = match &self.spec.target {
            Some(_) => None,
            None => {
                let primaries = self.primaries();
                let word = if primaries == 1 { "primary" } else { "primaries" };
                display.note(&format!("starting a local cluster of {primaries} {word}"));
                Some(self.signals.unless_asked(start_cluster(None, primaries, 0)).await?)
            }
        };
        let target = match (&self.spec.target, &cluster) {
            (Some(target), _) => target.clone(),
            (None, Some(cluster)) => cluster.url(),
            (None, None) => String::new(),
        };
        let mut children = Children::new(&self.token, None)?;
        let launch = Launch {
            scenario: &self.spec.scenario,
            target: &target,
            set: &at.set,
            results: &Results::Folder(self.runs.clone()),
            cleanup: self.spec.cleanup,
            most_memory: self.guard.most_memory_bytes,
            on_demand: true,
            allow_hooks: false,
            stages: false,
            etcd: None,
        };
        let Some(address) = children.start_coordinator(&launch).await? else {
            let exit = children.coordinator_ended().await?;
            return Err(Failure::new(exit, "the coordinator did not begin; it says why above"));
        };
        let fleet = &at.loaded.checked.scenario.fleet;
        for n in 1..=fleet.workers {
            children.start_worker(&address, &format!("w{n}"), fleet.lanes)?;
        }
        let client = FleetClient::connect(format!("http://{address}")).await;
        let client =
            client.map_err(|e| Failure::new(Exit::Fleet, format!("the coordinator is not there: {e}")))?;
        self.opened = Some(Opened {
            made_by: at.made_by.clone(),
            cluster,
            children,
            client,
            run: String::new(),
            run_directory: String::new(),
        });
        let token = self.token.clone();
        let mut last = None;
        let shown = async {
            watch(&address, &token, &mut display, &mut last).await;
            std::future::pending::<()>().await;
        };
        let checkpoint = PhaseSpec {
            name: String::from(POPULATION),
            step: Step::Checkpoint,
            criteria: Vec::new(),
            beside: Vec::new(),
        };
        let (run, run_directory) = tokio::select! {
            waits = async {
                self.next(None).await?;
                self.next(Some(&checkpoint)).await
            } => waits?,
            () = shown => return Err(Failure::new(Exit::Bug, "the coordinator is not watched any more")),
        };
        display.end();
        if let Some(opened) = &mut self.opened {
            (opened.run, opened.run_directory) = (run, run_directory);
        }
        Ok(())
    }

    /// Sends a phase, if any, and waits until the run waits for the next one. Gives the run and its directory.
    async fn next(&mut self, phase: Option<&PhaseSpec>) -> Result<(String, String), Failure> {
        let Some(opened) = &mut self.opened else {
            return Err(Failure::new(Exit::Bug, "nothing is prepared to be measured"));
        };
        let phase_json = match phase {
            Some(phase) => serde_json::to_string(phase)
                .map_err(|e| Failure::new(Exit::Bug, format!("the phase cannot be written: {e}")))?,
            None => String::new(),
        };
        let request = NextRequest { token: self.token.clone(), phase_json, last: false };
        let signals = self.signals.clone();
        let answer = tokio::select! {
            answer = opened.client.next(request) => answer,
            asked = signals.nth(1) => {
                return Err(Failure::new(Exit::Interrupted, format!("stopped by {asked}")));
            }
        };
        match answer {
            Ok(reply) => {
                let reply = reply.into_inner();
                Ok((reply.run, reply.run_directory))
            }
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                let ended = opened.children.coordinator_ended();
                let exit = match tokio::time::timeout(STOPS_WITHIN, ended).await {
                    Ok(exit) => exit?,
                    Err(_) => Exit::Fleet,
                };
                let exit = if exit == Exit::Valid { Exit::Scenario } else { exit };
                Err(Failure::new(exit, status.message()))
            }
            Err(status) => {
                Err(Failure::new(Exit::Fleet, format!("the coordinator is gone: {}", status.message())))
            }
        }
    }

    /// Ends the run in order, if there is one; after a signal it is told to stop.
    pub(crate) async fn close(&mut self) -> Result<(), Failure> {
        let Some(mut opened) = self.opened.take() else { return Ok(()) };
        if interrupted(&self.signals) {
            let pid = *opened.children.coordinator_pid().borrow();
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // One that is gone is noticed below.
                let _ = kill_process(pid, rustix::process::Signal::INT);
            }
        } else {
            let request = NextRequest { token: self.token.clone(), phase_json: String::new(), last: true };
            // A run that is over needs no end.
            let _ = opened.client.next(request).await;
        }
        let ended = async {
            let exit = opened.children.coordinator_ended().await;
            opened.children.workers_ended().await;
            exit
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(STOPS_WITHIN, ended) => ended.ok(),
            _ = self.signals.nth(2) => None,
        };
        if ended.is_none() {
            opened.children.kill().await;
        }
        if let Some(cluster) = opened.cluster {
            cluster.stop();
        }
        Ok(())
    }
}

/// Name of the phase that a point is.
pub(crate) fn phase_name(point: usize) -> String {
    format!("point_{point:04}")
}

/// The first phase of queries.
pub(crate) fn first_queries(loaded: &Loaded) -> Result<(&str, &QuerySpec), Failure> {
    let scenario = &loaded.checked.scenario;
    let found = scenario.phases.iter().find_map(|phase| match &phase.step {
        Step::Query(query) => Some((phase.name.as_str(), query)),
        _ => None,
    });
    found.ok_or_else(|| {
        Failure::new(
            Exit::Scenario,
            format!(
                "scenario `{}` has no phase of queries to be measured: add one with `query:` after the ingest",
                scenario.name
            ),
        )
    })
}

/// Texts of `--set`.
pub(crate) fn overrides(set: &[String]) -> Result<Vec<Override>, Failure> {
    let read = |text: &String| {
        text.parse::<Override>().map_err(|e| Failure::new(Exit::Usage, format!("--set {text}: {e}")))
    };
    set.iter().map(read).collect()
}

fn whole(path: &str, value: &Value) -> Result<u32, Failure> {
    match value {
        Value::Int(n) => u32::try_from(*n).ok().filter(|n| *n > 0),
        _ => None,
    }
    .ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`{path}` is {value} and must be a whole number above 0"))
    })
}
