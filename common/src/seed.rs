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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_same_request_draws_the_same_numbers(seed in any::<u64>(), phase in any::<u32>(), n in any::<u64>()) {
            let (mut a, mut b) = (Draw::new(seed, phase, n), Draw::new(seed, phase, n));
            prop_assert_eq!([a.next_u64(), a.next_u64(), a.next_u64()], [b.next_u64(), b.next_u64(), b.next_u64()]);
        }

        #[test]
        fn each_part_of_the_identity_matters(seed in any::<u64>(), phase in any::<u32>(), n in any::<u64>(), bit in 0..64) {
            let first = Draw::new(seed, phase, n).next_u64();
            prop_assert_ne!(first, Draw::new(seed ^ (1_u64 << bit), phase, n).next_u64());
            prop_assert_ne!(first, Draw::new(seed, phase ^ (1_u32 << (bit % 32)), n).next_u64());
            prop_assert_ne!(first, Draw::new(seed, phase, n ^ (1_u64 << bit)).next_u64());
        }

        #[test]
        fn a_draw_stays_in_its_range(n in any::<u64>(), bound in any::<u64>()) {
            let mut draw = Draw::new(1, 1, n);
            prop_assert!(draw.below(bound) < bound.max(1));
            let unit = draw.unit();
            prop_assert!(unit > 0.0 && unit < 1.0);
        }

        #[test]
        fn mixing_loses_nothing(a in any::<u64>(), b in any::<u64>()) {
            prop_assert_eq!(a == b, mix(a) == mix(b));
        }
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The published sequence of state 1234567.
        let mut draw = Draw { state: 1_234_567 };
        assert_eq!(draw.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(draw.next_u64(), 3_203_168_211_198_807_973);
        assert_eq!(draw.next_u64(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn neighbouring_requests_draw_evenly_and_independently() {
        // 100,000 first draws into 100 bins: chi-square of 99 degrees, mean 99, deviation 14.
        let mut bins = [0_f64; 100];
        let mut first = BTreeSet::new();
        let mut rising = 0_u32;
        let mut last = 0.0;
        for n in 0..100_000 {
            let mut draw = Draw::new(42, 1, n);
            bins[crate::count::index(draw.below(100))] += 1.0;
            first.insert(draw.next_u64());
            let unit = draw.unit();
            rising += u32::from(unit > last);
            last = unit;
        }
        let chi: f64 = bins.iter().map(|b| (b - 1000.0).powi(2) / 1000.0).sum();
        assert!((chi - 99.0).abs() < 5.0 * 14.1, "chi-square {chi}");
        assert_eq!(first.len(), 100_000);
        assert!((f64::from(rising) - 50_000.0).abs() < 500.0, "rising {rising}");
    }
}
