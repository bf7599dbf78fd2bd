//! The uplink's books against a coordinator that loses streams at any moment and acknowledges late.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vst_common::batch::events::EventRow;
use vst_common::batch::{events, recall};
use vst_common::latency::Hdr;

use super::core::{Batch, Loss};
use super::*;

fn stamp(generation: u64) -> Stamp {
    Stamp {
        run: RunId::new("r"),
        worker: WorkerId::new("w"),
        generation: Generation(generation),
        sequence: Sequence(0),
    }
}

fn event(detail: u64) -> EventRow {
    EventRow {
        at: 1,
        phase: "p".into(),
        phase_index: PhaseIndex(1),
        kind: "k".into(),
        node: None,
        detail: detail.to_string(),
        count: 1,
    }
}

fn rows(table: bool, n: u64) -> TableRows {
    if table {
        TableRows::Events(vec![event(n); 3])
    } else {
        TableRows::Recall(vec![recall::RecallRow {
            phase: "p".into(),
            phase_index: PhaseIndex(1),
            window: Window::Measure,
            interval_start: vst_common::count::to_i64(n),
            interval_ns: SECOND_NS,
            k: 10,
            cell: RecallCell::default(),
        }])
    }
}

type Key = (u64, u64);

fn key(batch: &Batch) -> Key {
    (batch.stamp.generation.0, batch.stamp.sequence.0)
}

/// What the coordinator has, and what is on its way.
#[derive(Default)]
struct Peer {
    /// First content ever put on a stream.
    sent: BTreeMap<Key, Arc<Batch>>,
    /// On the present stream of each table, in order.
    on_stream: BTreeMap<Table, Vec<Arc<Batch>>>,
    released: BTreeMap<Key, Table>,
}

impl Peer {
    fn receive(&mut self, core: &mut UplinkCore, table: Table) -> Result<(), TestCaseError> {
        if let Some(batch) = core.next(table) {
            let first = self.sent.entry(key(&batch)).or_insert_with(|| Arc::clone(&batch));
            prop_assert_eq!(first.as_ref(), batch.as_ref(), "a repeated batch has other content");
            self.on_stream.entry(table).or_default().push(batch);
        }
        Ok(())
    }

    fn acknowledge(&mut self, core: &mut UplinkCore, table: Table, pick: usize) -> Result<(), TestCaseError> {
        let on_stream = self.on_stream.entry(table).or_default();
        if on_stream.is_empty() {
            return Ok(());
        }
        let upto = Arc::clone(&on_stream[pick % on_stream.len()]);
        // Whatever the coordinator claims to hold, only what a stream carried can be released by it.
        let sequence = if pick % 5 == 1 { u64::MAX } else { upto.stamp.sequence.0 };
        for batch in core.acknowledged(table, upto.stamp.generation, sequence) {
            prop_assert!(
                on_stream.iter().any(|b| key(b) == key(&batch)),
                "released without having been sent"
            );
            prop_assert!(key(&batch) <= (upto.stamp.generation.0, sequence));
            prop_assert_eq!(self.released.insert(key(&batch), table), None, "released twice");
            on_stream.retain(|b| key(b) != key(&batch));
        }
        prop_assert!(self.released.contains_key(&key(&upto)));
        Ok(())
    }
}

proptest! {
    #[test]
    fn sequences_have_no_gap_nothing_is_forgotten_and_repeats_are_the_same(
        deeds in prop::collection::vec((0u8..12, any::<bool>(), any::<usize>()), 0..200), small: bool,
    ) {
        // With the small bound a handful of batches do not fit.
        let held_bytes = if small { 40_000 } else { 1 << 30 };
        let mut core = UplinkCore::new(Bounds { held_bytes, in_flight_bytes: 20_000, batch_bytes: 1 << 20 }, stamp(1));
        let mut peer = Peer::default();
        let mut sealed: BTreeMap<Key, (Table, u64)> = BTreeMap::new();
        let mut generation = 1;
        for (n, (deed, flag, pick)) in (0u64..).zip(deeds) {
            let table = rows(flag, 0).table();
            match deed {
                0..=3 => {
                    core.seal(&rows(flag, n)).unwrap();
                    let last = sealed.range((generation, 0)..).next_back().map_or(0, |((_, s), _)| *s);
                    prop_assert_eq!(core.last_sequence(), last + 1);
                    sealed.insert((generation, core.last_sequence()), (table, n));
                }
                4..=7 => peer.receive(&mut core, table)?,
                8 | 9 => peer.acknowledge(&mut core, table, pick)?,
                10 => {
                    core.broken(table);
                    peer.on_stream.remove(&table);
                }
                _ if pick % 4 == 0 => {
                    generation += 1;
                    core.register(Generation(generation));
                }
                _ => {}
            }
            prop_assert_eq!(core.unacknowledged(), (sealed.len() - peer.released.len()) as u64);
        }
        // A patient peer gets everything that it has not acknowledged, each once per stream and in order.
        for _ in 0..2 * sealed.len() {
            for table in [Table::Events, Table::Recall] {
                peer.receive(&mut core, table)?;
                peer.acknowledge(&mut core, table, 0)?;
            }
        }
        prop_assert_eq!(core.unacknowledged(), 0);
        prop_assert_eq!(peer.released.keys().collect::<Vec<_>>(), sealed.keys().collect::<Vec<_>>());
        // What arrived is what was sealed, or an empty batch that was counted as lost.
        let mut emptied = Loss::default();
        for (key, (table, n)) in &sealed {
            let batch = &peer.sent[key];
            prop_assert_eq!(&batch.table, table);
            let expected = rows(*table == Table::Events, *n);
            if batch.content.num_rows() == 0 {
                emptied.batches += 1;
                emptied.rows += if *table == Table::Events { 3 } else { 1 };
            } else {
                prop_assert_eq!(&batch.content, &expected.to_batch(&batch.stamp).unwrap());
            }
        }
        prop_assert_eq!(core.take_loss(), emptied);
        prop_assert!(small || emptied == Loss::default());
    }
}

fn sizable(n: u64, bytes: usize) -> EventRow {
    EventRow { detail: "x".repeat(bytes), ..event(n) }
}

fn uplink_core(batch_bytes: usize) -> UplinkCore {
    UplinkCore::new(Bounds { held_bytes: 1 << 30, in_flight_bytes: 1 << 30, batch_bytes }, stamp(1))
}

proptest! {
    #[test]
    fn no_batch_is_larger_than_intake_takes_and_no_row_that_fits_is_missing(
        sizes in prop::collection::vec(prop_oneof![6 => 0usize..9_000, 1 => 60_000usize..90_000], 0..40),
    ) {
        let bound = 50_000;
        let mut core = uplink_core(bound);
        let rows: Vec<EventRow> = (0u64..).zip(&sizes).map(|(n, bytes)| sizable(n, *bytes)).collect();
        core.seal(&TableRows::Events(rows.clone())).unwrap();
        let mut carried = Vec::new();
        while let Some(batch) = core.next(Table::Events) {
            prop_assert!(vst_common::batch::table::write_ipc(&batch.content).unwrap().len() <= bound);
            carried.extend(events::from_batch(&batch.content).unwrap().into_iter().map(|(_, row)| row));
        }
        let fits: Vec<EventRow> = rows.into_iter().filter(|row| row.detail.len() < 20_000).collect();
        let given_up = (sizes.len() - fits.len()) as u64;
        prop_assert_eq!(carried, fits);
        prop_assert_eq!(core.take_dropped(), given_up);
        prop_assert_eq!(core.take_loss(), Loss { batches: given_up, rows: given_up });
    }
}

#[test]
fn what_is_refused_for_good_is_counted_and_not_sent_for_ever() {
    let mut core = uplink_core(1 << 20);
    for n in 0..3 {
        core.seal(&rows(true, n)).unwrap();
    }
    while core.next(Table::Events).is_some() {}
    core.refused(Table::Events, Generation(1), 2);
    core.broken(Table::Events);
    let again: Vec<(u64, usize)> = std::iter::from_fn(|| core.next(Table::Events))
        .map(|batch| (batch.stamp.sequence.0, batch.content.num_rows()))
        .collect();
    assert_eq!(again, [(1, 3), (2, 0), (3, 3)], "the sequence has no gap, the rows are gone");
    assert_eq!((core.take_loss(), core.take_dropped()), (Loss { batches: 1, rows: 3 }, 1));
    core.refused(Table::Events, Generation(1), 2);
    assert_eq!(core.unacknowledged(), 2, "what is refused even without rows is not kept");
}

fn label(lanes: u32) -> PhaseLabel {
    PhaseLabel {
        phase: PhaseIndex(2),
        name: "query".into(),
        at_wall: 1_000,
        interval_ns: 10,
        first_lane: 6,
        lanes,
        k: 10,
    }
}

fn cell(latency: u64) -> Cell {
    let mut service = Hdr::new();
    service.record(latency);
    Cell { ok: 1, sent: 1, service: Some(service), ..Cell::default() }
}

const CLOCK: ClockOffset = ClockOffset { offset_ns: -3, error_ns: 2 };

fn give(intervals: &mut Intervals, lane: u32, interval: u64, latency: u64) {
    let key = CellKey {
        interval,
        window: Window::Measure,
        operation: "knn".into(),
        command: "FT.SEARCH".into(),
        node: NodeId::new("*"),
    };
    let health = LaneHealth { interval, ..LaneHealth::default() };
    let recall = (interval, Window::Measure, RecallCell { queries: 1, ..RecallCell::default() });
    intervals.record(lane, vec![(key, cell(latency))], vec![recall], vec![health], CLOCK, 0);
}

fn latency_of(rows: &[TableRows]) -> Vec<vst_common::batch::latency::LatencyRow> {
    rows.iter()
        .flat_map(|rows| match rows {
            TableRows::Latency(rows) => rows.clone(),
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn an_interval_becomes_one_row_when_every_lane_has_passed_it() {
    let mut intervals = Intervals::new(label(2));
    give(&mut intervals, 0, 0, 100);
    give(&mut intervals, 0, 1, 100);
    assert!(latency_of(&intervals.take_complete()).is_empty(), "lane 1 has not spoken");
    give(&mut intervals, 1, 0, 200);
    let rows = latency_of(&intervals.take_complete());
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].cell.ok, rows[0].interval_start, rows[0].command.as_str()), (2, 1_000, "FT.SEARCH"));
    let rest = latency_of(&intervals.take_all());
    assert_eq!((rest.len(), rest[0].interval_start), (1, 1_010));
}

#[test]
fn a_silent_lane_holds_nothing_up_for_ever() {
    let mut intervals = Intervals::new(label(2));
    (0..9).for_each(|interval| give(&mut intervals, 0, interval, 100));
    assert_eq!(latency_of(&intervals.take_complete()).len(), 4);
}

proptest! {
    #[test]
    fn rows_add_up_to_what_the_lanes_measured(
        given in prop::collection::vec((0u32..3, 0u64..12, 16u64..1_000_000, any::<bool>()), 0..60),
    ) {
        let mut intervals = Intervals::new(label(3));
        let mut rows = Vec::new();
        let mut expected: BTreeMap<i64, Cell> = BTreeMap::new();
        for (lane, interval, latency, cut) in given {
            give(&mut intervals, lane, interval, latency);
            let start = 1_000 + 10 * vst_common::count::to_i64(interval);
            expected.entry(start).or_default().merge(&cell(latency));
            if cut {
                rows.extend(latency_of(&intervals.take_complete()));
            }
        }
        rows.extend(latency_of(&intervals.take_all()));
        let mut found: BTreeMap<i64, Cell> = BTreeMap::new();
        for row in rows {
            found.entry(row.interval_start).or_default().merge(&row.cell);
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn parts_are_the_rows_in_order_and_small(n in 0usize..5_000) {
        let whole: Vec<EventRow> = (0..n).map(|i| event(i as u64)).collect();
        let parts = TableRows::Events(whole.clone()).parts();
        let joined: Vec<EventRow> = parts
            .into_iter()
            .flat_map(|part| match part {
                TableRows::Events(rows) => {
                    assert!(!rows.is_empty() && rows.len() <= 2048);
                    rows
                }
                _ => Vec::new(),
            })
            .collect();
        prop_assert_eq!(joined, whole);
    }
}

#[test]
fn a_message_decodes_to_its_batch_and_says_whose_it_is() {
    use prost::Message;
    let stamp = Stamp { sequence: Sequence(7), ..stamp(3) };
    let content = rows(true, 1).to_batch(&stamp).unwrap();
    let batch = Batch { stamp, table: Table::Events, content: content.clone() };
    let messages = [flight::schema_message(Table::Events), flight::batch_message(&batch).unwrap()];
    let read = arrow_flight::utils::flight_data_to_batches(&messages).unwrap();
    assert_eq!(read, vec![content]);
    assert_eq!(events::from_batch(&read[0]).unwrap()[0].0, batch.stamp);
    let delivery = vst_proto::fleet::Delivery::decode(messages[1].app_metadata.clone()).unwrap();
    assert_eq!((delivery.generation, delivery.sequence, delivery.table.as_str()), (3, 7, "events"));
}

#[test]
fn the_same_event_again_is_counted_in_one_row() {
    let mut kept = Events::default();
    let phase = || Some((PhaseIndex(1), String::from("p")));
    for detail in ["first", "second"] {
        kept.add(5, phase(), "moved", Some(NodeId::new("a")), detail.into(), 1);
    }
    kept.add(6, phase(), "moved", Some(NodeId::new("b")), "other".into(), 1);
    let TableRows::Events(rows) = kept.take() else { panic!("not events") };
    let told: Vec<(&str, u64)> = rows.iter().map(|row| (row.detail.as_str(), row.count)).collect();
    assert_eq!(told, vec![("first", 2), ("other", 1)]);
}
