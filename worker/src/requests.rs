//! What each request of a phase is, byte for byte.
//!
//! Made once per lane when a phase is armed; read by the pipeline at every send. Law: the same bytes for the same
//! seed, phase and request number, whatever the fleet.

mod document;

use std::sync::Arc;

use vst_common::attributes::Attributes;
use vst_common::content::{self, Commands, Scratch, catalog};
use vst_common::count;
use vst_common::keys::{KeySpace, SLOTS};
use vst_common::mix::{Deed, Mix};
use vst_common::phase::{PhaseOrder, SearchModule, SearchPlan, VectorWork, Work};
use vst_common::recall::Verdict;
use vst_common::resp::{Command, Frame};
use vst_common::scenario::{Ask, Returns, RowKind};
use vst_common::search;
use vst_common::seed::Draw;

use crate::recorder::{Operation, OperationName};
use crate::topology::Topology;
use crate::work::{Pair, QuerySet, RowBlock};

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
    /// Whether each operation changes nothing.
    reads: Vec<bool>,
    work: Kind,
}

#[derive(Debug)]
enum Kind {
    Write(Write),
    Delete {
        command: Command,
    },
    /// Rows at even places are deleted, those at odd ones written.
    Exchange {
        delete: Command,
        write: Write,
    },
    Query(QueryKind),
    /// Each unit by its number.
    Mixed(Box<Mixed>),
    Commands(Box<Commands>),
}

/// What writes a row.
#[derive(Debug)]
struct Write {
    command: Command,
    vector_bytes: usize,
    attributes: Attributes,
    /// A row is a document; otherwise it is a hash.
    field: Option<String>,
}

#[derive(Debug)]
struct Mixed {
    mix: Mix,
    query: QueryKind,
    delete: Command,
    write: Write,
}

/// Operations of a mixed phase, behind those of its queries.
const HSET: Operation = Operation(2);
const DEL: Operation = Operation(3);
const UPDATE: Operation = Operation(4);

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
    returns: Returns,
    seed: u64,
    phase: u32,
}

/// A row of a block that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// (copy, row).
    pub(crate) cell: (u32, u64),
    pub(crate) key: &'a [u8],
    pub(crate) block: &'a RowBlock,
    /// Place within the block.
    pub(crate) position: usize,
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
            | Work::Fill(vectors)
            | Work::Grow(vectors, _)
            | Work::Update(vectors)
            | Work::Delete(vectors)
            | Work::Churn(vectors)
            | Work::DropCopies { vectors, .. }
            | Work::Query { vectors, .. }
            | Work::Mixed { vectors, .. } => &vectors.prefix,
        };
        let name = OperationName::new;
        let (operations, work) = match &order.work {
            Work::Ingest(vectors) | Work::Fill(vectors) | Work::Grow(vectors, _) | Work::Update(vectors) => {
                (vec![written(vectors)], Kind::Write(Write::of(vectors)))
            }
            Work::Delete(_) | Work::DropCopies { .. } => {
                (vec![name("del", "del")], Kind::Delete { command: delete() })
            }
            Work::Churn(vectors) => {
                let names = vec![name("del", "del"), written(vectors)];
                (names, Kind::Exchange { delete: delete(), write: Write::of(vectors) })
            }
            Work::Commands(work) => {
                let compiled = Commands::new(work, order.seed, order.index.0)?;
                let names = content::commands_of(work)?;
                let names = names.iter().map(|(operation, command)| name(operation, command)).collect();
                (names, Kind::Commands(Box::new(compiled)))
            }
            Work::Query { vectors, ask, .. } => {
                let kind = QueryKind::new(order, vectors, ask, topology, queries)?;
                (asking().to_vec(), Kind::Query(kind))
            }
            Work::Mixed { vectors, ask, weights, units } => {
                let again = name("update", vectors.write_command().1);
                let changing = [written(vectors), name("del", "del"), again];
                let mixed = Mixed {
                    mix: Mix::new(*weights, *units, vectors.live),
                    query: QueryKind::new(order, vectors, ask, topology, queries)?,
                    delete: delete(),
                    write: Write::of(vectors),
                };
                (asking().into_iter().chain(changing).collect(), Kind::Mixed(Box::new(mixed)))
            }
        };
        let reads = operations.iter().map(|name| catalog::only_reads(&name.command)).collect();
        Ok(Self { keys: KeySpace::new(prefix), operations: operations.into(), reads, work })
    }

    /// What the operations of the phase are called.
    pub(crate) fn operations(&self) -> Arc<[OperationName]> {
        Arc::clone(&self.operations)
    }

    /// Whether the requests of an operation change nothing, so that a replica can answer them.
    pub(crate) fn reads(&self, operation: Operation) -> bool {
        self.reads.get(usize::from(operation.0)).copied().unwrap_or(false)
    }

    /// The operation that a unit which changes a row is reported as.
    pub(crate) fn row_operation(&self, unit: u64) -> Operation {
        match &self.work {
            Kind::Exchange { .. } => Operation(u16::from(!unit.is_multiple_of(2))),
            Kind::Mixed(mixed) => match mixed.mix.deed(unit) {
                Deed::Query => Operation(0),
                Deed::Ingest(_) => HSET,
                Deed::Delete(_) => DEL,
                Deed::Update(_) => UPDATE,
            },
            _ => Operation(0),
        }
    }

    /// Whether a leased unit asks and changes no row.
    pub(crate) fn asks(&self, unit: u64) -> bool {
        matches!(&self.work, Kind::Mixed(mixed) if mixed.mix.asks(unit))
    }

    /// The queries of the phase, where this operation is one.
    fn asking(&self, operation: Operation) -> Option<&QueryKind> {
        self.query_kind().filter(|_| operation == Operation(0))
    }

    fn query_kind(&self) -> Option<&QueryKind> {
        match &self.work {
            Kind::Query(query) => Some(query),
            Kind::Mixed(mixed) => Some(&mixed.query),
            _ => None,
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
        operation.0 == 0 && self.query_kind().is_some_and(|query| query.fan_out)
    }

    /// A slot of each part of a fanned-out request: its owner has the index that answers the part.
    pub(crate) fn anchors(&self) -> &[u16] {
        self.query_kind().filter(|query| query.fan_out).map_or(&[], |query| &query.anchors)
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
        match self.query_kind() {
            Some(query) => {
                let queries = count::len(query.set.blobs.len());
                let drawn = Draw::new(query.seed, query.phase, n).below(queries);
                u32::try_from(drawn).unwrap_or(u32::MAX)
            }
            None => 0,
        }
    }

    /// The query and copy that a drawn number stands for.
    pub(crate) fn pair(&self, asked: u32) -> Pair {
        let Some(kind) = self.query_kind() else { return (asked, 0) };
        let known = usize::try_from(asked).ok().and_then(|asked| kind.set.pairs.get(asked));
        known.copied().unwrap_or((asked, 0))
    }

    /// Writes the key of a row into `out`, which is emptied first.
    pub(crate) fn key(&self, (copy, row): (u32, u64), out: &mut Vec<u8>) {
        out.clear();
        self.keys.write(copy, row, out);
    }

    /// Appends the command that writes or deletes a row; `space` is where its vector may be widened.
    pub(crate) fn encode_row(&self, row: Row<'_>, space: &mut Vec<u8>, out: &mut Vec<u8>) {
        let Row { key, block, position, .. } = row;
        match &self.work {
            Kind::Write(write) => write.encode(row, position, space, out),
            Kind::Delete { command } => command.encode(out, &[key]),
            Kind::Exchange { delete, .. } if position.is_multiple_of(2) => delete.encode(out, &[key]),
            // Only what is written has a vector.
            Kind::Exchange { write, .. } => write.encode(row, position / 2, space, out),
            Kind::Mixed(mixed) => {
                let unit = block.first.saturating_add(count::len(position));
                match mixed.mix.deed(unit) {
                    Deed::Query => {}
                    Deed::Delete(_) => mixed.delete.encode(out, &[key]),
                    Deed::Ingest(_) | Deed::Update(_) => {
                        let written = mixed
                            .mix
                            .written_before(unit)
                            .saturating_sub(mixed.mix.written_before(block.first));
                        mixed.write.encode(row, count::index(written), space, out);
                    }
                }
            }
            Kind::Query(_) | Kind::Commands(_) => {}
        }
    }

    /// Appends numbered request `n`, which asks `query` where it asks one; of a fanned-out one, the part at a position.
    pub(crate) fn encode(&self, n: u64, query: u32, part: u16, scratch: &mut Scratch, out: &mut Vec<u8>) {
        if let Kind::Commands(commands) = &self.work {
            return commands.encode(n, scratch, out);
        }
        let Some(kind) = self.query_kind() else { return };
        let place = if kind.fan_out { usize::from(part) } else { 0 };
        let blob = usize::try_from(query).ok().and_then(|q| kind.set.blobs.get(q));
        if let (Some(command), Some(blob)) = (kind.commands.get(place), blob) {
            command.encode(out, &[blob]);
        }
    }

    /// Reads the neighbours in a reply to a query; replies to other operations have none.
    pub(crate) fn read_hits(
        &self,
        operation: Operation,
        reply: &[u8],
        hits: &mut Vec<Hit>,
    ) -> Result<(), String> {
        let Some(kind) = self.asking(operation) else { return Ok(()) };
        let frame = Frame::parse(reply).map_err(|e| e.to_string())?;
        let found = match kind.returns {
            Returns::Nothing => search::parse_keys(&frame, kind.module),
            Returns::Distance | Returns::Row => search::parse_knn(&frame, kind.module),
        };
        let found = found.map_err(|e| e.to_string())?;
        hits.extend(found.into_iter().map(|hit| (hit.distance, Box::from(hit.key))));
        Ok(())
    }

    /// Judges the merged answer to a query.
    pub(crate) fn judge(&self, operation: Operation, query: u32, hits: &mut [Hit]) -> Option<Verdict> {
        let kind = self.asking(operation)?;
        hits.sort_by(|a, b| a.0.total_cmp(&b.0));
        let keys: Vec<&[u8]> = hits.iter().take(kind.k).map(|(_, key)| &**key).collect();
        let judge = kind.set.judges.get(usize::try_from(query).ok()?)?;
        Some(judge.score(&keys, &self.keys))
    }
}

/// What the operations of a phase that asks are called: each query, and each node's part of it.
fn asking() -> [OperationName; 2] {
    [OperationName::new("knn", "FT.SEARCH"), OperationName::new("knn_part", "FT.SEARCH")]
}

impl QueryKind {
    fn new(
        order: &PhaseOrder,
        vectors: &VectorWork,
        ask: &Ask,
        topology: &Topology,
        queries: Option<&Arc<QuerySet>>,
    ) -> Result<Self, Error> {
        let set = queries.ok_or_else(|| Error::NoQueries(order.name.clone()))?;
        let (module, fan_out, indexes) = indexes(vectors, topology)?;
        let filter = ask.filter.map(|filter| vectors.attributes.expression(filter));
        let beside = vectors.attributes.fields();
        let knn = search::Knn {
            field: &vectors.field,
            k: ask.k,
            ef_runtime: ask.ef_runtime,
            filter: filter.as_deref(),
            returns: ask.returns,
            beside: &beside,
        };
        let timeout_ms = order.timeout_ns / 1_000_000;
        let command = |(_, index): &Part| search::knn_command(module, index, &knn, timeout_ms);
        Ok(Self {
            commands: indexes.iter().map(command).collect(),
            fan_out,
            anchors: indexes.iter().map(|(anchor, _)| *anchor).collect(),
            module,
            set: Arc::clone(set),
            k: count::index(u64::from(ask.k)),
            returns: ask.returns,
            seed: order.seed,
            phase: order.index.0,
        })
    }
}

impl Write {
    fn of(vectors: &VectorWork) -> Self {
        let dims = vectors.expansion.index_dims(vectors.dims);
        let vector_bytes = usize::try_from(dims).unwrap_or(0) * size_of::<f32>();
        let attributes = vectors.attributes.clone();
        if vectors.on == RowKind::Json {
            let command = Command::new(&[Some(b"JSON.SET"), None, Some(b"$"), None]);
            return Self { command, vector_bytes, attributes, field: Some(vectors.field.clone()) };
        }
        let mut args: Vec<Option<&[u8]>> = vec![Some(b"HSET"), None, Some(vectors.field.as_bytes()), None];
        let beside = attributes.fields();
        args.extend(beside.iter().flat_map(|field| [Some(field.as_bytes()), None]));
        Self { command: Command::new(&args), vector_bytes, attributes, field: None }
    }

    /// Appends the command that writes a row whose vector is the n-th of its block.
    fn encode(&self, row: Row<'_>, n: usize, space: &mut Vec<u8>, out: &mut Vec<u8>) {
        let Row { key, cell, block, .. } = row;
        let vector = block.vector(n, self.vector_bytes, space);
        if let Some(field) = &self.field {
            let document = document::write(field, vector, &self.attributes, cell.1);
            return self.command.encode(out, &[key, &document]);
        }
        if self.attributes.is_empty() {
            return self.command.encode(out, &[key, vector]);
        }
        let (mut tag, mut number) = (Vec::new(), Vec::new());
        self.attributes.write(cell.1, &mut tag, &mut number);
        match (self.attributes.has_tags(), self.attributes.number) {
            (true, true) => self.command.encode(out, &[key, vector, &tag, &number]),
            (true, false) => self.command.encode(out, &[key, vector, &tag]),
            _ => self.command.encode(out, &[key, vector, &number]),
        }
    }
}

fn written(vectors: &VectorWork) -> OperationName {
    let (operation, command) = vectors.write_command();
    OperationName::new(operation, command)
}

fn delete() -> Command {
    Command::new(&[Some(b"DEL"), None])
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
