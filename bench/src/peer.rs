//! The same requests from valkey-benchmark.

use std::process::{Command as Process, Stdio};

use nix::sys::resource::{UsageWho, getrusage};
use vst_common::clock::mono_ns;
use vst_common::count;

use crate::server::Server;
use crate::{CONNECTIONS, Case, Command, Error, KEYS, VALUE_BYTES};

/// What its requests cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerRun {
    /// CPU time per request, nanoseconds.
    pub(crate) cpu_ns: f64,
    /// Requests per second.
    pub(crate) rate: f64,
}

impl PeerRun {
    pub(crate) fn measure(server: &Server, case: Case, requests: u64) -> Result<Self, Error> {
        if case.command == Command::Get {
            // So many random keys that next to none is missing.
            send(server, Case { command: Command::Set, pipeline: 16 }, 20 * KEYS)?;
        }
        let (cpu, began) = (children_cpu_ns(), mono_ns());
        send(server, case, requests)?;
        let (took, cpu) = (mono_ns() - began, children_cpu_ns() - cpu);
        let requests = count::to_f64(requests);
        Ok(Self { cpu_ns: count::to_f64(cpu) / requests, rate: requests / (count::to_f64(took) / 1e9) })
    }
}

fn send(server: &Server, case: Case, requests: u64) -> Result<(), Error> {
    let keys = if case.command == Command::Hset { requests } else { KEYS };
    let value = "x".repeat(VALUE_BYTES);
    let mut process = Process::new(server.programs.join("valkey-benchmark"));
    process
        .env("LD_LIBRARY_PATH", &server.libraries)
        .args(["-p", &server.port.to_string(), "-c", &CONNECTIONS.to_string(), "-q"])
        .args(["-n", &requests.to_string(), "-P", &case.pipeline.to_string(), "-r", &keys.to_string()]);
    match case.command {
        Command::Set => process.args(["SET", "s:__rand_int__", &value]),
        Command::Get => process.args(["GET", "s:__rand_int__"]),
        Command::Hset => process.args(["HSET", "p:__rand_int__", "v", &value]),
    };
    let output = process
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Io { what: String::from("cannot start valkey-benchmark"), source })?;
    if !output.status.success() {
        return Err(Error::Peer(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(())
}

/// CPU time of the children that have ended.
fn children_cpu_ns() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return 0 };
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
    u64::try_from(micros).unwrap_or(0) * 1_000
}
