//! Which key a row has, and which slot a key has.
//!
//! Used by the load lanes (to write and to route), by the recall judge (to read an answer back) and by clean-up.
//! Laws: [`KeySpace::parse`] is the exact inverse of [`KeySpace::write`] and refuses every other key; no two cells
//! share a key; [`slot`] agrees with the server.

use std::ops::RangeInclusive;

use crc::{CRC_16_XMODEM, Crc};

/// Number of hash slots of a Valkey cluster.
pub const SLOTS: u16 = 16_384;

/// Shortest form of a row number in a key: 12 decimal digits, padded with zeros.
const ROW_DIGITS: usize = 12;
/// What comes between the prefix and the number of a copy.
const COPY_WORD: &[u8] = b"expand_";
/// Hash tags that [`tag_for_slot`] tries; the first 16,384 slots are all reached well before.
const TAGS_TRIED: u32 = 1_000_000;

/// The CRC of the cluster specification: polynomial 0x1021, initial value 0, not reflected.
const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The keys under one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpace {
    prefix: Vec<u8>,
}

impl KeySpace {
    /// The keys under `prefix`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.as_bytes().to_vec() }
    }

    /// Appends the key of a row: `<prefix><id>` for the base (copy 0), `<prefix>expand_<copy>_<id>` for the others,
    /// where the id is the row in at least 12 digits.
    pub fn write(&self, copy: u32, row: u64, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(&self.prefix);
        if copy > 0 {
            out.extend_from_slice(COPY_WORD);
            out.extend_from_slice(digits.format(copy).as_bytes());
            out.push(b'_');
        }
        let id = digits.format(row).as_bytes();
        out.resize(out.len() + ROW_DIGITS.saturating_sub(id.len()), b'0');
        out.extend_from_slice(id);
    }

    /// The (copy, row) that has this key; `None` for any key that [`KeySpace::write`] does not make.
    #[must_use]
    pub fn parse(&self, key: &[u8]) -> Option<(u32, u64)> {
        let rest = key.strip_prefix(self.prefix.as_slice())?;
        let (copy, id) = match rest.strip_prefix(COPY_WORD) {
            None => (0, rest),
            Some(rest) => {
                let end = memchr::memchr(b'_', rest)?;
                let (number, id) = (rest.get(..end)?, rest.get(end + 1..)?);
                if number.first() == Some(&b'0') {
                    return None;
                }
                (u32::try_from(decimal(number)?).ok()?, id)
            }
        };
        let is_padded = id.first() == Some(&b'0');
        if id.len() < ROW_DIGITS || (id.len() > ROW_DIGITS && is_padded) {
            return None;
        }
        Some((copy, decimal(id)?))
    }
}

/// Digits only, no sign, no overflow.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |n, byte| {
        let digit = byte.checked_sub(b'0').filter(|d| *d <= 9)?;
        n.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The hash slot of a key: CRC16 (XMODEM) modulo 16,384 of the hash tag, or of the whole key where it has none.
///
/// The hash tag is what stands between the first `{` and the first `}` after it, if that is not empty (cluster
/// specification of Valkey, "Hash tags").
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    CRC16.checksum(hash_tag(key).unwrap_or(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', key)?;
    let rest = key.get(open + 1..)?;
    let tag = rest.get(..memchr::memchr(b'}', rest)?)?;
    (!tag.is_empty()).then_some(tag)
}

/// The smallest decimal number which, as a hash tag, lies in one of the slot ranges: `name{3}` then belongs to the
/// node that owns them. The same for the same ranges, always; `None` where the ranges hold no slot.
#[must_use]
pub fn tag_for_slot(ranges: &[RangeInclusive<u16>]) -> Option<String> {
    let mut digits = itoa::Buffer::new();
    (0..TAGS_TRIED).find_map(|number| {
        let tag = digits.format(number);
        let slot = slot(tag.as_bytes());
        ranges.iter().any(|range| range.contains(&slot)).then(|| tag.to_owned())
    })
}

/// Name of the hash that says which run owns the keys under a prefix.
///
/// It must lie outside the prefix, or clean-up and key counts would take it for a row: see [`marker_is_outside`].
#[must_use]
pub fn owner_marker(prefix: &str) -> String {
    format!("_vst_owner:{prefix}")
}

/// Name of the key that a run renews for as long as it works under a prefix. Outside the prefix wherever the marker is:
/// a prefix that begins both names cannot be used.
#[must_use]
pub fn life_sign(prefix: &str) -> String {
    format!("_vst_alive:{prefix}")
}

/// Whether the ownership hash of a prefix lies outside it; false for the empty prefix and for beginnings of the
/// marker's own name, which can therefore not be used as prefixes.
#[must_use]
pub fn marker_is_outside(prefix: &str) -> bool {
    !owner_marker(prefix).starts_with(prefix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(prefix: &str, copy: u32, row: u64) -> Vec<u8> {
        let mut out = Vec::new();
        KeySpace::new(prefix).write(copy, row, &mut out);
        out
    }

    #[test]
    fn keys_have_the_documented_form() {
        assert_eq!(key("vst:", 0, 42), b"vst:000000000042");
        assert_eq!(key("vst:", 7, 42), b"vst:expand_7_000000000042");
        assert_eq!(key("", 0, 1_234_567_890_123), b"1234567890123");
    }

    /// Vectors of the cluster specification and of a server's own CLUSTER KEYSLOT.
    #[test]
    fn slots_agree_with_the_cluster_specification() {
        assert_eq!(CRC16.checksum(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"bar"), 5_061);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{}{bar}"), CRC16.checksum(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{bar"), CRC16.checksum(b"foo{bar") % SLOTS);
        assert_eq!(slot(b"foo}{"), CRC16.checksum(b"foo}{") % SLOTS);
    }

    #[test]
    fn every_slot_has_a_tag() {
        let mut found = vec![false; usize::from(SLOTS)];
        for number in 0..TAGS_TRIED {
            found[usize::from(slot(number.to_string().as_bytes()))] = true;
        }
        assert!(found.iter().all(|f| *f));
        assert_eq!(tag_for_slot(&[]), None);
    }

    #[test]
    fn marker_lies_outside_every_prefix_that_is_allowed() {
        assert_eq!(owner_marker("vst:"), "_vst_owner:vst:");
        assert!(marker_is_outside("vst:"));
        for bad in ["", "_", "_vst_owner:", "_vst_owner:_vst_owner:"] {
            assert!(!marker_is_outside(bad), "{bad}");
        }
    }

    #[test]
    fn keys_of_others_are_refused() {
        let keys = KeySpace::new("vst:");
        for bad in [
            "",
            "vst:",
            "vst:1",
            "vst:00000000042",
            "vst:0000000000042",
            "vst:00000000004x",
            "vst:+00000000042",
            "vst:000000000042 ",
            "VST:000000000042",
            "vst:expand_0_000000000042",
            "vst:expand_01_000000000042",
            "vst:expand__000000000042",
            "vst:expand_4294967296_000000000042",
            "vst:expand_1_42",
            "vst:expand_1",
            "vst:expand_1_",
            "vst:99999999999999999999",
        ] {
            assert_eq!(keys.parse(bad.as_bytes()), None, "{bad}");
        }
    }

    fn prefixes() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[a-z0-9_:{}]{0,8}", Just(String::from("expand_1_"))]
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_write(prefix in prefixes(), copy in 0..=u32::MAX, row in 0..=u64::MAX) {
            let keys = KeySpace::new(&prefix);
            prop_assert_eq!(keys.parse(&key(&prefix, copy, row)), Some((copy, row)));
            prop_assert_eq!(keys.parse(&key(&prefix, 0, row)), Some((0, row)));
        }

        #[test]
        fn what_parse_accepts_write_would_make(
            prefix in prefixes(),
            rest in "(expand_[0-9]{0,3}_?)?[0-9]{10,14}x?",
        ) {
            let text = format!("{prefix}{rest}");
            if let Some((copy, row)) = KeySpace::new(&prefix).parse(text.as_bytes()) {
                prop_assert_eq!(key(&prefix, copy, row), text.into_bytes());
            }
        }

        #[test]
        fn a_tag_lies_in_the_asked_ranges(a in 0..SLOTS, b in 0..SLOTS) {
            let range = a.min(b)..=a.max(b);
            let tag = tag_for_slot(std::slice::from_ref(&range)).unwrap();
            let tagged = slot(format!("vst_index{{{tag}}}").as_bytes());
            prop_assert!(range.contains(&tagged));
        }
    }
}
