//! What a worker shows over HTTP: for probes and for Prometheus.
//!
//! Reads what `serve` says of the session twice a second. Law: a session that says nothing more means that the worker's
//! loop does not turn, and the process is not healthy.

use serde_json::json;
use tokio::sync::watch;
use vst_common::clock::{self, MonoNs, SECOND_NS};
use vst_common::count;
use vst_common::ids::WorkerId;
use vst_http::{Group, Health, Histogram, Metrics, Site};

use crate::session::{BUCKETS_NS, View};

/// The loop is stuck when it has said nothing for this long, nanoseconds.
const STUCK_NS: u64 = 15 * SECOND_NS;

/// What is shown: when it was said, and the session.
pub(crate) type Shown = watch::Receiver<(MonoNs, View)>;

/// Over a worker's session.
#[derive(Debug)]
pub(crate) struct WorkerSite {
    pub(crate) worker: WorkerId,
    pub(crate) shown: Shown,
}

fn seconds(ns: u64) -> f64 {
    count::to_f64(ns) / 1e9
}

impl Site for WorkerSite {
    fn health(&self) -> Health {
        let age_ns = clock::mono_ns().saturating_sub(self.shown.borrow().0);
        if age_ns > STUCK_NS {
            return Err(format!("the worker's loop has not turned for {} s", age_ns / SECOND_NS));
        }
        Ok(())
    }

    fn readiness(&self) -> Health {
        match self.shown.borrow().1.state {
            "registered" => Ok(()),
            state => Err(state.to_owned()),
        }
    }

    fn metrics(&self, m: &mut Metrics) {
        let view = self.shown.borrow().1.clone();
        let run = view.run.as_ref().map_or("", |run| run.as_str());
        let info = [("worker", self.worker.as_str()), ("run", run), ("state", view.state)];
        m.gauge("vst_session_info", "The worker and its session; always 1.", &info, 1.0);
        let left = count::to_f64(view.lease_left_ns) / 1e9;
        let help = "For how long load may be sent without another word from the coordinator.";
        m.gauge("vst_lease_left_seconds", help, &[], left);
        let waiting = count::to_f64(view.unacknowledged);
        let help = "Batches of measurements that the coordinator does not hold yet.";
        m.gauge("vst_unacknowledged_batches", help, &[], waiting);
        let Some(phase) = view.phase else { return };
        let labels = [("phase", phase.name.as_str())];
        let totals = phase.totals;
        let due = count::to_f64(totals.due);
        m.counter("vst_requests_due_total", "Requests that fell due or were taken up.", &labels, due);
        let sent = count::to_f64(totals.sent);
        m.counter("vst_requests_sent_total", "Requests of which a first try was written.", &labels, sent);
        let help = "Requests that have ended, by outcome.";
        let outcomes = [
            ("ok", totals.ok),
            ("error", totals.errors),
            ("timeout", totals.timeout),
            ("lost", totals.lost),
            ("unsent", totals.unsent),
        ];
        for (outcome, ended) in outcomes {
            let labels = [("phase", phase.name.as_str()), ("outcome", outcome)];
            m.counter("vst_requests_total", help, &labels, count::to_f64(ended));
        }
        let in_flight = count::to_f64(phase.in_flight);
        m.gauge("vst_requests_in_flight", "Requests that were sent and not answered.", &[], in_flight);
        let help = "Requests that are due and wait for the target to take them.";
        m.gauge("vst_requests_backlog", help, &[], count::to_f64(phase.backlog));
        let help = "How long requests took: from due to reply, in a closed loop from sent to reply.";
        let took = Histogram {
            at_most: BUCKETS_NS.iter().map(|ns| seconds(*ns)).zip(phase.took.at_most).collect(),
            count: phase.took.count,
            sum: seconds(phase.took.sum_ns),
        };
        m.histogram("vst_request_duration_seconds", help, &labels, &took);
    }

    fn group(&self) -> Option<Group> {
        let run = self.shown.borrow().1.run.as_ref()?.to_string();
        Some(Group { run, part: self.worker.to_string() })
    }

    fn status(&self) -> serde_json::Value {
        let view = self.shown.borrow().1.clone();
        json!({
            "worker": self.worker,
            "version": env!("CARGO_PKG_VERSION"),
            "state": view.state,
            "run": view.run,
            "lease_left_ns": view.lease_left_ns,
            "unacknowledged": view.unacknowledged,
            "phase": view.phase.map(|phase| json!({
                "index": phase.index,
                "name": phase.name,
                "due": phase.totals.due,
                "sent": phase.totals.sent,
                "ok": phase.totals.ok,
                "errors": phase.totals.errors,
                "timeout": phase.totals.timeout,
                "lost": phase.totals.lost,
                "unsent": phase.totals.unsent,
                "in_flight": phase.in_flight,
                "backlog": phase.backlog,
            })),
        })
    }
}
