//! Operations and hooks: what is written is read back, from a scenario and from an environment.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::super::Step;
use super::super::super::operations::{
    AddNodeSpec, CommandRun, FailoverHow, FailoverSpec, Hook, Hooks, MigrateSpec, OnFailure, Operation,
    RemoveNodeSpec,
};
use super::super::{config, parse};
use super::{messages, shown};

fn words() -> impl Strategy<Value = Vec<String>> {
    ("[a-z./]{1,9}", vec("[ -~]{0,12}|\\$\\{[A-Z]+\\}", 0..4))
        .prop_map(|(program, args)| std::iter::once(program).chain(args).collect())
}

fn command() -> impl Strategy<Value = CommandRun> {
    (words(), 1..=3_600_000u64, select(vec![OnFailure::Continue, OnFailure::Stop]))
        .prop_map(|(run, timeout_ms, on_failure)| CommandRun { run, timeout_ms, on_failure })
}

fn hook(until_end: bool) -> impl Strategy<Value = Hook> {
    (command(), any::<bool>(), select(vec![vec![], vec![String::from("rest")]]))
        .prop_map(move |(command, lasts, phases)| Hook { command, until_end: until_end && lasts, phases })
}

fn hooks() -> impl Strategy<Value = Hooks> {
    (vec(hook(true), 0..3), vec(hook(false), 0..3))
        .prop_map(|(on_phase_start, on_phase_end)| Hooks { on_phase_start, on_phase_end })
}

fn operation() -> impl Strategy<Value = Operation> {
    let how = select(vec![FailoverHow::Orderly, FailoverHow::Force, FailoverHow::Takeover]);
    let shares = select(vec![vec![], vec![1.0], vec![0.6, 0.3, 0.1], vec![0.25, 0.25, 0.5]]);
    let ms = 1..=3_600_000u64;
    prop_oneof![
        (1..=1000u32, how, ms.clone()).prop_map(|(primary, how, timeout_ms)| Operation::Failover(
            FailoverSpec { primary, how, timeout_ms }
        )),
        (shares, ms.clone())
            .prop_map(|(shares, timeout_ms)| Operation::MigrateSlots(MigrateSpec { shares, timeout_ms })),
        ("[a-z]{1,9}:[1-9][0-9]{3}", option::of(1..=1000u32), ms.clone()).prop_map(
            |(address, replica_of, timeout_ms)| Operation::AddNode(AddNodeSpec {
                address,
                replica_of,
                timeout_ms
            })
        ),
        ("[a-z]{1,9}:[1-9][0-9]{3}", ms)
            .prop_map(|(address, timeout_ms)| Operation::RemoveNode(RemoveNodeSpec { address, timeout_ms })),
        command().prop_map(Operation::Command),
    ]
}

fn quoted(words: &[String]) -> String {
    serde_json::to_string(words).unwrap().replace("${", "$${")
}

fn yaml(operation: &Operation) -> String {
    match operation {
        Operation::Failover(spec) => {
            let how = serde_json::to_string(&spec.how).unwrap();
            format!("{{primary: {}, how: {how}, timeout: {}ms}}", spec.primary, spec.timeout_ms)
        }
        Operation::MigrateSlots(spec) => {
            let shares: Vec<String> = spec.shares.iter().map(|share| format!("{}%", share * 100.0)).collect();
            let shares =
                if shares.is_empty() { String::from("even") } else { format!("[{}]", shares.join(", ")) };
            format!("{{shares: {shares}, timeout: {}ms}}", spec.timeout_ms)
        }
        Operation::AddNode(spec) => {
            let of = spec.replica_of.map(|n| format!("replica_of: {n}, ")).unwrap_or_default();
            format!("{{address: \"{}\", {of}timeout: {}ms}}", spec.address, spec.timeout_ms)
        }
        Operation::RemoveNode(spec) => {
            format!("{{address: \"{}\", timeout: {}ms}}", spec.address, spec.timeout_ms)
        }
        Operation::Command(spec) => {
            let on_failure = serde_json::to_string(&spec.on_failure).unwrap();
            format!(
                "{{run: {}, timeout: {}ms, on_failure: {on_failure}}}",
                quoted(&spec.run),
                spec.timeout_ms
            )
        }
    }
}

const REST: &str = "name: s\npurpose: p\nphases:\n  - {name: rest, checkpoint: {}}\n  - {name: send, kv: {commands: [GET], \
                    load: {closed: {clients: 1, pipeline: 1}}, duration: 1s}}\n";

struct Nothing;

impl config::Surroundings for Nothing {
    fn file(&self, _: &str, _: &str) -> Result<(String, String), String> {
        Err(String::from("no such file"))
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

proptest! {
    #[test]
    fn an_operation_is_read_as_it_is_written(operation in operation()) {
        let text = format!("{REST}  - name: do\n    {}: {}\n", operation.word(), yaml(&operation));
        match parse(&text, "written.yaml", &[]) {
            Ok(checked) => {
                let last = checked.scenario.phases.last().unwrap();
                prop_assert_eq!((&last.step, last.step.word()), (&Step::Operate(operation.clone()), operation.word()));
                let is_program = matches!(operation, Operation::Command(_));
                prop_assert_eq!(checked.scenario.programs().count(), usize::from(is_program));
            }
            Err(faults) => prop_assert!(false, "{text}\n{}", shown(&faults)),
        }
    }

    #[test]
    fn hooks_go_from_an_environment_over_those_of_a_scenario_unchanged(hooks in hooks()) {
        let written = ("hooks".to_owned(), hooks.written());
        match parse(&format!("{REST}hooks: {{on_phase_start: [{{run: [other]}}]}}\n"), "a.yaml", &[written]) {
            Ok(checked) => prop_assert_eq!(&checked.scenario.hooks, &hooks),
            Err(faults) => prop_assert!(false, "{}\n{}", hooks.written(), shown(&faults)),
        }
        let text = format!("hooks: {}\n", hooks.written().replace("$${", "${NONE:-$}{"));
        match config::parse(&text, "config.yaml", &Nothing) {
            Ok(config) => prop_assert_eq!(config.hooks, Some(hooks)),
            Err(faults) => prop_assert!(false, "{text}\n{}", shown(&faults)),
        }
    }
}

#[test]
fn shares_of_slots_are_the_whole_and_hooks_name_phases_that_are_there() {
    let with = |more: &str| format!("{REST}{more}");
    assert_eq!(
        messages(&with("  - {name: move, migrate_slots: {shares: [60%, 30%]}}\n")),
        ["`shares` add up to 90.0000 %"]
    );
    assert_eq!(messages(&with("  - {name: move, migrate_slots: {shares: [100%, 0%]}}\n")).len(), 1);
    let hook = "hooks: {on_phase_start: [{run: [perf], phases: [rest, sent]}]}\n";
    assert_eq!(messages(&with(hook)), ["a hook names phase `sent`, which is not there"]);
}
