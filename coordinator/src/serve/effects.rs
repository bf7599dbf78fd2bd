//! What the run asks of the target: to make the index, to say how far it is from rest.

use vst_common::phase::SearchPlan;
use vst_common::scenario::IndexSpec;
use vst_common::scenario::operations::Operation;
use vst_common::search::IndexShape;

use super::chain;
use crate::plan::{FIELD, RunPlan};
use crate::run::{Event, Failure, LogFate, Rest};
use crate::target::{Target, TargetError};

/// The index that a plan wants, and where; none without vectors.
pub(super) fn index_of(plan: &RunPlan) -> Option<(&SearchPlan, IndexShape<'_>)> {
    shaped(plan, plan.scenario.index.as_ref()?)
}

/// The same with another shape of the graph.
fn shaped<'a>(plan: &'a RunPlan, index: &IndexSpec) -> Option<(&'a SearchPlan, IndexShape<'a>)> {
    let shape = IndexShape {
        on: index.on,
        prefix: plan.scenario.population.prefix.as_str(),
        field: FIELD,
        algorithm: index.algorithm,
        dims: plan.expansion.index_dims(plan.dims),
        metric: index.metric,
        m: index.m,
        ef_construction: index.ef_construction,
        attributes: plan.attributes(),
    };
    Some((plan.search.as_ref()?, shape))
}

/// Makes the index on every node that needs one. `again` removes first what a coordinator before this one made of it.
pub(super) async fn create_index(target: &Target, plan: &RunPlan, again: bool) -> Event {
    // The scenario's check gives every plan that makes an index one.
    let Some((search, shape)) = index_of(plan).filter(|_| !plan.index_is_there) else {
        return Event::IndexCreated;
    };
    if again && let Err(e) = target.drop_index(shape.prefix).await {
        return Event::DeedFailed(failure(&e));
    }
    create(target, search, &shape).await
}

/// Drops the index on every node; the rows stay.
pub(super) async fn drop_index(target: &Target, plan: &RunPlan) -> Event {
    match target.drop_index(&plan.scenario.population.prefix).await {
        Ok(_) => Event::IndexDropped,
        Err(e) => Event::DeedFailed(failure(&e)),
    }
}

/// Drops the index and makes one of another shape over the rows that are there.
pub(super) async fn rebuild_index(target: &Target, plan: &RunPlan, index: &IndexSpec) -> Event {
    match (drop_index(target, plan).await, shaped(plan, index)) {
        (Event::IndexDropped, Some((search, shape))) => create(target, search, &shape).await,
        (Event::IndexDropped, None) => Event::IndexCreated,
        (other, _) => other,
    }
}

async fn create(target: &Target, search: &SearchPlan, shape: &IndexShape<'_>) -> Event {
    match target.create_index(search, shape).await {
        Ok(()) => Event::IndexCreated,
        Err(e) => Event::DeedFailed(failure(&e)),
    }
}

/// Changes the cluster. Says in words what happened.
pub(super) async fn operate(
    target: &Target,
    operation: &Operation,
    search: Option<&SearchPlan>,
) -> Result<String, Failure> {
    let done = match operation {
        Operation::Failover(spec) => target.failover(spec).await,
        Operation::MigrateSlots(spec) => target.migrate_slots(spec, search).await,
        Operation::AddNode(spec) => target.add_node(spec).await,
        Operation::RemoveNode(spec) => target.remove_node(spec).await,
        // The shell runs programs itself.
        Operation::Command(_) => Ok(String::new()),
    };
    done.map_err(|e| failure(&e))
}

/// Closes the connections that carry this name, on every node there was and is; why not, where that is not known.
pub(super) async fn cut_off(target: &Target, name: &str) -> Result<(), String> {
    // Asked anew, because a node may have come since the run began. If nobody can say who is there now, those who
    // were there then must do.
    if let Err(e) = target.refresh().await {
        tracing::warn!("the nodes known so far are taken to be all: {}", chain(&e));
    }
    let closed = target.close_connections(name).await.map_err(|e| chain(&e))?;
    if closed > 0 {
        tracing::info!("closed {closed} connections of {name}");
    }
    Ok(())
}

/// How far the target is from rest; one that does not answer is not at rest. No rest can come to an index that is gone.
pub(super) async fn rest(target: &Target, search: Option<&SearchPlan>) -> Event {
    match read_rest(target, search).await {
        Ok(rest) => Event::RestRead(rest),
        Err(e @ TargetError::IndexGone { .. }) => Event::Failed(failure(&e)),
        Err(e) => {
            // A replica may have taken over; the next look is at what there is then.
            let busy = match target.refresh().await {
                Ok(_) => chain(&e),
                Err(gone) => format!("{}; {}", chain(&e), chain(&gone)),
            };
            Event::RestRead(Rest { used_memory_bytes: 0, busy: Some(busy) })
        }
    }
}

async fn read_rest(target: &Target, search: Option<&SearchPlan>) -> Result<Rest, TargetError> {
    let mut busy = Vec::new();
    if let Some(search) = search {
        for (node, info) in target.index_info(search).await? {
            if !info.is_settled() {
                busy.push(format!(
                    "node {node} has indexed {:.1} % and has {} writes queued{}",
                    info.percent_indexed * 100.0,
                    info.mutation_queue,
                    info.state.map(|state| format!(" ({state})")).unwrap_or_default()
                ));
            }
        }
    }
    let used_memory_bytes = target.used_memory().await?;
    Ok(Rest { used_memory_bytes, busy: (!busy.is_empty()).then(|| busy.join(", ")) })
}

fn failure(error: &TargetError) -> Failure {
    Failure { exit: error.exit(), reason: chain(error), log: LogFate::Writable }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_cluster::{LocalCluster, LocalClusterOptions, ServerFiles};
    use crate::target::TargetUrl;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_that_is_gone_ends_the_wait_for_rest_and_names_the_node() {
        let options = LocalClusterOptions::standalone(ServerFiles::find().unwrap());
        let servers = LocalCluster::start(options).await.unwrap();
        let target = Target::connect_to(TargetUrl::new(&servers.url(), None).unwrap()).await.unwrap();
        let search = target.search_plan("vst:").unwrap();
        assert!(matches!(rest(&target, None).await, Event::RestRead(rest) if rest.busy.is_none()));
        let Event::Failed(failure) = rest(&target, Some(&search)).await else { panic!("it waits") };
        let node = &servers.nodes()[0];
        assert!(failure.reason.contains(&node.address), "{}", failure.reason);
        assert!(failure.reason.contains("`vst_index`"), "{}", failure.reason);
        assert_eq!(failure.exit, vst_common::exit::Exit::Target);
        // A target that is only silent may come back.
        servers.kill(&node.id).unwrap();
        assert!(matches!(rest(&target, Some(&search)).await, Event::RestRead(rest) if rest.busy.is_some()));
    }
}
