use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::ids::{PhaseIndex, RunId};
use crate::live_set::LiveSet;
use crate::ranges::RowRange;

fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        (any::<u64>(), ".*").prop_map(|(epoch, leader)| Control::Led { run: RunId::new("r"), epoch, leader }),
        (any::<i64>(), any::<u64>(), ".*").prop_map(|(at_wall_ns, n, text)| Control::RunOpened {
            at_wall_ns,
            facts: serde_json::json!({"n": n, "text": text, "deep": [{"x": null}]}),
        }),
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(phase, start, ok)| Control::RangeDone {
            phase: PhaseIndex(phase),
            range: RowRange { start, end: u64::MAX },
            worker: WorkerId::new("w"),
            generation: Generation(ok),
            ok,
            failed: start,
        }),
        (any::<u64>(), any::<Option<u64>>()).prop_map(|(used_bytes, keep_rows)| Control::PopulationDecided {
            phase: PhaseIndex(1),
            used_bytes,
            keep_rows,
        }),
        (any::<u64>(), any::<u64>()).prop_map(|(seed, cut)| Control::PopulationChanged {
            phase: PhaseIndex(1),
            live: LiveSet::empty(seed, u64::MAX, 1).with_cut(cut),
        }),
        (any::<u32>(), any::<i64>(), any::<u64>(), ".*").prop_map(|(index, end_wall_ns, due, reason)| {
            Control::PhaseEnded(PhaseEnded {
                index: PhaseIndex(index),
                end_wall_ns,
                outcome: PhaseOutcome::Failed { reason },
                totals: Totals { due, ..Totals::default() },
                scheduled: Some(due),
                unowned: due,
                live: due,
                exit_code: 0,
            })
        }),
        ".*".prop_map(|reason| Control::RunClosed {
            state: RunState::Failed { reason },
            exit_code: 4,
            at_wall_ns: -1,
        }),
    ]
}

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![Just(Table::Latency), Just(Table::Memory), Just(Table::Events), Just(Table::Commandstats)]
}

fn batch() -> impl Strategy<Value = StoredBatch> {
    (".{0,8}", any::<u64>(), any::<u64>(), table(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(
        |(worker, generation, sequence, table, ipc)| StoredBatch {
            worker: WorkerId::new(worker),
            generation: Generation(generation),
            sequence: Sequence(sequence),
            table,
            ipc: Bytes::from(ipc),
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        any::<u64>(),
        any::<u64>(),
        ".*",
        any::<i64>(),
        prop::collection::vec(control(), 0..4),
        prop::collection::vec(batch(), 0..5),
    )
        .prop_map(|(number, epoch, leader, written_at, controls, batches)| Entry {
            number,
            epoch,
            leader,
            written_at,
            controls,
            batches,
        })
}

proptest! {
    #[test]
    fn an_entry_reads_back_as_it_was_written(entry in entry()) {
        let bytes = entry.encode().unwrap();
        prop_assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    }

    #[test]
    fn a_cut_entry_is_never_read(entry in entry(), cut in any::<prop::sample::Index>()) {
        let bytes = entry.encode().unwrap();
        let kept = bytes.get(..cut.index(bytes.len())).unwrap();
        let torn = matches!(Entry::decode(kept), Err(Error::Torn { .. }));
        prop_assert!(torn);
    }

    #[test]
    fn a_changed_entry_is_never_read(entry in entry(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = entry.encode().unwrap().to_vec();
        let at = at.index(bytes.len());
        *bytes.get_mut(at).unwrap() ^= 1 << bit;
        prop_assert!(Entry::decode(&bytes).is_err());
    }

    #[test]
    fn an_entry_with_something_behind_it_is_never_read(entry in entry(), more in prop::collection::vec(any::<u8>(), 1..9)) {
        let mut bytes = entry.encode().unwrap().to_vec();
        bytes.extend(more);
        let torn = matches!(Entry::decode(&bytes), Err(Error::Torn { .. }));
        prop_assert!(torn);
    }

    #[test]
    fn foreign_bytes_are_named_as_such(bytes in prop::collection::vec(any::<u8>(), 4..64)) {
        prop_assume!(!bytes.starts_with(b"VSTL"));
        prop_assert!(matches!(Entry::decode(&bytes), Err(Error::Foreign)));
    }
}

#[test]
fn an_entry_of_a_later_format_says_which() {
    let entry = Entry {
        number: 1,
        epoch: 1,
        leader: String::from("a"),
        written_at: 0,
        controls: Vec::new(),
        batches: Vec::new(),
    };
    let mut bytes = entry.encode().unwrap().to_vec();
    bytes[4] = 9;
    assert!(matches!(Entry::decode(&bytes), Err(Error::Version { found: 9 })));
}
