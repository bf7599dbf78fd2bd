//! `vst dataset`: what public sets there are, what a data set holds, and the ways to get or make one.
//!
//! Each command reads by ranges, so that the size of a data set is limited by where it is put and never by memory.

mod catalogue;
mod examine;
mod expand;
mod ground_truth;
mod transfer;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use url::Url;
use vst_common::dataset::{self, DatasetView, Element};
use vst_common::exit::Exit;
use vst_common::scenario::Metric;

use crate::error::Failure;

/// What to do. References are paths, URLs (file, s3, gs, az, http, https) or `generate:KIND?rows=..&dims=..`; a section of a file
/// that has several is named after `#`, many objects by `*` or `{00..31}`.
#[derive(Debug, Subcommand)]
pub(crate) enum DatasetCommand {
    /// Public data sets: size, metric, licence and where they are
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What a data set is: rows, dimensions, type, objects; norms and widths with --scan
    Info {
        /// The data set
        reference: String,
        /// Read all rows for norms and widths
        #[arg(long)]
        scan: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy files to this machine: resumable, several connections
    Download(Download),
    /// Look for everything that would spoil a run: sizes, numbers that are none, zero vectors, a truth of other data
    Validate(Validate),
    /// Write a data set in another format or place; the name tells the format
    Convert(Convert),
    /// Write vectors that are computed from a seed; as `generate:...` they need no file
    Generate(Generate),
    /// The exact nearest rows of each query
    GroundTruth(ground_truth::GroundTruthOptions),
    /// Plan copies of a base: prove that they are separate, or refuse with the numbers
    Expand(expand::ExpandOptions),
}

/// `vst dataset download`
#[derive(Debug, Args)]
pub(crate) struct Download {
    /// Name of the catalogue, or URLs
    #[arg(required = true)]
    pub(crate) what: Vec<String>,
    /// Folder
    #[arg(long, default_value = ".")]
    pub(crate) to: PathBuf,
    /// Ranges in flight at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) connections: u8,
    /// Fetch the files of a catalogue entry from here instead, by their names
    #[arg(long, env = "VST_DATASET_MIRROR", value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// The file's SHA-256; of one file only
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vst dataset validate`
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// The base vectors
    pub(crate) base: String,
    /// The queries
    #[arg(long)]
    pub(crate) queries: Option<String>,
    /// The neighbours of the queries
    #[arg(long, requires = "queries")]
    pub(crate) ground_truth: Option<String>,
    /// How distance is measured
    #[arg(long, default_value = "l2")]
    pub(crate) metric: MetricWord,
    /// Queries whose truth is computed again over the whole base
    #[arg(long, default_value_t = 10)]
    pub(crate) sample: u32,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vst dataset convert`
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// What to read
    pub(crate) from: String,
    /// What to write: .fbin, .u8bin, .i8bin, .ibin, .fvecs, .bvecs, .ivecs, .npy, .parquet
    pub(crate) to: String,
    /// Only the first rows
    #[arg(long)]
    pub(crate) rows: Option<u64>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vst dataset generate`
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// What to write; the name tells the format
    pub(crate) to: String,
    /// Distribution
    #[arg(long, default_value = "clustered")]
    pub(crate) kind: Kind,
    /// Vectors
    #[arg(long)]
    pub(crate) rows: u64,
    /// Dimensions
    #[arg(long)]
    pub(crate) dims: u32,
    /// Seed
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Centres of clustered vectors
    #[arg(long, default_value_t = 1000)]
    pub(crate) clusters: u64,
    /// Deviation around a centre
    #[arg(long, default_value_t = 0.1)]
    pub(crate) spread: f64,
    /// Write so many queries of that population instead
    #[arg(long, value_name = "COUNT")]
    pub(crate) queries: Option<u64>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A distribution, as a person writes it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// Uniform in [0, 1)
    Uniform,
    /// Normal
    Gaussian,
    /// Normal around centres
    Clustered,
}

/// A metric, as a person writes it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MetricWord {
    /// Squared Euclidean
    L2,
    /// One minus cosine
    Cosine,
    /// One minus inner product
    #[value(name = "inner_product", alias = "ip")]
    InnerProduct,
}

impl From<MetricWord> for Metric {
    fn from(word: MetricWord) -> Self {
        match word {
            MetricWord::L2 => Self::L2,
            MetricWord::Cosine => Self::Cosine,
            MetricWord::InnerProduct => Self::InnerProduct,
        }
    }
}

pub(crate) async fn run(command: DatasetCommand) -> Result<Exit, Failure> {
    match command {
        DatasetCommand::List { json } => catalogue::list(json),
        DatasetCommand::Info { reference, scan, json } => examine::info(&reference, scan, json).await,
        DatasetCommand::Download(download) => transfer::download(&download).await,
        DatasetCommand::Validate(validate) => examine::validate(&validate).await,
        DatasetCommand::Convert(convert) => transfer::convert(&convert).await,
        DatasetCommand::Generate(generate) => transfer::generate(&generate).await,
        DatasetCommand::GroundTruth(options) => ground_truth::run(options).await,
        DatasetCommand::Expand(options) => expand::run(&options).await,
    }
}

async fn open(reference: &str) -> Result<DatasetView, Failure> {
    DatasetView::open_url(&resolve(reference)?).await.map_err(|e| refuse(&e))
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn resolve(reference: &str) -> Result<Url, Failure> {
    let here = std::env::current_dir()?;
    dataset::resolve(reference, &here).map_err(|e| refuse(&e))
}

/// An error of data, with the store's own reason.
fn refuse(error: &dyn std::error::Error) -> Failure {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !message.contains(&said) {
            message = format!("{message}: {said}");
        }
        source = cause.source();
    }
    Failure::new(Exit::Scenario, message)
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(Exit::Bug, format!("the result cannot be written as JSON: {e}")))
}

/// The extension of the big-ann format of an element.
fn extension(element: Element) -> &'static str {
    match element {
        Element::U8 => "u8bin",
        Element::I8 => "i8bin",
        _ => "fbin",
    }
}
