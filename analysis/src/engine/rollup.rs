//! `latency_rollup` for entries that the archive has not merged over workers yet.
//!
//! Law: the view holds the same rows whether an entry was compacted or not. The query is made from the table's own
//! schema, so that a new column cannot be forgotten: counts are summed, histograms merged, quantiles taken anew.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::DataType;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::execution::context::SessionContext;
use vst_common::batch::Table;
use vst_common::batch::latency::ALL_WORKERS;

use super::{Error, columns};

/// What tells rows of the rollup apart.
const KEY: [&str; 9] = [
    "run",
    "phase",
    "phase_index",
    "window",
    "operation",
    "command",
    "node",
    "interval_start",
    "interval_ns",
];

/// Batches of `latency`, merged over workers, with the columns of `latency_rollup`.
pub(super) async fn merged(context: &SessionContext, batches: Vec<RecordBatch>) -> Result<DataFrame, Error> {
    let name = "unmerged_latency";
    context
        .register_table(name, Arc::new(MemTable::try_new(columns::schema(Table::Latency), vec![batches])?))?;
    let frame = context.sql(&query(name)).await;
    // The frame holds the table itself; its name is not for users.
    context.deregister_table(name)?;
    Ok(frame?)
}

fn query(from: &str) -> String {
    let quoted = |name: &str| format!("\"{name}\"");
    let columns: Vec<String> = Table::LatencyRollup
        .schema()
        .fields()
        .iter()
        .map(|field| {
            let name = field.name();
            let value = match name.as_str() {
                "worker" => format!("'{ALL_WORKERS}'"),
                "generation" | "sequence" => String::from("cast(0 as bigint)"),
                "workers" => String::from("count(distinct \"worker\")"),
                key if KEY.contains(&key) => quoted(key),
                _ if field.data_type() == &DataType::Binary => format!("hdr_merge({})", quoted(name)),
                _ => quantile(name).unwrap_or_else(|| format!("sum({})", quoted(name))),
            };
            format!("{value} as {}", quoted(name))
        })
        .collect();
    let key: Vec<String> = KEY.iter().map(|name| quoted(name)).collect();
    format!("select {} from {from} group by {}", columns.join(", "), key.join(", "))
}

/// `response_p99_ns` is a quantile of `response_hdr`.
fn quantile(column: &str) -> Option<String> {
    let (of, which) = column.strip_suffix("_ns")?.rsplit_once('_')?;
    let q = match which {
        "p50" => "0.5",
        "p95" => "0.95",
        "p99" => "0.99",
        "p999" => "0.999",
        "p9999" => "0.9999",
        "max" => return Some(format!("hdr_max(hdr_merge(\"{of}_hdr\"))")),
        _ => return None,
    };
    Some(format!("hdr_quantile(hdr_merge(\"{of}_hdr\"), {q})"))
}
