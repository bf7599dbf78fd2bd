//! The values that a scenario's keys take: text, counts, durations, rates and shares.
//!
//! Called by the reader with one node; gives the value in the unit of the model or a complaint that says which unit is
//! wanted and shows the key written rightly. Law: a bare number is never taken for a duration, a rate or a share.

use std::ops::RangeInclusive;

use jiff::fmt::friendly::SpanParser;
use vst_tuning::constraint::Constraint;

use super::fault::Complaint;
use super::tree::{Node, Value};

/// Longest phase part that a scenario may ask for: 30 days.
pub(super) const LONGEST_MS: u64 = 30 * 24 * 3_600_000;
/// Longest wait for one reply: the histograms end at one hour.
pub(super) const LONGEST_TIMEOUT_MS: u64 = 3_600_000;
/// Requests per second beyond which a rate is a slip of the pen.
const LARGEST_RATE: f64 = 1e9;

/// Text that is not empty.
pub(super) fn text(key: &str, node: &Node, example: &str) -> Result<String, Complaint> {
    match &node.value {
        Value::Text(text) if text.trim().is_empty() => Err(Complaint::new(
            format!("`{key}` is empty"),
            "empty",
            format!("for example `{key}: {example}`"),
        )),
        Value::Text(text) => Ok(text.clone()),
        Value::Whole(_) | Value::Number(_) | Value::Truth => Err(Complaint::new(
            format!("`{key}` takes text, not {}", node.kind()),
            node.kind(),
            format!("put it in quotes if it is meant as text, for example `{key}: {example}`"),
        )),
        _ => Err(wrong_type(key, node, "text", example)),
    }
}

/// A whole number within a range.
pub(super) fn whole(
    key: &str,
    node: &Node,
    range: RangeInclusive<u64>,
    example: &str,
) -> Result<u64, Complaint> {
    match &node.value {
        Value::Whole(n) if range.contains(n) => Ok(*n),
        Value::Whole(n) => Err(out_of_range(key, &n.to_string(), range.start(), range.end(), example)),
        Value::Number(n) if n.fract() == 0.0 => {
            Err(out_of_range(key, &n.to_string(), range.start(), range.end(), example))
        }
        _ => Err(wrong_type(key, node, "a whole number", example)),
    }
}

/// A duration as `250ms`, `10s`, `1m30s` or `2h`, in milliseconds.
pub(super) fn duration_ms(
    key: &str,
    node: &Node,
    range: RangeInclusive<u64>,
    example: &str,
) -> Result<u64, Complaint> {
    let text = match &node.value {
        Value::Text(text) => text,
        Value::Whole(_) | Value::Number(_) => {
            return Err(Complaint::new(
                format!("`{key}` has no unit"),
                "a number alone is not a duration",
                format!("say which unit is meant: ms, s, m or h, for example `{key}: {example}`"),
            ));
        }
        _ => return Err(wrong_type(key, node, "a duration", example)),
    };
    let Ok(duration) = SpanParser::new().parse_duration(text) else {
        return Err(Complaint::new(
            format!("`{key}` takes a duration, not `{text}`"),
            "no duration",
            format!("a duration has the units ms, s, m or h, for example `{key}: {example}` or `1m30s`"),
        ));
    };
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err(Complaint::new(
            format!("`{key}` is finer than a millisecond"),
            "not a whole number of milliseconds",
            format!("round it to milliseconds, for example `{key}: {example}`"),
        ));
    }
    match u64::try_from(duration.as_millis()) {
        Ok(ms) if range.contains(&ms) => Ok(ms),
        _ => Err(out_of_range(key, text, &shown_ms(*range.start()), &shown_ms(*range.end()), example)),
    }
}

/// A rate as `500/s`, `30k/s` or `60/min`, in requests per second.
pub(super) fn rate(key: &str, node: &Node, zero: Zero, example: &str) -> Result<f64, Complaint> {
    let text = match &node.value {
        Value::Text(text) => text,
        Value::Whole(_) | Value::Number(_) => {
            return Err(Complaint::new(
                format!("`{key}` has no unit"),
                "a number alone is not a rate",
                format!("say per what: /s, /min or /h, for example `{key}: {example}`"),
            ));
        }
        _ => return Err(wrong_type(key, node, "a rate", example)),
    };
    let Some(rate) = per_second(text) else {
        return Err(Complaint::new(
            format!("`{key}` takes a rate, not `{text}`"),
            "no rate",
            format!(
                "a rate is a number per s, min or h, for example `{key}: {example}`, `30k/s` or `60/min`"
            ),
        ));
    };
    if rate > LARGEST_RATE || (rate == 0.0 && zero == Zero::Refused) {
        return Err(Complaint::new(
            format!("`{key}` must be above 0/s and at most 1000M/s, but is {text}"),
            "out of range",
            format!("for example `{key}: {example}`"),
        ));
    }
    Ok(rate)
}

/// Whether a rate may be nought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zero {
    Allowed,
    Refused,
}

fn per_second(text: &str) -> Option<f64> {
    let (number, per) = text.split_once('/')?;
    let seconds = match per.trim() {
        "s" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number = number.trim();
    let (digits, factor) = match number.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => number.strip_suffix('M').map_or((number, 1.0), |digits| (digits, 1e6)),
    };
    decimal(digits).map(|n| n * factor / seconds)
}

/// A share as `50%`, from 0 to 100; the caller divides, so that a complement loses nothing.
pub(super) fn percent(key: &str, node: &Node, example: &str) -> Result<f64, Complaint> {
    let text = match &node.value {
        Value::Text(text) => text,
        Value::Whole(n) => return Err(no_percent(key, &n.to_string())),
        Value::Number(n) if (0.0..=1.0).contains(n) => return Err(no_percent(key, &(n * 100.0).to_string())),
        Value::Number(n) => return Err(no_percent(key, &n.to_string())),
        _ => return Err(wrong_type(key, node, "a percentage", example)),
    };
    match text.strip_suffix('%').and_then(|number| decimal(number.trim())) {
        Some(percent) if percent <= 100.0 => Ok(percent),
        Some(_) => Err(out_of_range(key, text, &"0%", &"100%", example)),
        None => Err(Complaint::new(
            format!("`{key}` takes a percentage, not `{text}`"),
            "no percentage",
            format!("for example `{key}: {example}`"),
        )),
    }
}

fn no_percent(key: &str, number: &str) -> Complaint {
    Complaint::new(
        format!("`{key}` has no unit"),
        "a number alone is not a share",
        format!("shares are percentages: `{key}: {number}%`"),
    )
}

/// Digits with at most one point; neither sign nor exponent nor `inf`.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if plain { text.parse().ok().filter(|n: &f64| n.is_finite()) } else { None }
}

/// A size of memory, bytes.
pub(super) fn memory(key: &str, node: &Node, example: &str) -> Result<u64, Complaint> {
    let text = text(key, node, example)?;
    let bound = format!("memory <= {text}").parse::<Constraint>();
    bound.map(|bound| crate::count::from_f64(bound.bound())).map_err(|_| {
        Complaint::new(
            format!("`{key}` takes a size, not `{text}`"),
            "no size",
            format!("for example `{key}: {example}`"),
        )
    })
}

/// One word of a fixed set.
pub(super) fn word<T: Copy>(key: &str, node: &Node, words: &[(&str, T)]) -> Result<T, Complaint> {
    let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let Value::Text(text) = &node.value else {
        return Err(wrong_type(key, node, "a word", allowed.first().copied().unwrap_or_default()));
    };
    words.iter().find(|(word, _)| word == text).map(|(_, value)| *value).ok_or_else(|| {
        Complaint::new(
            format!("`{key}` cannot be `{text}`"),
            "not known",
            format!("{}it is one of: {}", did_you_mean(text, &allowed), allowed.join(", ")),
        )
    })
}

/// The allowed word that was probably meant.
pub(super) fn nearest<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let near = |candidate: &str| strsim::jaro_winkler(word, candidate);
    let best = allowed.iter().copied().max_by(|a, b| near(a).total_cmp(&near(b)));
    best.filter(|candidate| near(candidate) > 0.75)
}

/// "did you mean `x`? ", or nothing when no word is near.
pub(super) fn did_you_mean(word: &str, allowed: &[&str]) -> String {
    nearest(word, allowed).map_or_else(String::new, |meant| format!("did you mean `{meant}`? "))
}

pub(super) fn wrong_type(key: &str, node: &Node, wanted: &str, example: &str) -> Complaint {
    Complaint::new(
        format!("`{key}` takes {wanted}, not {}", node.kind()),
        match node.value {
            Value::Nothing => "no value",
            _ => node.kind(),
        },
        format!("for example `{key}: {example}`"),
    )
}

fn out_of_range(
    key: &str,
    value: &str,
    least: &impl ToString,
    most: &impl ToString,
    example: &str,
) -> Complaint {
    let (least, most) = (least.to_string(), most.to_string());
    Complaint::new(
        format!("`{key}` must be from {least} to {most}, but is {value}"),
        "out of range",
        format!("for example `{key}: {example}`"),
    )
}

/// A bound in the largest unit that states it exactly.
fn shown_ms(ms: u64) -> String {
    for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms > 0 && ms.is_multiple_of(length) {
            return format!("{}{unit}", ms / length);
        }
    }
    format!("{ms}ms")
}

/// A percentage as a share.
pub(super) fn share(percent: f64) -> f64 {
    percent / 100.0
}
