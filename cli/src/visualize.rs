//! `vst visualize`: pages of charts.

use std::path::PathBuf;

use clap::Subcommand;
use vst_common::exit::Exit;

use crate::analyze::{of_analysis, write};
use crate::error::Failure;
use crate::output as out;

/// What to draw.
#[derive(Debug, Subcommand)]
pub(crate) enum VisualizeCommand {
    /// One HTML file of a run that works offline
    Generate {
        /// Run directory
        run: String,
        /// Where to write it
        #[arg(long, value_name = "FILE", default_value = "report.html")]
        output: PathBuf,
    },
}

pub(crate) async fn run(command: VisualizeCommand) -> Result<Exit, Failure> {
    let VisualizeCommand::Generate { run, output } = command;
    let page = vst_analysis::page(&run).await.map_err(|e| of_analysis(&e))?;
    write(&output, &page)?;
    out::result(&output.display().to_string())?;
    Ok(Exit::Valid)
}
