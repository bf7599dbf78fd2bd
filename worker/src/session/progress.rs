//! How far the running phase is, merged over this worker's lanes, for the display that a person watches.
//!
//! Fed with the lanes' measurements on their way to the uplink; nothing here is kept or reported afterwards.

use std::collections::BTreeMap;

use vst_common::ids::PhaseIndex;
use vst_common::latency::{Cell, Hdr, Window};
use vst_common::recall::RecallCell;
use vst_proto::fleet;

use super::Buckets;
use crate::work::{CellKey, LaneHealth, Totals};

/// The part of a fanned-out query that goes to one node; its latency is in that of the whole query.
const PART: &str = "knn_part";

#[derive(Clone, Copy, Debug, Default)]
struct LaneView {
    totals: Totals,
    in_flight: u64,
    backlog: u64,
    /// Newest interval that the lane has reported.
    interval: Option<u64>,
}

/// The newest view of each lane.
#[derive(Debug)]
pub(super) struct Progress {
    lanes: Vec<LaneView>,
    latency: BTreeMap<u64, Hdr>,
    /// The same over the whole phase.
    whole: Hdr,
    recall: RecallCell,
}

impl Progress {
    /// Nothing has happened on any of `lanes` lanes.
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            lanes: vec![LaneView::default(); lanes],
            latency: BTreeMap::new(),
            whole: Hdr::new(),
            recall: RecallCell::default(),
        }
    }

    /// Takes in what a lane measured.
    pub(super) fn measured(
        &mut self,
        lane: usize,
        cells: &[(CellKey, Cell)],
        recall: &[(u64, Window, RecallCell)],
        health: &[LaneHealth],
    ) {
        for (key, cell) in cells.iter().filter(|(key, _)| *key.operation != *PART) {
            if let Some(hdr) = cell.response.as_ref().or(cell.service.as_ref()) {
                self.latency.entry(key.interval).or_default().merge(hdr);
                self.whole.merge(hdr);
            }
        }
        for (_, window, cell) in recall {
            if *window == Window::Measure {
                self.recall.merge(cell);
            }
        }
        let newest = cells.iter().map(|(key, _)| key.interval).chain(health.iter().map(|h| h.interval)).max();
        if let Some(view) = self.lanes.get_mut(lane) {
            view.interval = view.interval.max(newest);
        }
    }

    /// Takes in the state of a lane.
    pub(super) fn stands(&mut self, lane: usize, totals: Totals, in_flight: u64, backlog: u64) {
        if let Some(view) = self.lanes.get_mut(lane) {
            view.totals = totals;
            view.in_flight = in_flight;
            view.backlog = backlog;
        }
    }

    /// Totals over all lanes.
    pub(super) fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        self.lanes.iter().for_each(|lane| sum.add(&lane.totals));
        sum
    }

    /// Requests in flight and requests that wait, over all lanes.
    pub(super) fn open(&self) -> (u64, u64) {
        let sum = |of: fn(&LaneView) -> u64| self.lanes.iter().map(of).sum();
        (sum(|lane| lane.in_flight), sum(|lane| lane.backlog))
    }

    /// How long requests took so far.
    pub(super) fn took(&self) -> Buckets {
        Buckets::from(&self.whole)
    }

    /// The message; the latency is that of the newest interval that every lane has passed.
    pub(super) fn message(&mut self, phase: PhaseIndex) -> fleet::Progress {
        let passed = self.lanes.iter().map(|lane| lane.interval).min().flatten();
        let latency_hdr = passed
            .and_then(|interval| self.latency.range(..=interval).next_back())
            .and_then(|(_, hdr)| hdr.encode().ok())
            .unwrap_or_default();
        if let Some(interval) = passed {
            // The last one stays, so that a phase whose interval is longer than the display's has something to show.
            let keep = self.latency.range(..=interval).next_back().map_or(interval, |(i, _)| *i);
            self.latency = self.latency.split_off(&keep);
        }
        let totals = self.totals();
        let (in_flight, backlog) = self.open();
        fleet::Progress {
            phase: phase.0,
            due: totals.due,
            sent: totals.sent,
            ok: totals.ok,
            errors: totals.errors,
            censored: totals.timeout + totals.lost + totals.unsent,
            in_flight,
            backlog,
            latency_hdr,
            queries: self.recall.queries,
            hits: self.recall.hits,
            possible_hits: self.recall.possible,
        }
    }
}
