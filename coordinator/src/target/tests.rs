//! What vst finds out about a target, claims and removes, on real servers; and the search plan's law.

use std::collections::BTreeSet;

use proptest::prelude::*;
use redis::Value;
use vst_common::ids::{NodeId, RunId};
use vst_common::keys::{KeySpace, owner_marker};
use vst_common::scenario::KeyspaceSpec;
use vst_common::scenario::Metric;
use vst_common::search::{Hit, IndexShape, Knn, knn_args, merge_knn, parse_knn};

use super::link::{frame, refusal};
use super::*;
use crate::local_cluster::{LocalCluster, LocalClusterOptions, ServerFiles};

const PREFIX: &str = "vst:";
const ROWS: u64 = 200;
const COPIES: u32 = 2;
const DIMS: u32 = 2;

fn marker(run: &str) -> OwnerMarker {
    OwnerMarker {
        run: RunId::new(run),
        prefix: PREFIX.to_owned(),
        rows: ROWS,
        copies: COPIES,
        dims: DIMS,
        keyspace: KeyspaceSpec { keys: 40, elements: 1, group: 16 },
        spaces: vec!["string".to_owned(), "hash".to_owned()],
        vst: "0.0.0".to_owned(),
        made_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn shape() -> IndexShape<'static> {
    IndexShape {
        on: vst_common::scenario::RowKind::Hash,
        prefix: PREFIX,
        field: "v",
        algorithm: vst_common::scenario::Algorithm::Hnsw,
        dims: DIMS,
        metric: Metric::L2,
        m: 16,
        ef_construction: 200,
        attributes: vst_common::attributes::Attributes::default(),
    }
}

fn key(copy: u32, row: u64) -> Vec<u8> {
    let mut key = Vec::new();
    KeySpace::new(PREFIX).write(copy, row, &mut key);
    key
}

/// Rows lie on a line, copy 1 far from copy 0.
fn vector(copy: u32, row: u64) -> Vec<u8> {
    let at = |x: f32| x.to_le_bytes();
    let x = f32::from(u16::try_from(row).unwrap());
    [at(x), at(f32::from(u16::try_from(copy).unwrap()) * 1000.0)].concat()
}

impl Target {
    async fn on_owner<T: redis::FromRedisValue>(&self, key: &[u8], command: &redis::Cmd) -> T {
        self.link_for_key(key).unwrap().ask(command).await.unwrap()
    }

    async fn exists(&self, key: &[u8]) -> bool {
        self.on_owner(key, cmd("EXISTS").arg(key)).await
    }

    async fn write(&self, copy: u32, row: u64) {
        let key = key(copy, row);
        self.on_owner::<()>(&key, cmd("HSET").arg(&key).arg("v").arg(vector(copy, row))).await;
    }

    async fn nearest(&self, plan: &SearchPlan, query: &[u8], k: u32) -> Vec<Hit<Vec<u8>>> {
        let SearchPlan::ClientSide { module, indexes } = plan else { panic!("{plan:?}") };
        let mut parts = Vec::new();
        for (id, index) in indexes {
            let (before, after) = knn_args(*module, index, &Knn::nearest("v", k, Some(100)), 5_000);
            let mut command = redis::Cmd::new();
            command.arg(before).arg(query).arg(after);
            let reply = self
                .link(&self.nodes.iter().find(|node| node.id == *id).unwrap().address())
                .value(&command)
                .await
                .unwrap();
            let hits = parse_knn(&frame(&reply), *module).unwrap();
            parts.push(
                hits.into_iter().map(|hit| Hit { key: hit.key.to_vec(), distance: hit.distance }).collect(),
            );
        }
        merge_knn(parts, usize::try_from(k).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_recognised_claimed_and_left_as_it_was() {
    let servers = LocalCluster::start(LocalClusterOptions::new(ServerFiles::find().unwrap())).await.unwrap();
    let target = Target::connect_to(TargetUrl::new(&servers.url(), None).unwrap()).await.unwrap();
    let target = Arc::new(target);

    // Who it is.
    assert!(target.is_cluster());
    assert_eq!(target.primaries().count(), 3);
    let announced: BTreeSet<_> =
        target.nodes().iter().map(|node| (node.id.clone(), node.address())).collect();
    let started: BTreeSet<_> =
        servers.nodes().iter().map(|node| (node.id.clone(), node.address.clone())).collect();
    assert_eq!(announced, started);
    assert_eq!(target.search_module().unwrap().module, SearchModule::RediSearch);
    let plan = target.search_plan(PREFIX).unwrap();
    assert!(matches!(&plan, SearchPlan::ClientSide { indexes, .. } if indexes.len() == 3), "{plan:?}");
    let facts = target.facts().await.unwrap();
    for node in &facts.nodes {
        assert_eq!(node.config.get("maxmemory").map(String::as_str), Some("0"), "{node:?}");
        assert!(node.server.contains_key("mem_allocator") && node.refused.is_empty(), "{node:?}");
    }
    assert_eq!(facts.nodes.iter().map(|node| node.slots).sum::<u64>(), u64::from(SLOTS));

    refuses_what_it_did_not_make(&target, &plan).await;

    // Claiming: one run only, and it can be found again.
    target.require_free(PREFIX).await.unwrap();
    target.claim(&marker("one")).await.unwrap();
    target.claim(&marker("one")).await.unwrap();
    let error = target.claim(&marker("two")).await.unwrap_err().to_string();
    assert!(error.contains("run one") && error.contains("--cleanup"), "{error}");
    assert_eq!(target.inspect(PREFIX).await.unwrap(), Found::OursLeftBehind(marker("one")));
    assert!(matches!(target.require_free(PREFIX).await, Err(TargetError::LeftBehind { .. })));
    assert_eq!(target.inspect("vst2:").await.unwrap(), Found::Empty);

    // The index is on every primary and takes in what is written there.
    target.create_index(&plan, &shape()).await.unwrap();
    let calls = |stats: &std::collections::BTreeMap<NodeId, Result<NodeCalls, TargetError>>| {
        let of = |node: &NodeId| stats[node].as_ref().unwrap().calls.get("HSET").copied().unwrap_or_default();
        target.primaries().map(|node| (node.id.clone(), of(&node.id))).collect::<Vec<_>>()
    };
    let before = calls(&target.commandstats().await);
    for copy in 0..COPIES {
        for row in 0..ROWS {
            target.write(copy, row).await;
        }
    }
    let misdirected = key(0, 0);
    let wrong = target
        .primaries()
        .find(|node| node.address() != target.link_for_key(&misdirected).unwrap().address());
    let mut pipeline = redis::pipe();
    pipeline.cmd("HSET").arg(&misdirected).arg("v").arg("x");
    let reply = target.link(&wrong.as_ref().unwrap().address()).values(&pipeline).await.unwrap();
    assert!(refusal(&reply[0]).unwrap().starts_with("MOVED "), "{reply:?}");
    let after = calls(&target.commandstats().await);
    let rows = target.row_count(PREFIX, &plan).await.unwrap();
    for ((id, before), (_, after)) in before.iter().zip(&after) {
        assert_eq!(after.calls - before.calls, rows[id].keys, "{id}");
        assert_eq!(
            after.rejected_calls - before.rejected_calls,
            u64::from(*id == wrong.as_ref().unwrap().id),
            "{id}"
        );
        assert_eq!(rows[id].indexed, rows[id].keys, "{id}");
    }
    let cells = ROWS * u64::from(COPIES);
    assert_eq!(rows.values().map(|rows| rows.keys).sum::<u64>(), cells);
    for info in target.index_info(&plan).await.unwrap().values() {
        assert!(
            info.is_settled() && info.dims == Some(u64::from(DIMS)) && info.index_bytes > Some(0),
            "{info:?}"
        );
        assert_eq!(
            (info.metric.as_deref(), info.prefixes.as_slice()),
            (Some("L2"), &[PREFIX.to_owned()][..])
        );
    }
    assert!(target.used_memory().await.unwrap() > 1_000_000);

    // The parts of three primaries are one answer.
    let hits = target.nearest(&plan, &vector(1, 50), 5).await;
    let found: BTreeSet<_> = hits.iter().map(|hit| hit.key.clone()).collect();
    assert_eq!(found, (48..=52).map(|row| key(1, row)).collect());
    assert_eq!(hits.iter().map(|hit| hit.distance).collect::<Vec<_>>(), [0.0, 1.0, 1.0, 4.0, 4.0]);

    // Clean-up removes what was made and nothing else.
    let note = b"vst:note".to_vec();
    let neighbour = b"vst2:000000000001".to_vec();
    for foreign in [&note, &neighbour] {
        target.on_owner::<()>(foreign, cmd("SET").arg(foreign).arg("mine")).await;
    }
    // Keys of plain commands belong to the plan as well; one past their number does not.
    let command_keys = [b"vst:string:{0}:000000000003".to_vec(), b"vst:hash:{2}:000000000039".to_vec()];
    for planned in &command_keys {
        target.on_owner::<()>(planned, cmd("SET").arg(planned).arg("ours")).await;
    }
    let mut seen = Vec::new();
    assert!(target.beside(&marker("one")).await.unwrap().unwrap().contains("vst:note"));
    let lease = Lease::take(&target, PREFIX, &RunId::new("one"), false).await.unwrap();
    // Not a key of another run's plan.
    let error = target.cleanup(&marker("two"), &lease, |_, _| panic!("begun")).await.unwrap_err();
    assert!(matches!(&error, TargetError::NotOurs { what, .. } if what.contains("run one")), "{error}");
    assert_eq!(
        target.row_count(PREFIX, &plan).await.unwrap().values().map(|r| r.indexed).sum::<u64>(),
        cells
    );
    let cleaned = target.cleanup(&marker("one"), &lease, |done, of| seen.push((done, of))).await.unwrap();
    assert_eq!(cleaned, Cleaned { keys: cells + 2, indexes: 3 });
    let planned = marker("one").cells();
    assert_eq!((seen.first(), seen.last()), (Some(&(0, planned)), Some(&(planned, planned))));
    assert!(target.exists(&note).await && target.exists(&neighbour).await);
    assert!(!target.exists(owner_marker(PREFIX).as_bytes()).await);
    assert!(matches!(target.index_info(&plan).await, Err(TargetError::IndexGone { .. })));
    target.on_owner::<()>(&note, cmd("DEL").arg(&note)).await;
    assert_eq!(target.inspect(PREFIX).await.unwrap(), Found::Empty);
    let error = target.cleanup(&marker("one"), &lease, |_, _| panic!("begun")).await.unwrap_err();
    assert!(matches!(&error, TargetError::NotOurs { what, .. } if what.contains("gone")), "{error}");
    lease.release().await;

    says_who_refused_it(&target, &servers).await;

    let silent = &servers.nodes()[0];
    servers.pause(&silent.id).unwrap();
    let error = Target::connect_to(TargetUrl::new(&servers.url(), None).unwrap()).await.unwrap_err();
    assert!(
        matches!(&error, TargetError::Unreachable { address, .. } if *address == silent.address),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_at_a_time_holds_a_prefix_and_what_it_lost_it_leaves_alone() {
    let options = LocalClusterOptions::standalone(ServerFiles::find().unwrap());
    let servers = LocalCluster::start(options).await.unwrap();
    let url = TargetUrl::new(&servers.url(), None).unwrap();
    let target = Arc::new(Target::connect_to(url).await.unwrap());
    let (one, two) = (RunId::new("one"), RunId::new("two"));
    let life_sign = vst_common::keys::life_sign(PREFIX);

    let first = Lease::take(&target, PREFIX, &one, false).await.unwrap();
    first.claim(&marker("one")).await.unwrap();
    for patient in [false, true] {
        let error = Lease::take(&target, PREFIX, &two, patient).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, TargetError::InUse { .. }), "{text}");
        let way_out = format!("DEL {life_sign}");
        assert!(text.contains("run one") && text.contains(&way_out) && text.contains("--cleanup"), "{text}");
    }
    assert_eq!(target.holder(PREFIX).await.unwrap().unwrap().run, one);
    assert_eq!(target.holder("else:").await.unwrap(), None, "a life sign stands for one prefix");

    // A run that shows no sign of life is succeeded when its time has run out, not before.
    drop(first);
    let began = vst_common::clock::mono_ns();
    let second = Lease::take(&target, PREFIX, &two, true).await.unwrap();
    let waited_ms = (vst_common::clock::mono_ns() - began) / 1_000_000;
    assert!((8_000..30_000).contains(&waited_ms), "{waited_ms} ms");

    // The first wakes up: it neither renews nor removes anything.
    for row in 0..3 {
        target.write(0, row).await;
    }
    let error = Lease::take(&target, PREFIX, &one, false).await.unwrap_err();
    assert!(matches!(error, TargetError::InUse { .. }), "{error}");
    target.unclaim(&marker("one"), &second).await.unwrap();
    second.claim(&marker("two")).await.unwrap();
    let error = target.cleanup(&marker("one"), &second, |_, _| panic!("begun")).await.unwrap_err();
    assert!(matches!(error, TargetError::NotOurs { .. }), "{error}");
    assert!(target.exists(&key(0, 0)).await && target.exists(owner_marker(PREFIX).as_bytes()).await);

    // Somebody takes the prefix by force: the holder is told, and a clean-up in progress stops.
    let lost = second.lost();
    target.on_owner::<()>(life_sign.as_bytes(), cmd("SET").arg(&life_sign).arg("three")).await;
    let told = tokio::time::timeout(std::time::Duration::from_secs(30), lost).await.unwrap();
    assert!(matches!(&told, TargetError::NotOurs { what, .. } if what.contains("run three")), "{told}");
    let error = target.cleanup(&marker("two"), &second, |_, _| panic!("begun")).await.unwrap_err();
    assert!(matches!(error, TargetError::NotOurs { .. }), "{error}");
    assert!(target.exists(&key(0, 0)).await);
    second.release().await;
    assert_eq!(target.holder(PREFIX).await.unwrap().unwrap().run, RunId::new("three"), "not ours to remove");
}

/// Keys, indexes and markers of others stand in the way and are named.
async fn refuses_what_it_did_not_make(target: &Target, plan: &SearchPlan) {
    let refused = async |what: &[&str]| {
        let error = target.require_free(PREFIX).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, TargetError::Foreign { .. }) && error.exit().code() == 4, "{text}");
        assert!(what.iter().all(|what| text.contains(what)), "{text}");
    };
    // A pattern's special characters in a neighbour's name are no pattern.
    let neighbour = b"vst".to_vec();
    target.on_owner::<()>(&neighbour, cmd("SET").arg(&neighbour).arg("x")).await;
    target.require_free(PREFIX).await.unwrap();
    target.on_owner::<()>(&neighbour, cmd("DEL").arg(&neighbour)).await;
    target.require_free("v?t:").await.unwrap();

    let foreign = b"vst:somebody".to_vec();
    target.on_owner::<()>(&foreign, cmd("SET").arg(&foreign).arg("x")).await;
    let owner = target.link_for_key(&foreign).unwrap().address().to_owned();
    refused(&["vst:somebody", &owner, PREFIX]).await;
    target.on_owner::<()>(&foreign, cmd("DEL").arg(&foreign)).await;

    let SearchPlan::ClientSide { indexes, .. } = plan else { panic!("{plan:?}") };
    let (id, ours) = &indexes[1];
    let link = target.link(&target.nodes.iter().find(|node| node.id == *id).unwrap().address());
    let tag = ours.trim_start_matches("vst_index");
    for (name, prefix, shown) in
        [(ours.clone(), "else:", "index `vst_index"), (format!("other{tag}"), "vs", "`vs`")]
    {
        let mut create = redis::Cmd::new();
        for arg in vst_common::search::create_args(&name, &IndexShape { prefix, ..shape() }) {
            create.arg(arg);
        }
        link.ask::<()>(&create).await.unwrap();
        refused(&[&name, shown, link.address()]).await;
        link.ask::<()>(cmd("FT.DROPINDEX").arg(&name)).await.unwrap();
    }

    let marker = owner_marker(PREFIX);
    target.on_owner::<()>(marker.as_bytes(), cmd("HSET").arg(&marker).arg("plan").arg("not ours")).await;
    refused(&[&marker]).await;
    target.on_owner::<()>(marker.as_bytes(), cmd("DEL").arg(&marker)).await;
}

/// Users, passwords, and settings that may not be read.
async fn says_who_refused_it(target: &Target, servers: &LocalCluster) {
    for node in target.primaries() {
        let rules = ["ACL", "SETUSER", "reader", "on", ">s3cr3t", "~*", "+@all", "-config"];
        target.link(&node.address()).ask::<()>(cmd(rules[0]).arg(&rules[1..])).await.unwrap();
    }
    let url = servers.url().replace("valkey://", "valkey://reader@");
    for password in [None, Some("wr0ng")] {
        let url = TargetUrl::new(&url, password.map(str::to_owned)).unwrap();
        let error = Target::connect_to(url).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(matches!(&error, TargetError::Auth { user, .. } if user == "reader"), "{text}");
        assert!(text.contains("VST_PASSWORD") && !text.contains("wr0ng"), "{text}");
    }
    let url = TargetUrl::new(&url, Some("s3cr3t".to_owned())).unwrap();
    let reader = Target::connect_to(url).await.unwrap();
    let facts = reader.facts().await.unwrap();
    for node in &facts.nodes {
        assert!(node.config.is_empty() && node.refused[0].contains("NOPERM"), "{node:?}");
    }
    assert!(!format!("{facts:?} {reader:?}").contains("s3cr3t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_search_module_is_refused_by_name() {
    let files = ServerFiles { search_module: None, ..ServerFiles::find().unwrap() };
    let servers = LocalCluster::start(LocalClusterOptions::standalone(files)).await.unwrap();
    let address = servers.nodes()[0].address.clone();
    let target = Target::connect_to(TargetUrl::new(&servers.url(), None).unwrap()).await.unwrap();
    assert!(target.search_module().is_none());
    // Plain commands need none: the prefix can be looked at and cleaned all the same.
    target.require_free("t:").await.unwrap();
    let error = target.search_plan("t:").unwrap_err();
    assert!(matches!(&error, TargetError::NoSearchModule { address: a, .. } if *a == address), "{error}");
    assert!(error.to_string().starts_with("target has no search module"), "{error}");
    let node = servers.nodes()[0].clone();
    drop(servers);
    let error =
        Target::connect_to(TargetUrl::new(&format!("valkey://{}", node.address), None).unwrap()).await;
    assert!(matches!(error, Err(TargetError::Unreachable { address: a, .. }) if a == address));
}

#[test]
fn errors_inside_a_reply_keep_their_words() {
    let reply = Value::Array(vec![Value::Okay, Value::Nil, Value::Set(vec![Value::Double(0.5)])]);
    let expected =
        Frame::Array(vec![Frame::Simple(b"OK"), Frame::Null, Frame::Array(vec![Frame::Double(0.5)])]);
    assert_eq!(frame(&reply), expected);
}

fn node(id: usize, slots: std::ops::RangeInclusive<u16>) -> TargetNode {
    TargetNode {
        id: NodeId::new(format!("n{id}")),
        host: "h".to_owned(),
        port: 1,
        role: Role::Primary,
        slots: vec![slots],
    }
}

fn detected(module: SearchModule, coordinates: bool) -> Detected {
    Detected { module, version: "1".to_owned(), coordinates }
}

proptest! {
    #[test]
    fn every_primary_gets_an_index_that_the_server_routes_to_it(
        cuts in prop::collection::btree_set(1_u16..SLOTS, 1..9),
        prefix in "[a-z{}:*]{0,12}",
    ) {
        let starts: Vec<u16> = std::iter::once(0).chain(cuts.iter().copied()).collect();
        let ends = cuts.iter().map(|cut| cut - 1).chain([SLOTS - 1]);
        let nodes: Vec<TargetNode> =
            starts.iter().zip(ends).enumerate().map(|(id, (start, end))| node(id, *start..=end)).collect();
        let plan = search_plan(&nodes, true, &detected(SearchModule::RediSearch, false), &prefix).unwrap();
        let SearchPlan::ClientSide { indexes, .. } = plan else { panic!("{plan:?}") };
        prop_assert_eq!(indexes.len(), nodes.len());
        for ((id, index), node) in indexes.iter().zip(&nodes) {
            prop_assert_eq!(id, &node.id);
            prop_assert_eq!(owner(&nodes, slot(index.as_bytes())).map(|node| &node.id), Some(id));
            prop_assert!(is_index_of(index, &prefix));
        }
    }

    #[test]
    fn no_other_name_is_taken_for_ours(name in "(vst_index|vst_inde|x)[{}0-9a]{0,4}") {
        let is_ours = name == "vst_index"
            || name.strip_prefix("vst_index{").and_then(|r| r.strip_suffix('}')).is_some_and(|tag| {
                !tag.is_empty() && tag.chars().all(|c| c.is_ascii_digit())
            });
        prop_assert_eq!(is_index_of(&name, "vst:"), is_ours);
    }
}

#[test]
fn one_question_is_enough_where_the_server_fans_out_or_stands_alone() {
    let three = [node(0, 0..=99), node(1, 100..=199), node(2, 200..=SLOTS - 1)];
    let one = [node(0, 0..=SLOTS - 1)];
    let plan = |nodes: &[TargetNode], cluster, module, coordinates| {
        search_plan(nodes, cluster, &detected(module, coordinates), PREFIX).unwrap()
    };
    let index = "vst_index".to_owned();
    for module in [SearchModule::ValkeySearch, SearchModule::RediSearch] {
        let server_side = SearchPlan::ServerSide { module, index: index.clone() };
        assert_eq!(plan(&one, false, module, false), server_side);
        assert_eq!(plan(&one, true, module, false), server_side);
    }
    let module = SearchModule::ValkeySearch;
    assert_eq!(plan(&three, true, module, true), SearchPlan::ServerSide { module, index: index.clone() });
    let indexes = three.iter().map(|node| (node.id.clone(), index.clone())).collect();
    assert_eq!(plan(&three, true, module, false), SearchPlan::ClientSide { module, indexes });
}
