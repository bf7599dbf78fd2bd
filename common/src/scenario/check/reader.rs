//! Reads keys of mappings and gathers faults instead of stopping at the first.
//!
//! Used by the section and phase readers: each reads all its keys and only then gives up, so that one pass finds every
//! fault. Law: whenever a method answers `None` for a key that must be there or is wrong, it has noted a fault.

use super::fault::{Complaint, Fault, Place, Sources};
use super::tree::{Entry, Node, Value};
use super::values::nearest;

/// Gathers faults.
#[derive(Debug)]
pub(super) struct Reader<'s> {
    sources: &'s Sources,
    faults: Vec<(Place, Fault)>,
}

/// A mapping whose keys are known.
#[derive(Debug)]
pub(super) struct Section<'t> {
    /// What it is called in messages, for example "`dataset`" or "phase `load`".
    title: String,
    /// Where to point when a key is missing.
    place: Place,
    entries: &'t [Entry],
    /// Keys that an unknown key was probably meant to be: their absence needs no fault of its own.
    misspelt: Vec<String>,
}

impl<'t> Section<'t> {
    /// The first entry with that key.
    pub(super) fn get(&self, key: &str) -> Option<&'t Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Whether an unknown key, which is a fault already, was probably meant to be this one.
    pub(super) fn misspelt(&self, key: &str) -> bool {
        self.misspelt.iter().any(|meant| meant == key)
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }
}

impl<'s> Reader<'s> {
    pub(super) fn new(sources: &'s Sources) -> Self {
        Self { sources, faults: Vec::new() }
    }

    /// The text that is written at a place.
    pub(super) fn written(&self, place: Place) -> &'s str {
        self.sources.written(place)
    }

    /// Notes a fault.
    pub(super) fn complain(&mut self, place: Place, complaint: Complaint) {
        self.faults.push((place, self.sources.fault(place, complaint)));
    }

    /// All faults in the order of the text.
    pub(super) fn into_faults(mut self) -> Vec<Fault> {
        self.faults.sort_by_key(|(place, _)| *place);
        // A phase that is repeated has its faults every time.
        self.faults.dedup_by(|(a, x), (b, y)| a == b && x.label() == y.label());
        self.faults.into_iter().map(|(_, fault)| fault).collect()
    }

    /// A mapping with none but the allowed keys, each once. Nothing at all counts as a mapping without keys.
    pub(super) fn section<'t>(
        &mut self,
        title: &str,
        place: Place,
        node: &'t Node,
        allowed: &[&str],
    ) -> Option<Section<'t>> {
        let entries: &[Entry] = match &node.value {
            Value::Mapping(entries) => entries,
            Value::Nothing => &[],
            Value::Refused => return None,
            _ => {
                let hint = match allowed {
                    [] => "write `{}`".to_owned(),
                    _ => format!("its keys are: {}", allowed.join(", ")),
                };
                self.complain(
                    node.place_under(place),
                    Complaint::new(
                        format!("{title} takes a mapping, not {}", node.kind()),
                        format!("{}, where keys are wanted", node.kind()),
                        hint,
                    ),
                );
                return None;
            }
        };
        let mut misspelt = Vec::new();
        for (n, entry) in entries.iter().enumerate() {
            let key = entry.key.as_str();
            let place = entry.key_place;
            if !allowed.contains(&key) {
                let known = match allowed {
                    [] => format!("{title} takes no keys"),
                    _ => format!("{title} takes: {}", allowed.join(", ")),
                };
                let hint = match nearest(key, allowed) {
                    Some(meant) => {
                        misspelt.push(meant.to_owned());
                        format!("did you mean `{meant}`? {known}")
                    }
                    None => known,
                };
                self.complain(
                    place,
                    Complaint::new(format!("unknown key `{key}` in {title}"), "not known here", hint),
                );
            } else if entries.iter().take(n).any(|earlier| earlier.key == entry.key) {
                self.complain(
                    place,
                    Complaint::new(
                        format!("{title} has `{key}` twice"),
                        "given before",
                        "keep one of the two".to_owned(),
                    ),
                );
            }
        }
        Some(Section { title: title.to_owned(), place, entries, misspelt })
    }

    /// A sub-mapping of `section`, named by its key; without keys when it is absent.
    pub(super) fn subsection<'t>(
        &mut self,
        section: &Section<'t>,
        key: &str,
        allowed: &[&str],
    ) -> Option<Section<'t>> {
        let title = format!("`{key}`");
        match section.get(key) {
            Some(entry) => self.section(&title, entry.key_place, &entry.node, allowed),
            None => Some(Section { title, place: section.place, entries: &[], misspelt: Vec::new() }),
        }
    }

    /// A key that must be there.
    pub(super) fn required<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        example: &str,
        read: impl FnOnce(&str, &Node, &str) -> Result<T, Complaint>,
    ) -> Option<T> {
        if section.get(key).is_none() {
            if section.misspelt(key) {
                return None;
            }
            self.complain(
                section.place,
                Complaint::new(
                    format!("{} has no `{key}`", section.title),
                    format!("`{key}` is missing here"),
                    format!("add `{key}: {example}`"),
                ),
            );
        }
        self.optional(section, key, example, read)?
    }

    /// A key that may be absent: `Some(None)` then, `None` after a fault.
    #[expect(clippy::option_option, reason = "absent and wrong are two things")]
    pub(super) fn optional<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        example: &str,
        read: impl FnOnce(&str, &Node, &str) -> Result<T, Complaint>,
    ) -> Option<Option<T>> {
        let Some(entry) = section.get(key) else { return Some(None) };
        if matches!(entry.node.value, Value::Refused) {
            return None;
        }
        match read(key, &entry.node, example) {
            Ok(value) => Some(Some(value)),
            Err(complaint) => {
                self.complain(entry.node.place_under(entry.key_place), complaint);
                None
            }
        }
    }

    /// A key that has a default.
    pub(super) fn defaulted<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        default: T,
        example: &str,
        read: impl FnOnce(&str, &Node, &str) -> Result<T, Complaint>,
    ) -> Option<T> {
        self.optional(section, key, example, read).map(|value| value.unwrap_or(default))
    }

    /// The one entry whose key is among `choices`.
    pub(super) fn one_of<'t>(
        &mut self,
        section: &Section<'t>,
        choices: &[&str],
        example: &str,
    ) -> Option<&'t Entry> {
        let mut given = section.entries.iter().filter(|entry| choices.contains(&entry.key.as_str()));
        let Some(first) = given.next() else {
            if choices.iter().any(|choice| section.misspelt(choice)) {
                return None;
            }
            self.complain(
                section.place,
                Complaint::new(
                    format!("{} has none of: {}", section.title, choices.join(", ")),
                    "one of them is missing here",
                    format!("add one of them, for example `{example}`"),
                ),
            );
            return None;
        };
        if let Some(second) = given.find(|entry| entry.key != first.key) {
            self.complain(
                second.key_place,
                Complaint::new(
                    format!("{} has both `{}` and `{}`", section.title, first.key, second.key),
                    "one too many",
                    format!("keep one of: {}", choices.join(", ")),
                ),
            );
            return None;
        }
        Some(first)
    }
}
