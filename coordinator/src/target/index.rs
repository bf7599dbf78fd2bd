//! The index on the target: made, dropped, described, wherever the search plan has it.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use redis::cmd;
use vst_common::ids::NodeId;
use vst_common::phase::{SearchModule, SearchPlan};
use vst_common::search::{IndexInfo, IndexShape, create_args, is_missing_index_error, parse_info};

use super::link::{Link, frame};
use super::{Target, TargetError, TargetNode, is_index_of};

impl Target {
    /// Makes the index: once where the server fans out, else on every primary.
    ///
    /// # Errors
    /// [`TargetError::Refused`], also when an index of that name exists.
    pub async fn create_index(&self, plan: &SearchPlan, shape: &IndexShape<'_>) -> Result<(), TargetError> {
        let places = self.places(plan);
        let once = matches!(plan, SearchPlan::ServerSide { .. });
        let places = places.into_iter().take(if once { 1 } else { usize::MAX });
        try_join_all(places.map(|(_, link, index)| {
            let mut command = redis::Cmd::new();
            command.arg(create_args(&index, shape));
            async move { link.ask::<()>(&command).await }
        }))
        .await?;
        Ok(())
    }

    /// Drops every index that vst names after `prefix`, on every primary; their keys stay. Returns how many.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn drop_index(&self, prefix: &str) -> Result<u64, TargetError> {
        let mut dropped = 0;
        for node in self.primaries() {
            let link = self.link(&node.address());
            for name in self.list(&link).await?.iter().filter(|name| is_index_of(name, prefix)) {
                match link.ask::<()>(cmd("FT.DROPINDEX").arg(name)).await {
                    Ok(()) => dropped += 1,
                    // A module that coordinates drops it everywhere at once.
                    Err(TargetError::Refused { text, .. }) if is_missing_index_error(&text) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(dropped)
    }

    /// Each primary's part of the index.
    ///
    /// # Errors
    /// [`TargetError::IndexGone`] where it does not exist, [`TargetError::Index`] for a reply that cannot be read.
    pub async fn index_info(&self, plan: &SearchPlan) -> Result<BTreeMap<NodeId, IndexInfo>, TargetError> {
        let module = module_of(plan);
        let infos = try_join_all(self.places(plan).into_iter().map(|(id, link, index)| async move {
            let reply = match link.value(cmd("FT.INFO").arg(&index)).await {
                Err(TargetError::Refused { address, text, .. }) if is_missing_index_error(&text) => {
                    return Err(TargetError::IndexGone { address, index });
                }
                reply => reply?,
            };
            let info = parse_info(&frame(&reply), module)
                .map_err(|source| TargetError::Index { address: link.address().to_owned(), source })?;
            Ok::<_, TargetError>((id, info))
        }))
        .await?;
        Ok(infos.into_iter().collect())
    }

    /// Names of all indexes that a node knows; none without a search module.
    pub(super) async fn list(&self, link: &Link) -> Result<Vec<String>, TargetError> {
        match self.search_module() {
            Some(_) => link.ask(&cmd("FT._LIST")).await,
            None => Ok(Vec::new()),
        }
    }

    /// Where the index lives: (node, its connection, the name there).
    pub(super) fn places(&self, plan: &SearchPlan) -> Vec<(NodeId, std::sync::Arc<Link>, String)> {
        match plan {
            SearchPlan::ServerSide { index, .. } => self
                .primaries()
                .filter(|node| !node.slots.is_empty())
                .map(|node| (node.id.clone(), self.link(&node.address()), index.clone()))
                .collect(),
            SearchPlan::ClientSide { .. } => self
                .primaries()
                .filter_map(|node| {
                    let index = index_of(plan, &node)?;
                    Some((node.id.clone(), self.link(&node.address()), index))
                })
                .collect(),
        }
    }
}

/// The index that a primary has. Where names are bound to slots, a promoted replica has that of the primary before it.
pub(crate) fn index_of(plan: &SearchPlan, node: &TargetNode) -> Option<String> {
    let (module, indexes) = match plan {
        SearchPlan::ServerSide { index, .. } => return Some(index.clone()),
        SearchPlan::ClientSide { module, indexes } => (module, indexes),
    };
    let owns = |name: &str| {
        let slot = vst_common::keys::slot(name.as_bytes());
        node.slots.iter().any(|range| range.contains(&slot))
    };
    let found = match module {
        SearchModule::RediSearch => indexes.iter().find(|(_, name)| owns(name)),
        SearchModule::ValkeySearch => indexes.first().filter(|_| !node.slots.is_empty()),
    };
    found.map(|(_, name)| name.clone())
}

fn module_of(plan: &SearchPlan) -> SearchModule {
    match plan {
        SearchPlan::ServerSide { module, .. } | SearchPlan::ClientSide { module, .. } => *module,
    }
}
