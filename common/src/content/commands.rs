//! The commands of a phase, compiled: from a request's number to its slot and its bytes.
//!
//! Made once per lane; on the hot path it copies fixed bytes and draws the rest. Law: the same bytes for the same
//! seed, phase and number, whoever asks and however often.

use super::catalog;
use super::keys::{KeyChooser, KeyNames};
use super::miss::Miss;
use super::own::{Known, Request};
use super::pattern::Pattern;
use super::template::{self, Many, Piece, Template, Word};
use super::value::ValueMaker;
use crate::count;
use crate::keys::slot;
use crate::phase::CommandWork;
use crate::scenario::{KeyDistribution, KeyspaceSpec, SizeSpec, ValueSpec};
use crate::seed::Draw;

/// Why commands cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A template cannot be read.
    #[error("template `{template}` of command `{name}` cannot be read: {fault}; {hint}", hint = .fault.hint)]
    Template {
        /// Name of the command.
        name: String,
        /// Its template.
        template: String,
        /// What is wrong.
        fault: Box<template::Fault>,
    },
}

/// What a phase's latency rows are called, and how the server counts them: (operation, command).
///
/// # Errors
/// [`Error`] when a template cannot be read.
pub fn commands_of(work: &CommandWork) -> Result<Vec<(String, String)>, Error> {
    work.commands
        .iter()
        .map(|spec| Ok((spec.name.clone(), parse(&spec.name, &spec.template)?.command())))
        .collect()
}

fn parse(name: &str, text: &str) -> Result<Template, Error> {
    Template::parse(text).map_err(|fault| Error::Template {
        name: name.to_owned(),
        template: text.to_owned(),
        fault: Box::new(fault),
    })
}

/// All commands of a phase.
#[derive(Clone, Debug)]
pub struct Commands {
    seed: u64,
    phase: u32,
    pattern: Pattern,
    commands: Vec<Compiled>,
    /// Those that write keys one after the other: what `latest` counts.
    sequential: Vec<usize>,
    spec: KeyspaceSpec,
}

#[derive(Clone, Debug)]
struct Compiled {
    keys: KeyChooser,
    names: KeyNames,
    has_key: bool,
    miss: Miss,
    values: ValueMaker,
    steps: Vec<Step>,
}

/// Part of an encoded command.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes as they go out.
    Fixed(Vec<u8>),
    /// One argument.
    One(Vec<Made>),
    /// Several arguments; the number is resolved.
    Many(Several, u32),
}

#[derive(Clone, Debug)]
enum Made {
    Piece(Piece),
    /// A value whose size the template says.
    Sized(ValueMaker),
}

#[derive(Clone, Copy, Debug)]
enum Several {
    Keys,
    Pairs,
    Values,
    Fields,
    Entries,
    Members,
    Scored,
    Own(Known),
}

/// Buffers that encoding uses again and again.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    arg: Vec<u8>,
}

impl Commands {
    /// Compiles the commands of a phase.
    ///
    /// # Errors
    /// [`Error`] when a template cannot be read.
    pub fn new(work: &CommandWork, seed: u64, phase: u32) -> Result<Self, Error> {
        let weights: Vec<u32> = work.commands.iter().map(|c| c.weight).collect();
        let mut commands = Vec::new();
        for spec in &work.commands {
            let template = parse(&spec.name, &spec.template)?;
            let name = template.name();
            let space = spec.space.as_deref().unwrap_or_else(|| catalog::space_of(&name));
            let distribution = template.distribution().unwrap_or(work.keys);
            commands.push(Compiled {
                keys: KeyChooser::new(distribution, work.keyspace.keys),
                names: KeyNames::new(&work.prefix, space, &work.keyspace),
                has_key: template.has_key(),
                miss: catalog::built_in(&name).map_or(Miss::Nil, |known| known.miss),
                values: ValueMaker::new(&work.values),
                steps: compile(&template, &work.values, &work.keyspace),
            });
        }
        let sequential =
            (0..).zip(&commands).filter(|(_, c)| c.keys.is_sequential()).map(|(i, _)| i).collect();
        Ok(Self {
            seed,
            phase,
            pattern: Pattern::new(&weights, seed, phase),
            commands,
            sequential,
            spec: work.keyspace.clone(),
        })
    }

    /// Which command request `n` is.
    #[must_use]
    pub fn operation(&self, n: u64) -> usize {
        self.pattern.operation(n)
    }

    fn key(&self, command: &Compiled, operation: usize, n: u64, draw: &mut Draw) -> u64 {
        let rank = || self.pattern.before(operation, n);
        let newest = || self.sequential.iter().map(|o| self.pattern.before(*o, n)).sum();
        command.keys.choose(draw, rank, newest)
    }

    /// The slot that request `n` goes to; `None` where any node will do.
    pub fn slot(&self, n: u64, scratch: &mut Scratch) -> Option<u16> {
        let operation = self.operation(n);
        let command = self.commands.get(operation).filter(|c| c.has_key)?;
        let key = self.key(command, operation, n, &mut Draw::new(self.seed, self.phase, n));
        scratch.arg.clear();
        command.names.write(key, &mut scratch.arg);
        Some(slot(&scratch.arg))
    }

    /// Appends request `n` as RESP.
    pub fn encode(&self, n: u64, scratch: &mut Scratch, out: &mut Vec<u8>) {
        let operation = self.operation(n);
        let Some(command) = self.commands.get(operation) else { return };
        let mut draw = Draw::new(self.seed, self.phase, n);
        // Drawn first, so that the slot can be known without the rest.
        let key = if command.has_key { self.key(command, operation, n, &mut draw) } else { 0 };
        let arg = &mut scratch.arg;
        for step in &command.steps {
            match step {
                Step::Fixed(bytes) => out.extend_from_slice(bytes),
                Step::One(pieces) => {
                    // A value on its own needs no second copy: its length is drawn before its bytes.
                    if let Some(values) = command.whole_value(pieces) {
                        let length = values.length(&mut draw);
                        push_length(out, length);
                        values.write_length(&mut draw, length, out);
                        out.extend_from_slice(b"\r\n");
                        continue;
                    }
                    arg.clear();
                    for piece in pieces {
                        command.piece(piece, key, n, &self.spec, &mut draw, arg);
                    }
                    push_bulk(out, arg);
                }
                Step::Many(kind, times) => {
                    for i in 0..u64::from(*times) {
                        command.several(*kind, i, (key, n), &mut draw, arg, out);
                    }
                }
            }
        }
    }

    /// Whether a reply to request `n`, which is no error, says that there was nothing.
    #[must_use]
    pub fn missed(&self, operation: usize, reply: &[u8]) -> bool {
        self.commands.get(operation).is_some_and(|command| command.miss.is(reply))
    }
}

impl Compiled {
    /// The maker of an argument that is one value and nothing else.
    fn whole_value<'a>(&'a self, pieces: &'a [Made]) -> Option<&'a ValueMaker> {
        match pieces {
            [Made::Sized(values)] => Some(values),
            [Made::Piece(Piece::Value(_))] => Some(&self.values),
            _ => None,
        }
    }

    fn piece(&self, made: &Made, key: u64, n: u64, spec: &KeyspaceSpec, draw: &mut Draw, arg: &mut Vec<u8>) {
        let piece = match made {
            Made::Sized(values) => return values.write(draw, arg),
            Made::Piece(piece) => piece,
        };
        match piece {
            Piece::Literal(bytes) => arg.extend_from_slice(bytes),
            Piece::Key(_) => self.names.write(key, arg),
            Piece::Value(_) => self.values.write(draw, arg),
            Piece::Field => named(b'f', draw.below(u64::from(spec.elements)), arg),
            Piece::Member => named(b'm', draw.below(u64::from(spec.elements)), arg),
            Piece::Int(low, high) => {
                let span = low.abs_diff(*high);
                let drawn = if span == u64::MAX { draw.next_u64() } else { draw.below(span + 1) };
                let number = low.saturating_add_unsigned(drawn);
                arg.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            }
            Piece::Float(low, high) => {
                let number = low + draw.unit() * (high - low);
                arg.extend_from_slice(format!("{number}").as_bytes());
            }
            Piece::OneOf(words) => {
                let at = count::index(draw.below(count::len(words.len())));
                arg.extend_from_slice(words.get(at).map_or(b"", |word| word.as_bytes()));
            }
            Piece::Vector(dims) => {
                for _ in 0..*dims {
                    arg.extend_from_slice(&normal(draw).to_le_bytes());
                }
            }
            Piece::Number => arg.extend_from_slice(itoa::Buffer::new().format(n).as_bytes()),
        }
    }

    fn several(
        &self,
        kind: Several,
        i: u64,
        (key, n): (u64, u64),
        draw: &mut Draw,
        arg: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        arg.clear();
        match kind {
            Several::Keys | Several::Pairs => self.names.write(self.names.companion(key, i), arg),
            Several::Values => self.values.write(draw, arg),
            Several::Fields | Several::Entries => named(b'f', i, arg),
            Several::Members => named(b'm', i, arg),
            Several::Own(own) => {
                let argument = u32::try_from(i).unwrap_or(u32::MAX);
                own.0.write(argument, &mut Request { n, key, draw }, arg);
            }
            Several::Scored => {
                arg.extend_from_slice(itoa::Buffer::new().format(draw.below(1001)).as_bytes());
                push_bulk(out, arg);
                arg.clear();
                named(b'm', i, arg);
            }
        }
        push_bulk(out, arg);
        if matches!(kind, Several::Pairs | Several::Entries) {
            arg.clear();
            self.values.write(draw, arg);
            push_bulk(out, arg);
        }
    }
}

fn compile(template: &Template, values: &ValueSpec, spec: &KeyspaceSpec) -> Vec<Step> {
    let mut arguments = 0_u64;
    let mut steps = Vec::new();
    let mut fixed = Vec::new();
    for word in &template.words {
        match word {
            Word::One(pieces) => {
                arguments += 1;
                if let [Piece::Literal(bytes)] = pieces.as_slice() {
                    push_bulk(&mut fixed, bytes);
                    continue;
                }
                flush(&mut fixed, &mut steps);
                steps.push(Step::One(pieces.iter().map(|piece| made(piece, values)).collect()));
            }
            Word::Many(many) => {
                flush(&mut fixed, &mut steps);
                let all = |n: &Option<u32>| n.unwrap_or(spec.elements).max(1);
                let (kind, times, each) = match many {
                    Many::Keys(n, _) => (Several::Keys, *n, 1),
                    Many::Pairs(n, _) => (Several::Pairs, *n, 2),
                    Many::Values(n) => (Several::Values, all(n), 1),
                    Many::Fields(n) => (Several::Fields, all(n), 1),
                    Many::Entries(n) => (Several::Entries, all(n), 2),
                    Many::Members(n) => (Several::Members, all(n), 1),
                    Many::Scored(n) => (Several::Scored, all(n), 2),
                    Many::Own(own) => (Several::Own(*own), own.0.arguments().max(1), 1),
                };
                arguments += u64::from(times) * each;
                steps.push(Step::Many(kind, times));
            }
        }
    }
    flush(&mut fixed, &mut steps);
    let mut header = vec![b'*'];
    header.extend_from_slice(itoa::Buffer::new().format(arguments).as_bytes());
    header.extend_from_slice(b"\r\n");
    match steps.first_mut() {
        Some(Step::Fixed(bytes)) => {
            header.append(bytes);
            *bytes = header;
        }
        _ => steps.insert(0, Step::Fixed(header)),
    }
    steps
}

fn flush(fixed: &mut Vec<u8>, steps: &mut Vec<Step>) {
    if !fixed.is_empty() {
        steps.push(Step::Fixed(std::mem::take(fixed)));
    }
}

fn made(piece: &Piece, values: &ValueSpec) -> Made {
    match piece {
        Piece::Value(Some((min, max))) => {
            let size = SizeSpec::Uniform { min: *min, max: *max };
            Made::Sized(ValueMaker::new(&ValueSpec { size, ..values.clone() }))
        }
        other => Made::Piece(other.clone()),
    }
}

fn named(letter: u8, i: u64, out: &mut Vec<u8>) {
    out.push(letter);
    out.extend_from_slice(itoa::Buffer::new().format(i).as_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the element type is what is wanted")]
fn normal(draw: &mut Draw) -> f32 {
    let radius = libm::sqrt(-2.0 * libm::log(draw.unit()));
    (radius * libm::cos(std::f64::consts::TAU * draw.unit())) as f32
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    out.push(b'$');
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_bulk(out: &mut Vec<u8>, arg: &[u8]) {
    push_length(out, arg.len());
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}

impl KeyDistribution {
    /// Its word in scenarios.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Uniform => "uniform",
            Self::Zipf { .. } => "zipf",
            Self::HotSet { .. } => "hot",
            Self::Latest { .. } => "latest",
        }
    }
}
