//! Where a fleet keeps its registrations in etcd, and what they say.
//!
//! `/vst/<fleet>/leaders/<run>/<epoch>` is written by whoever leads a run, `/vst/<fleet>/workers/<name>` by each worker.
//! Law: of two leaders of a run the one with the higher epoch is the leader, whoever wrote last: a coordinator that was
//! paused and wakes up must not draw the workers back to itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use vst_common::clock::WallNs;
use vst_common::ids::{RunId, WorkerId};

use crate::client::{Client, Error};
use crate::registration::Registration;
use crate::watch::{Members, Watching};

/// How long etcd keeps a registration whose holder is silent.
const TTL: Duration = Duration::from_secs(5);

/// Who leads a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The run.
    pub run: RunId,
    /// Which leader of the run it is, from 1.
    pub epoch: u64,
    /// Where workers call, `host:port`.
    pub address: String,
    /// Names the process.
    pub leader: String,
    /// Its version of vst.
    pub version: String,
    /// Since when it leads.
    pub since: WallNs,
    /// Where the run directory is.
    pub run_directory: String,
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub worker: WorkerId,
    /// Its version of vst.
    pub version: String,
    /// Host it runs on.
    pub host: String,
    /// Its address on the network, as it sees it; empty where it cannot tell.
    pub address: String,
    /// Where its own HTTP port listens; empty where it has none.
    pub http: String,
    /// CPU cores it may use.
    pub cores: u32,
    /// Memory it may use, bytes.
    pub memory_bytes: u64,
    /// Load lanes it runs.
    pub lanes: u32,
}

/// The registrations of one fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    client: Client,
    name: String,
}

/// Follows who leads, while it lives.
#[derive(Debug)]
pub struct Leaders {
    watching: Watching,
    seen: watch::Receiver<Members>,
}

impl Fleet {
    /// The fleet of this name. Fleets of one etcd know nothing of each other.
    #[must_use]
    pub fn new(client: Client, name: &str) -> Self {
        Self { client, name: name.to_owned() }
    }

    fn workers(&self) -> String {
        format!("/vst/{}/workers/", self.name)
    }

    fn leaders(&self) -> String {
        format!("/vst/{}/leaders/", self.name)
    }

    /// Says who leads, for as long as the registration lives.
    ///
    /// # Errors
    /// [`Error`] when etcd does not take it.
    pub async fn announce(&self, leader: &Leader) -> Result<Registration, Error> {
        let key = format!("{}{}/{:020}", self.leaders(), leader.run, leader.epoch);
        Registration::hold(&self.client, key, serde_json::to_vec(leader)?, TTL).await
    }

    /// Says that a worker is there, for as long as the registration lives.
    ///
    /// # Errors
    /// [`Error`] when etcd does not take it.
    pub async fn register(&self, member: &Member) -> Result<Registration, Error> {
        let key = format!("{}{}", self.workers(), member.worker);
        Registration::hold(&self.client, key, serde_json::to_vec(member)?, TTL).await
    }

    /// This machine's address on the network, as it is towards etcd; empty where it cannot be told.
    pub async fn own_address(&self) -> String {
        let towards = async {
            let socket = tokio::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).await?;
            // Nothing is sent: this only asks the system which way it would take.
            socket.connect(self.client.first_host()).await?;
            socket.local_addr()
        };
        towards.await.map_or_else(|_| String::new(), |address| address.ip().to_string())
    }

    /// The workers that are there now, by name.
    ///
    /// # Errors
    /// [`Error`] when etcd does not answer.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let (pairs, _) = self.client.list(&self.workers()).await?;
        Ok(pairs.iter().filter_map(|(_, value)| serde_json::from_slice(value).ok()).collect())
    }

    /// Begins to follow who leads.
    ///
    /// # Errors
    /// [`Error`] when etcd does not answer.
    pub async fn leaders_followed(&self) -> Result<Leaders, Error> {
        let watching = Watching::start(&self.client, &self.leaders()).await?;
        let seen = watching.members();
        Ok(Leaders { watching, seen })
    }
}

impl Leaders {
    /// The leader of a run, or of the newest run where none is named.
    #[must_use]
    pub fn current(&self, run: Option<&RunId>) -> Option<Leader> {
        newest(&self.watching.members().borrow(), run)
    }

    /// Waits until something is different from what was seen before.
    pub async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Of several leaders the one that counts: the highest epoch of the run, or of the run that was taken up last. What
/// cannot be read is nobody's.
#[must_use]
pub fn newest(members: &Members, run: Option<&RunId>) -> Option<Leader> {
    let all: Vec<Leader> =
        members.values().filter_map(|value| serde_json::from_slice::<Leader>(value).ok()).collect();
    let run = match run {
        Some(run) => run.clone(),
        None => all.iter().max_by_key(|leader| leader.since)?.run.clone(),
    };
    all.into_iter().filter(|leader| leader.run == run).max_by_key(|leader| leader.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(run: &str, epoch: u64, since: WallNs) -> Leader {
        Leader {
            run: RunId::new(run),
            epoch,
            address: format!("{run}:{epoch}"),
            leader: String::new(),
            version: String::new(),
            since,
            run_directory: String::new(),
        }
    }

    #[test]
    fn a_paused_leader_that_writes_last_does_not_win() {
        let all = [leader("a", 1, 50), leader("a", 2, 20), leader("b", 1, 10)];
        let mut members: Members = all
            .iter()
            .map(|l| (format!("{}/{:020}", l.run, l.epoch), serde_json::to_vec(l).unwrap()))
            .collect();
        members.insert("a/bad".into(), b"not json".to_vec());
        let of = |run: Option<&str>| newest(&members, run.map(RunId::new).as_ref()).map(|l| l.address);
        assert_eq!(of(None).as_deref(), Some("a:2"));
        assert_eq!(of(Some("b")).as_deref(), Some("b:1"));
        assert_eq!(of(Some("c")), None);
        assert_eq!(newest(&Members::new(), None), None);
    }
}
