//! Registrations in a real etcd: there while their holder lives, gone soon after, back when etcd lost them.

use std::time::Duration;

use fleet_tests::etcd::Etcd;
use vst_etcd::{Client, Members, Registration, Watching};

const TTL: Duration = Duration::from_secs(2);
/// Wide: a loaded machine may keep both processes waiting.
const LIMIT: Duration = Duration::from_secs(30);

async fn client(etcd: &Etcd) -> Client {
    Client::new(&etcd.url().parse().expect("an address"), None, None).await.expect("a client")
}

async fn until(watching: &Watching, wanted: impl Fn(&Members) -> bool, what: &str) {
    let mut members = watching.members();
    let seen = tokio::time::timeout(LIMIT, members.wait_for(|m| wanted(m))).await;
    seen.unwrap_or_else(|_| panic!("{what}: saw {:?}", watching.members().borrow())).expect("still followed");
}

#[tokio::test]
async fn a_registration_is_seen_by_others_and_goes_when_it_ends_or_its_holder_dies() {
    let etcd = Etcd::start().await;
    let (mine, theirs) = (client(&etcd).await, client(&etcd).await);
    let watching = Watching::start(&theirs, "/vst/a/workers/").await.expect("a watch");
    assert!(watching.members().borrow().is_empty());

    let hold = |key: &str| Registration::hold(&mine, key.into(), b"{}".to_vec(), TTL);
    let ended = hold("/vst/a/workers/ended").await.expect("registered");
    let died = hold("/vst/a/workers/died").await.expect("registered");
    let other_fleet = hold("/vst/b/workers/other").await.expect("registered");
    until(&watching, |m| m.len() == 2, "both are seen").await;
    assert_eq!(watching.members().borrow().get("ended").map(Vec::as_slice), Some(b"{}".as_slice()));

    ended.end().await.expect("etcd is told");
    until(&watching, |m| m.keys().eq(["died"]), "what ended is gone").await;
    // Longer than it would live unless it were kept alive.
    tokio::time::sleep(TTL * 2).await;
    assert!(
        watching.members().borrow().contains_key("died"),
        "a held registration outlives its time to live"
    );
    drop(died);
    until(&watching, Members::is_empty, "a dead holder's registration runs out").await;
    assert!(other_fleet.is_held());
}

#[tokio::test]
async fn after_etcd_was_away_or_lost_everything_the_registration_comes_back_by_itself() {
    let mut etcd = Etcd::start().await;
    let client = client(&etcd).await;
    let watching = Watching::start(&client, "/vst/a/workers/").await.expect("a watch");
    let held =
        Registration::hold(&client, "/vst/a/workers/w".into(), b"1".to_vec(), TTL).await.expect("held");
    until(&watching, |m| m.len() == 1, "registered").await;
    for keep in [true, false] {
        etcd.kill().await;
        assert_eq!(watching.members().borrow().len(), 1, "losing etcd does not look like losing the worker");
        etcd.restart(keep).await;
        let read = async {
            loop {
                if held.is_held() && client.get("/vst/a/workers/w").await.ok().flatten().is_some() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, read).await.expect("the registration comes back");
        until(&watching, |m| m.len() == 1, "seen again").await;
    }
}
