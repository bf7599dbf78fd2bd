//! Whatever a user writes as a command: it is taken or its fault is named, and what is taken encodes to exactly one
//! RESP array, the same each time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vst_common::content::{Commands, Scratch, template::Template};
use vst_common::phase::CommandWork;
use vst_common::resp::Scanner;
use vst_common::scenario::{CommandSpec, KeyDistribution, KeyspaceSpec, SizeSpec, ValueSpec};

fuzz_target!(|text: &str| {
    match Template::parse(text) {
        Err(fault) => {
            // What a person sees has to be made as well.
            let _ = format!("{fault:?}");
        }
        // Numbers of five digits and more only make it slow: counts and lengths are bounded when they are read.
        Ok(_) if text.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() < 5) => {
            let work = CommandWork {
                prefix: String::from("p:"),
                keyspace: KeyspaceSpec { keys: 100, elements: 3, group: 4 },
                commands: vec![CommandSpec {
                    name: String::from("fuzzed"),
                    template: text.to_owned(),
                    weight: 1,
                    space: None,
                }],
                keys: KeyDistribution::Uniform,
                values: ValueSpec { size: SizeSpec::Fixed(20), ..ValueSpec::default() },
            };
            let commands = Commands::new(&work, 1, 1).expect("a template that was read compiles");
            let mut scratch = Scratch::default();
            for n in 0..3 {
                let (mut first, mut second) = (Vec::new(), Vec::new());
                commands.encode(n, &mut scratch, &mut first);
                commands.encode(n, &mut scratch, &mut second);
                assert_eq!(first, second, "the same request is the same bytes");
                let whole = Scanner::new().scan(&first).expect("a command is RESP");
                assert_eq!(whole, Some(first.len()), "and exactly one array");
            }
        }
        Ok(_) => {}
    }
});
