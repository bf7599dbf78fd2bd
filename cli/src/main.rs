//! The command `vst`: reads the command line, calls one library per command, turns the end into an exit code.
//!
//! Results go to stdout, progress and logs to stderr.

#[cfg(feature = "analysis")]
mod analyze;
mod builtin;
mod config;
mod dataset;
mod error;
mod fleet;
mod info;
mod leash;
mod limits;
mod output;
mod progress;
mod registry;
mod report;
mod run;
mod scenario_file;
#[cfg(feature = "analysis")]
mod search;
mod security;
mod signals;
mod token;
mod validate;
#[cfg(feature = "analysis")]
mod visualize;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vst_common::exit::Exit;

use crate::error::Failure;

/// Loads a Valkey cluster with vectors and tells the truth about what that costs.
#[derive(Debug, Parser)]
#[command(name = "vst", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// What is logged on stderr, for example `info` or `vst_worker=debug`
    #[arg(long, global = true, env = "VST_LOG", default_value = "warn", hide_env_values = true)]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario: coordinator, workers and, without --target, a local cluster
    #[command(subcommand)]
    Run(run::RunCommand),
    /// Check a file without starting anything
    #[command(subcommand)]
    Validate(validate::ValidateCommand),
    /// An environment: whether what it names is there and can be used
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Read a run directory: its summary, or SQL over its tables
    #[cfg(feature = "analysis")]
    #[command(subcommand)]
    Analyze(analyze::AnalyzeCommand),
    /// Draw a run directory as a page of charts
    #[cfg(feature = "analysis")]
    #[command(subcommand)]
    Visualize(visualize::VisualizeCommand),
    /// Data sets: list, look into, check, download, convert, generate
    #[command(subcommand)]
    Dataset(dataset::DatasetCommand),
    /// What there is: a fleet and its workers
    #[command(subcommand)]
    Info(info::InfoCommand),
    /// The coordinator of a fleet, started by hand
    #[command(subcommand)]
    Coordinator(fleet::CoordinatorCommand),
    /// A load worker of a fleet, started by hand
    #[command(subcommand)]
    Worker(fleet::WorkerCommand),
    /// Version of vst
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            // Nothing can be done about a terminal that takes no help text.
            let _ = error.print();
            return if usage { Exit::Usage.into() } else { Exit::Valid.into() };
        }
    };
    if let Err(reason) = output::start_log(&cli.log) {
        output::complain(&format!("--log `{}` is not a filter: {reason}", cli.log));
        return Exit::Usage.into();
    }
    limits::raise();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("no asynchronous runtime: {error}"));
            return Exit::Bug.into();
        }
    };
    let ended = runtime.block_on(dispatch(cli.command));
    // A blocking read of a closed terminal or a server that does not answer must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.tell();
            failure.exit().into()
        }
    }
}

async fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Run(command) => run::run(command).await,
        Command::Validate(command) => validate::run(&command).await,
        Command::Config(command) => config::run(&command).await,
        #[cfg(feature = "analysis")]
        Command::Analyze(command) => analyze::run(command).await,
        #[cfg(feature = "analysis")]
        Command::Visualize(command) => visualize::run(command).await,
        Command::Dataset(command) => dataset::run(command).await,
        Command::Info(command) => info::run(command).await,
        Command::Coordinator(command) => fleet::coordinator(command).await,
        Command::Worker(command) => fleet::worker(command).await,
        Command::Version { json } => {
            let version = env!("CARGO_PKG_VERSION");
            if json {
                output::result(&serde_json::json!({ "version": version }).to_string())?;
            } else {
                output::result(&format!("vst {version}"))?;
            }
            Ok(Exit::Valid)
        }
    }
}
