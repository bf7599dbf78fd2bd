//! `vst run sweep`: the curve of every setting of a grid.

use serde_json::json;
use vst_common::exit::Exit;
use vst_tuning::constraint::Constraint;
use vst_tuning::sweep::SweepSpec;
use vst_tuning::throughput::{self, Curve};
use vst_tuning::tune::Setting;

use super::journal::{Journal, to_json};
use super::options::SweepCommand;
use super::tune::{check, effort};
use super::{Shell, Wanted, can_be_told, chart, show};
use crate::error::Failure;
use crate::output;

const KIND: &str = "sweep";

pub(super) async fn run(command: SweepCommand) -> Result<Exit, Failure> {
    let shell = Shell::new(&command.search)?;
    let resume = command.search.resume.as_deref();
    let journal = Journal::resumed_or(resume, &[KIND], begin(&command, &shell)).await?;
    let mut session = shell.session(journal).await?;
    let wanted = |ask: &throughput::Ask| Wanted {
        bench: 0,
        setting: ask.setting.clone(),
        offered: ask.offered,
        figures: ask.figures.clone(),
    };
    let outcome = session.search::<SweepSpec>(wanted).await?;
    let curves: Vec<Curve> = outcome.settings.iter().map(|swept| swept.curve.clone()).collect();
    let files = chart::write(session.journal.folder(), &curves)?;
    if command.search.json {
        let mut value = to_json(&outcome)?;
        if let Some(map) = value.as_object_mut() {
            map.insert(String::from("folder"), to_json(&session.journal.folder())?);
            map.insert(String::from("files"), to_json(&files)?);
        }
        output::result(&value.to_string())?;
    } else {
        output::result(&format!(
            "{}{}",
            show::sweep(&outcome),
            show::files(session.journal.folder(), &files)
        ))?;
    }
    Ok(if outcome.abandoned.is_some() { Exit::NotValid } else { Exit::Valid })
}

async fn begin(command: &SweepCommand, shell: &Shell) -> Result<Journal, Failure> {
    let spec = command.search.bench()?;
    let bench = shell.bench(spec.clone(), None).await?;
    let queries = bench.queries();
    can_be_told(command.under.iter().map(Constraint::figure).collect::<Vec<_>>().iter())?;
    let mut settings = vec![Setting::default()];
    for text in &command.grid {
        let (path, values) = text.values(queries)?;
        let with = |(setting, value): (&Setting, &vst_tuning::tune::Value)| {
            let mut more = setting.clone();
            more.0.insert(path.clone(), value.clone());
            more
        };
        settings = settings.iter().flat_map(|s| values.iter().map(move |v| (s, v))).map(with).collect();
    }
    for setting in &settings {
        bench.population_of(setting)?;
    }
    let effort = effort(&command.effort, command.rates);
    let search = SweepSpec { constraints: command.under.clone(), settings, effort };
    check(&search)?;
    Journal::begin(&command.search.results()?, KIND, vec![spec], json!({ "queries": queries }), &search)
}
