//! 200,000 vectors come, four fifths of them go, all come back. `make test-shrink` prints the report.

use fleet_tests::command::run;
use fleet_tests::run::Results;
use fleet_tests::synthetic::run_over;

const ROWS: u64 = 200_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_what_a_vector_costs_what_came_back_and_which_classes_hold_the_rest() {
    let results = Results::new();
    let (directory, report) = run_over("tests/scenarios/shrink.yaml", ROWS, &results).await;
    let shown = run(&["analyze", "summary", &directory]).await.stdout;
    eprintln!("{shown}");

    let at = |name: &str| {
        let found = report.checkpoints.iter().find(|c| c.phase == name).expect("a checkpoint");
        (found, found.figures.as_ref().expect("a complete tick"))
    };
    let ((full, of_full), (small, of_small), (again, of_again)) = (at("full"), at("small"), at("full_again"));
    assert_eq!([full.live, small.live, again.live], [Some(ROWS), Some(ROWS / 5), Some(ROWS)]);
    let each = of_full.net_bytes_per_vector.expect("bytes per vector");
    // Two copies of 128 floats and 33 links are the least that it can be.
    assert!((1_156.0..4_000.0).contains(&each), "{each}");
    let returned = of_small.returned_share.expect("the share that came back");
    assert!((0.2..1.3).contains(&returned), "{returned}");
    // What was freed is used again.
    assert!(of_again.used_bytes < of_full.used_bytes + of_full.used_bytes / 10, "{of_again:?}");
    let classes = small.allocator.as_ref().expect("size classes");
    assert_eq!(classes.classes.iter().map(|c| c.allocated_bytes).sum::<u64>(), classes.allocated_bytes);
    let vectors = classes.classes.iter().find(|c| c.size_bytes == 640).expect("the class of a vector");
    assert!(vectors.free_bytes() > vectors.held_bytes / 5, "{vectors:?}");

    for words in ["net B/vector", "came back", "most of the rest", "of 640 B"] {
        assert!(shown.contains(words), "`{words}` is missing: {shown}");
    }
}
