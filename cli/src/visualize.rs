//! `vst visualize`: pages of charts, and a run's course in the formats of other tools.

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
        /// Writes each chart as an SVG file into this folder too
        #[arg(long, value_name = "DIR")]
        svg: Option<PathBuf>,
    },
    /// One HTML file of runs side by side: differences with their intervals, and charts over one another
    Compare {
        /// Run directories; the others are compared with the first
        #[arg(required = true, num_args = 2.., value_name = "RUN")]
        runs: Vec<String>,
        /// Where to write it
        #[arg(long, value_name = "FILE", default_value = "compare.html")]
        output: PathBuf,
    },
    /// The course of a run for other tools: CSV and JSON by tick of memory, HDR histogram log by interval of load
    ExportData {
        /// Run directory
        run: String,
        /// What to write
        #[arg(long, value_enum, default_value_t = Format::Csv)]
        format: Format,
        /// Where to write it; standard output if none is named
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// The scenarios that `vst run scenario NAME` knows
    ListScenarios {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// A format of `export-data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns timestamp, phase, rss_mb, active_mb, resident_mb, allocated_mb, fragmentation_ratio, qps, ips, dps,
    /// p50_ms, p95_ms, p99_ms
    Csv,
    /// The same as JSON
    Json,
    /// HDR histogram log of latencies in nanoseconds, tagged phase/operation/time
    Hlog,
}

pub(crate) async fn run(command: VisualizeCommand) -> Result<Exit, Failure> {
    match command {
        VisualizeCommand::Generate { run, output, svg } => {
            let drawn = vst_analysis::drawn(&run, svg.is_some()).await.map_err(|e| of_analysis(&e))?;
            write(&output, &drawn.page)?;
            out::result(&output.display().to_string())?;
            let Some(folder) = svg else { return Ok(Exit::Valid) };
            std::fs::create_dir_all(&folder).map_err(|e| {
                Failure::new(Exit::Usage, format!("cannot make folder `{}`: {e}", folder.display()))
            })?;
            for (name, chart) in &drawn.charts {
                let file = folder.join(name);
                write(&file, chart)?;
                out::result(&file.display().to_string())?;
            }
        }
        VisualizeCommand::Compare { runs, output } => {
            let page = vst_analysis::compare_page(&runs).await.map_err(|e| of_analysis(&e))?;
            write(&output, &page)?;
            out::result(&output.display().to_string())?;
        }
        VisualizeCommand::ExportData { run, format, output } => {
            let text = exported(&run, format).await.map_err(|e| of_analysis(&e))?;
            match output {
                Some(file) => {
                    write(&file, &text)?;
                    out::result(&file.display().to_string())?;
                }
                None => out::result(text.trim_end_matches('\n'))?,
            }
        }
        VisualizeCommand::ListScenarios { json } => return crate::run::list::list(json),
    }
    Ok(Exit::Valid)
}

async fn exported(run: &str, format: Format) -> Result<String, vst_analysis::Error> {
    match format {
        Format::Csv => Ok(vst_analysis::export(run).await?.to_csv()),
        Format::Json => vst_analysis::export(run).await?.to_json(),
        Format::Hlog => vst_analysis::hdr_log(run).await,
    }
}
