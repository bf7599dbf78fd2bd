//! Who works under a prefix right now: a key with an expiry that the run renews for as long as it lives.
//!
//! Taken by the coordinator before it looks at what is left behind, given back when the run is over; clean-up asks it
//! before every step. Laws: at most one run holds a prefix; a run counts as dead [`EXPIRES_MS`] after its last sign of
//! life, which is later than its workers stop sending by themselves; nobody's key but our own is renewed or removed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::cmd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vst_common::ids::RunId;
use vst_common::keys::life_sign;

use super::ownership::Found;
use super::{OwnerMarker, Target, TargetError};

/// A run that has shown no sign of life for this long is dead, milliseconds. Its workers stop after 10 s without word
/// from it.
const EXPIRES_MS: u64 = 15_000;
/// Time between two signs of life.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// Time between two looks at somebody else's sign of life.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Compared and set in one step on the server, so that a run that was asleep never overwrites its successor. Gives
/// the other holder, else whether the key had been there.
///
/// The server counts what a script calls, so the script calls commands that no built-in load does: the accounting of
/// a phase compares the server's counts with what the workers sent.
const RENEW: &str = "local holder = redis.call('GETRANGE', KEYS[1], 0, -1) \
    if holder ~= '' and holder ~= ARGV[1] then return {holder, 1} end \
    redis.call('PSETEX', KEYS[1], ARGV[2], ARGV[1]) \
    return {'', holder ~= '' and 1 or 0}";
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// The run that holds a prefix, by its own sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The run.
    pub run: RunId,
    /// It counts as dead after this long without another sign, milliseconds.
    pub expires_in_ms: u64,
}

/// A prefix that is held; other runs are kept off until it is released or this process is gone for 15 s.
#[derive(Debug)]
pub struct Lease {
    hold: Arc<Hold>,
    lost: watch::Receiver<Option<String>>,
    renewing: JoinHandle<()>,
}

#[derive(Debug)]
struct Hold {
    target: Arc<Target>,
    prefix: String,
    run: RunId,
    /// The mark that this run has written.
    marker: OnceLock<OwnerMarker>,
}

/// What became of the sign of life.
enum Renewed {
    /// It lives on.
    Kept,
    /// It had run out, or the server had forgotten it.
    Anew,
    HeldBy(String),
}

impl Target {
    /// Who holds a prefix; `None` where nobody is alive.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn holder(&self, prefix: &str) -> Result<Option<Holder>, TargetError> {
        let key = life_sign(prefix);
        let link = self.link_for_key(key.as_bytes())?;
        let run: Option<String> = link.ask(cmd("GET").arg(&key)).await?;
        let left_ms: i64 = link.ask(cmd("PTTL").arg(&key)).await?;
        Ok(run.map(|run| Holder {
            run: RunId::new(run),
            expires_in_ms: u64::try_from(left_ms).unwrap_or(if left_ms == -1 { u64::MAX } else { 0 }),
        }))
    }
}

impl Lease {
    /// Holds a prefix. Where another run holds it, that one is watched if `patient`: it is refused as soon as it
    /// gives a sign of life, and succeeded when its time has run out.
    ///
    /// # Errors
    /// [`TargetError::InUse`].
    pub async fn take(
        target: &Arc<Target>,
        prefix: &str,
        run: &RunId,
        patient: bool,
    ) -> Result<Self, TargetError> {
        let hold = Hold {
            target: Arc::clone(target),
            prefix: prefix.to_owned(),
            run: run.clone(),
            marker: OnceLock::new(),
        };
        let mut seen: Option<Holder> = None;
        while let Renewed::HeldBy(_) = hold.renew().await? {
            let Some(holder) = target.holder(prefix).await? else { continue };
            let is_alive = seen.as_ref().is_some_and(|before| {
                before.run != holder.run || holder.expires_in_ms > before.expires_in_ms
            });
            if !patient || is_alive || holder.expires_in_ms > EXPIRES_MS {
                return Err(target.in_use(prefix, &holder)?);
            }
            if seen.is_none() {
                tracing::warn!(
                    "run {} may still hold `{prefix}`: waiting up to {:.0} s for a sign of life",
                    holder.run,
                    vst_common::count::to_f64(holder.expires_in_ms) / 1e3
                );
            }
            seen = Some(holder);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let hold = Arc::new(hold);
        let (tell, lost) = watch::channel(None);
        let renewing = tokio::spawn(keep(Arc::clone(&hold), tell));
        Ok(Self { hold, lost, renewing })
    }

    /// Marks the prefix as this run's; see [`Target::claim`].
    ///
    /// # Errors
    /// [`TargetError::LeftBehind`] when another run has marked it.
    pub async fn claim(&self, marker: &OwnerMarker) -> Result<(), TargetError> {
        self.hold.target.claim(marker).await?;
        // A second claim is the same one.
        let _ = self.hold.marker.set(marker.clone());
        Ok(())
    }

    /// Marks the prefix as this run's in place of the run that left it; see [`Target::adopt`].
    ///
    /// # Errors
    /// [`TargetError::NotOurs`] when another run has marked it meanwhile.
    pub async fn adopt(&self, left: &OwnerMarker, marker: &OwnerMarker) -> Result<(), TargetError> {
        self.hold.target.adopt(left, marker).await?;
        let _ = self.hold.marker.set(marker.clone());
        Ok(())
    }

    /// Whether the prefix is still ours, asked of the server; gives another sign of life.
    ///
    /// # Errors
    /// [`TargetError::NotOurs`].
    pub async fn check(&self) -> Result<(), TargetError> {
        match self.hold.look().await? {
            None => Ok(()),
            Some(what) => Err(self.hold.not_ours(what)),
        }
    }

    /// Resolves, with what happened, when somebody else has taken the prefix; never before.
    pub fn lost(&self) -> impl Future<Output = TargetError> + Send + 'static {
        let (hold, mut lost) = (Arc::clone(&self.hold), self.lost.clone());
        async move {
            let what = lost.wait_for(Option::is_some).await.ok().and_then(|what| what.clone());
            match what {
                Some(what) => hold.not_ours(what),
                None => std::future::pending().await,
            }
        }
    }

    /// Lets others have the prefix at once. What cannot be told to the server runs out by itself.
    pub async fn release(&self) {
        self.renewing.abort();
        let key = life_sign(&self.hold.prefix);
        let released = async {
            let link = self.hold.target.link_for_key(key.as_bytes())?;
            let mut release = cmd("EVAL");
            release.arg(RELEASE).arg(1).arg(&key).arg(self.hold.run.as_str());
            link.ask::<u64>(&release).await
        };
        if let Err(e) = released.await {
            tracing::warn!("`{key}` was not removed and runs out by itself: {e}");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Hold {
    async fn renew(&self) -> Result<Renewed, TargetError> {
        let key = life_sign(&self.prefix);
        let link = self.target.link_for_key(key.as_bytes())?;
        let mut renew = cmd("EVAL");
        renew.arg(RENEW).arg(1).arg(&key).arg(self.run.as_str()).arg(EXPIRES_MS);
        let (holder, was_there): (String, u8) = link.ask(&renew).await?;
        Ok(match (holder.is_empty(), was_there) {
            (false, _) => Renewed::HeldBy(holder),
            (true, 0) => Renewed::Anew,
            (true, _) => Renewed::Kept,
        })
    }

    /// Gives a sign of life; gives what is wrong where the prefix is no longer ours.
    async fn look(&self) -> Result<Option<String>, TargetError> {
        match self.renew().await? {
            Renewed::Kept => Ok(None),
            Renewed::HeldBy(run) => Ok(Some(format!("run {run} holds it"))),
            Renewed::Anew => self.look_at_marker().await,
        }
    }

    /// While no sign of life was there, somebody may have come and gone.
    async fn look_at_marker(&self) -> Result<Option<String>, TargetError> {
        let Some(ours) = self.marker.get() else { return Ok(None) };
        match self.target.marker(&self.prefix).await? {
            Some(Found::OursLeftBehind(found)) if found == *ours => Ok(None),
            Some(Found::OursLeftBehind(found)) => Ok(Some(format!("run {} has marked it", found.run))),
            Some(Found::Foreign { what }) => Ok(Some(what)),
            Some(Found::Empty) | None => Ok(Some(String::from("the mark is gone"))),
        }
    }

    fn not_ours(&self, what: String) -> TargetError {
        TargetError::NotOurs { prefix: self.prefix.clone(), run: self.run.to_string(), what }
    }
}

impl Target {
    pub(crate) fn in_use(&self, prefix: &str, holder: &Holder) -> Result<TargetError, TargetError> {
        let key = life_sign(prefix);
        let address = self.link_for_key(key.as_bytes())?.address().to_owned();
        Ok(TargetError::InUse {
            prefix: prefix.to_owned(),
            run: holder.run.to_string(),
            expires_in_s: holder.expires_in_ms.div_ceil(1_000),
            key,
            address,
        })
    }
}

async fn keep(hold: Arc<Hold>, tell: watch::Sender<Option<String>>) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        match hold.look().await {
            Ok(None) => {}
            Ok(what) => {
                tell.send_replace(what);
                return;
            }
            Err(e) => {
                tracing::warn!("no sign of life could be given for `{}`: {e}", hold.prefix);
                // Its slot may belong to another node by now; the next sign goes there.
                if let Err(e) = hold.target.refresh().await {
                    tracing::warn!("nobody says who serves the slots of the target: {e}");
                }
            }
        }
    }
}
