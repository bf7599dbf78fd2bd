//! Encoded histograms: whether bytes are one of ours, and the sum of many without decoding each.
//!
//! What is delivered or shown is checked before a library makes room for what it claims: the library believes a
//! histogram's own word about its length and bounds, which can ask for gigabytes. The archive sums what was taken in.
//! Law: what passes is an HDR V2 histogram of `vst_common::latency`'s bounds; a sum equals the merge of the decoded.

use vst_common::count;
use vst_common::latency::{HIGHEST_NS, Hdr, LOWEST_NS, SIGNIFICANT_DIGITS};

/// Cookie of HDR V2 with counts as numbers of variable length.
const COOKIE: u32 = 0x1c84_9313;
/// Cookie, length, offset, digits, lowest, highest, ratio.
const HEADER_BYTES: usize = 40;
/// A number takes at most so many bytes; the last of them has no mark.
const LONGEST_NUMBER: u32 = 9;
/// Counts of our bounds: halves of 2,048 steps, one more than there are doublings from the lowest to the highest.
const COUNTS: u64 = {
    let (mut reach, mut halves) = ((2 * SUB_BUCKETS) * LOWEST_NS, 2);
    while reach <= HIGHEST_NS {
        reach *= 2;
        halves += 1;
    }
    halves * SUB_BUCKETS
};
/// Steps of half a bucket at three digits.
const SUB_BUCKETS: u64 = 1_024;

/// Why bytes are no histogram of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It begins as none does.
    #[error("not an HDR V2 histogram of vst's bounds")]
    Header,
    /// It is longer or shorter than it says.
    #[error("an HDR V2 histogram of {found} bytes says that it has {claimed}")]
    Length {
        /// By its own word.
        claimed: u64,
        /// What there is.
        found: u64,
    },
    /// It counts values that no histogram of these bounds has.
    #[error("an HDR V2 histogram counts values outside its bounds")]
    Counts,
}

/// Whether these are the bytes of one.
///
/// # Errors
/// [`Error`] saying why not.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Error> {
    walk(bytes, |_, _| {})
}

/// Tells of every position that counts something, and how much.
fn walk(bytes: &[u8], mut counted: impl FnMut(u64, u64)) -> Result<(), Error> {
    let (header, mut numbers) = bytes.split_at_checked(HEADER_BYTES).ok_or(Error::Header)?;
    let mut expected = Vec::with_capacity(HEADER_BYTES);
    expected.extend(COOKIE.to_be_bytes());
    expected.extend(header.get(4..8).unwrap_or_default());
    expected.extend(0_u32.to_be_bytes());
    expected.extend(u32::from(SIGNIFICANT_DIGITS).to_be_bytes());
    expected.extend(LOWEST_NS.to_be_bytes());
    expected.extend(HIGHEST_NS.to_be_bytes());
    expected.extend(1.0_f64.to_be_bytes());
    if header != expected {
        return Err(Error::Header);
    }
    let claimed = header.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    let (claimed, found) = (u64::from(claimed), count::len(numbers.len()));
    if claimed != found {
        return Err(Error::Length { claimed, found });
    }
    let mut at = 0_u64;
    while !numbers.is_empty() {
        let (number, rest) = number(numbers).ok_or(Error::Counts)?;
        numbers = rest;
        // Signs alternate: an odd number is a run of zeros, an even one the double of a count.
        let (count, step) = match number % 2 {
            1 => (0, (number / 2).saturating_add(1)),
            _ => (number / 2, 1),
        };
        if count > 0 {
            if at >= COUNTS {
                return Err(Error::Counts);
            }
            counted(at, count);
        }
        at = at.checked_add(step).filter(|at| *at <= COUNTS).ok_or(Error::Counts)?;
    }
    Ok(())
}

/// The value at a quantile of an encoded histogram, as [`Hdr::quantile`] gives it; `None` where nothing is counted.
///
/// # Errors
/// [`Error`] when the bytes are none of ours.
pub(crate) fn quantile(bytes: &[u8], q: f64) -> Result<Option<u64>, Error> {
    let mut total = 0_u64;
    walk(bytes, |_, count| total = total.saturating_add(count))?;
    let rank = count::from_f64((q * count::to_f64(total)).ceil()).clamp(1, total.max(1));
    let (mut below, mut found) = (0_u64, None);
    walk(bytes, |at, count| {
        below = below.saturating_add(count);
        if found.is_none() && below >= rank {
            found = Some(value(at.saturating_add(1)).saturating_sub(1));
        }
    })?;
    Ok(found)
}

/// The sum of encoded histograms.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    /// Empty until something was added.
    counts: Vec<u64>,
}

impl Sum {
    /// Adds one.
    ///
    /// # Errors
    /// [`Error`] when the bytes are none of ours; the sum is of no use then.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.counts.resize(count::index(COUNTS), 0);
        walk(bytes, |at, more| {
            if let Some(count) = self.counts.get_mut(count::index(at)) {
                *count = count.saturating_add(more);
            }
        })
    }

    /// What was added; `None` where nothing was. The next sum begins.
    pub(crate) fn take(&mut self) -> Option<Hdr> {
        if self.counts.is_empty() {
            return None;
        }
        let mut sum = Hdr::new();
        for (at, count) in (0..).zip(&self.counts).filter(|(_, count)| **count > 0) {
            sum.record_many(value(at), *count);
        }
        self.counts.clear();
        Some(sum)
    }
}

/// The least value that is counted at a position.
fn value(at: u64) -> u64 {
    match (at / SUB_BUCKETS).checked_sub(1) {
        None => at * LOWEST_NS,
        Some(doublings) => (((at % SUB_BUCKETS) + SUB_BUCKETS) * LOWEST_NS) << doublings,
    }
}

/// The first number and what is behind it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (place, byte) in (0..LONGEST_NUMBER).zip(bytes) {
        let last = place + 1 == LONGEST_NUMBER;
        let digits = if last { *byte } else { byte & 0x7f };
        value |= u64::from(digits) << (7 * place);
        if last || byte & 0x80 == 0 {
            return Some((value, bytes.get(count::index(u64::from(place) + 1)..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(values: &[(u64, u64)]) -> Vec<u8> {
        let mut hdr = Hdr::new();
        values.iter().for_each(|(ns, n)| {
            hdr.record_many(*ns, *n);
        });
        hdr.encode().unwrap()
    }

    #[test]
    fn what_claims_more_than_it_has_or_other_bounds_is_refused() {
        let good = encoded(&[(1_000, 3), (HIGHEST_NS, 1)]);
        assert_eq!(check(&good), Ok(()));
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            check(&bytes)
        };
        assert!(matches!(with(4, 0xff), Err(Error::Length { .. })), "gigabytes");
        assert_eq!(with(15, 5), Err(Error::Header), "more digits");
        assert_eq!(with(24, 0x7f), Err(Error::Header), "a higher bound");
        assert_eq!(with(0, 0), Err(Error::Header));
        assert_eq!(check(&[]), Err(Error::Header));
        // The run of zeros that has no positive counterpart, and a value behind the last.
        for numbers in [vec![0xff; 9], [vec![0xff, 0xff, 0xff, 0x7f], vec![2]].concat()] {
            let mut bytes = good[..HEADER_BYTES].to_vec();
            bytes[4..8].copy_from_slice(&u32::try_from(numbers.len()).unwrap().to_be_bytes());
            bytes.extend(numbers);
            assert_eq!(check(&bytes), Err(Error::Counts));
        }
    }

    proptest! {
        #[test]
        fn a_sum_is_the_merge_of_the_decoded(
            parts in prop::collection::vec(
                prop::collection::vec((0..2 * HIGHEST_NS, 1_u64..1 << 30), 0..20), 1..5)
        ) {
            let (mut sum, mut merged) = (Sum::default(), Hdr::new());
            prop_assert_eq!(sum.take(), None);
            for part in &parts {
                let bytes = encoded(part);
                sum.add(&bytes).unwrap();
                merged.merge(&Hdr::decode(&bytes).unwrap());
            }
            let sum = sum.take().unwrap();
            prop_assert_eq!(sum.encode().unwrap(), merged.encode().unwrap());
            prop_assert_eq!((sum.len(), sum.max()), (merged.len(), merged.max()));
            for q in [0.5, 0.99] {
                prop_assert_eq!(quantile(&sum.encode().unwrap(), q), Ok(merged.quantile(q)));
            }
        }

        #[test]
        fn every_histogram_of_ours_passes(
            values in prop::collection::vec((0..2 * HIGHEST_NS, 1_u64..1 << 40), 0..40)
        ) {
            prop_assert_eq!(check(&encoded(&values)), Ok(()));
        }

        #[test]
        fn what_passes_can_be_read(
            values in prop::collection::vec((0..HIGHEST_NS, 1_u64..300), 0..20),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = encoded(&values);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if check(&bytes).is_ok() {
                prop_assert!(Hdr::decode(&bytes).is_ok());
            }
        }
    }
}
