//! Many objects as one data set: which objects a URL with a pattern names, in the order of their rows.
//!
//! `train-{00000..00041}-of-00042.parquet` counts, with the zeros of its first number, and works for every store;
//! `part-*.fbin` asks the store for a list, sorted by name, and needs one that can give it.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::Error;

/// More objects than that are a mistake in the pattern.
const MOST: u64 = 100_000;

/// The paths that a path stands for: itself, where it has no pattern.
pub(super) async fn expand(store: &Arc<dyn ObjectStore>, path: &Path, url: &str) -> Result<Vec<Path>, Error> {
    let refused = |reason: String| Error::Reference { reference: url.to_owned(), reason };
    if let Some(counted) = counted(path.as_ref()).map_err(&refused)? {
        return Ok(counted.into_iter().map(Path::from).collect());
    }
    let name = path.filename().unwrap_or_default();
    let Some((before, after)) = name.split_once('*') else { return Ok(vec![path.clone()]) };
    let folder: Path = path.parts().take(path.parts().count().saturating_sub(1)).collect();
    let listed = store.list(Some(&folder)).try_collect::<Vec<_>>().await;
    let listed = listed.map_err(|source| super::location::failed(url, source))?;
    let mut found: Vec<Path> = listed
        .into_iter()
        .map(|meta| meta.location)
        .filter(|location| {
            let mut below = location.prefix_match(&folder).into_iter().flatten();
            let (Some(first), None) = (below.next(), below.next()) else { return false };
            let name = first.as_ref();
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        })
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(refused(format!("no object matches `{name}`")));
    }
    Ok(found)
}

/// `a{08..11}b` is a08b, a09b, a10b, a11b; `None` without such a group.
fn counted(text: &str) -> Result<Option<Vec<String>>, String> {
    let Some((before, inner, after)) = group(text) else { return Ok(None) };
    let Some((first, last)) = inner.split_once("..") else { return Ok(None) };
    let (Ok(from), Ok(to)) = (first.parse::<u64>(), last.parse::<u64>()) else { return Ok(None) };
    if to < from || to - from >= MOST {
        return Err(format!("`{{{inner}}}` counts no objects, or more than {MOST}"));
    }
    let width = first.len();
    Ok(Some((from..=to).map(|n| format!("{before}{n:0width$}{after}")).collect()))
}

/// The braces of a path, which a store's path may hold percent-encoded.
fn group(text: &str) -> Option<(&str, &str, &str)> {
    let split = |open: &str, close: &str| {
        let (before, rest) = text.split_once(open)?;
        let (inner, after) = rest.split_once(close)?;
        Some((before, inner, after))
    };
    split("{", "}").or_else(|| split("%7B", "%7D"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_with_the_zeros_of_its_first_number() {
        let names = counted("d/t-{008..010}-of-011.parquet").unwrap().unwrap();
        assert_eq!(names, ["d/t-008-of-011.parquet", "d/t-009-of-011.parquet", "d/t-010-of-011.parquet"]);
        assert_eq!(counted("plain.fbin").unwrap(), None);
        assert_eq!(counted("odd{name}.fbin").unwrap(), None);
        counted("t-{5..4}.fbin").unwrap_err();
        counted("t-{0..99999999999}.fbin").unwrap_err();
    }
}
