//! What a target says of itself: facts for the run's record, memory, command counts, how many rows it holds.

use std::collections::{BTreeMap, HashSet};

use futures::future::{join_all, try_join_all};
use redis::cmd;
use serde::{Deserialize, Serialize};
use vst_common::count;
use vst_common::ids::NodeId;
use vst_common::phase::SearchPlan;
use vst_common::search::Detected;

use super::link::Link;
use super::ownership::scan;
use super::{Role, Target, TargetError, TargetNode};
use crate::plan::ClientLimit;

/// Settings that change what a measurement means.
const CONFIG_NAMES: [&str; 24] = [
    "maxmemory",
    "maxmemory-policy",
    "maxclients",
    "io-threads",
    "events-per-io-thread",
    "hz",
    "dynamic-hz",
    "activedefrag",
    "jemalloc-bg-thread",
    "appendonly",
    "appendfsync",
    "save",
    "repl-diskless-sync",
    "lazyfree-lazy-user-del",
    "lazyfree-lazy-server-del",
    "lazyfree-lazy-expire",
    "lazyfree-lazy-eviction",
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "cluster-node-timeout",
    "cluster-require-full-coverage",
    "commandlog-execution-slower-than",
    "slowlog-log-slower-than",
    "latency-tracking",
];
/// Lines of INFO that name the build and the machine.
const SERVER_FIELDS: [&str; 14] = [
    "valkey_version",
    "redis_version",
    "server_name",
    "server_mode",
    "redis_mode",
    "os",
    "arch_bits",
    "gcc_version",
    "multiplexing_api",
    "run_id",
    "process_id",
    "mem_allocator",
    "total_system_memory",
    "uptime_in_seconds",
];

/// A target as the run's record shows it; no secrets in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFacts {
    /// Its URL without a password.
    pub url: String,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// Version of the server that was asked first.
    pub server_version: String,
    /// The search module, where there is one.
    pub search: Option<Detected>,
    /// Every node.
    pub nodes: Vec<NodeFacts>,
}

/// One node as the run's record shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Who.
    pub id: NodeId,
    /// `host:port`.
    pub address: String,
    /// What it is for.
    pub role: Role,
    /// How many slots it serves.
    pub slots: u64,
    /// Lines of INFO that name the build and the machine.
    pub server: BTreeMap<String, String>,
    /// Settings that change what a measurement means, and all of the module's own.
    pub config: BTreeMap<String, String>,
    /// Why something is missing above, in the server's words.
    pub refused: Vec<String>,
}

/// How often a command was executed and turned away since the server's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandCalls {
    /// Executed, failed ones included.
    pub calls: u64,
    /// Turned away before execution (MOVED, OOM, wrong arity, ...).
    pub rejected_calls: u64,
}

/// What one node has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCalls {
    /// The process that counted, by the server's own name for it.
    pub process: Option<String>,
    /// By command, in upper case.
    pub calls: BTreeMap<String, CommandCalls>,
}

/// Rows of one primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowCount {
    /// Keys under the prefix.
    pub keys: u64,
    /// What its index says it holds.
    pub indexed: u64,
}

impl Target {
    /// What the record of a run says about the target. A setting that we may not read is left out with the reason.
    ///
    /// # Errors
    /// [`TargetError`] where a node does not answer.
    pub async fn facts(&self) -> Result<TargetFacts, TargetError> {
        let nodes = try_join_all(self.nodes.iter().map(|node| self.node_facts(node))).await?;
        Ok(TargetFacts {
            url: self.url.to_string(),
            cluster: self.cluster,
            server_version: self.server_version.clone(),
            search: self.detected.clone(),
            nodes,
        })
    }

    async fn node_facts(&self, node: &TargetNode) -> Result<NodeFacts, TargetError> {
        let link = self.link(&node.address());
        let mut refused = Vec::new();
        let info: String = tolerate(link.ask(&cmd("INFO")).await, &mut refused)?.unwrap_or_default();
        let server = SERVER_FIELDS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), info_field(&info, name)?.to_owned())))
            .collect();
        let mut wanted = cmd("CONFIG");
        wanted.arg("GET").arg(&CONFIG_NAMES[..]).arg("search.*");
        let config =
            tolerate(link.ask::<BTreeMap<String, String>>(&wanted).await, &mut refused)?.unwrap_or_default();
        let slots = node.slots.iter().map(|range| count::len(range.len())).sum();
        Ok(NodeFacts {
            id: node.id.clone(),
            address: node.address(),
            role: node.role.clone(),
            slots,
            server,
            config,
            refused,
        })
    }

    /// How many clients each primary lets in, where it says so.
    ///
    /// # Errors
    /// [`TargetError`] where a node does not answer.
    pub async fn client_limits(&self) -> Result<Vec<ClientLimit>, TargetError> {
        let all = try_join_all(self.primaries().map(|node| {
            let link = self.link(&node.address());
            async move {
                let info: Option<String> =
                    tolerate(link.ask(&info_command("clients")).await, &mut Vec::new())?;
                let info = info.unwrap_or_default();
                let number = |name| info_field(&info, name).and_then(|n| n.parse::<u64>().ok());
                let limit = number("maxclients").zip(number("connected_clients"));
                Ok::<_, TargetError>(limit.map(|(most, connected)| ClientLimit {
                    address: link.address().to_owned(),
                    most,
                    connected,
                }))
            }
        }))
        .await?;
        Ok(all.into_iter().flatten().collect())
    }

    /// `used_memory` summed over all nodes, bytes.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn used_memory(&self) -> Result<u64, TargetError> {
        let all = try_join_all(self.now().iter().map(|node| {
            let link = self.link(&node.address());
            async move {
                let command = info_command("memory");
                let info: String = link.ask(&command).await?;
                info_field(&info, "used_memory")
                    .and_then(|bytes| bytes.parse::<u64>().ok())
                    .ok_or_else(|| link.unexpected(&command, "no `used_memory`"))
            }
        }))
        .await?;
        Ok(all.iter().sum())
    }

    /// `INFO commandstats` of every node, and which process it is; why not, for a node that does not answer. Commands are in upper case, a subcommand follows after `|`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn commandstats(&self) -> BTreeMap<NodeId, Result<NodeCalls, TargetError>> {
        let now = self.now();
        let all = now.iter().map(|node| {
            let (id, link) = (node.id.clone(), self.link(&node.address()));
            async move { (id, node_calls(&link).await) }
        });
        join_all(all).await.into_iter().collect()
    }

    /// Rows under `prefix` on every primary: keys counted one by one, and what the index says. Goes over the whole
    /// keyspace and remembers every key of the prefix, so it is for populations that fit in our memory.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn row_count(
        &self,
        prefix: &str,
        plan: &SearchPlan,
    ) -> Result<BTreeMap<NodeId, RowCount>, TargetError> {
        let indexed = self.index_info(plan).await?;
        let all = try_join_all(self.primaries().map(|node| {
            let (id, link) = (node.id.clone(), self.link(&node.address()));
            let indexed = indexed.get(&node.id).map_or(0, |info| info.docs);
            async move {
                let keys = count_keys(&link, prefix).await?;
                Ok::<_, TargetError>((id, RowCount { keys, indexed }))
            }
        }))
        .await?;
        Ok(all.into_iter().collect())
    }
}

async fn node_calls(link: &Link) -> Result<NodeCalls, TargetError> {
    let server: String = link.ask(&info_command("server")).await?;
    let command = info_command("commandstats");
    let info: String = link.ask(&command).await?;
    let calls = parse_commandstats(&info).map_err(|line| link.unexpected(&command, line))?;
    Ok(NodeCalls { process: info_field(&server, "run_id").map(str::to_owned), calls })
}

/// SCAN may give a key twice while a table grows or shrinks, so keys are told apart by name.
async fn count_keys(link: &Link, prefix: &str) -> Result<u64, TargetError> {
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut cursor = 0;
    loop {
        let (next, keys) = scan(link, prefix, cursor).await?;
        seen.extend(keys);
        if next == 0 {
            return Ok(count::len(seen.len()));
        }
        cursor = next;
    }
}

/// Makes a refusal a remark; other errors stay errors.
fn tolerate<T>(answer: Result<T, TargetError>, refused: &mut Vec<String>) -> Result<Option<T>, TargetError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(TargetError::Refused { command, text, .. }) => {
            refused.push(format!("{command}: {text}"));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

pub(super) fn info_command(section: &str) -> redis::Cmd {
    let mut command = cmd("INFO");
    command.arg(section);
    command
}

/// The value of a line `name:value` of INFO.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Lines `cmdstat_<command>:calls=<n>,...,rejected_calls=<n>,...`; the error is the line that makes no sense.
fn parse_commandstats(info: &str) -> Result<BTreeMap<String, CommandCalls>, String> {
    let mut stats = BTreeMap::new();
    for line in info.lines().filter_map(|line| line.trim().strip_prefix("cmdstat_")) {
        let read = || {
            let (command, fields) = line.rsplit_once(':')?;
            let number = |name: &str| {
                fields
                    .split(',')
                    .find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
            };
            // Servers older than 6.2 do not count what they turn away.
            let rejected_calls = number("rejected_calls").unwrap_or(0);
            Some((command.to_ascii_uppercase(), CommandCalls { calls: number("calls")?, rejected_calls }))
        };
        let (command, calls) = read().ok_or_else(|| line.to_owned())?;
        stats.insert(command, calls);
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_counts_are_read_with_subcommands_and_module_commands() {
        let info = "# Commandstats\r\n\
            cmdstat_hset:calls=7,usec=10,usec_per_call=1.43,rejected_calls=2,failed_calls=1\r\n\
            cmdstat_config|get:calls=1,usec=10,usec_per_call=10.00,rejected_calls=0,failed_calls=0\r\n\
            cmdstat_FT.SEARCH:calls=3,usec=10,usec_per_call=3.33,rejected_calls=0,failed_calls=0\r\n\
            cmdstat_old:calls=3,usec=10\r\n";
        let stats = parse_commandstats(info).unwrap();
        let calls = |calls, rejected_calls| CommandCalls { calls, rejected_calls };
        let expected = [
            ("CONFIG|GET", calls(1, 0)),
            ("FT.SEARCH", calls(3, 0)),
            ("HSET", calls(7, 2)),
            ("OLD", calls(3, 0)),
        ];
        assert_eq!(stats, expected.map(|(name, calls)| (name.to_owned(), calls)).into());
        assert_eq!(parse_commandstats("cmdstat_x:usec=1"), Err("x:usec=1".to_owned()));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "used_memory_human:1M\r\nused_memory:1048576\r\n";
        assert_eq!(info_field(info, "used_memory"), Some("1048576"));
        assert_eq!(info_field(info, "memory"), None);
    }
}
