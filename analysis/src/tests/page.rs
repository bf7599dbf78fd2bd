//! The page of charts, as a browser sees it.

use std::path::Path;
use std::process::Command;

use super::*;

/// Drives the page as a person would and writes what it sees into the document.
const DRIVER: &str = r#"<script>
const seen = { errors: window.vstErrors };
const points = (c) => c.plot ? c.plot.data.slice(1).flat().filter((v) => v !== null && v !== undefined).length : 0;
const shown = () => Object.fromEntries(vst.charts.map((c) => [c.id, [c.plot ? c.plot.series.length - 1 : 0, points(c)]]));
const scale = (id) => { const s = vst.charts.find((c) => c.id === id).plot.scales.x; return [s.min, s.max]; };
// The library draws after the script that asked for it.
const drawn = () => new Promise((done) => setTimeout(done, 50));
const drive = async () => {
  await drawn();
  seen.whole = shown();
  seen.range = scale('throughput');
  // The map is drawn, not only prepared: some of its pixels are of its ink.
  const map = vst.charts.find((c) => c.id === 'classes').plot;
  const pixels = map.ctx.getImageData(map.bbox.left, map.bbox.top, map.bbox.width, map.bbox.height).data;
  let inked = 0;
  for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 0 && pixels[i + 2] > pixels[i] + 40) inked += 1;
  seen.dark_cells = [inked > 500, inked];
  seen.free = map.data[1].at(-1);
  document.getElementById('phase').value = 'ask_again';
  document.getElementById('phase').dispatchEvent(new Event('change'));
  await drawn();
  seen.phase_range = scale('throughput');
  seen.phase = shown();
  document.getElementById('reset').click();
  await drawn();
  seen.back = scale('throughput');
  document.querySelector('#parts input').click();
  await drawn();
  seen.node = shown();
  seen.free_of_two = vst.charts.find((c) => c.id === 'classes').plot.data[1].at(-1);
  const before = document.documentElement.dataset.theme;
  document.getElementById('theme').click();
  await drawn();
  seen.themes = [before, document.documentElement.dataset.theme];
  seen.canvases = document.querySelectorAll('#charts canvas').length;
  seen.rows = document.getElementById('phases').rows.length;
};
drive().catch((error) => seen.errors.push(String(error))).then(() => {
  const out = document.createElement('pre');
  out.id = 'seen';
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script></body>"#;

fn browser() -> Option<&'static str> {
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}

fn chromium(browser: &str, arguments: &[&str], file: &Path) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=3000", "--window-size=1500,1900"])
        .args(arguments)
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[tokio::test]
async fn the_page_is_one_file_without_a_network() {
    let folder = Made::valid().write();
    let text = page(folder.path().to_str().unwrap()).await.unwrap();
    assert!(text.len() < 8_000_000, "{}", text.len());
    for outside in ["src=\"http", "href=\"http", "url(http", "import(", "fetch("] {
        assert!(!text.contains(outside), "{outside}");
    }
    for place in ["@DATA@", "@JS@", "@COMMON_JS@", "@CSS@", "@UPLOT_JS@", "@UPLOT_CSS@", "@TITLE@"] {
        assert!(!text.contains(place), "{place}");
    }
    let data = text.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["nodes"].as_array().unwrap().len(), 3);
    let rows = data["table"].as_array().unwrap();
    assert_eq!(rows.len(), 7);
    assert_eq!(rows[2]["offered"], 300.0);
}

#[tokio::test]
async fn each_chart_with_data_is_a_file_where_that_was_asked_for() {
    let mut made = Made::valid();
    made.classes("full", &[(64, 1_000_000, 1_010_000), (640, 8_000_000, 8_100_000)]);
    let folder = made.write();
    let directory = folder.path().to_str().unwrap();
    assert_eq!(drawn(directory, false).await.unwrap().charts, vec![]);
    let all = drawn(directory, true).await.unwrap();
    let names: Vec<&str> = all.charts.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "memory.svg",
        "resident.svg",
        "fragmentation.svg",
        "swap.svg",
        "faults.svg",
        "classes.svg",
        "throughput.svg",
        "latency.svg",
        "percentiles.svg",
    ];
    assert_eq!(names, expected, "nothing was judged, and nothing sampled while load ran");
    for (name, svg) in &all.charts {
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{name}");
        assert_eq!(svg.matches("<text ").count(), svg.matches("</text>").count(), "{name}");
    }
    let memory = &all.charts[0].1;
    // Three nodes in three phases without load; between the phases nobody knows, but a line goes on.
    assert_eq!(memory.matches("<polyline ").count(), 3, "{memory}");
}

#[tokio::test]
async fn a_name_cannot_break_out_of_the_page() {
    let mut made = Made::valid();
    made.find("ask").started.name = String::from("</script><script>alert(1)</script>@JS@");
    let text = page(made.write().path().to_str().unwrap()).await.unwrap();
    assert!(!text.contains("<script>alert(1)"));
    assert_eq!(text.matches("</script>").count(), 3);
}

/// Opens a page with a driver in its document and gives what the driver saw.
fn driven(browser: &str, folder: &Path, text: &str, driver: &str) -> serde_json::Value {
    let caught = "<script>window.vstErrors = []; addEventListener('error', (e) => vstErrors.push(e.message));</script>";
    let driven = text.replacen("<body>", &format!("<body>{caught}"), 1);
    let at = driven.rfind("</body>").unwrap();
    let file = folder.join("driven.html");
    std::fs::write(&file, format!("{}{driver}</html>", &driven[..at])).unwrap();
    let (dom, log) = chromium(browser, &["--dump-dom"], &file);
    let seen = dom.split("<pre id=\"seen\">").nth(1).unwrap_or_else(|| panic!("nothing seen: {log}"));
    let seen =
        seen.split("</pre>").next().unwrap().replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&");
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["errors"], serde_json::json!([]), "{seen}");
    assert!(!log.lines().any(|line| line.contains("CONSOLE") && line.contains("rror")), "{log}");
    seen
}

#[tokio::test]
async fn in_a_browser_every_chart_has_its_data_and_filters_work() {
    let Some(browser) = browser() else {
        eprintln!("no Chromium on this machine: the page was not opened (apt-get install chromium)");
        return;
    };
    let mut made = Made::valid();
    made.classes("full", &[(64, 1_000_000, 1_010_000), (640, 8_000_000, 8_100_000)]);
    made.classes("half", &[(64, 900_000, 1_000_000), (640, 4_000_000, 8_100_000)]);
    let folder = made.write();
    let text = page(folder.path().to_str().unwrap()).await.unwrap();
    let seen = driven(browser, folder.path(), &text, DRIVER);
    let count = |when: &str, chart: &str, what: usize| seen[when][chart][what].as_u64().unwrap();
    for chart in ["memory", "resident", "fragmentation"] {
        // Three nodes at three ticks of three phases.
        assert_eq!((count("whole", chart, 0), count("whole", chart, 1)), (3, 27), "{chart}: {seen}");
        assert_eq!((count("node", chart, 0), count("node", chart, 1)), (2, 18), "{chart}: a node is hidden");
    }
    // The map's one series is the sum over its classes, at three ticks of two phases.
    assert_eq!((count("whole", "classes", 0), count("whole", "classes", 1)), (1, 6), "{seen}");
    assert_eq!(
        (seen["dark_cells"][0].as_bool(), seen["free"].as_u64()),
        (Some(true), Some(3 * 4_200_000)),
        "{seen}"
    );
    assert_eq!(seen["free_of_two"].as_u64(), Some(2 * 4_200_000), "a node is hidden: {seen}");
    assert!(count("whole", "throughput", 1) > 40 && count("whole", "latency", 1) > 80, "{seen}");
    assert_eq!(
        count("whole", "percentiles", 0),
        6,
        "two phases with both times, two with service alone: {seen}"
    );
    assert_eq!(count("phase", "percentiles", 0), 2, "{seen}");
    assert_eq!(count("whole", "correlation", 0), 0, "nothing was sampled while load ran");
    assert_eq!(seen["range"], seen["back"]);
    let range = &seen["phase_range"];
    assert!(
        (range[0].as_f64().unwrap() - 100.0).abs() < 1e-6
            && (range[1].as_f64().unwrap() - 112.0).abs() < 1e-6,
        "{seen}"
    );
    assert_ne!(seen["themes"][0], seen["themes"][1]);
    assert_eq!(seen["rows"], 8);
}

/// What the page of several runs shows, before and after one run is hidden and a phase is chosen.
const COMPARE_DRIVER: &str = r#"<script>
const seen = { errors: window.vstErrors };
const shown = () => Object.fromEntries(vst.charts.map((c) => [c.id, c.plot ? c.plot.series.length - 1 : 0]));
const drawn = () => new Promise((done) => setTimeout(done, 50));
const drive = async () => {
  await drawn();
  seen.whole = shown();
  seen.tables = [...document.querySelectorAll('table.figures')].map((t) => t.rows.length);
  document.getElementById('phase').value = 'ask';
  document.getElementById('phase').dispatchEvent(new Event('change'));
  await drawn();
  seen.phase = shown();
  document.querySelector('#parts input').click();
  await drawn();
  seen.one = shown();
  document.getElementById('theme').click();
  await drawn();
};
drive().catch((error) => seen.errors.push(String(error))).then(() => {
  const out = document.createElement('pre');
  out.id = 'seen';
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script></body>"#;

#[tokio::test]
async fn runs_stand_side_by_side_with_differences_and_intervals() {
    let (first, mut second) = (Made::valid().write(), Made::valid());
    second.find("ask").latency.iter_mut().flatten().for_each(|row| row.cell.ok -= row.cell.ok / 2);
    let second = second.write();
    let dirs = [&first, &second].map(|folder| folder.path().to_str().unwrap().to_owned());
    let text = compare_page(&dirs).await.unwrap();
    assert!(compare_page(&dirs[..1]).await.unwrap_err().to_string().contains("two or more"));
    let data = text.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["runs"].as_array().unwrap().len(), 2);
    // The page's differences are the command's.
    let told = regress(&dirs[..1], &dirs[1..], &Thresholds::default()).await.unwrap();
    let rows = data["comparisons"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), told.judgements.len());
    let Some(browser) = browser() else {
        eprintln!("no Chromium on this machine: the page was not opened (apt-get install chromium)");
        return;
    };
    let seen = driven(browser, first.path(), &text, COMPARE_DRIVER);
    assert_eq!((&seen["whole"]["memory"], &seen["one"]["memory"]), (&2.into(), &0.into()), "{seen}");
    assert_eq!(
        (&seen["whole"]["throughput"], &seen["phase"]["throughput"]),
        (&2.into(), &2.into()),
        "{seen}"
    );
    assert_eq!(
        (&seen["whole"]["percentiles"], &seen["phase"]["percentiles"]),
        (&8.into(), &2.into()),
        "{seen}"
    );
    assert_eq!(seen["one"]["latency"], 1, "{seen}");
    assert_eq!(seen["tables"][0].as_u64(), Some(1 + rows.len() as u64), "{seen}");
}
