//! What the data of a scenario is: headers and neighbour lists, read before anything is started.

use std::fmt;
use std::path::Path;

use url::Url;
use vst_common::dataset::{self, DatasetManifest, DatasetView, ReadFaults};
use vst_common::expand::Expansion;
use vst_common::ground_truth::GroundTruth;
use vst_common::scenario::DatasetSpec;
use vst_common::scenario::check::{Checked, Faults};

use super::{copies, sound};

/// What planning needs to know of the data.
#[derive(Clone, Debug)]
pub struct DataFacts {
    /// The scenario's references as absolute URLs.
    pub urls: DatasetSpec,
    /// The base vectors.
    pub base: DatasetManifest,
    /// The query vectors.
    pub queries: DatasetManifest,
    /// The neighbours of each query, checked against the whole base.
    pub truth: GroundTruth,
    /// How copies of the base are made.
    pub expansion: Expansion,
    /// The numbers on which the separation of copies rests, for people; absent for one copy.
    pub separation: Option<String>,
    /// Requests to stores that were repeated while planning.
    pub faults: ReadFaults,
}

impl fmt::Display for DataFacts {
    /// `10000 rows x 128 u8, 100 queries, 100 neighbours each`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (base, truth) = (&self.base, &self.truth);
        write!(f, "{} rows x {} {}, {} queries, ", base.rows, base.dims, base.element, self.queries.rows)?;
        write!(f, "{} neighbours each", truth.k)?;
        self.separation.as_ref().map_or(Ok(()), |separation| write!(f, "; {separation}"))
    }
}

/// Reads the headers of the vectors and the whole truth. Relative paths are taken from `base_dir`. `None` for a
/// scenario without data.
///
/// # Errors
/// Every file that cannot be used, at the key that names it.
pub async fn read_data(checked: &Checked, base_dir: &Path) -> Result<Option<DataFacts>, Faults> {
    let Some(spec) = &checked.scenario.dataset else { return Ok(None) };
    let faults = ReadFaults::default();
    let base = vectors(checked, base_dir, "dataset.base", &spec.base, &faults).await;
    let queries = vectors(checked, base_dir, "dataset.queries", &spec.queries, &faults).await;
    let truth = truth(checked, base_dir, &spec.ground_truth, &faults).await;
    let (base_url, base) = match (base, &queries, &truth) {
        (Ok(base), Ok(_), Ok(_)) => base,
        (base, queries, truth) => {
            let faults = [base.err(), queries.as_ref().err().cloned(), truth.as_ref().err().cloned()];
            return Err(join(faults.into_iter().flatten()).unwrap_or_else(|| unexplained(checked)));
        }
    };
    let (queries_url, queries) = queries?;
    let (truth_url, truth) = truth?;
    if let Err(e) = truth.check_against(base.rows) {
        let hint = "give the truth that was computed on this base";
        return Err(checked.source.fault(
            "dataset.ground_truth",
            e.to_string(),
            "does not fit the base",
            hint,
        ));
    }
    let urls = DatasetSpec {
        base: base_url.to_string(),
        queries: queries_url.to_string(),
        ground_truth: truth_url.to_string(),
        rows: spec.rows,
    };
    let facts =
        DataFacts { urls, base, queries, truth, expansion: Expansion::None, separation: None, faults };
    sound::check(checked, &facts).await?;
    copies::expanded(checked, facts).await.map(Some)
}

/// Faults one after another; `None` for none.
pub(super) fn join(faults: impl IntoIterator<Item = Faults>) -> Option<Faults> {
    faults.into_iter().reduce(Faults::join)
}

fn unexplained(checked: &Checked) -> Faults {
    checked.source.fault("dataset", "the data cannot be used", "cannot be read", "check the paths")
}

async fn vectors(
    checked: &Checked,
    base_dir: &Path,
    key: &str,
    reference: &str,
    faults: &ReadFaults,
) -> Result<(Url, DatasetManifest), Faults> {
    let fault = |e: dataset::Error| unusable(checked, key, &e);
    let url = dataset::resolve(reference, base_dir).map_err(fault)?;
    let view = DatasetView::open_url(&url).await.map_err(fault)?;
    let manifest = view.manifest().clone();
    faults.absorb(view.faults());
    if manifest.element.is_integer() {
        return Err(checked.source.fault(
            key,
            format!("{} holds {} row numbers, not vectors", manifest.url, manifest.element),
            "a list of neighbours",
            "name the file that holds the vectors",
        ));
    }
    Ok((url, manifest))
}

async fn truth(
    checked: &Checked,
    base_dir: &Path,
    reference: &str,
    faults: &ReadFaults,
) -> Result<(Url, GroundTruth), Faults> {
    const KEY: &str = "dataset.ground_truth";
    let url = dataset::resolve(reference, base_dir).map_err(|e| unusable(checked, KEY, &e))?;
    let truth = dataset::open_truth(&url, faults).await.map_err(|e| unusable(checked, KEY, &e))?;
    Ok((url, truth))
}

pub(super) fn unusable(checked: &Checked, key: &str, error: &dyn std::error::Error) -> Faults {
    // The store's own reason (no such file, no permission) is what a person needs to see.
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Clients of stores quote what is behind them.
        let behind = cause.to_string();
        if !message.contains(&behind) {
            message = format!("{message}: {behind}");
        }
        source = cause.source();
    }
    checked.source.fault(key, message, "cannot be used", "name a file that is there and whole")
}
