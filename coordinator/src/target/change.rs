//! The cluster itself is changed: a replica takes over, slots move, nodes come and go.
//!
//! Asked for by the phases of a scenario, one at a time and without load. Laws: a slot that an index's name is bound to
//! stays where it is; a move of slots leaves every slot served by the node that is to serve it, with all its keys; an
//! operation has ended when every node that answers says the same of it.

mod slots;

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Pipeline, cmd};
use vst_common::clock::{self, MonoNs};
use vst_common::count;
use vst_common::keys::slot;
use vst_common::phase::SearchPlan;
use vst_common::scenario::operations::{AddNodeSpec, FailoverHow, FailoverSpec, MigrateSpec, RemoveNodeSpec};

use self::slots::Move;
use super::link::{Link, refusal};
use super::topology::{Role, read_any};
use super::{Target, TargetError, TargetNode, uncovered};
use vst_access::split;

/// Time between two looks at what the nodes say.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A server gives an orderly failover up after five seconds; it is asked again then.
const ASK_AGAIN_NS: u64 = 6_000_000_000;
/// Slots that are on their way together.
const SLOTS_AT_ONCE: usize = 64;
/// Keys that one MIGRATE takes.
const KEYS_AT_ONCE: u32 = 100;
/// For one MIGRATE to end, milliseconds.
const MIGRATE_WITHIN_MS: u64 = 30_000;

/// Until when something has to have happened.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    began: MonoNs,
    ends: MonoNs,
}

impl Deadline {
    fn of(timeout_ms: u64) -> Self {
        let began = clock::mono_ns();
        Self { began, ends: began.saturating_add(timeout_ms.saturating_mul(1_000_000)) }
    }

    fn is_over(self) -> bool {
        clock::mono_ns() >= self.ends
    }

    /// How long it has been, in words.
    fn taken(self) -> String {
        format!("{:.2} s", count::to_f64(clock::mono_ns().saturating_sub(self.began)) / 1e9)
    }
}

impl Target {
    /// Has a replica take its primary's place. Says what happened.
    ///
    /// # Errors
    /// [`TargetError::Unchanged`] where there is no such primary, none that could follow it, or it is not done in time.
    pub async fn failover(&self, spec: &FailoverSpec) -> Result<String, TargetError> {
        let what = "hand over a primary";
        let deadline = Deadline::of(spec.timeout_ms);
        self.refresh().await?;
        let nodes = self.now();
        let old = self.primary(what, spec.primary)?;
        let follows = |node: &&TargetNode| node.role == Role::Replica { of: old.id.clone() };
        let new = nodes.iter().find(follows).ok_or_else(|| TargetError::Unchanged {
            what,
            why: format!("{} has no replica", old.address()),
        })?;
        let mut command = cmd("CLUSTER");
        command.arg("FAILOVER");
        match spec.how {
            FailoverHow::Orderly => {}
            FailoverHow::Force => drop(command.arg("FORCE")),
            FailoverHow::Takeover => drop(command.arg("TAKEOVER")),
        }
        let took_over = |view: &[TargetNode]| {
            view.iter().any(|node| node.id == new.id && node.role == Role::Primary && !node.slots.is_empty())
        };
        loop {
            self.link(&new.address()).ask::<()>(&command).await?;
            let ask_again = clock::mono_ns().saturating_add(ASK_AGAIN_NS).min(deadline.ends);
            match self.agreed(ask_again, took_over).await {
                true => break,
                false if deadline.is_over() => {
                    let why = format!("{} did not take over within {} ms", new.address(), spec.timeout_ms);
                    return Err(TargetError::Unchanged { what, why });
                }
                false => {}
            }
        }
        self.refresh().await?;
        Ok(format!("{} took over from {} in {}", new.address(), old.address(), deadline.taken()))
    }

    /// Moves slots with their keys until every primary serves its share. Says what happened.
    ///
    /// # Errors
    /// [`TargetError::Unchanged`] where the shares do not fit the primaries or time is over; what has moved by then stays
    /// where it is, and the same again goes on from there.
    pub async fn migrate_slots(
        &self,
        spec: &MigrateSpec,
        search: Option<&SearchPlan>,
    ) -> Result<String, TargetError> {
        let what = "move slots";
        let deadline = Deadline::of(spec.timeout_ms);
        self.refresh().await?;
        let nodes = self.now();
        let primaries: Vec<TargetNode> = self.primaries().collect();
        let missing = uncovered(&nodes);
        if missing > 0 {
            return Err(TargetError::UncoveredSlots { url: self.url.to_string(), missing });
        }
        let owned: Vec<Vec<u16>> =
            primaries.iter().map(|node| node.slots.iter().flat_map(Clone::clone).collect()).collect();
        let planned = slots::moves(&owned, &spec.shares, &pinned(search));
        let planned = planned.map_err(|why| TargetError::Unchanged { what, why })?;
        let (mut moved, mut keys) = (0_usize, 0_u64);
        for Move { from, to, slots } in planned {
            let (Some(from), Some(to)) = (primaries.get(from), primaries.get(to)) else { continue };
            for some in slots.chunks(SLOTS_AT_ONCE) {
                if deadline.is_over() {
                    let why = format!("{moved} slots have moved within {} ms", spec.timeout_ms);
                    return Err(TargetError::Unchanged { what, why });
                }
                keys += self.carry(from, to, some, &primaries).await?;
                moved += some.len();
            }
        }
        let said = |view: &[TargetNode]| uncovered(view) == 0;
        self.agreed(deadline.ends, said).await;
        self.refresh().await?;
        let serve: Vec<String> = self
            .primaries()
            .map(|node| {
                let n: usize = node.slots.iter().map(ExactSizeIterator::len).sum();
                format!("{} serves {n}", node.address())
            })
            .collect();
        Ok(format!("{moved} slots with {keys} keys moved in {}: {}", deadline.taken(), serve.join(", ")))
    }

    /// Moves some slots from one primary to another. Gives how many keys went with them.
    async fn carry(
        &self,
        from: &TargetNode,
        to: &TargetNode,
        slots: &[u16],
        primaries: &[TargetNode],
    ) -> Result<u64, TargetError> {
        let (source, destination) = (self.link(&from.address()), self.link(&to.address()));
        set_slots(&destination, slots, "IMPORTING", from.id.as_str()).await?;
        set_slots(&source, slots, "MIGRATING", to.id.as_str()).await?;
        let (mut left, mut carried) = (slots.to_vec(), 0_u64);
        while !left.is_empty() {
            let mut ask = Pipeline::new();
            for slot in &left {
                ask.cmd("CLUSTER").arg("GETKEYSINSLOT").arg(*slot).arg(KEYS_AT_ONCE);
            }
            let mut migrate = Pipeline::new();
            let answers = answered(&source, &ask).await?;
            let mut full = Vec::new();
            for (slot, answer) in left.iter().zip(answers) {
                let keys: Vec<Vec<u8>> = redis::from_redis_value(answer)
                    .map_err(|e| source.unexpected(&cmd("CLUSTER"), e.to_string()))?;
                if keys.is_empty() {
                    continue;
                }
                full.push(*slot);
                carried += count::len(keys.len());
                let command = migrate.cmd("MIGRATE").arg(&to.host).arg(to.port).arg("").arg(0);
                command.arg(MIGRATE_WITHIN_MS).arg("REPLACE");
                for word in self.url.words_for_migrate() {
                    command.arg(word);
                }
                command.arg("KEYS").arg(keys);
            }
            if !migrate.is_empty() {
                answered(&source, &migrate).await?;
            }
            left = full;
        }
        // The new owner first, or the others may send it back.
        let others = primaries.iter().filter(|node| node.id != to.id && node.id != from.id);
        for node in [to, from].into_iter().chain(others) {
            set_slots(&self.link(&node.address()), slots, "NODE", to.id.as_str()).await?;
        }
        Ok(carried)
    }

    /// Takes a server that runs into the cluster, as a replica or as a primary without slots. Says what happened.
    ///
    /// # Errors
    /// [`TargetError::Unchanged`] where it is no empty node of a cluster, or does not come in time.
    pub async fn add_node(&self, spec: &AddNodeSpec) -> Result<String, TargetError> {
        let what = "add a node";
        let unchanged = |why: String| TargetError::Unchanged { what, why };
        let deadline = Deadline::of(spec.timeout_ms);
        self.refresh().await?;
        let own = match spec.replica_of {
            Some(n) => Some(self.primary(what, n)?),
            None => None,
        };
        let new = self.link(&spec.address);
        let id: String = new.ask(cmd("CLUSTER").arg("MYID")).await?;
        let view: String = new.ask(cmd("CLUSTER").arg("NODES")).await?;
        let bus = bus_port(&view)
            .ok_or_else(|| unchanged(format!("{} does not know its own port", spec.address)))?;
        let (host, port) =
            split(&spec.address).ok_or_else(|| unchanged(format!("`{}` is no address", spec.address)))?;
        let ip =
            ip_of(host, port).await.ok_or_else(|| unchanged(format!("nobody knows where `{host}` is")))?;
        let first = self.primary(what, 1)?;
        let mut meet = cmd("CLUSTER");
        meet.arg("MEET").arg(&ip).arg(port).arg(bus);
        self.link(&first.address()).ask::<()>(&meet).await?;
        let late = |stage: &str| unchanged(format!("{} {stage} within {} ms", spec.address, spec.timeout_ms));
        if !self.agreed(deadline.ends, |view| view.iter().any(|node| node.id.as_str() == id)).await {
            return Err(late("is not known to all nodes"));
        }
        if let Some(own) = &own {
            let mut follow = cmd("CLUSTER");
            follow.arg("REPLICATE").arg(own.id.as_str());
            // A node knows its future primary a moment later than that one knows it.
            while let Err(e) = new.ask::<()>(&follow).await {
                match e {
                    TargetError::Refused { text, .. }
                        if text.contains("Unknown node") && !deadline.is_over() =>
                    {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                    e => return Err(e),
                }
            }
            let role = Role::Replica { of: own.id.clone() };
            let follows = |view: &[TargetNode]| view.iter().any(|n| n.id.as_str() == id && n.role == role);
            if !self.agreed(deadline.ends, follows).await {
                return Err(late("does not follow its primary"));
            }
            loop {
                let info: String = new.ask(cmd("INFO").arg("replication")).await?;
                if super::observe::info_field(&info, "master_link_status") == Some("up") {
                    break;
                }
                if deadline.is_over() {
                    return Err(late("does not have its primary's data"));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        self.refresh().await?;
        let role = own.map_or_else(
            || String::from("a primary without slots"),
            |p| format!("a replica of {}", p.address()),
        );
        Ok(format!("{} joined as {role} in {}", spec.address, deadline.taken()))
    }

    /// Takes a node without slots out of the cluster; its server goes on running, empty. Says what happened.
    ///
    /// # Errors
    /// [`TargetError::Unchanged`] where it serves slots, is not known, or does not go in time.
    pub async fn remove_node(&self, spec: &RemoveNodeSpec) -> Result<String, TargetError> {
        let what = "remove a node";
        let unchanged = |why: String| TargetError::Unchanged { what, why };
        let deadline = Deadline::of(spec.timeout_ms);
        self.refresh().await?;
        let nodes = self.now();
        let gone = nodes
            .iter()
            .find(|node| node.address() == spec.address)
            .ok_or_else(|| unchanged(format!("the cluster has no node at {}", spec.address)))?;
        if !gone.slots.is_empty() {
            return Err(unchanged(format!("{} serves slots: move them away before", spec.address)));
        }
        let mut forget = cmd("CLUSTER");
        forget.arg("FORGET").arg(gone.id.as_str());
        for node in nodes.iter().filter(|node| node.id != gone.id) {
            self.link(&node.address()).ask::<()>(&forget).await?;
        }
        // Otherwise it would make itself known again.
        let mut reset = cmd("CLUSTER");
        reset.arg("RESET").arg("SOFT");
        self.link(&spec.address).ask::<()>(&reset).await?;
        loop {
            self.refresh().await?;
            if !self.now().iter().any(|node| node.id == gone.id) {
                break;
            }
            if deadline.is_over() {
                return Err(unchanged(format!(
                    "{} is still known after {} ms",
                    spec.address, spec.timeout_ms
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(format!("{} left in {}", spec.address, deadline.taken()))
    }

    /// The n-th primary that serves slots, from 1, in the order of addresses.
    fn primary(&self, what: &'static str, n: u32) -> Result<TargetNode, TargetError> {
        let serving: Vec<TargetNode> = self.primaries().filter(|node| !node.slots.is_empty()).collect();
        let at = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
        let found = at.and_then(|at| serving.get(at)).cloned();
        found.ok_or_else(|| TargetError::Unchanged {
            what,
            why: format!("it has {} primaries that serve slots, and number {n} is asked for", serving.len()),
        })
    }

    /// Waits until every node that answers sees what is awaited; `false` where that is not so in time.
    async fn agreed(&self, until: MonoNs, sees: impl Fn(&[TargetNode]) -> bool) -> bool {
        loop {
            let (mut yes, mut no) = (0_u32, 0_u32);
            for node in self.now().iter() {
                match read_any(&self.link(&node.address())).await {
                    Ok(view) if sees(&view) => yes += 1,
                    Ok(_) => no += 1,
                    // One that is down says nothing.
                    Err(_) => {}
                }
            }
            if yes > 0 && no == 0 {
                return true;
            }
            if clock::mono_ns() >= until {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Slots that names of indexes are bound to.
fn pinned(search: Option<&SearchPlan>) -> BTreeSet<u16> {
    match search {
        Some(SearchPlan::ClientSide { indexes, .. }) => {
            indexes.iter().map(|(_, name)| slot(name.as_bytes())).collect()
        }
        Some(SearchPlan::ServerSide { .. }) | None => BTreeSet::new(),
    }
}

async fn set_slots(link: &Link, slots: &[u16], state: &str, node: &str) -> Result<(), TargetError> {
    let mut pipeline = Pipeline::new();
    for slot in slots {
        pipeline.cmd("CLUSTER").arg("SETSLOT").arg(*slot).arg(state).arg(node);
    }
    answered(link, &pipeline).await.map(drop)
}

/// Sends commands together, of which none may be refused.
async fn answered(link: &Link, pipeline: &Pipeline) -> Result<Vec<redis::Value>, TargetError> {
    let values = link.values(pipeline).await?;
    match values.iter().find_map(refusal) {
        None => Ok(values),
        Some(text) => {
            let command = pipeline.cmd_iter().next().map(super::link::command_name).unwrap_or_default();
            Err(TargetError::Refused { address: link.address().to_owned(), command, text })
        }
    }
}

/// The port at which a node's peers call it, by its own description.
fn bus_port(nodes: &str) -> Option<u16> {
    let own =
        nodes.lines().find(|line| line.split_whitespace().nth(2).is_some_and(|f| f.contains("myself")))?;
    let (_, bus) = own.split_whitespace().nth(1)?.split_once('@')?;
    bus.split(',').next()?.parse().ok()
}

async fn ip_of(host: &str, port: u16) -> Option<String> {
    let mut found = tokio::net::lookup_host((host, port)).await.ok()?;
    found.next().map(|address| address.ip().to_string())
}
