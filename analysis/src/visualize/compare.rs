//! What the page of several runs draws: the data of each run's own page, and how each differs from the first.
//!
//! The differences are those of `vst analyze regress` with its usual thresholds, so that page and command never
//! disagree.

use serde::Serialize;

use super::data::Data;
use crate::engine::Error;
use crate::regress::{Call, Thresholds, regress, report};

#[derive(Debug, Serialize)]
pub(super) struct CompareData {
    runs: Vec<Data>,
    header: [&'static str; 9],
    comparisons: Vec<Compared>,
}

/// One run against the first.
#[derive(Debug, Serialize)]
struct Compared {
    candidate: String,
    headline: String,
    explanation: String,
    rows: Vec<[String; 9]>,
    /// `bad`, `good` or nothing, for each row.
    tones: Vec<&'static str>,
    doubts: Vec<String>,
}

pub(super) async fn of(run_dirs: &[String], runs: Vec<(String, Data)>) -> Result<CompareData, Error> {
    let mut comparisons = Vec::new();
    if let [first, others @ ..] = run_dirs {
        for (directory, (name, _)) in others.iter().zip(runs.iter().skip(1)) {
            let found =
                regress(std::slice::from_ref(first), std::slice::from_ref(directory), &Thresholds::default())
                    .await?;
            let tone = |call: Call| match call {
                Call::Regression => "bad",
                Call::Improvement => "good",
                Call::Unchanged | Call::WithinNoise | Call::TooShort => "",
            };
            comparisons.push(Compared {
                candidate: name.clone(),
                headline: report::headline(&found),
                explanation: report::explanation(&found),
                rows: found.judgements.iter().map(report::cells).collect(),
                tones: found.judgements.iter().map(|j| tone(j.call)).collect(),
                doubts: found.doubts,
            });
        }
    }
    Ok(CompareData {
        runs: runs.into_iter().map(|(_, data)| data).collect(),
        header: report::HEADER,
        comparisons,
    })
}
