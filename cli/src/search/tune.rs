//! `vst run tune`: the best setting under constraints.

use serde_json::json;
use vst_common::exit::Exit;
use vst_common::scenario::Algorithm;
use vst_tuning::constraint::Constraint;
use vst_tuning::figure::Figure;
use vst_tuning::throughput::{self, Effort, Offered, ThroughputSpec};
use vst_tuning::tune::{self, Objective, Parameter, Range, Setting, Shape, TuneSpec};

use super::journal::{Journal, to_json};
use super::options::{EffortOptions, Rates, TuneCommand};
use super::{Session, Shell, Wanted, can_be_told, chart, show};
use crate::error::Failure;
use crate::output;
use crate::scenario_file::load;

const OF_THROUGHPUT: &str = "tune";
const OF_FIGURE: &str = "tune-figure";
/// What must hold where nothing is asked for.
const UNDER: [&str; 2] = ["recall >= 0.95", "p99 <= 10ms"];
/// The range of EF_RUNTIME where none is given.
const EF: (i64, i64) = (10, 512);

pub(super) async fn run(command: TuneCommand) -> Result<Exit, Failure> {
    let shell = Shell::new(&command.search)?;
    let resume = command.search.resume.as_deref();
    let kinds = [OF_THROUGHPUT, OF_FIGURE];
    let journal = Journal::resumed_or(resume, &kinds, begin(&command, &shell)).await?;
    let (json, of_figure) = (command.search.json, journal.written.kind == OF_FIGURE);
    let session = shell.session(journal).await?;
    if of_figure { for_figure(session, json).await } else { for_throughput(session, json).await }
}

async fn begin(command: &TuneCommand, shell: &Shell) -> Result<Journal, Failure> {
    let spec = command.search.bench()?;
    let bench = shell.bench(spec.clone(), None).await?;
    let queries = bench.queries().to_owned();
    let under = match command.under.as_slice() {
        [] => UNDER.iter().filter_map(|text| text.parse::<Constraint>().ok()).collect(),
        given => given.to_vec(),
    };
    can_be_told(under.iter().map(Constraint::figure).collect::<Vec<_>>().iter())?;
    let objective = match (command.maximise, command.minimise) {
        (_, Some(figure)) => Objective::Minimise(figure),
        (figure, None) => Objective::Maximise(figure.unwrap_or(Figure::Qps)),
    };
    can_be_told([&objective.figure()])?;
    let parameters = match command.parameters.as_slice() {
        [] => usual_parameters(bench.spec(), &queries, objective.figure())?,
        given => given.iter().map(|text| text.parameter(&queries, objective.figure())).collect(),
    };
    let results = &command.search.results()?;
    if objective == Objective::Maximise(Figure::Qps) {
        let effort = effort(&command.effort, command.rates);
        let search = ThroughputSpec { constraints: under, parameters, effort };
        check(&search)?;
        let fixed = json!({ "queries": queries });
        return Journal::begin(results, OF_THROUGHPUT, vec![spec], fixed, &search);
    }
    let mut search = TuneSpec::new(objective, under, parameters);
    search.repeats = command.effort.setting_repeats;
    search.budget = command.effort.budget;
    check(&search)?;
    let offered = command.rate.map_or(Offered::FlatOut, Offered::Rate);
    let fixed = json!({ "queries": queries, "offered": to_json(&offered)? });
    Journal::begin(results, OF_FIGURE, vec![spec], fixed, &search)
}

/// What is searched where nothing is asked for.
fn usual_parameters(
    spec: &super::bench::BenchSpec,
    queries: &str,
    objective: Figure,
) -> Result<Vec<Parameter>, Failure> {
    let loaded = load(&spec.scenario, &super::bench::overrides(&spec.set)?)?;
    let scenario = &loaded.checked.scenario;
    let is_graph = scenario.index.as_ref().is_some_and(|index| index.algorithm == Algorithm::Hnsw);
    if !is_graph {
        return Ok(Vec::new());
    }
    let k = super::bench::first_queries(&loaded)?.1.ask.k;
    let range = Range::LogInt(EF.0.max(i64::from(k)), EF.1.max(i64::from(k)));
    let path = format!("phases.{queries}.query.ef_runtime");
    Ok(vec![Parameter::new(&path, range).shaped(along_ef(objective))])
}

/// Which way a figure goes with EF_RUNTIME: more candidates looked at are more recall, less throughput and more time.
pub(super) fn along_ef(figure: Figure) -> Shape {
    match figure {
        Figure::Qps | Figure::AchievedShare => Shape::Falling,
        Figure::Recall | Figure::P50 | Figure::P95 | Figure::P99 | Figure::P999 | Figure::CpuPerQuery => {
            Shape::Rising
        }
        Figure::ErrorRate | Figure::Memory | Figure::BytesPerVector => Shape::Any,
    }
}

pub(super) fn effort(options: &EffortOptions, rates: Option<Rates>) -> Effort {
    Effort {
        rates: rates.map(|Rates(low, high)| (low, high)),
        width: options.width,
        repeats: options.repeats,
        setting_repeats: options.setting_repeats,
        budget: options.budget,
    }
}

pub(super) fn check<S: vst_tuning::search::Spec>(spec: &S) -> Result<(), Failure>
where
    S::Error: std::fmt::Display,
{
    spec.check().map_err(|e| Failure::new(Exit::Usage, e.to_string()))
}

async fn for_throughput(mut session: Session, json: bool) -> Result<Exit, Failure> {
    let wanted = |ask: &throughput::Ask| Wanted {
        bench: 0,
        setting: ask.setting.clone(),
        offered: ask.offered,
        figures: ask.figures.clone(),
    };
    let outcome = session.search::<ThroughputSpec>(wanted).await?;
    let spec: ThroughputSpec = session.journal.spec()?;
    let files = chart::write(session.journal.folder(), &outcome.curves)?;
    let found = Found::of(&outcome);
    let again = found.best.as_ref().and_then(|(setting, rate)| {
        let bench = session.benches.first()?;
        Some(show::command(bench.spec(), bench.queries(), setting, Some(Offered::Rate(*rate))))
    });
    if json {
        let mut value = to_json(&outcome)?;
        if let Some(map) = value.as_object_mut() {
            map.insert(String::from("best"), found.to_json()?);
            map.insert(String::from("command"), to_json(&again)?);
            map.insert(String::from("folder"), to_json(&session.journal.folder())?);
            map.insert(String::from("files"), to_json(&files)?);
        }
        output::result(&value.to_string())?;
    } else {
        let text = show::throughput(&outcome, &spec, again.as_deref());
        output::result(&format!("{text}{}", show::files(session.journal.folder(), &files)))?;
    }
    Ok(found.exit)
}

/// The best of a search for throughput.
struct Found {
    /// The setting, and the rate that is safe to offer: the lower end of its interval.
    best: Option<(Setting, f64)>,
    exit: Exit,
}

impl Found {
    fn of(outcome: &throughput::Outcome) -> Self {
        let conclusion = outcome.settings.as_ref().map(|s| &s.conclusion);
        let setting = match conclusion {
            Some(tune::Conclusion::Winner { setting, .. }) => Some(setting.clone()),
            Some(tune::Conclusion::Tie { settings, .. }) => settings.first().cloned(),
            Some(_) => None,
            None => outcome.limits.last().map(|carried| carried.setting.clone()),
        };
        let best = setting.and_then(|setting| {
            let carried = outcome.limits.iter().rev().find(|c| c.setting == setting && c.rate().is_some())?;
            Some((setting, carried.rate()?.low))
        });
        let exit = match (&best, conclusion) {
            (Some(_), _) => Exit::Valid,
            (None, Some(tune::Conclusion::Infeasible { .. })) => Exit::Criterion,
            (None, Some(_)) => Exit::NotValid,
            (None, None) => match outcome.limits.last().map(|c| &c.limit.conclusion) {
                Some(vst_tuning::limit::Conclusion::Infeasible { .. }) => Exit::Criterion,
                _ => Exit::NotValid,
            },
        };
        Self { best, exit }
    }

    fn to_json(&self) -> Result<serde_json::Value, Failure> {
        Ok(match &self.best {
            Some((setting, rate)) => json!({ "setting": to_json(setting)?, "safe_rate": rate }),
            None => serde_json::Value::Null,
        })
    }
}

async fn for_figure(mut session: Session, json: bool) -> Result<Exit, Failure> {
    let fixed = session.journal.written.fixed.get("offered").cloned().unwrap_or_default();
    let offered: Offered = serde_json::from_value(fixed).unwrap_or(Offered::FlatOut);
    let wanted = |ask: &tune::Ask| Wanted {
        bench: 0,
        setting: ask.setting.clone(),
        offered,
        figures: ask.figures.clone(),
    };
    let outcome = session.search::<TuneSpec>(wanted).await?;
    let spec: TuneSpec = session.journal.spec()?;
    let best = match &outcome.conclusion {
        tune::Conclusion::Winner { setting, .. } => Some(setting),
        tune::Conclusion::Tie { settings, .. } => settings.first(),
        _ => None,
    };
    let again = best.and_then(|setting| {
        let bench = session.benches.first()?;
        Some(show::command(bench.spec(), bench.queries(), setting, Some(offered)))
    });
    if json {
        let mut value = to_json(&outcome)?;
        if let Some(map) = value.as_object_mut() {
            map.insert(String::from("command"), to_json(&again)?);
            map.insert(String::from("folder"), to_json(&session.journal.folder())?);
        }
        output::result(&value.to_string())?;
    } else {
        let text = show::settings(&outcome, spec.objective.figure(), again.as_deref());
        output::result(&format!("{text}{}", show::files(session.journal.folder(), &[])))?;
    }
    Ok(match outcome.conclusion {
        tune::Conclusion::Winner { .. } | tune::Conclusion::Tie { .. } => Exit::Valid,
        tune::Conclusion::Infeasible { .. } => Exit::Criterion,
        tune::Conclusion::Unsure { .. } | tune::Conclusion::Abandoned { .. } => Exit::NotValid,
    })
}
