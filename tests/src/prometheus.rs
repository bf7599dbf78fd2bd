//! A Prometheus and a pushgateway, for one test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::command::project;
use crate::web::{free_port, get};

/// How long one of them may take to be ready.
const START: Duration = Duration::from_secs(30);

/// A running pushgateway, killed with the value.
#[derive(Debug)]
pub struct Pushgateway {
    address: String,
    _child: Child,
}

impl Pushgateway {
    /// Starts one that has nothing.
    pub async fn start() -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let listen = format!("--web.listen-address={address}");
        let child = spawn(&program("prometheus-pushgateway", "prometheus-pushgateway"), &[listen]);
        ready(&address).await;
        Self { address, _child: child }
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it holds, as a Prometheus would read it.
    pub async fn metrics(&self) -> String {
        get(&self.address, "/metrics").await.body
    }
}

/// A running Prometheus, killed with the value.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    _child: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes the processes of a fleet and a pushgateway twice a second.
    pub async fn start(fleet: &[&str], gateway: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = serde_json::json!({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "scrape_configs": [
                {"job_name": "fleet", "static_configs": [{"targets": fleet}]},
                {"job_name": "pushed", "honor_labels": true, "static_configs": [{"targets": [gateway]}]},
            ],
        });
        let file = folder.path().join("prometheus.yml");
        // JSON is YAML too.
        std::fs::write(&file, config.to_string()).expect("written");
        let address = format!("127.0.0.1:{}", free_port());
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let child = spawn(&program("prometheus", "prometheus"), &arguments);
        ready(&address).await;
        Self { address, _child: child, _folder: folder }
    }

    /// Answers an expression: the list of series that it gives.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let answer = get(&self.address, &path).await;
        let said: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(said["status"], "success", "{expression}: {said}");
        said["data"]["result"].as_array().expect("a list of series").clone()
    }

    /// The names of all metrics that it has.
    pub async fn names(&self) -> Vec<String> {
        let answer = get(&self.address, "/api/v1/label/__name__/values").await;
        let said: Value = serde_json::from_str(&answer.body).expect("JSON");
        serde_json::from_value(said["data"].clone()).expect("names")
    }
}

fn spawn(program: &Path, arguments: &[String]) -> Child {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts")
}

fn program(package: &str, name: &str) -> PathBuf {
    let program = project().join(".local/debian").join(package).join("usr/bin").join(name);
    assert!(program.is_file(), "{name} is there: run `scripts/fetch-debian.sh {package}`");
    program
}

async fn ready(address: &str) {
    let ready = async {
        while get(address, "/-/ready").await.code != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(START, ready).await.expect("it gets ready");
}

/// As the value of a query in a URL.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
