//! What the coordinator shows over HTTP: for probes, for Prometheus, for people.
//!
//! Reads the looks that `serve` takes of the run; the run does not know that it is looked at. Law: a look that is old
//! while the run should go on means that the run's loop does not turn, and the process is not healthy.

use tokio::sync::watch;
use vst_common::clock::{self, SECOND_NS};
use vst_common::count;
use vst_http::{Group, Health, Metrics, Site};
use vst_proto::fleet;

use crate::status::{Look, Role};

/// The run's loop is stuck when it has taken no look for this long, nanoseconds. Longer than it may wait for the log.
const STUCK_NS: u64 = 60 * SECOND_NS;

/// Over the coordinator's looks.
#[derive(Debug)]
pub(crate) struct CoordinatorSite(pub(crate) watch::Receiver<Look>);

impl CoordinatorSite {
    fn look(&self) -> Look {
        self.0.borrow().clone()
    }
}

impl Site for CoordinatorSite {
    fn health(&self) -> Health {
        let look = self.look();
        let age_ns = clock::mono_ns().saturating_sub(look.taken);
        if look.status.role == Role::Leading.word() && age_ns > STUCK_NS {
            return Err(format!("the run's loop has not turned for {} s", age_ns / SECOND_NS));
        }
        Ok(())
    }

    fn readiness(&self) -> Health {
        let fleet::Status { role, message, .. } = self.look().status;
        match role == Role::Leading.word() {
            true => Ok(()),
            false if message.is_empty() => Err(role),
            false => Err(format!("{role}: {message}")),
        }
    }

    fn metrics(&self, metrics: &mut Metrics) {
        let look = self.look();
        of_run(&look.status, metrics);
        of_requests(&look, metrics);
        for member in look.members.iter() {
            of_member(member, metrics);
        }
    }

    fn status(&self) -> serde_json::Value {
        serde_json::to_value(self.look().whole()).unwrap_or_default()
    }

    fn group(&self) -> Option<Group> {
        let status = self.look().status;
        // A coordinator that stands by would write over what the leader says.
        let leads = [Role::Leading, Role::Over].iter().any(|role| status.role == role.word());
        (leads && !status.run.is_empty())
            .then(|| Group { run: status.run, part: String::from("coordinator") })
    }

    fn page(&self) -> Option<&'static str> {
        Some(include_str!("site/page.html"))
    }
}

fn seconds(ns: u64) -> f64 {
    count::to_f64(ns) / 1e9
}

fn of_run(status: &fleet::Status, m: &mut Metrics) {
    let run = [("run", status.run.as_str()), ("role", status.role.as_str())];
    m.gauge("vst_run_info", "The run and what this coordinator is to it; always 1.", &run, 1.0);
    let phase = [("phase", status.phase_name.as_str()), ("step", status.step.as_str())];
    m.gauge("vst_phase_info", "The phase that runs; always 1.", &phase, 1.0);
    let index = f64::from(status.phase);
    m.gauge("vst_phase_index", "Position of the phase that runs, from 0.", &[], index);
    m.gauge("vst_phases", "Phases of the run.", &[], f64::from(status.phases));
    let elapsed = seconds(status.phase_elapsed_ns);
    m.gauge("vst_phase_elapsed_seconds", "Since the phase began.", &[], elapsed);
    let rows = count::to_f64(status.units_done);
    m.gauge("vst_phase_rows_done", "Rows of the phase that are done.", &[], rows);
    let rows = count::to_f64(status.units_total);
    m.gauge("vst_phase_rows", "Rows of the phase; 0 where rows are not its work.", &[], rows);
    m.gauge("vst_workers", "Workers that are here.", &[], f64::from(status.workers));
    let wanted = f64::from(status.workers_wanted);
    m.gauge("vst_workers_wanted", "Workers that the run waits for at its start.", &[], wanted);
    let help = "Requests that fall due per second, over all workers.";
    m.gauge("vst_offered_requests_per_second", help, &[], status.offered_per_second);
    let help = "Requests that end well per second, over all workers.";
    m.gauge("vst_achieved_requests_per_second", help, &[], status.achieved_per_second);
    let help = "Latency of the last interval over all workers: response time of an open loop, service time of a \
                closed one.";
    // Not `quantile`: that label belongs to summaries, which these figures of one interval are not.
    for (percentile, ns) in [("50", status.p50_ns), ("99", status.p99_ns)] {
        m.gauge("vst_latency_seconds", help, &[("percentile", percentile)], seconds(ns));
    }
    m.gauge("vst_recall_ratio", "Recall@k of the phase so far; 0 where it has none.", &[], status.recall);
    let memory = count::to_f64(status.used_memory_bytes);
    m.gauge("vst_target_used_memory_bytes", "used_memory, summed over the target's nodes.", &[], memory);
    let entries = count::to_f64(status.log_entries);
    m.counter("vst_run_log_entries_total", "Entries of the run log that are durable.", &[], entries);
    m.gauge("vst_leader_epoch", "Which leader of the run this is, from 1.", &[], count::to_f64(status.epoch));
}

/// Counted per phase over all workers, those included that have left.
fn of_requests(look: &Look, m: &mut Metrics) {
    let phase = look.status.phase_name.as_str();
    let sum = |of: fn(&fleet::Member) -> u64| {
        let of_phase = look.members.iter().filter(|member| member.phase == look.status.phase);
        count::to_f64(of_phase.map(of).fold(0, u64::saturating_add))
    };
    let labels = [("phase", phase)];
    let due = sum(|member| member.due);
    m.counter("vst_requests_due_total", "Requests that fell due or were taken up.", &labels, due);
    m.counter(
        "vst_requests_sent_total",
        "Requests of which a first try was written.",
        &labels,
        sum(|w| w.sent),
    );
    let help = "Requests that have ended, by outcome; censored are those timed out, lost or never sent.";
    for (outcome, ended) in
        [("ok", sum(|w| w.ok)), ("error", sum(|w| w.errors)), ("censored", sum(|w| w.censored))]
    {
        m.counter("vst_requests_total", help, &[("phase", phase), ("outcome", outcome)], ended);
    }
    let in_flight = sum(|member| member.in_flight);
    m.gauge("vst_requests_in_flight", "Requests that were sent and not answered.", &[], in_flight);
    let help = "Requests that are due and wait for the target to take them.";
    m.gauge("vst_requests_backlog", help, &[], sum(|member| member.backlog));
}

fn of_member(member: &fleet::Member, m: &mut Metrics) {
    let generation = member.generation.to_string();
    let own = [("worker", member.worker.as_str()), ("generation", generation.as_str())];
    let [worker, number] = own;
    let info = [
        worker,
        number,
        ("presence", member.presence.as_str()),
        ("host", member.host.as_str()),
        ("address", member.address.as_str()),
        ("version", member.version.as_str()),
    ];
    m.gauge("vst_worker_info", "A worker that registered; always 1.", &info, 1.0);
    m.gauge("vst_worker_cores", "CPU cores that it may use.", &own, f64::from(member.cores));
    let memory = count::to_f64(member.memory_bytes);
    m.gauge("vst_worker_memory_bytes", "Memory that it may use.", &own, memory);
    m.gauge("vst_worker_lanes", "Load lanes that it runs.", &own, f64::from(member.lanes));
    m.gauge("vst_worker_silent_seconds", "Since it was last heard of.", &own, seconds(member.silent_ns));
    let waiting = count::to_f64(member.unacknowledged);
    let help = "Batches of measurements that the run log does not hold yet, by its own word.";
    m.gauge("vst_worker_unacknowledged_batches", help, &own, waiting);
    let achieved = member.achieved_per_second;
    m.gauge("vst_worker_achieved_requests_per_second", "Its part of the achieved rate.", &own, achieved);
    let backlog = count::to_f64(member.backlog);
    m.gauge("vst_worker_backlog_requests", "Its part of the backlog.", &own, backlog);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn site(look: Look) -> CoordinatorSite {
        CoordinatorSite(watch::channel(look).1)
    }

    fn leading(taken: u64) -> Look {
        let member = |generation, phase, ok| fleet::Member {
            worker: format!("w{generation}"),
            generation,
            phase,
            ok,
            ..fleet::Member::default()
        };
        let mut look = Look::idle(Role::Leading, "", taken);
        look.status.phase = 2;
        look.status.phase_name = "query".into();
        look.status.p99_ns = 1_500_000;
        look.members = Arc::new(vec![member(1, 2, 30), member(2, 2, 12), member(3, 1, 1_000)]);
        look
    }

    #[test]
    fn requests_are_those_of_the_phase_and_times_are_seconds() {
        let site = site(leading(clock::mono_ns()));
        let mut metrics = Metrics::of_process();
        site.metrics(&mut metrics);
        let text = metrics.text().unwrap();
        assert!(text.contains("vst_requests_total{outcome=\"ok\",phase=\"query\"} 42\n"), "{text}");
        assert!(text.contains("vst_latency_seconds{percentile=\"99\"} 0.0015\n"), "{text}");
        assert_eq!(text.matches("vst_worker_info{").count(), 3);
        assert_eq!(site.status()["members"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn only_a_leader_is_ready_and_a_loop_that_stands_still_is_not_healthy() {
        let now = clock::mono_ns();
        let leader = site(leading(now));
        assert_eq!((leader.health(), leader.readiness()), (Ok(()), Ok(())));
        let stuck = site(leading(now.saturating_sub(STUCK_NS + SECOND_NS)));
        assert!(stuck.health().is_err());
        for role in [Role::Preparing, Role::Standby, Role::Over] {
            let idle = site(Look::idle(role, "why", 0));
            assert_eq!(idle.health(), Ok(()), "{role:?}: waiting is no illness");
            assert_eq!(idle.readiness(), Err(format!("{}: why", role.word())));
        }
    }
}
