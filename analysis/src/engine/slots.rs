//! Histograms as the database merges them: counts by slot, taken straight from the HDR V2 bytes.
//!
//! A dense histogram of our bounds takes 190 KB, and a query may group by interval and node into tens of thousands
//! of groups. So a [`Merge`] keeps its inputs as the bytes they came in (about a kilobyte each) until they outgrow
//! [`PENDING_BYTES`], and only then counts, over the range of slots in use. Law: the bytes of a merge equal the
//! encoding of the merged histograms.

use std::sync::LazyLock;

use vst_common::count;
use vst_common::latency::{Error, HIGHEST_NS, Hdr};

/// How many bytes of encoded histograms a group keeps before it counts them.
const PENDING_BYTES: usize = 32 * 1024;

/// Cookie, payload length, normalising offset, digits, lowest, highest, ratio: all but the length are constant.
const HEADER_BYTES: usize = 40;

/// What all histograms of the program share.
struct Format {
    header: Vec<u8>,
    slots: usize,
}

static FORMAT: LazyLock<Result<Format, String>> = LazyLock::new(|| {
    let mut widest = Hdr::new();
    widest.record(HIGHEST_NS);
    let bytes = widest.encode().map_err(|e| e.to_string())?;
    let header = bytes.get(..HEADER_BYTES).ok_or("a histogram without a header")?.to_vec();
    let mut slots = 0;
    for_each_count(bytes.get(HEADER_BYTES..).unwrap_or_default(), usize::MAX, |slot, _| slots = slot + 1)?;
    Ok(Format { header, slots })
});

fn format() -> Result<&'static Format, Error> {
    FORMAT.as_ref().map_err(|e| Error::Encode(e.clone()))
}

/// A merge of encoded histograms in progress.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    pending: Vec<u8>,
    /// Ends of the histograms in `pending`.
    ends: Vec<usize>,
    counts: Slots,
    any: bool,
}

impl Merge {
    /// Adds one HDR V2 histogram.
    ///
    /// # Errors
    /// [`Error::Decode`] when the bytes are not one; with valid headers a damaged body may show only in
    /// [`Merge::finish`].
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.any = true;
        if payload(bytes)?.is_some() {
            self.keep(bytes)
        } else {
            // Other bounds than ours, for instance from another tool: brought to ours first.
            let own = Hdr::decode(bytes)?.encode()?;
            self.keep(&own)
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.counts.counts.is_empty() {
            // A large group: it counts already, and bytes need not be kept.
            return self.counts.add(bytes);
        }
        self.pending.extend_from_slice(bytes);
        self.ends.push(self.pending.len());
        if self.pending.len() > PENDING_BYTES {
            self.count()?;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Error> {
        let mut start = 0;
        for end in self.ends.drain(..) {
            self.counts.add(self.pending.get(start..end).unwrap_or_default())?;
            start = end;
        }
        self.pending = Vec::new();
        Ok(())
    }

    /// The merged histogram as HDR V2 bytes; `None` when nothing was added.
    ///
    /// # Errors
    /// [`Error::Decode`] when one of the inputs was damaged.
    pub(crate) fn finish(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if !self.any {
            return Ok(None);
        }
        self.count()?;
        self.counts.encode().map(Some)
    }

    /// Memory held, bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.pending.capacity()
            + self.ends.capacity() * size_of::<usize>()
            + self.counts.counts.capacity() * size_of::<u64>()
    }
}

/// Number of values in an HDR V2 histogram.
///
/// # Errors
/// [`Error::Decode`] when the bytes are not one.
pub(crate) fn len(bytes: &[u8]) -> Result<u64, Error> {
    match payload(bytes)? {
        Some(body) => {
            let mut total = 0_u64;
            for_each_count(body, format()?.slots, |_, n| total = total.saturating_add(n))
                .map_err(|reason| Error::Decode { length: bytes.len(), reason })?;
            Ok(total)
        }
        None => Ok(Hdr::decode(bytes)?.len()),
    }
}

/// Counts of the slots in use: `counts[i]` belongs to slot `first + i`.
#[derive(Debug, Default)]
struct Slots {
    first: usize,
    counts: Vec<u64>,
}

impl Slots {
    fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let damaged = |reason| Error::Decode { length: bytes.len(), reason };
        let body = payload(bytes)?.ok_or_else(|| damaged(String::from("bounds differ from ours")))?;
        for_each_count(body, format()?.slots, |slot, n| self.add_at(slot, n)).map_err(damaged)
    }

    fn add_at(&mut self, slot: usize, n: u64) {
        if self.counts.is_empty() {
            self.first = slot;
        } else if slot < self.first {
            self.counts.splice(0..0, std::iter::repeat_n(0, self.first - slot));
            self.first = slot;
        }
        let i = slot - self.first;
        if i >= self.counts.len() {
            self.counts.resize(i + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(i) {
            *count = count.saturating_add(n);
        }
    }

    /// Counts up to the last that is not zero; a run of zeros is its negative length, a single zero is 0.
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut out = format()?.header.clone();
        let mut zeros = count::to_i64(count::len(self.first));
        for n in &self.counts {
            if *n == 0 {
                zeros += 1;
                continue;
            }
            put_zeros(&mut out, zeros);
            zeros = 0;
            put(&mut out, count::to_i64(*n));
        }
        if self.counts.is_empty() {
            put(&mut out, 0);
        }
        let length = u32::try_from(out.len() - HEADER_BYTES)
            .map_err(|_| Error::Encode(String::from("a body of more than 4 GiB")))?;
        if let Some(field) = out.get_mut(4..8) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        Ok(out)
    }
}

/// The body of a histogram with our bounds; `None` when it has others.
fn payload(bytes: &[u8]) -> Result<Option<&[u8]>, Error> {
    let damaged = |reason: &str| Error::Decode { length: bytes.len(), reason: reason.to_owned() };
    let (header, body) =
        bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| damaged("shorter than its header"))?;
    let ours = &format()?.header;
    if header.get(..4) != ours.get(..4) || header.get(8..) != ours.get(8..) {
        return Ok(None);
    }
    let length = header.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
    let length = count::index(u64::from(length));
    body.get(..length).map(Some).ok_or_else(|| damaged("shorter than its stated length"))
}

/// Calls `each(slot, count)` for every count above zero.
fn for_each_count(body: &[u8], slots: usize, mut each: impl FnMut(usize, u64)) -> Result<(), String> {
    let mut rest = body;
    let mut slot = 0_usize;
    while let Some((first, after)) = rest.split_first() {
        // Nearly all counts and runs are small, and take one byte.
        let (value, left) = match first & 0x80 {
            0 => (unzigzag(u64::from(*first)), after),
            _ => take(rest).ok_or("ends within a count")?,
        };
        rest = left;
        if value < 0 {
            slot = slot.saturating_add(count::index(value.unsigned_abs()));
        } else {
            if value > 0 {
                if slot >= slots {
                    return Err(format!("a count in slot {slot} of {slots}"));
                }
                each(slot, value.unsigned_abs());
            }
            slot = slot.saturating_add(1);
        }
    }
    Ok(())
}

/// Reads one zig-zag LEB128-64b9B number: seven bits a byte, the ninth byte whole.
fn take(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().enumerate() {
        if i == 8 {
            value |= u64::from(*byte) << 56;
        } else {
            value |= u64::from(byte & 0x7f) << (7 * i);
        }
        if i == 8 || byte & 0x80 == 0 {
            return Some((unzigzag(value), bytes.get(i + 1..)?));
        }
    }
    None
}

fn put_zeros(out: &mut Vec<u8>, zeros: i64) {
    match zeros {
        0 => {}
        1 => put(out, 0),
        _ => put(out, -zeros),
    }
}

fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    for _ in 0..8 {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
    let [low, ..] = rest.to_le_bytes();
    out.push(low);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vst_common::latency::LOWEST_NS;

    use super::*;

    fn hdr(values: &[u64]) -> Hdr {
        let mut h = Hdr::new();
        for v in values {
            h.record(*v);
        }
        h
    }

    fn latencies() -> impl Strategy<Value = Vec<u64>> {
        // Spread over the orders of magnitude, as latencies are, with both bounds among them.
        let one = prop_oneof![
            (4_u32..42, 0.0_f64..1.0)
                .prop_map(|(e, x)| (1_u64 << e) + count::from_f64(x * count::to_f64(1 << e))),
            Just(0),
            Just(LOWEST_NS),
            Just(HIGHEST_NS),
            Just(u64::MAX),
        ];
        prop::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn the_bytes_of_a_merge_are_those_of_the_merged_histograms(
            parts in prop::collection::vec(latencies(), 1..12),
            repeat in 1_usize..200,
        ) {
            let mut merge = Merge::default();
            let mut whole = Hdr::new();
            // Repeats push the inputs past what is kept as bytes.
            for part in parts.iter().cycle().take(parts.len() * repeat) {
                let h = hdr(part);
                merge.add(&h.encode().unwrap()).unwrap();
                whole.merge(&h);
            }
            let bytes = merge.finish().unwrap().unwrap();
            prop_assert_eq!(&bytes, &whole.encode().unwrap());
            prop_assert_eq!(len(&bytes).unwrap(), whole.len());
        }

        #[test]
        fn any_number_survives_the_encoding(value: i64) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert!(bytes.len() <= 9);
            prop_assert_eq!(take(&bytes), Some((value, &[][..])));
        }

        #[test]
        fn damaged_bytes_are_an_error_or_a_histogram_but_never_a_panic(
            values in latencies(), at in 0_usize..400, byte: u8, cut in 0_usize..400,
        ) {
            let mut bytes = hdr(&values).encode().unwrap();
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
            bytes.truncate(bytes.len().saturating_sub(cut));
            // Header fields that ask for a huge histogram are the library's affair.
            prop_assume!(bytes.len() < HEADER_BYTES || !(8..HEADER_BYTES).contains(&at));
            let mut merge = Merge::default();
            let _ = merge.add(&bytes).and_then(|()| merge.finish());
            let _ = len(&bytes);
        }
    }

    #[test]
    fn a_histogram_of_other_bounds_is_merged_too() {
        use hdrhistogram::serialization::{Serializer, V2Serializer};
        let mut other = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1_000_000, 2).unwrap();
        other.record(5_000).unwrap();
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&other, &mut bytes).unwrap();
        let mut merge = Merge::default();
        merge.add(&bytes).unwrap();
        merge.add(&hdr(&[5_000]).encode().unwrap()).unwrap();
        assert_eq!(Hdr::decode(&merge.finish().unwrap().unwrap()).unwrap().len(), 2);
    }

    #[test]
    fn a_small_group_costs_what_it_was_given() {
        let mut merge = Merge::default();
        let wide = hdr(&[LOWEST_NS, HIGHEST_NS]).encode().unwrap();
        merge.add(&wide).unwrap();
        assert!(merge.size_bytes() < 1_024, "{} bytes for {}", merge.size_bytes(), wide.len());
    }
}
