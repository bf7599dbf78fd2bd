//! From started processes to a cluster that serves.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisResult, cmd};
use vst_common::ids::NodeId;
use vst_common::keys::SLOTS;

use super::{Keeper, LOADED_WITHIN, Launch, LocalClusterError, LocalClusterOptions, LocalNode, READY_WITHIN};

/// Time between two looks at a server that is not ready.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Makes the servers what the options ask for. The first launches are the primaries.
pub(super) async fn form(
    options: &LocalClusterOptions,
    launches: &[Launch],
    keeper: &Keeper,
) -> Result<Vec<LocalNode>, LocalClusterError> {
    let mut servers = Vec::new();
    for (at, launch) in launches.iter().enumerate() {
        let mut server = Server { launch, at, keeper, patience: READY_WITHIN, connection: None };
        server.until(Awaited::Answer).await?;
        servers.push(server);
    }
    let mut ids = Vec::new();
    for server in &mut servers {
        ids.push(match options.cluster {
            true => NodeId::new(server.ask::<String>("CLUSTER", &["MYID".to_owned()]).await?),
            false => NodeId::new(server.launch.address()),
        });
    }
    let primaries = usize::from(options.primaries);
    if options.cluster {
        join(&mut servers, &ids, primaries).await?;
    }
    let nodes =
        servers.iter().zip(&ids).zip(keeper.pids()).enumerate().map(|(at, ((server, id), pid))| LocalNode {
            id: id.clone(),
            address: server.launch.address(),
            port: server.launch.port,
            pid: *pid,
            replica_of: (at >= primaries).then(|| ids.get(at % primaries).cloned()).flatten(),
        });
    Ok(nodes.collect())
}

/// Makes the nodes of a cluster write down what they know of each other.
pub(super) async fn remember(
    options: &LocalClusterOptions,
    launches: &[Launch],
    keeper: &Keeper,
) -> Result<(), LocalClusterError> {
    for (at, launch) in launches.iter().enumerate().filter(|_| options.cluster) {
        let mut server = Server { launch, at, keeper, patience: READY_WITHIN, connection: None };
        server.ask::<()>("CLUSTER", &[String::from("SAVECONFIG")]).await?;
    }
    Ok(())
}

/// Waits until servers that were started again over their files serve; their processes are others than before.
pub(super) async fn again(
    options: &LocalClusterOptions,
    launches: &[Launch],
    keeper: &Keeper,
    nodes: Vec<LocalNode>,
) -> Result<Vec<LocalNode>, LocalClusterError> {
    for (at, launch) in launches.iter().enumerate() {
        let mut server = Server { launch, at, keeper, patience: LOADED_WITHIN, connection: None };
        server.until(Awaited::Answer).await?;
        if options.cluster {
            server.until(Awaited::Service).await?;
        }
    }
    Ok(nodes.into_iter().zip(keeper.pids()).map(|(node, pid)| LocalNode { pid: *pid, ..node }).collect())
}

async fn join(servers: &mut [Server<'_>], ids: &[NodeId], primaries: usize) -> Result<(), LocalClusterError> {
    let words = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let bounds: Vec<String> =
        (0..=primaries).map(|n| (usize::from(SLOTS) * n / primaries).to_string()).collect();
    let ends: Vec<String> =
        (1..=primaries).map(|n| (usize::from(SLOTS) * n / primaries - 1).to_string()).collect();
    let Some((host, port, bus_port)) =
        servers.first().map(|first| ("127.0.0.1", first.launch.port, first.launch.bus_port))
    else {
        return Ok(());
    };
    let (port, bus_port) = (port.to_string(), bus_port.to_string());
    for (at, server) in servers.iter_mut().enumerate() {
        // Distinct epochs from the start, so that no two nodes have to settle a collision by gossip.
        server.ask::<()>("CLUSTER", &words(&["SET-CONFIG-EPOCH", &(at + 1).to_string()])).await?;
        if let (true, Some(start), Some(end)) = (at < primaries, bounds.get(at), ends.get(at)) {
            server.ask::<()>("CLUSTER", &words(&["ADDSLOTSRANGE", start, end])).await?;
        }
        if at > 0 {
            server.ask::<()>("CLUSTER", &words(&["MEET", host, &port, &bus_port])).await?;
        }
    }
    let count = servers.len();
    for server in servers.iter_mut() {
        server.until(Awaited::Acquaintance { nodes: count }).await?;
    }
    for (at, server) in servers.iter_mut().enumerate().skip(primaries) {
        let primary = ids.get(at % primaries).map(NodeId::as_str).unwrap_or_default();
        server.ask::<()>("CLUSTER", &words(&["REPLICATE", primary])).await?;
    }
    for (at, server) in servers.iter_mut().enumerate() {
        server.until(Awaited::Service).await?;
        if at >= primaries {
            server.until(Awaited::Copy).await?;
        }
    }
    for server in servers.iter_mut() {
        server.until(Awaited::Roles { replicas: count - primaries }).await?;
    }
    Ok(())
}

/// What a server must show before the next step; each node learns of the others by gossip, in its own time.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// It answers.
    Answer,
    /// It knows all nodes, and they know it.
    Acquaintance { nodes: usize },
    /// It sees every slot served.
    Service,
    /// A replica has its primary's data.
    Copy,
    /// It knows who is a replica.
    Roles { replicas: usize },
}

impl Awaited {
    async fn holds(self, connection: &mut MultiplexedConnection) -> RedisResult<bool> {
        let text: String = match self {
            Self::Answer => return cmd("PING").exec_async(connection).await.map(|()| true),
            Self::Acquaintance { .. } | Self::Roles { .. } => {
                cmd("CLUSTER").arg("NODES").query_async(connection).await?
            }
            Self::Service => cmd("CLUSTER").arg("INFO").query_async(connection).await?,
            Self::Copy => cmd("INFO").arg("replication").query_async(connection).await?,
        };
        Ok(match self {
            Self::Answer => true,
            Self::Acquaintance { nodes } => text.lines().count() == nodes && !text.contains("handshake"),
            Self::Roles { replicas } => {
                text.lines().filter(|line| line.contains("slave")).count() == replicas
            }
            Self::Service => text.contains("cluster_state:ok") && text.contains("cluster_slots_ok:16384"),
            Self::Copy => text.contains("role:slave") && text.contains("master_link_status:up"),
        })
    }
}

/// A server with a connection, while the cluster is being formed.
struct Server<'a> {
    launch: &'a Launch,
    at: usize,
    keeper: &'a Keeper,
    patience: Duration,
    connection: Option<MultiplexedConnection>,
}

impl Server<'_> {
    /// Asks again and again until it shows what is awaited, it ends, or patience does. Connects as needed.
    async fn until(&mut self, awaited: Awaited) -> Result<(), LocalClusterError> {
        let (mut last, patience) = (String::from("none"), self.patience);
        let attempt = async {
            loop {
                if self.keeper.ended().get(self.at).copied().unwrap_or(true) {
                    return Err(self.ended());
                }
                let answer = match &mut self.connection {
                    Some(connection) => awaited.holds(connection).await,
                    None => connect(self.launch).await.map(|connection| {
                        self.connection = Some(connection);
                        false
                    }),
                };
                match answer {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(e) => {
                        last = e.to_string();
                        self.connection = None;
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        match tokio::time::timeout(patience, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self
                .not_ready(format!("waited {} s for {awaited:?}; last error: {last}", patience.as_secs()))),
        }
    }

    /// One command whose refusal is final.
    async fn ask<T: redis::FromRedisValue>(
        &mut self,
        name: &str,
        args: &[String],
    ) -> Result<T, LocalClusterError> {
        let answer = match &mut self.connection {
            Some(connection) => cmd(name).arg(args).query_async(connection).await,
            None => match connect(self.launch).await {
                Ok(mut connection) => {
                    let answer = cmd(name).arg(args).query_async(&mut connection).await;
                    self.connection = Some(connection);
                    answer
                }
                Err(e) => Err(e),
            },
        };
        answer.map_err(|e| {
            if self.keeper.ended().get(self.at).copied().unwrap_or(true) {
                return self.ended();
            }
            self.not_ready(format!("{name} {}: {e}", args.join(" ")))
        })
    }

    fn ended(&self) -> LocalClusterError {
        LocalClusterError::Ended { address: self.launch.address(), log: self.launch.log_tail() }
    }

    fn not_ready(&self, why: String) -> LocalClusterError {
        LocalClusterError::NotReady { address: self.launch.address(), why, log: self.launch.log_tail() }
    }
}

async fn connect(launch: &Launch) -> RedisResult<MultiplexedConnection> {
    let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), launch.port);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_WITHIN))
        .set_response_timeout(Some(ANSWER_WITHIN));
    Client::open(address.into_connection_info()?)?.get_multiplexed_async_connection_with_config(&config).await
}
