//! Where the coordinator is: one of a list, or whom etcd names.
//!
//! Asked by `serve` before each call. A list is gone through, one address further after each call that came to nothing;
//! etcd is followed, so that a new leader is known as soon as it has said so. Law: a worker that is registered for a
//! run looks only for that run's leader.

use vst_common::ids::RunId;
use vst_etcd::{Fleet, Leaders};

/// Who can say where the coordinator is.
#[derive(Clone, Debug)]
pub enum Coordinators {
    /// `host:port` of each that may lead, at least one.
    Listed(Vec<String>),
    /// The registrations of a fleet.
    Etcd(Fleet),
}

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `host:port`.
    pub(super) address: String,
    /// Its version, where it is known before it is called.
    pub(super) version: Option<String>,
}

/// Where to look.
pub(super) enum Whereabouts {
    Listed { all: Vec<String>, at: usize },
    Followed(Leaders),
}

impl Whereabouts {
    pub(super) async fn open(coordinators: &Coordinators) -> Result<Self, vst_etcd::Error> {
        Ok(match coordinators {
            Coordinators::Listed(all) => Self::Listed { all: all.clone(), at: 0 },
            Coordinators::Etcd(fleet) => Self::Followed(fleet.leaders_followed().await?),
        })
    }

    /// Whom to call now; `None` while nobody leads.
    pub(super) fn current(&self, run: Option<&RunId>) -> Option<Place> {
        match self {
            Self::Listed { all, at } => {
                let at = at.checked_rem(all.len())?;
                all.get(at).map(|address| Place { address: address.clone(), version: None })
            }
            Self::Followed(leaders) => {
                let leader = leaders.current(run)?;
                Some(Place { address: leader.address, version: Some(leader.version) })
            }
        }
    }

    /// A call came to nothing.
    pub(super) fn failed(&mut self) {
        if let Self::Listed { at, .. } = self {
            *at = at.saturating_add(1);
        }
    }

    /// Waits until somebody else may have to be called.
    pub(super) async fn changed(&mut self) {
        match self {
            Self::Listed { .. } => std::future::pending().await,
            Self::Followed(leaders) => leaders.changed().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_gone_through_and_begins_anew() {
        let all = vec![String::from("a:1"), String::from("b:2")];
        let mut whereabouts = Whereabouts::Listed { all, at: 0 };
        let mut called = Vec::new();
        for _ in 0..3 {
            called.extend(whereabouts.current(None).map(|place| place.address));
            whereabouts.failed();
        }
        assert_eq!(called, ["a:1", "b:2", "a:1"]);
        assert_eq!(Whereabouts::Listed { all: Vec::new(), at: 0 }.current(None), None);
    }
}
