//! Shows what the run is doing, on stderr, while it goes on.
//!
//! Fed by the coordinator's Watch stream. On a terminal one line that is rewritten, with a bar where the amount of
//! work is known; elsewhere a line per phase and one every five seconds, so that a log stays readable.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vst_common::clock::{MonoNs, SECOND_NS, mono_ns};
use vst_proto::fleet::Status;

use crate::output;

const PLAIN_EVERY_NS: u64 = 5 * SECOND_NS;

/// The display of one run.
pub(crate) struct Display {
    bar: Option<ProgressBar>,
    phase: Option<u32>,
    said_at: MonoNs,
}

impl Display {
    /// Nothing is shown until the first status.
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.set_style(spinner());
            bar
        });
        Self { bar, phase: if quiet { Some(u32::MAX) } else { None }, said_at: 0 }
    }

    /// Says something that has no status yet.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None if self.phase != Some(u32::MAX) => output::note(text),
            None => {}
        }
    }

    /// Shows a status.
    pub(crate) fn show(&mut self, status: &Status) {
        let quiet = self.bar.is_none() && self.phase == Some(u32::MAX);
        if quiet {
            return;
        }
        let begins = self.phase != Some(status.phase);
        let text = line(status);
        if let Some(bar) = &self.bar {
            if begins {
                self.phase = Some(status.phase);
            }
            match length(status) {
                Some((done, total)) => {
                    bar.set_style(with_bar());
                    bar.set_length(total);
                    bar.set_position(done.min(total));
                }
                None => bar.set_style(spinner()),
            }
            bar.set_message(text);
            return;
        }
        let now = mono_ns();
        if begins || now.saturating_sub(self.said_at) >= PLAIN_EVERY_NS {
            self.phase = Some(status.phase);
            self.said_at = now;
            output::note(&text);
        }
    }

    /// Takes the display away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The display of one transfer, on stderr: a bar on a terminal, nothing elsewhere.
pub(crate) struct Transfer {
    bar: Option<ProgressBar>,
}

impl Transfer {
    /// Begins; `unit` is `bytes` or a word for what is counted.
    pub(crate) fn new(name: &str, unit: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let template = if unit == "bytes" {
                String::from("{msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            } else {
                format!("{{msg}} [{{bar:24}}] {{human_pos}}/{{human_len}} {unit} {{per_sec}} {{eta}}")
            };
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar.set_message(name.to_owned());
            bar
        });
        Self { bar }
    }

    /// So much of so much is done.
    pub(crate) fn at(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Takes the display away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn with_bar() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} [{bar:24}] {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// How much of the phase is done: rows where it has rows, time where it has a length.
fn length(status: &Status) -> Option<(u64, u64)> {
    if status.units_total > 0 {
        Some((status.units_done, status.units_total))
    } else if status.phase_length_ns > 0 {
        Some((status.phase_elapsed_ns / 1_000_000, status.phase_length_ns / 1_000_000))
    } else {
        None
    }
}

fn line(status: &Status) -> String {
    let mut text = format!("{}/{} {}", status.phase + 1, status.phases.max(1), status.phase_name);
    if status.workers < status.workers_wanted {
        text.push_str(&format!("  workers {}/{}", status.workers, status.workers_wanted));
    }
    if status.units_total > 0 {
        text.push_str(&format!("  {}/{} rows", status.units_done, status.units_total));
    }
    if status.achieved_per_second > 0.0 {
        if status.offered_per_second > 0.0 {
            text.push_str(&format!("  offered {:.0}/s", status.offered_per_second));
        }
        text.push_str(&format!("  achieved {:.0}/s", status.achieved_per_second));
    }
    if status.p99_ns > 0 {
        text.push_str(&format!("  p50 {}  p99 {}", millis(status.p50_ns), millis(status.p99_ns)));
    }
    if status.recall > 0.0 {
        text.push_str(&format!("  recall {:.4}", status.recall));
    }
    if status.errors > 0 {
        text.push_str(&format!("  errors {}", status.errors));
    }
    if status.used_memory_bytes > 0 {
        let mib = vst_common::count::to_f64(status.used_memory_bytes) / 1_048_576.0;
        text.push_str(&format!("  memory {mib:.1} MiB"));
    }
    if !status.message.is_empty() {
        text.push_str("  ");
        text.push_str(&status.message);
    }
    text
}

fn millis(ns: u64) -> String {
    let ms = vst_common::count::to_f64(ns) / 1e6;
    if ms >= 100.0 { format!("{ms:.0} ms") } else { format!("{ms:.2} ms") }
}
