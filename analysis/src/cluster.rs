//! What the cluster did while it was under load: failovers, slots that moved, connections that ended.
//!
//! From table `events`, which the workers wrote. Law: a phase in which an owner of slots changed, or connections were
//! lost, says so in a finding; what it cost is in the phase's own latencies and counts.

use std::collections::BTreeMap;

use crate::engine::rows::rows;
use crate::engine::{Engine, Error};
use crate::number;
use crate::validity::{Note, Rule};

/// Events of one kind in one phase.
#[derive(Clone, Debug, Default)]
struct Told {
    n: u64,
    first: String,
}

/// Findings of all phases, in their order.
pub(crate) async fn findings(engine: &Engine) -> Result<Vec<Note>, Error> {
    let mut phases: BTreeMap<u64, (String, BTreeMap<String, Told>)> = BTreeMap::new();
    for row in rows(&engine.sql(QUERY).await?) {
        let (_, kinds) =
            phases.entry(row.total("phase_index")).or_insert_with(|| (row.word("phase"), BTreeMap::new()));
        kinds.insert(row.word("kind"), Told { n: row.total("n"), first: row.word("detail") });
    }
    Ok(phases.into_values().flat_map(|(phase, kinds)| of_phase(&phase, &kinds)).collect())
}

fn of_phase(phase: &str, kinds: &BTreeMap<String, Told>) -> Vec<Note> {
    let n = |kind: &str| kinds.get(kind).map_or(0, |told| told.n);
    let mut found = Vec::new();
    let mut add = |rule, text| found.push(Note { rule, phase: Some(phase.to_owned()), text });
    if let Some(changed) = kinds.get("topology_changed") {
        let what = if n("role_changed") > 0 {
            "another node took over a primary's slots"
        } else {
            "slots moved between primaries"
        };
        let mut parts = vec![format!("{what} during this phase ({})", changed.first)];
        let counted = [
            ("node_unreachable", "times a node could not be reached"),
            ("connection_lost", "connections were lost"),
            ("cluster_down", "attempts refused because the cluster was down"),
            ("moved", "redirected"),
            ("ask", "asked of the importing node"),
        ];
        parts.extend(
            counted
                .iter()
                .filter(|(kind, _)| n(kind) > 0)
                .map(|(kind, text)| format!("{} {text}", number::grouped(n(kind)))),
        );
        parts.push(String::from("waiting for it is part of the latencies"));
        add(Rule::Topology, parts.join("; "));
    } else if n("connection_lost") > 0 {
        let text = format!(
            "{} connections were lost ({}); what they owed is counted as unknown attempts",
            number::grouped(n("connection_lost")),
            kinds.get("connection_lost").map_or("", |told| told.first.as_str())
        );
        add(Rule::Connections, text);
    }
    for kind in ["rows_rewritten", "rows_not_verified"] {
        if let Some(told) = kinds.get(kind) {
            add(Rule::Repair, told.first.clone());
        }
    }
    found
}

const QUERY: &str = "
    select phase_index, max(phase) as phase, kind, sum(\"count\") as n,
           first_value(detail order by \"at\") as detail
    from events
    where kind in ('topology_changed', 'role_changed', 'node_unreachable', 'connection_lost', 'cluster_down', 'moved',
                   'ask', 'rows_rewritten', 'rows_not_verified')
    group by phase_index, kind order by phase_index, kind";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(all: &[(&str, u64, &str)]) -> Vec<(Rule, String)> {
        let kinds = all
            .iter()
            .map(|(kind, n, first)| ((*kind).to_owned(), Told { n: *n, first: (*first).to_owned() }))
            .collect();
        of_phase("load", &kinds).into_iter().map(|note| (note.rule, note.text)).collect()
    }

    #[test]
    fn a_failover_a_migration_and_a_cut_are_told_apart_and_calm_says_nothing() {
        let moved = ("topology_changed", 1, "5461 slots of a:1 belong to b:2");
        let failover = told(&[moved, ("role_changed", 2, "x"), ("connection_lost", 8, "a:1: closed")]);
        assert_eq!(failover.len(), 1);
        assert!(failover[0].1.contains("took over") && failover[0].1.contains("8 connections were lost"));
        assert!(failover[0].1.contains("5461 slots of a:1 belong to b:2"), "{}", failover[0].1);
        assert!(told(&[moved])[0].1.contains("slots moved"));
        assert_eq!(told(&[("connection_lost", 3, "a:1: closed")])[0].0, Rule::Connections);
        let repaired = told(&[moved, ("rows_rewritten", 1, "3 rows")]);
        assert_eq!(
            repaired.iter().map(|(rule, _)| *rule).collect::<Vec<_>>(),
            [Rule::Topology, Rule::Repair]
        );
        assert!(told(&[("moved", 3, "x")]).is_empty());
    }
}
