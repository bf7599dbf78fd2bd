//! What jemalloc says of itself, read from the text that `MEMORY MALLOC-STATS` returns.
//!
//! The tables `bins:` and `large:` are read by the names of their columns, so that more or fewer of them do no harm.
//! With several arenas only the section of all of them merged is read. Law: the classes' allocated bytes add up to the
//! total of the same text (jemalloc's `stats.allocated` is defined as that sum); a text that is not understood is said
//! and never half read.

use vst_common::batch::allocator::{AllocatorTotals, ClassKind, SizeClass};

/// The section that sums all arenas; it is there only with more than one.
const MERGED: &str = "Merged arenas stats:";
/// How each arena's own section begins.
const ARENA: &str = "\narenas[";
/// A column beside a counter: its growth per second.
const PER_SECOND: &str = "(#/sec)";

/// An allocator that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statistics {
    pub(super) totals: AllocatorTotals,
    /// Every class that was ever used, in order of size.
    pub(super) classes: Vec<SizeClass>,
}

/// Reads the text.
///
/// # Errors
/// Why it is not understood, in words for a person.
pub(super) fn parse(text: &str) -> Result<Statistics, String> {
    if !text.contains("Begin jemalloc statistics") {
        // Other allocators answer with one sentence.
        let said = text.trim();
        let said: String = said.lines().next().unwrap_or_default().chars().take(80).collect();
        return Err(format!("no jemalloc statistics: `{said}`"));
    }
    // The totals stand on one line.
    let line = text.lines().find(|line| line.starts_with("Allocated: ")).unwrap_or_default();
    let allocated = total(line, "Allocated: ")?;
    let totals =
        AllocatorTotals { allocated, active: total(line, "active: ")?, resident: total(line, "resident: ")? };
    let page = total(text, "Page size: ").unwrap_or(4096);
    let section = match text.split_once(MERGED) {
        Some((_, after)) => after.split(ARENA).next().unwrap_or(after),
        None => text,
    };
    let mut classes = table(section, ClassKind::Bin, page)?;
    classes.extend(table(section, ClassKind::Large, page)?);
    let sum: u64 = classes.iter().map(|class| class.allocated_bytes).sum();
    if sum != allocated {
        return Err(format!(
            "the size classes hold {sum} B, jemalloc says {allocated} B: a format of another version?"
        ));
    }
    Ok(Statistics { totals, classes })
}

/// The number behind the first occurrence of a label.
fn total(text: &str, label: &str) -> Result<u64, String> {
    let (_, after) =
        text.split_once(label).ok_or_else(|| format!("no `{}` in jemalloc's text", label.trim()))?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().map_err(|_| format!("no number after `{}` in jemalloc's text", label.trim()))
}

/// One of the two tables of classes, which begin with a line of column names and end with the next heading.
fn table(section: &str, kind: ClassKind, page: u64) -> Result<Vec<SizeClass>, String> {
    let name = match kind {
        ClassKind::Bin => "bins:",
        ClassKind::Large => "large:",
    };
    let mut lines = section.lines().skip_while(|line| {
        // `large:` is also a line of counters further up.
        !(line.starts_with(name) && line.contains("allocated") && line.contains("ind"))
    });
    let heading = lines.next().ok_or_else(|| format!("no table `{name}` in jemalloc's text"))?;
    let columns: Vec<&str> = heading.split_whitespace().skip(1).collect();
    let mut classes = Vec::new();
    for line in lines.take_while(|line| line.starts_with(char::is_whitespace)) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        // Between classes that were used stand dashes for those that were not.
        if cells.iter().all(|cell| cell.chars().all(|c| c == '-')) {
            continue;
        }
        if cells.len() != columns.len() {
            return Err(format!(
                "a row of `{name}` has {} values for {} columns",
                cells.len(),
                columns.len()
            ));
        }
        let value = |wanted: &str| {
            let at = columns.iter().position(|column| *column == wanted && *column != PER_SECOND)?;
            cells.get(at)?.parse::<u64>().ok()
        };
        let (Some(size_bytes), Some(allocated_bytes)) = (value("size"), value("allocated")) else {
            return Err(format!("a row of `{name}` has no size or no allocated bytes"));
        };
        let (slabs, pages_per_slab) = (value("curslabs"), value("pgs"));
        let held_bytes = match kind {
            ClassKind::Bin => slabs
                .zip(pages_per_slab)
                .map(|(slabs, pages)| slabs.saturating_mul(pages).saturating_mul(page)),
            ClassKind::Large => Some(allocated_bytes),
        };
        classes.push(SizeClass {
            kind,
            size_bytes,
            allocated_bytes,
            held_bytes,
            regions: value("curregs").or_else(|| value("curlextents")),
            slabs,
            nonfull_slabs: value("nonfull_slabs"),
            regions_per_slab: value("regs"),
            pages_per_slab,
            slabs_made: value("nslabs").or_else(|| value("newslabs")),
            nmalloc: value("nmalloc"),
            ndalloc: value("ndalloc"),
        });
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vst_common::count;

    use super::*;

    /// Valkey 8.0.1 of Debian with RediSearch, half of 20,000 vectors deleted.
    const ONE: &str = include_str!("jemalloc-5.3.0.one-arena.txt");
    /// The same server with four I/O threads: four arenas, of which the first is kept here.
    const MERGED: &str = include_str!("jemalloc-5.3.0.merged.txt");

    #[test]
    fn classes_of_recorded_texts_add_up_to_the_totals_of_the_same_text() {
        for (text, allocated, active) in [(ONE, 23_037_768, 34_115_584), (MERGED, 6_841_488, 8_118_272)] {
            let found = parse(text).unwrap();
            assert_eq!((found.totals.allocated, found.totals.active), (allocated, active));
            assert_eq!(found.classes.iter().map(|c| c.allocated_bytes).sum::<u64>(), allocated);
            // Active is the pages of slabs and extents; an extent has a page more, so that addresses differ in caches.
            let held: u64 = found.classes.iter().filter_map(|c| c.held_bytes).sum();
            let extents: u64 =
                found.classes.iter().filter(|c| c.kind == ClassKind::Large).filter_map(|c| c.regions).sum();
            assert_eq!(held + extents * 4096, active);
            for class in found.classes.iter().filter(|c| c.kind == ClassKind::Bin) {
                assert_eq!(class.allocated_bytes, class.size_bytes * class.regions.unwrap());
                assert!(class.held_bytes.unwrap() >= class.allocated_bytes, "{class:?}");
                assert!(class.slabs_made >= class.slabs && class.nmalloc >= class.ndalloc, "{class:?}");
            }
        }
    }

    #[test]
    fn a_class_is_read_by_the_names_of_its_columns() {
        let found = parse(ONE).unwrap();
        let class = found.classes.iter().find(|c| c.size_bytes == 640).unwrap();
        let wanted = SizeClass {
            kind: ClassKind::Bin,
            size_bytes: 640,
            allocated_bytes: 6_497_280,
            held_bytes: Some(626 * 5 * 4096),
            regions: Some(10_152),
            slabs: Some(626),
            nonfull_slabs: Some(625),
            regions_per_slab: Some(32),
            pages_per_slab: Some(5),
            slabs_made: class.slabs_made,
            nmalloc: Some(20_032),
            ndalloc: Some(9_880),
        };
        assert_eq!(*class, wanted);
        assert!((class.utilisation().unwrap() - 0.5068).abs() < 1e-4);
        // A version that knows neither slabs with room nor rates.
        let older = ONE.replace("nonfull_slabs", "some_new_name");
        assert_eq!(parse(&older).unwrap().classes.iter().find_map(|c| c.nonfull_slabs), None);
    }

    #[test]
    fn another_allocator_and_another_format_are_said() {
        let libc = parse("Stats not supported for the current allocator").unwrap_err();
        assert_eq!(libc, "no jemalloc statistics: `Stats not supported for the current allocator`");
        assert!(parse(&ONE.replace("bins:", "buckets:")).unwrap_err().contains("no table `bins:`"));
        let lost =
            ONE.replace("                 640  17      6497280", "                 640  17            0");
        assert_ne!(lost, ONE);
        assert!(parse(&lost).unwrap_err().contains("jemalloc says 23037768 B"));
        let cell =
            ONE.replace("                 640  17      6497280", "                 640  17     6497280 1");
        assert!(parse(&cell).unwrap_err().contains("values for"));
    }

    proptest! {
        /// A text that is cut anywhere is understood whole or refused.
        #[test]
        fn a_cut_text_is_never_half_read(at in any::<prop::sample::Index>()) {
            let cut = &ONE[..at.index(ONE.len())];
            if let Ok(found) = parse(cut) {
                prop_assert_eq!(found.classes.iter().map(|c| c.allocated_bytes).sum::<u64>(), 23_037_768);
                prop_assert!(count::len(found.classes.len()) > 30);
            }
        }
    }
}
