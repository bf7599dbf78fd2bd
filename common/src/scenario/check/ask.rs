//! Reads what a query asks: how many neighbours, among which rows, and what comes back with them.
//!
//! Called by the readers of the phases that ask. Law: a filter that is accepted can be written in the words of both
//! search modules, and matches the share that it says.

use super::super::{Ask, Returns};
use super::fault::Complaint;
use super::phases::at;
use super::reader::{Reader, Section};
use super::sections::count;
use super::tree::Node;
use super::values;
use crate::attributes::Filter;

const RETURNS: &[(&str, Returns)] =
    &[("nothing", Returns::Nothing), ("distance", Returns::Distance), ("row", Returns::Row)];
const FILTERS: &[&str] = &["tag", "numeric"];
/// The names of tags hold shares to a millionth.
const FINEST_PERCENT: f64 = 1e-4;

/// The keys `k`, `ef_runtime`, `filter` and `returns` of a phase.
pub(super) fn ask(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Ask> {
    let k = reader.required(section, "k", "10", |k, n, e| count(k, n, 1_000_000, e));
    let ef_runtime = reader.optional(section, "ef_runtime", "200", |k, n, e| count(k, n, 1_000_000, e));
    let filter = filter(reader, section);
    let returns = reader
        .defaulted(section, "returns", Returns::Distance, "nothing", |k, n, _| values::word(k, n, RETURNS));
    Some(Ask { k: k?, ef_runtime: ef_runtime?, filter: filter?, returns: returns? })
}

#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn filter(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Option<Filter>> {
    let Some(entry) = section.get("filter") else { return Some(None) };
    let section = reader.section("`filter`", at(section, "filter"), &entry.node, FILTERS)?;
    let chosen = reader.one_of(&section, FILTERS, "tag: 10%")?;
    let share = reader.required(&section, &chosen.key, "10%", selectivity)?;
    Some(Some(if chosen.key == "tag" { Filter::Tag(share) } else { Filter::Numeric(share) }))
}

/// The share of the rows that match.
fn selectivity(key: &str, node: &Node, example: &str) -> Result<f64, Complaint> {
    let percent = values::percent(key, node, example)?;
    if percent >= FINEST_PERCENT {
        return Ok(values::share(percent));
    }
    Err(Complaint::new(
        format!("`{key}` selects {percent}% of the rows"),
        "hardly any row",
        format!("say which share of the rows matches, at least 0.0001%, for example `{key}: {example}`"),
    ))
}
