//! What the run asks of the target: to make the index, to say how far it is from rest.

use vst_common::phase::SearchPlan;
use vst_common::search::IndexShape;

use super::chain;
use crate::plan::{FIELD, RunPlan};
use crate::run::{Event, Failure, Rest};
use crate::target::{Target, TargetError};

/// Makes the index on every node that needs one.
pub(super) async fn create_index(target: &Target, plan: &RunPlan) -> Event {
    let prefix = plan.scenario.population.prefix.as_str();
    // The scenario's check gives every plan that makes an index both.
    let (Some(index), Some(search)) = (&plan.scenario.index, &plan.search) else {
        return Event::IndexCreated;
    };
    let shape = IndexShape {
        prefix,
        field: FIELD,
        dims: plan.dims,
        metric: index.metric,
        m: index.m,
        ef_construction: index.ef_construction,
    };
    match target.create_index(search, &shape).await {
        Ok(()) => Event::IndexCreated,
        Err(e) => Event::Failed(failure(&e)),
    }
}

/// How far the target is from rest; one that does not answer is not at rest.
pub(super) async fn rest(target: &Target, search: Option<&SearchPlan>) -> Rest {
    match read_rest(target, search).await {
        Ok(rest) => rest,
        Err(e) => Rest { used_memory_bytes: 0, busy: Some(chain(&e)) },
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
    Failure { exit: error.exit(), reason: chain(error), log_lost: false }
}
