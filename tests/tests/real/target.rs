//! A target is somebody's server: what vst did not make is refused and left alone.

use fleet_tests::cluster::Servers;
use fleet_tests::command::{Watched, finish};
use fleet_tests::run::Results;

async fn refused(results: &Results, target: &str, extra: &[&str]) -> String {
    ends(results, target, extra, 4).await
}

/// Runs against a target and gives what was said; it has to end with a code before anything is written.
async fn ends(results: &Results, target: &str, extra: &[&str], code: i32) -> String {
    let output = finish(results.command(&[&["quick", "--target", target], extra].concat())).await;
    assert_eq!(output.code, code, "{}", output.stderr);
    assert!(results.run_dirs().is_empty(), "nothing was written");
    output.stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_indexes_that_vst_did_not_make_are_refused() {
    let servers = Servers::standalone().await;
    let results = Results::new();
    let mut connection = servers.connections().await.into_values().next().expect("one server");
    let _: () = redis::cmd("SET").arg("vst:mine").arg(1).query_async(&mut connection).await.expect("SET");
    for extra in [&[][..], &["--cleanup"]] {
        let said = refused(&results, &servers.url(), extra).await;
        assert!(said.contains("vst:mine") && said.contains("prefix"), "{said}");
    }
    assert_eq!(servers.keys().await, ["vst:mine"], "and nothing else was touched");

    let _: () = redis::cmd("DEL").arg("vst:mine").query_async(&mut connection).await.expect("DEL");
    let create =
        "vst_index ON HASH PREFIX 1 other: SCHEMA v VECTOR FLAT 6 TYPE FLOAT32 DIM 4 DISTANCE_METRIC L2";
    let _: () = redis::cmd("FT.CREATE")
        .arg(create.split(' ').collect::<Vec<_>>())
        .query_async(&mut connection)
        .await
        .expect("FT.CREATE");
    for extra in [&[][..], &["--cleanup"]] {
        let said = refused(&results, &servers.url(), extra).await;
        assert!(said.contains("vst_index"), "{said}");
    }
    assert_eq!(servers.indexes().await, ["vst_index"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_alive_is_not_cleaned_away_by_another() {
    let servers = Servers::standalone().await;
    let (results, others) = (Results::new(), Results::new());
    let url = servers.url();
    let args = ["quick", "--target", &url, "--set", "phases.query_full.query.duration=8s"];
    let mut first = Watched::start(results.command(&args));
    first.says("query_full").await;
    for extra in [&[][..], &["--cleanup"], &["--cleanup", "--dry-run"]] {
        let said = if extra.contains(&"--dry-run") {
            let output = finish(others.command(&[&["quick", "--target", &url], extra].concat())).await;
            output.stdout
        } else {
            refused(&others, &url, extra).await
        };
        assert!(said.contains("sign of life") && said.contains("-quick-"), "{extra:?}: {said}");
        assert_eq!(servers.keys_under("vst:").await.len(), 10_000, "{extra:?}");
        assert_eq!(servers.indexes().await, ["vst_index"], "{extra:?}");
    }
    let output = first.end().await;
    // On a busy machine its load may have been late, which is not what is asked here.
    assert!([0, 7].contains(&output.code), "it has not noticed: {}\n{}", output.stdout, output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_touched_where_somebody_has_put_keys_beside_what_a_dead_run_left() {
    let servers = Servers::standalone().await;
    let results = Results::new();
    let mut connection = servers.connections().await.into_values().next().expect("one server");
    let plan = serde_json::json!({
        "run": "dead", "prefix": "vst:", "rows": 2, "copies": 1, "dims": 128, "vst": "0.1.0", "made_at": "long ago",
    });
    let mut left = redis::pipe();
    left.cmd("HSET").arg("_vst_owner:vst:").arg("plan").arg(plan.to_string());
    // Row 2 is behind the plan.
    for key in ["vst:000000000000", "vst:000000000001", "vst:000000000002"] {
        left.cmd("HSET").arg(key).arg("vector").arg("x");
    }
    let _: redis::Value = left.query_async(&mut connection).await.expect("HSET");
    let before = servers.keys().await;
    for extra in [&["--cleanup"][..], &["--cleanup", "--dry-run"]] {
        let said = refused(&results, &servers.url(), extra).await;
        assert!(said.contains("`vst:000000000002`") && said.contains("nothing was touched"), "{said}");
        assert_eq!(servers.keys().await, before, "{extra:?}");
    }

    let _: () = redis::cmd("DEL").arg("vst:000000000002").query_async(&mut connection).await.expect("DEL");
    let dry = ["quick", "--target", &servers.url(), "--cleanup", "--dry-run"];
    let output = finish(results.command(&dry)).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let said = &output.stdout;
    assert!(said.contains("run dead") && said.contains("up to 2 keys"), "{said}");
    assert!(said.contains("memory    about") && said.contains("storage   about"), "{said}");
    assert_eq!(servers.keys().await.len(), 3, "a dry run writes and removes nothing");
    assert!(results.run_dirs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_cannot_be_had_are_refused_with_the_numbers_before_anything_is_written() {
    let servers = Servers::standalone().await;
    let results = Results::new();
    let mut connection = servers.connections().await.into_values().next().expect("one server");
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "maxclients", "30"])
        .query_async(&mut connection)
        .await
        .expect("CONFIG SET");
    let said = ends(&results, &servers.url(), &[], 3).await;
    assert!(said.contains("lets 30 clients in") && said.contains("connections"), "{said}");
    assert_eq!(servers.keys().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_serve_is_named_with_the_fix_before_anything_starts() {
    let results = Results::new();
    // A port that was free a moment ago.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let url = format!("valkey://127.0.0.1:{port}");
    let said = refused(&results, &url, &[]).await;
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");

    let servers = Servers::without_search().await;
    let said = refused(&results, &servers.url(), &[]).await;
    assert!(said.contains("search module"), "{said}");
    assert_eq!(servers.keys().await, Vec::<String>::new(), "nothing was written to it");

    let said = ends(&results, "http://127.0.0.1:1", &[], 2).await;
    assert!(said.contains("valkey://"), "the expected form is named: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_used_and_never_printed() {
    let servers = Servers::standalone().await;
    let mut connection = servers.connections().await.into_values().next().expect("one server");
    let rules = ["SETUSER", "loader", "on", ">s3cret-word", "~*", "&*", "+@all"];
    let _: () = redis::cmd("ACL").arg(&rules).query_async(&mut connection).await.expect("ACL");
    let url = servers.url().replace("valkey://", "valkey://loader@");
    let results = Results::new();
    let mut command = results.command(&["quick", "--target", &url]);
    for set in ["phases.query_full.query.duration=1s", "phases.query_half.query.duration=1s"] {
        command.args(["--set", set]);
    }
    command.env("VST_PASSWORD", "s3cret-word").env("VST_LOG", "debug");
    let output = finish(command).await;
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    assert!(!output.stdout.contains("s3cret-word") && !output.stderr.contains("s3cret-word"));
    let mut folders = vec![std::path::PathBuf::from(results.newest())];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).expect("file");
            let found = bytes.windows(11).any(|w| w == b"s3cret-word");
            assert!(!found, "the password stands in {}", entry.path().display());
        }
    }

    let mut command = results.command(&["quick", "--target", &url]);
    command.env("VST_PASSWORD", "wrong");
    let output = finish(command).await;
    assert_eq!(output.code, 4, "{}", output.stderr);
    assert!(output.stderr.contains("VST_PASSWORD"), "the fix is named: {}", output.stderr);
}
