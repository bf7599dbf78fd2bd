//! `vst validate`: checks a file without starting anything.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use vst_common::exit::Exit;
use vst_common::scenario::Step;

use crate::error::Failure;
use crate::output;
use crate::scenario_file::{Override, load, refuse};

/// What to check.
#[derive(Debug, Subcommand)]
pub(crate) enum ValidateCommand {
    /// A scenario: its file, and its data as far as headers and truth tell
    Scenario {
        /// Path of a file, or name of a built-in scenario
        scenario: String,
        /// Replaces a value: a path of keys (phases by their name) and what to put there
        #[arg(long = "set", value_name = "PATH=VALUE")]
        set: Vec<Override>,
        /// Also refuse a scenario that measures nothing
        #[arg(long)]
        strict: bool,
        /// Result as JSON
        #[arg(long)]
        json: bool,
    },
    /// An environment: its file and those that it extends
    Config {
        /// Path of the file
        file: PathBuf,
        /// Also refuse one that names what is not there, or a target without a guard
        #[arg(long)]
        strict: bool,
    },
}

pub(crate) async fn run(command: &ValidateCommand) -> Result<Exit, Failure> {
    let (scenario, set, strict, json) = match command {
        ValidateCommand::Scenario { scenario, set, strict, json } => (scenario, set, *strict, json),
        ValidateCommand::Config { file, strict } => return validate_config(file, *strict).await,
    };
    let loaded = load(scenario, set)?;
    let measures = |step: &Step| matches!(step, Step::Query(_) | Step::Kv(_) | Step::Checkpoint);
    if strict && !loaded.checked.scenario.all_phases().any(|phase| measures(&phase.step)) {
        let fault = loaded.checked.source.fault(
            "phases",
            "the scenario measures nothing",
            "no phase asks, sends commands or takes memory",
            "add a `query`, a `kv` or a `checkpoint`",
        );
        return Err(refuse(&fault));
    }
    let facts = crate::run::check_data(&loaded).await?;
    let phases = loaded.checked.scenario.all_phases().count();
    if *json {
        output::result(
            &serde_json::to_string_pretty(&loaded.checked.scenario).map_err(|e| {
                Failure::new(Exit::Bug, format!("the scenario cannot be written as JSON: {e}"))
            })?,
        )?;
    } else {
        output::result(&format!(
            "{scenario}: valid; {phases} phases, {}",
            crate::run::describe(facts.as_ref())
        ))?;
    }
    Ok(Exit::Valid)
}

async fn validate_config(file: &Path, strict: bool) -> Result<Exit, Failure> {
    let config = crate::config::load(file)?;
    if strict {
        crate::config::strictly(&config).await?;
    }
    output::result(&format!("{}: valid", file.display()))?;
    Ok(Exit::Valid)
}
