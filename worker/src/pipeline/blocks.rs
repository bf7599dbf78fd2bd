//! Rows in hand: which are still to be sent, and what became of the others.

use std::collections::VecDeque;

use slab::Slab;

use super::node::Item;
use crate::work::{LaneEvent, REPAIR_BLOCKS, RowBlock};

#[derive(Debug)]
struct Block {
    rows: RowBlock,
    open: usize,
    ok: u64,
    failed: u64,
    first_error: Option<String>,
}

/// The blocks that a lane was given.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    held: Slab<Block>,
    /// (block, next position) in the order given.
    queue: VecDeque<(usize, usize)>,
    /// No block will follow.
    pub(super) complete: bool,
}

impl Blocks {
    /// Takes a block; an empty one is done at once.
    pub(super) fn give(&mut self, rows: RowBlock) -> Option<LaneEvent> {
        let open = rows.rows.len();
        if open == 0 {
            return Some(LaneEvent::BlockDone { id: rows.id, ok: 0, failed: 0, first_error: None });
        }
        let key = self.held.insert(Block { rows, open, ok: 0, failed: 0, first_error: None });
        self.queue.push_back((key, 0));
        None
    }

    /// The next row to send.
    pub(super) fn next(&mut self) -> Option<Item> {
        let (block, position) = *self.queue.front()?;
        let rows = self.held.get(block).map_or(0, |b| b.rows.rows.len());
        match self.queue.front_mut() {
            Some(front) if position + 1 < rows => front.1 = position + 1,
            _ => {
                self.queue.pop_front();
            }
        }
        Some(Item::Row { block, position })
    }

    /// (copy, row) of an item.
    pub(super) fn cell(&self, block: usize, position: usize) -> (u32, u64) {
        self.held.get(block).and_then(|b| b.rows.rows.get(position)).copied().unwrap_or_default()
    }

    /// Whether its rows were sent before, and lost by the server.
    pub(super) fn is_repair(&self, block: usize) -> bool {
        self.held.get(block).is_some_and(|b| b.rows.id >= REPAIR_BLOCKS)
    }

    /// A block in hand.
    pub(super) fn get(&self, block: usize) -> Option<&RowBlock> {
        self.held.get(block).map(|held| &held.rows)
    }

    /// The number within the phase of a unit.
    pub(super) fn unit(&self, block: usize, position: usize) -> u64 {
        let first = self.held.get(block).map_or(0, |b| b.rows.first);
        first.saturating_add(vst_common::count::len(position))
    }

    /// Counts the fate of a row; gives the block's result when it was the last.
    pub(super) fn row_ended(&mut self, block: usize, error: Option<String>) -> Option<LaneEvent> {
        let held = self.held.get_mut(block)?;
        held.open = held.open.saturating_sub(1);
        match error {
            None => held.ok += 1,
            Some(error) => {
                held.failed += 1;
                held.first_error.get_or_insert(error);
            }
        }
        if held.open > 0 {
            return None;
        }
        let done = self.held.remove(block);
        Some(LaneEvent::BlockDone {
            id: done.rows.id,
            ok: done.ok,
            failed: done.failed,
            first_error: done.first_error,
        })
    }

    /// Ends every block as it stands.
    pub(super) fn give_back(&mut self) -> Vec<LaneEvent> {
        self.queue.clear();
        let told = |block: Block| LaneEvent::BlockDone {
            id: block.rows.id,
            ok: block.ok,
            failed: block.failed,
            first_error: block.first_error,
        };
        self.held.drain().map(told).collect()
    }

    /// Whether a row is left to send.
    pub(super) fn has_next(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether no row is in hand, sent or not.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
