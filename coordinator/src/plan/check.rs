//! Whether the data can give what the scenario asks; nothing is started when it cannot.

use vst_common::count;
use vst_common::live_set::LiveSet;
use vst_common::mix::Mix;
use vst_common::phase::{SearchModule, SearchPlan};
use vst_common::recall::Findable;
use vst_common::scenario::check::{Checked, Faults};
use vst_common::scenario::{Ask, BesideSpec, Keep, Load, MixedSpec, PhaseSpec, Returns, ShrinkSpec, Step};

use super::data::join;
use super::phases::{during, exchanged, findable, findable_during, goes_whole, live_sets, rows};
use super::{AS_FOUND, BASELINE, DataFacts, kv};

pub(super) fn check(checked: &Checked, data: Option<&DataFacts>) -> Result<(), Faults> {
    let mut faults: Vec<Faults> = Vec::new();
    if let Some(data) = data {
        let found = [dims(checked, data), truth(checked, data), base_rows(checked, data)];
        faults.extend(found.into_iter().flatten());
    }
    let live = live_sets(&checked.scenario, rows(&checked.scenario, data));
    for phase in checked.scenario.all_phases() {
        if [BASELINE, AS_FOUND].contains(&phase.name.as_str()) {
            faults.push(checked.source.fault(
                &format!("phases.{}.name", phase.name),
                format!("`{}` is the name of the phase that vst puts before all others", phase.name),
                "this name is taken",
                "choose another name for the phase",
            ));
        }
        let filled = |other: &PhaseSpec| matches!(&other.step, Step::Kv(kv) if kv.fill);
        let filled_first = checked
            .scenario
            .all_phases()
            .find(|other| filled(other) && phase.name.strip_suffix(kv::FILL) == Some(other.name.as_str()));
        if let Some(other) = filled_first {
            faults.push(checked.source.fault(
                &format!("phases.{}.name", phase.name),
                format!("`{}` is the name of the phase that vst puts before `{}`", phase.name, other.name),
                "this name is taken",
                "choose another name for the phase",
            ));
        }
        let load = format!("phases.{}.{}.load", phase.name, phase.step.word());
        faults.extend(too_few_for_lanes(checked, &phase.step, &load));
    }
    for (phase, (before, after)) in checked.scenario.phases.iter().zip(live) {
        let at = |key: &str| format!("phases.{}.{}.{key}", phase.name, phase.step.word());
        for BesideSpec { phase: beside, .. } in &phase.beside {
            let during = during(&phase.step, before, after);
            let Some((ask, data)) = beside.step.ask().zip(data) else { continue };
            let key = format!("phases.{}.{}.k", beside.name, beside.step.word());
            let findable = findable_during(&checked.scenario, ask, during);
            // Where nothing stays, its answers are not judged.
            let is_judged = findable.stable.count() > 0;
            let asked = if is_judged {
                asked(checked, data, ask, findable, &key)
            } else {
                too_deep(checked, data, ask, &key)
            };
            faults.extend(asked);
        }
        match &phase.step {
            Step::Query(_) | Step::Mixed(_) => {
                if let Step::Mixed(mixed) = &phase.step {
                    faults.extend(too_much_moves(checked, mixed, before, &at("weights")));
                }
                let found = findable(&checked.scenario, &phase.step, before).zip(phase.step.ask()).zip(data);
                let found =
                    found.map(|((findable, ask), data)| asked(checked, data, ask, findable, &at("k")));
                faults.extend(found.unwrap_or_default());
            }
            Step::Shrink(ShrinkSpec { keep: Keep::Copies(copies), .. }) if !goes_whole(before, *copies) => {
                faults.push(checked.source.fault(
                    &at("keep_copies"),
                    format!(
                        "{} copies are there before this phase, with {} of {} rows alive",
                        before.copies,
                        before.count(),
                        before.cells()
                    ),
                    "no whole copy can go",
                    "keep fewer copies than there are, and put this phase where every row is alive: after an ingest",
                ));
            }
            Step::Shrink(ShrinkSpec { keep: Keep::Memory(_), .. }) if before.count() > 0 => {}
            Step::Shrink(shrink) if after.count() >= before.count() => faults.push(checked.source.fault(
                &at(match shrink.keep {
                    Keep::Rows(_) => "keep_rows",
                    Keep::Memory(_) => "keep_memory",
                    Keep::Share(_) | Keep::Copies(_) => "keep",
                }),
                format!("{} rows are alive before this phase and {} after it", before.count(), after.count()),
                "deletes nothing",
                "keep a smaller share of the planned rows than is alive",
            )),
            Step::Grow(_) if after.count() <= before.count() => faults.push(checked.source.fault(
                &at("to"),
                format!("{} rows are alive before this phase and {} after it", before.count(), after.count()),
                "inserts nothing",
                "grow to a larger share of the planned rows than is alive",
            )),
            Step::Churn(churn) => {
                let asked = before.keep(churn.by).count();
                let can = exchanged(before, churn.by);
                if asked == 0 || can < asked {
                    faults.push(checked.source.fault(
                        &at("by"),
                        format!(
                            "{asked} rows are to be exchanged; {} are alive and {} are not",
                            before.count(),
                            before.cells() - before.count()
                        ),
                        if asked == 0 { "exchanges nothing" } else { "more than can be exchanged" },
                        "put a `shrink` before it so that there are rows to insert, or choose another share",
                    ));
                }
            }
            _ => {}
        }
    }
    join(faults).map_or(Ok(()), Err)
}

/// Answers of several nodes are put together by distance. RediSearch answers in a cluster with nothing at all for each
/// neighbour, no distance either, as soon as fields of the row are asked for.
pub(super) fn mergeable(checked: &Checked, search: Option<&SearchPlan>) -> Result<(), Faults> {
    let Some(SearchPlan::ClientSide { module, indexes }) = search else { return Ok(()) };
    let faults = checked.scenario.all_phases().filter_map(|phase| {
        let why = match phase.step.ask()?.returns {
            Returns::Nothing if indexes.len() > 1 => {
                format!(
                    "asks for keys alone, and the answers of {} nodes are merged by distance",
                    indexes.len()
                )
            }
            Returns::Row if *module == SearchModule::RediSearch => {
                String::from("asks for whole rows, which RediSearch does not give in a cluster")
            }
            _ => return None,
        };
        Some(checked.source.fault(
            &format!("phases.{}.{}.returns", phase.name, phase.step.word()),
            format!("phase `{}` {why}", phase.name),
            "no distance to merge by",
            "write `returns: distance`, or use a target that merges itself",
        ))
    });
    join(faults).map_or(Ok(()), Err)
}

/// Every lane needs a client of its own; rounding up in silence would send more than the scenario says.
fn too_few_for_lanes(checked: &Checked, step: &Step, key: &str) -> Option<Faults> {
    let load = step.load()?;
    let (word, kind, number) = match load {
        Load::Closed { clients, .. } => ("clients", "closed", *clients),
        Load::Open { connections, .. } => ("connections", "open", *connections),
    };
    let fleet = &checked.scenario.fleet;
    let lanes = fleet.workers.saturating_mul(fleet.lanes);
    (number < lanes).then(|| {
        checked.source.fault(
            &format!("{key}.{kind}.{word}"),
            format!(
                "{number} {word} cannot be dealt to {lanes} lanes ({} workers of {})",
                fleet.workers, fleet.lanes
            ),
            format!("fewer than the {lanes} lanes"),
            format!("give at least {lanes} {word}, or use fewer workers or lanes"),
        )
    })
}

fn dims(checked: &Checked, data: &DataFacts) -> Vec<Faults> {
    let mut faults = Vec::new();
    let (base, queries) = (data.base.dims, data.queries.dims);
    if queries != base {
        faults.push(checked.source.fault(
            "dataset.queries",
            format!("the queries have {queries} dimensions, the base has {base}"),
            format!("{queries} dimensions"),
            "give the queries that belong to this base",
        ));
    }
    if let Some(index) =
        checked.scenario.index.as_ref().and_then(|index| index.dims).filter(|dims| *dims != base)
    {
        faults.push(checked.source.fault(
            "index.dims",
            format!("the index is to have {index} dimensions, the base has {base}"),
            format!("the data has {base}"),
            format!("write `dims: {base}` or leave it out"),
        ));
    }
    faults
}

fn truth(checked: &Checked, data: &DataFacts) -> Vec<Faults> {
    let (known, queries) = (u64::from(data.truth.queries), data.queries.rows);
    if known == queries {
        return Vec::new();
    }
    vec![checked.source.fault(
        "dataset.ground_truth",
        format!("the truth knows the neighbours of {known} queries, there are {queries}"),
        "belongs to other queries",
        "give the truth that was computed for these queries",
    )]
}

fn base_rows(checked: &Checked, data: &DataFacts) -> Vec<Faults> {
    let has = data.base.rows;
    let Some(wanted) = checked.scenario.dataset.as_ref().and_then(|d| d.rows).filter(|wanted| *wanted > has)
    else {
        return Vec::new();
    };
    vec![checked.source.fault(
        "dataset.rows",
        format!("{wanted} rows are asked for, the base has {has}"),
        format!("the base has {has}"),
        format!("write at most {has}, or leave it out to use them all"),
    )]
}

/// A mixed phase against the rows that are there to come and to go.
fn too_much_moves(checked: &Checked, mixed: &MixedSpec, before: LiveSet, key: &str) -> Option<Faults> {
    let mix = Mix::new(mixed.weights, mixed.operations, before);
    (!mix.fits()).then(|| {
        checked.source.fault(
            key,
            format!(
                "of {} requests {} insert and {} delete; {} rows are alive and {} are not",
                mixed.operations,
                mix.come(),
                mix.gone(),
                before.count(),
                before.cells() - before.count()
            ),
            "more rows than there are",
            "put a `shrink` before it so that there are rows to insert, or lower `operations` or the weights",
        )
    })
}

/// A query phase against the depth of the truth.
fn too_deep(checked: &Checked, data: &DataFacts, ask: &Ask, key: &str) -> Vec<Faults> {
    let (k, depth) = (ask.k, data.truth.k);
    if k <= depth {
        return Vec::new();
    }
    vec![checked.source.fault(
        key,
        format!("k is {k}, the truth knows {depth} neighbours of each query"),
        format!("deeper than the truth ({depth})"),
        format!("ask for at most {depth} neighbours, or compute a deeper truth"),
    )]
}

/// A query phase against the depth of the truth and what of it is alive.
fn asked(checked: &Checked, data: &DataFacts, ask: &Ask, findable: Findable, key: &str) -> Vec<Faults> {
    let (k, live) = (ask.k, findable.stable);
    let deep = too_deep(checked, data, ask, key);
    if !deep.is_empty() {
        return deep;
    }
    if live.count() < u64::from(k) {
        return vec![checked.source.fault(
            key,
            format!("k is {k}, only {} rows are alive in this phase", live.count()),
            "more than there are",
            "put an ingest before this phase, or ask for fewer neighbours",
        )];
    }
    let of_each = live.count() / u64::from(live.copies.max(1));
    if of_each < u64::from(k) {
        return vec![checked.source.fault(
            key,
            format!(
                "k is {k}, of {} rows alive in this phase each of {} copies has {of_each}",
                live.count(),
                live.copies
            ),
            "more than a copy has",
            "keep more rows, load fewer copies, or ask for fewer neighbours",
        )];
    }
    // What is deleted is spread evenly over what matches.
    let matching = findable.selection.map_or(live.rows, |selection| selection.count());
    let alive = count::to_f64(live.count()) / count::to_f64(live.cells().max(1)) * count::to_f64(matching);
    if alive < f64::from(k) {
        return vec![checked.source.fault(
            key,
            format!(
                "k is {k}, the filter matches {matching} of {} rows, and {alive:.0} of those are alive",
                live.rows
            ),
            "more than match",
            "filter less, keep more rows, or ask for fewer neighbours",
        )];
    }
    Vec::new()
}
