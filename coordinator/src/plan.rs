//! What the run will do, decided before anything is started or written.
//!
//! Fed with the checked scenario, the headers of its data, the neighbour lists and what the target says of itself;
//! read by the run, which goes through the phases in order. Law: planning is a pure function of those facts, the
//! population before a phase is the population after the one before it, and the ranges of a phase are disjoint and
//! cover its work.

mod check;
mod copies;
mod data;
mod estimate;
mod kv;
mod limits;
mod operations;
mod phases;
mod sample;
mod sound;
#[cfg(test)]
mod tests;

use std::path::Path;

use vst_common::attributes::Attributes;
use vst_common::expand::Expansion;
use vst_common::ids::PhaseIndex;
use vst_common::live_set::LiveSet;
use vst_common::phase::{PhaseOrder, SearchPlan, Work};
use vst_common::ranges::{Cut, RowRange};
use vst_common::scenario::check::{Checked, Faults};
use vst_common::scenario::operations::Operation;
use vst_common::scenario::{IndexSpec, MemoryTarget, PhaseSpec, Scenario, SettleSpec, Step};

pub use data::{DataFacts, read_data};
pub use estimate::{Estimate, estimate, row_bytes, vector_bytes};
pub(crate) use kv::spaces;
pub use limits::{ClientLimit, check_clients, check_open_files, check_replicas};
pub use operations::{ClusterShape, check_cluster, check_programs};
pub(crate) use phases::index_on;
pub use sample::Sample;
pub(crate) use sample::samples;

/// Name of the phase that vst puts before the scenario's: memory of the target before anything is loaded.
pub const BASELINE: &str = "baseline";

/// Name of that phase where the target holds rows already: its memory is no baseline.
pub const AS_FOUND: &str = "as_found";

/// Hash field that holds the vector.
pub const FIELD: &str = "vector";

/// Why a scenario cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its data cannot be used, or cannot give what it asks.
    #[error(transparent)]
    Data(#[from] Faults),
}

impl Error {
    /// The faults, for whoever prints them with their places.
    #[must_use]
    pub fn faults(&self) -> Option<&Faults> {
        match self {
            Self::Data(faults) => Some(faults),
        }
    }
}

/// Reads what planning needs of the data and checks the scenario against it. Relative paths are taken from `base_dir`.
/// A scenario of plain commands has no data.
///
/// # Errors
/// [`Error::Data`] with all faults.
pub async fn check_data(checked: &Checked, base_dir: &Path) -> Result<Option<DataFacts>, Error> {
    let data = read_data(checked, base_dir).await?;
    check(checked, data.as_ref())?;
    Ok(data)
}

/// What the scenario asks of its data and the data cannot give: depth of the truth, dimensions, rows.
///
/// # Errors
/// All faults at once, each at the key that asks too much.
pub fn check(checked: &Checked, data: Option<&DataFacts>) -> Result<(), Faults> {
    check::check(checked, data)
}

/// The whole run, from a scenario, its data and the way in which the target is asked.
///
/// # Errors
/// As [`check`], which it repeats; and queries that return no distance where the answers of several nodes are merged.
pub fn plan(
    checked: &Checked,
    data: Option<&DataFacts>,
    search: Option<SearchPlan>,
) -> Result<RunPlan, Faults> {
    check(checked, data)?;
    check::mergeable(checked, search.as_ref())?;
    Ok(phases::plan(&checked.scenario, data, search))
}

/// One more phase behind those of a plan: queries, a settling or a checkpoint, which leave the population as it is.
///
/// # Errors
/// Why it cannot be, for people.
pub fn further(plan: &RunPlan, data: Option<&DataFacts>, spec: &PhaseSpec) -> Result<PlannedPhase, String> {
    phases::further(plan, data, spec)
}

/// The plan with rows to delete behind a phase that weighed the target, until `keep_rows` are left, and another weighing
/// behind that; the phases up to the one that weighed stay as they are.
///
/// # Errors
/// When that phase weighs nothing, for people.
pub fn decided(
    plan: &RunPlan,
    data: Option<&DataFacts>,
    weighed: PhaseIndex,
    keep_rows: u64,
) -> Result<RunPlan, String> {
    phases::decided(plan, data, weighed, keep_rows)
}

/// The whole run.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// What was asked for.
    pub scenario: Scenario,
    /// How KNN reaches all vectors, and the names of the indexes; `None` without vectors.
    pub search: Option<SearchPlan>,
    /// Rows of the base that take part.
    pub rows: u64,
    /// Copies of the base, the last one perhaps in part.
    pub copies: u32,
    /// How the copies are made.
    pub expansion: Expansion,
    /// Dimensions of a vector of the base.
    pub dims: u32,
    /// The index is one that an earlier run made.
    pub index_is_there: bool,
    /// The phases in order; the first is the [`BASELINE`], or [`AS_FOUND`]. What runs beside a phase is right behind it.
    pub phases: Vec<PlannedPhase>,
}

impl RunPlan {
    /// What runs beside a phase, in the order of the scenario.
    pub fn beside(&self, phase: PhaseIndex) -> impl Iterator<Item = &PlannedPhase> {
        self.phases.iter().filter(move |other| other.beside.is_some_and(|(main, _)| main == phase))
    }

    /// What rows carry beside their vectors.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        phases::attributes(&self.scenario, self.rows)
    }

    /// All cells that the plan can hold; none is alive.
    #[must_use]
    pub fn population(&self) -> LiveSet {
        self.phases
            .first()
            .map_or_else(|| LiveSet::empty(self.scenario.seed, 0, 1), |phase| phase.before.with_cut(0))
    }

    /// The name of the phase that takes over what an earlier run left, where there is one: the first that loads.
    #[must_use]
    pub fn reuses(&self) -> Option<&str> {
        let mut phases = self.scenario.phases.iter();
        let first = phases.find(|phase| matches!(phase.step, Step::Ingest { .. }))?;
        matches!(first.step, Step::Ingest { reuse: true, .. }).then_some(first.name.as_str())
    }

    /// The same over what an earlier run left: the whole population or a part of it, with or without the index.
    #[must_use]
    pub fn over(&self, whole: bool, index_is_there: bool) -> Self {
        let mut plan = Self { index_is_there, ..self.clone() };
        let Some(name) = self.reuses() else { return plan };
        let full = self.population().full();
        for phase in &mut plan.phases {
            if phase.name == BASELINE {
                AS_FOUND.clone_into(&mut phase.name);
            }
            let loads = phase.name == name;
            if whole {
                (phase.before, phase.after) = (full, full);
            }
            if loads && let PlannedStep::Load(load) = &mut phase.step {
                if whole {
                    load.cut = load.cut.map(|_| Cut::new(RowRange { start: 0, end: 0 }, 1));
                } else if let Work::Ingest(vectors) = &load.order.work {
                    load.order.work = Work::Fill(vectors.clone());
                }
            }
            if loads {
                break;
            }
        }
        plan
    }
}

/// One phase.
#[derive(Clone, Debug)]
pub struct PlannedPhase {
    /// Its position in [`RunPlan::phases`].
    pub index: PhaseIndex,
    /// Unique name, the key of every table.
    pub name: String,
    /// What happens.
    pub step: PlannedStep,
    /// What is alive when it begins.
    pub before: LiveSet,
    /// What is alive when it has ended.
    pub after: LiveSet,
    /// The phase that it runs beside, and how long after that one it begins, nanoseconds; `None` for one of the sequence.
    pub beside: Option<(PhaseIndex, u64)>,
}

impl PlannedPhase {
    /// The word for its step in files and tables.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.step {
            PlannedStep::Checkpoint => "checkpoint",
            PlannedStep::CreateIndex => "create_index",
            PlannedStep::DropIndex => "drop_index",
            PlannedStep::RebuildIndex(_) => "rebuild_index",
            PlannedStep::Settle(_) => "settle",
            PlannedStep::Operate(operation) => operation.word(),
            PlannedStep::Weigh(_) => "shrink",
            PlannedStep::Load(load) => load.word,
        }
    }

    /// Warm-up and measured part, nanoseconds; 0 where something else ends the phase.
    #[must_use]
    pub fn length_ns(&self) -> u64 {
        match &self.step {
            PlannedStep::Load(load) if load.cut.is_none() => {
                load.order.warm_up_ns.saturating_add(load.order.duration_ns)
            }
            _ => 0,
        }
    }
}

/// What happens in a phase.
#[derive(Clone, Debug)]
pub enum PlannedStep {
    /// Memory is sampled on a target at rest.
    Checkpoint,
    /// The index is created.
    CreateIndex,
    /// Drop it; the rows stay.
    DropIndex,
    /// Drop it and make it anew, of this shape, over the rows that are there.
    RebuildIndex(IndexSpec),
    /// Wait until the target has come to rest.
    Settle(SettleSpec),
    /// The cluster is changed, or a program runs.
    Operate(Operation),
    /// Wait until it has, and weigh it: where it is over its bound, rows are deleted and it is weighed again.
    Weigh(MemoryTarget),
    /// The fleet sends load.
    Load(Box<LoadPlan>),
}

/// A phase in which the fleet sends load.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// `ingest`, `query`, `shrink`, `kv`, or `fill` for the keys that a `kv` phase needs.
    pub word: &'static str,
    /// What each worker is told; `lanes_total` is filled in when the lanes are known.
    pub order: PhaseOrder,
    /// The ranges that are leased; `None` where shares of a schedule are dealt instead.
    pub cut: Option<Cut>,
    /// Commands that the server's counters are compared for, as `INFO commandstats` spells them.
    pub commands: Vec<String>,
}
