use super::*;
use crate::limit::Action;

fn sweep(text: &str) -> SweepSection {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn a_sweep_as_a_person_writes_it_begins_at_its_lowest_rate() {
    let section = sweep(
        "phase: query
rate: [500/s, 100k]
constraints: [p99 <= 10ms, 'error_rate <= 0.1%', recall >= 0.95]
grid:
  phases.query.ef_runtime: [50, 100, 200]
  index.m: [16, 32]
",
    );
    let [Action::Measure(ask)] = &section.search().unwrap().actions()[..] else { panic!("drains first") };
    assert_eq!((ask.rate, ask.repeat), (500.0, 1));
    assert_eq!(ask.figures, [Figure::Recall, Figure::P99, Figure::ErrorRate]);
    let settings: Vec<String> = section.settings().iter().map(ToString::to_string).collect();
    assert_eq!(settings.len(), 6);
    assert_eq!(settings[0], "--set index.m=16 --set phases.query.ef_runtime=50");
    assert_eq!(settings[5], "--set index.m=32 --set phases.query.ef_runtime=200");
}

#[test]
fn without_a_grid_there_is_one_setting_that_sets_nothing() {
    let section = sweep("{phase: query, rate: [1/s, 10/s], constraints: [p99 <= 10ms]}");
    assert_eq!(section.settings(), [Setting::default()]);
}

#[test]
fn a_tune_section_names_its_parameters_by_path() {
    let section: TuneSection = serde_saphyr::from_str(
        "maximise: qps
constraints: [recall >= 0.95, memory <= 2GiB/1M]
parameters:
  phases.query.ef_runtime: {log_int: [10, 500], shape: falling}
  index.m: [8, 16, 32]
  index.element_type: [f32, f16]
budget: 60
",
    )
    .unwrap();
    let tune = section.search().unwrap();
    let Some(crate::tune::Action::Measure(ask)) = tune.actions().pop() else { panic!("ends at once") };
    assert_eq!(ask.setting.0.len(), 3);
    assert_eq!(
        serde_saphyr::from_str::<TuneSection>(&serde_json::to_string(&section).unwrap()).unwrap(),
        section
    );
}

#[test]
fn a_comparison_names_what_matters() {
    let section: CompareSection = serde_saphyr::from_str(
        "a: {phases.query.ef_runtime: 100}
b: {phases.query.ef_runtime: 110}
margins: {qps: 0.02, p99: 0.05}
",
    )
    .unwrap();
    assert_eq!(section.b.to_string(), "--set phases.query.ef_runtime=110");
    let Some(crate::compare::Action::Measure(ask)) = section.search().unwrap().actions().pop() else {
        panic!("ends at once")
    };
    assert_eq!(ask.figures, [Figure::Qps, Figure::P99]);
}

#[test]
fn faults_of_a_section_name_key_and_value() {
    let fault = |section: Result<Limit, SectionError>| section.unwrap_err().to_string();
    let with =
        |rate: &str| sweep(&format!("{{phase: query, rate: {rate}, constraints: [p99 <= 10ms]}}")).search();
    assert_eq!(fault(with("[fast, 10/s]")), "`rate`: `fast` is no rate: write it like `5000/s`");
    assert!(fault(with("[20/s, 10/s]")).contains("0 < floor <= start <= ceiling, not 20 <= 20 <= 10"));
    let unknown =
        serde_saphyr::from_str::<TuneSection>("{maximise: speed, parameters: {index.m: [8]}}").unwrap_err();
    assert!(unknown.to_string().contains("`speed` is no figure"), "{unknown}");
    let both: TuneSection =
        serde_saphyr::from_str("{maximise: qps, minimise: p99, parameters: {index.m: [8]}}").unwrap();
    assert_eq!(both.search().unwrap_err(), SectionError::Objective);
    assert!(
        serde_saphyr::from_str::<SweepSection>("{phase: query, rates: [1/s, 2/s], constraints: []}").is_err()
    );
}
