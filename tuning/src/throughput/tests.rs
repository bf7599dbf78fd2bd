use super::*;
use crate::double::Double;
use crate::tune::{Range, Shape, Value};

fn constraints(texts: &[&str]) -> Vec<Constraint> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn over_ef(texts: &[&str]) -> ThroughputSpec {
    ThroughputSpec {
        constraints: constraints(texts),
        parameters: vec![Parameter::new("ef", Range::LogInt(16, 512)).shaped(Shape::Falling)],
        effort: Effort::default(),
    }
}

fn ef_of(setting: &Setting) -> f64 {
    match setting.0.get("ef") {
        Some(Value::Int(ef)) => crate::number::of_int(*ef),
        _ => 100.0,
    }
}

fn answer(double: &mut Double, ask: &Ask) -> Event {
    Event::Measured(match ask.offered {
        Offered::FlatOut => double.flat_out(ef_of(&ask.setting)),
        Offered::Rate(rate) => double.at(rate, ef_of(&ask.setting)),
    })
}

/// Runs to the end; with `amnesia` the search is written down and read back before every answer.
fn found(spec: ThroughputSpec, double: &mut Double, amnesia: bool) -> Outcome {
    let mut search = Throughput::new(spec).unwrap();
    loop {
        match search.actions().pop().unwrap() {
            Action::Done(outcome) => return *outcome,
            Action::Measure(ask) => {
                if amnesia {
                    let text = serde_json::to_string(&search).unwrap();
                    search = serde_json::from_str(&text).unwrap();
                    assert_eq!(search.actions().pop(), Some(Action::Measure(ask.clone())));
                }
                search.step(answer(double, &ask));
            }
            Action::Drain => panic!("drains last"),
        }
    }
}

#[test]
fn the_best_ef_is_the_least_that_keeps_recall_and_its_throughput_is_the_capacity_at_the_bound_of_latency() {
    for seed in 0..20 {
        let mut double = Double::new(seed);
        double.recall_noise = 0.0005;
        // 1 - 0.5 exp(-ef / 40) >= 0.95 from ef 92.1.
        let spec = over_ef(&["recall >= 0.95", "p99 <= 10ms"]);
        let outcome = found(spec, &mut double, false);
        let settings = outcome.settings.unwrap();
        let (setting, value) = match &settings.conclusion {
            tune::Conclusion::Winner { setting, value, .. } => (setting, value),
            tune::Conclusion::Tie { settings, value, .. } => (&settings[0], value),
            other => panic!("{other:?}"),
        };
        let ef = ef_of(setting);
        assert!((91.0..=95.0).contains(&ef), "seed {seed}: {ef}");
        let truth = double.limit(ef, 10e6);
        assert!((value.value / truth - 1.0).abs() < 0.03, "seed {seed}: {} of {truth}", value.value);
        assert_eq!((outcome.measurements, outcome.requests), (double.measurements, double.requests));
    }
}

#[test]
fn a_recall_that_no_ef_reaches_within_the_latency_is_infeasible_and_the_constraint_is_named() {
    let mut double = Double::new(1);
    let outcome = found(over_ef(&["recall >= 0.95", "p99 <= 0.1ms"]), &mut double, false);
    let tune::Conclusion::Infeasible { binding, .. } = outcome.settings.unwrap().conclusion else {
        panic!("not infeasible")
    };
    assert!(binding.iter().any(|c| c.figure() == Figure::P99), "{binding:?}");
}

#[test]
fn without_a_parameter_the_limit_of_the_one_setting_is_found_and_the_target_must_follow_it() {
    let mut double = Double::new(7);
    let spec = ThroughputSpec {
        constraints: constraints(&["p99 <= 10ms"]),
        parameters: Vec::new(),
        effort: Effort::default(),
    };
    let outcome = found(spec, &mut double, true);
    let rate = outcome.limits[0].rate().unwrap();
    let truth = double.limit(100.0, 10e6);
    assert!((rate.value / truth - 1.0).abs() < 0.03, "{rate:?} {truth}");
    assert!(outcome.curves[0].capacity.is_some());

    let spec = ThroughputSpec { constraints: Vec::new(), parameters: Vec::new(), effort: Effort::default() };
    let rate = found(spec, &mut double, false).limits[0].rate().unwrap();
    let capacity = double.capacity_at(100.0);
    assert!((rate.value / (capacity / ACHIEVED_SHARE) - 1.0).abs() < 0.05, "{rate:?} {capacity}");
}

#[test]
fn a_search_that_is_read_back_before_every_answer_finds_the_same() {
    let spec = || over_ef(&["recall >= 0.95", "p99 <= 10ms"]);
    let plain = found(spec(), &mut Double::new(3), false);
    let amnesiac = found(spec(), &mut Double::new(3), true);
    assert_eq!(plain, amnesiac);
}

#[test]
fn a_bound_on_the_rate_that_is_looked_for_is_refused() {
    let fault = Throughput::new(over_ef(&["qps >= 500/s"])).unwrap_err().to_string();
    assert!(fault.contains("qps >= 500"), "{fault}");
}
