//! `vst validate`: checks a file without starting anything.

use clap::Subcommand;
use vst_common::exit::Exit;

use crate::error::Failure;
use crate::output;
use crate::scenario_file::{Override, load};

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
        /// Result as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(command: &ValidateCommand) -> Result<Exit, Failure> {
    let ValidateCommand::Scenario { scenario, set, json } = command;
    let loaded = load(scenario, set)?;
    let facts = crate::run::check_data(&loaded).await?;
    let phases = loaded.checked.scenario.phases.len();
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
