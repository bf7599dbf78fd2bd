//! The library and its folder are the same, and every scenario of it is sound.

use std::collections::BTreeSet;

use super::super::check::parse;
use super::{LIBRARY, text_of};
use crate::content::catalog;

fn folder() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios");
    let files =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter_map(|file| file.strip_suffix(".yaml").map(str::to_owned)).collect()
}

#[test]
fn every_file_of_the_folder_is_in_the_library_once_and_under_its_own_name() {
    let listed: BTreeSet<String> = LIBRARY.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, folder());
    assert_eq!(listed.len(), LIBRARY.len(), "no name twice");
    for (name, text) in LIBRARY {
        let checked = parse(text, &format!("{name}.yaml"), &[])
            .unwrap_or_else(|faults| panic!("{faults}: {:?}", faults.iter().collect::<Vec<_>>()));
        assert_eq!(checked.scenario.name, *name);
        assert_ne!(checked.scenario.family, "own", "{name} has a family");
        assert_eq!(text_of(name), Some(*text));
    }
    assert_eq!(text_of("slow"), None);
}

#[test]
fn every_header_says_what_for_how_long_and_how_much_memory() {
    for (name, text) in LIBRARY {
        let header: String =
            text.lines().take_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
        assert!(header.starts_with(&format!("# {name}: ")), "{name}: {header}");
        for word in ["\n# Purpose: ", "\n# Time: ", "\n# Memory: "] {
            assert!(header.contains(word), "{name} has no `{word}`");
        }
    }
}

#[test]
fn every_built_in_command_has_a_scenario_of_its_own() {
    for command in catalog::COMMANDS {
        let name = format!("op_{}", command.name.to_ascii_lowercase());
        let text = text_of(&name).unwrap_or_else(|| panic!("no scenario `{name}`"));
        assert!(text.contains(&format!("commands: [{}]", command.name)), "{name}");
    }
}

#[test]
fn every_scenario_is_sized_by_a_parameter() {
    for (name, text) in LIBRARY {
        let scenario = parse(text, name, &[]).unwrap().scenario;
        assert!(!scenario.parameters.is_empty(), "{name}");
        let key = if scenario.dataset.is_some() { "rows" } else { "keys" };
        let smaller = parse(text, name, &[(key.to_owned(), String::from("2000"))]).unwrap().scenario;
        let got = smaller.dataset.map_or(Some(smaller.keyspace.keys), |dataset| dataset.rows);
        assert_eq!(got, Some(2000), "{name}: {key}");
    }
}
