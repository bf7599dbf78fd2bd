//! Scores of a panel of rows against a group of queries, from dot products of bytes, and the rows that could count.
//!
//! Fed with panels and groups by the quantised proposer, which reads the hits. Law: a hit is reported for exactly the
//! rows with `a + scale * dot <= limit + error`, whatever instructions the processor offers.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _CMP_LE_OQ, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32,
    _mm256_fmadd_ps, _mm256_movemask_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_set1_epi32, _mm512_set1_ps,
};
use std::mem::transmute;

use super::{GROUP, Group, Hit, PANEL, Panel, Quantised, Step};

/// Queries whose sums 16 registers of half the width hold.
const FEW: usize = 3;

/// Instructions that multiply bytes and sum the products without saturation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    /// 512-bit registers.
    Avx512Vnni,
    /// 256-bit registers.
    AvxVnni,
}

/// What the scores of a panel are made with and held against, one number per query.
struct Bounds {
    scale: [f32; GROUP],
    error: [f32; GROUP],
    limit: [f32; GROUP],
}

impl Isa {
    /// Those that this processor has; the widest first.
    pub(super) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            all.push(Self::Avx512Vnni);
        }
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("avxvnni")
        {
            all.push(Self::AvxVnni);
        }
        all
    }

    /// Notes the rows of `panels` whose score is within the error of the limit of a query; `steps` holds the panels'
    /// bytes, as many for each as the group has.
    #[expect(unsafe_code, reason = "calls code for instructions that this machine has shown to have")]
    pub(super) fn scan(
        self,
        panels: &[Panel],
        steps: &[Step],
        group: &Group,
        limits: &[f32; GROUP],
        hits: &mut Vec<Hit>,
    ) {
        match self {
            // SAFETY: `all` gives this value only where both features were detected.
            Self::Avx512Vnni => unsafe { scan_512(panels, steps, group, limits, hits) },
            // SAFETY: `all` gives this value only where the three features were detected.
            Self::AvxVnni => unsafe { scan_256(panels, steps, group, limits, hits) },
        }
    }
}

impl Isa {
    /// Rounds the rows of some panels; says whether it can.
    #[expect(unsafe_code, reason = "calls code for instructions that this machine has shown to have")]
    pub(super) fn fill(
        self,
        queries: &Quantised,
        panels: &mut [Panel],
        steps: &mut [Step],
        rows: &[f32],
        takes_part: &[bool],
    ) -> bool {
        match self {
            // SAFETY: `all` gives this value only where the features were detected.
            Self::Avx512Vnni => unsafe { fill_512(queries, panels, steps, rows, takes_part) },
            // SAFETY: `all` gives this value only where the features were detected.
            Self::AvxVnni => unsafe { fill_256(queries, panels, steps, rows, takes_part) },
        }
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn fill_512(
    queries: &Quantised,
    panels: &mut [Panel],
    steps: &mut [Step],
    rows: &[f32],
    takes_part: &[bool],
) -> bool {
    queries.fill_here(panels, steps, rows, takes_part)
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn fill_256(
    queries: &Quantised,
    panels: &mut [Panel],
    steps: &mut [Step],
    rows: &[f32],
    takes_part: &[bool],
) -> bool {
    queries.fill_here(panels, steps, rows, takes_part)
}

impl Bounds {
    #[inline(always)]
    fn new(panel: &Panel, group: &Group, limits: &[f32; GROUP]) -> Self {
        let (mut scale, mut error, mut limit) = ([0.0; GROUP], [0.0; GROUP], [0.0; GROUP]);
        for j in 0..GROUP {
            scale[j] = panel.scale * group.scale[j];
            error[j] = panel.error(group, j);
            // Rows that take no part score infinity.
            limit[j] = (limits[j] + error[j]).min(f32::MAX);
        }
        Self { scale, error, limit }
    }
}

/// Notes the rows of a panel that are near; `sums` are those of the queries from `first` on.
#[cold]
#[inline(never)]
fn note<const N: usize>(
    hits: &mut Vec<Hit>,
    bounds: &Bounds,
    panel: (usize, &Panel),
    first: usize,
    near: &[u32; N],
    sums: &[[i32; PANEL]; N],
) {
    for ((query, near), sums) in (first..).zip(near).zip(sums) {
        let mut near = *near;
        while near != 0 {
            let lane = near.trailing_zeros() as usize;
            near &= near - 1;
            // The same operations in the same order as where it was found to be near.
            let score = to_f32(sums[lane]).mul_add(bounds.scale[query], panel.1.a[lane]);
            hits.push(Hit { query, row: panel.0 * PANEL + lane, low: score - bounds.error[query] });
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rounds to the nearest, as the processor's own conversion does"
)]
fn to_f32(sum: i32) -> f32 {
    sum as f32
}

// Registers come from arrays and become arrays by transmutation and not by loads from pointers: it is the same
// instruction, there is no pointer to be wrong, and in builds with debug assertions nothing is checked per load.

#[target_feature(enable = "avx512f,avx512vnni")]
#[expect(unsafe_code, reason = "arrays become registers of the same size")]
fn scan_512(panels: &[Panel], steps: &[Step], group: &Group, limits: &[f32; GROUP], hits: &mut Vec<Hit>) {
    let each = group.numbers.len().max(1);
    for (number, (panel, steps)) in panels.iter().zip(steps.chunks_exact(each)).enumerate() {
        let bounds = Bounds::new(panel, group, limits);
        let mut sums = [[_mm512_set1_epi32(0); 2]; GROUP];
        for query in 0..GROUP {
            sums[query] = [_mm512_set1_epi32(group.start[query]); 2];
        }
        for (step, queries) in steps.iter().zip(&group.numbers) {
            // SAFETY: 128 bytes either way, and any bits are whole numbers.
            let rows: [__m512i; 2] = unsafe { transmute(step.0) };
            for query in 0..GROUP {
                let number = _mm512_set1_epi32(queries[query]);
                sums[query][0] = _mm512_dpbusd_epi32(sums[query][0], rows[0], number);
                sums[query][1] = _mm512_dpbusd_epi32(sums[query][1], rows[1], number);
            }
        }
        // SAFETY: 32 numbers either way.
        let a: [__m512; 2] = unsafe { transmute(panel.a) };
        let (mut near, mut any) = ([0_u32; GROUP], 0);
        for query in 0..GROUP {
            let (scale, limit) = (_mm512_set1_ps(bounds.scale[query]), _mm512_set1_ps(bounds.limit[query]));
            let left = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[query][0]), scale, a[0]);
            let right = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[query][1]), scale, a[1]);
            near[query] = u32::from(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(left, limit))
                | u32::from(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(right, limit)) << 16;
            any |= near[query];
        }
        if any != 0 {
            // SAFETY: 12 x 32 numbers either way.
            let sums: [[i32; PANEL]; GROUP] = unsafe { transmute(sums) };
            note(hits, &bounds, (number, panel), 0, &near, &sums);
        }
    }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
#[expect(unsafe_code, reason = "arrays become registers of the same size")]
fn scan_256(panels: &[Panel], steps: &[Step], group: &Group, limits: &[f32; GROUP], hits: &mut Vec<Hit>) {
    let each = group.numbers.len().max(1);
    for (number, (panel, steps)) in panels.iter().zip(steps.chunks_exact(each)).enumerate() {
        let bounds = Bounds::new(panel, group, limits);
        for first in (0..GROUP).step_by(FEW) {
            let mut sums = [[_mm256_set1_epi32(0); 4]; FEW];
            for query in 0..FEW {
                sums[query] = [_mm256_set1_epi32(group.start[first + query]); 4];
            }
            for (step, queries) in steps.iter().zip(&group.numbers) {
                // SAFETY: 128 bytes either way, and any bits are whole numbers.
                let rows: [__m256i; 4] = unsafe { transmute(step.0) };
                for query in 0..FEW {
                    let number = _mm256_set1_epi32(queries[first + query]);
                    for part in 0..4 {
                        sums[query][part] = _mm256_dpbusd_avx_epi32(sums[query][part], rows[part], number);
                    }
                }
            }
            // SAFETY: 32 numbers either way.
            let a: [__m256; 4] = unsafe { transmute(panel.a) };
            let (mut near, mut any) = ([0_u32; FEW], 0);
            for query in 0..FEW {
                let scale = _mm256_set1_ps(bounds.scale[first + query]);
                let limit = _mm256_set1_ps(bounds.limit[first + query]);
                for part in 0..4 {
                    let score = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[query][part]), scale, a[part]);
                    let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(score, limit));
                    near[query] |= mask.cast_unsigned() << (part * 8);
                }
                any |= near[query];
            }
            if any != 0 {
                // SAFETY: 3 x 32 numbers either way.
                let sums: [[i32; PANEL]; FEW] = unsafe { transmute(sums) };
                note(hits, &bounds, (number, panel), first, &near, &sums);
            }
        }
    }
}
