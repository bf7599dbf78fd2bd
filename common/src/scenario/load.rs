//! How much is asked of a target, and when: the closed and the open loop, and the arrivals of the latter.

use serde::{Deserialize, Serialize};

/// How requests arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// A fixed number of requests is in flight; the next waits for a reply.
    Closed {
        /// Clients over the whole fleet, each with its own connection to every node.
        clients: u32,
        /// Requests in flight per client.
        pipeline: u32,
    },
    /// Requests fall due by the clock, whatever the target does.
    Open {
        /// When requests fall due.
        arrival: Arrival,
        /// Connections to each node over the whole fleet: the bound of requests in flight.
        connections: u32,
    },
}

/// The arrival function of an open phase; rates are requests per second over the whole fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Evenly spaced.
    Constant {
        /// Requests per second.
        rate: f64,
    },
    /// Rate grows (or falls) linearly over the phase.
    Ramp {
        /// At the start, requests per second.
        from: f64,
        /// At the end, requests per second.
        to: f64,
    },
    /// Constant rates one after another.
    Steps {
        /// (requests per second, length in milliseconds), repeated last when the phase is longer.
        steps: Vec<(f64, u64)>,
    },
    /// A base rate with periodic bursts.
    Burst {
        /// Between bursts, requests per second.
        base: f64,
        /// Within a burst, requests per second.
        peak: f64,
        /// Length of a burst, milliseconds.
        length_ms: u64,
        /// From one burst's start to the next, milliseconds.
        period_ms: u64,
    },
    /// A Poisson process.
    Poisson {
        /// Mean requests per second.
        rate: f64,
    },
}

impl Arrival {
    /// The highest rate, requests per second; of a Poisson process the mean.
    #[must_use]
    pub fn peak_rate(&self) -> f64 {
        match self {
            Self::Constant { rate } | Self::Poisson { rate } => *rate,
            Self::Ramp { from, to } => from.max(*to),
            Self::Steps { steps } => steps.iter().map(|(rate, _)| *rate).fold(0.0, f64::max),
            Self::Burst { base, peak, .. } => base.max(*peak),
        }
    }
}
