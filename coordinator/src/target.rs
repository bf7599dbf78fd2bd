//! The servers under test, as everything but the load lanes sees them: who they are, what they run, whose keys they
//! hold.
//!
//! The command line asks it before a run whether the target can serve; the coordinator has it claim the prefix, make
//! and drop the index, and say when the target has settled; accounting reads its command counts. Laws: a target is
//! somebody's server, so nothing is written before the prefix is known to be free and nothing is removed but what a
//! marker says is vst's; a password appears in no text.

mod audit;
mod change;
mod connections;
mod error;
mod index;
mod lease;
mod link;
mod observe;
mod ownership;
mod prefill;
mod save;
#[cfg(test)]
mod tests;
mod topology;

pub use audit::Audit;
pub use error::TargetError;
pub(crate) use index::index_of;
pub use lease::{Holder, Lease};
pub use observe::{CommandCalls, NodeCalls, NodeFacts, RowCount, TargetFacts};
pub(crate) use ownership::left_behind;
pub use ownership::{Cleaned, Found, OwnerMarker};
pub use prefill::Prefill;
pub use save::Written;
pub use topology::{Role, TargetNode};
pub use vst_access::{TargetUrl, TargetUrlError};

use std::sync::Arc;

use futures::future::try_join_all;
use redis::cmd;
use vst_common::keys::{SLOTS, slot, tag_for_slot};
use vst_common::phase::{SearchModule, SearchPlan};
use vst_common::resp::Frame;
use vst_common::search::{Detected, detect_module};

use self::link::{Link, Links, frame};

/// A server or cluster that answered, lets us in, and has a search module on every primary.
#[derive(Debug)]
pub struct Target {
    url: TargetUrl,
    cluster: bool,
    nodes: Vec<TargetNode>,
    /// The nodes as they were when somebody last looked.
    now: std::sync::RwLock<Arc<[TargetNode]>>,
    /// The search module; a target of plain commands needs none.
    detected: Option<Detected>,
    server_version: String,
    links: Links,
}

impl Target {
    /// Looks at `valkey://[user@]host:port` (`valkeys://` with TLS, or `unix:///path`): whether it answers within 5 s, is a cluster, and what runs there. The
    /// password comes from `VST_PASSWORD`, else `VALKEY_PASSWORD`. Writes nothing.
    ///
    /// # Errors
    /// [`TargetError`]; each says which host and what to do.
    pub async fn connect(url: &str) -> Result<Self, TargetError> {
        Self::connect_to(TargetUrl::from_env(url)?).await
    }

    /// [`Target::connect`] with credentials that were read before.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn connect_to(url: TargetUrl) -> Result<Self, TargetError> {
        let links = Links::new(url.clone());
        let first = links.to(&url.address());
        let info: String = first.ask(&cmd("INFO")).await?;
        let field = |name| observe::info_field(&info, name);
        let server_version =
            field("valkey_version").or_else(|| field("redis_version")).unwrap_or("unknown").to_owned();
        let cluster = field("cluster_enabled") == Some("1");
        let nodes = if cluster {
            topology::read(&first).await?
        } else {
            if field("role") == Some("slave") {
                return Err(TargetError::Replica { address: first.address().to_owned() });
            }
            vec![TargetNode::standalone(&url)]
        };
        let detected = detect(&links, &nodes).await?;
        let now = std::sync::RwLock::new(nodes.clone().into());
        Ok(Self { url, cluster, nodes, now, detected, server_version, links })
    }

    /// Looks again who is there and who owns which slot: any node that is known may say it. From now on keys, indexes and
    /// counters are looked for there. Gives whether anything changed.
    ///
    /// # Errors
    /// The error of the node that the URL names, where no node answers.
    pub async fn refresh(&self) -> Result<bool, TargetError> {
        if !self.cluster {
            return Ok(false);
        }
        let known = self.now();
        let mut addresses: Vec<String> = vec![self.url.address()];
        addresses.extend(known.iter().chain(&self.nodes).map(TargetNode::address));
        let mut first = None;
        for address in addresses {
            match topology::read_any(&self.links.to(&address)).await {
                Ok(found) => {
                    let changed = *known != *found;
                    let mut now = self.now.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                    *now = found.into();
                    return Ok(changed);
                }
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| TargetError::NoPrimary { url: self.url.to_string() }))
    }

    /// The nodes as they were when somebody last looked, primaries first.
    pub(crate) fn now(&self) -> Arc<[TargetNode]> {
        Arc::clone(&self.now.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Its URL; printing it shows no password.
    #[must_use]
    pub fn url(&self) -> &TargetUrl {
        &self.url
    }

    /// Whether keys are spread over slots.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// All nodes as they were when the target was connected, primaries first.
    #[must_use]
    pub fn nodes(&self) -> &[TargetNode] {
        &self.nodes
    }

    /// The nodes that take writes.
    pub fn primaries(&self) -> impl Iterator<Item = TargetNode> {
        let now: Vec<TargetNode> =
            self.now().iter().filter(|node| node.role == Role::Primary).cloned().collect();
        now.into_iter()
    }

    /// Version of the server that was asked first.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// The search module, where there is one.
    #[must_use]
    pub fn search_module(&self) -> Option<&Detected> {
        self.detected.as_ref()
    }

    /// How a query over the keys under `prefix` reaches all of them, and what the index is called.
    ///
    /// # Errors
    /// [`TargetError::NoSearchModule`] if there is none, [`TargetError::NoTag`] if no name can be bound to a primary.
    pub fn search_plan(&self, prefix: &str) -> Result<SearchPlan, TargetError> {
        let Some(detected) = &self.detected else {
            let address = self.nodes.first().map_or_else(|| self.url.address(), TargetNode::address);
            return Err(TargetError::NoSearchModule { address, version: self.server_version.clone() });
        };
        search_plan(&self.nodes, self.cluster, detected, prefix)
    }

    /// What has been done to it.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        self.links.audit()
    }

    fn link(&self, address: &str) -> Arc<Link> {
        self.links.to(address)
    }

    /// The connection to the primary that owns a key.
    fn link_for_key(&self, key: &[u8]) -> Result<Arc<Link>, TargetError> {
        owner(&self.now(), slot(key))
            .map(|node| self.link(&node.address()))
            .ok_or_else(|| TargetError::UncoveredSlots { url: self.url.to_string(), missing: 1 })
    }
}

/// The module of every primary, if they have one; they must agree.
async fn detect(links: &Links, nodes: &[TargetNode]) -> Result<Option<Detected>, TargetError> {
    let primaries = nodes.iter().filter(|node| node.role == Role::Primary);
    let found = try_join_all(primaries.map(|node| detect_on(links.to(&node.address())))).await?;
    let mut found = found.into_iter();
    let (first_address, first) =
        found.next().ok_or_else(|| TargetError::NoPrimary { url: links.url().to_string() })?;
    let same = |a: &Detected, b: &Detected| a.module == b.module && a.coordinates == b.coordinates;
    for (address, other) in found {
        let agree = match (&first, &other) {
            (Some(first), Some(other)) => same(first, other),
            (first, other) => first.is_none() && other.is_none(),
        };
        if !agree {
            let shown = |module: &Option<Detected>| {
                module
                    .as_ref()
                    .map_or_else(|| String::from("none"), |m| format!("{} {}", m.module, m.version))
            };
            return Err(TargetError::MixedModules {
                first: format!("{} at {first_address}", shown(&first)),
                other: format!("{} at {address}", shown(&other)),
            });
        }
    }
    Ok(first)
}

async fn detect_on(link: Arc<Link>) -> Result<(String, Option<Detected>), TargetError> {
    let address = link.address().to_owned();
    let modules = link.value(cmd("MODULE").arg("LIST")).await?;
    // Where INFO is not allowed, the module's version tells the two apart.
    let info: String = link.ask(cmd("INFO").arg("modules")).await.unwrap_or_default();
    let modules = frame(&modules);
    let has_search = modules.as_array().is_some_and(|all| {
        all.iter().any(|module| module.get("name").and_then(Frame::as_str) == Some("search"))
    });
    match detect_module(&modules, &info) {
        None if has_search => Err(TargetError::UnknownModule { address }),
        detected => Ok((address, detected)),
    }
}

fn owner(nodes: &[TargetNode], slot: u16) -> Option<&TargetNode> {
    nodes.iter().find(|node| node.slots.iter().any(|range| range.contains(&slot)))
}

/// `vst_index` for `vst:`; characters that could mean something to a server become `_`.
pub(crate) fn index_name(prefix: &str) -> String {
    let plain: String = prefix.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let plain = plain.trim_matches('_');
    format!("{}_index", if plain.is_empty() { "vst" } else { plain })
}

/// Whether an index is one that [`search_plan`] would name, whatever the slots were when it was made.
fn is_index_of(name: &str, prefix: &str) -> bool {
    let Some(rest) = name.strip_prefix(&index_name(prefix)) else { return false };
    let tag = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    rest.is_empty() || tag.is_some_and(|tag| !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_digit()))
}

/// One server, or a module that asks its peers, answers for all. Otherwise each primary has an index of its own:
/// RediSearch routes its commands by the slot of the index's name, so the name carries a tag of a slot which that
/// primary owns; valkey-search does not look at the name.
fn search_plan(
    nodes: &[TargetNode],
    cluster: bool,
    detected: &Detected,
    prefix: &str,
) -> Result<SearchPlan, TargetError> {
    let module = detected.module;
    let index = index_name(prefix);
    let owners: Vec<&TargetNode> = nodes.iter().filter(|node| !node.slots.is_empty()).collect();
    if !cluster || detected.coordinates || owners.len() == 1 {
        return Ok(SearchPlan::ServerSide { module, index });
    }
    let indexes = owners
        .into_iter()
        .map(|node| match module {
            SearchModule::ValkeySearch => Ok((node.id.clone(), index.clone())),
            SearchModule::RediSearch => tag_for_slot(&node.slots)
                .map(|tag| (node.id.clone(), format!("{index}{{{tag}}}")))
                .ok_or_else(|| TargetError::NoTag { address: node.address() }),
        })
        .collect::<Result<_, _>>()?;
    Ok(SearchPlan::ClientSide { module, indexes })
}

/// How many of the cluster's slots nobody serves.
fn uncovered(nodes: &[TargetNode]) -> usize {
    (0..SLOTS).filter(|slot| owner(nodes, *slot).is_none()).count()
}
