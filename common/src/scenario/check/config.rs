//! An environment: which target, which fleet, where results go, and what must not happen there.
//!
//! Read by the command line from a file and the files that it extends, with variables of the environment put in place.
//! Laws: what is accepted needs no other look at the text; what is refused lists all faults at once, each in its own
//! file. A key of the file goes over the same key of what it extends.

use super::fault::{Complaint, Faults, Place, Sources};
use super::operations;
use super::reader::{Reader, Section};
use super::sections::count;
use super::tree::{self, Node, Value};
use super::values;
use crate::scenario::operations::Hooks;

pub(super) const TOP: &[&str] =
    &["extends", "profile", "target", "etcd", "fleet", "token_file", "results", "set", "hooks", "guard"];
pub(super) const ETCD: &[&str] = &["endpoints", "fleet"];
pub(super) const FLEET: &[&str] = &["workers", "lanes"];
pub(super) const GUARD: &[&str] = &["allowed_targets", "most_rows", "most_memory", "save"];
const EXTENDS: &str = "extends";
/// Files that extend each other.
const DEEPEST: usize = 8;

/// What a fleet is tuned for where its file does not say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Four lanes per worker: the fleet is not to be the limit.
    HighThroughput,
    /// Two lanes per worker, samples once a second: little beside the requests.
    LowLatency,
    /// One worker of one lane, samples four times a second: a small fleet that looks closely.
    MemoryOptimised,
}

const PROFILES: &[(&str, Profile)] = &[
    ("high_throughput", Profile::HighThroughput),
    ("low_latency", Profile::LowLatency),
    ("memory_optimised", Profile::MemoryOptimised),
];

/// The words for them.
pub(super) fn profile_words() -> Vec<&'static str> {
    PROFILES.iter().map(|(word, _)| *word).collect()
}

impl Profile {
    /// Values of a scenario by their paths.
    #[must_use]
    pub fn overrides(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::HighThroughput => &[("fleet.lanes", "4"), ("sampling.interval", "1s")],
            Self::LowLatency => &[("fleet.lanes", "2"), ("sampling.interval", "1s")],
            Self::MemoryOptimised => {
                &[("fleet.workers", "1"), ("fleet.lanes", "1"), ("sampling.interval", "250ms")]
            }
        }
    }
}

/// What must not happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// `host:port` of targets that may be loaded; `*` stands for anything. Any where empty.
    pub allowed_targets: Vec<String>,
    /// Rows and keys that a run may make at most.
    pub most_rows: Option<u64>,
    /// Memory of the target at which load ends, bytes over all its nodes.
    pub most_memory_bytes: Option<u64>,
    /// Whether the target may be made to write its data to its disks.
    pub may_save: bool,
}

impl Guard {
    /// Whether a target, `host:port`, may be loaded.
    #[must_use]
    pub fn allows(&self, target: &str) -> bool {
        self.allowed_targets.is_empty() || self.allowed_targets.iter().any(|pattern| matches(pattern, target))
    }
}

/// Whether a text is that pattern, where `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            (0..=text.len()).filter_map(|i| text.get(i..)).any(|tail| matches(rest, tail))
        }),
    }
}

/// An environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What the fleet is tuned for.
    pub profile: Option<Profile>,
    /// The server or any node of the cluster.
    pub target: Option<String>,
    /// Addresses of etcd.
    pub etcd_endpoints: Vec<String>,
    /// Name of the fleet there.
    pub etcd_fleet: Option<String>,
    /// File that holds the fleet's shared secret.
    pub token_file: Option<String>,
    /// Where run directories are made.
    pub results: Option<String>,
    /// Worker processes.
    pub workers: Option<u32>,
    /// Lanes of each.
    pub lanes: Option<u32>,
    /// Values of scenarios by path or parameter.
    pub set: Vec<(String, String)>,
    /// Programs that accompany phases, instead of the scenario's.
    pub hooks: Option<Hooks>,
    /// What must not happen.
    pub guard: Guard,
}

impl Config {
    /// What is put over a scenario, in order: the profile, then the fleet, then `set`.
    #[must_use]
    pub fn overrides(&self) -> Vec<(String, String)> {
        let profile = self.profile.into_iter().flat_map(Profile::overrides);
        let profile = profile.map(|(path, value)| ((*path).to_owned(), (*value).to_owned()));
        let fleet = [("fleet.workers", self.workers), ("fleet.lanes", self.lanes)];
        let fleet = fleet.into_iter().filter_map(|(path, n)| Some((path.to_owned(), n?.to_string())));
        let hooks = self.hooks.iter().map(|hooks| (String::from("hooks"), hooks.written()));
        profile.chain(fleet).chain(self.set.iter().cloned()).chain(hooks).collect()
    }
}

/// Where texts and variables come from.
pub trait Surroundings {
    /// Name and text of the file that `reference` means in the file `from`, or why there is none.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn file(&self, from: &str, reference: &str) -> Result<(String, String), String>;
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
}

/// Reads an environment.
///
/// # Errors
/// All faults of the file and of those that it extends; only the first of a file that is no YAML.
pub fn parse(text: &str, file_name: &str, around: &dyn Surroundings) -> Result<Config, Faults> {
    let mut sources = Sources::of_file(file_name, &masked(text));
    let mut early = Vec::new();
    let tree = match gather(&mut sources, &mut early, (file_name, text, 0), around, 0) {
        Ok(tree) => tree,
        Err((place, complaint)) => {
            return Err(Faults::new(file_name, vec![sources.fault(place, complaint)]));
        }
    };
    let mut reader = Reader::new(&sources);
    for (place, complaint) in early {
        reader.complain(place, complaint);
    }
    let mut tree = tree;
    fill(&mut reader, &mut tree, around);
    let config = config(&mut reader, &tree);
    let faults = reader.into_faults();
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Faults::new(file_name, faults)),
    }
}

/// The text as it may be shown: whoever writes a password into a URL shall not find it in a log too. As long as the text,
/// byte by byte.
fn masked(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after.find(|c: char| c.is_whitespace() || "/'\",}]".contains(c)).unwrap_or(after.len());
        let (authority, behind) = after.split_at(end);
        let login = authority.rsplit_once('@').map_or("", |(login, _)| login);
        // A variable that stands for it is no secret.
        match login.split_once(':').filter(|(_, password)| !password.starts_with("${")) {
            Some((user, password)) => {
                shown.push_str(user);
                shown.push(':');
                shown.extend(std::iter::repeat_n('*', password.len()));
                shown.push_str(authority.get(login.len()..).unwrap_or_default());
            }
            None => shown.push_str(authority),
        }
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

type Fault = (Place, Complaint);

/// The tree of a file over that of the one it extends.
fn gather(
    sources: &mut Sources,
    early: &mut Vec<Fault>,
    (name, text, source): (&str, &str, usize),
    around: &dyn Surroundings,
    depth: usize,
) -> Result<Node, Fault> {
    let tree = tree::read(text, source, 0)?;
    let Some(Node { value: Value::Text(reference), .. }) = tree.get(EXTENDS) else { return Ok(tree) };
    let place = tree.get(EXTENDS).map_or(tree.place(), Node::place);
    if depth >= DEEPEST {
        early.push((
            place,
            Complaint::new(
                format!("`{EXTENDS}` goes deeper than {DEEPEST} files"),
                "perhaps in a circle",
                "let a file extend one that does not lead back to it",
            ),
        ));
        return Ok(tree);
    }
    let (base_name, base_text) = match around.file(name, reference) {
        Ok(found) => found,
        Err(reason) => {
            let message = format!("`{reference}` cannot be read: {reason}");
            early.push((
                place,
                Complaint::new(message, "not there", "paths are taken from this file's folder"),
            ));
            return Ok(tree);
        }
    };
    let source = sources.add(&base_name, masked(&base_text));
    let base = gather(sources, early, (&base_name, &base_text, source), around, depth + 1)?;
    Ok(over(tree, base))
}

/// `top` over `base`: mappings key by key, anything else as a whole.
fn over(top: Node, base: Node) -> Node {
    let start = top.place();
    match (top.value, base.value) {
        (Value::Mapping(mut entries), Value::Mapping(below)) => {
            for entry in below {
                match entries.iter().position(|own| own.key == entry.key) {
                    Some(n) => {
                        let own = entries.remove(n);
                        let node = over(own.node, entry.node);
                        entries.insert(n, tree::Entry { node, ..own });
                    }
                    None => entries.push(entry),
                }
            }
            Node::new(Value::Mapping(entries), start)
        }
        (value, _) => Node::new(value, start),
    }
}

/// Puts variables of the environment in place.
fn fill(reader: &mut Reader<'_>, node: &mut Node, around: &dyn Surroundings) {
    let place = node.place();
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| fill(reader, item, around)),
        Value::Mapping(entries) => entries.iter_mut().for_each(|entry| fill(reader, &mut entry.node, around)),
        Value::Text(text) if text.contains("${") => {
            let value = match filled(text, around) {
                // What stands alone has the type that it would have in the file.
                Ok(put) => put.parse().map_or(Value::Text(put), Value::Whole),
                Err(name) => {
                    reader.complain(
                        place,
                        Complaint::new(
                            format!("the environment has no variable `{name}`"),
                            "not set",
                            format!("set it, or say what stands for it: `${{{name}:-default}}`"),
                        ),
                    );
                    Value::Refused
                }
            };
            *node = Node::new(value, place);
        }
        _ => {}
    }
}

/// The text with its variables replaced, or the name of one that is not set.
fn filled(text: &str, around: &dyn Surroundings) -> Result<String, String> {
    let (mut put, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let Some((inside, tail)) = after.split_once('}') else { break };
        put.push_str(before);
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let value = around.variable(name).filter(|value| !value.is_empty());
        match (value, default) {
            (Some(value), _) => put.push_str(&value),
            (None, Some(default)) => put.push_str(default),
            (None, None) => return Err(name.to_owned()),
        }
        rest = tail;
    }
    put.push_str(rest);
    Ok(put)
}

fn config(reader: &mut Reader<'_>, tree: &Node) -> Option<Config> {
    let start = match &tree.value {
        Value::Mapping(_) => tree.place(),
        _ => Place { source: 0, start: 0, end: 0 },
    };
    let top = reader.section("the configuration", start, tree, TOP)?;
    let extends = reader.optional(&top, EXTENDS, "base.yaml", values::text);
    let profile =
        reader.optional(&top, "profile", "low_latency", |key, node, _| values::word(key, node, PROFILES));
    let target = reader.optional(&top, "target", "valkey://host:6379", target);
    let token_file = reader.optional(&top, "token_file", "/run/secrets/vst-token", values::text);
    let results = reader.optional(&top, "results", "runs", values::text);
    let etcd = reader.subsection(&top, "etcd", ETCD);
    let endpoints =
        etcd.as_ref().and_then(|etcd| reader.defaulted(etcd, "endpoints", Vec::new(), "[host:2379]", texts));
    let etcd_fleet = etcd.as_ref().and_then(|etcd| reader.optional(etcd, "fleet", "load", values::text));
    let fleet = reader.subsection(&top, "fleet", FLEET);
    let mut number = |key: &str, most: u32| {
        fleet.as_ref().and_then(|fleet| reader.optional(fleet, key, "2", |k, n, e| count(k, n, most, e)))
    };
    let (workers, lanes) = (number("workers", 10_000), number("lanes", 1024));
    let set = set(reader, &top);
    let hooks = match top.get("hooks") {
        Some(_) => operations::hooks(reader, &top).map(Some),
        None => Some(None),
    };
    let guard = guard(reader, &top);
    if let (Some(Some(target)), Some(guard)) = (&target, &guard) {
        let address = target.rsplit(['/', '@']).next().unwrap_or_default();
        if !guard.allows(address) {
            let place =
                top.get("target").map_or(top.place(), |entry| entry.node.place_under(entry.key_place));
            reader.complain(
                place,
                Complaint::new(
                    format!("the guard does not allow target `{address}`"),
                    "not among `guard.allowed_targets`",
                    format!("allowed are: {}", guard.allowed_targets.join(", ")),
                ),
            );
        }
    }
    extends?;
    Some(Config {
        profile: profile?,
        target: target?,
        etcd_endpoints: endpoints?,
        etcd_fleet: etcd_fleet?,
        token_file: token_file?,
        results: results?,
        workers: workers?,
        lanes: lanes?,
        set: set?,
        hooks: hooks?,
        guard: guard?,
    })
}

pub(super) fn target(key: &str, node: &Node, example: &str) -> Result<String, Complaint> {
    let text = values::text(key, node, example)?;
    let hint = format!("for example `{key}: {example}`; the password comes from VST_PASSWORD");
    let schemes = ["valkey://", "redis://", "valkeys://", "rediss://"];
    if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
        return Err(Complaint::new(format!("`{key}` is no URL of a server: `{text}`"), "no URL", hint));
    }
    let user = text.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
    if user.is_some_and(|user| user.contains(':')) {
        return Err(Complaint::new(
            format!("`{key}` holds a password"),
            "would be read by everybody who reads this file",
            hint,
        ));
    }
    Ok(text)
}

fn texts(key: &str, node: &Node, example: &str) -> Result<Vec<String>, Complaint> {
    let wrong = || values::wrong_type(key, node, "a list of texts", example);
    let Value::List(items) = &node.value else { return Err(wrong()) };
    items
        .iter()
        .map(|item| match &item.value {
            Value::Text(text) if !text.is_empty() => Ok(text.clone()),
            _ => Err(wrong()),
        })
        .collect()
}

fn set(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Vec<(String, String)>> {
    let Some(entry) = top.get("set") else { return Some(Vec::new()) };
    let Value::Mapping(entries) = &entry.node.value else {
        let complaint = values::wrong_type("set", &entry.node, "a mapping", "{rows: 2000}");
        reader.complain(entry.node.place_under(entry.key_place), complaint);
        return None;
    };
    let mut set = Some(Vec::new());
    for entry in entries {
        let value = match &entry.node.value {
            Value::Whole(n) => n.to_string(),
            Value::Number(n) => n.to_string(),
            Value::Text(text) => text.clone(),
            Value::Refused => {
                set = None;
                continue;
            }
            _ => {
                let complaint = values::wrong_type(&entry.key, &entry.node, "a number or a text", "2000");
                reader.complain(entry.node.place_under(entry.key_place), complaint);
                set = None;
                continue;
            }
        };
        set.iter_mut().for_each(|set| set.push((entry.key.clone(), value.clone())));
    }
    set
}

fn guard(reader: &mut Reader<'_>, top: &Section<'_>) -> Option<Guard> {
    let section = reader.subsection(top, "guard", GUARD)?;
    let allowed = reader.defaulted(&section, "allowed_targets", Vec::new(), "[\"staging-*:6379\"]", texts);
    let rows =
        reader.optional(&section, "most_rows", "1000000", |k, n, e| values::whole(k, n, 1..=u64::MAX / 4, e));
    let memory = reader.optional(&section, "most_memory", "10GiB", values::memory);
    let save = reader.defaulted(&section, "save", false, "allowed", |k, n, _| {
        values::word(k, n, &[("allowed", true), ("refused", false)])
    });
    Some(Guard { allowed_targets: allowed?, most_rows: rows?, most_memory_bytes: memory?, may_save: save? })
}
