//! Where in the allocator the memory is: size classes of the primaries at the baseline and at each checkpoint.
//!
//! Reads table `allocator`; findings compare two checkpoints by it, the terminal report and the page show it. The
//! figures of a phase are those of each node's last answer in it. Law: over the classes, allocated bytes are the sum
//! that the servers' allocators gave as their total at the same moment.

use serde::{Deserialize, Serialize};
use vst_common::count;

use crate::engine::rows::rows;
use crate::engine::{Engine, Error};
use crate::number;

/// Classes that a sentence names.
const NAMED: usize = 3;

/// Size classes over all primaries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AllocatorFigures {
    /// Primaries that answered.
    pub primaries: u64,
    /// The longest that one of them took, nanoseconds.
    pub took_ns: u64,
    /// Bytes in use, as the allocators total them.
    pub allocated_bytes: u64,
    /// Bytes of the pages that hold them.
    pub active_bytes: u64,
    /// Bytes of pages that are resident, unused ones of the allocator included.
    pub resident_bytes: u64,
    /// Every class that was ever used, in order of size.
    pub classes: Vec<ClassFigures>,
}

/// One size class over all primaries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// `bin` (regions within slabs) or `large` (an extent each).
    pub kind: String,
    /// Bytes of a region.
    pub size_bytes: u64,
    /// Bytes in use.
    pub allocated_bytes: u64,
    /// Bytes of the pages that the class keeps.
    pub held_bytes: u64,
    /// Regions in use.
    pub regions: u64,
}

impl ClassFigures {
    /// Bytes that it keeps and nobody uses.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.held_bytes.saturating_sub(self.allocated_bytes)
    }

    fn free_of_size(&self) -> String {
        format!(
            "{} of {} B",
            number::bytes(count::to_f64(self.free_bytes())),
            number::grouped(self.size_bytes)
        )
    }
}

impl AllocatorFigures {
    /// Bytes of pages that all classes keep.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.classes.iter().map(|class| class.held_bytes).sum()
    }

    /// Pages kept over bytes in use.
    pub(crate) fn ratio(&self) -> f64 {
        count::to_f64(self.held_bytes()) / count::to_f64(self.allocated_bytes.max(1))
    }

    fn class(&self, wanted: &ClassFigures) -> Option<&ClassFigures> {
        self.classes.iter().find(|c| c.kind == wanted.kind && c.size_bytes == wanted.size_bytes)
    }

    /// The classes that keep most of what nobody uses, most first.
    fn by_free(&self) -> impl Iterator<Item = &ClassFigures> {
        let mut classes: Vec<&ClassFigures> = self.classes.iter().filter(|c| c.free_bytes() > 0).collect();
        classes.sort_by_key(|class| std::cmp::Reverse(class.free_bytes()));
        classes.into_iter().take(NAMED)
    }

    /// These in a sentence; empty where nothing is free.
    pub(crate) fn most_free(&self) -> String {
        let named = self.by_free().map(|class| {
            let used = count::to_f64(class.allocated_bytes) / count::to_f64(class.held_bytes.max(1));
            format!("{} ({} in use)", class.free_of_size(), number::percent(used))
        });
        named.collect::<Vec<_>>().join(", ")
    }

    /// These in a cell of a table.
    pub(crate) fn most_free_briefly(&self) -> String {
        self.by_free().map(ClassFigures::free_of_size).collect::<Vec<_>>().join(", ")
    }

    /// The classes that hold more after a shrink to `live_share` of the rows than that share of what they held for the
    /// rows before; `baseline` is what they held for none.
    pub(crate) fn most_kept(&self, before: &Self, baseline: Option<&Self>, live_share: f64) -> String {
        let at = |figures: Option<&Self>, class: &ClassFigures| {
            figures.and_then(|f| f.class(class)).map_or(0.0, |c| count::to_f64(c.allocated_bytes))
        };
        let mut kept: Vec<(&ClassFigures, f64)> = self
            .classes
            .iter()
            .map(|class| {
                let (none, was) = (at(baseline, class), at(Some(before), class));
                (class, count::to_f64(class.allocated_bytes) - none - (was - none) * live_share)
            })
            .filter(|(_, bytes)| *bytes > 0.01 * count::to_f64(self.allocated_bytes))
            .collect();
        kept.sort_by(|a, b| b.1.total_cmp(&a.1));
        let named = kept.iter().take(NAMED).map(|(class, bytes)| {
            format!("{} of {} B", number::bytes(*bytes), number::grouped(class.size_bytes))
        });
        named.collect::<Vec<_>>().join(", ")
    }
}

/// Figures by position of the phase in the run.
pub(crate) async fn by_phase(engine: &Engine) -> Result<Vec<(u64, AllocatorFigures)>, Error> {
    let mut found: Vec<(u64, AllocatorFigures)> = Vec::new();
    for row in rows(&engine.sql(&format!("{LATEST} {TOTALS}")).await?) {
        let figures = AllocatorFigures {
            primaries: row.total("primaries"),
            took_ns: row.total("took_ns"),
            allocated_bytes: row.total("allocated"),
            active_bytes: row.total("active"),
            resident_bytes: row.total("resident"),
            classes: Vec::new(),
        };
        found.push((row.total("phase_index"), figures));
    }
    for row in rows(&engine.sql(&format!("{LATEST} {CLASSES}")).await?) {
        let phase = row.total("phase_index");
        if let Some((_, figures)) = found.iter_mut().find(|(index, _)| *index == phase) {
            figures.classes.push(ClassFigures {
                kind: row.word("kind"),
                size_bytes: row.total("size_bytes"),
                allocated_bytes: row.total("allocated"),
                held_bytes: row.total("held"),
                regions: row.total("regions"),
            });
        }
    }
    Ok(found)
}

// A node that two workers asked at one tick (its owner changed) counts once.
const LATEST: &str = "
    with answered as (
        select a.* from allocator a join phases p on a.run = p.run and a.phase_index = p.phase_index
        where a.kind is not null and a.role <> 'replica' and p.step in ('baseline', 'checkpoint')
              and (p.\"end\" is null or a.sampled_at <= p.\"end\")
    ),
    last as (
        select run, phase_index, node, max(tick) as tick from answered group by run, phase_index, node
    ),
    latest as (
        select a.run, a.phase_index, a.node, a.kind, a.size_bytes, max(a.allocated_bytes) as allocated,
               max(coalesce(a.held_bytes, a.allocated_bytes)) as held, max(a.regions) as regions,
               max(a.took_ns) as took_ns, max(a.total_allocated_bytes) as total_allocated,
               max(a.total_active_bytes) as total_active, max(a.total_resident_bytes) as total_resident
        from answered a join last l on a.run = l.run and a.phase_index = l.phase_index and a.node = l.node
             and a.tick = l.tick
        group by a.run, a.phase_index, a.node, a.kind, a.size_bytes
    )";

const TOTALS: &str = "
    select phase_index, count(*) as primaries, max(took_ns) as took_ns, sum(allocated) as allocated,
           sum(active) as active, sum(resident) as resident
    from (select phase_index, node, max(took_ns) as took_ns, max(total_allocated) as allocated,
                 max(total_active) as active, max(total_resident) as resident
          from latest group by phase_index, node)
    group by phase_index order by phase_index";

const CLASSES: &str = "
    select phase_index, kind, size_bytes, sum(allocated) as allocated, sum(held) as held, sum(regions) as regions
    from latest group by phase_index, kind, size_bytes order by phase_index, size_bytes, kind";
