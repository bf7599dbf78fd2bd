//! Finds a scenario by name or path and checks it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use miette::GraphicalReportHandler;
use vst_common::exit::Exit;
use vst_common::scenario::check::{self, Checked, Faults};
use vst_common::scenario::library;

use crate::builtin;
use crate::error::Failure;

/// One `--set path=value`.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    path: String,
    value: String,
}

impl Override {
    /// Puts a value at a path.
    pub(crate) fn new(path: &str, value: impl std::fmt::Display) -> Self {
        Self { path: path.to_owned(), value: value.to_string() }
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((path, value)) if !path.is_empty() => {
                Ok(Self { path: path.to_owned(), value: value.to_owned() })
            }
            _ => Err(String::from("expected PATH=VALUE, for example phases.query_full.query.duration=5s")),
        }
    }
}

/// A checked scenario and the folder that its relative paths start from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) checked: Checked,
    pub(crate) base: PathBuf,
}

/// Reads `name`: the path of a file, or the name of a built-in scenario.
pub(crate) fn load(name: &str, overrides: &[Override]) -> Result<Loaded, Failure> {
    let path = Path::new(name);
    let (text, base, file_name) = match library::text_of(name) {
        Some(text) if !path.exists() => {
            let base = builtin::unpack().map_err(|e| {
                Failure::new(
                    Exit::Scenario,
                    format!("the built-in data cannot be unpacked: {e}; set XDG_CACHE_HOME"),
                )
            })?;
            (text.to_owned(), base, format!("{name}.yaml"))
        }
        _ => {
            let text = std::fs::read_to_string(path).map_err(|e| {
                let known: Vec<&str> = library::LIBRARY.iter().map(|(name, _)| *name).collect();
                let message = format!(
                    "scenario `{name}` cannot be read: {e}; give the path of a file or one of: {}",
                    known.join(", ")
                );
                Failure::new(Exit::Scenario, message)
            })?;
            let base = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let base = std::fs::canonicalize(base)?;
            (text, base, name.to_owned())
        }
    };
    let overrides: Vec<(String, String)> =
        overrides.iter().map(|o| (o.path.clone(), o.value.clone())).collect();
    let checked = check::parse(&text, &file_name, &overrides).map_err(|faults| refuse(&faults))?;
    Ok(Loaded { checked, base })
}

/// Faults as a person reads them: file, line, caret, hint; all at once.
pub(crate) fn refuse(faults: &Faults) -> Failure {
    Failure::new(Exit::Scenario, render(faults))
}

fn render(faults: &Faults) -> String {
    let handler = if crate::output::errors_are_styled() {
        GraphicalReportHandler::new()
    } else {
        GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
    };
    let mut text = String::new();
    match handler.render_report(&mut text, faults) {
        Ok(()) => text,
        Err(_) => faults.iter().map(|f| format!("{}\n", f.message())).collect(),
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.path, self.value)
    }
}
