//! Each finding is made when its cause is there, and not without it.

use vst_common::batch::memory::parse_info;
use vst_common::latency::Hdr;
use vst_common::scenario::Load;

use super::*;

fn found(summary: &Summary, rule: Rule) -> Vec<&Note> {
    summary.verdict.findings.iter().filter(|note| note.rule == rule).collect()
}

/// A run that grows, shrinks and grows again to where it was; then every node uses `more` bytes.
async fn again(more: u64, strangers: u64) -> Summary {
    made(move |m| {
        let closed = Load::Closed { clients: 4, pipeline: 8 };
        m.mutation("again", "ingest", "hset", closed, 4_500, 9_000);
        m.quiet("full_again", "checkpoint", 9_000, 30_000_000 + 9_000 * 2_000 + 3 * more);
        for row in &mut m.find("full_again").memory {
            row.keys = row.keys.map(|n| n + strangers);
        }
    })
    .await
}

#[tokio::test]
async fn memory_that_grows_at_equal_population_is_a_leak() {
    // The checkpoints are 100 s apart: 30 MB in all are 1.08 GB an hour.
    let leaky = again(10_000_000, 0).await;
    let notes = found(&leaky, Rule::Leak);
    assert_eq!(notes.len(), 1, "{:?}", leaky.verdict.findings);
    assert!(notes[0].text.contains("9,000 live rows") && notes[0].text.contains("try:"), "{}", notes[0].text);
    let stranger = again(10_000_000, 40_000).await;
    let notes = found(&stranger, Rule::Leak);
    assert!(
        notes[0].text.contains("120,000 keys more") && notes[0].text.contains("who else"),
        "{}",
        notes[0].text
    );
    assert_eq!(found(&again(0, 0).await, Rule::Leak), Vec::<&Note>::new(), "flat");
    // 2.7 MB in 100 s are 97 MB an hour.
    assert_eq!(found(&again(900_000, 0).await, Rule::Leak), Vec::<&Note>::new(), "under the bound");
}

#[tokio::test]
async fn growth_within_the_noise_is_no_leak() {
    let noisy = made(|m| {
        let closed = Load::Closed { clients: 4, pipeline: 8 };
        m.mutation("again", "ingest", "hset", closed, 4_500, 9_000);
        m.quiet("full_again", "checkpoint", 9_000, 48_000_000 + 9_000_000);
        for (i, row) in m.find("full_again").memory.iter_mut().enumerate() {
            let used = 16_000_000 + [0, 6_000_000, 3_000_000][i / 3];
            row.info = parse_info(&format!("used_memory:{used}\nused_memory_rss:{used}\n"));
        }
    })
    .await;
    assert_eq!(found(&noisy, Rule::Leak), Vec::<&Note>::new());
}

#[tokio::test]
async fn memory_that_stays_after_a_shrink_is_found() {
    let kept = made(|m| {
        for row in &mut m.find("half").memory {
            row.info = parse_info("used_memory:15000000\nused_memory_rss:22000000\n");
        }
    })
    .await;
    let notes = found(&kept, Rule::NotReturned);
    assert!(notes[0].text.contains("of what 4,500 removed rows held"), "{}", notes[0].text);
    let notes = found(&kept, Rule::Fragmentation);
    assert!(notes[0].text.contains("from 1.10 to 1.47"), "{}", notes[0].text);
}

#[tokio::test]
async fn what_a_shrink_leaves_behind_is_named_by_size_class() {
    let shrunk = made(|m| {
        m.classes("baseline", &[(64, 100_000, 120_000), (640, 0, 0)]);
        m.classes("full", &[(64, 1_000_000, 1_010_000), (640, 8_000_000, 8_100_000)]);
        // Half of the rows went: the vectors' class is free within its slabs, the links' class is still in use.
        m.classes("half", &[(64, 900_000, 1_000_000), (640, 4_000_000, 8_100_000)]);
        for row in &mut m.find("half").memory {
            row.info = parse_info("used_memory:15000000\nused_memory_rss:15100000\n");
        }
    })
    .await;
    let text = &found(&shrunk, Rule::Fragmentation)[0].text;
    // Three nodes: 27.3 MB of pages for 14.7 MB.
    assert!(
        text.contains("26.0 MiB of pages for 14.0 MiB in use (1.86 for each byte, 1.01 before)"),
        "{text}"
    );
    assert!(
        text.contains("most in: 11.7 MiB of 640 B (49.4 % in use), 293 KiB of 64 B (90.0 % in use)"),
        "{text}"
    );
    let text = &found(&shrunk, Rule::NotReturned)[0].text;
    // 900,000 less what was there at the baseline (100,000) and half of what the rows before held (450,000).
    assert!(text.contains("in size classes: 1.00 MiB of 64 B;"), "{text}");
    let half = shrunk.checkpoints.last().unwrap().allocator.as_ref().unwrap();
    assert_eq!((half.primaries, half.allocated_bytes, half.took_ns), (3, 14_700_000, 1_000_000));
    assert_eq!(half.classes.iter().map(|c| c.allocated_bytes).sum::<u64>(), half.allocated_bytes);
    let shown = render_terminal(&shrunk, false);
    assert!(shown.contains("Size classes of the primaries' allocators"), "{shown}");
}

#[tokio::test]
async fn an_allocator_that_one_primary_does_not_show_is_not_summed() {
    let partly = made(|m| {
        m.classes("full", &[(64, 1_000_000, 1_010_000)]);
        for row in m.find("full").allocator.iter_mut().filter(|r| r.sample.node.as_str() == NODES[1]) {
            (row.class, row.totals) = (None, None);
            row.sample.missing = Some(String::from("no jemalloc statistics: `Stats not supported`"));
        }
    })
    .await;
    assert!(partly.checkpoints.iter().all(|c| c.allocator.is_none()), "{:?}", partly.checkpoints);
}

#[tokio::test]
async fn recall_that_falls_after_churn_is_found() {
    let fell = |hits: u64| {
        made(move |m| {
            for row in &mut m.find("ask_again").recall {
                row.cell.hits = row.cell.hits * hits / 100;
            }
        })
    };
    let notes = fell(90).await;
    let notes = found(&notes, Rule::RecallDrop);
    assert_eq!(notes[0].phase.as_deref(), Some("ask_again"));
    assert!(notes[0].text.contains("EF_RUNTIME"), "{}", notes[0].text);
    assert_eq!(found(&fell(99).await, Rule::RecallDrop), Vec::<&Note>::new());
}

#[tokio::test]
async fn a_node_that_is_slower_than_the_others_is_found() {
    let slow = |ns: u64| {
        made(move |m| {
            let rows = m.find("ask").latency.iter_mut().flatten();
            for row in rows.filter(|r| r.operation == "knn_part" && r.node.as_str() == NODES[2]) {
                let mut service = Hdr::new();
                (0..row.cell.ok).for_each(|i| {
                    service.record(ns + i);
                });
                row.cell.service = Some(service);
            }
        })
    };
    let found_slow = slow(5_000_000).await;
    let notes = found(&found_slow, Rule::Outlier);
    assert_eq!(notes.len(), 1);
    assert!(notes[0].text.contains("node node-c"), "{}", notes[0].text);
    assert_eq!(found(&slow(700_000).await, Rule::Outlier), Vec::<&Note>::new());
}

#[tokio::test]
async fn a_busy_lane_and_a_busy_server_are_told_apart() {
    let busy = made(|m| {
        m.find("ask").health[0].iter_mut().for_each(|row| row.busy_ns = 960_000_000);
        let ticks = m.find("full").memory.clone();
        let phase = m.find("ask_again");
        for mut row in ticks {
            row.sample.phase_index = phase.started.index;
            row.sample.tick += 5_000;
            row.sample.sampled_at =
                phase.started.start_wall_ns + i64::try_from(row.sample.tick % 10).unwrap() * 4_000_000_000;
            let cpu = if row.sample.node.as_str() == NODES[1] { 4.0 } else { 1.0 };
            let main = f64::from(u32::try_from(row.sample.tick % 10).unwrap()) * cpu;
            row.info.insert(String::from("used_cpu_user_main_thread"), main.to_string());
            row.info.insert(String::from("used_cpu_sys_main_thread"), String::from("0.5"));
            phase.memory.push(row);
        }
    })
    .await;
    let notes = found(&busy, Rule::ClientBound);
    assert_eq!((notes.len(), notes[0].phase.as_deref()), (1, Some("ask")));
    let notes = found(&busy, Rule::Bottleneck);
    assert_eq!(
        (notes.len(), notes[0].phase.as_deref()),
        (1, Some("ask_again")),
        "{:?}",
        busy.verdict.findings
    );
    assert!(notes[0].text.contains("node node-b"), "{}", notes[0].text);
}

#[tokio::test]
async fn a_rate_that_decays_is_found_and_one_that_swings_is_not() {
    let flat = made(|_| {}).await;
    let load = flat.phases.iter().find(|p| p.name == "load").unwrap();
    let course = |shape: &dyn Fn(u64) -> u64| crate::course::Course {
        load: (0..60)
            .map(|i| crate::course::LoadPoint {
                phase_index: load.index,
                operation: String::from("hset"),
                measured: true,
                start_ns: i64::try_from(i).unwrap() * 1_000_000_000,
                length_ns: 1_000_000_000,
                due: shape(i),
                ok: shape(i),
                errors: 0,
                unanswered: 0,
                response_p50_ns: None,
                response_p99_ns: None,
                response_p9999_ns: None,
                service_p50_ns: None,
                service_p99_ns: None,
                service_p9999_ns: None,
            })
            .collect(),
        ticks: Vec::new(),
    };
    let decay = |shape: &dyn Fn(u64) -> u64| {
        let phases = std::slice::from_ref(load);
        let notes = crate::findings::all(phases, &[], &[], &course(shape));
        notes.iter().filter(|note| note.rule == Rule::Decay).count()
    };
    assert_eq!(decay(&|i| 4_000 - 20 * i + (i % 3) * 30), 1);
    assert_eq!(decay(&|i| 4_000 + (i % 3) * 30), 0);
    assert_eq!(decay(&|i| 4_000 + 10 * i), 0, "faster is no decay");
    assert_eq!(decay(&|i| if (i / 15) % 2 == 0 { 4_000 } else { 2_000 }), 0, "a swing is no trend");
    assert_eq!(decay(&|i| 4_000 - 4 * i), 0, "under the bound");
}
