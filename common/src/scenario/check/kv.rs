//! Reads a phase of plain commands: which, on which keys, with which values.
//!
//! Called by the reader of phases. Law: every template that is accepted can be compiled; a fault inside one is shown
//! at its own bytes.

use super::super::{CommandSpec, ContentKind, KeyDistribution, KvSpec, SizeSpec, ValueSpec};
use super::beside;
use super::fault::{Complaint, Place};
use super::load::{self, Kinds};
use super::phases::{at, span, timeout};
use super::reader::{Reader, Section};
use super::sections::count;
use super::sequence::Told;
use super::tree::{Node, Value};
use super::values::{self, LONGEST_MS};
use crate::content::catalog;
use crate::content::template::Template;
use crate::content::{Pattern, least_compressibility};
use crate::count as number;
use crate::scenario::Load;

/// Keys of the step.
pub(super) const KEYS: &[&str] =
    &["commands", "keys", "values", "fill", "load", "warm_up", "duration", "operations", "timeout"];

const COMMANDS_EXAMPLE: &str = "[{command: GET, weight: 80}, {command: SET, weight: 20}]";
const MOST_WEIGHT: u32 = 1000;
/// Sum of the weights: the pattern of operations is a table of this length.
const MOST_WEIGHTS: u64 = 10_000;
const MOST_BYTES: u32 = 512 * 1024 * 1024;

pub(super) fn kv(reader: &mut Reader<'_>, section: &Section<'_>, told: &Told) -> Option<KvSpec> {
    let phase = told.address.as_str();
    let commands = commands(reader, section);
    let keys = keys(reader, section);
    let values = values_of(reader, section);
    let fill = reader.defaulted(section, "fill", true, "auto", |k, n, _| {
        values::word(k, n, &[("auto", true), ("none", false)])
    });
    let load = load::load(reader, section, phase, Kinds::Any);
    let warm_up_ms =
        reader.defaulted(section, "warm_up", 0, "2s", |k, n, e| values::duration_ms(k, n, 0..=LONGEST_MS, e));
    let duration_ms = reader.optional(section, "duration", "10s", span);
    let operations =
        reader.optional(section, "operations", "100000", |k, n, e| values::whole(k, n, 1..=u64::MAX / 4, e));
    let timeout_ms = timeout(reader, section);
    let (duration_ms, operations, load) = (duration_ms?, operations?, load?);
    match (told.beside, duration_ms, operations) {
        // The phase that it runs beside ends it.
        (true, None, None) => drop(beside::length(reader, section, phase, Some(&load))?),
        _ => length(reader, section, phase, duration_ms, operations, &load)?,
    }
    Some(KvSpec {
        commands: commands?,
        keys: keys?,
        values: values?,
        fill: fill?,
        load,
        warm_up_ms: warm_up_ms?,
        duration_ms: duration_ms.unwrap_or(0),
        operations,
        timeout_ms: timeout_ms?,
    })
}

/// Something must end the phase, and an arrival that changes with time needs to know how long it is.
fn length(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    phase: &str,
    duration_ms: Option<u64>,
    operations: Option<u64>,
    load: &Load,
) -> Option<()> {
    let varies = matches!(
        load,
        Load::Open { arrival, .. } if !matches!(arrival, super::super::Arrival::Constant { .. })
    );
    match (duration_ms, operations) {
        (Some(_), _) => Some(()),
        (None, Some(_)) if !varies && section.get("warm_up").is_none() => Some(()),
        (None, Some(_)) => {
            reader.complain(
                section.place(),
                Complaint::new(
                    format!("phase `{phase}` has no `duration`"),
                    "a warm-up or a changing rate needs one",
                    "add `duration: 10s`; the first of duration and operations ends the phase",
                ),
            );
            None
        }
        (None, None) => {
            reader.complain(
                section.place(),
                Complaint::new(
                    format!("phase `{phase}` has neither `duration` nor `operations`"),
                    "would never end",
                    "add `duration: 10s` or `operations: 100000`",
                ),
            );
            None
        }
    }
}

fn commands(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Vec<CommandSpec>> {
    reader.required(section, "commands", COMMANDS_EXAMPLE, |key, node, example| match &node.value {
        Value::List(items) if !items.is_empty() => Ok(()),
        Value::List(_) => Err(Complaint::new(
            "the phase has no commands",
            "empty",
            format!("for example `{key}: {example}`"),
        )),
        _ => Err(values::wrong_type(key, node, "a list", example)),
    })?;
    let Value::List(items) = &section.get("commands")?.node.value else { return None };
    let mut read: Vec<CommandSpec> = Vec::new();
    let mut whole = true;
    for item in items {
        match command(reader, item) {
            Some(spec) if read.iter().any(|other| other.name == spec.name) => {
                reader.complain(
                    item.place(),
                    Complaint::new(
                        format!("two commands are named `{}`", spec.name),
                        "this name is taken",
                        "latency is reported by name: give each a `name` of its own",
                    ),
                );
                whole = false;
            }
            Some(spec) => read.push(spec),
            None => whole = false,
        }
    }
    if !whole {
        return None;
    }
    let weights: Vec<u32> = read.iter().map(|spec| spec.weight).collect();
    if Pattern::length_of(&weights) > MOST_WEIGHTS {
        reader.complain(
            at(section, "commands"),
            Complaint::new(
                "the weights are too fine",
                format!("they make a pattern longer than {MOST_WEIGHTS}"),
                "use smaller weights, for example 70, 20 and 10",
            ),
        );
        return None;
    }
    Some(read)
}

/// A built-in command by its name, a template, or either with a weight and a name.
fn command(reader: &mut Reader<'_>, item: &Node) -> Option<CommandSpec> {
    if let Value::Text(text) = &item.value {
        let template = if text.contains([' ', '{']) {
            read_template(reader, item, text)?
        } else {
            read_built_in(reader, item, text)?
        };
        return Some(spec(&template, None, 1));
    }
    let section =
        reader.section("a command", item.place(), item, &["command", "template", "weight", "name"])?;
    let entry = reader.one_of(&section, &["command", "template"], "command: GET")?;
    let text = reader.required(&section, &entry.key, "GET", values::text);
    let weight = reader.defaulted(&section, "weight", 1, "10", |k, n, e| count(k, n, MOST_WEIGHT, e));
    let name = reader.optional(&section, "name", "my_command", operation_name);
    let template = match entry.key.as_str() {
        "command" => read_built_in(reader, &entry.node, &text?)?,
        _ => read_template(reader, &entry.node, &text?)?,
    };
    Some(spec(&template, name?, weight?))
}

fn spec(template: &str, name: Option<String>, weight: u32) -> CommandSpec {
    let name = name.unwrap_or_else(|| {
        let first = template.split_ascii_whitespace().next().unwrap_or_default();
        first.to_ascii_lowercase()
    });
    CommandSpec { name, template: template.to_owned(), weight, space: None }
}

fn operation_name(key: &str, node: &Node, example: &str) -> Result<String, Complaint> {
    let name = values::text(key, node, example)?;
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(fine) && name != "knn_part" {
        return Ok(name);
    }
    Err(Complaint::new(
        format!("`{name}` cannot name a command"),
        "not a name",
        format!("use small letters, digits and `_`, for example `{key}: {example}`"),
    ))
}

fn read_built_in(reader: &mut Reader<'_>, node: &Node, name: &str) -> Option<String> {
    let known: Vec<&str> = catalog::COMMANDS.iter().map(|command| command.name).collect();
    if let Some(found) = catalog::built_in(&name.to_ascii_uppercase()) {
        return Some(found.template.to_owned());
    }
    reader.complain(
        node.place(),
        Complaint::new(
            format!("no command `{name}` is built in"),
            "not known by name",
            format!(
                "{}write it as a template, for example `{name} {{key}}`; built in are: {}",
                values::did_you_mean(&name.to_ascii_uppercase(), &known),
                known.join(", ")
            ),
        ),
    );
    None
}

fn read_template(reader: &mut Reader<'_>, node: &Node, text: &str) -> Option<String> {
    match Template::parse(text) {
        Ok(_) => Some(text.to_owned()),
        Err(fault) => {
            let place = node.place();
            // The scalar's text may begin behind a quote, and only a plain one is found again byte by byte.
            let shift = reader.written(place).find(text);
            let place = match shift {
                Some(shift) => Place {
                    start: place.start + shift + fault.span.start,
                    end: place.start + shift + fault.span.end,
                    ..place
                },
                None => place,
            };
            reader.complain(place, Complaint::new(fault.message, fault.label, fault.hint));
            None
        }
    }
}

fn keys(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<KeyDistribution> {
    let Some(entry) = section.get("keys") else { return Some(KeyDistribution::Uniform) };
    const PLAIN: &[(&str, KeyDistribution)] =
        &[("uniform", KeyDistribution::Uniform), ("sequential", KeyDistribution::Sequential)];
    if let Value::Text(_) = &entry.node.value {
        return reader.required(section, "keys", "uniform", |k, n, _| values::word(k, n, PLAIN));
    }
    let keys = reader.subsection(section, "keys", &["zipf", "latest", "hot"])?;
    let kind = reader.one_of(&keys, &["zipf", "latest", "hot"], "zipf: 1.1")?;
    match kind.key.as_str() {
        "zipf" => Some(KeyDistribution::Zipf { s: reader.required(&keys, "zipf", "1.1", exponent)? }),
        "latest" => Some(KeyDistribution::Latest { s: reader.required(&keys, "latest", "1.1", exponent)? }),
        _ => {
            let hot = reader.subsection(&keys, "hot", &["requests", "keys"])?;
            let requests = reader.required(&hot, "requests", "90%", values::percent);
            let share = reader.required(&hot, "keys", "10%", values::percent);
            Some(KeyDistribution::HotSet { requests: values::share(requests?), keys: values::share(share?) })
        }
    }
}

fn decimal(key: &str, node: &Node, low: f64, high: f64, example: &str) -> Result<f64, Complaint> {
    let number = match &node.value {
        Value::Whole(n) => number::to_f64(*n),
        Value::Number(n) => *n,
        _ => return Err(values::wrong_type(key, node, "a number", example)),
    };
    if number > low && number <= high {
        return Ok(number);
    }
    Err(Complaint::new(
        format!("`{key}` must be above {low} and at most {high}, but is {number}"),
        "out of range",
        format!("for example `{key}: {example}`"),
    ))
}

fn exponent(key: &str, node: &Node, example: &str) -> Result<f64, Complaint> {
    decimal(key, node, 0.0, 10.0, example)
}

fn values_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<ValueSpec> {
    const KINDS: &[(&str, ContentKind)] = &[
        ("random", ContentKind::Random),
        ("text", ContentKind::Text),
        ("json", ContentKind::Json),
        ("session", ContentKind::Session),
        ("numeric", ContentKind::Numeric),
    ];
    let values = reader.subsection(section, "values", &["size", "content", "compressibility"])?;
    let size = size(reader, &values);
    let content = reader
        .defaulted(&values, "content", ContentKind::Random, "json", |k, n, _| values::word(k, n, KINDS));
    let percent = reader.optional(&values, "compressibility", "60%", values::percent);
    let (content, percent) = (content?, percent?);
    if let Some(percent) = percent {
        let least = least_compressibility(content);
        if values::share(percent) < least || percent > 95.0 {
            reader.complain(
                at(&values, "compressibility"),
                Complaint::new(
                    format!("values of this content cannot be compressible by {percent}%"),
                    format!("from {:.0}% to 95%", least * 100.0),
                    "choose within these bounds, or `content: random`, which has none below",
                ),
            );
            return None;
        }
    }
    Some(ValueSpec { size: size?, content, compressibility: percent.map(values::share) })
}

fn bytes(key: &str, node: &Node, example: &str) -> Result<u32, Complaint> {
    count(key, node, MOST_BYTES, example)
}

fn size(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<SizeSpec> {
    let Some(entry) = section.get("size") else { return Some(SizeSpec::Fixed(512)) };
    if !matches!(entry.node.value, Value::Mapping(_)) {
        return reader.required(section, "size", "512", bytes).map(SizeSpec::Fixed);
    }
    const KINDS: &[&str] = &["uniform", "log_normal", "weighted"];
    let size = reader.subsection(section, "size", KINDS)?;
    let kind = reader.one_of(&size, KINDS, "uniform: {min: 100, max: 1000}")?;
    match kind.key.as_str() {
        "uniform" => {
            let bounds = reader.subsection(&size, "uniform", &["min", "max"])?;
            let min = reader.required(&bounds, "min", "100", bytes);
            let max = reader.required(&bounds, "max", "1000", bytes);
            let (min, max) = (min?, max?);
            if min > max {
                reader.complain(
                    at(&bounds, "min"),
                    Complaint::new("`min` is above `max`", "turned around", "write the lower bound as `min`"),
                );
                return None;
            }
            Some(SizeSpec::Uniform { min, max })
        }
        "log_normal" => {
            let shape = reader.subsection(&size, "log_normal", &["median", "sigma", "max"])?;
            let median = reader.required(&shape, "median", "300", bytes);
            let sigma = reader.required(&shape, "sigma", "1.0", |k, n, e| decimal(k, n, 0.0, 10.0, e));
            let max = reader.required(&shape, "max", "65536", bytes);
            Some(SizeSpec::LogNormal { median: median?, sigma: sigma?, max: max? })
        }
        _ => {
            let Value::List(items) = &kind.node.value else {
                let example = "[{size: 100, weight: 9}, {size: 10000, weight: 1}]";
                reader.complain(
                    kind.node.place_under(kind.key_place),
                    values::wrong_type("weighted", &kind.node, "a list", example),
                );
                return None;
            };
            let read: Vec<Option<(u32, u32)>> = items
                .iter()
                .map(|item| {
                    let one = reader.section("a size", item.place(), item, &["size", "weight"])?;
                    let bytes = reader.required(&one, "size", "100", bytes);
                    let weight = reader.required(&one, "weight", "9", |k, n, e| count(k, n, MOST_WEIGHT, e));
                    Some((bytes?, weight?))
                })
                .collect();
            if read.is_empty() {
                reader.complain(
                    kind.key_place,
                    Complaint::new("`weighted` has no sizes", "empty", "add `{size: 100, weight: 1}`"),
                );
                return None;
            }
            read.into_iter().collect::<Option<Vec<_>>>().map(SizeSpec::Weighted)
        }
    }
}
