//! The command line of `vst run`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use vst_common::run_dir::Results;
use vst_common::scenario::check::config::Guard;
use vst_http::Gateway;

use crate::config;
use crate::error::Failure;
use crate::scenario_file::Override;

/// What to run.
#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// The built-in quick scenario: 10,000 real vectors through every stage, about a minute
    Quick(Common),
    /// A scenario file, or a built-in scenario by name
    Scenario {
        /// Path or name
        scenario: String,
        #[command(flatten)]
        common: Common,
    },
    /// The best setting under constraints: most queries per second, or another figure at its best
    #[cfg(feature = "analysis")]
    Tune(crate::search::TuneCommand),
    /// The curve of throughput against latency and recall, its limit and its knee, for every setting of a grid
    #[cfg(feature = "analysis")]
    Sweep(crate::search::SweepCommand),
    /// A against B, in turns: two targets, or two settings of one
    #[cfg(feature = "analysis")]
    Compare(crate::search::CompareCommand),
    /// A goal at growing populations, by the cheapest steps: load, measure, tune, other index parameters, more shards
    #[cfg(feature = "analysis")]
    Campaign(crate::search::CampaignCommand),
    /// The built-in scenarios
    ListScenarios {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Options of every run.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Your server, or any node of your cluster: valkey://[user@]host:port; the password comes from VST_PASSWORD.
    /// Without it a local cluster is started for the run
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
    /// Where the run directory is made: a folder, s3://, gs:// or az://; `runs` where nothing says so
    #[arg(long, value_name = "PLACE")]
    results: Option<Results>,
    /// Remove what an earlier run left under the prefix before, and exactly what this run made after
    #[arg(long)]
    cleanup: bool,
    /// Let programs run on this machine that the scenario or the environment names (docs/hooks.md)
    #[arg(long)]
    allow_hooks: bool,
    /// Write [STAGE:START] and [STAGE:END] lines to stderr, for a profiler that follows phases
    #[arg(long)]
    stages: bool,
    /// Without --target: start the local cluster with what an earlier run saved; `prefill: reuse` takes it over
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    restore_target: Option<PathBuf>,
    /// Without --target: save what the local cluster holds after the run, for --restore-target
    #[arg(long, value_name = "DIR", conflicts_with_all = ["target", "cleanup"])]
    save_target: Option<PathBuf>,
    /// Have every primary of the target write its data to its own disk after the run (BGSAVE), and say where it lies;
    /// needs `guard: {save: allowed}` in the file of --config
    #[arg(long, conflicts_with = "cleanup")]
    bgsave: bool,
    /// Check everything, say what would happen, start nothing
    #[arg(long)]
    dry_run: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
    /// No progress display
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    push: crate::fleet::Push,
}

/// A run with all its options.
#[derive(Debug)]
pub(crate) struct RunOptions {
    pub(crate) scenario: String,
    pub(crate) target: Option<String>,
    pub(crate) set: Vec<Override>,
    pub(crate) results: Results,
    pub(crate) cleanup: bool,
    pub(crate) allow_hooks: bool,
    pub(crate) stages: bool,
    pub(crate) restore_target: Option<PathBuf>,
    pub(crate) save_target: Option<PathBuf>,
    pub(crate) bgsave: bool,
    pub(crate) dry_run: bool,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) pushgateway: Option<Gateway>,
    pub(crate) token_file: Option<PathBuf>,
    /// Addresses of an etcd, separated by commas, and the fleet there, whose workers join those that are started here.
    pub(crate) etcd: Option<(String, Option<String>)>,
    pub(crate) guard: Guard,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum ScenarioAction {
    /// Run a scenario.
    Run(Result<Box<RunOptions>, Failure>),
    /// Search a target.
    #[cfg(feature = "analysis")]
    Search(Box<crate::search::SearchCommand>),
    /// Reach a goal.
    #[cfg(feature = "analysis")]
    Campaign(Box<crate::search::CampaignCommand>),
    /// Name the built-in ones.
    List { json: bool },
}

impl RunCommand {
    pub(crate) fn action(self) -> ScenarioAction {
        match self {
            Self::Quick(common) => ScenarioAction::Run(common.of(String::from("quick")).map(Box::new)),
            Self::Scenario { scenario, common } => ScenarioAction::Run(common.of(scenario).map(Box::new)),
            #[cfg(feature = "analysis")]
            Self::Tune(tune) => ScenarioAction::Search(Box::new(tune.into())),
            #[cfg(feature = "analysis")]
            Self::Sweep(sweep) => ScenarioAction::Search(Box::new(sweep.into())),
            #[cfg(feature = "analysis")]
            Self::Compare(compare) => ScenarioAction::Search(Box::new(compare.into())),
            #[cfg(feature = "analysis")]
            Self::Campaign(campaign) => ScenarioAction::Campaign(Box::new(campaign)),
            Self::ListScenarios { json } => ScenarioAction::List { json },
        }
    }
}

impl Common {
    fn of(self, scenario: String) -> Result<RunOptions, Failure> {
        let config = self.config.as_deref().map(config::load).transpose()?.unwrap_or_default();
        let before = config.overrides();
        let before = before.iter().map(|(path, value)| Override::new(path, value));
        // The same as `--set fleet.workers=N`, so that everything that is checked or planned sees one number.
        let workers = self.workers.map(|n| Override::new("fleet.workers", n));
        Ok(RunOptions {
            scenario,
            target: self.target.or(config.target),
            set: before.chain(self.set).chain(workers).collect(),
            results: match self.results {
                Some(results) => results,
                None => config::results(config.results.as_deref())?,
            },
            cleanup: self.cleanup,
            allow_hooks: self.allow_hooks,
            stages: self.stages,
            restore_target: self.restore_target,
            save_target: self.save_target,
            bgsave: self.bgsave,
            dry_run: self.dry_run,
            json: self.json,
            quiet: self.quiet,
            pushgateway: self.push.gateway,
            token_file: config.token_file.map(PathBuf::from),
            etcd: (!config.etcd_endpoints.is_empty())
                .then(|| (config.etcd_endpoints.join(","), config.etcd_fleet)),
            guard: config.guard,
        })
    }
}
