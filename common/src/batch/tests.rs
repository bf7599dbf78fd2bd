use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::allocator::{AllocatorRow, AllocatorTotals, ClassKind, SizeClass};
use super::commandstats::CommandstatsRow;
use super::events::EventRow;
use super::health::HealthRow;
use super::latency::{LatencyRow, RollupRow};
use super::memory::{INFO_INTEGERS, INFO_RATIOS, MemoryRow, Process, parse_info};
use super::recall::{RecallQueryRow, RecallRow};
use super::table::{check_schema, read_ipc, write_ipc};
use super::*;
use crate::ids::{Generation, NodeId, PhaseIndex, RunId, Sequence, WorkerId};
use crate::latency::{Cell, Hdr, Window};
use crate::recall::RecallCell;

/// A count as Int64 can hold it.
fn count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..1000_u64, 0..=u64::MAX / 2]
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn node() -> impl Strategy<Value = NodeId> {
    "[a-z0-9:*]{1,12}".prop_map(NodeId::new)
}

fn phase() -> impl Strategy<Value = PhaseIndex> {
    any::<u32>().prop_map(PhaseIndex)
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![Just(Window::WarmUp), Just(Window::Measure)]
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (text(), text(), count(), count()).prop_map(|(run, worker, generation, sequence)| Stamp {
        run: RunId::new(run),
        worker: WorkerId::new(worker),
        generation: Generation(generation),
        sequence: Sequence(sequence),
    })
}

fn hdr() -> impl Strategy<Value = Hdr> {
    vec(any::<u64>().prop_map(|n| n >> (n % 64)), 1..20).prop_map(recorded)
}

/// Enough values within the bounds that no two of the quantile columns are equal.
fn spread() -> impl Strategy<Value = Hdr> {
    vec(16..3_000_000_000_u64, 2000..4000).prop_map(recorded)
}

fn recorded(values: Vec<u64>) -> Hdr {
    let mut hdr = Hdr::new();
    for ns in values {
        hdr.record(ns);
    }
    hdr
}

fn cell() -> impl Strategy<Value = Cell> {
    let histograms = (option::of(hdr()), option::of(hdr()), option::of(hdr()));
    (vec(count(), 16), [count(), count(), count(), count(), count(), count(), count(), count()], histograms)
        .prop_map(|(n, errors, (response, censored, service))| Cell {
            due: n[0],
            sent: n[1],
            ok: n[2],
            ok_in_window: n[3],
            errors,
            timeout: n[4],
            lost: n[5],
            unsent: n[6],
            partial: n[7],
            miss: n[7] / 2,
            attempts_executed: n[8],
            attempts_rejected: n[9],
            attempts_unknown: n[10],
            late: n[11],
            repair: n[12],
            bytes_in: n[13],
            bytes_out: n[14],
            out_of_range: n[15],
            response,
            censored,
            service,
        })
}

fn latency_row() -> impl Strategy<Value = LatencyRow> {
    ((text(), phase(), window(), text(), text(), node()), any::<i64>(), count(), cell()).prop_map(
        |((phase, phase_index, window, operation, command, node), interval_start, interval_ns, cell)| {
            LatencyRow {
                phase,
                phase_index,
                window,
                operation,
                command,
                node,
                interval_start,
                interval_ns,
                cell,
            }
        },
    )
}

fn recall_cell() -> impl Strategy<Value = RecallCell> {
    [count(), count(), count(), count(), count(), count(), count(), count()].prop_map(
        |[queries, hits, possible, ghosts, contamination, duplicates, partial, masked]| RecallCell {
            queries,
            hits,
            possible,
            ghosts,
            contamination,
            duplicates,
            partial,
            masked,
        },
    )
}

fn recall_row() -> impl Strategy<Value = RecallRow> {
    (text(), phase(), window(), any::<i64>(), count(), any::<u32>(), recall_cell()).prop_map(
        |(phase, phase_index, window, interval_start, interval_ns, k, cell)| RecallRow {
            phase,
            phase_index,
            window,
            interval_start,
            interval_ns,
            k,
            cell,
        },
    )
}

fn query_row() -> impl Strategy<Value = RecallQueryRow> {
    (text(), phase(), any::<u32>(), count(), recall_cell()).prop_map(
        |(phase, phase_index, k, query, cell)| RecallQueryRow {
            phase,
            phase_index,
            k,
            query,
            copy: k / 2,
            cell,
        },
    )
}

fn event_row() -> impl Strategy<Value = EventRow> {
    (any::<i64>(), text(), phase(), text(), option::of(node()), text(), count()).prop_map(
        |(at, phase, phase_index, kind, node, detail, count)| EventRow {
            at,
            phase,
            phase_index,
            kind,
            node,
            detail,
            count,
        },
    )
}

fn health_row() -> impl Strategy<Value = HealthRow> {
    ((text(), phase(), any::<u32>(), any::<i64>(), any::<i64>()), vec(count(), 7), option::of(hdr()))
        .prop_map(|((phase, phase_index, lane, interval_start, clock_offset_ns), n, slip)| HealthRow {
            phase,
            phase_index,
            lane,
            interval_start,
            interval_ns: n[0],
            slip: slip.unwrap_or_default(),
            busy_ns: n[1],
            cpu_ns: n[2],
            in_flight_max: n[3],
            backlog_max: n[4],
            clock_offset_ns,
            clock_error_ns: n[5],
            unacknowledged: n[6],
        })
}

fn commandstats_row() -> impl Strategy<Value = CommandstatsRow> {
    let calls = || option::of(count());
    (text(), phase(), node(), text(), calls(), calls(), calls(), calls(), option::of(text())).prop_map(
        |(
            phase,
            phase_index,
            node,
            command,
            calls_before,
            calls_after,
            rejected_before,
            rejected_after,
            why_not,
        )| {
            CommandstatsRow {
                phase,
                phase_index,
                node,
                command,
                calls_before,
                calls_after,
                rejected_before,
                rejected_after,
                why_not,
            }
        },
    )
}

/// INFO fields that are columns, numbers as Rust writes them.
fn info() -> impl Strategy<Value = BTreeMap<String, String>> {
    let integers = vec(option::of(any::<i64>()), INFO_INTEGERS.len());
    let ratios = vec(option::of(-1e6..1e6_f64), INFO_RATIOS.len());
    (integers, ratios, option::of(text())).prop_map(|(integers, ratios, allocator)| {
        let integers = INFO_INTEGERS.iter().zip(integers).filter_map(|(k, v)| Some((*k, v?.to_string())));
        let ratios = INFO_RATIOS.iter().zip(ratios).filter_map(|(k, v)| Some((*k, v?.to_string())));
        let allocator = allocator.map(|v| ("mem_allocator", v));
        integers.chain(ratios).chain(allocator).map(|(k, v)| (k.to_owned(), v)).collect()
    })
}

fn sample() -> impl Strategy<Value = Sample> {
    ((count(), any::<i64>(), count(), text()), (phase(), node(), text(), option::of(text()))).prop_map(
        |((tick, sampled_at, took_ns, phase), (phase_index, node, role, missing))| Sample {
            tick,
            sampled_at,
            took_ns,
            phase,
            phase_index,
            node,
            role,
            missing,
        },
    )
}

fn memory_row() -> impl Strategy<Value = MemoryRow> {
    let process = (count(), count(), count(), count()).prop_map(
        |(rss_bytes, swap_bytes, minor_faults, major_faults)| Process {
            rss_bytes,
            swap_bytes,
            minor_faults,
            major_faults,
        },
    );
    (
        (sample(), text(), info(), vec(option::of(count()), 7)),
        (option::of(any::<bool>()), option::of(process)),
    )
        .prop_map(|((sample, address, info, n), (indexing, process))| MemoryRow {
            sample,
            address,
            keys: n[0],
            info,
            module_used_memory_bytes: n[1],
            module_reclaimable_bytes: n[2],
            index_size_bytes: n[3],
            index_docs: n[4],
            index_failures: n[5],
            indexing,
            mutation_queue: n[6],
            process,
        })
}

fn size_class() -> impl Strategy<Value = SizeClass> {
    (any::<bool>(), count(), count(), vec(option::of(count()), 9)).prop_map(
        |(is_bin, size_bytes, allocated_bytes, n)| SizeClass {
            kind: if is_bin { ClassKind::Bin } else { ClassKind::Large },
            size_bytes,
            allocated_bytes,
            held_bytes: n[0],
            regions: n[1],
            slabs: n[2],
            nonfull_slabs: n[3],
            regions_per_slab: n[4],
            pages_per_slab: n[5],
            slabs_made: n[6],
            nmalloc: n[7],
            ndalloc: n[8],
        },
    )
}

fn allocator_row() -> impl Strategy<Value = AllocatorRow> {
    let totals = (count(), count(), count()).prop_map(|(allocated, active, resident)| AllocatorTotals {
        allocated,
        active,
        resident,
    });
    (sample(), option::of(totals), option::of(size_class()))
        .prop_map(|(sample, totals, class)| AllocatorRow { sample, totals, class })
}

/// rows -> batch -> IPC -> batch -> rows, with the table's schema on the way.
fn round_trip<R: Clone + Debug + PartialEq>(
    table: Table,
    stamp: &Stamp,
    rows: &[R],
    to: impl Fn(&Stamp, &[R]) -> Result<RecordBatch, Error>,
    from: impl Fn(&RecordBatch) -> Result<Vec<(Stamp, R)>, Error>,
) -> Result<(), TestCaseError> {
    let batch = to(stamp, rows).unwrap();
    check_schema(table, &batch).unwrap();
    prop_assert_eq!(batch.schema(), table.schema());
    let received = read_ipc(&write_ipc(&batch).unwrap()).unwrap();
    prop_assert_eq!(&received, &vec![batch]);
    let back = from(&received[0]).unwrap();
    let sent: Vec<(Stamp, R)> = rows.iter().map(|row| (stamp.clone(), row.clone())).collect();
    prop_assert_eq!(back, sent);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn latency_rows_survive(stamp in stamp(), rows in vec(latency_row(), 0..4)) {
        round_trip(Table::Latency, &stamp, &rows, latency::to_batch, latency::from_batch)?;
    }

    #[test]
    fn rollup_rows_survive(run in text(), rows in vec((latency_row(), count()), 0..4)) {
        let run = RunId::new(run);
        let rows: Vec<_> = rows.into_iter().map(|(row, workers)| RollupRow { workers, row }).collect();
        let batch = latency::to_rollup_batch(&run, &rows).unwrap();
        check_schema(Table::LatencyRollup, &batch).unwrap();
        let received = read_ipc(&write_ipc(&batch).unwrap()).unwrap();
        let back = latency::from_rollup_batch(&received[0]).unwrap();
        prop_assert_eq!(back, rows.into_iter().map(|row| (run.clone(), row)).collect::<Vec<_>>());
    }

    #[test]
    fn memory_rows_survive(stamp in stamp(), rows in vec(memory_row(), 0..4)) {
        round_trip(Table::Memory, &stamp, &rows, memory::to_batch, memory::from_batch)?;
    }

    #[test]
    fn allocator_rows_survive(stamp in stamp(), rows in vec(allocator_row(), 0..4)) {
        round_trip(Table::Allocator, &stamp, &rows, allocator::to_batch, allocator::from_batch)?;
    }

    #[test]
    fn recall_rows_survive(stamp in stamp(), rows in vec(recall_row(), 0..4), queries in vec(query_row(), 0..4)) {
        round_trip(Table::Recall, &stamp, &rows, recall::to_batch, recall::from_batch)?;
        round_trip(Table::RecallQueries, &stamp, &queries, recall::to_queries_batch, recall::from_queries_batch)?;
    }

    #[test]
    fn events_health_and_commandstats_rows_survive(
        stamp in stamp(), events in vec(event_row(), 0..4), health in vec(health_row(), 0..4),
        commands in vec(commandstats_row(), 0..4),
    ) {
        round_trip(Table::Events, &stamp, &events, events::to_batch, events::from_batch)?;
        round_trip(Table::Health, &stamp, &health, health::to_batch, health::from_batch)?;
        round_trip(Table::Commandstats, &stamp, &commands, commandstats::to_batch, commandstats::from_batch)?;
    }

    #[test]
    fn plot_columns_say_what_the_histograms_say(
        row in latency_row(), response in option::of(spread()), service in option::of(spread()),
    ) {
        let row = LatencyRow { cell: Cell { response, service, ..row.cell }, ..row };
        let batch = latency::to_batch(&columns::nobody(), std::slice::from_ref(&row)).unwrap();
        let at = |name: &str| {
            let column = batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
            column.is_valid(0).then(|| u64::try_from(column.value(0)).unwrap())
        };
        for (of, hdr) in [("response", &row.cell.response), ("service", &row.cell.service)] {
            for (name, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999), ("p9999", 0.9999), ("max", 1.0)] {
                let wanted = hdr.as_ref().and_then(|h| h.quantile(q));
                prop_assert_eq!(at(&format!("{of}_{name}_ns")), wanted, "{} {}", of, name);
            }
        }
        let c = &row.cell;
        let sum = u128::from(c.attempts_executed) + u128::from(c.attempts_rejected) + u128::from(c.attempts_unknown);
        let capped = u64::try_from(sum).unwrap_or(u64::MAX).min(u64::MAX / 2);
        prop_assert_eq!(at("attempts"), Some(capped));
    }

    #[test]
    fn a_torn_stream_is_refused(row in event_row(), cut in any::<prop::sample::Index>()) {
        let bytes = write_ipc(&events::to_batch(&columns::nobody(), &[row]).unwrap()).unwrap();
        let kept = &bytes[..cut.index(bytes.len())];
        let refused = matches!(read_ipc(kept), Err(Error::Torn { length }) if length == kept.len());
        prop_assert!(refused);
        prop_assert_eq!(read_ipc(&bytes).unwrap().len(), 1);
    }

    #[test]
    fn info_text_is_read_line_by_line(fields in proptest::collection::btree_map("[a-z_]{1,9}", "[^\\r\\n]{0,9}", 0..9)) {
        let lines: String = fields.iter().map(|(k, v)| format!("{k}:{v}\r\n")).collect();
        let read = parse_info(&format!("# Memory\r\n{lines}\r\n# Other\r\n"));
        prop_assert_eq!(read.len(), fields.len());
        for (name, value) in fields {
            prop_assert_eq!(read.get(&name).unwrap().trim_end(), value.trim_end());
        }
    }
}

#[test]
fn tables_are_found_by_name() {
    for table in Table::ALL {
        assert_eq!(table.as_str().parse::<Table>().unwrap(), table);
    }
    assert!(matches!("latencies".parse::<Table>(), Err(Error::UnknownTable(_))));
}

#[test]
fn every_table_begins_with_its_stamp_and_keeps_to_few_types() {
    let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    for table in Table::ALL {
        let schema = table.schema();
        let first: Vec<&str> = schema.fields().iter().take(4).map(|f| f.name().as_str()).collect();
        assert_eq!(first, ["run", "worker", "generation", "sequence"], "{table}");
        let mut names: Vec<&String> = schema.fields().iter().map(|f| f.name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), schema.fields().len(), "{table} names a column twice");
        for field in schema.fields() {
            let histogram = field.name().ends_with("_hdr");
            let legal = match field.data_type() {
                DataType::Utf8 | DataType::Int64 | DataType::Float64 => !histogram,
                DataType::Binary => histogram && field.is_nullable(),
                other => *other == instant,
            };
            assert!(legal, "{table}.{}: {}", field.name(), field.data_type());
        }
    }
}

#[test]
fn a_batch_of_another_schema_is_refused_with_the_difference() {
    let events = events::to_batch(&columns::nobody(), &[]).unwrap();
    let refused = latency::from_batch(&events).unwrap_err().to_string();
    assert!(refused.contains("table latency") && refused.contains("column 4 is `at`"), "{refused}");
    let fewer = events.project(&(0..events.num_columns() - 1).collect::<Vec<_>>()).unwrap();
    assert!(events::from_batch(&fewer).unwrap_err().to_string().contains("missing, expected `count` Int64"));
    let mut fields: Vec<Field> = events.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("more", DataType::Int64, true));
    let more = RecordBatch::new_empty(Arc::new(Schema::new(fields.clone())));
    assert!(
        events::from_batch(&more).unwrap_err().to_string().contains("unknown column `more` Int64 or null")
    );
    fields.pop();
    fields[0] = Field::new("run", DataType::Utf8, true);
    let nulls = RecordBatch::new_empty(Arc::new(Schema::new(fields)));
    assert!(events::from_batch(&nulls).unwrap_err().to_string().contains("column 0 is `run` Utf8 or null"));
}

/// `INFO MEMORY` of Valkey 9.1.2, as recorded.
const INFO_MEMORY: &str = include_str!("memory/info_memory_valkey_9.1.2.txt");

#[test]
fn every_numeric_field_of_a_real_server_is_a_column() {
    let schema = Table::Memory.schema();
    let info = parse_info(INFO_MEMORY);
    assert_eq!(info.len(), 56);
    for (name, value) in &info {
        let numeric = value.strip_suffix('%').unwrap_or(value).parse::<f64>().is_ok();
        let type_of = schema.field_with_name(name).map(|f| f.data_type().clone()).ok();
        let wanted = match (numeric, name == "mem_allocator") {
            (true, _) if value.contains('.') => Some(DataType::Float64),
            (true, _) => Some(DataType::Int64),
            (_, true) => Some(DataType::Utf8),
            _ => None,
        };
        assert_eq!(type_of, wanted, "{name} = {value}");
    }
}

#[test]
fn a_node_that_did_not_answer_has_no_figures() {
    let row = MemoryRow {
        sample: Sample {
            tick: 1,
            sampled_at: 2,
            took_ns: 3,
            phase: "ingest".to_owned(),
            phase_index: PhaseIndex(1),
            node: NodeId::new("a"),
            role: "primary".to_owned(),
            missing: Some("connection refused".to_owned()),
        },
        address: "127.0.0.1:1".to_owned(),
        keys: None,
        info: parse_info(
            "used_memory_rss:nonsense\nmem_fragmentation_ratio:nan\nused_memory_peak_perc:100.03%",
        ),
        module_used_memory_bytes: None,
        module_reclaimable_bytes: None,
        index_size_bytes: None,
        index_docs: None,
        index_failures: None,
        indexing: None,
        mutation_queue: None,
        process: None,
    };
    let batch = memory::to_batch(&columns::nobody(), &[row]).unwrap();
    let keys = batch.schema().index_of("keys").unwrap();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()).skip(keys) {
        let told = field.name() == "used_memory_peak_perc";
        assert_eq!(column.is_null(0), !told, "{} must be null, not zero", field.name());
    }
}
