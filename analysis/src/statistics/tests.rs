use std::f64::consts::PI;

use super::*;

/// A small generator of our own, so that the law is over the same series on every machine.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        count::to_f64((mixed ^ (mixed >> 32)) >> 11) / 9_007_199_254_740_992.0
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().max(1e-300).ln()).sqrt() * (2.0 * PI * self.uniform()).cos()
    }

    /// A flat series about 1,000 whose neighbours correlate by `rho`, with a relative spread.
    fn flat(&mut self, n: usize, rho: f64, spread: f64) -> Vec<f64> {
        let mut x = self.normal();
        (0..n)
            .map(|_| {
                x = rho * x + (1.0 - rho * rho).sqrt() * self.normal();
                1_000.0 * (1.0 + spread * x)
            })
            .collect()
    }
}

#[test]
fn of_flat_series_hardly_any_pair_is_called_different() {
    let mut noise = Noise(7);
    for (rho, lengths) in [
        (0.0, &[12, 20, 60, 300][..]),
        (0.3, &[12, 20, 60, 300]),
        (0.6, &[12, 20, 60, 300]),
        (0.8, &[20, 60, 300]),
    ] {
        for n in lengths.iter().copied() {
            let pairs = 1_000;
            let called = (0..pairs)
                .filter(|_| {
                    let a = Estimate::of(&noise.flat(n, rho, 0.1)).unwrap();
                    let b = Estimate::of(&noise.flat(n, rho, 0.1)).unwrap();
                    let difference = Difference::of(&a, &b);
                    // A regression is one-sided, as in the comparison of runs.
                    -difference.value > difference.margin(0.99)
                })
                .count();
            assert!(called <= pairs / 100, "{called} of {pairs} for rho {rho}, n {n}");
        }
    }
}

#[test]
fn a_difference_that_is_there_is_seen() {
    let mut noise = Noise(9);
    let seen = (0..200)
        .filter(|_| {
            let a = Estimate::of(&noise.flat(60, 0.5, 0.05)).unwrap();
            let slower: Vec<f64> = noise.flat(60, 0.5, 0.05).iter().map(|x| x * 0.9).collect();
            let difference = Difference::of(&a, &Estimate::of(&slower).unwrap());
            -difference.value > difference.margin(0.99)
        })
        .count();
    assert!(seen > 190, "{seen} of 200");
}

#[test]
fn a_lines_slope_lies_in_its_interval_as_often_as_it_says() {
    let mut noise = Noise(3);
    for rho in [0.0, 0.6] {
        let missed = (0..1_000)
            .filter(|_| {
                let points: Vec<(f64, f64)> = (0..60)
                    .zip(noise.flat(60, rho, 0.05))
                    .map(|(i, y)| (f64::from(i), y + 3.0 * f64::from(i)))
                    .collect();
                let line = Line::through(&points, true).unwrap();
                (line.slope - 3.0).abs() > line.slope_margin(0.95)
            })
            .count();
        assert!(missed <= 60, "{missed} of 1000 for rho {rho}");
    }
}

#[test]
fn a_line_without_noise_is_found_and_continued() {
    let points = [(1.0, 12.0), (2.0, 14.0), (4.0, 18.0)];
    let line = Line::through(&points, false).unwrap();
    assert!((line.slope - 2.0).abs() < 1e-9 && (line.intercept - 10.0).abs() < 1e-9);
    let (value, margin) = line.predict(100.0, 0.95);
    assert!((value - 210.0).abs() < 1e-6 && margin < 1e-6, "{value} {margin}");
    assert_eq!(Line::through(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)], false), None);
}
