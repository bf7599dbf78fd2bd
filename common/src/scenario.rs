//! A scenario: what to load, how to index it, and the phases to go through.
//!
//! [`model`] is the checked form that travels to workers and into the run directory; [`check`] makes it from a YAML
//! file and reports all faults of the file at once, each with file, line and caret. Law: whatever `check` accepts can
//! be planned without another look at the text.

pub mod check;
pub mod commands;
pub mod criteria;
pub mod library;
pub mod load;
pub mod model;
pub mod operations;

pub use commands::{CommandSpec, ContentKind, KeyDistribution, KeyspaceSpec, KvSpec, SizeSpec, ValueSpec};
pub use load::{Arrival, Load};
pub use model::{
    Algorithm, Ask, BesideSpec, ChurnSpec, ConnectionSpec, CopyOrder, DatasetSpec, ExpansionMethod,
    FleetSpec, GrowSpec, IndexSpec, Keep, MemoryTarget, Metric, MixedSpec, PhaseSpec, PopulationSpec,
    Protocol, QuerySpec, ReadFrom, RebuildSpec, Returns, RowKind, SamplingSpec, Scenario, SettleSpec,
    ShrinkSpec, Step, UpdateSpec, every,
};
