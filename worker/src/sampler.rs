//! What the target's memory looks like beside the load: every observed node at the same ticks.
//!
//! Fed by the coordinator with nodes (each is observed by one worker) and by the session with the coordinator's clock;
//! gives rows of table `memory` and, at slower ticks, of table `allocator`. It has connections of its own, so it neither
//! waits for the load nor delays it. Law: each node gives exactly one row of memory per tick, and one that did not answer
//! in time says why instead of giving zeros.

mod jemalloc;
mod process;
mod row;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::{Mutex, mpsc::UnboundedSender, watch};
use tokio::task::{JoinHandle, JoinSet};
use vst_common::batch::Sample;
use vst_common::batch::allocator::AllocatorRow;
use vst_common::batch::memory::{MemoryRow, parse_info};
use vst_common::clock::{ClockOffset, MonoNs, SECOND_NS, mono_ns, wall_ns};
use vst_common::ids::{NodeId, PhaseIndex};
use vst_proto::fleet;

use crate::topology::{Credentials, connect};
use row::Answer;

/// A node that has not answered after this long is missing, even where ticks are further apart, nanoseconds.
const PATIENCE_NS: u64 = SECOND_NS;
/// The shortest time between two ticks, nanoseconds.
const SHORTEST_NS: u64 = SECOND_NS / 100;

/// What was read of one node.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampled {
    /// Its memory at a tick.
    Memory(Box<MemoryRow>),
    /// Its size classes at a slower tick.
    Allocator(Vec<AllocatorRow>),
}

/// What is observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    phase: u32,
    phase_name: String,
    interval_ns: u64,
    /// The least time between two questions for the size classes: their text is long, and a server that writes it does
    /// nothing else (`took_ns` says how long). The first tick of each phase asks too.
    size_classes_ns: u64,
    nodes: Vec<Observed>,
}

/// A node under observation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Observed {
    id: NodeId,
    address: String,
    role: String,
    index: Option<String>,
}

impl From<fleet::Observe> for Observation {
    fn from(order: fleet::Observe) -> Self {
        let indexes = order.indexes.into_iter().chain(std::iter::repeat(String::new()));
        let nodes = order.nodes.into_iter().zip(indexes).map(|(node, index)| Observed {
            id: NodeId::new(node.id),
            address: node.address,
            role: node.role,
            index: (!index.is_empty()).then_some(index),
        });
        Self {
            phase: order.phase,
            phase_name: order.phase_name,
            interval_ns: order.interval_ns.max(SHORTEST_NS),
            size_classes_ns: order.size_classes_ns.max(SHORTEST_NS),
            nodes: nodes.collect(),
        }
    }
}

/// A running sampler. Dropping it ends it.
#[derive(Debug)]
pub struct Handle {
    observed: watch::Sender<Observation>,
    clock: watch::Sender<Option<ClockOffset>>,
    task: JoinHandle<()>,
}

impl Handle {
    /// From now on observe this.
    pub fn observe(&self, observation: Observation) {
        self.observed.send_replace(observation);
    }

    /// The coordinator's clock as seen from here; nothing is sampled before the first.
    pub fn clock(&self, offset: ClockOffset) {
        self.clock.send_replace(Some(offset));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a sampler that observes nothing yet.
#[must_use]
pub fn spawn(credentials: Credentials, rows: UnboundedSender<Sampled>) -> Handle {
    let (observed, observed_by) = watch::channel(Observation::default());
    let (clock, clock_by) = watch::channel(None);
    let sampler =
        Sampler { credentials, rows, observed: observed_by, clock: clock_by, lines: HashMap::new() };
    let task = tokio::spawn(sampler.run());
    Handle { observed, clock, task }
}

/// A node's connection, opened when it is needed.
type Line = Arc<Mutex<Option<MultiplexedConnection>>>;

struct Sampler {
    credentials: Credentials,
    rows: UnboundedSender<Sampled>,
    observed: watch::Receiver<Observation>,
    clock: watch::Receiver<Option<ClockOffset>>,
    lines: HashMap<String, Line>,
}

impl Sampler {
    async fn run(mut self) {
        let mut last = 0;
        let mut classes_of = None;
        // Samples that are under way; a sampler that ends takes them with it.
        let mut samples = JoinSet::new();
        loop {
            let observation = self.observed.borrow_and_update().clone();
            let clock = *self.clock.borrow_and_update();
            let wait = match clock {
                Some(clock) if !observation.nodes.is_empty() => {
                    let now = mono_ns();
                    let (tick, at) = next_tick(now, clock, observation.interval_ns, last);
                    Some((tick, Duration::from_nanos(at.saturating_sub(now))))
                }
                _ => None,
            };
            let due = async {
                match wait {
                    Some((tick, time)) => {
                        tokio::time::sleep(time).await;
                        tick
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                tick = due => {
                    last = tick;
                    let slow = slow_tick(tick, observation.interval_ns, observation.size_classes_ns);
                    let with_classes = classes_of.replace((observation.phase, slow)) != Some((observation.phase, slow));
                    self.sample(tick, &observation, with_classes, &mut samples);
                }
                Ok(()) = self.observed.changed() => {}
                Ok(()) = self.clock.changed() => {}
                Some(_) = samples.join_next() => {}
                else => return,
            }
        }
    }

    fn sample(
        &mut self,
        tick: u64,
        observation: &Observation,
        with_classes: bool,
        samples: &mut JoinSet<()>,
    ) {
        self.lines.retain(|address, _| observation.nodes.iter().any(|node| node.address == *address));
        let limit = Duration::from_nanos(observation.interval_ns.min(PATIENCE_NS));
        for node in &observation.nodes {
            let line = Arc::clone(self.lines.entry(node.address.clone()).or_default());
            let (node, credentials, rows) = (node.clone(), self.credentials.clone(), self.rows.clone());
            let (phase_index, phase) = (PhaseIndex(observation.phase), observation.phase_name.clone());
            samples.spawn(async move {
                let (asked, sampled_at) = (mono_ns(), wall_ns());
                let answer = match tokio::time::timeout(limit, ask(&node, &credentials, &line)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
                };
                let took_ns = mono_ns().saturating_sub(asked);
                let sample = Sample {
                    tick,
                    sampled_at,
                    took_ns,
                    phase,
                    phase_index,
                    node: node.id,
                    role: node.role,
                    missing: None,
                };
                let empty = row::nothing(sample.clone(), node.address);
                let _ = rows.send(Sampled::Memory(Box::new(row::fill(empty, answer))));
                if with_classes {
                    let (asked, sampled_at) = (mono_ns(), wall_ns());
                    let answer = classes(&line).await;
                    let sample = Sample { sampled_at, took_ns: mono_ns().saturating_sub(asked), ..sample };
                    let _ = rows.send(Sampled::Allocator(row::by_class(sample, answer)));
                }
            });
        }
    }
}

/// Which slow tick a tick is of: the same on all workers.
fn slow_tick(tick: u64, interval_ns: u64, size_classes_ns: u64) -> u64 {
    tick.saturating_mul(interval_ns) / size_classes_ns.max(1)
}

/// Asks a node for its size classes, on the connection that its memory was asked on; the ticks meanwhile do not wait.
async fn classes(line: &Line) -> Result<jemalloc::Statistics, String> {
    let connection = line.lock().await.clone();
    let Some(mut connection) = connection else { return Err(String::from("no connection")) };
    let mut command = redis::cmd("MEMORY");
    let asked = command.arg("MALLOC-STATS").query_async::<String>(&mut connection);
    match tokio::time::timeout(Duration::from_nanos(PATIENCE_NS), asked).await {
        Ok(Ok(text)) => jemalloc::parse(&text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", PATIENCE_NS / 1_000_000)),
    }
}

/// The next tick after the last one and its instant on the own clock. Ticks are the multiples of the interval on the
/// coordinator's clock, so all workers sample at the same instants.
fn next_tick(now: MonoNs, clock: ClockOffset, interval_ns: u64, last: u64) -> (u64, MonoNs) {
    let theirs = now.saturating_add_signed(clock.offset_ns);
    let tick = (theirs / interval_ns).max(last).saturating_add(1);
    (tick, clock.to_own(tick.saturating_mul(interval_ns)))
}

/// Asks a node for everything that a row has.
async fn ask(node: &Observed, credentials: &Credentials, line: &Line) -> Result<Answer, String> {
    let mut line = line.lock().await;
    let mut connection = match line.take() {
        Some(connection) => connection,
        None => {
            let (host, port) = vst_access::split(&node.address)
                .ok_or_else(|| format!("`{}` is not host:port", node.address))?;
            connect(host, port, credentials).await.map_err(|e| e.to_string())?
        }
    };
    // Put back before asking, so that a node that is only slow keeps its connection; taken away again on failure.
    *line = Some(connection.clone());
    let answer = ask_on(&mut connection, node).await;
    if answer.is_err() {
        *line = None;
    }
    answer
}

async fn ask_on(connection: &mut MultiplexedConnection, node: &Observed) -> Result<Answer, String> {
    let info: String = redis::cmd("INFO")
        .arg(&["server", "memory", "keyspace", "search", "clients", "stats", "cpu"])
        .query_async(connection)
        .await
        .map_err(|e| e.to_string())?;
    let process = process::read(&node.address, &parse_info(&info));
    let index = match node.index.as_deref() {
        None => None,
        // An index that is not there (yet, or any more) is no reason to lose the node's memory.
        Some(name) => match redis::cmd("FT.INFO").arg(name).query_async::<redis::Value>(connection).await {
            Ok(reply) => row::index_info(&reply),
            Err(error) if error.is_io_error() || error.is_connection_dropped() => {
                return Err(error.to_string());
            }
            Err(_) => None,
        },
    };
    Ok(Answer { info, index, process })
}

#[cfg(test)]
mod tests;
