//! `vst analyze`: reads run directories.

use clap::Subcommand;
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
    /// fanned-out queries: latency_all, latency_rollup_all), memory, recall, recall_queries, events, health,
    /// commandstats, phases, runs, workers, streams, deliveries; functions hdr_merge, hdr_quantile, hdr_count, hdr_max
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
    }
}

/// Prints the report of a run directory; the exit code says whether it is valid.
pub(crate) async fn summary(run: &str, json: bool) -> Result<Exit, Failure> {
    let summary = vst_analysis::summary(run).await.map_err(|e| of_analysis(&e))?;
    if json {
        let text = serde_json::to_string_pretty(&summary)
            .map_err(|e| Failure::new(Exit::Bug, format!("the summary cannot be written as JSON: {e}")))?;
        output::result(&text)?;
    } else {
        output::result(&vst_analysis::render_terminal(&summary, output::is_terminal()))?;
    }
    Ok(summary.exit())
}

/// What is wrong, with the reasons below it.
fn of_analysis(error: &vst_analysis::Error) -> Failure {
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
