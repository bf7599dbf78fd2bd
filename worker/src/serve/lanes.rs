//! The lane threads of a worker.
//!
//! Started when they are first armed, under the registration of the moment; ended when what they hold is void. Law: what a
//! lane that was ended says late is nobody's.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::lane;
use crate::work::{LaneCommand, LaneEvent};

/// A lane that runs.
#[derive(Debug)]
struct Running {
    number: u32,
    handle: lane::Handle,
}

/// All lanes, by position.
#[derive(Debug)]
pub(super) struct Lanes {
    /// How they are started; `None` before the first registration.
    config: Option<lane::Config>,
    running: Vec<Option<Running>>,
    started: u32,
    said: UnboundedSender<(u32, LaneEvent)>,
    events: UnboundedReceiver<(u32, LaneEvent)>,
}

impl Default for Lanes {
    fn default() -> Self {
        let (said, events) = unbounded_channel();
        Self { config: None, running: Vec::new(), started: 0, said, events }
    }
}

impl Lanes {
    /// What is started from now on is called so; what runs ends.
    pub(super) fn register(&mut self, config: lane::Config) {
        self.end_all();
        self.config = Some(config);
    }

    /// What a lane that runs says next, and its position.
    pub(super) async fn next(&mut self) -> Option<(u32, LaneEvent)> {
        loop {
            let (number, event) = self.events.recv().await?;
            let is = |lane: &Option<Running>| lane.as_ref().is_some_and(|lane| lane.number == number);
            let at = self.running.iter().position(is).and_then(|at| u32::try_from(at).ok());
            if let Some(at) = at {
                return Some((at, event));
            }
        }
    }

    /// Gives a command to the lane at a position; one that does not run is started to be armed, and hears nothing else.
    pub(super) fn command(&mut self, lane: u32, command: LaneCommand) -> Result<(), lane::SpawnError> {
        let Ok(at) = usize::try_from(lane) else { return Ok(()) };
        if matches!(command, LaneCommand::Arm { .. }) {
            self.start(at)?;
        }
        if let Some(Some(lane)) = self.running.get(at) {
            lane.handle.send(command);
        }
        Ok(())
    }

    fn start(&mut self, at: usize) -> Result<(), lane::SpawnError> {
        let Some(config) = &self.config else { return Ok(()) };
        while self.running.len() <= at {
            self.running.push(None);
        }
        if let Some(place @ None) = self.running.get_mut(at) {
            self.started = self.started.wrapping_add(1);
            let config = lane::Config { number: self.started, ..config.clone() };
            let handle = lane::spawn(config, self.said.clone())?;
            *place = Some(Running { number: self.started, handle });
        }
        Ok(())
    }

    /// Gives a command to all.
    pub(super) fn tell_all(&self, command: impl Fn() -> LaneCommand) {
        self.running.iter().flatten().for_each(|lane| lane.handle.send(command()));
    }

    /// Ends the lanes at so many positions from the first.
    pub(super) fn end(&mut self, first: u32, count: u32) {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let ended: Vec<_> = self.running.iter_mut().skip(first).take(count).map(Option::take).collect();
        // Ending a lane waits for its thread.
        tokio::task::spawn_blocking(move || drop(ended));
    }

    /// Ends all.
    pub(super) fn end_all(&mut self) {
        let ended = std::mem::take(&mut self.running);
        tokio::task::spawn_blocking(move || drop(ended));
    }

    /// Ends all and waits for their threads.
    pub(super) async fn leave(&mut self) {
        let ended = std::mem::take(&mut self.running);
        let _ = tokio::task::spawn_blocking(move || drop(ended)).await;
    }
}
