use bytes::Bytes;
use proptest::prelude::*;
use vst_common::batch::Table;

use super::*;

/// Names a delivery; connections that were cut are gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Caller {
    id: u64,
    gone: bool,
}

impl Waiter for Caller {
    fn is_gone(&self) -> bool {
        self.gone
    }
}

fn caller(id: u64) -> Caller {
    Caller { id, gone: false }
}

fn key() -> StreamKey {
    (WorkerId::new("w"), Generation(1))
}

fn batch(sequence: u64) -> StoredBatch {
    let (worker, generation) = key();
    StoredBatch { worker, generation, sequence: Sequence(sequence), table: Table::Events, ipc: Bytes::new() }
}

fn deliver(core: &mut IntakeCore<Caller>, sequence: u64, id: u64) -> Vec<Action<Caller>> {
    core.step(Event::Delivered(batch(sequence), caller(id)))
}

fn acknowledged(actions: &[Action<Caller>]) -> Vec<(u64, u64)> {
    let of = |action: &Action<Caller>| match action {
        Action::Acknowledge(caller, _, sequence) => Some((caller.id, sequence.0)),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

fn sequences(last: u64) -> impl Strategy<Value = Vec<u64>> {
    // Each sequence once or several times, in any order.
    let repeated = prop::collection::vec(1..=last, 0..20);
    repeated.prop_flat_map(move |repeated| {
        let all: Vec<u64> = (1..=last).chain(repeated).collect();
        Just(all).prop_shuffle()
    })
}

proptest! {
    #[test]
    fn in_whatever_order_batches_come_each_is_appended_once_and_each_delivery_acknowledged_once(
        deliveries in sequences(12),
        durable_first in any::<bool>(),
        before in prop::collection::btree_set(1_u64..=12, 0..12),
    ) {
        let mut held = Delivered::default();
        for sequence in &before {
            held.insert(&key().0, key().1, Sequence(*sequence));
        }
        let mut core = IntakeCore::new(held);
        let (mut appended, mut answers, mut log) = (Vec::new(), Vec::new(), before.clone());
        let mut take = |actions: Vec<Action<Caller>>, log: &BTreeSet<u64>, appended: &mut Vec<u64>| {
            for (id, sequence) in acknowledged(&actions) {
                prop_assert!((1..=sequence).all(|n| log.contains(&n)), "{sequence} acknowledged over a gap");
                answers.push((id, sequence));
            }
            appended.extend(actions.iter().filter_map(|a| match a {
                Action::Append(batch) => Some(batch.sequence.0),
                _ => None,
            }));
            Ok(())
        };
        let mut told = 0;
        for (id, sequence) in (0..).zip(&deliveries) {
            take(deliver(&mut core, *sequence, id), &log, &mut appended)?;
            while durable_first && told < appended.len() {
                let sequence = appended[told];
                told += 1;
                log.insert(sequence);
                take(core.step(Event::Durable(key(), Sequence(sequence))), &log, &mut appended)?;
            }
        }
        while told < appended.len() {
            let sequence = appended[told];
            told += 1;
            log.insert(sequence);
            take(core.step(Event::Durable(key(), Sequence(sequence))), &log, &mut appended)?;
        }
        appended.sort_unstable();
        let wanted: Vec<u64> = (1..=12).filter(|n| !before.contains(n)).collect();
        prop_assert_eq!(appended, wanted);
        answers.sort_unstable();
        let wanted: Vec<(u64, u64)> = (0..).zip(deliveries).collect();
        prop_assert_eq!(answers, wanted);
    }
}

#[test]
fn what_the_log_refused_may_be_delivered_again() {
    let mut core = IntakeCore::new(Delivered::default());
    assert!(matches!(deliver(&mut core, 1, 1).as_slice(), [Action::Append(_)]));
    let refused = core.step(Event::Failed(key(), Sequence(1), Refused(String::from("gone"))));
    assert!(matches!(refused.as_slice(), [Action::Refuse(Caller { id: 1, .. }, Refusal::Log(_))]));
    assert!(matches!(deliver(&mut core, 1, 2).as_slice(), [Action::Append(_)]));
}

#[test]
fn sequences_that_no_stream_can_have_are_refused() {
    let mut core = IntakeCore::new(Delivered::default());
    for sequence in [0, WINDOW + 1, u64::MAX] {
        let actions = deliver(&mut core, sequence, 1);
        assert!(matches!(actions.as_slice(), [Action::Refuse(_, Refusal::Sequence { .. })]), "{sequence}");
    }
    assert!(matches!(deliver(&mut core, WINDOW, 1).as_slice(), [Action::Append(_)]));
}

#[test]
fn connections_that_were_cut_do_not_pile_up() {
    let mut core = IntakeCore::new(Delivered::default());
    for id in 0..100 {
        core.step(Event::Delivered(batch(2), Caller { id, gone: true }));
    }
    let stream = core.streams.get(&key()).unwrap();
    assert_eq!(stream.waiting.get(&2).unwrap().len(), 1);
}

#[test]
fn the_report_says_what_is_missing_and_which_streams_are_open_ended() {
    let mut core = IntakeCore::new(Delivered::default());
    for sequence in [1, 2, 4] {
        deliver(&mut core, sequence, sequence);
        core.step(Event::Durable(key(), Sequence(sequence)));
    }
    let open_ended = core.report();
    assert_eq!((open_ended[0].through, open_ended[0].stated, open_ended[0].missing), (Sequence(2), None, 0));
    core.step(Event::Stated(key(), Sequence(6)));
    core.step(Event::Stated(key(), Sequence(3)));
    let stated = core.report();
    assert_eq!((stated[0].stated, stated[0].missing), (Some(Sequence(6)), 3));
    // A worker that was armed and delivered nothing at all is there too.
    core.step(Event::Stated((WorkerId::new("x"), Generation(2)), Sequence(5)));
    assert_eq!(core.report()[1].missing, 5);
}

#[test]
fn a_closed_run_takes_nothing_new_and_keeps_its_promises() {
    let mut core = IntakeCore::new(Delivered::default());
    deliver(&mut core, 1, 1);
    deliver(&mut core, 3, 3);
    let told = core.step(Event::Closed);
    assert!(matches!(told.as_slice(), [Action::Refuse(Caller { id: 3, .. }, Refusal::Closed)]), "{told:?}");
    assert!(matches!(deliver(&mut core, 2, 2).as_slice(), [Action::Refuse(_, Refusal::Closed)]));
    assert_eq!(acknowledged(&core.step(Event::Durable(key(), Sequence(1)))), vec![(1, 1)]);
    assert_eq!(acknowledged(&core.step(Event::Awaited(key(), Sequence(1), caller(4)))), vec![(4, 1)]);
    let hopeless = core.step(Event::Awaited(key(), Sequence(2), caller(5)));
    assert!(matches!(hopeless.as_slice(), [Action::Refuse(_, Refusal::Closed)]));
}
