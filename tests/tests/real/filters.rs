//! Filtered queries: exact among what the filter matches, whichever way it is asked; a server that ignores the filter
//! does not score.

use fleet_tests::cluster::Servers;
use fleet_tests::command::{project, run};
use fleet_tests::liar::{Liar, Lie};
use fleet_tests::run::{Results, assert_sound, phase};
use vst_analysis::{RecallSummary, Summary};

const FILTERED: [&str; 6] =
    ["tag_tenth", "tag_half", "number_tenth", "number_half", "tag_tenth_of_half", "number_half_of_half"];

fn recall<'a>(report: &'a Summary, name: &str) -> &'a RecallSummary {
    phase(report, name).recall.as_ref().expect("a query phase has recall")
}

fn is_exact(report: &Summary, name: &str) {
    let recall = recall(report, name);
    assert_eq!(recall.recall, Some(1.0), "{name}: {recall:?}");
    let faults = (recall.ghosts, recall.contamination, recall.duplicates, recall.partial, recall.masked);
    assert_eq!(faults, (0, 0, 0, 0, 0), "{name}: {recall:?}");
    assert!(recall.by_copy.iter().all(|copy| copy.answers > 0), "{name}: {recall:?}");
}

fn scenario() -> String {
    project().join("tests/scenarios/filters.yaml").to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn filtered_answers_are_exact_on_every_primary_of_a_cluster() {
    let servers = Servers::cluster().await;
    let (output, report) = Results::new().run(&["scenario", &scenario(), "--target", &servers.url()]).await;
    assert_sound(&output, &report);
    for name in FILTERED.iter().chain(&["all"]) {
        is_exact(&report, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_alone_and_whole_rows_can_be_asked_of_one_node_and_are_refused_where_answers_are_merged() {
    let servers = Servers::standalone().await;
    let set = ["--set", "phases.tag_tenth.returns=nothing", "--set", "phases.number_half.returns=row"];
    let file = scenario();
    let args = |url: &str| -> Vec<String> {
        let fixed = ["scenario", &file, "--target", url];
        fixed.iter().chain(&set).map(|arg| (*arg).to_owned()).collect()
    };
    let own = args(&servers.url());
    let (output, report) = Results::new().run(&own.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_sound(&output, &report);
    FILTERED.iter().for_each(|name| is_exact(&report, name));
    drop(servers);

    let cluster = Servers::cluster().await;
    let own = args(&cluster.url());
    let output = run(&[&["run"], &own.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat()).await;
    assert_eq!(output.code, 3, "{}\n{}", output.stdout, output.stderr);
    for word in ["keys alone", "whole rows", "returns: distance"] {
        assert!(output.stderr.contains(word), "{}", output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_the_filter_does_not_score() {
    let servers = Servers::standalone().await;
    let upstream = servers.url().rsplit('/').next().expect("host:port").to_owned();
    let liar = Liar::start(&upstream, Lie::IgnoresFilters).await;
    let (_, report) = Results::new().run(&["scenario", &scenario(), "--target", &liar.url()]).await;
    is_exact(&report, "all");
    for name in FILTERED {
        let recall = recall(&report, name);
        assert!(recall.recall.expect("judged") < 0.7, "{name}: {recall:?}");
        assert!(recall.contamination > 0, "{name}: {recall:?}");
    }
}
