//! Makes a target write its data to its own disks, so that its operator can start it, or another, with them.
//!
//! Asked for by the command line after a run, only where the operator's configuration allows it: it costs a fork, disk and
//! time on somebody's servers. Law: what is named was written after it was asked for, by every primary.

use std::time::Duration;

use futures::future::try_join_all;
use redis::cmd;

use super::observe::{info_command, info_field};
use super::{Link, Target, TargetError};

/// Time between two looks at a server that writes.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What a primary wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `host:port`.
    pub address: String,
    /// The file, on that host.
    pub path: String,
}

impl Target {
    /// Has every primary save its data in the background, and waits until all have.
    ///
    /// # Errors
    /// [`TargetError`] for the first that refuses or fails.
    pub async fn save(&self) -> Result<Vec<Written>, TargetError> {
        try_join_all(self.primaries().map(|node| {
            let link = self.link(&node.address());
            async move { save(&link).await }
        }))
        .await
    }
}

async fn save(link: &Link) -> Result<Written, TargetError> {
    // One that runs already may have begun before the last row was written.
    while persistence(link, "rdb_bgsave_in_progress").await? != "0" {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let save = cmd("BGSAVE");
    link.value(&save).await?;
    while persistence(link, "rdb_bgsave_in_progress").await? != "0" {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let status = persistence(link, "rdb_last_bgsave_status").await?;
    if status != "ok" {
        return Err(link.unexpected(&save, format!("its last save ended with `{status}`: see its log")));
    }
    let (folder, file) = (setting(link, "dir").await?, setting(link, "dbfilename").await?);
    Ok(Written { address: link.address().to_owned(), path: format!("{folder}/{file}") })
}

async fn persistence(link: &Link, field: &str) -> Result<String, TargetError> {
    let command = info_command("persistence");
    let info: String = link.ask(&command).await?;
    let found = info_field(&info, field).map(str::to_owned);
    found.ok_or_else(|| link.unexpected(&command, format!("no `{field}`")))
}

async fn setting(link: &Link, name: &str) -> Result<String, TargetError> {
    let mut command = cmd("CONFIG");
    command.arg("GET").arg(name);
    let pair: Vec<String> = link.ask(&command).await?;
    pair.into_iter().nth(1).ok_or_else(|| link.unexpected(&command, format!("no `{name}`")))
}
