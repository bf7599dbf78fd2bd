//! A target is somebody's server: what vst did not make is refused and left alone.

use fleet_tests::cluster::Servers;
use fleet_tests::command::finish;
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
