//! Reads a template, byte by byte, so that every fault has its place.

use std::ops::Range;

use super::super::own::{self, OWN};
use super::{Fault, Many, Piece, Template, Word};
use crate::scenario::KeyDistribution;

/// Longest value or vector that a template may ask for.
const MOST_BYTES: u32 = 512 * 1024 * 1024;
/// Most arguments that one placeholder may stand for.
const MOST_ARGS: u32 = 100_000;

const NAMES: &[&str] = &[
    "key", "keys", "pairs", "value", "values", "field", "fields", "entries", "member", "members", "scored",
    "int", "float", "one_of", "vector", "n", "own",
];

pub(super) fn template(text: &str) -> Result<Template, Fault> {
    let mut reader = Reader { text, at: 0 };
    let mut words = Vec::new();
    loop {
        reader.skip_blanks();
        if reader.at >= text.len() {
            break;
        }
        words.push(reader.word()?);
    }
    let named = matches!(
        words.first(),
        Some(Word::One(pieces)) if matches!(pieces.as_slice(), [Piece::Literal(_)])
    );
    if !named {
        return Err(fault(
            0..text.len().min(1),
            "a template begins with the name of a command",
            "no command",
            "for example `SET {key} {value}`",
        ));
    }
    one_distribution(&words, text)?;
    Ok(Template { words })
}

/// A request has one key, so it can have one distribution only.
fn one_distribution(words: &[Word], text: &str) -> Result<(), Fault> {
    let mut given: Option<KeyDistribution> = None;
    let all = words.iter().flat_map(|word| match word {
        Word::One(pieces) => pieces
            .iter()
            .filter_map(|piece| if let Piece::Key(distribution) = piece { *distribution } else { None })
            .collect::<Vec<_>>(),
        Word::Many(Many::Keys(_, distribution) | Many::Pairs(_, distribution)) => {
            distribution.iter().copied().collect()
        }
        Word::Many(_) => Vec::new(),
    });
    for distribution in all {
        if given.is_some_and(|first| first != distribution) {
            return Err(fault(
                0..text.len(),
                "the template draws its key from two distributions",
                "every `{key}` of a request is the same key",
                "give the distribution once",
            ));
        }
        given = Some(distribution);
    }
    Ok(())
}

fn fault(span: Range<usize>, message: impl Into<String>, label: &str, hint: impl Into<String>) -> Fault {
    Fault { message: message.into(), label: label.to_owned(), hint: hint.into(), span }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn word(&mut self) -> Result<Word, Fault> {
        let start = self.at;
        let quoted = self.peek() == Some(b'"');
        if quoted {
            self.at += 1;
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut many: Option<(Many, Range<usize>)> = None;
        loop {
            match self.peek() {
                None if quoted => {
                    return Err(fault(
                        start..self.at,
                        "a quote is not closed",
                        "begins here",
                        "close it with `\"`",
                    ));
                }
                None => break,
                Some(b'"') if quoted => {
                    self.at += 1;
                    break;
                }
                Some(b) if !quoted && b.is_ascii_whitespace() => break,
                Some(b'{') if !self.text[self.at..].starts_with("{{") => {
                    let begin = self.at;
                    match self.placeholder()? {
                        Word::One(mut one) => pieces.append(&mut one),
                        Word::Many(one) => many = Some((one, begin..self.at)),
                    }
                }
                Some(b'}') if !self.text[self.at..].starts_with("}}") => {
                    return Err(fault(
                        self.at..self.at + 1,
                        "a closing brace without an opening one",
                        "nothing to close",
                        "write `}}` for a brace",
                    ));
                }
                Some(b) => {
                    self.at += if matches!(b, b'{' | b'}') { 2 } else { 1 };
                    match pieces.last_mut() {
                        Some(Piece::Literal(bytes)) => bytes.push(b),
                        _ => pieces.push(Piece::Literal(vec![b])),
                    }
                }
            }
        }
        match many {
            None if pieces.is_empty() => Ok(Word::One(vec![Piece::Literal(Vec::new())])),
            None => Ok(Word::One(pieces)),
            Some((many, _)) if pieces.is_empty() => Ok(Word::Many(many)),
            Some((_, span)) => Err(fault(
                span,
                "a placeholder for several arguments stands within a word",
                "must stand alone",
                "put blanks around it",
            )),
        }
    }

    /// From the opening brace to behind the closing one.
    fn placeholder(&mut self) -> Result<Word, Fault> {
        let begin = self.at;
        let Some(length) = self.text[begin..].find('}') else {
            return Err(fault(
                begin..self.text.len(),
                "a placeholder is not closed",
                "begins here",
                "close it with `}`, or write `{{` for a brace",
            ));
        };
        self.at = begin + length + 1;
        let inside = Inside::new(self.text, begin + 1..begin + length);
        let Some((name, name_span)) = inside.words.first().cloned() else {
            return Err(fault(begin..self.at, "an empty placeholder", "nothing in it", known()));
        };
        inside.read(name, name_span, begin..self.at)
    }
}

fn known() -> String {
    format!("placeholders are: {}", NAMES.join(", "))
}

/// What stands between braces: words with their places.
struct Inside<'t> {
    words: Vec<(&'t str, Range<usize>)>,
}

impl<'t> Inside<'t> {
    fn new(text: &'t str, span: Range<usize>) -> Self {
        let inner = &text[span.clone()];
        let words = inner
            .split_ascii_whitespace()
            .map(|word| {
                // A part of `inner`, so the distance of the two pointers is its place.
                let offset = word.as_ptr().addr() - inner.as_ptr().addr() + span.start;
                (word, offset..offset + word.len())
            })
            .collect();
        Self { words }
    }

    fn read(&self, name: &str, name_span: Range<usize>, whole: Range<usize>) -> Result<Word, Fault> {
        let one = |piece| Ok(Word::One(vec![piece]));
        match name {
            "key" => one(Piece::Key(self.distribution(1, &whole)?)),
            "keys" => Ok(Word::Many(Many::Keys(self.needed(&whole)?, self.distribution(2, &whole)?))),
            "pairs" => Ok(Word::Many(Many::Pairs(self.needed(&whole)?, self.distribution(2, &whole)?))),
            "value" => {
                self.most(2, &whole, "{value 16 512}")?;
                let first = self.whole_number(1, MOST_BYTES)?;
                let second = self.whole_number(2, MOST_BYTES)?;
                match (first, second) {
                    (Some(min), Some(max)) if min > max => Err(self.turned(&whole)),
                    (Some(min), max) => one(Piece::Value(Some((min, max.unwrap_or(min))))),
                    (None, _) => one(Piece::Value(None)),
                }
            }
            "values" => Ok(Word::Many(Many::Values(self.some(&whole)?))),
            "fields" => Ok(Word::Many(Many::Fields(self.some(&whole)?))),
            "entries" => Ok(Word::Many(Many::Entries(self.some(&whole)?))),
            "members" => Ok(Word::Many(Many::Members(self.some(&whole)?))),
            "scored" => Ok(Word::Many(Many::Scored(self.some(&whole)?))),
            "field" => self.most(0, &whole, "{field}").and_then(|()| one(Piece::Field)),
            "member" => self.most(0, &whole, "{member}").and_then(|()| one(Piece::Member)),
            "n" => self.most(0, &whole, "{n}").and_then(|()| one(Piece::Number)),
            "own" => {
                self.most(1, &whole, "{own price}")?;
                let (word, span) = self.words.get(1).cloned().unwrap_or(("", whole));
                let known = || OWN.iter().map(|own| own.word()).collect::<Vec<_>>().join(", ");
                own::find(word).map(|known| Word::Many(Many::Own(known))).ok_or_else(|| {
                    fault(
                        span,
                        format!("nothing is registered as `{word}`"),
                        "not known",
                        format!("registered are: {}; `common/src/content/own.rs` has the list", known()),
                    )
                })
            }
            "int" => {
                let (low, high) = self.bounds::<i64>(&whole, "{int 1 1000}")?;
                one(Piece::Int(low, high))
            }
            "float" => {
                let (low, high) = self.bounds::<f64>(&whole, "{float 0 1}")?;
                if !(low.is_finite() && high.is_finite()) {
                    return Err(fault(
                        whole,
                        "a bound is not a number",
                        "not finite",
                        "for example `{float 0 1}`",
                    ));
                }
                one(Piece::Float(low, high))
            }
            "one_of" => {
                let words: Vec<String> = self.words.iter().skip(1).map(|(w, _)| (*w).to_owned()).collect();
                if words.is_empty() {
                    return Err(fault(
                        whole,
                        "`one_of` has no words",
                        "of what?",
                        "for example `{one_of red blue}`",
                    ));
                }
                one(Piece::OneOf(words))
            }
            "vector" => {
                self.most(1, &whole, "{vector 128}")?;
                match self.whole_number(1, 65_536)? {
                    Some(dims) => one(Piece::Vector(dims)),
                    None => Err(fault(
                        whole,
                        "`vector` does not say how many dimensions",
                        "dimensions are missing",
                        "for example `{vector 128}`",
                    )),
                }
            }
            _ => {
                let meant = NAMES.iter().find(|known| strsim::damerau_levenshtein(known, name) <= 2);
                let hint = meant.map_or_else(known, |meant| format!("did you mean `{meant}`? {}", known()));
                Err(fault(name_span, format!("unknown placeholder `{name}`"), "not known", hint))
            }
        }
    }

    fn most(&self, parameters: usize, whole: &Range<usize>, example: &str) -> Result<(), Fault> {
        if self.words.len() <= parameters + 1 {
            return Ok(());
        }
        let span = self.words.get(parameters + 1).map_or(whole.clone(), |(_, span)| span.clone());
        Err(fault(
            span,
            "a placeholder has too many parameters",
            "one too many",
            format!("for example `{example}`"),
        ))
    }

    fn whole_number(&self, at: usize, most: u32) -> Result<Option<u32>, Fault> {
        let Some((word, span)) = self.words.get(at) else { return Ok(None) };
        match word.parse::<u32>() {
            Ok(n) if (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(fault(
                span.clone(),
                format!("`{word}` is not a whole number from 1 to {most}"),
                "not such a number",
                "write a number",
            )),
        }
    }

    fn needed(&self, whole: &Range<usize>) -> Result<u32, Fault> {
        self.whole_number(1, MOST_ARGS)?.ok_or_else(|| {
            fault(whole.clone(), "how many keys?", "a number is missing", "for example `{keys 10}`")
        })
    }

    fn some(&self, whole: &Range<usize>) -> Result<Option<u32>, Fault> {
        self.most(1, whole, "{values 5}")?;
        self.whole_number(1, MOST_ARGS)
    }

    fn turned(&self, whole: &Range<usize>) -> Fault {
        fault(
            whole.clone(),
            "the lower bound is above the upper",
            "turned around",
            "write the lower bound first",
        )
    }

    fn bounds<T: std::str::FromStr + PartialOrd>(
        &self,
        whole: &Range<usize>,
        example: &str,
    ) -> Result<(T, T), Fault> {
        self.most(2, whole, example)?;
        let number = |at: usize| match self.words.get(at) {
            None => Err(fault(
                whole.clone(),
                "a bound is missing",
                "two bounds",
                format!("for example `{example}`"),
            )),
            Some((word, span)) => word.parse::<T>().map_err(|_| {
                fault(
                    span.clone(),
                    format!("`{word}` is no number"),
                    "no number",
                    format!("for example `{example}`"),
                )
            }),
        };
        let (low, high) = (number(1)?, number(2)?);
        if low > high { Err(self.turned(whole)) } else { Ok((low, high)) }
    }

    fn distribution(&self, at: usize, whole: &Range<usize>) -> Result<Option<KeyDistribution>, Fault> {
        let Some((word, span)) = self.words.get(at) else { return Ok(None) };
        let exponent = || match self.words.get(at + 1).map(|(word, _)| word.parse::<f64>()) {
            Some(Ok(s)) if s > 0.0 && s <= 10.0 => Ok(s),
            _ => Err(fault(
                span.clone(),
                format!("`{word}` takes an exponent above 0 and at most 10"),
                "no exponent",
                format!("for example `{{key {word} 1.1}}`"),
            )),
        };
        let share = |i: usize| {
            let percent =
                self.words.get(at + i).and_then(|(word, _)| word.strip_suffix('%')?.parse::<f64>().ok());
            percent.filter(|p| *p > 0.0 && *p <= 100.0).map(|p| p / 100.0).ok_or_else(|| {
                fault(
                    span.clone(),
                    "`hot` takes the share of requests and the share of keys",
                    "two shares are wanted",
                    "for example `{key hot 90% 10%}`: 90 % of the requests on 10 % of the keys",
                )
            })
        };
        let (distribution, parameters) = match *word {
            "sequential" => (KeyDistribution::Sequential, 0),
            "uniform" => (KeyDistribution::Uniform, 0),
            "zipf" => (KeyDistribution::Zipf { s: exponent()? }, 1),
            "latest" => (KeyDistribution::Latest { s: exponent()? }, 1),
            "hot" => (KeyDistribution::HotSet { requests: share(1)?, keys: share(2)? }, 2),
            _ => {
                return Err(fault(
                    span.clone(),
                    format!("unknown distribution `{word}`"),
                    "not known",
                    "distributions are: sequential, uniform, zipf S, hot REQUESTS% KEYS%, latest S",
                ));
            }
        };
        self.most(at + parameters, whole, "{key zipf 1.1}")?;
        Ok(Some(distribution))
    }
}
