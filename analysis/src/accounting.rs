//! Whether the server counted what the workers say they sent.
//!
//! Per phase, node and command, attempts of table `latency` against `calls` and `rejected_calls` of table
//! `commandstats`: `executed <= delta calls <= executed + unknown`, and the same for rejected attempts. Without
//! unknown attempts that is equality. Where anything else may have moved the server's counters the window is not
//! checkable and says why: so too where the server counted more than was sent and the keys on the target show that
//! another client was at work. One that leaves no such trace cannot be told from a miscount, and the text says that.
//! Law: a count that is off by one in either direction is found.

use serde::{Deserialize, Serialize};
use vst_common::count;

use crate::engine::rows::{Row, rows};
use crate::engine::{Engine, Error};
use crate::number;

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Check {
    /// The server counted what was sent.
    Holds {
        /// With equality: no attempt is unknown and both bounds apply.
        exact: bool,
    },
    /// It did not.
    Violated {
        /// Which bound, with the numbers.
        why: String,
    },
    /// The counters say nothing about this window.
    NotCheckable {
        /// Why.
        why: String,
    },
}

/// One node and command in one phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountingRow {
    /// Position of the phase in the run.
    pub phase_index: u64,
    /// Name of the phase.
    pub phase: String,
    /// The node.
    pub node: String,
    /// The command.
    pub command: String,
    /// Attempts answered by execution.
    pub executed: u64,
    /// Attempts refused before execution.
    pub rejected: u64,
    /// Attempts without a reply.
    pub unknown: u64,
    /// How much the server's `calls` grew.
    pub calls: Option<i64>,
    /// How much its `rejected_calls` grew.
    pub rejected_calls: Option<i64>,
    /// What follows.
    #[serde(flatten)]
    pub check: Check,
}

/// All checks, in order of phase, node and command. Commands that no worker ever sends are left out.
pub(crate) async fn rows_of(engine: &Engine) -> Result<Vec<AccountingRow>, Error> {
    Ok(rows(&engine.sql(QUERY).await?).map(account).collect())
}

fn account(row: Row<'_>) -> AccountingRow {
    let (executed, rejected, unknown) = (row.total("executed"), row.total("rejected"), row.total("unknown"));
    let (calls, rejected_calls) = (row.int("calls"), row.int("rejected_calls"));
    let check = match (calls, rejected_calls) {
        _ if row.total("checked_nodes") == 0 => {
            Check::NotCheckable { why: String::from("the server's counters were not read around this phase") }
        }
        _ if row.total("checkable") == 0 => Check::NotCheckable {
            why: row.text("why_not").unwrap_or("the coordinator gave no reason").to_owned(),
        },
        (Some(calls), Some(rejected_calls)) => {
            // The batches of a killed worker are gone with it: the server may have counted more than we know.
            let upper = row.total("lost_workers") == 0;
            let faults: Vec<String> =
                [("calls", executed, calls), ("rejected_calls", rejected, rejected_calls)]
                    .into_iter()
                    .filter_map(|(counter, ours, theirs)| fault(counter, ours, unknown, theirs, upper))
                    .collect();
            let is_more = calls >= count::to_i64(executed) && rejected_calls >= count::to_i64(rejected);
            let foreign = row.count("foreign_keys").filter(|n| *n > 0 && is_more);
            if faults.is_empty() {
                Check::Holds { exact: upper && unknown == 0 }
            } else if let Some(foreign) = foreign {
                let why = format!(
                    "another client used the target: it held {} keys more than vst wrote ({})",
                    number::grouped(foreign),
                    faults.join("; ")
                );
                Check::NotCheckable { why }
            } else if is_more {
                let why = format!(
                    "{}; another client of the target sent the rest, or vst miscounts: no trace tells which",
                    faults.join("; ")
                );
                Check::Violated { why }
            } else {
                Check::Violated { why: faults.join("; ") }
            }
        }
        _ => Check::NotCheckable { why: String::from("the node did not answer before or after the phase") },
    };
    AccountingRow {
        phase_index: row.total("phase_index"),
        phase: row.word("phase"),
        node: row.word("node"),
        command: row.word("command"),
        executed,
        rejected,
        unknown,
        calls,
        rejected_calls,
        check,
    }
}

fn fault(counter: &str, ours: u64, unknown: u64, theirs: i64, upper: bool) -> Option<String> {
    let least = count::to_i64(ours);
    let most = count::to_i64(ours.saturating_add(unknown));
    if theirs < least {
        Some(format!("{counter} grew by {theirs}, workers have {least} replies"))
    } else if upper && theirs > most {
        Some(format!("{counter} grew by {theirs}, workers sent at most {most}"))
    } else {
        None
    }
}

const QUERY: &str = "
    -- What runs beside a phase is counted with it: the server's counters are read around both.
    with sent as (
        select l.run, coalesce(p.beside, l.phase_index) as phase_index,
               max(case when p.beside is null then l.phase end) as phase, l.node, max(l.command) as command,
               lower(l.command) as counter, sum(l.attempts_executed) as executed, sum(l.attempts_rejected) as rejected,
               sum(l.attempts_unknown) as unknown
        from latency_rollup_all l left join phases p on l.run = p.run and l.phase_index = p.phase_index
        where l.node <> '*' group by l.run, coalesce(p.beside, l.phase_index), l.node, lower(l.command)
    ),
    counted as (
        select run, phase_index, max(phase) as phase, node, max(command) as command, lower(command) as counter,
               count(*) as checked_nodes,
               min(checkable) as checkable, max(why_not) as why_not,
               sum(calls_after - calls_before) as calls, sum(rejected_after - rejected_before) as rejected_calls
        from (
            -- Counted once more by a coordinator that took the lead before the phase's end was logged: the later counts.
            select *, row_number() over (
                partition by run, phase_index, node, lower(command) order by generation desc, sequence desc
            ) as newest
            from commandstats
        )
        where newest = 1 and lower(command) in (select distinct lower(command) from latency_rollup_all)
        group by run, phase_index, node, lower(command)
    ),
    lost as (
        select p.run, p.phase_index, count(*) as lost_workers
        from phases p join workers w on p.run = w.run
        where w.is_lost and (p.\"end\" is null or p.\"end\" >= w.left_at)
        group by p.run, p.phase_index
    ),
    ticks as (
        select run, phase_index, tick, sum(keys) as keys, count(distinct node) as nodes from (
            select run, phase_index, tick, node, max(keys) as keys, max(role) as role
            from memory where missing is null and keys is not null group by run, phase_index, tick, node
        ) where role <> 'replica' group by run, phase_index, tick
    ),
    whole as (
        select t.* from ticks t
             join (select run, max(nodes) as nodes from ticks group by run) w on t.run = w.run and t.nodes = w.nodes
    ),
    before as (
        select w.run, max(w.keys) as keys
        from whole w join phases p on w.run = p.run and w.phase_index = p.phase_index
        where p.step = 'baseline' group by w.run
    ),
    population as (
        select run, phase_index, live_after,
               coalesce(lag(live_after) over (partition by run order by phase_index), 0) as live_before
        from phases where beside is null
    ),
    -- One key more is the mark of ownership, which may be younger than the baseline.
    strangers as (
        select w.run, w.phase_index, max(w.keys - b.keys - greatest(p.live_before, p.live_after) - 1) as foreign_keys
        from whole w join before b on w.run = b.run
             join population p on w.run = p.run and w.phase_index = p.phase_index
        group by w.run, w.phase_index
    ),
    matched as (
        select coalesce(s.run, c.run) as run, coalesce(s.phase_index, c.phase_index) as phase_index,
               coalesce(s.phase, c.phase) as phase, coalesce(s.node, c.node) as node,
               coalesce(s.command, c.command) as command, s.executed, s.rejected, s.unknown, c.checked_nodes,
               c.checkable, c.why_not, c.calls, c.rejected_calls
        from sent s full outer join counted c
             on s.run = c.run and s.phase_index = c.phase_index and s.node = c.node
                and s.counter = c.counter
    )
    select m.*, l.lost_workers, f.foreign_keys
    from matched m left join lost l on m.run = l.run and m.phase_index = l.phase_index
         left join strangers f on m.run = f.run and m.phase_index = f.phase_index
    where coalesce(m.executed, 0) + coalesce(m.rejected, 0) + coalesce(m.unknown, 0) > 0
          or m.checked_nodes is not null
    order by m.phase_index, m.node, m.command";
