//! Phases that somebody asks for while the run goes on: taken up, or refused with the reason.
//!
//! Asked through the session, answered when the run waits again. Law: who asks is answered exactly once.

use std::sync::Arc;

use super::Shell;
use crate::plan;
use crate::run::Event;
use crate::session::{Demand, Waiting};

impl Shell {
    /// Somebody wants a further phase, or to know when the run waits for one.
    pub(super) async fn demand(&mut self, Demand { phase, last, answer }: Demand) {
        if let Some(spec) = phase {
            let planned = plan::further(&self.prepared.plan, self.prepared.data.as_ref(), &spec);
            let phase = match planned {
                Ok(phase) => phase,
                Err(reason) => {
                    // Nobody is left to be told if the asker has gone.
                    let _ = answer.send(Err(reason));
                    return;
                }
            };
            Arc::make_mut(&mut self.prepared.plan).phases.push(phase.clone());
            self.awaits = false;
            self.waiting = Some(answer);
            self.take(Event::Next(Some(Box::new(phase)))).await;
        } else if last {
            self.awaits = false;
            let _ = answer.send(Ok(self.place()));
            self.take(Event::Next(None)).await;
        } else {
            self.waiting = Some(answer);
            if self.awaits {
                self.tell_waiting();
            }
        }
    }

    pub(super) fn tell_waiting(&mut self) {
        if let Some(answer) = self.waiting.take() {
            let _ = answer.send(Ok(self.place()));
        }
    }

    pub(super) fn place(&self) -> Waiting {
        Waiting { run: self.run.as_str().to_owned(), run_directory: self.location.clone() }
    }
}
