//! An etcd of one node, for one test, that can be killed and started again.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::certificates::Certificates;
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
    /// Its own certificate's files and the authority whose clients it lets in, where connections are TLS.
    files: Option<[PathBuf; 3]>,
}

impl Etcd {
    /// Starts one with an empty store.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same under TLS, for clients that show a certificate of the authority; its own is `etcd`.
    pub async fn start_secure(certificates: &Certificates) -> Self {
        let [certificate, key] = certificates.of("etcd");
        Self::start_with(Some([certificate, key, certificates.authority()])).await
    }

    async fn start_with(files: Option<[PathBuf; 3]>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (client_port, peer_port) = (free_port(), free_port());
        let child = spawn(&folder.path().join("0"), client_port, peer_port, files.as_ref());
        let etcd = Self { child, client_port, peer_port, folder, lives: 0, files };
        etcd.answers().await;
        etcd
    }

    /// Where clients go.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.files.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
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
        self.child = spawn(&data, self.client_port, self.peer_port, self.files.as_ref());
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

fn spawn(data: &std::path::Path, client_port: u16, peer_port: u16, files: Option<&[PathBuf; 3]>) -> Child {
    let scheme = if files.is_some() { "https" } else { "http" };
    let (client, peer) =
        (format!("{scheme}://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = Command::new(program());
    if let Some([certificate, key, authority]) = files {
        command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(authority);
    }
    command
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
