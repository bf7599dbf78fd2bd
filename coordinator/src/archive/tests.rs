//! The law of compaction: parts and uncovered entries hold each batch once, whatever was lost and whoever compacted.

use std::sync::Arc;

use arrow_array::RecordBatch;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use vst_common::batch::latency::{self, LatencyRow};
use vst_common::batch::table::{read_ipc, write_ipc};
use vst_common::batch::{Stamp, events};
use vst_common::entry::Entry;
use vst_common::ids::{Generation, NodeId, PhaseIndex, Sequence, WorkerId};
use vst_common::latency::{Cell, Hdr, Window};
use vst_common::run_dir::layout;

use super::*;
use crate::run_log;

/// (table, worker, sequence): what a row belongs to.
type Origin = (&'static str, String, u64);

#[derive(Clone, Debug)]
enum Op {
    /// The log grows by one entry with these batches: worker, whether latency, interval.
    Grow(Vec<(u8, bool, u8)>),
    /// One of two archives (the second is a rival that knows nothing of the first) compacts.
    Compact { archive: usize, to_the_end: bool },
    /// The archive dies and is started again; of the parts that it wrote last, those that this picks were not written.
    Die { archive: usize, lost: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let batches = prop::collection::vec((0_u8..2, any::<bool>(), 0_u8..3), 0..4);
    prop_oneof![
        6 => batches.prop_map(Op::Grow),
        2 => (0_usize..2, any::<bool>()).prop_map(|(archive, to_the_end)| Op::Compact { archive, to_the_end }),
        1 => (0_usize..2, any::<u64>()).prop_map(|(archive, lost)| Op::Die { archive, lost }),
    ]
}

fn run() -> RunId {
    RunId::new("r")
}

fn limits() -> Limits {
    Limits { entries: 3, bytes: 20_000 }
}

fn stamp(worker: u8, sequence: u64) -> Stamp {
    Stamp {
        run: run(),
        worker: WorkerId::new(format!("w{worker}")),
        generation: Generation(1),
        sequence: Sequence(sequence),
    }
}

fn event_batch(stamp: &Stamp) -> RecordBatch {
    let row = events::EventRow {
        at: 1,
        phase: String::from("p"),
        phase_index: PhaseIndex(0),
        kind: String::from("moved"),
        node: None,
        detail: String::new(),
        count: 1,
    };
    events::to_batch(stamp, &[row]).unwrap()
}

fn latency_row(interval: u8, ns: u64) -> LatencyRow {
    let mut cell = Cell { ok: 1, sent: ns, response: Some(Hdr::new()), ..Cell::default() };
    cell.response.as_mut().unwrap().record(ns);
    LatencyRow {
        phase: String::from("p"),
        phase_index: PhaseIndex(0),
        window: Window::Measure,
        operation: String::from("hset"),
        command: String::from("hset"),
        node: NodeId::new("n"),
        interval_start: interval.into(),
        interval_ns: 1,
        cell,
    }
}

fn stored(stamp: &Stamp, table: Table, batch: &RecordBatch) -> StoredBatch {
    StoredBatch {
        worker: stamp.worker.clone(),
        generation: stamp.generation,
        sequence: stamp.sequence,
        table,
        ipc: write_ipc(batch).unwrap().into(),
    }
}

struct World {
    dir: RunDir,
    archives: Vec<Archive>,
    /// Parts that each archive's last compaction wrote.
    fresh: Vec<Vec<Path>>,
    last: u64,
    sequence: u64,
    written: Vec<Origin>,
    /// What the latencies add up to: (interval, ns).
    latencies: Vec<(i64, u64)>,
}

impl World {
    async fn new() -> Self {
        let dir = RunDir::over(Arc::new(InMemory::new()), Path::from("r"));
        let mut archives = Vec::new();
        for _ in 0..2 {
            archives.push(Archive::open(dir.clone(), run(), limits()).await.unwrap());
        }
        let fresh = vec![Vec::new(), Vec::new()];
        Self { dir, archives, fresh, last: 0, sequence: 0, written: Vec::new(), latencies: Vec::new() }
    }

    async fn grow(&mut self, batches: &[(u8, bool, u8)]) {
        self.last += 1;
        let mut entry = Entry {
            number: self.last,
            epoch: 1,
            leader: String::from("a"),
            written_at: 1,
            controls: Vec::new(),
            batches: Vec::new(),
        };
        for (worker, is_latency, interval) in batches {
            self.sequence += 1;
            let stamp = stamp(*worker, self.sequence);
            let (table, batch) = if *is_latency {
                let ns = 1000 * self.sequence;
                self.latencies.push(((*interval).into(), ns));
                (Table::Latency, latency::to_batch(&stamp, &[latency_row(*interval, ns)]).unwrap())
            } else {
                (Table::Events, event_batch(&stamp))
            };
            self.written.push((table.as_str(), stamp.worker.to_string(), self.sequence));
            entry.batches.push(stored(&stamp, table, &batch));
        }
        let path = self.dir.path(&layout::entry_path(self.last));
        self.dir.store().put(&path, entry.encode().unwrap().into()).await.unwrap();
    }

    async fn part_paths(&self) -> Vec<Path> {
        let listed: Vec<_> = self.dir.store().list(None).collect().await;
        let paths = listed.into_iter().map(|object| object.unwrap().location);
        paths.filter(|path| path.as_ref().ends_with(".parquet")).collect()
    }

    async fn apply(&mut self, op: &Op) {
        match op {
            Op::Grow(batches) => self.grow(batches).await,
            Op::Compact { archive, to_the_end } => {
                let before = self.part_paths().await;
                let compactor = &mut self.archives[*archive];
                if *to_the_end {
                    compactor.finish(self.last).await.unwrap();
                } else {
                    compactor.compact(self.last).await.unwrap();
                }
                let after = self.part_paths().await;
                self.fresh[*archive] = after.into_iter().filter(|path| !before.contains(path)).collect();
            }
            Op::Die { archive, lost } => {
                for (i, path) in self.fresh[*archive].drain(..).enumerate() {
                    if lost >> (i % 64) & 1 == 1 {
                        self.dir.store().delete(&path).await.unwrap();
                    }
                }
                self.archives[*archive] = Archive::open(self.dir.clone(), run(), limits()).await.unwrap();
            }
        }
    }

    /// The batches of a table as any reader sees them: those of parts, those of uncovered entries.
    async fn read(&self, table: Table) -> (Vec<RecordBatch>, Vec<RecordBatch>) {
        let cover = self.dir.cover(table).await.unwrap();
        let mut parts = Vec::new();
        for part in cover.parts {
            let found = self.dir.store().get(&self.dir.path(&part.path())).await.unwrap();
            let bytes = found.bytes().await.unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
            parts.extend(reader.map(Result::unwrap));
        }
        let source = if table == Table::LatencyRollup { Table::Latency } else { table };
        let mut uncovered = Vec::new();
        for number in cover.uncovered {
            let entry = self.dir.read_entry(number).await.unwrap();
            for batch in entry.batches.iter().filter(|batch| batch.table == source) {
                uncovered.extend(read_ipc(&batch.ipc).unwrap());
            }
        }
        (parts, uncovered)
    }

    async fn check(&self) {
        let mut found: Vec<Origin> = Vec::new();
        let (parts, uncovered) = self.read(Table::Events).await;
        for batch in parts.iter().chain(&uncovered) {
            let rows = events::from_batch(batch).unwrap().into_iter();
            found.extend(rows.map(|(stamp, _)| ("events", stamp.worker.to_string(), stamp.sequence.0)));
        }
        let (parts, uncovered) = self.read(Table::Latency).await;
        for batch in parts.iter().chain(&uncovered) {
            let rows = latency::from_batch(batch).unwrap().into_iter();
            found.extend(rows.map(|(stamp, _)| ("latency", stamp.worker.to_string(), stamp.sequence.0)));
        }
        found.sort_unstable();
        let mut written = self.written.clone();
        written.sort_unstable();
        assert_eq!(found, written);
        self.check_rollup().await;
    }

    async fn check_rollup(&self) {
        let (parts, uncovered) = self.read(Table::LatencyRollup).await;
        let mut found: BTreeMap<i64, Cell> = BTreeMap::new();
        for batch in &parts {
            for (_, row) in latency::from_rollup_batch(batch).unwrap() {
                found.entry(row.row.interval_start).or_default().merge(&row.row.cell);
            }
        }
        for batch in &uncovered {
            for (_, row) in latency::from_batch(batch).unwrap() {
                found.entry(row.interval_start).or_default().merge(&row.cell);
            }
        }
        let mut wanted: BTreeMap<i64, Cell> = BTreeMap::new();
        for (interval, ns) in &self.latencies {
            wanted.entry(*interval).or_default().merge(&latency_row(0, *ns).cell);
        }
        assert_eq!(found, wanted);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn parts_and_uncovered_entries_hold_each_batch_once(ops in prop::collection::vec(op(), 1..30)) {
        block_on(async {
            let mut world = World::new().await;
            for op in &ops {
                world.apply(op).await;
                if !matches!(op, Op::Grow(_)) {
                    world.check().await;
                }
            }
            world.check().await;
        });
    }

    #[test]
    fn after_the_end_no_entry_has_to_be_read(ops in prop::collection::vec(op(), 1..20)) {
        block_on(async {
            let mut world = World::new().await;
            for op in &ops {
                world.apply(op).await;
            }
            // A new archive, as the parts of two rivals may leave holes that neither of them sees.
            let mut archive = Archive::open(world.dir.clone(), run(), limits()).await.unwrap();
            archive.finish(world.last).await.unwrap();
            for table in Table::ALL {
                assert_eq!(world.dir.uncovered(table).await.unwrap(), Vec::<u64>::new(), "{table}");
            }
            world.check().await;
        });
    }
}

#[tokio::test]
async fn the_rollup_merges_over_workers() {
    let mut world = World::new().await;
    world.grow(&[(0, true, 1), (1, true, 1), (0, true, 2)]).await;
    world.archives[0].finish(1).await.unwrap();
    let (parts, _) = world.read(Table::LatencyRollup).await;
    let rows: Vec<_> = parts.iter().flat_map(|batch| latency::from_rollup_batch(batch).unwrap()).collect();
    let shape: Vec<_> = rows.iter().map(|(_, r)| (r.row.interval_start, r.workers, r.row.cell.ok)).collect();
    assert_eq!(shape, vec![(1, 2, 2), (2, 1, 1)]);
}

#[tokio::test]
async fn parts_are_cut_by_memory_too() {
    let mut world = World::new().await;
    for _ in 0..12 {
        world.grow(&[(0, true, 1), (0, true, 2)]).await;
    }
    let limits = Limits { entries: 1000, bytes: 1 };
    let mut archive = Archive::open(world.dir.clone(), run(), limits).await.unwrap();
    archive.compact(12).await.unwrap();
    assert_eq!(world.dir.parts(Table::Latency).await.unwrap().len(), 12);
    world.check().await;
}

#[tokio::test]
async fn a_log_in_a_folder_is_compacted_as_it_grows_and_flushed_at_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let log = run_log::open(temp.path().join("run").to_str().unwrap(), &run(), "a").await.unwrap();
    let follower = Follower::spawn(log.clone(), run(), limits()).await.unwrap();
    let mut world = World { dir: log.dir().clone(), ..World::new().await };
    for sequence in 1..=3 {
        let stamp = stamp(0, sequence);
        world.written.push(("events", stamp.worker.to_string(), sequence));
        log.append_batch(stored(&stamp, Table::Events, &event_batch(&stamp))).await.unwrap();
    }
    let through = follower.flush().await.unwrap();
    assert_eq!(through, log.last_durable());
    assert_eq!(log.dir().uncovered(Table::Events).await.unwrap(), Vec::<u64>::new());
    world.check().await;
    let stamp = stamp(0, 4);
    world.written.push(("events", stamp.worker.to_string(), 4));
    log.append_batch(stored(&stamp, Table::Events, &event_batch(&stamp))).await.unwrap();
    world.check().await;
    log.close().await;
    assert_eq!(follower.flush().await.unwrap(), log.last_durable());
    world.check().await;
    let again = Archive::open(log.dir().clone(), run(), limits()).await.unwrap();
    assert_eq!(again.next_full(), log.last_durable() + 3);
}
