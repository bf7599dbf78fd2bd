//! What helps whoever types commands or writes files: completions for shells, schemas for editors.

use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;
use vst_common::exit::Exit;
use vst_common::scenario::check::schema;

use crate::error::Failure;
use crate::output;

/// Which schema.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Of a scenario file
    Scenario,
    /// Of an environment, the file of --config
    Config,
}

/// Prints a JSON Schema.
pub(crate) fn print_schema(command: SchemaCommand) -> Result<Exit, Failure> {
    let schema = match command {
        SchemaCommand::Scenario => schema::scenario(),
        SchemaCommand::Config => schema::environment(),
    };
    let text = serde_json::to_string_pretty(&schema)
        .map_err(|e| Failure::new(Exit::Bug, format!("the schema cannot be written: {e}")))?;
    output::result(&text)?;
    Ok(Exit::Valid)
}

/// Prints what a shell needs to complete commands and options.
pub(crate) fn print_completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::Cli::command(), "vst", &mut script);
    output::result(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut crate::Cli::command(), "vst", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["list-scenarios", "ground-truth", "completions", "allow-hooks"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
