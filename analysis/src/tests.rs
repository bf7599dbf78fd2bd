//! The laws of the whole crate, over a run directory made up by arithmetic.

mod criteria;
mod export;
mod findings;
mod fixture;
mod judgement;
mod page;
mod record;

use arrow_array::RecordBatch;
use fixture::{Made, NODES, open_outcome};
use tempfile::TempDir;
use vst_common::batch::Table;
use vst_common::batch::events::EventRow;
use vst_common::entry::RunState;
use vst_common::exit::Exit;
use vst_common::ids::PhaseIndex;
use vst_common::outcome::{Attempt, Kind};

use super::*;

async fn read(folder: &TempDir) -> Summary {
    let mut found = summary(folder.path().to_str().unwrap()).await.unwrap();
    // The folder differs from run to run.
    found.directory = String::from("runs/20270115-made");
    found
}

async fn made(change: impl FnOnce(&mut Made)) -> Summary {
    let mut made = Made::valid();
    change(&mut made);
    read(&made.write()).await
}

fn rules(notes: &[Note]) -> Vec<Rule> {
    notes.iter().map(|note| note.rule).collect()
}

#[tokio::test]
async fn a_valid_run_is_reported_valid_first() {
    let found = made(|_| {}).await;
    assert_eq!(found.exit(), Exit::Valid);
    assert_eq!(found.verdict.findings, vec![]);
    insta::assert_snapshot!(render_terminal(&found, false));
}

#[tokio::test]
async fn the_summary_survives_json() {
    let found = made(|m| m.killed_in("ask")).await;
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), found);
}

#[tokio::test]
async fn numbers_are_those_that_were_recorded() {
    let found = made(|_| {}).await;
    let ask = found.phases.iter().find(|p| p.name == "ask").unwrap();
    let knn = &ask.operations[0];
    assert_eq!(
        (knn.due, knn.ok, knn.length_ns),
        (3_000, 3_000, 10_000_000_000),
        "the warm-up does not count"
    );
    assert_eq!(knn.offered_per_second, Some(300.0));
    assert_eq!(knn.achieved_per_second, Some(300.0));
    let p50 = knn.response.as_ref().unwrap().p50.ns;
    assert!((1_230_000..1_260_000).contains(&p50), "{p50}");
    assert_eq!(ask.nodes.len(), 3);
    let recall = ask.recall.as_ref().unwrap();
    assert_eq!(recall.recall, Some((95.0 * 300.0 + 5.0 * 270.0) / 30_000.0));
    let load = found.phases.iter().find(|p| p.name == "load").unwrap();
    assert_eq!(load.operations.len(), 1, "three nodes are one operation");
    assert_eq!(load.operations[0].achieved_per_second, Some(3_000.0));
    assert_eq!(load.operations[0].response, None, "a closed loop has no response time");
    let full = &found.checkpoints[1].figures.as_ref().unwrap();
    assert_eq!(full.net_bytes_per_vector, Some(2_000.0));
    let half = &found.checkpoints[2].figures.as_ref().unwrap();
    assert_eq!(half.net_bytes_per_vector, Some(2_200.0));
    assert_eq!(half.returned_share, Some((18_000_000.0 - 9_900_000.0) / 9_000_000.0));
}

#[tokio::test]
async fn sql_as_people_write_it_agrees_with_the_report() {
    let folder = Made::valid().write();
    let path = folder.path().to_str().unwrap().to_owned();
    let found = summary(&path).await.unwrap();
    let sql = "select phase, hdr_quantile(hdr_merge(response_hdr), 0.99) as p99 from latency group by phase";
    let answer = query(&[path], sql).await.unwrap().to_json_lines().unwrap();
    let mut phases = 0;
    for line in answer.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let phase = found.phases.iter().find(|p| row["phase"] == p.name).unwrap();
        let response = phase.operations[0].response.as_ref();
        assert_eq!(row.get("p99").and_then(serde_json::Value::as_u64), response.map(|r| r.p99.ns), "{line}");
        phases += 1;
    }
    assert_eq!(phases, 4);
}

#[tokio::test]
async fn the_whole_table_holds_warm_up_and_parts_too() {
    let folder = Made::valid().write();
    let path = folder.path().to_str().unwrap().to_owned();
    let sql = "select operation, \"window\", sum(ok) as ok from latency_all where phase = 'ask' \
               group by operation, \"window\" order by operation, \"window\"";
    let answer = query(&[path], sql).await.unwrap();
    insta::assert_snapshot!(answer.to_table().unwrap());
}

#[tokio::test]
async fn censored_quantiles_are_lower_bounds() {
    let found = made(|m| {
        let cell = m.find("ask").cell("knn");
        // A twentieth of the phase's requests wait for a server that does not answer.
        for _ in 0..150 {
            cell.due += 1;
            cell.sent += 1;
            cell.record(&open_outcome(900_000_000, 0, Kind::Timeout), u64::MAX);
        }
    })
    .await;
    let response = found.phases[2].operations[0].response.as_ref().unwrap();
    assert!(response.p99.censored && response.max.censored && !response.p50.censored);
    let text = render_terminal(&found, false);
    assert!(text.contains("> 900 ms"), "{text}");
    assert_eq!(
        found.exit(),
        Exit::Valid,
        "a target that does not answer is a finding, not a fault of the fleet"
    );
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn a_killed_run_opens_at_any_entry_and_is_partial() {
    let whole = Made::valid();
    let entries = whole.entries();
    for kept in 1..entries.len() {
        let folder = whole.write();
        for entry in entries.iter().skip(kept) {
            let path = vst_common::run_dir::layout::entry_path(entry.number);
            std::fs::remove_file(folder.path().join(path)).unwrap();
        }
        let found = read(&folder).await;
        assert_eq!(found.exit(), Exit::Interrupted, "{kept} entries");
        assert_eq!(found.phases.len(), kept - 1);
        assert!(render_terminal(&found, false).starts_with("PARTIAL"));
    }
}

#[tokio::test]
async fn a_run_killed_within_a_phase_shows_what_it_had() {
    let found = made(|m| {
        m.killed_in("ask");
        m.run_json = false;
    })
    .await;
    assert_eq!(found.verdict.end, RunEnd::Open);
    let knn = &found.phases[2].operations[0];
    assert_eq!((knn.ok, knn.length_ns), (1_200, 4_000_000_000));
    insta::assert_snapshot!(render_terminal(&found, false));
}

#[tokio::test]
async fn a_count_that_is_off_by_one_is_a_violation() {
    for (change, text) in
        [(1_i64, "grew by 3301, workers sent at most 3300"), (-1, "grew by 3299, workers have 3300 replies")]
    {
        let found = made(|m| {
            let row = &mut m.find("ask").commandstats[1];
            row.calls_after = row.calls_after.map(|n| n.saturating_add_signed(change));
        })
        .await;
        assert_eq!(found.exit(), Exit::NotValid);
        let report = render_terminal(&found, false);
        assert!(report.starts_with("NOT VALID") && report.contains(text), "{report}");
        assert!(report.contains("NOT VALID\n  ask: FT.SEARCH on node node-b"), "{report}");
    }
}

#[tokio::test]
async fn unknown_attempts_widen_the_bound_and_no_more() {
    for (counted, exit) in [(3_300, Exit::Valid), (3_301, Exit::Valid), (3_302, Exit::NotValid)] {
        let found = made(|m| {
            let phase = m.find("ask");
            phase.cell("knn_part").record_attempt(Attempt::Unknown);
            let node = phase.commandstats.iter_mut().find(|r| r.node.as_str() == NODES[0]).unwrap();
            node.calls_after = Some(1_000 + counted);
        })
        .await;
        assert_eq!(found.exit(), exit, "{counted}");
        assert!(
            found.accounting.iter().any(|r| r.check == Check::Holds { exact: false }) || exit != Exit::Valid
        );
    }
}

#[tokio::test]
async fn a_window_that_cannot_be_checked_says_why() {
    let found = made(|m| {
        let phase = m.find("load");
        phase.commandstats[0].why_not = Some(String::from("the node restarted"));
        phase.commandstats.truncate(2);
    })
    .await;
    assert_eq!(found.exit(), Exit::Valid);
    assert_eq!(rules(&found.verdict.findings), vec![Rule::NotCheckable, Rule::NotCheckable]);
    assert!(render_terminal(&found, false).contains("the node restarted"));
}

#[tokio::test]
async fn a_tick_without_a_node_is_not_complete() {
    let drop_node = |phase: &mut fixture::MadePhase, ticks: usize| {
        for row in phase.memory.iter_mut().filter(|r| r.sample.node.as_str() == NODES[2]).rev().take(ticks) {
            row.sample.missing = Some(String::from("no answer within 1 s"));
            row.info.clear();
        }
    };
    let found = made(|m| drop_node(m.find("half"), 1)).await;
    let figures = found.checkpoints[2].figures.as_ref().unwrap();
    assert_eq!(figures.tick, 601, "the last complete tick, not the last");
    assert_eq!(figures.net_bytes_per_vector, Some(2_200.0));
    assert_eq!(found.exit(), Exit::Valid);

    let found = made(|m| drop_node(m.find("half"), 3)).await;
    assert_eq!(found.checkpoints[2].figures, None);
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::UnsampledCheckpoint]);
    assert_eq!(found.exit(), Exit::NotValid);
    // A worker that went takes its rows with it: nodes that nobody asked are missing as well.
    let found = made(|m| m.find("half").memory.retain(|r| r.sample.node.as_str() != NODES[2])).await;
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::UnsampledCheckpoint]);
    insta::assert_snapshot!(render_terminal(&found, false));
}

#[tokio::test]
async fn a_tick_after_the_end_is_not_of_the_phase() {
    // The last node alone decides: the two others were asked within the phase.
    let late = |after_end_ns: i64, ended: bool| {
        made(move |m| {
            m.tick_at_end("half", after_end_ns, 60_000);
            let phase = m.find("half");
            let rows = phase.memory.iter_mut().rev().skip(1).take(2);
            rows.for_each(|row| row.sample.sampled_at -= after_end_ns + 1);
            if !ended {
                phase.ended = None;
            }
        })
    };
    for (after_end_ns, ended, tick, ticks) in [(1, true, 602, 3), (0, true, 603, 4), (1, false, 603, 4)] {
        let found = late(after_end_ns, ended).await;
        let half = &found.checkpoints[2];
        assert_eq!(half.figures.as_ref().unwrap().tick, tick, "{after_end_ns} {ended}");
        assert_eq!((half.ticks, half.complete_ticks), (ticks, ticks));
    }
    let half = late(1, true).await.checkpoints.remove(2);
    assert_eq!(half.figures.unwrap().net_bytes_per_vector, Some(2_200.0));
}

#[tokio::test]
async fn the_names_of_the_keys_are_told_apart() {
    let found = made(|_| {}).await;
    let bytes: Vec<_> = found.checkpoints.iter().map(|c| c.key_name_bytes).collect();
    assert_eq!(bytes, [Some(0), Some(9_000 * 16), Some(4_500 * 16)], "`vst:` and 12 digits");
    assert!(render_terminal(&found, false).contains("of that key names 16 B/vector"));
}

#[tokio::test]
async fn rows_that_a_worker_dropped_are_not_valid() {
    let event = |kind: &str, count: u64| EventRow {
        at: 1_800_000_000_000_000_000,
        phase: String::new(),
        phase_index: PhaseIndex(0),
        kind: kind.to_owned(),
        node: None,
        detail: String::from("70 rows in 2 batches did not fit into memory"),
        count,
    };
    let found = made(|m| {
        m.find("load").events[1].push(event("undelivered", 2));
        m.find("ask").events[1].push(event("undelivered", 3));
        m.find("ask").events[0].push(event("moved", 9));
    })
    .await;
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::MissingBatches]);
    let text = &found.verdict.not_valid[0].text;
    assert!(text.contains("worker w2 says 5 times") && text.contains("70 rows in 2 batches"), "{text}");
    assert_eq!(found.exit(), Exit::NotValid);
}

#[tokio::test]
async fn a_lane_is_busy_of_the_time_that_the_phase_took() {
    // A quarter of a second of work in a phase of 268 ms, or of none that is logged: one interval of a second.
    for (took_ns, share) in [(Some(268_000_000), 250.0 / 268.0), (Some(200_000_000), 1.0), (None, 0.25)] {
        let found = made(|m| {
            let phase = m.find("load");
            phase.health.iter_mut().for_each(|rows| rows.truncate(1));
            phase.health[0][0].busy_ns = 250_000_000;
            phase.health[1][0].busy_ns = 0;
            let start = phase.started.start_wall_ns;
            match (took_ns, &mut phase.ended) {
                (Some(took_ns), Some(ended)) => ended.end_wall_ns = start + took_ns,
                (_, ended) => *ended = None,
            }
        })
        .await;
        let load = found.phases.iter().find(|p| p.name == "load").unwrap();
        let busy = load.generator.as_ref().unwrap().lane_busy_share.unwrap();
        assert!((busy - share).abs() < 1e-9, "{busy} of {took_ns:?}");
        assert_eq!(rules(&found.verdict.not_valid).contains(&Rule::BusyLanes), took_ns.is_some());
    }
}

#[tokio::test]
async fn a_lost_batch_a_repeated_one_and_an_open_stream_are_not_valid() {
    let mut made = Made::valid();
    let folder = made.write();
    let mut entries = made.entries();
    let write = |entry: &vst_common::entry::Entry| {
        let path = folder.path().join(vst_common::run_dir::layout::entry_path(entry.number));
        std::fs::write(path, entry.encode().unwrap()).unwrap();
    };
    // The last batch of the last phase with load: only the statement knows of it.
    let entry = &mut entries[6];
    let at = entry.batches.iter().rposition(|b| b.worker.as_str() == "w2").unwrap();
    let batch = entry.batches.remove(at);
    write(entry);
    let found = read(&folder).await;
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::MissingBatches]);

    entry.batches.push(batch.clone());
    entry.batches.push(batch);
    write(entry);
    assert_eq!(rules(&read(&folder).await.verdict.not_valid), vec![Rule::RepeatedBatches]);

    made.find("ask").stated = false;
    let found = read(&made.write()).await;
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::OpenStream, Rule::OpenStream]);
}

#[tokio::test]
async fn batches_that_do_not_add_up_to_the_statement_are_not_valid() {
    let made = Made::valid();
    let folder = made.write();
    let mut entries = made.entries();
    for control in &mut entries[3].controls {
        if let vst_common::entry::Control::StreamEnded { totals, .. } = control {
            totals.ok += 1;
        }
    }
    let path = folder.path().join(vst_common::run_dir::layout::entry_path(4));
    std::fs::write(path, entries[3].encode().unwrap()).unwrap();
    assert_eq!(rules(&read(&folder).await.verdict.not_valid), vec![Rule::Totals, Rule::Totals]);
}

#[tokio::test]
async fn a_lost_worker_keeps_the_lower_bound_only() {
    let lost = |counted: u64| {
        made(move |m| {
            m.lost = Some("w2");
            m.find("halve").commandstats[0].calls_after = Some(1_000 + counted);
        })
    };
    let found = lost(1_700).await;
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::LostWorker]);
    assert_eq!(found.exit(), Exit::Fleet);
    assert!(rules(&lost(1_499).await.verdict.not_valid).contains(&Rule::Accounting));
}

#[tokio::test]
async fn the_fleets_own_faults_are_not_valid() {
    let found = made(|m| {
        for row in &mut m.find("ask").health[1] {
            (0..10).for_each(|_| {
                row.slip.record(20_000_000);
            });
        }
        m.find("load").health[0].iter_mut().for_each(|row| row.busy_ns = 900_000_000);
    })
    .await;
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::BusyLanes, Rule::Slip]);
}

#[tokio::test]
async fn a_target_that_cannot_follow_is_saturated_and_valid() {
    let found = made(|m| {
        let cell = m.find("ask").cell("knn");
        cell.due += 400;
        for _ in 0..400 {
            cell.record(&open_outcome(2_000_000_000, 0, Kind::Unsent), u64::MAX);
        }
    })
    .await;
    assert_eq!(rules(&found.verdict.saturated), vec![Rule::Saturated, Rule::Saturated]);
    assert_eq!(found.exit(), Exit::Valid);
    assert!(render_terminal(&found, false).starts_with("VALID, SATURATED\n"));
    assert!(render_terminal(&found, true).starts_with("\x1b[1;33mVALID, SATURATED\x1b[0m\n"));
}

#[tokio::test]
async fn how_the_run_ended_decides_the_exit_code() {
    let failed = RunState::Failed { reason: String::from("the target is gone") };
    for (state, exit, headline) in [
        (RunState::Interrupted, Exit::Interrupted, "PARTIAL\n"),
        (failed, Exit::NotValid, "FAILED\n  the run failed: the target is gone\n"),
    ] {
        let found = made(|m| m.closed = Some(state)).await;
        assert_eq!(found.exit(), exit);
        assert!(render_terminal(&found, false).starts_with(headline));
    }
}

#[tokio::test]
async fn compacted_or_not_the_summary_is_the_same() {
    let made = Made::valid();
    let plain = read(&made.write()).await;
    let tables: Vec<Table> = Table::ALL.into_iter().filter(|t| *t != Table::LatencyRollup).collect();
    for (first, last) in [(1, 4), (1, 8)] {
        let folder = made.write();
        made.compact(folder.path(), &tables, first, last);
        assert_eq!(read(&folder).await, plain, "parts of entries {first} to {last}");
    }
}

#[tokio::test]
async fn the_rollup_of_uncompacted_entries_merges_workers() {
    let folder = Made::valid().write();
    let path = folder.path().to_str().unwrap().to_owned();
    let sql = |table: &str| {
        format!(
            "select count(*) as n, sum(ok) as ok, hdr_count(hdr_merge(service_hdr)) as recorded from {table} \
             where phase = 'ask' and operation = 'knn'"
        )
    };
    let json = |answer: Answer| answer.to_json_lines().unwrap().trim().to_owned();
    let each = json(query(std::slice::from_ref(&path), &sql("latency")).await.unwrap());
    let merged = json(query(std::slice::from_ref(&path), &sql("latency_rollup")).await.unwrap());
    assert_eq!(each, "{\"n\":20,\"ok\":3000,\"recorded\":3000}");
    assert_eq!(merged, "{\"n\":10,\"ok\":3000,\"recorded\":3000}");
    let same = "select count(*) as n from latency_rollup \
                where response_p99_ns <> hdr_quantile(response_hdr, 0.99) or workers <> 2 or worker <> '*'";
    assert_eq!(json(query(&[path], same).await.unwrap()), "{\"n\":0}");
}

#[tokio::test]
async fn answers_are_shown_to_people_and_to_programs() {
    let (one, two) = (Made::valid().write(), Made::valid().write());
    let paths = [&one, &two].map(|f| f.path().to_str().unwrap().to_owned());
    let sql = "select phase, count(distinct run) as runs, sum(ok) as ok, hdr_merge(service_hdr) as service \
               from latency group by phase order by phase limit 2";
    let answer = query(&paths, sql).await.unwrap();
    insta::assert_snapshot!(answer.to_table().unwrap());
    let nothing = query(&paths, "select phase, start from phases where false").await.unwrap();
    assert_eq!(nothing.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    assert!(nothing.to_table().unwrap().contains("phase"));
    assert_eq!(nothing.to_json_lines().unwrap(), "");
    let timed = query(&paths[..1], "select start from phases where phase = 'baseline'").await.unwrap();
    assert_eq!(timed.to_json_lines().unwrap(), "{\"start\":\"2027-01-15T08:00:00Z\"}\n");
}

#[tokio::test]
async fn what_cannot_be_read_names_itself() {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap().to_owned();
    std::fs::create_dir(empty.path().join("log")).unwrap();
    let error = summary(&path).await.unwrap_err();
    assert!(matches!(error, Error::NoRun { .. }), "{error}");
    let folder = Made::valid().write();
    let run = [folder.path().to_str().unwrap().to_owned()];
    let error = query(&run, "select nonsense from latency").await.unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
    assert_eq!(error.exit(), Exit::Usage);
}

/// Any work of queries.
#[tokio::test]
async fn a_run_from_before_a_column_came_is_read_as_if_the_column_had_nothing() {
    let lacks = vec![
        (Table::Latency, "miss"),
        (Table::Latency, "response_p9999_ns"),
        (Table::LatencyRollup, "miss"),
        (Table::Memory, "evicted_keys"),
        (Table::Memory, "index_failures"),
        (Table::Health, "clock_error_ns"),
    ];
    let of = async |lacks: &[(Table, &'static str)]| {
        let mut made = Made::valid();
        for row in made.phases.iter_mut().flat_map(|phase| &mut phase.memory) {
            row.index_failures = None;
        }
        for row in made.phases.iter_mut().flat_map(|phase| phase.health.iter_mut().flatten()) {
            row.clock_error_ns = 0;
        }
        made.lacks = lacks.to_vec();
        made
    };
    let (today, before) = (of(&[]).await, of(&lacks).await);
    let mut expected = read(&today.write()).await;
    for generator in expected.phases.iter_mut().filter_map(|phase| phase.generator.as_mut()) {
        generator.clock_error_ns = None;
    }
    let folder = before.write();
    assert_eq!(read(&folder).await, expected);
    // The same of compacted entries, and of both beside one another.
    before.compact(folder.path(), &[Table::Latency, Table::Memory, Table::Health], 1, 4);
    assert_eq!(read(&folder).await, expected);
    let directory = folder.path().to_str().unwrap().to_owned();
    let sql =
        "select count(*) as n, count(miss) as known, count(response_p9999_ns) as p9999 from latency_all";
    let rows = query(&[directory], sql).await.unwrap().to_json_lines().unwrap();
    assert!(rows.contains("\"known\":0,\"p9999\":0"), "{rows}");
}

/// A batch of memory as it is recorded today.
pub(crate) fn any_memory() -> RecordBatch {
    let made = Made::valid();
    let stamp = vst_common::batch::Stamp {
        run: vst_common::ids::RunId::new("20270115-made"),
        worker: vst_common::ids::WorkerId::new("w1"),
        generation: vst_common::ids::Generation(1),
        sequence: vst_common::ids::Sequence(1),
    };
    vst_common::batch::memory::to_batch(&stamp, &made.phases[0].memory[..3]).unwrap()
}

pub(crate) fn any_query() -> vst_common::phase::Work {
    vst_common::phase::Work::Query {
        vectors: fixture::work(),
        ask: vst_common::scenario::Ask::nearest(10, None),
        during: None,
    }
}

/// A summary of nothing.
pub(crate) fn any_summary() -> Summary {
    Summary {
        verdict: Verdict {
            end: RunEnd::Finished,
            coordinator_exit_code: Some(0),
            not_valid: Vec::new(),
            saturated: Vec::new(),
            missed: Vec::new(),
            findings: Vec::new(),
        },
        exit_code: 0,
        run: String::from("made"),
        directory: String::from("runs/made"),
        setting: Setting { dims: Some(128), m: Some(16), ..Setting::default() },
        phases: Vec::new(),
        leaks: Vec::new(),
        criteria: Vec::new(),
        checkpoints: Vec::new(),
        accounting: Vec::new(),
        deeds: Vec::new(),
    }
}
