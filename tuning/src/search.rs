//! A search as a value: its specification, what was answered so far, and what to do next.
//!
//! Held by whoever runs phases, who performs the actions, feeds the answers and may write the whole down at any moment.
//! Laws: the answers alone decide what is asked; a search that is read back asks what it would have asked.

use serde::{Deserialize, Serialize};

use crate::measured::Event;

/// What can be searched: given the answers so far it ends, or asks for the next.
pub trait Spec {
    /// One measurement.
    type Ask;
    /// What follows in the end.
    type Outcome;
    /// Why it cannot be searched.
    type Error;

    /// Whether it can be searched.
    ///
    /// # Errors
    /// When it cannot.
    fn check(&self) -> Result<(), Self::Error>;

    /// Goes through the answers from the beginning.
    ///
    /// # Errors
    /// The first question that none of them answers.
    fn follow(&self, answers: &[Event]) -> Result<Self::Outcome, Self::Ask>;
}

/// What to do next, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action<A, O> {
    /// Wait until the target has nothing of the last measurement left to do.
    Drain,
    /// Measure this once.
    Measure(A),
    /// Nothing: this follows.
    Done(Box<O>),
}

/// A search under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Search<S> {
    spec: S,
    log: Vec<Event>,
}

impl<S: Spec> Search<S> {
    /// Begins.
    ///
    /// # Errors
    /// When the specification cannot be searched.
    pub fn new(spec: S) -> Result<Self, S::Error> {
        spec.check()?;
        Ok(Self { spec, log: Vec::new() })
    }

    /// What to do now: also the first call, and the call after the state was read back.
    #[must_use]
    pub fn actions(&self) -> Vec<Action<S::Ask, S::Outcome>> {
        match self.spec.follow(&self.log) {
            Ok(outcome) => vec![Action::Done(Box::new(outcome))],
            Err(ask) if self.log.is_empty() => vec![Action::Measure(ask)],
            Err(ask) => vec![Action::Drain, Action::Measure(ask)],
        }
    }

    /// Takes what became of the last question; says what to do now.
    pub fn step(&mut self, event: Event) -> Vec<Action<S::Ask, S::Outcome>> {
        self.log.push(event.checked());
        self.actions()
    }

    /// What is searched.
    #[must_use]
    pub fn spec(&self) -> &S {
        &self.spec
    }

    /// What was answered so far.
    #[must_use]
    pub fn answers(&self) -> &[Event] {
        &self.log
    }
}
