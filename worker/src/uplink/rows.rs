//! From what lanes measure to rows of tables: one row per key and interval of this worker.
//!
//! Lanes report an interval at different moments; it becomes rows when every lane has passed it. Law: cells only add,
//! so a contribution that comes later becomes another row of the same key and sums stay right.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use vst_common::batch::allocator::AllocatorRow;
use vst_common::batch::events::EventRow;
use vst_common::batch::health::HealthRow;
use vst_common::batch::latency::LatencyRow;
use vst_common::batch::memory::MemoryRow;
use vst_common::batch::recall::{RecallQueryRow, RecallRow};
use vst_common::batch::{Error, Stamp, Table, allocator, events, health, latency, memory, recall};
use vst_common::clock::{ClockOffset, WallNs};
use vst_common::count;
use vst_common::ids::{NodeId, PhaseIndex};
use vst_common::latency::{Cell, Window};
use vst_common::recall::RecallCell;

use crate::work::{CellKey, LaneHealth, Pair};

/// An interval this much older than the newest one becomes rows even if a lane has not passed it.
const PATIENCE_INTERVALS: u64 = 5;

/// Rows of one table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TableRows {
    Latency(Vec<LatencyRow>),
    Memory(Vec<MemoryRow>),
    Allocator(Vec<AllocatorRow>),
    Recall(Vec<RecallRow>),
    RecallQueries(Vec<RecallQueryRow>),
    Events(Vec<EventRow>),
    Health(Vec<HealthRow>),
}

impl TableRows {
    pub(super) fn table(&self) -> Table {
        match self {
            Self::Latency(_) => Table::Latency,
            Self::Memory(_) => Table::Memory,
            Self::Allocator(_) => Table::Allocator,
            Self::Recall(_) => Table::Recall,
            Self::RecallQueries(_) => Table::RecallQueries,
            Self::Events(_) => Table::Events,
            Self::Health(_) => Table::Health,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Latency(rows) => rows.is_empty(),
            Self::Memory(rows) => rows.is_empty(),
            Self::Allocator(rows) => rows.is_empty(),
            Self::Recall(rows) => rows.is_empty(),
            Self::RecallQueries(rows) => rows.is_empty(),
            Self::Events(rows) => rows.is_empty(),
            Self::Health(rows) => rows.is_empty(),
        }
    }

    pub(super) fn to_batch(&self, stamp: &Stamp) -> Result<RecordBatch, Error> {
        match self {
            Self::Latency(rows) => latency::to_batch(stamp, rows),
            Self::Memory(rows) => memory::to_batch(stamp, rows),
            Self::Allocator(rows) => allocator::to_batch(stamp, rows),
            Self::Recall(rows) => recall::to_batch(stamp, rows),
            Self::RecallQueries(rows) => recall::to_queries_batch(stamp, rows),
            Self::Events(rows) => events::to_batch(stamp, rows),
            Self::Health(rows) => health::to_batch(stamp, rows),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Latency(rows) => rows.len(),
            Self::Memory(rows) => rows.len(),
            Self::Allocator(rows) => rows.len(),
            Self::Recall(rows) => rows.len(),
            Self::RecallQueries(rows) => rows.len(),
            Self::Events(rows) => rows.len(),
            Self::Health(rows) => rows.len(),
        }
    }

    /// The same rows in two parts, the first half first.
    pub(super) fn halves(&self) -> (Self, Self) {
        fn cut<R: Clone>(rows: &[R], part: impl Fn(Vec<R>) -> TableRows) -> (TableRows, TableRows) {
            let (first, second) = rows.split_at(rows.len() / 2);
            (part(first.to_vec()), part(second.to_vec()))
        }
        match self {
            Self::Latency(rows) => cut(rows, Self::Latency),
            Self::Memory(rows) => cut(rows, Self::Memory),
            Self::Allocator(rows) => cut(rows, Self::Allocator),
            Self::Recall(rows) => cut(rows, Self::Recall),
            Self::RecallQueries(rows) => cut(rows, Self::RecallQueries),
            Self::Events(rows) => cut(rows, Self::Events),
            Self::Health(rows) => cut(rows, Self::Health),
        }
    }

    /// The same rows in parts of a size that is usual for their table; what is larger all the same is cut by its bytes
    /// when it is sealed.
    pub(super) fn parts(self) -> Vec<Self> {
        fn cut<R>(rows: Vec<R>, most: usize, part: impl Fn(Vec<R>) -> TableRows) -> Vec<TableRows> {
            let mut rows = rows.into_iter().peekable();
            let mut parts = Vec::new();
            while rows.peek().is_some() {
                parts.push(part(rows.by_ref().take(most).collect()));
            }
            parts
        }
        match self {
            Self::Latency(rows) => cut(rows, 32, Self::Latency),
            Self::Memory(rows) => cut(rows, 512, Self::Memory),
            Self::Allocator(rows) => cut(rows, 4096, Self::Allocator),
            Self::Recall(rows) => cut(rows, 4096, Self::Recall),
            Self::RecallQueries(rows) => cut(rows, 8192, Self::RecallQueries),
            Self::Events(rows) => cut(rows, 2048, Self::Events),
            Self::Health(rows) => cut(rows, 64, Self::Health),
        }
    }
}

/// What the intervals of a phase are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseLabel {
    /// The phase.
    pub phase: PhaseIndex,
    /// Its name.
    pub name: String,
    /// Start of interval 0.
    pub at_wall: WallNs,
    /// Length of an interval, nanoseconds.
    pub interval_ns: u64,
    /// Position of this worker's first lane in the deal of shares over the fleet.
    pub first_lane: u32,
    /// Lanes of this worker that contribute.
    pub lanes: u32,
    /// Neighbours asked for; 0 where the phase asks for none.
    pub k: u32,
}

impl PhaseLabel {
    fn start_of(&self, interval: u64) -> WallNs {
        self.at_wall.saturating_add(count::to_i64(interval.saturating_mul(self.interval_ns)))
    }
}

/// Intervals of a phase that are not rows yet.
#[derive(Debug)]
pub(super) struct Intervals {
    label: PhaseLabel,
    /// Newest interval that each lane has reported.
    lanes: Vec<Option<u64>>,
    cells: BTreeMap<CellKey, Cell>,
    recall: BTreeMap<(u64, Window), RecallCell>,
    per_query: BTreeMap<Pair, RecallCell>,
    health: Vec<HealthRow>,
}

impl Intervals {
    pub(super) fn new(label: PhaseLabel) -> Self {
        let lanes = vec![None; count::index(u64::from(label.lanes))];
        Self {
            label,
            lanes,
            cells: BTreeMap::new(),
            recall: BTreeMap::new(),
            per_query: BTreeMap::new(),
            health: Vec::new(),
        }
    }

    /// Takes in what a lane measured.
    pub(super) fn record(
        &mut self,
        lane: u32,
        cells: Vec<(CellKey, Cell)>,
        recall: Vec<(u64, Window, RecallCell)>,
        health: Vec<LaneHealth>,
        clock: ClockOffset,
        unacknowledged: u64,
    ) {
        let newest = cells.iter().map(|(key, _)| key.interval).chain(health.iter().map(|h| h.interval)).max();
        if let Some(passed) = self.lanes.get_mut(count::index(u64::from(lane))) {
            *passed = newest.max(*passed);
        }
        for (key, cell) in cells {
            self.cells.entry(key).or_default().merge(&cell);
        }
        for (interval, window, cell) in recall {
            self.recall.entry((interval, window)).or_default().merge(&cell);
        }
        let label = &self.label;
        self.health.extend(health.into_iter().map(|h| HealthRow {
            phase: label.name.clone(),
            phase_index: label.phase,
            lane: label.first_lane.saturating_add(lane),
            interval_start: label.start_of(h.interval),
            interval_ns: label.interval_ns,
            slip: h.slip,
            busy_ns: h.busy_ns,
            cpu_ns: h.cpu_ns,
            in_flight_max: h.in_flight_max,
            backlog_max: h.backlog_max,
            clock_offset_ns: clock.offset_ns,
            clock_error_ns: clock.error_ns,
            unacknowledged,
        }));
    }

    /// Takes in recall by query.
    pub(super) fn record_queries(&mut self, per_query: Vec<(Pair, RecallCell)>) {
        for (pair, cell) in per_query {
            self.per_query.entry(pair).or_default().merge(&cell);
        }
    }

    /// The intervals that are complete, as rows.
    pub(super) fn take_complete(&mut self) -> Vec<TableRows> {
        let newest = self.lanes.iter().copied().max().flatten();
        let by_all = self.lanes.iter().copied().min().flatten();
        let by_age = newest.and_then(|interval| interval.checked_sub(PATIENCE_INTERVALS));
        match by_all.max(by_age) {
            Some(last) => self.take(last.saturating_add(1)),
            None => Vec::new(),
        }
    }

    /// Everything, as rows.
    pub(super) fn take_all(&mut self) -> Vec<TableRows> {
        let mut rows = self.take(u64::MAX);
        let (label, per_query) = (&self.label, std::mem::take(&mut self.per_query));
        let queries = per_query.into_iter().map(|((query, copy), cell)| RecallQueryRow {
            phase: label.name.clone(),
            phase_index: label.phase,
            k: label.k,
            query: u64::from(query),
            copy,
            cell,
        });
        rows.push(TableRows::RecallQueries(queries.collect()));
        rows
    }

    /// Intervals before `end`, as rows.
    fn take(&mut self, end: u64) -> Vec<TableRows> {
        let label = self.label.clone();
        let bound = CellKey {
            interval: end,
            window: Window::WarmUp,
            operation: "".into(),
            command: "".into(),
            node: NodeId::new(""),
        };
        let later = self.cells.split_off(&bound);
        let cells = std::mem::replace(&mut self.cells, later);
        let later = self.recall.split_off(&(end, Window::WarmUp));
        let recall = std::mem::replace(&mut self.recall, later);
        let cells = cells.into_iter().map(|(key, cell)| LatencyRow {
            phase: label.name.clone(),
            phase_index: label.phase,
            window: key.window,
            operation: key.operation.to_string(),
            command: key.command.to_string(),
            node: key.node,
            interval_start: label.start_of(key.interval),
            interval_ns: label.interval_ns,
            cell,
        });
        let recall = recall.into_iter().map(|((interval, window), cell)| RecallRow {
            phase: label.name.clone(),
            phase_index: label.phase,
            window,
            interval_start: label.start_of(interval),
            interval_ns: label.interval_ns,
            k: label.k,
            cell,
        });
        vec![
            TableRows::Latency(cells.collect()),
            TableRows::Recall(recall.collect()),
            TableRows::Health(std::mem::take(&mut self.health)),
        ]
    }
}

/// Events of the last moments; those of the same phase, kind and node are one row.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<EventRow>);

impl Events {
    pub(super) fn add(
        &mut self,
        at: WallNs,
        phase: Option<(PhaseIndex, String)>,
        kind: &str,
        node: Option<NodeId>,
        detail: String,
        count: u64,
    ) {
        let (phase_index, phase) = phase.unwrap_or((PhaseIndex(0), String::new()));
        let same =
            |row: &&mut EventRow| row.phase_index == phase_index && row.kind == kind && row.node == node;
        match self.0.iter_mut().find(same) {
            Some(row) => row.count += count,
            None => {
                self.0.push(EventRow { at, phase, phase_index, kind: kind.to_owned(), node, detail, count })
            }
        }
    }

    pub(super) fn take(&mut self) -> TableRows {
        TableRows::Events(std::mem::take(&mut self.0))
    }
}
