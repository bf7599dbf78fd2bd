//! The summary of a run: a pure function of its directory.
//!
//! Puts together what latency, recall, memory, accounting and validity find. `--json` prints it, the reports render
//! it, scripts read it. Law: the same directory gives the same summary, compacted or not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vst_common::clock::WallNs;
use vst_common::count;
use vst_common::entry::PhaseOutcome;
use vst_common::exit::Exit;
use vst_common::phase::{VectorWork, Work};
use vst_common::scenario::Scenario;

use crate::accounting::{self, AccountingRow};
use crate::engine::{Engine, Error, Log, PhaseRecord, loop_word};
use crate::latency::{self, GeneratorSummary, NodeSummary, OperationSummary, PhaseLatency};
use crate::memory::{self, Checkpoint};
use crate::recall::{self, RecallSummary};
use crate::validity::{self, Verdict};

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
    /// Attempts against the server's own counters.
    pub accounting: Vec<AccountingRow>,
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
    /// When the run was opened.
    pub opened_wall_ns: Option<WallNs>,
    /// When it was closed, or last written to.
    pub ended_wall_ns: Option<WallNs>,
}

/// One phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseSummary {
    /// Position in the run.
    pub index: u64,
    /// Unique name.
    pub name: String,
    /// `baseline`, or the word of the scenario's step.
    pub step: String,
    /// `open` or `closed`; absent where no load is driven.
    pub load: Option<String>,
    /// `completed`, `interrupted`, `failed`, or `open` where the log does not say.
    pub outcome: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// The start instant.
    pub start_wall_ns: WallNs,
    /// From the start instant until everything had ended, the drain included, nanoseconds.
    pub took_ns: Option<u64>,
    /// Candidates looked at per query (HNSW EF_RUNTIME).
    pub ef_runtime: Option<u32>,
    /// Rows alive on the target afterwards.
    pub live_after: Option<u64>,
    /// The operations of the measured window.
    pub operations: Vec<OperationSummary>,
    /// The same by node.
    pub nodes: Vec<NodeSummary>,
    /// Recall over the measured window.
    pub recall: Option<RecallSummary>,
    /// What the load generator says about itself.
    pub generator: Option<GeneratorSummary>,
}

impl Summary {
    /// The exit code of a command that shows this summary.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.verdict.exit()
    }
}

/// Reads a run directory.
pub(crate) async fn read(directory: &str) -> Result<Summary, Error> {
    let engine = Engine::open(&[directory.to_owned()]).await?;
    let Some(log) = engine.logs().first() else { return Err(Error::NoDirectory) };
    let mut by_phase = latency::by_phase(&engine).await?;
    let mut recalls = recall::by_phase(&engine).await?;
    let phases: Vec<PhaseSummary> =
        log.phases.values().map(|record| phase(record, &mut by_phase, &mut recalls)).collect();
    let checkpoints = memory::checkpoints(&engine).await?;
    let accounting = accounting::rows_of(&engine).await?;
    let verdict = validity::verdict(&engine, log, &phases, &checkpoints, &accounting).await?;
    Ok(Summary {
        exit_code: verdict.exit().code(),
        verdict,
        run: log.run.clone(),
        directory: directory.to_owned(),
        setting: setting(log),
        phases,
        checkpoints,
        accounting,
    })
}

fn phase(
    record: &PhaseRecord,
    latencies: &mut BTreeMap<u64, PhaseLatency>,
    recalls: &mut BTreeMap<u64, RecallSummary>,
) -> PhaseSummary {
    let (started, ended) = (&record.started, record.ended.as_ref());
    let index = u64::from(started.index.0);
    let latency = latencies.remove(&index).unwrap_or_default();
    let (outcome, failure) = match ended.map(|e| &e.outcome) {
        None => ("open", None),
        Some(PhaseOutcome::Completed) => ("completed", None),
        Some(PhaseOutcome::Interrupted) => ("interrupted", None),
        Some(PhaseOutcome::Failed { reason }) => ("failed", Some(reason.clone())),
    };
    PhaseSummary {
        index,
        name: started.name.clone(),
        step: started.step.clone(),
        load: started.load().map(|load| loop_word(load).to_owned()),
        outcome: outcome.to_owned(),
        failure,
        start_wall_ns: started.start_wall_ns,
        took_ns: ended.map(|e| count::to_u64(e.end_wall_ns.saturating_sub(started.start_wall_ns))),
        ef_runtime: match started.order.as_ref().map(|order| &order.work) {
            Some(Work::Query { ef_runtime, .. }) => *ef_runtime,
            _ => None,
        },
        live_after: ended.map(|e| e.live),
        operations: latency.operations,
        nodes: latency.nodes,
        recall: recalls.remove(&index),
        generator: started.load().map(|_| latency.generator),
    }
}

fn setting(log: &Log) -> Setting {
    let scenario: Option<Scenario> =
        log.facts.get("scenario").and_then(|value| serde_json::from_value(value.clone()).ok());
    let vectors =
        log.phases.values().find_map(|p| p.started.order.as_ref()).map(|order| vectors(&order.work));
    let metric = vectors.map(|v| v.metric).or(scenario.as_ref().map(|s| s.index.metric));
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
            .or_else(|| scenario.as_ref().map(|s| s.dataset.base.clone())),
        rows: vectors.map(|v| v.rows),
        dims: vectors.map(|v| v.dims),
        metric: metric.and_then(|m| serde_json::to_value(m).ok()?.as_str().map(str::to_owned)),
        m: scenario.as_ref().map(|s| s.index.m),
        ef_construction: scenario.as_ref().map(|s| s.index.ef_construction),
        opened_wall_ns: log.opened,
        ended_wall_ns: log.closed.as_ref().map(|c| c.at).or(log.last_written),
    }
}

fn vectors(work: &Work) -> &VectorWork {
    match work {
        Work::Ingest(vectors) | Work::Delete(vectors) | Work::Query { vectors, .. } => vectors,
    }
}
