//! Deterministic content: the same numbers for the same (seed, phase, request), on every machine.
//!
//! Splitting by request number, not by worker, is what makes the content of a run independent of the fleet's size.

/// A source of pseudo-random numbers for one request (SplitMix64; Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The source that belongs to request `n` of a phase.
    #[must_use]
    pub fn new(seed: u64, phase: u32, n: u64) -> Self {
        let phase = mix(seed ^ mix(u64::from(phase).wrapping_add(0x9E37_79B9_7F4A_7C15)));
        Self { state: mix(phase ^ mix(n.wrapping_add(0xD1B5_4A32_D192_ED03))) }
    }

    /// The next 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// Uniform in `0..bound`, without modulo bias worth measuring (Lemire's multiply-shift); 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// Uniform in the open interval (0, 1): never 0, so its logarithm is finite.
    pub fn unit(&mut self) -> f64 {
        let bits = self.next_u64() >> 12;
        (crate::count::to_f64(bits) + 0.5) / crate::count::to_f64(1 << 52)
    }
}

/// Mixes 64 bits so that each input bit flips about half of the output bits (the SplitMix64 finaliser).
#[must_use]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
