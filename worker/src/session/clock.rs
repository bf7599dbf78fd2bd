//! How far the coordinator's clock is from the own one, from the heartbeats of the last seconds.
//!
//! The exchange with the shortest round trip has the smallest error, so it is the one that counts; old ones leave,
//! because clocks drift.

use std::collections::VecDeque;

use vst_common::clock::ClockOffset;

/// How many exchanges are remembered.
const REMEMBERED: usize = 8;

/// The last exchanges of a registration.
#[derive(Debug, Default)]
pub(super) struct Exchanges(VecDeque<ClockOffset>);

impl Exchanges {
    /// Takes in an exchange; the oldest leaves.
    pub(super) fn add(&mut self, exchange: ClockOffset) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(exchange);
    }

    /// The exchange with the smallest error; `None` before the first.
    pub(super) fn best(&self) -> Option<ClockOffset> {
        self.0.iter().min_by_key(|exchange| exchange.error_ns).copied()
    }
}
