//! Everything that can be known to fail, before anything is started or written.

use std::path::Path;
use std::sync::Arc;

use vst_common::clock;
use vst_common::ids::{PhaseIndex, RunId};
use vst_common::scenario::check::Checked;

use super::Error;
use super::effects::index_of;
use crate::plan::{self, DataFacts, RunPlan, Sample};
use crate::target::{
    Cleaned, Found, Lease, OwnerMarker, Prefill, Role, Target, TargetError, TargetFacts, left_behind,
};

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
    /// Rows of the plan, where what an earlier run left may be reused.
    pub samples: Vec<Sample>,
    /// What of it is; known when the prefix is held.
    pub prefill: Option<Prefill>,
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
    let replicas = target.nodes().iter().filter(|node| matches!(node.role, Role::Replica { .. })).count();
    let primaries = target.nodes().len() - replicas;
    plan::check_cluster(
        checked,
        plan::ClusterShape { is_cluster: target.is_cluster(), primaries, replicas },
    )?;
    plan::check_replicas(checked, replicas)?;
    let plan = plan::plan(checked, data.as_ref(), search)?;
    let samples = match &data {
        Some(data) if plan.reuses().is_some() => plan::samples(checked, data, &plan).await?,
        _ => Vec::new(),
    };
    let (plan, target) = (Arc::new(plan), Arc::new(target));
    Ok(Prepared { plan, data, target, target_facts, samples, prefill: None })
}

/// Holds the prefix for a run, once it is known to be free; what a dead run left is removed where that is asked for.
/// Nothing is written before everything under the prefix is known to be that run's.
pub(super) async fn take(prepared: &mut Prepared, run: &RunId, cleanup: bool) -> Result<Lease, TargetError> {
    let reuses = prepared.plan.reuses().is_some() && !cleanup;
    let (target, prefix) = (Arc::clone(&prepared.target), prepared.prefix().to_owned());
    let (target, prefix) = (&target, prefix.as_str());
    let foreign = |what| Err(TargetError::Foreign { prefix: prefix.to_owned(), what });
    let left = match target.inspect(prefix).await? {
        Found::Empty => None,
        Found::Foreign { what } => return foreign(what),
        Found::OursLeftBehind(marker) => Some(marker),
    };
    if let Some(left) = &left {
        let holder = if cleanup { None } else { target.holder(prefix).await? };
        if let Some(holder) = holder {
            return Err(target.in_use(prefix, &holder)?);
        }
        if !cleanup && !reuses {
            return Err(left_behind(left.clone()));
        }
        if let Some(what) = target.beside(left).await? {
            return foreign(what);
        }
    }
    let lease = Lease::take(target, prefix, run, cleanup).await?;
    let ready = match left {
        Some(left) if reuses => reuse(prepared, run, left).await,
        left => clear(target, prefix, left, &lease).await,
    };
    match ready {
        Ok(()) => Ok(lease),
        Err(e) => {
            lease.release().await;
            Err(e)
        }
    }
}

/// Plans anew over what an earlier run left, if it can be reused.
async fn reuse(prepared: &mut Prepared, run: &RunId, left: OwnerMarker) -> Result<(), TargetError> {
    let plan = Arc::clone(&prepared.plan);
    let Some((search, shape)) = index_of(&plan) else { return Err(left_behind(left)) };
    let (now, cells) = (marker(prepared, run), plan.population().cells());
    let found = prepared.target.prefill(&left, &now, (search, &shape), cells, &prepared.samples).await?;
    tracing::info!("prefill: {}", found.words());
    prepared.plan = Arc::new(plan.over(found.whole, found.indexed));
    prepared.prefill = Some(found);
    Ok(())
}

/// Plans a run that another coordinator began as that one did, where it had taken something over.
pub(super) fn as_planned(
    prepared: &mut Prepared,
    facts: &serde_json::Value,
    decided: &[(PhaseIndex, u64)],
) -> Result<(), Error> {
    let found = facts.pointer("/prefill/found").cloned();
    let found = found.and_then(|found| serde_json::from_value::<Prefill>(found).ok());
    if let Some(found) = found {
        prepared.plan = Arc::new(prepared.plan.over(found.whole, found.indexed));
        prepared.prefill = Some(found);
    }
    for (phase, keep_rows) in decided {
        let plan = plan::decided(&prepared.plan, prepared.data.as_ref(), *phase, *keep_rows);
        prepared.plan = Arc::new(plan.map_err(Error::OtherPlan)?);
    }
    Ok(())
}

/// Holds the prefix for a run that another coordinator began, and gives what it is marked with.
pub(super) async fn take_over(prepared: &Prepared, run: &RunId) -> Result<(Lease, OwnerMarker), TargetError> {
    let (target, prefix) = (&prepared.target, prepared.prefix());
    let lease = Lease::take(target, prefix, run, false).await?;
    let marked = match target.marker(prefix).await {
        Ok(Some(Found::OursLeftBehind(marker))) if marker.run == *run => Ok(marker),
        // It died before it had marked anything.
        Ok(None | Some(Found::Empty)) => Ok(marker(prepared, run)),
        // Or before it had marked what it reuses as its own.
        Ok(Some(Found::OursLeftBehind(other)))
            if prepared.prefill.as_ref().is_some_and(|prefill| prefill.left == other) =>
        {
            Ok(marker(prepared, run))
        }
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

/// Takes the mark of a run back that has written nothing else. What was taken over stays marked, or nobody could tell
/// whose it is.
pub(super) async fn unmark(
    prepared: &Prepared,
    marker: &OwnerMarker,
    lease: &Lease,
) -> Result<(), TargetError> {
    match &prepared.prefill {
        Some(_) => Ok(()),
        None => prepared.target.unclaim(marker, lease).await,
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
