//! An etcd of one node, for one test, that can be killed and started again.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::command::project;
use crate::web::free_port;

/// How long etcd may take to answer.
const START: Duration = Duration::from_secs(30);

/// A running etcd, killed with the value.
#[derive(Debug)]
pub struct Etcd {
    child: Child,
    client_port: u16,
    peer_port: u16,
    folder: tempfile::TempDir,
    lives: u32,
}

impl Etcd {
    /// Starts one with an empty store.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (client_port, peer_port) = (free_port(), free_port());
        let child = spawn(&folder.path().join("0"), client_port, peer_port);
        let etcd = Self { child, client_port, peer_port, folder, lives: 0 };
        etcd.answers().await;
        etcd
    }

    /// Where clients go.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Ends it without a word (SIGKILL).
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("etcd can be killed");
    }

    /// Starts it again on the same ports, with what it stored or with an empty store.
    pub async fn restart(&mut self, keep: bool) {
        if !keep {
            self.lives += 1;
        }
        let data = self.folder.path().join(self.lives.to_string());
        self.child = spawn(&data, self.client_port, self.peer_port);
        self.answers().await;
    }

    async fn answers(&self) {
        let address = format!("127.0.0.1:{}", self.client_port);
        let open = async {
            while tokio::net::TcpStream::connect(&address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(START, open).await.expect("etcd answers");
    }
}

fn spawn(data: &std::path::Path, client_port: u16, peer_port: u16) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    Command::new(program())
        .arg("--data-dir")
        .arg(data)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"])
        .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("etcd starts")
}

fn program() -> PathBuf {
    let program = project().join(".local/debian/etcd-server/usr/bin/etcd");
    assert!(program.is_file(), "etcd is there: run `scripts/fetch-debian.sh etcd-server`");
    program
}
