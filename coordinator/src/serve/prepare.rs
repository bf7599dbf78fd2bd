//! Everything that can be known to fail, before anything is started or written.

use std::path::Path;
use std::sync::Arc;

use vst_common::clock;
use vst_common::ids::RunId;
use vst_common::scenario::check::Checked;

use super::Error;
use crate::plan::{self, DataFacts, RunPlan};
use crate::target::{Cleaned, Found, Lease, OwnerMarker, Target, TargetError, TargetFacts, left_behind};

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
    plan::check_clients(checked, &target.client_limits().await?)?;
    let plan = plan::plan(checked, data.as_ref(), search)?;
    Ok(Prepared { plan: Arc::new(plan), data, target: Arc::new(target), target_facts })
}

/// Holds the prefix for a run, once it is known to be free; what a dead run left is removed where that is asked for.
/// Nothing is written before everything under the prefix is known to be that run's.
pub(super) async fn take(prepared: &Prepared, run: &RunId, cleanup: bool) -> Result<Lease, TargetError> {
    let (target, prefix) = (&prepared.target, prepared.prefix());
    let foreign = |what| Err(TargetError::Foreign { prefix: prefix.to_owned(), what });
    let left = match target.inspect(prefix).await? {
        Found::Empty => None,
        Found::Foreign { what } => return foreign(what),
        Found::OursLeftBehind(marker) => Some(marker),
    };
    if let Some(left) = &left {
        if !cleanup {
            return Err(match target.holder(prefix).await? {
                Some(holder) => target.in_use(prefix, &holder)?,
                None => left_behind(left.clone()),
            });
        }
        if let Some(what) = target.beside(left).await? {
            return foreign(what);
        }
    }
    let lease = Lease::take(target, prefix, run, cleanup).await?;
    match clear(target, prefix, left, &lease).await {
        Ok(()) => Ok(lease),
        Err(e) => {
            lease.release().await;
            Err(e)
        }
    }
}

/// Holds the prefix for a run that another coordinator began, and gives what it is marked with.
pub(super) async fn take_over(prepared: &Prepared, run: &RunId) -> Result<(Lease, OwnerMarker), TargetError> {
    let (target, prefix) = (&prepared.target, prepared.prefix());
    let lease = Lease::take(target, prefix, run, false).await?;
    let marked = match target.marker(prefix).await {
        Ok(Some(Found::OursLeftBehind(marker))) if marker.run == *run => Ok(marker),
        // It died before it had marked anything.
        Ok(None | Some(Found::Empty)) => Ok(marker(prepared, run)),
        Ok(Some(Found::OursLeftBehind(other))) => Err(left_behind(other)),
        Ok(Some(Found::Foreign { what })) => Err(TargetError::Foreign { prefix: prefix.to_owned(), what }),
        Err(e) => Err(e),
    };
    match marked {
        Ok(marker) => Ok((lease, marker)),
        Err(e) => {
            lease.release().await;
            Err(e)
        }
    }
}

/// Removes what was found before the prefix was held, if it is still that.
async fn clear(
    target: &Target,
    prefix: &str,
    left: Option<OwnerMarker>,
    lease: &Lease,
) -> Result<(), TargetError> {
    match (left, target.marker(prefix).await?) {
        (_, None) => Ok(()),
        (Some(left), Some(Found::OursLeftBehind(now))) if left == now => {
            tracing::info!("removing what run {} left under `{prefix}`", left.run);
            told(target.cleanup(&left, lease, |_, _| ()).await?);
            Ok(())
        }
        (_, Some(Found::OursLeftBehind(now))) => Err(left_behind(now)),
        (_, Some(Found::Foreign { what })) => Err(TargetError::Foreign { prefix: prefix.to_owned(), what }),
        (_, Some(Found::Empty)) => Ok(()),
    }
}

/// What the target is marked with as long as it holds rows of this run.
pub(super) fn marker(prepared: &Prepared, run: &RunId) -> OwnerMarker {
    OwnerMarker {
        run: run.clone(),
        prefix: prepared.prefix().to_owned(),
        rows: prepared.plan.rows,
        copies: prepared.plan.copies,
        dims: prepared.plan.dims,
        keyspace: prepared.plan.scenario.keyspace.clone(),
        spaces: plan::spaces(&prepared.plan.scenario).into_iter().map(str::to_owned).collect(),
        vst: String::from(env!("CARGO_PKG_VERSION")),
        made_at: clock::rfc3339(clock::wall_ns()),
    }
}

/// Removes what the run made: all of it, or the marker alone where the run never touched the target.
pub(super) async fn remove(
    target: &Target,
    marker: &OwnerMarker,
    lease: &Lease,
    touched: bool,
) -> Result<(), TargetError> {
    if !touched {
        return target.unclaim(marker, lease).await;
    }
    told(target.cleanup(marker, lease, |_, _| ()).await?);
    Ok(())
}

fn told(cleaned: Cleaned) {
    if cleaned != Cleaned::default() {
        tracing::info!("removed {} keys and {} indexes", cleaned.keys, cleaned.indexes);
    }
}
