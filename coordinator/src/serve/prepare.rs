//! Everything that can be known to fail, before anything is started or written.

use std::path::Path;
use std::sync::Arc;

use vst_common::clock;
use vst_common::ids::RunId;
use vst_common::scenario::check::Checked;

use super::Error;
use crate::plan::{self, COPIES, DataFacts, RunPlan};
use crate::target::{Cleaned, Found, OwnerMarker, Target, TargetError, TargetFacts};

/// A run that can begin.
#[derive(Debug)]
pub struct Prepared {
    /// The phases.
    pub plan: Arc<RunPlan>,
    /// What the data is, where the scenario has any.
    pub data: Option<DataFacts>,
    /// The servers.
    pub target: Arc<Target>,
    /// What they say of themselves.
    pub target_facts: TargetFacts,
}

impl Prepared {
    pub(super) fn sample_interval_ns(&self) -> u64 {
        self.plan.scenario.sampling.interval_ms.saturating_mul(1_000_000)
    }

    fn prefix(&self) -> &str {
        &self.plan.scenario.population.prefix
    }
}

/// Reads the data, asks the target, plans. Writes nothing.
///
/// # Errors
/// [`Error::Scenario`] before the target is asked anything, then [`Error::Target`].
pub async fn prepare(checked: &Checked, base_dir: &Path, target: &str) -> Result<Prepared, Error> {
    let data = plan::read_data(checked, base_dir).await?;
    plan::check(checked, data.as_ref())?;
    let target = Target::connect(target).await?;
    let search = match &data {
        Some(_) => Some(target.search_plan(&checked.scenario.population.prefix)?),
        None => None,
    };
    let target_facts = target.facts().await?;
    let plan = plan::plan(checked, data.as_ref(), search)?;
    Ok(Prepared { plan: Arc::new(plan), data, target: Arc::new(target), target_facts })
}

/// Makes sure that the prefix is free; what an earlier run left is removed where that is asked for.
pub(super) async fn clear(prepared: &Prepared, cleanup: bool) -> Result<(), TargetError> {
    let prefix = prepared.prefix();
    if cleanup && let Found::OursLeftBehind(marker) = prepared.target.inspect(prefix).await? {
        tracing::info!("removing what run {} left under `{prefix}`", marker.run);
        told(prepared.target.cleanup(&marker, |_, _| ()).await?);
    }
    prepared.target.require_free(prefix).await
}

/// What the target is marked with as long as it holds rows of this run.
pub(super) fn marker(prepared: &Prepared, run: &RunId) -> OwnerMarker {
    OwnerMarker {
        run: run.clone(),
        prefix: prepared.prefix().to_owned(),
        rows: prepared.plan.rows,
        copies: COPIES,
        dims: prepared.plan.dims,
        keyspace: prepared.plan.scenario.keyspace.clone(),
        spaces: plan::spaces(&prepared.plan.scenario).into_iter().map(str::to_owned).collect(),
        vst: String::from(env!("CARGO_PKG_VERSION")),
        made_at: clock::rfc3339(clock::wall_ns()),
    }
}

/// Removes what the run made: all of it, or the marker alone where the run never touched the target.
pub(super) async fn remove(target: &Target, marker: &OwnerMarker, touched: bool) -> Result<(), TargetError> {
    let mut made = marker.clone();
    if !touched {
        made.rows = 0;
        made.spaces.clear();
    }
    told(target.cleanup(&made, |_, _| ()).await?);
    Ok(())
}

fn told(cleaned: Cleaned) {
    if cleaned != Cleaned::default() {
        tracing::info!("removed {} keys and {} indexes", cleaned.keys, cleaned.indexes);
    }
}
