//! What a fleet shows of itself: to probes, to Prometheus, to people. And that no secret is in it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{LIMIT, finish, project, vst};
use fleet_tests::course::{SLOW_INGEST, in_mid_ingest};
use fleet_tests::fleet::Fleet;
use fleet_tests::run::Results;
use fleet_tests::web::{Answer, ask, free_port, get};
use serde_json::Value;

const TOKEN: &str = "t0ken-of-the-fleet";
const PASSWORD: &str = "s3cret-of-the-server";

/// A value of a metric, summed over its labels.
fn metric(text: &str, name: &str, label: &str) -> f64 {
    text.lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")))
        .filter(|line| line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// What Prometheus's own checker has to say against metrics.
fn complaints(metrics: &str) -> String {
    let promtool = project().join(".local/debian/prometheus/usr/bin/promtool");
    assert!(promtool.is_file(), "promtool is there: run `make fleet-servers`");
    let mut checker = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    checker.stdin.take().expect("its input").write_all(metrics.as_bytes()).expect("it reads");
    let said = checker.wait_with_output().expect("it ends");
    let text = [said.stdout, said.stderr].concat();
    format!("{}{}", String::from_utf8_lossy(&text), if said.status.success() { "" } else { " (refused)" })
}

/// The metrics as soon as one of them is not zero.
async fn once_counted(address: &str, name: &str, label: &str) -> Answer {
    let counted = async {
        loop {
            let metrics = get(address, "/metrics").await;
            if metric(&metrics.body, name, label) > 0.0 {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let counted = tokio::time::timeout(LIMIT, counted).await;
    counted.unwrap_or_else(|_| panic!("{name} stays at zero"))
}

/// Every file under a folder that holds one of the secrets.
fn files_that_tell(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).expect("a file");
            let holds = |secret: &str| bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            if holds(TOKEN) || holds(PASSWORD) {
                found.push(entry.path());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_fleet_shows_what_it_does_and_no_secret_and_nothing_can_be_changed() {
    let (servers, results) = (Servers::standalone().await, Results::new());
    let mut connection = servers.connections().await.into_values().next().expect("one server");
    let password = format!(">{PASSWORD}");
    let rules = ["SETUSER", "loader", "on", &password, "~*", "&*", "+@all"];
    let _: () = redis::cmd("ACL").arg(&rules).query_async(&mut connection).await.expect("ACL");
    let url = servers.url().replace("valkey://", "valkey://loader@");

    let (of_leader, of_worker) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let secrets = [("VST_TOKEN", TOKEN), ("VST_PASSWORD", PASSWORD), ("VST_LOG", "debug")];
    let mut fleet = Fleet::start_dressed(&results, &url, &SLOW_INGEST, |command| {
        command.args(["--http", &of_leader]).envs(secrets);
    });
    let leader = fleet.address().await;
    assert_eq!(get(&of_leader, "/healthz").await.code, 200);
    for name in ["w0", "w1"] {
        fleet.start_worker(name, "debug", |command| {
            command.args(["--coordinator", &leader]).envs(secrets);
            if name == "w0" {
                command.args(["--http", &of_worker]);
            }
        });
    }
    in_mid_ingest(&servers).await;

    assert_eq!(get(&of_leader, "/readyz").await.code, 200);
    let status = get(&of_leader, "/status").await;
    let shown: Value = serde_json::from_str(&status.body).expect("JSON");
    assert_eq!((shown["role"].as_str(), shown["phase_name"].as_str()), (Some("leading"), Some("load")));
    let members = shown["members"].as_array().expect("members");
    assert_eq!(members.len(), 2, "{shown:#}");
    for member in members {
        assert!(member["cores"].as_u64() >= Some(1) && member["memory_bytes"].as_u64() > Some(1 << 20));
        assert!(member["address"].as_str().is_some_and(|a| a.starts_with("127.0.0.1:")), "{member}");
        assert_eq!(member["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(member["presence"], "here");
    }
    let ok = "outcome=\"ok\",phase=\"load\"";
    let metrics = once_counted(&of_leader, "vst_requests_total", ok).await;
    assert!(metrics.head.contains("text/plain; version=0.0.4"), "{}", metrics.head);
    assert_eq!(metric(&metrics.body, "vst_workers", ""), 2.0, "{}", metrics.body);
    assert_eq!(metric(&metrics.body, "vst_phase_rows", ""), 10_000.0, "{}", metrics.body);
    assert!(metric(&metrics.body, "process_resident_memory_bytes", "") > 1e6);
    let page = get(&of_leader, "/").await;
    assert!(page.head.contains("text/html") && page.body.contains("<title>vst</title>"));

    let own = once_counted(&of_worker, "vst_requests_total", ok).await;
    assert!(metric(&own.body, "vst_lease_left_seconds", "") > 0.0, "{}", own.body);
    assert_eq!((complaints(&metrics.body), complaints(&own.body)), (String::new(), String::new()));
    assert_eq!((get(&of_worker, "/healthz").await.code, get(&of_worker, "/readyz").await.code), (200, 200));

    for address in [&of_leader, &of_worker] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            for path in ["/", "/status", "/metrics", "/healthz"] {
                assert_eq!(ask(method, address, path).await.code, 405, "{method} {path}");
            }
        }
        assert_eq!(get(address, "/stop").await.code, 404);
    }

    let mut info = vst(&["info", "fleet", "--coordinator", &leader]);
    info.envs(secrets);
    let info = finish(info).await;
    assert_eq!(info.code, 0, "{}", info.stderr);
    for word in ["w0", "w1", "phase 3 of", "load", "127.0.0.1", "2 of 2 workers"] {
        assert!(info.stdout.contains(word), "`{word}` is missing: {}", info.stdout);
    }
    let stranger = finish(vst(&["info", "fleet", "--json", "--coordinator", &leader])).await;
    assert_eq!(stranger.code, 5, "without the token nobody is told: {}", stranger.stdout);
    assert!(stranger.stderr.contains("VST_TOKEN"), "{}", stranger.stderr);

    let (output, _) = fleet.end().await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let mut told = vec![status.body, metrics.body, page.body, own.body, info.stdout, info.stderr];
    told.extend(["coordinator", "w0", "w1"].map(|who| fleet.said(who)));
    for text in told {
        assert!(!text.contains(TOKEN) && !text.contains(PASSWORD), "a secret is told: {text}");
    }
    // What is compressed in the run directory is read as its reader shows it.
    let run = results.newest();
    let page = format!("{}/page.html", results.path());
    let readers: [&[&str]; 4] = [
        &["analyze", "summary", &run],
        &["analyze", "query", "select * from events", "--run", &run, "--json"],
        &["analyze", "query", "select distinct worker from health", "--run", &run, "--json"],
        &["visualize", "generate", &run, "--output", &page],
    ];
    for args in readers {
        let output = finish(vst(args)).await;
        assert!(matches!(output.code, 0 | 7), "{args:?}: {}", output.stderr);
        let text = output.stdout + &output.stderr;
        assert!(!text.contains(TOKEN) && !text.contains(PASSWORD), "a secret is told: {text}");
    }
    assert_eq!(files_that_tell(std::path::Path::new(results.path())), Vec::<std::path::PathBuf>::new());
}
