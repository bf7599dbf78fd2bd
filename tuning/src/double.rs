//! A target whose capacity and recall are known functions, for the tests of the searches.
//!
//! Latency is like that of a queue: p99 = base / (1 - load). Recall rises with ef and capacity falls with it. Noise is
//! log-normal on the figure and on the capacity of the moment; capacity may drift from one measurement to the next.

use crate::figure::Figure;
use crate::measured::{Event, Measured, Reading};

/// A small generator, so that the laws are over the same numbers on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        let mut noise = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
        noise.uniform();
        noise.uniform();
        noise
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((z ^ (z >> 31)) >> 32).unwrap();
        (f64::from(high) + 0.5) / 4_294_967_296.0
    }

    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Double {
    noise: Noise,
    /// Requests per second at ef 100.
    pub(crate) capacity: f64,
    /// Relative deviation of p99 between repeats.
    pub(crate) p99_noise: f64,
    /// Relative deviation of the capacity between repeats.
    pub(crate) capacity_noise: f64,
    /// Absolute deviation of recall between repeats.
    pub(crate) recall_noise: f64,
    /// By what the capacity is multiplied from one measurement to the next.
    pub(crate) drift: f64,
    /// ef at which recall has lost all but 1/e of its lack.
    pub(crate) ef_scale: f64,
    /// Rates below this are slow: the processor sleeps between requests.
    pub(crate) sleepy_below: f64,
    pub(crate) requests: u64,
    pub(crate) measurements: usize,
}

/// Nanoseconds of p99 at no load.
const BASE_NS: f64 = 1e6;
/// Seconds of one measurement.
const SECONDS: f64 = 10.0;

impl Double {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            noise: Noise::new(seed),
            capacity: 20_000.0,
            p99_noise: 0.05,
            capacity_noise: 0.0,
            recall_noise: 0.002,
            drift: 1.0,
            ef_scale: 40.0,
            sleepy_below: 0.0,
            requests: 0,
            measurements: 0,
        }
    }

    pub(crate) fn capacity_at(&self, ef: f64) -> f64 {
        self.capacity * 1.5 / (0.5 + ef / 100.0)
    }

    pub(crate) fn recall_at(&self, ef: f64) -> f64 {
        1.0 - 0.5 * (-ef / self.ef_scale).exp()
    }

    /// The rate at which p99 is so many nanoseconds.
    pub(crate) fn limit(&self, ef: f64, p99_ns: f64) -> f64 {
        self.capacity_at(ef) * (1.0 - BASE_NS / p99_ns)
    }

    /// One open-loop measurement.
    pub(crate) fn at(&mut self, rate: f64, ef: f64) -> Measured {
        self.measurements += 1;
        self.capacity *= self.drift;
        let capacity = self.capacity_at(ef) * (self.capacity_noise * self.noise.normal()).exp();
        let load = rate / capacity;
        let queue = if load < 0.999 { 1.0 / (1.0 - load) } else { 1000.0 };
        let backlog_ns = (load - 1.0).max(0.0) * SECONDS * 1e9;
        let sleepy = if rate < self.sleepy_below { 30.0 } else { 1.0 };
        let p99 = (BASE_NS * queue * sleepy + backlog_ns) * (self.p99_noise * self.noise.normal()).exp();
        let recall = (self.recall_at(ef) + self.recall_noise * self.noise.normal()).clamp(0.0, 1.0);
        let requests = u64::try_from(crate::number::nearest(rate * SECONDS)).unwrap();
        self.requests += requests;
        Measured { requests, ..Measured::default() }
            .with(Figure::P99, Reading::of(p99))
            .with(Figure::Recall, Reading::of(recall))
            .with(Figure::Qps, Reading::of(rate.min(capacity)))
            .with(Figure::AchievedShare, Reading::of((1.0 / load).min(1.0)))
            .with(Figure::ErrorRate, Reading::of((1.0 - 1.0 / load).max(0.0)))
    }

    /// One closed-loop measurement: as many requests as the target takes.
    pub(crate) fn flat_out(&mut self, ef: f64) -> Measured {
        let jitter = (self.p99_noise * self.noise.normal()).exp();
        let rate = self.capacity_at(ef) * jitter;
        self.at(rate, ef).with(Figure::Qps, Reading::of(rate))
    }

    pub(crate) fn event(&mut self, rate: f64, ef: f64) -> Event {
        Event::Measured(self.at(rate, ef))
    }
}
