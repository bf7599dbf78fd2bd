//! What a run directory says.
//!
//! Reads nothing but the directory (`run.json`, log, Parquet parts): [`summary`] judges and condenses a run, [`query`]
//! answers SQL over one or several, [`render_terminal`] shows a summary to a person. Fed by the coordinator's run log
//! and archive, used by the command line. Law: the summary is a pure function of the directory.

mod accounting;
mod allocator;
mod cluster;
mod course;
mod criteria;
mod engine;
mod export;
mod findings;
mod latency;
mod leak;
mod memory;
mod number;
mod phase;
mod predict;
mod query;
mod recall;
mod regress;
mod report;
mod statistics;
mod summary;
mod validity;
mod visualize;
mod window;

pub use accounting::{AccountingRow, Check};
pub use allocator::{AllocatorFigures, ClassFigures};
pub use criteria::CriterionRow;
pub use engine::Error;
pub use export::{Export, ExportRow, export, hdr_log};
pub use findings::{
    BUSY_SHARE, DECAY_SHARE, FRAGMENTATION, FULL_SHARE, OUTLIER_RATIO, RECALL_DROP, RETURNED_SHARE,
};
pub use latency::{Distribution, GeneratorSummary, NodeSummary, OperationSummary};
pub use leak::{LEAK_BYTES_PER_HOUR, LeakCheck};
pub use memory::{Checkpoint, Figures};
pub use phase::PhaseSummary;
pub use predict::{Model, Need, Point, Prediction, link_bytes, predict};
pub use query::{Answer, query};
pub use recall::RecallSummary;
pub use regress::{Call, Comparison, Judgement, Metric, Thresholds, ThresholdsError, regress};
pub use summary::{Setting, Summary};
pub use validity::{
    ACHIEVED_BOUND, BACKLOG_BOUND_SECONDS, BUSY_BOUND, ERROR_SHARE_BOUND, Note, Rule, RunEnd,
    SLIP_P99_BOUND_NS, Verdict,
};
pub use visualize::{Drawn, compare_page, drawn, page};

/// Reads a run directory (a path or `file://` URL) and says what it means.
///
/// Works on a run that goes on or was killed: it then says that it is partial.
///
/// # Errors
/// [`Error`] when the directory cannot be read or holds no run.
pub async fn summary(run_dir: &str) -> Result<Summary, Error> {
    let run_dir = run_dir.to_owned();
    engine::on_own_threads(async move || summary::read(&run_dir).await).await
}

/// The same without findings and checks for leaks, which look at the whole course of a run: for whoever reads a run that
/// goes on again after each phase.
///
/// # Errors
/// As [`summary`].
pub async fn phases(run_dir: &str) -> Result<Summary, Error> {
    let run_dir = run_dir.to_owned();
    engine::on_own_threads(async move || summary::read_phases(&run_dir).await).await
}

/// The text that a person sees after a run; with `styled` the verdict is coloured for a terminal.
#[must_use]
pub fn render_terminal(summary: &Summary, styled: bool) -> String {
    report::terminal::render(summary, styled)
}

#[cfg(test)]
mod tests;
