//! Arguments that no placeholder can say: a trait, and the one list of what implements it.
//!
//! A template asks for them as `{own WORD}`, so that keys, weights, misses and clean-up stay what they are for every
//! command. To add one: implement [`Own`], put it into [`OWN`]. Law: what is written follows from the request's number,
//! its key and its draws alone; only so do two fleets of any size send the same commands.

use std::fmt::Debug;

use crate::count;
use crate::seed::Draw;

/// Makes arguments of commands.
pub trait Own: Debug + Sync {
    /// Its word in templates: small letters and `_`.
    fn word(&self) -> &'static str;

    /// What it makes, for whoever asks which there are.
    fn purpose(&self) -> &'static str;

    /// How many arguments it makes of each request, at least 1.
    fn arguments(&self) -> u32 {
        1
    }

    /// Writes one of them into `out`, which is empty.
    fn write(&self, argument: u32, request: &mut Request<'_>, out: &mut Vec<u8>);
}

/// What arguments may be made of.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its number within the phase.
    pub n: u64,
    /// The number of its key.
    pub key: u64,
    /// Numbers of its own.
    pub draw: &'a mut Draw,
}

/// All of them. Registered is what stands here.
pub const OWN: &[&dyn Own] = &[&Price, &Journey];

/// The one with a word.
#[must_use]
pub fn find(word: &str) -> Option<Known> {
    OWN.iter().find(|own| own.word() == word).map(|own| Known(*own))
}

/// One of [`OWN`].
#[derive(Clone, Copy, Debug)]
pub struct Known(pub(crate) &'static dyn Own);

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.0.word() == other.0.word()
    }
}

/// A price as shops write it: a whole amount less a hundredth, cheap ones more often.
#[derive(Debug)]
struct Price;

impl Own for Price {
    fn word(&self) -> &'static str {
        "price"
    }

    fn purpose(&self) -> &'static str {
        "a price from 0.99 to 999.99, cheap ones more often"
    }

    fn write(&self, _: u32, request: &mut Request<'_>, out: &mut Vec<u8>) {
        // Even on a scale of powers.
        let amount = count::from_f64(libm::pow(1000.0, request.draw.unit())).clamp(1, 1000);
        out.extend_from_slice(itoa::Buffer::new().format(amount - 1).as_bytes());
        out.extend_from_slice(b".99");
    }
}

/// Where somebody is who goes round a place of its own: a longitude and a latitude, as `GEOADD` takes them.
#[derive(Debug)]
struct Journey;

impl Own for Journey {
    fn word(&self) -> &'static str {
        "journey"
    }

    fn purpose(&self) -> &'static str {
        "a longitude and a latitude that move on with the request's number, round a place of the key's own"
    }

    fn arguments(&self) -> u32 {
        2
    }

    fn write(&self, argument: u32, request: &mut Request<'_>, out: &mut Vec<u8>) {
        let mut home = Draw::new(0, 0, request.key);
        let (longitude, latitude) = (360.0 * home.unit() - 180.0, 160.0 * home.unit() - 80.0);
        let turn = std::f64::consts::TAU * count::to_f64(request.n % 1000) / 1000.0;
        let degrees = match argument {
            0 => (longitude + libm::cos(turn)).clamp(-180.0, 180.0),
            _ => latitude + libm::sin(turn),
        };
        out.extend_from_slice(format!("{degrees:.6}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_words_and_nobody_shares_one() {
        for (i, own) in OWN.iter().enumerate() {
            assert!(own.word().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{own:?}");
            assert!(own.arguments() >= 1 && !own.purpose().is_empty(), "{own:?}");
            assert!(OWN.iter().skip(i + 1).all(|other| other.word() != own.word()), "{own:?}");
        }
        assert!(find("price").is_some() && find("nothing").is_none());
    }

    #[test]
    fn the_same_request_makes_the_same_arguments() {
        for own in OWN {
            for n in 0..200 {
                let made = |argument| {
                    let mut out = Vec::new();
                    let mut draw = Draw::new(1, 2, n);
                    own.write(argument, &mut Request { n, key: n / 3, draw: &mut draw }, &mut out);
                    String::from_utf8(out).unwrap()
                };
                for argument in 0..own.arguments() {
                    assert_eq!(made(argument), made(argument));
                    let number: f64 = made(argument).parse().unwrap();
                    assert!(number.abs() <= 1000.0, "{own:?} {number}");
                }
            }
        }
    }
}
