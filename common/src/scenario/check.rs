//! Makes the checked form of a scenario from a YAML file, or says everything that is wrong with it.
//!
//! The command line hands over the text and its `--set` overrides; the planner gets a [`Checked`] and reports through
//! its [`SourceMap`] what only the data can tell (a `k` beyond the truth's depth, dimensions that differ). Law: what is
//! accepted can be planned without another look at the text; what is refused lists all faults at once, each with its
//! place.
//!
//! Durations are written `250ms`, `10s`, `1m30s`, `2h`; rates `500/s`, `30k/s`, `60/min`; shares `50%`.

mod ask;
mod beside;
pub mod campaign;
pub mod config;
mod criteria;
mod fault;
mod kv;
mod load;
mod mixed;
mod operations;
mod overrides;
mod parameters;
mod phases;
mod reader;
mod repeat;
pub mod schema;
mod sections;
mod sequence;
mod tree;
mod values;

use std::collections::BTreeMap;

use fault::{Complaint, Place, Sources};
pub use fault::{Fault, Faults};
use parameters::Parameters;
use reader::Reader;
use tree::{Node, Value};

use super::Scenario;

/// A scenario without fault, and where its keys stand.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the run does.
    pub scenario: Scenario,
    /// For faults that show only against the data or the target.
    pub source: SourceMap,
}

/// Where each key of a scenario stands in its text.
#[derive(Clone, Debug)]
pub struct SourceMap {
    sources: Sources,
    places: BTreeMap<String, Place>,
}

impl SourceMap {
    /// A fault at a key, for example `phases.query_full.query.k`; a phase is addressed by its name.
    ///
    /// Points at the value when it is a scalar and at the key otherwise; for a key that the file leaves to its
    /// default, at the nearest enclosing key that is there.
    #[must_use]
    pub fn fault(
        &self,
        path: &str,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) -> Faults {
        let mut at = path;
        let place = loop {
            if let Some(place) = self.places.get(at) {
                break *place;
            }
            match at.rsplit_once('.') {
                Some((parent, _)) => at = parent,
                None => break self.places.get("").copied().unwrap_or(Place { source: 0, start: 0, end: 0 }),
            }
        };
        let fault = self.sources.fault(place, Complaint::new(message, label, hint));
        Faults::new(self.sources.file_name(), vec![fault])
    }
}

/// Reads a scenario, puts the overrides (path and value) in place and checks the whole.
///
/// `file_name` is only shown. Relative paths of data stay as they are written.
///
/// # Errors
/// All faults of the text and of the overrides; only one when the text is no YAML.
pub fn parse(text: &str, file_name: &str, overrides: &[(String, String)]) -> Result<Checked, Faults> {
    let mut sources = Sources::of_file(file_name, text);
    let mut early = Vec::new();
    let mut tree = match tree::read(text, 0, 0) {
        Ok(tree) => tree,
        Err((place, complaint)) => {
            return Err(Faults::new(file_name, vec![sources.fault(place, complaint)]));
        }
    };
    let mut parameters = Parameters::of(&tree);
    for (path, value) in overrides {
        let source = sources.add("--set", format!("{path}={value}"));
        match tree::read(value, source, path.len() + 1) {
            Ok(node) if parameters.has(path) => parameters.give(path, node),
            Ok(node) => {
                early.extend(overrides::apply(&mut tree, source, path, node, &parameters.names()).err());
            }
            Err(fault) => early.push(fault),
        }
    }

    let mut reader = Reader::new(&sources);
    for (place, complaint) in early {
        reader.complain(place, complaint);
    }
    let parameters = parameters.apply(&mut reader, &mut tree);
    repeat::expand(&mut reader, &mut tree);
    let scenario = sections::scenario(&mut reader, &tree).map(|scenario| Scenario { parameters, ..scenario });
    let faults = reader.into_faults();
    match scenario {
        Some(scenario) if faults.is_empty() => {
            let mut places = BTreeMap::new();
            index(&tree, "", tree.place(), &mut places);
            Ok(Checked { scenario, source: SourceMap { sources, places } })
        }
        _ => Err(Faults::new(file_name, faults)),
    }
}

/// Notes the place of a node and of everything below it under their paths.
fn index(node: &Node, path: &str, key_place: Place, places: &mut BTreeMap<String, Place>) {
    places.insert(path.to_owned(), node.place_under(key_place));
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match &node.value {
        Value::Mapping(entries) => {
            for entry in entries {
                index(&entry.node, &below(&entry.key), entry.key_place, places);
            }
        }
        Value::List(items) => {
            // What runs beside a phase is a phase, and names are unique among all.
            let is_beside = path.starts_with("phases.") && path.ends_with(".beside");
            let below = |key: &str| if is_beside { format!("phases.{key}") } else { below(key) };
            for (n, item) in items.iter().enumerate() {
                let name_place = item.get("name").map_or(item.place(), Node::place);
                index(item, &below(&phases::address(item, n)), name_place, places);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
