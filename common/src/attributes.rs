//! What rows carry beside their vectors, so that a query can ask among a part of them only.
//!
//! The scenario says which shares are asked for; workers write the attributes with each row and judge filtered answers,
//! the coordinator puts the fields into the index. Laws: what a row carries is arithmetic over the seed and the row's
//! number, the same in every copy; a filter of a share matches exactly that share of the base's rows, rounded to a row;
//! a narrower filter of the same kind matches a part of what a wider one does.

use serde::{Deserialize, Serialize};

use crate::count;
use crate::live_set::LiveSet;

/// Hash field of the tags.
pub const TAG_FIELD: &str = "tag";
/// Hash field of the number.
pub const NUMBER_FIELD: &str = "number";
/// The tag that every row has: a field without a tag would not be indexed at all.
const EVERY: &[u8] = b"all";
/// Keep the two orders apart from each other and from that of deletes.
const TAG_ORDER: u64 = 0x7A65_0DD5;
const NUMBER_ORDER: u64 = 0x4E75_3BE2;
/// Parts in which a share is written in a tag's name.
const PARTS: f64 = 1e6;

/// Which rows a query may find; shares of the base's rows, 0..=1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Those that carry a tag which this share of the rows has.
    Tag(f64),
    /// Those whose number is among the lowest this share of all.
    Numeric(f64),
}

impl Filter {
    /// The share of the base's rows that match.
    #[must_use]
    pub fn share(self) -> f64 {
        match self {
            Self::Tag(share) | Self::Numeric(share) => share,
        }
    }
}

/// What the rows of a run carry; nothing where no phase filters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    /// Seed of the run.
    pub seed: u64,
    /// Rows of the base.
    pub rows: u64,
    /// The shares that have a tag, ascending.
    pub tags: Vec<f64>,
    /// Whether each row has a number: its place in an order of all rows.
    pub number: bool,
}

/// The rows that match a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection(LiveSet);

impl Selection {
    /// Whether a row of the base matches, in any copy.
    #[must_use]
    pub fn takes(self, row: u64) -> bool {
        self.0.is_live(0, row)
    }

    /// Rows of the base that match.
    #[must_use]
    pub fn count(self) -> u64 {
        self.0.count()
    }
}

impl Attributes {
    /// What rows must carry so that each of these filters can be asked.
    #[must_use]
    pub fn for_filters(seed: u64, rows: u64, filters: impl IntoIterator<Item = Filter>) -> Self {
        let mut all = Self { seed, rows, tags: Vec::new(), number: false };
        for filter in filters {
            match filter {
                Filter::Tag(share) => all.tags.push(share),
                Filter::Numeric(_) => all.number = true,
            }
        }
        all.tags.sort_by(f64::total_cmp);
        all.tags.dedup();
        all
    }

    /// Whether rows carry nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && !self.number
    }

    /// Whether rows have tags.
    #[must_use]
    pub fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    /// The hash fields, in the order in which [`Attributes::write`] gives their values.
    #[must_use]
    pub fn fields(&self) -> Vec<&'static str> {
        let tag = self.has_tags().then_some(TAG_FIELD);
        tag.into_iter().chain(self.number.then_some(NUMBER_FIELD)).collect()
    }

    /// The values of a row's fields: tags into `tag`, the number into `number`; both are emptied first.
    pub fn write(&self, row: u64, tag: &mut Vec<u8>, number: &mut Vec<u8>) {
        tag.clear();
        number.clear();
        if self.has_tags() {
            tag.extend_from_slice(EVERY);
            let place = self.order(TAG_ORDER).position(0, row);
            for share in &self.tags {
                if place.is_some_and(|place| place < self.matching(*share)) {
                    tag.push(b',');
                    tag.extend_from_slice(tag_name(*share).as_bytes());
                }
            }
        }
        if self.number {
            let place = self.order(NUMBER_ORDER).position(0, row).unwrap_or(self.rows);
            number.extend_from_slice(place.to_string().as_bytes());
        }
    }

    /// The rows that match.
    #[must_use]
    pub fn selection(&self, filter: Filter) -> Selection {
        let order = match filter {
            Filter::Tag(_) => TAG_ORDER,
            Filter::Numeric(_) => NUMBER_ORDER,
        };
        Selection(self.order(order).with_cut(self.matching(filter.share())))
    }

    /// The filter as both search modules write it before `=>[KNN ...]`.
    #[must_use]
    pub fn expression(&self, filter: Filter) -> String {
        match filter {
            Filter::Tag(share) => format!("(@{TAG_FIELD}:{{{}}})", tag_name(share)),
            // Open above, so that no row at all can be asked for too.
            Filter::Numeric(share) => format!("(@{NUMBER_FIELD}:[-inf ({}])", self.matching(share)),
        }
    }

    fn order(&self, order: u64) -> LiveSet {
        LiveSet::empty(self.seed ^ order, self.rows, 1)
    }

    fn matching(&self, share: f64) -> u64 {
        count::from_f64((share * count::to_f64(self.rows)).round()).min(self.rows)
    }
}

/// A tag's name says how many rows of a million have it.
fn tag_name(share: f64) -> String {
    format!("p{}", count::from_f64((share * PARTS).round()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn carried(attributes: &Attributes, row: u64) -> (Vec<String>, Option<u64>) {
        let (mut tag, mut number) = (Vec::new(), Vec::new());
        attributes.write(row, &mut tag, &mut number);
        let tags = String::from_utf8(tag).unwrap();
        let tags = tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        (tags, String::from_utf8(number).unwrap().parse().ok())
    }

    proptest! {
        #[test]
        fn a_filter_matches_exactly_its_share_and_what_rows_carry_says_the_same(
            seed: u64, rows in 1_u64..400, a in 0.0_f64..=1.0, b in 0.0_f64..=1.0, n in 0.0_f64..=1.0,
        ) {
            let (a, b) = (count::to_f64(count::from_f64(a * 1e4)) / 1e4, count::to_f64(count::from_f64(b * 1e4)) / 1e4);
            let filters = [Filter::Tag(a), Filter::Tag(b), Filter::Numeric(n)];
            let attributes = Attributes::for_filters(seed, rows, filters);
            prop_assert_eq!(attributes.fields(), [TAG_FIELD, NUMBER_FIELD]);
            for filter in filters {
                let selection = attributes.selection(filter);
                let wanted = count::from_f64((filter.share() * count::to_f64(rows)).round());
                prop_assert_eq!(selection.count(), wanted);
                prop_assert_eq!(count::len((0..rows).filter(|row| selection.takes(*row)).count()), wanted);
                prop_assert!(!selection.takes(rows));
                let expression = attributes.expression(filter);
                for row in 0..rows {
                    let (tags, number) = carried(&attributes, row);
                    prop_assert_eq!(&tags[0], "all");
                    // As a server reads the expression.
                    let matches = match filter {
                        Filter::Tag(_) => tags.iter().any(|tag| expression == format!("(@tag:{{{tag}}})")),
                        Filter::Numeric(_) => {
                            let below = expression.trim_start_matches("(@number:[-inf (").trim_end_matches("])");
                            number.unwrap() < below.parse::<u64>().unwrap()
                        }
                    };
                    prop_assert_eq!(matches, selection.takes(row));
                }
            }
            let rows_of = |filter| -> HashSet<u64> {
                (0..rows).filter(|row| attributes.selection(filter).takes(*row)).collect()
            };
            let (small, large) = (rows_of(Filter::Tag(a.min(b))), rows_of(Filter::Tag(a.max(b))));
            prop_assert!(small.is_subset(&large));
        }
    }

    #[test]
    fn rows_carry_only_what_some_phase_asks_for() {
        let none = Attributes::for_filters(1, 10, []);
        assert!(none.is_empty());
        assert_eq!((none.fields(), carried(&none, 3)), (vec![], (vec![], None)));
        let number = Attributes::for_filters(1, 10, [Filter::Numeric(0.5)]);
        assert_eq!(number.fields(), ["number"]);
        assert_eq!(number.expression(Filter::Numeric(0.5)), "(@number:[-inf (5])");
    }
}
