//! The laws of content.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::template::Template;
use super::*;
use crate::phase::CommandWork;
use crate::resp::Frame;
use crate::scenario::{CommandSpec, ContentKind, KeyDistribution, KeyspaceSpec, SizeSpec, ValueSpec};
use crate::seed::Draw;
use crate::shares::{SHARES, ShareSet};

fn work(templates: &[(&str, u32)], keys: KeyDistribution, keyspace: KeyspaceSpec) -> CommandWork {
    let commands = templates.iter().enumerate().map(|(i, (template, weight))| CommandSpec {
        name: format!("c{i}"),
        template: (*template).to_owned(),
        weight: *weight,
        space: None,
    });
    let values = ValueSpec { size: SizeSpec::Uniform { min: 1, max: 40 }, ..ValueSpec::default() };
    CommandWork { prefix: "p:".into(), keyspace, commands: commands.collect(), keys, values }
}

fn mixed() -> CommandWork {
    let templates = [
        ("GET {key}", 7),
        ("SET {key sequential} {value}", 2),
        ("HSET {key hot 90% 10%} v {vector 4} price {int 1 1000}", 1),
        ("MSET {pairs 3}", 1),
    ];
    work(&templates, KeyDistribution::Zipf { s: 1.1 }, KeyspaceSpec { keys: 300, elements: 4, group: 7 })
}

fn bytes(commands: &Commands, n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    commands.encode(n, &mut Scratch::default(), &mut out);
    out
}

fn args(command: &[u8]) -> Vec<Vec<u8>> {
    let frame = Frame::parse(command).unwrap();
    frame.as_array().unwrap().iter().map(|arg| arg.as_bytes().unwrap().to_vec()).collect()
}

fn distribution() -> impl Strategy<Value = KeyDistribution> {
    prop_oneof![
        Just(KeyDistribution::Sequential),
        Just(KeyDistribution::Uniform),
        (0.01f64..4.0).prop_map(|s| KeyDistribution::Zipf { s }),
        (0.01f64..1.0, 0.01f64..1.0).prop_map(|(requests, keys)| KeyDistribution::HotSet { requests, keys }),
        (0.01f64..4.0).prop_map(|s| KeyDistribution::Latest { s }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_multiset_of_commands_is_the_same_for_any_fleet_and_any_hand_over(
        seed: u64, lanes in 1u32..40, other in 1u32..40, rounds in 1u64..3, change in any::<prop::sample::Index>(),
    ) {
        let total = rounds * u64::from(SHARES);
        let alone = Commands::new(&mixed(), seed, 3).unwrap();
        let mut expected: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for n in 0..total {
            *expected.entry(bytes(&alone, n)).or_default() += 1;
        }
        // Each lane compiles for itself and sends its shares in its own order; from `moved` on others own them.
        let moved = change.index(usize::try_from(total).unwrap()) as u64;
        let mut sent: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for (fleet, from, until) in [(lanes, 0, moved), (other, moved, total)] {
            for lane in 0..fleet {
                let own = Commands::new(&mixed(), seed, 3).unwrap();
                let shares = ShareSet::for_lane(lane, fleet);
                for share in shares.iter() {
                    let all = (u64::from(share)..total).step_by(SHARES as usize);
                    for n in all.filter(|n| (from..until).contains(n)) {
                        *sent.entry(bytes(&own, n)).or_default() += 1;
                    }
                }
            }
        }
        prop_assert_eq!(expected, sent);
    }

    #[test]
    fn every_whole_round_holds_each_operation_as_often_as_its_weight_says(
        weights in prop::collection::vec(1u32..12, 1..6), factor in 1u32..4, seed: u64, start in 0u64..1000,
    ) {
        let scaled: Vec<u32> = weights.iter().map(|w| w * factor).collect();
        let pattern = Pattern::new(&scaled, seed, 1);
        let length = Pattern::length_of(&scaled);
        for (operation, weight) in scaled.iter().enumerate() {
            let share = u64::from(*weight) * length / scaled.iter().map(|w| u64::from(*w)).sum::<u64>();
            prop_assert_eq!(pattern.before(operation, 5 * length), 5 * share);
            // Ranks count up by one at each of its requests and at no other.
            for n in start..start + 2 * length {
                let own = pattern.operation(n) == operation;
                prop_assert_eq!(pattern.before(operation, n + 1) - pattern.before(operation, n), u64::from(own));
            }
        }
    }

    #[test]
    fn every_key_is_one_of_the_plan_and_the_slot_is_that_of_the_key(
        distribution in distribution(), keys in 1u64..500, group in 1u32..20, seed: u64, n in 0u64..1_000_000,
    ) {
        let keyspace = KeyspaceSpec { keys, elements: 3, group };
        let commands = Commands::new(&work(&[("MGET {keys 4}", 1)], distribution, keyspace.clone()), seed, 1).unwrap();
        let names = KeyNames::new("p:", "string", &keyspace);
        let planned: Vec<Vec<u8>> = (0..keys)
            .map(|key| {
                let mut name = Vec::new();
                names.write(key, &mut name);
                name
            })
            .collect();
        let args = args(&bytes(&commands, n));
        let slot = commands.slot(n, &mut Scratch::default());
        prop_assert_eq!(args.len(), 5);
        for key in &args[1..] {
            prop_assert!(planned.contains(key), "{}", String::from_utf8_lossy(key));
            if group > 1 {
                prop_assert_eq!(Some(crate::keys::slot(key)), slot);
            }
        }
        prop_assert_eq!(Some(crate::keys::slot(&args[1])), slot);
    }

    #[test]
    fn a_key_is_read_back_from_its_name_and_from_no_other(
        keys in 1u64..2_000_000, group in 1u32..40, key: u64, damage in 0usize..40, byte: u8,
    ) {
        let names = KeyNames::new("p:", "hash", &KeyspaceSpec { keys, elements: 1, group });
        let key = key % keys;
        let mut name = Vec::new();
        names.write(key, &mut name);
        prop_assert_eq!(names.parse(&name), Some(key));
        let at = damage % name.len();
        let mut other = name.clone();
        other[at] = byte;
        if let Some(read) = names.parse(&other) {
            let mut again = Vec::new();
            names.write(read, &mut again);
            prop_assert_eq!(again, other);
        }
        name.push(b'0');
        prop_assert_eq!(names.parse(&name), None);
    }

    #[test]
    fn sequential_requests_write_every_key_equally_often(keys in 1u64..400, rounds in 1u64..4, seed: u64) {
        let keyspace = KeyspaceSpec { keys, elements: 3, group: 1 };
        let work = work(&[("SET {key} x", 1), ("LPUSH {key} x", 1)], KeyDistribution::Sequential, keyspace);
        let commands = Commands::new(&work, seed, 1).unwrap();
        let mut seen: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for n in 0..2 * keys * rounds {
            *seen.entry(args(&bytes(&commands, n))[1].clone()).or_default() += 1;
        }
        prop_assert_eq!(seen.len() as u64, 2 * keys);
        prop_assert!(seen.values().all(|times| *times == rounds));
    }

    #[test]
    fn a_value_has_exactly_the_drawn_length_and_is_never_one_constant_byte(
        kind in kind(), length in 0usize..3000, part in prop::option::of(0.0f64..0.95), seed: u64,
    ) {
        let size = SizeSpec::Fixed(u32::try_from(length).unwrap());
        let maker = ValueMaker::new(&ValueSpec { size, content: kind, compressibility: part });
        let mut value = Vec::new();
        maker.write(&mut Draw::new(seed, 1, 1), &mut value);
        prop_assert_eq!(value.len(), length);
        if length >= 24 {
            let mut distinct = value.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert!(distinct.len() >= 3, "{distinct:?}");
        }
        if kind == ContentKind::Json && length > 0 {
            let text = std::str::from_utf8(&value).unwrap();
            prop_assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
        if kind == ContentKind::Numeric && (1..=18).contains(&length) {
            prop_assert!(std::str::from_utf8(&value).unwrap().parse::<u64>().is_ok());
        }
    }

    #[test]
    fn zstd_takes_away_the_wanted_part(kind in kind(), above in 0.0f64..1.0, seed: u64, length in 4096u32..40_000) {
        let least = least_compressibility(kind);
        let wanted = least + above * (0.9 - least);
        for (compressibility, wanted) in [(Some(wanted), wanted), (None, least)] {
            let spec = ValueSpec { size: SizeSpec::Fixed(length), content: kind, compressibility };
            let mut value = Vec::new();
            ValueMaker::new(&spec).write(&mut Draw::new(seed, 1, 2), &mut value);
            let left = zstd::bulk::compress(&value, 3).unwrap().len() as f64 / value.len() as f64;
            prop_assert!((1.0 - left - wanted).abs() < 0.1, "{kind:?}: wanted {wanted}, got {}", 1.0 - left);
        }
    }

    #[test]
    fn the_template_reader_never_fails_without_a_place_in_the_text(text in ".{0,60}") {
        if let Err(fault) = Template::parse(&text) {
            prop_assert!(fault.span.start <= fault.span.end && fault.span.end <= text.len());
        }
    }

    #[test]
    fn zipf_numbers_have_zipfs_probabilities(s in 0.2f64..3.0, seed: u64) {
        let ranks = 50_u64;
        let zipf = Zipf::new(ranks, s);
        let weights: Vec<f64> = (1..=ranks).map(|r| (r as f64).powf(-s)).collect();
        let sum: f64 = weights.iter().sum();
        let mut seen = vec![0.0; 50];
        let draws = 40_000;
        for n in 0..draws {
            let rank = zipf.draw(&mut Draw::new(seed, 1, n));
            seen[usize::try_from(rank - 1).unwrap()] += 1.0;
        }
        // Chi-square over the ranks that are expected often enough: mean about their number, deviation sqrt(2 n).
        let mut chi = 0.0;
        let mut bins = 0.0;
        for (seen, weight) in seen.iter().zip(&weights) {
            let expected = draws as f64 * weight / sum;
            if expected >= 8.0 {
                chi += (seen - expected) * (seen - expected) / expected;
                bins += 1.0;
            }
        }
        prop_assert!(chi < bins + 7.0 * (2.0_f64 * bins).sqrt(), "s {s}: chi-square {chi} over {bins}");
    }
}

/// The table of what fresh content leaves is what zstd leaves of it.
#[test]
fn what_zstd_leaves_of_fresh_content_is_what_the_table_says() {
    let kinds = [
        ContentKind::Random,
        ContentKind::Text,
        ContentKind::Json,
        ContentKind::Session,
        ContentKind::Numeric,
    ];
    let measured = kinds.map(|content| {
        let spec = ValueSpec { size: SizeSpec::Fixed(1 << 14), content, compressibility: None };
        let maker = ValueMaker::new(&spec);
        let (mut before, mut after) = (0, 0);
        for n in 0..16 {
            let mut value = Vec::new();
            maker.write(&mut Draw::new(5, 1, n), &mut value);
            after += zstd::bulk::compress(&value, 3).unwrap().len();
            before += value.len();
        }
        after as f64 / before as f64
    });
    let near =
        |(kind, measured): (ContentKind, f64)| (1.0 - least_compressibility(kind) - measured).abs() < 0.01;
    assert!(kinds.into_iter().zip(measured).all(near), "measured {measured:.3?} for {kinds:?}");
}

fn kind() -> impl Strategy<Value = ContentKind> {
    proptest::sample::select(vec![
        ContentKind::Random,
        ContentKind::Text,
        ContentKind::Json,
        ContentKind::Session,
        ContentKind::Numeric,
    ])
}

#[test]
fn a_hot_set_takes_its_share_of_requests() {
    let chooser = KeyChooser::new(KeyDistribution::HotSet { requests: 0.9, keys: 0.1 }, 1000);
    let hot = (0..20_000).filter(|n| chooser.choose(&mut Draw::new(1, 1, *n), || 0, || 0) < 100).count();
    assert!((17_700..18_300).contains(&hot), "{hot}");
}

#[test]
fn latest_prefers_what_was_written_last() {
    let chooser = KeyChooser::new(KeyDistribution::Latest { s: 1.5 }, 1000);
    let mut at_newest = 0;
    for n in 0..1000 {
        let key = chooser.choose(&mut Draw::new(1, 1, n), || 0, || 501);
        at_newest += u32::from(key == 500);
    }
    // The first of 1,000 ranks with exponent 1.5 has 39 % of the weight.
    assert!((330..460).contains(&at_newest), "{at_newest}");
}

#[test]
fn sizes_follow_their_distribution() {
    let median = |size: SizeSpec| {
        let maker = ValueMaker::new(&ValueSpec { size, ..ValueSpec::default() });
        let mut all: Vec<usize> = (0..4001).map(|n| maker.length(&mut Draw::new(3, 1, n))).collect();
        all.sort_unstable();
        (all[0], all[2000], all[4000])
    };
    let (low, middle, high) = median(SizeSpec::LogNormal { median: 300, sigma: 0.8, max: 2000 });
    assert!((280..320).contains(&middle) && low < 60 && high <= 2000, "{low} {middle} {high}");
    let (low, middle, high) = median(SizeSpec::Uniform { min: 10, max: 20 });
    assert_eq!((low, middle, high), (10, 15, 20));
    let maker = ValueMaker::new(&ValueSpec {
        size: SizeSpec::Weighted(vec![(100, 9), (10_000, 1)]),
        ..ValueSpec::default()
    });
    let long = (0..10_000).filter(|n| maker.length(&mut Draw::new(3, 1, *n)) == 10_000).count();
    assert!((900..1100).contains(&long), "{long}");
}

#[test]
fn every_built_in_command_can_be_read_and_has_a_filling() {
    for command in catalog::COMMANDS {
        let template = Template::parse(command.template).unwrap();
        assert_eq!(template.name(), command.name);
        assert!(template.has_key(), "{}", command.name);
        let filling = catalog::filling(command.space).unwrap();
        assert!(Template::parse(filling).unwrap().has_key());
    }
}

#[test]
fn a_template_says_what_is_wrong_and_where() {
    let fault = |text: &str| {
        let fault = Template::parse(text).unwrap_err();
        format!("{} @ {}", fault.message, &text[fault.span])
    };
    assert_eq!(fault("GET {kye}"), "unknown placeholder `kye` @ kye");
    assert_eq!(fault("GET {key zipf}"), "`zipf` takes an exponent above 0 and at most 10 @ zipf");
    assert_eq!(fault("GET {key zipf 1.1 2}"), "a placeholder has too many parameters @ 2");
    assert_eq!(fault("SET {key} {int 5 1}"), "the lower bound is above the upper @ {int 5 1}");
    assert_eq!(fault("SET {key"), "a placeholder is not closed @ {key");
    assert_eq!(fault("SET {key} \"a b"), "a quote is not closed @ \"a b");
    assert_eq!(fault("{key} x"), "a template begins with the name of a command @ {");
    assert_eq!(
        fault("MGET x{keys 3}"),
        "a placeholder for several arguments stands within a word @ {keys 3}"
    );
    assert_eq!(fault("SET {key} a}b"), "a closing brace without an opening one @ }");
}

#[test]
fn the_example_of_the_documentation_makes_the_command_that_it_says() {
    let template = "HSET {key zipf 1.1} v {vector 128} price {int 1 1000}";
    let commands = Commands::new(
        &work(&[(template, 1)], KeyDistribution::Uniform, KeyspaceSpec { keys: 50, elements: 1, group: 1 }),
        1,
        1,
    )
    .unwrap();
    let args = args(&bytes(&commands, 7));
    assert_eq!(args[0], b"HSET");
    assert!(args[1].starts_with(b"p:hash:0000"));
    assert_eq!((args[2].as_slice(), args[3].len(), args[4].as_slice()), (&b"v"[..], 512, &b"price"[..]));
    let price: u32 = std::str::from_utf8(&args[5]).unwrap().parse().unwrap();
    assert!((1..=1000).contains(&price));
}
