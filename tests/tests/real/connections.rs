//! What a connection may be made of: TLS, a Unix socket, RESP3, a replica at its end.

use std::collections::BTreeMap;

use fleet_tests::certificates::Certificates;
use fleet_tests::cluster::Servers;
use fleet_tests::command::{Output, finish, project};
use fleet_tests::run::{Results, assert_sound, phase, report};
use vst_analysis::{Check, Summary};

const TALK: &str = "tests/scenarios/connections.yaml";

/// Runs a scenario on a target with these variables.
async fn run(
    results: &Results,
    scenario: &str,
    url: &str,
    variables: &[(&str, String)],
    extra: &[&str],
) -> Output {
    let file = project().join(scenario);
    let args = [&["scenario", file.to_str().expect("text"), "--target", url], extra].concat();
    let mut command = results.command(&args);
    command.args(["--cleanup", "--json"]).envs(variables.iter().cloned());
    finish(command).await
}

fn exact(report: &Summary) {
    assert!(!report.accounting.is_empty());
    for row in &report.accounting {
        assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
    }
}

fn file(authority: &Certificates, name: &str) -> String {
    authority.file(name).display().to_string()
}

fn talked(output: &Output) {
    let report = report(output);
    assert_sound(output, &report);
    exact(&report);
    for operation in &phase(&report, "talk").operations {
        assert_eq!((operation.ok, operation.miss), (operation.due, 0), "{operation:?}");
        assert_eq!(operation.ok, 200, "{operation:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_connections_are_made_with_those_who_can_be_trusted_and_nobody_else() {
    let authority = Certificates::new(&["server", "client"]);
    let stranger = Certificates::new(&[]);
    let (servers, url) = Servers::with_tls(&authority).await;
    let results = Results::new();
    let client = || {
        [
            ("VST_TARGET_CERT", file(&authority, "client.pem")),
            ("VST_TARGET_KEY", file(&authority, "client.key")),
        ]
    };
    let known = ("VST_TARGET_CA", file(&authority, "ca.pem"));
    talked(&run(&results, TALK, &url, &[&client()[..], std::slice::from_ref(&known)].concat(), &[]).await);
    // What arrived through TLS is what the plain port holds: nothing is left after the clean-up there either.
    assert_eq!(servers.keys_under("vst:").await, [""; 0]);

    let unknown = ("VST_TARGET_CA", file(&stranger, "ca.pem"));
    for (variables, code, said) in [
        (vec![unknown.clone()], 4, "VST_TARGET_CA"),
        (vec![known.clone()], 4, "VST_TARGET_CERT"),
        (vec![("VST_TARGET_CA", String::from("/nowhere.pem"))], 2, "VST_TARGET_CA names `/nowhere.pem`"),
    ] {
        let output = run(&results, TALK, &url, &variables, &[]).await;
        assert_eq!(output.code, code, "{variables:?}\n{}", output.stderr);
        assert!(output.stderr.contains(said), "{variables:?}\n{}", output.stderr);
    }
    // Only who says so trusts anybody.
    let anybody = [&client()[..], &[unknown, ("VST_TARGET_INSECURE", String::from("1"))]].concat();
    talked(&run(&results, TALK, &url, &anybody, &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_this_machine_is_reached_through_its_socket_in_either_version_of_the_protocol() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("valkey.sock");
    let path = path.to_str().expect("text");
    let servers = Servers::with_socket(path).await;
    let results = Results::new();
    let url = format!("unix://{path}");
    for protocol in ["resp2", "resp3"] {
        let set = format!("connection.protocol={protocol}");
        let lanes_only = ["--set", &set];
        let watched = run(&results, TALK, &url, &[], &lanes_only);
        let mut connection = servers.connection(&servers.cluster.nodes()[0].address).await;
        let seen = async {
            let wanted = format!("resp={}", if protocol == "resp3" { 3 } else { 2 });
            loop {
                let list: String =
                    redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.expect("CLIENT LIST");
                // Their name begins with that of the run.
                let lanes: Vec<&str> = list.lines().filter(|line| line.contains("-connections-")).collect();
                if let Some(line) = lanes.first() {
                    assert!(lanes.iter().all(|line| line.contains(&wanted)), "{line}");
                    assert!(lanes.iter().all(|line| line.contains(path)), "{line}");
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        let (output, seen) = tokio::join!(watched, tokio::time::timeout(fleet_tests::command::LIMIT, seen));
        talked(&output);
        seen.expect("lanes say who they are");
    }
}

/// Calls of a command at primaries and at replicas.
async fn shared(servers: &Servers, command: &str) -> (u64, u64) {
    let mut calls = (0, 0);
    let counted: BTreeMap<_, _> = servers.commandstats(command).await;
    for node in servers.cluster.nodes() {
        let of_node = counted[&node.id].calls;
        if node.replica_of.is_some() { calls.1 += of_node } else { calls.0 += of_node }
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_answer_what_changes_nothing_and_are_held_to_the_same_account() {
    let servers = Servers::with_replicas().await;
    let results = Results::new();
    let file = project().join("tests/scenarios/replicas.yaml");
    let file = file.to_str().expect("text");
    let url = servers.url();
    let (output, report) = results.run(&["scenario", file, "--target", &url, "--cleanup"]).await;
    assert_sound(&output, &report);
    // Three parts of each of 300 queries, in turn at primary and replica.
    let (primaries, replicas) = shared(&servers, "ft.search").await;
    assert_eq!(primaries + replicas, 900);
    assert!(primaries.abs_diff(replicas) <= 60, "in turn: {primaries} {replicas}");
    let parts_of_replicas = replicas;
    let knn = &phase(&report, "ask").operations[0];
    assert_eq!((knn.operation.as_str(), knn.ok, knn.partial), ("knn", 300, 0), "{knn:?}");
    let recall = phase(&report, "ask").recall.as_ref().and_then(|r| r.recall).expect("recall");
    assert!(recall > 0.999, "replicas hold the same rows: {recall}");
    let (primaries, replicas) = shared(&servers, "get").await;
    // The coordinator looks at its own sign of life in the same way before it cleans up.
    assert!((3_000..=3_005).contains(&(primaries + replicas)), "{primaries} {replicas}");
    assert!(
        primaries.abs_diff(replicas) <= 60,
        "in turn, at each of three primaries: {primaries} {replicas}"
    );
    let at_replicas =
        |node: &str| servers.cluster.nodes().iter().any(|n| n.id.as_str() == node && n.replica_of.is_some());
    let mut reads = 0;
    for row in &report.accounting {
        if at_replicas(&row.node) && matches!(row.command.as_str(), "get" | "FT.SEARCH") {
            assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
            reads += row.executed;
        } else if !at_replicas(&row.node) {
            assert_eq!(row.check, Check::Holds { exact: true }, "{row:?}");
        }
    }
    assert_eq!(reads, replicas + parts_of_replicas);

    // Only replicas: a primary gets no read at all.
    let (before, _) = shared(&servers, "get").await;
    let set = ["--set", "connection.read_from=prefer_replica", "--set", "connection.protocol=resp2"];
    let (output, _) =
        results.run(&[&["scenario", file, "--target", &url, "--cleanup"], &set[..]].concat()).await;
    assert!(matches!(output.code, 0 | 7), "{}", output.stderr);
    // But for the coordinator's own look at its sign of life.
    let after = shared(&servers, "get").await.0;
    assert!((before..=before + 5).contains(&after), "{before} {after}");

    // Where there is no replica, that is said before anything is sent.
    let alone = Servers::without_search().await;
    let talk = project().join(TALK);
    let set = ["--set", "connection.read_from=round_robin"];
    let mut command = results.command(&["scenario", talk.to_str().expect("text"), "--target", &alone.url()]);
    command.args(set);
    let output = finish(command).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("no replica"), "{}", output.stderr);
}
