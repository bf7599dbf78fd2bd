//! Rows that others lease: by the clock, and two commands in turn.

use vst_common::mix::Deed;

use super::*;

fn rows_by_the_clock(nodes: u16, rate: f64, connections: u32, timeout_ns: u64) -> Arc<ArmedPhase> {
    let load = Load::Open { arrival: Arrival::Constant { rate }, connections };
    let mut phase = phase(nodes, Work::Ingest(vectors(nodes, false)), load, timeout_ns);
    // The rows end it.
    Arc::get_mut(&mut phase).unwrap().order.duration_ns = 0;
    phase
}

fn block(id: u64, rows: impl Iterator<Item = u64>) -> RowBlock {
    let rows: Vec<(u32, u64)> = rows.map(|row| (0, row)).collect();
    RowBlock { id, vectors: vec![0; rows.len() * 4], rows, ..RowBlock::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn rows_fall_due_by_the_schedule_whatever_holds_them_up(
        nodes in 1u16..4,
        rate in 20f64..400.0,
        connections in 1u32..5,
        timeout_ms in 5u64..2000,
        rows in 1u64..60,
        early in 0u64..60,
        moves in moves(),
    ) {
        let phase = rows_by_the_clock(nodes, rate, connections, timeout_ms * MS);
        let schedule = Schedule::of_order(&phase.order).unwrap();
        let interval_ns = phase.order.interval_ns;
        let mut simulation = Simulation::new(phase);
        // Some rows are there from the beginning, the others come when the phase has been running for a while.
        let early = early.min(rows);
        simulation.pipeline.give(block(1, 0..early));
        let (before, after) = moves.split_at(moves.len() / 2);
        for one in before {
            make(&mut simulation, one);
        }
        simulation.pipeline.give(block(2, early..rows));
        simulation.pipeline.no_more_rows();
        play(&mut simulation, after);
        let mut due: BTreeMap<u64, u64> = BTreeMap::new();
        let mut all = Cell::default();
        for (key, cell) in simulation.pipeline.recorder().take(u64::MAX / 2, true).cells {
            all.merge(&cell);
            if cell.due > 0 {
                *due.entry(key.interval).or_default() += cell.due;
            }
        }
        let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
        for n in 0..rows {
            *expected.entry(schedule.due_ns(n).unwrap() / interval_ns).or_default() += 1;
        }
        prop_assert_eq!(due, expected);
        prop_assert_eq!((all.due, all.ended()), (rows, rows));
        let done: u64 = simulation
            .events
            .iter()
            .map(|event| if let LaneEvent::BlockDone { ok, failed, .. } = event { ok + failed } else { 0 })
            .sum();
        prop_assert_eq!(done, rows, "each row is handed back once");
        check_accounting(&simulation, &all)?;
        // One node may join.
        let slots = usize::from(nodes + 1) * usize::try_from(connections).unwrap();
        prop_assert!(simulation.most_in_flight <= slots, "in flight is bounded by connections x depth");
    }

    #[test]
    fn what_is_exchanged_is_counted_by_command_and_each_pair_is_sent_whole(
        nodes in 1u16..4,
        clients in 1u32..4,
        open in any::<bool>(),
        pairs in 1u64..30,
        moves in moves(),
    ) {
        let load = if open {
            Load::Open { arrival: Arrival::Constant { rate: 200.0 }, connections: clients }
        } else {
            Load::Closed { clients, pipeline: 2 }
        };
        let mut phase = phase(nodes, Work::Churn(vectors(nodes, false)), load, 500 * MS);
        Arc::get_mut(&mut phase).unwrap().order.duration_ns = 0;
        let mut simulation = Simulation::new(phase);
        // Row 2i leaves, row 2i + 1 comes.
        let mut one = block(1, 0..2 * pairs);
        one.vectors.truncate(usize::try_from(pairs).unwrap() * 4);
        simulation.pipeline.give(one);
        simulation.pipeline.no_more_rows();
        play(&mut simulation, &moves);
        let mut cells = simulation.cells();
        let (del, hset) = (cells.remove("del").unwrap(), cells.remove("hset").unwrap());
        prop_assert_eq!((del.due, del.ended(), hset.due, hset.ended()), (pairs, pairs, pairs, pairs));
        let odd = |key: &Vec<u8>| (key.last().unwrap() - b'0') % 2 == 1;
        prop_assert!(simulation.rows_seen.keys().all(odd), "only what comes is written");
        prop_assert!(u64::try_from(simulation.rows_seen.len()).unwrap() >= hset.ok);
        let mut all = del;
        all.merge(&hset);
        check_accounting(&simulation, &all)?;
    }
}

#[test]
fn a_lane_without_rows_sleeps_and_a_late_row_counts_from_its_instant() {
    let mut simulation = Simulation::new(rows_by_the_clock(1, 100.0, 4, 60_000 * MS));
    simulation.step(500 * MS);
    assert_eq!(simulation.pipeline.next_wake(simulation.now), None, "nothing to wake up for");
    simulation.pipeline.give(block(1, 0..1));
    simulation.pipeline.no_more_rows();
    simulation.step(0);
    simulation.run_out();
    let hset = simulation.cells().remove("hset").unwrap();
    let worst = hset.response.unwrap().max().unwrap();
    assert!((500 * MS..520 * MS).contains(&worst), "due at 0, sent at 500 ms: {worst}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_mixed_phase_sends_each_of_its_units_once_as_what_it_is_and_queries_are_judged_as_queries(
        nodes in 1u16..4,
        clients in 1u32..4,
        open in any::<bool>(),
        fan_out in any::<bool>(),
        units in 1u64..80,
        length in 1usize..40,
        moves in moves(),
    ) {
        let load = if open {
            Load::Open { arrival: Arrival::Constant { rate: 200.0 }, connections: clients }
        } else {
            Load::Closed { clients, pipeline: 2 }
        };
        let live = LiveSet::empty(1, 1000, 1).keep(0.5);
        let weights = vst_common::mix::MixWeights { query: 3, ingest: 2, delete: 1, update: 1 };
        let work = Work::Mixed {
            vectors: VectorWork { live, ..vectors(nodes, fan_out) },
            ask: vst_common::scenario::Ask::nearest(1, None),
            weights,
            units,
        };
        let mix = work.mix().unwrap();
        let mut phase = phase(nodes, work, load, 500 * MS);
        Arc::get_mut(&mut phase).unwrap().order.duration_ns = 0;
        let mut simulation = Simulation::new(phase);
        let numbers: Vec<u64> = (0..units).collect();
        let mut written = BTreeMap::new();
        let mut planned: BTreeMap<&str, u64> = BTreeMap::new();
        for (id, part) in (1..).zip(numbers.chunks(length)) {
            let mut block = RowBlock { id, first: part[0], ..RowBlock::default() };
            for unit in part {
                let (operation, position, writes) = match mix.deed(*unit) {
                    Deed::Query => ("knn", None, false),
                    Deed::Ingest(position) => ("hset", Some(position), true),
                    Deed::Update(position) => ("update", Some(position), true),
                    Deed::Delete(position) => ("del", Some(position), false),
                };
                *planned.entry(operation).or_default() += 1;
                let cell = position.map_or((0, 0), |position| live.cell_at(position).unwrap());
                block.rows.push(cell);
                if writes {
                    // The row's own number for a vector shows whether each key gets the vector that is its own.
                    let vector = u32::try_from(cell.1).unwrap().to_le_bytes();
                    block.vectors.extend(vector);
                    written.insert(format!("p:{:012}", cell.1).into_bytes(), vector.to_vec());
                }
            }
            simulation.pipeline.give(block);
        }
        simulation.pipeline.no_more_rows();
        play(&mut simulation, &moves);
        prop_assert!(simulation.vectors_seen.iter().all(|(key, vector)| written.get(key) == Some(vector)));
        let mut done = 0;
        for event in &simulation.events {
            if let LaneEvent::BlockDone { ok, failed, .. } = event {
                done += ok + failed;
            }
        }
        prop_assert_eq!(done, units, "every unit is accounted for in its block");
        let mut cells = simulation.cells();
        let parts = cells.remove("knn_part");
        for (operation, count) in &planned {
            let cell = &cells[*operation];
            prop_assert_eq!((cell.due, cell.ended()), (*count, *count), "{}", operation);
        }
        prop_assert_eq!(cells.len(), planned.len());
        let mut all = Cell::default();
        let whole = if fan_out { parts } else { cells.remove("knn") };
        whole.iter().for_each(|cell| all.merge(cell));
        for operation in ["hset", "del", "update"] {
            cells.get(operation).into_iter().for_each(|cell| all.merge(cell));
        }
        check_accounting(&simulation, &all)?;
    }
}
