//! What to measure next, and what follows from what was measured: how much a target can do, which setting is best, and
//! whether B is better than A.
//!
//! Pure: no clock, no I/O, no randomness. Each search is a value with `step(event) -> actions`; its state is what was
//! asked and what was answered, so that a search that was stopped goes on at its next measurement. Whoever runs
//! phases against a target feeds it and reads the outcome. Laws: the same answers give the same questions; no outcome
//! says more than its noise allows; every search ends within its budget.

mod book;
mod number;
mod replay;

pub mod campaign;
pub mod compare;
pub mod constraint;
pub mod curve;
pub mod figure;
pub mod limit;
pub mod measured;
pub mod search;
pub mod section;
pub mod statistics;
pub mod sweep;
pub mod throughput;
pub mod tune;

#[cfg(test)]
mod double;
