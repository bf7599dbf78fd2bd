//! What does a request cost the client? One load lane against valkey-benchmark, side by side.
//!
//! `make bench` runs it. It starts a server, lets both clients send the same requests in turn (so that a machine that
//! slows down slows both) and prints client CPU seconds per request and their ratio. The lane is the production code
//! with everything that it records. Law: a ratio above 1.0 fails.

mod lane;
mod peer;
mod server;
mod work;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vst_common::count;

use self::lane::LaneRun;
use self::peer::PeerRun;
use self::server::Server;
use self::work::Piece;

/// The lane has to be at least as cheap as its peer.
const MOST: f64 = 1.0;
/// Connections of both.
const CONNECTIONS: u32 = 50;
/// Keys that SET and GET draw from.
const KEYS: u64 = 10_000;
/// Bytes of a value, or of a vector of 128 dimensions.
const VALUE_BYTES: usize = 512;

/// Client CPU per request of a load lane, beside valkey-benchmark's.
#[derive(Debug, Parser)]
struct Options {
    /// Folder with valkey-server and valkey-benchmark.
    #[arg(long, default_value = ".local/debian/valkey/usr/bin")]
    programs: PathBuf,
    /// Folder with the libraries that they link against.
    #[arg(long, default_value = ".local/debian/valkey/usr/lib/x86_64-linux-gnu")]
    libraries: PathBuf,
    /// Requests of each run.
    #[arg(long, default_value_t = 400_000)]
    requests: u64,
    /// Runs of each client; the median counts.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Run the lane alone in this case (for a profiler): `set-1`, `get-16`, `hset-16` and so on.
    #[arg(long)]
    only: Option<String>,
    /// Do only this piece of work, `--requests` times (for a tool that counts instructions).
    #[arg(long)]
    piece: Option<Piece>,
}

/// What both clients do.
#[derive(Clone, Copy, Debug)]
struct Case {
    command: Command,
    pipeline: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// `SET key <512 bytes>`.
    Set,
    /// `GET key`, answered with 512 bytes.
    Get,
    /// `HSET key v <512 bytes>`: a vector of 128 dimensions.
    Hset,
}

impl Command {
    fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Get => "get",
            Self::Hset => "hset",
        }
    }
}

const CASES: [Case; 6] = [
    Case { command: Command::Set, pipeline: 1 },
    Case { command: Command::Get, pipeline: 1 },
    Case { command: Command::Hset, pipeline: 1 },
    Case { command: Command::Set, pipeline: 16 },
    Case { command: Command::Get, pipeline: 16 },
    Case { command: Command::Hset, pipeline: 16 },
];

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("valkey-server does not answer at {0}")]
    Silent(String),
    #[error("valkey-benchmark failed: {0}")]
    Peer(String),
    #[error("the lane failed: {0}")]
    Lane(String),
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(6),
        Err(error) => {
            say(&mut std::io::stderr(), &format!("vst-bench: {error}"));
            ExitCode::from(4)
        }
    }
}

fn run(options: &Options) -> Result<bool, Error> {
    if let Some(piece) = options.piece {
        work::repeat(piece, options.requests);
        return Ok(true);
    }
    let server = Server::start(&options.programs, &options.libraries)?;
    let mut out = std::io::stdout();
    let cases = CASES.iter().filter(|case| options.only.as_ref().is_none_or(|name| *name == case.name()));
    let mut good = true;
    say(
        &mut out,
        &format!(
            "{CONNECTIONS} connections, {VALUE_BYTES} bytes; client CPU per request, median of {}",
            options.repeat
        ),
    );
    say(
        &mut out,
        &format!(
            "{:<8} {:>12} {:>12} {:>7}   {:>12} {:>12}   {:>9} {:>9}",
            "case", "lane ns", "peer ns", "ratio", "lane req/s", "peer req/s", "p50 us", "p99 us"
        ),
    );
    for case in cases {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..options.repeat {
            ours.push(LaneRun::measure(&server, *case, options.requests)?);
            if options.only.is_none() {
                theirs.push(PeerRun::measure(&server, *case, options.requests)?);
            }
        }
        ours.sort_by(|a, b| a.cpu_ns.total_cmp(&b.cpu_ns));
        theirs.sort_by(|a, b| a.cpu_ns.total_cmp(&b.cpu_ns));
        let Some(own) = ours.get(ours.len() / 2) else { continue };
        let peer = theirs.get(theirs.len() / 2).copied().unwrap_or_default();
        let ratio = own.cpu_ns / peer.cpu_ns;
        good &= options.only.is_some() || ratio <= MOST;
        let micros = |ns: u64| count::to_f64(ns) / 1e3;
        say(
            &mut out,
            &format!(
                "{:<8} {:>12.0} {:>12.0} {:>7.2}   {:>12.0} {:>12.0}   {:>9.0} {:>9.0}",
                case.name(),
                own.cpu_ns,
                peer.cpu_ns,
                ratio,
                own.rate,
                peer.rate,
                micros(own.p50_ns),
                micros(own.p99_ns),
            ),
        );
    }
    if !good {
        say(&mut std::io::stderr(), &format!("vst-bench: a ratio is above {MOST}"));
    }
    Ok(good)
}

impl Case {
    fn name(self) -> String {
        format!("{}-{}", self.command.as_str(), self.pipeline)
    }
}

fn say(to: &mut impl Write, line: &str) {
    // Nobody reads any more: nothing is left to say.
    let _ = writeln!(to, "{line}");
}
