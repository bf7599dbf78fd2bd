//! Which key a request is about, and what it is called.
//!
//! Laws: every key is one of the plan's, so that clean-up is arithmetic; the keys of one group share a slot.

use super::zipf::Zipf;
use crate::count;
use crate::scenario::{KeyDistribution, KeyspaceSpec};
use crate::seed::Draw;

/// Draws keys 0..n.
#[derive(Clone, Debug)]
pub struct KeyChooser {
    keys: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Sequential,
    Uniform,
    Zipf(Zipf),
    HotSet { requests: f64, hot: u64 },
    Latest(Zipf),
}

impl KeyChooser {
    /// Over `keys` keys, at least 1.
    #[must_use]
    pub fn new(distribution: KeyDistribution, keys: u64) -> Self {
        let keys = keys.max(1);
        let kind = match distribution {
            KeyDistribution::Sequential => Kind::Sequential,
            KeyDistribution::Uniform => Kind::Uniform,
            KeyDistribution::Zipf { s } => Kind::Zipf(Zipf::new(keys, s)),
            KeyDistribution::HotSet { requests, keys: share } => {
                let hot = count::from_f64((share * count::to_f64(keys)).round()).clamp(1, keys);
                Kind::HotSet { requests, hot }
            }
            KeyDistribution::Latest { s } => Kind::Latest(Zipf::new(keys, s)),
        };
        Self { keys, kind }
    }

    /// The key of one request. `rank` is how many of its operation came before it, `newest` how many keys were
    /// written in sequence before it; only the distribution that needs one asks for it.
    pub fn choose(&self, draw: &mut Draw, rank: impl FnOnce() -> u64, newest: impl FnOnce() -> u64) -> u64 {
        match &self.kind {
            Kind::Sequential => rank() % self.keys,
            Kind::Uniform => draw.below(self.keys),
            Kind::Zipf(zipf) => zipf.draw(draw) - 1,
            Kind::HotSet { requests, hot } => {
                let cold = self.keys - hot;
                if cold == 0 || draw.unit() < *requests { draw.below(*hot) } else { hot + draw.below(cold) }
            }
            Kind::Latest(zipf) => {
                // The newest key is the one before the next to be written; before the first it is the last of all.
                let back = zipf.draw(draw) % self.keys;
                (newest() % self.keys + self.keys - back) % self.keys
            }
        }
    }

    /// Whether it goes through the keys one after the other.
    #[must_use]
    pub fn is_sequential(&self) -> bool {
        matches!(self.kind, Kind::Sequential)
    }
}

/// The names of the keys of one type: `<prefix><type>:{<group>}:<number in 12 digits>`.
#[derive(Clone, Debug)]
pub struct KeyNames {
    head: Vec<u8>,
    group: u64,
    keys: u64,
}

impl KeyNames {
    /// The keys of a type under a prefix.
    #[must_use]
    pub fn new(prefix: &str, space: &str, spec: &KeyspaceSpec) -> Self {
        let head = format!("{prefix}{space}:").into_bytes();
        Self { head, group: u64::from(spec.group.max(1)), keys: spec.keys.max(1) }
    }

    /// Appends the name of a key.
    pub fn write(&self, key: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        let mut digits = itoa::Buffer::new();
        if self.group > 1 {
            out.push(b'{');
            out.extend_from_slice(digits.format(key / self.group).as_bytes());
            out.extend_from_slice(b"}:");
        }
        let id = digits.format(key).as_bytes();
        out.resize(out.len() + 12_usize.saturating_sub(id.len()), b'0');
        out.extend_from_slice(id);
    }

    /// The key that has this name; `None` for any name that [`KeyNames::write`] does not make of one of the keys.
    #[must_use]
    pub fn parse(&self, name: &[u8]) -> Option<u64> {
        let digits = name.rsplit(|byte| *byte == b':').next()?;
        let key = std::str::from_utf8(digits).ok()?.parse::<u64>().ok().filter(|key| *key < self.keys)?;
        let mut written = Vec::with_capacity(name.len());
        self.write(key, &mut written);
        (written == name).then_some(key)
    }

    /// The `i`-th key of those that a command with several keys takes, beginning with `key`: they share its slot and
    /// are distinct as long as there are enough in its group.
    #[must_use]
    pub fn companion(&self, key: u64, i: u64) -> u64 {
        let first = key / self.group * self.group;
        let size = self.group.min(self.keys - first).max(1);
        first + (key - first + i) % size
    }
}
