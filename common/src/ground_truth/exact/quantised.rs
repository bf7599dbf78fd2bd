//! Proposes neighbours from vectors whose coordinates are rounded to bytes: a quarter of the size of floats, and
//! several times their products per instruction.
//!
//! Fed with the queries once and with rows in blocks by [`super::ExactSearch`], which judges what is proposed. A vector
//! v less a fixed centre c is kept as v - c = s i + r: whole numbers i of 8 bits, one scale s for the rows of a panel or
//! for a query. Law: a row whose exact distance could count is always proposed, because
//! |<x - c, q - c> - <s i_x, s i_q>| <= |r_x| |q - c| + |s i_x| |r_q|, and all rounding is added to that.

#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(not(target_arch = "x86_64"))]
#[path = "quantised/no_kernel.rs"]
mod kernel;
mod rounding;

use std::ops::Range;

use self::kernel::Isa;
use self::rounding::{Centre, Reach, norm};
use super::super::distance::UNIT_F32;
use super::{above, narrow};
use crate::count;
use crate::scenario::Metric;

/// Rows of a panel.
const PANEL: usize = 32;
/// Queries of a group: with two registers of sums for each, as many as 32 registers hold beside the operands.
pub(super) const GROUP: usize = 12;
/// More coordinates could overflow sums of 32 bits.
const DIMS_MAX: usize = 1 << 16;
/// What underflow can take from a score: a scale that is not normal is off by up to 2^-150, a sum of bytes reaches 2^31.
const UNDERFLOW: f64 = 3e-36;
/// Rows that are scanned together: their bytes stay in the cache of a core.
pub(super) const ROWS_TOGETHER: usize = 1024;

/// Four coordinates of each row of a panel, one byte each, 128 for 0.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Step([u8; 4 * PANEL]);

/// Some rows with a common scale. score = a + scale * sum of bytes, the smaller the nearer.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    /// Infinite for rows that take no part.
    a: [f32; PANEL],
    scale: f32,
    /// Largest |r| of a row.
    residual: f32,
    /// Largest |s i| of a row.
    size: f32,
    /// What rounding may add to any score.
    slack: f32,
}

/// Some queries, coordinate by coordinate.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Four coordinates of each query at a time, one signed byte each.
    numbers: Vec<[i32; GROUP]>,
    /// Where sums begin: takes back that 128 stands for 0 in rows.
    start: [i32; GROUP],
    /// Step between two bytes, times the factor that products have in a score.
    scale: [f32; GROUP],
    /// What multiplies a panel's residual in the error.
    norm: [f32; GROUP],
    /// What multiplies a panel's size in the error.
    residual: [f32; GROUP],
    /// What rounding may add to any score.
    slack: [f32; GROUP],
}

/// A row that could count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hit {
    /// Place of the query within its group.
    pub(super) query: usize,
    /// Place of the row within the scanned rows.
    pub(super) row: usize,
    /// No more than the exact score.
    pub(super) low: f32,
}

/// How a query's scores and distances belong together: distance = score + offset.
#[derive(Clone, Copy, Debug)]
struct Offset {
    offset: f64,
    error: f64,
}

/// The queries of a search, rounded.
#[derive(Debug)]
pub(super) struct Quantised {
    isa: Isa,
    metric: Metric,
    dims: usize,
    centre: Centre,
    groups: Vec<Group>,
    offsets: Vec<Offset>,
}

/// Rows of one block, rounded. Kept from block to block for its memory.
#[derive(Debug, Default)]
pub(super) struct Panels {
    panels: Vec<Panel>,
    steps: Vec<Step>,
}

impl Quantised {
    /// None where this machine has no instruction for it, or where the vectors are beyond it. `rows` are some of the
    /// base: the better their centre is that of all, the fewer rows are proposed.
    pub(super) fn new(metric: Metric, dims: usize, queries: &[f32], rows: &[f32]) -> Option<Self> {
        Self::with(*Isa::all().first()?, metric, dims, queries, rows)
    }

    fn with(isa: Isa, metric: Metric, dims: usize, queries: &[f32], rows: &[f32]) -> Option<Self> {
        if dims > DIMS_MAX {
            return None;
        }
        let centre = Centre::of(metric, dims, rows);
        let mut all = Self { isa, metric, dims, centre, groups: Vec::new(), offsets: Vec::new() };
        for queries in queries.chunks(GROUP * dims) {
            let group = all.group(queries)?;
            all.groups.push(group);
        }
        Some(all)
    }

    fn group(&mut self, queries: &[f32]) -> Option<Group> {
        let nothing = [0.0; GROUP];
        let mut group = Group {
            numbers: vec![[0; GROUP]; self.dims.div_ceil(4)],
            start: [0; GROUP],
            scale: nothing,
            norm: nothing,
            residual: nothing,
            slack: nothing,
        };
        let mut bytes = vec![0; self.centre.bytes()];
        let (relative, far) = (self.relative(), self.centre.norm);
        let times = if self.metric == Metric::L2 { 2.0 } else { 1.0 };
        for (j, query) in queries.chunks_exact(self.dims).enumerate() {
            let factor = self.centre.factor_of(query);
            let mut reach = Reach::nothing();
            self.centre.reach(query, factor, &mut reach);
            let scale = reach.scale();
            let rounded = self.centre.round(query, factor, scale, &mut bytes);
            if !rounded.is_in_range() {
                return None;
            }
            let mut sum = 0;
            for (number, four) in group.numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
                let signed = four.map(|byte| byte ^ 0x80);
                number[j] = i32::from_le_bytes(signed);
                sum += signed.iter().map(|x| i32::from(x.cast_signed())).sum::<i32>();
            }
            group.start[j] = -128 * sum;
            group.scale[j] = narrow(-times) * scale;
            let (size, length) = (rounded.squares.sqrt(), norm(query) * factor);
            let residual = rounded.residual + relative * (size + far);
            // The sum as a float, its scale, the score and what is made of the score: less than 8 times round-off.
            let rounding = 8.0 * UNIT_F32 * (size + residual);
            group.norm[j] = widened(times * size + relative * length);
            group.residual[j] = widened(times * (residual + rounding) + relative * length);
            let (offset, error) = match self.metric {
                Metric::L2 => (rounded.squares, relative * rounded.squares),
                Metric::InnerProduct | Metric::Cosine => {
                    let pairs = query.iter().zip(self.centre.values());
                    let with_centre = pairs.map(|(x, c)| f64::from(*x) * factor * f64::from(*c)).sum::<f64>();
                    (1.0 - with_centre, relative * (1.0 + length * far))
                }
            };
            group.slack[j] = widened(error);
            self.offsets.push(Offset { offset, error });
        }
        Some(group)
    }

    /// Bound of the relative error of 64-bit arithmetic, in exact distances and in what is computed here.
    fn relative(&self) -> f64 {
        (4.0 * count::to_f64(count::len(self.dims)) + 64.0) * f64::EPSILON
    }

    /// Rounds the rows of a block; says whether it can. Uses up to `threads` threads.
    pub(super) fn fill(
        &self,
        panels: &mut Panels,
        rows: &[f32],
        takes_part: &[bool],
        threads: usize,
    ) -> bool {
        let n = takes_part.len().div_ceil(PANEL);
        let each = self.dims.div_ceil(4);
        panels.panels.clear();
        panels.panels.resize(n, Panel::empty());
        panels.steps.resize(n * each, Step([128; 4 * PANEL]));
        let share = n.div_ceil(threads.max(1)).max(1);
        let shares = panels.panels.chunks_mut(share).zip(panels.steps.chunks_mut(share * each));
        let of_rows = rows.chunks(share * PANEL * self.dims).zip(takes_part.chunks(share * PANEL));
        std::thread::scope(|scope| {
            let mut working = Vec::new();
            for ((panels, steps), (rows, takes_part)) in shares.zip(of_rows) {
                let work = move || self.isa.fill(self, panels, steps, rows, takes_part);
                working.push(scope.spawn(work));
            }
            working.into_iter().all(|work| work.join().unwrap_or(false))
        })
    }

    /// Rounds the rows of some panels.
    #[inline(always)]
    fn fill_here(&self, panels: &mut [Panel], steps: &mut [Step], rows: &[f32], takes_part: &[bool]) -> bool {
        let each = self.dims.div_ceil(4);
        let mut bytes = vec![128; self.centre.bytes() * PANEL];
        let of_rows = rows.chunks(PANEL * self.dims).zip(takes_part.chunks(PANEL));
        for ((panel, steps), (rows, takes_part)) in
            panels.iter_mut().zip(steps.chunks_exact_mut(each)).zip(of_rows)
        {
            *panel = Panel::empty();
            let mut factors = [0.0; PANEL];
            let mut reach = Reach::nothing();
            let taking_part =
                || rows.chunks_exact(self.dims).zip(takes_part).enumerate().filter(|(_, (_, part))| **part);
            for (j, (row, _)) in taking_part() {
                factors[j] = self.centre.factor_of(row);
                self.centre.reach(row, factors[j], &mut reach);
            }
            panel.scale = reach.scale();
            let (mut residual, mut size, mut slack) = (0.0_f64, 0.0_f64, 0.0_f64);
            for (j, (row, _)) in taking_part() {
                let bytes = bytes.get_mut(j * self.centre.bytes()..).unwrap_or_default();
                let rounded = self.centre.round(row, factors[j], panel.scale, bytes);
                if !rounded.is_in_range() {
                    return false;
                }
                let length = rounded.squares.sqrt();
                residual = residual.max(rounded.residual + self.relative() * (length + self.centre.norm));
                size = size.max(rounded.size);
                let (a, own) = match self.metric {
                    Metric::L2 => (rounded.squares, 0.0),
                    Metric::InnerProduct | Metric::Cosine => {
                        (-rounded.with_centre, self.relative() * length * self.centre.norm)
                    }
                };
                slack = slack.max(8.0 * UNIT_F32 * a.abs() + own);
                panel.a[j] = narrow(a);
            }
            panel.residual = widened(residual);
            panel.size = widened(size);
            panel.slack = widened(slack + UNDERFLOW);
            for (i, step) in steps.iter_mut().enumerate() {
                let fours =
                    bytes.chunks_exact(self.centre.bytes()).filter_map(|row| row.as_chunks::<4>().0.get(i));
                for (place, four) in step.0.as_chunks_mut::<4>().0.iter_mut().zip(fours) {
                    *place = *four;
                }
            }
        }
        true
    }

    /// The score above which no row can be nearer to a query than this distance.
    pub(super) fn limit(&self, query: usize, farthest: f64) -> f32 {
        let Some(Offset { offset, error }) = self.offsets.get(query) else { return f32::MAX };
        above(farthest - offset + error + self.relative() * (farthest.abs() + offset.abs()))
    }

    /// How far above a hit's `low` the exact score can be.
    pub(super) fn spread(&self, panels: &Panels, query: usize, row: usize) -> f64 {
        let (panel, group) = (panels.panels.get(row / PANEL), self.groups.get(query / GROUP));
        panel
            .zip(group)
            .map_or(f64::INFINITY, |(panel, group)| 2.0 * f64::from(panel.error(group, query % GROUP)))
    }

    /// Notes the rows within a range, which starts at a panel, that could count for a group's queries.
    pub(super) fn scan(
        &self,
        panels: &Panels,
        rows: Range<usize>,
        group: usize,
        limits: &[f32; GROUP],
        hits: &mut Vec<Hit>,
    ) {
        let each = self.dims.div_ceil(4);
        let range = rows.start / PANEL..rows.end.div_ceil(PANEL).min(panels.panels.len());
        let steps = panels.steps.get(range.start * each..range.end * each);
        if let (Some(panels), Some(steps), Some(group)) =
            (panels.panels.get(range), steps, self.groups.get(group))
        {
            self.isa.scan(panels, steps, group, limits, hits);
        }
    }
}

impl Panel {
    fn empty() -> Self {
        Self { a: [f32::INFINITY; PANEL], scale: 1.0, residual: 0.0, size: 0.0, slack: 0.0 }
    }

    /// Bound of |score - score in exact arithmetic|, and a little more for what is made of it.
    #[inline(always)]
    fn error(&self, group: &Group, query: usize) -> f32 {
        self.residual * group.norm[query]
            + self.size * group.residual[query]
            + (self.slack + group.slack[query])
    }
}

/// Not below `x` after some operations in 32 bits, each of which rounds.
fn widened(x: f64) -> f32 {
    above(x * (1.0 + 16.0 * UNIT_F32))
}

#[cfg(test)]
mod tests;
