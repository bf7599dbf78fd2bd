//! Whether an answer is right: recall@k against the truth of what is alive.
//!
//! A worker builds one [`QueryJudge`] per query (and copy) when a phase is armed and scores each reply on the load
//! lane; cells of counters travel as batches; analysis turns counters per distinct query into an interval. Law: a hit
//! is a distinct, live row of the query's own copy within the first k of the filtered truth or tied with the k-th;
//! recall divides by k. Where an answer holds t rows that come or go while the phase runs, it is judged on the first
//! k - t neighbours that stay, over k - t. Distances of a file or a server never decide.

mod findable;
mod interval;

pub use findable::Findable;
pub use interval::recall_interval;

use crate::count;
use crate::ground_truth::{Measured, TruthList};
use crate::keys::KeySpace;
use findable::Standing;

/// A later entry of the list is worth an own distance when the file puts it this close to the k-th, relatively.
const NEAR_RELATIVE: f32 = 1e-3;
/// The same, absolutely: matters where the k-th distance is near zero.
const NEAR_ABSOLUTE: f32 = 1e-6;

/// What decides about the answers to one query in one population.
#[derive(Clone, Debug)]
pub struct QueryJudge {
    copy: u32,
    k: usize,
    findable: Findable,
    /// Rows that count as hits, sorted, each with the number of nearest neighbours from which on it is one. Empty when
    /// masked.
    accepted: Box<[(u64, usize)]>,
    /// Neighbours that are known and stay; no more than k are looked for.
    known: usize,
}

impl QueryJudge {
    /// Rows of the base whose own distance to the query must be known before [`QueryJudge::build`]: the k-th live
    /// neighbour and the later live ones that the file puts close to it. Empty where there is no such tie. Where rows
    /// come and go, the same of each neighbour before the k-th, any of which may become the last one that counts.
    #[must_use]
    pub fn wanted(truth: TruthList<'_>, copy: u32, k: u32, findable: impl Into<Findable>) -> Vec<u64> {
        let findable = findable.into();
        let survivors = survivors(truth, copy, &findable);
        let mut rows = Vec::new();
        for last in cutoffs(&findable, survivors.len(), k) {
            let Some((kth, near)) = near_ties(&survivors, last) else { continue };
            let near: Vec<u64> = near.map(|entry| entry.row).collect();
            if !near.is_empty() {
                rows.push(kth.row);
                rows.extend(near);
            }
        }
        if findable.moves() {
            rows.sort_unstable();
            rows.dedup();
        }
        rows
    }

    /// Filters the list by life and decides which rows count as hits.
    ///
    /// `own` gives the own distance of a row that [`QueryJudge::wanted`] named; a row it does not know is not
    /// accepted as a tie. A later entry is accepted when its distance exceeds the k-th by no more than what 32-bit
    /// arithmetic may hide in either of the two.
    #[must_use]
    pub fn build(
        truth: TruthList<'_>,
        copy: u32,
        k: u32,
        findable: impl Into<Findable>,
        mut own: impl FnMut(u64) -> Option<Measured>,
    ) -> Self {
        let findable = findable.into();
        let survivors = survivors(truth, copy, &findable);
        let most = count::index(u64::from(k));
        let known = survivors.len().min(most);
        let mut judge = Self { copy, k: most, findable, accepted: Box::default(), known };
        if known < most && !findable.moves() {
            return judge;
        }
        let first = survivors.iter().take(known);
        let mut accepted: Vec<(u64, usize)> =
            first.zip(1..).map(|(entry, place)| (entry.row, place)).collect();
        for last in cutoffs(&findable, survivors.len(), k) {
            let Some((kth, near)) = near_ties(&survivors, last) else { continue };
            let near: Vec<u64> = near.map(|entry| entry.row).collect();
            let kth = if near.is_empty() { None } else { own(kth.row) };
            if let Some(kth) = kth {
                let tied = near.into_iter().filter(|row| own(*row).is_some_and(|other| other.ties_with(kth)));
                accepted.extend(tied.map(|row| (row, last)));
            }
        }
        // Of a row that is accepted more than once the lowest number stays.
        accepted.sort_unstable();
        accepted.dedup_by_key(|(row, _)| *row);
        judge.accepted = accepted.into_boxed_slice();
        judge
    }

    /// Whether fewer than k neighbours of the list are alive, so that the truth is not known.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.known < self.k
    }

    /// Neighbours that the query asks for.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Rows that count as hits, ascending: k of them, more where the k-th place is tied, none when masked.
    #[must_use]
    pub fn accepted(&self) -> Vec<u64> {
        if self.is_masked() { Vec::new() } else { self.accepted.iter().map(|(row, _)| *row).collect() }
    }

    /// Judges one answer: the keys as returned, best first. Keys past the k-th are not looked at.
    ///
    /// Each key is one thing: a repeat of an earlier key, foreign (not a key of this plan, of another copy, or one that
    /// the query's filter excludes), dead, in transition, a hit or a plain miss.
    #[must_use]
    pub fn score(&self, hits: &[&[u8]], keys: &KeySpace) -> Verdict {
        let judged = hits.get(..self.k).unwrap_or(hits);
        let mut verdict = Verdict::default();
        let mut cells: Vec<(u32, u64)> = judged.iter().filter_map(|key| keys.parse(key)).collect();
        verdict.contamination = count::len(judged.len() - cells.len());
        let parsed = cells.len();
        cells.sort_unstable();
        cells.dedup();
        verdict.duplicates = count::len(parsed - cells.len());
        let (mut stable, mut moving) = (Vec::with_capacity(cells.len()), 0);
        for (copy, row) in cells {
            if copy != self.copy || row >= self.findable.ever.rows {
                verdict.contamination += 1;
                continue;
            }
            match self.findable.standing(copy, row) {
                Standing::Excluded => verdict.contamination += 1,
                Standing::Dead => verdict.ghosts += 1,
                Standing::Moving => moving += 1,
                Standing::Stable => stable.push(row),
            }
        }
        // Those that stay share the places that rows in transition have left.
        let places = self.k - moving;
        verdict.masked = self.known < places || places == 0;
        if !verdict.masked {
            let is_hit = |row: &&u64| {
                let at = self.accepted.binary_search_by_key(*row, |(row, _)| *row);
                at.ok().and_then(|at| self.accepted.get(at)).is_some_and(|(_, from)| *from <= places)
            };
            verdict.hits = count::len(stable.iter().filter(is_hit).count());
            verdict.possible = count::len(places);
        }
        let enough = match self.findable.selection {
            None => self.findable.stable.count() >= count::len(self.k),
            Some(_) => !self.is_masked(),
        };
        verdict.partial = judged.len() < self.k && enough;
        verdict
    }
}

/// The numbers of nearest neighbours that may be the ones that count: k, and fewer where rows come and go.
fn cutoffs(findable: &Findable, survivors: usize, k: u32) -> std::ops::RangeInclusive<usize> {
    let k = count::index(u64::from(k));
    if findable.moves() { 1..=k.min(survivors) } else { k..=k }
}

/// A live entry of a truth list.
#[derive(Clone, Copy)]
struct Entry {
    row: u64,
    file_distance: f32,
}

fn survivors(truth: TruthList<'_>, copy: u32, findable: &Findable) -> Vec<Entry> {
    let distances = truth.distances.iter().copied().chain(std::iter::repeat(f32::NAN));
    truth
        .ids
        .iter()
        .zip(distances)
        .map(|(id, file_distance)| Entry { row: u64::from(*id), file_distance })
        .filter(|entry| findable.has(copy, entry.row))
        .collect()
}

/// The k-th entry and the later ones that may tie with it. A distance that is missing from the file rules nothing out.
fn near_ties(survivors: &[Entry], k: usize) -> Option<(Entry, impl Iterator<Item = Entry> + '_)> {
    let (first, later) = survivors.split_at_checked(k)?;
    let kth = *first.last()?;
    let margin = kth.file_distance.abs() * NEAR_RELATIVE + NEAR_ABSOLUTE;
    let is_far = move |entry: &Entry| (entry.file_distance - kth.file_distance).abs() > margin;
    Some((kth, later.iter().filter(move |entry| !is_far(entry)).copied()))
}

/// What one answer was worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Keys that count as hits, at most k.
    pub hits: u64,
    /// Hits that a perfect answer has: k, less the rows in transition that it holds; 0 when masked.
    pub possible: u64,
    /// Distinct rows of the own copy that are dead.
    pub ghosts: u64,
    /// Keys that are not of the query's own copy, not of the plan at all, or excluded by the query's filter.
    pub contamination: u64,
    /// Keys that repeat an earlier one.
    pub duplicates: u64,
    /// Fewer than k results although k live cells exist.
    pub partial: bool,
    /// The truth is not known, so the answer has no recall.
    pub masked: bool,
}

/// Counters of judged answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecallCell {
    /// Answers judged, the masked ones included.
    pub queries: u64,
    /// Hits.
    pub hits: u64,
    /// Hits that perfect answers would have; recall is hits / possible.
    pub possible: u64,
    /// Dead rows returned.
    pub ghosts: u64,
    /// Keys of other copies, or foreign keys, returned.
    pub contamination: u64,
    /// Repeated keys returned.
    pub duplicates: u64,
    /// Answers with fewer than k results although k live cells exist.
    pub partial: u64,
    /// Answers whose truth is not known: they add nothing to hits and possible.
    pub masked: u64,
}

impl RecallCell {
    /// Counts one answer.
    pub fn record(&mut self, verdict: &Verdict) {
        self.queries += 1;
        if !verdict.masked {
            self.hits += verdict.hits;
            self.possible += verdict.possible;
        }
        self.ghosts += verdict.ghosts;
        self.contamination += verdict.contamination;
        self.duplicates += verdict.duplicates;
        self.partial += u64::from(verdict.partial);
        self.masked += u64::from(verdict.masked);
    }

    /// Adds the counters of another cell.
    pub fn merge(&mut self, other: &Self) {
        self.queries += other.queries;
        self.hits += other.hits;
        self.possible += other.possible;
        self.ghosts += other.ghosts;
        self.contamination += other.contamination;
        self.duplicates += other.duplicates;
        self.partial += other.partial;
        self.masked += other.masked;
    }
}

#[cfg(test)]
mod tests;
