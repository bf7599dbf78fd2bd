//! Values: how long, and of what.
//!
//! A value begins with fresh content of its kind and goes on with repetitions of it, in the proportion that gives the
//! wanted compressibility; nothing is ever one constant byte. Law: the same draw gives the same value, of exactly the
//! drawn length, and zstd takes away the wanted part of values from 4 KiB on, within a tenth.

use std::sync::LazyLock;

use crate::count;
use crate::scenario::{ContentKind, SizeSpec, ValueSpec};
use crate::seed::Draw;

const WORDS: &[&str] = &[
    "the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are", "as", "with",
    "his", "they", "at", "be", "this", "have", "from", "or", "one", "had", "by", "word", "but", "not",
    "what", "all", "were", "we", "when", "your", "can", "said", "there", "use", "an", "each", "which", "she",
    "do", "how", "their", "if", "will", "up", "other", "about", "out", "many", "then", "them", "these", "so",
    "some", "her", "would", "make", "like", "him", "into", "time", "has", "look", "two", "more", "write",
    "go", "see", "number", "no", "way", "could", "people", "my", "than", "first", "water", "been", "call",
    "who", "oil", "its", "now", "find", "long", "down", "day", "did", "get", "come", "made", "may", "part",
    "over", "sound", "take", "only", "little", "work", "know", "place", "year", "live", "back", "give",
    "most", "very", "after", "thing", "our", "just", "name", "good", "sentence", "man", "think", "say",
    "great", "where", "help", "through", "much", "before", "line", "right",
];
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What zstd (level 3) leaves of fresh values of 16 KiB, to the nearest hundredth; a test measures it again.
#[must_use]
pub(crate) fn fresh_fraction(kind: ContentKind) -> f64 {
    match kind {
        ContentKind::Random => 1.0,
        ContentKind::Text => 0.37,
        ContentKind::Json => 0.28,
        ContentKind::Session => 0.49,
        ContentKind::Numeric => 0.49,
    }
}

/// The least compressibility that a kind can have: what zstd takes away of fresh content.
#[must_use]
pub fn least_compressibility(kind: ContentKind) -> f64 {
    1.0 - fresh_fraction(kind)
}

/// Makes values.
#[derive(Clone, Debug)]
pub struct ValueMaker {
    size: SizeSpec,
    /// Sum of the weights of a weighted list.
    weights: u64,
    kind: ContentKind,
    /// Part of a value that is fresh, 0..=1.
    fresh: f64,
}

impl ValueMaker {
    /// From a scenario's words.
    #[must_use]
    pub fn new(spec: &ValueSpec) -> Self {
        let weights = match &spec.size {
            SizeSpec::Weighted(list) => list.iter().map(|(_, weight)| u64::from(*weight)).sum(),
            _ => 0,
        };
        let fresh = match spec.compressibility {
            Some(part) => ((1.0 - part) / fresh_fraction(spec.content)).clamp(0.0, 1.0),
            None => 1.0,
        };
        Self { size: spec.size.clone(), weights, kind: spec.content, fresh }
    }

    /// Draws a length, bytes.
    pub fn length(&self, draw: &mut Draw) -> usize {
        let bytes = match &self.size {
            SizeSpec::Fixed(bytes) => u64::from(*bytes),
            SizeSpec::Uniform { min, max } => {
                u64::from(*min) + draw.below(u64::from(max.saturating_sub(*min)) + 1)
            }
            SizeSpec::LogNormal { median, sigma, max } => {
                // Box and Muller: one normal number from two even ones.
                let radius = libm::sqrt(-2.0 * libm::log(draw.unit()));
                let normal = radius * libm::cos(std::f64::consts::TAU * draw.unit());
                let bytes = libm::exp(libm::log(f64::from(*median)) + sigma * normal);
                count::from_f64(bytes.round()).clamp(1, u64::from(*max))
            }
            SizeSpec::Weighted(list) => {
                let mut at = draw.below(self.weights);
                let mut chosen = 0;
                for (bytes, weight) in list {
                    chosen = *bytes;
                    match at.checked_sub(u64::from(*weight)) {
                        Some(left) => at = left,
                        None => break,
                    }
                }
                u64::from(chosen)
            }
        };
        count::index(bytes)
    }

    /// Appends a value.
    pub fn write(&self, draw: &mut Draw, out: &mut Vec<u8>) {
        let length = self.length(draw);
        self.write_length(draw, length, out);
    }

    /// Appends a value of a given length.
    pub fn write_length(&self, draw: &mut Draw, length: usize, out: &mut Vec<u8>) {
        let fresh = count::index(count::from_f64((count::to_f64(count::len(length)) * self.fresh).ceil()));
        match self.kind {
            ContentKind::Random => random(draw, length, fresh, out),
            ContentKind::Text => flat(draw, length, fresh, out, word),
            ContentKind::Session => flat(draw, length, fresh, out, session_token),
            ContentKind::Numeric => numeric(draw, length, fresh, out),
            ContentKind::Json => json(draw, length, fresh, out),
        }
    }
}

/// Tokens until `fresh` bytes, then the same bytes again until `length`.
fn flat(
    draw: &mut Draw,
    length: usize,
    fresh: usize,
    out: &mut Vec<u8>,
    token: impl Fn(&mut Draw, &mut Vec<u8>),
) {
    let start = out.len();
    let fresh_end = start + fresh.clamp(length.min(8), length);
    let end = start + length;
    while out.len() < fresh_end {
        token(draw, out);
    }
    out.truncate(fresh_end);
    repeat(out, start, end);
}

/// Copies what lies from `start` on until the buffer ends at `end`.
fn repeat(out: &mut Vec<u8>, start: usize, end: usize) {
    while out.len() < end && out.len() > start {
        let n = (end - out.len()).min(out.len() - start);
        out.extend_from_within(start..start + n);
    }
}

/// Words of random bits that random values are cut from: more than the longest stretch that is cut at once.
const POOL_WORDS: usize = 8 << 10;
/// Most words that are cut at once.
const STRETCH_WORDS: usize = 1 << 10;
/// Keeps the pool apart from what requests draw. It is no secret and the same in every run.
const POOL_SEED: u64 = 0xA076_1D64_78BD_642F;

fn pool() -> &'static [u8] {
    static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut draw = Draw::new(POOL_SEED, 0, 0);
        (0..POOL_WORDS).flat_map(|_| draw.next_u64().to_le_bytes()).collect()
    });
    &POOL
}

/// Random bytes: for a value of hundreds of bytes drawing all of them would cost more than the rest of a request, so
/// they are stretches of a pool of random words, each begun at a drawn place and masked with a drawn word.
fn random(draw: &mut Draw, length: usize, fresh: usize, out: &mut Vec<u8>) {
    let start = out.len();
    let fresh = fresh.clamp(length.min(8), length);
    let pool = pool();
    while out.len() < start + fresh {
        let from = out.len();
        let bytes = (start + fresh - from).min(STRETCH_WORDS * 8);
        let mask = draw.next_u64().to_le_bytes();
        let first = 8 * count::index(draw.below(count::len(POOL_WORDS - bytes.div_ceil(8))));
        out.extend_from_slice(pool.get(first..first + bytes).unwrap_or_default());
        let copied = out.get_mut(from..).unwrap_or_default();
        // Eight words at a time: the compiler turns that into a few wide operations.
        let (blocks, rest) = copied.as_chunks_mut::<64>();
        let wide: [u8; 64] = std::array::from_fn(|i| mask[i % 8]);
        for block in blocks {
            block.iter_mut().zip(&wide).for_each(|(byte, mask)| *byte ^= mask);
        }
        rest.iter_mut().zip(&wide).for_each(|(byte, mask)| *byte ^= mask);
    }
    repeat(out, start, start + length);
}

fn word(draw: &mut Draw, out: &mut Vec<u8>) {
    // The lesser of two draws: frequent words come more often, as in a language.
    let n = count::len(WORDS.len());
    let at = draw.below(n).min(draw.below(n));
    out.extend_from_slice(WORDS.get(count::index(at)).copied().unwrap_or("a").as_bytes());
    out.push(b' ');
}

fn letters(draw: &mut Draw, n: usize, out: &mut Vec<u8>) {
    let mut bits = draw.next_u64();
    for i in 0..n {
        if i % 10 == 0 {
            bits = draw.next_u64();
        }
        out.push(ALPHABET.get(count::index(bits & 63)).copied().unwrap_or(b'A'));
        bits >>= 6;
    }
}

fn digits(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn session_token(draw: &mut Draw, out: &mut Vec<u8>) {
    out.extend_from_slice(b"user=");
    digits(draw.below(10_000_000), out);
    out.extend_from_slice(b"&token=");
    letters(draw, 22, out);
    out.extend_from_slice(b"&seen=");
    digits(1_700_000_000 + draw.below(100_000_000), out);
    out.extend_from_slice(b"&cart=");
    digits(draw.below(100_000), out);
    out.push(b';');
}

/// One integer without a leading zero where it fits into 64 bits, else integers with commas between them.
fn numeric(draw: &mut Draw, length: usize, fresh: usize, out: &mut Vec<u8>) {
    const FITS: usize = 18;
    if length > FITS {
        return flat(draw, length, fresh, out, |draw, out| {
            digits(draw.below(1_000_000_000_000), out);
            out.push(b',');
        });
    }
    for i in 0..length {
        let lowest = u64::from(i == 0 && length > 1);
        let digit = lowest + draw.below(10 - lowest);
        out.push(b'0' + u8::try_from(digit).unwrap_or(0));
    }
}

/// An array of records and, to fill up, one string. From 4 bytes on it is well-formed.
fn json(draw: &mut Draw, length: usize, fresh: usize, out: &mut Vec<u8>) {
    if length < 4 {
        return numeric(draw, length, fresh, out);
    }
    let start = out.len();
    // What is left after the records holds at least the empty string and the bracket: `""]`.
    let end = start + length - 3;
    out.push(b'[');
    let first = out.len();
    let mut one = Vec::new();
    while out.len() - start < fresh {
        one.clear();
        record(draw, &mut one);
        if out.len() + one.len() > end {
            break;
        }
        out.extend_from_slice(&one);
    }
    // Whole records again, as many as fit.
    let made = out.len();
    let mut at = first;
    while at < made {
        let size = out.get(at..made).and_then(|rest| memchr::memchr(b'}', rest)).map_or(0, |i| i + 2);
        if size == 0 || out.len() + size > end {
            break;
        }
        out.extend_from_within(at..at + size);
        at = if at + size >= made { first } else { at + size };
    }
    out.push(b'"');
    let pad = (start + length).saturating_sub(out.len() + 2);
    letters(draw, pad, out);
    out.extend_from_slice(b"\"]");
}

fn record(draw: &mut Draw, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    digits(draw.below(1_000_000), out);
    out.extend_from_slice(b",\"name\":\"");
    word(draw, out);
    word(draw, out);
    out.pop();
    out.extend_from_slice(b"\",\"score\":");
    digits(draw.below(1000), out);
    out.extend_from_slice(b",\"tag\":\"");
    letters(draw, 6, out);
    out.extend_from_slice(b"\",\"active\":");
    out.extend_from_slice(if draw.below(2) == 0 { b"true" } else { b"false" });
    out.extend_from_slice(b"},");
}
