//! Scenarios over vectors that are computed, on servers with jemalloc.

use std::time::Duration;

use vst_analysis::Summary;

use crate::cluster::Servers;
use crate::command::{finish_within, run};
use crate::run::{Results, report};

/// A million rows take some minutes on a machine of their own, and an hour on one that is busy.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// The vectors that the scenarios name.
const VECTORS: &str = "generate:uniform?rows=1000000&dims=128&seed=11&queries=10";

/// Runs a scenario over the first rows on three primaries; gives the run directory and its report.
pub async fn run_over(scenario: &str, rows: u64, results: &Results) -> (String, Summary) {
    let folder = tempfile::tempdir().expect("a folder");
    let truth = folder.path().join("truth.bin");
    let truth = truth.to_str().expect("text");
    let (queries, count) = (format!("{VECTORS}#queries"), rows.to_string());
    let made = ["--base", VECTORS, "--queries", &queries, "--rows", &count, "-k", "10", "--out", truth];
    let output = run(&[&["dataset", "ground-truth"][..], &made].concat()).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let servers = Servers::cluster_with_jemalloc().await;
    let mut command = results.command(&["scenario", scenario, "--target", &servers.url(), "--json"]);
    command.args(["--set", &format!("rows={rows}"), "--set", &format!("dataset.ground_truth={truth}")]);
    let output = finish_within(command, LIMIT).await;
    assert!([0, 7].contains(&output.code), "{}\n{}", output.stdout, output.stderr);
    (results.newest(), report(&output))
}
