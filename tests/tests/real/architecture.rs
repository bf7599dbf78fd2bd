//! The house: data flows one way.

use fleet_tests::command::project;
use fleet_tests::layers::{against_the_flow, stages_without_file};

#[test]
fn no_stage_imports_one_to_its_right() {
    assert_eq!(stages_without_file(project()), Vec::<String>::new(), "the list of stages follows the code");
    assert_eq!(against_the_flow(project()), Vec::<String>::new());
}
