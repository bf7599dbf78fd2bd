//! A run kept small enough for the repository: what its log says of phases, and memory at its checkpoints.
//!
//! The batches of latency and the rest are left out, so a report of it says that they are missing; what vectors cost
//! stands in it as it was measured.

use std::path::Path;

use arrow_array::{BooleanArray, RecordBatch, StringArray};
use arrow_select::filter::filter_record_batch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use vst_common::batch::Table;
use vst_common::batch::table::read_ipc;
use vst_common::entry::{Control, Entry};
use vst_common::run_dir::layout::{Part, entry_path};
use vst_common::run_dir::{RUN_JSON, RunDir};

/// Writes the record of a run into a folder, in place of what was there.
pub async fn keep(run: &str, to: &Path) {
    let dir = RunDir::open(run).expect("the run directory opens");
    let mut controls = Vec::new();
    let mut last = None;
    for number in dir.list_entries().await.expect("its log can be listed") {
        let entry = dir.read_entry(number).await.expect("every entry is whole");
        controls.extend(entry.controls.into_iter().filter(is_course));
        last = Some((entry.epoch, entry.leader, entry.written_at));
    }
    let (epoch, leader, written_at) = last.expect("a run has entries");
    let checkpoints: Vec<String> = controls
        .iter()
        .filter_map(|control| match control {
            Control::PhaseStarted(p) if matches!(p.step.as_str(), "baseline" | "checkpoint") => {
                Some(p.name.clone())
            }
            _ => None,
        })
        .collect();
    let rows = memory(&dir, run, &checkpoints).await;
    let _ = std::fs::remove_dir_all(to);
    let part = to.join(Part { table: Table::Memory, first: 1, last: 1 }.path());
    for file in [&to.join(entry_path(1)), &part] {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    }
    let entry = Entry { number: 1, epoch, leader, written_at, controls, batches: Vec::new() };
    std::fs::write(to.join(entry_path(1)), entry.encode().expect("encoded")).expect("written");
    let facts = dir.read_run_json().await.expect("what ran");
    std::fs::write(to.join(RUN_JSON), serde_json::to_string_pretty(&facts).expect("JSON")).expect("written");
    let schema = rows.first().expect("memory was sampled").schema();
    let file = std::fs::File::create(part).expect("a file");
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).expect("a writer");
    for batch in &rows {
        writer.write(batch).expect("written");
    }
    writer.close().expect("closed");
}

/// Whether a control says what ran when, and not who did which part of it.
fn is_course(control: &Control) -> bool {
    matches!(
        control,
        Control::Led { .. }
            | Control::RunOpened { .. }
            | Control::WorkerJoined { .. }
            | Control::PhaseStarted(_)
            | Control::PhaseEnded(_)
            | Control::RunClosed { .. }
    )
}

/// The rows of table `memory` of these phases.
async fn memory(dir: &RunDir, run: &str, phases: &[String]) -> Vec<RecordBatch> {
    let cover = dir.cover(Table::Memory).await.expect("its parts can be listed");
    let mut all = Vec::new();
    for part in &cover.parts {
        let file = std::fs::File::open(Path::new(run).join(part.path())).expect("a part");
        let rows = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build()).expect("Parquet");
        all.extend(rows.map(|batch| batch.expect("rows")));
    }
    for number in &cover.uncovered {
        let entry = dir.read_entry(*number).await.expect("every entry is whole");
        for stored in entry.batches.iter().filter(|stored| stored.table == Table::Memory) {
            all.extend(read_ipc(&stored.ipc).expect("a batch"));
        }
    }
    let of_phases = |batch: &RecordBatch| {
        let names = batch.column_by_name("phase").expect("a phase");
        let names = names.as_any().downcast_ref::<StringArray>().expect("text");
        let wanted: BooleanArray =
            names.iter().map(|name| Some(name.is_some_and(|n| phases.iter().any(|p| p == n)))).collect();
        filter_record_batch(batch, &wanted).expect("rows of the batch")
    };
    all.iter().map(of_phases).filter(|batch| batch.num_rows() > 0).collect()
}
