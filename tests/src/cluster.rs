//! A Valkey cluster with the search module, for one test.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use vst_common::ids::NodeId;
use vst_coordinator::local_cluster::{LocalCluster, LocalClusterOptions, LocalNode, ServerFiles};

use crate::certificates::Certificates;
use crate::command::project;

/// Servers of a test, and plain connections to them.
#[derive(Debug)]
pub struct Servers {
    /// The processes.
    pub cluster: LocalCluster,
}

/// What `INFO commandstats` counts for one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Executed.
    pub calls: u64,
    /// Refused before execution.
    pub rejected: u64,
}

impl Servers {
    /// Three primaries.
    pub async fn cluster() -> Self {
        Self::start(LocalClusterOptions::new(files())).await
    }

    /// Three primaries with a replica each, which take over a few seconds after a primary is gone.
    pub async fn with_replicas() -> Self {
        let mut options = LocalClusterOptions::new(files());
        options.replicas = 1;
        let wait = ["--cluster-node-timeout", "3000", "--repl-diskless-sync-delay", "0"];
        options.extra_args = wait.map(String::from).to_vec();
        Self::start(options).await
    }

    /// Three primaries of Debian's Valkey 8, which uses jemalloc; the others use the C library's allocator.
    pub async fn cluster_with_jemalloc() -> Self {
        Self::start(LocalClusterOptions::new(debian_files())).await
    }

    /// One server that takes encrypted connections of those whom an authority knows (`server` and `client` are among its names), and where; Debian's, because the
    /// other is built without TLS.
    pub async fn with_tls(authority: &Certificates) -> (Self, String) {
        let mut options =
            LocalClusterOptions::standalone(ServerFiles { search_module: None, ..debian_files() });
        let port = free_port();
        let file = |name| authority.file(name).display().to_string();
        let args = [
            ["--tls-port", &port.to_string()],
            ["--tls-cert-file", &file("server.pem")],
            ["--tls-key-file", &file("server.key")],
            ["--tls-ca-cert-file", &file("ca.pem")],
            ["--tls-auth-clients", "yes"],
        ];
        options.extra_args = args.concat().into_iter().map(str::to_owned).collect();
        (Self::start(options).await, format!("valkeys://127.0.0.1:{port}"))
    }

    /// Three primaries with JSON beside search.
    pub async fn with_documents() -> Self {
        let module = project().join(".local/servers/rejson.so");
        let module = module.canonicalize().expect("JSON is there: run `make servers`");
        let mut options = LocalClusterOptions::new(files());
        options.extra_args = vec![String::from("--loadmodule"), module.display().to_string()];
        Self::start(options).await
    }

    /// One server without the search module that listens on a Unix socket too.
    pub async fn with_socket(path: &str) -> Self {
        let files = ServerFiles { search_module: None, ..files() };
        let mut options = LocalClusterOptions::standalone(files);
        options.extra_args = vec![String::from("--unixsocket"), path.to_owned()];
        Self::start(options).await
    }

    /// One server without the search module that lets many clients in.
    pub async fn for_many_clients(most: u32) -> Self {
        let files = ServerFiles { search_module: None, ..files() };
        let mut options = LocalClusterOptions::standalone(files);
        options.extra_args = vec![String::from("--maxclients"), most.to_string()];
        Self::start(options).await
    }

    /// One server that is no cluster.
    pub async fn standalone() -> Self {
        Self::start(LocalClusterOptions::standalone(files())).await
    }

    /// One server without the search module.
    pub async fn without_search() -> Self {
        let mut files = files();
        files.search_module = None;
        Self::start(LocalClusterOptions::standalone(files)).await
    }

    async fn start(options: LocalClusterOptions) -> Self {
        Self { cluster: LocalCluster::start(options).await.expect("servers start") }
    }

    /// Where a client begins.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url()
    }

    /// A connection to one node.
    pub async fn connection(&self, address: &str) -> MultiplexedConnection {
        // The client's own half second is short for a server under load on a busy machine.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
        let client = redis::Client::open(format!("redis://{address}")).expect("address");
        client.get_multiplexed_async_connection_with_config(&patient).await.expect("server answers")
    }

    /// The replica of a primary, as the servers were started.
    #[must_use]
    pub fn replica_of(&self, primary: &NodeId) -> LocalNode {
        let mut nodes = self.cluster.nodes().iter();
        nodes.find(|node| node.replica_of.as_ref() == Some(primary)).expect("it has a replica").clone()
    }

    /// Every key under a prefix with the fields of its hash, as the primaries of now hold them. `ask` is a node that
    /// answers.
    pub async fn hashes(&self, ask: &str, prefix: &str) -> BTreeMap<String, BTreeMap<String, Vec<u8>>> {
        let mut asked = self.connection(ask).await;
        let slots: Vec<redis::Value> =
            redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut asked).await.expect("CLUSTER SLOTS");
        let mut primaries = std::collections::BTreeSet::new();
        for row in slots {
            let redis::Value::Array(row) = row else { panic!("{row:?}") };
            let (host, port, _, _): (String, u16, String, redis::Value) =
                redis::from_redis_value(row[2].clone()).expect("a node");
            primaries.insert(format!("{host}:{port}"));
        }
        let mut found = BTreeMap::new();
        for address in primaries {
            let mut connection = self.connection(&address).await;
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg(format!("{prefix}*"))
                .query_async(&mut connection)
                .await
                .expect("KEYS");
            for key in keys {
                let fields =
                    redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await.expect("HGETALL");
                found.insert(key, fields);
            }
        }
        found
    }

    /// A connection to each node.
    pub async fn connections(&self) -> BTreeMap<NodeId, MultiplexedConnection> {
        let mut connections = BTreeMap::new();
        for node in self.cluster.nodes() {
            connections.insert(node.id.clone(), self.connection(&node.address).await);
        }
        connections
    }

    /// All keys of all nodes, sorted.
    pub async fn keys(&self) -> Vec<String> {
        let mut all = Vec::new();
        for connection in self.connections().await.values_mut() {
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(connection).await.expect("KEYS");
            all.extend(keys);
        }
        all.sort();
        all
    }

    /// Keys of all nodes that begin with a prefix, sorted.
    pub async fn keys_under(&self, prefix: &str) -> Vec<String> {
        let mut keys = self.keys().await;
        keys.retain(|key| key.starts_with(prefix));
        keys
    }

    /// Removes the sign of life of a run that is known to be dead, as its user would.
    pub async fn forget_run(&self, prefix: &str) {
        let key = vst_common::keys::life_sign(prefix);
        for connection in self.connections().await.values_mut() {
            // Only one node owns the key; the others say so.
            let _: Result<u64, _> = redis::cmd("DEL").arg(&key).query_async(connection).await;
        }
    }

    /// Indexes of all nodes.
    pub async fn indexes(&self) -> Vec<String> {
        let mut all = Vec::new();
        for connection in self.connections().await.values_mut() {
            let names: Vec<String> = redis::cmd("FT._LIST").query_async(connection).await.expect("FT._LIST");
            all.extend(names);
        }
        all.sort();
        all
    }

    /// A command's counters on every node, read by a plain client.
    pub async fn commandstats(&self, command: &str) -> BTreeMap<NodeId, Calls> {
        let mut counters = BTreeMap::new();
        for (node, connection) in &mut self.connections().await {
            let info: String =
                redis::cmd("INFO").arg("commandstats").query_async(connection).await.expect("INFO");
            let prefix = format!("cmdstat_{}:", command.to_ascii_lowercase());
            let line = info.lines().find(|l| l.to_ascii_lowercase().starts_with(&prefix));
            let value = |name: &str| {
                line.and_then(|l| l.split([':', ',']).find_map(|f| f.strip_prefix(name)?.strip_prefix('=')))
                    .map_or(0, |n| n.parse().expect("a count"))
            };
            counters.insert(node.clone(), Calls { calls: value("calls"), rejected: value("rejected_calls") });
        }
        counters
    }
}

fn debian_files() -> ServerFiles {
    let valkey_server = project().join(".local/debian/valkey/run/valkey-server");
    assert!(valkey_server.is_file(), "Debian's Valkey is there: run `make fleet-servers`");
    ServerFiles { valkey_server: valkey_server.canonicalize().expect("a path"), ..files() }
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn files() -> ServerFiles {
    ServerFiles::find().expect("servers are there: run `make servers`")
}
