//! The same requests from valkey-benchmark.

use std::process::{Command as Process, Stdio};

use nix::sys::resource::{UsageWho, getrusage};
use vst_common::clock::mono_ns;
use vst_common::count;

use crate::server::Server;
use crate::{CONNECTIONS, Case, Command, Error, VALUE_BYTES};

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
        let mut process = Process::new(server.programs.join("valkey-benchmark"));
        process
            .env("LD_LIBRARY_PATH", &server.libraries)
            .args(["-p", &server.port.to_string(), "-c", &CONNECTIONS.to_string(), "-q"])
            .args([
                "-n",
                &requests.to_string(),
                "-P",
                &case.pipeline.to_string(),
                "-r",
                &requests.to_string(),
            ]);
        match case.command {
            Command::Hset => process.args(["HSET", "p:__rand_int__", "v", &"x".repeat(VALUE_BYTES)]),
        };
        let (cpu, began) = (children_cpu_ns(), mono_ns());
        let output = process
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Io { what: String::from("cannot start valkey-benchmark"), source })?;
        let (took, cpu) = (mono_ns() - began, children_cpu_ns() - cpu);
        if !output.status.success() {
            return Err(Error::Peer(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let requests = count::to_f64(requests);
        Ok(Self { cpu_ns: count::to_f64(cpu) / requests, rate: requests / (count::to_f64(took) / 1e9) })
    }
}

/// CPU time of the children that have ended.
fn children_cpu_ns() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return 0 };
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
    u64::try_from(micros).unwrap_or(0) * 1_000
}
