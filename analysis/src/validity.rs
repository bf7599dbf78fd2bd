//! Whether the numbers may be believed.
//!
//! Judges what the other modules found and what the log says of workers and deliveries, and gives a verdict: reasons
//! why the measurement is *not valid* (the fleet's fault), ways in which the target was *saturated* (a finding, not a
//! fault), and findings that a reader must know. Law: a batch that is lost, twice there or unaccounted for, and a
//! worker that is lost, never leave a verdict of valid.

use serde::{Deserialize, Serialize};
use vst_common::count;
use vst_common::entry::RunState;
use vst_common::exit::Exit;

use crate::accounting::{AccountingRow, Check};
use crate::engine::rows::rows;
use crate::engine::{Engine, Error, Log};
use crate::latency::OperationSummary;
use crate::memory::Checkpoint;
use crate::number;
use crate::phase::PhaseSummary;

/// Largest 99th percentile of the workers' own delay in an open loop, nanoseconds.
pub const SLIP_P99_BOUND_NS: u64 = 5_000_000;
/// Largest share of its time in which a lane of a closed loop may be busy: above it, the lane is what limits the rate.
pub const BUSY_BOUND: f64 = 0.8;
/// Least share of the offered rate that a target that is not saturated achieves.
pub const ACHIEVED_BOUND: f64 = 0.95;
/// Largest share of an operation's requests that may be answered with an error: above it, rate and latency are those of
/// the rest, which is another load than the scenario's.
pub const ERROR_SHARE_BOUND: f64 = 0.01;
/// Most of the offered load that may wait at the end of the window, seconds of it.
pub const BACKLOG_BOUND_SECONDS: f64 = 0.1;

/// How the run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunEnd {
    /// All phases are over.
    Finished,
    /// Stopped by a person or a signal.
    Interrupted,
    /// It could not go on.
    Failed {
        /// Why.
        reason: String,
    },
    /// The log does not say: the coordinator was killed, or the run goes on.
    Open,
}

/// What a note is about; scripts may rely on the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The workers sent late by their own fault.
    Slip,
    /// Acknowledged sequences have gaps, or a worker says that it dropped rows before delivery.
    MissingBatches,
    /// A batch is in the log twice.
    RepeatedBatches,
    /// A worker never said what it had delivered.
    OpenStream,
    /// What a worker delivered does not add up to what it says.
    Totals,
    /// A worker was lost.
    LostWorker,
    /// A closed loop was limited by its lanes.
    BusyLanes,
    /// A checkpoint at which no tick has all nodes.
    UnsampledCheckpoint,
    /// The server counted something else than was sent.
    Accounting,
    /// The coordinator says so.
    Coordinator,
    /// The phase could not do what it was to do.
    FailedPhase,
    /// The target could not follow.
    Saturated,
    /// Requests were answered with errors; a reason for not being valid where they are more than a few.
    Errors,
    /// A phase of queries had none.
    NoRequests,
    /// Requests of the schedule that no worker's rows know of.
    Unowned,
    /// Requests were never answered.
    NoReply,
    /// Answers held what they should not, or too little.
    Answers,
    /// The target or its index does not hold what lives.
    IndexCount,
    /// Latencies outside the histogram's bounds.
    OutOfRange,
    /// The server's counters could not be checked.
    NotCheckable,
    /// Memory grows at equal population.
    Leak,
    /// Memory of removed rows did not come back.
    NotReturned,
    /// Fragmentation rose after rows were removed.
    Fragmentation,
    /// The rate fell over a phase.
    Decay,
    /// Recall fell after rows changed.
    RecallDrop,
    /// A node is slower than the others.
    Outlier,
    /// The fleet was near its own limit.
    ClientBound,
    /// A server's CPU or memory was at its limit.
    Bottleneck,
    /// Slots changed hands under the load: a failover or a migration.
    Topology,
    /// Connections were lost under the load.
    Connections,
    /// Rows that a failover had lost were written again, or could not be looked for.
    Repair,
    /// What the scenario asks for does not hold.
    Criterion,
}

/// One thing that a reader must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What it is about.
    pub rule: Rule,
    /// The phase; absent where it is about the run.
    pub phase: Option<String>,
    /// The sentence, with its numbers.
    pub text: String,
}

/// The verdict on a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it ended.
    #[serde(flatten)]
    pub end: RunEnd,
    /// What the coordinator meant to exit with; absent where it did not close the run.
    pub coordinator_exit_code: Option<u8>,
    /// Why the measurement is not valid; empty when it is.
    pub not_valid: Vec<Note>,
    /// How the target could not follow; empty when it could.
    pub saturated: Vec<Note>,
    /// Criteria of the scenario that do not hold.
    #[serde(default)]
    pub missed: Vec<Note>,
    /// What else a reader must know.
    pub findings: Vec<Note>,
}

impl Verdict {
    /// The exit code of a command that shows the run.
    ///
    /// An interrupted or open-ended run is a partial report, whatever else is wrong with it; then a lost worker, then
    /// what the coordinator ended with, then validity: never better than the coordinator's own word.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let code = self.coordinator_exit_code.unwrap_or(Exit::NotValid.code());
        match &self.end {
            RunEnd::Interrupted | RunEnd::Open => Exit::Interrupted,
            _ if self.not_valid.iter().any(|n| n.rule == Rule::LostWorker) => Exit::Fleet,
            RunEnd::Failed { .. } => failure(code),
            RunEnd::Finished if code != Exit::Valid.code() => failure(code),
            RunEnd::Finished if !self.not_valid.is_empty() => Exit::NotValid,
            RunEnd::Finished if !self.missed.is_empty() => Exit::Criterion,
            RunEnd::Finished => Exit::Valid,
        }
    }
}

/// The coordinator's code for a run that went wrong; one that it cannot have becomes "not valid".
fn failure(code: u8) -> Exit {
    [Exit::Bug, Exit::Usage, Exit::Scenario, Exit::Target, Exit::Fleet, Exit::Criterion]
        .into_iter()
        .find(|exit| exit.code() == code)
        .unwrap_or(Exit::NotValid)
}

/// Collects notes while the parts are judged.
#[derive(Debug, Default)]
struct Judge {
    not_valid: Vec<Note>,
    saturated: Vec<Note>,
    findings: Vec<Note>,
}

fn note(rule: Rule, phase: Option<&str>, text: String) -> Note {
    Note { rule, phase: phase.map(str::to_owned), text }
}

/// Judges a run.
pub(crate) async fn verdict(
    engine: &Engine,
    log: &Log,
    phases: &[PhaseSummary],
    checkpoints: &[Checkpoint],
    accounting: &[AccountingRow],
) -> Result<Verdict, Error> {
    let mut judge = Judge::default();
    judge.workers(log);
    judge.deliveries(engine).await?;
    for phase in phases {
        judge.phase(phase);
    }
    for checkpoint in checkpoints {
        judge.checkpoint(checkpoint);
    }
    judge.accounting(accounting);
    let end = match &log.closed {
        None => RunEnd::Open,
        Some(closed) => match &closed.state {
            RunState::Finished => RunEnd::Finished,
            RunState::Interrupted => RunEnd::Interrupted,
            RunState::Failed { reason } => RunEnd::Failed { reason: reason.clone() },
        },
    };
    let coordinator_exit_code = log.closed.as_ref().map(|closed| closed.exit_code);
    judge.coordinator(engine, &end, coordinator_exit_code).await?;
    Ok(Verdict {
        end,
        coordinator_exit_code,
        not_valid: judge.not_valid,
        saturated: judge.saturated,
        missed: Vec::new(),
        findings: judge.findings,
    })
}

impl Judge {
    /// A run that ended in order and yet not well, by the coordinator's word.
    async fn coordinator(&mut self, engine: &Engine, end: &RunEnd, code: Option<u8>) -> Result<(), Error> {
        if *end != RunEnd::Finished || code == Some(Exit::Valid.code()) || !self.not_valid.is_empty() {
            return Ok(());
        }
        let sql = "select detail from events where kind = 'run_ending' order by \"at\"";
        let batches = engine.sql(sql).await?;
        let text = match rows(&batches).next().and_then(|row| row.text("detail")) {
            Some(detail) => detail.to_owned(),
            None => {
                format!("the coordinator ended with exit code {}; see table events", code.unwrap_or_default())
            }
        };
        self.not_valid.push(note(Rule::Coordinator, None, text));
        Ok(())
    }

    fn workers(&mut self, log: &Log) {
        for worker in &log.workers {
            if let Some(reason) = &worker.lost {
                let text = format!("worker {} was lost: {reason}", worker.worker);
                self.not_valid.push(note(Rule::LostWorker, None, text));
            }
        }
    }

    async fn deliveries(&mut self, engine: &Engine) -> Result<(), Error> {
        for row in rows(&engine.sql(GAPS).await?) {
            let (known, last, twice) = (row.total("known"), row.total("last"), row.total("twice"));
            let worker = row.word("worker");
            let missing = last.saturating_sub(known);
            if missing > 0 {
                let text =
                    format!("{missing} of {last} batches of worker {worker} are not in the run directory");
                self.not_valid.push(note(Rule::MissingBatches, None, text));
            }
            if twice > 0 {
                let text =
                    format!("{twice} batches of worker {worker} are in the run directory more than once");
                self.not_valid.push(note(Rule::RepeatedBatches, None, text));
            }
        }
        for row in rows(&engine.sql(UNDELIVERED).await?) {
            let text = format!(
                "worker {} says {} times that measurements were dropped before delivery, first: {}",
                row.word("worker"),
                row.total("times"),
                row.word("detail")
            );
            self.not_valid.push(note(Rule::MissingBatches, None, text));
        }
        for row in rows(&engine.sql(OPEN_STREAMS).await?) {
            let text =
                format!("worker {} never stated what it had delivered: it may be more", row.word("worker"));
            self.not_valid.push(note(Rule::OpenStream, row.text("phase"), text));
        }
        for row in rows(&engine.sql(TOTALS).await?) {
            let text = format!(
                "worker {} states {} requests ok and {} ended otherwise, its batches hold {} and {}",
                row.word("worker"),
                row.total("said_ok"),
                row.total("said_other"),
                row.total("ok"),
                row.total("other"),
            );
            self.not_valid.push(note(Rule::Totals, row.text("phase"), text));
        }
        Ok(())
    }

    fn phase(&mut self, phase: &PhaseSummary) {
        let name = Some(phase.name.as_str());
        let is_open = phase.load.as_deref() == Some("open");
        if let Some(reason) = &phase.failure {
            self.not_valid.push(note(Rule::FailedPhase, name, reason.clone()));
        }
        if let Some(generator) = &phase.generator {
            if let Some(slip) = generator.slip_p99_ns.filter(|ns| is_open && *ns > SLIP_P99_BOUND_NS) {
                let text = format!(
                    "the workers sent late by their own fault: slip p99 {}, bound {}; give the fleet more CPU or lanes",
                    number::duration(slip),
                    number::duration(SLIP_P99_BOUND_NS)
                );
                self.not_valid.push(note(Rule::Slip, name, text));
            }
            let is_closed = phase.load.as_deref() == Some("closed");
            if let Some(busy) = generator.lane_busy_share.filter(|share| is_closed && *share > BUSY_BOUND) {
                let text = format!(
                    "a lane was busy {} of its time, bound {}: the fleet limits this closed loop; add lanes or workers",
                    number::percent(busy),
                    number::percent(BUSY_BOUND)
                );
                self.not_valid.push(note(Rule::BusyLanes, name, text));
            }
        }
        if phase.outcome == "completed" {
            self.offered(phase);
        }
        for operation in &phase.operations {
            self.operation(phase, operation);
        }
        if let Some(recall) = &phase.recall {
            let found = [
                (recall.ghosts, "returned rows were dead (ghosts)"),
                (
                    recall.contamination,
                    "returned rows were not of the query's own copy, or not of those it asked for (contamination)",
                ),
                (recall.duplicates, "returned rows were repeated in their answer (duplicates)"),
                (recall.partial, "answers held fewer than k rows though k were alive (partial)"),
                (recall.masked, "answers could not be judged: the known neighbours are dead (masked)"),
            ];
            for (n, what) in found.into_iter().filter(|(n, _)| *n > 0) {
                let text = format!(
                    "{} {what}, {} answers in all",
                    number::grouped(n),
                    number::grouped(recall.answers)
                );
                self.findings.push(note(Rule::Answers, name, text));
            }
        }
    }

    /// Whether the fleet offered what the schedule says.
    fn offered(&mut self, phase: &PhaseSummary) {
        let name = Some(phase.name.as_str());
        let due: u64 = phase.operations.iter().map(|o| o.due).sum();
        // An ingest that found every row there has nothing to send.
        let must_send = phase.load.as_deref() == Some("open") && phase.step != "ingest";
        if due == 0 && (phase.step == "query" || must_send) {
            let text = String::from(
                "no request fell due in the measured window: nothing was measured; give it a higher rate or more time",
            );
            self.not_valid.push(note(Rule::NoRequests, name, text));
        }
        if phase.unowned > 0 {
            let text = format!(
                "{} of {} requests of the schedule are in no worker's rows: nobody owned them, or a lost worker took \
                 its rows with it",
                number::grouped(phase.unowned),
                number::grouped(phase.scheduled.unwrap_or(0))
            );
            self.not_valid.push(note(Rule::Unowned, name, text));
        }
    }

    fn operation(&mut self, phase: &PhaseSummary, operation: &OperationSummary) {
        let name = Some(phase.name.as_str());
        let what = &operation.operation;
        let errors = operation.answered_errors();
        // What the fleet offered; a target that answers with errors follows, if badly.
        let seconds = count::to_f64(operation.length_ns) / 1e9;
        let due = count::to_f64(operation.due);
        if let (Some(_), Some(achieved)) = (operation.offered_per_second, operation.achieved_per_second)
            && achieved * seconds + count::to_f64(errors) < ACHIEVED_BOUND * due
        {
            let offered = due / seconds;
            let text =
                format!("{what}: {} achieved of {} offered", number::rate(achieved), number::rate(offered));
            self.saturated.push(note(Rule::Saturated, name, text));
        }
        if operation.unsent > 0 {
            let unsent = number::grouped(operation.unsent);
            let text = format!(
                "{what}: {unsent} of {} due requests were never sent",
                number::grouped(operation.due)
            );
            self.saturated.push(note(Rule::Saturated, name, text));
        }
        let waiting = phase.generator.as_ref().map_or(0, |g| g.backlog_at_end);
        if let Some(offered) = operation.offered_per_second
            && count::to_f64(waiting) > offered * BACKLOG_BOUND_SECONDS
        {
            let text = format!("{what}: {} requests waited for a slot at the end", number::grouped(waiting));
            self.saturated.push(note(Rule::Saturated, name, text));
        }
        if errors > 0 {
            let kinds: Vec<String> =
                operation.errors.iter().map(|(kind, n)| format!("{kind} {}", number::grouped(*n))).collect();
            let share = count::to_f64(errors) / count::to_f64(operation.ended().max(1));
            let too_many = share > ERROR_SHARE_BOUND;
            let bound = if too_many {
                format!(", bound {}", number::percent(ERROR_SHARE_BOUND))
            } else {
                String::new()
            };
            let first =
                phase.first_error.as_ref().map_or_else(String::new, |text| format!("; first: {text}"));
            let text = format!(
                "{what}: {} requests, {} of all, answered with an error ({}){bound}{first}",
                number::grouped(errors),
                number::percent(share),
                kinds.join(", ")
            );
            let notes = if too_many { &mut self.not_valid } else { &mut self.findings };
            notes.push(note(Rule::Errors, name, text));
        }
        if operation.timeout + operation.lost > 0 {
            let text = format!(
                "{what}: {} requests timed out, {} lost their connection; latency quantiles count them as at least \
                 their age",
                number::grouped(operation.timeout),
                number::grouped(operation.lost)
            );
            self.findings.push(note(Rule::NoReply, name, text));
        }
        if operation.out_of_range > 0 {
            let n = number::grouped(operation.out_of_range);
            let text = format!("{what}: {n} latencies lie outside 16 ns to 1 h");
            self.findings.push(note(Rule::OutOfRange, name, text));
        }
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        let name = Some(checkpoint.phase.as_str());
        let Some(figures) = &checkpoint.figures else {
            let text = match checkpoint.ticks {
                0 => String::from("memory was not sampled"),
                ticks => format!("memory was sampled {ticks} times, never of all nodes at once"),
            };
            self.not_valid.push(note(Rule::UnsampledCheckpoint, name, text));
            return;
        };
        if checkpoint.indexed && figures.index_docs.is_none() {
            let text = format!(
                "{} of {} primaries did not say what their index holds: it may be gone, and bytes per vector without it",
                number::grouped(figures.primaries.saturating_sub(figures.index_nodes)),
                number::grouped(figures.primaries)
            );
            self.not_valid.push(note(Rule::IndexCount, name, text));
        }
        if let (Some(docs), Some(live)) = (figures.index_docs, checkpoint.live)
            && docs != live
        {
            let text = format!(
                "the index holds {} vectors, {} rows live",
                number::grouped(docs),
                number::grouped(live)
            );
            self.not_valid.push(note(Rule::IndexCount, name, text));
        }
        // Others may have keys on the target too, so more than the live rows proves nothing; fewer means that rows
        // are gone (evicted, expired, deleted by somebody), and what is left was divided by too many.
        if let (Some(keys), Some(live)) = (figures.keys, checkpoint.live)
            && keys < live
        {
            let text = format!(
                "the target holds {} keys, {} rows live",
                number::grouped(keys),
                number::grouped(live)
            );
            self.not_valid.push(note(Rule::IndexCount, name, text));
        }
    }

    fn accounting(&mut self, accounting: &[AccountingRow]) {
        for row in accounting {
            if let Check::Violated { why } = &row.check {
                let text = format!("{} on node {}: {why}", row.command, number::short_node(&row.node));
                self.not_valid.push(note(Rule::Accounting, Some(&row.phase), text));
            }
        }
        let mut reasons: Vec<(&str, &str)> = accounting
            .iter()
            .filter_map(|row| match &row.check {
                Check::NotCheckable { why } => Some((row.phase.as_str(), why.as_str())),
                _ => None,
            })
            .collect();
        reasons.dedup();
        for (phase, why) in reasons {
            let text = format!("the server's counters cannot be checked: {why}");
            self.findings.push(note(Rule::NotCheckable, Some(phase), text));
        }
    }
}

// Sequences run from 1 without gaps over all tables, so the last one says how many there are: the last that came, or
// the last that was stated if nothing so late came. Only of workers: the coordinator's own batches need no delivery.
const GAPS: &str = "
    with came as (
        select run, worker, generation, count(distinct sequence) as known, max(sequence) as last,
               count(*) - count(distinct sequence) as twice
        from deliveries group by run, worker, generation
    ),
    stated as (
        select run, worker, generation, max(last_sequence) as last from streams group by run, worker, generation
    )
    select w.worker, w.generation, coalesce(c.known, 0) as known, coalesce(c.twice, 0) as twice,
           case when coalesce(c.last, 0) > coalesce(s.last, 0) then coalesce(c.last, 0)
                else coalesce(s.last, 0) end as last
    from workers w
         left join came c on w.run = c.run and w.worker = c.worker and w.generation = c.generation
         left join stated s on w.run = s.run and w.worker = s.worker and w.generation = s.generation
    order by w.worker, w.generation";

// A batch that was dropped for want of memory keeps its sequence and comes empty, so no gap tells of it: only the
// worker's own word does. What the coordinator calls undelivered is a gap.
const UNDELIVERED: &str = "
    select worker, sum(\"count\") as times, first_value(detail order by \"at\") as detail
    from events where kind = 'undelivered' and worker in (select worker from workers)
    group by worker order by worker";

// Of phases that ended: a phase that still ran makes the whole report partial.
const OPEN_STREAMS: &str = "
    with took_part as (
        select run, worker, generation, phase_index from latency_all
        union select run, worker, generation, phase_index from health
    )
    select distinct t.worker, t.generation, p.phase_index, p.phase
    from took_part t
         join phases p on t.run = p.run and t.phase_index = p.phase_index
         left join streams s on t.run = s.run and t.worker = s.worker and t.generation = s.generation
              and t.phase_index = s.phase_index
    where p.load is not null and p.\"end\" is not null and s.worker is null
    order by p.phase_index, t.worker, t.generation";

const TOTALS: &str = "
    with held as (
        select run, worker, generation, phase_index, sum(ok) as ok,
               sum(err_oom + err_readonly + err_auth + err_wrong_type + err_loading + err_cluster_down
                   + err_redirect + err_other) as errors,
               sum(timeout) as timeout, sum(lost) as lost, sum(unsent) as unsent
        from latency_all where operation <> 'knn_part' group by run, worker, generation, phase_index
    )
    select s.worker, p.phase, s.ok as said_ok, s.errors + s.timeout + s.lost + s.unsent as said_other,
           coalesce(h.ok, 0) as ok,
           coalesce(h.errors, 0) + coalesce(h.timeout, 0) + coalesce(h.lost, 0) + coalesce(h.unsent, 0) as other
    from streams s
         join phases p on s.run = p.run and s.phase_index = p.phase_index
         left join held h on s.run = h.run and s.worker = h.worker and s.generation = h.generation
              and s.phase_index = h.phase_index
    where s.ok <> coalesce(h.ok, 0) or s.errors <> coalesce(h.errors, 0) or s.timeout <> coalesce(h.timeout, 0)
          or s.lost <> coalesce(h.lost, 0) or s.unsent <> coalesce(h.unsent, 0)
    order by p.phase_index, s.worker, s.generation";
