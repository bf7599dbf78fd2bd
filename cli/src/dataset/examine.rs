//! `vst dataset info | validate`: what a data set is, and whether it is fit to measure with.

use futures::StreamExt;
use serde_json::{Value, json};
use vst_common::count;
use vst_common::dataset::{DatasetManifest, DatasetView, Rows, Survey, open_truth};
use vst_common::exit::Exit;
use vst_common::ground_truth::{GroundTruth, distance};
use vst_common::ranges::{Cut, RowRange};
use vst_common::scenario::Metric;

use super::catalogue::grouped;
use super::{Validate, extension, refuse, resolve};
use crate::error::Failure;
use crate::output;
use crate::progress::Transfer;

const RANGE_BYTES: u64 = 4 << 20;
const READS: usize = 4;
/// Relative difference up to which two distances count as tied.
const TIE: f64 = 1e-6;

async fn open(reference: &str) -> Result<DatasetView, Failure> {
    DatasetView::open_url(&resolve(reference)?).await.map_err(|e| refuse(&e))
}

pub(super) async fn info(reference: &str, scan: bool, as_json: bool) -> Result<Exit, Failure> {
    let view = open(reference).await?;
    let manifest = view.manifest();
    let survey = if scan { Some(survey(&view, &mut |_, _| {}).await?) } else { Survey::of_type(manifest) };
    if as_json {
        let mut said = serde_json::to_value(manifest)
            .map_err(|e| Failure::new(Exit::Bug, format!("the manifest cannot be written as JSON: {e}")))?;
        if let (Value::Object(said), Some(survey)) = (&mut said, &survey) {
            said.insert(String::from("norm_max"), json!(survey.norm_max));
            said.insert(String::from("widths"), json!(survey.widths()));
            said.insert(String::from("bounds"), json!(if scan { "measured" } else { "of the type" }));
        }
        output::result(&super::json(&said)?)?;
        return Ok(Exit::Valid);
    }
    let mut lines = describe(manifest);
    if let Some(survey) = &survey {
        let widths = survey.widths();
        let (least, most) = widths.iter().fold((f32::INFINITY, 0.0_f32), |(l, m), w| (l.min(*w), m.max(*w)));
        let of = if scan { "measured" } else { "bound of the type; --scan measures" };
        lines.push(format!("norm max    {:.6} ({of})", survey.norm_max));
        lines.push(format!("widths      {least} to {most} over {} coordinates", widths.len()));
    } else {
        lines.push(String::from("norm max    unknown: --scan reads all rows"));
    }
    output::result(&lines.join("\n"))?;
    Ok(Exit::Valid)
}

fn describe(manifest: &DatasetManifest) -> Vec<String> {
    let mut lines = vec![
        format!("url         {}", manifest.url),
        format!("format      {}", manifest.format),
        format!("rows        {}", grouped(manifest.rows)),
        format!("dimensions  {}", manifest.dims),
        format!("type        {}", manifest.element),
        format!("size        {} bytes in {} objects", grouped(manifest.size_bytes), manifest.objects.len()),
    ];
    if let Some(metric) = &manifest.metric {
        lines.push(format!("metric      {metric} (as the file says)"));
    }
    if let Some(etag) = &manifest.etag {
        lines.push(format!("etag        {etag}"));
    }
    lines.push(format!(
        "as FLOAT32  {:.3} GB of vectors",
        count::to_f64(manifest.rows) * f64::from(manifest.dims) * 4.0 / 1e9
    ));
    lines
}

/// Reads all rows once, several ranges at a time; `also` sees each range.
async fn survey(view: &DatasetView, also: &mut (dyn FnMut(u64, &Rows) + Send)) -> Result<Survey, Failure> {
    let manifest = view.manifest();
    let whole = RowRange { start: 0, end: manifest.rows };
    let cut = Cut::new(whole, RANGE_BYTES / manifest.row_bytes().max(1));
    let transfer = Transfer::new("reading", "rows");
    let mut reads = futures::stream::iter((0..cut.count()).filter_map(|i| cut.get(i)))
        .map(|range| async move { view.read(range).await.map(|rows| (range, rows)) })
        .buffered(READS);
    let mut survey = Survey::default();
    while let Some(read) = reads.next().await {
        let (range, rows) = read.map_err(|e| refuse(&e))?;
        survey.add(range.start, &rows);
        also(range.start, &rows);
        transfer.at(range.end, manifest.rows);
    }
    transfer.end();
    Ok(survey)
}

pub(super) async fn validate(asked: &Validate) -> Result<Exit, Failure> {
    let metric = Metric::from(asked.metric);
    let mut findings = Vec::new();
    let base = open(&asked.base).await?;
    if base.manifest().element.is_integer() {
        findings.push(format!("{} holds row numbers, not vectors", base.manifest().url));
    }
    let queries = match &asked.queries {
        Some(reference) => {
            let view = open(reference).await?;
            let (dims, wanted) = (view.manifest().dims, base.manifest().dims);
            if dims != wanted {
                findings.push(format!("the queries have {dims} dimensions, the base has {wanted}"));
            }
            judge("the queries", &survey(&view, &mut |_, _| {}).await?, metric, &mut findings);
            Some(view)
        }
        None => None,
    };
    let truth = match &asked.ground_truth {
        Some(reference) => {
            Some(open_truth(&resolve(reference)?, base.faults()).await.map_err(|e| refuse(&e))?)
        }
        None => None,
    };
    let mut sample = Vec::new();
    if let (Some(truth), Some(queries)) = (&truth, &queries) {
        let (known, asked_queries) = (u64::from(truth.queries), queries.manifest().rows);
        if known != asked_queries {
            findings.push(format!("the truth knows {known} queries, there are {asked_queries}"));
        }
        if let Err(e) = truth.check_against(base.manifest().rows) {
            findings.push(e.to_string());
        }
        unsorted(truth, &mut findings);
        if findings.is_empty() {
            sample = sampled(truth, queries, asked.sample).await?;
        }
    }
    let checked = sample.len();
    let mut also = |first: u64, rows: &Rows| {
        let mut row = Vec::new();
        for (number, i) in (first..).zip(0..rows.len()) {
            rows.row_f32(i, &mut row);
            for asked in &mut sample {
                asked.see(number, distance(metric, &asked.query, &row));
            }
        }
    };
    let seen = survey(&base, &mut also).await?;
    judge("the base", &seen, metric, &mut findings);
    findings.extend(sample.iter().filter_map(Sampled::fault));
    let valid = findings.is_empty();
    if asked.json {
        let said = json!({"valid": valid, "findings": findings, "rows": seen.rows, "norm_max": seen.norm_max,
            "widths": seen.widths(), "truth_depth": truth.as_ref().map(|t| t.k), "recomputed_queries": checked,
            "repeated_requests": base.faults().total(), "big_ann_extension": extension(base.manifest().element)});
        output::result(&super::json(&said)?)?;
    } else if valid {
        let truth = truth.as_ref().map_or(String::new(), |truth| {
            format!(", truth to depth {} (computed again for {checked} queries)", truth.k)
        });
        let manifest = base.manifest();
        output::result(&format!(
            "valid: {} rows x {} {}, norm max {:.6}{truth}",
            grouped(seen.rows),
            manifest.dims,
            manifest.element,
            seen.norm_max
        ))?;
    } else {
        output::result(&findings.join("\n"))?;
    }
    Ok(if valid { Exit::Valid } else { Exit::Scenario })
}

fn judge(what: &str, survey: &Survey, metric: Metric, findings: &mut Vec<String>) {
    if survey.not_finite > 0 {
        let rows = named(&survey.not_finite_rows);
        findings
            .push(format!("{what}: {} rows hold NaN or infinity, the first are {rows}", survey.not_finite));
    }
    if survey.zero > 0 && metric == Metric::Cosine {
        let rows = named(&survey.zero_rows);
        findings.push(format!(
            "{what}: {} rows have length zero, which has no cosine, the first are {rows}",
            survey.zero
        ));
    }
}

fn named(rows: &[u64]) -> String {
    rows.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// Where a file has distances they must not fall (or, for files of similarities, not rise).
fn unsorted(truth: &GroundTruth, findings: &mut Vec<String>) {
    for query in 0..truth.queries {
        let distances = truth.distances(query);
        let rises = distances.windows(2).all(|pair| pair.first() <= pair.last());
        let falls = distances.windows(2).all(|pair| pair.first() >= pair.last());
        if distances.iter().all(|d| !d.is_nan()) && !rises && !falls {
            findings.push(format!("the distances of query {query} in the truth are not sorted"));
            return;
        }
    }
}

/// A query whose truth is computed again.
struct Sampled {
    number: u32,
    query: Vec<f32>,
    ids: Vec<u32>,
    /// Our own distances of the listed rows, as they pass.
    listed: Vec<f64>,
    /// The nearest of all rows, at most as many as are listed.
    nearest: Vec<(f64, u64)>,
}

impl Sampled {
    fn see(&mut self, row: u64, distance: f64) {
        if let Some(place) = self.ids.iter().position(|id| u64::from(*id) == row)
            && let Some(listed) = self.listed.get_mut(place)
        {
            *listed = distance;
        }
        if self.nearest.len() == self.ids.len() && self.nearest.last().is_some_and(|last| last.0 <= distance)
        {
            return;
        }
        let at = self.nearest.partition_point(|found| found.0 <= distance);
        self.nearest.insert(at, (distance, row));
        self.nearest.truncate(self.ids.len());
    }

    fn fault(&self) -> Option<String> {
        let mut listed: Vec<f64> = self.listed.clone();
        listed.sort_unstable_by(f64::total_cmp);
        let wrong = listed.iter().zip(&self.nearest).enumerate().find(|(_, (listed, found))| {
            // What is listed and what was found must be equally far, whichever of several tied rows it is.
            **listed - found.0 > TIE * found.0.abs().max(1.0)
        });
        let (place, (listed, (found, row))) = wrong?;
        Some(format!(
            "neighbour {} of query {} is listed at distance {listed}, row {row} is at {found}: this truth belongs to other data \
             or another metric",
            place + 1,
            self.number
        ))
    }
}

/// Some queries, evenly over the file.
async fn sampled(truth: &GroundTruth, queries: &DatasetView, wanted: u32) -> Result<Vec<Sampled>, Failure> {
    let mut sample = Vec::new();
    let step = usize::try_from((truth.queries / wanted.max(1)).max(1)).unwrap_or(1);
    for number in (0..truth.queries).step_by(step).take(usize::try_from(wanted).unwrap_or(usize::MAX)) {
        let start = u64::from(number);
        let read = queries.read(RowRange { start, end: start + 1 }).await.map_err(|e| refuse(&e))?;
        let mut query = Vec::new();
        read.row_f32(0, &mut query);
        let ids = truth.ids(number).to_vec();
        let listed = vec![f64::INFINITY; ids.len()];
        sample.push(Sampled { number, query, ids, listed, nearest: Vec::new() });
    }
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use vst_common::dataset::Element;

    use super::*;

    #[test]
    fn a_truth_is_right_with_ties_in_any_order_and_wrong_when_a_nearer_row_is_missing() {
        let sampled = |ids: &[u32]| {
            let mut sampled = Sampled {
                number: 0,
                query: Vec::new(),
                ids: ids.to_vec(),
                listed: vec![f64::INFINITY; ids.len()],
                nearest: Vec::new(),
            };
            for (row, distance) in [(0, 3.0), (1, 1.0), (2, 2.0), (3, 2.0)] {
                sampled.see(row, distance);
            }
            sampled.fault()
        };
        assert_eq!(sampled(&[1, 2]), None);
        assert_eq!(sampled(&[1, 3]), None);
        assert!(sampled(&[1, 0]).unwrap().contains("another metric"));
        assert!(sampled(&[1, 7]).is_some(), "a row that never came");
    }

    #[test]
    fn elements_have_an_extension() {
        assert_eq!([Element::U8, Element::I8, Element::F32].map(extension), ["u8bin", "i8bin", "fbin"]);
    }
}
