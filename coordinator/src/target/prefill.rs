//! Whether what an earlier run left is (a part of) the population that this one would load.
//!
//! Asked by `serve` when the scenario says `prefill: reuse`, while the prefix is held and nothing has been written. Law:
//! what is taken over has the marker of a plan that this one contains, an index of the planned shape or none, and the
//! planned bytes in every sampled row that is there; whatever differs is refused, never repaired.

use redis::cmd;
use serde::{Deserialize, Serialize};
use vst_common::phase::SearchPlan;
use vst_common::resp::Frame;
use vst_common::scenario::{Algorithm, Metric};
use vst_common::search::{IndexInfo, IndexShape};

use super::link::frame;
use super::{OwnerMarker, Target, TargetError};
use crate::plan::Sample;

/// What is taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefill {
    /// The marker of the run that made it.
    pub left: OwnerMarker,
    /// Whether the index is there.
    pub indexed: bool,
    /// Rows in the index, where there is one.
    pub rows: Option<u64>,
    /// Rows that were compared byte for byte, and those of them that were not there.
    pub sampled: u64,
    /// See there.
    pub missing: u64,
    /// Whether every row is there, by the index's count and by the sample.
    pub whole: bool,
}

impl Prefill {
    /// For people: what the ingest will do.
    #[must_use]
    pub fn words(&self) -> String {
        let index = match self.rows {
            Some(rows) => format!("an index over {rows} rows"),
            None => String::from("no index"),
        };
        let (run, sampled, missing) = (&self.left.run, self.sampled, self.missing);
        let then = if self.whole { "nothing is loaded" } else { "only rows that are missing are loaded" };
        format!(
            "run {run} left {index}; of {sampled} sampled rows {missing} are missing, the others agree: {then}"
        )
    }
}

impl Target {
    /// Compares what a marker stands for with a plan: its index, how many `cells` it has, and some of its rows. Writes
    /// nothing.
    ///
    /// # Errors
    /// [`TargetError::NotReusable`] where anything differs.
    pub async fn prefill(
        &self,
        left: &OwnerMarker,
        now: &OwnerMarker,
        (plan, shape): (&SearchPlan, &IndexShape<'_>),
        cells: u64,
        samples: &[Sample],
    ) -> Result<Prefill, TargetError> {
        let refuse = |what: String| TargetError::NotReusable {
            prefix: left.prefix.clone(),
            run: left.run.to_string(),
            what,
        };
        contains(now, left).map_err(refuse)?;
        let infos = match self.index_info(plan).await {
            Ok(infos) => Some(infos),
            Err(TargetError::IndexGone { .. }) => None,
            Err(e) => return Err(e),
        };
        for (node, info) in infos.iter().flatten() {
            differs(info, shape)
                .map_or(Ok(()), |what| Err(refuse(format!("the index on {node} has {what}"))))?;
        }
        if infos.is_some() {
            self.has_fields(plan, shape).await?.map_or(Ok(()), |what| Err(refuse(what)))?;
        }
        let mut missing = 0;
        for sample in samples {
            let link = self.link_for_key(&sample.key)?;
            let mut ask = cmd("HMGET");
            ask.arg(&sample.key);
            sample.fields.iter().for_each(|(field, _)| {
                ask.arg(field);
            });
            let held: Vec<Option<Vec<u8>>> = link.ask(&ask).await?;
            if held.iter().all(Option::is_none) {
                missing += 1;
                continue;
            }
            let wrong =
                sample.fields.iter().zip(&held).find(|((_, planned), held)| held.as_ref() != Some(planned));
            if let Some(((field, _), _)) = wrong {
                let key = String::from_utf8_lossy(&sample.key);
                return Err(refuse(format!("`{field}` of `{key}` is not what this scenario writes there")));
            }
        }
        let rows = infos.as_ref().map(|infos| infos.values().map(|info| info.docs).sum());
        let at_rest = infos.iter().flatten().all(|(_, info)| info.is_settled() && info.failures == 0);
        Ok(Prefill {
            left: left.clone(),
            indexed: infos.is_some(),
            rows,
            sampled: vst_common::count::len(samples.len()),
            missing,
            whole: missing == 0 && at_rest && rows == Some(cells),
        })
    }

    /// The first field that a query needs and the index does not have.
    async fn has_fields(
        &self,
        plan: &SearchPlan,
        shape: &IndexShape<'_>,
    ) -> Result<Option<String>, TargetError> {
        for (_, link, index) in self.places(plan) {
            let reply = link.value(cmd("FT.INFO").arg(&index)).await?;
            let reply = frame(&reply);
            let attributes = reply.get("attributes").and_then(Frame::as_array).unwrap_or_default();
            let has = |field: &str| {
                attributes.iter().any(|a| a.get("identifier").and_then(Frame::as_str) == Some(field))
            };
            let wanted = [shape.field].into_iter().chain(shape.attributes.fields());
            if let Some(field) = wanted.into_iter().find(|field| !has(field)) {
                return Ok(Some(format!("the index `{index}` on {} has no field `{field}`", link.address())));
            }
        }
        Ok(None)
    }
}

/// Whether every key of the one plan is a key of the other, of the same size.
fn contains(now: &OwnerMarker, left: &OwnerMarker) -> Result<(), String> {
    if left.dims != now.dims {
        return Err(format!("its vectors have {} dimensions, these {}", left.dims, now.dims));
    }
    if left.rows > now.rows || left.copies > now.copies {
        return Err(format!(
            "it had {} rows in {} copies, more than the {} in {} of this scenario",
            left.rows, left.copies, now.rows, now.copies
        ));
    }
    let keys = left.spaces.iter().all(|space| now.spaces.contains(space));
    if !keys || (!left.spaces.is_empty() && left.keyspace != now.keyspace) {
        return Err(String::from("it made keys of plain commands that this scenario does not know"));
    }
    Ok(())
}

/// In what an index is not the planned one.
fn differs(info: &IndexInfo, shape: &IndexShape<'_>) -> Option<String> {
    let metric = match shape.metric {
        Metric::L2 => "L2",
        Metric::Cosine => "COSINE",
        Metric::InnerProduct => "IP",
    };
    let graph = shape.algorithm == Algorithm::Hnsw;
    let whole = |n: u32| Some(u64::from(n));
    if info.dims.is_some() && info.dims != whole(shape.dims) {
        return Some(format!("{} dimensions and not {}", info.dims.unwrap_or(0), shape.dims));
    }
    if let Some(found) = info.metric.as_deref().filter(|found| *found != metric) {
        return Some(format!("the metric {found} and not {metric}"));
    }
    if info.m.is_some() != graph {
        return Some(format!("another algorithm than {}", if graph { "HNSW" } else { "FLAT" }));
    }
    let settings = [("M", info.m, shape.m), ("EF_CONSTRUCTION", info.ef_construction, shape.ef_construction)];
    let other = settings.into_iter().find(|(_, found, wanted)| graph && *found != whole(*wanted));
    other.map(|(name, found, wanted)| format!("{name} {} and not {wanted}", found.unwrap_or(0)))
}
