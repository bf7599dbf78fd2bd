//! What each request of a phase is, byte for byte.
//!
//! Made once per lane when a phase is armed; read by the pipeline at every send. Law: the same bytes for the same
//! seed, phase and request number, whatever the fleet.

use std::sync::Arc;

use vst_common::content::{self, Commands, Scratch};
use vst_common::keys::{KeySpace, SLOTS};
use vst_common::phase::{PhaseOrder, SearchModule, SearchPlan, VectorWork, Work};
use vst_common::recall::Verdict;
use vst_common::resp::{Command, Frame};
use vst_common::search;
use vst_common::seed::Draw;

use crate::recorder::{Operation, OperationName};
use crate::topology::Topology;
use crate::work::{Pair, QuerySet};

/// Why a phase cannot be armed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The plan names an index for a node that the target no longer has.
    #[error("no index is planned for node {0}; the topology changed since the run was planned")]
    NoIndex(String),
    /// Query work without queries.
    #[error("phase `{0}` queries, but no queries were loaded")]
    NoQueries(String),
    /// Commands that cannot be compiled.
    #[error(transparent)]
    Commands(#[from] content::Error),
}

/// The commands of one phase.
#[derive(Debug)]
pub(crate) struct Requests {
    keys: KeySpace,
    operations: Arc<[OperationName]>,
    work: Kind,
}

#[derive(Debug)]
enum Kind {
    Write {
        command: Command,
        vector_bytes: usize,
    },
    Delete {
        command: Command,
    },
    /// Rows at even places are deleted, those at odd ones written.
    Exchange {
        delete: Command,
        write: Command,
        vector_bytes: usize,
    },
    Query(QueryKind),
    Commands(Box<Commands>),
}

#[derive(Debug)]
struct QueryKind {
    /// By part of a fanned-out request; one for all where the server fans out.
    commands: Vec<Command>,
    fan_out: bool,
    /// A slot of each part.
    anchors: Vec<u16>,
    module: SearchModule,
    set: Arc<QuerySet>,
    k: usize,
    seed: u64,
    phase: u32,
}

/// A slot, and the name of the index that its owner has.
type Part = (u16, String);

/// One found neighbour: its distance as the server says, and its key.
pub(crate) type Hit = (f64, Box<[u8]>);

impl Requests {
    /// The commands of a phase over the primaries of a topology.
    pub(crate) fn new(
        order: &PhaseOrder,
        topology: &Topology,
        queries: Option<&Arc<QuerySet>>,
    ) -> Result<Self, Error> {
        let prefix = match &order.work {
            Work::Commands(work) => &work.prefix,
            Work::Ingest(vectors)
            | Work::Update(vectors)
            | Work::Delete(vectors)
            | Work::Churn(vectors)
            | Work::Query { vectors, .. } => &vectors.prefix,
        };
        let name = OperationName::new;
        let (operations, work) = match &order.work {
            Work::Ingest(vectors) | Work::Update(vectors) => {
                let (command, vector_bytes) = write(vectors);
                (vec![name("hset", "hset")], Kind::Write { command, vector_bytes })
            }
            Work::Delete(_) => (vec![name("del", "del")], Kind::Delete { command: delete() }),
            Work::Churn(vectors) => {
                let (write, vector_bytes) = write(vectors);
                let names = vec![name("del", "del"), name("hset", "hset")];
                (names, Kind::Exchange { delete: delete(), write, vector_bytes })
            }
            Work::Commands(work) => {
                let compiled = Commands::new(work, order.seed, order.index.0)?;
                let names = content::commands_of(work)?;
                let names = names.iter().map(|(operation, command)| name(operation, command)).collect();
                (names, Kind::Commands(Box::new(compiled)))
            }
            Work::Query { vectors, k, ef_runtime } => {
                let set = queries.ok_or_else(|| Error::NoQueries(order.name.clone()))?;
                let (module, fan_out, indexes) = indexes(vectors, topology)?;
                let anchors = indexes.iter().map(|(anchor, _)| *anchor).collect();
                let commands = indexes
                    .iter()
                    .map(|(_, index)| {
                        let timeout_ms = order.timeout_ns / 1_000_000;
                        let (before, after) =
                            search::knn_args(module, index, &vectors.field, *k, *ef_runtime, timeout_ms);
                        let mut args: Vec<Option<&[u8]>> =
                            before.iter().map(|a| Some(a.as_slice())).collect();
                        args.push(None);
                        args.extend(after.iter().map(|a| Some(a.as_slice())));
                        Command::new(&args)
                    })
                    .collect();
                let kind = QueryKind {
                    commands,
                    fan_out,
                    anchors,
                    module,
                    set: Arc::clone(set),
                    k: usize::try_from(*k).unwrap_or(usize::MAX),
                    seed: order.seed,
                    phase: order.index.0,
                };
                (vec![name("knn", "FT.SEARCH"), name("knn_part", "FT.SEARCH")], Kind::Query(kind))
            }
        };
        Ok(Self { keys: KeySpace::new(prefix), operations: operations.into(), work })
    }

    /// What the operations of the phase are called.
    pub(crate) fn operations(&self) -> Arc<[OperationName]> {
        Arc::clone(&self.operations)
    }

    /// The operation that the row at a place of its block is reported as.
    pub(crate) fn row_operation(&self, position: usize) -> Operation {
        match &self.work {
            Kind::Exchange { .. } => Operation(u16::from(!position.is_multiple_of(2))),
            _ => Operation(0),
        }
    }

    /// The operation that request `n` is reported as.
    pub(crate) fn operation(&self, n: u64) -> Operation {
        match &self.work {
            Kind::Commands(commands) => Operation(u16::try_from(commands.operation(n)).unwrap_or(u16::MAX)),
            _ => Operation(0),
        }
    }

    /// Whether each request of an operation goes to every primary.
    pub(crate) fn fans_out(&self, operation: Operation) -> bool {
        operation.0 == 0 && matches!(&self.work, Kind::Query(query) if query.fan_out)
    }

    /// A slot of each part of a fanned-out request: its owner has the index that answers the part.
    pub(crate) fn anchors(&self) -> &[u16] {
        match &self.work {
            Kind::Query(query) if query.fan_out => &query.anchors,
            _ => &[],
        }
    }

    /// The operation under which one node's part of the work is counted.
    pub(crate) fn part(&self, operation: Operation) -> Operation {
        if self.fans_out(operation) { Operation(operation.0 + 1) } else { operation }
    }

    /// The slot that request `n` goes to; `None` where any node will do.
    pub(crate) fn slot(&self, n: u64, scratch: &mut Scratch) -> Option<u16> {
        match &self.work {
            Kind::Commands(commands) => commands.slot(n, scratch),
            _ => None,
        }
    }

    /// Whether a reply that is no error says that there was nothing.
    pub(crate) fn missed(&self, operation: Operation, reply: &[u8]) -> bool {
        matches!(&self.work, Kind::Commands(commands) if commands.missed(usize::from(operation.0), reply))
    }

    /// Which (query, copy) pair request `n` asks, by its number in the set.
    pub(crate) fn query(&self, n: u64) -> u32 {
        match &self.work {
            Kind::Query(query) => {
                let queries = vst_common::count::len(query.set.blobs.len());
                let drawn = Draw::new(query.seed, query.phase, n).below(queries);
                u32::try_from(drawn).unwrap_or(u32::MAX)
            }
            _ => 0,
        }
    }

    /// The query and copy that a drawn number stands for.
    pub(crate) fn pair(&self, asked: u32) -> Pair {
        let Kind::Query(kind) = &self.work else { return (asked, 0) };
        let known = usize::try_from(asked).ok().and_then(|asked| kind.set.pairs.get(asked));
        known.copied().unwrap_or((asked, 0))
    }

    /// Writes the key of a row into `out`, which is emptied first.
    pub(crate) fn key(&self, (copy, row): (u32, u64), out: &mut Vec<u8>) {
        out.clear();
        self.keys.write(copy, row, out);
    }

    /// Appends the command that writes or deletes a row.
    pub(crate) fn encode_row(&self, key: &[u8], vectors: &[u8], position: usize, out: &mut Vec<u8>) {
        match &self.work {
            Kind::Write { command, vector_bytes } => {
                command.encode(out, &[key, nth(vectors, position, *vector_bytes)]);
            }
            Kind::Delete { command } => command.encode(out, &[key]),
            Kind::Exchange { delete, .. } if position.is_multiple_of(2) => delete.encode(out, &[key]),
            // Only what is written has a vector.
            Kind::Exchange { write, vector_bytes, .. } => {
                write.encode(out, &[key, nth(vectors, position / 2, *vector_bytes)]);
            }
            Kind::Query(_) | Kind::Commands(_) => {}
        }
    }

    /// Appends numbered request `n`, which asks `query` where it asks one; of a fanned-out one, the part at a position.
    pub(crate) fn encode(&self, n: u64, query: u32, part: u16, scratch: &mut Scratch, out: &mut Vec<u8>) {
        let kind = match &self.work {
            Kind::Query(kind) => kind,
            Kind::Commands(commands) => return commands.encode(n, scratch, out),
            Kind::Write { .. } | Kind::Delete { .. } | Kind::Exchange { .. } => return,
        };
        let place = if kind.fan_out { usize::from(part) } else { 0 };
        let blob = usize::try_from(query).ok().and_then(|q| kind.set.blobs.get(q));
        if let (Some(command), Some(blob)) = (kind.commands.get(place), blob) {
            command.encode(out, &[blob]);
        }
    }

    /// Reads the neighbours in a reply.
    pub(crate) fn read_hits(&self, reply: &[u8], hits: &mut Vec<Hit>) -> Result<(), String> {
        let Kind::Query(kind) = &self.work else { return Ok(()) };
        let frame = Frame::parse(reply).map_err(|e| e.to_string())?;
        let found = search::parse_knn(&frame, kind.module).map_err(|e| e.to_string())?;
        hits.extend(found.into_iter().map(|hit| (hit.distance, Box::from(hit.key))));
        Ok(())
    }

    /// Judges the merged answer to a query.
    pub(crate) fn judge(&self, query: u32, hits: &mut [Hit]) -> Option<Verdict> {
        let Kind::Query(kind) = &self.work else { return None };
        hits.sort_by(|a, b| a.0.total_cmp(&b.0));
        let keys: Vec<&[u8]> = hits.iter().take(kind.k).map(|(_, key)| &**key).collect();
        let judge = kind.set.judges.get(usize::try_from(query).ok()?)?;
        Some(judge.score(&keys, &self.keys))
    }
}

/// What writes a row, and how long its vector is.
fn write(vectors: &VectorWork) -> (Command, usize) {
    let dims = vectors.expansion.index_dims(vectors.dims);
    let vector_bytes = usize::try_from(dims).unwrap_or(0) * size_of::<f32>();
    (Command::new(&[Some(b"HSET"), None, Some(vectors.field.as_bytes()), None]), vector_bytes)
}

fn delete() -> Command {
    Command::new(&[Some(b"DEL"), None])
}

fn nth(vectors: &[u8], n: usize, bytes: usize) -> &[u8] {
    vectors.get(n * bytes..(n + 1) * bytes).unwrap_or_default()
}

/// The indexes that together hold all rows, each with a slot of the primary that answers for it. The slot stays with the
/// index when a replica is promoted, which the name of the primary does not.
fn indexes(vectors: &VectorWork, topology: &Topology) -> Result<(SearchModule, bool, Vec<Part>), Error> {
    let (module, indexes) = match &vectors.search {
        SearchPlan::ServerSide { module, index } => return Ok((*module, false, vec![(0, index.clone())])),
        SearchPlan::ClientSide { module, indexes } => (*module, indexes),
    };
    let owner = |slot: u16| topology.slots.get(usize::from(slot)).map(|node| usize::from(*node));
    let primaries = topology.nodes.iter().enumerate().take(topology.primaries());
    let parts = primaries
        .map(|(at, node)| {
            let slots = || (0..SLOTS).filter(|slot| owner(*slot) == Some(at));
            let part = match module {
                // Each node has its own index under the same name.
                SearchModule::ValkeySearch => slots().next().zip(indexes.first().map(|(_, name)| name)),
                // The server routes by the slot of the name.
                SearchModule::RediSearch => indexes.iter().find_map(|(_, name)| {
                    let slot = vst_common::keys::slot(name.as_bytes());
                    (owner(slot) == Some(at)).then_some((slot, name))
                }),
            };
            let part = part.map(|(slot, name)| (slot, name.clone()));
            // A primary without slots holds no rows.
            match slots().next() {
                Some(_) => part.map(Some).ok_or_else(|| Error::NoIndex(node.id.to_string())),
                None => Ok(None),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((module, true, parts.into_iter().flatten().collect()))
}
