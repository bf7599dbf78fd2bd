//! `vst run campaign`: a goal at growing populations, reached by the cheapest steps that nothing speaks against.
//!
//! `vst_tuning::campaign` plans; a [`field::Field`] does one step and tells what it measured; after each the file
//! `campaign.json` holds everything, so that a campaign that was stopped goes on. Law: nothing is decided here.

mod field;
mod forecast;
mod text;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use vst_common::exit::Exit;
use vst_common::scenario::check::campaign::{self, CampaignFile};
use vst_common::scenario::library;
use vst_tuning::campaign::{Action, Ask, Campaign, CampaignSpec, Conclusion, Event, Outcome, Stage};

use self::field::{Field, Place};
use super::Shell;
use super::bench::BenchSpec;
use super::journal::{new_folder, to_json, write_whole};
use super::options::folder;
use crate::error::Failure;
use crate::scenario_file::{Override, refuse};
use crate::{config, output};

const KIND: &str = "campaign";
const FILE: &str = "campaign.json";

/// `vst run campaign`.
#[derive(Debug, Args)]
pub(crate) struct CampaignCommand {
    /// The campaign: goal and actions (docs/finding-the-limit.md)
    #[arg(required_unless_present = "resume")]
    file: Option<PathBuf>,
    /// Your server, or any node of your cluster, as it is: valkey://[user@]host:port. Without it local clusters are started
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
    /// Folder in which the campaign's folder is made; `runs` where nothing says so
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Remove what an earlier load left under the prefix before each load, and exactly what the campaign made at its end
    #[arg(long)]
    cleanup: bool,
    /// Goes on with a campaign that was stopped: its folder. All other options are those it was begun with
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "dry_run"])]
    resume: Option<PathBuf>,
    /// Show the plan with its time, memory and reasons; start nothing
    #[arg(long)]
    dry_run: bool,
    /// The result as JSON
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

/// What `campaign.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    /// Version of vst.
    vst: String,
    /// Name of the campaign's file, and its text.
    file: PathBuf,
    text: String,
    /// What every load begins from.
    bench: BenchSpec,
    /// What is planned.
    spec: CampaignSpec,
    /// What has happened, in order: all that the plan depends on.
    events: Vec<Event>,
    /// The run directories below `runs`, each with the place that was loaded.
    runs: Vec<(Place, String)>,
    /// What was found; absent while it goes on.
    outcome: Option<Json>,
}

pub(crate) async fn run(command: CampaignCommand) -> Result<Exit, Failure> {
    let environment = command.config.as_deref().map(config::load).transpose()?.unwrap_or_default();
    let shell = Shell::with_token(environment.token_file.as_deref(), command.quiet)?;
    let (folder, mut written, file) = match (&command.resume, &command.file) {
        (Some(folder), _) => read(folder)?,
        (None, Some(path)) => {
            let (written, file) = begin(&command, &environment, path).await?;
            if command.dry_run {
                let campaign = planned(&written)?;
                output::result(&text::plan(&file, &campaign, command.json)?)?;
                return Ok(if campaign.plan().is_empty() { Exit::Criterion } else { Exit::Valid });
            }
            let folder = new_folder(&folder(command.results.as_deref(), &environment)?, KIND)?;
            write_whole(&folder, FILE, &written)?;
            (folder, written, file)
        }
        (None, None) => {
            return Err(Failure::new(Exit::Usage, "name a campaign's file, or --resume a folder"));
        }
    };
    let mut campaign = planned(&written)?;
    if command.resume.is_some() {
        tell(&mut campaign, &mut written, &folder, Event::Lost)?;
    }
    let mut field = Field::new(&file, &written, &folder, shell);
    let ended = go(&mut campaign, &mut written, &mut field, &folder, command.quiet).await;
    let closed = field.close().await;
    let outcome = match ended {
        Err(failure) if failure.exit() == Exit::Interrupted => {
            let shown = folder.display();
            return Err(Failure::new(Exit::Interrupted, format!("{failure}; go on with --resume {shown}")));
        }
        ended => ended?,
    };
    closed?;
    written.outcome = Some(to_json(&outcome)?);
    write_whole(&folder, FILE, &written)?;
    let alone = field.commands(&outcome.reached)?;
    output::result(&if command.json {
        json!({
            "campaign": file.name, "spec": written.spec, "outcome": outcome, "commands": alone,
            "runs": written.runs, "folder": folder,
        })
        .to_string()
    } else {
        text::result(&file, &written.spec, &outcome, &alone, &folder)
    })?;
    Ok(match outcome.conclusion {
        Conclusion::Reached => Exit::Valid,
        Conclusion::Impossible { .. } => Exit::Criterion,
        Conclusion::Open | Conclusion::Abandoned { .. } => Exit::NotValid,
    })
}

/// Steps until nothing is left to do.
async fn go(
    campaign: &mut Campaign,
    written: &mut Written,
    field: &mut Field,
    folder: &Path,
    quiet: bool,
) -> Result<Outcome, Failure> {
    loop {
        let ask: Ask = match campaign.actions().pop() {
            Some(Action::Run(ask)) => ask,
            Some(Action::Done(outcome)) => return Ok(*outcome),
            None => return Err(Failure::new(Exit::Bug, "the campaign neither asks nor ends")),
        };
        if !quiet {
            output::note(&text::next(campaign));
        }
        let events = field.step(&ask, written).await?;
        for event in events {
            if !quiet {
                output::note(&text::told(&event));
            }
            tell(campaign, written, folder, event)?;
        }
    }
}

/// Writes an event down before anything follows from it.
fn tell(campaign: &mut Campaign, written: &mut Written, folder: &Path, event: Event) -> Result<(), Failure> {
    written.events.push(event.clone());
    write_whole(folder, FILE, written)?;
    campaign.step(event);
    Ok(())
}

/// The campaign after what has happened.
fn planned(written: &Written) -> Result<Campaign, Failure> {
    let campaign = Campaign::new(written.spec.clone());
    let mut campaign = campaign.map_err(|e| Failure::new(Exit::Usage, e.to_string()))?;
    for event in &written.events {
        campaign.step(event.clone());
    }
    Ok(campaign)
}

fn read(folder: &Path) -> Result<(PathBuf, Written, CampaignFile), Failure> {
    let name = folder.join(FILE);
    let fault = |e: String| {
        Failure::new(Exit::Usage, format!("`{}` is no campaign that can go on: {e}", name.display()))
    };
    let text = std::fs::read_to_string(&name).map_err(|e| fault(e.to_string()))?;
    let written: Written = serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?;
    let file = campaign::parse(&written.text, &written.file.to_string_lossy()).map_err(|f| refuse(&f))?;
    Ok((folder.to_owned(), written, file))
}

async fn begin(
    command: &CampaignCommand,
    environment: &vst_common::scenario::check::config::Config,
    path: &Path,
) -> Result<(Written, CampaignFile), Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::new(Exit::Scenario, format!("campaign `{}` cannot be read: {e}", path.display()))
    })?;
    let file = campaign::parse(&text, &path.to_string_lossy()).map_err(|faults| refuse(&faults))?;
    let target = command.target.clone().or_else(|| environment.target.clone());
    if target.is_some() && file.targets.is_empty() && !file.shards.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "vst adds no nodes to a target of yours: name the cluster of each number of primaries under \
             `actions.shards.targets`, or leave `actions.shards` out",
        ));
    }
    let path = std::fs::canonicalize(path)?;
    let here = path.parent().unwrap_or(Path::new("/"));
    let scenario = match library::text_of(&file.scenario) {
        Some(_) if !here.join(&file.scenario).exists() => file.scenario.clone(),
        _ => here.join(&file.scenario).to_string_lossy().into_owned(),
    };
    let own = file.set.iter().map(|(path, value)| format!("{path}={value}"));
    let around = environment.overrides();
    let around = around.iter().map(|(path, value)| format!("{path}={value}"));
    let typed = command.set.iter().map(ToString::to_string);
    let workers = command.workers.map(|n| format!("fleet.workers={n}"));
    let bench = BenchSpec {
        scenario,
        set: own.chain(around).chain(typed).chain(workers).collect(),
        target,
        cleanup: command.cleanup,
        length: format!("{}ms", file.passes.length_ms),
        warm_up: format!("{}ms", file.passes.warm_up_ms),
        clients: file.passes.connections,
        connections: file.passes.connections,
        primaries: None,
        config: command.config.as_deref().map(std::path::absolute).transpose()?,
    };
    let first = forecast::before(&file, &bench, here).await?;
    let shards = if file.shards.is_empty() { vec![first.primaries] } else { file.shards.clone() };
    let stage = |stage: &campaign::GoalStage| Stage {
        rows: stage.rows,
        rate: stage.rate,
        constraints: stage.constraints.clone(),
        shard_memory: stage.shard_memory,
    };
    let spec = CampaignSpec {
        stages: file.stages.iter().map(stage).collect(),
        settings: file.settings.clone(),
        shards,
        ef: first.ef,
        tune: file.tune,
        prepared: first.prepared,
        repeats: file.passes.repeats,
        repeats_most: file.passes.at_most,
        confidence: file.confidence,
        costs: file.costs,
    };
    let written = Written {
        vst: String::from(env!("CARGO_PKG_VERSION")),
        file: path,
        text,
        bench,
        spec,
        events: vec![Event::Forecasts(first.forecasts)],
        runs: Vec::new(),
        outcome: None,
    };
    Ok((written, file))
}
