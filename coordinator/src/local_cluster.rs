//! Real servers on loopback, for the quickstart and for tests: which binaries, on which ports, for how long.
//!
//! The command line starts one when no target is named; tests start what they need. Law: whatever was started ends
//! with its [`LocalCluster`], also when the process that owns it is killed. Servers run in process groups of their own,
//! so that a Ctrl-C in the terminal reaches vst first, and keep no data on disk unless somebody wants it saved.

mod form;
mod keeper;
mod saved;
mod server_files;
#[cfg(test)]
mod tests;

pub use saved::{Saved, SavedFile};
pub use server_files::{ServerFiles, ServerFilesError};

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vst_common::ids::NodeId;

use self::keeper::Keeper;

/// How often other ports are tried when one was taken between its choice and its use.
const PORT_ATTEMPTS: u32 = 5;
/// How long servers may take to answer and to agree.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long they may take to load what was saved.
const LOADED_WITHIN: Duration = Duration::from_secs(6 * 3_600);
/// Lines of a server's log that an error quotes.
const QUOTED_LOG_LINES: usize = 12;

/// Why local servers could not be started or steered.
#[derive(Debug, thiserror::Error)]
pub enum LocalClusterError {
    /// A binary is missing.
    #[error(transparent)]
    Files(#[from] ServerFilesError),
    /// More replicas than can be had, or no primary.
    #[error("cannot start {primaries} primaries with {replicas} replicas each: {why}")]
    Shape {
        /// Primaries asked for.
        primaries: u16,
        /// Replicas of each.
        replicas: u16,
        /// What is wrong.
        why: &'static str,
    },
    /// No folder for logs.
    #[error("cannot make a folder for the servers' logs")]
    Folder(#[source] std::io::Error),
    /// No free port on loopback.
    #[error("cannot find free ports on 127.0.0.1")]
    Ports(#[source] std::io::Error),
    /// The operating system refused to start a server.
    #[error("cannot start {}", path.display())]
    Spawn {
        /// The binary.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A server ended instead of answering.
    #[error("the server at {address} ended at its start; its log says:\n{log}")]
    Ended {
        /// Where it should answer.
        address: String,
        /// The last lines of its log.
        log: String,
    },
    /// A server answers something else than it should, or not at all.
    #[error("the server at {address} does not get ready ({why}); its log says:\n{log}")]
    NotReady {
        /// Where it should answer.
        address: String,
        /// What is awaited.
        why: String,
        /// The last lines of its log.
        log: String,
    },
    /// No node of that name.
    #[error("no local server is called {0}")]
    NoSuchNode(NodeId),
    /// A folder with saved data cannot be used.
    #[error("cannot use `{}` for the data of servers: {why}", folder.display())]
    Saved {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        why: String,
    },
    /// A server did not write its data.
    #[error("the server at {address} does not save its data")]
    NotSaved {
        /// The server.
        address: String,
        /// What it said.
        #[source]
        source: redis::RedisError,
    },
    /// Saved data could not be copied.
    #[error("cannot copy `{}` to `{}`", from.display(), to.display())]
    Copy {
        /// What was to be copied.
        from: PathBuf,
        /// Where to.
        to: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A signal could not be sent.
    #[error("cannot signal the server {node}")]
    Signal {
        /// The node.
        node: NodeId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What to start.
#[derive(Clone, Debug)]
pub struct LocalClusterOptions {
    /// Primaries of a cluster, or 1 for a standalone server.
    pub primaries: u16,
    /// Replicas of each primary; needs a cluster.
    pub replicas: u16,
    /// With one primary: a cluster of one instead of a standalone server.
    pub cluster: bool,
    /// The binaries; [`ServerFiles::find`] knows the usual places.
    pub files: ServerFiles,
    /// Where logs go; a folder that is removed at the end unless one is named.
    pub data_dir: Option<PathBuf>,
    /// More arguments for every server, after those that vst gives.
    pub extra_args: Vec<String>,
    /// What the primaries hold from the start.
    pub restore: Option<Saved>,
}

impl LocalClusterOptions {
    /// Three primaries without replicas, of these binaries.
    #[must_use]
    pub fn new(files: ServerFiles) -> Self {
        Self {
            primaries: 3,
            replicas: 0,
            cluster: true,
            files,
            data_dir: None,
            extra_args: Vec::new(),
            restore: None,
        }
    }

    /// The servers that saved data came from, with that data.
    ///
    /// # Errors
    /// [`LocalClusterError::Saved`].
    pub fn restored(files: ServerFiles, saved: Saved) -> Result<Self, LocalClusterError> {
        let (primaries, cluster) = (saved.primaries()?, saved.cluster);
        Ok(Self { primaries, cluster, restore: Some(saved), ..Self::new(files) })
    }

    /// One server that is no cluster.
    #[must_use]
    pub fn standalone(files: ServerFiles) -> Self {
        Self { primaries: 1, cluster: false, ..Self::new(files) }
    }
}

/// One running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// The cluster's name for it, or `host:port` of a standalone server.
    pub id: NodeId,
    /// `127.0.0.1:port`.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Its process.
    pub pid: u32,
    /// The primary that it copies, if it is a replica.
    pub replica_of: Option<NodeId>,
}

/// Running servers; they end when this is dropped.
#[derive(Debug)]
pub struct LocalCluster {
    nodes: Vec<LocalNode>,
    is_cluster: bool,
    // Dropped before the folder, so that no server writes into a folder that is being removed.
    keeper: Keeper,
    folder: Folder,
}

#[derive(Debug)]
enum Folder {
    Temporary(TempDir),
    Named(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Named(path) => path,
        }
    }
}

impl LocalCluster {
    /// Starts servers on free ports of 127.0.0.1 and returns when every one of them is ready to serve (in a cluster:
    /// says `cluster_state:ok`, knows all others, and replicas are in step).
    ///
    /// # Errors
    /// [`LocalClusterError`]; whatever was started by then is stopped.
    pub async fn start(options: LocalClusterOptions) -> Result<Self, LocalClusterError> {
        let (primaries, replicas) = (options.primaries, options.replicas);
        let shape = |why| LocalClusterError::Shape { primaries, replicas, why };
        if primaries == 0 {
            return Err(shape("at least one primary is needed"));
        }
        if !options.cluster && (primaries > 1 || replicas > 0) {
            return Err(shape("a standalone server has neither other primaries nor replicas"));
        }
        let count = primaries
            .checked_mul(replicas.saturating_add(1))
            .filter(|n| *n <= 1_000)
            .ok_or_else(|| shape("more than 1000 servers"))?;
        let folder = match &options.data_dir {
            Some(path) => {
                std::fs::create_dir_all(path).map_err(LocalClusterError::Folder)?;
                Folder::Named(path.clone())
            }
            None => Folder::Temporary(
                tempfile::Builder::new()
                    .prefix("vst-servers-")
                    .tempdir()
                    .map_err(LocalClusterError::Folder)?,
            ),
        };
        let mut attempt = 1;
        loop {
            let ports = free_ports(usize::from(count) * 2).map_err(LocalClusterError::Ports)?;
            match Self::start_on(&options, &ports, folder.path()).await {
                Ok((keeper, nodes)) => {
                    return Ok(Self { nodes, is_cluster: options.cluster, keeper, folder });
                }
                Err(LocalClusterError::Ended { log, .. })
                    if log.contains("Address already in use") && attempt < PORT_ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// `ports` holds for each server its own and its bus port.
    async fn start_on(
        options: &LocalClusterOptions,
        ports: &[u16],
        folder: &Path,
    ) -> Result<(Keeper, Vec<LocalNode>), LocalClusterError> {
        let mut launches = Vec::new();
        for pair in ports.chunks_exact(2) {
            let &[port, bus_port] = pair else { continue };
            let node_folder = folder.join(format!("node-{port}"));
            std::fs::create_dir_all(&node_folder).map_err(LocalClusterError::Folder)?;
            launches.push(Launch {
                port,
                bus_port,
                log: node_folder.join("server.log"),
                args: server_args(options, port, bus_port, &node_folder),
            });
        }
        let keeper = Keeper::launch(&options.files.valkey_server, &launches)?;
        let nodes = form::form(options, &launches, &keeper).await?;
        let Some(saved) = &options.restore else { return Ok((keeper, nodes)) };
        // The slots are dealt as they were when the data was saved; servers that start anew find them in their files, and
        // their data beside them.
        form::remember(options, &launches, &keeper).await?;
        drop(keeper);
        saved.place(launches.iter().filter_map(|launch| launch.log.parent()))?;
        let keeper = Keeper::launch(&options.files.valkey_server, &launches)?;
        let nodes = form::again(options, &launches, &keeper, nodes).await?;
        Ok((keeper, nodes))
    }

    /// All servers, primaries first.
    #[must_use]
    pub fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// Where a client begins: the first primary, as `valkey://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        self.urls().into_iter().next().unwrap_or_default()
    }

    /// `valkey://127.0.0.1:port` of every server, primaries first.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("valkey://{}", node.address)).collect()
    }

    /// Process of each node.
    #[must_use]
    pub fn pids(&self) -> BTreeMap<NodeId, u32> {
        self.nodes.iter().map(|node| (node.id.clone(), node.pid)).collect()
    }

    /// Where the servers' logs are, one folder for each.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops a server's clock (SIGSTOP): it accepts connections and answers nothing until [`LocalCluster::resume`].
    ///
    /// # Errors
    /// [`LocalClusterError::NoSuchNode`], [`LocalClusterError::Signal`].
    pub fn pause(&self, node: &NodeId) -> Result<(), LocalClusterError> {
        self.signal(node, Signal::STOP)
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Errors
    /// [`LocalClusterError::NoSuchNode`], [`LocalClusterError::Signal`].
    pub fn resume(&self, node: &NodeId) -> Result<(), LocalClusterError> {
        self.signal(node, Signal::CONT)
    }

    /// Kills a server (SIGKILL). It is not started again.
    ///
    /// # Errors
    /// [`LocalClusterError::NoSuchNode`], [`LocalClusterError::Signal`].
    pub fn kill(&self, node: &NodeId) -> Result<(), LocalClusterError> {
        self.signal(node, Signal::KILL)
    }

    /// Stops all servers and waits until they are gone; dropping does the same.
    pub fn stop(self) {
        drop(self);
    }

    /// Once all have started, the keeper reaps a server only when it stops them all: until then a process id stays
    /// the server's, even if that has ended.
    fn signal(&self, node: &NodeId, signal: Signal) -> Result<(), LocalClusterError> {
        let pid = self
            .nodes
            .iter()
            .find(|n| n.id == *node)
            .and_then(|n| i32::try_from(n.pid).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| LocalClusterError::NoSuchNode(node.clone()))?;
        kill_process(pid, signal)
            .map_err(|e| LocalClusterError::Signal { node: node.clone(), source: e.into() })
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.keeper.stop();
    }
}

/// One server to start.
struct Launch {
    port: u16,
    bus_port: u16,
    log: PathBuf,
    args: Vec<String>,
}

impl Launch {
    fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// The last lines of its log, or that there is none.
    fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        match lines.get(lines.len().saturating_sub(QUOTED_LOG_LINES)..) {
            Some(tail) if !tail.is_empty() => tail.join("\n"),
            _ => format!("(no log in {})", self.log.display()),
        }
    }
}

fn server_args(options: &LocalClusterOptions, port: u16, bus_port: u16, folder: &Path) -> Vec<String> {
    let port = port.to_string();
    let bus_port = bus_port.to_string();
    let folder = folder.display().to_string();
    let mut args: Vec<&str> = vec![
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--protected-mode",
        "yes",
        "--daemonize",
        "no",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        &folder,
        "--logfile",
        "server.log",
    ];
    if options.cluster {
        args.extend([
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus_port,
            "--cluster-announce-ip",
            "127.0.0.1",
            "--cluster-config-file",
            "nodes.conf",
        ]);
    }
    let module = options.files.search_module.as_ref().map(|path| path.display().to_string());
    if let Some(module) = &module {
        args.extend(["--loadmodule", module]);
    }
    let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    args.extend(options.extra_args.iter().cloned());
    args
}

/// `n` different ports that nobody listens on. Another process may take one before a server does; the caller tries
/// again then.
fn free_ports(n: usize) -> std::io::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..n).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
