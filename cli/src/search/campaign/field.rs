//! Does one step of a campaign on a real target and tells what became of it.
//!
//! Told what to do by the plan; uses the bench of the searches: each load is one run, and what is measured on it are
//! phases of that run. Laws: what is told was read from run directories; a fault of the fleet is never told as one of the
//! target.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use vst_analysis::{Checkpoint, Note, Rule, Summary};
use vst_common::clock;
use vst_common::count;
use vst_common::dataset;
use vst_common::exit::Exit;
use vst_common::scenario::Metric;
use vst_common::scenario::check::campaign::{CampaignFile, GoalStage};
pub(super) use vst_tuning::campaign::Place;
use vst_tuning::campaign::{Ask, Event, Finding, Memory, Stage, Step, Trouble};
use vst_tuning::constraint::{Constraint, Side};
use vst_tuning::figure::Figure;
use vst_tuning::measured;
use vst_tuning::search::{Action, Search};
use vst_tuning::throughput::{ACHIEVED_SHARE, Offered};
use vst_tuning::tune::{Conclusion, Objective, Parameter, Range, Setting, Shape, TuneSpec, Value};

use super::super::bench::{Bench, BenchSpec, POPULATION, Point, first_queries, overrides, phase_name};
use super::super::{Shell, Wanted, patiently, show};
use super::{Written, forecast};
use crate::analyze::of_analysis;
use crate::error::Failure;
use crate::output;
use crate::scenario_file::load;

/// Neighbours of a query that are prepared.
const TRUTH_DEPTH: &str = "100";
/// Measurements of a search for EF_RUNTIME, and of one value.
const TUNE_BUDGET: usize = 40;
const TUNE_REPEATS: usize = 4;

/// See the module.
pub(super) struct Field {
    file: CampaignFile,
    /// Folder that the campaign's relative paths start from.
    here: PathBuf,
    spec: vst_tuning::campaign::CampaignSpec,
    base: BenchSpec,
    folder: PathBuf,
    shell: Shell,
    bench: Option<Bench>,
    /// Points of benches that are closed, so that no two phases have one name.
    points: usize,
}

/// What a step came to, or why the campaign cannot go on.
type Told = Result<Vec<Event>, Failure>;

impl Field {
    pub(super) fn new(file: &CampaignFile, written: &Written, folder: &Path, shell: Shell) -> Self {
        let here = written.file.parent().unwrap_or(Path::new("/")).to_owned();
        Self {
            file: file.clone(),
            here,
            spec: written.spec.clone(),
            base: written.bench.clone(),
            folder: std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()),
            shell,
            bench: None,
            points: 0,
        }
    }

    /// Does a step.
    pub(super) async fn step(&mut self, ask: &Ask, written: &mut Written) -> Told {
        let began = clock::mono_ns();
        let took = || clock::mono_ns().saturating_sub(began) / 1_000_000;
        let told = match ask.step {
            Step::Prepare => self.prepare(ask.place).await.map(|()| vec![Event::Done { took_ms: took() }]),
            Step::Change | Step::Shards => self.close().await.map(|()| vec![Event::Done { took_ms: took() }]),
            Step::Load => self.load(ask.place, written, &took).await,
            Step::Tune => self.tune(ask, &took).await,
            Step::Measure => self.measure(ask, &took).await,
        };
        match told {
            // The target said no, and would say so again.
            Err(failure) if failure.exit() == Exit::Target => {
                self.close().await?;
                Ok(vec![Event::Failed(failure.to_string())])
            }
            Err(failure) if matches!(failure.exit(), Exit::Fleet | Exit::NotValid) => {
                self.close().await?;
                Ok(vec![Event::Invalid(failure.to_string()), Event::Lost])
            }
            told => told,
        }
    }

    pub(super) async fn close(&mut self) -> Result<(), Failure> {
        match self.bench.take() {
            Some(mut bench) => {
                self.points = bench.points();
                bench.close().await
            }
            None => Ok(()),
        }
    }

    fn stage(&self, place: Place) -> Result<(&GoalStage, &Stage), Failure> {
        let found = self.file.stages.get(place.stage).zip(self.spec.stages.get(place.stage));
        found.ok_or_else(|| Failure::new(Exit::Bug, "the campaign asks for a stage that there is not"))
    }

    /// Where the exact neighbours of a stage are, if they are not the scenario's own.
    fn truth(&self, place: Place) -> Result<Option<PathBuf>, Failure> {
        let (stage, _) = self.stage(place)?;
        Ok(match &stage.ground_truth {
            Some(path) => Some(self.here.join(path)),
            None if self.spec.prepared.contains(&place.stage) => None,
            None => {
                let name = format!("truth-{}.bin", forecast::base_rows(stage));
                Some(self.folder.join("data").join(name))
            }
        })
    }

    /// What is measured at a place.
    fn bench_spec(&self, place: Place) -> Result<BenchSpec, Failure> {
        let (stage, _) = self.stage(place)?;
        let mut spec = self.base.clone();
        spec.set.push(format!("dataset.rows={}", forecast::base_rows(stage)));
        if stage.copies > 1 {
            spec.set.push(format!("population.copies={}", stage.copies));
        }
        if let Some(truth) = self.truth(place)? {
            spec.set.push(format!("dataset.ground_truth={}", truth.display()));
        }
        let setting = self.spec.settings.get(place.setting).cloned().unwrap_or_default();
        spec.set.extend(setting.0.iter().map(|(path, value)| format!("{path}={value}")));
        if let Some(target) = self.file.targets.get(place.shards) {
            spec.target = Some(target.clone());
        }
        if spec.target.is_none() {
            spec.primaries = self.spec.shards.get(place.shards).copied();
        }
        Ok(spec)
    }

    async fn prepare(&mut self, place: Place) -> Result<(), Failure> {
        let Some(out) = self.truth(place)? else { return Ok(()) };
        let (stage, _) = self.stage(place)?;
        let rows = forecast::base_rows(stage).to_string();
        let loaded = load(&self.base.scenario, &overrides(&self.base.set)?)?;
        let scenario = &loaded.checked.scenario;
        let (Some(data), Some(index)) = (&scenario.dataset, &scenario.index) else {
            return Err(Failure::new(Exit::Scenario, "the campaign's scenario has no vectors"));
        };
        let url = |reference: &str| {
            let found = dataset::resolve(reference, &loaded.base);
            found.map_err(|e| Failure::new(Exit::Scenario, e.to_string()))
        };
        let (base, queries) = (url(&data.base)?, url(&data.queries)?);
        let metric = match index.metric {
            Metric::L2 => "l2",
            Metric::Cosine => "cosine",
            Metric::InnerProduct => "inner_product",
        };
        std::fs::create_dir_all(self.folder.join("data"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["dataset", "ground-truth", "--base", base.as_str(), "--queries", queries.as_str()]);
        command.args(["--metric", metric, "--rows", &rows, "-k", TRUTH_DEPTH, "--out"]).arg(&out);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn()?;
        let signals = self.shell.signals.clone();
        let ended = signals.unless_asked(async { Ok(child.wait().await?) }).await?;
        match ended.code().map(Exit::of_code) {
            Some(Exit::Valid) => Ok(()),
            exit => Err(Failure::new(
                exit.unwrap_or(Exit::Bug),
                "the exact neighbours were not found; it says why above",
            )),
        }
    }

    async fn load(&mut self, place: Place, written: &mut Written, took: &impl Fn() -> u64) -> Told {
        self.close().await?;
        let spec = self.bench_spec(place)?;
        let runs = self.folder.join("runs");
        let mut bench = self.shell.bench_in(spec, runs, self.points).await?;
        let loaded = bench.load(&Setting::default()).await;
        let took_ms = took();
        let directory = match loaded {
            Ok(directory) => directory,
            Err(failure) => {
                bench.close().await?;
                return Err(failure);
            }
        };
        self.bench = Some(bench);
        written.runs.push((place, directory.clone()));
        let summary = vst_analysis::summary(&directory).await.map_err(|e| of_analysis(&e))?;
        let memory = memory(&summary, &directory).await?;
        let slower = summary.verdict.findings.iter().filter(|note| note.rule == Rule::Decay);
        let findings = slower.map(|note| finding(Trouble::LoadDecay, note)).collect();
        let forecasts = forecast::after(&self.spec, &self.base, &written.runs, place.setting).await?;
        Ok(vec![Event::Loaded { memory, findings, took_ms }, Event::Forecasts(forecasts)])
    }

    /// What a point of a stage has to tell, and where it is measured.
    fn wanted(&self, place: Place, ef: Option<i64>) -> Result<Wanted, Failure> {
        let (_, stage) = self.stage(place)?;
        let mut figures: Vec<Figure> = constraints(stage).iter().map(Constraint::figure).collect();
        figures.dedup();
        let set = ef.zip(self.bench.as_ref()).map(|(ef, bench)| (path_of_ef(bench), Value::Int(ef)));
        let setting = Setting(set.into_iter().collect());
        Ok(Wanted { bench: 0, setting, offered: Offered::Rate(stage.rate), figures })
    }

    async fn point(&mut self, wanted: &Wanted) -> Result<measured::Event, Failure> {
        let quiet = self.shell.quiet;
        let Some(bench) = &mut self.bench else {
            return Err(Failure::new(Exit::Bug, "the campaign measures where nothing is loaded"));
        };
        let number = bench.points() + 1;
        let note = |point: &Point| {
            if !quiet {
                output::note(&show::point(number, point));
            }
        };
        let point = patiently(bench, wanted, |tried| {
            note(&tried);
            Ok(())
        })
        .await?;
        note(&point);
        Ok(point.event)
    }

    async fn measure(&mut self, ask: &Ask, took: &impl Fn() -> u64) -> Told {
        let wanted = self.wanted(ask.place, ask.ef)?;
        let from = self.bench.as_ref().map_or(0, Bench::points) + 1;
        let mut passes = Vec::new();
        for _ in 0..ask.passes {
            match self.point(&wanted).await? {
                measured::Event::Measured(pass) => passes.push(pass),
                measured::Event::Invalid(why) => return Ok(vec![Event::Invalid(why)]),
            }
        }
        let Some(bench) = &mut self.bench else { return Ok(vec![Event::Lost]) };
        let to = bench.points();
        // The same rows after the load: what grew in between does not stop at these passes.
        let directory = bench.checkpoint(&format!("after_{to:04}")).await?;
        let summary = vst_analysis::summary(&directory).await.map_err(|e| of_analysis(&e))?;
        let findings = findings(&summary, from, to);
        Ok(vec![Event::Measured { passes, findings, took_ms: took() }])
    }

    async fn tune(&mut self, ask: &Ask, took: &impl Fn() -> u64) -> Told {
        let (_, stage) = self.stage(ask.place)?;
        let Some((low, high)) = self.spec.tune else {
            return Err(Failure::new(Exit::Bug, "the campaign tunes what it may not"));
        };
        let path = self.bench.as_ref().map(path_of_ef).unwrap_or_default();
        // The least that keeps the constraints is the fastest.
        let ef = Parameter::new(&path, Range::LogInt(low, high)).shaped(Shape::Rising);
        let mut spec = TuneSpec::new(Objective::Minimise(Figure::P99), constraints(stage), vec![ef]);
        (spec.repeats, spec.budget) = (TUNE_REPEATS, TUNE_BUDGET);
        let mut search = Search::new(spec).map_err(|e| Failure::new(Exit::Usage, e.to_string()))?;
        let outcome = loop {
            match search.actions().pop() {
                Some(Action::Done(outcome)) => break outcome,
                Some(Action::Measure(asked)) => {
                    let place = self.wanted(ask.place, None)?;
                    let mut figures = asked.figures;
                    figures.push(Figure::P99);
                    let wanted = Wanted { setting: asked.setting, figures, ..place };
                    let event = self.point(&wanted).await?;
                    search.step(event);
                }
                Some(Action::Drain) | None => return Err(Failure::new(Exit::Bug, "the search does not ask")),
            }
        };
        let text = show::settings(&outcome, Figure::P99, None);
        let text = text.lines().next().unwrap_or_default().to_owned();
        let ef_of = |setting: &Setting| match setting.0.get(&path) {
            Some(Value::Int(ef)) => Some(*ef),
            _ => None,
        };
        let (ef, binding) = match &outcome.conclusion {
            Conclusion::Winner { setting, .. } => (ef_of(setting), Vec::new()),
            Conclusion::Tie { settings, .. } => (settings.first().and_then(ef_of), Vec::new()),
            // Measured next with all the passes that are allowed, which tells more than the search did.
            Conclusion::Unsure { closest, .. } => (ef_of(&closest.setting), Vec::new()),
            Conclusion::Infeasible { binding, .. } => (None, binding.clone()),
            Conclusion::Abandoned { reason } => return Ok(vec![Event::Invalid(reason.clone())]),
        };
        Ok(vec![Event::Tuned { ef, binding, text, took_ms: took() }])
    }

    /// The commands that run what was reached alone.
    pub(super) fn commands(&self, reached: &[(Place, Option<i64>)]) -> Result<Vec<String>, Failure> {
        let mut all = Vec::new();
        for (place, ef) in reached {
            let (_, stage) = self.stage(*place)?;
            let spec = self.bench_spec(*place)?;
            let loaded = load(&spec.scenario, &overrides(&spec.set)?)?;
            let queries = first_queries(&loaded)?.0;
            let path = format!("phases.{queries}.query.ef_runtime");
            let setting = Setting(ef.map(|ef| (path, Value::Int(ef))).into_iter().collect());
            all.push(show::command(&spec, queries, &setting, Some(Offered::Rate(stage.rate))));
        }
        Ok(all)
    }
}

fn path_of_ef(bench: &Bench) -> String {
    format!("phases.{}.query.ef_runtime", bench.queries())
}

/// What passes of queries have to keep.
fn constraints(stage: &Stage) -> Vec<Constraint> {
    let of_memory = |c: &&Constraint| matches!(c.figure(), Figure::Memory | Figure::BytesPerVector);
    let mut all: Vec<Constraint> = stage.constraints.iter().filter(|c| !of_memory(c)).copied().collect();
    all.extend(Constraint::new(Figure::AchievedShare, Side::AtLeast, ACHIEVED_SHARE));
    all
}

/// Memory of a population that was just loaded.
async fn memory(summary: &Summary, directory: &str) -> Result<Memory, Failure> {
    let lacking = |what: &str| {
        Failure::new(
            Exit::NotValid,
            format!("memory of the population is not known: {what} in `{directory}`"),
        )
    };
    let population: Option<&Checkpoint> = summary.checkpoints.iter().rfind(|c| c.phase == POPULATION);
    let population = population.ok_or_else(|| lacking("no checkpoint"))?;
    let figures = population.figures.as_ref().ok_or_else(|| lacking("no complete sample"))?;
    let baseline = summary.checkpoints.iter().find(|c| c.step == "baseline");
    let baseline = baseline.and_then(|c| c.figures.as_ref()).ok_or_else(|| lacking("no baseline"))?;
    let sql = format!(
        "select max(used_memory) as fullest from memory where phase_index = {} and tick = {} and role <> 'replica'",
        population.phase_index, figures.tick
    );
    let answer = vst_analysis::query(&[directory.to_owned()], &sql).await.map_err(|e| of_analysis(&e))?;
    let lines = answer.to_json_lines().map_err(|e| of_analysis(&e))?;
    let row: serde_json::Value =
        lines.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let fullest = row.get("fullest").and_then(serde_json::Value::as_f64);
    Ok(Memory {
        rows: population.live.ok_or_else(|| lacking("no count of rows"))?,
        used: count::to_f64(figures.used_bytes),
        baseline: count::to_f64(baseline.used_bytes),
        fullest: fullest.ok_or_else(|| lacking("no primary"))?,
    })
}

fn finding(trouble: Trouble, note: &Note) -> Finding {
    Finding { trouble, text: note.text.clone() }
}

/// What the report found of points and of the checkpoint after them.
fn findings(summary: &Summary, from: usize, to: usize) -> Vec<Finding> {
    let names: Vec<String> = (from..=to).map(phase_name).collect();
    let after = format!("after_{to:04}");
    let of = |note: &Note| {
        let phase = note.phase.as_deref()?;
        let is_point = names.iter().any(|name| name == phase);
        match note.rule {
            Rule::Leak if phase == after => Some(finding(Trouble::Leak, note)),
            Rule::Decay if is_point => Some(finding(Trouble::Decay, note)),
            Rule::Bottleneck if is_point => Some(finding(Trouble::Bottleneck, note)),
            _ => None,
        }
    };
    summary.verdict.findings.iter().filter_map(of).collect()
}

/// As a duration of the report.
pub(super) fn span(ms: u64) -> String {
    let duration = Duration::from_millis(ms);
    match duration.as_secs() {
        0 => format!("{ms} ms"),
        s @ 1..600 => format!("{s} s"),
        s @ 600..36_000 => format!("{} min", s / 60),
        s => format!("{} h", s / 3_600),
    }
}
