use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use vst_common::batch::Stamp;
use vst_common::batch::memory::{from_batch, to_batch};
use vst_common::ids::{Generation, RunId, Sequence, WorkerId};

use super::*;

/// `INFO memory keyspace search` of a Valkey 9.1.2 with RediSearch 2.10.5, five rows indexed and one refused.
const INFO: &str = include_str!("valkey-9.1.2.info.txt");

fn nothing() -> MemoryRow {
    let sample = Sample {
        tick: 1,
        sampled_at: 0,
        took_ns: 0,
        phase: String::new(),
        phase_index: PhaseIndex(0),
        node: NodeId::new("n"),
        role: String::from("primary"),
        missing: None,
    };
    row::nothing(sample, String::from("127.0.0.1:1"))
}

fn answered(info: &str) -> MemoryRow {
    row::fill(nothing(), Ok(Answer { info: info.to_owned(), index: None, process: None }))
}

#[test]
fn a_recorded_info_fills_the_columns() {
    let row = answered(INFO);
    assert_eq!(row.sample.missing, None);
    assert_eq!(row.keys, Some(6));
    assert_eq!(row.module_used_memory_bytes, Some(584));
    assert_eq!(row.module_reclaimable_bytes, None);
    assert_eq!(row.index_docs, None);
    let stamp = Stamp {
        run: RunId::new("r"),
        worker: WorkerId::new("w"),
        generation: Generation(1),
        sequence: Sequence(1),
    };
    let rows = from_batch(&to_batch(&stamp, &[row]).unwrap()).unwrap();
    let info = &rows[0].1.info;
    assert_eq!(info.get("used_memory").map(String::as_str), Some("1521168"));
    assert_eq!(info.get("mem_fragmentation_ratio").map(String::as_str), Some("7.79"));
    assert_eq!(info.get("mem_allocator").map(String::as_str), Some("libc"));
}

#[test]
fn an_empty_database_has_no_keys_and_a_silent_node_has_no_figures() {
    let empty = INFO.replace("db0:keys=6,", "db7:keys=6,");
    assert_eq!(answered(&empty).keys, Some(0));
    let silent = row::fill(nothing(), Err("no answer within 250 ms".into()));
    assert_eq!(silent.sample.missing.as_deref(), Some("no answer within 250 ms"));
    assert_eq!((silent.keys, silent.info.len()), (None, 0));
    let denied = answered("# Keyspace\r\n");
    assert!(denied.sample.missing.is_some() && denied.keys.is_none());
}

proptest! {
    /// Whatever the worker's own clock and the time of its question, ticks are the same instants for everyone, each
    /// lies ahead and none comes twice.
    #[test]
    fn ticks_are_the_multiples_of_the_interval_on_the_coordinators_clock(
        theirs in 2_000_000_000u64..1 << 50, own in 1u64 << 40..1 << 50, interval in 10_000_000u64..60_000_000_000, late in 0u64..3,
    ) {
        let clock = ClockOffset { offset_ns: i64::try_from(theirs).unwrap() - i64::try_from(own).unwrap(), error_ns: 0 };
        let (tick, at) = next_tick(own, clock, interval, 0);
        prop_assert!(tick * interval > theirs && (tick - 1) * interval <= theirs);
        if clock.offset_ns >= 0 || tick * interval >= clock.offset_ns.unsigned_abs() {
            prop_assert_eq!(i128::from(at) + i128::from(clock.offset_ns), i128::from(tick * interval));
        }
        let (next, _) = next_tick(own, clock, interval, tick + late);
        prop_assert_eq!(next, tick + late + 1);
    }
}

proptest! {
    /// Of ticks without a gap, whatever their distance, one in each slow interval asks for size classes.
    #[test]
    fn size_classes_are_asked_for_once_in_each_slow_interval(
        first in 1u64..1 << 24, interval in 10_000_000u64..60_000_000_000, ticks in 2u64..2_000,
        apart_ns in 100_000_000u64..20_000_000_000,
    ) {
        let mut asked: Vec<u64> = Vec::new();
        let mut slow = None;
        for tick in first..first + ticks {
            let of = slow_tick(tick, interval, apart_ns);
            if slow.replace(of) != Some(of) {
                asked.push(tick * interval);
            }
        }
        // The first is wherever the observation began.
        for pair in asked[1..].windows(2) {
            let apart = pair[1] - pair[0];
            prop_assert!(apart + interval > apart_ns && apart < apart_ns.max(interval) + interval, "{}", apart);
        }
        let length = (ticks - 1) * interval;
        prop_assert!(asked.len() as u64 >= length / apart_ns.max(interval));
    }
}

/// A node that answers `INFO` and refuses everything else.
async fn talkative(listener: TcpListener) {
    loop {
        let Ok((mut socket, _)) = listener.accept().await else { return };
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(n) = socket.read(&mut buffer).await
                && n > 0
            {
                // One reply for each command of the read: the client's greeting may come in one packet.
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                for command in text.split('*').filter(|c| !c.is_empty()) {
                    let reply = if command.contains("\nINFO\r\n") {
                        format!("${}\r\n{INFO}\r\n", INFO.len())
                    } else if command.contains("\nFT.INFO\r\n") {
                        String::from("-vst_index: no such index\r\n")
                    } else {
                        String::from("+OK\r\n")
                    };
                    let _ = socket.write_all(reply.as_bytes()).await;
                }
            }
        });
    }
}

#[tokio::test]
async fn each_node_gives_one_row_per_tick_and_a_silent_one_says_why() {
    let speaking = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [speaking.local_addr().unwrap(), silent.local_addr().unwrap()];
    tokio::spawn(talkative(speaking));
    let (rows, mut sampled) = tokio::sync::mpsc::unbounded_channel();
    let sampler = spawn(Credentials::default(), rows);
    let node = |i: usize| fleet::Node {
        id: format!("n{i}"),
        address: addresses[i].to_string(),
        role: "primary".into(),
    };
    sampler.observe(
        fleet::Observe {
            nodes: vec![node(0), node(1)],
            interval_ns: 50_000_000,
            phase: 3,
            phase_name: "settle".into(),
            indexes: vec!["vst_index".into(), String::new()],
            size_classes_ns: 5_000_000_000,
        }
        .into(),
    );
    sampler.clock(ClockOffset { offset_ns: 1_000_000_007, error_ns: 0 });
    let mut seen: Vec<MemoryRow> = Vec::new();
    let mut classes: Vec<AllocatorRow> = Vec::new();
    while seen.len() < 8 {
        match sampled.recv().await.unwrap() {
            Sampled::Memory(row) => seen.push(*row),
            Sampled::Allocator(rows) => classes.extend(rows),
        }
    }
    drop(sampler);
    // The first tick of the phase asks for size classes, and this node does not know them.
    let (first, class) = (&classes[0].sample, classes[0].class);
    assert_eq!((first.node.as_str(), first.phase_index, class), ("n0", PhaseIndex(3), None));
    assert_eq!(first.missing.as_deref(), Some("no jemalloc statistics: `OK`"));
    for node in ["n0", "n1"] {
        let mut ticks: Vec<u64> =
            seen.iter().map(|r| &r.sample).filter(|s| s.node.as_str() == node).map(|s| s.tick).collect();
        assert!(ticks.len() >= 3, "{ticks:?}");
        let n = ticks.len();
        ticks.dedup();
        assert_eq!(ticks.len(), n, "two rows of {node} for one tick");
    }
    for row in &seen {
        let sample = &row.sample;
        assert_eq!((sample.phase.as_str(), sample.phase_index), ("settle", PhaseIndex(3)));
        if sample.node.as_str() == "n1" {
            assert!(
                sample.missing.as_deref().is_some_and(|why| why.contains("no answer within 50 ms")),
                "{row:?}"
            );
            assert_eq!(row.keys, None);
        } else if sample.missing.is_none() {
            assert_eq!((row.keys, row.index_docs), (Some(6), None));
        }
    }
    assert!(
        seen.iter().map(|r| &r.sample).any(|s| s.node.as_str() == "n0" && s.missing.is_none()),
        "{seen:?}"
    );
}
