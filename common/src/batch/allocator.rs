//! Table `allocator`: what each size class of a server's allocator holds, at a slower tick than `memory`.
//!
//! Written by `worker::sampler` from `MEMORY MALLOC-STATS` and read by analysis, which says which classes keep what did
//! not come back. One row per node, tick and class that was ever used. Law: a node that gave no statistics is one row
//! whose `missing` says why and whose figures are null, never zero.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::columns::{Columns, Reader, nobody};
use super::sample::{self, Sample, Samples};
use super::table::{Error, Stamp, Table};
use crate::count;

/// How a class lays out its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClassKind {
    /// Small: equal regions within slabs of whole pages. A slab goes back only when all its regions are free.
    Bin,
    /// Large: an extent of its own for each allocation.
    Large,
}

impl ClassKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bin, Self::Large];

    /// `bin` or `large`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bin => "bin",
            Self::Large => "large",
        }
    }
}

/// One size class; what the allocator did not say is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass {
    /// Bin or large.
    pub kind: ClassKind,
    /// Bytes of one region.
    pub size_bytes: u64,
    /// Bytes of the regions in use.
    pub allocated_bytes: u64,
    /// Bytes of pages that the class keeps: its slabs, or its extents.
    pub held_bytes: Option<u64>,
    /// Regions in use (`curregs`, `curlextents`).
    pub regions: Option<u64>,
    /// Slabs (`curslabs`); bins only, like all that follows down to `slabs_made`.
    pub slabs: Option<u64>,
    /// Slabs with a free region (`nonfull_slabs`).
    pub nonfull_slabs: Option<u64>,
    /// Regions of one slab (`regs`).
    pub regions_per_slab: Option<u64>,
    /// Pages of one slab (`pgs`).
    pub pages_per_slab: Option<u64>,
    /// Slabs made since the start (`nslabs`).
    pub slabs_made: Option<u64>,
    /// Allocations since the start.
    pub nmalloc: Option<u64>,
    /// Of these freed.
    pub ndalloc: Option<u64>,
}

impl SizeClass {
    /// The share of the slabs' regions that is in use; 1 where there is no slab.
    #[must_use]
    pub fn utilisation(&self) -> Option<f64> {
        let room = self.slabs?.saturating_mul(self.regions_per_slab?);
        Some(if room == 0 { 1.0 } else { count::to_f64(self.regions?) / count::to_f64(room) })
    }
}

/// The whole allocator at the same moment, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocatorTotals {
    /// Regions in use.
    pub allocated: u64,
    /// Pages that hold them.
    pub active: u64,
    /// Mapped memory that is resident.
    pub resident: u64,
}

/// One row of `allocator`.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocatorRow {
    /// The node, at the tick of table `memory`; a server does nothing else while it answers.
    pub sample: Sample,
    /// The whole allocator; the same in all rows of a node and tick.
    pub totals: Option<AllocatorTotals>,
    /// The class.
    pub class: Option<SizeClass>,
}

impl AsRef<Sample> for AllocatorRow {
    fn as_ref(&self) -> &Sample {
        &self.sample
    }
}

/// The columns of `allocator`.
pub(super) fn schema() -> SchemaRef {
    columns(&nobody(), &[]).schema()
}

fn columns<'a>(stamp: &'a Stamp, rows: &'a [AllocatorRow]) -> Columns<'a, AllocatorRow> {
    sample::lead(Columns::new(stamp, rows))
        .int_or_null("total_allocated_bytes", |r: &AllocatorRow| r.totals.map(|t| t.allocated))
        .int_or_null("total_active_bytes", |r| r.totals.map(|t| t.active))
        .int_or_null("total_resident_bytes", |r| r.totals.map(|t| t.resident))
        .text_or_null("kind", |r| r.class.map(|c| c.kind.as_str()))
        .int_or_null("size_bytes", |r| r.class.map(|c| c.size_bytes))
        .int_or_null("allocated_bytes", |r| r.class.map(|c| c.allocated_bytes))
        .int_or_null("held_bytes", |r| r.class?.held_bytes)
        .int_or_null("regions", |r| r.class?.regions)
        .int_or_null("slabs", |r| r.class?.slabs)
        .int_or_null("nonfull_slabs", |r| r.class?.nonfull_slabs)
        .int_or_null("regions_per_slab", |r| r.class?.regions_per_slab)
        .int_or_null("pages_per_slab", |r| r.class?.pages_per_slab)
        .int_or_null("slabs_made", |r| r.class?.slabs_made)
        .int_or_null("nmalloc", |r| r.class?.nmalloc)
        .int_or_null("ndalloc", |r| r.class?.ndalloc)
        .ratio_or_null("utilisation", |r| r.class?.utilisation())
}

/// A batch of table `allocator`.
///
/// # Errors
/// [`Error`] when the batch cannot be written.
pub fn to_batch(stamp: &Stamp, rows: &[AllocatorRow]) -> Result<RecordBatch, Error> {
    columns(stamp, rows).finish()
}

/// The rows of a batch of table `allocator`.
///
/// # Errors
/// [`Error`] when the batch is of another schema or holds a value that no row can have.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<(Stamp, AllocatorRow)>, Error> {
    let reader = Reader::new(Table::Allocator, batch)?;
    let samples = Samples::of(&reader)?;
    let totals = [
        reader.int("total_allocated_bytes")?,
        reader.int("total_active_bytes")?,
        reader.int("total_resident_bytes")?,
    ];
    let kind = reader.text("kind")?;
    let size_bytes = reader.int("size_bytes")?;
    let allocated_bytes = reader.int("allocated_bytes")?;
    let held_bytes = reader.int("held_bytes")?;
    let regions = reader.int("regions")?;
    let slabs = reader.int("slabs")?;
    let nonfull_slabs = reader.int("nonfull_slabs")?;
    let regions_per_slab = reader.int("regions_per_slab")?;
    let pages_per_slab = reader.int("pages_per_slab")?;
    let slabs_made = reader.int("slabs_made")?;
    let nmalloc = reader.int("nmalloc")?;
    let ndalloc = reader.int("ndalloc")?;
    let stamps = reader.stamps()?.into_iter().enumerate();
    stamps
        .map(|(i, stamp)| {
            let kind = kind.get(i).and_then(|word| ClassKind::ALL.into_iter().find(|k| k.as_str() == word));
            let class = kind.zip(size_bytes.get(i)).zip(allocated_bytes.get(i)).map(
                |((kind, size_bytes), allocated_bytes)| SizeClass {
                    kind,
                    size_bytes,
                    allocated_bytes,
                    held_bytes: held_bytes.get(i),
                    regions: regions.get(i),
                    slabs: slabs.get(i),
                    nonfull_slabs: nonfull_slabs.get(i),
                    regions_per_slab: regions_per_slab.get(i),
                    pages_per_slab: pages_per_slab.get(i),
                    slabs_made: slabs_made.get(i),
                    nmalloc: nmalloc.get(i),
                    ndalloc: ndalloc.get(i),
                },
            );
            let [allocated, active, resident] = totals.each_ref().map(|column| column.get(i));
            let totals = allocated
                .zip(active)
                .zip(resident)
                .map(|((allocated, active), resident)| AllocatorTotals { allocated, active, resident });
            let row = AllocatorRow { sample: samples.at(i)?, totals, class };
            Ok((stamp, row))
        })
        .collect()
}
