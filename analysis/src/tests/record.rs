//! Runs that were recorded on real servers and kept (`make record-predict`); they also are runs of an older vst.

use super::*;

fn kept(name: &str) -> String {
    format!("{}/../tests/records/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn fifty_to_two_hundred_thousand_rows_predict_the_measured_memory_of_a_million() {
    let predicted = predict(&[kept("predict_200k")], &[1_000_000], 64.0).await.unwrap();
    assert_eq!(predicted.points.iter().map(|p| p.rows).collect::<Vec<_>>(), [50_000, 100_000, 200_000]);
    let measured = summary(&kept("predict_1m")).await.unwrap();
    let checkpoint = measured.checkpoints.last().unwrap();
    assert_eq!(checkpoint.live, Some(1_000_000));
    let figures = checkpoint.figures.as_ref().unwrap();
    assert_eq!((figures.primaries, figures.index_docs), (3, Some(1_000_000)));
    let measured = figures.net_bytes_per_vector.unwrap() * 1e6;
    let need = &predicted.needs[0];
    let share = need.net_bytes / measured;
    assert!((share - 1.0).abs() < 0.02, "predicted over measured: {share}");
    let (low, high) = need.interval.unwrap();
    assert!(low < measured && measured < high, "{measured} in {low}..{high}");
}

#[tokio::test]
async fn a_run_of_an_older_vst_opens_and_lacks_only_what_it_did_not_record() {
    let sql = "select count(*) as n, count(used_memory) as used, count(process_swap_bytes) as swap,
                      count(distinct node) as nodes from memory";
    let lines = query(&[kept("predict_1m")], sql).await.unwrap().to_json_lines().unwrap();
    let row: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!((row["nodes"].as_u64(), row["swap"].as_u64()), (Some(3), Some(0)), "{lines}");
    // Some ticks of the last checkpoint lack a node: the machine was busy.
    assert!(row["used"].as_u64() >= Some(36) && row["used"].as_u64() <= row["n"].as_u64(), "{lines}");
    assert!(page(&kept("predict_1m")).await.unwrap().contains("whether memory of a large population"));
}
