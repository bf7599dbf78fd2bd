//! What a run would do, said without doing it: the target is asked, nothing is written or started.

use vst_common::count;
use vst_coordinator::plan::{self, DataFacts, Estimate};
use vst_coordinator::serve::{self, Preview};

use super::options::RunOptions;
use crate::error::Failure;
use crate::scenario_file::Loaded;

/// A line for each thing that a person would want to know before the start.
pub(super) async fn describe(
    options: &RunOptions,
    loaded: &Loaded,
    facts: Option<&DataFacts>,
) -> Result<String, Failure> {
    let scenario = &loaded.checked.scenario;
    let mut lines = vec![
        format!("scenario  {}: {}", scenario.name, scenario.purpose),
        format!("data      {}", super::describe(facts)),
    ];
    let nodes = match &options.target {
        None => {
            lines.push(String::from("target    a local cluster of 3 primaries, started for the run"));
            u64::from(super::LOCAL_PRIMARIES)
        }
        Some(target) => {
            let preview = serve::preview(&loaded.checked, &loaded.base, target, options.cleanup)
                .await
                .map_err(crate::fleet::of_coordinator)?;
            lines.extend(target_lines(&preview, &scenario.population.prefix, options.cleanup));
            count::len(preview.prepared.target.nodes().len())
        }
    };
    lines.push(format!("fleet     {} workers of {} lanes", scenario.fleet.workers, scenario.fleet.lanes));
    for (key, words) in scenario.programs() {
        lines.push(format!("program   {key}: {}", words.join(" ")));
    }
    for phase in &scenario.phases {
        lines.push(format!("phase     {:<16} {}", phase.name, phase.step.word()));
        for beside in &phase.beside {
            let (name, word) = (&beside.phase.name, beside.phase.step.word());
            lines.push(format!("  beside  {name:<16} {word}, {} ms later", beside.after_ms));
        }
    }
    lines.extend(estimate_lines(plan::estimate(&loaded.checked, facts, nodes), options));
    Ok(lines.join("\n"))
}

fn target_lines(preview: &Preview, prefix: &str, cleanup: bool) -> Vec<String> {
    let (target, facts) = (&preview.prepared.target, &preview.prepared.target_facts);
    let module = facts.search.as_ref().map_or_else(
        || String::from("no search module"),
        |search| format!("{} {}", search.module, search.version),
    );
    let kind = if facts.cluster { "cluster" } else { "server" };
    let mut lines = vec![format!(
        "target    {}: {kind} of {} primaries, {} nodes, version {}, {module}",
        facts.url,
        target.primaries().count(),
        target.nodes().len(),
        facts.server_version
    )];
    if let Some(holder) = &preview.holder {
        lines.push(format!(
            "before    run {} has shown a sign of life under `{prefix}`: refused if it shows another within {} s",
            holder.run,
            holder.expires_in_ms.div_ceil(1_000)
        ));
    }
    lines.push(match &preview.left {
        None => format!("before    nothing is under `{prefix}`"),
        Some(left) if !cleanup => format!(
            "before    what run {} left under `{prefix}` (made {}) is compared with the plan and reused",
            left.run, left.made_at
        ),
        Some(left) => format!(
            "before    --cleanup removes what run {} left under `{prefix}` (made {}): its index and up to {} keys",
            left.run,
            left.made_at,
            left.cells()
        ),
    });
    lines.push(match cleanup {
        true => String::from(
            "after     --cleanup removes the index, the rows and the mark of this run, nothing else",
        ),
        false => format!(
            "after     the rows stay, marked as this run's; --cleanup would remove them from `{prefix}`"
        ),
    });
    lines
}

fn estimate_lines(estimate: Estimate, options: &RunOptions) -> [String; 3] {
    [
        format!("time      {}", estimate.time()),
        format!("memory    {}", estimate.memory()),
        format!("storage   {} in {}", estimate.storage(), options.results),
    ]
}
