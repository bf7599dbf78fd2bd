//! What a refusal asks for, and how long to wait before the next attempt.
//!
//! Asked by the pipeline for every error reply. A cluster that fails over or moves slots refuses commands for seconds
//! and then serves them; what it refused was not executed, so it can be sent again. Law: the pauses of one request grow
//! to the largest and never beyond, so that a refusing cluster is asked neither in a tight loop nor too seldom.

use vst_common::seed::Draw;

/// Redirects that are followed at once. More in a row mean that two nodes point at each other for the moment.
const AT_ONCE: u32 = 3;
/// Redirects in a row before they count as the request's error.
const MAX_REDIRECTS: u32 = 16;
/// First pause before the next attempt; doubles up to the largest.
const PAUSE_NS: u64 = 10_000_000;
/// Largest pause: a promoted replica is found this late at most.
pub(super) const PAUSE_MAX_NS: u64 = 400_000_000;

/// A reply that says the command was not executed, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal<'a> {
    /// The slot belongs to another node.
    Moved { slot: Option<u16>, host: &'a str, port: u16 },
    /// The slot is on its way to another node, which has this key already.
    Ask { host: &'a str, port: u16 },
    /// The keys of the command are on both sides of a slot that moves.
    TryAgain,
    /// The cluster serves nothing, or not this slot.
    ClusterDown,
    /// The server reads its data.
    Loading,
    /// A primary has become a replica.
    ReadOnly,
}

impl<'a> Refusal<'a> {
    /// Reads an error reply without its first byte; `None` where repeating the command would change nothing.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        match words.next()? {
            "TRYAGAIN" => return Some(Self::TryAgain),
            "CLUSTERDOWN" | "MASTERDOWN" => return Some(Self::ClusterDown),
            "LOADING" => return Some(Self::Loading),
            "READONLY" => return Some(Self::ReadOnly),
            "MOVED" | "ASK" => {}
            _ => return None,
        }
        let slot = words.next()?.parse().ok();
        let (host, port) = words.next()?.rsplit_once(':')?;
        let port = port.parse().ok()?;
        Some(match text.starts_with("MOVED") {
            true => Self::Moved { slot, host, port },
            false => Self::Ask { host, port },
        })
    }

    /// What an event about it is called.
    pub(super) fn event(&self) -> &'static str {
        match self {
            Self::Moved { .. } => "moved",
            Self::Ask { .. } => "ask",
            Self::TryAgain => "try_again",
            Self::ClusterDown => "cluster_down",
            Self::Loading => "loading",
            Self::ReadOnly => "read_only",
        }
    }

    /// What it means, for people.
    pub(super) fn meaning(&self) -> &'static str {
        match self {
            Self::Moved { .. } => "slots belong to another node; followed",
            Self::Ask { .. } => "a slot is being moved away; followed",
            Self::TryAgain => "keys of one command are on both sides of a slot that moves; tried again",
            Self::ClusterDown => "the cluster does not serve; tried again",
            Self::Loading => "the server reads its data; tried again",
            Self::ReadOnly => "the node has become a replica; tried again at its primary",
        }
    }

    /// Whether somebody should be asked who owns the slots now. A slot that is still moving has its old owner.
    pub(super) fn doubts_the_map(&self) -> bool {
        !matches!(self, Self::Ask { .. } | Self::TryAgain | Self::Loading)
    }
}

/// How often a request was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    times: u32,
    redirects: u32,
    /// When it was refused first.
    since: Option<u64>,
}

/// When the next attempt goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// As soon as a slot is free.
    Now,
    /// After a pause.
    At(u64),
    /// Never: the refusal is the request's error.
    GiveUp,
}

impl Refused {
    /// When the first refusal came.
    pub(super) fn since(&self, now: u64) -> u64 {
        self.since.unwrap_or(now)
    }

    /// Counts a refusal; `salt` tells requests apart, so that they do not all come back at once.
    pub(super) fn again(&mut self, refusal: &Refusal<'_>, now: u64, salt: u64) -> Next {
        self.since.get_or_insert(now);
        let redirect = matches!(refusal, Refusal::Moved { .. } | Refusal::Ask { .. });
        self.redirects = if redirect { self.redirects + 1 } else { 0 };
        if self.redirects >= MAX_REDIRECTS {
            return Next::GiveUp;
        }
        if redirect && self.redirects <= AT_ONCE {
            return Next::Now;
        }
        let pause = PAUSE_NS.saturating_mul(1 << self.times.min(6)).min(PAUSE_MAX_NS);
        self.times += 1;
        let spread = Draw::new(salt, self.times, now).below(pause / 2 + 1);
        Next::At(now.saturating_add(pause / 2).saturating_add(spread))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_refusal_is_told_from_an_error_of_the_command() {
        let moved = Refusal::Moved { slot: Some(5), host: "h", port: 7 };
        assert_eq!(Refusal::of("MOVED 5 h:7"), Some(moved));
        assert_eq!(Refusal::of("ASK 5 ::1:7"), Some(Refusal::Ask { host: "::1", port: 7 }));
        assert_eq!(Refusal::of("CLUSTERDOWN The cluster is down"), Some(Refusal::ClusterDown));
        assert_eq!(Refusal::of("MASTERDOWN Link with MASTER is down"), Some(Refusal::ClusterDown));
        assert_eq!(Refusal::of("LOADING Valkey is loading"), Some(Refusal::Loading));
        assert_eq!(Refusal::of("TRYAGAIN Multiple keys"), Some(Refusal::TryAgain));
        assert_eq!(Refusal::of("READONLY You can't write"), Some(Refusal::ReadOnly));
        for other in
            ["", "OOM command not allowed", "ERR MOVED", "MOVED", "MOVED 5", "MOVED 5 h", "WRONGTYPE x"]
        {
            assert_eq!(Refusal::of(other), None, "{other}");
        }
    }

    fn refusal() -> impl Strategy<Value = Refusal<'static>> {
        prop_oneof![
            Just(Refusal::Moved { slot: None, host: "h", port: 1 }),
            Just(Refusal::Ask { host: "h", port: 1 }),
            Just(Refusal::TryAgain),
            Just(Refusal::ClusterDown),
            Just(Refusal::Loading),
            Just(Refusal::ReadOnly),
        ]
    }

    proptest! {
        #[test]
        fn pauses_grow_to_a_bound_and_only_redirects_end_a_request(
            refusals in prop::collection::vec(refusal(), 1..80),
            now in 0u64..1 << 50,
            salt in any::<u64>(),
        ) {
            let (mut refused, mut paused, mut in_a_row) = (Refused::default(), 0u32, 0);
            for refusal in &refusals {
                let redirect = matches!(refusal, Refusal::Moved { .. } | Refusal::Ask { .. });
                in_a_row = if redirect { in_a_row + 1 } else { 0 };
                match refused.again(refusal, now, salt) {
                    Next::GiveUp => prop_assert!(in_a_row >= MAX_REDIRECTS),
                    Next::Now => prop_assert!(redirect && in_a_row <= AT_ONCE),
                    Next::At(at) => {
                        let full = (PAUSE_NS << paused.min(20)).min(PAUSE_MAX_NS);
                        prop_assert!(at - now >= full / 2 && at - now <= full, "{} of {full}", at - now);
                        paused += 1;
                    }
                }
            }
        }
    }
}
