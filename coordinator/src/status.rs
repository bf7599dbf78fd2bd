//! What the run is doing now, as a person sees it: the run's own view and the sums of what workers say of themselves.
//!
//! Fed by `session` with each worker's progress and by `serve` with memory; read by `Watch` and over HTTP. For the eye
//! only: results come from the delivered batches. Law: the figures of a phase are those of the workers that speak of
//! this phase, and nothing that is shown holds a secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use vst_common::clock::MonoNs;
use vst_common::count;
use vst_common::ids::Generation;
use vst_common::latency::Hdr;
use vst_proto::fleet;

use crate::histogram::{self, Sum};
use crate::roster::{Member, Presence, Roster};
use crate::run::View;

const SECOND: f64 = 1e9;
/// Counts that stand still for this long mean a rate of zero, not that the next hand-over is still to come.
const QUIET_NS: u64 = 2_500_000_000;

/// What a coordinator is to its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It looks at data and target; there is no run yet.
    Preparing,
    /// Another coordinator leads; it would go on.
    Standby,
    /// It leads.
    Leading,
    /// The run is over.
    Over,
}

impl Role {
    /// As it is shown.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Standby => "standby",
            Self::Leading => "leading",
            Self::Over => "over",
        }
    }
}

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// When it was taken.
    pub taken: MonoNs,
    /// The run; without its members.
    pub status: fleet::Status,
    /// Everybody who ever registered.
    pub members: Arc<Vec<fleet::Member>>,
}

impl Look {
    /// A coordinator that does not lead.
    #[must_use]
    pub fn idle(role: Role, message: impl Into<String>, now: MonoNs) -> Self {
        let status = fleet::Status {
            role: role.word().to_owned(),
            message: message.into(),
            version: String::from(env!("CARGO_PKG_VERSION")),
            ..fleet::Status::default()
        };
        Self { taken: now, status, members: Arc::default() }
    }

    /// The run with its members.
    #[must_use]
    pub fn whole(&self) -> fleet::Status {
        fleet::Status { members: self.members.as_ref().clone(), ..self.status.clone() }
    }
}

/// The latest of each worker.
#[derive(Debug, Default)]
pub struct Board {
    workers: BTreeMap<Generation, Latest>,
    unacknowledged: BTreeMap<Generation, u64>,
    used_memory_bytes: u64,
}

#[derive(Debug)]
struct Latest {
    at: MonoNs,
    said: fleet::Progress,
    /// Requests per second since the message before; zeros after the first of a phase.
    offered: f64,
    achieved: f64,
}

impl Board {
    /// Takes in what a worker says.
    pub fn progress(&mut self, worker: Generation, mut said: fleet::Progress, now: MonoNs) {
        if histogram::check(&said.latency_hdr).is_err() {
            said.latency_hdr.clear();
        }
        let before = self.workers.get(&worker).filter(|latest| latest.said.phase == said.phase);
        // Lanes hand over once an interval, workers speak more often: a rate is taken between two hand-overs.
        if let Some(before) = before.as_ref()
            && (said.due, said.ok) == (before.said.due, before.said.ok)
            && now.saturating_sub(before.at) < QUIET_NS
        {
            let (at, offered, achieved) = (before.at, before.offered, before.achieved);
            self.workers.insert(worker, Latest { at, said, offered, achieved });
            return;
        }
        let (offered, achieved) = before.map_or((0.0, 0.0), |before| {
            let seconds = count::to_f64(now.saturating_sub(before.at)) / SECOND;
            if seconds <= 0.0 {
                return (before.offered, before.achieved);
            }
            let rate = |new: u64, old: u64| count::to_f64(new.saturating_sub(old)) / seconds;
            (rate(said.due, before.said.due), rate(said.ok, before.said.ok))
        });
        self.workers.insert(worker, Latest { at: now, said, offered, achieved });
    }

    /// Batches that a worker has and the run log does not hold yet.
    pub fn unacknowledged(&mut self, worker: Generation, batches: u64) {
        self.unacknowledged.insert(worker, batches);
    }

    /// A worker has left: it offers nothing more, what it did stays counted.
    pub fn left(&mut self, worker: Generation) {
        if let Some(latest) = self.workers.get_mut(&worker) {
            (latest.offered, latest.achieved) = (0.0, 0.0);
            latest.said.latency_hdr.clear();
        }
    }

    /// Memory of the target, summed over its nodes.
    pub fn used_memory(&mut self, bytes: u64) {
        self.used_memory_bytes = bytes;
    }

    /// The whole picture.
    #[must_use]
    pub fn look(&self, view: &View, roster: &Roster, now: MonoNs) -> Look {
        // Encoded ones are added up as they are: of a thousand workers each look would decode a thousand.
        let mut latency = Sum::default();
        let mut p99_ns = BTreeMap::new();
        for (worker, latest) in &self.workers {
            let encoded = &latest.said.latency_hdr;
            // A histogram that cannot be read is the eye's loss only, and was taken out when it came.
            let Ok(Some(p99)) = histogram::quantile(encoded, 0.99) else { continue };
            p99_ns.insert(*worker, p99);
            if latest.said.phase == view.phase {
                let _ = latency.add(encoded);
            }
        }
        let latency = latency.take().unwrap_or_default();
        let members = roster.all().map(|(generation, member)| {
            self.member(generation, member, p99_ns.get(&generation).copied().unwrap_or(0), now)
        });
        let members = Arc::new(members.collect());
        Look { taken: now, status: self.status(view, &latency), members }
    }

    fn status(&self, view: &View, latency: &Hdr) -> fleet::Status {
        let now = || self.workers.values().filter(|latest| latest.said.phase == view.phase);
        let sum = |of: fn(&fleet::Progress) -> u64| {
            now().map(|latest| of(&latest.said)).fold(0, u64::saturating_add)
        };
        let possible = sum(|p| p.possible_hits);
        let recall =
            if possible == 0 { 0.0 } else { count::to_f64(sum(|p| p.hits)) / count::to_f64(possible) };
        let role = if view.ended.is_some() { Role::Over } else { Role::Leading };
        fleet::Status {
            phase: view.phase,
            phase_name: view.phase_name.clone(),
            step: view.step.clone(),
            phases: view.phases,
            workers: view.workers,
            workers_wanted: view.workers_wanted,
            phase_elapsed_ns: view.phase_elapsed_ns,
            phase_length_ns: view.phase_length_ns,
            units_done: view.units_done,
            units_total: view.units_total,
            offered_per_second: now().map(|latest| latest.offered).sum(),
            achieved_per_second: now().map(|latest| latest.achieved).sum(),
            p50_ns: latency.quantile(0.5).unwrap_or(0),
            p99_ns: latency.quantile(0.99).unwrap_or(0),
            errors: sum(|p| p.errors.saturating_add(p.censored)),
            recall,
            used_memory_bytes: self.used_memory_bytes,
            ended: view.ended.is_some(),
            exit_code: view.ended.as_ref().map_or(0, |verdict| u32::from(verdict.exit.code())),
            message: view.message.clone(),
            ..Look::idle(role, "", 0).status
        }
    }

    fn member(&self, generation: Generation, member: &Member, p99_ns: u64, now: MonoNs) -> fleet::Member {
        let presence = match member.presence {
            Presence::Here => "here",
            Presence::Leaving => "leaving",
            Presence::Left => "left",
            Presence::Lost => "lost",
        };
        let latest = self.workers.get(&generation);
        let none = fleet::Progress::default();
        let said = latest.map_or(&none, |latest| &latest.said);
        let arrival = &member.arrival;
        fleet::Member {
            worker: arrival.worker.to_string(),
            generation: generation.0,
            presence: presence.to_owned(),
            host: arrival.host.clone(),
            address: arrival.address.clone(),
            http: arrival.http.clone(),
            version: arrival.version.clone(),
            cores: arrival.cores,
            memory_bytes: arrival.memory_bytes,
            lanes: arrival.lanes,
            silent_ns: now.saturating_sub(member.heard),
            phase: said.phase,
            due: said.due,
            sent: said.sent,
            ok: said.ok,
            errors: said.errors,
            censored: said.censored,
            in_flight: said.in_flight,
            backlog: said.backlog,
            offered_per_second: latest.map_or(0.0, |latest| latest.offered),
            achieved_per_second: latest.map_or(0.0, |latest| latest.achieved),
            p99_ns,
            unacknowledged: self.unacknowledged.get(&generation).copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Roster {
        let terms = crate::roster::Terms { version: String::new(), token: None, lease_ns: 1, margin_ns: 1 };
        Roster::new(terms)
    }

    fn shown(board: &Board) -> fleet::Status {
        board.look(&view(2), &nobody(), 0).status
    }

    fn view(phase: u32) -> View {
        View {
            phase,
            phase_name: "p".into(),
            step: "query".into(),
            phases: 3,
            workers: 2,
            workers_wanted: 2,
            phase_elapsed_ns: 0,
            phase_length_ns: 0,
            units_done: 0,
            units_total: 0,
            message: String::new(),
            ended: None,
        }
    }

    fn progress(phase: u32, due: u64, ok: u64, latency_ns: u64) -> fleet::Progress {
        let mut hdr = Hdr::new();
        hdr.record(latency_ns);
        let latency_hdr = hdr.encode().unwrap();
        fleet::Progress {
            phase,
            due,
            ok,
            errors: 1,
            hits: 9,
            possible_hits: 10,
            latency_hdr,
            ..Default::default()
        }
    }

    #[test]
    fn a_message_without_news_changes_no_rate_until_the_quiet_is_real() {
        let mut board = Board::default();
        let a = Generation(1);
        let said = |due| progress(2, due, due, 1_000);
        board.progress(a, said(0), 0);
        for (ms, due) in [(500, 0), (1_000, 200), (1_500, 200), (2_000, 400), (2_500, 400)] {
            board.progress(a, said(due), ms * 1_000_000);
        }
        assert_eq!(shown(&board).offered_per_second, 200.0);
        board.progress(a, said(400), 5_000_000_000);
        assert_eq!(shown(&board).offered_per_second, 0.0);
    }

    #[test]
    fn rates_and_counts_are_sums_over_the_workers_of_the_phase() {
        let mut board = Board::default();
        let (a, b, other) = (Generation(1), Generation(2), Generation(3));
        board.progress(other, progress(1, 1_000, 1_000, 1), 0);
        for (worker, share) in [(a, 1), (b, 3)] {
            board.progress(worker, progress(2, 0, 0, 1_000), 0);
            board.progress(worker, progress(2, 100 * share, 50 * share, 1_000 * share), 500_000_000);
        }
        let status = shown(&board);
        assert_eq!((status.offered_per_second, status.achieved_per_second), (800.0, 400.0));
        assert_eq!((status.errors, status.recall), (2, 0.9));
        assert!((2_990..3_010).contains(&status.p99_ns) && (990..1_010).contains(&status.p50_ns));
        board.left(b);
        let status = shown(&board);
        assert_eq!((status.offered_per_second, status.errors), (200.0, 2));
    }
}
