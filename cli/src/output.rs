//! The only place that writes: results to stdout, everything else to stderr.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

/// Writes a result, with a final line end. A reader that went away ends the command quietly.
pub(crate) fn result(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{newline}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Tells a person why a command failed.
pub(crate) fn complain(text: &str) {
    note(&format!("vst: {text}"));
}

/// Tells a person something on stderr.
pub(crate) fn note(text: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether results are read by a person at a terminal.
#[cfg(feature = "analysis")]
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Starts logging to stderr.
pub(crate) fn start_log(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|e| e.to_string())
}

/// Whether faults may be coloured.
pub(crate) fn errors_are_styled() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
