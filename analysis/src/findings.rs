//! What a reader should look at, beyond whether the numbers may be believed.
//!
//! Fed with the summary's parts and the course of the run; its notes stand in every report beside those of `validity`.
//! Each finding has its evidence in numbers and says what to try. Law: a flat run has none; what chance explains at the
//! interval's confidence is no finding.

use vst_common::count;

use crate::allocator::AllocatorFigures;
use crate::course::{Course, LoadPoint, TickPoint};
use crate::leak::LeakCheck;
use crate::memory::Checkpoint;
use crate::number;
use crate::phase::PhaseSummary;
use crate::statistics::{Estimate, Line};
use crate::validity::{Note, Rule};

/// Fall of the rate over a phase that is called decay, as a share.
pub const DECAY_SHARE: f64 = 0.10;
/// Fall of recall after rows changed that is named.
pub const RECALL_DROP: f64 = 0.02;
/// How many times the median of the other nodes makes an outlier.
pub const OUTLIER_RATIO: f64 = 1.5;
/// Share of what rows held that must come back after a shrink.
pub const RETURNED_SHARE: f64 = 0.8;
/// Resident memory over used memory above which fragmentation is named, where it rose after a shrink.
pub const FRAGMENTATION: f64 = 1.2;
/// Share of its time in which a server's main thread, or a lane, is the bottleneck.
pub const BUSY_SHARE: f64 = 0.9;
/// Share of maxmemory from which on a node is full.
pub const FULL_SHARE: f64 = 0.9;
/// Confidence of the intervals.
const CONFIDENCE: f64 = 0.99;
/// Intervals from which on a trend is looked for.
const TREND_INTERVALS: usize = 20;

/// All findings, in order of phase.
pub(crate) fn all(
    phases: &[PhaseSummary],
    checkpoints: &[Checkpoint],
    leaks: &[LeakCheck],
    course: &Course,
) -> Vec<Note> {
    let mut found = Vec::new();
    leak(leaks, &mut found);
    shrink(checkpoints, &mut found);
    for phase in phases {
        decay(phase, course, &mut found);
        outlier(phase, &mut found);
        client_bound(phase, &mut found);
        bottleneck(phase, course, &mut found);
    }
    recall_drop(phases, checkpoints, &mut found);
    let position = |note: &Note| phases.iter().position(|p| Some(&p.name) == note.phase.as_ref());
    found.sort_by_key(position);
    found
}

fn note(rule: Rule, phase: &str, evidence: String, suggestion: &str) -> Note {
    Note { rule, phase: Some(phase.to_owned()), text: format!("{evidence}; try: {suggestion}") }
}

/// Settled memory that grows over equal populations.
fn leak(leaks: &[LeakCheck], found: &mut Vec<Note>) {
    for check in leaks.iter().filter(|check| check.is_leak) {
        let suggestion = if check.strangers > 0 {
            "who else writes to the target (CLIENT LIST, SCAN for keys outside the prefix)"
        } else {
            "more cycles, and MEMORY STATS of a node before and after: index tombstones and buffers grow like a leak"
        };
        found.push(note(Rule::Leak, &check.to, check.sentence(), suggestion));
    }
}

/// Memory and fragmentation that do not come back when rows go.
fn shrink(checkpoints: &[Checkpoint], found: &mut Vec<Note>) {
    let empty = checkpoints.iter().find(|c| c.step == "baseline").and_then(|c| c.allocator.as_ref());
    for pair in checkpoints.windows(2) {
        let [before, after] = pair else { continue };
        let (Some(was), Some(is)) = (&before.figures, &after.figures) else { continue };
        let (Some(live_before), Some(live)) = (before.live, after.live) else { continue };
        if live >= live_before {
            continue;
        }
        let classes = before.allocator.as_ref().zip(after.allocator.as_ref());
        if let Some(share) = is.returned_share.filter(|share| *share < RETURNED_SHARE) {
            let reclaimable = is.reclaimable_bytes.map_or_else(String::new, |bytes| {
                format!(", {} of it the module could give back", number::bytes(count::to_f64(bytes)))
            });
            let live_share = count::to_f64(live) / count::to_f64(live_before);
            let kept = classes.map(|(was, is)| is.most_kept(was, empty, live_share)).unwrap_or_default();
            let kept = if kept.is_empty() {
                kept
            } else {
                format!(
                    "; more than the share of the rows that are left is still in use in size classes: {kept}"
                )
            };
            let evidence = format!(
                "of what {} removed rows held, {} came back{reclaimable}{kept}",
                number::grouped(live_before - live),
                number::percent(share.max(0.0))
            );
            found.push(note(
                Rule::NotReturned,
                &after.phase,
                evidence,
                "rebuild the index, or grow again: an index that keeps tombstones fills them first",
            ));
        }
        let resident = was.fragmentation.zip(is.fragmentation).filter(|(was, is)| rose(*was, *is));
        let pages = classes.filter(|(was, is)| rose(was.ratio(), is.ratio()));
        if resident.is_none() && pages.is_none() {
            continue;
        }
        let mut evidence = Vec::new();
        if let (Some((ratio_was, ratio_is)), Some(rss_was), Some(rss_is)) =
            (resident, was.rss_bytes, is.rss_bytes)
        {
            evidence.push(format!(
                "resident over used memory rose from {} to {}: {} were freed, the process gave back {}",
                number::significant(ratio_was),
                number::significant(ratio_is),
                number::bytes(count::to_f64(was.used_bytes.saturating_sub(is.used_bytes))),
                number::bytes(count::to_f64(rss_was.saturating_sub(rss_is)))
            ));
        }
        evidence.push(match classes {
            Some((was, is)) => in_classes(was, is),
            None => String::from(
                "which size classes hold the rest is not known, the allocator gives no statistics",
            ),
        });
        found.push(note(
            Rule::Fragmentation,
            &after.phase,
            evidence.join("; "),
            "activedefrag yes on a jemalloc build, or MEMORY PURGE; size nodes by resident memory, not by used",
        ));
    }
}

/// Whether a ratio of memory kept to memory in use is worth a finding.
fn rose(was: f64, is: f64) -> bool {
    is > FRAGMENTATION && is > was * 1.05
}

/// Which size classes keep what nobody uses.
fn in_classes(was: &AllocatorFigures, is: &AllocatorFigures) -> String {
    let free = is.held_bytes().saturating_sub(is.classes.iter().map(|c| c.allocated_bytes).sum());
    format!(
        "size classes keep {} of pages for {} in use ({} for each byte, {} before); {} are free in them, most in: {}",
        number::bytes(count::to_f64(is.held_bytes())),
        number::bytes(count::to_f64(is.allocated_bytes)),
        number::significant(is.ratio()),
        number::significant(was.ratio()),
        number::bytes(count::to_f64(free)),
        is.most_free()
    )
}

/// A rate that falls over the phase though the load offered does not.
fn decay(phase: &PhaseSummary, course: &Course, found: &mut Vec<Note>) {
    for operation in &phase.operations {
        let points = course.measured(phase.index, &operation.operation, phase.step != "query");
        // Where the schedule itself changes its rate, the rate says nothing of the target.
        let offered: Vec<f64> = points.iter().map(|p| count::to_f64(p.due)).collect();
        let is_open = phase.load.as_deref() == Some("open");
        let steady = Estimate::of(&offered).is_some_and(|e| {
            let far = |x: &f64| (x - e.mean).abs() > 0.1 * e.mean.max(1.0);
            !offered.iter().any(far)
        });
        if points.len() < TREND_INTERVALS || (is_open && !steady) {
            continue;
        }
        let rate = |p: &&LoadPoint| count::to_f64(p.ok) * 1e9 / count::to_f64(p.length_ns.max(1));
        let series: Vec<(f64, f64)> = (0_u32..).map(f64::from).zip(points.iter().map(rate)).collect();
        let Some(line) = Line::through(&series, true) else { continue };
        let last = series.last().map_or(0.0, |p| p.0);
        let start = line.intercept;
        let (fall, margin) = (-line.slope * last / start, line.slope_margin(CONFIDENCE) * last / start);
        if start > 0.0 && fall > DECAY_SHARE && fall > margin {
            let evidence = format!(
                "{} fell from {} to {} over the phase, {} ± {}",
                operation.operation,
                number::rate(start),
                number::rate(start + line.slope * last),
                number::percent(-fall),
                number::percent(margin)
            );
            let suggestion = if phase.step == "ingest" {
                "an HNSW insert costs more as the graph grows: compare at equal populations, or add primaries"
            } else {
                "a longer phase to see where it ends, and the servers' CPU and memory over the same time"
            };
            found.push(note(Rule::Decay, &phase.name, evidence, suggestion));
        }
    }
}

/// Recall that is lower after rows were changed.
fn recall_drop(phases: &[PhaseSummary], checkpoints: &[Checkpoint], found: &mut Vec<Note>) {
    let asked: Vec<&PhaseSummary> = phases.iter().filter(|p| p.recall.is_some()).collect();
    for pair in asked.windows(2) {
        let [before, after] = pair else { continue };
        let changed = phases.iter().any(|p| {
            p.index > before.index
                && p.index < after.index
                && matches!(p.step.as_str(), "shrink" | "ingest" | "update" | "churn" | "mixed")
        });
        let (Some(was), Some(is)) = (&before.recall, &after.recall) else { continue };
        let same = was.k == is.k && before.ef_runtime == after.ef_runtime && before.filter == after.filter;
        let (Some(a), Some(b)) = (was.recall, is.recall) else { continue };
        let (Some((low, _)), Some((_, high))) = (was.interval, is.interval) else { continue };
        if changed && same && a - b > RECALL_DROP && high < low {
            let reclaimable = checkpoints
                .iter()
                .rev()
                .find(|c| c.phase_index > before.index && c.phase_index < after.index)
                .and_then(|c| c.figures.as_ref()?.reclaimable_bytes)
                .map_or_else(String::new, |n| {
                    format!(", {} of tombstones in the index", number::bytes(count::to_f64(n)))
                });
            let evidence = format!(
                "recall@{} fell from {} to {} after rows changed, intervals apart{reclaimable}",
                is.k,
                number::fraction(a),
                number::fraction(b)
            );
            found.push(note(
                Rule::RecallDrop,
                &after.name,
                evidence,
                "a larger EF_RUNTIME, or rebuilding the index after churn",
            ));
        }
    }
}

/// A node that is slower than the others.
fn outlier(phase: &PhaseSummary, found: &mut Vec<Note>) {
    let mut operations: Vec<&str> = phase.nodes.iter().map(|n| n.operation.as_str()).collect();
    operations.dedup();
    for operation in operations {
        let times: Vec<(&str, u64, u64)> = phase
            .nodes
            .iter()
            .filter(|n| n.operation == operation)
            .filter_map(|n| n.service.as_ref().map(|d| (n.node.as_str(), d.p50.ns, d.n)))
            .collect();
        if times.len() < 3 {
            continue;
        }
        for (node, p50, n) in &times {
            let mut others: Vec<u64> = times.iter().filter(|t| t.0 != *node).map(|t| t.1).collect();
            others.sort_unstable();
            let median = others.get(others.len() / 2).copied().unwrap_or(0);
            let ratio = count::to_f64(*p50) / count::to_f64(median.max(1));
            if ratio > OUTLIER_RATIO && *n >= 100 {
                let evidence = format!(
                    "{operation} takes {} on node {}, {} on the others (median service), {} times as long",
                    number::duration(*p50),
                    number::short_node(node),
                    number::duration(median),
                    number::significant(ratio)
                );
                found.push(note(
                    Rule::Outlier,
                    &phase.name,
                    evidence,
                    "that node's machine and slots: its CPU, its neighbours, whether it holds more rows",
                ));
            }
        }
    }
}

/// A fleet that was near its own limit.
fn client_bound(phase: &PhaseSummary, found: &mut Vec<Note>) {
    let busy = phase.generator.as_ref().and_then(|g| g.lane_busy_share);
    // In a closed loop that is a reason for not being valid, and said there.
    if let Some(busy) = busy.filter(|busy| *busy > BUSY_SHARE && phase.load.as_deref() == Some("open")) {
        let evidence = format!("a lane was busy {} of its time", number::percent(busy));
        found.push(note(
            Rule::ClientBound,
            &phase.name,
            evidence,
            "more lanes or workers before a higher rate",
        ));
    }
}

/// What limited a server.
fn bottleneck(phase: &PhaseSummary, course: &Course, found: &mut Vec<Note>) {
    let ticks: Vec<&TickPoint> = course.ticks_of(phase.index).collect();
    let ([first, .., last], true) = (ticks.as_slice(), phase.load.is_some()) else { return };
    let seconds = count::to_f64(count::to_u64(last.at_ns.saturating_sub(first.at_ns))) / 1e9;
    for node in &last.nodes {
        let name = number::short_node(&node.node);
        let before = first.nodes.iter().find(|n| n.node == node.node);
        if let (Some(a), Some(b)) = (before.and_then(|n| n.main_cpu), node.main_cpu)
            && seconds >= 2.0
            && (b - a) / seconds > BUSY_SHARE
        {
            let evidence = format!(
                "the main thread of node {name} was busy {} of {}",
                number::percent(((b - a) / seconds).min(1.0)),
                number::duration(count::from_f64(seconds * 1e9))
            );
            found.push(note(
                Rule::Bottleneck,
                &phase.name,
                evidence,
                "more primaries; io-threads help with network work, not with a search on the main thread",
            ));
        }
        if let Some(most) = node.maxmemory.filter(|n| *n > 0)
            && count::to_f64(node.used) > FULL_SHARE * count::to_f64(most)
        {
            let evidence = format!(
                "node {name} used {} of its maxmemory of {}",
                number::bytes(count::to_f64(node.used)),
                number::bytes(count::to_f64(most))
            );
            found.push(note(Rule::Bottleneck, &phase.name, evidence, "more primaries or a larger maxmemory"));
        }
    }
}
