//! What a person reads of a campaign: the plan, each step as it goes, and the result with the reason of everything.
//!
//! Fed with what the planner says; adds nothing to it.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;
use vst_common::scenario::check::campaign::CampaignFile;
use vst_tuning::campaign::{
    Bound, Campaign, CampaignSpec, Conclusion, Event, Fate, Outcome, Place, Planned, Refusal, Step, Why,
};
use vst_tuning::constraint::Constraint;
use vst_tuning::figure::Figure;
use vst_tuning::measured::Measured;

use super::super::journal::to_json;
use super::super::show::value;
use super::field::span;
use crate::error::Failure;

/// A population in its shape.
fn place(spec: &CampaignSpec, place: Place) -> String {
    let rows = spec.stages.get(place.stage).map_or(0, |stage| stage.rows);
    format!("{} rows, {}", grouped(rows), shape(spec, place))
}

fn shape(spec: &CampaignSpec, place: Place) -> String {
    let mut words: Vec<String> = Vec::new();
    if let Some(setting) = spec.settings.get(place.setting) {
        let key = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        words.extend(setting.0.iter().map(|(path, value)| format!("{} {value}", key(path))));
    }
    let shards = spec.shards.get(place.shards).copied().unwrap_or(0);
    words.push(format!("{shards} {}", if shards == 1 { "shard" } else { "shards" }));
    words.join(", ")
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(x: f64) -> String {
    value(Figure::Memory, x)
}

fn at_ef(ef: Option<i64>) -> String {
    ef.map_or_else(String::new, |ef| format!(" at ef_runtime {ef}"))
}

fn all(constraints: &[Constraint]) -> String {
    constraints.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(" and ")
}

fn bound(bound: &Bound, x: f64) -> (String, String) {
    match bound {
        Bound::Shard(most) => (format!("{} in the fullest shard", bytes(x)), bytes(*most)),
        Bound::Of(c) if c.figure() == Figure::BytesPerVector => {
            (format!("{} per vector", bytes(x)), bytes(c.bound()))
        }
        Bound::Of(c) => (format!("{} over all shards", bytes(x)), bytes(c.bound())),
    }
}

fn refusal(spec: &CampaignSpec, why: &Refusal) -> String {
    match why {
        Refusal::PredictedMemory { bound: of, value, low, how } => {
            let (text, most) = bound(of, *value);
            format!("predicted {text}, at least {}, where {most} is the most ({how})", bytes(*low))
        }
        Refusal::Memory { bound: of, value } => {
            let (text, most) = bound(of, *value);
            format!("measured {text}, where {most} is the most")
        }
        Refusal::Missed { constraint, value: x, ef, findings } => {
            let seen: Vec<&str> = findings.iter().map(|f| f.text.as_str()).collect();
            let seen = if seen.is_empty() { String::new() } else { format!("; {}", seen.join("; ")) };
            format!("`{constraint}` is broken: {}{}{seen}", value(constraint.figure(), *x), at_ef(*ef))
        }
        Refusal::Untunable { binding, text } => {
            format!("no ef_runtime keeps {}: {text}", all(binding))
        }
        Refusal::Undecided { constraint, passes } => {
            format!("{passes} passes do not tell whether `{constraint}` holds: allow more, or longer ones")
        }
        Refusal::Doubtful(finding) => format!("does not last: {}", finding.text),
        Refusal::Failed { step, reason } => format!("`{step}` failed: {reason}"),
        Refusal::Follows { stage, constraints } => {
            let rows = spec.stages.get(*stage).map_or(0, |stage| stage.rows);
            format!("{} was missed in this shape with {} rows already", all(constraints), grouped(rows))
        }
    }
}

fn why(spec: &CampaignSpec, planned: &Planned) -> String {
    match &planned.why {
        Why::Cheapest => String::from(match planned.ask.step {
            Step::Prepare => "the neighbours of these rows are not known",
            Step::Load => "the next population of the goal",
            Step::Measure => "whether the goal holds",
            Step::Change | Step::Shards => "cheaper than the shape before",
            Step::Tune => "not tuned yet",
        }),
        Why::Instead { of, refusal: because } => {
            format!("instead of {}: {}", shape(spec, *of), refusal(spec, because))
        }
        Why::Missed { constraint, value: x, ef } => {
            format!("`{constraint}` is broken: {}{}", value(constraint.figure(), *x), at_ef(*ef))
        }
        Why::Open { constraint: Some(constraint), passes } => {
            format!("{passes} passes do not tell whether `{constraint}` holds")
        }
        Why::Open { constraint: None, passes: 0 } => String::from("nothing is known of it"),
        Why::Open { constraint: None, passes } => format!("{passes} passes are not enough, or in doubt"),
    }
}

/// One step of a plan: what, where, how long, how much memory, why.
fn step(spec: &CampaignSpec, planned: &Planned) -> String {
    let ask = &planned.ask;
    let memory = planned.memory.map_or_else(String::new, |(total, fullest)| {
        format!(", about {} of memory, {} in the fullest shard", bytes(total), bytes(fullest))
    });
    let ef = if ask.step == Step::Measure { at_ef(ask.ef) } else { String::new() };
    format!(
        "{:<8} {}{ef}: {}{memory}; {}",
        ask.step.to_string(),
        place(spec, ask.place),
        span(planned.cost_ms),
        why(spec, planned)
    )
}

fn goal(spec: &CampaignSpec) -> String {
    let mut text = String::new();
    for stage in &spec.stages {
        let shard = stage.shard_memory.map(|most| format!(", {} in each shard at most", bytes(most)));
        let _ = writeln!(
            text,
            "  {} rows: {} offered, {}{}",
            grouped(stage.rows),
            value(Figure::Qps, stage.rate),
            all(&stage.constraints),
            shard.unwrap_or_default()
        );
    }
    text
}

/// The plan, for `--dry-run`.
pub(super) fn plan(file: &CampaignFile, campaign: &Campaign, as_json: bool) -> Result<String, Failure> {
    let (spec, steps, so_far) = (campaign.spec(), campaign.plan(), campaign.so_far());
    if as_json {
        let value = json!({
            "campaign": file.name, "spec": to_json(spec)?, "plan": to_json(&steps)?,
            "places": to_json(&so_far.places)?,
        });
        return Ok(value.to_string());
    }
    let mut text = format!("{}: {}\ngoal\n{}", file.name, file.purpose, goal(spec));
    let total = steps.iter().map(|s| s.cost_ms).fold(0, u64::saturating_add);
    let _ = writeln!(text, "plan of {} steps, about {}, as far as is known now", steps.len(), span(total));
    for (n, planned) in steps.iter().enumerate() {
        let _ = writeln!(text, "{:>3}  {}", n + 1, step(spec, planned));
    }
    text.push_str("actions\n");
    for action in [Step::Prepare, Step::Load, Step::Measure, Step::Tune, Step::Change, Step::Shards] {
        let _ =
            writeln!(text, "  {:<8} needs {}; gives {}", action.to_string(), action.needs(), action.gives());
    }
    let reached = steps.iter().filter(|s| s.ask.step == Step::Measure).count();
    if let Some(stage) = spec.stages.get(reached) {
        let _ = writeln!(text, "no way is seen to {} rows", grouped(stage.rows));
    }
    text.push_str(&refused(spec, &so_far));
    Ok(text)
}

fn refused(spec: &CampaignSpec, outcome: &Outcome) -> String {
    let mut text = String::new();
    for (at, fate) in &outcome.places {
        if let Fate::Refused(because) = fate {
            let _ = writeln!(text, "  {}: {}", place(spec, *at), refusal(spec, because));
        }
    }
    if text.is_empty() { text } else { format!("not run\n{text}") }
}

/// The step that comes next, for the progress.
pub(super) fn next(campaign: &Campaign) -> String {
    let plan = campaign.plan();
    let total = plan.iter().map(|s| s.cost_ms).fold(0, u64::saturating_add);
    let first = plan.first().map(|planned| step(campaign.spec(), planned)).unwrap_or_default();
    format!("{first}  ({} steps to the goal, about {})", plan.len(), span(total))
}

fn passes(all: &[Measured]) -> String {
    let mut text = String::new();
    for figure in [Figure::Recall, Figure::Qps, Figure::P50, Figure::P99] {
        let values: Vec<f64> =
            all.iter().filter_map(|m| m.figures.get(&figure)).map(|reading| reading.value).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low.is_finite() {
            let _ = write!(text, ", {figure} {} to {}", value(figure, low), value(figure, high));
        }
    }
    format!("{} passes{text}", all.len())
}

/// What became of a step.
pub(super) fn told(event: &Event) -> String {
    match event {
        Event::Forecasts(all) => format!("         {} populations predicted", all.len()),
        Event::Lost => String::from("         nothing is loaded"),
        Event::Done { took_ms } => format!("         done in {}", span(*took_ms)),
        Event::Loaded { memory, findings, took_ms } => {
            let found: String = findings.iter().map(|f| format!("; {}", f.text)).collect();
            format!(
                "         loaded in {}: {} of memory, {} in the fullest shard, {} before anything was loaded{found}",
                span(*took_ms),
                bytes(memory.used),
                bytes(memory.fullest),
                bytes(memory.baseline)
            )
        }
        Event::Tuned { text, took_ms, .. } => format!("         in {}: {text}", span(*took_ms)),
        Event::Measured { passes: all, findings, took_ms } => {
            let found: String = findings.iter().map(|f| format!("; {}", f.text)).collect();
            format!("         in {}: {}{found}", span(*took_ms), passes(all))
        }
        Event::Failed(reason) => format!("         failed: {reason}"),
        Event::Invalid(reason) => format!("         not valid, is done again: {reason}"),
    }
}

/// The result.
pub(super) fn result(
    file: &CampaignFile,
    spec: &CampaignSpec,
    outcome: &Outcome,
    alone: &[String],
    folder: &Path,
) -> String {
    let headline = match &outcome.conclusion {
        Conclusion::Reached => String::from("the goal is reached"),
        Conclusion::Impossible { stage } => {
            let rows = spec.stages.get(*stage).map_or(0, |stage| stage.rows);
            format!("no way leads to the goal at {} rows", grouped(rows))
        }
        Conclusion::Open => String::from("it has not ended"),
        Conclusion::Abandoned { reason } => format!("given up: {reason}"),
    };
    let mut text = format!("{}: {headline}\ngoal\n{}", file.name, goal(spec));
    text.push_str("reached\n");
    for (at, ef) in &outcome.reached {
        let _ = writeln!(text, "  {}{}", place(spec, *at), at_ef(*ef));
    }
    if outcome.reached.is_empty() {
        text.push_str("  nothing\n");
    }
    text.push_str("steps\n");
    for (n, done) in outcome.steps.iter().enumerate() {
        let _ = writeln!(text, "{:>3}  {}\n{}", n + 1, step(spec, &done.planned), told(&done.event));
    }
    text.push_str(&refused(spec, outcome));
    let unneeded = outcome.places.iter().filter(|(_, fate)| *fate == Fate::Unneeded).count();
    if unneeded > 0 {
        let _ = writeln!(text, "not needed: {unneeded} other shapes of populations that reached their goal");
    }
    if !alone.is_empty() {
        text.push_str("alone again\n");
        for ((at, _), command) in outcome.reached.iter().zip(alone) {
            let _ = writeln!(text, "  ({}) {command}", shape(spec, *at));
        }
    }
    let _ = writeln!(text, "\n{}: campaign.json, data/, runs/", folder.display());
    text
}
