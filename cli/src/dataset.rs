//! `vst dataset`: works on vectors, without a target.

mod expand;
mod ground_truth;

use clap::{Subcommand, ValueEnum};
use url::Url;
use vst_common::dataset::{DatasetView, open_store, resolve};
use vst_common::exit::Exit;
use vst_common::scenario::Metric;

use crate::error::Failure;

/// What to do with vectors.
#[derive(Debug, Subcommand)]
pub(crate) enum DatasetCommand {
    /// The exact nearest rows of each query
    GroundTruth(ground_truth::GroundTruthOptions),
    /// Plans copies of a base: proves that they are separate, or refuses with the numbers
    Expand(expand::ExpandOptions),
}

/// How distance is measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum MetricWord {
    /// Squared Euclidean distance
    L2,
    /// One minus the cosine similarity
    Cosine,
    /// One minus the inner product
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
        DatasetCommand::GroundTruth(options) => ground_truth::run(options).await,
        DatasetCommand::Expand(options) => expand::run(&options).await,
    }
}

/// A path, taken from the working directory, or a URL.
fn locate(reference: &str) -> Result<Url, Failure> {
    let here = std::env::current_dir()?;
    resolve(reference, &here).map_err(|e| unreadable(&e))
}

async fn open(reference: &str) -> Result<DatasetView, Failure> {
    let url = locate(reference)?;
    let (store, path) = open_store(&url).map_err(|e| unreadable(&e))?;
    DatasetView::open(store, path, url).await.map_err(|e| unreadable(&e))
}

fn unreadable(error: &dyn std::error::Error) -> Failure {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Failure::new(Exit::Scenario, message)
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}
