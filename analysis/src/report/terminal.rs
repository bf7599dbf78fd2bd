//! The report that a person reads after a run.
//!
//! The verdict comes first, then what ran, then load, answers, memory and accounting, then what to look at next. No
//! wider than [`WIDTH`] columns (tables [`TABLE_WIDTH`]), plain text but for the verdict's colour. Law: it shows the summary and adds nothing.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use vst_common::clock::rfc3339;
use vst_common::count;
use vst_common::deed::Deed;

use crate::accounting::Check;
use crate::criteria::CriterionRow;
use crate::latency::{Distribution, OperationSummary};
use crate::number::{bytes, duration, fraction, grouped, percent, quantile, rate, short_node, significant};
use crate::phase::PhaseSummary;
use crate::summary::Summary;
use crate::validity::{Note, RunEnd, Verdict};

/// Columns of the report.
const WIDTH: u16 = 110;
/// Columns of a table; a cell that does not fit is broken.
const TABLE_WIDTH: u16 = 126;
/// More nodes than this are left to SQL.
const NODE_ROWS: usize = 24;
/// Stands for what does not apply.
const NONE: &str = "-";

/// The text of the report, ending with a newline.
pub(crate) fn render(summary: &Summary, styled: bool) -> String {
    let sections = [
        verdict(&summary.verdict, styled),
        criteria(summary),
        setting(summary),
        load(summary),
        outcomes(summary),
        recall(summary),
        nodes(summary),
        memory(summary),
        size_classes(summary),
        growth(summary),
        accounting(summary),
        notes("Findings", &summary.verdict.findings),
        deeds(summary),
        next(summary),
    ];
    let mut text: Vec<String> = sections.into_iter().filter(|s| !s.is_empty()).collect();
    text.push(String::new());
    text.join("\n")
}

/// `VALID`, `NOT VALID`, `PARTIAL`, each with `SATURATED` where the target could not follow.
pub(crate) fn headline(verdict: &Verdict) -> String {
    let mut words = vec![match (&verdict.end, verdict.not_valid.is_empty()) {
        (RunEnd::Failed { .. }, _) => "FAILED",
        (RunEnd::Interrupted | RunEnd::Open, true) => "PARTIAL",
        (RunEnd::Interrupted | RunEnd::Open, false) => "PARTIAL, NOT VALID",
        (RunEnd::Finished, true) => "VALID",
        (RunEnd::Finished, false) => "NOT VALID",
    }];
    if !verdict.saturated.is_empty() {
        words.push("SATURATED");
    }
    if !verdict.missed.is_empty() {
        words.push("CRITERIA MISSED");
    }
    words.join(", ")
}

fn verdict(verdict: &Verdict, styled: bool) -> String {
    let headline = headline(verdict);
    let colour = match (
        &verdict.end,
        verdict.not_valid.is_empty(),
        verdict.saturated.is_empty() && verdict.missed.is_empty(),
    ) {
        (RunEnd::Finished, true, true) => "32",
        (RunEnd::Finished | RunEnd::Interrupted | RunEnd::Open, true, _) => "33",
        _ => "31",
    };
    let mut out =
        if styled { format!("\x1b[1;{colour}m{headline}\x1b[0m\n") } else { format!("{headline}\n") };
    match &verdict.end {
        RunEnd::Finished => {}
        RunEnd::Interrupted => out.push_str("  the run was interrupted; what it had measured is below\n"),
        RunEnd::Open => out.push_str(
            "  incomplete: the coordinator did not close the run; it was killed, or the run goes on\n",
        ),
        RunEnd::Failed { reason, .. } => push_wrapped(&mut out, &format!("the run failed: {reason}")),
    }
    for note in verdict.not_valid.iter().chain(&verdict.saturated).chain(&verdict.missed) {
        push_wrapped(&mut out, &sentence(note));
    }
    out
}

pub(crate) fn sentence(note: &Note) -> String {
    match &note.phase {
        Some(phase) => format!("{phase}: {}", note.text),
        None => note.text.clone(),
    }
}

/// What was done to the target, over all nodes; the file beside the log has it by node and instant.
fn deeds(summary: &Summary) -> String {
    let mut rows: Vec<(&Deed, u64, [u64; 3])> = Vec::new();
    for deed in &summary.deeds {
        let same =
            |known: &Deed| (&known.command, &known.why, &known.by) == (&deed.command, &deed.why, &deed.by);
        let counts = [deed.commands, deed.keys, deed.refused];
        match rows.iter_mut().find(|(known, ..)| same(known)) {
            Some((_, nodes, sums)) => {
                *nodes += 1;
                sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum = sum.saturating_add(n));
            }
            None => rows.push((deed, 1, counts)),
        }
    }
    let rows = rows
        .into_iter()
        .map(|(deed, places, [commands, keys, refused])| {
            let about = if places > 1 { format!("{}, ...", deed.subject) } else { deed.subject.clone() };
            let of_workers = deed.by != "coordinator";
            let number = |n: u64| if of_workers { String::from(NONE) } else { grouped(n) };
            let cells = [number(commands), number(keys), number(refused)];
            let lead = [deed.why.clone(), deed.by.clone(), deed.command.clone(), about];
            lead.into_iter().chain(cells).collect()
        })
        .collect();
    let header = ["what for", "by", "command", "about", "commands", "keys deleted", "refused"];
    table(
        "What was done to the target (audit.jsonl; the table latency counts what workers sent)",
        &header,
        4,
        rows,
    )
}

fn notes(title: &str, notes: &[Note]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let mut out = format!("{title}\n");
    for note in notes {
        push_wrapped(&mut out, &sentence(note));
    }
    out
}

/// A sentence, indented, broken between words.
fn push_wrapped(out: &mut String, text: &str) {
    let mut used = usize::from(WIDTH);
    let mut indent = "  ";
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used + 1 + length > usize::from(WIDTH) {
            if indent != "  " {
                out.push('\n');
            }
            out.push_str(indent);
            used = indent.len();
            indent = "    ";
        } else {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += length;
    }
    out.push('\n');
}

fn setting(summary: &Summary) -> String {
    let s = &summary.setting;
    let mut lines = vec![("run", summary.run.clone())];
    if let Some(scenario) = &s.scenario {
        let purpose = s.purpose.as_ref().map_or_else(String::new, |p| format!(": {p}"));
        lines.push(("scenario", format!("{scenario}{purpose}")));
    }
    if let Some(target) = &s.target {
        lines.push(("target", target.clone()));
    }
    lines.push(("fleet", format!("{} workers, {} lanes", grouped(s.workers), grouped(s.lanes))));
    let data: Vec<String> = [
        s.base.clone(),
        s.rows.map(|rows| format!("{} rows", grouped(rows))),
        s.dims.map(|dims| format!("{dims} dimensions")),
        s.metric.clone(),
        s.m.map(|m| format!("HNSW M {m}")),
        s.ef_construction.map(|ef| format!("EF_CONSTRUCTION {ef}")),
        s.seed.map(|seed| format!("seed {seed}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !data.is_empty() {
        lines.push(("data", data.join(", ")));
    }
    if let Some(copies) = &s.copies {
        lines.push(("copies", copies.clone()));
    }
    if let Some(prefill) = &s.prefill {
        lines.push(("prefill", prefill.clone()));
    }
    if let (Some(from), Some(to)) = (s.opened_wall_ns, s.ended_wall_ns) {
        let took = duration(count::to_u64(to.saturating_sub(from)));
        lines.push(("time", format!("{}, {took}", rfc3339(from))));
    }
    let mut out = String::new();
    for (name, value) in lines {
        let mut line = String::new();
        push_wrapped(&mut line, &format!("{name} {value}"));
        // The name's column is padded after wrapping, which keeps words apart by single spaces.
        let rest = line.trim_start().strip_prefix(name).unwrap_or_default();
        out.push_str(&format!("{name:<9}{rest}"));
    }
    out
}

/// One table: the first `text` columns to the left, the others to the right.
fn table(title: &str, header: &[&str], text: usize, rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(line))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(TABLE_WIDTH)
        .set_header(header.to_vec());
    table.add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if i >= text {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{title}\n{}\n", table.trim_fmt())
}

fn criteria(summary: &Summary) -> String {
    let row = |row: &CriterionRow| {
        let met = if row.met { "met" } else { "missed" };
        vec![row.phase.clone(), row.criterion.to_string(), row.shown(), met.to_owned()]
    };
    let rows = summary.criteria.iter().map(row).collect();
    table("Criteria of the scenario", &["phase", "asked for", "found", ""], 2, rows)
}

fn operations(summary: &Summary) -> impl Iterator<Item = (&PhaseSummary, &OperationSummary)> {
    summary.phases.iter().flat_map(|phase| phase.operations.iter().map(move |operation| (phase, operation)))
}

fn label(phase: &PhaseSummary, operation: &OperationSummary) -> String {
    let name = match &phase.beside {
        Some(main) => format!("{} beside {main}", phase.name),
        None => phase.name.clone(),
    };
    if phase.operations.len() > 1 { format!("{name} ({})", operation.operation) } else { name }
}

fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| NONE.to_owned())
}

fn load(summary: &Summary) -> String {
    let mut rows = Vec::new();
    let mut has_closed = false;
    for (phase, operation) in operations(summary) {
        let lead = [
            label(phase, operation),
            or_none(phase.load.clone()),
            or_none(operation.offered_per_second.map(rate)),
            or_none(operation.achieved_per_second.map(rate)),
        ];
        has_closed |= phase.load.as_deref() == Some("closed");
        let times = [("response", &operation.response), ("service", &operation.service)];
        let known: Vec<_> = times.into_iter().filter_map(|(name, d)| Some((name, d.as_ref()?))).collect();
        for (i, (name, distribution)) in known.iter().enumerate() {
            let mut row: Vec<String> = if i == 0 { lead.to_vec() } else { vec![String::new(); lead.len()] };
            row.push((*name).to_owned());
            row.extend(quantiles(distribution));
            rows.push(row);
        }
        if known.is_empty() {
            let mut row = lead.to_vec();
            row.push(NONE.to_owned());
            row.extend(vec![NONE.to_owned(); 7]);
            rows.push(row);
        }
    }
    let header =
        ["phase", "loop", "offered", "achieved", "time", "n", "p50", "p95", "p99", "p99.9", "p99.99", "max"];
    let mut out = table("Load: response is due to reply, service is sent to reply", &header, 2, rows);
    if has_closed {
        push_wrapped(
            &mut out,
            "A closed loop sends the next request when a reply comes, so it has no response time: a stall of the \
             target lowers its rate and hardly shows in its service time.",
        );
    }
    out
}

fn quantiles(d: &Distribution) -> Vec<String> {
    let mut cells = vec![grouped(d.n)];
    cells.extend([d.p50, d.p95, d.p99, d.p999, d.p9999, d.max].into_iter().map(quantile));
    cells
}

fn outcomes(summary: &Summary) -> String {
    // Only commands that read can miss, so most reports need no column for it.
    let missed = operations(summary).any(|(_, o)| o.miss > 0);
    let rows = operations(summary)
        .map(|(phase, o)| {
            let counts = [o.due, o.sent, o.ok, o.answered_errors(), o.timeout, o.lost, o.unsent];
            let row = std::iter::once(label(phase, o)).chain(counts.map(grouped));
            row.chain(missed.then(|| grouped(o.miss))).collect()
        })
        .collect();
    let mut header = vec!["phase", "due", "sent", "ok", "errors", "timeout", "lost", "unsent"];
    header.extend(missed.then_some("of ok: missed"));
    table("Requests", &header, 1, rows)
}

fn recall(summary: &Summary) -> String {
    let rows = summary
        .phases
        .iter()
        .filter_map(|phase| Some((phase, phase.recall.as_ref()?)))
        .map(|(phase, r)| {
            let interval = r.interval.map(|(low, high)| format!("[{}, {}]", fraction(low), fraction(high)));
            let mut row = vec![
                phase.name.clone(),
                format!("recall@{}", r.k),
                or_none(r.recall.map(fraction)),
                or_none(interval),
                or_none(r.queries.map(grouped)),
            ];
            let counts = [r.answers, r.ghosts, r.contamination, r.duplicates, r.partial, r.masked];
            row.extend(counts.map(grouped));
            row
        })
        .collect();
    let header = [
        "phase",
        "",
        "mean",
        "95 % interval",
        "queries",
        "answers",
        "ghosts",
        "foreign",
        "repeated",
        "partial",
        "masked",
    ];
    table("Recall: the interval is over distinct queries", &header, 2, rows)
}

fn nodes(summary: &Summary) -> String {
    let rows: Vec<Vec<String>> = summary
        .phases
        .iter()
        .flat_map(|phase| phase.nodes.iter().map(move |node| (phase, node)))
        .map(|(phase, node)| {
            let mut row = vec![phase.name.clone(), node.operation.clone(), short_node(&node.node)];
            row.extend([grouped(node.ok), grouped(node.failed)]);
            row.extend(match &node.service {
                Some(d) => [d.p50, d.p99, d.p9999, d.max].map(quantile),
                None => [NONE; 4].map(str::to_owned),
            });
            row
        })
        .collect();
    if rows.len() > NODE_ROWS {
        return String::new();
    }
    let header = ["phase", "operation", "node", "ok", "failed", "p50", "p99", "p99.99", "max"];
    table("Nodes: service", &header, 3, rows)
}

fn memory(summary: &Summary) -> String {
    let rows = summary
        .checkpoints
        .iter()
        .map(|checkpoint| {
            let figures = checkpoint.figures.as_ref();
            let cell = |value: Option<String>| or_none(value);
            vec![
                checkpoint.phase.clone(),
                cell(checkpoint.live.map(grouped)),
                cell(figures.and_then(|f| f.keys).map(grouped)),
                cell(figures.and_then(|f| f.index_docs).map(grouped)),
                cell(figures.map(|f| bytes(count::to_f64(f.used_bytes)))),
                cell(figures.and_then(|f| f.rss_bytes).map(|n| bytes(count::to_f64(n)))),
                cell(figures.and_then(|f| f.fragmentation).map(significant)),
                cell(figures.and_then(|f| f.net_bytes_per_vector).map(significant)),
                cell(figures.and_then(|f| f.returned_share).map(percent)),
                format!("{}/{}", grouped(checkpoint.complete_ticks), grouped(checkpoint.ticks)),
            ]
        })
        .collect();
    let header = [
        "checkpoint",
        "live rows",
        "keys",
        "indexed",
        "used",
        "rss",
        "rss/used",
        "net B/vector",
        "came back",
        "ticks",
    ];
    let mut out = table(
        "Memory of the primaries: net of the baseline; ticks are those with all nodes, of all",
        &header,
        1,
        rows,
    );
    // All keys have names of one length, so one line says it of every checkpoint.
    let names = summary.checkpoints.iter().find_map(|checkpoint| {
        checkpoint.figures.as_ref()?.net_bytes_per_vector?;
        checkpoint.key_name_bytes?.checked_div(checkpoint.live?)
    });
    if let Some(each) = names {
        push_wrapped(&mut out, &format!("of that key names {} B/vector", grouped(each)));
    }
    let shares = || summary.checkpoints.iter().filter_map(|c| c.figures.as_ref()?.returned_share);
    if shares().next().is_some() {
        let mut text = String::from(
            "came back: bytes given back since the checkpoint before, over what the removed rows cost on average then; \
             100 % when a vector costs as much as before",
        );
        if shares().any(|share| share > 1.0) {
            text.push_str(
                ", more when it costs less, because the checkpoint before held memory that no row needed",
            );
        }
        push_wrapped(&mut out, &text);
    }
    out
}

fn size_classes(summary: &Summary) -> String {
    let rows = summary
        .checkpoints
        .iter()
        .filter_map(|checkpoint| Some((checkpoint, checkpoint.allocator.as_ref()?)))
        .map(|(checkpoint, a)| {
            vec![
                checkpoint.phase.clone(),
                bytes(count::to_f64(a.allocated_bytes)),
                bytes(count::to_f64(a.held_bytes())),
                significant(a.ratio()),
                a.most_free_briefly(),
            ]
        })
        .collect();
    let header = ["checkpoint", "in use", "pages kept", "kept/used", "most of the rest"];
    table("Size classes of the primaries' allocators: pages kept beyond what is in use", &header, 1, rows)
}

fn growth(summary: &Summary) -> String {
    if summary.leaks.is_empty() {
        return String::new();
    }
    let mut out = String::from("Growth at equal population\n");
    for check in &summary.leaks {
        let word = if check.is_leak { "leak" } else { "no leak" };
        push_wrapped(&mut out, &format!("{word}: {}", check.sentence()));
    }
    out
}

fn accounting(summary: &Summary) -> String {
    let rows = &summary.accounting;
    if rows.is_empty() {
        return String::from("Accounting\n  the server's counters were not read\n");
    }
    let of = |wanted: fn(&Check) -> bool| count::len(rows.iter().filter(|r| wanted(&r.check)).count());
    let exact = of(|c| matches!(c, Check::Holds { exact: true }));
    let bounded = of(|c| matches!(c, Check::Holds { exact: false }));
    let violated = of(|c| matches!(c, Check::Violated { .. }));
    let unchecked = of(|c| matches!(c, Check::NotCheckable { .. }));
    let executed: u64 = rows.iter().map(|r| r.executed).sum();
    let mut out = String::from("Accounting\n");
    let text = format!(
        "{} attempts against the servers' own counters, per phase, node and command: {} equal, {} within bounds, \
         {} violated, {} not checkable",
        grouped(executed),
        grouped(exact),
        grouped(bounded),
        grouped(violated),
        grouped(unchecked)
    );
    push_wrapped(&mut out, &text);
    out
}

fn next(summary: &Summary) -> String {
    let directory = &summary.directory;
    let sql = "select phase, hdr_quantile(hdr_merge(response_hdr), 0.99) from latency group by phase";
    format!("run directory\n  {directory}\ntry\n  vst analyze query --run {directory} '{sql}'\n")
}
