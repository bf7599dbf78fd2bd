//! What can be wrong with a target, in words that name the host and the way out.

use redis::RedisError;
use vst_access::TargetUrlError;
use vst_common::exit::Exit;
use vst_common::search::SearchError;

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The URL is not one.
    #[error(transparent)]
    Url(#[from] TargetUrlError),
    /// Nobody answers there.
    #[error("target {address} does not answer: {why}; check the host, the port and that the server runs")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What happened.
        why: String,
    },
    /// It answers, but does not let us in.
    #[error(
        "target {address} refused user `{user}`: {why}; put the password into VST_PASSWORD and the user into the URL"
    )]
    Auth {
        /// `host:port`.
        address: String,
        /// Who we said we are.
        user: String,
        /// Its words.
        why: String,
    },
    /// It refused a command.
    #[error("target {address} refused {command}: {text}")]
    Refused {
        /// `host:port`.
        address: String,
        /// The command's name.
        command: String,
        /// Its words.
        text: String,
    },
    /// The connection broke or the answer did not come.
    #[error("target {address} did not answer {command}")]
    Lost {
        /// `host:port`.
        address: String,
        /// The command's name.
        command: String,
        /// What happened.
        #[source]
        source: RedisError,
    },
    /// It answered something that cannot be right.
    #[error("target {address} answered {command} with something else than expected: {what}")]
    Reply {
        /// `host:port`.
        address: String,
        /// The command's name.
        command: String,
        /// What is wrong.
        what: String,
    },
    /// No module that can search vectors.
    #[error(
        "target has no search module: {address} (server {version}) lists none called `search`; load valkey-search there \
         (`--loadmodule libsearch.so`) or name another target"
    )]
    NoSearchModule {
        /// `host:port`.
        address: String,
        /// The server's version.
        version: String,
    },
    /// A module called `search` that vst does not know.
    #[error(
        "the module `search` of {address} is neither valkey-search nor RediSearch; vst does not know how to ask it"
    )]
    UnknownModule {
        /// `host:port`.
        address: String,
    },
    /// Nodes with different modules.
    #[error(
        "the nodes of the target run different search modules: {first}, but {other}; load the same one everywhere"
    )]
    MixedModules {
        /// Module, version and host.
        first: String,
        /// Module, version and host.
        other: String,
    },
    /// A standalone replica.
    #[error("target {address} is a replica and takes no writes; name its primary")]
    Replica {
        /// `host:port`.
        address: String,
    },
    /// A cluster without any primary.
    #[error("target {url} is a cluster without a primary")]
    NoPrimary {
        /// The target.
        url: String,
    },
    /// A cluster that cannot take every key.
    #[error(
        "target {url} is a cluster in which nobody serves {missing} slots; repair it first (CLUSTER NODES shows which)"
    )]
    UncoveredSlots {
        /// The target.
        url: String,
        /// How many.
        missing: usize,
    },
    /// What an earlier run left is not what this one would load.
    #[error(
        "what run {run} left under `{prefix}` cannot be reused: {what}; remove it with --cleanup, or use another prefix"
    )]
    NotReusable {
        /// The prefix.
        prefix: String,
        /// Who made it.
        run: String,
        /// In what it differs.
        what: String,
    },
    /// A primary for which no index name can be found.
    #[error("no index name can be bound to {address}: no short hash tag lies in its slots")]
    NoTag {
        /// `host:port`.
        address: String,
    },
    /// Something under the prefix that vst did not make.
    #[error(
        "target holds something under the prefix `{prefix}` that vst did not make: {what}; nothing was touched: choose \
         another `population.prefix`, or remove it yourself"
    )]
    Foreign {
        /// The prefix.
        prefix: String,
        /// What and where.
        what: String,
    },
    /// A run that ended without cleaning up, or one that still goes on.
    #[error(
        "target still holds the keys of run {run} under the prefix `{prefix}` (made {made_at}); if that run is over, \
         remove them with `--cleanup`, or choose another `population.prefix`"
    )]
    LeftBehind {
        /// The prefix.
        prefix: String,
        /// The run.
        run: String,
        /// When it claimed the prefix.
        made_at: String,
    },
    /// A run that is alive works there.
    #[error(
        "run {run} works under the prefix `{prefix}` right now (`{key}` on {address} is its sign of life; without another \
         it counts as dead in {expires_in_s} s): let it end, stop it, or choose another `population.prefix`; if you know \
         that it is gone, `DEL {key}` lets `--cleanup` go on at once"
    )]
    InUse {
        /// The prefix.
        prefix: String,
        /// The run.
        run: String,
        /// The key that it renews.
        key: String,
        /// `host:port`.
        address: String,
        /// Seconds.
        expires_in_s: u64,
    },
    /// What was this run's has become another's, or nobody's.
    #[error(
        "the prefix `{prefix}` no longer belongs to run {run} ({what}), so nothing more is touched there; if rows of it \
         are left, the next run with `--cleanup` removes them"
    )]
    NotOurs {
        /// The prefix.
        prefix: String,
        /// The run that asked.
        run: String,
        /// Whose it is.
        what: String,
    },
    /// An index that was there before is not.
    #[error(
        "{address} no longer knows the index `{index}`: it was dropped, or the server restarted without its data; \
         look at what else uses this server, then start again"
    )]
    IndexGone {
        /// `host:port`.
        address: String,
        /// Its name there.
        index: String,
    },
    /// The cluster could not be changed.
    #[error("cannot {what}: {why}")]
    Unchanged {
        /// What was to be done.
        what: &'static str,
        /// Why not, and the way out where one is known.
        why: String,
    },
    /// Slots kept moving while keys were removed.
    #[error(
        "{keys} keys could not be removed because their slots keep moving ({text}); repeat `--cleanup` when the cluster rests"
    )]
    KeysMoved {
        /// How many.
        keys: usize,
        /// The last redirect.
        text: String,
    },
    /// The module's words about an index.
    #[error("index on {address}")]
    Index {
        /// `host:port`.
        address: String,
        /// What it said.
        #[source]
        source: SearchError,
    },
}

impl TargetError {
    /// How a command that fails with this ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Url(_) => Exit::Usage,
            _ => Exit::Target,
        }
    }
}
