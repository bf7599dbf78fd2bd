use std::collections::BTreeMap;

use object_store::memory::InMemory;
use object_store::path::Path;
use tempfile::TempDir;
use tokio::task::JoinSet;
use vst_common::batch::Table;
use vst_common::entry::RunState;
use vst_common::ids::{Generation, Sequence, WorkerId};

use super::*;
use crate::intake::Intake;

fn run() -> RunId {
    RunId::new("r1")
}

fn quick() -> Limits {
    Limits { commit_interval_ns: 1_000_000, ..Limits::default() }
}

fn batch(sequence: u64) -> StoredBatch {
    StoredBatch {
        worker: WorkerId::new("w"),
        generation: Generation(1),
        sequence: Sequence(sequence),
        table: Table::Events,
        ipc: Bytes::from(sequence.to_string()),
    }
}

fn closed() -> Control {
    Control::RunClosed { state: RunState::Finished, exit_code: 0, at_wall_ns: 7 }
}

async fn folder() -> (TempDir, RunDir) {
    let temp = tempfile::tempdir().unwrap();
    store::prepare_folder(temp.path()).await.unwrap();
    let dir = RunDir::open(temp.path().to_str().unwrap()).unwrap();
    (temp, dir)
}

fn in_memory() -> RunDir {
    RunDir::over(Arc::new(InMemory::new()), Path::from("runs/r1"))
}

async fn sequences(dir: &RunDir) -> Vec<u64> {
    let entries = dir.read_entries(dir.list_entries().await.unwrap());
    pin_mut!(entries);
    let mut found = Vec::new();
    while let Some(entry) = entries.next().await {
        found.extend(entry.unwrap().batches.iter().map(|batch| batch.sequence.0));
    }
    found
}

async fn what_is_appended_is_there_after_reopening(dir: RunDir) {
    let log = open_dir(dir.clone(), &run(), "a", quick()).await.unwrap();
    assert_eq!((log.epoch(), log.last_durable(), log.replay().last), (1, 1, 0));
    let mut appends = JoinSet::new();
    for sequence in 1..=20 {
        let log = log.clone();
        appends.spawn(async move { log.append_batch(batch(sequence)).await.unwrap() });
    }
    for number in appends.join_all().await {
        assert!(number > 1 && number <= log.last_durable());
    }
    let last = log.append_control(closed()).await.unwrap();
    assert_eq!(log.close().await, last);
    assert_eq!(log.append_control(closed()).await, Err(Stopped::Closed));
    assert!(!log.reached(last + 1).await);

    let mut found = sequences(&dir).await;
    found.sort_unstable();
    assert_eq!(found, (1..=20).collect::<Vec<_>>());
    let again = open_dir(dir.clone(), &run(), "b", quick()).await.unwrap();
    let replay = again.replay();
    assert_eq!((again.epoch(), replay.epoch, replay.last), (2, 1, last));
    assert_eq!(replay.controls.last(), Some(&(last, closed())));
    let (_, held) = replay.delivered.streams().next().unwrap();
    assert_eq!(held.through(), Sequence(20));
    assert_eq!(again.last_durable(), last + 1);
}

#[tokio::test]
async fn what_is_appended_is_there_after_reopening_a_folder() {
    let (_temp, dir) = folder().await;
    what_is_appended_is_there_after_reopening(dir).await;
}

#[tokio::test]
async fn what_is_appended_is_there_after_reopening_a_store() {
    what_is_appended_is_there_after_reopening(in_memory()).await;
}

async fn a_leader_that_was_replaced_acknowledges_nothing(dir: RunDir) {
    let first = open_dir(dir.clone(), &run(), "a", quick()).await.unwrap();
    first.append_batch(batch(1)).await.unwrap();
    let second = open_dir(dir.clone(), &run(), "b", quick()).await.unwrap();
    let refused = first.append_batch(batch(2)).await.unwrap_err();
    assert!(matches!(&refused, Stopped::OtherLeader { epoch: 2, leader, .. } if leader == "b"), "{refused}");
    assert_eq!(first.stopped().await, refused);
    assert_eq!(first.append_control(closed()).await, Err(refused));
    second.append_batch(batch(3)).await.unwrap();
    assert_eq!(sequences(&dir).await, vec![1, 3]);
}

#[tokio::test]
async fn a_leader_that_was_replaced_acknowledges_nothing_in_a_folder() {
    let (_temp, dir) = folder().await;
    a_leader_that_was_replaced_acknowledges_nothing(dir).await;
}

#[tokio::test]
async fn a_leader_that_was_replaced_acknowledges_nothing_in_a_store() {
    a_leader_that_was_replaced_acknowledges_nothing(in_memory()).await;
}

#[tokio::test]
async fn of_many_who_want_to_lead_at_once_the_log_follows_one_after_another() {
    let (_temp, dir) = folder().await;
    let mut candidates = JoinSet::new();
    for n in 0..8 {
        let dir = dir.clone();
        candidates.spawn(async move { open_dir(dir, &run(), &format!("c{n}"), quick()).await });
    }
    let led = candidates.join_all().await.into_iter().filter(Result::is_ok).count();
    assert!(led >= 1);
    let replay = replay(&dir, &run()).await.unwrap();
    assert_eq!(replay.controls.len(), led);
    assert_eq!(replay.epoch, u64::try_from(led).unwrap());
}

#[tokio::test]
async fn a_directory_of_another_run_is_refused_and_left_as_it_is() {
    let (temp, dir) = folder().await;
    open_dir(dir.clone(), &run(), "a", quick()).await.unwrap().close().await;
    let location = temp.path().to_str().unwrap();
    let refused = open(location, &RunId::new("r2"), "b").await;
    assert!(matches!(refused, Err(Error::OtherRun { .. })));
    assert_eq!(dir.list_entries().await.unwrap(), vec![1]);
}

#[tokio::test]
async fn a_new_directory_is_made_with_all_above_it() {
    let temp = tempfile::tempdir().unwrap();
    let location = temp.path().join("a/b/run");
    let log = open(location.to_str().unwrap(), &run(), "a").await.unwrap();
    log.write_run_json(&serde_json::json!({"seed": 1})).await.unwrap();
    log.write_run_json(&serde_json::json!({"seed": 2})).await.unwrap();
    assert_eq!(log.dir().read_run_json().await.unwrap()["seed"], 2);
    assert_eq!(std::fs::read_dir(location.join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_crash_leaves_behind_is_passed_over() {
    let (temp, dir) = folder().await;
    open_dir(dir.clone(), &run(), "a", quick()).await.unwrap().close().await;
    std::fs::write(temp.path().join("tmp/.tmpQ"), b"half an entry").unwrap();
    std::fs::write(temp.path().join("log/.tmpQ"), b"half an entry").unwrap();
    let log = open_dir(dir, &run(), "b", quick()).await.unwrap();
    assert_eq!(log.last_durable(), 2);
}

#[tokio::test]
async fn a_torn_entry_is_an_error_and_not_an_end() {
    let (temp, dir) = folder().await;
    open_dir(dir.clone(), &run(), "a", quick()).await.unwrap().close().await;
    std::fs::write(temp.path().join(layout::entry_path(2)), b"VSTL").unwrap();
    let refused = open_dir(dir, &run(), "b", quick()).await;
    assert!(matches!(refused, Err(Error::RunDir(run_dir::Error::Entry { number: 2, .. }))));
}

#[tokio::test]
async fn when_all_handles_are_gone_what_was_taken_is_written() {
    let (_temp, dir) = folder().await;
    let log = open_dir(dir.clone(), &run(), "a", quick()).await.unwrap();
    let pending = log.enqueue(Record::Batch(batch(1))).await.unwrap();
    drop(log);
    assert_eq!(pending.durable().await, Ok(2));
    assert_eq!(sequences(&dir).await, vec![1]);
}

/// What a dead coordinator had asked of the file system may be done after its death, and then the log has grown since
/// it was read.
async fn lead_after_the_dead(location: &str, name: &str) -> RunLog {
    store::prepare_folder(&run_dir::folder_of(location).unwrap()).await.unwrap();
    loop {
        match open_dir(RunDir::open(location).unwrap(), &run(), name, quick()).await {
            Err(Error::Stopped(Stopped::OtherLeader { .. })) => {}
            opened => return opened.unwrap(),
        }
    }
}

/// Kills the coordinator (its whole runtime) after some acknowledgements, wherever it is then, and starts it again;
/// workers deliver again what they have not seen acknowledged.
#[test]
fn whenever_the_coordinator_dies_an_acknowledged_batch_is_in_the_log_once() {
    let temp = tempfile::tempdir().unwrap();
    let location = temp.path().to_str().unwrap().to_owned();
    let mut acknowledged = std::collections::BTreeSet::new();
    let last = 60_u64;
    for life in 0_usize..12 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (seen_acks, acks) = std::sync::mpsc::channel();
        let location = location.clone();
        let left: Vec<u64> = (1..=last).filter(|n| !acknowledged.contains(n)).collect();
        runtime.spawn(async move {
            let log = lead_after_the_dead(&location, &format!("life {life}")).await;
            let intake = Intake::spawn(run(), log.replay().delivered.clone(), log.clone());
            for sequence in left {
                // Twice at once: the retry must not double.
                for _ in 0..2 {
                    let (intake, seen_acks) = (intake.clone(), seen_acks.clone());
                    tokio::spawn(async move {
                        if intake.deliver(batch(sequence)).await.is_ok() {
                            let _ = seen_acks.send(sequence);
                        }
                    });
                }
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        });
        // Every life but the last ends in the middle of its work.
        let wanted = if life == 11 { usize::MAX } else { life };
        for _ in 0..wanted {
            if acknowledged.len() == 60 {
                break;
            }
            acknowledged.insert(acks.recv().unwrap());
        }
        runtime.shutdown_background();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = RunDir::open(&location).unwrap();
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for sequence in runtime.block_on(sequences(&dir)) {
        *times.entry(sequence).or_default() += 1;
    }
    assert_eq!(times, (1..=last).map(|n| (n, 1)).collect());
}
