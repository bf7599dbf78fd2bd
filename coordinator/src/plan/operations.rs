//! Whether what a scenario does besides loading can be done: programs that somebody allowed, a cluster that has what they
//! change.
//!
//! Asked before anything is started. Laws: no program of a scenario runs unless the operator has said so; an operation that
//! the target can be known to refuse is refused at its own key.

use vst_common::scenario::Step;
use vst_common::scenario::check::{Checked, Faults};
use vst_common::scenario::operations::Operation;

use super::data::join;

/// Refuses programs that nobody has allowed.
///
/// # Errors
/// A fault for each program, at the key that names it.
pub fn check_programs(checked: &Checked, allowed: bool) -> Result<(), Faults> {
    if allowed {
        return Ok(());
    }
    let faults = checked.scenario.programs().map(|(key, words)| {
        checked.source.fault(
            &key,
            format!("the scenario runs a program on this machine: {}", words.join(" ")),
            "not allowed",
            "read what it does, then say `--allow-hooks`",
        )
    });
    join(faults).map_or(Ok(()), Err)
}

/// What of the target decides what can be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterShape {
    /// Whether it is a cluster, and not a single server.
    pub is_cluster: bool,
    /// Its primaries.
    pub primaries: usize,
    /// Its replicas.
    pub replicas: usize,
}

/// Refuses operations that the target cannot do.
///
/// # Errors
/// A fault for each of them, at its own key.
pub fn check_cluster(checked: &Checked, shape: ClusterShape) -> Result<(), Faults> {
    let ClusterShape { is_cluster, mut primaries, mut replicas } = shape;
    let mut faults = Vec::new();
    for phase in checked.scenario.all_phases() {
        let Step::Operate(operation) = &phase.step else { continue };
        let word = operation.word();
        let mut refuse = |key: &str, message: String, label: &str, hint: &str| {
            let path = format!("phases.{}.{word}{key}", phase.name);
            faults.push(checked.source.fault(&path, message, label, hint));
        };
        if !is_cluster && !matches!(operation, Operation::Command(_)) {
            refuse(
                "",
                format!("phase `{}` changes a cluster, and the target is a single server", phase.name),
                "there is no cluster",
                "name any node of a cluster as target, or leave the phase out",
            );
            continue;
        }
        match operation {
            Operation::Failover(spec) => {
                let known = usize::try_from(spec.primary).is_ok_and(|n| n <= primaries);
                if !known {
                    refuse(
                        ".primary",
                        format!("primary {} is to hand over, and there are {primaries}", spec.primary),
                        "no such primary",
                        "they are counted from 1, in the order of their addresses",
                    );
                }
                if replicas == 0 {
                    refuse(
                        "",
                        format!("phase `{}` needs a replica, and the target has none", phase.name),
                        "nobody could take over",
                        "give the cluster replicas, or leave the phase out",
                    );
                }
            }
            Operation::MigrateSlots(spec) if !spec.shares.is_empty() && spec.shares.len() != primaries => {
                refuse(
                    ".shares",
                    format!(
                        "there are {} shares, and the target has {primaries} primaries",
                        spec.shares.len()
                    ),
                    "one for each primary",
                    "write as many shares as there are primaries, or `shares: even`",
                );
            }
            Operation::AddNode(spec) if spec.replica_of.is_some() => replicas += 1,
            Operation::AddNode(_) => primaries += 1,
            // Whether it is a primary or a replica shows when it goes.
            Operation::RemoveNode(_) => break,
            Operation::MigrateSlots(_) | Operation::Command(_) => {}
        }
    }
    join(faults).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use vst_common::scenario::check::parse;

    use super::*;

    fn cluster(primaries: usize, replicas: usize) -> ClusterShape {
        ClusterShape { is_cluster: primaries > 1, primaries, replicas }
    }

    fn scenario(phases: &str) -> Checked {
        let text = format!(
            "name: s\npurpose: p\nphases:\n  - {{name: send, kv: {{commands: [GET], load: {{closed: {{clients: 1, pipeline: 1}}}}, duration: 1s}}}}\n{phases}"
        );
        parse(&text, "s.yaml", &[]).unwrap()
    }

    fn said(faults: Result<(), Faults>) -> Vec<String> {
        faults.err().map(|faults| faults.iter().map(|f| f.message().to_owned()).collect()).unwrap_or_default()
    }

    #[test]
    fn a_program_runs_only_where_somebody_allowed_it() {
        let text =
            "  - {name: run, command: {run: [sh, -c, reboot]}}\nhooks: {on_phase_end: [{run: [sync]}]}\n";
        let checked = scenario(text);
        let said = said(check_programs(&checked, false));
        assert_eq!(
            said,
            [
                "the scenario runs a program on this machine: sync",
                "the scenario runs a program on this machine: sh -c reboot"
            ]
        );
        assert!(check_programs(&checked, true).is_ok());
        assert!(check_programs(&scenario(""), false).is_ok());
    }

    #[test]
    fn operations_that_the_cluster_cannot_do_are_refused_at_once() {
        let all = "  - {name: over, failover: {primary: 4}}\n  - {name: move, migrate_slots: {shares: [60%, 40%]}}\n";
        assert_eq!(said(check_cluster(&scenario(all), cluster(3, 0))).len(), 3);
        assert_eq!(said(check_cluster(&scenario(all), cluster(1, 0))).len(), 2);
        let fine =
            "  - {name: over, failover: {primary: 3}}\n  - {name: move, migrate_slots: {shares: even}}\n";
        assert!(check_cluster(&scenario(fine), cluster(3, 3)).is_ok());
        let joined =
            "  - {name: join, add_node: {address: \"h:4\", replica_of: 1}}\n  - {name: over, failover: {}}\n";
        assert!(
            check_cluster(&scenario(joined), cluster(3, 0)).is_ok(),
            "a replica that joins can take over"
        );
    }
}
