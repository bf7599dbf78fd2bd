//! What every sample of a node begins with: when it was asked, in which phase, and whether it answered.
//!
//! The leading columns of tables `memory` and `allocator`, behind those of the stamp, so that the two can be joined by
//! tick and node. Law: a sample that is `missing` says why.

use super::columns::{Column, Columns, Reader};
use super::table::Error;
use crate::clock::WallNs;
use crate::ids::{NodeId, PhaseIndex};

use arrow_array::{Int64Array, StringArray, TimestampNanosecondArray};

/// One node, asked once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The tick: how many intervals since the zero of the coordinator's clock. Equal for all nodes of one sample.
    pub tick: u64,
    /// When the node was asked.
    pub sampled_at: WallNs,
    /// How long its answers took, nanoseconds.
    pub took_ns: u64,
    /// Name of the phase.
    pub phase: String,
    /// Its position in the run.
    pub phase_index: PhaseIndex,
    /// The node.
    pub node: NodeId,
    /// `primary` or `replica`.
    pub role: String,
    /// Why there are no figures; absent if there are.
    pub missing: Option<String>,
}

/// Adds the columns of rows that begin with a sample.
pub(super) fn lead<R: AsRef<Sample>>(columns: Columns<'_, R>) -> Columns<'_, R> {
    columns
        .int("tick", |r| r.as_ref().tick)
        .instant("sampled_at", |r| r.as_ref().sampled_at)
        .int("took_ns", |r| r.as_ref().took_ns)
        .text("phase", |r| &r.as_ref().phase)
        .int("phase_index", |r| r.as_ref().phase_index.0.into())
        .text("node", |r| r.as_ref().node.as_str())
        .text("role", |r| &r.as_ref().role)
        .text_or_null("missing", |r| r.as_ref().missing.as_deref())
}

/// The same columns of a batch.
pub(super) struct Samples<'a> {
    tick: Column<'a, Int64Array>,
    sampled_at: Column<'a, TimestampNanosecondArray>,
    took_ns: Column<'a, Int64Array>,
    phase: Column<'a, StringArray>,
    phase_index: Column<'a, Int64Array>,
    node: Column<'a, StringArray>,
    role: Column<'a, StringArray>,
    missing: Column<'a, StringArray>,
}

impl<'a> Samples<'a> {
    pub(super) fn of(reader: &Reader<'a>) -> Result<Self, Error> {
        Ok(Self {
            tick: reader.int("tick")?,
            sampled_at: reader.instant("sampled_at")?,
            took_ns: reader.int("took_ns")?,
            phase: reader.text("phase")?,
            phase_index: reader.int("phase_index")?,
            node: reader.text("node")?,
            role: reader.text("role")?,
            missing: reader.text("missing")?,
        })
    }

    pub(super) fn at(&self, row: usize) -> Result<Sample, Error> {
        Ok(Sample {
            tick: self.tick.at(row),
            sampled_at: self.sampled_at.at(row),
            took_ns: self.took_ns.at(row),
            phase: self.phase.at(row).to_owned(),
            phase_index: self.phase_index.phase(row)?,
            node: self.node.node(row),
            role: self.role.at(row).to_owned(),
            missing: self.missing.get(row).map(str::to_owned),
        })
    }
}
