//! The books of leased ranges: asked for, read, dealt to lanes in blocks, handed back.
//!
//! Fed by `phase` with leases, rows and ended blocks. Law: each range is handed back exactly once, with the rows that
//! ended well and those that failed; what is in neither was not tried.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use vst_common::clock::MonoNs;
use vst_common::count;
use vst_common::ranges::RowRange;
use vst_proto::fleet;

use crate::fetch::verify::Doubted;
use crate::work::{REPAIR_BLOCKS, RowBlock};

/// Ranges in hand per lane: one that is being written and one that is being read.
const RANGES_PER_LANE: u32 = 2;
/// Wait before asking again after a lease that brought nothing, nanoseconds.
const ASK_AGAIN_NS: u64 = 100_000_000;

/// A range that is in hand.
#[derive(Debug, Default)]
struct Held {
    end: u64,
    /// Blocks not dealt yet and blocks with a lane; `None` while the rows are being read.
    blocks_open: Option<u64>,
    /// Whether a lane has or had a block of it.
    begun: bool,
    ok: u64,
    failed: u64,
    first_error: String,
}

/// A block that a lane has.
#[derive(Clone, Copy, Debug)]
struct Dealt {
    range_start: u64,
    lane: usize,
    rows: u64,
}

/// What came of a block.
#[derive(Debug)]
pub(super) struct Ended {
    /// The lane that had it.
    pub(super) lane: usize,
    /// Its rows.
    pub(super) rows: u64,
    /// The range, where this was its last block.
    pub(super) done: Option<fleet::RangeDone>,
}

/// The ranges of one phase.
#[derive(Debug)]
pub(super) struct RangeBook {
    phase: u32,
    target: usize,
    held: BTreeMap<u64, Held>,
    ready: VecDeque<(u64, RowBlock)>,
    dealt: HashMap<u64, Dealt>,
    asked: bool,
    ask_at: MonoNs,
    exhausted: bool,
    stopped: bool,
    /// Every range that was taken to be worked on.
    known: Vec<RowRange>,
    /// What a failover may have lost and was not looked at yet.
    doubted: Doubted,
    /// Somebody looks at it.
    verifying: bool,
}

impl RangeBook {
    /// Nothing is in hand.
    pub(super) fn new(phase: u32, lanes: u32) -> Self {
        Self {
            phase,
            target: count::index(u64::from(lanes.saturating_mul(RANGES_PER_LANE))),
            held: BTreeMap::new(),
            ready: VecDeque::new(),
            dealt: HashMap::new(),
            asked: false,
            ask_at: 0,
            exhausted: false,
            stopped: false,
            known: Vec::new(),
            doubted: Doubted::default(),
            verifying: false,
        }
    }

    /// Another node took over these slots: rows that were acknowledged until now may be lost.
    pub(super) fn doubt(&mut self, slots: BTreeSet<u16>) {
        self.doubted.slots.extend(slots);
        self.doubted.ranges.clone_from(&self.known);
    }

    /// What is to be looked at, once every range is done.
    pub(super) fn verify(&mut self) -> Option<Doubted> {
        let idle = self.exhausted && self.held.is_empty() && self.ready.is_empty() && self.dealt.is_empty();
        if !idle || self.stopped || self.verifying || self.doubted.ranges.is_empty() {
            return None;
        }
        self.verifying = true;
        Some(std::mem::take(&mut self.doubted))
    }

    /// Takes in the rows that were found to be lost.
    pub(super) fn verified(&mut self, lost: Vec<RowBlock>, next_block: &mut u64) {
        self.verifying = false;
        for mut block in lost {
            *next_block += 1;
            block.id = REPAIR_BLOCKS | *next_block;
            self.ready.push_back((REPAIR_BLOCKS, block));
        }
    }

    /// How many ranges to ask for now; marks them as asked for.
    pub(super) fn ask(&mut self, now: MonoNs) -> Option<u32> {
        let room = self.target.saturating_sub(self.held.len());
        if self.asked || self.exhausted || self.stopped || room == 0 || now < self.ask_at {
            return None;
        }
        self.asked = true;
        u32::try_from(room).ok()
    }

    /// When [`RangeBook::ask`] has to be called again.
    pub(super) fn wake_at(&self) -> MonoNs {
        let waits = !self.asked && !self.exhausted && !self.stopped && self.held.len() < self.target;
        if waits { self.ask_at } else { MonoNs::MAX }
    }

    /// Takes in a lease; gives the ranges to read and those to hand back at once.
    pub(super) fn leased(
        &mut self,
        now: MonoNs,
        lease: &fleet::Lease,
    ) -> (Vec<RowRange>, Vec<fleet::RangeDone>) {
        self.asked = false;
        if lease.ranges.is_empty() {
            self.ask_at = now.saturating_add(ASK_AGAIN_NS);
        }
        let ended = self.exhausted || self.stopped;
        self.exhausted |= lease.exhausted;
        let (mut read, mut back) = (Vec::new(), Vec::new());
        for range in &lease.ranges {
            let rows = RowRange { start: range.start, end: range.end };
            let held = Held { end: range.end, ..Held::default() };
            if self.held.contains_key(&range.start) {
                // Leased twice: the one in hand is handed back once it is done.
                continue;
            }
            if rows.is_empty() || ended {
                // The lanes may have been told that no more rows come: not tried.
                back.push(self.closing(range.start, held));
            } else {
                self.held.insert(range.start, held);
                self.known.push(rows);
                read.push(rows);
            }
        }
        (read, back)
    }

    /// Hands back a range of which no row was dealt; `None` where one was, or where it is not in hand.
    pub(super) fn give_back(&mut self, range: RowRange) -> Option<fleet::RangeDone> {
        self.held.get(&range.start).filter(|held| held.end == range.end && !held.begun)?;
        self.ready.retain(|(start, _)| *start != range.start);
        self.known.retain(|known| *known != range);
        let end = self.held.remove(&range.start)?.end;
        Some(self.closing(range.start, Held { end, ..Held::default() }))
    }

    /// Takes in the rows of a range, in blocks; block ids count on from `next_block`.
    pub(super) fn fetched(
        &mut self,
        range: RowRange,
        outcome: Result<Vec<RowBlock>, String>,
        next_block: &mut u64,
    ) -> Option<fleet::RangeDone> {
        let held = self.held.get_mut(&range.start)?;
        if held.blocks_open.is_some() {
            return None;
        }
        let blocks = match outcome {
            Ok(blocks) => blocks,
            Err(reason) => {
                held.failed = range.len();
                held.first_error = reason;
                return self.close(range.start);
            }
        };
        // There is nothing to do for the others: rows that are not alive are not overwritten.
        let rows = blocks.iter().map(|block| count::len(block.rows.len())).sum();
        held.ok = range.len().saturating_sub(rows);
        held.blocks_open = Some(count::len(blocks.len()));
        if blocks.is_empty() {
            return self.close(range.start);
        }
        for mut block in blocks {
            *next_block += 1;
            block.id = *next_block;
            self.ready.push_back((range.start, block));
        }
        None
    }

    /// The next block for a lane that has room.
    pub(super) fn deal(&mut self, lane: usize) -> Option<RowBlock> {
        if self.stopped {
            return None;
        }
        let (range_start, block) = self.ready.pop_front()?;
        if let Some(held) = self.held.get_mut(&range_start) {
            held.begun = true;
        }
        self.dealt.insert(block.id, Dealt { range_start, lane, rows: count::len(block.rows.len()) });
        Some(block)
    }

    /// The ranges in hand.
    pub(super) fn held(&self) -> impl Iterator<Item = fleet::RowRange> {
        self.held.iter().map(|(start, held)| fleet::RowRange { start: *start, end: held.end })
    }

    /// Whoever was asked last cannot answer any more.
    pub(super) fn forget_question(&mut self) {
        self.asked = false;
    }

    /// Whether a block waits for a lane.
    pub(super) fn has_ready(&self) -> bool {
        !self.stopped && !self.ready.is_empty()
    }

    /// Takes in the end of a block; `None` for one that is not with a lane.
    pub(super) fn block_done(&mut self, id: u64, ok: u64, failed: u64, error: Option<&str>) -> Option<Ended> {
        let dealt = self.dealt.remove(&id)?;
        if dealt.range_start == REPAIR_BLOCKS {
            // Its range was handed back before.
            return Some(Ended { lane: dealt.lane, rows: dealt.rows, done: None });
        }
        let held = self.held.get_mut(&dealt.range_start)?;
        held.ok += ok;
        held.failed += failed;
        if let Some(error) = error
            && held.first_error.is_empty()
        {
            error.clone_into(&mut held.first_error);
        }
        held.blocks_open = held.blocks_open.map(|n| n.saturating_sub(1));
        let done = if held.blocks_open == Some(0) { self.close(dealt.range_start) } else { None };
        Some(Ended { lane: dealt.lane, rows: dealt.rows, done })
    }

    /// A lane ended without saying what became of its blocks: their rows count as failed.
    pub(super) fn lane_lost(&mut self, lane: usize, reason: &str) -> Vec<fleet::RangeDone> {
        let ids: Vec<(u64, u64)> =
            self.dealt.iter().filter(|(_, d)| d.lane == lane).map(|(id, d)| (*id, d.rows)).collect();
        ids.into_iter().filter_map(|(id, rows)| self.block_done(id, 0, rows, Some(reason))?.done).collect()
    }

    /// Nothing more is asked for or dealt.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether every row that will ever come has been dealt.
    pub(super) fn all_dealt(&self) -> bool {
        let doubtful = self.verifying || !self.doubted.ranges.is_empty();
        !doubtful
            && self.exhausted
            && self.ready.is_empty()
            && self.held.values().all(|held| held.blocks_open.is_some())
    }

    /// Hands back everything in hand, whatever its state.
    pub(super) fn hand_back(&mut self) -> Vec<fleet::RangeDone> {
        self.stopped = true;
        self.ready.clear();
        self.dealt.clear();
        let held = std::mem::take(&mut self.held);
        held.into_iter().map(|(start, held)| self.closing(start, held)).collect()
    }

    fn close(&mut self, start: u64) -> Option<fleet::RangeDone> {
        let held = self.held.remove(&start)?;
        Some(self.closing(start, held))
    }

    fn closing(&self, start: u64, held: Held) -> fleet::RangeDone {
        fleet::RangeDone {
            phase: self.phase,
            range: Some(fleet::RowRange { start, end: held.end }),
            ok: held.ok,
            failed: held.failed,
            first_error: held.first_error,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGES: u64 = 6;
    const BLOCKS: u64 = 3;

    fn range(n: u64) -> RowRange {
        RowRange { start: n * 30, end: n * 30 + 30 }
    }

    fn blocks() -> Vec<RowBlock> {
        (0..BLOCKS).map(|_| RowBlock { rows: vec![(0, 0); 10], ..RowBlock::default() }).collect()
    }

    proptest! {
        /// Whatever is asked back whenever: what goes back was touched by no lane and never will be, and every range is
        /// handed back exactly once.
        #[test]
        fn only_what_no_lane_began_is_given_back(deeds in prop::collection::vec((0u8..4, 0..RANGES), 0..80)) {
            let mut book = RangeBook::new(1, 4);
            let all: Vec<_> =
                (0..RANGES).map(|n| fleet::RowRange { start: range(n).start, end: range(n).end }).collect();
            let (read, _) = book.leased(0, &fleet::Lease { phase: 1, ranges: all, exhausted: false });
            prop_assert_eq!(read.len() as u64, RANGES);
            let (mut next, mut dealt, mut touched) = (0, Vec::new(), BTreeSet::new());
            let (mut given, mut done) = (BTreeSet::new(), Vec::new());
            let ends = (0..RANGES).map(|n| (0, n)).chain((0..200).map(|n| (1 + n % 2, n.into())));
            for (deed, n) in deeds.into_iter().chain(ends) {
                match deed {
                    0 => done.extend(book.fetched(range(n), Ok(blocks()), &mut next)),
                    1 => if let Some(block) = book.deal(0) {
                        let of = book.dealt[&block.id].range_start;
                        prop_assert!(!given.contains(&of), "a lane has what was given back");
                        touched.insert(of);
                        dealt.push(block.id);
                    },
                    2 => if let Some(id) = dealt.pop() {
                        done.extend(book.block_done(id, 10, 0, None).and_then(|ended| ended.done));
                    },
                    _ => if let Some(back) = book.give_back(range(n)) {
                        prop_assert!(!touched.contains(&range(n).start), "begun and given back");
                        prop_assert_eq!((back.ok, back.failed), (0, 0));
                        given.insert(range(n).start);
                        done.push(back);
                    },
                }
            }
            let starts: BTreeSet<u64> = done.iter().filter_map(|d| d.range).map(|r| r.start).collect();
            prop_assert_eq!(starts.len() as u64, RANGES);
            prop_assert_eq!(done.len() as u64, RANGES);
        }
    }
}
