use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::attributes::{Attributes, Filter};
use crate::dataset::sample;
use crate::ground_truth::{GroundTruth, measure, nearest};
use crate::live_set::LiveSet;
use crate::mix::{Mix, MixWeights};
use crate::scenario::Metric;

const K: u32 = 10;

/// The sample with everything that a worker has when it judges.
struct Setting {
    base: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    truth: GroundTruth,
    keys: KeySpace,
}

impl Setting {
    fn new() -> Self {
        Self {
            base: sample::base(),
            queries: sample::queries(),
            truth: sample::truth(),
            keys: KeySpace::new("vst:"),
        }
    }

    fn judge(&self, query: u32, copy: u32, k: u32, live: &LiveSet) -> QueryJudge {
        let list = self.truth.list(query);
        let wanted = QueryJudge::wanted(list, copy, k, live);
        QueryJudge::build(list, copy, k, live, |row| {
            wanted
                .contains(&row)
                .then(|| measure(Metric::L2, &self.queries[query as usize], &self.base[count::index(row)]))
        })
    }

    /// Keys of the exact nearest live rows, best first.
    fn exact(&self, query: u32, copy: u32, k: u32, live: &LiveSet) -> Vec<Vec<u8>> {
        let rows = (0..).zip(&self.base).filter(|(row, _)| live.is_live(copy, *row));
        nearest(Metric::L2, rows, &self.queries[query as usize], k as usize)
            .into_iter()
            .map(|(row, _)| key(&self.keys, copy, row))
            .collect()
    }
}

fn key(keys: &KeySpace, copy: u32, row: u64) -> Vec<u8> {
    let mut out = Vec::new();
    keys.write(copy, row, &mut out);
    out
}

fn score(judge: &QueryJudge, keys: &KeySpace, answer: &[Vec<u8>]) -> Verdict {
    let hits: Vec<&[u8]> = answer.iter().map(Vec::as_slice).collect();
    judge.score(&hits, keys)
}

fn perfect(k: u32) -> Verdict {
    Verdict { hits: u64::from(k), possible: u64::from(k), ..Verdict::default() }
}

/// A population, a list of neighbours 0, 1, 2, ... at distances 0, 1, 2, ... and a judge for it.
fn synthetic(rows: u64, copies: u32, copy: u32, share: f64, k: u32) -> (LiveSet, QueryJudge) {
    let live = LiveSet::empty(11, rows, copies).keep(share);
    let ids: Vec<u32> = (0..100).collect();
    let distances: Vec<f32> = ids.iter().map(|id| f32::from(u16::try_from(*id).unwrap())).collect();
    let list = TruthList { ids: &ids, distances: &distances };
    (live, QueryJudge::build(list, copy, k, &live, |_| None))
}

#[test]
fn exact_answers_score_one_before_and_after_deletes() {
    let setting = Setting::new();
    for share in [1.0, 0.5, 0.2] {
        let live = LiveSet::empty(3, 10_000, 1).keep(share);
        for query in 0..setting.truth.queries {
            let judge = setting.judge(query, 0, K, &live);
            assert!(!judge.is_masked(), "share {share}, query {query}");
            assert_eq!(score(&judge, &setting.keys, &setting.exact(query, 0, K, &live)), perfect(K));
        }
    }
}

/// The filtered list is the truth of what is left: brute force over the live rows finds the same set of distances, and
/// accepts nothing that is farther.
#[test]
fn filtered_truth_is_brute_force_over_the_live() {
    let setting = Setting::new();
    let live = LiveSet::empty(9, 10_000, 1).keep(0.5);
    let mut masked = 0;
    for (query, vector) in (0..).zip(&setting.queries) {
        // 45 of about 50 survivors: some queries are masked, most are not.
        let judge = setting.judge(query, 0, 45, &live);
        if judge.is_masked() {
            masked += 1;
            assert!(judge.accepted().is_empty());
            continue;
        }
        let rows = (0..).zip(&setting.base).filter(|(row, _)| live.is_live(0, *row));
        let exact = nearest(Metric::L2, rows, vector, 100);
        let kth = exact[44].1;
        let wanted: BTreeSet<u64> = exact.iter().filter(|(_, d)| *d <= kth).map(|(row, _)| *row).collect();
        let accepted: BTreeSet<u64> = judge.accepted().into_iter().collect();
        assert_eq!(accepted, wanted, "query {query}");
    }
    assert!((1..50).contains(&masked), "{masked}");
}

#[test]
fn deleted_rows_are_ghosts() {
    let setting = Setting::new();
    let (before, after) = (LiveSet::empty(3, 10_000, 1).full(), LiveSet::empty(3, 10_000, 1).keep(0.5));
    for query in 0..setting.truth.queries {
        let stale = setting.exact(query, 0, K, &before);
        let dead =
            setting.truth.ids(query).iter().take(10).filter(|id| !after.is_live(0, u64::from(**id))).count();
        let verdict = score(&setting.judge(query, 0, K, &after), &setting.keys, &stale);
        assert_eq!(
            (verdict.ghosts, verdict.hits),
            (count::len(dead), 10 - count::len(dead)),
            "query {query}"
        );
    }
}

#[test]
fn repeats_other_copies_and_foreign_keys_do_not_score() {
    let (live, judge) = synthetic(1_000, 3, 1, 1.0, 4);
    assert!(live.is_live(2, 0));
    let keys = KeySpace::new("vst:");
    let answer = |parts: &[(u32, u64)]| parts.iter().map(|(c, r)| key(&keys, *c, *r)).collect::<Vec<_>>();
    let own = score(&judge, &keys, &answer(&[(1, 0), (1, 1), (1, 2), (1, 3)]));
    assert_eq!(own, perfect(4));
    let repeated = score(&judge, &keys, &answer(&[(1, 0), (1, 0), (1, 0), (1, 3)]));
    assert_eq!(repeated, Verdict { hits: 2, duplicates: 2, ..perfect(4) });
    let others = score(&judge, &keys, &answer(&[(0, 0), (2, 1), (1, 2), (1, 1_000)]));
    assert_eq!(others, Verdict { hits: 1, contamination: 3, ..perfect(4) });
    let foreign =
        score(&judge, &keys, &[b"vst:x".to_vec(), Vec::new(), b"000000000001".to_vec(), key(&keys, 1, 50)]);
    assert_eq!(foreign, Verdict { hits: 0, contamination: 3, ..perfect(4) });
    let surplus = score(&judge, &keys, &answer(&[(1, 50), (1, 51), (1, 52), (1, 53), (1, 0)]));
    assert_eq!(surplus, Verdict { hits: 0, ..perfect(4) });
}

#[test]
fn short_answers_are_partial_only_where_more_could_be_found() {
    let keys = KeySpace::new("vst:");
    let (_, judge) = synthetic(1_000, 1, 0, 1.0, 4);
    let short = score(&judge, &keys, &[key(&keys, 0, 0)]);
    assert_eq!(short, Verdict { hits: 1, partial: true, ..perfect(4) });
    let (live, judge) = synthetic(1_000, 1, 0, 0.003, 4);
    assert_eq!((live.count(), judge.is_masked()), (3, true));
    assert_eq!(score(&judge, &keys, &[]), Verdict { masked: true, ..Verdict::default() });
}

/// Rows 3 and 4 are both at the k-th distance by own arithmetic; 5 is farther although the file says the same of it;
/// 6 is near enough by own arithmetic, but the file puts it far away, so it is never looked at.
#[test]
fn ties_are_accepted_by_own_distance_alone() {
    let ids = [0, 1, 2, 3, 4, 5, 6];
    let distances = [1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 9.0];
    let list = TruthList { ids: &ids, distances: &distances };
    let live = LiveSet::empty(0, 10, 1).full();
    assert_eq!(QueryJudge::wanted(list, 0, 4, &live), [3, 4, 5]);
    assert!(QueryJudge::wanted(list, 0, 2, &live).is_empty());
    assert!(QueryJudge::wanted(list, 0, 7, &live).is_empty());
    assert!(QueryJudge::wanted(list, 0, 8, &live).is_empty());
    let own = |row| Measured {
        distance: if row == 5 { 4.01 } else { 4.0 + 1e-7 * f64::from(row == 4) },
        f32_error: 1e-6,
    };
    let judge = QueryJudge::build(list, 0, 4, &live, |row| Some(own(u32::try_from(row).unwrap())));
    assert_eq!(judge.accepted(), [0, 1, 2, 3, 4]);
    let unknown = QueryJudge::build(list, 0, 4, &live, |_| None);
    assert_eq!(unknown.accepted(), [0, 1, 2, 3]);
    // Never more than k hits.
    let keys = KeySpace::new("");
    let answer: Vec<_> = [0, 1, 2, 3, 4].iter().map(|row| key(&keys, 0, *row)).collect();
    assert_eq!(score(&judge, &keys, &answer), perfect(4));
    assert_eq!(score(&judge, &keys, &answer[1..]), perfect(4));
}

#[test]
fn a_file_without_usable_distances_still_finds_ties() {
    let ids = [0, 1, 2, 3];
    let live = LiveSet::empty(0, 10, 1).full();
    for distances in [&[][..], &[f32::NAN; 4][..]] {
        let list = TruthList { ids: &ids, distances };
        assert_eq!(QueryJudge::wanted(list, 0, 2, &live), [1, 2, 3]);
    }
}

#[test]
fn masked_answers_add_nothing_to_recall() {
    let mut cell = RecallCell::default();
    cell.record(&Verdict { hits: 9, possible: 10, ..Verdict::default() });
    cell.record(&Verdict {
        hits: 3,
        possible: 10,
        ghosts: 2,
        masked: true,
        partial: true,
        ..Verdict::default()
    });
    let wanted = RecallCell {
        queries: 2,
        hits: 9,
        possible: 10,
        ghosts: 2,
        partial: 1,
        masked: 1,
        ..RecallCell::default()
    };
    assert_eq!(cell, wanted);
}

fn verdicts() -> impl Strategy<Value = Vec<Verdict>> {
    let one = (0_u64..=10, 0_u64..5, 0_u64..5, 0_u64..5, any::<bool>(), any::<bool>()).prop_map(
        |(hits, ghosts, contamination, duplicates, partial, masked)| Verdict {
            hits,
            possible: 10,
            ghosts,
            contamination,
            duplicates,
            partial,
            masked,
        },
    );
    prop::collection::vec(one, 0..20)
}

proptest! {
    #[test]
    fn merging_cells_equals_recording_all(a in verdicts(), b in verdicts()) {
        let record = |verdicts: &[Verdict]| {
            let mut cell = RecallCell::default();
            verdicts.iter().for_each(|v| cell.record(v));
            cell
        };
        let mut merged = record(&a);
        merged.merge(&record(&b));
        prop_assert_eq!(merged, record(&[a, b].concat()));
    }

    /// Whatever a server answers: every judged key is one thing, there are at most k hits, and a hit is alive and ours.
    #[test]
    fn every_key_is_one_thing(
        answer in prop::collection::vec((0_u32..3, 0_u64..130, any::<bool>()), 0..30),
        copy in 0_u32..2, k in 1_u32..20, share in 0.0_f64..=1.0,
    ) {
        let keys = KeySpace::new("p{x}:");
        let (live, judge) = synthetic(120, 2, copy, share, k);
        let answer: Vec<Vec<u8>> = answer
            .iter()
            .map(|(c, r, own)| if *own { key(&keys, *c, *r) } else { format!("q:{r}").into_bytes() })
            .collect();
        let verdict = score(&judge, &keys, &answer);
        let judged: Vec<&Vec<u8>> = answer.iter().take(k as usize).collect();
        let good: BTreeSet<u64> = judged
            .iter()
            .filter_map(|a| keys.parse(a))
            .filter(|(c, r)| *c == copy && live.is_live(*c, *r) && judge.accepted().contains(r))
            .map(|(_, r)| r)
            .collect();
        prop_assert_eq!(verdict.hits, count::len(good.len()));
        prop_assert!(verdict.hits <= u64::from(k));
        let bad = verdict.ghosts + verdict.contamination + verdict.duplicates;
        prop_assert!(verdict.hits + bad <= count::len(judged.len()));
        prop_assert_eq!(verdict.masked, (0..100).filter(|r| live.is_live(copy, *r)).count() < k as usize);
        prop_assert_eq!(verdict.partial, answer.len() < k as usize && live.count() >= u64::from(k));
    }
}

/// While rows come and go, the exact answer at any instant is perfect: the places that rows in transition take are not
/// asked for, and the others must hold the nearest that stay.
#[test]
fn the_exact_answer_of_any_instant_is_perfect_and_a_worse_one_is_not() {
    let setting = Setting::new();
    let before = LiveSet::empty(5, 10_000, 1).keep(0.6);
    let weights = MixWeights { query: 2, ingest: 1, delete: 1, update: 0 };
    let plan = Mix::new(weights, 8_000, before);
    assert!(plan.fits());
    let findable = Findable { stable: plan.stable(), ever: plan.ever(), selection: None };
    let mut moved = 0;
    for (query, vector) in (0..).zip(&setting.queries) {
        let list = setting.truth.list(query);
        let wanted = QueryJudge::wanted(list, 0, K, findable);
        let own = |row| {
            wanted.contains(&row).then(|| measure(Metric::L2, vector, &setting.base[count::index(row)]))
        };
        let judge = QueryJudge::build(list, 0, K, findable, own);
        // Some requests have ended, whichever: deletes of some, inserts of others.
        for instant in 0..4_u64 {
            let lives = |row: u64| {
                plan.stable().is_live(0, row)
                    || (plan.ever().is_live(0, row) && crate::seed::mix(row ^ instant) % 4 < instant)
            };
            let rows = (0..).zip(&setting.base).filter(|(row, _)| lives(*row));
            let exact = nearest(Metric::L2, rows, vector, 11);
            let answer: Vec<Vec<u8>> =
                exact.iter().take(10).map(|(row, _)| key(&setting.keys, 0, *row)).collect();
            let in_transition =
                exact.iter().take(10).filter(|(row, _)| !plan.stable().is_live(0, *row)).count();
            moved += in_transition;
            let verdict = score(&judge, &setting.keys, &answer);
            assert_eq!((verdict.ghosts, verdict.contamination, verdict.duplicates), (0, 0, 0));
            if !verdict.masked {
                let possible = 10 - count::len(in_transition);
                assert_eq!(
                    (verdict.hits, verdict.possible),
                    (possible, possible),
                    "query {query} at {instant}"
                );
            }
            // Without its nearest row that stays it is worse, unless the next one is as near.
            let Some(best) = exact.iter().position(|(row, _)| plan.stable().is_live(0, *row)) else {
                continue;
            };
            let (gap, next) = (exact[best].1, exact[10]);
            if best < 10 && next.1 > gap && plan.stable().is_live(0, next.0) && !verdict.masked {
                let mut worse = answer.clone();
                worse[best] = key(&setting.keys, 0, next.0);
                let kth = exact[..10].iter().rev().find(|(row, _)| plan.stable().is_live(0, *row)).unwrap().1;
                if next.1 > kth {
                    let worse = score(&judge, &setting.keys, &worse);
                    assert_eq!(worse.hits + 1, worse.possible, "query {query} at {instant}");
                }
            }
        }
    }
    assert!(moved > 500, "{moved}");
}

#[test]
fn an_answer_that_ignores_the_filter_or_names_what_was_never_alive_does_not_score() {
    let setting = Setting::new();
    let attributes = Attributes::for_filters(5, 10_000, [Filter::Tag(0.5)]);
    let selection = attributes.selection(Filter::Tag(0.5));
    let live = LiveSet::empty(3, 10_000, 1).keep(0.9);
    let findable = Findable { selection: Some(selection), ..Findable::from(&live) };
    for (query, vector) in (0..).zip(&setting.queries) {
        let list = setting.truth.list(query);
        let wanted = QueryJudge::wanted(list, 0, K, findable);
        let own = |row| {
            wanted.contains(&row).then(|| measure(Metric::L2, vector, &setting.base[count::index(row)]))
        };
        let judge = QueryJudge::build(list, 0, K, findable, own);
        assert!(!judge.is_masked());
        let answer = |takes: &dyn Fn(u64) -> bool| -> Vec<Vec<u8>> {
            let rows = (0..).zip(&setting.base).filter(|(row, _)| takes(*row));
            let found = nearest(Metric::L2, rows, vector, 10);
            found.into_iter().map(|(row, _)| key(&setting.keys, 0, row)).collect()
        };
        let right = answer(&|row| selection.takes(row) && live.is_live(0, row));
        assert_eq!(score(&judge, &setting.keys, &right), perfect(K));
        let unfiltered = score(&judge, &setting.keys, &answer(&|row| live.is_live(0, row)));
        assert_eq!(unfiltered.hits + unfiltered.contamination, 10);
        let dead = score(&judge, &setting.keys, &answer(&|row| selection.takes(row)));
        assert_eq!(dead.hits + dead.ghosts, 10);
        let short = score(&judge, &setting.keys, &right[..9]);
        assert!(short.partial && short.hits == 9);
    }
}
