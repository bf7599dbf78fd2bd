//! What other tools read is what the tables hold.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;

async fn number(run: &str, sql: &str) -> f64 {
    let answer = query(&[run.to_owned()], sql).await.unwrap();
    let line = answer.to_json_lines().unwrap();
    let row: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    row["n"].as_f64().unwrap()
}

#[tokio::test]
async fn csv_and_json_hold_the_numbers_of_the_tables() {
    let mut made = Made::valid();
    made.find("ask").started.name = String::from("ask, \"again\"");
    // Memory while load runs too.
    let ticks = made.find("full").memory.clone();
    let ask = made.find("ask, \"again\"");
    for mut row in ticks {
        row.sample.phase_index = ask.started.index;
        row.sample.phase.clone_from(&ask.started.name);
        row.sample.tick += 5_000;
        row.sample.sampled_at =
            ask.started.start_wall_ns + i64::try_from(row.sample.tick % 10).unwrap() * 2_000_000_000 + 5;
        row.info.insert(String::from("allocator_active"), String::from("1048576"));
        ask.memory.push(row);
    }
    let folder = made.write();
    let run = folder.path().to_str().unwrap();
    let export = export(run).await.unwrap();
    let csv = export.to_csv();
    let json: serde_json::Value = serde_json::from_str(&export.to_json().unwrap()).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(
        names.join(" "),
        "timestamp phase rss_mb active_mb resident_mb allocated_mb fragmentation_ratio qps ips dps p50_ms p95_ms p99_ms"
    );
    assert_eq!((lines.clone().count(), rows.len()), (12, 12), "four phases of three ticks: {csv}");
    let (mut asked, mut quiet) = (0, 0);
    for (line, row) in lines.zip(rows) {
        let cells: Vec<&str> = match line.split_once("\"ask, \"\"again\"\"\"") {
            Some((before, after)) => {
                before.split(',').take(1).chain(["ask, \"again\""]).chain(after.split(',').skip(1)).collect()
            }
            None => line.split(',').collect(),
        };
        for (name, cell) in names.iter().zip(cells) {
            match &row[*name] {
                serde_json::Value::Null => assert_eq!(cell, "", "{name}"),
                serde_json::Value::String(text) => assert_eq!(cell, text),
                value => assert_eq!(cell.parse::<f64>().unwrap(), value.as_f64().unwrap(), "{name}"),
            }
        }
        if row["phase"] == "ask, \"again\"" {
            asked += 1;
            assert_eq!((row["ips"].as_f64(), row["dps"].as_f64()), (Some(0.0), Some(0.0)));
            assert_eq!(row["active_mb"], 3.0);
            let start = row["timestamp"].as_f64().unwrap();
            let of_interval = |pick: &str| {
                format!(
                    "select cast({pick} as double) as n from latency_rollup_all where operation <> 'knn_part'
                     and cast(interval_start as bigint) <= {start} * 1000000000
                     and cast(interval_start as bigint) + interval_ns > {start} * 1000000000"
                )
            };
            assert_eq!(row["qps"].as_f64().unwrap(), number(run, &of_interval("sum(ok)")).await);
            let p99 = of_interval("hdr_quantile(hdr_merge(response_hdr), 0.99)");
            assert_eq!(row["p99_ms"].as_f64().unwrap(), number(run, &p99).await / 1e6);
        } else if row["phase"] == "full" {
            quiet += 1;
            assert_eq!((row["qps"].as_f64(), row["p99_ms"].as_f64()), (Some(0.0), None));
            let sum = "select sum(used_memory_rss) / 3.0 as n from memory where phase = 'full'";
            assert_eq!(row["rss_mb"].as_f64().unwrap(), number(run, sum).await / 1_048_576.0);
        }
    }
    assert_eq!((asked, quiet), (3, 3));
}

#[tokio::test]
async fn the_histogram_log_reads_back_as_the_merged_histograms_of_the_table() {
    let folder = Made::valid().write();
    let run = folder.path().to_str().unwrap();
    let log = hdr_log(run).await.unwrap();
    let mut by_tag: std::collections::BTreeMap<String, Histogram<u64>> = std::collections::BTreeMap::new();
    let mut deserializer = Deserializer::new();
    let mut started = false;
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        match entry.unwrap() {
            LogEntry::StartTime(_) => started = true,
            LogEntry::BaseTime(_) => {}
            LogEntry::Interval(interval) => {
                use base64::Engine as _;
                let text = interval.encoded_histogram();
                let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
                let histogram: Histogram<u64> = deserializer.deserialize(&mut bytes.as_slice()).unwrap();
                let tag = interval.tag().unwrap().as_str().to_owned();
                match by_tag.get_mut(&tag) {
                    Some(sum) => sum.add(&histogram).unwrap(),
                    None => drop(by_tag.insert(tag, histogram)),
                }
            }
        }
    }
    assert!(started);
    let ask = &by_tag["ask/knn/response"];
    for q in [0.5, 0.99, 0.9999, 1.0] {
        let sql = format!(
            "select cast(hdr_quantile(hdr_merge(response_hdr), {q}) as double) as n from latency
             where phase = 'ask' and operation = 'knn'"
        );
        let value = f64::from(u32::try_from(ask.value_at_quantile(q)).unwrap());
        assert_eq!(value, number(run, &sql).await, "{q}");
    }
    let counted =
        "select cast(hdr_count(hdr_merge(service_hdr)) as double) as n from latency where phase = 'load'";
    let load = u32::try_from(by_tag["load/hset/service"].len()).unwrap();
    assert_eq!(f64::from(load), number(run, counted).await);
}
