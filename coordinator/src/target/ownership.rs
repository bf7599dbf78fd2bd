//! Whose keys these are: the marker, what stands in the way of a run, and removing exactly what vst made.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use redis::{Pipeline, cmd};
use serde::{Deserialize, Serialize};
use vst_common::content::KeyNames;
use vst_common::ids::RunId;
use vst_common::keys::{KeySpace, owner_marker, slot};
use vst_common::resp::Frame;
use vst_common::scenario::KeyspaceSpec;
use vst_common::search::is_missing_index_error;

use super::link::{Link, frame, refusal};
use super::{Lease, Target, TargetError, TargetNode, is_index_of, owner, topology};

/// Keys that one look of SCAN goes over.
const SCAN_COUNT: u32 = 10_000;
/// Keys of the plan that are removed at a time.
const CLEANUP_BATCH: usize = 4_096;
/// How often keys are tried again after their slots moved.
const MOVED_ATTEMPTS: u32 = 5;
/// The field of the marker that holds all of it; it is what claims the prefix.
const PLAN_FIELD: &str = "plan";

/// Says which run made the keys under a prefix, and by what arithmetic they can be found again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerMarker {
    /// The run.
    pub run: RunId,
    /// Prefix of all its keys.
    pub prefix: String,
    /// Rows of the base.
    pub rows: u64,
    /// Copies of the base, at least 1: keys are those of copy 0 up to `copies - 1`.
    pub copies: u32,
    /// Dimensions of a vector.
    pub dims: u32,
    /// How many keys each of the spaces has, and what they are called.
    #[serde(default)]
    pub keyspace: KeyspaceSpec,
    /// Types of key that plain commands make.
    #[serde(default)]
    pub spaces: Vec<String>,
    /// Version of vst that made them.
    pub vst: String,
    /// When, RFC 3339.
    pub made_at: String,
}

impl OwnerMarker {
    /// Keys that the plan can hold.
    #[must_use]
    pub fn cells(&self) -> u64 {
        let spaces = vst_common::count::len(self.spaces.len());
        let commands = self.keyspace.keys.saturating_mul(spaces);
        self.rows.saturating_mul(u64::from(self.copies)).saturating_add(commands)
    }

    /// The names of the keys of plain commands.
    fn names(&self) -> impl Iterator<Item = KeyNames> {
        self.spaces.iter().map(|space| KeyNames::new(&self.prefix, space, &self.keyspace))
    }

    /// Every key that the plan can hold.
    fn keys(&self) -> impl Iterator<Item = Vec<u8>> {
        let rows = KeySpace::new(&self.prefix);
        let cells = (0..self.copies).flat_map(|copy| (0..self.rows).map(move |row| (copy, row)));
        let cells = cells.map(move |(copy, row)| {
            let mut key = Vec::new();
            rows.write(copy, row, &mut key);
            key
        });
        let commands = self.names().flat_map(|names| {
            (0..self.keyspace.keys).map(move |n| {
                let mut key = Vec::new();
                names.write(n, &mut key);
                key
            })
        });
        cells.chain(commands)
    }
}

/// What is on a target under a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: the prefix can be claimed.
    Empty,
    /// What an earlier run of vst left, or a present one has.
    OursLeftBehind(OwnerMarker),
    /// Something that vst did not make.
    Foreign {
        /// What and where.
        what: String,
    },
}

/// What clean-up removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Keys that existed and were removed.
    pub keys: u64,
    /// Indexes dropped.
    pub indexes: u64,
}

impl Target {
    /// Looks for what is under `prefix`: the marker, indexes, and the first key on any primary. Writes nothing. Goes
    /// over the whole keyspace where there is nothing to find.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn inspect(&self, prefix: &str) -> Result<Found, TargetError> {
        if let Some(found) = self.marker(prefix).await? {
            return Ok(found);
        }
        Ok(self.strangers(prefix, None).await?.map_or(Found::Empty, |what| Found::Foreign { what }))
    }

    /// What stands under the prefix of a marker beside what it says: an index or a key that vst did not make. Writes
    /// nothing.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn beside(&self, marker: &OwnerMarker) -> Result<Option<String>, TargetError> {
        self.strangers(&marker.prefix, Some(marker)).await
    }

    /// The first index or key that stands in the way; what a marker explains does not.
    async fn strangers(
        &self,
        prefix: &str,
        marker: Option<&OwnerMarker>,
    ) -> Result<Option<String>, TargetError> {
        for node in self.primaries() {
            let link = self.link(&node.address());
            for name in self.list(&link).await? {
                let Some(prefixes) = prefixes(&link, &name).await? else { continue };
                if is_index_of(&name, prefix) {
                    // Where the module does not say what an index takes in, its name has to be enough.
                    let is_ours = marker.is_some() && (prefixes.is_empty() || prefixes == [prefix]);
                    if !is_ours {
                        return Ok(Some(format!("an index `{name}` on {}", link.address())));
                    }
                } else if let Some(covering) = covering(prefixes, prefix) {
                    return Ok(Some(format!(
                        "an index `{name}` on {}, which takes in keys that begin with `{covering}`",
                        link.address()
                    )));
                }
            }
        }
        let first_keys = try_join_all(self.primaries().map(|node| {
            let link = self.link(&node.address());
            async move {
                let key = first_stranger(&link, prefix, marker).await?;
                Ok::<_, TargetError>(key.map(|key| (key, link.address().to_owned())))
            }
        }))
        .await?;
        let first = first_keys.into_iter().flatten().next();
        Ok(first.map(|(key, address)| format!("a key `{}` on {address}", String::from_utf8_lossy(&key))))
    }

    /// [`Target::inspect`], where everything but an empty prefix is an error that says what to do.
    ///
    /// # Errors
    /// [`TargetError::Foreign`], [`TargetError::LeftBehind`].
    pub async fn require_free(&self, prefix: &str) -> Result<(), TargetError> {
        match self.inspect(prefix).await? {
            Found::Empty => Ok(()),
            Found::OursLeftBehind(marker) => Err(left_behind(marker)),
            Found::Foreign { what } => Err(TargetError::Foreign { prefix: prefix.to_owned(), what }),
        }
    }

    /// Writes the marker, if nobody has claimed the prefix; of two runs that try at once, one succeeds. Whether the
    /// prefix is free is [`Target::require_free`]'s question and comes first.
    ///
    /// # Errors
    /// [`TargetError::LeftBehind`] when another run has claimed it.
    pub async fn claim(&self, marker: &OwnerMarker) -> Result<(), TargetError> {
        let key = owner_marker(&marker.prefix);
        let link = self.link_for_key(key.as_bytes())?;
        let plan = serde_json::to_string(marker).map_err(|e| TargetError::Reply {
            address: link.address().to_owned(),
            command: String::from("HSETNX"),
            what: e.to_string(),
        })?;
        let written: bool = link.ask(cmd("HSETNX").arg(&key).arg(PLAN_FIELD).arg(plan)).await?;
        if !written {
            return match self.marker(&marker.prefix).await? {
                Some(Found::OursLeftBehind(other)) if other == *marker => Ok(()),
                Some(Found::OursLeftBehind(other)) => Err(left_behind(other)),
                _ => Err(foreign_marker(marker.prefix.clone(), &key, &link)),
            };
        }
        self.describe(marker).await
    }

    /// Takes a prefix over from the run that has marked it, while the caller holds it; a second time it changes nothing.
    ///
    /// # Errors
    /// [`TargetError::NotOurs`] where the mark is not that run's any more.
    pub async fn adopt(&self, left: &OwnerMarker, marker: &OwnerMarker) -> Result<(), TargetError> {
        if self.require_marker(marker).await.is_ok() {
            return self.describe(marker).await;
        }
        self.require_marker(left).await?;
        let key = owner_marker(&marker.prefix);
        let link = self.link_for_key(key.as_bytes())?;
        let plan = serde_json::to_string(marker).map_err(|e| TargetError::Reply {
            address: link.address().to_owned(),
            command: String::from("HSET"),
            what: e.to_string(),
        })?;
        link.ask::<()>(cmd("HSET").arg(&key).arg(PLAN_FIELD).arg(plan)).await?;
        self.describe(marker).await
    }

    /// For whoever looks with a command line; the marker's first field is what counts.
    async fn describe(&self, marker: &OwnerMarker) -> Result<(), TargetError> {
        let key = owner_marker(&marker.prefix);
        let link = self.link_for_key(key.as_bytes())?;
        let mut fields = cmd("HSET");
        fields.arg(&key).arg("run").arg(marker.run.as_str()).arg("vst").arg(&marker.vst);
        link.ask::<()>(fields.arg("made_at").arg(&marker.made_at)).await
    }

    /// Removes what `marker` says vst made: the indexes named after the prefix, every key of the plan by arithmetic,
    /// and last the marker itself, so that an interrupted clean-up can be repeated. `progress` is told how many cells
    /// of the plan are done, of how many. Nothing else is touched; nothing at all where the marker on the target is
    /// not this one, and nothing more from the moment that somebody else holds the prefix.
    ///
    /// # Errors
    /// [`TargetError::NotOurs`].
    pub async fn cleanup(
        &self,
        marker: &OwnerMarker,
        lease: &Lease,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Cleaned, TargetError> {
        lease.check().await?;
        self.require_marker(marker).await?;
        let mut cleaned = Cleaned { keys: 0, indexes: self.drop_index(&marker.prefix).await? };
        let total = marker.cells();
        let mut nodes = self.now().to_vec();
        let mut batch: Vec<Vec<u8>> = Vec::with_capacity(CLEANUP_BATCH);
        let mut done = 0;
        progress(done, total);
        for key in marker.keys() {
            batch.push(key);
            if batch.len() == CLEANUP_BATCH {
                lease.check().await?;
                done += vst_common::count::len(batch.len());
                cleaned.keys += self.unlink(&mut nodes, std::mem::take(&mut batch)).await?;
                progress(done, total);
            }
        }
        lease.check().await?;
        cleaned.keys += self.unlink(&mut nodes, batch).await?;
        progress(total, total);
        self.unclaim(marker, lease).await?;
        Ok(cleaned)
    }

    /// Removes the marker alone, as of a run that has written nothing else.
    ///
    /// # Errors
    /// [`TargetError::NotOurs`].
    pub async fn unclaim(&self, marker: &OwnerMarker, lease: &Lease) -> Result<(), TargetError> {
        lease.check().await?;
        self.require_marker(marker).await?;
        let key = owner_marker(&marker.prefix);
        self.link_for_key(key.as_bytes())?.ask::<()>(cmd("UNLINK").arg(&key)).await
    }

    async fn require_marker(&self, marker: &OwnerMarker) -> Result<(), TargetError> {
        let what = match self.marker(&marker.prefix).await? {
            Some(Found::OursLeftBehind(found)) if found == *marker => return Ok(()),
            Some(Found::OursLeftBehind(found)) => format!("run {} has marked it", found.run),
            Some(Found::Foreign { what }) => what,
            Some(Found::Empty) | None => String::from("the mark is gone"),
        };
        Err(TargetError::NotOurs { prefix: marker.prefix.clone(), run: marker.run.to_string(), what })
    }

    /// Removes keys, each on the node that owns its slot. Learns new owners on the way and leaves them in `nodes`.
    async fn unlink(&self, nodes: &mut Vec<TargetNode>, mut keys: Vec<Vec<u8>>) -> Result<u64, TargetError> {
        let mut removed = 0;
        let mut redirect = String::new();
        for attempt in 0..MOVED_ATTEMPTS {
            if keys.is_empty() {
                return Ok(removed);
            }
            if attempt > 0 {
                *nodes = topology::read(&self.link(&self.url.address())).await?;
            }
            let mut by_node: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
            for key in std::mem::take(&mut keys) {
                let node = owner(nodes, slot(&key))
                    .ok_or_else(|| TargetError::UncoveredSlots { url: self.url.to_string(), missing: 1 })?;
                by_node.entry(node.address()).or_default().push(key);
            }
            let replies = try_join_all(by_node.into_iter().map(|(address, keys)| {
                let link = self.link(&address);
                let mut pipeline = Pipeline::with_capacity(keys.len());
                for key in &keys {
                    pipeline.cmd("UNLINK").arg(key);
                }
                async move {
                    let values = link.values(&pipeline).await?;
                    Ok::<_, TargetError>((address, keys, values))
                }
            }))
            .await?;
            for (address, asked, values) in replies {
                for (key, value) in asked.into_iter().zip(&values) {
                    match refusal(value) {
                        None => removed += frame(value).as_i64().map_or(0, vst_common::count::to_u64),
                        Some(text) if is_redirect(&text) => {
                            redirect = text;
                            keys.push(key);
                        }
                        Some(text) => {
                            let command = String::from("UNLINK");
                            return Err(TargetError::Refused { address, command, text });
                        }
                    }
                }
            }
        }
        if keys.is_empty() {
            return Ok(removed);
        }
        Err(TargetError::KeysMoved { keys: keys.len(), text: redirect })
    }

    /// The marker of a prefix, if there is a key of its name.
    pub(crate) async fn marker(&self, prefix: &str) -> Result<Option<Found>, TargetError> {
        let key = owner_marker(prefix);
        let link = self.link_for_key(key.as_bytes())?;
        let kind: String = link.ask(cmd("TYPE").arg(&key)).await?;
        if kind == "none" {
            return Ok(None);
        }
        let plan: Option<String> = match kind.as_str() {
            "hash" => link.ask(cmd("HGET").arg(&key).arg(PLAN_FIELD)).await?,
            _ => None,
        };
        let marker = plan.and_then(|plan| serde_json::from_str::<OwnerMarker>(&plan).ok());
        Ok(Some(match marker.filter(|marker| marker.prefix == prefix) {
            Some(marker) => Found::OursLeftBehind(marker),
            None => Found::Foreign {
                what: format!(
                    "a key `{key}` on {}, which is not a marker that this vst can read",
                    link.address()
                ),
            },
        }))
    }
}

fn is_redirect(text: &str) -> bool {
    ["MOVED ", "ASK ", "TRYAGAIN"].iter().any(|word| text.starts_with(word))
}

pub(crate) fn left_behind(marker: OwnerMarker) -> TargetError {
    TargetError::LeftBehind { prefix: marker.prefix, run: marker.run.to_string(), made_at: marker.made_at }
}

fn foreign_marker(prefix: String, key: &str, link: &Link) -> TargetError {
    TargetError::Foreign { prefix, what: format!("a key `{key}` on {}", link.address()) }
}

/// What an index takes in, as far as the module says; `None` for one that was dropped since it was listed.
async fn prefixes(link: &Link, name: &str) -> Result<Option<Vec<String>>, TargetError> {
    let reply = match link.value(cmd("FT.INFO").arg(name)).await {
        Ok(reply) => reply,
        Err(TargetError::Refused { text, .. }) if is_missing_index_error(&text) => return Ok(None),
        Err(e) => return Err(e),
    };
    let frame = frame(&reply);
    let prefixes = frame
        .get("index_definition")
        .and_then(|definition| definition.get("prefixes"))
        .and_then(Frame::as_array)
        .map(|all| all.iter().filter_map(Frame::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    Ok(Some(prefixes))
}

/// The prefix of a foreign index that would take our keys in, or whose keys lie under ours.
fn covering(prefixes: Vec<String>, prefix: &str) -> Option<String> {
    // No prefix at all means every key.
    let prefixes = if prefixes.is_empty() { vec![String::new()] } else { prefixes };
    prefixes.into_iter().find(|other| other.starts_with(prefix) || prefix.starts_with(other.as_str()))
}

/// The first key under a prefix that SCAN comes across and no marker explains.
async fn first_stranger(
    link: &Link,
    prefix: &str,
    marker: Option<&OwnerMarker>,
) -> Result<Option<Vec<u8>>, TargetError> {
    let rows = KeySpace::new(prefix);
    let spaces: Vec<KeyNames> = marker.into_iter().flat_map(OwnerMarker::names).collect();
    let is_planned = |key: &[u8]| {
        let cell = rows.parse(key).zip(marker);
        cell.is_some_and(|((copy, row), marker)| copy < marker.copies && row < marker.rows)
            || spaces.iter().any(|names| names.parse(key).is_some())
    };
    let mut cursor = 0_u64;
    loop {
        let (next, keys) = scan(link, prefix, cursor).await?;
        if let Some(key) = keys.into_iter().find(|key| !is_planned(key)) {
            return Ok(Some(key));
        }
        if next == 0 {
            return Ok(None);
        }
        cursor = next;
    }
}

/// One step of SCAN over the keys under a prefix; a cursor of 0 begins and ends it. A key may come twice.
pub(super) async fn scan(link: &Link, prefix: &str, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), TargetError> {
    let pattern = format!("{}*", escape_glob(prefix));
    link.ask(cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT)).await
}

/// A text as a pattern that matches only it.
fn escape_glob(text: &str) -> String {
    text.chars()
        .flat_map(|c| matches!(c, '*' | '?' | '[' | ']' | '\\').then_some('\\').into_iter().chain([c]))
        .collect()
}
