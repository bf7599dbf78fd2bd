//! `vst run compare`: A against B, in turns.

use serde_json::{Value as Json, json};
use vst_common::exit::Exit;
use vst_tuning::compare::{self, CompareSpec, Margin, Side};
use vst_tuning::figure::Figure;
use vst_tuning::throughput::Offered;
use vst_tuning::tune::Setting;

use super::journal::{Journal, to_json};
use super::options::{CompareCommand, setting};
use super::tune::check;
use super::{Session, Shell, Wanted, can_be_told, show};
use crate::error::Failure;
use crate::output;

const KIND: &str = "compare";
/// Changes that matter where nothing is asked for.
const MARGINS: [(Figure, f64); 2] = [(Figure::P99, 0.10), (Figure::Recall, 0.005)];
const MARGIN_OF_QPS: f64 = 0.03;

pub(super) async fn run(command: CompareCommand) -> Result<Exit, Failure> {
    let shell = Shell::new(&command.search)?;
    let resume = command.search.resume.as_deref();
    let journal = Journal::resumed_or(resume, &[KIND], begin(&command, &shell)).await?;
    let fixed = journal.written.fixed.clone();
    let side = |key: &str| serde_json::from_value::<Setting>(fixed.get(key).cloned().unwrap_or_default());
    let fault =
        |e: serde_json::Error| Failure::new(Exit::Usage, format!("the comparison cannot be read back: {e}"));
    let (a, b) = (side("a").map_err(fault)?, side("b").map_err(fault)?);
    let offered = fixed.get("offered").cloned().unwrap_or_default();
    let offered: Offered = serde_json::from_value(offered).map_err(fault)?;
    let mut session = shell.session(journal).await?;
    let last = session.benches.len().saturating_sub(1);
    let wanted = |ask: &compare::Ask| {
        let (bench, setting) = if ask.side == Side::A { (0, &a) } else { (last, &b) };
        Wanted { bench, setting: setting.clone(), offered, figures: ask.figures.clone() }
    };
    let outcome = session.search::<CompareSpec>(wanted).await?;
    let identities = identities(&session);
    if command.search.json {
        let mut value = to_json(&outcome)?;
        if let Some(map) = value.as_object_mut() {
            map.insert(String::from("identities"), json!(identities));
            map.insert(String::from("folder"), to_json(&session.journal.folder())?);
        }
        output::result(&value.to_string())?;
    } else {
        let text = show::compare(&outcome, &a, &b, &identities);
        output::result(&format!("{text}{}", show::files(session.journal.folder(), &[])))?;
    }
    Ok(if outcome.abandoned.is_some() { Exit::NotValid } else { Exit::Valid })
}

async fn begin(command: &CompareCommand, shell: &Shell) -> Result<Journal, Failure> {
    let spec = command.search.bench()?;
    let bench = shell.bench(spec.clone(), None).await?;
    let (a, b) = (setting(&command.a, bench.queries()), setting(&command.b, bench.queries()));
    let other_population = bench.population_of(&a)? != bench.population_of(&b)?;
    let mut benches = vec![spec.clone()];
    if command.target_b.is_some() || other_population {
        // Both are there at the same time, so that they can take turns.
        let mut spec_b = spec;
        if command.target_b.is_some() {
            spec_b.target.clone_from(&command.target_b);
        } else if spec_b.target.is_some() {
            let prefix = &bench.population_of(&b)?["population"]["prefix"];
            let prefix = prefix.as_str().unwrap_or("vst:");
            spec_b.set.push(format!("population.prefix={prefix}b:"));
        }
        benches.push(spec_b);
    }
    let offered = command.rate.map_or(Offered::FlatOut, Offered::Rate);
    let mut margins: Vec<Margin> = command.margins.iter().map(|text| text.0).collect();
    if margins.is_empty() {
        margins =
            MARGINS.iter().map(|(figure, change)| Margin { figure: *figure, change: *change }).collect();
        if command.rate.is_none() {
            margins.insert(0, Margin { figure: Figure::Qps, change: MARGIN_OF_QPS });
        }
    }
    can_be_told(margins.iter().map(|m| &m.figure))?;
    let search = CompareSpec::new(margins, Some(command.blocks));
    check(&search)?;
    let fixed = json!({ "a": to_json(&a)?, "b": to_json(&b)?, "offered": to_json(&offered)? });
    Journal::begin(&command.search.results()?, KIND, benches, fixed, &search)
}

/// What ran on both sides, as `run.json` says it: of A, then of B.
fn identities(session: &Session) -> Vec<Json> {
    let of = |run: &str| {
        let file = session.journal.runs().join(run).join("run.json");
        let facts: Json =
            std::fs::read_to_string(file).ok().and_then(|text| serde_json::from_str(&text).ok())?;
        Some(json!({
            "run": run,
            "vst": facts.get("vst"),
            "scenario_sha256": facts.get("scenario_sha256"),
            "target": facts.get("target"),
            "machine": facts.get("coordinator"),
        }))
    };
    let mut runs: Vec<&str> = Vec::new();
    for point in &session.journal.written.points {
        if !runs.contains(&point.run.as_str()) {
            runs.push(&point.run);
        }
    }
    runs.into_iter().filter_map(of).collect()
}
