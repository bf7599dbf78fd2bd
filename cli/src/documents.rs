//! Every command that a document shows is one that `vst` and `make` understand.

use clap::Parser;

use crate::Cli;

const DOCUMENTS: &[(&str, &str)] = &[
    ("README.md", include_str!("../../README.md")),
    ("CONTRIBUTING.md", include_str!("../../CONTRIBUTING.md")),
    ("python/README.md", include_str!("../../python/README.md")),
    ("docs/architecture.md", include_str!("../../docs/architecture.md")),
    ("docs/ci.md", include_str!("../../docs/ci.md")),
    ("docs/billion.md", include_str!("../../docs/billion.md")),
    ("docs/configuration.md", include_str!("../../docs/configuration.md")),
    ("docs/data-sets.md", include_str!("../../docs/data-sets.md")),
    ("docs/extending.md", include_str!("../../docs/extending.md")),
    ("docs/finding-the-limit.md", include_str!("../../docs/finding-the-limit.md")),
    ("docs/hooks.md", include_str!("../../docs/hooks.md")),
    ("docs/kubernetes.md", include_str!("../../docs/kubernetes.md")),
    ("docs/reading-a-run.md", include_str!("../../docs/reading-a-run.md")),
    ("docs/scenarios.md", include_str!("../../docs/scenarios.md")),
    ("docs/sql.md", include_str!("../../docs/sql.md")),
    ("docs/workloads.md", include_str!("../../docs/workloads.md")),
];
const MAKEFILE: &str = include_str!("../../Makefile");

/// The fenced blocks of a document: language and text.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let (mut blocks, mut open): (Vec<(&str, String)>, bool) = (Vec::new(), false);
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            if !open {
                blocks.push((language, String::new()));
            }
            open = !open;
        } else if let (true, Some((_, block))) = (open, blocks.last_mut()) {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

/// The commands of a block as a shell would split them; a quoted text may go over lines, a comment ends with its line.
fn commands(block: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    let mut characters = block.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => {
                // A line that goes on, or a character that means itself.
                if characters.peek() == Some(&'\n') {
                    characters.next();
                } else {
                    word.get_or_insert_default().extend(characters.next());
                }
            }
            (None, '#') if word.is_none() => while characters.next_if(|c| *c != '\n').is_some() {},
            (None, '\n' | '|' | ';' | '&' | '>') => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
                if c == '>' {
                    while characters.next_if(|c| *c != '\n').is_some() {}
                }
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    commands
}

/// The commands of all documents that begin with a word, variables before it left out.
fn shown(program: &str) -> Vec<(&'static str, Vec<String>)> {
    let mut shown = Vec::new();
    for (name, text) in DOCUMENTS {
        let plain = |language: &str| matches!(language, "" | "sh" | "bash" | "console");
        for (_, block) in blocks(text).into_iter().filter(|(language, _)| plain(language)) {
            for mut words in commands(&block) {
                let variable =
                    |word: &String| word.split_once('=').is_some_and(|(n, _)| n.starts_with("VST_"));
                let variables = words.iter().take_while(|word| variable(word)).count();
                words.drain(..variables);
                if words.first().is_some_and(|word| word.rsplit('/').next() == Some(program)) {
                    shown.push((*name, words));
                }
            }
        }
    }
    shown
}

#[test]
fn a_block_is_split_as_a_shell_would() {
    let block = "vst run quick --set 'a=b c' \\\n  --json  # why\nX=1 make test | tee \"a\nb\"\n";
    assert_eq!(
        commands(block),
        [
            vec!["vst", "run", "quick", "--set", "a=b c", "--json"],
            vec!["X=1", "make", "test"],
            vec!["tee", "a\nb"]
        ]
    );
}

#[test]
fn every_command_of_vst_in_the_documents_is_understood() {
    let all = shown("vst");
    assert!(all.len() > 30, "{} commands are found", all.len());
    let mut wrong = Vec::new();
    for (name, words) in all {
        if let Err(e) = Cli::try_parse_from(&words) {
            wrong.push(format!(
                "{name}: `{}`: {}",
                words.join(" "),
                e.to_string().lines().next().unwrap_or("")
            ));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_target_of_make_in_the_documents_is_there_and_listed() {
    let mut wrong = Vec::new();
    let inline = DOCUMENTS.iter().flat_map(|(name, text)| {
        let targets = text.split("`make ").skip(1).filter_map(|rest| rest.split(['`', ' ']).next());
        targets.map(move |target| (*name, target.to_owned()))
    });
    let fenced = shown("make").into_iter().filter_map(|(name, words)| Some((name, words.get(1)?.clone())));
    for (name, target) in inline.chain(fenced) {
        let listed =
            MAKEFILE.lines().any(|line| line.starts_with(&format!("{target}:")) && line.contains("## "));
        if !listed && target != "help" {
            wrong.push(format!("{name}: make {target}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}
