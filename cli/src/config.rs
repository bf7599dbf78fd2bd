//! Environments: read from a file, tried against the target, and obeyed by every run that is given one.
//!
//! `vst config test` connects and asks; it writes nothing anywhere. Law: what the guard forbids is refused before
//! anything is started.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use vst_common::exit::Exit;
use vst_common::run_dir::{self, Results};
use vst_common::scenario::check::config::{self, Config, Guard, Surroundings};
use vst_coordinator::plan::{self, DataFacts};
use vst_coordinator::serve;
use vst_coordinator::target::{Target, TargetUrl};

use crate::error::Failure;
use crate::output;
use crate::scenario_file::{Loaded, refuse};

/// What to do with an environment.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Connects to the target and asks for rights, module, memory and topology; changes nothing
    Test {
        /// The environment
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Says that nothing is to be changed, which nothing ever is
        #[arg(long)]
        dry_run: bool,
    },
}

struct Here;

impl Surroundings for Here {
    fn file(&self, from: &str, reference: &str) -> Result<(String, String), String> {
        let path = Path::new(from).parent().unwrap_or(Path::new("")).join(reference);
        let text = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
        Ok((path.to_string_lossy().into_owned(), text))
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Reads an environment and those that it extends.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::new(Exit::Scenario, format!("configuration `{}` cannot be read: {e}", path.display()))
    })?;
    config::parse(&text, &path.to_string_lossy(), &Here).map_err(|faults| refuse(&faults))
}

/// Where results go.
pub(crate) fn results(written: Option<&str>) -> Result<Results, Failure> {
    let Some(written) = written else { return Ok(Results::default()) };
    written.parse().map_err(|e: run_dir::Error| Failure::new(Exit::Scenario, e.to_string()))
}

/// What a file alone does not tell: whether what it names is there. All of it at once.
pub(crate) async fn strictly(config: &Config) -> Result<(), Failure> {
    let mut faults = Vec::new();
    if let Some(Err(e)) = config.token_file.as_ref().map(std::fs::read_to_string) {
        faults
            .push(format!("token_file `{}` cannot be read: {e}", config.token_file.as_deref().unwrap_or("")));
    }
    let checked = match results(config.results.as_deref()) {
        Ok(results) => serve::check_results(&results).await.map_err(|e| e.to_string()),
        Err(failure) => Err(failure.to_string()),
    };
    if let Err(reason) = checked {
        faults.push(reason);
    }
    if config.target.is_some() && config.guard.allowed_targets.is_empty() {
        faults.push(String::from("a target without `guard.allowed_targets`: name those that may be loaded"));
    }
    match faults.as_slice() {
        [] => Ok(()),
        _ => Err(Failure::new(Exit::Scenario, faults.join("\nvst: "))),
    }
}

/// Refuses a run that the guard forbids.
pub(crate) fn obey(
    guard: &Guard,
    target: Option<&str>,
    loaded: &Loaded,
    facts: Option<&DataFacts>,
) -> Result<(), Failure> {
    let forbid = |text: String| Err(Failure::new(Exit::Scenario, format!("the guard forbids it: {text}")));
    if let Some(url) = target {
        let address =
            TargetUrl::new(url, None).map_err(|e| Failure::new(Exit::Usage, e.to_string()))?.address();
        if !guard.allows(&address) {
            let allowed = guard.allowed_targets.join(", ");
            return forbid(format!("target `{address}` is not among those that may be loaded: {allowed}"));
        }
    }
    let estimate = plan::estimate(&loaded.checked, facts, 1);
    if let Some(most) = guard.most_rows.filter(|most| estimate.population > *most) {
        return forbid(format!(
            "the run makes {} rows and keys, and {most} is the most",
            estimate.population
        ));
    }
    if let Some(most) = guard.most_memory_bytes.filter(|most| estimate.server_bytes > *most) {
        return forbid(format!(
            "the run needs {} bytes of the target, and {most} is the most",
            estimate.memory()
        ));
    }
    Ok(())
}

pub(crate) async fn run(command: &ConfigCommand) -> Result<Exit, Failure> {
    let ConfigCommand::Test { config: path, dry_run: _ } = command;
    let config = load(path)?;
    strictly(&config).await?;
    let Some(url) = &config.target else {
        output::result(&format!("{}: valid; names no target, so nothing was asked", path.display()))?;
        return Ok(Exit::Valid);
    };
    let of = |e: vst_coordinator::target::TargetError| crate::fleet::of_coordinator(e.into());
    let target = Target::connect(url).await.map_err(of)?;
    let facts = target.facts().await.map_err(of)?;
    let used = target.used_memory().await.map_err(of)?;
    let limits = target.client_limits().await.map_err(of)?;
    let module = facts
        .search
        .as_ref()
        .map_or_else(|| String::from("none"), |search| format!("{} {}", search.module, search.version));
    let mut lines = vec![
        format!("config    {}: valid", path.display()),
        format!(
            "target    {}: {} of {} primaries, {} nodes, version {}",
            facts.url,
            if facts.cluster { "cluster" } else { "server" },
            target.primaries().count(),
            target.nodes().len(),
            facts.server_version
        ),
        format!("search    {module}"),
        format!("memory    {used} bytes used over all nodes"),
    ];
    if let Some(most) = config.guard.most_memory_bytes {
        lines.push(format!("guard     load ends at {most} bytes"));
        if used >= most {
            lines.push(String::from("guard     and that is reached already"));
        }
    }
    for limit in &limits {
        lines.push(format!("clients   {}: {} of {} connected", limit.address, limit.connected, limit.most));
    }
    output::result(&lines.join("\n"))?;
    let full = config.guard.most_memory_bytes.is_some_and(|most| used >= most);
    Ok(if full { Exit::Target } else { Exit::Valid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_targets_match_as_a_person_reads_them() {
        let guard = |patterns: &[&str]| Guard {
            allowed_targets: patterns.iter().map(|p| (*p).to_owned()).collect(),
            ..Guard::default()
        };
        assert!(guard(&[]).allows("anything:1"));
        assert!(guard(&["staging-*:6379"]).allows("staging-7.eu:6379"));
        assert!(!guard(&["staging-*:6379"]).allows("production-7:6379"));
        assert!(!guard(&["staging-*:6379"]).allows("staging-7:63790"));
        assert!(guard(&["a", "*b*c"]).allows("xbyc") && !guard(&["*b*c"]).allows("xcyb"));
    }
}
