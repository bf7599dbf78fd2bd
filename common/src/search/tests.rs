//! Laws of both dialects, on recorded replies of the real modules.

mod transcript;

use proptest::prelude::*;

use self::transcript::Exchange;
use super::knn::parse_hits;
use super::*;
use crate::attributes::Filter;
use crate::phase::SearchModule::{RediSearch, ValkeySearch};
use crate::resp::Frame;
use crate::scenario::Returns;

macro_rules! recorded {
    ($file:literal) => {
        transcript::read(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/fixtures/replies/",
            $file,
            ".txt"
        )))
    };
}

/// The same script against each module in each protocol.
fn scripts() -> [(SearchModule, u8, Vec<Exchange>); 4] {
    [
        (ValkeySearch, 2, recorded!("valkey-search-1.2.1.resp2")),
        (ValkeySearch, 3, recorded!("valkey-search-1.2.1.resp3")),
        (RediSearch, 2, recorded!("redisearch-2.10.5.resp2")),
        (RediSearch, 3, recorded!("redisearch-2.10.5.resp3")),
    ]
}

fn all() -> Vec<(SearchModule, Vec<Exchange>)> {
    let mut all: Vec<_> = scripts().into_iter().map(|(module, _, exchanges)| (module, exchanges)).collect();
    all.push((ValkeySearch, recorded!("valkey-search-1.2.1.cluster")));
    all.push((ValkeySearch, recorded!("valkey-search-1.2.1.behaviour")));
    all.push((RediSearch, recorded!("redisearch-2.10.5.behaviour")));
    all
}

/// The alias of a recorded KNN search that returns its distance.
fn alias(command: &str) -> Option<&str> {
    let knn = command.contains("=>[KNN");
    let with_fields = !command.contains("NOCONTENT") && !command.contains("RETURN 0");
    let alias = match command.split_once(" AS ") {
        Some((_, after)) => after.split(']').next(),
        None if command.contains("yield_distance_as") => Some("dd"),
        None => Some("__v_score"),
    };
    alias.filter(|_| knn && with_fields)
}

fn named(hits: &[Hit<&[u8]>]) -> Vec<(String, String)> {
    hits.iter().map(|hit| (String::from_utf8_lossy(hit.key).into_owned(), hit.distance.to_string())).collect()
}

#[test]
fn every_recorded_knn_answer_is_read_nearest_first_and_an_error_stays_an_error() {
    let (mut answers, mut refusals) = (0, 0);
    for (module, exchanges) in all() {
        for exchange in &exchanges {
            let Some(alias) = alias(&exchange.command) else { continue };
            match parse_hits(&exchange.frame(), module, alias) {
                Ok(hits) => {
                    answers += 1;
                    assert!(
                        hits.windows(2).all(|w| w[0].distance.total_cmp(&w[1].distance).is_le()),
                        "{}: {hits:?}",
                        exchange.command
                    );
                    let limited = exchange.command.contains("LIMIT");
                    let total = exchange.frame().get("total_results").and_then(Frame::as_i64);
                    let frame = exchange.frame();
                    let total = total.or_else(|| frame.as_array().and_then(|a| a[0].as_i64())).unwrap();
                    assert!(limited || total == i64::try_from(hits.len()).unwrap(), "{}", exchange.command);
                }
                Err(SearchError::Refused { text, .. }) => {
                    refusals += 1;
                    assert_eq!(Some(text), exchange.error(), "{}", exchange.command);
                }
                Err(e) => panic!("{}: {e}", exchange.command),
            }
        }
    }
    assert!(
        answers > 50 && refusals > 30,
        "the transcripts were not read: {answers} answers, {refusals} refusals"
    );
}

#[test]
fn module_and_protocol_do_not_change_what_was_found() {
    let found = |exchanges: &[Exchange], module| -> Vec<(String, Vec<(String, String)>)> {
        exchanges
            .iter()
            .filter_map(|exchange| {
                let alias = alias(&exchange.command)?;
                let hits = parse_hits(&exchange.frame(), module, alias).ok()?;
                Some((exchange.command.clone(), named(&hits)))
            })
            .collect()
    };
    let [valkey2, valkey3, redis2, redis3] =
        scripts().map(|(module, _, exchanges)| found(&exchanges, module));
    assert_eq!(valkey2, valkey3);
    assert_eq!(redis2, redis3);
    let mut shared = 0;
    for (command, hits) in &valkey2 {
        for (_, other) in redis2.iter().filter(|(other, _)| other == command) {
            assert_eq!(hits, other, "{command}");
            shared += 1;
        }
    }
    assert!(shared >= 5, "only {shared} searches were answered by both");
}

#[test]
fn a_node_that_is_asked_alone_answers_a_part_and_the_parts_merge_to_the_whole() {
    let exchanges = recorded!("valkey-search-1.2.1.cluster");
    let whole = exchanges.iter().find(|e| e.command.ends_with("RETURN 1 d")).unwrap();
    let local = exchanges.iter().find(|e| e.command.ends_with("LOCALONLY")).unwrap();
    let whole = whole.frame();
    let local = local.frame();
    let whole = parse_hits(&whole, ValkeySearch, "d").unwrap();
    let local = parse_hits(&local, ValkeySearch, "d").unwrap();
    let elsewhere: Vec<_> = whole.iter().filter(|hit| !local.contains(hit)).copied().collect();
    assert!(!elsewhere.is_empty());
    assert_eq!(merge_knn([elsewhere, local], 4), whole);
}

#[test]
fn replies_that_are_no_search_result_are_refused() {
    for bytes in [
        &b"+OK\r\n"[..],
        b":3\r\n",
        b"*0\r\n",
        b"*1\r\n$1\r\na\r\n",
        b"*2\r\n:1\r\n$1\r\na\r\n",
        b"*3\r\n:1\r\n$1\r\na\r\n*2\r\n$1\r\nx\r\n$1\r\n1\r\n",
        b"*3\r\n:1\r\n:7\r\n*2\r\n$3\r\n__d\r\n$1\r\n1\r\n",
        b"%1\r\n+total_results\r\n:0\r\n",
    ] {
        let reply = Frame::parse(bytes).unwrap();
        let got = parse_knn(&reply, RediSearch);
        assert!(matches!(got, Err(SearchError::Shape { .. })), "{}: {got:?}", bytes.escape_ascii());
    }
}

#[test]
fn a_document_that_vanished_is_kept_and_sorted_last() {
    let bytes = b"*5\r\n:2\r\n$1\r\na\r\n*-1\r\n$1\r\nb\r\n*2\r\n$3\r\n__d\r\n$3\r\n2.5\r\n";
    let hits = Frame::parse(bytes).map(|reply| parse_knn(&reply, RediSearch).unwrap()).unwrap();
    assert_eq!(named(&hits), [("b".into(), "2.5".into()), ("a".into(), "NaN".into())]);
}

#[test]
fn every_recorded_index_description_is_read() {
    let mut read = 0;
    for (module, protocol, exchanges) in scripts() {
        for exchange in exchanges.iter().filter(|e| e.command.starts_with("FT.INFO") && e.error().is_none()) {
            let info = parse_info(&exchange.frame(), module).unwrap();
            let context = format!("{module} RESP{protocol} {}: {info:?}", exchange.command);
            read += 1;
            assert_eq!(Some(info.name.as_str()), exchange.command.split(' ').nth(1), "{context}");
            let metric = match info.name.as_str() {
                "idx" => "L2",
                "hyb" => "COSINE",
                _ => "IP",
            };
            assert_eq!(info.metric.as_deref(), Some(metric), "{context}");
            assert_eq!(info.dims, Some(4), "{context}");
            assert_eq!(info.prefixes, [if info.name == "idx" { "doc:" } else { "h:" }], "{context}");
            assert_eq!(info.m, (info.name != "flat").then_some(16), "{context}");
            assert_eq!(info.ef_construction, (info.name != "flat").then_some(200), "{context}");
            assert!(info.is_settled() && !info.is_stuck(), "{context}");
            assert!((info.percent_indexed - 1.0).abs() < f64::EPSILON, "{context}");
            assert_eq!(info.index_bytes.is_some(), module == RediSearch, "{context}");
            if info.name == "idx" && module == RediSearch {
                assert!((242_000..245_000).contains(&info.index_bytes.unwrap()), "{context}");
            }
            // After the mutations three vectors are left, beside one key of a wrong size.
            let late = exchange.command.ends_with("at the end");
            assert_eq!(info.failures, u64::from(late), "{context}");
            assert_eq!(
                info.docs,
                if !late {
                    5
                } else if module == ValkeySearch {
                    3
                } else {
                    4
                },
                "{context}"
            );
        }
    }
    assert_eq!(read, 4 * 5);
}

#[test]
fn a_backfill_is_seen_and_one_that_ran_out_of_memory_is_called_stuck() {
    let exchanges = recorded!("valkey-search-1.2.1.cluster");
    let reply = exchanges.iter().find(|e| e.command == "FT.INFO idx").unwrap();
    let settled = parse_info(&reply.frame(), ValkeySearch).unwrap();
    assert_eq!((settled.docs, settled.mutation_queue), (12, 0));
    let with = |from: &str, to: &str| {
        let changed = transcript::read(&format!("> FT.INFO idx\n{}", reply.text.replace(from, to)));
        parse_info(&changed[0].frame(), ValkeySearch).unwrap()
    };
    let paused = with("simple 'ready'", "simple 'backfill_paused_by_oom'");
    assert!(paused.is_stuck() && !paused.is_settled());
    let queue = "simple 'mutation_queue_size'\n    bulk b'0'";
    let queued = with(queue, &queue.replace("b'0'", "b'7'"));
    assert!(!queued.is_settled() && queued.mutation_queue == 7);
    let backfill = "simple 'backfill_in_progress'\n    bulk b'0'";
    let filling = with(backfill, &backfill.replace("b'0'", "b'1'"));
    assert!(!filling.is_settled() && filling.indexing);
}

#[test]
fn a_missing_index_is_told_from_every_other_refusal() {
    let (mut missing, mut existing, mut other) = (0, 0, 0);
    for (_, exchanges) in all() {
        for exchange in &exchanges {
            let Some(error) = exchange.error() else { continue };
            let words: Vec<&str> = exchange.command.split(' ').collect();
            let asks_for_a_missing_one = matches!(words[0], "FT.SEARCH" | "FT.INFO" | "FT.DROPINDEX")
                && words.get(1).is_some_and(|name| matches!(*name, "nope" | "zz" | "a" | "one"));
            assert_eq!(
                is_missing_index_error(&error),
                asks_for_a_missing_one,
                "{}: {error}",
                exchange.command
            );
            let exists = words[0] == "FT.CREATE" && error.ends_with("already exists")
                || error.ends_with("already exists.");
            assert_eq!(is_existing_index_error(&error), exists, "{}: {error}", exchange.command);
            *(if asks_for_a_missing_one {
                &mut missing
            } else if exists {
                &mut existing
            } else {
                &mut other
            }) += 1;
        }
    }
    assert!(missing >= 15 && existing >= 4 && other >= 60, "{missing} {existing} {other}");
}

#[test]
fn a_module_is_recognised_by_its_info_and_without_it_by_its_version() {
    for (module, _, exchanges) in scripts() {
        let list = exchanges.iter().find(|e| e.command == "MODULE LIST").unwrap();
        let info = exchanges.iter().find(|e| e.command == "INFO modules").unwrap();
        let version = if module == ValkeySearch { "1.2.1" } else { "2.10.5" };
        let expected = Detected { module, version: version.to_owned(), coordinates: false };
        assert_eq!(detect_module(&list.frame(), &info.text), Some(expected.clone()));
        assert_eq!(detect_module(&list.frame(), ""), Some(expected));
    }
}

#[test]
fn only_a_coordinating_module_is_said_to_coordinate() {
    let exchanges = recorded!("valkey-search-1.2.1.resp2");
    let list = exchanges.iter().find(|e| e.command == "MODULE LIST").unwrap();
    let info = exchanges.iter().find(|e| e.command == "INFO modules").unwrap();
    let cluster = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/replies/valkey-search-1.2.1.cluster.txt"
    ));
    let section = cluster.split("# search_coordinator").nth(1).unwrap();
    let detected = detect_module(&list.frame(), &format!("{}\n{section}", info.text)).unwrap();
    assert!(detected.coordinates);
}

#[test]
fn a_server_without_a_search_module_has_none() {
    let only_lua = b"*1\r\n*4\r\n$4\r\nname\r\n$3\r\nlua\r\n$3\r\nver\r\n:1\r\n";
    let reply = Frame::parse(only_lua).unwrap();
    assert_eq!(detect_module(&reply, "# Modules\nmodule:name=lua,ver=1"), None);
    assert_eq!(detect_module(&Frame::Array(vec![]), ""), None);
}

#[test]
fn commands_say_what_each_module_needs() {
    let line = |args: &[Vec<u8>]| {
        args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" ")
    };
    let shape = IndexShape {
        on: crate::scenario::RowKind::Hash,
        prefix: "vst:",
        field: "v",
        algorithm: crate::scenario::Algorithm::Hnsw,
        dims: 128,
        metric: Metric::L2,
        m: 16,
        ef_construction: 200,
        attributes: Attributes::default(),
    };
    assert_eq!(
        line(&create_args("vst_index{3}", &shape)),
        "FT.CREATE vst_index{3} ON HASH PREFIX 1 vst: SCHEMA v VECTOR HNSW 10 TYPE FLOAT32 DIM 128 \
         DISTANCE_METRIC L2 M 16 EF_CONSTRUCTION 200"
    );
    let (before, after) = knn_args(RediSearch, "i", &Knn::nearest("v", 10, Some(64)), 900);
    assert_eq!(line(&before), "FT.SEARCH i *=>[KNN 10 @v $q EF_RUNTIME 64 AS __d] PARAMS 2 q");
    assert_eq!(line(&after), "RETURN 1 __d SORTBY __d LIMIT 0 10 TIMEOUT 900 DIALECT 2");
    let filters = [Filter::Tag(0.1), Filter::Numeric(0.25)];
    let attributes = Attributes::for_filters(1, 1_000, filters);
    let fields = attributes.fields();
    let with = IndexShape { attributes: attributes.clone(), ..shape };
    assert!(line(&create_args("i", &with)).ends_with(" EF_CONSTRUCTION 200 tag TAG number NUMERIC"));
    let documents = IndexShape { on: crate::scenario::RowKind::Json, ..with.clone() };
    let said = line(&create_args("i", &documents));
    assert!(said.starts_with("FT.CREATE i ON JSON PREFIX 1 vst: SCHEMA $.v AS v VECTOR HNSW 10 "), "{said}");
    assert!(said.ends_with(" EF_CONSTRUCTION 200 $.tag[*] AS tag TAG $.number AS number NUMERIC"), "{said}");
    for module in [RediSearch, ValkeySearch] {
        let sortby = if module == RediSearch { "SORTBY __d " } else { "" };
        let filter = attributes.expression(filters[0]);
        let knn = Knn { filter: Some(&filter), returns: Returns::Nothing, ..Knn::nearest("v", 3, None) };
        let (before, after) = knn_args(module, "i", &knn, 900);
        assert_eq!(line(&before), "FT.SEARCH i (@tag:{p100000})=>[KNN 3 @v $q AS __d] PARAMS 2 q");
        assert_eq!(line(&after), format!("NOCONTENT {sortby}LIMIT 0 3 TIMEOUT 900 DIALECT 2"));
        let filter = attributes.expression(filters[1]);
        let knn = Knn { filter: Some(&filter), returns: Returns::Row, beside: &fields, ..knn };
        let (before, after) = knn_args(module, "i", &knn, 900);
        assert_eq!(line(&before), "FT.SEARCH i (@number:[-inf (250])=>[KNN 3 @v $q AS __d] PARAMS 2 q");
        assert_eq!(
            line(&after),
            format!("RETURN 4 __d v tag number {sortby}LIMIT 0 3 TIMEOUT 900 DIALECT 2")
        );
    }
    let (before, after) = knn_args(ValkeySearch, "i", &Knn::nearest("v", 10, None), 900);
    assert_eq!(line(&before), "FT.SEARCH i *=>[KNN 10 @v $q AS __d] PARAMS 2 q");
    assert_eq!(line(&after), "RETURN 1 __d LIMIT 0 10 TIMEOUT 900 DIALECT 2");
}

#[test]
fn keys_alone_keep_the_order_of_the_server() {
    let keys = |reply: &[u8]| {
        let hits = parse_keys(&Frame::parse(reply).unwrap(), RediSearch).unwrap();
        hits.into_iter().map(|hit| (hit.key.to_vec(), hit.distance)).collect::<Vec<_>>()
    };
    let expected = [(b"b".to_vec(), 0.0), (b"a".to_vec(), 1.0)];
    assert_eq!(keys(b"*3\r\n:2\r\n$1\r\nb\r\n$1\r\na\r\n"), expected);
    let map = b"%1\r\n$7\r\nresults\r\n*2\r\n%1\r\n$2\r\nid\r\n$1\r\nb\r\n%1\r\n$2\r\nid\r\n$1\r\na\r\n";
    assert_eq!(keys(map), expected);
    assert!(parse_keys(&Frame::parse(b"-no such index\r\n").unwrap(), RediSearch).is_err());
}

#[test]
fn the_encoded_query_is_its_arguments_around_the_vector() {
    let (before, after) = knn_args(RediSearch, "i", &Knn::nearest("v", 3, None), 1);
    let vector = b"\x00\x01\r\n".to_vec();
    let mut out = Vec::new();
    knn_command(RediSearch, "i", &Knn::nearest("v", 3, None), 1).encode(&mut out, &[&vector]);
    let reply = Frame::parse(&out).unwrap();
    let sent: Vec<&[u8]> = reply.as_array().unwrap().iter().filter_map(Frame::as_bytes).collect();
    let expected: Vec<&[u8]> = before.iter().chain([&vector]).chain(&after).map(Vec::as_slice).collect();
    assert_eq!(sent, expected);
}

proptest! {
    #[test]
    fn merging_any_split_in_any_order_gives_the_nearest_of_all(
        mut hits in prop::collection::vec((0_u32..50, 0_u8..20, 0_usize..4), 0..40),
        k in 0_usize..12,
        seed in any::<u64>(),
    ) {
        let mut parts = vec![Vec::new(); 4];
        for (key, distance, part) in &hits {
            parts[*part].push(Hit { key: *key, distance: f64::from(*distance) });
        }
        parts.rotate_left(usize::try_from(seed % 4).unwrap());
        let merged: Vec<(u8, u32)> = merge_knn(parts, k)
            .into_iter()
            .map(|hit| (u8::try_from(crate::count::from_f64(hit.distance)).unwrap(), hit.key))
            .collect();
        hits.sort_by_key(|(key, distance, _)| (*distance, *key));
        let expected: Vec<(u8, u32)> = hits.iter().take(k).map(|(key, distance, _)| (*distance, *key)).collect();
        prop_assert_eq!(merged, expected);
    }
}
