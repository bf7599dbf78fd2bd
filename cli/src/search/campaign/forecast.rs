//! What a population would need: by arithmetic before anything is loaded, by `vst analyze predict` afterwards.
//!
//! Fed with the scenario, then with run directories; read by the plan, which goes nowhere that needs too much. Laws: every
//! forecast says what it is known from; where fewer than three populations were measured, a tenth is left open, because
//! repeats of two show nothing of how far the rest is from their line.

use std::path::Path;

use vst_analysis::{Need, Prediction, link_bytes, predict};
use vst_common::count;
use vst_common::dataset::{self, DatasetView};
use vst_common::exit::Exit;
use vst_common::scenario::check::campaign::{CampaignFile, GoalStage};
use vst_coordinator::plan::{row_bytes, vector_bytes};
use vst_coordinator::target::Target;
use vst_tuning::campaign::{CampaignSpec, Forecast};
use vst_tuning::tune::Setting;

use super::super::bench::{BenchSpec, first_queries, overrides};
use super::field::Place;
use crate::analyze::of_analysis;
use crate::error::Failure;
use crate::run::LOCAL_PRIMARIES;
use crate::scenario_file::{Loaded, Override, load};

/// What is left open of a prediction from few populations.
const OPEN_SHARE: f64 = 0.1;
/// Populations from which on the interval of the line is believed.
const POPULATIONS: usize = 3;
/// Memory of a node, GiB: the number of nodes that a prediction names is of no use here.
const NODE_GIB: f64 = 64.0;
const M: &str = "index.m";

/// What is known before the first step.
pub(super) struct Before {
    /// Primaries of a target that is taken as it is.
    pub(super) primaries: u16,
    /// EF_RUNTIME of the scenario's query.
    pub(super) ef: Option<i64>,
    /// Stages whose neighbours are there.
    pub(super) prepared: Vec<usize>,
    pub(super) forecasts: Vec<Forecast>,
}

/// The scenario with index parameters in place; faults point to what was set.
fn at(bench: &BenchSpec, setting: &Setting) -> Result<Loaded, Failure> {
    let mut set = overrides(&bench.set)?;
    set.extend(setting.0.iter().map(|(path, value)| Override::new(path, value)));
    load(&bench.scenario, &set)
}

/// Checks what can be checked without a target's work, and says what is known by then.
pub(super) async fn before(file: &CampaignFile, bench: &BenchSpec, here: &Path) -> Result<Before, Failure> {
    let mut forecasts = Vec::new();
    let mut first = None;
    for (number, setting) in file.settings.iter().enumerate() {
        let loaded = at(bench, setting)?;
        let scenario = &loaded.checked.scenario;
        let dims = scenario.index.as_ref().and_then(|index| index.dims);
        if let (Some(dims), Some(index)) = (dims, &scenario.index) {
            for (stage, wanted) in file.stages.iter().enumerate() {
                let of = |each: u64| count::to_f64(wanted.rows.saturating_mul(each));
                let (net, low) = (of(row_bytes(dims, index.m)), of(vector_bytes(dims)));
                let how = String::from("arithmetic: vector, links and key; at least the vector");
                forecasts.push(Forecast { stage, setting: number, net, low, how });
            }
        }
        first.get_or_insert(loaded);
    }
    let Some(loaded) = first else { return Err(Failure::new(Exit::Usage, "no index parameters")) };
    let ef = first_queries(&loaded)?.1.ask.ef_runtime;
    let prepared = prepared(file, &loaded, here).await?;
    let primaries = match &bench.target {
        Some(target) => {
            let target = Target::connect(target).await;
            let target = target.map_err(|e| crate::fleet::of_coordinator(e.into()))?;
            u16::try_from(target.primaries().count()).unwrap_or(u16::MAX)
        }
        None => LOCAL_PRIMARIES,
    };
    Ok(Before { primaries, ef: ef.map(i64::from), prepared, forecasts })
}

/// Stages whose exact neighbours are named by the campaign, or by the scenario for these very rows.
async fn prepared(file: &CampaignFile, loaded: &Loaded, here: &Path) -> Result<Vec<usize>, Failure> {
    let Some(data) = &loaded.checked.scenario.dataset else {
        return Err(Failure::new(Exit::Scenario, "the campaign's scenario has no vectors: add `dataset`"));
    };
    let fault = |what: &str, e: &dyn std::fmt::Display| {
        Failure::new(Exit::Scenario, format!("{what} cannot be used: {e}"))
    };
    let url = dataset::resolve(&data.base, &loaded.base).map_err(|e| fault("dataset.base", &e))?;
    let view = DatasetView::open_url(&url).await.map_err(|e| fault("dataset.base", &e))?;
    let there = view.manifest().rows;
    let own = data.rows.unwrap_or(there).min(there);
    let truth = dataset::resolve(&data.ground_truth, &loaded.base);
    let has_truth = truth.is_ok_and(|url| url.to_file_path().map_or(true, |path| path.exists()));
    let mut prepared = Vec::new();
    for (number, stage) in file.stages.iter().enumerate() {
        let rows = base_rows(stage);
        if rows > there {
            return Err(Failure::new(
                Exit::Scenario,
                format!(
                    "stage {} of the goal needs {rows} rows of the base and it has {there}: give a larger one, or `copies`",
                    number + 1
                ),
            ));
        }
        if let Some(truth) = &stage.ground_truth {
            if !here.join(truth).exists() {
                return Err(fault(&format!("ground_truth of stage {}", number + 1), &"it is not there"));
            }
            prepared.push(number);
        } else if rows == own && has_truth {
            prepared.push(number);
        }
    }
    Ok(prepared)
}

/// Rows of the base that a stage takes.
pub(super) fn base_rows(stage: &GoalStage) -> u64 {
    stage.rows / stage.copies.max(1)
}

/// What runs of some index parameters predict for these, and by arithmetic for others.
pub(super) async fn after(
    spec: &CampaignSpec,
    bench: &BenchSpec,
    runs: &[(Place, String)],
    setting: usize,
) -> Result<Vec<Forecast>, Failure> {
    let of = |setting: usize| runs.iter().filter(move |(place, _)| place.setting == setting);
    let directories: Vec<String> = of(setting).map(|(_, run)| run.clone()).collect();
    let rows: Vec<u64> = spec.stages.iter().map(|stage| stage.rows).collect();
    let found = predict(&directories, &rows, NODE_GIB).await.map_err(|e| of_analysis(&e))?;
    let mut forecasts = Vec::new();
    for (number, other) in spec.settings.iter().enumerate() {
        if number != setting && of(number).next().is_some() {
            continue;
        }
        let Some((each, words)) = difference(spec, bench, setting, other)? else { continue };
        for (stage, need) in found.needs.iter().enumerate() {
            let (net, low) = (need.net_bytes, lowest(&found, need));
            let more = each * count::to_f64(need.rows);
            let how = format!("{}{words}", known_from(&found));
            forecasts.push(Forecast { stage, setting: number, net: net + more, low: low + more, how });
        }
    }
    Ok(forecasts)
}

/// The numbers of rows that were measured, each once.
fn populations(found: &Prediction) -> Vec<u64> {
    let mut rows: Vec<u64> = found.points.iter().map(|point| point.rows).collect();
    rows.dedup();
    rows
}

fn lowest(found: &Prediction, need: &Need) -> f64 {
    let low = need.interval.filter(|_| populations(found).len() >= POPULATIONS).map(|(low, _)| low);
    low.unwrap_or(need.net_bytes * (1.0 - OPEN_SHARE))
}

fn known_from(found: &Prediction) -> String {
    let rows = populations(found);
    let open = if rows.len() < POPULATIONS { ", 10 % left open" } else { "" };
    let rows: Vec<String> = rows.iter().map(u64::to_string).collect();
    format!("{:.0} bytes per vector, measured at {} rows{open}", found.bytes_per_vector, rows.join(", "))
}

/// Bytes of a vector that another setting takes more, with how that is known; `None` where it cannot be told.
fn difference(
    spec: &CampaignSpec,
    bench: &BenchSpec,
    from: usize,
    to: &Setting,
) -> Result<Option<(f64, String)>, Failure> {
    let Some(from) = spec.settings.get(from) else { return Ok(None) };
    if from == to {
        return Ok(Some((0.0, String::new())));
    }
    // Neither how it is built nor how it is asked changes what a graph takes.
    let without = |s: &Setting| {
        let mut rest = s.clone();
        rest.0.retain(|path, _| path != M && path != "index.ef_construction");
        rest
    };
    if without(from) != without(to) {
        return Ok(None);
    }
    let m = |s: &Setting| Ok::<_, Failure>(at(bench, s)?.checked.scenario.index.map(|index| index.m));
    let (Some(a), Some(b)) = (m(from)?, m(to)?) else { return Ok(None) };
    let words = if a == b { String::new() } else { format!("; M {b} instead of {a} by arithmetic") };
    Ok(Some((link_bytes(b) - link_bytes(a), words)))
}
