//! One page of charts that works offline.
//!
//! Fed with a run directory by `vst visualize generate`; opened in any browser. The query engine aggregates, the page
//! only draws: it holds at most a few thousand points however many workers or hours a run had. Law: what the page shows
//! is what the summary and the tables say, and nothing in it comes from a network.

mod data;
mod heat;

use vst_common::count;

use crate::course::Course;
use crate::engine::{Engine, Error, on_own_threads};
use crate::summary;

/// Intervals that the page holds; more are put together by the query engine.
const INTERVALS: u64 = 1_200;

const HTML: &str = include_str!("../assets/page.html");
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
    let run_dir = run_dir.to_owned();
    on_own_threads(async move || {
        let engine = Engine::open(std::slice::from_ref(&run_dir)).await?;
        let summary = summary::of(&engine, &run_dir).await?;
        let course = Course::read(&engine, INTERVALS).await?;
        let data = data::of(&engine, &summary, &course).await?;
        let json = serde_json::to_string(&data).map_err(|e| Error::Write(e.to_string()))?;
        Ok(assemble(&summary.run, &json))
    })
    .await
}

/// Puts the parts together; the data goes in last, so that nothing in it is taken for a place to fill.
fn assemble(title: &str, json: &str) -> String {
    // Within a script element only `<` can end it.
    let json = json.replace('<', "\\u003c");
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let page = HTML
        .replace("@UPLOT_CSS@", UPLOT_CSS)
        .replace("@CSS@", CSS)
        .replace("@UPLOT_JS@", UPLOT_JS)
        .replace("@HEAT_JS@", HEAT_JS)
        .replace("@JS@", JS)
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
