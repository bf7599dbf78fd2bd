//! Runs that look better than they are, and directories that are not whole.

use vst_common::entry::PhaseOutcome;
use vst_common::outcome::ErrorKind;
use vst_common::scenario::{Arrival, Load};

use super::*;

fn event(kind: &str, at: i64, node: &str, detail: &str) -> EventRow {
    EventRow {
        at: 1_800_000_000_000_000_000 + at,
        phase: String::from("ask"),
        phase_index: PhaseIndex(2),
        kind: kind.to_owned(),
        node: Some(vst_common::ids::NodeId::new(node)),
        detail: detail.to_owned(),
        count: 1,
    }
}

/// Of `of` queries of phase `ask`, `wrong` are answered with an error.
fn with_errors(m: &mut Made, wrong: u64, of: u64) {
    let phase = m.find("ask");
    for row in phase.latency.iter_mut().flatten().filter(|r| r.operation == "knn") {
        let errors = row.cell.ok * wrong / of;
        row.cell.ok -= errors;
        row.cell.ok_in_window -= errors;
        row.cell.errors[ErrorKind::Other.index()] += errors;
    }
    phase.events[1].push(event("error_reply", 20, "node-b", "ERR a later one"));
    phase.events[0].push(event("error_reply", 10, "node-a", "ERR vst_index: no such index"));
}

#[tokio::test]
async fn a_phase_of_errors_is_not_valid_and_not_saturated() {
    let found = made(|m| with_errors(m, 9, 10)).await;
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::Errors]);
    assert_eq!(found.verdict.saturated, vec![], "the target answered everything in time");
    let text = &found.verdict.not_valid[0].text;
    assert!(text.contains("90.0 % of all") && text.contains("bound 1.00 %"), "{text}");
    assert!(text.contains("first: `ERR vst_index: no such index` from node node-a"), "{text}");
    assert_eq!(found.exit(), Exit::NotValid);
}

#[tokio::test]
async fn a_few_errors_are_a_finding() {
    let found = made(|m| with_errors(m, 1, 150)).await;
    assert_eq!(rules(&found.verdict.findings), vec![Rule::Errors]);
    assert_eq!(found.exit(), Exit::Valid);
}

#[tokio::test]
async fn a_phase_without_requests_is_not_valid_and_listed() {
    let empty = |rate: f64| {
        made(move |m| {
            let phase = m.find("ask");
            phase.latency = [Vec::new(), Vec::new()];
            phase.recall.clear();
            phase.commandstats.clear();
            phase.started.order.as_mut().unwrap().load =
                Load::Open { arrival: Arrival::Constant { rate }, connections: 16 };
        })
    };
    let found = empty(0.05).await;
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::NoRequests]);
    let report = render_terminal(&found, false);
    let listed: Vec<&str> = report.lines().filter(|line| line.starts_with("ask ")).collect();
    assert!(listed.len() >= 2, "in the tables of load and of requests: {report}");
    assert_eq!(rules(&empty(300.0).await.verdict.not_valid), vec![Rule::NoRequests, Rule::Unowned]);
}

#[tokio::test]
async fn an_index_that_a_node_says_nothing_of_is_named() {
    for silent in 1..=3 {
        let found = made(|m| {
            let rows = &mut m.find("half").memory;
            rows.iter_mut()
                .filter(|r| NODES[..silent].contains(&r.sample.node.as_str()))
                .for_each(|r| r.index_docs = None);
        })
        .await;
        assert_eq!(rules(&found.verdict.not_valid), vec![Rule::IndexCount]);
        let text = &found.verdict.not_valid[0].text;
        assert!(text.contains(&format!("{silent} of 3 primaries")), "{text}");
        assert_eq!(found.checkpoints[2].figures.as_ref().unwrap().index_docs, None, "a part is no sum");
    }
    let found = made(|m| m.find("baseline").memory.iter_mut().for_each(|r| r.index_docs = None)).await;
    assert_eq!(found.exit(), Exit::Valid, "before there is an index nothing is missing");
}

#[tokio::test]
async fn memory_that_comes_back_beyond_the_average_is_explained() {
    let found = made(|m| {
        for row in &mut m.find("half").memory {
            row.info =
                vst_common::batch::memory::parse_info("used_memory:10000000\nused_memory_rss:11000000\n");
        }
    })
    .await;
    assert_eq!(found.checkpoints[2].figures.as_ref().unwrap().returned_share, Some(2.0));
    let report = render_terminal(&found, false);
    assert!(report.contains("more when it costs less"), "{report}");
}

#[tokio::test]
async fn a_phase_that_was_stopped_was_offered_what_its_schedule_had_until_then() {
    // Stopped 4.5 s after the start: 3.5 s of the measured window; the drain took until 9 s.
    let found = made(|m| {
        let phase = m.find("ask");
        let ended = phase.ended.as_mut().unwrap();
        ended.outcome = PhaseOutcome::Interrupted;
        ended.end_wall_ns = phase.started.start_wall_ns + 9_000_000_000;
        let last = phase.started.start_wall_ns + 4_000_000_000;
        for rows in &mut phase.latency {
            rows.retain(|r| r.interval_start <= last);
            for row in rows.iter_mut().filter(|r| r.interval_start == last && r.operation == "knn") {
                row.cell.due = 75;
                row.cell.sent = 75;
                row.cell.ok = 75;
                row.cell.ok_in_window = 75;
            }
        }
        m.closed = Some(RunState::Interrupted);
    })
    .await;
    let ask = found.phases.iter().find(|p| p.name == "ask").unwrap();
    let knn = &ask.operations[0];
    assert_eq!((knn.due, knn.length_ns), (3 * 300 + 150, 3_500_000_000));
    assert_eq!((knn.offered_per_second, knn.achieved_per_second), (Some(300.0), Some(300.0)));
    assert_eq!(ask.unowned, 0);
    assert_eq!(found.verdict.saturated, vec![]);
}

#[tokio::test]
async fn a_lost_workers_share_is_offered_and_counted_as_unowned() {
    let found = made(|m| {
        let phase = m.find("ask");
        let lost_at = phase.started.start_wall_ns + 6_000_000_000;
        phase.latency[1].retain(|r| r.interval_start < lost_at);
        m.lost = Some("w2");
        m.find("ask").count_on_servers();
    })
    .await;
    let ask = found.phases.iter().find(|p| p.name == "ask").unwrap();
    let knn = &ask.operations[0];
    assert_eq!((knn.due, ask.scheduled, ask.unowned), (3_000 - 750, Some(3_000), 750));
    assert_eq!(knn.offered_per_second, Some(300.0), "the schedule is not the fleet's");
    assert_eq!(found.verdict.saturated, vec![], "what nobody sent says nothing of the target");
    let unowned: Vec<&Note> = found.verdict.not_valid.iter().filter(|n| n.rule == Rule::Unowned).collect();
    assert_eq!(unowned.len(), 1);
    assert_eq!(unowned[0].phase.as_deref(), Some("ask"));
    assert!(unowned[0].text.contains("750 of 3,000"), "{}", unowned[0].text);
}

#[tokio::test]
async fn another_clients_requests_are_not_our_miscount() {
    let disturbed = |keys: u64, calls: i64| {
        made(move |m| {
            let ticks = m.find("full").memory.clone();
            let phase = m.find("ask");
            for mut row in ticks {
                row.sample.phase = String::from("ask");
                row.sample.phase_index = phase.started.index;
                row.sample.tick -= 100;
                row.keys = row.keys.map(|n| n + keys);
                phase.memory.push(row);
            }
            let row = &mut phase.commandstats[1];
            row.calls_after = row.calls_after.map(|n| n.saturating_add_signed(calls));
        })
    };
    let found = disturbed(5, 7).await;
    assert_eq!(rules(&found.verdict.not_valid), vec![]);
    assert_eq!(rules(&found.verdict.findings), vec![Rule::NotCheckable]);
    let text = &found.verdict.findings[0].text;
    assert!(text.contains("another client") && text.contains("14 keys more"), "{text}");
    // Fewer than we have replies for is nobody else's doing.
    assert_eq!(rules(&disturbed(5, -7).await.verdict.not_valid), vec![Rule::Accounting]);
    // Without a trace the report says that it cannot tell.
    let found = disturbed(0, 7).await;
    assert_eq!(rules(&found.verdict.not_valid), vec![Rule::Accounting]);
    assert!(found.verdict.not_valid[0].text.contains("no trace tells which"));
}

#[tokio::test]
async fn a_query_only_reads() {
    let folder = Made::valid().write();
    let run = [folder.path().to_str().unwrap().to_owned()];
    let out = folder.path().join("out.parquet");
    for sql in [
        format!("copy (select 1) to '{}'", out.display()),
        format!("copy latency to '{}' stored as parquet", out.display()),
        String::from("create table t as select 1"),
        String::from("create view v as select 1"),
        String::from("create external table t stored as parquet location '/tmp/'"),
        String::from("drop table latency"),
        String::from("insert into phases select * from phases"),
        String::from("delete from phases"),
        String::from("update phases set phase = 'x'"),
        String::from("set datafusion.execution.batch_size = 1"),
        String::from("explain analyze insert into phases select * from phases"),
    ] {
        let error = query(&run, &sql).await.unwrap_err();
        assert!(matches!(error, Error::ReadOnly(_)), "{sql}: {error}");
        assert_eq!(error.exit(), Exit::Usage);
        assert!(!out.exists());
    }
    for sql in
        ["with a as (select 1 as x) select x from a", "show tables", "explain select 1", "describe latency"]
    {
        query(&run, sql).await.unwrap();
    }
}

#[tokio::test]
async fn damaged_files_are_named() {
    let whole = Made::valid();
    let folder = whole.write();
    let path = folder.path().to_str().unwrap().to_owned();
    let tables: Vec<Table> = Table::ALL.into_iter().filter(|t| *t != Table::LatencyRollup).collect();
    whole.compact(folder.path(), &tables, 1, 8);
    let name = vst_common::run_dir::Part { table: Table::Memory, first: 1, last: 8 }.path();
    let part = folder.path().join(&name);
    let bytes = std::fs::read(&part).unwrap();

    for kept in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&part, &bytes[..kept]).unwrap();
        let error = summary(&path).await.unwrap_err();
        assert!(error.to_string().contains(&name) && error.to_string().contains(&path), "{kept}: {error}");
        assert_eq!(error.exit(), Exit::Usage);
    }
    let mut scribbled = bytes.clone();
    scribbled[4..bytes.len() / 4].fill(0xff);
    std::fs::write(&part, &scribbled).unwrap();
    let error = query(std::slice::from_ref(&path), "select sum(used_memory), max(node) from memory")
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    std::fs::write(&part, &bytes).unwrap();
    summary(&path).await.unwrap();

    let folder = whole.write();
    let path = folder.path().to_str().unwrap().to_owned();
    let entry = vst_common::run_dir::layout::entry_path(3);
    std::fs::write(folder.path().join(&entry), b"").unwrap();
    let error = summary(&path).await.unwrap_err();
    assert!(error.to_string().contains(&entry) && error.to_string().contains(&path), "{error}");
}
