//! The order that a coordinator gives to workers for one phase of load.
//!
//! Made by `coordinator::plan`, sent as JSON in `Arm`, obeyed by `worker::session`. It holds everything that decides
//! content, so that any worker makes the same command for the same request number.

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::expand::Expansion;
use crate::ids::{NodeId, PhaseIndex};
use crate::live_set::LiveSet;
use crate::mix::{Mix, MixWeights};
use crate::scenario::{
    Ask, CommandSpec, ConnectionSpec, CopyOrder, DatasetSpec, KeyDistribution, KeyspaceSpec, Load, Metric,
    RowKind, ValueSpec,
};

/// One phase of load, as a worker needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseOrder {
    /// Position in the run.
    pub index: PhaseIndex,
    /// Unique name.
    pub name: String,
    /// Seed of the run.
    pub seed: u64,
    /// What to send.
    pub work: Work,
    /// How hard, over the whole fleet.
    pub load: Load,
    /// Unmeasured beginning of an open phase, nanoseconds.
    pub warm_up_ns: u64,
    /// Measured part after the warm-up, nanoseconds; 0 where the work itself ends the phase, or the one beside it does.
    pub duration_ns: u64,
    /// Requests 0 to this over the whole fleet and no more; the first of this and the duration ends the phase.
    #[serde(default)]
    pub operations: Option<u64>,
    /// Give up on a reply this long after its first send, nanoseconds.
    pub timeout_ns: u64,
    /// Length of a recorded interval, nanoseconds.
    pub interval_ns: u64,
    /// Lanes over the whole fleet.
    pub lanes_total: u32,
    /// How connections speak, and to whom.
    #[serde(default)]
    pub connection: ConnectionSpec,
    /// The phase that this one runs beside, and whose end is its own at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<PhaseIndex>,
}

/// What the requests of a phase are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// `HSET` of leased row ranges.
    Ingest(VectorWork),
    /// The same of those rows of leased ranges that the target does not hold.
    Fill(VectorWork),
    /// `HSET` of the live rows of leased ranges of cells, over what is there.
    Update(VectorWork),
    /// `HSET` of those rows of leased ranges of cells that are alive now and were not when this many were.
    Grow(VectorWork, u64),
    /// `DEL` of leased ranges of positions in the live set's order.
    Delete(VectorWork),
    /// `DEL` of the leased ranges of cells of the copies behind the first `keep`, which are all alive.
    DropCopies {
        /// Data, keys and index; what was alive before.
        vectors: VectorWork,
        /// Copies that stay.
        keep: u32,
    },
    /// Both in turn, at a constant population: of the leased units, 2i deletes the cell at position i and 2i + 1 writes
    /// the i-th cell behind those that are alive.
    Churn(VectorWork),
    /// KNN queries; the live set says what may be found.
    Query {
        /// Data, keys and index.
        vectors: VectorWork,
        /// What each asks.
        #[serde(flatten)]
        ask: Ask,
        /// What the phase beside it does to the rows meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        during: Option<During>,
    },
    /// Leased units, each of which is a query, or writes or deletes a row, by its number alone.
    Mixed {
        /// Data, keys and index; what was alive before.
        vectors: VectorWork,
        /// What each query asks.
        #[serde(flatten)]
        ask: Ask,
        /// Which part of the units does what.
        weights: MixWeights,
        /// How many units there are.
        units: u64,
    },
    /// Plain commands on keys of their own; request n is one of them by its number alone.
    Commands(CommandWork),
}

impl Work {
    /// Whether its rows are leased in ranges; otherwise requests are numbered and dealt in shares.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        match self {
            Self::Ingest(_)
            | Self::Fill(_)
            | Self::Grow(..)
            | Self::Update(_)
            | Self::Delete(_)
            | Self::DropCopies { .. }
            | Self::Churn(_)
            | Self::Mixed { .. } => true,
            Self::Query { .. } | Self::Commands(_) => false,
        }
    }

    /// Data, keys and index, where there are any.
    #[must_use]
    pub fn vectors(&self) -> Option<&VectorWork> {
        match self {
            Self::Ingest(vectors)
            | Self::Fill(vectors)
            | Self::Grow(vectors, _)
            | Self::Update(vectors)
            | Self::Delete(vectors)
            | Self::Churn(vectors)
            | Self::DropCopies { vectors, .. }
            | Self::Mixed { vectors, .. }
            | Self::Query { vectors, .. } => Some(vectors),
            Self::Commands(_) => None,
        }
    }

    /// What its queries ask, where it has any.
    #[must_use]
    pub fn ask(&self) -> Option<&Ask> {
        match self {
            Self::Query { ask, .. } | Self::Mixed { ask, .. } => Some(ask),
            _ => None,
        }
    }

    /// Rows that come and go while it asks; `None` where they all stay.
    #[must_use]
    pub fn during(&self) -> Option<During> {
        match self {
            Self::Query { during, .. } => *during,
            _ => self.mix().map(|mix| During { stable: mix.stable(), ever: mix.ever() }),
        }
    }

    /// What each unit of a mixed phase does.
    #[must_use]
    pub fn mix(&self) -> Option<Mix> {
        match self {
            Self::Mixed { vectors, weights, units, .. } => Some(Mix::new(*weights, *units, vectors.live)),
            _ => None,
        }
    }
}

/// Rows that come and go while a phase asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct During {
    /// Alive all the time.
    pub stable: LiveSet,
    /// Alive at some instant.
    pub ever: LiveSet,
}

/// Commands by weight, the keys that they are about and the values that they write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandWork {
    /// Prefix of all keys.
    pub prefix: String,
    /// How many keys, and how they are grouped.
    pub keyspace: KeyspaceSpec,
    /// What is sent, each with its share.
    pub commands: Vec<CommandSpec>,
    /// Which key a request is about, where its command does not say.
    pub keys: KeyDistribution,
    /// What is written, where a command does not say.
    pub values: ValueSpec,
}

/// Data, keys and index that vector work refers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VectorWork {
    /// Absolute URLs of the data.
    pub dataset: DatasetSpec,
    /// Rows of the base that take part.
    pub rows: u64,
    /// Dimensions of a vector of the base; the index may have more, see [`Expansion::index_dims`].
    pub dims: u32,
    /// How copies of the base are made.
    #[serde(default)]
    pub expansion: Expansion,
    /// In which order their rows are loaded.
    #[serde(default)]
    pub order: CopyOrder,
    /// Where the neighbours of queries are known from.
    #[serde(default)]
    pub truth: TruthSource,
    /// Metric of the index.
    pub metric: Metric,
    /// What a row is on the server.
    #[serde(default)]
    pub on: RowKind,
    /// Prefix of all keys.
    pub prefix: String,
    /// Hash field that holds the vector.
    pub field: String,
    /// What rows carry beside it.
    #[serde(default)]
    pub attributes: Attributes,
    /// What is alive while the phase runs (for a mutation: before it).
    pub live: LiveSet,
    /// How the index is asked.
    pub search: SearchPlan,
}

impl VectorWork {
    /// What writing a row is called in tables, and how the server counts it.
    #[must_use]
    pub fn write_command(&self) -> (&'static str, &'static str) {
        match self.on {
            RowKind::Hash => ("hset", "hset"),
            RowKind::Json => ("json_set", "JSON.SET"),
        }
    }
}

/// Where the neighbours of queries are known from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruthSource {
    /// The data set's list, filtered by life.
    #[default]
    Listed,
    /// Computed by the worker over what is alive: too few of the listed neighbours live, or vectors were rounded.
    Computed,
}

/// How a KNN query reaches all vectors; decided once from what the module says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchPlan {
    /// The server fans out (or there is one node): any primary answers for all.
    ServerSide {
        /// The module's dialect.
        module: SearchModule,
        /// Name of the index on every node.
        index: String,
    },
    /// The client asks every primary and merges.
    ClientSide {
        /// The module's dialect.
        module: SearchModule,
        /// Each primary's own index.
        indexes: Vec<(NodeId, String)>,
    },
}

/// Which search module a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SearchModule {
    /// valkey-search: module name `search` loaded from libsearch.
    ValkeySearch,
    /// RediSearch: module name `search` with FT.CONFIG and RESP3 maps.
    RediSearch,
}
