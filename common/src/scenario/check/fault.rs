//! What is wrong with a scenario, and where it stands in the text.
//!
//! Made by the readers of this module and by whoever checks a scenario against data (through [`super::SourceMap`]),
//! printed by the command line with miette. Law: a span lies within its text, on character boundaries and on one line,
//! whatever the parser said, so that a fault can always be printed.

use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};

/// One fault: where, what and how to put it right.
#[derive(Clone, Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Fault {
    message: String,
    label: String,
    #[source_code]
    text: Arc<NamedSource<String>>,
    #[label("{label}")]
    span: SourceSpan,
    #[help]
    hint: String,
}

impl Fault {
    /// What is wrong, in one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The words at the caret.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How to put it right.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The bytes of [`Fault::text`] that are at fault.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.offset()..self.span.offset() + self.span.len()
    }

    /// The whole text that holds the fault: the file, or one override.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.inner()
    }
}

/// All faults of one scenario, in the order of the text; never empty.
#[derive(Clone, Debug, thiserror::Error, Diagnostic)]
#[error("{}", self.headline())]
pub struct Faults {
    file: String,
    #[related]
    faults: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(file: &str, faults: Vec<Fault>) -> Self {
        Self { file: file.to_owned(), faults }
    }

    /// The faults, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// How many there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.faults.len()
    }

    /// These faults and then those of `other`, for a check that finds several.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        self.faults.extend(other.faults);
        self
    }

    fn headline(&self) -> String {
        match self.faults.len() {
            1 => format!("{} has a fault", self.file),
            n => format!("{} has {n} faults", self.file),
        }
    }
}

/// Bytes of one of the texts that a scenario is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index within [`Sources`].
    pub(super) source: usize,
    /// First byte.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
}

/// What a reader has to say about a value, without the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) label: String,
    pub(super) hint: String,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, label: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), label: label.into(), hint: hint.into() }
    }
}

/// The texts that a scenario is made of: its file, then the overrides.
#[derive(Clone, Debug)]
pub(super) struct Sources(Vec<Arc<NamedSource<String>>>);

impl Sources {
    /// The file alone; it has the index 0.
    pub(super) fn of_file(name: &str, text: &str) -> Self {
        Self(vec![Arc::new(NamedSource::new(name, text.to_owned()))])
    }

    /// Adds a text and says its index.
    pub(super) fn add(&mut self, name: &str, text: String) -> usize {
        self.0.push(Arc::new(NamedSource::new(name, text)));
        self.0.len() - 1
    }

    /// Name of the scenario's file.
    pub(super) fn file_name(&self) -> &str {
        self.0.first().map_or("", |file| file.name())
    }

    /// The text that is written at a place; empty where the place is none.
    pub(super) fn written(&self, place: Place) -> &str {
        self.0.get(place.source).and_then(|text| text.inner().get(place.start..place.end)).unwrap_or_default()
    }

    /// A fault at a place, which is moved onto character boundaries and cut at the end of its line.
    pub(super) fn fault(&self, place: Place, complaint: Complaint) -> Fault {
        let text = self
            .0
            .get(place.source)
            .map_or_else(|| Arc::new(NamedSource::new("", String::new())), Arc::clone);
        let body = text.inner();
        let start = body.floor_char_boundary(place.start);
        let end = body.floor_char_boundary(place.end.max(start));
        let line = body.get(start..end).unwrap_or_default();
        let length = line.find(['\n', '\r']).unwrap_or(line.len());
        let Complaint { message, label, hint } = complaint;
        Fault { message, label, text, span: (start, length).into(), hint }
    }
}
