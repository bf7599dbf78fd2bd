//! The summary of a run: a pure function of its directory.
//!
//! Puts together what latency, recall, memory, accounting and validity find. `--json` prints it, the reports render
//! it, scripts read it. Law: the same directory gives the same summary, compacted or not.

use futures::future::try_join;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vst_common::clock::WallNs;
use vst_common::count;
use vst_common::deed::Deed;
use vst_common::exit::Exit;
use vst_common::phase::VectorWork;
use vst_common::scenario::Scenario;

use crate::accounting::{self, AccountingRow};
use crate::cluster;
use crate::course::Course;
use crate::criteria::{self, CriterionRow};
use crate::engine::{Engine, Error, Log};
use crate::findings;
use crate::latency;
use crate::leak::{self, LeakCheck};
use crate::memory::{self, Checkpoint};
use crate::phase::PhaseSummary;
use crate::recall;
use crate::validity::{self, Verdict};

/// Intervals of the whole run that findings look at; longer runs are put together.
const INTERVALS: u64 = 3_600;

/// What a run says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Whether to believe it.
    pub verdict: Verdict,
    /// What the exit code of a command that shows it is.
    pub exit_code: u8,
    /// The run.
    pub run: String,
    /// Where it is.
    pub directory: String,
    /// What ran against what.
    pub setting: Setting,
    /// All phases that began, in order.
    pub phases: Vec<PhaseSummary>,
    /// Memory at the baseline and at each checkpoint.
    pub checkpoints: Vec<Checkpoint>,
    /// What the scenario asks for, beside what was found.
    #[serde(default)]
    pub criteria: Vec<CriterionRow>,
    /// Whether memory grows between checkpoints of the same rows.
    pub leaks: Vec<LeakCheck>,
    /// Attempts against the server's own counters.
    pub accounting: Vec<AccountingRow>,
    /// What was done to the target, by the coordinator and by workers on its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deeds: Vec<Deed>,
}

/// What ran against what; a field that the run directory does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Name of the scenario.
    pub scenario: Option<String>,
    /// The question that it answers.
    pub purpose: Option<String>,
    /// Seed of all content.
    pub seed: Option<u64>,
    /// The target, as `run.json` names it.
    pub target: Option<String>,
    /// Registrations of workers.
    pub workers: u64,
    /// Lanes over all workers.
    pub lanes: u64,
    /// Location of the base vectors.
    pub base: Option<String>,
    /// Rows of it that take part.
    pub rows: Option<u64>,
    /// Dimensions of a vector.
    pub dims: Option<u32>,
    /// Metric of the index.
    pub metric: Option<String>,
    /// Links per node and layer (HNSW M).
    pub m: Option<u32>,
    /// Candidates while inserting.
    pub ef_construction: Option<u32>,
    /// How copies of the base are made, and the numbers that prove (or estimate) that a query finds only its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<String>,
    /// What of an earlier run was taken over, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<String>,
    /// When the run was opened.
    pub opened_wall_ns: Option<WallNs>,
    /// When it was closed, or last written to.
    pub ended_wall_ns: Option<WallNs>,
}

impl Summary {
    /// The exit code of a command that shows this summary.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.verdict.exit()
    }
}

/// What a run says without its course: of a run that goes on, phase by phase, this is cheaper.
pub(crate) async fn read_phases(directory: &str) -> Result<Summary, Error> {
    let engine = Engine::open(&[directory.to_owned()]).await?;
    before_findings(&engine, directory).await
}

/// Reads a run directory.
pub(crate) async fn read(directory: &str) -> Result<Summary, Error> {
    let engine = Engine::open(&[directory.to_owned()]).await?;
    of(&engine, directory).await
}

/// The summary of the run that an engine has opened.
pub(crate) async fn of(engine: &Engine, directory: &str) -> Result<Summary, Error> {
    let (mut summary, course) =
        try_join(before_findings(engine, directory), Course::read(engine, INTERVALS)).await?;
    summary.leaks = leak::checks(&summary.checkpoints, &course);
    let more = findings::all(&summary.phases, &summary.checkpoints, &summary.leaks, &course);
    summary.verdict.findings.extend(more);
    Ok(summary)
}

async fn before_findings(engine: &Engine, directory: &str) -> Result<Summary, Error> {
    let Some(log) = engine.logs().first() else { return Err(Error::NoDirectory) };
    let mut by_phase = latency::by_phase(engine).await?;
    let mut recalls = recall::by_phase(engine).await?;
    let mut first_errors = latency::first_errors(engine).await?;
    let phases: Vec<PhaseSummary> = log
        .phases
        .values()
        .map(|record| {
            let main = record.started.beside.and_then(|main| log.phases.get(&main));
            let beside = main.map(|main| main.started.name.clone());
            PhaseSummary::of(record, beside, &mut by_phase, &mut recalls, &mut first_errors)
        })
        .collect();
    let checkpoints = memory::checkpoints(engine, prefix(log).as_deref()).await?;
    let accounting = accounting::rows_of(engine).await?;
    let mut verdict = validity::verdict(engine, log, &phases, &checkpoints, &accounting).await?;
    verdict.findings.extend(cluster::findings(engine).await?);
    let criteria = scenario(log).map(|s| criteria::judge(&s, &phases, &checkpoints)).unwrap_or_default();
    verdict.missed = criteria::missed(&criteria);
    Ok(Summary {
        exit_code: verdict.exit().code(),
        verdict,
        run: log.run.clone(),
        directory: directory.to_owned(),
        setting: setting(log),
        phases,
        checkpoints,
        criteria,
        leaks: Vec::new(),
        accounting,
        deeds: log.deeds.clone(),
    })
}

/// Prefix of all keys.
fn prefix(log: &Log) -> Option<String> {
    first_vectors(log).map(|v| v.prefix.clone()).or_else(|| scenario(log).map(|s| s.population.prefix))
}

fn scenario(log: &Log) -> Option<Scenario> {
    log.facts.get("scenario").and_then(|value| serde_json::from_value(value.clone()).ok())
}

/// What the first phase with load works on.
fn first_vectors(log: &Log) -> Option<&VectorWork> {
    log.phases.values().filter_map(|p| p.started.order.as_ref()).find_map(|order| order.work.vectors())
}

fn setting(log: &Log) -> Setting {
    let scenario = scenario(log);
    let vectors = first_vectors(log);
    let metric = vectors.map(|v| v.metric).or(scenario.as_ref().and_then(|s| Some(s.index.as_ref()?.metric)));
    let text = |pointer: &str| log.facts.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Setting {
        scenario: scenario.as_ref().map(|s| s.name.clone()).or_else(|| text("/scenario/name")),
        purpose: scenario.as_ref().map(|s| s.purpose.clone()).or_else(|| text("/scenario/purpose")),
        seed: scenario.as_ref().map(|s| s.seed),
        target: ["/target", "/target/url", "/target/address"].into_iter().find_map(text),
        workers: count::len(log.workers.len()),
        lanes: log.workers.iter().map(|w| u64::from(w.lanes)).sum(),
        base: vectors
            .map(|v| v.dataset.base.clone())
            .or_else(|| scenario.as_ref().and_then(|s| Some(s.dataset.as_ref()?.base.clone()))),
        rows: vectors.map(|v| v.rows),
        dims: vectors.map(|v| v.dims),
        metric: metric.and_then(|m| serde_json::to_value(m).ok()?.as_str().map(str::to_owned)),
        m: scenario.as_ref().and_then(|s| Some(s.index.as_ref()?.m)),
        ef_construction: scenario.as_ref().and_then(|s| Some(s.index.as_ref()?.ef_construction)),
        copies: text("/data/copies"),
        prefill: text("/prefill/said"),
        opened_wall_ns: log.opened,
        ended_wall_ns: log.closed.as_ref().map(|c| c.at).or(log.last_written),
    }
}
