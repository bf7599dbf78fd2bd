//! Who sends which request.
//!
//! The request numbers of a phase are split into a fixed number of shares, whatever the size of the fleet: request n
//! belongs to share `n mod SHARES`. Lanes own shares; the coordinator deals them at the start of a phase and moves
//! those of a lost worker from an announced future instant. Law: at each instant a share has exactly one owner or
//! none, and an instant that was announced never changes its owner again.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many shares a phase has.
pub const SHARES: u32 = 4096;

const BITS: u32 = u64::BITS;
const WORDS: usize = 64;

/// The share that a request belongs to.
#[must_use]
pub fn share_of(n: u64) -> u32 {
    u32::try_from(n % u64::from(SHARES)).unwrap_or(0)
}

/// Why a set or a move was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not a set of shares.
    #[error("a set of shares is written as {expected} hexadecimal digits, not as these {found} characters", expected = WORDS * 16)]
    Text {
        /// Length of the text.
        found: usize,
    },
    /// The move would change who owned a share at an instant that was announced before.
    #[error(
        "share {share} cannot move from {from_ns} ns on: its move at {announced_ns} ns is announced already; name a later instant"
    )]
    Announced {
        /// The first such share.
        share: u32,
        /// The instant asked for, nanoseconds after the start of the phase.
        from_ns: u64,
        /// The instant of its last move, nanoseconds after the start of the phase.
        announced_ns: u64,
    },
}

/// A set of shares, in order. In JSON: 1,024 hexadecimal digits, share 0 in the lowest bit of the first 16.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ShareSet([u64; WORDS]);

impl ShareSet {
    /// No share.
    #[must_use]
    pub fn empty() -> Self {
        Self([0; WORDS])
    }

    /// Every share.
    #[must_use]
    pub fn all() -> Self {
        Self([u64::MAX; WORDS])
    }

    /// What lane `lane` of `lanes` gets in the deal: share i goes to lane `i mod lanes`, so that lanes interleave in
    /// time. Lanes past the number of shares get none.
    #[must_use]
    pub fn for_lane(lane: u32, lanes: u32) -> Self {
        if lane >= lanes {
            return Self::empty();
        }
        (lane..SHARES).step_by(count_index(lanes)).collect()
    }

    fn place(share: u32) -> (usize, u64) {
        (count_index(share / BITS), 1 << (share % BITS))
    }

    /// Adds a share; one past the last is ignored.
    pub fn insert(&mut self, share: u32) {
        let (word, bit) = Self::place(share);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Whether it holds the share.
    #[must_use]
    pub fn contains(&self, share: u32) -> bool {
        let (word, bit) = Self::place(share);
        self.0.get(word).is_some_and(|w| w & bit != 0)
    }

    /// How many shares it holds.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    /// The shares, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..SHARES).filter(|share| self.contains(*share))
    }

    /// The shares of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// The shares that both have.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// The shares that `other` has not.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let mut out = self.clone();
        for (own, its) in out.0.iter_mut().zip(other.0) {
            *own = f(*own, its);
        }
        out
    }
}

fn count_index(n: u32) -> usize {
    crate::count::index(u64::from(n))
}

impl FromIterator<u32> for ShareSet {
    fn from_iter<I: IntoIterator<Item = u32>>(shares: I) -> Self {
        let mut set = Self::empty();
        for share in shares {
            set.insert(share);
        }
        set
    }
}

impl fmt::Debug for ShareSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl From<ShareSet> for String {
    fn from(set: ShareSet) -> Self {
        set.0.iter().map(|word| format!("{word:016x}")).collect()
    }
}

impl TryFrom<String> for ShareSet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        let refuse = || Error::Text { found: text.len() };
        if text.len() != WORDS * 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        let mut set = Self::empty();
        for (word, digits) in set.0.iter_mut().zip(text.as_bytes().chunks(16)) {
            let digits = std::str::from_utf8(digits).map_err(|_| refuse())?;
            *word = u64::from_str_radix(digits, 16).map_err(|_| refuse())?;
        }
        Ok(set)
    }
}

/// The shares of each of `lanes` lanes: disjoint, together all shares, sizes differ by one at most.
#[must_use]
pub fn deal(lanes: u32) -> Vec<ShareSet> {
    (0..lanes).map(|lane| ShareSet::for_lane(lane, lanes)).collect()
}

/// Shares that change their owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Which.
    pub shares: ShareSet,
    /// The lane (its position in the deal) that owns them from then on; nobody while a lost worker's shares wait.
    pub to: Option<u32>,
    /// From this instant on: what is due at it belongs to the new owner. Nanoseconds after the start of the phase.
    pub from_ns: u64,
}

/// Who owns each share at each instant of a phase: the deal, then a fold over the moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    lanes: u32,
    moves: Vec<Move>,
}

impl Ownership {
    /// As dealt to `lanes` lanes, for all instants.
    #[must_use]
    pub fn dealt(lanes: u32) -> Self {
        Self { lanes, moves: Vec::new() }
    }

    /// Applies a move. That its instant lies in the future is the caller's to see to; that it lies after the last
    /// move of each of its shares is checked here.
    ///
    /// # Errors
    /// [`Error::Announced`]; nothing has changed then.
    pub fn apply(&mut self, step: Move) -> Result<(), Error> {
        for earlier in &self.moves {
            let both = earlier.shares.intersection(&step.shares);
            if earlier.from_ns >= step.from_ns
                && let Some(share) = both.iter().next()
            {
                let (from_ns, announced_ns) = (step.from_ns, earlier.from_ns);
                return Err(Error::Announced { share, from_ns, announced_ns });
            }
        }
        self.moves.push(step);
        Ok(())
    }

    /// The lane that owns a share at an instant.
    #[must_use]
    pub fn owner_at(&self, share: u32, at_ns: u64) -> Option<u32> {
        // A share's moves are in order of time, so the last applicable one in the list decides.
        let last = self.moves.iter().rev().find(|m| m.from_ns <= at_ns && m.shares.contains(share));
        match last {
            Some(step) => step.to,
            None => share.checked_rem(self.lanes),
        }
    }

    /// The shares that a lane owns at an instant.
    #[must_use]
    pub fn owned_by(&self, lane: u32, at_ns: u64) -> ShareSet {
        (0..SHARES).filter(|share| self.owner_at(*share, at_ns) == Some(lane)).collect()
    }

    /// The shares that nobody owns at an instant: what falls due in them then is nobody's, and is counted.
    #[must_use]
    pub fn unowned_at(&self, at_ns: u64) -> ShareSet {
        (0..SHARES).filter(|share| self.owner_at(*share, at_ns).is_none()).collect()
    }

    /// The instants at which anything changes hands, ascending, each once; 0, the deal, comes first.
    #[must_use]
    pub fn instants(&self) -> Vec<u64> {
        let mut instants: Vec<u64> = std::iter::once(0).chain(self.moves.iter().map(|m| m.from_ns)).collect();
        instants.sort_unstable();
        instants.dedup();
        instants
    }
}

#[cfg(test)]
mod tests;
