//! `vst analyze`: reads run directories.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use vst_analysis::Thresholds;
use vst_common::exit::Exit;

use crate::error::Failure;
use crate::output;

/// What to find out.
#[derive(Debug, Subcommand)]
pub(crate) enum AnalyzeCommand {
    /// The report of a run: verdict, rates, latency, recall, memory
    Summary {
        /// Run directory
        run: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// SQL over a run's tables: latency, latency_rollup (the measured window; with warm-up and the parts of
    /// fanned-out queries: latency_all, latency_rollup_all), memory, allocator, recall, recall_queries, events, health,
    /// commandstats, phases, runs, workers, streams, deliveries; functions hdr_merge, hdr_quantile, hdr_cdf, hdr_count,
    /// hdr_max
    Query {
        /// The query
        sql: String,
        /// Run directories; the newest below ./runs if none is named
        #[arg(long = "run", value_name = "DIR")]
        runs: Vec<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Compares runs with a baseline; exits with 6 when one is worse by more than the thresholds and the noise
    Regress {
        /// Run directories to judge; three or more repeats are compared by the noise between them
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<String>,
        /// Run directory to compare with; may be given more than once
        #[arg(long, required = true, value_name = "RUN")]
        baseline: Vec<String>,
        /// YAML file with throughput_drop, p99_rise, recall_drop, memory_rise as fractions
        /// [default: 0.10, 0.15, 0.02, 0.20]
        #[arg(long, value_name = "FILE")]
        thresholds: Option<PathBuf>,
        /// Also write the comparison as Markdown
        #[arg(long, value_name = "FILE")]
        markdown: Option<PathBuf>,
        /// Also write it as JUnit XML
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Fits bytes per vector over the checkpoints of runs and says what more rows would need
    Predict {
        /// Run directories of one data set, index and target
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<String>,
        /// Numbers of rows to predict
        #[arg(long, value_delimiter = ',', default_values_t = [10_000_000, 100_000_000, 1_000_000_000])]
        rows: Vec<u64>,
        /// Memory of one node in GiB, of which 80 % may be used
        #[arg(long, value_name = "GIB", default_value_t = 64.0)]
        node_gib: f64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(command: AnalyzeCommand) -> Result<Exit, Failure> {
    match command {
        AnalyzeCommand::Summary { run, json } => summary(&run, json).await,
        AnalyzeCommand::Query { sql, runs, json } => {
            let runs = if runs.is_empty() { vec![newest_run("runs")?] } else { runs };
            let answer = vst_analysis::query(&runs, &sql).await.map_err(|e| of_analysis(&e))?;
            let text = if json { answer.to_json_lines() } else { answer.to_table() };
            output::result(&text.map_err(|e| of_analysis(&e))?)?;
            Ok(Exit::Valid)
        }
        AnalyzeCommand::Regress { runs, baseline, thresholds, markdown, junit, json } => {
            let thresholds =
                thresholds.as_deref().map_or_else(|| Ok(Thresholds::default()), read_thresholds)?;
            let comparison =
                vst_analysis::regress(&baseline, &runs, &thresholds).await.map_err(|e| of_analysis(&e))?;
            let files = [(markdown, comparison.to_markdown()), (junit, comparison.to_junit())];
            for (file, text) in files {
                if let Some(file) = file {
                    write(&file, &text)?;
                }
            }
            output::result(&if json { to_json(&comparison)? } else { comparison.to_text() })?;
            Ok(comparison.exit())
        }
        AnalyzeCommand::Predict { runs, rows, node_gib, json } => {
            let prediction =
                vst_analysis::predict(&runs, &rows, node_gib).await.map_err(|e| of_analysis(&e))?;
            output::result(&if json { to_json(&prediction)? } else { prediction.to_text() })?;
            Ok(Exit::Valid)
        }
    }
}

fn read_thresholds(file: &Path) -> Result<Thresholds, Failure> {
    let wrong =
        |reason: String| Failure::new(Exit::Scenario, format!("thresholds `{}`: {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    Thresholds::from_yaml(&text).map_err(|e| wrong(e.to_string()))
}

/// Writes a file that a person asked for.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text)
        .map_err(|e| Failure::new(Exit::Usage, format!("cannot write `{}`: {e}", file.display())))
}

fn to_json<T: serde::Serialize>(what: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(what)
        .map_err(|e| Failure::new(Exit::Bug, format!("the result cannot be written as JSON: {e}")))
}

/// Prints the report of a run directory; the exit code says whether it is valid.
pub(crate) async fn summary(run: &str, json: bool) -> Result<Exit, Failure> {
    let summary = vst_analysis::summary(run).await.map_err(|e| of_analysis(&e))?;
    if json {
        output::result(&to_json(&summary)?)?;
    } else {
        output::result(&vst_analysis::render_terminal(&summary, output::is_terminal()))?;
    }
    Ok(summary.exit())
}

/// What is wrong, with the reasons below it.
pub(crate) fn of_analysis(error: &vst_analysis::Error) -> Failure {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(source) = below {
        let reason = source.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        below = source.source();
    }
    Failure::new(error.exit(), text)
}

/// The run directory that was made last: their names begin with the time.
fn newest_run(results: &str) -> Result<String, Failure> {
    let none =
        || Failure::new(Exit::Usage, format!("no run directory below ./{results}; name one with --run DIR"));
    let mut names: Vec<_> = std::fs::read_dir(results)
        .map_err(|_| none())?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("run.json").is_file())
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    let newest = names.pop().ok_or_else(none)?;
    Ok(format!("{results}/{}", newest.to_string_lossy()))
}
