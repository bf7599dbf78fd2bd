//! One lane's part of a schedule, in order of time.
//!
//! The pacer of a load lane takes from it on the hot path. Evenly spaced arrivals cost one step along the owned
//! shares; random ones a heap of the owned shares' next arrivals. Shares come and go at announced instants: what is
//! due before such an instant belongs to the shares held until then, what is due at it or later to the new ones.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::{Error, PoissonShare, Schedule};
use crate::shares::{SHARES, ShareSet, share_of};

/// The requests of a lane: (number, due in nanoseconds after the start of the phase), due ascending.
#[derive(Debug)]
pub struct DueIter {
    schedule: Schedule,
    walk: Walk,
    /// What comes next; the walk stands on it.
    next: Option<(u64, u64)>,
    /// Due instant of the last request that was taken, or the last change that was announced, if that is later.
    decided_ns: Option<u64>,
    /// The shares after all announced changes.
    shares: ShareSet,
    changes: VecDeque<Change>,
}

/// From this instant on the lane owns these shares.
#[derive(Debug)]
struct Change {
    from_ns: u64,
    shares: ShareSet,
    /// Random arrivals of the shares that are new, from that instant on, drawn when the change was announced: the
    /// lane must not stand still at the instant itself.
    arriving: Vec<Pending>,
}

/// A share's next arrival and what follows it.
#[derive(Debug)]
struct Pending {
    due_ns: u64,
    n: u64,
    rest: PoissonShare,
}

#[derive(Debug)]
enum Walk {
    /// Every number of the owned shares in turn: `round * SHARES + owned[place]`.
    Even { owned: Vec<u32>, round: u64, place: usize },
    /// The owned shares' next arrivals, earliest first: (due, number, which of `shares`).
    Random { next: BinaryHeap<Reverse<(u64, u64, usize)>>, shares: Vec<PoissonShare> },
}

impl DueIter {
    /// The requests of `schedule` that belong to `shares`.
    #[must_use]
    pub fn new(schedule: Schedule, shares: &ShareSet) -> Self {
        let walk = if schedule.random.is_some() {
            Walk::random(arrivals_from(&schedule, shares, 0))
        } else {
            Walk::even(&schedule, shares, 0)
        };
        let (shares, changes) = (shares.clone(), VecDeque::new());
        let mut due = Self { schedule, walk, next: None, decided_ns: None, shares, changes };
        due.next = due.stand();
        due
    }

    /// The next request, without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<(u64, u64)> {
        self.next
    }

    /// From `from_ns` on (after the start of the phase) the lane owns `shares` and no others. To be called ahead of
    /// time: random arrivals of a new share are drawn from the start of the phase, here and now.
    ///
    /// # Errors
    /// [`Error::Decided`] if a request due at or after that instant was taken, or if it is not later than a change
    /// that was announced; nothing has changed then.
    pub fn change(&mut self, from_ns: u64, shares: &ShareSet) -> Result<(), Error> {
        if let Some(decided_ns) = self.decided_ns.filter(|decided| *decided >= from_ns) {
            return Err(Error::Decided { from_ns, decided_ns });
        }
        self.decided_ns = Some(from_ns);
        let arriving = if self.schedule.random.is_some() {
            arrivals_from(&self.schedule, &shares.difference(&self.shares), from_ns)
        } else {
            Vec::new()
        };
        self.changes.push_back(Change { from_ns, shares: shares.clone(), arriving });
        self.shares = shares.clone();
        self.next = self.stand();
        Ok(())
    }

    /// What the walk stands on, after the changes that come before it.
    fn stand(&mut self) -> Option<(u64, u64)> {
        loop {
            let next = self.walk.current(&self.schedule);
            let over = |c: &mut Change| next.is_none_or(|(_, due_ns)| due_ns >= c.from_ns);
            match self.changes.pop_front_if(over) {
                Some(change) => self.walk.turn(&self.schedule, change),
                None => return next,
            }
        }
    }
}

impl Iterator for DueIter {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let taken = self.next?;
        self.decided_ns = self.decided_ns.max(Some(taken.1));
        self.walk.step();
        self.next = self.stand();
        Some(taken)
    }
}

/// The arrivals of these shares at or after an instant.
fn arrivals_from(schedule: &Schedule, shares: &ShareSet, from_ns: u64) -> Vec<Pending> {
    let first = |share| {
        let mut rest = schedule.arrivals(share)?;
        let (n, due_ns) = rest.find(|(_, due_ns)| *due_ns >= from_ns)?;
        Some(Pending { due_ns, n, rest })
    };
    shares.iter().filter_map(first).collect()
}

impl Walk {
    /// Along the shares, from the first number that is due at or after an instant.
    fn even(schedule: &Schedule, shares: &ShareSet, from_ns: u64) -> Self {
        let owned: Vec<u32> = shares.iter().collect();
        let first = schedule.due_before(from_ns);
        let (round, place) = (first / u64::from(SHARES), owned.partition_point(|s| *s < share_of(first)));
        // Past the last owned share the next round begins.
        let (round, place) = if place < owned.len() { (round, place) } else { (round + 1, 0) };
        Self::Even { owned, round, place }
    }

    fn random(pending: Vec<Pending>) -> Self {
        let next = pending.iter().enumerate().map(|(i, p)| Reverse((p.due_ns, p.n, i))).collect();
        Self::Random { next, shares: pending.into_iter().map(|p| p.rest).collect() }
    }

    fn current(&self, schedule: &Schedule) -> Option<(u64, u64)> {
        match self {
            Self::Even { owned, round, place } => {
                let n = round.checked_mul(u64::from(SHARES))?.checked_add(u64::from(*owned.get(*place)?))?;
                Some((n, schedule.due_ns(n)?))
            }
            Self::Random { next, .. } => next.peek().map(|Reverse((due_ns, n, _))| (*n, *due_ns)),
        }
    }

    fn step(&mut self) {
        match self {
            Self::Even { owned, round, place } => {
                *place += 1;
                if *place == owned.len() {
                    *place = 0;
                    *round += 1;
                }
            }
            Self::Random { next, shares } => {
                if let Some(mut top) = next.peek_mut() {
                    let which = top.0.2;
                    match shares.get_mut(which).and_then(Iterator::next) {
                        Some((n, due_ns)) => *top = Reverse((due_ns, n, which)),
                        None => {
                            std::collections::binary_heap::PeekMut::pop(top);
                        }
                    }
                }
            }
        }
    }

    fn turn(&mut self, schedule: &Schedule, change: Change) {
        *self = match self {
            Self::Even { .. } => Self::even(schedule, &change.shares, change.from_ns),
            Self::Random { next, shares } => {
                let kept = next.drain().filter(|Reverse((_, n, _))| change.shares.contains(share_of(*n)));
                let mut pending: Vec<Pending> = kept
                    .filter_map(|Reverse((due_ns, n, which))| {
                        shares.get(which).map(|rest| Pending { due_ns, n, rest: rest.clone() })
                    })
                    .collect();
                pending.extend(change.arriving);
                Self::random(pending)
            }
        };
    }
}
