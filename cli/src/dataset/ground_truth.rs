//! `vst dataset ground-truth`: the exact nearest rows, streamed, so that the base may be larger than memory.
//!
//! Reads the next rows while the present ones are searched. Several processes each take a shard and write a part; the
//! parts are merged by distances computed again from the vectors.

use std::path::PathBuf;

use clap::Args;
use vst_common::clock::{self, SECOND_NS};
use vst_common::count;
use vst_common::dataset::{DatasetView, ReadFaults};
use vst_common::exit::Exit;
use vst_common::ground_truth::{ExactSearch, nearest, write_bytes};
use vst_common::live_set::LiveSet;
use vst_common::ranges::RowRange;
use vst_common::scenario::Metric;

use super::{MetricWord, open, refuse, resolve, usage};
use crate::error::Failure;
use crate::output;

/// Rows that are searched at a time, bytes of their 32-bit form: two such blocks are in memory, and one as stored.
const BLOCK_BYTES: u64 = 32 << 20;

/// What is searched in what.
#[derive(Debug, Args)]
pub(crate) struct GroundTruthOptions {
    /// Base vectors: a path or URL
    #[arg(long)]
    base: String,
    /// Query vectors
    #[arg(long)]
    queries: String,
    /// How distance is measured
    #[arg(long, value_enum, default_value = "l2")]
    metric: MetricWord,
    /// Neighbours of each query
    #[arg(long, short, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Use only the first rows of the base
    #[arg(long)]
    rows: Option<u64>,
    /// Where the neighbours go, in the big-ann layout
    #[arg(long)]
    out: PathBuf,
    /// Threads; by default one per core
    #[arg(long)]
    threads: Option<usize>,
    /// Search only this part of the rows, for example 2/8; the parts are put together with --merge
    #[arg(long, value_name = "N/OF", value_parser = shard, conflicts_with = "merge")]
    shard: Option<(u64, u64)>,
    /// Parts that were written with --shard, all of them: nothing is searched
    #[arg(long, value_name = "PART", num_args = 1..)]
    merge: Vec<String>,
    /// Only this share of the rows, those that a shrink to it leaves alive (with --seed of the scenario)
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    keep: Option<f64>,
    /// Seed of the order in which rows are deleted
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Result as JSON
    #[arg(long)]
    json: bool,
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once('/').and_then(|(n, of)| Some((n.parse::<u64>().ok()?, of.parse().ok()?)));
    parts.filter(|(n, of)| *n >= 1 && n <= of).ok_or_else(|| String::from("a part is N/OF, for example 2/8"))
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
    percent.map(|p| p / 100.0).ok_or_else(|| String::from("a share is 0% to 100%, for example 50%"))
}

pub(super) async fn run(options: GroundTruthOptions) -> Result<Exit, Failure> {
    let began = clock::mono_ns();
    let (base, queries) = (open(&options.base).await?, open(&options.queries).await?);
    let dims = base.manifest().dims;
    if queries.manifest().dims != dims {
        return Err(Failure::new(
            Exit::Scenario,
            format!(
                "the queries have {} dimensions, the base has {dims}: give the queries that belong to this base",
                queries.manifest().dims
            ),
        ));
    }
    let rows = options.rows.unwrap_or(u64::MAX).min(base.manifest().rows);
    if rows > u64::from(u32::MAX) {
        let message = format!("{rows} rows: the big-ann layout numbers rows with 32 bits; give --rows");
        return Err(usage(message));
    }
    let asked = queries.read(RowRange { start: 0, end: queries.manifest().rows }).await;
    let asked: Vec<Vec<f32>> = asked.map_err(|e| refuse(&e))?.iter().collect();
    let metric = Metric::from(options.metric);
    let found = if options.merge.is_empty() {
        let part = options.shard.map_or(RowRange { start: 0, end: rows }, |(n, of)| part(rows, n, of));
        search(&options, base, part, rows, &asked, metric).await?
    } else {
        merge(&options, &base, &asked, metric).await?
    };
    let depth = found.iter().map(Vec::len).min().unwrap_or(0);
    if depth == 0 {
        return Err(usage("no row takes part: give more rows, or keep more of them"));
    }
    std::fs::write(&options.out, write_bytes(&found, depth))
        .map_err(|e| Failure::new(Exit::Usage, format!("cannot write {}: {e}", options.out.display())))?;
    let seconds = count::to_f64(clock::mono_ns().saturating_sub(began)) / count::to_f64(SECOND_NS);
    if options.json {
        let text = serde_json::json!({
            "queries": asked.len(), "k": depth, "rows": rows, "dims": dims, "metric": metric, "seconds": seconds,
            "out": options.out,
        });
        output::result(&text.to_string())?;
    } else {
        let text = format!(
            "{} queries x {depth} neighbours in {rows} rows x {dims}: {seconds:.3} s, {}",
            asked.len(),
            options.out.display()
        );
        output::result(&text)?;
    }
    Ok(Exit::Valid)
}

/// The n-th of some parts of about the same length, from 1.
fn part(rows: u64, n: u64, of: u64) -> RowRange {
    let at = |n: u64| u64::try_from(u128::from(rows) * u128::from(n) / u128::from(of)).unwrap_or(rows);
    RowRange { start: at(n - 1), end: at(n) }
}

async fn search(
    options: &GroundTruthOptions,
    base: DatasetView,
    part: RowRange,
    rows: u64,
    asked: &[Vec<f32>],
    metric: Metric,
) -> Result<Vec<Vec<(u64, f64)>>, Failure> {
    let threads = options
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let dims = count::index(u64::from(base.manifest().dims));
    let live = LiveSet::empty(options.seed, rows, 1);
    let live = options.keep.map(|keep| live.keep(keep));
    let step = (BLOCK_BYTES / (count::len(dims) * 4).max(1)).max(1024);
    let mut search = ExactSearch::new(metric, dims, asked.concat(), count::index(u64::from(options.k)));
    let next = |start: u64| RowRange { start, end: start.saturating_add(step).min(part.end) };
    let mut range = next(part.start);
    // Two blocks take turns: one is searched while the other is read and converted.
    let mut numbers = read(&base, range, Vec::new()).await?;
    let mut spare = Vec::new();
    while !range.is_empty() {
        let (first, following) = (range.start, next(range.end));
        let work = tokio::task::spawn_blocking(move || {
            let takes_part = |row| live.is_none_or(|live| live.is_live(0, row));
            search.add(first, &numbers, takes_part, threads);
            (search, numbers)
        });
        let (searched, ahead) = tokio::join!(work, read(&base, following, spare));
        (search, spare) = searched.map_err(|e| Failure::new(Exit::Bug, e.to_string()))?;
        numbers = ahead?;
        range = following;
    }
    Ok(search.finish())
}

/// Reads rows as numbers, into memory that is there already.
async fn read(base: &DatasetView, range: RowRange, mut numbers: Vec<f32>) -> Result<Vec<f32>, Failure> {
    let rows = base.read(range).await.map_err(|e| refuse(&e))?;
    let converted = tokio::task::spawn_blocking(move || {
        rows.all_f32(&mut numbers);
        numbers
    });
    converted.await.map_err(|e| Failure::new(Exit::Bug, e.to_string()))
}

/// The nearest of what the parts name, by distances computed again.
async fn merge(
    options: &GroundTruthOptions,
    base: &DatasetView,
    asked: &[Vec<f32>],
    metric: Metric,
) -> Result<Vec<Vec<(u64, f64)>>, Failure> {
    let mut parts = Vec::new();
    for reference in &options.merge {
        let url = resolve(reference)?;
        let truth =
            vst_common::dataset::open_truth(&url, &ReadFaults::default()).await.map_err(|e| refuse(&e))?;
        truth.check_against(base.manifest().rows).map_err(|e| refuse(&e))?;
        if count::len(asked.len()) != u64::from(truth.queries) {
            return Err(usage(format!(
                "{reference} was made for {} queries, there are {}",
                truth.queries,
                asked.len()
            )));
        }
        parts.push(truth);
    }
    let mut found = Vec::new();
    for (number, query) in (0..).zip(asked) {
        let mut rows = Vec::new();
        for id in parts.iter().flat_map(|part| part.ids(number)) {
            let row = u64::from(*id);
            let read = base.read(RowRange { start: row, end: row + 1 }).await.map_err(|e| refuse(&e))?;
            rows.extend(read.iter().map(|vector| (row, vector)));
        }
        found.push(nearest(metric, rows, query, count::index(u64::from(options.k))));
    }
    Ok(found)
}
