//! `vst dataset download | convert | generate`: data from one place to another.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;
use vst_common::count;
use vst_common::dataset::{self, DatasetView, DatasetWriter, Element, Progress, ReadOptions};
use vst_common::exit::Exit;
use vst_common::ranges::{Cut, RowRange};

use super::catalogue::{self, grouped};
use super::{Convert, Download, Generate, Kind, refuse, resolve};
use crate::error::Failure;
use crate::output;
use crate::progress::Transfer;

/// Bytes of a range that is read while another is written.
const RANGE_BYTES: u64 = 4 << 20;
/// Ranges read ahead of the writer.
const AHEAD: usize = 3;

pub(super) async fn download(asked: &Download) -> Result<Exit, Failure> {
    let mut urls = Vec::new();
    for what in &asked.what {
        match catalogue::find(what) {
            Some(entry) => {
                for file in entry.files {
                    urls.push(mirrored(file.url, asked.mirror.as_deref())?);
                }
            }
            None if what.contains("://") => urls.push(resolve(what)?),
            None => {
                let known: Vec<&str> = catalogue::ENTRIES.iter().map(|entry| entry.name).collect();
                let message = format!("`{what}` is neither a URL nor one of: {}", known.join(", "));
                return Err(Failure::new(Exit::Usage, message));
            }
        }
    }
    if asked.sha256.is_some() && urls.len() != 1 {
        return Err(Failure::new(Exit::Usage, "--sha256 is the sum of one file: name one URL"));
    }
    std::fs::create_dir_all(&asked.to)?;
    let mut done = Vec::new();
    for url in urls {
        let name = url.path().rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("data").to_owned();
        let path = asked.to.join(&name);
        // Under another name until it is whole and its sum is right.
        let part = asked.to.join(format!("{name}.part"));
        let transfer = Arc::new(Transfer::new(&name, "bytes"));
        let shown = Arc::clone(&transfer);
        let progress: Progress = Arc::new(move |now, all| shown.at(now, all));
        let connections = usize::from(asked.connections);
        let options = ReadOptions { cache: None, ..ReadOptions::from_env() };
        let faults = dataset::download(&url, &part, connections, &options, &progress).await;
        transfer.end();
        let faults = faults.map_err(|e| refuse(&e))?;
        let sum = sum_of(&part).await?;
        if let Some(wanted) = asked.sha256.as_deref().filter(|wanted| !wanted.eq_ignore_ascii_case(&sum)) {
            let message =
                format!("{} has the SHA-256 {sum}, not {wanted}: it was left aside", part.display());
            return Err(Failure::new(Exit::Scenario, message));
        }
        std::fs::rename(&part, &path)?;
        let bytes = std::fs::metadata(&path)?.len();
        let (path, repeated) = (path.display().to_string(), faults.total());
        if !asked.json {
            output::result(&format!(
                "{path}  {} bytes  sha256 {sum}  {repeated} requests repeated",
                grouped(bytes)
            ))?;
        }
        done.push(json!({"path": path, "bytes": bytes, "sha256": sum, "repeated_requests": repeated}));
    }
    if asked.json {
        output::result(&super::json(&done)?)?;
    }
    Ok(Exit::Valid)
}

/// A file of the catalogue at its publisher or at a mirror, which holds it under its own name.
fn mirrored(url: &str, mirror: Option<&str>) -> Result<Url, Failure> {
    let Some(mirror) = mirror else { return resolve(url) };
    let name = url.rsplit('/').next().unwrap_or_default();
    resolve(&format!("{}/{name}", mirror.trim_end_matches('/')))
}

async fn sum_of(path: &Path) -> Result<String, Failure> {
    let path = path.to_owned();
    let summed = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let mut sum = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
            }
            sum.update(buffer.get(..read).unwrap_or_default());
        }
    });
    match summed.await {
        Ok(sum) => Ok(sum?),
        Err(_) => Err(Failure::new(Exit::Interrupted, "interrupted")),
    }
}

pub(super) async fn convert(asked: &Convert) -> Result<Exit, Failure> {
    let from = resolve(&asked.from)?;
    let to = resolve(&asked.to)?;
    let view = DatasetView::open_url(&from).await.map_err(|e| refuse(&e))?;
    let has = view.manifest().rows;
    if let Some(wanted) = asked.rows.filter(|wanted| *wanted == 0 || *wanted > has) {
        return Err(Failure::new(
            Exit::Usage,
            format!("--rows {wanted}: {} has {has} rows", view.manifest().url),
        ));
    }
    write(&view, asked.rows.unwrap_or(has), &to, asked.json).await
}

pub(super) async fn generate(asked: &Generate) -> Result<Exit, Failure> {
    let to = resolve(&asked.to)?;
    let kind = match asked.kind {
        Kind::Uniform => "uniform",
        Kind::Gaussian => "gaussian",
        Kind::Clustered => "clustered",
    };
    let element = match dataset::Format::of_name(to.path()).and_then(|format| format.element()) {
        Some(element @ (Element::U8 | Element::I8)) => element,
        _ => Element::F32,
    };
    let Generate { rows, dims, seed, clusters, spread, queries, .. } = asked;
    let section = if queries.is_some() { "#queries" } else { "" };
    let reference = format!(
        "generate:{kind}?rows={rows}&dims={dims}&seed={seed}&element={element}&clusters={clusters}&spread={spread}&queries={}{section}",
        queries.unwrap_or(1000)
    );
    let view = DatasetView::open_url(&resolve(&reference)?).await.map_err(|e| refuse(&e))?;
    let count = view.manifest().rows;
    write(&view, count, &to, asked.json).await
}

/// Writes the first rows of a data set, reading ahead of the writer.
async fn write(view: &DatasetView, rows: u64, to: &Url, json: bool) -> Result<Exit, Failure> {
    let manifest = view.manifest();
    let begun = DatasetWriter::create(to, rows, manifest.dims, manifest.element).await;
    let mut writer = begun.map_err(|e| refuse(&e))?;
    let cut = Cut::new(RowRange { start: 0, end: rows }, RANGE_BYTES / manifest.row_bytes().max(1));
    let name = to.path().rsplit('/').next().unwrap_or_default();
    let transfer = Transfer::new(name, "rows");
    let mut reads = futures::stream::iter((0..cut.count()).filter_map(|i| cut.get(i)))
        .map(|range| async move {
            let view = view.clone();
            // On a task of its own, because computed rows take a processor.
            let read = tokio::spawn(async move { view.read(range).await });
            read.await.map(|rows| (range, rows))
        })
        .buffered(AHEAD);
    while let Some(read) = reads.next().await {
        let (range, read) = read.map_err(|_| Failure::new(Exit::Interrupted, "interrupted"))?;
        let read = read.map_err(|e| refuse(&e))?;
        writer.write(&read).await.map_err(|e| refuse(&e))?;
        transfer.at(range.end, rows);
    }
    let element = writer.element();
    writer.finish().await.map_err(|e| refuse(&e))?;
    transfer.end();
    let bytes = u64::from(manifest.dims).saturating_mul(element.bytes()).saturating_mul(rows);
    if json {
        let said = json!({"url": to.as_str(), "rows": rows, "dims": manifest.dims, "element": element,
            "payload_bytes": bytes, "repeated_requests": view.faults().total()});
        output::result(&super::json(&said)?)?;
    } else {
        let (dims, gb) = (manifest.dims, count::to_f64(bytes) / 1e9);
        output::result(&format!("{}: {} rows x {dims} {element}, {gb:.3} GB", to.as_str(), grouped(rows)))?;
    }
    Ok(Exit::Valid)
}
