//! A row as a JSON document: its vector as an array of numbers, its tags as an array of words.
//!
//! Law: each number is the shortest text that reads as the same FLOAT32.

use std::io::Write;

use vst_common::attributes::{Attributes, NUMBER_FIELD, TAG_FIELD};

/// The document of a row; the vector is FLOAT32, little endian.
pub(super) fn write(field: &str, vector: &[u8], attributes: &Attributes, row: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(vector.len() * 2 + 32);
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(b"\":[");
    let (numbers, _) = vector.as_chunks::<4>();
    for (i, number) in numbers.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        // Writing to memory cannot fail.
        let _ = write!(out, "{}", f32::from_le_bytes(*number));
    }
    out.push(b']');
    let (mut tags, mut number) = (Vec::new(), Vec::new());
    attributes.write(row, &mut tags, &mut number);
    if attributes.has_tags() {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(TAG_FIELD.as_bytes());
        out.extend_from_slice(b"\":[");
        for (i, tag) in tags.split(|byte| *byte == b',').enumerate() {
            out.extend_from_slice(if i > 0 { b",\"" } else { b"\"" });
            out.extend_from_slice(tag);
            out.push(b'"');
        }
        out.push(b']');
    }
    if attributes.number {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(NUMBER_FIELD.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(&number);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vst_common::attributes::Filter;

    use super::*;

    proptest! {
        #[test]
        fn a_document_reads_as_the_row_that_was_written(
            numbers in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 0..20),
            row in 0u64..100,
            tags in any::<bool>(),
            number in any::<bool>(),
        ) {
            let filters = [tags.then_some(Filter::Tag(0.5)), number.then_some(Filter::Numeric(0.5))];
            let attributes = Attributes::for_filters(1, 100, filters.into_iter().flatten());
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            let text = write("v", &bytes, &attributes, row);
            let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let found: Vec<f32> = serde_json::from_value(read["v"].clone()).unwrap();
            prop_assert_eq!(found, numbers);
            let (mut tag, mut own) = (Vec::new(), Vec::new());
            attributes.write(row, &mut tag, &mut own);
            prop_assert_eq!(read.get(TAG_FIELD).is_some(), tags);
            if let Some(words) = read.get(TAG_FIELD).and_then(|words| words.as_array()) {
                let joined: Vec<&str> = words.iter().filter_map(|word| word.as_str()).collect();
                prop_assert_eq!(joined.join(","), String::from_utf8(tag).unwrap());
            }
            prop_assert_eq!(read.get(NUMBER_FIELD).map(ToString::to_string), number.then(|| String::from_utf8(own).unwrap()));
        }
    }
}
