//! The laws of delivery, over intake and log together, against a store that loses answers, loses requests, and lets
//! some arrive late, with leaders that pause, die and follow each other.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vst_common::batch::Table;
use vst_common::ids::{Generation, Sequence, WorkerId};

use super::*;
use crate::intake::core::{Action as IntakeAction, Event as IntakeEvent, IntakeCore, Refused, Waiter};
use crate::run_log::Replay;

/// (worker, sequence): what a batch is.
type Id = (u8, u64);

#[derive(Clone, Debug)]
enum Op {
    /// A worker delivers its next batch, or one that it delivered before, to a coordinator.
    Deliver { node: usize, worker: u8, back: u64 },
    /// The store answers a coordinator.
    Answer { node: usize, fate: Fate },
    /// A create that was given up for lost arrives.
    Land,
    /// Time goes by.
    Wait { ms: u64 },
    /// Another coordinator reads the log and takes the lead; those before it are not told.
    Lead,
    /// A coordinator dies.
    Crash { node: usize },
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Honest,
    AnswerLost,
    RequestLost,
    RequestLate,
}

fn op() -> impl Strategy<Value = Op> {
    let node = 0_usize..4;
    prop_oneof![
        6 => (node.clone(), 0_u8..2, 0_u64..4).prop_map(|(node, worker, back)| Op::Deliver { node, worker, back }),
        8 => (node.clone(), fate()).prop_map(|(node, fate)| Op::Answer { node, fate }),
        1 => Just(Op::Land),
        4 => (0_u64..400).prop_map(|ms| Op::Wait { ms }),
        1 => Just(Op::Lead),
        1 => node.prop_map(|node| Op::Crash { node }),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Honest),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::RequestLost),
        1 => Just(Fate::RequestLate),
    ]
}

#[derive(Debug)]
struct Delivery(Id);

impl Waiter for Delivery {
    fn is_gone(&self) -> bool {
        false
    }
}

/// What the log core asked the store for.
#[derive(Debug)]
enum Asked {
    Create(u64, Bytes),
    Read(u64),
}

#[derive(Debug)]
struct Node {
    epoch: u64,
    log: RunLogCore,
    intake: IntakeCore<Delivery>,
    asked: Option<Asked>,
    tickets: BTreeMap<Ticket, Id>,
    next_ticket: u64,
    last_ticket: u64,
}

#[derive(Debug, Default)]
struct World {
    now_ns: u64,
    objects: BTreeMap<u64, Bytes>,
    late: Vec<(u64, Bytes)>,
    nodes: Vec<Node>,
    delivered: BTreeMap<u8, u64>,
    leaders: u32,
    acknowledged: BTreeSet<Id>,
}

const CLAIM: Ticket = Ticket(0);

fn worker_name(worker: u8) -> WorkerId {
    WorkerId::new(format!("w{worker}"))
}

fn batch((worker, sequence): Id) -> StoredBatch {
    StoredBatch {
        worker: worker_name(worker),
        generation: Generation(1),
        sequence: Sequence(sequence),
        table: Table::Events,
        ipc: Bytes::from(vec![worker; 10]),
    }
}

impl World {
    fn now(&self) -> Now {
        Now { mono: self.now_ns, wall: 1 }
    }

    fn entries(&self) -> Vec<Entry> {
        self.objects.values().map(|bytes| Entry::decode(bytes).unwrap()).collect()
    }

    fn create(&mut self, number: u64, bytes: Bytes) -> bool {
        let vacant = !self.objects.contains_key(&number);
        self.objects.entry(number).or_insert(bytes);
        vacant
    }

    fn lead(&mut self) {
        let run = RunId::new("r");
        let mut replay = Replay::default();
        for entry in self.entries() {
            replay.take(entry, &run).unwrap();
        }
        let limits = Limits { entry_bytes: 35, give_up_ns: 3 * SECOND_NS, ..Limits::default() };
        let epoch = replay.epoch + 1;
        self.leaders += 1;
        let name = format!("leader {}", self.leaders);
        let (log, actions) = RunLogCore::lead(run, &name, epoch, replay.last + 1, CLAIM, limits, self.now());
        let node = Node {
            epoch,
            log,
            intake: IntakeCore::new(replay.delivered),
            asked: None,
            tickets: BTreeMap::new(),
            next_ticket: 1,
            last_ticket: 0,
        };
        self.nodes.push(node);
        self.perform(self.nodes.len() - 1, actions);
    }

    fn log_event(&mut self, node: usize, event: Event) {
        let now = self.now();
        let actions = self.nodes[node].log.step(event, now);
        self.perform(node, actions);
    }

    fn intake_event(&mut self, node: usize, event: IntakeEvent<Delivery>) {
        for action in self.nodes[node].intake.step(event) {
            match action {
                IntakeAction::Append(batch) => {
                    let owner = &mut self.nodes[node];
                    let ticket = Ticket(owner.next_ticket);
                    owner.next_ticket += 1;
                    let worker = batch.worker.as_str().strip_prefix('w').unwrap().parse().unwrap();
                    owner.tickets.insert(ticket, (worker, batch.sequence.0));
                    self.log_event(node, Event::Appended(ticket, Record::Batch(batch)));
                }
                IntakeAction::Acknowledge(Delivery(id), _, sequence) => {
                    assert_eq!(sequence.0, id.1);
                    self.acknowledge(id);
                }
                IntakeAction::Refuse(..) | IntakeAction::Reached(..) => {}
            }
        }
    }

    /// An acknowledgement is a promise about the log as it is now, for this batch and all before it in its stream.
    fn acknowledge(&mut self, id: Id) {
        let held: Vec<Sequence> = self
            .entries()
            .into_iter()
            .flat_map(|entry| entry.batches)
            .filter(|batch| batch.worker == worker_name(id.0))
            .map(|batch| batch.sequence)
            .collect();
        for sequence in 1..=id.1 {
            let times = held.iter().filter(|held| held.0 == sequence).count();
            assert_eq!(times, 1, "{id:?} was acknowledged, the log holds sequence {sequence} {times} times");
        }
        self.acknowledged.insert(id);
    }

    fn perform(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Create { number, bytes, .. } => self.ask(node, Asked::Create(number, bytes)),
                Action::ReadBack { number } => self.ask(node, Asked::Read(number)),
                Action::Durable { number, tickets, .. } => self.durable(node, number, &tickets),
                Action::Refuse(tickets, reason) => {
                    for ticket in tickets {
                        if let Some((worker, sequence)) = self.nodes[node].tickets.remove(&ticket) {
                            let key = (worker_name(worker), Generation(1));
                            let refused = Refused(reason.to_string());
                            self.intake_event(node, IntakeEvent::Failed(key, Sequence(sequence), refused));
                        }
                    }
                }
                Action::WakeAt(_) | Action::Finished => {}
            }
        }
    }

    fn ask(&mut self, node: usize, asked: Asked) {
        let before = self.nodes[node].asked.replace(asked);
        assert!(before.is_none(), "two requests in flight: {before:?}");
    }

    fn durable(&mut self, node: usize, number: u64, tickets: &[Ticket]) {
        let entries = self.entries();
        for (expected, entry) in (1..=number).zip(&entries) {
            assert_eq!(entry.number, expected, "entry {number} was called durable over a gap");
        }
        let entry =
            entries.iter().find(|entry| entry.number == number).expect("durable before it was written");
        assert_eq!(entry.epoch, self.nodes[node].epoch, "another leader's entry was called durable");
        for ticket in tickets {
            let owner = &mut self.nodes[node];
            assert!(*ticket == CLAIM || ticket.0 > owner.last_ticket, "durable out of order");
            owner.last_ticket = ticket.0;
            if let Some((worker, sequence)) = owner.tickets.remove(ticket) {
                let key = (worker_name(worker), Generation(1));
                self.intake_event(node, IntakeEvent::Durable(key, Sequence(sequence)));
            }
        }
    }

    fn answer(&mut self, node: usize, fate: Fate) {
        let lost = || CreateOutcome::Unknown(String::from("no answer"));
        let event = match (self.nodes[node].asked.take(), fate) {
            (None, _) => return,
            (Some(Asked::Create(number, bytes)), Fate::Honest) => {
                let done = self.create(number, bytes);
                Event::Created(if done { CreateOutcome::Done } else { CreateOutcome::Exists })
            }
            (Some(Asked::Create(number, bytes)), Fate::AnswerLost) => {
                self.create(number, bytes);
                Event::Created(lost())
            }
            (Some(Asked::Create(..)), Fate::RequestLost) => Event::Created(lost()),
            (Some(Asked::Create(number, bytes)), Fate::RequestLate) => {
                self.late.push((number, bytes));
                Event::Created(lost())
            }
            (Some(Asked::Read(number)), Fate::Honest) => Event::ReadBack(
                self.objects.get(&number).map_or(Found::Nothing, |b| Found::Object(b.clone())),
            ),
            (Some(Asked::Read(_)), _) => Event::ReadBack(Found::Unreadable(String::from("no answer"))),
        };
        self.log_event(node, event);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Deliver { node, worker, back } if *node < self.nodes.len() => {
                let last = self.delivered.entry(*worker).or_default();
                let sequence = if *back == 0 {
                    *last += 1;
                    *last
                } else {
                    (*last).saturating_sub(back - 1).max(1)
                };
                *last = sequence.max(*last);
                let id = (*worker, sequence);
                if self.nodes[*node].log.has_room() {
                    self.intake_event(*node, IntakeEvent::Delivered(batch(id), Delivery(id)));
                }
            }
            Op::Answer { node, fate } if *node < self.nodes.len() => self.answer(*node, *fate),
            Op::Crash { node } if *node < self.nodes.len() => {
                // What it had asked for may still arrive.
                if let Some(Asked::Create(number, bytes)) = self.nodes.remove(*node).asked {
                    self.late.push((number, bytes));
                }
            }
            Op::Land => {
                if let Some((number, bytes)) = self.late.pop() {
                    self.create(number, bytes);
                }
            }
            Op::Wait { ms } => {
                self.now_ns += ms * 1_000_000;
                for node in 0..self.nodes.len() {
                    self.log_event(node, Event::Woke);
                }
            }
            Op::Lead if self.nodes.len() < 4 => self.lead(),
            Op::Deliver { .. } | Op::Answer { .. } | Op::Crash { .. } | Op::Lead => {}
        }
    }

    /// Lets everything late arrive, then a new leader takes over and the workers deliver again what they have not
    /// seen acknowledged.
    fn settle(&mut self) {
        while !self.late.is_empty() {
            self.apply(&Op::Land);
        }
        self.lead();
        let node = self.nodes.len() - 1;
        self.answer(node, Fate::Honest);
        for (worker, last) in self.delivered.clone() {
            for sequence in 1..=last {
                let id = (worker, sequence);
                if !self.acknowledged.contains(&id) {
                    self.intake_event(node, IntakeEvent::Delivered(batch(id), Delivery(id)));
                }
                self.now_ns += SECOND_NS;
                self.log_event(node, Event::Woke);
                self.answer(node, Fate::Honest);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_acknowledged_batch_is_in_the_log_exactly_once(ops in prop::collection::vec(op(), 0..120)) {
        let mut world = World::default();
        world.lead();
        for op in &ops {
            world.apply(op);
        }
        world.settle();
        let mut times: BTreeMap<Id, usize> = BTreeMap::new();
        let mut epoch = 0;
        for (number, entry) in (1..).zip(world.entries()) {
            prop_assert_eq!(entry.number, number);
            prop_assert!(entry.epoch >= epoch, "the epoch fell at entry {}", number);
            epoch = entry.epoch;
            for batch in entry.batches {
                let worker = batch.worker.as_str().strip_prefix('w').unwrap().parse().unwrap();
                *times.entry((worker, batch.sequence.0)).or_default() += 1;
            }
        }
        for (worker, last) in &world.delivered {
            for sequence in 1..=*last {
                let id = (*worker, sequence);
                prop_assert_eq!(times.get(&id), Some(&1), "{:?}", id);
                prop_assert!(world.acknowledged.contains(&id), "{:?} was never acknowledged", id);
            }
        }
    }
}

fn lone_leader() -> World {
    let mut world = World::default();
    world.lead();
    world.answer(0, Fate::Honest);
    world
}

#[test]
fn a_paused_leader_acknowledges_nothing_after_another_leads() {
    let mut world = lone_leader();
    world.apply(&Op::Deliver { node: 0, worker: 0, back: 0 });
    world.apply(&Op::Wait { ms: 300 });
    world.lead();
    world.answer(1, Fate::Honest);
    world.answer(0, Fate::Honest);
    world.answer(0, Fate::Honest);
    assert!(world.acknowledged.is_empty());
    assert!(matches!(&world.nodes[0].log.stopped, Some(Stopped::OtherLeader { number: 2, epoch: 2, .. })));
    world.apply(&Op::Deliver { node: 0, worker: 0, back: 1 });
    assert!(world.nodes[0].asked.is_none());
}

#[test]
fn a_lone_record_is_written_at_once_and_a_stream_of_them_in_groups() {
    let mut world = lone_leader();
    world.apply(&Op::Wait { ms: 1000 });
    world.apply(&Op::Deliver { node: 0, worker: 0, back: 0 });
    assert!(matches!(world.nodes[0].asked, Some(Asked::Create(2, _))));
    world.answer(0, Fate::Honest);
    world.apply(&Op::Deliver { node: 0, worker: 0, back: 0 });
    world.apply(&Op::Deliver { node: 0, worker: 0, back: 0 });
    assert!(world.nodes[0].asked.is_none());
    world.apply(&Op::Wait { ms: 250 });
    world.answer(0, Fate::Honest);
    assert_eq!(world.entries().last().unwrap().batches.len(), 2);
    assert_eq!(world.acknowledged.len(), 3);
}

#[test]
fn a_full_entry_does_not_wait_and_beyond_it_nothing_is_taken() {
    let mut world = lone_leader();
    for _ in 0..4 {
        world.apply(&Op::Deliver { node: 0, worker: 0, back: 0 });
    }
    assert!(matches!(world.nodes[0].asked, Some(Asked::Create(2, _))));
    for _ in 0..4 {
        assert!(world.nodes[0].log.has_room());
        world.apply(&Op::Deliver { node: 0, worker: 0, back: 0 });
    }
    assert!(!world.nodes[0].log.has_room());
}

#[test]
fn a_store_that_never_answers_ends_the_leadership() {
    let mut world = lone_leader();
    world.apply(&Op::Wait { ms: 1000 });
    world.apply(&Op::Deliver { node: 0, worker: 0, back: 0 });
    for _ in 0..20 {
        world.answer(0, Fate::RequestLost);
        world.apply(&Op::Wait { ms: 200 });
    }
    assert!(matches!(&world.nodes[0].log.stopped, Some(Stopped::Store { number: 2, .. })));
    assert!(world.acknowledged.is_empty());
}

#[test]
fn closing_writes_what_waits_at_once_and_then_ends() {
    let mut world = lone_leader();
    world.apply(&Op::Deliver { node: 0, worker: 0, back: 0 });
    let now = world.now();
    let actions = world.nodes[0].log.step(Event::Closing, now);
    assert!(matches!(actions.as_slice(), [Action::Create { number: 2, .. }]));
    let actions = world.nodes[0].log.step(Event::Created(CreateOutcome::Done), now);
    assert!(matches!(actions.as_slice(), [Action::Durable { number: 2, .. }, Action::Finished]));
}
