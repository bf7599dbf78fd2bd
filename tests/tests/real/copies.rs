//! Copies of a base keep its truth: on an exact index recall is 1 in every copy, whatever has been deleted.

use std::path::Path;

use fleet_tests::cluster::Servers;
use fleet_tests::command::{project, run};
use fleet_tests::run::{Results, phase};
use vst_analysis::Summary;
use vst_common::dataset::{open_store, resolve};
use vst_common::expand;
use vst_common::ground_truth::GroundTruth;
use vst_common::live_set::LiveSet;

const SCENARIO: &str = "tests/scenarios/copies.yaml";
const ROWS: u64 = 10_000;

async fn truth(reference: &str) -> GroundTruth {
    let url = resolve(reference, Path::new(project())).expect("location");
    let (store, path) = open_store(&url).expect("store");
    GroundTruth::open(store, path, url).await.expect("truth")
}

/// The share of (query, copy) pairs of which fewer than k listed neighbours live.
fn masked_share(truth: &GroundTruth, live: LiveSet, k: usize) -> f64 {
    let queries = u64::from(truth.queries);
    let pairs: Vec<(u64, u32)> =
        (0..expand::pairs(queries, live.copies)).map(|p| expand::pair(p, queries, live.copies)).collect();
    let masked = pairs.iter().filter(|(query, copy)| {
        let ids = truth.ids(u32::try_from(*query).expect("small"));
        ids.iter().filter(|id| live.is_live(*copy, u64::from(**id))).count() < k
    });
    masked.count() as f64 / pairs.len() as f64
}

fn is_perfect(report: &Summary, name: &str, copies: usize) {
    let recall = phase(report, name).recall.as_ref().expect("a query phase has recall");
    assert_eq!(recall.recall, Some(1.0), "{name}: {recall:?}");
    assert_eq!(recall.by_copy.len(), copies, "{name}: {recall:?}");
    for copy in &recall.by_copy {
        assert_eq!(copy.recall, Some(1.0), "{name}: {copy:?}");
        assert!(copy.answers > 0, "{name}: {copy:?}");
        assert_eq!((copy.ghosts, copy.contamination, copy.duplicates, copy.partial), (0, 0, 0, 0), "{name}");
    }
}

async fn exact_everywhere(metric: &str, ground_truth: &str, expected: &str) {
    let servers = Servers::standalone().await;
    let results = Results::new();
    let set = [format!("index.metric={metric}"), format!("dataset.ground_truth={ground_truth}")];
    let url = servers.url();
    let (output, report) =
        results.run(&["scenario", SCENARIO, "--target", &url, "--set", &set[0], "--set", &set[1]]).await;
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    let facts = run(&["validate", "scenario", SCENARIO, "--set", &set[0], "--set", &set[1]]).await;
    assert!(facts.stdout.contains(expected), "{}", facts.stdout);

    for name in ["query_full", "query_half", "query_tenth", "query_twentieth"] {
        is_perfect(&report, name, 5);
    }
    let masked = |name: &str| {
        let recall = phase(&report, name).recall.as_ref().expect("recall");
        recall.masked as f64 / recall.answers as f64
    };
    assert_eq!((masked("query_full"), masked("query_half")), (0.0, 0.0));
    // Known beforehand; requests draw pairs at random. Bound: five standard deviations of a share of the answers.
    let tenth = masked_share(&truth(ground_truth).await, LiveSet::empty(1, ROWS, 5).keep(0.1), 10);
    let answers = phase(&report, "query_tenth").recall.as_ref().expect("recall").answers as f64;
    assert!(tenth > 0.3 && tenth < 0.5, "{tenth}");
    let bound = 5.0 * (tenth * (1.0 - tenth) / answers).sqrt();
    assert!((masked("query_tenth") - tenth).abs() < bound, "{} for {tenth}", masked("query_tenth"));
    // Past half masked the truth is computed anew.
    let twentieth = masked_share(&truth(ground_truth).await, LiveSet::empty(1, ROWS, 5).keep(0.05), 10);
    assert!(twentieth > 0.5, "{twentieth}");
    assert_eq!(masked("query_twentieth"), 0.0);

    // What is in the server is the live set of five copies, by key.
    let live = LiveSet::empty(1, ROWS, 5).keep(0.05);
    let keys = servers.keys_under("vst:").await;
    let mut own: Vec<String> = (0..5_u32)
        .flat_map(|copy| (0..ROWS).filter(move |row| live.is_live(copy, *row)).map(move |row| (copy, row)))
        .map(|(copy, row)| match copy {
            0 => format!("vst:{row:012}"),
            _ => format!("vst:expand_{copy}_{row:012}"),
        })
        .collect();
    own.sort();
    assert_eq!(keys, own);
}

async fn computed_truth(metric: &str, folder: &tempfile::TempDir) -> String {
    let out = folder.path().join("truth.bin").to_string_lossy().into_owned();
    let data = |name: &str| format!("data/bigann10k/{name}");
    let output = run(&[
        "dataset",
        "ground-truth",
        "--base",
        &data("base.u8bin"),
        "--queries",
        &data("query.u8bin"),
        "--metric",
        metric,
        "--out",
        &out,
    ])
    .await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn under_l2_every_copy_has_the_truth_of_the_base() {
    let truth = project().join("data/bigann10k/groundtruth.bin").canonicalize().expect("file");
    exact_everywhere("l2", &truth.to_string_lossy(), "translation").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_cosine_and_inner_product_lifted_copies_have_the_truth_of_the_base() {
    for metric in ["cosine", "inner_product"] {
        let folder = tempfile::tempdir().expect("folder");
        let truth = computed_truth(metric, &folder).await;
        exact_everywhere(metric, &truth, "lift").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permuted_copies_are_estimated_and_the_estimate_stands_in_the_report() {
    let servers = Servers::standalone().await;
    let results = Results::new();
    let folder = tempfile::tempdir().expect("folder");
    let truth = format!("dataset.ground_truth={}", computed_truth("cosine", &folder).await);
    let url = servers.url();
    let mut args = vec!["scenario", SCENARIO, "--target", &url, "--set", &truth];
    for set in [
        "index.metric=cosine",
        "population.expansion=permutation",
        "population.copies=2",
        "phases.query_full.query.duration=2s",
        "phases.query_half.query.duration=1s",
        "phases.query_tenth.query.duration=1s",
        "phases.query_twentieth.query.duration=1s",
    ] {
        args.extend(["--set", set]);
    }
    let (output, report) = results.run(&args).await;
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    let said = report.setting.copies.as_deref().expect("how the copies are made");
    for part in ["2 copies by signed permutation", "not proved", "about 0.0000 foreign keys"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The estimate holds: nothing of the other copy comes, and the base's truth is that of both.
    is_perfect(&report, "query_full", 2);
    is_perfect(&report, "query_half", 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn ground_truth_is_the_published_one_also_in_shards() {
    let folder = tempfile::tempdir().expect("folder");
    let out = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let data = ["--base", "data/bigann10k/base.u8bin", "--queries", "data/bigann10k/query.u8bin"];
    let (whole, one, two, merged) = (out("whole"), out("1"), out("2"), out("merged"));
    for extra in [
        &["--out", &whole][..],
        &["--out", &one, "--shard", "1/2"],
        &["--out", &two, "--shard", "2/2"],
        &["--out", &merged, "--merge", &one, &two],
    ] {
        let output = run(&[&["dataset", "ground-truth"], &data[..], extra].concat()).await;
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
    let (whole, merged) = (truth(&whole).await, truth(&merged).await);
    assert_eq!(whole, merged);
    assert_eq!(whole.distances, truth("data/bigann10k/groundtruth.bin").await.distances);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_expansion_is_refused_with_its_numbers_and_a_good_one_is_printed() {
    let folder = tempfile::tempdir().expect("folder");
    let file = |name: &str, rows: &[f32]| {
        let n = u32::try_from(rows.len()).expect("few");
        let mut bytes = [n.to_le_bytes(), 1_u32.to_le_bytes()].concat();
        bytes.extend(rows.iter().flat_map(|x| x.to_le_bytes()));
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.to_string_lossy().into_owned()
    };
    let (base, queries) = (file("base.fbin", &[-1.0, 1.0]), file("q.fbin", &[1.0]));
    let args = ["dataset", "expand", "--base", &base, "--queries", &queries, "--copies", "2"];
    let output = run(&[&args[..], &["--delta", "2"]].concat()).await;
    assert_eq!(output.code, 3, "{}", output.stderr);
    for word in ["|V| = 2", "NormMax = 1", "as near as 0"] {
        assert!(
            output.stderr.split_whitespace().collect::<Vec<_>>().join(" ").contains(word),
            "{}",
            output.stderr
        );
    }
    let output = run(&[&args[..], &["--json"]].concat()).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let plan: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    // More than width and reach together, 4; an eighth of a power of two is the step.
    assert_eq!(plan["delta"], 4.5, "{plan}");
}
