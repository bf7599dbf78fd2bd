//! An hour of 100 workers as a run directory, without the hour: 3.6 million rows of latency, and what goes with them.
//!
//! For the suite of `make test-analysis`. Histograms come from a pool of distinct ones and are stored without a
//! dictionary, so that a reader has to read each; keys are those that a real fleet would write.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt32Array};
use arrow_select::concat::concat_batches;
use arrow_select::take::take;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use vst_common::batch::allocator::{self, AllocatorRow, AllocatorTotals, ClassKind, SizeClass};
use vst_common::batch::latency::{self, LatencyRow, RollupRow};
use vst_common::batch::memory::{self, MemoryRow, parse_info};
use vst_common::batch::{Sample, Stamp, Table};
use vst_common::count;
use vst_common::entry::{Control, Entry, PhaseEnded, PhaseOutcome, PhaseStarted, RunState, Totals};
use vst_common::ids::{Generation, NodeId, PhaseIndex, RunId, Sequence, WorkerId};
use vst_common::latency::{Cell, Hdr, Window};
use vst_common::run_dir::layout::{Part, entry_path};

/// Workers.
pub const WORKERS: u32 = 100;
/// Intervals of a second.
pub const SECONDS: u32 = 3_600;
/// Rows of a worker in an interval: the whole query, and its part on each node.
pub const ROWS: u32 = 10;
const NODES: u32 = ROWS - 1;
const RUN: &str = "20270115-hour";
const START: i64 = 1_800_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
/// Distinct histograms.
const POOL: u32 = 512;
/// Requests in each.
const REQUESTS: u64 = 100;
/// Entries of the log; parts cover all of them.
const ENTRIES: u64 = 3;

fn stamp() -> Stamp {
    Stamp {
        run: RunId::new(RUN),
        worker: WorkerId::new("w"),
        generation: Generation(1),
        sequence: Sequence(1),
    }
}

fn histogram(seed: u64, values: u64) -> Hdr {
    let mut hdr = Hdr::new();
    let mut state = seed | 1;
    for _ in 0..values {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // 0.1 to about 6.5 ms, with a tail.
        hdr.record(100_000 + (state >> 42) + if state >> 57 == 0 { 50_000_000 } else { 0 });
    }
    hdr
}

fn row(seed: u32, requests: u64) -> LatencyRow {
    let cell = Cell {
        due: requests,
        sent: requests,
        ok: requests,
        attempts_executed: requests,
        response: Some(histogram(u64::from(seed) * 7 + 1, requests)),
        service: Some(histogram(u64::from(seed) * 13 + 5, requests)),
        ..Cell::default()
    };
    LatencyRow {
        phase: String::from("ask"),
        phase_index: PhaseIndex(1),
        window: Window::Measure,
        operation: String::from("knn"),
        command: String::from("ft.search"),
        node: NodeId::new("*"),
        interval_start: START,
        interval_ns: 1_000_000_000,
        cell,
    }
}

/// The pool's rows under other keys: those of the intervals and of the rows within each.
fn keyed(pool: &RecordBatch, worker: &str, shift: u32) -> RecordBatch {
    let keys: Vec<(u32, u32)> = (0..SECONDS).flat_map(|s| (0..ROWS).map(move |r| (s, r))).collect();
    let of = count::len(pool.num_rows());
    let of = u32::try_from(of).expect("a pool is small");
    let chosen: UInt32Array =
        (0..SECONDS * ROWS).map(|i| (i.wrapping_mul(2_654_435_761) ^ shift) % of).collect();
    let node = |r: u32| if r == 0 { String::from("*") } else { format!("node-{r}") };
    let schema = pool.schema();
    let columns = schema.fields().iter().zip(pool.columns()).map(|(field, column)| -> ArrayRef {
        match field.name().as_str() {
            "worker" => Arc::new(StringArray::from_iter_values(keys.iter().map(|_| worker))),
            "sequence" => Arc::new(Int64Array::from_iter_values(keys.iter().map(|(s, _)| i64::from(s + 1)))),
            "node" => Arc::new(StringArray::from_iter_values(keys.iter().map(|(_, r)| node(*r)))),
            "operation" => {
                let name = |r: u32| if r == 0 { "knn" } else { "knn_part" };
                Arc::new(StringArray::from_iter_values(keys.iter().map(|(_, r)| name(*r))))
            }
            "interval_start" => {
                let at = keys.iter().map(|(s, _)| START + i64::from(*s) * SECOND);
                Arc::new(TimestampNanosecondArray::from_iter_values(at).with_timezone("UTC"))
            }
            _ => take(column, &chosen, None).expect("rows of the pool"),
        }
    });
    let columns = columns.collect();
    RecordBatch::try_new(Arc::clone(&schema), columns).expect("the same columns")
}

fn write(folder: &Path, table: Table, batches: impl Iterator<Item = RecordBatch>) {
    let path = folder.join(Part { table, first: 1, last: ENTRIES }.path());
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let file = std::fs::File::create(path).expect("a file");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_column_dictionary_enabled("response_hdr".into(), false)
        .set_column_dictionary_enabled("service_hdr".into(), false)
        .set_max_row_group_row_count(Some(table.group_rows()))
        .build();
    let mut writer = ArrowWriter::try_new(file, table.schema(), Some(properties)).expect("a writer");
    for batch in batches {
        writer.write(&batch).expect("written");
    }
    writer.close().expect("closed");
}

fn log(folder: &Path) {
    let facts = serde_json::json!({"target": {"url": "valkey://127.0.0.1:7000"}});
    let mut opening = vec![
        Control::Led { run: RunId::new(RUN), epoch: 1, leader: String::from("c") },
        Control::RunOpened { at_wall_ns: START - 20 * SECOND, facts: facts.clone() },
    ];
    opening.extend((0..WORKERS).map(|w| Control::WorkerJoined {
        worker: WorkerId::new(format!("w{w}")),
        generation: Generation(1),
        host: String::from("host"),
        lanes: 1,
        at_wall_ns: START - 20 * SECOND,
        instance: 0,
    }));
    let phase = |index: u32, name: &str, step: &str, start: i64, seconds: i64| {
        let index = PhaseIndex(index);
        let started = PhaseStarted {
            beside: None,
            index,
            name: name.to_owned(),
            step: step.to_owned(),
            start_wall_ns: start,
            start_mono_ns: 0,
            order: None,
        };
        let ended = PhaseEnded {
            index,
            end_wall_ns: start + seconds * SECOND,
            outcome: PhaseOutcome::Completed,
            totals: Totals::default(),
            scheduled: None,
            unowned: 0,
            live: 1_000_000,
            exit_code: 0,
        };
        [Control::PhaseStarted(started), Control::PhaseEnded(ended)]
    };
    let end = START + i64::from(SECONDS) * SECOND;
    let [a, b] = phase(0, "baseline", "baseline", START - 10 * SECOND, 5);
    let [c, d] = phase(1, "ask", "query", START, i64::from(SECONDS));
    let [e, f] = phase(2, "full", "checkpoint", end + SECOND, 5);
    let closed =
        Control::RunClosed { state: RunState::Finished, exit_code: 0, at_wall_ns: end + 10 * SECOND };
    std::fs::create_dir(folder.join("log")).expect("made");
    std::fs::write(folder.join("run.json"), facts.to_string()).expect("written");
    for (number, controls) in [(1, opening), (2, vec![a, b, c, d]), (3, vec![e, f, closed])] {
        let entry = Entry {
            number,
            epoch: 1,
            leader: String::from("c"),
            written_at: START,
            controls,
            batches: Vec::new(),
        };
        std::fs::write(folder.join(entry_path(number)), entry.encode().expect("encoded")).expect("written");
    }
}

fn sample(second: u32, node: u32) -> Sample {
    Sample {
        tick: u64::from(second),
        sampled_at: START + i64::from(second) * SECOND,
        took_ns: 1_000_000,
        phase: String::from("ask"),
        phase_index: PhaseIndex(1),
        node: NodeId::new(format!("node-{}", node + 1)),
        role: String::from("primary"),
        missing: None,
    }
}

fn memory_rows(second: u32) -> Vec<MemoryRow> {
    let of_node = |n: u32| MemoryRow {
        sample: sample(second, n),
        address: String::from("127.0.0.1:1"),
        keys: Some(111_111),
        info: parse_info(&format!(
            "used_memory:{}\nused_memory_rss:{}\n",
            200_000_000 + second * 1_000 + n * 7_919,
            230_000_000 + second * 1_000
        )),
        module_used_memory_bytes: None,
        module_reclaimable_bytes: None,
        index_size_bytes: None,
        index_docs: Some(111_111),
        index_failures: Some(0),
        indexing: Some(false),
        mutation_queue: Some(0),
        process: None,
    };
    (0..NODES).map(of_node).collect()
}

fn allocator_rows(second: u32) -> Vec<AllocatorRow> {
    let of_class = |node: u32, class: u64| AllocatorRow {
        sample: sample(second, node),
        totals: Some(AllocatorTotals { allocated: 45_000_000, active: 50_000_000, resident: 60_000_000 }),
        class: Some(SizeClass {
            kind: ClassKind::Bin,
            size_bytes: 16 * (class + 1),
            allocated_bytes: 1_000_000,
            held_bytes: Some(1_000_000 + u64::from(second) * class),
            regions: Some(100),
            slabs: Some(10),
            nonfull_slabs: Some(1),
            regions_per_slab: Some(32),
            pages_per_slab: Some(1),
            slabs_made: Some(10),
            nmalloc: Some(100),
            ndalloc: Some(0),
        }),
    };
    (0..NODES).flat_map(|node| (0..45).map(move |class| of_class(node, class))).collect()
}

/// Writes the run directory.
pub fn write_run(folder: &Path) {
    log(folder);
    let stamp = stamp();
    let parts: Vec<RecordBatch> = (0..POOL / 32)
        .map(|part| {
            let rows: Vec<LatencyRow> = (0..32).map(|i| row(part * 32 + i, REQUESTS)).collect();
            latency::to_batch(&stamp, &rows).expect("a batch")
        })
        .collect();
    let pool = concat_batches(&Table::Latency.schema(), &parts).expect("one schema");
    write(folder, Table::Latency, (0..WORKERS).map(|w| keyed(&pool, &format!("w{w}"), w * 7_919)));
    let merged: Vec<RollupRow> = (0..64)
        .map(|i| RollupRow {
            workers: u64::from(WORKERS),
            row: row(1_000 + i, REQUESTS * u64::from(WORKERS)),
        })
        .collect();
    let pool = latency::to_rollup_batch(&stamp.run, &merged).expect("a batch");
    write(folder, Table::LatencyRollup, std::iter::once(keyed(&pool, "*", 3)));
    let memory = (0..SECONDS).map(|s| memory::to_batch(&stamp, &memory_rows(s)).expect("a batch"));
    write(folder, Table::Memory, memory);
    let slow = (0..SECONDS).step_by(5);
    write(
        folder,
        Table::Allocator,
        slow.map(|s| allocator::to_batch(&stamp, &allocator_rows(s)).expect("a batch")),
    );
}
