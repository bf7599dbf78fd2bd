//! One phase: what the log says of it, with its latency, recall and generator.
//!
//! Fed with the log and with what `latency` and `recall` found, read by `validity` and put into the summary. Law: a
//! phase that the log does not close is `open`, whatever its tables hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vst_common::attributes::Filter;
use vst_common::clock::WallNs;
use vst_common::count;
use vst_common::entry::PhaseOutcome;

use crate::engine::{PhaseRecord, loop_word};
use crate::latency::{GeneratorSummary, NodeSummary, OperationSummary, PhaseLatency};
use crate::recall::RecallSummary;

/// One phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseSummary {
    /// Position in the run.
    pub index: u64,
    /// Unique name.
    pub name: String,
    /// `baseline`, or the word of the scenario's step.
    pub step: String,
    /// Name of the phase that it ran beside; absent where it is one of the sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
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
    /// The part of the rows among which its queries asked; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Rows alive on the target afterwards.
    pub live_after: Option<u64>,
    /// Requests that the schedule held in the measured window, as long as it ran; open loop only.
    pub scheduled: Option<u64>,
    /// Of those, the ones that no worker's rows know of: their shares had no owner, or a lost worker took its rows with
    /// it.
    pub unowned: u64,
    /// The first answer that was an error, in the server's words, and from which node.
    pub first_error: Option<String>,
    /// The operations of the measured window.
    pub operations: Vec<OperationSummary>,
    /// The same by node.
    pub nodes: Vec<NodeSummary>,
    /// Recall over the measured window.
    pub recall: Option<RecallSummary>,
    /// What the load generator says about itself.
    pub generator: Option<GeneratorSummary>,
}

impl PhaseSummary {
    /// Puts together what is known of a phase, taking its part out of the maps.
    pub(crate) fn of(
        record: &PhaseRecord,
        beside: Option<String>,
        latencies: &mut BTreeMap<u64, PhaseLatency>,
        recalls: &mut BTreeMap<u64, RecallSummary>,
        first_errors: &mut BTreeMap<u64, String>,
    ) -> Self {
        let (started, ended) = (&record.started, record.ended.as_ref());
        let index = u64::from(started.index.0);
        let latency = latencies.remove(&index).unwrap_or_default();
        let due: u64 = latency.operations.iter().map(|o| o.due).sum();
        let (outcome, failure) = match ended.map(|e| &e.outcome) {
            None => ("open", None),
            Some(PhaseOutcome::Completed) => ("completed", None),
            Some(PhaseOutcome::Interrupted) => ("interrupted", None),
            Some(PhaseOutcome::Failed { reason }) => ("failed", Some(reason.clone())),
        };
        Self {
            index,
            name: started.name.clone(),
            step: started.step.clone(),
            beside,
            load: started.load().map(|load| loop_word(load).to_owned()),
            outcome: outcome.to_owned(),
            failure,
            start_wall_ns: started.start_wall_ns,
            took_ns: ended.map(|e| count::to_u64(e.end_wall_ns.saturating_sub(started.start_wall_ns))),
            ef_runtime: started.order.as_ref().and_then(|order| order.work.ask()?.ef_runtime),
            filter: started.order.as_ref().and_then(|order| order.work.ask()?.filter),
            live_after: ended.map(|e| e.live),
            scheduled: latency.scheduled,
            unowned: latency.scheduled.map_or(0, |scheduled| scheduled.saturating_sub(due)),
            first_error: first_errors.remove(&index),
            operations: latency.operations,
            nodes: latency.nodes,
            recall: recalls.remove(&index),
            generator: started.load().map(|_| latency.generator),
        }
    }
}
