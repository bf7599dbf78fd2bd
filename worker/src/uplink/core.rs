//! Which batches the coordinator does not hold yet: numbering, sending order, acknowledgement, bounded memory.
//!
//! Pure; the shell moves bytes. Laws: the sequences of a (worker, generation) are 1, 2, 3, ... without gaps; a batch
//! is kept, unchanged, until it is acknowledged; no batch is larger than intake takes; what is given up (for want of
//! memory before it was sent, or because it was refused for good) keeps its sequence as an empty batch, and is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow_array::RecordBatch;
use vst_common::batch::table::write_ipc;
use vst_common::batch::{Error, Stamp, Table};
use vst_common::count;
use vst_common::ids::{Generation, Sequence};

use super::rows::TableRows;

/// A batch on its way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Batch {
    pub(super) stamp: Stamp,
    pub(super) table: Table,
    pub(super) content: RecordBatch,
}

#[derive(Debug)]
struct Held {
    batch: Arc<Batch>,
    bytes: u64,
    /// On the present stream of its table.
    in_flight: bool,
    /// Ever put on a stream: the coordinator may have it, so its content is settled.
    sent: bool,
}

impl Held {
    /// Takes the rows out, under the same sequence; gives the bytes that are left.
    fn empty(&mut self) -> u64 {
        let content = RecordBatch::new_empty(self.batch.table.schema());
        self.bytes = count::len(content.get_array_memory_size());
        self.batch = Arc::new(Batch { stamp: self.batch.stamp.clone(), table: self.batch.table, content });
        self.bytes
    }
}

/// What was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) batches: u64,
    pub(super) rows: u64,
}

/// Memory that batches may take, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Altogether; past it the oldest batch that was never sent is emptied.
    pub(super) held_bytes: u64,
    /// One batch as Arrow IPC.
    pub(super) batch_bytes: usize,
    /// On a table's stream without acknowledgement.
    pub(super) in_flight_bytes: u64,
}

/// All batches that are not acknowledged.
#[derive(Debug)]
pub(super) struct UplinkCore {
    bounds: Bounds,
    stamp: Stamp,
    tables: BTreeMap<Table, VecDeque<Held>>,
    held_bytes: u64,
    loss: Loss,
    /// Batches given up since this was last stated.
    dropped: u64,
}

impl UplinkCore {
    /// Nothing is held; the first batch will carry `stamp` with sequence 1.
    pub(super) fn new(bounds: Bounds, stamp: Stamp) -> Self {
        let stamp = Stamp { sequence: Sequence(0), ..stamp };
        Self { bounds, stamp, tables: BTreeMap::new(), held_bytes: 0, loss: Loss::default(), dropped: 0 }
    }

    /// A new registration: numbering begins anew, what is held keeps the stamp of its birth.
    pub(super) fn register(&mut self, generation: Generation) {
        if generation != self.stamp.generation {
            self.stamp.generation = generation;
            self.stamp.sequence = Sequence(0);
        }
    }

    /// The last sequence given out in this registration; 0 before the first.
    pub(super) fn last_sequence(&self) -> u64 {
        self.stamp.sequence.0
    }

    /// Batches that are not acknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        count::len(self.tables.values().map(VecDeque::len).sum())
    }

    /// What was given up since the last call.
    pub(super) fn take_loss(&mut self) -> Loss {
        std::mem::take(&mut self.loss)
    }

    /// How many batches were given up since the last call, for the statement at the end of a phase.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn give_up(&mut self, rows: usize) {
        self.loss.batches += 1;
        self.loss.rows += count::len(rows);
        self.dropped += 1;
    }

    /// Numbers rows and holds them until they are acknowledged. No rows, no batch.
    ///
    /// # Errors
    /// When the rows cannot be written as a batch; no sequence is used up then.
    pub(super) fn seal(&mut self, rows: &TableRows) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let stamp =
            Stamp { sequence: Sequence(self.stamp.sequence.0.saturating_add(1)), ..self.stamp.clone() };
        let content = rows.to_batch(&stamp)?;
        if self.is_too_large(&content)? {
            if rows.len() < 2 {
                // No cut makes it smaller, and nobody would ever take it.
                self.give_up(rows.len());
                return Ok(());
            }
            let (first, second) = rows.halves();
            self.seal(&first)?;
            return self.seal(&second);
        }
        let bytes = count::len(content.get_array_memory_size());
        self.stamp.sequence = stamp.sequence;
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        let batch = Arc::new(Batch { stamp, table: rows.table(), content });
        let held = Held { batch, bytes, in_flight: false, sent: false };
        self.tables.entry(rows.table()).or_default().push_back(held);
        while self.held_bytes > self.bounds.held_bytes && self.empty_oldest() {}
        Ok(())
    }

    fn is_too_large(&self, content: &RecordBatch) -> Result<bool, Error> {
        // Arrow in memory and as IPC differ by the schema and by padding, so most need not be written to know.
        if content.get_array_memory_size() < self.bounds.batch_bytes / 2 {
            return Ok(false);
        }
        Ok(write_ipc(content)?.len() > self.bounds.batch_bytes)
    }

    /// The coordinator will never take this batch: its sequence goes on as an empty one, and if not even that is
    /// taken, not at all.
    pub(super) fn refused(&mut self, table: Table, generation: Generation, sequence: u64) {
        let Some(all) = self.tables.get_mut(&table) else { return };
        let wanted =
            |h: &Held| h.batch.stamp.generation == generation && h.batch.stamp.sequence.0 == sequence;
        let Some(at) = all.iter().position(wanted) else { return };
        let Some(held) = all.get_mut(at) else { return };
        let rows = held.batch.content.num_rows();
        let before = held.bytes;
        if rows == 0 {
            all.remove(at);
            self.held_bytes = self.held_bytes.saturating_sub(before);
        } else {
            let after = held.empty();
            self.held_bytes = self.held_bytes.saturating_sub(before).saturating_add(after);
        }
        self.give_up(rows);
    }

    /// Tables of which something waits to be sent.
    pub(super) fn waiting(&self) -> Vec<Table> {
        let waits = |held: &VecDeque<Held>| held.iter().any(|h| !h.in_flight);
        self.tables.iter().filter(|(_, held)| waits(held)).map(|(table, _)| *table).collect()
    }

    /// The next batch to put on the table's stream, oldest first; `None` when nothing waits or enough is in flight.
    pub(super) fn next(&mut self, table: Table) -> Option<Arc<Batch>> {
        let held = self.tables.get_mut(&table)?;
        let in_flight: u64 = held.iter().filter(|h| h.in_flight).map(|h| h.bytes).sum();
        if in_flight >= self.bounds.in_flight_bytes {
            return None;
        }
        let next = held.iter_mut().find(|h| !h.in_flight)?;
        next.in_flight = true;
        next.sent = true;
        Some(Arc::clone(&next.batch))
    }

    /// The coordinator holds everything of this generation that the table's stream carried up to `sequence`. Gives
    /// what is released by it.
    pub(super) fn acknowledged(
        &mut self,
        table: Table,
        generation: Generation,
        sequence: u64,
    ) -> Vec<Arc<Batch>> {
        let Some(held) = self.tables.get_mut(&table) else { return Vec::new() };
        let covered = |h: &Held| {
            h.in_flight && h.batch.stamp.generation == generation && h.batch.stamp.sequence.0 <= sequence
        };
        let mut released = Vec::new();
        held.retain(|h| {
            let covered = covered(h);
            if covered {
                self.held_bytes = self.held_bytes.saturating_sub(h.bytes);
                released.push(Arc::clone(&h.batch));
            }
            !covered
        });
        released
    }

    /// The table's stream ended: what it carried without acknowledgement is sent again on the next one.
    pub(super) fn broken(&mut self, table: Table) {
        for held in self.tables.get_mut(&table).into_iter().flatten() {
            held.in_flight = false;
        }
    }

    /// Empties the oldest batch that was never sent; gives whether there was one.
    fn empty_oldest(&mut self) -> bool {
        let unsent = |h: &&mut Held| !h.sent && h.batch.content.num_rows() > 0;
        let oldest = self
            .tables
            .values_mut()
            .filter_map(|held| held.iter_mut().find(unsent))
            .min_by_key(|h| (h.batch.stamp.generation, h.batch.stamp.sequence));
        let Some(held) = oldest else { return false };
        let (rows, before) = (held.batch.content.num_rows(), held.bytes);
        let after = held.empty();
        self.held_bytes = self.held_bytes.saturating_sub(before).saturating_add(after);
        self.give_up(rows);
        true
    }
}
