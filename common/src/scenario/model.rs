//! The checked form of a scenario.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vst_tuning::constraint::Constraint;

use super::commands::{KeyspaceSpec, KvSpec};
use super::load::Load;
use super::operations::{Hooks, Operation};
use crate::attributes::Filter;
use crate::mix::MixWeights;

/// What one run does. Units are in the names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Short name; part of the run's identifier.
    pub name: String,
    /// One sentence: the question that the run answers.
    pub purpose: String,
    /// What kind of question that is, for lists.
    #[serde(default)]
    pub family: String,
    /// The values of its parameters, as they are written.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Seed of all content and of the order of deletes.
    pub seed: u64,
    /// The vectors, their queries and the known neighbours; a scenario of plain commands needs none.
    #[serde(default)]
    pub dataset: Option<DatasetSpec>,
    /// How the server indexes them; a scenario of plain commands needs none.
    #[serde(default)]
    pub index: Option<IndexSpec>,
    /// The keys of plain commands.
    #[serde(default)]
    pub keyspace: KeyspaceSpec,
    /// Which keys vst may make on the target.
    pub population: PopulationSpec,
    /// How many workers and lanes drive the load.
    pub fleet: FleetSpec,
    /// How their connections speak, and to whom.
    #[serde(default)]
    pub connection: ConnectionSpec,
    /// How often servers are observed.
    pub sampling: SamplingSpec,
    /// What must hold of every phase and checkpoint that has the figure.
    #[serde(default)]
    pub criteria: Vec<Constraint>,
    /// Programs that accompany phases.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// The phases, in order.
    pub phases: Vec<PhaseSpec>,
}

impl Scenario {
    /// Every phase, those that run beside another one right behind it.
    pub fn all_phases(&self) -> impl Iterator<Item = &PhaseSpec> {
        every(&self.phases)
    }

    /// Words of every program that it would run on the coordinator's machine, with the keys that name them.
    pub fn programs(&self) -> impl Iterator<Item = (String, &[String])> {
        let hooks =
            [("on_phase_start", &self.hooks.on_phase_start), ("on_phase_end", &self.hooks.on_phase_end)];
        let hooks = hooks.into_iter().flat_map(|(key, hooks)| {
            hooks
                .iter()
                .enumerate()
                .map(move |(n, hook)| (format!("hooks.{key}.{}", n + 1), hook.command.run.as_slice()))
        });
        let phases = self.all_phases().filter_map(|phase| match &phase.step {
            Step::Operate(Operation::Command(command)) => {
                Some((format!("phases.{}.command", phase.name), command.run.as_slice()))
            }
            _ => None,
        });
        hooks.chain(phases)
    }

    /// Whether a replica has to be there for what it does.
    #[must_use]
    pub fn needs_replicas(&self) -> bool {
        self.all_phases().any(|phase| matches!(phase.step, Step::Operate(Operation::Failover(_))))
    }

    /// Leaves the phases before the first of queries: what makes the population.
    pub fn keep_before_queries(&mut self) {
        let first = self.phases.iter().position(|phase| matches!(phase.step, Step::Query(_)));
        self.phases.truncate(first.unwrap_or(self.phases.len()));
    }
}

/// Where the vectors are. Each is a URL (`file://`, `s3://`, ...) or a path, relative to the scenario's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSpec {
    /// The base vectors, one row each.
    pub base: String,
    /// The query vectors.
    pub queries: String,
    /// The exact neighbours of each query within the base, in the big-ann layout.
    pub ground_truth: String,
    /// Use only the first rows of the base.
    pub rows: Option<u64>,
}

/// How distance is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Squared Euclidean distance.
    L2,
    /// One minus the cosine similarity.
    Cosine,
    /// One minus the inner product (the order is that of the largest inner product).
    InnerProduct,
}

/// How an index finds neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// A graph; approximate.
    #[default]
    Hnsw,
    /// Every vector is looked at; exact.
    Flat,
}

/// What a row is on the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// A hash, its vector as bytes in one field.
    #[default]
    Hash,
    /// A JSON document, its vector an array of numbers; needs a server with JSON.
    Json,
}

/// An index over FLOAT32.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSpec {
    /// What its rows are.
    #[serde(default)]
    pub on: RowKind,
    /// How it finds neighbours; M and EF mean nothing to an exact one.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Distance metric.
    pub metric: Metric,
    /// Dimensions; when given they must be those of the data.
    pub dims: Option<u32>,
    /// Links per node and layer (HNSW M).
    pub m: u32,
    /// Candidates looked at while a vector is inserted.
    pub ef_construction: u32,
}

/// Which keys vst owns on the target, and how many times the base is loaded under them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PopulationSpec {
    /// Prefix of all keys, for example `vst:`.
    pub prefix: String,
    /// Copies of the base; 1.5 is the base and half of a second copy.
    #[serde(default = "one")]
    pub copies: f64,
    /// How copies are made.
    #[serde(default)]
    pub expansion: ExpansionMethod,
    /// In which order copies are loaded.
    #[serde(default)]
    pub order: CopyOrder,
}

fn one() -> f64 {
    1.0
}

/// How copies of the base are made, so that each keeps the base's truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpansionMethod {
    /// Translation under L2, lift under cosine and inner product.
    #[default]
    Auto,
    /// Signed permutations of the coordinates: any metric, no more dimensions, estimated and not proved.
    Permutation,
}

/// In which order the rows of several copies are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyOrder {
    /// Row r of every copy, then row r + 1: all copies grow together.
    #[default]
    Interleaved,
    /// One copy after another, as clusters of data would come; graphs built so can have lower recall.
    Clustered,
}

/// The load generators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSpec {
    /// Worker processes.
    pub workers: u32,
    /// Load lanes (threads) per worker.
    pub lanes: u32,
    /// Without word from its coordinator for this long a worker sends no load; a worker that is not heard of for this
    /// and [`FleetSpec::margin_ms`] counts as lost. Milliseconds.
    #[serde(default = "lease_ms")]
    pub lease_ms: u64,
}

impl FleetSpec {
    /// What clocks may differ by before a lost worker's work is given to others, milliseconds.
    #[must_use]
    pub fn margin_ms(&self) -> u64 {
        self.lease_ms / 5
    }
}

/// Longer than it takes another coordinator to lead.
pub(in crate::scenario) const LEASE_MS: u64 = 10_000;

fn lease_ms() -> u64 {
    LEASE_MS
}

/// How the connections of the load speak, and which nodes they read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSpec {
    /// Version of the protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who answers commands that change nothing.
    #[serde(default)]
    pub read_from: ReadFrom,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// What every server speaks.
    #[default]
    Resp2,
    /// Asked for with `HELLO 3`.
    Resp3,
}

/// Who answers commands that change nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// The primary of the slot.
    #[default]
    Primary,
    /// Its replicas in turn; the primary where none can be reached.
    PreferReplica,
    /// The primary and its replicas in turn.
    RoundRobin,
}

/// How often servers are observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplingSpec {
    /// Time between two samples of a node, milliseconds.
    pub interval_ms: u64,
    /// Time between two questions for the size classes of a node's allocator, milliseconds.
    #[serde(default = "five_seconds_in_ms")]
    pub size_classes_ms: u64,
}

fn five_seconds_in_ms() -> u64 {
    5_000
}

/// A named step of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseSpec {
    /// Unique name, the key of every table.
    pub name: String,
    /// What happens.
    pub step: Step,
    /// What must hold of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub criteria: Vec<Constraint>,
    /// What happens while it lasts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<BesideSpec>,
}

/// These phases and those that run beside them, each behind the one that it runs beside.
pub fn every(phases: &[PhaseSpec]) -> impl Iterator<Item = &PhaseSpec> {
    phases
        .iter()
        .flat_map(|phase| std::iter::once(phase).chain(phase.beside.iter().map(|beside| &beside.phase)))
}

/// A phase that runs while another one does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BesideSpec {
    /// It begins this long after the other one, milliseconds.
    pub after_ms: u64,
    /// What it does. A load without a length of its own lasts as long as the other phase.
    pub phase: PhaseSpec,
}

/// What a phase does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Create the index on the empty population.
    CreateIndex,
    /// Drop the index; the rows stay.
    DropIndex,
    /// Drop the index and create it anew over the rows that are there.
    RebuildIndex(RebuildSpec),
    /// Write every row of the base.
    Ingest {
        /// How hard.
        load: Load,
        /// Give up on a reply after this long, milliseconds.
        timeout_ms: u64,
        /// Rows that an earlier run left are kept, and only the others written.
        #[serde(default)]
        reuse: bool,
    },
    /// Insert rows until a share of the population is alive.
    Grow(GrowSpec),
    /// Write live rows again, over what is there.
    Update(UpdateSpec),
    /// Delete rows and insert others, one for one.
    Churn(ChurnSpec),
    /// Wait until indexing is done and memory is stable.
    Settle(SettleSpec),
    /// Ask for nearest neighbours and judge the answers.
    Query(QuerySpec),
    /// Ask, insert, delete and overwrite in one phase.
    Mixed(MixedSpec),
    /// Delete rows until a share of the population is left.
    Shrink(ShrinkSpec),
    /// Send plain commands.
    Kv(KvSpec),
    /// Change the cluster, or run a program.
    Operate(Operation),
    /// Take memory figures that the report compares.
    Checkpoint,
}

impl Step {
    /// How hard it drives the target; `None` where it sends no requests.
    #[must_use]
    pub fn load(&self) -> Option<&Load> {
        match self {
            Self::Ingest { load, .. } => Some(load),
            Self::Grow(grow) => Some(&grow.load),
            Self::Update(update) => Some(&update.load),
            Self::Churn(churn) => Some(&churn.load),
            Self::Query(query) => Some(&query.load),
            Self::Mixed(mixed) => Some(&mixed.load),
            Self::Shrink(shrink) => Some(&shrink.load),
            Self::Kv(kv) => Some(&kv.load),
            Self::CreateIndex
            | Self::DropIndex
            | Self::RebuildIndex(_)
            | Self::Settle(_)
            | Self::Operate(_)
            | Self::Checkpoint => None,
        }
    }

    /// What its queries ask; `None` where it has none.
    #[must_use]
    pub fn ask(&self) -> Option<&Ask> {
        match self {
            Self::Query(query) => Some(&query.ask),
            Self::Mixed(mixed) => Some(&mixed.ask),
            _ => None,
        }
    }

    /// The word for it in files and tables.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::CreateIndex => "create_index",
            Self::DropIndex => "drop_index",
            Self::RebuildIndex(_) => "rebuild_index",
            Self::Grow(_) => "grow",
            Self::Ingest { .. } => "ingest",
            Self::Update(_) => "update",
            Self::Churn(_) => "churn",
            Self::Settle(_) => "settle",
            Self::Query(_) => "query",
            Self::Mixed(_) => "mixed",
            Self::Shrink(_) => "shrink",
            Self::Kv(_) => "kv",
            Self::Operate(operation) => operation.word(),
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// When to call the target settled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettleSpec {
    /// Largest relative change of `used_memory`, summed over nodes, within the window.
    pub threshold: f64,
    /// Length of the window, milliseconds.
    pub window_ms: u64,
    /// Fail the phase after this long, milliseconds.
    pub max_wait_ms: u64,
}

/// What a KNN query asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Neighbours asked for.
    pub k: u32,
    /// Candidates looked at (HNSW EF_RUNTIME).
    pub ef_runtime: Option<u32>,
    /// Among which rows; all where absent.
    #[serde(default)]
    pub filter: Option<Filter>,
    /// What comes back with each neighbour.
    #[serde(default)]
    pub returns: Returns,
}

impl Ask {
    /// The `k` nearest of all rows, with their distances.
    #[must_use]
    pub fn nearest(k: u32, ef_runtime: Option<u32>) -> Self {
        Self { k, ef_runtime, filter: None, returns: Returns::Distance }
    }
}

/// What a server sends with each neighbour's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Returns {
    /// Nothing (NOCONTENT): for one node's answer, whose order says what is nearer.
    Nothing,
    /// Its distance.
    #[default]
    Distance,
    /// Its distance and all fields of the row, the vector included.
    Row,
}

/// A phase that asks and changes rows at the same time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixedSpec {
    /// Which part of the requests does what.
    pub weights: MixWeights,
    /// Requests over the whole fleet.
    pub operations: u64,
    /// What each query asks.
    #[serde(flatten)]
    pub ask: Ask,
    /// How hard.
    pub load: Load,
    /// Give up on a reply after this long, milliseconds.
    pub timeout_ms: u64,
}

/// A KNN query phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuerySpec {
    /// What each query asks.
    #[serde(flatten)]
    pub ask: Ask,
    /// How hard.
    pub load: Load,
    /// Unmeasured beginning, milliseconds; labelled `warm_up` in every table.
    pub warm_up_ms: u64,
    /// Measured part, milliseconds.
    pub duration_ms: u64,
    /// Give up on a reply after this long, milliseconds.
    pub timeout_ms: u64,
}

/// A phase that overwrites rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateSpec {
    /// Share of the planned cells, from the front of the base, 0..=1; those of them that are alive are written.
    pub share: f64,
    /// How hard.
    pub load: Load,
    /// Give up on a reply after this long, milliseconds.
    pub timeout_ms: u64,
}

/// What is changed when an index is made anew; the rest stays as the scenario says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildSpec {
    /// Links per node and layer (HNSW M).
    pub m: Option<u32>,
    /// Candidates looked at while a vector is inserted.
    pub ef_construction: Option<u32>,
}

/// A phase that inserts rows which are not alive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrowSpec {
    /// Share of the planned cells that is alive afterwards, 0..=1.
    pub to: f64,
    /// How hard.
    pub load: Load,
    /// Give up on a reply after this long, milliseconds.
    pub timeout_ms: u64,
}

/// A phase that exchanges rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChurnSpec {
    /// Share of the planned cells that is exchanged for as many others, 0..=1.
    pub by: f64,
    /// How hard.
    pub load: Load,
    /// Give up on a reply after this long, milliseconds.
    pub timeout_ms: u64,
}

/// What a delete phase leaves alive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// This share of the planned cells, 0..=1.
    Share(f64),
    /// So many cells.
    Rows(u64),
    /// The first so many copies, whole; the others go whole.
    Copies(u32),
    /// As many cells as the target holds in so much memory; how many that is turns out as it is weighed.
    Memory(MemoryTarget),
}

/// A bound of memory that a population is brought under.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryTarget {
    /// `used_memory` of a target at rest at most, summed over primaries and replicas, bytes.
    pub bytes: u64,
    /// When it is at rest.
    pub settle: SettleSpec,
}

/// A delete phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShrinkSpec {
    /// What is left alive.
    pub keep: Keep,
    /// How hard.
    pub load: Load,
    /// Give up on a reply after this long, milliseconds.
    pub timeout_ms: u64,
}
