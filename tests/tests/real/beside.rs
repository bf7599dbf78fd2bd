//! What runs beside a phase, on a real cluster: loads with schedules of their own, and an index that is made anew under
//! queries. Everything that is sent is counted, and what stays is found.

use fleet_tests::cluster::Servers;
use fleet_tests::command::{project, run};
use fleet_tests::course::{check_rows, controls, ended};
use fleet_tests::run::{Results, assert_sound, phase};
use vst_common::entry::Control;

const TEXT: &str = "
name: own
purpose: what happens at once
dataset: {base: BASE/base.u8bin, queries: BASE/query.u8bin, ground_truth: BASE/groundtruth.bin, rows: 4000}
index: {algorithm: hnsw, metric: l2}
keyspace: {keys: 500}
fleet: {workers: 2, lanes: 1}
sampling: {interval: 100ms}
phases:
  - name: create
    create_index: {}
  - name: load
    ingest: {load: {open: {rate: 2k/s, connections: 4}}}
    beside:
      - {name: early, query: {k: 10, load: {open: {rate: 50/s, connections: 2}}}}
  - name: half
    shrink: {keep: 50%, load: {closed: {clients: 4, pipeline: 8}}}
  - name: churn
    churn: {by: 20%, load: {open: {rate: 400/s, connections: 4}}}
    beside:
      - name: readers
        query: {k: 10, ef_runtime: 200, load: {open: {rate: 100/s, connections: 4}}}
        criteria: [recall >= 0.9]
      - name: sessions
        after: 1s
        kv: {commands: [{command: GET, weight: 80}, {command: SET, weight: 20}], load: {open: {rate: 300/s, connections: 2}}, duration: 2s}
  - name: ask
    query: {k: 10, ef_runtime: 200, load: {open: {rate: 50/s, connections: 4}}, duration: 6s, timeout: 5s}
    criteria: [recall >= 0]
    beside:
      - {name: remake, after: 1s, rebuild_index: {m: 8}}
      - {name: note, after: 2s, command: {run: [touch, HERE/noted]}}
  - name: settle
    settle: {threshold: 1%, window: 500ms, max_wait: 60s}
  - name: again
    query: {k: 10, ef_runtime: 200, load: {open: {rate: 50/s, connections: 4}}, duration: 2s, timeout: 5s}
    criteria: [recall >= 0.9]
";

#[tokio::test(flavor = "multi_thread")]
async fn loads_of_their_own_run_beside_a_phase_and_an_index_is_made_anew_under_queries() {
    let servers = Servers::cluster().await;
    let folder = tempfile::tempdir().expect("a folder");
    let text = TEXT
        .replace("BASE", project().join("data/bigann10k").to_str().expect("text"))
        .replace("HERE", folder.path().to_str().expect("text"));
    let own = folder.path().join("own.yaml");
    std::fs::write(&own, text).expect("written");
    let results = Results::new();
    let target = servers.url();
    let args = ["scenario", own.to_str().expect("text"), "--target", &target, "--allow-hooks"];
    let (output, report) = results.run(&args).await;
    assert_sound(&output, &report);

    // Beside the ingest nothing stays, so nothing is judged; everything is answered all the same.
    let early = phase(&report, "early");
    assert_eq!(early.beside.as_deref(), Some("load"));
    let asked = &early.operations[0];
    assert!(asked.due >= 50 && asked.ok == asked.due, "{asked:?}");
    assert!(early.recall.as_ref().is_none_or(|recall| recall.recall.is_none()), "{:?}", early.recall);
    assert_eq!(early.unowned, 0);

    // 800 rows leave and 800 come at 400 requests a second: 4 s, and the readers as long as that.
    let readers = phase(&report, "readers");
    let asked = &readers.operations[0];
    assert!((380..=600).contains(&asked.due) && asked.ok == asked.due, "{asked:?}");
    let recall = readers.recall.as_ref().expect("judged");
    assert_eq!((recall.ghosts, recall.contamination, recall.duplicates), (0, 0, 0), "{recall:?}");
    assert!(recall.recall.is_some_and(|recall| recall >= 0.9), "{recall:?}");
    let sessions = phase(&report, "sessions");
    let (due, missed): (u64, u64) =
        (sessions.operations.iter().map(|o| o.due).sum(), sessions.operations.iter().map(|o| o.miss).sum());
    assert_eq!((due, missed), (600, 0), "the keys were written before the phase");
    let churn = phase(&report, "churn");
    assert_eq!(sessions.start_wall_ns - churn.start_wall_ns, 1_000_000_000);
    assert_eq!(readers.start_wall_ns, churn.start_wall_ns);

    // The index came anew within the phase of queries, with another shape, and finds what there is.
    let log = controls(&results).await;
    let started = |name: &str| {
        let of = |c: &Control| matches!(c, Control::PhaseStarted(p) if p.name == name);
        log.iter().position(of).unwrap_or_else(|| panic!("{name} began"))
    };
    let over = |name: &str| {
        let index = ended(&log, name).index;
        let of = |c: &Control| matches!(c, Control::PhaseEnded(p) if p.index == index);
        log.iter().position(of).expect("it ended")
    };
    for deed in ["remake", "note"] {
        assert!(started("ask") < started(deed) && over(deed) < over("ask"), "{deed} was done within");
    }
    assert!(over("remake") < started("note"), "one after the other");
    assert!(folder.path().join("noted").is_file());
    assert_eq!(phase(&report, "remake").step, "rebuild_index");

    // The server counted what the phase and everything beside it sent.
    let counted = |of: &str, command: &str| {
        let rows =
            report.accounting.iter().filter(|r| r.phase == of && r.command.eq_ignore_ascii_case(command));
        rows.map(|row| row.executed).sum::<u64>()
    };
    assert_eq!((counted("churn", "hset"), counted("churn", "del")), (800, 800));
    assert!(counted("churn", "get") + counted("churn", "set") == 600);
    assert!(counted("churn", "FT.SEARCH") >= 3 * 380, "{}", counted("churn", "FT.SEARCH"));
    assert!(report.accounting.iter().all(|row| row.phase != "readers" && row.phase != "sessions"));

    let live = log.iter().rev().find_map(|c| match c {
        Control::PopulationChanged { live, .. } => Some(*live),
        _ => None,
    });
    check_rows(&servers, live.expect("a population")).await;

    let page = folder.path().join("page.html");
    let drawn =
        run(&["visualize", "generate", &results.newest(), "--output", page.to_str().expect("text")]).await;
    assert_eq!(drawn.code, 0, "{}", drawn.stderr);
    assert!(std::fs::read_to_string(page).expect("a page").contains("readers"));
}
