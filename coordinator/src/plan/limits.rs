//! Whether the connections that a scenario asks for can be had: open files of this machine, clients of a server.
//!
//! Asked before anything is started. Every client or connection of a phase is one connection to every primary; laws: a
//! phase that cannot have them is refused at its own key, with the numbers; what is accepted leaves room for samplers
//! and for the coordinator.

use vst_common::scenario::check::{Checked, Faults};
use vst_common::scenario::{Load, ReadFrom};

use super::data::join;

/// Files that a worker has open beside its load: samplers, its streams to the coordinator, data files.
const FILES_BESIDE: u64 = 64;
/// Connections of the coordinator and of people to a server, beside those of the fleet.
const CLIENTS_BESIDE: u64 = 16;

/// How many clients a server lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimit {
    /// `host:port`.
    pub address: String,
    /// `maxclients`.
    pub most: u64,
    /// Who is connected already.
    pub connected: u64,
}

/// The load of a phase as its connections.
struct Wanted {
    key: String,
    word: &'static str,
    number: u64,
}

fn wanted(checked: &Checked) -> impl Iterator<Item = Wanted> {
    let connections = |load: &Load| match load {
        Load::Closed { clients, .. } => ("closed", "clients", u64::from(*clients)),
        Load::Open { connections, .. } => ("open", "connections", u64::from(*connections)),
    };
    checked.scenario.phases.iter().filter_map(move |phase| {
        let (kind, own, number) = connections(phase.step.load()?);
        let beside = phase.beside.iter().filter_map(|beside| beside.phase.step.load());
        let beside: u64 = beside.map(|load| connections(load).2).sum();
        let key = format!("phases.{}.{}.load.{kind}.{own}", phase.name, phase.step.word());
        // What runs beside a phase has its connections at the same time.
        let word = if beside > 0 { "connections (with those beside it)" } else { own };
        Some(Wanted { key, word, number: number.saturating_add(beside) })
    })
}

/// Whether one worker of the fleet can open its share, where it may have `open_files` open at once.
///
/// # Errors
/// A fault for each phase that cannot.
pub fn check_open_files(checked: &Checked, primaries: u64, open_files: u64) -> Result<(), Faults> {
    let fleet = &checked.scenario.fleet;
    let (workers, lanes) = (u64::from(fleet.workers), u64::from(fleet.lanes));
    let faults = wanted(checked).filter_map(|Wanted { key, word, number }| {
        let of_worker = number.div_ceil(workers.saturating_mul(lanes).max(1)).saturating_mul(lanes);
        let files = of_worker.saturating_mul(primaries);
        let room = open_files.saturating_sub(FILES_BESIDE);
        let most = (room / primaries.max(1) / lanes.max(1)).saturating_mul(lanes).saturating_mul(workers);
        (files > room).then(|| {
            checked.source.fault(
                &key,
                format!(
                    "{number} {word} are {of_worker} for each of {workers} workers, to {primaries} primaries: {files} \
                     connections, but a process may have {open_files} files open here"
                ),
                "more than a worker can open",
                format!("use at most {most} {word}, more workers, or raise the hard limit (`ulimit -Hn`)"),
            )
        })
    });
    join(faults).map_or(Ok(()), Err)
}

/// Whether there are replicas to read from, where the scenario wants to.
///
/// # Errors
/// A fault that names the key.
pub fn check_replicas(checked: &Checked, replicas: usize) -> Result<(), Faults> {
    if replicas > 0 || checked.scenario.connection.read_from == ReadFrom::Primary {
        return Ok(());
    }
    Err(checked.source.fault(
        "connection.read_from",
        String::from("replicas shall be read from, but the target has no replica that vst knows of"),
        "nobody to read from",
        String::from("leave it out, or name a cluster whose primaries have replicas"),
    ))
}

/// Whether every server lets that many in.
///
/// # Errors
/// A fault for each phase that asks for more; the server with the least room is named.
pub fn check_clients(checked: &Checked, servers: &[ClientLimit]) -> Result<(), Faults> {
    // One sampler of each worker, and those beside.
    let beside = CLIENTS_BESIDE.saturating_add(u64::from(checked.scenario.fleet.workers));
    let room = |server: &ClientLimit| server.most.saturating_sub(server.connected).saturating_sub(beside);
    let Some(tightest) = servers.iter().min_by_key(|server| room(server)) else { return Ok(()) };
    let faults = wanted(checked).filter(|wanted| wanted.number > room(tightest)).map(|wanted| {
        let Wanted { key, word, number } = wanted;
        let ClientLimit { address, most, connected } = tightest;
        checked.source.fault(
            &key,
            format!(
                "{number} {word} are {number} connections to every primary, but {address} lets {most} clients in, \
                 {connected} are connected and {beside} are kept for vst itself"
            ),
            "more than the server lets in",
            format!("use at most {} {word}, or raise `maxclients` of the servers", room(tightest)),
        )
    });
    join(faults).map_or(Ok(()), Err)
}
