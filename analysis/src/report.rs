//! The same summary for different readers.
//!
//! `terminal` is what a person sees after a run; more forms (JSON is the summary itself) stand beside it. Reports
//! decide nothing: every number and every sentence of judgement comes from the summary.

pub(crate) mod terminal;
