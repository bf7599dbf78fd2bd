//! The command lines of `vst run tune`, `vst run sweep` and `vst run compare`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use vst_common::exit::Exit;
use vst_common::run_dir::Results;
use vst_common::scenario::check::config::Config;
use vst_tuning::compare::Margin;
use vst_tuning::constraint::Constraint;
use vst_tuning::figure::Figure;
use vst_tuning::tune::{Parameter, Range, Setting, Shape, Value};

use super::bench::{BenchSpec, CLIENTS, CONNECTIONS, overrides};
use crate::config;
use crate::error::Failure;
use crate::scenario_file::Override;

/// One of the three.
#[derive(Debug)]
pub(crate) enum SearchCommand {
    Tune(TuneCommand),
    Sweep(SweepCommand),
    Compare(CompareCommand),
}

impl From<TuneCommand> for SearchCommand {
    fn from(command: TuneCommand) -> Self {
        Self::Tune(command)
    }
}

impl From<SweepCommand> for SearchCommand {
    fn from(command: SweepCommand) -> Self {
        Self::Sweep(command)
    }
}

impl From<CompareCommand> for SearchCommand {
    fn from(command: CompareCommand) -> Self {
        Self::Compare(command)
    }
}

/// What every search is told.
#[derive(Debug, Args)]
pub(crate) struct SearchOptions {
    /// Scenario file or built-in scenario: its phases up to the first query load the population, its first query is
    /// what is measured
    #[arg(long, default_value = "quick")]
    scenario: String,
    /// Your server, or any node of your cluster: valkey://[user@]host:port; the password comes from VST_PASSWORD.
    /// Without it a local cluster is started for the search
    #[arg(long)]
    target: Option<String>,
    /// An environment (docs/configuration.md): target, fleet, results, guard; what is said here goes over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Worker processes, instead of the scenario's number
    #[arg(long)]
    workers: Option<u32>,
    /// Replaces a value of the scenario: a path of keys (phases by their name) and what to put there
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<Override>,
    /// Folder in which the search's folder is made; `runs` where nothing says so
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Remove what an earlier run left under the prefix before, and exactly what the search made after
    #[arg(long)]
    pub(super) cleanup: bool,
    /// Measured part of each point; a slow point lasts longer, so that it has some hundred requests
    #[arg(long, default_value = "5s")]
    length: String,
    /// Unmeasured part before it
    #[arg(long, default_value = "1s")]
    warm_up: String,
    /// Clients of a closed loop
    #[arg(long, default_value_t = 16)]
    clients: u32,
    /// Connections of an open loop to every primary
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Goes on with a search that was stopped: its folder. All other options are those it was begun with
    #[arg(long, value_name = "DIR")]
    pub(super) resume: Option<PathBuf>,
    /// The result as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// No progress
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// `vst run tune`.
#[derive(Debug, Args)]
pub(crate) struct TuneCommand {
    #[command(flatten)]
    pub(super) search: SearchOptions,
    /// The figure that shall be large [default: qps]
    #[arg(long, value_name = "FIGURE", conflicts_with = "minimise")]
    pub(super) maximise: Option<Figure>,
    /// The figure that shall be small
    #[arg(long, value_name = "FIGURE")]
    pub(super) minimise: Option<Figure>,
    /// What must hold, for example 'recall >= 0.95'; may be given more than once [default: recall >= 0.95, p99 <= 10ms]
    #[arg(long = "under", value_name = "CONSTRAINT")]
    pub(super) under: Vec<Constraint>,
    /// What may be changed and between which values: ef_runtime=16..512, or m=8,16,32; a path as --set takes it, a key
    /// of the query, `clients` or `connections` [default: ef_runtime=10..512, not below k]
    #[arg(long = "parameter", value_name = "NAME=RANGE")]
    pub(super) parameters: Vec<ParameterText>,
    /// The lowest and the highest rate tried when qps is maximised, for example 500/s..20000/s; found by probes if absent
    #[arg(long, value_name = "LOW..HIGH")]
    pub(super) rates: Option<Rates>,
    /// Open-loop rate of each point where another figure than qps is searched; a closed loop if absent
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(super) rate: Option<f64>,
    #[command(flatten)]
    pub(super) effort: EffortOptions,
}

/// `vst run sweep`.
#[derive(Debug, Args)]
pub(crate) struct SweepCommand {
    #[command(flatten)]
    pub(super) search: SearchOptions,
    /// What must hold at the limit, for example 'p99 <= 10ms'; may be given more than once. That the target achieves
    /// 95 % of what is offered always must
    #[arg(long = "under", value_name = "CONSTRAINT")]
    pub(super) under: Vec<Constraint>,
    /// Values of which every combination gets its curve: ef_runtime=50,100,200
    #[arg(long = "grid", value_name = "NAME=VALUES")]
    pub(super) grid: Vec<ParameterText>,
    /// The lowest and the highest rate tried, for example 500/s..20000/s; found by probes if absent
    #[arg(long, value_name = "LOW..HIGH")]
    pub(super) rates: Option<Rates>,
    #[command(flatten)]
    pub(super) effort: EffortOptions,
}

/// `vst run compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareCommand {
    #[command(flatten)]
    pub(super) search: SearchOptions,
    /// What A sets; may be given more than once
    #[arg(long = "a", value_name = "NAME=VALUE")]
    pub(super) a: Vec<AssignText>,
    /// What B sets
    #[arg(long = "b", value_name = "NAME=VALUE")]
    pub(super) b: Vec<AssignText>,
    /// B's target, where it is another than A's
    #[arg(long, value_name = "URL")]
    pub(super) target_b: Option<String>,
    /// Open-loop rate of each point; a closed loop if absent
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(super) rate: Option<f64>,
    /// A figure and the change of it that matters, for example qps=2%; may be given more than once
    /// [default: p99=10% recall=0.5%, in a closed loop qps=3% besides]
    #[arg(long = "margin", value_name = "FIGURE=CHANGE")]
    pub(super) margins: Vec<MarginText>,
    /// Blocks of four points at most
    #[arg(long, default_value_t = 12)]
    pub(super) blocks: usize,
}

/// How much is spent.
#[derive(Debug, Args)]
pub(crate) struct EffortOptions {
    /// How narrow the interval of a limit shall become, as a share
    #[arg(long, default_value_t = 0.05)]
    pub(super) width: f64,
    /// Points about a limit at most
    #[arg(long, default_value_t = 16)]
    pub(super) repeats: usize,
    /// Measurements of one setting at most
    #[arg(long, default_value_t = 4)]
    pub(super) setting_repeats: usize,
    /// Measurements of settings at most
    #[arg(long, default_value_t = 60)]
    pub(super) budget: usize,
}

/// `NAME=RANGE` as it was written.
#[derive(Clone, Debug)]
pub(crate) struct ParameterText {
    name: String,
    range: Range,
    /// Values of a list in rising order, or a range.
    rises: bool,
}

/// `NAME=VALUE`.
#[derive(Clone, Debug)]
pub(crate) struct AssignText(String, Value);

/// `LOW..HIGH`, per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates(pub(super) f64, pub(super) f64);

/// `FIGURE=CHANGE`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MarginText(pub(super) Margin);

/// A rate with or without `/s`.
fn rate(text: &str) -> Result<f64, String> {
    let with_unit = if text.contains('/') { text.to_owned() } else { format!("{text}/s") };
    let constraint: Result<Constraint, _> = format!("qps >= {with_unit}").parse();
    constraint.map(|c| c.bound()).map_err(|_| format!("`{text}` is no rate: write it like 5000/s"))
}

impl FromStr for Rates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (low, high) = text
            .split_once("..")
            .ok_or_else(|| String::from("expected LOW..HIGH, for example 500/s..20000/s"))?;
        Ok(Self(rate(low)?, rate(high)?))
    }
}

fn value(text: &str) -> Value {
    let text = text.trim();
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(n), _) => Value::Int(n),
        (_, Ok(x)) => Value::Float(x),
        _ => Value::Text(text.to_owned()),
    }
}

impl FromStr for AssignText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, set)) if !name.is_empty() && !set.is_empty() => Ok(Self(name.to_owned(), value(set))),
            _ => Err(String::from("expected NAME=VALUE, for example ef_runtime=100")),
        }
    }
}

impl FromStr for ParameterText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || {
            String::from("expected NAME=LOW..HIGH or NAME=VALUE,VALUE,..., for example ef_runtime=16..512")
        };
        let (name, range) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(fault)?;
        let name = name.to_owned();
        if let Some((low, high)) = range.split_once("..") {
            let range = match (value(low), value(high)) {
                (Value::Int(low), Value::Int(high)) if low > 0 => Range::LogInt(low, high),
                (Value::Int(low), Value::Int(high)) => Range::Int(low, high),
                (low, high) => {
                    let number = |v: &Value| match v {
                        Value::Int(n) => n.to_string().parse().ok(),
                        Value::Float(x) => Some(*x),
                        Value::Text(_) => None,
                    };
                    Range::Float(number(&low).ok_or_else(fault)?, number(&high).ok_or_else(fault)?)
                }
            };
            return Ok(Self { name, range, rises: true });
        }
        let values: Vec<Value> = range.split(',').map(value).collect();
        let rises = values.windows(2).all(|w| matches!(w, [Value::Int(a), Value::Int(b)] if a < b));
        Ok(Self { name, range: Range::List(values), rises })
    }
}

impl FromStr for MarginText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || String::from("expected FIGURE=CHANGE, for example qps=2%");
        let (figure, change) = text.split_once('=').ok_or_else(fault)?;
        let figure: Figure =
            figure.trim().parse().map_err(|e: vst_tuning::figure::UnknownFigure| e.to_string())?;
        let change = change.trim();
        let number = |text: &str| text.trim().parse::<f64>().map_err(|_| fault());
        let change = match change.strip_suffix('%') {
            Some(percent) => number(percent)? / 100.0,
            None => number(change)?,
        };
        Ok(Self(Margin { figure, change }))
    }
}

/// The path of a parameter: a key of the query may stand alone.
fn path(name: &str, queries: &str) -> String {
    match name {
        CLIENTS | CONNECTIONS => name.to_owned(),
        "k" | "ef_runtime" => format!("phases.{queries}.query.{name}"),
        _ => match name.strip_prefix("query.") {
            Some(key) => format!("phases.{queries}.query.{key}"),
            None => name.to_owned(),
        },
    }
}

impl ParameterText {
    /// The parameter; `queries` is the phase that is measured, `objective` what is to be best.
    pub(super) fn parameter(&self, queries: &str, objective: Figure) -> Parameter {
        let is_ef = self.name == "ef_runtime" || self.name.ends_with(".ef_runtime");
        let shape = match (&self.range, is_ef && self.rises) {
            (_, true) => super::tune::along_ef(objective),
            (Range::List(_), false) => Shape::Any,
            _ => Shape::Test,
        };
        Parameter::new(&path(&self.name, queries), self.range.clone()).shaped(shape)
    }

    /// The values of a list.
    pub(super) fn values(&self, queries: &str) -> Result<(String, Vec<Value>), Failure> {
        match &self.range {
            Range::List(values) => Ok((path(&self.name, queries), values.clone())),
            _ => Err(Failure::new(
                Exit::Usage,
                format!(
                    "--grid {}: a grid needs its values one by one, for example {}=50,100,200",
                    self.name, self.name
                ),
            )),
        }
    }
}

/// What a side sets.
pub(super) fn setting(assigned: &[AssignText], queries: &str) -> Setting {
    Setting(assigned.iter().map(|AssignText(name, value)| (path(name, queries), value.clone())).collect())
}

/// Where the folder of a search is made: it has files of its own beside run directories.
pub(super) fn folder(named: Option<&Path>, environment: &Config) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    match config::results(environment.results.as_deref())? {
        Results::Folder(folder) => Ok(folder),
        place => Err(Failure::new(
            Exit::Usage,
            format!(
                "the environment's results are at `{place}`, and a search needs a folder: name one with --results"
            ),
        )),
    }
}

impl SearchOptions {
    /// What `--config` names; nothing where there is none.
    pub(super) fn environment(&self) -> Result<Config, Failure> {
        Ok(self.config.as_deref().map(config::load).transpose()?.unwrap_or_default())
    }

    /// Where the search's folder is made.
    pub(super) fn results(&self) -> Result<PathBuf, Failure> {
        folder(self.results.as_deref(), &self.environment()?)
    }

    /// What is measured.
    pub(super) fn bench(&self) -> Result<BenchSpec, Failure> {
        let config = self.environment()?;
        let before = config.overrides();
        let before = before.iter().map(|(path, value)| Override::new(path, value));
        let workers = self.workers.map(|n| Override::new("fleet.workers", n));
        let set = before.chain(self.set.iter().cloned()).chain(workers);
        let set: Vec<String> = set.map(|set| set.to_string()).collect();
        overrides(&set)?;
        Ok(BenchSpec {
            scenario: self.scenario.clone(),
            set,
            target: self.target.clone().or(config.target),
            primaries: None,
            config: self.config.as_deref().map(std::path::absolute).transpose()?,
            cleanup: self.cleanup,
            length: self.length.clone(),
            warm_up: self.warm_up.clone(),
            clients: self.clients,
            connections: self.connections,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lists_and_margins_mean_what_they_say() {
        let along = |text: &str, figure| text.parse::<ParameterText>().unwrap().parameter("q", figure);
        let of = |text: &str| along(text, Figure::Qps);
        assert_eq!(of("ef_runtime=16..512").range, Range::LogInt(16, 512));
        assert_eq!(of("ef_runtime=16..512").path, "phases.q.query.ef_runtime");
        assert_eq!(of("ef_runtime=16,32").shape, Shape::Falling);
        assert_eq!(of("ef_runtime=32,16").shape, Shape::Any);
        // Time and recall rise with it: a search for the least p99 begins at the other end.
        assert_eq!(along("ef_runtime=16,32", Figure::P99).shape, Shape::Rising);
        assert_eq!(along("ef_runtime=16..32", Figure::Recall).shape, Shape::Rising);
        assert_eq!(of("index.m=8,16").path, "index.m");
        assert_eq!(of("clients=1..64").path, "clients");
        let margin = "qps=2%".parse::<MarginText>().unwrap().0;
        assert_eq!((margin.figure, margin.change), (Figure::Qps, 0.02));
        assert_eq!("recall=0.005".parse::<MarginText>().unwrap().0.change, 0.005);
        let Rates(low, high) = "500..20000/s".parse().unwrap();
        assert_eq!((low, high), (500.0, 20_000.0));
        for bad in ["ef_runtime", "=1..2", "ef=a..b"] {
            assert!(bad.parse::<ParameterText>().is_err(), "{bad}");
        }
    }
}
