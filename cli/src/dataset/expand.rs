//! `vst dataset expand`: where copies of a base would lie, and the numbers that separate them.

use clap::{Args, ValueEnum};
use vst_common::dataset::{DatasetView, open_truth};
use vst_common::exit::Exit;
use vst_common::expand::{Extent, Lift, Permutation, Refusal, Translation, lift};
use vst_common::ground_truth::distance;
use vst_common::ranges::RowRange;
use vst_common::scenario::Metric;

use super::{MetricWord, open, refuse, resolve, usage};
use crate::error::Failure;
use crate::output;

/// Rows of the sample from which contamination is estimated.
const SAMPLE_ROWS: u64 = 10_000;

/// What is copied, and how.
#[derive(Debug, Args)]
pub(crate) struct ExpandOptions {
    /// Base vectors: a path or URL
    #[arg(long)]
    base: String,
    /// Query vectors
    #[arg(long)]
    queries: String,
    /// Neighbours of each query; without them any row may be a neighbour
    #[arg(long)]
    ground_truth: Option<String>,
    /// How distance is measured
    #[arg(long, value_enum, default_value = "l2")]
    metric: MetricWord,
    /// Copies, the base counted in
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    copies: u32,
    /// How copies are made
    #[arg(long, value_enum, default_value = "auto")]
    method: Method,
    /// The step of a translation instead of the one that is found
    #[arg(long, value_name = "STEP")]
    delta: Option<f64>,
    /// Seed of permutations
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Result as JSON
    #[arg(long)]
    json: bool,
}

/// How copies are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Translation under L2, lift under cosine and inner product
    Auto,
    /// Signed permutations of the coordinates, estimated and not proved
    Permutation,
}

pub(super) async fn run(options: &ExpandOptions) -> Result<Exit, Failure> {
    let (base, queries) = (open(&options.base).await?, open(&options.queries).await?);
    let dims = base.manifest().dims;
    if queries.manifest().dims != dims {
        return Err(usage(format!(
            "the queries have {} dimensions, the base has {dims}",
            queries.manifest().dims
        )));
    }
    let asked = read(&queries, RowRange { start: 0, end: queries.manifest().rows }).await?;
    let metric = Metric::from(options.metric);
    let plan = if options.method == Method::Permutation {
        permutation(options, &base, &asked, metric).await?
    } else if metric == Metric::L2 {
        translation(options, &base, &asked).await?
    } else {
        lifted(options, &base, &asked, metric).await?
    };
    if options.json {
        output::result(&plan.to_string())?;
    } else {
        let fields = plan.as_object().into_iter().flatten();
        let lines: Vec<String> = fields.map(|(name, value)| format!("{name:<22} {value}")).collect();
        output::result(&lines.join("\n"))?;
    }
    Ok(Exit::Valid)
}

async fn translation(
    options: &ExpandOptions,
    base: &DatasetView,
    asked: &[Vec<f32>],
) -> Result<serde_json::Value, Failure> {
    if let Some(delta) = options.delta.filter(|delta| !(delta.is_finite() && *delta > 0.0)) {
        return Err(usage(format!("--delta {delta} moves no copy: give a number above zero")));
    }
    let extent = extent(base).await?;
    let queries = Extent::of(base.manifest().dims, asked);
    let farthest = queries.farthest(&extent);
    let reach = listed(options, base, asked, Metric::L2).await?.map_or(farthest, |reach| reach.min(farthest));
    let (plan, proof) = Translation::plan(&extent, &queries, reach, options.copies, options.delta)
        .map_err(|e| refused(&e))?;
    Ok(serde_json::json!({
        "method": "translation", "copies": options.copies, "coordinates": plan.places, "radix": plan.radix,
        "delta": proof.delta, "grid": format!("2^{}", plan.grid_exponent), "rounds": plan.rounds,
        "norm_max": proof.norm_max, "width": proof.width, "reach": proof.reach,
        "nearest_other_copy": proof.delta - proof.width, "margin": proof.margin,
    }))
}

async fn lifted(
    options: &ExpandOptions,
    base: &DatasetView,
    asked: &[Vec<f32>],
    metric: Metric,
) -> Result<serde_json::Value, Failure> {
    let dims = base.manifest().dims;
    let size = match metric {
        Metric::InnerProduct => extent(base).await?.norm_max * Extent::of(dims, asked).norm_max,
        Metric::L2 | Metric::Cosine => 1.0,
    };
    let spread =
        listed(options, base, asked, metric).await?.map_or(2.0 * size, |spread| spread.min(2.0 * size));
    let (plan, proof) =
        Lift::plan(metric, dims, spread, size, options.copies, None).map_err(|e| refused(&e))?;
    Ok(serde_json::json!({
        "method": "lift", "copies": options.copies, "index_dims": dims + lift::DIMS,
        "row_scale": plan.row_scale, "query_scale": plan.query_scale, "mu": proof.mu,
        "separation": proof.separation, "spread": proof.spread, "margin": proof.margin,
    }))
}

async fn permutation(
    options: &ExpandOptions,
    base: &DatasetView,
    asked: &[Vec<f32>],
    metric: Metric,
) -> Result<serde_json::Value, Failure> {
    let end = base.manifest().rows.min(SAMPLE_ROWS);
    let sample = read(base, RowRange { start: 0, end }).await?;
    let plan = Permutation { seed: options.seed, copies: options.copies };
    let estimate = plan.estimate(metric, &sample, asked).map_err(|e| refused(&e))?;
    Ok(serde_json::json!({
        "method": "signed permutation", "copies": options.copies, "proved": false,
        "sample_rows": estimate.rows, "sample_queries": estimate.queries,
        "foreign_per_own": estimate.ratio, "contamination_per_own": estimate.contamination,
    }))
}

async fn extent(base: &DatasetView) -> Result<Extent, Failure> {
    Extent::of_rows(base, base.manifest().rows).await.map_err(|e| refuse(&e))
}

/// Distance (L2) or spread of similarity of the listed neighbours, the largest of any query.
async fn listed(
    options: &ExpandOptions,
    base: &DatasetView,
    asked: &[Vec<f32>],
    metric: Metric,
) -> Result<Option<f64>, Failure> {
    let Some(reference) = &options.ground_truth else { return Ok(None) };
    let url = resolve(reference)?;
    let truth = open_truth(&url, base.faults()).await.map_err(|e| refuse(&e))?;
    truth.check_against(base.manifest().rows).map_err(|e| refuse(&e))?;
    let mut most = 0_f64;
    for (number, query) in (0..truth.queries).zip(asked) {
        let ids = truth.ids(number);
        let mut ends = Vec::new();
        for id in ids.first().into_iter().chain(ids.last()) {
            let start = u64::from(*id);
            let row = read(base, RowRange { start, end: start + 1 }).await?;
            ends.extend(row.first().map(|row| distance(metric, query, row)));
        }
        if let [nearest, farthest] = ends[..] {
            most = most.max(if metric == Metric::L2 { farthest.sqrt() } else { farthest - nearest });
        }
    }
    Ok(Some(most))
}

async fn read(view: &DatasetView, range: RowRange) -> Result<Vec<Vec<f32>>, Failure> {
    Ok(view.read(range).await.map_err(|e| refuse(&e))?.iter().collect())
}

fn refused(refusal: &Refusal) -> Failure {
    Failure::new(Exit::Scenario, refusal.to_string())
}
