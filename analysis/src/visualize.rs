//! One page of charts that works offline.
//!
//! Fed with a run directory by `vst visualize generate`; opened in any browser. The query engine aggregates, the page
//! only draws: it holds at most a few thousand points however many workers or hours a run had. Law: what the page shows
//! is what the summary and the tables say, and nothing in it comes from a network.

mod chart;
mod compare;
mod data;
mod heat;
mod svg;

use vst_common::count;

use crate::course::Course;
use crate::engine::{Engine, Error, on_own_threads};
use crate::summary;

/// Intervals that the page holds; more are put together by the query engine.
const INTERVALS: u64 = 1_200;

const HTML: &str = include_str!("../assets/page.html");
const COMPARE_JS: &str = include_str!("../assets/compare.js");
const COMMON_JS: &str = include_str!("../assets/common.js");
const CSS: &str = include_str!("../assets/page.css");
const HEAT_JS: &str = include_str!("../assets/heat.js");
const JS: &str = include_str!("../assets/page.js");
const UPLOT_JS: &str = include_str!("../assets/uplot/uPlot.iife.min.js");
const UPLOT_CSS: &str = include_str!("../assets/uplot/uPlot.min.css");

/// The page of a run.
///
/// # Errors
/// [`Error`] when the directory cannot be read.
pub async fn page(run_dir: &str) -> Result<String, Error> {
    Ok(drawn(run_dir, false).await?.page)
}

/// A run's charts.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The page.
    pub page: String,
    /// Each chart of it that has data, as an SVG file: name and contents.
    pub charts: Vec<(String, String)>,
}

/// The page of a run and, where they are asked for, its charts as files of their own.
///
/// # Errors
/// [`Error`] when the directory cannot be read.
pub async fn drawn(run_dir: &str, with_charts: bool) -> Result<Drawn, Error> {
    let run_dir = run_dir.to_owned();
    on_own_threads(async move || {
        let (run, data) = read(&run_dir).await?;
        let json = serde_json::to_string(&data).map_err(|e| Error::Write(e.to_string()))?;
        let charts = if with_charts { chart::of(&data) } else { Vec::new() };
        let charts = charts.iter().map(|chart| (format!("{}.svg", chart.id), svg::draw(chart))).collect();
        Ok(Drawn { page: assemble(&[HEAT_JS, JS], &run, &json), charts })
    })
    .await
}

/// What the page of a run holds, and the run's name.
async fn read(run_dir: &str) -> Result<(String, data::Data), Error> {
    let engine = Engine::open(&[run_dir.to_owned()]).await?;
    let summary = summary::of(&engine, run_dir).await?;
    let course = Course::read(&engine, INTERVALS).await?;
    let data = data::of(&engine, &summary, &course).await?;
    Ok((summary.run, data))
}

/// A page of runs side by side; the others are compared with the first.
///
/// # Errors
/// [`Error`] when a directory cannot be read, or fewer than two are named.
pub async fn compare_page(run_dirs: &[String]) -> Result<String, Error> {
    if run_dirs.len() < 2 {
        return Err(Error::OneRun);
    }
    let mut runs = Vec::new();
    for run_dir in run_dirs {
        let run_dir = run_dir.clone();
        runs.push(on_own_threads(async move || read(&run_dir).await).await?);
    }
    let names: Vec<String> = runs.iter().map(|(name, _)| name.clone()).collect();
    let data = compare::of(run_dirs, runs).await?;
    let json = serde_json::to_string(&data).map_err(|e| Error::Write(e.to_string()))?;
    Ok(assemble(&[COMPARE_JS], &names.join(", "), &json))
}

/// Puts the parts together; the data goes in last, so that nothing in it is taken for a place to fill.
fn assemble(scripts: &[&str], title: &str, json: &str) -> String {
    // Within a script element only `<` can end it.
    let json = json.replace('<', "\\u003c");
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let page = HTML
        .replace("@UPLOT_CSS@", UPLOT_CSS)
        .replace("@CSS@", CSS)
        .replace("@UPLOT_JS@", UPLOT_JS)
        .replace("@COMMON_JS@", COMMON_JS)
        .replace("@JS@", &scripts.join("\n"))
        .replace("@TITLE@", &title);
    let mut out = String::with_capacity(page.len() + json.len());
    match page.split_once("@DATA@") {
        Some((before, after)) => {
            out.push_str(before);
            out.push_str(&json);
            out.push_str(after);
        }
        None => out.push_str(&page),
    }
    out
}

/// Seconds from the start of the run.
fn seconds(at_ns: i64, zero_ns: i64) -> f64 {
    let since = at_ns.saturating_sub(zero_ns);
    let size = count::to_f64(since.unsigned_abs()) / 1e9;
    if since < 0 { -size } else { size }
}
