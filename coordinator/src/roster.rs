//! Who is in the fleet: registration, liveness, and the deal of lanes and nodes.
//!
//! Fed by the run with what arrives on worker streams; each stream is one [`Generation`]. Law: a name is registered at
//! most once at a time, a member counts as lost when nothing was heard of it for lease and margin, and what is lost
//! never comes back under the same generation; until then a worker whose stream ended may resume its registration. Silence counts only while somebody listens: a coordinator that was
//! paused has heard nobody, and that says nothing about them. The deals give each share of load and each node to
//! exactly one member.

use std::collections::BTreeMap;

use vst_common::batch::latency::ALL_WORKERS;
use vst_common::clock::{MonoNs, SECOND_NS};
use vst_common::entry::Totals;
use vst_common::ids::{Generation, PhaseIndex, WorkerId};
use vst_common::ranges::RowRange;

use crate::secret::same_secret;

/// Names in the tables of whoever is no worker: all of them merged, and the coordinator.
const RESERVED: [&str; 2] = [ALL_WORKERS, COORDINATOR];
/// How the coordinator names itself in the tables.
pub(crate) const COORDINATOR: &str = "coordinator";
/// Between two looks at the members more than this does not count as listening, nanoseconds.
const LISTENING_STEP_NS: u64 = SECOND_NS / 2;

/// What a worker says of itself when it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its name, unique among the living.
    pub worker: WorkerId,
    /// Its version of vst.
    pub version: String,
    /// Shared secret, empty for none.
    pub token: String,
    /// Host it runs on.
    pub host: String,
    /// CPU cores it may use.
    pub cores: u32,
    /// Memory of its machine, bytes.
    pub memory_bytes: u64,
    /// Load lanes it runs.
    pub lanes: u32,
    /// From where it calls; empty where that is not known.
    pub address: String,
    /// Where its own HTTP port listens; empty where it has none.
    pub http: String,
    /// Drawn when the process started.
    pub instance: u64,
    /// What it has of a registration whose stream ended.
    pub before: Option<Before>,
}

/// What a worker still has when it comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// The registration.
    pub generation: Generation,
    /// The phases that it has, and how far it is with each.
    pub phases: Vec<(PhaseIndex, Stage)>,
    /// Leased ranges that it has not handed back.
    pub held: Vec<RowRange>,
    /// Its last statements about phases.
    pub ended: Vec<Statement>,
}

/// How far a worker is with a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is getting ready.
    Preparing,
    /// It waits for the start.
    Armed,
    /// The schedule has begun.
    Running,
}

/// A worker's last word about a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The phase.
    pub phase: PhaseIndex,
    /// Last sequence that it delivers for the phase, over all tables; 0 if it delivered nothing so far.
    pub last_sequence: u64,
    /// What became of its requests.
    pub totals: Totals,
    /// Batches of measurements that it had to give up since its last statement.
    pub dropped: u64,
}

/// Why a worker is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another version, which may mean another protocol or other content for the same seed.
    #[error(
        "worker {worker} is vst {theirs}, the coordinator is vst {own}: start the worker from version {own}"
    )]
    Version {
        /// Who.
        worker: WorkerId,
        /// The coordinator's version.
        own: String,
        /// The worker's version.
        theirs: String,
    },
    /// No token or another one. The tokens are not shown.
    #[error("worker {worker} does not have this fleet's token: set VST_TOKEN to the coordinator's value")]
    Token {
        /// Who.
        worker: WorkerId,
    },
    /// The name is taken by a living worker.
    #[error("a worker named {worker} is already here: give each worker its own name")]
    Taken {
        /// Who.
        worker: WorkerId,
    },
    /// A name that the tables use for something else.
    #[error(
        "no worker may be called `{worker}`: rows of the tables carry this name for others; give it another"
    )]
    Reserved {
        /// Who.
        worker: WorkerId,
    },
    /// No name or no lane.
    #[error("worker `{worker}` came with {lanes} lanes: it needs a name and at least one lane")]
    Empty {
        /// Who.
        worker: WorkerId,
        /// How many lanes.
        lanes: u32,
    },
}

/// Whether a member can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Registered and heard of lately.
    Here,
    /// Said goodbye: takes up no work, delivers what it has.
    Leaving,
    /// Its stream ended or its heartbeats stopped before the run was over.
    Lost,
    /// Left after it was told to, or after its goodbye.
    Left,
}

/// A registered worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it said of itself; the token is removed.
    pub arrival: Arrival,
    /// When it was last heard of.
    pub heard: MonoNs,
    /// The same on the clock that runs only while the coordinator listens.
    listened: u64,
    /// Whether it is there.
    pub presence: Presence,
    /// Whether it has no stream at the moment; it may come back until it counts as lost.
    pub away: bool,
    /// A registration before this one, of which it may still have something to deliver.
    pub before: Option<Generation>,
}

impl Member {
    fn is_staying(&self) -> bool {
        matches!(self.presence, Presence::Here | Presence::Leaving)
    }
}

/// What admission and liveness depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The coordinator's version.
    pub version: String,
    /// The fleet's token, where there is one.
    pub token: Option<String>,
    /// A worker stops sending load when it has heard nothing for this long by its own clock, nanoseconds.
    pub lease_ns: u64,
    /// On top of the lease before a silent worker counts as lost: what clocks and networks may differ by.
    pub margin_ns: u64,
}

/// The members, by the generation that their stream was given.
#[derive(Clone, Debug)]
pub struct Roster {
    terms: Terms,
    members: BTreeMap<Generation, Member>,
    /// For how long the coordinator has listened, nanoseconds, and when it last did.
    listened: u64,
    looked: Option<MonoNs>,
}

impl Roster {
    /// Nobody is here.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { terms, members: BTreeMap::new(), listened: 0, looked: None }
    }

    /// Registers the worker at the other end of a stream.
    ///
    /// # Errors
    /// [`Refusal`] with the text that the worker is told.
    pub fn register(&mut self, generation: Generation, arrival: Arrival, now: MonoNs) -> Result<(), Refusal> {
        self.admit(&arrival)?;
        let worker = arrival.worker.clone();
        let taken = |m: &Member| m.presence == Presence::Here && m.arrival.worker == worker;
        if self.members.contains_key(&generation) || self.members.values().any(taken) {
            return Err(Refusal::Taken { worker });
        }
        let before = arrival.before.as_ref().map(|before| before.generation);
        let arrival = Arrival { token: String::new(), before: None, ..arrival };
        let listened = self.listened;
        let member = Member { arrival, heard: now, listened, presence: Presence::Here, away: false, before };
        self.members.insert(generation, member);
        Ok(())
    }

    /// Whether whoever says this of itself may be a member at all.
    fn admit(&self, arrival: &Arrival) -> Result<(), Refusal> {
        let worker = arrival.worker.clone();
        if arrival.version != self.terms.version {
            return Err(Refusal::Version {
                worker,
                own: self.terms.version.clone(),
                theirs: arrival.version.clone(),
            });
        }
        if let Some(token) = &self.terms.token
            && !same_secret(token.as_bytes(), arrival.token.as_bytes())
        {
            return Err(Refusal::Token { worker });
        }
        if RESERVED.contains(&worker.as_str()) {
            return Err(Refusal::Reserved { worker });
        }
        if arrival.lanes == 0 || worker.as_str().is_empty() {
            return Err(Refusal::Empty { worker, lanes: arrival.lanes });
        }
        Ok(())
    }

    /// Puts back a member that the log knows. One that is here is away until it resumes or counts as lost.
    pub fn restore(&mut self, generation: Generation, arrival: Arrival, presence: Presence, now: MonoNs) {
        let listened = self.listened;
        let member = Member { arrival, heard: now, listened, presence, away: true, before: None };
        self.members.insert(generation, member);
    }

    /// Lets a worker go on under the registration that it had; gives whether it may. Only the process that registered
    /// may, and only while the registration stands.
    pub fn resume(&mut self, generation: Generation, arrival: &Arrival, now: MonoNs) -> bool {
        if self.admit(arrival).is_err() {
            return false;
        }
        let listened = self.listened;
        let Some(member) = self.members.get_mut(&generation) else { return false };
        let same_process = member.arrival.instance == arrival.instance;
        if member.presence != Presence::Here || member.arrival.worker != arrival.worker || !same_process {
            return false;
        }
        member.arrival = Arrival { token: String::new(), before: None, ..arrival.clone() };
        member.heard = member.heard.max(now);
        member.listened = listened;
        member.away = false;
        true
    }

    /// An earlier registration of the very process that says this of itself.
    #[must_use]
    pub fn earlier(&self, arrival: &Arrival) -> Option<Generation> {
        let same = |m: &Member| {
            m.presence == Presence::Here
                && m.arrival.worker == arrival.worker
                && m.arrival.instance == arrival.instance
        };
        self.members.iter().find(|(_, m)| same(m)).map(|(g, _)| *g)
    }

    /// A member's stream has ended.
    pub fn gone_away(&mut self, generation: Generation) {
        if let Some(member) = self.members.get_mut(&generation) {
            member.away = true;
        }
    }

    /// Members that are here and have no stream at the moment.
    pub fn away(&self) -> impl Iterator<Item = Generation> {
        self.here().filter(|(_, m)| m.away).map(|(g, _)| g)
    }

    /// A sign of life.
    pub fn heard(&mut self, generation: Generation, now: MonoNs) {
        if let Some(member) = self.members.get_mut(&generation) {
            member.heard = member.heard.max(now);
            member.listened = self.listened;
        }
    }

    /// Marks a member; gives whether that is news. Who is lost or has left stays so.
    pub fn mark(&mut self, generation: Generation, presence: Presence) -> bool {
        match self.members.get_mut(&generation) {
            Some(member) if member.is_staying() && member.presence != presence => {
                member.presence = presence;
                true
            }
            _ => false,
        }
    }

    /// Everything that has arrived by now was taken in. Comes often; after a pause only a moment of it counts.
    pub fn listen(&mut self, now: MonoNs) {
        let step = self.looked.map_or(0, |looked| now.saturating_sub(looked)).min(LISTENING_STEP_NS);
        self.listened = self.listened.saturating_add(step);
        self.looked = Some(now);
    }

    /// Members that have been silent, while somebody listened, for longer than lease and margin.
    #[must_use]
    pub fn silent(&self) -> Vec<Generation> {
        let patience = self.patience_ns();
        self.staying()
            .filter(|(_, m)| self.listened.saturating_sub(m.listened) > patience)
            .map(|(g, _)| g)
            .collect()
    }

    /// When a member that is heard of no more can send no load any more, by its own clock: its lease is counted from
    /// a question that was asked before it was last heard of.
    #[must_use]
    pub fn fenced_at(&self, generation: Generation) -> MonoNs {
        let heard = self.members.get(&generation).map_or(0, |member| member.heard);
        heard.saturating_add(self.patience_ns())
    }

    fn patience_ns(&self) -> u64 {
        self.terms.lease_ns.saturating_add(self.terms.margin_ns)
    }

    /// Members that are here or have said goodbye and still deliver.
    pub fn staying(&self) -> impl Iterator<Item = (Generation, &Member)> {
        self.members.iter().filter(|(_, m)| m.is_staying()).map(|(g, m)| (*g, m))
    }

    /// Whether a member is here, or has said goodbye and still delivers.
    #[must_use]
    pub fn is_staying(&self, generation: Generation) -> bool {
        self.members.get(&generation).is_some_and(Member::is_staying)
    }

    /// Members that are here, in the order in which they came.
    pub fn here(&self) -> impl Iterator<Item = (Generation, &Member)> {
        self.members.iter().filter(|(_, m)| m.presence == Presence::Here).map(|(g, m)| (*g, m))
    }

    /// Number of members that are here and can be spoken to.
    #[must_use]
    pub fn count_here(&self) -> usize {
        self.here().filter(|(_, m)| !m.away).count()
    }

    /// All that ever registered.
    pub fn all(&self) -> impl Iterator<Item = (Generation, &Member)> {
        self.members.iter().map(|(g, m)| (*g, m))
    }

    /// A member, whatever became of it.
    #[must_use]
    pub fn get(&self, generation: Generation) -> Option<&Member> {
        self.members.get(&generation)
    }

    /// Deals lanes: for each member that is here the position of its first lane and how many it runs.
    ///
    /// The lanes are consecutive from 0, so shares dealt by position go to exactly one lane each.
    #[must_use]
    pub fn deal_lanes(&self) -> Vec<(Generation, u32, u32)> {
        let mut first = 0u32;
        self.here()
            .map(|(generation, member)| {
                let lanes = member.arrival.lanes;
                let dealt = (generation, first, lanes);
                first = first.saturating_add(lanes);
                dealt
            })
            .collect()
    }

    /// Deals things to watch, one member each; the same deal as long as the members are the same.
    #[must_use]
    pub fn deal<'a, T>(&self, things: &'a [T]) -> Vec<(Generation, Vec<&'a T>)> {
        let here: Vec<Generation> = self.here().map(|(g, _)| g).collect();
        let mut dealt: Vec<(Generation, Vec<&T>)> = here.into_iter().map(|g| (g, Vec::new())).collect();
        let n = dealt.len();
        for (i, thing) in things.iter().enumerate() {
            if let Some((_, own)) = i.checked_rem(n).and_then(|at| dealt.get_mut(at)) {
                own.push(thing);
            }
        }
        dealt
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms() -> Terms {
        Terms { version: "1".into(), token: Some("secret".into()), lease_ns: 100, margin_ns: 10 }
    }

    fn arrival(name: &str, lanes: u32) -> Arrival {
        Arrival {
            worker: WorkerId::new(name),
            version: "1".into(),
            token: "secret".into(),
            host: "h".into(),
            cores: 2,
            memory_bytes: 1,
            lanes,
            address: String::new(),
            http: String::new(),
            instance: 7,
            before: None,
        }
    }

    #[test]
    fn another_version_a_wrong_token_and_a_taken_name_are_refused() {
        let mut roster = Roster::new(terms());
        let refused = |roster: &mut Roster, a: Arrival| roster.register(Generation(9), a, 0).unwrap_err();
        let other = Arrival { version: "2".into(), ..arrival("a", 1) };
        assert!(matches!(refused(&mut roster, other), Refusal::Version { .. }));
        for wrong in ["", "secre", "Secret", "secret "] {
            let error = refused(&mut roster, Arrival { token: wrong.into(), ..arrival("a", 1) });
            assert!(matches!(error, Refusal::Token { .. }));
            assert!(!error.to_string().contains("secre"), "a refusal shows no token");
        }
        assert!(matches!(refused(&mut roster, arrival("a", 0)), Refusal::Empty { .. }));
        for name in ["*", "coordinator"] {
            assert!(matches!(refused(&mut roster, arrival(name, 1)), Refusal::Reserved { .. }));
        }
        roster.register(Generation(1), arrival("a", 1), 0).unwrap();
        assert!(matches!(refused(&mut roster, arrival("a", 1)), Refusal::Taken { .. }));
        assert!(roster.mark(Generation(1), Presence::Lost));
        roster.register(Generation(2), arrival("a", 1), 0).unwrap();
    }

    #[test]
    fn silence_past_lease_and_margin_is_loss_and_a_lost_member_does_not_come_back() {
        let mut roster = Roster::new(terms());
        roster.register(Generation(1), arrival("a", 1), 0).unwrap();
        roster.register(Generation(2), arrival("b", 1), 0).unwrap();
        roster.listen(0);
        roster.listen(50);
        roster.heard(Generation(2), 50);
        roster.listen(110);
        assert_eq!(roster.silent(), vec![]);
        roster.listen(111);
        assert_eq!(roster.silent(), vec![Generation(1)]);
        assert_eq!(roster.fenced_at(Generation(2)), 160);
        assert!(roster.mark(Generation(1), Presence::Lost));
        roster.heard(Generation(1), 112);
        assert!(!roster.mark(Generation(1), Presence::Left));
        assert_eq!(roster.count_here(), 1);
    }

    #[test]
    fn a_coordinator_that_was_paused_blames_nobody_for_it() {
        let lease_ns = 10 * SECOND_NS;
        let mut roster = Roster::new(Terms { lease_ns, ..terms() });
        roster.register(Generation(1), arrival("a", 1), 0).unwrap();
        roster.listen(0);
        roster.listen(60 * SECOND_NS);
        assert_eq!(roster.silent(), vec![], "nobody listened for a minute");
        (0..21).for_each(|n| roster.listen(60 * SECOND_NS + n * SECOND_NS / 2));
        assert_eq!(roster.silent(), vec![Generation(1)], "then it was silent for more than its lease");
    }

    #[test]
    fn who_said_goodbye_gets_no_work_and_is_awaited_until_it_is_gone() {
        let mut roster = Roster::new(terms());
        roster.register(Generation(1), arrival("a", 1), 0).unwrap();
        assert!(roster.mark(Generation(1), Presence::Leaving));
        assert_eq!((roster.count_here(), roster.is_staying(Generation(1))), (0, true));
        assert!(roster.mark(Generation(1), Presence::Left));
        assert!(!roster.is_staying(Generation(1)));
    }

    proptest! {
        #[test]
        fn each_lane_and_each_node_goes_to_exactly_one_member(
            lanes in prop::collection::vec(1u32..9, 1..20), lost in prop::collection::vec(any::<bool>(), 20), nodes in 0usize..30
        ) {
            let mut roster = Roster::new(terms());
            for (i, n) in lanes.iter().enumerate() {
                roster.register(Generation(i as u64 + 1), arrival(&format!("w{i}"), *n), 0).unwrap();
                if i > 0 && lost[i] {
                    roster.mark(Generation(i as u64 + 1), Presence::Lost);
                }
            }
            let mut next = 0;
            for (generation, first, count) in roster.deal_lanes() {
                prop_assert_eq!(first, next);
                prop_assert_eq!(roster.get(generation).unwrap().presence, Presence::Here);
                next += count;
            }
            let nodes: Vec<usize> = (0..nodes).collect();
            let mut dealt: Vec<usize> = roster.deal(&nodes).into_iter().flat_map(|(_, own)| own).copied().collect();
            dealt.sort_unstable();
            prop_assert_eq!(dealt, nodes);
        }
    }
}
