//! What an earlier run left is taken over, completed, or refused; rows may come before the index; copies go whole.

use fleet_tests::cluster::Servers;
use fleet_tests::command::{Output, finish, project};
use fleet_tests::run::{Results, assert_sound, phase};
use vst_analysis::{Check, Summary};
use vst_common::keys::slot;

fn scenario(name: &str) -> String {
    project().join("tests/scenarios").join(name).to_string_lossy().into_owned()
}

/// Rows that the phase `load` wrote.
fn loaded(report: &Summary) -> u64 {
    phase(report, "load").operations.iter().filter(|o| o.operation == "hset").map(|o| o.ok).sum()
}

/// What the report says of an earlier run.
fn said(report: &Summary) -> &str {
    report.setting.prefill.as_deref().unwrap_or_default()
}

fn is_whole(output: &Output, report: &Summary) {
    assert_sound(output, report);
    for row in &report.accounting {
        assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
    }
    let recall = phase(report, "ask").recall.as_ref().expect("a query phase has recall");
    let faults = (recall.ghosts, recall.contamination, recall.duplicates, recall.partial);
    assert_eq!((recall.recall, faults), (Some(1.0), (0, 0, 0, 0)), "{recall:?}");
}

/// Does something to each of some keys on the node that owns it.
async fn on_each(servers: &Servers, keys: &[String], command: impl Fn(&str) -> redis::Cmd) {
    let mut connections = servers.connections().await;
    for key in keys {
        let mut done = false;
        for connection in connections.values_mut() {
            done |= command(key).query_async::<redis::Value>(connection).await.is_ok();
        }
        assert!(done, "nobody owns `{key}` of slot {}", slot(key.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_loaded_again_what_is_missing_is_and_other_rows_are_refused() {
    let servers = Servers::cluster().await;
    let (results, file, url) = (Results::new(), scenario("prefill.yaml"), servers.url());
    let args = ["scenario", &file, "--target", &url];
    let (output, report) = results.run(&args).await;
    is_whole(&output, &report);
    assert_eq!((loaded(&report), said(&report)), (10_000, ""), "nothing was there");
    assert!(report.checkpoints.iter().any(|c| c.step == "baseline"));

    let (output, report) = results.run(&args).await;
    is_whole(&output, &report);
    assert_eq!(loaded(&report), 0, "everything was there");
    assert!(said(&report).contains("nothing is loaded"), "{}", said(&report));
    assert!(!report.checkpoints.iter().any(|c| c.step == "baseline"), "a loaded target is no baseline");

    let all = servers.keys_under("vst:").await;
    assert_eq!(all.len(), 10_000);
    on_each(&servers, &all[..1_234], |key| redis::cmd("UNLINK").arg(key).to_owned()).await;
    let (output, report) = results.run(&args).await;
    is_whole(&output, &report);
    assert_eq!(loaded(&report), 1_234, "what was missing");
    assert!(said(&report).contains("an index over 8766 rows"), "{}", said(&report));
    assert_eq!(servers.keys_under("vst:").await, all);

    // Of other bytes nothing is overwritten.
    let other = vec![7_u8; 512];
    on_each(&servers, &all[..1_000], |key| redis::cmd("HSET").arg(key).arg("vector").arg(&other).to_owned())
        .await;
    let refused = finish(results.command(&args)).await;
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    for word in ["is not what this scenario writes there", "--cleanup"] {
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    let refused = finish(results.command(&[&args[..], &["--set", "index.algorithm=hnsw"]].concat())).await;
    assert!(
        refused.code == 4 && refused.stderr.contains("another algorithm than HNSW"),
        "{}",
        refused.stderr
    );
    let refused =
        finish(results.command(&[&args[..], &["--set", "phases.load.prefill=none"]].concat())).await;
    assert!(refused.code == 4 && refused.stderr.contains("--cleanup"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_over_loaded_rows_finds_them_all_and_copies_go_whole() {
    let servers = Servers::cluster().await;
    let (results, url) = (Results::new(), servers.url());
    let (output, report) = results.run(&["scenario", &scenario("backfill.yaml"), "--target", &url]).await;
    is_whole(&output, &report);
    assert_eq!(loaded(&report), 25_000);
    for (name, copies) in [("ask", 3), ("ask_one", 0), ("ask_some", 0)] {
        let recall = phase(&report, name).recall.as_ref().expect("recall");
        // One copy is not told apart.
        assert_eq!((recall.recall, recall.by_copy.len()), (Some(1.0), copies), "{name}: {recall:?}");
        assert_eq!((recall.ghosts, recall.contamination), (0, 0), "{name}: {recall:?}");
    }
    let sent = |name: &str| phase(&report, name).operations.iter().map(|o| o.ok).sum::<u64>();
    assert_eq!((sent("drop_copies"), sent("keep_some")), (15_000, 7_000));
    let keys = servers.keys_under("vst:").await;
    assert_eq!(keys.len(), 3_000);
    assert!(keys.iter().all(|key| !key.contains("expand")), "only the base is left");
}

/// No target is named: the servers are vst's own, and end with the run.
#[tokio::test(flavor = "multi_thread")]
async fn a_local_target_that_was_saved_is_there_again_in_other_servers() {
    let (results, file) = (Results::new(), scenario("prefill.yaml"));
    let folder = tempfile::tempdir().expect("a folder");
    let saved = folder.path().join("saved").to_string_lossy().into_owned();
    let (output, report) = results.run(&["scenario", &file, "--save-target", &saved]).await;
    is_whole(&output, &report);
    assert_eq!(loaded(&report), 10_000);
    assert!(output.stderr.contains("saved the target's data"), "{}", output.stderr);

    let (output, report) = results.run(&["scenario", &file, "--restore-target", &saved]).await;
    is_whole(&output, &report);
    assert_eq!(loaded(&report), 0, "everything was there: {}", said(&report));

    // Nothing is written over, and nothing that is not whole is taken for it.
    let again = finish(results.command(&["scenario", &file, "--save-target", &saved])).await;
    assert!(again.code == 2 && again.stderr.contains("it is not empty"), "{}", again.stderr);
    let cut = folder.path().join("saved/primary-1.rdb");
    std::fs::File::options().write(true).open(&cut).expect("a file").set_len(10).expect("cut");
    let torn = finish(results.command(&["scenario", &file, "--restore-target", &saved])).await;
    assert!(torn.code == 2 && torn.stderr.contains("primary-1.rdb has 10 bytes"), "{}", torn.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_others_is_saved_only_where_its_operator_allows_it() {
    let servers = Servers::standalone().await;
    let (results, url, file) = (Results::new(), servers.url(), scenario("prefill.yaml"));
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.yaml");
    let args = |config: &std::path::Path| {
        let rows = ["--set", "dataset.rows=1000"].map(str::to_owned);
        let args = ["scenario", &file, "--target", &url, "--bgsave", "--config"].map(str::to_owned);
        [&args[..], &[config.display().to_string()], &rows].concat()
    };
    std::fs::write(&config, "guard: {most_rows: 5000}\n").expect("written");
    let owned = args(&config);
    let words: Vec<&str> = owned.iter().map(String::as_str).collect();
    let refused = finish(results.command(&words)).await;
    assert!(refused.code == 2 && refused.stderr.contains("guard: {save: allowed}"), "{}", refused.stderr);

    std::fs::write(&config, "guard: {save: allowed}\n").expect("written");
    let (output, report) = results.run(&words).await;
    assert_sound(&output, &report);
    let line = output.stderr.lines().find(|line| line.contains("saved its data in")).expect("it says where");
    let path = line.rsplit(' ').next().expect("a path");
    assert!(
        std::fs::read(path).expect("the file").starts_with(b"REDIS")
            || std::fs::read(path).expect("the file").starts_with(b"VALKEY")
    );
}
