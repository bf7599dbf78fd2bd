//! `vst info`: what there is, for people and scripts.

mod fleet;

use clap::Subcommand;
use vst_common::exit::Exit;

use crate::error::Failure;

/// What to look at.
#[derive(Debug, Subcommand)]
pub(crate) enum InfoCommand {
    /// A fleet: who leads, what the run does, the workers and what each of them does
    Fleet(fleet::FleetOptions),
}

pub(crate) async fn run(command: InfoCommand) -> Result<Exit, Failure> {
    match command {
        InfoCommand::Fleet(options) => fleet::run(&options).await,
    }
}
