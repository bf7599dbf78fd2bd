//! Counts what happened into interval cells.
//!
//! Fed by the pipeline of one lane with instants of the worker's clock; read by the lane, which hands over intervals
//! that are over. Law: `merge(a, b) == record(a ++ b)`: cells only add, so a count that arrives after its interval
//! was handed over becomes another cell of the same key and sums stay right.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use vst_common::ids::NodeId;
use vst_common::latency::{Cell, Hdr, Window};
use vst_common::recall::{RecallCell, Verdict};

use crate::work::{CellKey, LaneHealth};

/// What a row of measurements is about: a position in the phase's table of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Operation(pub(crate) u16);

/// What the rows of an operation are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationName {
    /// The name in tables.
    pub(crate) operation: Arc<str>,
    /// The server's command, as `INFO commandstats` spells it.
    pub(crate) command: Arc<str>,
}

impl OperationName {
    pub(crate) fn new(operation: &str, command: &str) -> Self {
        Self { operation: operation.into(), command: command.into() }
    }
}

/// Where a measurement is counted: a node by its position, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One node.
    Node(u16),
    /// A request that goes to several nodes.
    All,
}

/// Intervals of one lane in one phase.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: u64,
    interval_ns: u64,
    current: u64,
    /// The instants that belong to the current interval.
    span: Range<u64>,
    /// Cells of the current interval, by window, operation and place: found without hashing.
    open: Vec<Option<Box<Cell>>>,
    /// Everything of other intervals that was not handed over yet.
    closed: BTreeMap<(u64, usize), Cell>,
    nodes: Vec<NodeId>,
    operations: Arc<[OperationName]>,
    recall: BTreeMap<(u64, Window), RecallCell>,
    per_query: BTreeMap<u32, RecallCell>,
    health: LaneHealth,
    health_closed: Vec<LaneHealth>,
}

/// Intervals that are over.
#[derive(Debug, Default)]
pub(crate) struct Intervals {
    pub(crate) cells: Vec<(CellKey, Cell)>,
    pub(crate) recall: Vec<(u64, Window, RecallCell)>,
    pub(crate) health: Vec<LaneHealth>,
}

impl Recorder {
    /// For a phase that starts at `start` (own clock, ns) over the given nodes and operations.
    pub(crate) fn new(
        start: u64,
        interval_ns: u64,
        nodes: Vec<NodeId>,
        operations: Arc<[OperationName]>,
    ) -> Self {
        let mut recorder = Self {
            start,
            interval_ns: interval_ns.max(1),
            current: 0,
            span: 0..0,
            open: Vec::new(),
            closed: BTreeMap::new(),
            nodes,
            operations,
            recall: BTreeMap::new(),
            per_query: BTreeMap::new(),
            health: LaneHealth::default(),
            health_closed: Vec::new(),
        };
        recorder.go_to(0);
        recorder.open.resize_with(recorder.slots(), || None);
        recorder
    }

    fn slots(&self) -> usize {
        2 * self.operations.len() * (self.nodes.len() + 1)
    }

    /// Makes room for a node that joined; its position is the number of nodes before.
    pub(crate) fn add_node(&mut self, node: NodeId) {
        // Slots are numbered by place last, so cells that exist have to move: close them first.
        self.close_open();
        let closed: Vec<_> = std::mem::take(&mut self.closed)
            .into_iter()
            .map(|((interval, slot), cell)| (interval, self.coordinates(slot), cell))
            .collect();
        self.nodes.push(node);
        for (interval, (window, operation, place), cell) in closed {
            let slot = self.slot(window, operation, place);
            self.closed.entry((interval, slot)).or_default().merge(&cell);
        }
        self.open.resize_with(self.slots(), || None);
    }

    fn slot(&self, window: Window, operation: Operation, place: Place) -> usize {
        let place = match place {
            Place::All => 0,
            Place::Node(i) => usize::from(i) + 1,
        };
        let window = usize::from(window == Window::Measure);
        (window * self.operations.len() + usize::from(operation.0)) * (self.nodes.len() + 1) + place
    }

    fn coordinates(&self, slot: usize) -> (Window, Operation, Place) {
        let places = self.nodes.len() + 1;
        let place = match (slot % places).checked_sub(1) {
            None => Place::All,
            Some(i) => Place::Node(u16::try_from(i).unwrap_or(u16::MAX)),
        };
        let rest = slot / places;
        let operations = self.operations.len().max(1);
        let operation = Operation(u16::try_from(rest % operations).unwrap_or(u16::MAX));
        let window = if rest / operations == 0 { Window::WarmUp } else { Window::Measure };
        (window, operation, place)
    }

    /// Interval of an instant; what happened before the start counts in the first.
    pub(crate) fn interval(&self, at: u64) -> u64 {
        // Nearly everything falls into the current one: two comparisons are cheaper than a division.
        if self.span.contains(&at) {
            return self.current;
        }
        at.saturating_sub(self.start) / self.interval_ns
    }

    fn go_to(&mut self, interval: u64) {
        let begin = self.start.saturating_add(interval.saturating_mul(self.interval_ns));
        self.current = interval;
        self.span = if interval == 0 { 0 } else { begin }..begin.saturating_add(self.interval_ns);
    }

    /// The cell in which something at this instant is counted.
    pub(crate) fn cell(&mut self, at: u64, window: Window, operation: Operation, place: Place) -> &mut Cell {
        let interval = self.interval(at);
        let slot = self.slot(window, operation, place);
        if interval > self.current {
            self.close_open();
            self.go_to(interval);
        }
        if interval == self.current && slot < self.open.len() {
            // In bounds: `open` has as many entries as there are slots.
            if let Some(cell) = self.open.get_mut(slot) {
                return cell.get_or_insert_default();
            }
        }
        self.closed.entry((interval, slot)).or_default()
    }

    fn close_open(&mut self) {
        for (slot, cell) in self.open.iter_mut().enumerate() {
            if let Some(cell) = cell.take() {
                self.closed.entry((self.current, slot)).or_default().merge(&cell);
            }
        }
    }

    /// Counts the verdict on an answered query.
    pub(crate) fn verdict(&mut self, at: u64, window: Window, query: u32, verdict: &Verdict) {
        let interval = self.interval(at);
        self.recall.entry((interval, window)).or_default().record(verdict);
        if window == Window::Measure {
            self.per_query.entry(query).or_default().record(verdict);
        }
    }

    /// Counts the worker's own delay of one request.
    pub(crate) fn slip(&mut self, at: u64, slip_ns: u64) {
        self.roll_health(at);
        self.health.slip.record(slip_ns);
    }

    /// Counts what the lane's thread did until now.
    pub(crate) fn effort(&mut self, at: u64, busy_ns: u64, in_flight: u64, backlog: u64) {
        self.roll_health(at);
        self.health.busy_ns += busy_ns;
        self.health.in_flight_max = self.health.in_flight_max.max(in_flight);
        self.health.backlog_max = self.health.backlog_max.max(backlog);
    }

    fn roll_health(&mut self, at: u64) {
        let interval = self.interval(at);
        if interval > self.health.interval {
            let next = LaneHealth { interval, slip: Hdr::new(), ..LaneHealth::default() };
            self.health_closed.push(std::mem::replace(&mut self.health, next));
        }
    }

    /// Hands over the intervals that ended before the one of `now`; with `all`, the current one as well.
    pub(crate) fn take(&mut self, now: u64, all: bool) -> Intervals {
        let interval = self.interval(now);
        if all || interval > self.current {
            self.close_open();
            self.go_to(self.current.max(interval));
        }
        self.roll_health(now);
        let mut health = std::mem::take(&mut self.health_closed);
        if all {
            let next = LaneHealth { interval, slip: Hdr::new(), ..LaneHealth::default() };
            health.push(std::mem::replace(&mut self.health, next));
        }
        let bound = if all { u64::MAX } else { interval };
        let later_cells = self.closed.split_off(&(bound, 0));
        let cells = std::mem::replace(&mut self.closed, later_cells)
            .into_iter()
            .map(|((interval, slot), cell)| (self.key(interval, slot), cell))
            .collect();
        let later_recall = self.recall.split_off(&(bound, Window::WarmUp));
        let recall = std::mem::replace(&mut self.recall, later_recall)
            .into_iter()
            .map(|((interval, window), cell)| (interval, window, cell))
            .collect();
        Intervals { cells, recall, health }
    }

    fn key(&self, interval: u64, slot: usize) -> CellKey {
        let (window, operation, place) = self.coordinates(slot);
        let node = match place {
            Place::All => NodeId::new("*"),
            Place::Node(i) => self.nodes.get(usize::from(i)).cloned().unwrap_or_else(|| NodeId::new("?")),
        };
        let name = self.operations.get(usize::from(operation.0)).cloned();
        let name = name.unwrap_or_else(|| OperationName::new("?", "?"));
        CellKey { interval, window, operation: name.operation, command: name.command, node }
    }

    /// Verdicts per query over the measured window.
    pub(crate) fn take_per_query(&mut self) -> Vec<(u32, RecallCell)> {
        std::mem::take(&mut self.per_query).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vst_common::outcome::{Attempt, Kind, Outcome};

    use super::*;

    #[derive(Clone, Debug)]
    struct Happening {
        at: u64,
        window: Window,
        operation: Operation,
        place: Place,
        latency: u64,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        let window = prop_oneof![Just(Window::WarmUp), Just(Window::Measure)];
        let place = prop_oneof![Just(Place::All), (0u16..3).prop_map(Place::Node)];
        (0u64..50_000, window, 0u16..4, place, 16u64..1_000_000).prop_map(
            |(at, window, operation, place, latency)| Happening {
                at,
                window,
                operation: Operation(operation),
                place,
                latency,
            },
        )
    }

    fn recorder() -> Recorder {
        let operations = ["a", "b", "c", "d"].map(|name| OperationName::new(name, name));
        Recorder::new(1_000, 1_000, (0..3).map(|i| NodeId::new(format!("n{i}"))).collect(), operations.into())
    }

    fn record(recorder: &mut Recorder, h: &Happening) {
        let cell = recorder.cell(h.at, h.window, h.operation, h.place);
        cell.record_attempt(Attempt::Executed);
        let outcome = Outcome {
            due: Some(h.at),
            slot_free: 0,
            sent: Some(h.at),
            ended: h.at + h.latency,
            kind: Kind::Ok,
            attempts: 1,
        };
        cell.record(&outcome, u64::MAX);
    }

    fn sum(intervals: impl IntoIterator<Item = Intervals>) -> BTreeMap<CellKey, Cell> {
        let mut cells: BTreeMap<CellKey, Cell> = BTreeMap::new();
        for (key, cell) in intervals.into_iter().flat_map(|i| i.cells) {
            cells.entry(key).or_default().merge(&cell);
        }
        cells
    }

    proptest! {
        // Each case fills dozens of histograms of 200 KiB.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn two_recorders_merged_equal_one_that_saw_everything(
            happenings in proptest::collection::vec(happening(), 0..80),
            split in any::<prop::sample::Index>(),
        ) {
            let mut whole = recorder();
            happenings.iter().for_each(|h| record(&mut whole, h));
            let at = if happenings.is_empty() { 0 } else { split.index(happenings.len()) };
            let (mut a, mut b) = (recorder(), recorder());
            happenings[..at].iter().for_each(|h| record(&mut a, h));
            happenings[at..].iter().for_each(|h| record(&mut b, h));
            prop_assert_eq!(sum([whole.take(0, true)]), sum([a.take(0, true), b.take(0, true)]));
        }

        #[test]
        fn handing_over_at_any_time_loses_and_doubles_nothing(
            happenings in proptest::collection::vec((happening(), any::<bool>()), 0..80),
        ) {
            let mut whole = recorder();
            happenings.iter().for_each(|(h, _)| record(&mut whole, h));
            let mut parts = recorder();
            let mut taken = Vec::new();
            for (h, take) in &happenings {
                record(&mut parts, h);
                if *take {
                    taken.push(parts.take(h.at, false));
                }
            }
            taken.push(parts.take(0, true));
            prop_assert_eq!(sum([whole.take(0, true)]), sum(taken));
        }

        #[test]
        fn a_node_that_joins_moves_no_count(
            before in proptest::collection::vec(happening(), 0..30),
            after in proptest::collection::vec(happening(), 0..30),
        ) {
            let mut whole = recorder();
            before.iter().chain(&after).for_each(|h| record(&mut whole, h));
            let mut grown = recorder();
            before.iter().for_each(|h| record(&mut grown, h));
            grown.add_node(NodeId::new("n3"));
            after.iter().for_each(|h| record(&mut grown, h));
            prop_assert_eq!(sum([whole.take(0, true)]), sum([grown.take(0, true)]));
        }
    }

    #[test]
    fn an_interval_is_handed_over_only_when_it_is_over() {
        let mut recorder = recorder();
        recorder.cell(1_500, Window::Measure, Operation(2), Place::All).due += 1;
        assert!(recorder.take(1_999, false).cells.is_empty());
        assert_eq!(recorder.take(2_000, false).cells.len(), 1);
    }
}
